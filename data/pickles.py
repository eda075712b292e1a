"""
Pickles as people have them, read without executing anything: `python -m data.pickles FILE FOLDER` in a process of its
own, with limits on its memory and time, writes their arrays to a folder. `Pickle` calls that and reads the folder.

A pickle is a program. Here its calls reach nothing but plain containers and the stand-ins below, which keep what
numpy's arrays are made of as data; arrays are made of it afterwards, of numbers only. Whatever else a pickle names ends
the reading.

Files: one pickle, or several behind each other, plain or compressed (gz, bz2, xz, zlib), those of joblib, of
torch.save, and .npy with pickled objects. What they hold: a dict of columns, a list of dicts, a dict of dicts, lists of
tuples, or lists of lists of them. What the columns mean is found out elsewhere: data/importers/trajectories.py.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

MEMORY = 4 << 30  # bytes, of the process that reads
SECONDS = 300  # of its CPU time
COMPRESSED = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ': lzma.open}
ZLIB = (b'\x78\x01', b'\x78\x5e', b'\x78\x9c', b'\x78\xda')  # joblib compresses with it
WINDOWS = 'it was copied as text by Windows, which puts a byte 13 before each byte 10. Copy it again, as binary'


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

    def items(self):
        """what an array of objects holds, a list; None of an array of numbers"""
        if self.state is None:
            raise ValueError('it holds an array without content')
        is_objects = isinstance(self.state[2], Dtype) and str(self.state[2].name)[:1] == 'O'
        return list(self.state[4]) if is_objects else None

    def to_numpy(self):
        if self.state is None:
            raise ValueError('it holds an array without content')
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


def default_dict(factory=None, *_):
    """collections.defaultdict, without what it calls for a missing key"""
    return {}


def empty_bytes():
    """bytes(), by which protocol 2 keeps those of an array without rows"""
    return b''


def nothing(*_):
    """stands for a type that something was made with"""
    raise ValueError('it calls a type of Python')


ALLOWED = {(f'numpy.{core}.multiarray', '_reconstruct'): Array for core in ('core', '_core')}
ALLOWED |= {(f'numpy.{core}.multiarray', 'scalar'): scalar for core in ('core', '_core')}
ALLOWED |= {(f'numpy.{core}.numeric', '_frombuffer'): from_buffer for core in ('core', '_core')}
ALLOWED |= {
    (module, name): nothing for module in ('builtins', '__builtin__') for name in ('list', 'dict', 'int', 'float')
}
ALLOWED |= {(module, 'bytes'): empty_bytes for module in ('builtins', '__builtin__')}
ALLOWED |= {
    ('numpy', 'ndarray'): Array,
    ('numpy', 'dtype'): Dtype,
    ('_codecs', 'encode'): latin1,
    ('collections', 'OrderedDict'): dict,
    ('collections', 'defaultdict'): default_dict,
}


class Reader(pickle.Unpickler):
    def find_class(self, module, name):
        if module.endswith('\r') or name.endswith('\r'):
            raise ValueError(WINDOWS)
        if (module, name) == ('joblib.numpy_pickle', 'NumpyArrayWrapper'):
            raise JoblibFound
        if module.partition('.')[0] == 'pandas':
            raise ValueError(
                f'it asks for {module}.{name}, of pandas. Save the table: frame.to_parquet("mine.parquet")'
            )
        if (module, name) not in ALLOWED:
            raise ValueError(
                f'it asks for {module}.{name}, which is neither an array nor a plain container. '
                'Save dicts of numpy arrays, one an episode'
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        raise ValueError('it refers to something outside of it')


# ------------------------------------------------------------------------------
# joblib: a pickle with the bytes of each array behind its place


class JoblibFound(Exception):
    """arrays lie between the opcodes: it takes JoblibReader"""


class Unbuffered:
    """A file without peek(): the unpickler takes no byte more than it needs."""

    def __init__(self, file):
        self.read = file.read
        self.readline = file.readline
        self.readinto = file.readinto


class JoblibReader(Reader):
    def __init__(self, file):
        file = Unbuffered(file)
        super().__init__(file, encoding='latin1')

        class Wrapper(Array):
            """stands for joblib's NumpyArrayWrapper; its array follows in the file"""

            def __setstate__(self, state):
                if state.get('numpy_array_alignment_bytes') is not None:
                    file.read(file.read(1)[0])
                dtype = state['dtype'].to_numpy()
                n = int(np.prod(state['shape'], dtype=np.int64)) * dtype.itemsize
                self.state = (1, state['shape'], state['dtype'], state['order'] == 'F', file.read(n))

        self.wrapper = Wrapper

    def find_class(self, module, name):
        if (module, name) == ('joblib.numpy_pickle', 'NumpyArrayWrapper'):
            return self.wrapper
        return super().find_class(module, name)


