"""
Prepared data as a data set of LeRobot, v3.0: meta/info.json, meta/tasks.parquet, meta/episodes and meta/stats.json, and
data/**/*.parquet with a row a frame. LeRobot itself is not needed.

$ python prepare.py --export=lerobot/toy-nav --export_format=lerobot
$ python -c "from lerobot.datasets.lerobot_dataset import LeRobotDataset as L; print(L('x', root='lerobot/toy-nav')[0])"

An episode's task is one of its sentences, '' where there is none; the others, the request and its seed are columns of
meta/episodes. Beside observation.state and action there are next.done, next.reward where there are rewards, float64 for
the exact return, and taught, False where the action is not to be imitated. LeRobot keeps no observation after the last
action. `splits` of info.json says which episodes are train, val and test.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.exporters import episodes as exports
from data.exporters.episodes import check  # noqa: F401, it is part of the call

VERSION = 'v3.0'
SHARD = 100e6  # bytes: a file that has reached them is the last but for another
CHUNK = 1000  # files in a folder
FILE = '{folder}/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
LIST = pa.list_(pa.string())
NO_STATS = ('next.done', 'taught')  # flags
WORDS = {'split': pa.string(), 'source': pa.string(), 'seed': pa.int64(), 'asked': pa.string()}
WORDS |= {'text': LIST, 'loose': LIST, 'held_out': LIST}


def export(folder, to, dataset, about, licence):
    """
    Write prepared data to a folder, all of it or nothing; an OSError says what is in the way.

    dataset: its module; about: what archives of it say of themselves
    """
    check(to, licence)
    name, episodes = Path(to).resolve().name, exports.Episodes(folder, dataset)
    fps, said_fps = frames_a_second(episodes)
    with exports.whole_folder(to) as partial:
        written = Writer(partial, episodes, fps)
        for block in episodes.blocks():
            written.add(block)
        written.close()
        (partial / 'README.md').write_text(exports.card(episodes, name, licence, 'LeRobot'), encoding='utf-8')
    for note in [*said_fps, *episodes.notes()]:
        print(f'  {note}')
    print(
        f'exported {len(episodes)} episodes to {to} ({exports.megabytes(to):.0f} MB). '
        f"Next: LeRobotDataset('you/{name}', root='{to}')"
    )


def frames_a_second(episodes):
    """-> the rate that timestamps are made with, and what there is to say of it, a list"""
    fps = None
    if episodes.has_environment and hasattr(episodes.dataset, 'make_env'):
        env = episodes.dataset.make_env(**episodes.kwargs)
        fps = env.metadata.get('render_fps')
        env.close()
    if fps:
        return int(fps), []
    return 1, ['nothing says how many steps a second has (render_fps): timestamps count steps']


# ------------------------------------------------------------------------------
# what is written


class Writer:
    """Frames and episodes, a block at a time."""

    def __init__(self, folder, episodes, fps):
        self.folder, self.meta, self.episodes, self.fps = folder, episodes.meta, episodes, fps
        self.features = features(episodes)
        self.schema = pa.schema([(name, arrow_type(f)) for name, f in self.features.items()])
        self.tasks = {}  # {text: number}
        self.n_frames, self.n_episodes, self.n_files = 0, 0, 0
        self.data, self.about = None, None  # writers of Parquet
        self.stats = None  # of all frames so far

    def add(self, block):
        if self.data is None or Path(self.data.where).stat().st_size > SHARD:
            self.next_file()
        frames, rows, of_block = [], [], [self.stats] if self.stats else []
        for e in block:
            columns = self.columns(e)
            stats = stats_of({name: column for name, column in columns.items() if name not in NO_STATS})
            frames.append(pa.table([arrow(columns[f.name], f.type) for f in self.schema], schema=self.schema))
            rows.append(self.row(e, stats))
            of_block.append(stats)
            self.n_frames += len(e['act'])
            self.n_episodes += 1
        self.stats = added_up(of_block)
        self.data.write_table(pa.concat_tables(frames).combine_chunks())
        table = pa.Table.from_pylist(rows, schema=episode_schema(rows[0]))
        if self.about is None:
            self.about = writer(self.folder, 'meta/episodes', 0, table.schema)
        self.about.write_table(table)

    def next_file(self):
        if self.data:
            self.data.close()
        self.data = writer(self.folder, 'data', self.n_files, self.schema)
        self.n_files += 1

    def columns(self, e):
        """an episode -> {feature: array (T, ..)}"""
        T = len(e['act'])
        task = self.tasks.setdefault(exports.text_of(e), len(self.tasks))
        columns = {
            'observation.state': e['obs'][:T],
            'action': e['act'],
            'next.done': e['terminated'] | e['truncated'],
            'taught': e['taught'],
            'timestamp': (np.arange(T) / self.fps).astype(np.float32),
            'frame_index': np.arange(T),
            'episode_index': np.full(T, self.n_episodes),
            'index': self.n_frames + np.arange(T),
            'task_index': np.full(T, task),
        }
        if self.episodes.has_reward:
            columns['next.reward'] = e['reward']
        return columns

    def row(self, e, stats):
        """of meta/episodes"""
        chunk, file = divmod(self.n_files - 1, CHUNK)
        row = {
            'episode_index': self.n_episodes,
            'tasks': [exports.text_of(e)],
            'length': len(e['act']),
            'data/chunk_index': chunk,
            'data/file_index': file,
            'dataset_from_index': self.n_frames,
            'dataset_to_index': self.n_frames + len(e['act']),
            'meta/episodes/chunk_index': 0,
            'meta/episodes/file_index': 0,
            **{name: e[name] for name in WORDS},
        }
        for name, of_feature in stats.items():
            row |= {f'stats/{name}/{key}': value.tolist() for key, value in of_feature.items()}
        return row

    def close(self):
        self.data.close()
        self.about.close()
        pq.write_table(task_table(self.tasks), self.folder / 'meta' / 'tasks.parquet')
        save(self.folder / 'meta' / 'stats.json', self.stats)
        save(self.folder / 'meta' / 'info.json', self.info())

    def info(self):
        return {
            'codebase_version': VERSION,
            'robot_type': self.meta['dataset'],
            'total_episodes': self.n_episodes,
            'total_frames': self.n_frames,
            'total_tasks': len(self.tasks),
            'chunks_size': CHUNK,
            'data_files_size_in_mb': int(SHARD / 1e6),
            'video_files_size_in_mb': 200,
            'fps': self.fps,
            'splits': {name: f'{a}:{b}' for name, (a, b) in self.episodes.ranges().items()},
            'data_path': FILE.replace('{folder}', 'data'),
            'video_path': None,
            'features': self.features,
        }


def writer(folder, name, number, schema):
    chunk, file = divmod(number, CHUNK)
    path = folder / FILE.format(folder=name, chunk_index=chunk, file_index=file)
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(path, schema, compression='zstd')


def save(file, said):
    file.write_text(json.dumps(said, indent=1, default=lambda array: array.tolist()), encoding='utf-8')


# ------------------------------------------------------------------------------
# features


def features(episodes):
    """-> {name: {dtype, shape, names}} of all columns"""
    meta = episodes.meta
    made = {'observation.state': vector(meta['obs_names'])}
    made['action'] = vector(meta['act_names']) if meta['continuous'] else scalar('int64')
    if episodes.has_reward:
        made['next.reward'] = scalar('float64')
    made |= {'next.done': scalar('bool'), 'taught': scalar('bool'), 'timestamp': scalar('float32')}
    return made | {name: scalar('int64') for name in ('frame_index', 'episode_index', 'index', 'task_index')}


def vector(names):
    return {'dtype': 'float32', 'shape': [len(names)], 'names': list(names)}


def scalar(dtype):
    return {'dtype': dtype, 'shape': [1], 'names': None}


def arrow_type(feature):
    kind = pa.bool_() if feature['dtype'] == 'bool' else getattr(pa, feature['dtype'])()
    return kind if feature['shape'] == [1] else pa.list_(kind, feature['shape'][0])


def arrow(rows, kind):
    """(T, width) or (T,) -> an Arrow array; a vector of one number is a scalar to LeRobot"""
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(rows), kind.value_type), kind.list_size)
    return pa.array(np.ravel(rows), kind)


def task_table(tasks):
    """{text: number} -> the table that pandas reads with the text as its index"""
    columns = [
        {'name': 'task_index', 'field_name': 'task_index', 'pandas_type': 'int64', 'numpy_type': 'int64'},
        {'name': 'task', 'field_name': 'task', 'pandas_type': 'unicode', 'numpy_type': 'object'},
    ]
    columns = [{**column, 'metadata': None} for column in columns]
    pandas = {'index_columns': ['task'], 'column_indexes': [], 'columns': columns}
    schema = pa.schema({'task_index': pa.int64(), 'task': pa.string()}, metadata={'pandas': json.dumps(pandas)})
    return pa.table([pa.array(tasks.values(), pa.int64()), pa.array(tasks, pa.string())], schema=schema)


def episode_schema(row):
    """of meta/episodes"""
    kinds = {'tasks': LIST, **WORDS}
    for name in row:
        if name.startswith('stats/'):
            kinds[name] = pa.list_(pa.int64() if name.endswith('/count') else pa.float64())
    return pa.schema([(name, kinds.get(name, pa.int64())) for name in row])


# ------------------------------------------------------------------------------
# statistics


def stats_of(columns):
    """{feature: rows} -> {feature: {min, max, mean, std, count, q01 ..: (width,)}}"""
    stats = {}
    for name, rows in columns.items():
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        stats[name] = {'min': rows.min(0), 'max': rows.max(0), 'mean': rows.mean(0), 'std': rows.std(0)}
        stats[name]['count'] = np.array([len(rows)])
        for q, values in zip(QUANTILES, np.quantile(rows, QUANTILES, axis=0)):
            stats[name][f'q{round(100 * q):02d}'] = values
    return stats


def added_up(parts):
    """stats of parts -> of all of them; quantiles are means of theirs, as LeRobot adds them up"""
    total = {}
    for name in parts[0]:
        of = {key: np.stack([part[name][key] for part in parts]) for key in parts[0][name]}  # (n, width)
        n = of.pop('count')
        mean = (of['mean'] * n).sum(0) / n.sum()
        variance = ((of['std'] ** 2 + (of['mean'] - mean) ** 2) * n).sum(0) / n.sum()
        total[name] = {key: (values * n).sum(0) / n.sum() for key, values in of.items() if key.startswith('q')}
        total[name] |= {'min': of['min'].min(0), 'max': of['max'].max(0), 'mean': mean, 'std': np.sqrt(variance)}
        total[name]['count'] = n.sum(0)
    return total
