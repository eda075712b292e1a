"""
What a policy foretells, beside what happened: whole episodes that a language model of them (fuse='bins') makes up, and the errors of
predicted observations (next_obs) one step and many steps on.
"""

import numpy as np
import torch
from tqdm import tqdm

from nanopilot.bins import DONE
from nanopilot.kv_cache import KVCache
from data import metrics
from data.batches import Batches, shares
from data.pictures import save
from nanopilot.evaluate import world_of
from model import draw


@torch.inference_mode()
def dream(policy, n, temperature=1.0, top_p=1.0, seed=1337):
    """
    n episodes from RESET to DONE or for as long as any was, drawn token by token
    -> dicts of bins (T, n_obs) int64, act (T,) int64 and over, whether the model ended it
    """
    model, c, steps = policy.model, policy.config, policy.config.max_steps - 1
    edges, cache, generator = (
        model.bins.edges,
        KVCache(policy.model, n),
        torch.Generator(policy.device).manual_seed(seed),
    )
    inside = (edges[:, 1:] + edges[:, :-1]) / 2  # some number of each bin
    obs, act = (
        torch.zeros(n, 1, c.n_obs, device=policy.device),
        torch.zeros(n, 1, dtype=torch.int64, device=policy.device),
    )
    bins, acts, over = (
        torch.zeros(n, steps, c.n_obs, dtype=torch.int64),
        torch.zeros(n, steps, dtype=torch.int64),
        np.full(n, -1),
    )
    cache.read(np.arange(n), [policy.tokens(None)] * n)
    for t in tqdm(range(steps), desc='dream', unit='step', disable=None):
        for slot in range(c.n_slots):  # the step is taken again and again, each time one token of it is known better
            legal = model.bins.legal(slot)
            logits = cache.step(obs, act)['token'][:, 0, slot]
            choices = torch.cat(
                [
                    logits[:, legal],
                    logits[:, DONE : DONE + 1] if slot == 0 and t else logits.new_full((n, 1), -torch.inf),
                ],
                1,
            )
            chosen = draw(choices, temperature, top_p, generator)
            if slot == 0:
                ends = (chosen == choices.shape[1] - 1).cpu().numpy()
                over[ends & (over < 0)] = t
                chosen = chosen.clamp(max=choices.shape[1] - 2)
            if slot < c.n_obs:
                bins[:, t, slot], obs[:, 0, slot] = chosen.cpu(), inside[slot, chosen]
            else:
                acts[:, t], act = chosen.cpu(), chosen[:, None]
        cache.t += 1
        if (over >= 0).all():
            break
    length = np.where(over < 0, t + 1, over)
    return [
        {'bins': bins[i, :m].numpy(), 'act': acts[i, :m].numpy(), 'over': bool(over[i] >= 0)}
        for i, m in enumerate(length)
    ]


def boxes(bins, edges):
    """bins (T, n_obs) -> what they hold, low and high (T, n_obs); a tenth beyond what there was in training is allowed for"""
    edges = np.array(edges, np.float64)
    beyond, i = 0.1 * (edges[:, -1] - edges[:, 0]), np.arange(len(edges))
    edges[:, 0], edges[:, -1] = edges[:, 0] - beyond, edges[:, -1] + beyond
    return edges[i, bins], edges[i, bins + 1]


def consistent(world, bins, act, then, edges, kwargs):
    """steps from bins (T, n_obs) by act (T,) into bins `then` -> (T,) bool: does the world lead from somewhere there to somewhere there?"""
    low, high = world.reach(*boxes(bins, edges), act, kwargs)
    to_low, to_high = boxes(then, edges)
    to_low, to_high = np.where(then == 0, -np.inf, to_low), np.where(then == edges.shape[1] - 2, np.inf, to_high)
    return ((low <= to_high + 1e-6) & (high >= to_low - 1e-6)).all(1)