# ------------------------------------------------------------------------------
# torch.save: a zip with a pickle, and a file for the numbers of each tensor

STORAGES = {'Float': 'f4', 'Double': 'f8', 'Half': 'f2', 'Long': 'i8', 'Int': 'i4', 'Short': 'i2', 'Char': 'i1'}
STORAGES |= {'Byte': 'u1', 'Bool': 'b1'}


class TorchReader(Reader):
    def __init__(self, archive, name):
        super().__init__(io.BytesIO(archive.read(name)), encoding='latin1')
        self.archive = archive
        self.folder = name.removesuffix('data.pkl')

    def find_class(self, module, name):
        kind = name.removesuffix('Storage')
        if module == 'torch' and kind in STORAGES:
            return STORAGES[kind]
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return tensor
        return super().find_class(module, name)

    def persistent_load(self, pid):
        """('storage', type, key, device, number of elements) -> (n,) array"""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != 'storage' or pid[1] not in STORAGES.values():
            raise ValueError('it refers to something outside of it')
        return np.frombuffer(self.archive.read(f'{self.folder}data/{pid[2]}'), np.dtype(pid[1]).newbyteorder('<'))


def tensor(storage, offset, shape, stride, *_):
    """an element of a storage for each place -> array; IndexError where one lies outside"""
    places = np.full(shape, offset, np.int64)
    for axis, (n, step) in enumerate(zip(shape, stride)):
        places += (np.arange(n) * step).reshape(-1, *[1] * (len(shape) - axis - 1))
    if places.size and (places.min() < 0 or places.max() >= len(storage)):
        raise ValueError('a tensor reaches beyond its storage')
    return storage[places]


# ------------------------------------------------------------------------------
# files


def contents(file):
    """yields what a file's pickles hold, one after the other"""
    with opened(file) as f:
        start = f.read(8)
        f.seek(0)
        if start[:4] == b'PK\x03\x04':
            yield from torch_contents(file)
            return
        if start[:6] == b'\x93NUMPY':
            skip_npy_header(f)
        yield from pickles_of(f)


def opened(file):
    """a file, decompressed if it is compressed"""
    with open(file, 'rb') as f:
        start = f.read(8)
    if start[:2] in ZLIB:
        return io.BytesIO(zlib.decompress(Path(file).read_bytes()))
    for magic, open_compressed in COMPRESSED.items():
        if start.startswith(magic):
            return open_compressed(file)
    return open(file, 'rb')


def pickles_of(f):
    """one pickle, or several behind each other"""
    n = 0
    while True:
        at = f.tell()
        if n and not f.read(1):
            return
        f.seek(at)
        try:
            yield Reader(f, encoding='latin1').load()
        except JoblibFound:
            f.seek(at)
            yield JoblibReader(f).load()
        except Exception as e:
            raise ValueError(
                f'pickle {n + 1} of it, at byte {at}: {str(e) or type(e).__name__}' if n else str(e)
            ) from e
        n += 1


def skip_npy_header(f):
    """leave an .npy file where its pickle begins"""
    version = f.read(8)[6]
    size = struct.unpack('<H', f.read(2)) if version == 1 else struct.unpack('<I', f.read(4))
    f.seek(size[0], io.SEEK_CUR)


def torch_contents(file):
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(names) != 1:
            raise ValueError('it is a zip, but not of arrays. Unpack it')
        yield TorchReader(archive, names[0]).load()


# ------------------------------------------------------------------------------
# what they hold


def numbers(x):
    """an array, or a list of them -> array; a list of strings stays one"""
    if isinstance(x, Array):
        items = x.items()
        return x.to_numpy() if items is None else numbers(items)
    if isinstance(x, (list, tuple)):
        if x and all(isinstance(y, str) for y in x):
            return list(x)
        return stacked([numbers(y) for y in x])
    if isinstance(x, (int, float, bool, np.number, np.bool_, np.ndarray)):
        return np.asarray(x)
    if isinstance(x, str):
        return [x]
    raise ValueError(f'there is {kind_of(x)} where numbers should be')


