"""
What toy_nav collects: demonstrations of itineraries, driven by a planner, and the elites of a quality-diversity
archive.
"""

from collections import Counter

import numpy as np
from tqdm import tqdm

from data.toy_nav.env import ToyNavVec

SOURCES = {'demonstrations': 30000, 'elites': 1}  # how much of each by default: episodes, archives
BLOCK = 1000  # episodes side by side


def demonstrations(size, seed, kwargs, places):
    """episodes that do what an itinerary asks; those that miss it are dropped, counted"""
    from data.toy_nav.driver import demonstrate
    from data.toy_nav.planner import PathPlanner, sample_itinerary

    planner = PathPlanner(places)
    rng = np.random.default_rng(seed)
    total = max(1, round(SOURCES['demonstrations'] * size))
    times = Counter()  # itineraries so far
    dropped = 0
    bar = tqdm(total=total, desc='demonstrations', unit='ep', mininterval=1, disable=None)
    for first in range(0, total, BLOCK):
        n = min(BLOCK, total - first)
        seeds = rng.integers(2**31, size=n)
        env = ToyNavVec(n, **kwargs)
        env.reset(seed=seeds)
        itineraries = [sample_itinerary(rng, planner, env.state[k, :2], times) for k in range(n)]
        episodes = demonstrate(itineraries, env.state, planner, rng)
        for itinerary, env_seed, episode in zip(itineraries, seeds, episodes):
            if not itinerary.match(episode['path'], places)['carried_out']:
                dropped += 1
                continue
            yield {
                **episode,
                'bd': episode['path'][-1],
                'asked': itinerary.to_json(),
                'seed': int(env_seed),
                'source': 'demonstrations',
            }
        planner.forget()
        bar.update(n)
    bar.close()
    kept = total - dropped
    print(f'demonstrations: {kept} of {total} carried out their itinerary ({kept / total:.2%}), {dropped} dropped')


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
