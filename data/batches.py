"""
What a training step learns from: segments of episodes with a prompt and a behaviour descriptor each, from memory maps.

Batch number `step` is a function of (seed, which, step) alone: the same however many ranks share it and wherever a run was
resumed. Batches are drawn `bucket` at a time and sorted by length, so that little of them is padding.
"""

import math
from functools import lru_cache

import numpy as np

from data.metrics import to_go
from data.text import PAD


class Batches:
    """`batch(step)` of one split."""

    def __init__(
        self,
        split,
        which,
        seed,
        batch_size,
        bucket,
        chunk,
        n_slots,
        segment_len=0,
        n_future=0,
        columns=None,
        drop_text=0.0,
        drop_bd='0',
        source_weights='',
        fixed=None,
        data_fraction=1.0,
        beyond=0,
        curriculum=0,
        segment_from=0,
        difficulty_from=1.0,
    ):
        """
        split: a Prepared; which: tells the draws of several of these apart; batch_size in episodes; chunk: environment steps a
        step; n_slots: tokens a step; segment_len: steps at a time, 0: whole episodes; columns: of the observations; drop_text and
        drop_bd: shares without; source_weights: shares of the sources; fixed: prompt tokens, if all batches are to have one shape; data_fraction: of the episodes;
        beyond: steps after the longest episode's end; curriculum: batches over which segments double from segment_from steps to all,
        0: all from the start, and episodes come in that are harder than difficulty_from
        """
        self.split, self.which, self.seed, self.batch_size, self.bucket, self.chunk, self.n_slots = (
            split,
            which,
            seed,
            batch_size,
            bucket,
            chunk,
            n_slots,
        )
        self.n_future, self.columns, self.drop_text, self.fixed = n_future, columns, drop_text, fixed
        self.drop_bd = shares(drop_bd, split.meta['sources'], 'drop_bd', 1)  # (sources,)
        self.beyond, self.curriculum, self.segment_from, self.difficulty_from = (
            beyond,
            curriculum,
            segment_from,
            difficulty_from,
        )
        self.longest = min(segment_len * chunk or split.meta['longest'], split.meta['longest'])  # environment steps
        self.weights = (
            weights(split, source_weights, data_fraction)
            if source_weights or data_fraction < 1 or difficulty_from < 1
            else None
        )
        self.cumulated = None if self.weights is None else np.cumsum(self.weights)
        if difficulty_from < 1:
            for i, source in enumerate(split.meta['sources']):
                mine = (split.source == i) & (self.weights > 0)
                if mine.any() and (np.isnan(split.hard[mine]).any() or not (split.hard[mine] <= difficulty_from).any()):
                    raise ValueError(
                        f'difficulty_from={difficulty_from}: no episode of {source} is that easy, or its archive does not say (column hard, 0 to 1). Raise it, or leave it out'
                    )
        self.group = lru_cache(maxsize=4)(self.draw)

    def done(self, group):
        """how much of the curriculum is behind, at a group of batches: 0 to 1"""
        return min(1.0, group * self.bucket / self.curriculum) if self.curriculum else 1.0

    def longest_at(self, group):
        """environment steps of the longest segments there"""
        first = self.segment_from * self.chunk
        if self.done(group) == 1 or not 0 < first < self.longest:
            return self.longest
        doublings = math.ceil(math.log2(self.longest / first))
        return min(self.longest, first * 2 ** int(self.done(group) * (doublings + 1)))

    def draw(self, group):
        """
        Group number `group` of `bucket` batches -> (episode, environment steps of it, the one a segment begins at, text, no
        bd?), each (bucket, batch_size); the text is -1 where there is none.
        """
        split, rng, n = self.split, np.random.default_rng([self.seed, self.which, group]), self.batch_size * self.bucket
        longest, cumulated, done = self.longest_at(group), self.cumulated, self.done(group)
        if done < 1 and self.difficulty_from < 1:
            easy = self.weights * (split.hard <= self.difficulty_from + (1 - self.difficulty_from) * done)
            whole, left = (np.bincount(split.source, w) for w in (self.weights, easy))
            cumulated = np.cumsum(easy * (whole / np.maximum(left, 1e-12))[split.source])  # sources keep their shares
        if cumulated is None:
            episode = rng.integers(len(split), size=n)
        else:
            episode = np.searchsorted(cumulated, rng.random(n) * cumulated[-1], 'right').clip(0, len(split) - 1)
        length = np.minimum(split.length[episode], longest)
        first = (rng.random(n) * ((split.length[episode] - length) // self.chunk + 1)).astype(
            int
        ) * self.chunk  # a multiple, as when rolling out
        n_texts = np.diff(split.episode_text)[episode]
        text = split.episode_text[episode] + (rng.random(n) * n_texts).astype(int)
        text = np.where((rng.random(n) < self.drop_text) | (n_texts == 0), -1, text)
        no_bd = rng.random(n) < self.drop_bd[split.source[episode]]
        tokens = np.ceil(length / self.chunk) * self.n_slots
        if self.split.meta['text_len']:
            tokens += np.where(text < 0, 1, np.diff(split.text_start)[text])
        order = np.argsort(tokens, kind='stable').reshape(self.bucket, self.batch_size)[
            rng.permutation(self.bucket)
        ]  # short ones do not always come first
        return [a[order] for a in (episode, length, first, text, no_bd)]

    def batch(self, step, share=slice(None)):
        """
        share: the rows of it to return -> arrays

        text (B, N) or (B, N, 1 + text_width), obs (B, S, chunk, n_obs), act (B, S, chunk, ...), bd (B, 1, n_bd), or (B, S, 1) for
        returns, real (B, S, chunk) and to be
        imitated, ahead (B, S, n_future, n_bd), first (B,) the step a segment begins at, over (B, S), True after the last step of
        an episode that ended by itself, and the number of real environment steps in the whole of it
        """
        split, chunk = self.split, self.chunk
        group, k = divmod(step, self.bucket)
        episodes, length, first, text, no_bd = (a[k] for a in self.group(group))
        S = math.ceil((length.max() if self.fixed is None else self.longest_at(group)) / chunk) + self.beyond
        t = np.arange(S * chunk)
        rows = (
            split.start[episodes][:, None] + first[:, None] + np.minimum(t, length[:, None] - 1)
        )  # (B, S * chunk), the last one again past the end
        taught = np.logical_and.accumulate(
            split.taught[rows].reshape(-1, S, chunk), 2
        )  # what was decided before a disturbance ends with it
        real = (t < length[:, None]) & taught.reshape(rows.shape)
        n_real = int(real.sum())

        episodes, length, first, text, no_bd, rows, real = (
            a[share] for a in (episodes, length, first, text, no_bd, rows, real)
        )
        B, begin = len(episodes), split.start[episodes][:, None]
        seen = begin + np.clip(
            first[:, None] + t - chunk + 1, 0, split.length[episodes][:, None] - 1
        )  # up to each decision
        obs = split.obs[seen] if self.columns is None else split.obs[seen][..., self.columns]
        act = split.act[rows].reshape(B, S, chunk, *split.act.shape[1:])
        ends = (
            np.arange(S)[:, None] * chunk + chunk * 2 ** np.arange(self.n_future) - 1
        )  # (S, n_future), steps after which it is there
        ahead = split.path[
            begin[..., None] + np.minimum(first[:, None, None] + ends, split.length[episodes][:, None, None] - 1)
        ]
        bd = split.bd[episodes][:, None]
        if 'discount' in split.meta:  # what is left of a return
            before = np.minimum(first[:, None] + np.arange(S) * chunk, split.length[episodes][:, None] - 1)  # steps
            so_far = np.where(before[..., None] > 0, split.path[begin + np.maximum(before, 1) - 1], np.float32(0))
            bd = to_go(bd, so_far, before[..., None], split.meta['discount'])
        bd = np.where(no_bd[:, None, None], np.float32(np.nan), bd)
        ended = (first + length == split.length[episodes]) & (
            split.length[episodes] < split.meta['max_steps']
        )  # not just cut off
        over = ended[:, None] & (np.arange(S) == np.ceil(length[:, None] / chunk))
        prompts = split.prompts(text, self.fixed) if split.meta['text_len'] else np.full((B, 0), PAD)
        return (
            prompts,
            obs.reshape(B, S, chunk, -1),
            act,
            bd,
            real.reshape(B, S, chunk),
            ahead,
            first // chunk,
            over,
            n_real,
        )


def shares(said, sources, name, most=math.inf):
    """what a setting says of each source, (sources,): 'demonstrations=0.7,elites=0.3', or one number for all"""
    form = f"{name}={said!r} is not of the form '{','.join(f'{s}=0.5' for s in sources)}'"
    try:
        given = (
            {k.strip(): float(share) for k, share in (part.split('=') for part in said.split(','))}
            if '=' in said
            else dict.fromkeys(sources, float(said))
        )
    except ValueError:
        raise ValueError(form) from None
    if sorted(given) != sorted(sources) or said.count('=') not in (0, len(given)):
        raise ValueError(f'{name} names {sorted(given)}, the data has {sources}. Name each once')
    if not all(0 <= share <= most and share < math.inf for share in given.values()):
        raise ValueError(f'{form}, from 0 to {most:g}')
    return np.array([given[s] for s in sources])


def weights(split, source_weights, data_fraction):
    """how often each episode is drawn under a mix of the sources, some episodes of each never -> (episodes,), their sum is 1"""
    nth = np.floor(np.arange(len(split) + 1) * data_fraction)
    p = (np.diff(nth) > 0).astype(float)
    if source_weights:
        wanted = shares(source_weights, split.meta['sources'], 'source_weights')
        for i, share in enumerate(wanted):
            mine = split.source == i
            if share and not p[mine].any():
                raise ValueError(
                    f'source_weights={source_weights!r} and {data_fraction=} leave no episode of {split.meta["sources"][i]}'
                )
            p[mine] *= share / max(p[mine].sum(), 1)
    if not p.any():
        raise ValueError(f'source_weights={source_weights!r} and {data_fraction=} leave no episode to train on')
    return p / p.sum()
