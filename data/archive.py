"""
Archives of episodes: one Parquet file, one row an episode, readable by pandas, polars and DuckDB too.

Columns, flat lists of float32: obs (T * n_obs), act (T * n_act), bd (n_bd), path ((T + 1) * n_bd), reward (T), policy,
taught (T, 0 where the action is not to be imitated), subgoal (T * n_bd, nan where there is none). Where all
observations are ids (obs_kinds of the metadata), obs is of uint8, or uint16 if there are more. Others: text, a list
of descriptions; asked, visits and parts, JSON; seed; source; hard, how difficult the episode is, from 0 to 1, for a
curriculum. The schema's metadata holds format version, data set, environment arguments and shapes. Nothing in an
archive is ever executed.

Exports (nanopilot/hub.py) are archives, too: obs, act and path are lists of lists there, one a step, with loose,
held_out and novel beside text, and the metadata name the split of a file, so that a test episode stays one.
"""

import json
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VERSION = 1
ROW_GROUP = 2048  # episodes written at a time, so that memory does not grow with the archive
LIST = pa.list_(pa.float32())
COLUMNS = {
    'obs': LIST,
    'act': LIST,
    'bd': LIST,
    'path': LIST,
    'reward': LIST,
    'taught': LIST,
    'subgoal': LIST,
    'policy': LIST,
    'text': pa.list_(pa.string()),
    'loose': pa.list_(pa.string()),
    'held_out': pa.list_(pa.string()),
    'novel': pa.string(),
    'asked': pa.string(),
    'visits': pa.string(),
    'parts': pa.string(),
    'seed': pa.int64(),
    'source': pa.string(),
    'spread': pa.float32(),
    'hard': pa.float32(),
}
REQUIRED = ('obs', 'act', 'bd', 'seed', 'source')
META = ('dataset', 'env_kwargs', 'n_obs', 'n_act', 'n_bd')
WIDTH = {'obs': 'n_obs', 'act': 'n_act', 'path': 'n_bd', 'subgoal': 'n_bd'}  # columns of vectors: key of their width


def save(file, episodes, meta):
    """
    Write an archive, all of it or nothing.

    episodes: dicts of arrays and strings, any iterable, all with the keys of the first
    meta: {'dataset', 'env_kwargs', 'n_obs', 'n_act', 'n_bd', ..}
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f'.{file.name}.{os.getpid()}')
    writer = None
    try:
        for group in batched(episodes, ROW_GROUP):
            table = to_table(group, meta)
            if writer is None:
                writer = pq.ParquetWriter(temporary, table.schema, compression='zstd', write_page_checksum=True)
            writer.write_table(table)
        if writer is None:
            raise ValueError(f'no episodes to write to {file}. Collect more (--size)')
        writer.close()
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def batched(items, n):
    """yields lists of n items, the last one shorter"""
    items = iter(items)
    while group := list(islice(items, n)):
        yield group


def obs_dtype(meta):
    """the type that observations are kept in, by a data set's spec: of ids the smallest that holds them all"""
    kinds = meta.get('obs_kinds', [])
    if not kinds or not all(kinds):
        return np.dtype(np.float32)
    return np.min_scalar_type(max(kinds) - 1)


@np.errstate(over='ignore', invalid='ignore')  # what is not finite in float32 is left out when it is read, and said
def flat_numbers(episode, name, dtype):
    """an array of an episode, flat, of this type; ValueError for an id that is none"""
    given = np.asarray(episode[name])
    flat = given.astype(dtype).reshape(-1)
    if dtype.kind == 'u' and (flat != given.reshape(-1)).any():
        raise ValueError(f'{name} of the episode with seed {episode["seed"]} has a number that is no id. See obs_kinds')
    return flat


def to_table(episodes, meta):
    names = [name for name in COLUMNS if name in episodes[0] and meta.get(WIDTH.get(name), 1)]  # not what has no width
    dtypes = {name: np.dtype(np.float32) for name in names if COLUMNS[name] == LIST} | {'obs': obs_dtype(meta)}
    types = {name: pa.list_(pa.from_numpy_dtype(dtype)) for name, dtype in dtypes.items()}
    schema = pa.schema(
        [(name, types.get(name, COLUMNS[name])) for name in names],
        metadata={'nanopilot': json.dumps({'version': VERSION, **meta})},
    )
    columns = []
    for name in names:
        if not all(name in e for e in episodes):
            raise ValueError(f'some episodes have {name!r} and some do not. An archive needs it of all, or of none')
        values = [e[name] for e in episodes]
        if name in dtypes:
            values = [flat_numbers(e, name, dtypes[name]) for e in episodes]
        columns.append(pa.array(values, schema.field(name).type))
    return pa.table(columns, schema=schema)


