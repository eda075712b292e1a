"""
Writing of prepared data (data/prepared.py says what is in it), without holding more than a few episodes in memory.
"""

import hashlib
import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import chain, pairwise
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.archive import obs_dtype
from data.prepared import SPLITS, Rows
from data.text import has_words
from data.workers import in_order

SENTENCES = ('text', 'loose', 'parts', 'asked')  # columns of episodes.parquet, and all of words_only.parquet
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
        ('parts', pa.string()),
        ('group', pa.string()),
        ('bd', pa.list_(pa.float64())),
    ]
)


class NpyWriter:
    """A .npy file that grows row by row; its header leaves room for the final length."""

    def __init__(self, file, width, dtype):
        self.file = open(file, 'wb')
        self.shape = (0,) + width
        self.dtype = np.dtype(dtype)
        self.header()

    def header(self):
        descr = np.lib.format.dtype_to_descr(self.dtype)
        head = {'descr': descr, 'fortran_order': False, 'shape': self.shape}
        np.lib.format.write_array_header_1_0(self.file, head)

    def append(self, rows):
        """one row, or many, even of no width"""
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        n = len(rows) if rows.ndim == len(self.shape) else 1
        rows = rows.reshape(n, *self.shape[1:])
        self.file.write(rows.tobytes())
        self.shape = (self.shape[0] + n,) + self.shape[1:]

    def close(self):
        self.file.seek(0)
        self.header()
        self.file.close()


class SplitWriter:
    """A split that is written episode by episode. In memory: the rows of the last few, and a number for each."""

    def __init__(self, folder, width, dtype):
        """width: of the arrays, {'obs': (n_obs,), ..}; dtype: where it is not float32"""
        folder.mkdir(parents=True)
        self.folder = folder
        self.rows = []
        self.start = array('q', [0])
        self.sources = Counter()
        self.novel = Counter()
        self.n_texts = 0
        self.arrays = {}
        for name, w in width.items():
            self.arrays[name] = NpyWriter(folder / f'{name}.npy', w, dtype.get(name, np.float32))
        self.parquet = pq.ParquetWriter(folder / 'episodes.parquet', EPISODE, compression='zstd')

    def __len__(self):
        return len(self.start) - 1

    def append(self, episode, row):
        """episode: its arrays; row: its row of episodes.parquet"""
        for name, file in self.arrays.items():
            file.append(episode[name])
        self.start.append(self.start[-1] + len(episode['act']))
        self.sources[row['source']] += 1
        self.novel[row['novel']] += 1
        self.n_texts += len(sentences_of(row))
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


def write_words_only(folder, blocks):
    """blocks: of notes without episodes, lists -> how many there are; words_only.parquet of a split's folder"""
    schema = pa.schema([EPISODE.field(name) for name in SENTENCES])
    n = 0
    with pq.ParquetWriter(folder / 'words_only.parquet', schema, compression='zstd') as file:
        for notes in blocks:
            rows = [{**of_one, 'parts': json.dumps(of_one['parts'])} for of_one in notes]
            file.write_table(pa.Table.from_pylist(rows, schema=schema))
            n += len(rows)
    return n


class Moments:
    """Mean and standard deviation of rows, added up in one pass."""

    def __init__(self, width):
        self.n = 0
        self.total = np.zeros(width)
        self.squares = np.zeros(width)

    def add(self, rows):
        """one row (width,), or many (n, width)"""
        rows = np.asarray(rows, np.float64)
        if rows.ndim == self.total.ndim:
            rows = rows[None]
        self.n += len(rows)
        self.total = self.total + rows.sum(0)
        self.squares = self.squares + (rows**2).sum(0)

    def std(self):
        return np.sqrt(np.maximum(self.squares / self.n - (self.total / self.n) ** 2, 0))

    def constant(self):
        """(width,) bool"""
        return self.std() < 1e-6

    def normaliser(self):
        std = np.where(self.constant(), 1.0, self.std())  # a constant stays what it is
        return {'mean': (self.total / self.n).tolist(), 'std': std.tolist()}


