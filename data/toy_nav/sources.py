"""
What toy_nav collects: demonstrations of itineraries, driven by a planner, and the elites of a quality-diversity
archive.
"""

import json
import math
from functools import lru_cache, partial

import numpy as np

from data.archive import batched
from data.toy_nav.env import ANYWHERE, ToyNavVec
from data.toy_nav.places import Places
from data.toy_nav.world import World
from data.workers import in_order, ranges_in_order

SOURCES = {'demonstrations': 30000, 'elites': 1}  # how much of each by default: episodes, archives
BLOCK = 500  # demonstrations side by side, and on one process
FROM_ANYWHERE = 0.5  # share of demonstrations that begin anywhere; the others where the room's scene says


def demonstrations(size, seed, kwargs, places):
    """episodes that do what an itinerary asks; those that miss it are dropped, counted"""
    total = max(1, round(SOURCES['demonstrations'] * size))
    drive = partial(drive_block, total=total, seed=seed, kwargs=kwargs)
    dropped = 0
    for numbers, episodes in ranges_in_order(drive, total, BLOCK, 'demonstrations'):
        dropped += len(numbers) - len(episodes)
        yield from episodes
    kept = total - dropped
    print(f'demonstrations: {kept} of {total} carried out their itinerary ({kept / total:.2%}), {dropped} dropped')


def drive_block(numbers, total, seed, kwargs):
    """-> those of the demonstrations of these numbers that carry out their itinerary, a list"""
    from data.toy_nav.driver import demonstrate
    from data.toy_nav.planner import Driven, sample_itinerary

    planner = planner_of(json.dumps(kwargs['scene']))
    block, n = numbers[0] // BLOCK, len(numbers)
    rng = np.random.default_rng([seed, block])
    seeds = rng.integers(ANYWHERE, size=n)
    seeds += ANYWHERE * (rng.random(n) < FROM_ANYWHERE)
    env = ToyNavVec(n, **kwargs)
    env.reset(seed=seeds)
    so_far = Driven(block, math.ceil(total / BLOCK))
    itineraries = [sample_itinerary(rng, planner, env.state[k, :2], so_far) for k in range(n)]
    episodes = carried_out(itineraries, seeds, demonstrate(itineraries, env.state, planner, rng), planner.places)
    planner.forget()
    return [{**episode, 'source': 'demonstrations'} for episode in episodes]


def carried_out(itineraries, seeds, episodes, places):
    """-> those of the driver's episodes that carry out their itinerary, with what archives say of them, a list"""
    kept = []
    for itinerary, env_seed, episode in zip(itineraries, seeds, episodes):
        if itinerary.match(episode['path'], places)['carried_out']:
            of = {'bd': episode['path'][-1], 'asked': itinerary.to_json(), 'seed': int(env_seed)}
            kept.append({**episode, **of})
    return kept


def relabel(rollouts, seed, kwargs):
    """
    Episodes that a policy begins and the driver ends (DAgger, Ross et al., arXiv 1011.0686, with what is executed being
    the driver's, so that they replay): what the policy did is not taught. Those that miss their itinerary are dropped.

    rollouts: a policy's for prompts of demonstrations, a list of dicts: act (T, 2), and their demonstration's seed and
    asked
    """
    take_over = partial(relabel_block, seed=seed, kwargs=kwargs)
    kept = 0
    for _, episodes in in_order(take_over, enumerate(batched(rollouts, BLOCK))):
        kept += len(episodes)
        yield from episodes
    n = len(rollouts)
    print(f'relabelled: {kept} of {n} carried out their itinerary ({kept / n:.2%}), {n - kept} dropped')


def relabel_block(block, seed, kwargs):
    """-> what becomes of the rollouts of a block, a list of episodes"""
    from data.toy_nav.driver import Takeover, record
    from data.toy_nav.itinerary import Itinerary

    number, rollouts = block
    planner = planner_of(json.dumps(kwargs['scene']))
    itineraries = [Itinerary.from_json(rollout['asked']) for rollout in rollouts]
    seeds = [rollout['seed'] for rollout in rollouts]
    env = ToyNavVec(len(seeds), **kwargs)
    env.reset(seed=seeds)
    acts = [rollout['act'] for rollout in rollouts]
    takeover = Takeover(acts, itineraries, planner, np.random.default_rng([seed, number]))
    episodes = record(itineraries, env.state, planner, takeover)
    kept = carried_out(itineraries, seeds, episodes, planner.places)
    planner.forget()
    return [{**episode, 'source': 'relabelled'} for episode in kept]


@lru_cache(maxsize=1)
def planner_of(scene):
    """the PathPlanner of a room: each process keeps the paths that it has found"""
    from data.toy_nav.planner import PathPlanner

    return PathPlanner(Places(World(json.loads(scene))))


def elites(size, seed, kwargs, places):
    """an episode of every elite: reactive policies of the fixed start"""
    from data.toy_nav.qd import DEFAULT, coverage, grow, rollout

    archive = grow(places.world, seed, max(1000, round(DEFAULT * size)))
    params, spreads = archive['params'], archive['spread']
    print(
        f'elites: {len(spreads)}, {coverage(archive["final"], places):.1%} of the reachable 5 x 5 cells, '
        f'spread median {np.median(spreads):.1f}, 90% below {np.quantile(spreads, 0.9):.1f} units, '
        f'{archive["stopped"].mean():.0%} stop'
    )
    for policy, spread, episode in zip(params, spreads, rollout(params, places.world)):
        yield {
            **episode,
            'bd': episode['path'][-1],
            'policy': policy,
            'spread': float(spread),
            'seed': 0,
            'source': 'elites',
        }


COLLECTORS = {'demonstrations': demonstrations, 'elites': elites}
