"""
What toy_nav collects: demonstrations of itineraries, driven by a planner, the elites of a quality-diversity archive
and, where --sources names them, episodes that are driven straight to some point.
"""

import json
import math
from functools import lru_cache, partial

import numpy as np

from data.archive import batched
from data.toy_nav.env import ANYWHERE, ToyNavVec
from data.toy_nav.itinerary import Itinerary, stopped
from data.toy_nav.places import Places
from data.toy_nav.world import World
from data.workers import in_order, ranges_in_order

SOURCES = {'demonstrations': 30000, 'elites': 1, 'points': 8000}  # how much of each at size 1: episodes, archives
BLOCK = 500  # episodes side by side, and on one process
FROM_ANYWHERE = 0.5  # share of those driven that begin anywhere; the others where the room's scene says
AT_POINT = 2.0  # units from its point within which an episode that is driven to it has to stop


def demonstrations(size, seed, kwargs, places):
    """episodes that do what an itinerary asks; those that miss it are dropped, counted"""
    return driven('demonstrations', demonstrate_block, 'carried out their itinerary', size, seed, kwargs)


def points(size, seed, kwargs, places):
    """
    Episodes that are driven to a point anywhere on the floor, by the shortest path, at times disturbed. Their bd is
    where they end, no request is kept: words say what they pass. Those that do not stop there are dropped, counted
    """
    return driven('points', points_block, 'stopped at their point', size, seed, kwargs)


def driven(source, drive_block, as_meant, size, seed, kwargs):
    """the episodes of a source that are driven as meant, in blocks; prints how many are not. as_meant: that in words"""
    total = max(1, round(SOURCES[source] * size))
    drive = partial(drive_block, total=total, seed=seed, kwargs=kwargs)
    dropped = 0
    for numbers, episodes in ranges_in_order(drive, total, BLOCK, source):
        dropped += len(numbers) - len(episodes)
        yield from ({**episode, 'source': source} for episode in episodes)
    kept = total - dropped
    print(f'{source}: {kept} of {total} {as_meant} ({kept / total:.2%}), {dropped} dropped')


def demonstrate_block(numbers, total, seed, kwargs):
    """-> those of the demonstrations of these numbers that carry out their itinerary, a list"""
    from data.toy_nav.driver import demonstrate
    from data.toy_nav.planner import Driven, sample_itinerary

    planner = planner_of(json.dumps(kwargs['scene']))
    block = numbers[0] // BLOCK
    rng = np.random.default_rng([seed, block])
    seeds, pose = starts(rng, len(numbers), kwargs)
    so_far = Driven(block, math.ceil(total / BLOCK))
    itineraries = [sample_itinerary(rng, planner, xy, so_far) for xy in pose[:, :2]]
    episodes = carried_out(itineraries, seeds, demonstrate(itineraries, pose, planner, rng), planner.places)
    planner.forget()
    return episodes


def points_block(numbers, total, seed, kwargs):
    """-> those of the episodes of these numbers that stop at their point, a list"""
    from data.toy_nav.driver import demonstrate
    from data.toy_nav.planner import sample_point

    planner = planner_of(json.dumps(kwargs['scene']))
    rng = np.random.default_rng([seed, numbers[0] // BLOCK, 1])  # other numbers than the demonstrations'
    seeds, pose = starts(rng, len(numbers), kwargs)
    goals = [sample_point(rng, planner, xy) for xy in pose[:, :2]]
    episodes = demonstrate([Itinerary((goal,)) for goal in goals], pose, planner, rng, straying=0)
    planner.forget()
    kept = []
    for goal, env_seed, episode in zip(goals, seeds, episodes):
        end = episode['path'][-1]
        if stopped(episode['path']) and np.hypot(end[0] - goal.x, end[1] - goal.y) <= AT_POINT:
            kept.append({**episode, 'bd': end, 'seed': int(env_seed)})
    return kept


def starts(rng, n, kwargs):
    """seeds (n,) of the environment, and the poses (n, 4) in which episodes of these begin"""
    seeds = rng.integers(ANYWHERE, size=n)
    seeds += ANYWHERE * (rng.random(n) < FROM_ANYWHERE)
    env = ToyNavVec(n, **kwargs)
    env.reset(seed=seeds)
    return seeds, env.state


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


def possible(begun, kwargs):
    """
    Could the driver still carry out what is asked, undisturbed, within what is left of the episode?

    begun: a list of dicts: act (T, 2), what was done since the start, the seed, and asked -> (n,) bool
    """
    blocks = in_order(partial(possible_in_block, kwargs=kwargs), batched(begun, BLOCK))
    return np.concatenate([done for _, done in blocks])


def possible_in_block(begun, kwargs):
    """`possible` of a block"""
    from data.toy_nav.driver import demonstrate

    planner = planner_of(json.dumps(kwargs['scene']))
    world = planner.places.world
    env = ToyNavVec(len(begun), **kwargs)
    env.reset(seed=[episode['seed'] for episode in begun])
    pose = env.state.copy()
    steps = np.array([len(episode['act']) for episode in begun])
    for t in range(steps.max()):
        rows = np.flatnonzero(t < steps)
        pose[rows], _ = world.step(pose[rows], np.array([begun[row]['act'][t] for row in rows]))
    itineraries = [Itinerary.from_json(episode['asked']) for episode in begun]
    episodes = demonstrate(itineraries, pose, planner, np.random.default_rng(0), disturbed=0)
    planner.forget()
    paths = [episode['path'][: world.max_steps - n + 1] for episode, n in zip(episodes, steps)]
    return np.array([i.match(path, planner.places)['carried_out'] for i, path in zip(itineraries, paths)])


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


COLLECTORS = {'demonstrations': demonstrations, 'elites': elites, 'points': points}
