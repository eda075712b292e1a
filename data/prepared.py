"""
Prepared data: flat arrays that training opens as memory maps, `data/<name>/prepared/{train,val,test}/`.

    obs.npy (steps, n_obs)  act.npy (steps, n_act)  path.npy (steps, n_bd) after each step
    taught.npy (steps) bool, False where the action is not to be imitated
    bd.npy (episodes, n_bd)  start.npy (episodes + 1) where each one begins  source.npy (episodes) which of meta's sources
    hard.npy (episodes) how difficult each is, 0 to 1, nan: nobody says
    text.npy (tokens) uint16, prompts end to end  text_start.npy (texts + 1)  episode_text.npy (episodes + 1) whose texts are whose
    of a frozen encoder also states.npy (rows, width) float16, its states, and state_start.npy (texts) where a prompt's begin
    episodes.parquet: for reading and scoring, the words, what was asked, the annotation
    ../meta.json: version, shapes, normaliser, tokenizer, archives with their SHA-256, split rule, counts
"""

import fcntl
import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.encoders import load_tokenizer
from data.text import NOT_GIVEN, pad_prompts

VERSION = 3
SPLITS = ('train', 'val', 'test')
SPEC = {
    'env_kwargs': dict,
    'obs_names': [str],
    'act_names': [str],
    'bd_names': [str],
    'bd_low': [float],
    'bd_high': [float],
    'act_low': [float],
    'act_high': [float],
    'continuous': bool,
    'words': [str],
    'archives': [dict],
}  # what meta.json says of the data, and checkpoints after it; the types of JSON
NEEDED = {
    **SPEC,
    'dataset': str,
    'normaliser': dict,
    'counts': dict,
    'sources': [str],
    'text_len': int,
    'longest': int,
    'longest_text': int,
    'max_steps': int,
    'vocab_size': int,
}  # .. all of meta.json that is needed
ARRAYS = ('obs', 'act', 'path', 'taught', 'bd', 'start', 'source', 'hard', 'text', 'text_start', 'episode_text')


class NpyWriter:
    """A .npy file that grows row by row; its header leaves room for the final length."""

    def __init__(self, file, width, dtype):
        self.file, self.shape, self.dtype = open(file, 'wb'), (0,) + width, np.dtype(dtype)
        self.header()

    def header(self):
        np.lib.format.write_array_header_1_0(
            self.file, {'descr': np.lib.format.dtype_to_descr(self.dtype), 'fortran_order': False, 'shape': self.shape}
        )

    def append(self, rows):
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        rows = rows.reshape(
            len(rows) if rows.ndim == len(self.shape) else 1, *self.shape[1:]
        )  # one row, or many, even of no width
        self.file.write(rows.tobytes())
        self.shape = (self.shape[0] + len(rows),) + self.shape[1:]

    def close(self):
        self.file.seek(0)
        self.header()
        self.file.close()


EPISODE = pa.schema(
    [
        ('source', pa.string()),
        ('seed', pa.int64()),
        ('asked', pa.string()),
        ('novel', pa.string()),
        ('text', pa.list_(pa.string())),
        ('loose', pa.list_(pa.string())),
        ('held_out', pa.list_(pa.string())),
        ('visits', pa.string()),
        ('group', pa.string()),
        ('bd', pa.list_(pa.float64())),
    ]
)


class SplitWriter:
    """A split that is written episode by episode. In memory: the rows of the last few, and a number for each."""

    def __init__(self, folder, width, dtype):
        """width: of the arrays, {'obs': (n_obs,), ..}; dtype: where it is not float32"""
        folder.mkdir(parents=True)
        self.folder, self.rows, self.start = folder, [], array('q', [0])
        self.sources, self.novel, self.texts = Counter(), Counter(), 0  # counted
        self.arrays = {
            name: NpyWriter(folder / f'{name}.npy', w, dtype.get(name, np.float32)) for name, w in width.items()
        }
        self.parquet = pq.ParquetWriter(folder / 'episodes.parquet', EPISODE, compression='zstd')

    def __len__(self):
        return len(self.start) - 1

    def append(self, episode, row):
        """episode: its arrays; row: what episodes.parquet says of it"""
        for name, file in self.arrays.items():
            file.append(episode[name])
        self.start.append(self.start[-1] + len(episode['act']))
        self.sources[row['source']] += 1
        self.novel[row['novel']] += 1
        self.texts += len(row['text']) + len(row['loose'])
        self.rows.append(row)
        if len(self.rows) == 1024:
            self.flush()

    def flush(self):
        self.parquet.write_table(pa.Table.from_pylist(self.rows, schema=EPISODE))
        self.rows.clear()

    def close(self):
        self.flush()
        self.parquet.close()
        for file in self.arrays.values():
            file.close()
        np.save(self.folder / 'start.npy', np.array(self.start))


