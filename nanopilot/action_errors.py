"""
The errors of a policy's actions at every step of episodes that others made, beside those of two that know less.

The episodes' own observations and actions go through the model's forward, whole episodes at once, as in training. A
decision covers `chunk` steps and knows what was observed before it; so do the baselines: to repeat the action before
the decision (the first one has none: as the other baseline), and the mean, or most frequent, action of training.
"""

import copy
from functools import partial
from itertools import product

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from data.batches import Batches
from data.text import pad_prompts
from data.workers import in_order

AT_ONCE = 64  # episodes in a batch, at most
PAIRS = 2e7  # .. and pairs of tokens
DECADES = ((0, 10), (10, 100), (100, 1000), (1000, None))  # steps of an episode
CURVE = 20  # points of a curve over the steps
REPEAT = 'repeat the last action'

# ------------------------------------------------------------------------------
# what is measured, by the kind of action: {name: (B, S, chunk, D)}, nan where it does not apply


class Continuous:
    """squared errors, as shares of the variance of each dimension of actions over the training split"""

    titles = {'error': 'squared error / variance'}  # of what is measured
    compared = 'error'  # .. between what is asked, and with the baselines
    shown_by_part = 'error'  # .. for each dimension
    part = 'dimension'
    constant = 'the mean action'

    def __init__(self, policy, train):
        self.parts = policy.data_spec['act_names']

    def of_policy(self, head, out, act):
        """out: the model's, act (B, S, chunk, n_act)"""
        return self.measured(head, head.sample(out).view_as(act), act)

    def baselines(self, head, act):
        """-> {name of a baseline: as of_policy}"""
        mean = head.act_norm.mean.expand_as(act)
        last = torch.cat([mean[:, :1, :1], act[:, :-1, -1:]], 1).expand_as(act)
        chosen = {REPEAT: last, self.constant: mean}
        return {name: self.measured(head, a, act) for name, a in chosen.items()}

    def measured(self, head, chosen, act):
        return {'error': ((chosen - act) / head.act_norm.std) ** 2}


class Clusters(Continuous):
    """.. and the share of steps whose cluster is the one that is nearest to what was done"""

    titles = {**Continuous.titles, 'cluster': 'cluster accuracy'}

    def of_policy(self, head, out, act):
        measured = super().of_policy(head, out, act)
        return {**measured, 'cluster': self.hits(head, head.logits(out).argmax(-1), act)}

    def measured(self, head, chosen, act):
        cluster = head.nearest(head.act_norm(chosen))
        return {**super().measured(head, chosen, act), 'cluster': self.hits(head, cluster, act)}

    def hits(self, head, cluster, act):
        """cluster (B, S, G) -> (B, S, chunk, 1), of G groups of dimensions the mean"""
        right = cluster == head.nearest(head.act_norm(act))
        return right.float().mean(-1)[..., None, None].expand(-1, -1, act.shape[2], 1)


class Discrete:
    """negative log-likelihood in nats, and accuracy"""

    titles = {'nll': 'NLL', 'accuracy': 'accuracy'}
    compared = 'nll'
    shown_by_part = 'accuracy'
    part = 'action'
    constant = 'the most frequent action'

    def __init__(self, policy, train):
        self.parts = policy.data_spec['act_names']
        act = torch.from_numpy(np.array(train.act))
        counts = torch.bincount(act, minlength=len(self.parts)) + 1  # as if each had been seen once more
        self.share = (counts / counts.sum()).to(policy.device)
        same = repeated(train, policy.config.chunk)
        self.repeats = (same.sum() + 1) / (len(same) + 2)

    def of_policy(self, head, out, act):
        """out: the model's, act (B, S, chunk)"""
        logits = out['act'].reshape(*act.shape, -1)
        return self.measured(logits.argmax(-1), logits.log_softmax(-1), act)

    def baselines(self, head, act):
        frequent = self.share.argmax().expand_as(act)
        last = torch.cat([frequent[:, :1, :1], act[:, :-1, -1:]], 1).expand_as(act)
        n = len(self.share)
        is_last = F.one_hot(last, n)
        others = (1 - self.repeats) / max(n - 1, 1)
        p = is_last * self.repeats + (1 - is_last) * others
        return {
            REPEAT: self.measured(last, p.log(), act),
            self.constant: self.measured(frequent, self.share.log().expand(*act.shape, n), act),
        }

    def measured(self, chosen, log_p, act):
        """-> (B, S, chunk, n_act), each step under the action that was done"""
        one_hot = F.one_hot(act, len(self.parts)).bool()
        hit = (chosen == act).float()
        return {
            'nll': torch.where(one_hot, -log_p, torch.nan),
            'accuracy': torch.where(one_hot, hit[..., None], torch.nan),
        }


