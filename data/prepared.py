"""
Prepared data: flat arrays that training opens as memory maps, `data/<name>/prepared/{train,val,test}/`, written by
data/writing.py.

    obs.npy (steps, n_obs), uint8 or uint16 where all are ids  act.npy (steps, n_act)
    path.npy (steps, n_bd) after each step
    taught.npy (steps) bool, False where the action is not to be imitated
    subgoal.npy (steps, n_bd) what each step heads for, nan: not known; where an archive says it
    bd.npy (episodes, n_bd)  start.npy (episodes + 1) where each one begins
    source.npy (episodes) index into meta's sources
    hard.npy (episodes) how difficult each is, 0 to 1, nan where that is not known
    text.npy (tokens) uint16 or uint32, prompts end to end  text_start.npy (texts + 1) where each one begins
    said.npy (tokens), what each asks for in plain words, and said_start.npy; where the data set knows them
    span.npy (texts, 2) the first step that each speaks of, and the one after the last; where an archive has parts
    episode_text.npy (episodes + 1) index of an episode's first text
    of a frozen encoder also states.npy (rows, width) float16, and state_start.npy (texts) where a prompt's states begin
    episodes.parquet: for reading and scoring: the sentences, the request, the annotation
    ../meta.json: version, shapes, normaliser, tokenizer, archives with their SHA-256, split rule, counts;
    of the training texts the words, and neighbours: {word: those that stand after it, in one string}, '' at both ends
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

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
}  # types of meta.json's keys that describe the data; checkpoints hold a copy
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
}  # types of all of meta.json's keys that are needed
ARRAYS = ('obs', 'act', 'path', 'taught', 'bd', 'start', 'source', 'hard', 'text', 'text_start', 'episode_text')


class Rows:
    """Columns of a split's episodes.parquet, to be iterated over any number of times, never all in memory."""

    def __init__(self, folder, columns, name='episodes'):
        self.file = folder / f'{name}.parquet'
        self.columns = columns

    def __iter__(self):
        for rows in self.batches():
            yield from rows

    def batches(self):
        """yields lists of rows"""
        with pq.ParquetFile(self.file, pre_buffer=False) as file:
            for batch in file.iter_batches(1024, columns=self.columns):
                yield batch.to_pylist()


class View(NamedTuple):
    """The observations that a run uses, as columns of obs: the observed ones, then those that only training knows."""

    columns: list
    n_obs: int
    n_privileged: int


