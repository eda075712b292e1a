"""
HDF5: D4RL's flat files (observations actions rewards terminals timeouts, rows of many episodes), Minari's
(main_data.hdf5, a group an episode) and robomimic's (data/demo_0, ..). Read in blocks; nothing outside of the file is
followed, no object is made of it. It takes h5py: pip install '.[hdf5]'.
"""

import re
from contextlib import contextmanager

from data.importers.columns import SPELLINGS, text_of

MAGIC = b'\x89HDF\r\n\x1a\n'
ROWS = 1 << 15  # of a block
MOST = 4000  # times the file's size is what its arrays may hold: more is a bomb
EPISODE = re.compile(r'(?:episode|demo|traj)_?(\d+)$')


@contextmanager
def opened(path):
    """an h5py.File; what h5py does not like is a ValueError"""
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{path} is HDF5, which takes h5py. Install it: pip install '.[hdf5]'") from None
    try:
        with h5py.File(path, 'r') as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, OverflowError) as e:
        why = str(e).strip().split('\n')[0]
        raise ValueError(f'{path} is damaged, or no HDF5 that h5py reads ({why}). Copy it again') from None


class Unreadable(Exception):
    """an array that is not read, and why"""


def datasets(path, group, prefix=''):
    """yields (name, dataset) of a group and those in it, 'observations/image'; ValueError for what leaves the file"""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f'{path}: {prefix}{name} is a link. Copy the file with h5repack, or save it again')
        item = group[name]
        if isinstance(item, h5py.Group):
            if prefix.count('/') < 4:
                yield from datasets(path, item, f'{prefix}{name}/')
            continue
        if not isinstance(item, h5py.Dataset):  # a named type
            continue
        if item.is_virtual or item.external:
            raise ValueError(f'{path}: {prefix}{name} lies in another file. Save it again, with its numbers inside')
        yield f'{prefix}{name}', item


def check(path, name, dataset):
    """Unreadable unless it holds numbers or strings; ValueError where it says to hold more than can be"""
    import h5py

    if dataset.dtype.kind not in 'biuf' and not h5py.check_string_dtype(dataset.dtype):
        what = 'pictures or lists of different lengths' if h5py.check_vlen_dtype(dataset.dtype) else dataset.dtype
        raise Unreadable(f'it holds {what}, where numbers should be')
    if dataset.size * dataset.dtype.itemsize > MOST * path.stat().st_size:
        raise ValueError(f'{path}: {name} {dataset.shape} says to hold far more than the file. Copy it again')


def rows(dataset, a=0, b=None):
    """-> array, or a list of strings"""
    if dataset.dtype.kind in 'biuf':
        return dataset[a:b]
    return [text_of(value) for value in dataset[a:b]]


def words_of(path, group):
    """-> {'task': text}, what a group says once: attributes, or strings that are no rows, under a name of texts"""
    import h5py

    words = {}
    for name in SPELLINGS['text']:
        item = group.get(name)
        if isinstance(item, h5py.Dataset) and not item.ndim and h5py.check_string_dtype(item.dtype):
            check(path, name, item)
            words[name] = text_of(item[()])
        elif item is None and isinstance(group.attrs.get(name), (str, bytes)):
            words[name] = text_of(group.attrs[name])
    return words


class Flat:
    """D4RL's: rows of many episodes."""

    kind = 'HDF5 of D4RL'
    layout = 'steps'
    with_infos = False

    def __init__(self, path):
        self.file = path
        self.notes = []
        self.unread = {}

    def pieces(self):
        with opened(self.file) as file:
            found = self.columns(file)
            words = words_of(self.file, file)
            act = next((found[s] for s in SPELLINGS['act'] if s in found), None)
            n = len(act) if act is not None else max(map(len, found.values()), default=0)
            names = [name for name, dataset in found.items() if len(dataset) == n or name in needed()]
            for a in range(0, n, ROWS):
                b = min(a + ROWS, n)
                piece = {name: rows(found[name], a, b) for name in names}
                piece |= {name: [text] * (b - a) for name, text in words.items()}
                if not a:  # so that a column of another length is refused by its name
                    piece |= {name: found[name][:] for name in names if len(found[name]) != n}
                yield piece

    def columns(self, file):
        found = {}
        skipped = ('metadata/',) if self.with_infos else ('metadata/', 'infos/')
        for name, dataset in datasets(self.file, file):
            if name.startswith(skipped) or not dataset.ndim:
                continue
            try:
                check(self.file, name, dataset)
            except Unreadable as e:
                self.unread[name] = [0, str(e)]
            else:
                found[name] = dataset
        return found


def needed():
    return {s for what in ('obs', 'act', 'reward', 'to_go') for s in SPELLINGS[what]} | {'terminals', 'timeouts'}


class Groups:
    """A group an episode: Minari's episode_0, .., robomimic's data/demo_0, .."""

    layout = 'episodes'
    with_infos = False

    def __init__(self, path, folder, kind):
        """folder: the group that holds those of the episodes, '/' or 'data'"""
        self.file, self.folder, self.kind = path, folder, kind
        self.notes = []
        self.unread = {}

    def pieces(self):
        with opened(self.file) as file:
            group = file[self.folder]
            for name in sorted(filter(EPISODE.match, group), key=lambda name: int(EPISODE.match(name)[1])):
                yield self.piece(group, name)

    def piece(self, group, name):
        """a group -> {column: array}; robomimic's obs/.. are called observations/.., its simulator's states are none"""
        piece = {}
        number = int(EPISODE.match(name)[1])
        for column, dataset in datasets(self.file, group[name]):
            if self.is_skipped(column) or not dataset.ndim:
                continue
            column = column.replace('obs/', 'observations/', column.startswith('obs/'))
            try:
                check(self.file, column, dataset)
            except Unreadable as e:
                self.unread.setdefault(column, [number, str(e)])
            else:
                piece[column] = rows(dataset)
        piece |= {name: [text] for name, text in words_of(self.file, group[name]).items()}
        return piece

    def is_skipped(self, column):
        if column.startswith('infos/'):
            return not self.with_infos
        return column.startswith('next_obs/') or column == 'states'


def open_hdf5(path):
    with opened(path) as file:
        if any(EPISODE.match(name) for name in file):
            return Groups(path, '/', 'HDF5, a group an episode')
        data = file.get('data')
        if data is not None and hasattr(data, 'keys') and any(EPISODE.match(name) for name in data):
            source = Groups(path, 'data', 'HDF5 of robomimic')
            if 'mask' in file:
                source.notes.append('its mask/.. (train, valid) are ignored: the episodes are split anew')
            return source
    return Flat(path)
