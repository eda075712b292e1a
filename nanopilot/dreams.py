"""
What a policy predicts, beside what happened: whole episodes that a language model of them (fuse='bins') makes up,
and the errors of predicted observations (next_obs) one step and many steps on.
"""

from copy import copy

import numpy as np
import torch
from tqdm import tqdm

from data import metrics
from data.batches import Batches, per_source
from data.metrics import interval
from data.pictures import save_figure
from nanopilot.bins import DONE, in_bins
from nanopilot.rollout import dataset_of
from nanopilot.sampling import sample_logits

# ------------------------------------------------------------------------------
# dreams


class Dreamer:
    """
    Episodes of n rows that a model of every number makes up, a step at a time: the observations, token by token, then
    an action. bins, obs (n, n_obs), act (n,): of the last step of each row
    """

    def __init__(self, policy, n, temperature=1.0, top_p=1.0, seed=1337):
        self.model, self.temperature, self.top_p = policy.model, temperature, top_p
        self.generator = torch.Generator(policy.device).manual_seed(seed)
        self.edges = policy.model.steps.edges
        self.middles = (self.edges[:, 1:] + self.edges[:, :-1]) / 2  # (n_obs, n_bins): a number of each bin
        self.bins = torch.zeros(n, policy.config.n_obs, dtype=torch.int64, device=policy.device)
        self.obs = torch.zeros(n, policy.config.n_obs, device=policy.device)
        self.act = torch.zeros(n, dtype=torch.int64, device=policy.device)
        self.cache = policy.new_cache(n)

    def begin(self, rows, prompts, bd=None):
        """new episodes in rows (n,), of prompts, lists of token ids, and bd (n, n_bd)"""
        self.cache.read(rows, prompts, bd)

    def see(self, rows, obs):
        """a step of rows (n,) whose observations (n, n_obs) are not made up; its action is"""
        self.obs[rows] = obs
        self.bins[rows] = in_bins(obs, self.edges)
        self.decide(rows)

    @torch.inference_mode()
    def step(self, rows):
        """a step of rows (n,) -> whether the episode ended instead, (n,), a numpy array"""
        for slot in range(self.obs.shape[1]):  # the step is taken again, each time one token of it is known better
            token, done = self.draw(rows, slot)
            self.bins[rows, slot] = token
            self.obs[rows, slot] = self.middles[slot, token]
            if slot == 0:
                ended = done.cpu().numpy()
        self.decide(rows)
        return ended

    @torch.inference_mode()
    def decide(self, rows):
        """the action of rows (n,) at the observations of this step, which is over then"""
        self.act[rows], _ = self.draw(rows, self.obs.shape[1])
        self.cache.t[rows] += 1

    def draw(self, rows, slot):
        """a token of the step that comes next, whose tokens before it are known -> as of sample_token"""
        cache_rows = None if len(rows) == len(self.obs) else rows
        logits = self.cache.step(self.obs[rows, None], self.act[rows, None], rows=cache_rows)['token'][:, 0, slot]
        t = torch.from_numpy(self.cache.t[rows]).to(logits.device)
        return sample_token(self.model, logits, slot, t, self.temperature, self.top_p, self.generator)


def dream(policy, n, temperature=1.0, top_p=1.0, seed=1337):
    """
    n episodes from RESET to DONE or for as long as any was, drawn token by token
    -> dicts of bins (T, n_obs) int64, act (T,) int64 and terminated, whether the model ended it
    """
    steps, rows = policy.config.max_steps - 1, np.arange(n)
    dreamer = Dreamer(policy, n, temperature, top_p, seed)
    dreamer.begin(rows, policy.asked([None] * n))
    bins, acts = [], []
    length = np.full(n, steps)
    terminated = np.zeros(n, bool)
    for t in tqdm(range(steps), desc='dream', unit='step', disable=None):
        has_ended = dreamer.step(rows)
        bins.append(dreamer.bins.cpu().numpy().copy())
        acts.append(dreamer.act.cpu().numpy().copy())
        length[has_ended & ~terminated] = t
        terminated |= has_ended
        if terminated.all():
            break
    bins, acts = np.stack(bins, 1), np.stack(acts, 1)  # (n, t, n_obs), (n, t)
    return [{'bins': bins[i, :T], 'act': acts[i, :T], 'terminated': bool(terminated[i])} for i, T in enumerate(length)]


def sample_token(model, logits, slot, t, temperature, top_p, generator):
    """
    logits (n, vocabulary) of a slot of steps t (n,) -> a token of those that are legal there, (n,), counted from the
    first of them, and whether it was DONE instead, (n,), which the first slot of a step may be
    """
    choices = logits[:, model.steps.vocabulary.legal(slot)]
    n_legal = choices.shape[1]
    done_logit = logits[:, DONE : DONE + 1]
    if slot:
        done_logit = torch.full_like(done_logit, -torch.inf)
    done_logit = done_logit.masked_fill(t[:, None] == 0, -torch.inf)
    token = sample_logits(torch.cat([choices, done_logit], 1), temperature, top_p, generator)
    return token.clamp(max=n_legal - 1), token == n_legal