class EpisodeWriter:
    """
    The splits of a data set, and what is counted on the way: `splits` {name: SplitWriter}, `moments`, `spreads`,
    `wordless`, sentences that were left out.
    """

    def __init__(self, folder, spec, subgoal=False):
        """spec: the data set's; subgoal: do some of the episodes have one?"""
        bd = (len(spec['bd_names']),)
        width = {'obs': (len(spec['obs_names']),), 'act': (), 'bd': bd, 'path': bd, 'taught': (), 'hard': ()}
        dtype = {'obs': obs_dtype(spec), 'act': np.int64, 'taught': bool}
        if subgoal:
            width['subgoal'] = bd
        moments = ['obs', 'bd']
        self.continuous = spec['continuous']
        if self.continuous:
            width['act'] = (len(spec['act_names']),)
            dtype['act'] = np.float32
            moments.append('act')
        self.splits = {name: SplitWriter(folder / name, width, dtype) for name in SPLITS}
        self.moments = {name: Moments(width[name]) for name in moments}  # of the training split
        self.spreads = {}  # source: [(*bd, spread)], of a quality-diversity archive
        self.wordless = 0

    def append(self, episode, notes):
        """an episode of an archive, and its notes (data/blocks.py)"""
        act, path = episode['act'], episode['path']
        arrays = {
            **episode,
            'act': act if self.continuous else act[:, 0],
            'path': path[1:],
            'taught': episode.get('taught', np.ones(len(act))) != 0,
            'subgoal': episode.get('subgoal', np.full_like(path[1:], np.nan)),
            'hard': episode.get('hard', notes.get('hard', np.nan)),
        }
        row = {name: notes[name] for name in ('asked', 'novel', 'group')}
        row |= {name: self.with_words(notes[name]) for name in ('text', 'loose', 'held_out')}
        row |= {name: episode[name] for name in ('source', 'seed')}
        row |= {'bd': episode['bd'].tolist(), **{name: json.dumps(notes[name]) for name in ('visits', 'parts')}}
        self.splits[notes['split']].append(arrays, row)
        if notes['split'] == 'train':
            for name, moments in self.moments.items():
                moments.add(episode[name])
        if 'spread' in episode:
            self.spreads.setdefault(episode['source'], []).append((*episode['bd'], episode['spread']))

    def with_words(self, sentences):
        """sentences without those that hold no word, as '' and '?!', which are counted"""
        kept = [text for text in sentences if has_words(text)]
        self.wordless += len(sentences) - len(kept)
        return kept

    def wordless_note(self):
        """what is said of them"""
        without = '' if self.splits['train'].n_texts else '. No training episode has another: prepared without language'
        return f'{self.wordless} texts hold no word: left out{without}'

    def empty(self):
        """names of splits without an episode"""
        return [name for name, split in self.splits.items() if not len(split)]

    def close(self):
        for split in self.splits.values():
            split.close()


def none_kept(dropped, of_files):
    """what is said where all episodes were dropped. dropped: Counter of (source, reason); of_files: of --archive"""
    reasons = Counter()
    for (_, reason), count in dropped.items():
        reasons[reason] += count
    (reason, count), *_ = reasons.most_common(1)
    cure = 'Where, and the cure: the same command with --check' if of_files else 'Collect them again: --recollect'
    most = '' if len(reasons) == 1 else f', {count} of them'
    return f'all {dropped.total()} episodes were left out{most}: {reason}. {cure}'


WHOLE = 0, np.iinfo(np.int64).max  # the steps that a sentence of a whole episode speaks of


def sentences_of(row):
    """all sentences of an episode, row: its SENTENCES"""
    return row['text'] + row['loose'] + [text for text, *_ in json.loads(row['parts'])]


def spans_of(row):
    """of each of sentences_of(row): the first step that it speaks of, and the one after the last"""
    return [WHOLE] * len(row['text'] + row['loose']) + [span for _, *span in json.loads(row['parts'])]


class Sentences:
    """All sentences of a split, to be iterated over any number of times."""

    def __init__(self, folder):
        self.rows = Rows(folder, SENTENCES)

    def __iter__(self):
        for row in self.rows:
            yield from sentences_of(row)


@dataclass
class TextCounts:
    """What is counted while texts are tokenized."""

    lengths: Counter = field(default_factory=Counter)  # tokens: texts, those left out included
    hashes: array = field(default_factory=lambda: array('q'))  # of each text
    n_too_long: int = 0  # left out
    longest_said: int = 0  # tokens of what a text asks for in plain words

    def summary(self, tokenizer, text_len):
        n, distinct = len(self.hashes), len(np.unique(self.hashes))
        lengths, times = zip(*sorted(self.lengths.items()))
        median = np.median(np.repeat(lengths, times))
        vocabulary = f'vocabulary {tokenizer.vocab_size}'
        if tokenizer.text_width:
            vocabulary = f'states of {tokenizer.name}, {tokenizer.text_width} wide'
        return (
            f'texts: {n}, {distinct} distinct; tokens median {median:.0f}, longest {max(self.lengths)}, '
            f'{self.n_too_long} longer than text_len={text_len} left out; {vocabulary}'
        )


