"""What a file or a folder is, by its content -> what reads it; ValueError with the cure where nothing does."""

import lzma
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.importers import hdf5, npz, tables
from data.importers.lerobot import LeRobot
from data.importers.minari import Minari, is_minari
from data.pickled_trajectories import Pickle
from data.pickles import opened

UNREADABLE = {
    tables.LFS: tables.LFS_CURE,
    b'<!DOCTYPE': 'a web page. Download the file itself',
    b'<html': 'a web page. Download the file itself',
    b'\x28\xb5\x2f\xfd': 'compressed by zstd. Run: unzstd',
    b'\x37\x7a\xbc\xaf': 'a 7z archive. Unpack it',
    b'Rar!': 'a rar archive. Unpack it',
    b'\x04\x22\x4d\x18': 'compressed by lz4. Run: unlz4',
    b'\x89PNG': 'a picture',
    b'\xff\xd8\xff': 'a picture',
}  # beginnings of files that hold no trajectories, and what to say
STREAM = b'\xff\xff\xff\xff'  # so begins Arrow that was written as a stream
COMPRESSED = (b'\x1f\x8b', b'BZh', b'\xfd7zXZ', b'\x78\x01', b'\x78\x5e', b'\x78\x9c', b'\x78\xda')


def open_source(path):
    """-> None where it is an archive of nanoPilot's already"""
    path = Path(path)
    if path.is_dir():
        return Minari(path) if is_minari(path) else LeRobot(path)
    try:
        with open(path, 'rb') as f:
            start = f.read(2048)
    except OSError as e:
        raise ValueError(f'{path} cannot be opened ({e.strerror}). Copy it again') from None
    return of_content(path, start)


def of_content(path, start):
    for magic, why in UNREADABLE.items():
        if start.startswith(magic):
            raise ValueError(f'{path} is {why}')
    if not start:
        raise ValueError(f'{path} is empty. Copy it again')
    if start[257:262] == b'ustar':
        raise ValueError(f'{path} is a tar archive. Unpack it')
    if start.startswith(b'PAR1'):
        return open_parquet(path)
    if any(start[at : at + 8] == hdf5.MAGIC for at in (0, 512, 1024)):
        return hdf5.open_hdf5(path)
    if start.startswith(b'ARROW1'):
        return tables.Arrow(path)
    if start.startswith(STREAM):
        return tables.ArrowStream(path)
    if start.startswith(b'PK\x03\x04'):
        return open_zip(path)
    if start.startswith(b'\x93NUMPY') and npz.holds_numbers(path):
        raise ValueError(f'{path} is one array. Save all: np.savez("all", observations=.., actions=..)')
    if start.startswith(COMPRESSED) and holds_another_format(path):
        raise ValueError(f'{path} is compressed, and holds no pickle. Unpack it (gunzip, bunzip2, unxz), then name it')
    if start.startswith((b'\x93NUMPY', *COMPRESSED)) or is_pickle(start):
        return Pickle(path)
    if start[:1] in (b'{', b'['):
        raise ValueError(f'{path} is JSON, which is not read. Save csv or Parquet: pandas.read_json(..).to_parquet(..)')
    if is_text(start):
        return tables.Csv(path)
    raise ValueError(
        f'{path} is none of the formats that are read (it begins with {start[:8].hex(" ")}): Parquet, Arrow, HDF5, '
        'npz, csv, pickles. See data/importers/archives.py'
    )


def holds_another_format(path):
    """is a compressed file, unpacked, text or a table, which are read from files that are not compressed?"""
    try:
        with opened(path) as f:
            inside = f.read(2048)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False  # damaged, which the reader of pickles says
    if not inside or is_pickle(inside):
        return False
    return inside.startswith((b'PAR1', b'ARROW1', hdf5.MAGIC, STREAM)) or is_text(inside)


def is_pickle(start):
    """protocols from 2 say so; 0 and 1 begin with a mark, or a list or dict, and a short line"""
    if start[0] == 0x80 and len(start) > 1 and start[1] <= 5:
        return True
    return start[:2] in (b'(l', b'(d', b'(t', b']q', b'}q') or start[:3] in (b'](q',)


def is_text(start):
    """also in an encoding of one byte a letter, which tables.py refuses by name"""
    if min(start) < 9:  # letters, spaces and ends of lines are not below
        return False
    try:
        start.decode('utf-8', 'strict')
    except UnicodeDecodeError as e:
        is_ascii = sum(byte < 128 for byte in start) > 0.9 * len(start)
        return is_ascii or e.start > len(start) - 4  # a letter is cut in two
    return True


def open_parquet(path):
    """None for nanoPilot's own"""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError) as e:
        why = str(e).strip().split('\n')[0]
        raise ValueError(f'{path} is not a whole Parquet file ({why}). Make or copy it again') from None
    if b'nanopilot' in (schema.metadata or {}):
        return None
    return tables.Parquet(path)


def open_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as e:
        raise ValueError(f'{path} is a damaged zip ({e}). Copy it again') from None
    if any(name.endswith('/data.pkl') for name in names):
        return Pickle(path)
    if names and all(name.endswith('.npy') for name in names):
        return npz.Npz(path)
    raise ValueError(f'{path} is a zip of {", ".join(map(repr, names[:3]))}, not of arrays. Unpack it')