def boxes(bins, edges):
    """bins (T, n_obs) -> their limits, low and high (T, n_obs); a tenth beyond what is in training is allowed for"""
    edges = np.array(edges, np.float64)
    beyond = 0.1 * (edges[:, -1] - edges[:, 0])
    edges[:, 0] -= beyond
    edges[:, -1] += beyond
    i = np.arange(len(edges))
    return edges[i, bins], edges[i, bins + 1]


def consistent(dataset, bins, act, then, edges, kwargs):
    """
    Steps from bins (T, n_obs) by act (T,) into bins `then` -> (T,) bool: does the environment lead from somewhere
    in those to somewhere in these?
    """
    low, high = dataset.reach(*boxes(bins, edges), act, kwargs)
    then_low, then_high = boxes(then, edges)
    then_low = np.where(then == 0, -np.inf, then_low)
    then_high = np.where(then == edges.shape[1] - 2, np.inf, then_high)
    return ((low <= then_high + 1e-6) & (high >= then_low - 1e-6)).all(1)


def possible_steps(dataset, episodes, edges, kwargs, rng=None):
    """the share of steps that the environment allows, a score over episodes; rng: to steps in another order"""
    possible = []
    for e in episodes:
        if len(e['act']) < 2:
            continue
        then = e['bins'][1:]
        if rng is not None:
            then = rng.permutation(then)
        possible.append(consistent(dataset, e['bins'][:-1], e['act'][:-1], then, edges, kwargs).mean())
    return metrics.bootstrap(possible)


def possible_ends(dataset, episodes, edges, kwargs):
    """of those that ended by themselves, the share that could, a score"""
    ended = [e for e in episodes if e['terminated']]
    if not ended:
        return metrics.proportion([])
    bins = np.concatenate([e['bins'][-1:] for e in ended])
    act = np.concatenate([e['act'][-1:] for e in ended])
    return metrics.proportion(dataset.can_end(*dataset.reach(*boxes(bins, edges), act, kwargs)))


def episodes_in_bins(policy, split, edges):
    """the episodes of a Prepared split from the sources that were trained on, as `dream` returns them"""
    source_weights, columns = policy.info['settings']['source_weights'], policy.info['obs_columns']
    sources = np.arange(len(split.meta['sources']))
    if source_weights:
        sources = np.flatnonzero(per_source(source_weights, split.meta['sources'], 'source_weights'))
    episodes = []
    for i in np.flatnonzero(np.isin(split.source, sources)):
        rows = slice(split.start[i], split.start[i + 1])
        obs = np.asarray(split.obs[rows])[:, columns]  # (T, n_obs)
        bins = in_bins(obs, edges)
        terminated = len(obs) < split.meta['max_steps']
        episodes.append({'bins': bins, 'act': np.asarray(split.act[rows]), 'terminated': terminated})
    return episodes


def evaluate(policy, split, n, picture, **sampling):
    """
    n dreams beside the episodes of a Prepared split: which of their steps and ends can be; a picture of both -> the
    scores
    """
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    if policy.config.fuse != 'bins':
        cure = 'Train one: python train.py config/cartpole_bins.py'
        raise ValueError(f'this policy cannot dream: it was not trained on every number. {cure}')
    if not (hasattr(dataset, 'reach') and hasattr(dataset, 'can_end')):
        name = policy.info['dataset']
        raise ValueError(f'data/{name} does not say which steps can be. Add reach and can_end to it')
    if len(policy.info['obs_columns']) < len(policy.data_spec['obs_names']):
        raise ValueError('only all observations say which steps can be. Train a policy without obs_names')
    edges = policy.model.steps.edges.cpu().numpy()
    real = episodes_in_bins(policy, split, edges)
    dreamt = dream(policy, n, **sampling)
    rng = np.random.default_rng(sampling['seed'])
    scores = {
        'dreamt': possible_steps(dataset, dreamt, edges, kwargs),
        'real': possible_steps(dataset, real, edges, kwargs),
        'shuffled': possible_steps(dataset, real, edges, kwargs, rng),
    }
    both = {'dreamt': dreamt, 'real': real}
    ends = {name: possible_ends(dataset, episodes, edges, kwargs) for name, episodes in both.items()}
    lengths = {name: metrics.bootstrap([len(e['act']) for e in episodes]) for name, episodes in both.items()}
    print('| steps that can be | episodes | % |\n|---|---|---|')
    for name, score in scores.items():
        print(f'| {name} | {score["n"]} | {interval(score)} |')
    print('\nended by themselves: ' + ', '.join(ended(name, score) for name, score in ends.items()))
    print('mean length: ' + ', '.join(f'{name} {interval(score, False, 0)}' for name, score in lengths.items()))
    draw_beside(picture, dreamt, real, edges, policy)
    print(f'picture: {picture}')
    return {'possible': scores, 'ends': ends, 'length': lengths}


