"""Other people's files (data/importers): how fast they become archives, and what reading them alone would cost."""

import contextlib
import importlib.util
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.pairs import skipped
from data import gym
from data.contract import archive_meta
from data.importers.archives import Options, archives_of, opened_sources


def columns(n, seed):
    """rows as of D4RL's HalfCheetah, episodes of 1000 steps"""
    rng = np.random.default_rng(seed)
    return {
        'observations': rng.normal(size=(n, 17)).astype(np.float32),
        'actions': rng.uniform(-1, 1, (n, 6)).astype(np.float32),
        'rewards': rng.normal(size=n).astype(np.float32),
        'timeouts': np.arange(n) % 1000 == 999,
    }


def write_hdf5(file, found):
    import h5py

    with h5py.File(file, 'w') as f:
        for name, column in found.items():
            f[name] = column


def write_parquet(file, found):
    lists = {k: pa.FixedSizeListArray.from_arrays(c.reshape(-1), c.shape[1]) for k, c in found.items() if c.ndim == 2}
    pq.write_table(pa.table({**found, **lists}), file)


def read_hdf5(file):
    import h5py

    with h5py.File(file) as f:
        return {name: f[name][:] for name in f}


def to_archive(file, folder):
    with contextlib.redirect_stdout(io.StringIO()):
        kwargs = gym.env_kwargs(**gym.of_files(str(file)))
        archives_of(str(file), folder, gym, kwargs, archive_meta(gym, kwargs), Options())


def read(file):
    """all blocks of its rows, and nothing else"""
    (_, source), *_ = opened_sources(str(file))
    return sum(len(piece['actions']) for piece in source.pieces())


def files(bench):
    """HDF5 and Parquet, 0.2 million steps"""
    found = columns(bench.size(200_000, 2000), bench.seed)
    size = sum(column.nbytes for column in found.values()) / 1e6
    rows = []
    for name, write, alone in ('HDF5', write_hdf5, read_hdf5), ('Parquet', write_parquet, pq.read_table):
        if name == 'HDF5' and not importlib.util.find_spec('h5py'):
            rows.append(skipped(name, "pip install '.[hdf5]'"))
            continue
        file = bench.folder / f'import_{name}'
        write(file, found)
        made = f'{name} of {size:.0f} MB, checked and made an archive'
        rows.append(bench.per_second(made, lambda f=file: to_archive(f, bench.folder / 'imported'), size, ' MB/s', 50))
        beside = f'{name}, its blocks of rows against one call of its library'
        rows.append(bench.compare(beside, lambda f=file, g=alone: g(f), lambda f=file: read(f), 0))
    return rows
