"""
What prepare.py does with a block of an archive's episodes, in whatever process: replay, words, split. What comes out
depends on the block alone.
"""

import hashlib
import json
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import pyarrow as pa

from data.archive import episodes_of
from data.contract import has_environment, load, read_spec
from data.describe import annotate, annotate_words, keep_texts, phrasings_for_test
from data.prepared import SPLITS
from data.verify import digest, verify

BLOCK = 1024  # episodes: replayed side by side, and by one process
FEW = 1000  # episodes: that many are split by count, if the hash of what they ask for leaves a split empty


class Block(NamedTuple):
    """episodes of an archive, next to each other"""

    batch: pa.RecordBatch
    meta: dict  # of the archive
    number: int  # of the first one, from 1
    file: str  # the archive's

    def episodes(self):
        return episodes_of(self.batch, self.meta)


class ReadEpisode(NamedTuple):
    """what is found out about an episode"""

    reason: str | None = None  # why it is dropped
    notes: dict | None = None  # data/describe.py; with 'split', 'novel' and 'held_out', sentences for testing only
    path: object = None  # (T + 1, n_bd), where the archive has none
    digest: bytes = b''


def blocks_of(archives, size=BLOCK):
    """yields Blocks; memory does not grow with the archives"""
    number = 1
    for archive in archives:
        for batch in archive.batches(size):
            yield Block(batch, archive.meta, number, str(archive.file))
            number += len(batch)


@dataclass(frozen=True)
class Splits:
    """
    Which split an episode is in. An itinerary is in one split only; some combinations of landmarks, and what the data
    set itself calls novel, are in the test split only.
    """

    val_share: float
    test_share: float
    hold_out: float  # share of pairs of landmarks that occur in the test split only
    seed: int

    def assign(self, notes, episode, split=None):
        """split: that of an exported archive, which stays -> split, what is novel about it ('': nothing)"""
        if split in SPLITS:
            return split, episode.get('novel') or ''
        novel = notes['novel']
        pairs = combinations(sorted(notes['names']), 2)
        if not novel and any(self.fraction('pair', *pair) < self.hold_out for pair in pairs):
            novel = 'combination'
        u = self.fraction('group', notes['group'])
        if novel or u < self.test_share:
            return 'test', novel
        return ('val' if u < self.test_share + self.val_share else 'train'), novel

    def fraction(self, *key):
        return fraction(self.seed, *key)


def fraction(*key):
    """a number in [0, 1) that depends on the key alone"""
    text = '|'.join(map(str, key))
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def split_by_count(groups, val_share, test_share, seed):
    """
    groups {number of an episode: what it asks for}, at least 2 -> {number: list of its splits}. All of a group are in
    one split, unless there are fewer than 3 groups; of two episodes one is in both val and test
    """
    if len(set(groups.values())) < 3:
        groups = {number: str(number) for number in groups}
    order = sorted(set(groups.values()), key=lambda group: fraction(seed, 'group', group))
    if len(order) == 2:
        of_group = {order[0]: ['val', 'test'], order[1]: ['train']}
        return {number: of_group[group] for number, group in groups.items()}
    n_test = min(max(1, round(test_share * len(order))), len(order) - 2)
    n_val = min(max(1, round(val_share * len(order))), len(order) - 1 - n_test)
    of_group = dict.fromkeys(order, ['train'])
    of_group |= dict.fromkeys(order[:n_test], ['test'])
    of_group |= dict.fromkeys(order[n_test : n_test + n_val], ['val'])
    return {number: of_group[group] for number, group in groups.items()}


@dataclass(frozen=True)
class WordsOnly:
    """Draws requests of these numbers, in words alone -> the notes of those that are for training."""

    dataset: str
    kwargs: dict
    splits: Splits
    texts: int  # descriptions a request
    seed: int

    def __call__(self, numbers):
        data = load(self.dataset)
        notes = [annotate_words(data, number, self.kwargs, self.texts, self.seed) for number in numbers]
        return [of_one for of_one in notes if self.splits.assign(of_one, {}) == ('train', '')]


@dataclass(frozen=True)
class Reader:
    """Reads a Block -> for each of its episodes a ReadEpisode."""

    dataset: str
    kwargs: dict
    splits: Splits
    texts: int  # descriptions an episode
    keep: bool  # the archive's texts, and none of the data set's
    seed: int

    def __call__(self, block):
        data = load(self.dataset)
        episodes = block.episodes()
        has_path = 'path' in block.batch.schema.names
        replay = block.meta.get('replay', True) and has_environment(data, self.kwargs)
        reasons = verify(data, episodes, self.kwargs, read_spec(data, self.kwargs), replay)
        results = []
        for number, (episode, reason) in enumerate(zip(episodes, reasons), block.number):
            if reason:
                results.append(ReadEpisode(reason))
                continue
            notes = self.notes(data, episode, number, block.meta.get('split'), block.file)
            results.append(ReadEpisode(None, notes, None if has_path else episode['path'], digest(episode)))
        return results

    def notes(self, data, episode, number, split, file):
        try:
            notes = annotate(data, episode, number, self.kwargs, 0 if self.keep else self.texts, self.seed)
        except json.JSONDecodeError as e:  # of `asked`: `parts` was looked at before
            request = str(episode.get('asked'))[:40]
            raise ValueError(
                f'{file}, episode {number - 1}: asked is {request!r}, where {self.dataset} reads JSON ({e}). '
                'Write it as the data set does, or leave asked out'
            ) from None
        notes['split'], notes['novel'] = self.splits.assign(notes, episode, split)
        if self.keep:
            return {**keep_texts(notes, episode), 'held_out': list(episode.get('held_out') or [])}
        notes['held_out'] = phrasings_for_test(data, notes, self.seed) if notes['split'] == 'test' else []
        return notes