def ended(name, score):
    if not score['n']:
        return f'{name} 0'
    mean, limits = interval(score).split(' ', 1)
    return f'{name} {score["n"]}, of which {mean}% {limits} can'


def draw_beside(picture, dreamt, real, edges, policy, most=8):
    """
    a PNG: the observations of some dreams, and of real episodes as the model reads them, the middles of their bins
    """
    from matplotlib.figure import Figure

    names = [policy.data_spec['obs_names'][i] for i in policy.info['obs_columns']]
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    figure = Figure(figsize=(10, 1.8 * len(names)), layout='constrained')
    axes = figure.subplots(len(names), 2, sharex=True, sharey='row')
    for side, (title, episodes) in enumerate((('dreamt', dreamt), ('real, in bins', real))):
        for k, name in enumerate(names):
            for e in episodes[:most]:
                axes[k, side].plot(middles[k, e['bins'][:, k]], lw=0.7)
            axes[k, 0].set_ylabel(name)
        axes[0, side].set_title(title)
        axes[-1, side].set_xlabel('step')
    save_figure(picture, figure, dpi=100)


# ------------------------------------------------------------------------------
# predicted observations


@torch.inference_mode()
def predictions(policy, split, n=64, horizons=(1, 2, 4, 8, 16), seed=1337):
    """
    The observations of n episodes drawn from a Prepared split are predicted from a quarter, the half and three
    quarters of the shortest of them on: the actions are the episodes', the observations after that are the policy's
    own predictions.

    -> {observation: {horizon: {'policy', 'stays': of saying that nothing changes}}}, each a root mean squared error
    in its unit, with its interval. A horizon is in environment steps
    """
    c, columns, wrap = policy.config, policy.info['obs_columns'], policy.model.aux['next_obs'].wrap
    split = copy(split)
    split.span = None  # whole episodes, from their first step on, whatever their prompts speak of
    batches = Batches(split, 2, seed, n, 1, c.chunk, c.n_slots, columns=columns, say_len=c.say_len)
    batch = batches.batch(0)
    text, obs, act, bd = (torch.from_numpy(batch[k]).to(policy.device) for k in ('text', 'obs', 'act', 'bd'))
    shortest = int(split.length[batches.group(0)['episode'][0]].min()) // c.chunk  # steps
    horizons = [k for k in horizons if k <= shortest * c.chunk // 4]
    if not horizons or shortest < 4:
        raise ValueError(
            f'an episode of {shortest} steps of {c.chunk} is too short to predict any of it. '
            'Evaluate longer ones, or train with a smaller chunk'
        )
    errors = {}  # squared, of each start
    for start in (shortest // 4, shortest // 2, 3 * shortest // 4):
        steps = -(-max(horizons) // c.chunk)
        predicted = predict(policy.model, text, obs[:, :start], act, bd, steps)  # (B, steps, chunk, n_obs)
        predicted = predicted.flatten(1, 2)
        real = obs[:, start : start + steps].flatten(1, 2)
        last = obs[:, start - 1, -1]  # (B, n_obs)
        for k in horizons:
            for name, x in ('policy', predicted[:, k - 1]), ('stays', last):
                error = wrap(x - real[:, k - 1]).cpu().numpy() ** 2
                errors.setdefault((k, name), []).append(error)

    def rms(squares, **axis):
        return np.sqrt(np.mean(squares, **axis))

    def score(k, name, i):
        return metrics.bootstrap(np.mean(errors[k, name], 0)[:, i], rms)

    return {
        policy.data_spec['obs_names'][column]: {
            k: {name: score(k, name, i) for name in ('policy', 'stays')} for k in horizons
        }
        for i, column in enumerate(columns)
    }


def predict(model, text, obs, act, bd, steps):
    """the next steps' observations after obs (B, S, chunk, n_obs), with the actions act -> (B, steps, chunk, n_obs)"""
    start, norm = obs.shape[1], model.steps.obs_norm
    mean, std = norm.mean[: model.config.n_obs], norm.std[: model.config.n_obs]
    for end in range(start, start + steps):
        bd_so_far = bd[:, :end] if bd.shape[1] > 1 else bd
        out, _ = model(text, obs, act[:, :end], bd_so_far)
        following = out['next_obs'][:, -1:] * std + mean  # (B, 1, chunk, n_obs)
        obs = torch.cat([obs, model.aux['next_obs'].wrap(following)], 1)
    return obs[:, start:]


def print_predictions(policy, split, seed):
    """a table of `predictions` -> the same"""
    scores = predictions(policy, split, seed=seed)
    horizons = list(next(iter(scores.values())))
    title = 'predicted n steps on, root mean squared error (if nothing changed)'
    print(f'\n| {title} | ' + ' | '.join(map(str, horizons)) + ' |')
    print('|---|' + '---|' * len(horizons))
    for name, errors in scores.items():
        cells = [f'{interval(e["policy"], False, 3)} ({e["stays"]["mean"]:.3f})' for e in errors.values()]
        print(f'| {name} | ' + ' | '.join(cells) + ' |')
    return scores