def write_texts(folder, tokenizer, text_len, counts, roughen=None, plain=None):
    """
    Tokenize the sentences of a split's episodes.parquet, and after them those of its words_only.parquet: text.npy,
    text_start.npy, episode_text.npy, of the first alone, and span.npy, and with `plain` said.npy and said_start.npy.

    tokenizer: None where there are no sentences; counts: TextCounts to add to; roughen(text, random.Random): a sentence
    as it is read instead; plain(request, loose): what is asked for, all of it or the destination, in plain words
    """
    wide = tokenizer is not None and tokenizer.text_width
    text = NpyWriter(folder / 'text.npy', (), np.uint32 if wide else np.uint16)
    text_start = array('q', [0])
    episode_text = array('q', [0])
    span = array('q')
    said = NpyWriter(folder / 'said.npy', (), np.uint16) if plain else None
    said_start = array('q', [0])
    files = [Rows(folder, SENTENCES), Rows(folder, SENTENCES, 'words_only')]
    batches = chain.from_iterable(rows.batches() for rows in files if rows.file.exists())
    n_episodes = len(np.load(folder / 'start.npy', mmap_mode='r')) - 1
    work = partial(tokenize, tokenizer=tokenizer, roughen=roughen, plain=plain)
    for rows, episodes in in_order(work, batches):
        for row, (tokens, hashes, plain_tokens) in zip(rows, episodes):
            for ids, steps, plain_ids in zip(tokens, spans_of(row), plain_tokens):
                counts.lengths[len(ids)] += 1
                if max(len(ids), len(plain_ids)) > text_len:
                    counts.n_too_long += 1
                    continue
                text.append(ids)
                text_start.append(text_start[-1] + len(ids))
                span.extend(steps)
                if plain:
                    said.append(plain_ids)
                    said_start.append(said_start[-1] + len(plain_ids))
                    counts.longest_said = max(counts.longest_said, len(plain_ids))
            counts.hashes.extend(hashes)
            episode_text.append(len(text_start) - 1)
    text.close()
    np.save(folder / 'text_start.npy', np.array(text_start))
    np.save(folder / 'episode_text.npy', np.array(episode_text[: n_episodes + 1]))
    np.save(folder / 'span.npy', np.array(span).reshape(-1, 2))
    if plain:
        said.close()
        np.save(folder / 'said_start.npy', np.array(said_start))


def tokenize(rows, tokenizer, roughen=None, plain=None):
    """
    rows of SENTENCES -> for each of them the tokens of each sentence, a number that stands for it, and the tokens of
    what it asks for in plain words, none where nobody knows
    """
    if tokenizer is None:
        return [([], [], [])] * len(rows)
    tokenized = []
    for row in rows:
        sentences = sentences_of(row)
        hashes = [int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True) for text in sentences]
        if roughen:
            sentences = [roughen(text, Random(number)) for text, number in zip(sentences, hashes)]
        tokenized.append(
            ([tokenizer.encode(text) for text in sentences], hashes, in_plain_words(row, tokenizer, plain))
        )
    return tokenized


def in_plain_words(row, tokenizer, plain):
    """-> for each of sentences_of(row) the tokens of plain(request, loose)"""
    n, n_loose, n_parts = len(row['text']), len(row['loose']), len(json.loads(row['parts']))
    if not plain:
        return [[]] * (n + n_loose + n_parts)
    whole, loose = (tokenizer.encode(plain(row['asked'], just_there)) for just_there in (False, True))
    return [whole] * n + [loose] * n_loose + [[]] * n_parts


def write_states(folder, tokenizer, cache):
    """
    The states of a frozen encoder, each distinct prompt's in one place: states.npy (tokens, width) float16, and
    state_start.npy (texts,), where each prompt's begin. cache: a DiskCache of states that were computed before
    """
    text = np.load(folder / 'text.npy', mmap_mode='r')
    text_start = np.load(folder / 'text_start.npy', mmap_mode='r')
    state_start = np.empty(len(text_start) - 1, np.int64)
    first_row = {}  # bytes of a prompt: where its states begin
    n_rows = 0
    rows = NpyWriter(folder / 'states.npy', (tokenizer.text_width,), np.float16)
    bar = tqdm(total=len(state_start), desc=f'encode {folder.name}', unit='texts', disable=None)
    for first in range(0, len(state_start), 1024):
        prompts = [text[a:b] for a, b in pairwise(text_start[first : first + 1025])]
        new = {p.tobytes(): p for p in prompts if p.tobytes() not in first_row}
        for key, states in encode(new, tokenizer, cache).items():
            first_row[key] = n_rows
            rows.append(np.frombuffer(states, np.float16).reshape(-1, tokenizer.text_width))
            n_rows += len(new[key])
        state_start[first : first + len(prompts)] = [first_row[p.tobytes()] for p in prompts]
        bar.update(len(prompts))
    bar.close()
    rows.close()
    np.save(folder / 'state_start.npy', state_start)


def encode(prompts, tokenizer, cache):
    """prompts: {bytes: tokens} -> {bytes: their states, as bytes}, from the cache where it has them"""
    keys = {ids: hashlib.sha256(tokenizer.model + ids).hexdigest() for ids in prompts}
    states = {ids: cache.get(key) for ids, key in keys.items()}
    missing = [ids for ids, s in states.items() if s is None]
    for ids, s in zip(missing, tokenizer.states([prompts[ids] for ids in missing])):
        states[ids] = s.tobytes()
    cache.put_all((keys[ids], states[ids]) for ids in missing)
    return states