MEASURES = {'mse': Continuous, 'kmeans': Clusters, 'ce': Discrete, 'tokens': Discrete}  # of a head


def repeated(split, chunk):
    """of the steps of a Prepared split that have a decision before theirs: is the action the last one before it?"""
    t = np.arange(len(split.act)) - np.repeat(split.start[:-1], split.length)
    later = np.flatnonzero(t >= chunk)
    return split.act[later] == split.act[later - t[later] % chunk - 1]


# ------------------------------------------------------------------------------
# what is asked


class RequestBatches(Batches):
    """Some of n episodes of a split, whole, each once, those of like length together, and what is asked of them."""

    def __init__(self, policy, split, number, index, prompts, bd):
        """
        number (n,): of the episodes in the split; index (m,): which of them; of those prompts (m,), str or None, and bd
        (m, n_bd), nan: not given
        """
        c = policy.config
        self.index, self.number = index, number[index]
        self.tokens = policy.asked(prompts)
        self.pad = policy.tokenizer.pad_prompts if policy.tokenizer else pad_prompts
        self.rows = rows_by_length(split.length[self.number] / c.chunk * c.n_slots + c.n_text)  # of each batch
        split = copy.copy(split)
        split.bd = np.array(split.bd)
        split.bd[self.number] = bd
        super().__init__(split, 0, 0, AT_ONCE, 1, c.chunk, c.n_slots, columns=policy.info['obs_columns'])

    def draw(self, group):
        episode = self.number[self.rows[group]][None]  # (1, B)
        zero = np.zeros(episode.shape, int)
        drawn = {'episode': episode, 'length': self.split.length[episode], 'start': zero, 'text': zero - 1}
        return {**drawn, 'no_bd': zero > 0, 'sees_subgoal': zero > 0}

    def batch(self, step):
        """as of Batches, with the prompts"""
        prompts = [self.tokens[row] for row in self.rows[step]]
        return {**super().batch(step), 'text': self.pad(prompts)}


def rows_by_length(tokens):
    """tokens (n,) of episodes -> lists of their numbers, batches of like length that fit in memory"""
    batches = [[]]
    for i in np.argsort(-tokens, kind='stable'):
        longest = tokens[(batches[-1] or [i])[0]]
        if len(batches[-1]) == max(1, min(AT_ONCE, int(PAIRS / longest**2))):
            batches.append([])
        batches[-1].append(i)
    return batches


def ways_to_ask(policy, split, episodes, seed):
    """
    episodes: of readable_episodes, with prompts -> {(words, bd): RequestBatches}, what they are asked themselves first;
    words and bd as the table names them, '' where nothing is asked. Another's is asked of those that have such another
    """
    rng = np.random.default_rng(seed)
    number = np.array([e['number'] for e in episodes])
    prompts = np.array([e['prompt'] for e in episodes], object)
    bd = np.array(split.bd[number])
    words = choices('prompt', prompts, another(episodes, asks_for_other, rng), np.full(len(episodes), None))
    numbers = choices(bd_word(policy), bd, another(bd, differs, rng), np.full(bd.shape, np.nan))
    if not policy.config.text_len:
        words = {'': words['']}
    if not policy.config.n_bd:
        numbers = {'': numbers['']}
    ways = {}
    for ask in product(words, numbers):
        (text, has_text), (target, has_bd) = words[ask[0]], numbers[ask[1]]
        index = np.flatnonzero(has_text & has_bd)
        if len(index) and not all("another's" in part for part in ask):
            ways[ask] = RequestBatches(policy, split, number, index, text[index], target[index])
    return ways


