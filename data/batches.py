"""
What a training step learns from: segments of episodes with a prompt and a behaviour descriptor each, from memory maps.

Batch number `step` is a function of (seed, which, step) alone: the same however many ranks share it and wherever a run
was resumed. Batches are drawn `bucket` at a time and sorted by length, so that little of them is padding.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.metrics import to_go
from data.prepared import Prepared
from data.text import PAD

SEES_SUBGOAL = 0.5  # share of the episodes of which a policy may see the sub-goal while it learns to steer for it


@dataclass(frozen=True)
class Curriculum:
    """How long segments are, and how hard episodes: all from the start, or growing over the first training steps."""

    segment_len: int = 0  # steps of the sequence in a segment; 0: whole episodes
    curriculum: int = 0  # training steps over which segments grow and harder episodes come in; 0: all from the start
    segment_from: int = 0  # steps of the first segments, doubled until they are segment_len; 0: they do not grow
    difficulty_from: float = 1.0  # the hardest episodes at the start, 0 to 1; 1: all of them
    batches_per_step: int = 1  # micro-batches of a training step

    def __post_init__(self):
        if min(self.segment_len, self.curriculum, self.segment_from) < 0:
            sizes = f'segment_len={self.segment_len}, curriculum={self.curriculum}, segment_from={self.segment_from}'
            raise ValueError(f'{sizes}: none of them can be below 0. Leave out what is not wanted')
        if self.segment_from > self.segment_len > 0:
            raise ValueError(
                f'segment_from={self.segment_from} is longer than segment_len={self.segment_len}. Lower it'
            )
        grows = self.segment_from > 0 or self.difficulty_from < 1
        if self.curriculum and not grows:
            raise ValueError(
                f'curriculum={self.curriculum}, but nothing grows. Set segment_from or difficulty_from, or leave it out'
            )
        if grows and not self.curriculum:
            raise ValueError(
                f'segment_from={self.segment_from} and difficulty_from={self.difficulty_from} need to know how long '
                'it takes until all is in. Set curriculum, or leave them out'
            )

    def progress(self, batch):
        """how much of the curriculum lies behind batch number `batch`: 0 to 1"""
        if not self.curriculum:
            return 1.0
        return min(1.0, batch / (self.curriculum * self.batches_per_step))

    def longest(self, progress, whole, chunk):
        """environment steps of the longest segments, of episodes of up to `whole`"""
        longest = min(self.segment_len * chunk or whole, whole)
        shortest = self.segment_from * chunk
        if progress == 1 or not 0 < shortest < longest:
            return longest
        doublings = math.ceil(math.log2(longest / shortest))
        return min(longest, shortest * 2 ** int(progress * (doublings + 1)))

    def hardest(self, progress):
        return self.difficulty_from + (1 - self.difficulty_from) * progress


@dataclass(eq=False)
class Batches:
    """`batch(step)` of one split."""

    split: Prepared
    which: int  # number of the stream of random draws: those of training and of validation differ
    seed: int
    batch_size: int  # episodes
    bucket: int  # batches that are drawn together
    chunk: int  # environment steps in a step
    n_slots: int  # tokens of a step
    curriculum: Curriculum = Curriculum()
    n_future: int = 0  # how many later bd are predicted
    columns: list | None = None  # of the observations, None: all
    drop_text: str = '0'  # proportion of the episodes that go without, one for all or by source
    drop_bd: str = '0'  # .. without their bd, likewise
    source_weights: str = ''  # how often each source is drawn; '': as often as it is there
    data_fraction: float = 1.0  # of the episodes, taken evenly
    fixed_text_len: int | None = None  # prompt tokens, if all batches are to have one shape
    extra_steps: int = 0  # after the end of the longest episode
    say_len: int = 0  # tokens of plain words, which prompts are then
    more_texts: int = 0  # to be said in plain words, in each batch

    def __post_init__(self):
        split, data_fraction = self.split, self.data_fraction
        self.without_text = per_source(self.drop_text, split.meta['sources'], 'drop_text', 1)  # (sources,)
        self.without_bd = per_source(self.drop_bd, split.meta['sources'], 'drop_bd', 1)  # (sources,)
        self.longest = self.curriculum.longest(1.0, split.meta['longest'], self.chunk)  # environment steps
        self.text_length = np.diff(split.text_start)  # (texts,), tokens
        self.weights = None
        if not 0 < data_fraction <= 1:
            raise ValueError(f'data_fraction={data_fraction} must be above 0 and 1 at most. Leave it out for all')
        if self.source_weights or data_fraction < 1 or self.curriculum.difficulty_from < 1:
            self.weights = episode_weights(split, self.source_weights, data_fraction)
        if self.curriculum.difficulty_from < 1:
            self.check_difficulty()
        self.group = lru_cache(maxsize=4)(self.draw)

    def check_difficulty(self):
        """refuse a curriculum that some source has no episodes for at its start"""
        easy_enough = self.curriculum.difficulty_from
        for i, source in enumerate(self.split.meta['sources']):
            hard = self.split.hard[(self.split.source == i) & (self.weights > 0)]
            if len(hard) and (np.isnan(hard).any() or hard.min() > easy_enough):
                raise ValueError(
                    f'difficulty_from={easy_enough}: no episode of {source} is that easy, or its archive does not say '
                    '(column hard, 0 to 1). Raise it, or leave it out'
                )

    def longest_in(self, group):
        """environment steps of the longest segments in a group of batches"""
        progress = self.curriculum.progress(group * self.bucket)
        return self.curriculum.longest(progress, self.split.meta['longest'], self.chunk)

    def draw(self, group):
        """
        Group number `group` of `bucket` batches -> dict of arrays (bucket, batch_size): episode; length: environment
        steps of its segment; start: the one at which that begins; text: -1: there is none; no_bd, sees_subgoal: bool
        """
        split = self.split
        rng = np.random.default_rng([self.seed, self.which, group])
        n = self.batch_size * self.bucket
        episode = self.draw_episodes(rng, n, group)
        place = rng.random(n)  # of the segment, among those where it could begin
        n_texts = np.diff(split.episode_text)[episode]
        text = split.episode_text[episode] + (rng.random(n) * n_texts).astype(int)
        source = split.source[episode]
        text = np.where((rng.random(n) < self.without_text[source]) | (n_texts == 0), -1, text)
        no_bd = rng.random(n) < self.without_bd[source]
        first, end = self.span(episode, text)
        length = np.minimum(end - first, self.longest_in(group))
        places = (end - first - length) // self.chunk + 1
        start = first + (place * places).astype(int) * self.chunk  # a multiple, as in rollouts

        tokens = np.ceil(length / self.chunk) * self.n_slots
        if split.meta['text_len']:
            tokens += np.where(text < 0, 1, self.text_length[text])
        order = np.argsort(tokens, kind='stable').reshape(self.bucket, self.batch_size)
        order = order[rng.permutation(self.bucket)]  # short ones do not always come first
        drawn = {'episode': episode, 'length': length, 'start': start, 'text': text, 'no_bd': no_bd}
        drawn['sees_subgoal'] = rng.random(n) < SEES_SUBGOAL
        return {name: a[order] for name, a in drawn.items()}

    def span(self, episode, text):
        """of episodes (n,) and their texts (n,): the first step to learn from, and the one after the last, (n,) each"""
        first, end = np.zeros_like(episode), self.split.length[episode]
        has_text = text >= 0
        if self.split.span is None or not has_text.any():
            return first, end
        spans = self.split.span[text]
        first = np.where(has_text, spans[:, 0] // self.chunk * self.chunk, first)
        return first, np.where(has_text, np.minimum(spans[:, 1], end), end)

    def draw_episodes(self, rng, n, group):
        """-> n episodes (n,), evenly or by their weights; in a curriculum none that is too hard yet"""
        split = self.split
        if self.weights is None:
            return rng.integers(len(split), size=n)
        weights = self.weights
        progress = self.curriculum.progress(group * self.bucket)
        if progress < 1 and self.curriculum.difficulty_from < 1:
            easy = weights * (split.hard <= self.curriculum.hardest(progress))
            all_of_source = np.bincount(split.source, weights)
            easy_of_source = np.bincount(split.source, easy)
            weights = easy * (all_of_source / np.maximum(easy_of_source, 1e-12))[split.source]  # sources keep theirs
        cumulated = np.cumsum(weights)
        return np.searchsorted(cumulated, rng.random(n) * cumulated[-1], 'right').clip(0, len(split) - 1)

    def batch(self, step, rows=slice(None)):
        """
        The rows of batch number `step` -> dict of arrays

        text (B, N) int64, or (B, N, 1 + text_width)
        obs (B, S, chunk, n_obs) up to each decision; act (B, S, chunk, ...) from each decision on
        bd (B, 1, n_bd), or (B, S, 1) for returns; nan: not given
        loss_mask (B, S, chunk) bool: within the segment, and to be imitated
        start (B,) the step at which a segment begins; future_bd (B, S, n_future, n_bd)
        subgoal (B, S, n_bd), where the data has it: what each decision heads for, nan: not known; sees_subgoal (B,):
            may the policy see it?
        terminated (B, S) bool, True after the last step of an episode that ended by itself
        more_text (M, N') int64, any texts, each followed by its plain words
        n_real: int, the environment steps of the loss in all rows of the batch
        """
        split = self.split
        chunk = self.chunk
        group, k = divmod(step, self.bucket)
        drawn = {name: a[k] for name, a in self.group(group).items()}
        longest = drawn['length'].max() if self.fixed_text_len is None else self.longest_in(group)
        S = math.ceil(longest / chunk) + self.extra_steps
        loss_mask = self.loss_mask(drawn, S)  # of all rows, which are weighed by its sum
        drawn = {name: a[rows] for name, a in drawn.items()}
        episode, start = drawn['episode'], drawn['start']

        begin = split.start[episode][:, None]  # (B, 1), where an episode begins in the arrays
        last = split.length[episode][:, None] - 1
        t = start[:, None] + np.arange(S * chunk)  # (B, S * chunk), environment steps
        in_segment = np.minimum(t, (start + drawn['length'])[:, None] - 1)  # the last one again past its end
        obs = split.obs[begin + np.clip(t - chunk + 1, 0, last)]  # up to each decision
        if self.columns is not None:
            obs = obs[..., self.columns]
        act = split.act[begin + in_segment]
        prompts = np.full((len(episode), 0), PAD)
        if split.meta['text_len']:
            prompts = self.prompts(drawn['text'])
        batch = {
            'text': prompts,
            'obs': obs.reshape(len(episode), S, chunk, -1),
            'act': act.reshape(len(episode), S, chunk, *split.act.shape[1:]),
            'bd': self.bd(drawn, S),
            'loss_mask': loss_mask[rows],
            'start': start // chunk,
            'future_bd': self.future_bd(drawn, S),
            'terminated': self.terminated(drawn, S),
            'n_real': int(loss_mask.sum()),
        }
        if split.subgoal is not None:
            batch['subgoal'] = split.subgoal[begin + in_segment[:, ::chunk]]
            batch['sees_subgoal'] = drawn['sees_subgoal']
        if self.more_texts:
            n = self.fixed_text_len and self.fixed_text_len + self.say_len
            batch['more_text'] = split.prompts(self.any_texts(step)[rows], n, split.prompt_and_plain)
        return batch

    def prompts(self, texts):
        """numbers of texts (B,), -1: none -> what is read of them (B, N)"""
        if not self.say_len:
            return self.split.prompts(texts, self.fixed_text_len)
        n = self.split.meta['longest_said']
        if self.split.meta.get('parts'):  # whose plain words nobody knows: they are read as they are
            n = max(n, self.split.meta['longest_text'])
        return self.split.prompts(texts, self.fixed_text_len and n, self.split.plain)

    def any_texts(self, step):
        """texts of the split, of like length -> their numbers (more_texts,)"""
        group, k = divmod(step, self.bucket)
        rng = np.random.default_rng([self.seed, self.which, group, 1])
        texts = rng.integers(len(self.text_length), size=self.more_texts * self.bucket)
        texts = texts[np.argsort(self.text_length[texts], kind='stable')].reshape(self.bucket, -1)
        return texts[rng.permutation(self.bucket)[k]]

    def loss_mask(self, drawn, S):
        """-> (B, S, chunk) bool: the steps of a segment, up to the first of a decision that is not to be imitated"""
        first = self.split.start[drawn['episode']] + drawn['start']
        length = drawn['length'][:, None]
        t = np.arange(S * self.chunk)
        imitate = self.split.taught[first[:, None] + np.minimum(t, length - 1)].reshape(-1, S, self.chunk)
        imitate = np.logical_and.accumulate(imitate, 2)  # what was decided before a disturbance ends with it
        return imitate & (t < length).reshape(-1, S, self.chunk)

    def bd(self, drawn, S):
        """-> (B, 1, n_bd), or where it is a return what is left of it at each step, (B, S, 1); nan: not given"""
        split = self.split
        bd = split.bd[drawn['episode']][:, None]
        if 'discount' in split.meta:
            begin = split.start[drawn['episode']][:, None]
            last = split.length[drawn['episode']][:, None] - 1
            steps = np.minimum(drawn['start'][:, None] + np.arange(S) * self.chunk, last)  # (B, S), taken before
            path = split.path[begin + np.maximum(steps, 1) - 1]
            so_far = np.where(steps[..., None] > 0, path, np.float32(0))
            bd = to_go(bd, so_far, steps[..., None], split.meta['discount'])
        return np.where(drawn['no_bd'][:, None, None], np.float32(np.nan), bd)

    def future_bd(self, drawn, S):
        """-> (B, S, n_future, n_bd), the bd 1, 2, 4 .. steps later, or that of the episode's end"""
        begin = self.split.start[drawn['episode']][:, None, None]
        last = self.split.length[drawn['episode']][:, None, None] - 1
        later = np.arange(S)[:, None] * self.chunk + self.chunk * 2 ** np.arange(self.n_future) - 1  # (S, n_future)
        return self.split.path[begin + np.minimum(drawn['start'][:, None, None] + later, last)]

    def terminated(self, drawn, S):
        """-> (B, S) bool, True after the last step of an episode that ended by itself and was not cut off"""
        length = self.split.length[drawn['episode']]
        ended = (drawn['start'] + drawn['length'] == length) & (length < self.split.meta['max_steps'])
        return ended[:, None] & (np.arange(S) == np.ceil(drawn['length'][:, None] / self.chunk))


def by_source(setting):
    """'demonstrations=0.7,elites=0.3' -> {source: number}; ValueError where it is not of that form"""
    pairs = [part.split('=') for part in setting.split(',')]
    return {source.strip(): float(number) for source, number in pairs}


def per_source(setting, sources, name, most=math.inf):
    """a number of each source, (sources,): 'demonstrations=0.7,elites=0.3', or one number for all of them"""
    setting, example = str(setting), ','.join(f'{source}=0.5' for source in sources)
    form = f'{name}={setting!r} is no number, nor of the form {example!r}'
    try:
        if '=' in setting:
            numbers = by_source(setting)
        else:
            numbers = dict.fromkeys(sources, float(setting))
    except ValueError:
        raise ValueError(form) from None
    if sorted(numbers) != sorted(sources) or setting.count('=') not in (0, len(numbers)):
        raise ValueError(f'{name} names {sorted(numbers)}, the data has {sources}. Name each once: --{name}={example}')
    if not all(0 <= number <= most and number < math.inf for number in numbers.values()):
        raise ValueError(f'{name}={setting!r} is out of range. Give numbers from 0 to {most:g}')
    return np.array([numbers[s] for s in sources])


def episode_weights(split, source_weights, data_fraction):
    """how often each episode is drawn: some never, sources as often as their weights say -> (episodes,), of sum 1"""
    nth = np.floor(np.arange(len(split) + 1) * data_fraction)
    p = (np.diff(nth) > 0).astype(float)
    settings = f'source_weights={source_weights!r} and data_fraction={data_fraction}'
    if source_weights:
        weights = per_source(source_weights, split.meta['sources'], 'source_weights')
        for i, weight in enumerate(weights):
            of_source = split.source == i
            if weight and of_source.any() and not p[of_source].any():  # a split may have none of a source
                raise ValueError(f'{settings} leave no episode of {split.meta["sources"][i]}. Raise data_fraction')
            p[of_source] *= weight / max(p[of_source].sum(), 1)
    if not p.any():
        raise ValueError(f'{settings} leave no episode to train on. Raise them')
    return p / p.sum()