def write_states(folder, tokenizer, kept):
    """
    Of the prompts that a split's folder holds, each distinct one once: states.npy (tokens, width) float16, and state_start.npy (texts,), where each
    one's begin. kept: a DiskCache that has those that were computed before
    """
    text, start = (np.load(folder / f'{name}.npy', mmap_mode='r') for name in ('text', 'text_start'))
    begin, where, n = np.empty(len(start) - 1, np.int64), {}, 0
    rows, bar = (
        NpyWriter(folder / 'states.npy', (tokenizer.text_width,), np.float16),
        tqdm(total=len(begin), desc=f'encode {folder.name}', unit='texts', disable=None),
    )
    for first in range(0, len(begin), 1024):
        prompts = [text[a:b] for a, b in pairwise(start[first : first + 1025])]
        new = {p.tobytes(): p for p in prompts if p.tobytes() not in where}
        keys = {ids: hashlib.sha256(tokenizer.model + ids).hexdigest() for ids in new}
        found = {ids: kept.get(key) for ids, key in keys.items()}
        missing = [ids for ids, states in found.items() if states is None]
        found |= dict(zip(missing, [states.tobytes() for states in tokenizer.states([new[ids] for ids in missing])]))
        kept.put_all((keys[ids], found[ids]) for ids in missing)
        for ids, states in found.items():
            where[ids] = n
            rows.append(np.frombuffer(states, np.float16).reshape(-1, tokenizer.text_width))
            n += len(new[ids])
        begin[first : first + len(prompts)] = [where[p.tobytes()] for p in prompts]
        bar.update(len(prompts))
    bar.close()
    rows.close()
    np.save(folder / 'state_start.npy', begin)


class Rows:
    """Some columns of a split's episodes.parquet, to be iterated over any number of times, never all in memory."""

    def __init__(self, folder, columns):
        self.file, self.columns = folder / 'episodes.parquet', columns

    def __iter__(self):
        with pq.ParquetFile(self.file, pre_buffer=False) as file:
            for batch in file.iter_batches(1024, columns=self.columns):
                yield from batch.to_pylist()


class Prepared:
    """One split, opened: obs act bd start text text_start episode_text as memory maps, `meta`, `tokenizer`."""

    def __init__(self, folder, split):
        self.folder, self.split, self._tokenizer = Path(folder), split, None
        self.meta = load_meta(folder)
        self.text_width = self.meta.get('text_width', 0)
        for name in ARRAYS + ('states', 'state_start') * (self.text_width > 0):
            file = self.folder / split / f'{name}.npy'
            try:
                setattr(self, name, np.load(file, mmap_mode='r', allow_pickle=False))
            except FileNotFoundError:
                raise FileNotFoundError(f'no {file}. Run: {again(self.meta)}') from None
            except (ValueError, EOFError) as e:
                raise ValueError(f'{file} is damaged ({e}). Run: {again(self.meta)}') from None
        steps = self.meta['counts'].get(split, {}).get('steps')
        if len(self.obs) != steps or len(self.act) != steps or self.obs.shape[1] != len(self.meta['obs_names']):
            raise ValueError(f'{self.folder / split} does not fit its meta.json. Run: {again(self.meta)}')
        self.length = np.diff(self.start)

    def __len__(self):
        return len(self.bd)

    def tokenizer(self):
        """None where the data set has no language"""
        if self._tokenizer is None and self.meta['text_len']:
            self._tokenizer = load_tokenizer(
                self.meta.get('text_encoder', 'learned'),
                (self.folder / 'tokenizer.model').read_bytes(),
                self.meta['words'],
            )
        return self._tokenizer

    def episodes(self, columns=None):
        """the episodes' words and annotation -> list of dicts"""
        return pq.read_table(self.folder / self.split / 'episodes.parquet', columns=columns).to_pylist()

    def prompt(self, k):
        """tokens of text number k"""
        return self.text[self.text_start[k] : self.text_start[k + 1]]

    def prompts(self, texts, n=None):
        """numbers of texts (B,), -1: none -> what GPT.words reads, pad_prompts to the longest, or to n tokens"""
        ids = [[NOT_GIVEN] if k < 0 else self.prompt(k) for k in texts]
        if not self.text_width:
            return pad_prompts(ids, n)
        return pad_prompts(
            ids,
            n,
            [None if k < 0 else self.states[self.state_start[k] :][: len(i)] for k, i in zip(texts, ids)],
            self.text_width,
        )


def is_a(value, kind):
    """is what a JSON file holds of this type? [str]: a list of strings; float: any number"""
    if isinstance(kind, list):
        return isinstance(value, list) and all(is_a(v, kind[0]) for v in value)
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def load_meta(folder):
    file = Path(folder) / 'meta.json'
    if not file.is_file():
        raise FileNotFoundError(f'no prepared data in {folder}. Run: python prepare.py')
    try:
        meta = json.loads(file.read_text())
    except (ValueError, RecursionError):
        raise ValueError(f'{file} is damaged. Run: python prepare.py') from None
    if (
        not isinstance(meta, dict)
        or meta.get('version') != VERSION
        or not all(k in meta and is_a(meta[k], kind) for k, kind in NEEDED.items())
        or not all(is_a(c, dict) for c in meta['counts'].values())
    ):
        raise ValueError(f'{file} is not of format {VERSION}, or parts of it are missing. Run: python prepare.py')
    return meta


def again(meta):
    return f'python prepare.py --dataset={meta["dataset"]}'


def lock(folder):
    """this process alone may write there, until it ends, however it does, or closes what is returned (os.close)"""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise OSError(f'another process is writing to {folder}. Wait until it is done, or write elsewhere') from None
    return held


def sync(file):
    """what was written to a file, or renamed in a directory, is on the disk even if the power fails now"""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def begin(partial):
    """an empty directory to write in, which this process alone does -> its lock (os.close)"""
    partial.mkdir(parents=True, exist_ok=True)
    held = lock(partial)
    for left in partial.iterdir():  # by one that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return held


def finish(partial, out):
    """all of it is there: it becomes `out`, and what was there stays whole until then"""
    for file in filter(Path.is_file, partial.rglob('*')):  # on the disk before it is in its place
        sync(file)
    old = out.with_name(f'{out.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(partial, out)
    except OSError:
        if old.exists():
            os.rename(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sha256(file):
    with open(file, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()
