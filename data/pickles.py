"""
Pickled trajectories, as people have them, read without executing anything: `python -m data.pickles FILE.pkl OUT.npz` in a process
of its own, with limits on its memory and time. `read` calls that and returns episodes.

A pickle is a program. Here its calls reach nothing but plain containers and the stand-ins below, which keep what numpy's
arrays are made of as data; arrays are made of it afterwards, of numbers only. Whatever else a pickle names ends the reading.

Known: a list of dicts, one an episode (observations/obs/states, actions/acts, rewards, in the singular too; more is left
alone), or of (state, action, return, timestep) tuples, in which timestep 0 begins an episode.
"""

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MEMORY, SECONDS = 4 << 30, 300  # of the process that reads
SPELLINGS = {
    'obs': ('observations', 'observation', 'obs', 'states', 'state'),
    'act': ('actions', 'action', 'acts', 'act'),
    'reward': ('rewards', 'reward', 'rews'),
}


class Dtype:
    """stands for numpy.dtype('f4', False, True) and what is set on it"""

    def __init__(self, name, *_):
        self.name, self.order = name, '='

    def __setstate__(self, state):
        self.order = state[1]

    def real(self):
        kind = np.dtype(self.name) if isinstance(self.name, str) and self.name[:1] in 'biuf' else None
        if kind is None:
            raise ValueError(f'it holds an array of {self.name!r}; only numbers are read')
        return kind.newbyteorder(self.order if self.order in '<>' else '=')


class Array:
    """stands for numpy.ndarray, being reconstructed"""

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def real(self):
        _, shape, dtype, fortran, data = self.state
        data = data.encode('latin1') if isinstance(data, str) else data
        return np.frombuffer(data, dtype.real()).reshape(shape, order='F' if fortran else 'C')


def scalar(dtype, data):
    return np.frombuffer(data.encode('latin1') if isinstance(data, str) else data, dtype.real())[0]


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
        return x.real()
    if isinstance(x, (list, tuple)):
        return np.array([numbers(y) for y in x])
    if isinstance(x, (int, float, bool, np.number)):
        return x
    raise ValueError(f'there is a {type(x).__name__} where numbers should be')


def trajectories(found):
    """what a pickle holds -> list of {'obs' (T, n_obs), 'act' (T, n_act), 'reward' (T,)}, float32"""
    if not isinstance(found, (list, tuple)) or not found:
        raise ValueError('it is no list of trajectories')
    if isinstance(found[0], dict):
        names = {k: next((s for s in spelled if s in found[0]), None) for k, spelled in SPELLINGS.items()}
        if not names['obs'] or not names['act']:
            raise ValueError(
                f'its trajectories have {", ".join(map(repr, found[0]))}; there must be observations and actions'
            )
        episodes = [{k: numbers(one[s]) for k, s in names.items() if s} for one in found]
    elif all(isinstance(one, (list, tuple)) for one in found):
        steps = (
            [s for one in found for s in one]
            if isinstance(found[0][0], (list, tuple)) and len(found[0][0]) == 4
            else found
        )  # episodes of steps
        if not all(len(s) == 4 for s in steps):
            raise ValueError('its tuples are not (state, action, return, timestep)')
        episodes = []
        for state, action, to_go, step in steps:
            if int(numbers(step)) == 0 or not episodes:
                episodes.append({'obs': [], 'act': [], 'to_go': []})
            for key, value in zip(('obs', 'act', 'to_go'), (state, action, to_go)):
                episodes[-1][key].append(numbers(value))
        for e in episodes:  # a return to go falls by the reward
            left = np.array(e.pop('to_go'), np.float64).reshape(-1)
            e['reward'] = left - np.append(left[1:], 0)
    else:
        raise ValueError(
            f'it is a list of {type(found[0]).__name__}, not of dicts or of (state, action, return, timestep)'
        )
    shaped = []
    for e in episodes:
        n = len(e['act'])
        e = {k: np.asarray(v, np.float32) for k, v in e.items()}
        e['act'] = e['act'].reshape(n, -1)
        e['obs'] = e['obs'][:n].reshape(n, -1)  # some keep the last observation, too
        shaped.append(e)
    return shaped


def main(file, out):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with open(file, 'rb') as f:
        episodes = trajectories(Reader(f, encoding='latin1').load())
    flat = {k: np.concatenate([e[k] for e in episodes]) for k in episodes[0]}
    np.savez(out, length=np.array([len(e['act']) for e in episodes]), **flat)


def read(file):
    """a pickle of trajectories -> list of {'obs' (T, n_obs), 'act' (T, n_act), 'reward' (T,) if it has any}"""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'found.npz'
        try:
            done = subprocess.run(
                [sys.executable, '-m', 'data.pickles', str(Path(file).resolve()), str(out)],
                cwd=Path(__file__).parent.parent,
                capture_output=True,
                text=True,
                timeout=2 * SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f'{file}: reading it took longer than {2 * SECONDS} s') from None
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f'it took more than {MEMORY >> 30} GB or {SECONDS} s'])[-1]
            raise ValueError(f'{file} cannot be read: {said}. Known are lists of trajectories, see data/pickles.py')
        with np.load(out, allow_pickle=False) as flat:
            ends = np.cumsum(flat['length'])[:-1]
            parts = {k: np.split(flat[k], ends) for k in flat.files if k != 'length'}
    return [dict(zip(parts, e)) for e in zip(*parts.values())]


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except MemoryError:
        sys.exit(f'it takes more than {MEMORY >> 30} GB of memory')
    except Exception as e:  # a stranger's file: whatever it does to the reader is one line
        sys.exit(f'{type(e).__name__}: {e}' if not isinstance(e, ValueError) else str(e))
