"""
Minari's folders (0.4 to 0.5): data/metadata.json, and main_data.hdf5 or a folder an episode with Arrow or Parquet,
whose last row of all but the observations and infos is padding. Dicts of spaces are 'observations/..', Text is a list
of strings.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from data.importers import hdf5
from data.importers.tables import columns_of, first_line, refuse_pointers


def is_minari(path):
    return any((path / name).is_file() for name in ('data/metadata.json', 'metadata.json', 'main_data.hdf5'))


def read_json(file):
    try:
        said = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f'{file} is no JSON ({first_line(e)}). Copy the folder again') from None
    if not isinstance(said, dict):
        raise ValueError(f'{file} holds a {type(said).__name__}, not an object. Copy the folder again')
    return said


class Minari:
    """One piece an episode."""

    layout = 'episodes'
    with_infos = False

    def __init__(self, path):
        self.file = path
        folder = path / 'data' if (path / 'data').is_dir() else path
        refuse_pointers(file for file in folder.rglob('*.*') if file.is_file())
        meta = folder / 'metadata.json'
        self.meta = read_json(meta) if meta.is_file() else {}
        self.notes = []
        self.unread = {}
        main = folder / 'main_data.hdf5'
        form = self.meta.get('data_format', 'hdf5' if main.is_file() else 'arrow')
        if form not in ('hdf5', 'arrow', 'parquet'):
            raise ValueError(
                f'{meta}: data_format is {form!r}, not hdf5, arrow or parquet. Load and save it with minari'
            )
        self.kind = f'Minari, {form}'
        self.groups, self.folders = None, []
        if form == 'hdf5':
            self.groups = hdf5.Groups(main, '/', self.kind)
            self.unread = self.groups.unread
        else:
            numbered = [f for f in folder.iterdir() if f.is_dir() and f.name.isdecimal()]
            self.folders = sorted(numbered, key=lambda f: int(f.name))

    def pieces(self):
        n = 0
        if self.groups:
            self.groups.with_infos = self.with_infos
        for piece in self.groups.pieces() if self.groups else map(self.of_folder, self.folders):
            n += 1
            yield piece
        total = self.meta.get('total_episodes', n)
        if total != n:
            raise ValueError(
                f'{self.file}: its metadata say {total} episodes, and {n} are there. Copy or download it again'
            )

    def of_folder(self, folder):
        """an episode of Arrow or Parquet, without the padded row"""
        try:
            tables = [read_table(file) for file in sorted(folder.glob('part-*'))]
            table = pa.concat_tables(tables)
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f'{folder} holds no whole table ({first_line(e)}). Copy it again') from None
        piece = columns_of(table, f'{folder}', self.unread)
        steps = len(table) - 1
        meta = folder / 'metadata.json'
        if meta.is_file():
            steps = read_json(meta).get('total_steps', steps)
        if not isinstance(steps, int) or steps not in (len(table), len(table) - 1):
            raise ValueError(f'{folder}: total_steps is {steps!r}, and there are {len(table)} rows. Copy it again')
        whole = ('observations', 'infos')  # of the start, too
        return {name: c if name.startswith(whole) else c[:steps] for name, c in piece.items()}


def read_table(file):
    if file.suffix == '.parquet':
        return pq.ParquetFile(file).read()
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()
