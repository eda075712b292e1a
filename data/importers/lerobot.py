"""
LeRobot's data sets, v2.0, v2.1 and v3.0: meta/info.json, the tasks' texts in meta/tasks.jsonl or meta/tasks.parquet,
and data/**/*.parquet with one row a frame, one episode or many a file. Observations are observation.state, or
--obs_keys; pictures are not read. There is no last observation, and nothing to replay them in.
"""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq

from data.importers.minari import read_json
from data.importers.tables import ROWS, columns_of, first_line, parquet, refuse_pointers


def is_lerobot(path):
    return (path / 'meta').is_dir() and (path / 'data').is_dir()


def numbers_of(file):
    """data/chunk-000/file-012.parquet -> [0, 12], to sort by"""
    return [int(n) for n in re.findall(r'\d+', f'{file.parent.name}/{file.name}')]


class LeRobot:
    """Blocks of frames; 'task' is the text of each."""

    layout = 'steps'

    def __init__(self, path):
        self.file = path
        self.notes = []
        self.unread = {}
        self.files = sorted(path.glob('data/**/*.parquet'), key=numbers_of)
        if not self.files:
            raise ValueError(f'{path}: no data/**/*.parquet in it. Download all of it: git lfs pull')
        refuse_pointers([*path.glob('meta/*.*'), *self.files])
        self.info = self.read_info()
        version = self.info.get('codebase_version', 'of no version')
        layout = 'v3' if self.files[0].name.startswith('file-') else 'v2'
        self.kind = f'LeRobot {version}'
        if not str(version).startswith(layout):
            self.notes.append(f'meta/info.json says {version}, the files are of {layout}: read by what is there')
        self.tasks = self.read_tasks()
        self.check_rows()

    def read_info(self):
        info = self.file / 'meta' / 'info.json'
        if not info.is_file() or not info.read_bytes().strip():
            self.notes.append('meta/info.json is empty or not there: columns are known by their names')
            return {}
        return read_json(info)

    def read_tasks(self):
        """-> {task_index: text}"""
        folder = self.file / 'meta'
        try:
            if (folder / 'tasks.parquet').is_file():
                return self.tasks_of(pq.ParquetFile(folder / 'tasks.parquet').read().to_pylist())
            if (folder / 'tasks.jsonl').is_file():
                lines = (folder / 'tasks.jsonl').read_text(encoding='utf-8').splitlines()
                return self.tasks_of([json.loads(line) for line in lines if line.strip()])
        except (pa.ArrowException, OSError, ValueError, RecursionError) as e:
            raise ValueError(f'{folder}: its tasks cannot be read ({first_line(e)}). Copy it again') from None
        self.notes.append('no meta/tasks.jsonl and no meta/tasks.parquet: no texts but those of a column')
        return {}

    def tasks_of(self, rows):
        """the text is called task, or has no name where pandas kept it as an index"""
        tasks = {}
        for row in rows:
            texts = [v for k, v in row.items() if isinstance(v, str) and k in ('task', '__index_level_0__', 'text')]
            if 'task_index' not in row or not texts:
                raise ValueError(f'{row} has no task_index and task')
            tasks[row['task_index']] = texts[0]
        return tasks

    def check_rows(self):
        """ValueError where files are missing"""
        n = 0
        for file in self.files:
            try:
                n += pq.read_metadata(file).num_rows
            except (pa.ArrowException, OSError) as e:
                raise ValueError(f'{file} is not a whole Parquet file ({first_line(e)}). Copy it again') from None
        total = self.info.get('total_frames', n)
        if total != n:
            raise ValueError(
                f'{self.file}: meta/info.json says {total} frames, and its files hold {n}. Download all of it'
            )

    def pieces(self):
        for file in self.files:
            try:
                with parquet(file) as frames:
                    for batch in frames.iter_batches(ROWS):
                        yield self.piece(file, batch)
            except (pa.ArrowException, OSError) as e:
                raise ValueError(f'{file} is damaged ({first_line(e)}). Copy it again') from None

    def piece(self, file, batch):
        piece = columns_of(batch, f'{file}', self.unread)
        if self.tasks and 'task_index' in piece and 'task' not in piece:
            unknown = set(piece['task_index'].tolist()) - set(self.tasks)
            if unknown:
                raise ValueError(f'{file}: task_index {min(unknown)} is none of meta/tasks. Copy the folder again')
            piece['task'] = [self.tasks[i] for i in piece['task_index'].tolist()]
        if 'episode_index' not in piece:  # a file is an episode
            raise ValueError(f'{file}: no column episode_index. Convert the data set with lerobot')
        return piece