def choices(name, values, others, missing):
    """what can be asked of n episodes in words, or as bd -> {name: (what is asked (n, ..), of whom (n,) bool)}"""
    everyone = np.ones(len(values), bool)
    return {name: (values, everyone), f"another's {name}": (values[others], others >= 0), '': (missing, everyone)}


def another(items, fits, rng):
    """for each of n items the number of another one, drawn from those that fits(item, other); -1: there is none"""
    numbers = np.full(len(items), -1)
    for i, item in enumerate(items):
        others = rng.permutation(len(items))
        numbers[i] = next((j for j in others if fits(item, items[j])), -1)
    return numbers


def asks_for_other(episode, other):
    return other['group'] != episode['group'] and other['prompt'] and other['prompt'] not in episode['text']


def differs(value, other):
    return bool((value != other).any())


def bd_word(policy):
    return 'return' if 'discount' in policy.data_spec else 'bd'


def name_of(ask):
    return ' and '.join(part for part in ask if part) or 'nothing asked'


# ------------------------------------------------------------------------------
# errors of each episode


def errors(policy, measure, split, ways):
    """
    -> {row of the table: {measure: {'all' (n,), 'parts' (n, D), 'decades' (n, ..), 'curve' (n, ..)}}}, of each way to
    ask and of the baselines: means over the steps of each episode, nan where there is none
    """
    first_ask, first_way = next(iter(ways.items()))
    n, spans = len(first_way.number), curve_spans(split.length[first_way.number].max())
    blocks = [(ask, k) for ask, way in ways.items() for k in range(len(way.rows))]
    batches = ((ways[ask].batch(k), ask == first_ask) for ask, k in blocks)
    row_errors = {name_of(ask): {} for ask in ways}  # in the order of the table
    bar = tqdm(total=sum(len(way.index) for way in ways.values()), desc='offline', unit='ep', disable=None)
    for (ask, k), (_, measured) in zip(blocks, in_order(partial(errors_of, policy, measure, spans), batches)):
        rows = ways[ask].index[ways[ask].rows[k]]
        for name, of_row in measured.items():
            put(row_errors.setdefault(name or name_of(ask), {}), rows, of_row, n)
        bar.update(len(rows))
    bar.close()
    return row_errors


def put(all_means, rows, means, n):
    """means of some rows, {measure: {key: (m, ..)}}, into all_means, the same of n rows"""
    for name, of_measure in means.items():
        by_key = all_means.setdefault(name, {})
        for key, values in of_measure.items():
            by_key.setdefault(key, np.full((n, *values.shape[1:]), np.nan))[rows] = values


@torch.inference_mode()
def errors_of(policy, measure, spans, block):
    """a batch, and are the baselines wanted, too? -> {'': the policy's means, name of a baseline: its means}"""
    batch, with_baselines = block
    text, obs, act, bd, mask = (
        torch.from_numpy(batch[name]).to(policy.device) for name in ('text', 'obs', 'act', 'bd', 'loss_mask')
    )
    head = policy.model.head
    out, _ = policy.model(text, obs, act, bd)
    measured = {'': measure.of_policy(head, out, act)}
    if with_baselines:
        measured |= measure.baselines(head, act)
    return {
        name: {key: means(x.where(mask[..., None], torch.nan), spans) for key, x in of_row.items()}
        for name, of_row in measured.items()
    }


def means(x, spans):
    """x (B, S, chunk, D), nan where it does not count -> a dict of means over the steps of each episode"""
    x = x.flatten(1, 2).cpu().numpy().astype(np.float64)  # (B, T, D)
    return {
        'all': mean(x, (1, 2)),
        'parts': mean(x, 1),
        'decades': np.stack([mean(x[:, first:end], (1, 2)) for first, end in DECADES], 1),
        'curve': np.stack([mean(x[:, first:end], (1, 2)) for first, end in spans], 1),
    }


def mean(x, axis):
    """without the nan; nan where there is nothing else"""
    with np.errstate(invalid='ignore'):
        return np.nansum(x, axis) / (~np.isnan(x)).sum(axis)


def curve_spans(longest):
    """the steps of CURVE equal parts of the longest episode, [(first, end)]"""
    edges = np.unique(np.linspace(0, longest, CURVE + 1).astype(int))
    return list(zip(edges[:-1], edges[1:]))
