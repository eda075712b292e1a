"""
Archives of episodes: one Parquet file, one row an episode, readable by pandas, polars and DuckDB too.

Columns: obs (T * n_obs), act (T * n_act), bd (n_bd), path ((T + 1) * n_bd), reward (T), taught (T, 0 where
the action is not to be imitated), flat lists of float32; text, a list
of descriptions; asked and visits, JSON; seed, policy, source; hard, how difficult it is, from 0 to 1, for a curriculum. The schema's metadata says
format version, data set, environment arguments and shapes. Nothing in an archive is ever executed.

Exports (sharing.py) are archives, too: obs, act and path are lists of lists there, one a step, with loose, held_out and novel beside text, and the
metadata say which split a file is, so that a test episode stays one.
"""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VERSION = 1
ROW_GROUP = 2048  # episodes read at a time: flat memory however long the archive
LIST = pa.list_(pa.float32())
COLUMNS = {
    'obs': LIST,
    'act': LIST,
    'bd': LIST,
    'path': LIST,
    'reward': LIST,
    'taught': LIST,
    'policy': LIST,
    'text': pa.list_(pa.string()),
    'loose': pa.list_(pa.string()),
    'held_out': pa.list_(pa.string()),
    'novel': pa.string(),
    'asked': pa.string(),
    'visits': pa.string(),
    'seed': pa.int64(),
    'source': pa.string(),
    'spread': pa.float32(),
    'hard': pa.float32(),
}
REQUIRED = ('obs', 'act', 'bd', 'seed', 'source')
META = ('dataset', 'env_kwargs', 'n_obs', 'n_act', 'n_bd')
WIDTH = {'obs': 'n_obs', 'act': 'n_act', 'path': 'n_bd'}  # columns of vectors: which metadata key is their width


def save(file, episodes, meta):
    """episodes: dicts of arrays and strings, any iterable; meta: {'dataset', 'env_kwargs', 'n_obs', 'n_act', 'n_bd', ...}"""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary, writer, rows = file.with_name(f'.{file.name}.{os.getpid()}'), None, []

    def flush():
        nonlocal writer
        names = [k for k in COLUMNS if k in rows[0] and meta.get(WIDTH.get(k), 1)]  # not what has no width
        schema = pa.schema(
            [(k, COLUMNS[k]) for k in names], metadata={'nanopilot': json.dumps({'version': VERSION, **meta})}
        )
        if writer is None:
            writer = pq.ParquetWriter(temporary, schema, compression='zstd', write_page_checksum=True)
        flat = {
            k: [np.asarray(r[k], dtype=np.float32).reshape(-1) if COLUMNS[k] == LIST else r[k] for r in rows]
            for k in names
        }
        writer.write_table(pa.table({k: pa.array(v, COLUMNS[k]) for k, v in flat.items()}, schema=schema))
        rows.clear()

    try:
        for episode in episodes:
            rows.append(episode)
            if len(rows) == ROW_GROUP:
                flush()
        if rows:
            flush()
        if writer is None:
            raise ValueError(f'no episodes to write to {file}')
        writer.close()
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


class Archive:
    """An opened archive: `meta`, `len()`, and `groups()`, which yields lists of episodes with their arrays in shape."""

    def __init__(self, file):
        self.file = Path(file)
        if not self.file.is_file():
            raise FileNotFoundError(f'no archive {file}. Make one with: python prepare.py')
        try:
            self.parquet = pq.ParquetFile(
                self.file, page_checksum_verification=True, pre_buffer=False
            )  # buffering ahead costs memory
            self.meta = json.loads((self.parquet.schema_arrow.metadata or {}).get(b'nanopilot', b'{}'))
        except (pa.ArrowException, OSError, ValueError, RecursionError) as e:
            raise ValueError(f'{file} is not a whole Parquet file ({first_line(e)}). Make or copy it again') from None
        missing = [k for k in REQUIRED if k not in self.parquet.schema_arrow.names] + [
            k for k in META if k not in self.meta
        ]
        if self.meta.get('version') != VERSION or missing:
            raise ValueError(
                f'{file} is no archive of format {VERSION} (version {self.meta.get("version")}, missing: '
                f'{missing or "none"}). See data/README.md'
            )

    def __len__(self):
        return self.parquet.metadata.num_rows

    def groups(self, size=ROW_GROUP):
        """lists of up to `size` episodes, however large the file's own row groups are"""
        names, done = [k for k in COLUMNS if k in self.parquet.schema_arrow.names], 0
        for i in range(self.parquet.num_row_groups):
            batches = self.parquet.iter_batches(size, row_groups=[i], columns=names)
            while True:
                try:
                    columns = next(batches, None)
                except (pa.ArrowException, OSError) as e:
                    raise ValueError(
                        f'{self.file} is damaged at episodes {done}.. ({first_line(e)}). Copy it again'
                    ) from None
                if columns is None:
                    break
                done += len(columns)
                episodes = [dict() for _ in range(len(columns))]
                for name, column in zip(names, columns.columns):
                    # a column of lists is one flat array and offsets: far faster than a Python object a number
                    if COLUMNS[name] == LIST:
                        flat, ends = column.values, column.offsets.to_numpy()
                        if pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type):  # a list a step
                            flat, ends = flat.values, flat.offsets.to_numpy()[ends]
                        flat = flat.to_numpy(zero_copy_only=False)
                        values = [flat[a:b].reshape(self.shape(name)) for a, b in zip(ends[:-1], ends[1:])]
                    else:
                        values = column.to_pylist()
                    for episode, value in zip(episodes, values):
                        episode[name] = value
                yield episodes

    def shape(self, name):
        return (-1, self.meta[WIDTH[name]]) if name in WIDTH else (-1,)


def first_line(error):
    return str(error).strip().split('\n')[0]