class Archive:
    """An archive, for reading: `meta`, `len()`, and `groups()`, lists of episodes with their arrays in shape."""

    def __init__(self, file):
        self.file = Path(file)
        if not self.file.is_file():
            raise FileNotFoundError(f'no archive {file}. Make one with: python prepare.py')
        try:
            # buffering whole row groups costs memory
            self.parquet = pq.ParquetFile(self.file, page_checksum_verification=True, pre_buffer=False)
            self.meta = json.loads((self.parquet.schema_arrow.metadata or {}).get(b'nanopilot', b'{}'))
        except (pa.ArrowException, OSError, ValueError, RecursionError) as e:
            raise ValueError(f'{file} is not a whole Parquet file ({first_line(e)}). Make or copy it again') from None
        if not isinstance(self.meta, dict):
            raise ValueError(f'{file}: its metadata nanopilot are no JSON object {{..}}. See data/README.md')
        self.names = [name for name in COLUMNS if name in self.parquet.schema_arrow.names]
        missing = [name for name in REQUIRED if name not in self.names]
        missing += [key for key in META if key not in self.meta]
        version = self.meta.get('version')
        if version != VERSION or missing:
            raise ValueError(
                f'{file} is no archive of format {VERSION} (version {version}, missing: {missing or "none"}). '
                'See data/README.md'
            )

    def __len__(self):
        return self.parquet.metadata.num_rows

    def check(self, meta):
        """ValueError unless it is of this data set, in this environment, with these widths. meta: as for save()"""
        if self.meta['dataset'] != meta['dataset']:
            theirs = self.meta['dataset']
            raise ValueError(f'{self.file} is of {theirs}, not of {meta["dataset"]}. Pass --dataset={theirs}')
        if self.meta['env_kwargs'] != meta['env_kwargs']:
            raise ValueError(
                f'{self.file} was made with another environment than this run. Pass its --env_kwargs, or leave it out'
            )
        for key in WIDTH.values():
            if self.meta[key] != meta[key]:
                raise ValueError(
                    f'{self.file} has {key}={self.meta[key]!r}, but {meta["dataset"]} has {meta[key]!r}. Make it again'
                )

    def groups(self, size=ROW_GROUP):
        """yields lists of up to `size` episodes, however large the file's own row groups are"""
        for batch in self.batches(size):
            yield episodes_of(batch, self.meta)

    def batches(self, size):
        """yields Arrow record batches; a ValueError where the file is damaged"""
        n = 0  # episodes read
        try:
            for i in range(self.parquet.num_row_groups):
                for batch in self.parquet.iter_batches(size, row_groups=[i], columns=self.names):
                    self.check_lengths(batch, n)
                    n += len(batch)
                    yield batch
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f'{self.file} is damaged at episodes {n}.. ({first_line(e)}). Copy it again') from None

    def check_lengths(self, batch, n):
        """ValueError where an array has no whole rows. batch: an Arrow record batch, whose first episode is the n-th"""
        for name in ('bd', *WIDTH):
            if name not in batch.schema.names:
                continue
            column = batch.column(name)
            if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
                raise ValueError(f'{self.file}: {name} is {column.type}. Save a flat list of numbers an episode')
            key = WIDTH.get(name, 'n_bd')
            width = self.meta[key]
            _, ends = flat_and_ends(column)
            lengths = np.diff(ends)  # (episodes,) numbers
            wrong = lengths != width if name == 'bd' or not width else lengths % width > 0
            if wrong.any():
                i = int(wrong.argmax())
                rows = 'as many' if name == 'bd' else 'so many a row'
                raise ValueError(
                    f'{self.file}, episode {n + i}: {name} has {lengths[i]} numbers, and {key}={width}. Save {rows}'
                )


def episodes_of(batch, meta):
    """an Arrow record batch of an archive with this metadata -> dicts, a row each, with arrays in shape"""
    episodes = [{} for _ in range(len(batch))]
    for name, column in zip(batch.schema.names, batch.columns):
        for episode, value in zip(episodes, values(name, column, meta)):
            episode[name] = value
    return episodes


def values(name, column, meta):
    """an Arrow column -> a value an episode, arrays in shape"""
    if COLUMNS[name] != LIST:
        return column.to_pylist()
    flat, ends = flat_and_ends(column)
    flat = flat.to_numpy(zero_copy_only=False)
    shape = (-1,)
    if name in WIDTH:
        shape = (-1, meta[WIDTH[name]])
    return [flat[a:b].reshape(shape) for a, b in zip(ends[:-1], ends[1:])]


def flat_and_ends(column):
    """
    an Arrow column of lists, or of lists of lists -> all its numbers, and where an episode's begin: offsets (n + 1,).
    Far faster than a Python object a number
    """
    flat = column.values
    ends = column.offsets.to_numpy()
    if pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type):  # a list a step
        ends = flat.offsets.to_numpy()[ends]
        flat = flat.values
    return flat, ends


def first_line(error):
    return str(error).strip().split('\n')[0]