def stacked(arrays):
    if any(isinstance(a, list) for a in arrays):
        raise ValueError('there is a str where numbers should be')
    if all(a.size == 1 for a in arrays):  # a number and an array of one number are the same
        arrays = [a.reshape(arrays[0].shape) for a in arrays]
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        raise ValueError(f'it holds rows of different shapes: {", ".join(map(str, sorted(shapes)[:2]))}')
    return np.array(arrays)


def kind_of(x):
    """for messages"""
    return 'an array' if isinstance(x, (Array, np.ndarray)) else f'a {type(x).__name__}'


def as_list(x):
    """a list, a tuple or an array of objects -> list; anything else is None"""
    if isinstance(x, Array):
        return x.items()
    return list(x) if isinstance(x, (list, tuple)) else None


def depth(x):
    """how many axes there are, were it an array"""
    if isinstance(x, Array) and x.items() is None:
        return len(x.state[1])
    if isinstance(x, np.ndarray):
        return x.ndim
    items = as_list(x)
    if items is None:
        return 0
    return 1 + (depth(items[0]) if items else 0)


def trajectories(content):
    """
    what a pickle holds -> pieces, layout. A piece is a dict: {column: what numbers() takes}, layout says what each is:
    'elements' of a list, in which an end may be flagged; 'steps': rows of many episodes; 'episodes': one each
    """
    if isinstance(content, Array) and content.items() is not None:
        content = content.items()
        if len(content) == 1 and isinstance(content[0], dict):
            content = content[0]  # np.save of a dict
    if isinstance(content, dict):
        return from_dict(content)
    if not isinstance(content, (list, tuple)) or not content:
        raise ValueError(f'it is no list of trajectories, but {kind_of(content)}')
    if all(isinstance(item, dict) for item in content):
        if depth(first_column(content[0])) < 2:  # a dict a step
            raise ValueError(
                'it is a list of dicts without arrays of steps. Save one dict an episode, with arrays (steps, ..)'
            )
        return list(content), 'elements'
    items = [as_list(item) for item in content]
    if any(item is None for item in items):
        i = next(i for i, item in enumerate(items) if item is None)
        raise ValueError(
            f'element {i} is {kind_of(content[i])}, where a dict or a tuple should be. '
            'Save one dict an episode: observations, actions, rewards'
        )
    return from_lists(items)


def first_column(episode):
    """what is most likely its observations: the column of most axes"""
    return max(flattened(episode).values(), key=depth, default=None)


def from_dict(content):
    """columns of steps, columns of episodes, or a dict an episode"""
    values = list(content.values())
    if values and all(isinstance(value, dict) and depth(first_column(value)) for value in values):
        return values, 'elements'
    columns = {key: as_list(value) for key, value in content.items()}
    rows = {key: items for key, items in columns.items() if items and depth(items[0]) >= 1}
    arrays = any(depth(items[0]) >= 2 for items in rows.values())  # one an episode
    if arrays and len({len(items) for items in rows.values()}) == 1:
        return [dict(zip(rows, values)) for values in zip(*rows.values())], 'elements'
    return [content], 'steps'


def from_lists(items):
    """tuples, one a step, in one list or in one an episode; columns 'item 0', 'item 1', .."""
    if all(items) and all(as_list(step) is not None for item in items for step in item):
        return [by_item(episode) for episode in items], 'episodes'
    return [by_item(items)], 'steps'


TUPLES = (4, 5, 6)  # lengths of tuples that can be told apart


def by_item(steps):
    """a list of tuples -> {'item 0': [..], ..}"""
    steps = [as_list(step) for step in steps]
    lengths = {len(step) if step is not None else 0 for step in steps}
    if len(lengths) > 1 or not lengths <= set(TUPLES):
        raise ValueError(
            f'its tuples hold {", ".join(map(str, sorted(lengths)))} items. Known are (state, action, return to go, '
            'timestep), (state, action, reward, done) and (state, action, reward, next state, done). '
            'Save one dict an episode: observations, actions, rewards'
        )
    return {f'item {k}': [step[k] for step in steps] for k in range(lengths.pop())}


