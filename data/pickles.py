"""
Pickled trajectories, as people have them, read without executing anything: `python -m data.pickles FILE.pkl OUT.npz` in
a process of its own, with limits on its memory and time. `read` calls that; `to_archive` makes an archive of them.

A pickle is a program. Here its calls reach nothing but plain containers and the stand-ins below, which keep what
numpy's arrays are made of as data; arrays are made of it afterwards, of numbers only. Whatever else a pickle names ends
the reading.

Formats: a list of dicts, one an episode (observations/obs/states, actions/acts, rewards, in the singular too; other
keys are ignored), or of (state, action, return, timestep) tuples, in which timestep 0 begins an episode.
"""

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from data.contract import part

MEMORY = 4 << 30  # bytes, of the process that reads
SECONDS = 300  # of its CPU time
SPELLINGS = {
    'obs': ('observations', 'observation', 'obs', 'states', 'state'),
    'act': ('actions', 'action', 'acts', 'act'),
    'reward': ('rewards', 'reward', 'rews'),
}


class Dtype:
    """stands for numpy.dtype('f4', False, True) and what is set on it"""

    def __init__(self, name, *_):
        self.name = name
        self.order = '='

    def __setstate__(self, state):
        self.order = state[1]

    def to_numpy(self):
        if not isinstance(self.name, str) or self.name[:1] not in 'biuf':
            raise ValueError(f'it holds an array of {self.name!r}; only numbers are read')
        order = self.order if self.order in '<>' else '='
        return np.dtype(self.name).newbyteorder(order)


class Array:
    """stands for numpy.ndarray, being reconstructed"""

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def to_numpy(self):
        _, shape, dtype, fortran, data = self.state
        order = 'F' if fortran else 'C'
        return np.frombuffer(to_bytes(data), dtype.to_numpy()).reshape(shape, order=order)


def to_bytes(data):
    """protocols below 3 keep bytes as a latin-1 string"""
    return data.encode('latin1') if isinstance(data, str) else data


def scalar(dtype, data):
    return np.frombuffer(to_bytes(data), dtype.to_numpy())[0]


def from_buffer(data, dtype, shape, order):
    array = Array()
    array.state = (1, shape, dtype, order == 'F', bytes(data))
    return array


def latin1(text, encoding):
    """_codecs.encode, by which Python 2's strings travel"""
    return text.encode('latin1')


ALLOWED = {(f'numpy.{core}.multiarray', '_reconstruct'): Array for core in ('core', '_core')}
ALLOWED |= {(f'numpy.{core}.multiarray', 'scalar'): scalar for core in ('core', '_core')}
ALLOWED |= {(f'numpy.{core}.numeric', '_frombuffer'): from_buffer for core in ('core', '_core')}
ALLOWED |= {
    ('numpy', 'ndarray'): Array,
    ('numpy', 'dtype'): Dtype,
    ('_codecs', 'encode'): latin1,
    ('collections', 'OrderedDict'): dict,
}


class Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise ValueError(f'it asks for {module}.{name}, which is neither an array nor a plain container')
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        raise ValueError('it refers to something outside of it')


def numbers(x):
    """an array, or a list of them -> array"""
    if isinstance(x, Array):
        return x.to_numpy()
    if isinstance(x, (list, tuple)):
        return np.array([numbers(y) for y in x])
    if isinstance(x, (int, float, bool, np.number)):
        return x
    raise ValueError(f'there is a {type(x).__name__} where numbers should be')


def trajectories(content):
    """what a pickle holds -> list of {'obs' (T, n_obs), 'act' (T, n_act), 'reward' (T,)}, float32"""
    if not isinstance(content, (list, tuple)) or not content:
        raise ValueError('it is no list of trajectories')
    if isinstance(content[0], dict):
        episodes = from_dicts(content)
    elif all(isinstance(item, (list, tuple)) for item in content):
        episodes = from_tuples(content)
    else:
        kind = type(content[0]).__name__
        raise ValueError(f'it is a list of {kind}, not of dicts or of (state, action, return, timestep)')
    return [in_shape(e) for e in episodes]


def from_dicts(content):
    """one dict an episode, its arrays under any of SPELLINGS"""
    names = {}
    for name, spellings in SPELLINGS.items():
        spelt = [s for s in spellings if s in content[0]]
        if spelt:
            names[name] = spelt[0]
    if 'obs' not in names or 'act' not in names:
        keys = ', '.join(map(repr, content[0]))
        raise ValueError(f'its trajectories have {keys}; there must be observations and actions')
    return [{name: numbers(e[spelt]) for name, spelt in names.items()} for e in content]


