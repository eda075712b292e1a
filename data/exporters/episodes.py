"""
What exports to the formats of other libraries share: the episodes of prepared data, with what archives leave out, and
a folder that is written as a whole or not at all.
"""

import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.archive import batched
from data.contract import environments, has_environment
from data.prepared import SPLITS, Prepared, Rows, finish, partial_folder
from data.verify import side_by_side

BLOCK = 256  # episodes in memory, and in the environment side by side
WORDS = ('source', 'seed', 'asked', 'novel', 'text', 'loose', 'held_out')
NEW_FOLDER = 'Name a folder that is not there yet'


# ------------------------------------------------------------------------------
# the folder


def check_licence(licence):
    if not re.fullmatch(r'[a-z0-9][a-z0-9.-]*', licence):
        raise ValueError(f'licence={licence!r} is not as the hub calls them: mit, apache-2.0, cc-by-4.0')


def check(to, licence):
    """refuse what cannot be exported to: whatever is there"""
    check_licence(licence)
    to = Path(to)
    if to.is_file() or (to.is_dir() and any(to.iterdir())):
        raise ValueError(f'export={to} is there. {NEW_FOLDER}')


@contextmanager
def whole_folder(to):
    """an empty folder that becomes `to` at the end, all of it or nothing; an OSError says what is in the way"""
    to = Path(to)
    with partial_folder(to) as partial:
        try:
            yield partial
            finish(partial, to)
        except OSError as e:
            cure = 'Free some space there, or set another --export'
            raise OSError(f'nothing could be exported to {to}: {e.strerror or e}. {cure}') from None


def megabytes(folder):
    return sum(f.stat().st_size for f in Path(folder).rglob('*') if f.is_file()) / 1e6


def card(episodes, name, licence, library):
    """the README.md of an export, with the front matter that the Hugging Face hub reads"""
    head = [f'license: {licence}', 'task_categories: [robotics]', f'tags: [{library}, nanopilot]']
    return '\n'.join(['---', *head, '---', f'# {name}', '', episodes.summary(), ''])


# ------------------------------------------------------------------------------
# the episodes