def flattened(piece, prefix=''):
    """nested dicts -> {'observations/goal': ..}"""
    flat = {}
    for key, value in piece.items():
        if isinstance(value, dict):
            flat |= flattened(value, f'{prefix}{key}/')
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def save(pieces, layout, folder):
    """
    write each column to `folder`: K.npy, the numbers of all pieces end to end, and K_shapes.npy (pieces, axes), -1
    where there is none; columns.json names them
    """
    values, unread = {}, {}
    for i, piece in enumerate(pieces):
        for key, value in flattened(piece).items():
            try:
                values.setdefault(key, {})[i] = numbers(value)
            except ValueError as e:
                unread.setdefault(key, [i, str(e)])
    columns = []
    for k, (key, found) in enumerate(values.items()):
        texts = [v for v in found.values() if isinstance(v, list)]
        columns.append({'name': key, 'text': bool(texts)})
        if texts:
            text = {i: v for i, v in found.items() if isinstance(v, list)}
            (folder / f'{k}.json').write_text(json.dumps(text))
            continue
        axes = max(v.ndim for v in found.values())
        shapes = np.full((len(pieces), axes + 1), -1)
        for i, v in found.items():
            shapes[i, : v.ndim + 1] = (v.ndim, *v.shape)
        np.save(folder / f'{k}.npy', np.concatenate([v.reshape(-1) for v in found.values()]))
        np.save(folder / f'{k}_shapes.npy', shapes)
    said = {'pieces': len(pieces), 'layout': layout, 'columns': columns, 'unread': unread}
    (folder / 'columns.json').write_text(json.dumps(said))


def main(file, folder):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    found = [trajectories(content) for content in contents(file)]
    layouts = {layout for _, layout in found}
    if len(layouts) > 1:
        raise ValueError(f'its {len(found)} pickles hold different things. Save each to a file of its own')
    layout = layouts.pop()
    if len(found) > 1 and layout == 'steps':
        layout = 'elements'
    save([piece for pieces, _ in found for piece in pieces], layout, Path(folder))


# ------------------------------------------------------------------------------
# the process's other side


class Pickle:
    """
    A file's pieces, a source as data/importers/trajectories.py describes them; `layout` as of trajectories(), the
    arrays are memory maps
    """

    def __init__(self, file):
        """ValueError, of one line, where it cannot be read"""
        self.file = file
        self.kind = 'pickle'
        self.notes = []
        self.folder = tempfile.TemporaryDirectory()  # as long as this object lives
        run_process(file, self.folder.name)
        folder = Path(self.folder.name)
        said = json.loads((folder / 'columns.json').read_text())
        self.layout, self.n, self.unread = said['layout'], said['pieces'], said['unread']
        self.texts, self.arrays = {}, {}
        for k, column in enumerate(said['columns']):
            if column['text']:
                self.texts[column['name']] = json.loads((folder / f'{k}.json').read_text())
            else:
                flat = np.load(folder / f'{k}.npy', mmap_mode='r', allow_pickle=False)
                self.arrays[column['name']] = (flat, np.load(folder / f'{k}_shapes.npy', allow_pickle=False))

    def pieces(self):
        """yields {column: array or list of strings}"""
        at = dict.fromkeys(self.arrays, 0)
        for i in range(self.n):
            piece = {name: texts[str(i)] for name, texts in self.texts.items() if str(i) in texts}
            for name, (flat, shapes) in self.arrays.items():
                ndim, *shape = shapes[i].tolist()
                if ndim < 0:
                    continue
                shape = shape[:ndim]
                size = int(np.prod(shape))
                piece[name] = flat[at[name] : at[name] + size].reshape(shape)
                at[name] += size
            yield piece


def run_process(file, folder):
    """read a file in the limited process, which writes to `folder`; ValueError"""
    try:
        process = subprocess.run(
            [sys.executable, '-m', 'data.pickles', str(Path(file).resolve()), str(folder)],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f'{file}: reading it took longer than {2 * SECONDS} s. Split it into smaller files') from None
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f'it took more than {MEMORY >> 30} GB or {SECONDS} s']
        raise ValueError(f'{file} cannot be read: {lines[-1]}. Pickles hold lists of trajectories, see data/pickles.py')


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except MemoryError:
        sys.exit(f'it takes more than {MEMORY >> 30} GB of memory')
    except Exception as e:  # a stranger's file: whatever it does to the reader is one line
        message = str(e).replace('\n', ' ')
        sys.exit(f'{type(e).__name__}: {message}' if not isinstance(e, ValueError) else message)