def from_tuples(content):
    """(state, action, return to go, timestep) of each step, in one list or in one a trajectory"""
    steps = content
    if isinstance(content[0][0], (list, tuple)) and len(content[0][0]) == 4:
        steps = [step for episode in content for step in episode]
    if not all(len(step) == 4 for step in steps):
        raise ValueError('its tuples are not (state, action, return, timestep)')
    episodes = []
    for state, action, to_go, t in steps:
        if not episodes or int(numbers(t)) == 0:
            episodes.append({'obs': [], 'act': [], 'to_go': []})
        episodes[-1]['obs'].append(numbers(state))
        episodes[-1]['act'].append(numbers(action))
        episodes[-1]['to_go'].append(numbers(to_go))
    for e in episodes:  # a return to go falls by the reward
        to_go = np.array(e.pop('to_go'), np.float64).reshape(-1)
        e['reward'] = to_go - np.append(to_go[1:], 0)
    return episodes


def in_shape(episode):
    """-> float32, obs (T, n_obs), act (T, n_act)"""
    n = len(episode['act'])
    episode = {name: np.asarray(values, np.float32) for name, values in episode.items()}
    episode['act'] = episode['act'].reshape(n, -1)
    episode['obs'] = episode['obs'][:n].reshape(n, -1)  # some keep the last observation, too
    return episode


def main(file, out):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with open(file, 'rb') as f:
        episodes = trajectories(Reader(f, encoding='latin1').load())
    flat = {k: np.concatenate([e[k] for e in episodes]) for k in episodes[0]}
    np.savez(out, length=np.array([len(e['act']) for e in episodes]), **flat)


def read(file):
    """a file -> list of {'obs' (T, n_obs), 'act' (T, n_act), 'reward' (T,) if it has any}; ValueError"""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'arrays.npz'
        try:
            process = subprocess.run(
                [sys.executable, '-m', 'data.pickles', str(Path(file).resolve()), str(out)],
                cwd=Path(__file__).parent.parent,
                capture_output=True,
                text=True,
                timeout=2 * SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f'{file}: reading it took longer than {2 * SECONDS} s. Split it into smaller files'
            ) from None
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f'it took more than {MEMORY >> 30} GB or {SECONDS} s']
            raise ValueError(
                f'{file} cannot be read: {lines[-1]}. Pickles hold lists of trajectories, see data/pickles.py'
            )
        with np.load(out, allow_pickle=False) as flat:
            ends = np.cumsum(flat['length'])[:-1]
            columns = {name: np.split(flat[name], ends) for name in flat.files if name != 'length'}
    return [dict(zip(columns, arrays)) for arrays in zip(*columns.values())]


def to_archive(file, folder, data, kwargs, meta):
    """
    Make an archive of pickled trajectories -> its path, in `folder`. They are not replayed: their starts are not known.

    data: the data set's module; meta: what its archives say of themselves
    """
    from data import archive  # not at the top: the process that reads a stranger's file loads numpy alone

    from_trajectory = part(data, 'from_trajectory', 'Make an archive of the trajectories instead: see data/README.md')
    episodes = read(file)
    for i, e in enumerate(episodes):
        width = (e['obs'].shape[1], e['act'].shape[1])
        if width != (meta['n_obs'], meta['n_act']):
            raise ValueError(
                f'{file}, trajectory {i}: {width[0]} observations and {width[1]} actions a step, but '
                f'{meta["dataset"]} has {meta["n_obs"]} and {meta["n_act"]}. Name the data set it is of: --dataset'
            )
    rows = ({**e, **from_trajectory(e, kwargs), 'seed': -1, 'source': file.stem} for e in episodes)
    made = folder / f'imported_{file.stem}.parquet'
    archive.save(made, rows, {**meta, 'replay': False})
    print(f'{file}: {len(episodes)} trajectories, now in {made}; they are not replayed')
    return made


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except MemoryError:
        sys.exit(f'it takes more than {MEMORY >> 30} GB of memory')
    except Exception as e:  # a stranger's file: whatever it does to the reader is one line
        sys.exit(f'{type(e).__name__}: {e}' if not isinstance(e, ValueError) else str(e))
