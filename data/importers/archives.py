"""
Other people's files, made into archives: `prepare.py --archive=FILE,FOLDER,..`. What a file is, its content says, not
its name; what was understood of it is printed before anything is written. Nothing of a file is executed.

| file | what it reads |
|---|---|
| `trajectories.py` | from columns to episodes, and what is said of them: the same for all formats |
| `columns.py`, `tuples.py` | which column is what, which item of a tuple |
| `boundaries.py`, `checks.py` | where episodes end, and whether they fit |
| `tables.py` | Parquet and Arrow, one row an episode or a step; csv |
| `hdf5.py` | HDF5 of D4RL, Minari and robomimic |
| `minari.py` | folders of Minari: HDF5, Arrow, Parquet |
| `lerobot.py` | folders of LeRobot, v2.0, v2.1 and v3.0 |
| `ribs.py` | solutions of pyribs, with a rollout |
| `npz.py` | npz: D4RL's keys, Stable-Baselines, imitation |
| `../pickled_trajectories.py` | pickles, joblib, torch.save, .npy with objects |
"""

import glob
import os
from pathlib import Path

import numpy as np

from data import archive
from data.contract import part
from data.importers.detect import open_source
from data.importers.lerobot import is_lerobot
from data.importers.minari import is_minari
from data.importers.ribs import Ribs, holds_solutions
from data.importers.trajectories import Import, Options  # noqa: F401, it is part of the call


def archives_of(names, folder, dataset, kwargs, meta, options):
    """
    The files of --archive as archives -> list of their paths. What is none yet becomes one in `folder`, of which the
    metadata say that it is not replayed: where its episodes begin is not known.

    names: separated by commas: files, folders, patterns; dataset: the data set's module; meta: what its archives say of
    themselves; options: an Options. ValueError, of one line, before anything is written
    """
    opened = opened_sources(names, options.rollout)
    surveys = [source and survey_of(source, dataset, meta, options) for _, source in opened]
    files, taken = [], {'episodes', 'steps'}  # what prepare.py counts beside its sources
    for (path, source), survey in zip(opened, surveys):
        if source is None:
            files.append(path)
            continue
        print('\n  '.join(survey.report()))
        stem = free_name(path.name.partition('.')[0] or path.parent.name, taken)
        made = folder / f'imported_{stem}.parquet'
        archive.save(made, with_ends(survey, dataset, kwargs, meta, stem), {**meta, 'replay': False})
        print(f'  now in {made}; they are not replayed')
        files.append(made)
    return files


def opened_sources(names, rollout=''):
    """-> list of (path, its source, None where it is an archive already). rollout: of solutions of pyribs"""
    return [(path, with_rollouts(open_source(path), rollout)) for path in named_paths(names)]


def named_paths(names):
    """of --archive -> list of paths"""
    listed = [names] if Path(names).exists() else names.split(',')
    return [path for name in listed for path in paths_of(name.strip())]


def is_newer(names, file):
    """has something that --archive names changed after this file was written?"""
    then = file.stat().st_mtime_ns
    return any(f.stat().st_mtime_ns > then for path in named_paths(names) for f in (path, *path.rglob('*')))


def with_rollouts(source, rollout):
    if source is not None and holds_solutions(getattr(source, 'names', ())):
        return Ribs(source, rollout)
    return source


def survey_of(source, dataset, meta, options):
    """-> Import, gone through once; ValueError where it does not fit the data set"""
    found = Import(source, meta['dataset'], meta, options)
    if 'discount' in meta and not (found.fields.reward or found.fields.to_go):
        assumed = getattr(dataset, 'ASSUMED_REWARD', None)
        if assumed is None:
            raise ValueError(
                f'{source.file}: no rewards in episode 0, of which {meta["dataset"]} makes its returns. '
                'Save them: rewards (steps,)'
            )
        found.assume_reward(assumed)
    return found.survey()


def paths_of(name):
    """a file, a folder or a pattern -> list of paths"""
    path = Path(os.path.expanduser(name))
    if path.exists():
        return files_of(path)
    matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True))
    if not matches:
        raise FileNotFoundError(f'no archive {name}. Make one with: python prepare.py')
    return matches


def files_of(path):
    """a file, a folder of a known layout, or the files of another folder -> list of paths"""
    if path.is_file() or is_minari(path) or is_lerobot(path):
        return [path]
    exported = sorted(path.glob('data/*.parquet'))  # a folder of prepare.py --export
    files = exported or sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != '.')
    if not files:
        raise ValueError(f'{path} is a folder of no known layout, without files. Name files: --archive="{path}/*/*"')
    return files


def free_name(stem, taken):
    """a name that no other file of this run has"""
    name, n = stem, 1
    while name in taken:
        n += 1
        name = f'{stem}_{n}'
    taken.add(name)
    return name


def with_ends(survey, dataset, kwargs, meta, source):
    """yields a survey's episodes as archives hold them, with bd and path"""
    ends = ends_of(dataset, kwargs, meta)
    for episode in survey.episodes():
        yield {**episode, **ends(episode), 'seed': -1, 'source': source}


def ends_of(dataset, kwargs, meta):
    """what makes bd and path of an episode: the data set's from_trajectory, or what its spec says of itself"""
    if hasattr(dataset, 'from_trajectory'):
        return lambda episode: dataset.from_trajectory(episode, kwargs)
    if not meta['n_bd']:
        return lambda episode: {'bd': np.zeros(0), 'path': np.zeros((len(episode['act']) + 1, 0))}
    if 'discount' in meta:
        return lambda episode: returns(episode['reward'], meta['discount'])
    return part(dataset, 'from_trajectory', 'Make an archive of the trajectories instead: see data/README.md')


@np.errstate(over='ignore', invalid='ignore')  # what is not finite is left out, and said
def returns(reward, discount):
    """rewards (T,) -> bd (1,), the return, and path (T + 1, 1), the return so far"""
    so_far = np.cumsum(np.asarray(reward, np.float64) * discount ** np.arange(len(reward)))
    path = np.append(0, so_far).astype(np.float32)[:, None]
    return {'path': path, 'bd': path[-1]}
