"""
Trajectories in pickles: `Pickle`, a source for data/importers. `python -m data.pickled_trajectories FILE FOLDER`, which
it calls, reads a file (pickles.py) in a process with limits on its memory and time, and writes arrays to a folder.

What a file may hold: a dict of columns, a list of dicts, a dict of dicts, lists of tuples, or lists of lists of them.
What the columns mean is found out elsewhere: data/importers/trajectories.py.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from data.importers.columns import words_or_numbers
from data.pickles import Array, contents

ROOT = Path(__file__).parent.parent
MEMORY = 4 << 30  # bytes, of the process that reads
SECONDS = 300  # of its CPU time
TUPLES = (4, 5, 6)  # lengths of tuples that can be told apart

# ------------------------------------------------------------------------------
# what they hold


def numbers(x):
    """an array, or a list of them -> array; strings, in a list or an array, are a list"""
    if isinstance(x, Array):
        items = x.items()
        return words_or_numbers(x.to_numpy()) if items is None else numbers(items)
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
    for k, (key, by_piece) in enumerate(values.items()):
        texts = [v for v in by_piece.values() if isinstance(v, list)]
        columns.append({'name': key, 'text': bool(texts)})
        if texts:
            text = {i: v for i, v in by_piece.items() if isinstance(v, list)}
            (folder / f'{k}.json').write_text(json.dumps(text))
            continue
        axes = max(v.ndim for v in by_piece.values())
        shapes = np.full((len(pieces), axes + 1), -1)
        for i, v in by_piece.items():
            shapes[i, : v.ndim + 1] = (v.ndim, *v.shape)
        np.save(folder / f'{k}.npy', np.concatenate([v.reshape(-1) for v in by_piece.values()]))
        np.save(folder / f'{k}_shapes.npy', shapes)
    manifest = {'pieces': len(pieces), 'layout': layout, 'columns': columns, 'unread': unread}
    (folder / 'columns.json').write_text(json.dumps(manifest))


def main(file, folder):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    loaded = [trajectories(content) for content in contents(file)]
    layouts = {layout for _, layout in loaded}
    if len(layouts) > 1:
        raise ValueError(f'its {len(loaded)} pickles hold different things. Save each to a file of its own')
    layout = layouts.pop()
    if len(loaded) > 1 and layout == 'steps':
        layout = 'elements'
    save([piece for pieces, _ in loaded for piece in pieces], layout, Path(folder))


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
        manifest = json.loads((folder / 'columns.json').read_text())
        self.layout, self.n, self.unread = manifest['layout'], manifest['pieces'], manifest['unread']
        self.texts, self.arrays = {}, {}
        for k, column in enumerate(manifest['columns']):
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
            [sys.executable, '-m', 'data.pickled_trajectories', str(Path(file).resolve()), str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f'{file}: reading it took longer than {2 * SECONDS} s. Split it into smaller files') from None
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f'it took more than {MEMORY >> 30} GB or {SECONDS} s']
        cure = 'Pickles hold lists of trajectories, see data/pickled_trajectories.py'
        raise ValueError(f'{file} cannot be read: {lines[-1]}. {cure}')


if __name__ == '__main__':
    try:
        main(*sys.argv[1:])
    except MemoryError:
        sys.exit(f'it takes more than {MEMORY >> 30} GB of memory')
    except Exception as e:  # a stranger's file: whatever it does to the reader is one line
        message = str(e).replace('\n', ' ')
        sys.exit(f'{type(e).__name__}: {message}' if not isinstance(e, ValueError) else message)
