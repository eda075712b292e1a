"""
What toy_nav collects: demonstrations of itineraries, driven by a planner, and the elites of a quality-diversity
archive.
"""

import json
import math
from functools import lru_cache, partial

import numpy as np

from data.toy_nav.env import ANYWHERE, ToyNavVec
from data.toy_nav.places import Places
from data.toy_nav.world import World
from data.workers import ranges_in_order

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
    episodes = []
    for itinerary, env_seed, episode in zip(itineraries, seeds, demonstrate(itineraries, env.state, planner, rng)):
        if itinerary.match(episode['path'], planner.places)['carried_out']:
            of = {'bd': episode['path'][-1], 'asked': itinerary.to_json(), 'seed': int(env_seed)}
            episodes.append({**episode, **of, 'source': 'demonstrations'})
    planner.forget()
    return episodes


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