class Prepared:
    """A split, for reading: obs act bd start text text_start episode_text as memory maps, `meta`, `tokenizer`."""

    def __init__(self, folder, split):
        self.folder = Path(folder)
        self.split = split
        self._tokenizer = None
        self.meta = load_meta(folder)
        self.text_width = self.meta.get('text_width', 0)
        self.subgoal = self.span = self.said = None  # but where meta says that there is one
        optional = {'states': self.text_width, 'state_start': self.text_width}
        optional |= {'subgoal': self.meta.get('subgoal'), 'span': self.meta.get('parts')}
        optional |= dict.fromkeys(('said', 'said_start'), self.meta.get('longest_said'))
        for name in ARRAYS + tuple(name for name, wanted in optional.items() if wanted):
            file = self.folder / split / f'{name}.npy'
            try:
                mapped = np.load(file, mmap_mode='r', allow_pickle=False)
                setattr(self, name, mapped.view(np.ndarray))  # as lazy, and slices of it take a third of the time
            except FileNotFoundError:
                raise FileNotFoundError(f'no {file}. Run: {prepare_again(self.meta)}') from None
            except (ValueError, EOFError) as e:
                raise ValueError(f'{file} is damaged ({e}). Run: {prepare_again(self.meta)}') from None
        steps = self.meta['counts'].get(split, {}).get('steps')
        if len(self.obs) != steps or len(self.act) != steps or self.obs.shape[1] != len(self.meta['obs_names']):
            raise ValueError(f'{self.folder / split} does not fit its meta.json. Run: {prepare_again(self.meta)}')
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

    def view(self, obs_names='', privileged_obs=''):
        """
        Names of observations, separated by commas -> the View of them. obs_names: '' for all that are not privileged;
        privileged_obs: known in training only. ValueError for a name that the data does not have, or one in both
        """
        all_names = self.meta['obs_names']
        privileged = [name for name in privileged_obs.split(',') if name]
        observed = [name for name in obs_names.split(',') if name]
        for name in observed + privileged:
            if name not in all_names:
                raise ValueError(
                    f'there is no observation {name!r} in {self.folder}. There are: {", ".join(all_names)}'
                )
        both = [name for name in privileged if name in observed]
        if both:
            raise ValueError(
                f'{both[0]!r} is in obs_names and in privileged_obs. What is privileged is not observed: name it in one'
            )
        observed = observed or [name for name in all_names if name not in privileged]
        return View([all_names.index(name) for name in observed + privileged], len(observed), len(privileged))

    def check(self, dataset, text_len, head, heads, say_len=0, more_texts=0):
        """
        Refuse a run that this data is not for. dataset: its name; text_len: tokens that the model reads, 0: none
        head: the one of heads, {name: what has .discrete}, that predicts actions; say_len, more_texts: see check_said
        """
        if self.meta['dataset'] != dataset:
            raise ValueError(f'{self.folder} holds {self.meta["dataset"]}, not {dataset}. Set --dataset')
        continuous = self.meta['continuous']
        fitting = [name for name in heads if heads[name].discrete != continuous]
        if head not in fitting:
            kind = 'continuous' if continuous else 'discrete'
            raise ValueError(
                f'head={head!r} does not go with the {kind} actions of {dataset}. Set --head={" or ".join(fitting)}'
            )
        longest = self.meta['longest_text']
        if bool(text_len) != bool(self.meta['text_len']):
            has = 'prompts' if self.meta['text_len'] else 'no language'
            raise ValueError(
                f'text_len={text_len}, but {self.folder} has {has}. Set --text_len={self.meta["text_len"]}'
            )
        if text_len < longest:
            raise ValueError(
                f'text_len={text_len}, but prompts in {self.folder} have up to {longest} tokens. '
                f'Raise it, or prepare with --text_len={text_len}'
            )
        self.check_said(say_len, more_texts)

    def check_said(self, say_len, more_texts):
        """say_len: tokens that a policy says; more_texts: of which it learns to"""
        if bool(say_len) != bool(more_texts):
            raise ValueError(f'{say_len=}, {more_texts=}: one is for the other. Set both, or none')
        longest = self.meta.get('longest_said', 0)
        if say_len and not longest:
            raise ValueError(
                f'say_len={say_len}, but {self.folder} has no plain words to say. Leave it out, or prepare a data set '
                'that has plain(): see data/README.md'
            )
        if 0 < say_len < longest:
            raise ValueError(f'say_len={say_len}, but {self.folder} says up to {longest} tokens. Raise it')

    def model_args(self, view, chunk, extra_steps=0):
        """what of a GPTConfig follows from the data and the View of it; extra_steps: after the end of an episode"""
        longest = max(self.meta['longest'], self.meta['max_steps'])
        args = {
            'vocab_size': self.meta['vocab_size'],
            'text_width': self.text_width,
            'max_steps': math.ceil(longest / chunk) + extra_steps,
            'n_obs': view.n_obs,
            'n_privileged': view.n_privileged,
            'n_act': len(self.meta['act_names']),
            'n_bd': len(self.meta['bd_names']),
        }
        if self.subgoal is not None:
            args['subgoal'] = True
        if any(self.meta.get('obs_kinds', [])):
            args['obs_kinds'] = [self.meta['obs_kinds'][column] for column in view.columns]
        if self.meta.get('kind_parts'):
            args['kind_parts'] = self.meta['kind_parts']
        return args

    def first_text(self):
        """a sentence of the split; None where it has no language"""
        if not self.meta['text_len']:
            return None
        return next((text for row in Rows(self.folder / self.split, ['text']) for text in row['text']), None)

    def data_spec(self):
        """what a checkpoint says of the data that it was trained on, a dict"""
        optional = ('normaliser', 'discount', 'obs_period', 'obs_kinds', 'kind_parts', 'text_encoder', 'neighbours')
        return {k: self.meta[k] for k in (*SPEC, *optional) if k in self.meta}

    def episodes(self, columns=None):
        """rows of episodes.parquet: sentences and annotation -> list of dicts"""
        return pq.read_table(self.folder / self.split / 'episodes.parquet', columns=columns).to_pylist()

    def prompt(self, k):
        """tokens of text number k"""
        return self.text[self.text_start[k] : self.text_start[k + 1]]

    def plain(self, k):
        """tokens of what text number k asks for, in plain words; of the text itself, where nobody knows them"""
        ids = self.said[self.said_start[k] : self.said_start[k + 1]]
        return ids if len(ids) else self.prompt(k)

    def prompt_and_plain(self, k):
        """tokens of text number k, and after them those of its plain words"""
        return np.concatenate([self.prompt(k), self.said[self.said_start[k] : self.said_start[k + 1]]])

    def prompts(self, texts, n=None, read=None):
        """
        indices of texts (B,), -1: none -> the model's `text`, padded to the longest, or to n tokens; read: the method
        that makes tokens of a text's number, None: prompt
        """
        read = read or self.prompt
        ids = [[NOT_GIVEN] if k < 0 else read(k) for k in texts]
        if not self.text_width:
            return pad_prompts(ids, n)
        states = []
        for k, tokens in zip(texts, ids):
            states.append(None if k < 0 else self.states[self.state_start[k] :][: len(tokens)])
        return pad_prompts(ids, n, states, self.text_width)


