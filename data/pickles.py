"""
Pickles as people have them, read without executing anything: `contents(file)`. pickled_trajectories.py calls it, in a
process with limits on its memory and time, and makes arrays of what it yields.

A pickle is a program. Here its calls reach nothing but plain containers and the stand-ins below, which keep what
numpy's arrays are made of as data; arrays are made of it afterwards, of numbers or strings. Whatever else a pickle
names ends the reading.

Files: one pickle, or several behind each other, plain or compressed (gz, bz2, xz, zlib), those of joblib, of
torch.save, and .npy with pickled objects.
"""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

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
        if not isinstance(self.name, str) or self.name[:1] not in 'biufSU':
            raise ValueError(f'it holds an array of {self.name!r}; only numbers and strings are read')
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
