"""Small files of the formats that data/importers reads, and what reads them: the inputs of tests/torture.py fuzz."""

import importlib.util
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.importers.archives import Options
from data.importers.detect import open_source
from data.importers.trajectories import Import

LENGTHS = (6, 4, 9)
N = sum(LENGTHS)


def columns():
    """rows of three episodes"""
    rng = np.random.default_rng(0)
    return {
        'observations': rng.normal(size=(N, 3)).astype(np.float32),
        'actions': rng.normal(size=(N, 1)).astype(np.float32),
        'rewards': rng.normal(size=N),
        'terminals': np.isin(np.arange(N), np.cumsum(LENGTHS) - 1),
        'episode': np.repeat(np.arange(len(LENGTHS)), LENGTHS),
    }


def parts():
    """the same, a dict an episode"""
    bounds = np.append(0, np.cumsum(LENGTHS))
    return [{name: c[a:b] for name, c in columns().items()} for a, b in zip(bounds, bounds[1:])]


def hdf5(groups, **how):
    """{group: {column: array}} -> bytes"""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, 'w') as file:
        for group, found in groups.items():
            for name, column in found.items():
                file.create_dataset(f'{group}/{name}', data=column, **how)
    return stream.getvalue()


def npz():
    stream = io.BytesIO()
    np.savez(stream, **columns())
    return stream.getvalue()


def table():
    found = columns()
    obs = found.pop('observations')
    found['actions'] = found['actions'][:, 0]
    return pa.table({**{f'obs_{k}': obs[:, k] for k in range(3)}, **found})


def csv():
    rows = table().to_pydict()
    lines = [','.join(rows), *(','.join(f'{float(v):g}' for v in row) for row in zip(*rows.values()))]
    return '\n'.join(lines).encode()


def parquet():
    stream = io.BytesIO()
    pq.write_table(table(), stream)
    return stream.getvalue()


def read(path):
    """all of its episodes; AssertionError where one is not whole"""
    survey = Import(open_source(path), 'mine', {'flatten': True}, Options()).survey()
    for episode in survey.episodes():
        T = len(episode['act'])
        assert episode['obs'].shape[0] == T > 0 and episode['obs'].ndim == episode['act'].ndim == 2
        assert 'reward' not in episode or episode['reward'].shape == (T,)


def reader(file, path):
    """what writes these bytes to a file, and reads the file or the folder that it is in"""

    def write_and_read(data):
        file.write_bytes(data)
        read(path)

    return write_and_read


def lerobot(folder):
    """-> its info.json"""
    (folder / 'meta').mkdir(parents=True)
    (folder / 'data/chunk-000').mkdir(parents=True)
    frames = table().rename_columns(['obs_0', 'obs_1', 'obs_2', 'action', 'next.reward', 'next.done', 'episode_index'])
    pq.write_table(frames, folder / 'data/chunk-000/file-000.parquet')
    (folder / 'meta/tasks.jsonl').write_text('{"task_index": 0, "task": "lift it"}\n')
    return json.dumps({'codebase_version': 'v3.0', 'total_episodes': len(LENGTHS), 'total_frames': N}).encode()


def minari(folder):
    """-> its metadata.json"""
    (folder / 'data').mkdir(parents=True)
    groups = {f'episode_{i}': part for i, part in enumerate(parts())}
    (folder / 'data/main_data.hdf5').write_bytes(hdf5(groups))
    return json.dumps({'data_format': 'hdf5', 'total_episodes': len(LENGTHS), 'total_steps': N}).encode()


def importers(there):
    """a folder to work in -> {name: (a valid input, what reads it)}; HDF5 where there is h5py"""
    there.mkdir()
    files = {'npz': npz(), 'csv': csv(), 'parquet': parquet()}
    folders = {'lerobot info.json': (lerobot(there / 'l'), reader(there / 'l/meta/info.json', there / 'l'))}
    if importlib.util.find_spec('h5py'):
        files['hdf5'] = hdf5({'/': columns()})
        files['hdf5, compressed'] = hdf5({'/': columns()}, compression='gzip', chunks=True)
        files['hdf5 of robomimic'] = hdf5({f'data/demo_{i}': part for i, part in enumerate(parts())})
        folders['minari metadata.json'] = (minari(there / 'm'), reader(there / 'm/data/metadata.json', there / 'm'))
    return {name: (data, reader(there / 'file', there / 'file')) for name, data in files.items()} | folders