def evaluate(policy, split, n, picture, **how):
    """n dreams beside the episodes of a Prepared split: which of their steps and ends can be; a picture of both -> the scores"""
    world, kwargs = world_of(policy), policy.data_spec['env_kwargs']
    if policy.model.bins is None:
        raise ValueError(
            'this policy cannot dream: it was not trained on every number. Train one: python train.py config/cartpole_bins.py'
        )
    if not hasattr(world, 'reach') or len(policy.info['obs_columns']) < len(policy.data_spec['obs_names']):
        raise ValueError(
            f'which dreamt steps can be is not known: data/{policy.info["dataset"]} would have to say (reach, can_end), and all observations be dreamt'
        )
    edges = policy.model.bins.edges.cpu().numpy()
    source_weights, columns = policy.info['settings']['source_weights'], policy.info['obs_columns']
    trained = (
        np.flatnonzero(shares(source_weights, split.meta['sources'], 'source_weights'))
        if source_weights
        else np.arange(len(split.meta['sources']))
    )  # sources that it was to be like
    rows = [slice(split.start[i], split.start[i + 1]) for i in np.flatnonzero(np.isin(split.source, trained))]
    happened = [
        {
            'bins': (np.asarray(split.obs[r])[:, columns, None] >= edges[:, 1:-1]).sum(2),
            'act': np.asarray(split.act[r]),
            'over': r.stop - r.start < split.meta['max_steps'],
        }
        for r in rows
    ]
    dreamt, rng = dream(policy, n, **how), np.random.default_rng(how['seed'])

    def share(episodes, shuffled=False):
        """of each episode, the share of its steps that can be; shuffled: steps that lead anywhere"""
        found = []
        for e in (e for e in episodes if len(e['act']) > 1):
            then = e['bins'][1:]
            found.append(
                consistent(
                    world, e['bins'][:-1], e['act'][:-1], rng.permutation(then) if shuffled else then, edges, kwargs
                ).mean()
            )
        return metrics.bootstrap(found)

    def ends(episodes):
        """of those that ended by themselves, the share that could"""
        last = [(e['bins'][-1:], e['act'][-1:]) for e in episodes if e['over']]
        if not last:
            return metrics.proportion([])
        return metrics.proportion(
            world.can_end(
                *world.reach(
                    *boxes(np.concatenate([b for b, _ in last]), edges), np.concatenate([a for _, a in last]), kwargs
                )
            )
        )

    scores = {'dreamt': share(dreamt), 'real': share(happened), 'shuffled': share(happened, True)}
    ended = {'dreamt': ends(dreamt), 'real': ends(happened)}
    lengths = {
        name: metrics.bootstrap([len(e['act']) for e in episodes])
        for name, episodes in (('dreamt', dreamt), ('real', happened))
    }
    print('| steps that can be | episodes | % |\n|---|---|---|')
    for name, score in scores.items():
        print(
            '| {} | {n} | {:.1f} [{:.1f}, {:.1f}] |'.format(
                name, *(100 * score[k] for k in ('mean', 'low', 'high')), n=score['n']
            )
        )
    print(
        '\nended by themselves: '
        + ', '.join(
            f'{name} {s["n"]}, of which {100 * s["mean"]:.1f}% [{100 * s["low"]:.1f}, {100 * s["high"]:.1f}] can'
            if s['n']
            else f'{name} 0'
            for name, s in ended.items()
        )
    )
    print(
        'mean length: '
        + ', '.join('{} {mean:.0f} [{low:.0f}, {high:.0f}]'.format(name, **found) for name, found in lengths.items())
    )
    beside(picture, dreamt, happened, edges, policy)
    print(f'picture: {picture}')
    return {'possible': scores, 'ends': ended, 'length': lengths}


def beside(picture, dreamt, real, edges, policy, most=8):
    """a PNG: the observations of some dreams, and of real episodes as the model reads them, the middles of their bins"""
    from matplotlib.figure import Figure

    names = [policy.data_spec['obs_names'][i] for i in policy.info['obs_columns']]
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    figure = Figure(figsize=(10, 1.8 * len(names)), layout='constrained')
    axes = figure.subplots(len(names), 2, sharex=True, sharey='row')
    for side, (title, episodes) in enumerate((('dreamt', dreamt), ('real, in bins', real))):
        for k, name in enumerate(names):
            for e in episodes[:most]:
                axes[k, side].plot(middle[k, e['bins'][:, k]], lw=0.7)
            axes[k, 0].set_ylabel(name)
        axes[0, side].set_title(title)
        axes[-1, side].set_xlabel('step')
    save(picture, lambda f: figure.savefig(f, dpi=100, format='png'))


@torch.inference_mode()
def predictions(policy, split, n=64, ahead=(1, 2, 4, 8, 16), seed=1337):
    """
    What would be observed is predicted for n episodes drawn from a Prepared split, from a quarter, the half and three quarters of the
    shortest of them on: the actions are theirs, the observations after that are the policy's own predictions.

    -> {observation: {steps on: {'policy', 'stays': of saying that nothing changes}}}, each a root mean squared error in its unit, with its interval
    """
    model, c, columns = policy.model, policy.config, policy.info['obs_columns']
    batches = Batches(split, 2, seed, n, 1, c.chunk, c.n_slots, columns=columns)
    text, obs, act, bd, real, *_ = (torch.from_numpy(a).to(policy.device) for a in batches.batch(0)[:-1])
    shortest = int(split.length[batches.group(0)[0]].min()) // c.chunk  # steps
    ahead, off, world = [k for k in ahead if k <= shortest * c.chunk // 4], {}, model.next_obs
    if not ahead or shortest < 4:
        raise ValueError(f'an episode of {shortest} steps of {c.chunk} is too short to predict any of it')
    for start in (shortest // 4, shortest // 2, 3 * shortest // 4):
        seen = obs[:, :start]
        for k in range(-(-max(ahead) // c.chunk)):
            then = model(text, seen, act[:, : start + k], bd[:, : start + k] if bd.shape[1] > 1 else bd)[0]['next'][
                :, -1:
            ]
            seen = torch.cat([seen, world.wrapped(then * model.obs_std[: c.n_obs] + model.obs_mean[: c.n_obs])], 1)
        said, was, last = (
            seen[:, start:].flatten(1, 2),
            obs[:, start : seen.shape[1]].flatten(1, 2),
            obs[:, start - 1, -1],
        )
        for k in ahead:
            for name, x in ('policy', said[:, k - 1]), ('stays', last):
                off.setdefault((k, name), []).append(world.wrapped(x - was[:, k - 1]).cpu().numpy() ** 2)

    def rms(squares, **axis):
        return np.sqrt(np.mean(squares, **axis))

    return {
        policy.data_spec['obs_names'][column]: {
            k: {name: metrics.bootstrap(np.mean(off[k, name], 0)[:, i], rms) for name in ('policy', 'stays')}
            for k in ahead
        }
        for i, column in enumerate(columns)
    }