def is_a(value, kind):
    """has a value of a JSON file this type? [str]: a list of strings; float: any number"""
    if isinstance(kind, list):
        return isinstance(value, list) and all(is_a(v, kind[0]) for v in value)
    if isinstance(value, bool):  # which Python counts as an int
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float))
    return isinstance(value, kind)


def load_meta(folder):
    file = Path(folder) / 'meta.json'
    if not file.is_file():
        place = Path(folder).absolute()  # data/<dataset>/prepared, or one of the user's own
        of = f' --dataset={place.parent.name}' if place.parent.parent == Path(__file__).parent else ''
        raise FileNotFoundError(f'no prepared data in {folder}. Run: python prepare.py{of}')
    try:
        meta = json.loads(file.read_text())
    except (ValueError, RecursionError):
        raise ValueError(f'{file} is damaged. Run: python prepare.py') from None
    if not is_complete(meta):
        raise ValueError(f'{file} is not of format {VERSION}, or parts of it are missing. Run: python prepare.py')
    return meta


def is_complete(meta):
    if not isinstance(meta, dict) or meta.get('version') != VERSION:
        return False
    if not all(key in meta and is_a(meta[key], kind) for key, kind in NEEDED.items()):
        return False
    return all(is_a(counts, dict) for counts in meta['counts'].values())


def prepare_again(meta):
    return f'python prepare.py --dataset={meta["dataset"]}'


# ------------------------------------------------------------------------------
# all of it or nothing


def lock(folder):
    """this process alone may write there, until it ends or closes what is returned -> file descriptor; OSError"""
    lock_fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_fd)
        raise OSError(f'another process is writing to {folder}. Wait until it is done, or write elsewhere') from None
    return lock_fd


def sync(file):
    """what was written to a file, or renamed in a directory, is on the disk even if the power fails now"""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def begin(partial):
    """make an empty directory that this process alone writes in -> its lock (os.close)"""
    partial.mkdir(parents=True, exist_ok=True)
    lock_fd = lock(partial)
    for left in partial.iterdir():  # by a process that was killed
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    return lock_fd


def finish(partial, out):
    """move a complete directory to `out`; what was there stays whole until then"""
    for file in partial.rglob('*'):
        if file.is_file():  # on the disk before it is in its place
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


@contextmanager
def partial_folder(out):
    """an empty folder beside `out` that this process alone writes in; gone at the end unless finish() has moved it"""
    partial = out.with_name(f'{out.name}.partial')
    lock_fd = begin(partial)
    inode = os.fstat(lock_fd).st_ino
    try:
        yield partial
    finally:
        if partial.exists() and partial.stat().st_ino == inode:  # else another process began after finish()
            shutil.rmtree(partial, ignore_errors=True)
        os.close(lock_fd)


def sha256(file):
    with open(file, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()