class Episodes:
    """
    The episodes of prepared data, train, val and test one after another. Where the environment gives an episode's
    observations once more, it says what prepared data leaves out: the observation after the last action, the rewards,
    and why it ended. Else the last observation is repeated, rewards are what the return grows by (without a return,
    0), and an episode as long as the longest was cut off.

    splits: {name: Prepared}; meta; has_text, has_reward: is there any?; n_unknown: episodes that were not replayed
    """

    def __init__(self, folder, dataset):
        """dataset: its module"""
        self.dataset = dataset
        self.splits = {s: Prepared(folder, s) for s in SPLITS}
        self.meta = self.splits['train'].meta
        self.kwargs = self.meta['env_kwargs']
        self.has_text = self.meta['text_len'] > 0
        self.has_environment = has_environment(dataset, self.kwargs)
        self.has_reward = self.has_environment or 'discount' in self.meta
        self.n_unknown = 0

    def __len__(self):
        return sum(map(len, self.splits.values()))

    def ranges(self):
        """-> {'train': (0, n), 'val': (n, m), ..}: which episodes are in which split"""
        ends = np.cumsum([len(split) for split in self.splits.values()]).tolist()
        return dict(zip(self.splits, zip([0, *ends], ends)))

    def blocks(self):
        """
        yields lists of dicts: obs (T + 1, n_obs), act (T, n_act) or of labels (T,), reward (T,) float64, terminated and
        truncated (T,) bool, bd (T + 1, n_bd), taught (T,) bool, split, and WORDS
        """
        self.n_unknown = 0
        bar = tqdm(total=len(self), desc='export', unit='ep', mininterval=1, disable=None)
        for split in self.splits.values():
            rows = enumerate(Rows(split.folder / split.split, list(WORDS)))
            for numbered in batched(rows, BLOCK):
                block = [self.recorded(split, i, words) for i, words in numbered]
                self.complete(block)
                yield block
                bar.update(len(block))
        bar.close()

    def recorded(self, split, i, words):
        """an episode as it is in prepared data"""
        steps = slice(split.start[i], split.start[i + 1])
        arrays = {name: np.array(getattr(split, name)[steps]) for name in ('obs', 'act', 'path', 'taught')}
        return {'split': split.split, **words, **arrays}

    def complete(self, block):
        """add what prepared data leaves out"""
        known = [e for e in block if self.has_environment and e['seed'] >= 0]
        same = replay(self.dataset, self.kwargs, known) if known else []
        done = {id(e) for e, ok in zip(known, same) if ok}
        for e in block:
            if id(e) not in done:
                self.assume(e)
                self.n_unknown += 1

    def assume(self, e):
        """of an episode that nothing replays"""
        T, path = len(e['act']), e.pop('path')
        began = np.full_like(path[:1], 0 if 'discount' in self.meta else np.nan)
        e['bd'] = np.concatenate([began, path])
        e['obs'] = np.concatenate([e['obs'], e['obs'][-1:]])
        e['reward'] = np.zeros(T)
        if 'discount' in self.meta:
            e['reward'] = np.diff(e['bd'][:, 0].astype(np.float64)) / self.meta['discount'] ** np.arange(T)
        e |= ends(T, terminated=T < self.meta['max_steps'])

    def summary(self):
        """what is in it, for people, once blocks() are through"""
        counts = ', '.join(f'{len(split)} {s}' for s, split in self.splits.items())
        said = [f'episodes of {self.meta["dataset"]}, made by nanoPilot, in this order: {counts}', *self.notes()]
        return ' '.join(f'{sentence[0].upper()}{sentence[1:]}.' for sentence in said)

    def notes(self):
        """what is not as the environment would say -> sentences, none or more"""
        said = []
        if self.n_unknown:
            said.append(
                f'{self.n_unknown} episodes could not be replayed: their last observation is there twice, '
                f'and those of {self.meta["max_steps"]} steps count as cut off'
            )
        if self.n_unknown and 'discount' not in self.meta:
            said.append('their rewards are not known: where a format needs them, they are 0')
        return said


def ends(T, terminated):
    """-> terminated and truncated (T,), one of which is True at the last step"""
    last = np.arange(T) == T - 1
    return {'terminated': last & terminated, 'truncated': last & (not terminated)}


def replay(dataset, kwargs, block):
    """
    Step episodes in the environment once more -> (n,) bool: does it give their observations and their end? Those that
    it does are completed.
    """
    n, rows = len(block), np.arange(len(block))
    length = np.array([len(e['act']) for e in block])
    obs, act = (side_by_side(block, name, length) for name in ('obs', 'act'))
    env = environments(dataset, n, kwargs)
    seen, info = env.reset(seed=[e['seed'] for e in block])
    T = len(act)
    bd = np.empty((T + 1, *info['bd'].shape), np.float32)
    bd[0] = info['bd']
    reward, last_obs = np.zeros((T, n)), np.empty_like(obs[0])
    same, by_itself = np.ones(n, bool), np.zeros(n, bool)
    for t in range(T):
        same &= (seen.reshape(n, -1) == obs[t]).all(-1) | (t >= length)
        seen, reward[t], terminated, truncated, info = env.step(act[t])
        bd[t + 1] = info['bd']
        last = t + 1 == length
        last_obs[last] = seen.reshape(n, -1)[last]
        by_itself[last] = terminated[last]
    env.close()
    same &= (bd[length, rows] == np.stack([e['path'][-1] for e in block])).all(-1)
    for k in np.flatnonzero(same):
        e, T = block[k], length[k]
        e.pop('path')
        e |= {'obs': np.append(e['obs'], last_obs[k, None], 0), 'bd': bd[: T + 1, k], 'reward': reward[:T, k]}
        e |= ends(T, by_itself[k])
    return same


def text_of(e):
    """the sentence of an episode that formats with room for one are given, '' where it has none"""
    return (e['text'] or e['loose'] or [''])[0]
