"""
npz: D4RL's keys (observations actions rewards terminals timeouts), those of Stable-Baselines (episode_starts) and of
imitation (acts rews terminal indices: obs has one row more an episode). Members are read in blocks of rows; those that
hold pickled objects are not opened. Strings are read where they are texts: one a step, or one for all.
"""

import zipfile

import numpy as np

from data.importers.columns import SPELLINGS, words_or_numbers
from data.importers.tables import first_line

ROWS = 1 << 16  # of a block


def holds_numbers(path):
    """is an .npy file one array of numbers?"""
    try:
        with open(path, 'rb') as f:
            return not header(f)[2].hasobject
    except (ValueError, EOFError, OSError) as e:
        raise ValueError(f'{path} is a damaged .npy file ({first_line(e)}). Copy it again') from None


def header(f):
    """-> shape, whether it is in Fortran's order, dtype"""
    version = np.lib.format.read_magic(f)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(f)


class Member:
    """An array in a zip, whose rows are read in order: `shape`, `dtype`, `read(n)` -> the next n rows"""

    def __init__(self, archive, name):
        self.file = archive.open(name)
        self.shape, self.fortran, self.dtype = header(self.file)

    def read(self, n):
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        data = self.file.read(n * row)
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])

    def all(self):
        order = 'F' if self.fortran else 'C'
        return np.frombuffer(self.file.read(), self.dtype).reshape(self.shape, order=order)


class Npz:
    """Pieces are blocks of rows; of imitation's, episodes."""

    kind = 'npz'
    layout = 'steps'

    def __init__(self, path):
        self.file = path
        self.notes = []
        self.unread = {}
        self.shapes = {}
        self.said = {}  # texts of all steps
        try:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    self.look_at(archive, name)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, RuntimeError) as e:
            raise ValueError(f'{path} cannot be read ({first_line(e)}). Save or copy it again') from None
        self.names = list(self.shapes)
        act = next((s for s in SPELLINGS['act'] if s in self.shapes), None)
        rows = [shape[0] for shape in self.shapes.values() if shape]
        self.n = self.shapes[act][0] if act and self.shapes[act] else max(rows, default=0)
        if 'indices' in self.shapes:
            self.kind, self.layout = 'npz of imitation', 'episodes'
        for name in SPELLINGS['text']:
            shape = self.shapes.get(name)
            if shape and shape[0] != self.n:
                self.unread[name] = [0, f'it has {shape[0]} rows, and there are {self.n} steps']

    def look_at(self, archive, name):
        member = Member(archive, name)
        key = name.removesuffix('.npy')
        is_text = member.dtype.kind in 'SU' and member.dtype.itemsize > 0 and key in SPELLINGS['text']
        if is_text and np.prod(member.shape) == 1:
            self.said[key] = self.readable(key, member.all().reshape(1))[0]
        elif is_text and len(member.shape) == 1:
            self.shapes[key] = member.shape
        elif member.dtype.kind not in 'biuf':
            self.unread[key] = [0, f'it holds {member.dtype}, where numbers should be']
        else:
            self.shapes[key] = member.shape

    def pieces(self):
        try:
            with zipfile.ZipFile(self.file) as archive:
                pieces = self.of_imitation(archive) if 'indices' in self.shapes else self.blocks(archive)
                for piece in pieces:
                    n = min(self.n, max(map(len, piece.values()), default=0))
                    said = {name: [text] * n for name, text in self.said.items()}
                    yield {name: self.readable(name, column) for name, column in piece.items()} | said
        except (EOFError, OSError, zipfile.BadZipFile, RuntimeError) as e:
            raise ValueError(f'{self.file} is damaged ({first_line(e)}). Copy it again') from None

    def blocks(self, archive):
        names = [name for name, shape in self.shapes.items() if len(shape) and shape[0] == self.n]
        others = {name: shape for name, shape in self.shapes.items() if name not in names and len(shape)}
        members = {name: Member(archive, f'{name}.npy') for name in names}
        whole = {name: m.all() for name, m in members.items() if m.fortran and len(m.shape) > 1}
        for a in range(0, self.n, ROWS):
            n = min(ROWS, self.n - a)
            piece = {name: members[name].read(n) for name in names if name not in whole}
            piece |= {name: array[a : a + n] for name, array in whole.items()}
            if not a:  # so that one of another length is refused by name
                piece |= {name: np.empty(shape, bool) for name, shape in others.items() if name in NEEDED}
            yield piece

    def readable(self, name, array):
        """an array of numbers as it is, one of strings as a list"""
        try:
            return words_or_numbers(array)
        except ValueError as e:
            raise ValueError(f'{self.file}, {name}: {first_line(e)}. Save or copy it again') from None

    def of_imitation(self, archive):
        """indices are where episodes begin but the first; obs has their last observations, too"""
        columns = {name: Member(archive, f'{name}.npy').all() for name in self.shapes}
        starts = [0, *np.asarray(columns['indices']).reshape(-1).tolist()]
        wrong = np.flatnonzero(np.diff([*starts, self.n]) <= 0)
        if len(wrong):
            i = max(int(wrong[0]) - 1, 0)
            cure = 'Save where each episode but the first begins, ascending'
            raise ValueError(f'{self.file}: indices[{i}] is {starts[i + 1]}, of {self.n} steps. {cure}')
        for i, (a, b) in enumerate(zip(starts, [*starts[1:], self.n])):
            piece = {name: c[a:b] for name, c in columns.items() if c.ndim and len(c) == self.n}
            if len(columns['obs']) == self.n + len(starts):
                piece['obs'] = columns['obs'][a + i : b + i + 1]
            yield piece


NEEDED = {spelling for name in ('obs', 'act', 'reward', 'to_go') for spelling in SPELLINGS[name]}
NEEDED |= {'terminals', 'dones', 'timeouts', 'episode_starts'}
