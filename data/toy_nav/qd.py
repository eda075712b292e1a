"""
A quality-diversity archive of toy_nav: thousands of small reactive policies that end in different places by different
ways.

MAP-Elites (Mouret & Clune, arXiv 1504.04909) with pyribs. Diversity is where an episode ends (cells of 5 x 5) and where
it was mid-way (12.5 x 12.5). Quality is a low spread first, as in MAP-Elites Low-Spread (Macé et al., arXiv
2303.16207): replays with small disturbances must end at the same place by the same way; then arriving and staying,
smooth driving, and few bumps.
"""

import math
from functools import partial

import numpy as np
from tqdm import tqdm

from data.toy_nav.places import ARCHIVE
from data.toy_nav.world import STAND, STILL
from data.workers import in_order

DEFAULT = 84000  # policies tried by default
BATCH = 3000  # policies tried at a time
BLOCK = 1500  # runs side by side, and on one process: with fewer, numpy's calls take longer than what they do
RECORDED = 500  # .. of those whose every step is kept
HIDDEN = 12
N_IN, N_OUT = 9, 3
N_PARAMS = (N_IN + 1) * HIDDEN + (HIDDEN + 1) * N_OUT
WAYS = 16  # cells to a side for where an episode was mid-way
REPLAYS = 3  # disturbed runs of each policy that could enter the archive: it enters by lucky ones, so that
FRESH = 4  # ... each elite is run again in the end, for the spread that is stored
TOO_FAR = 20.0  # units of spread above which a policy is not kept: where it ends is chance
START_XY, START_TURN, WHEELS = 1.0, 0.05, 0.05  # disturbances: units, radians, share of the wheel speeds


def act(params, obs):
    """
    The wheel speeds (n, 2) float32 of n policies, params (n, P), for n observations (n, 9).

    One hidden layer; a third output is the throttle: below zero the robot stands, so that a policy can arrive and stay.
    Sums run in a fixed order and no exp or tanh is called: the result does not depend on what else is in the batch.
    """
    return forward(layers(params), obs)


def layers(params):
    """params (n, P) -> weights with the policies last, where numpy is fast: (10, H, n), (H + 1, 3, n)"""
    p = np.ascontiguousarray(params.T, dtype=np.float32)
    w1, w2 = np.split(p, [(N_IN + 1) * HIDDEN])
    return w1.reshape(N_IN + 1, HIDDEN, -1), w2.reshape(HIDDEN + 1, N_OUT, -1)


def forward(weights, obs):
    """weights of `layers`, obs (n, 9) -> wheel speeds (n, 2)"""
    w1, w2 = weights
    x = np.ascontiguousarray(obs.T)
    x[:3] = 2 * x[:3] - 1  # lasers
    x[5:7] = x[5:7] / np.float32(100) - 1  # x, y: the middle of a room of 200 is 0
    h = w1[N_IN].copy()
    for i in range(N_IN):
        h += w1[i] * x[i]
    h /= 1 + np.abs(h)  # softsign
    out = w2[HIDDEN].copy()
    for i in range(HIDDEN):
        out += w2[i] * h[i]
    wheels = out[:2] / (1 + np.abs(out[:2])) * (out[2] > 0)
    return np.ascontiguousarray(wheels.T)


def run(params, world, pose, gain=None, record=False):
    """
    Run n policies (n, P) from poses (n, 4), their wheels turning gain (n, 2) times as fast as they act; None:
    just as fast.

    -> dict of length (n,), stopped (n,), jerk (n,), bumps (n,), path (max_steps + 1, n, 2), which stays where an
    episode ended; with record also obs (max_steps, n, 9) and act (max_steps, n, 2)
    """
    n, steps = len(params), world.max_steps
    path = np.empty((steps + 1, n, 2), np.float32)
    path[0] = pose[:, :2]
    obs_log = act_log = None
    if record:
        obs_log = np.zeros((steps, n, N_IN), np.float32)
        act_log = np.zeros((steps, n, 2), np.float32)
    if gain is None:
        gain = np.ones((n, 2), np.float32)
    length, jerk, bumps = np.full(n, steps), np.zeros(n), np.zeros(n)
    # robots that have stopped are dropped when they are a tenth: rows are those that are left
    rows, weights = np.arange(n), layers(params)
    still = np.zeros(n, int)  # steps each has stood in a row
    prev_act = np.zeros((n, 2), np.float32)
    obs = world.observe(pose, np.zeros((n, 2)))
    for t in range(steps):
        act = forward(weights, obs)
        if record:
            obs_log[t, rows] = obs
            act_log[t, rows] = act
        running = still < STAND
        still = np.where(running & (np.abs(act) >= STILL).any(1), 0, still + 1)
        jerk[rows] += np.abs(act - prev_act).mean(1) * running
        pose, obs = world.advance(pose, act * gain[rows])
        bumps[rows] += obs[:, 3:5].max(1) * running
        prev_act = act
        path[t + 1] = path[t]
        path[t + 1, rows[running]] = pose[running, :2]
        length[rows[still == STAND]] = t + 1
        left = still < STAND
        if left.mean() < 0.9:
            rows, pose, obs, prev_act, still = (a[left] for a in (rows, pose, obs, prev_act, still))
            weights = [np.ascontiguousarray(w[..., left]) for w in weights]
        if not len(rows):
            path[t + 2 :] = path[t + 1]
            break
    stopped = length < steps
    stopped[rows] |= still == STAND
    return {
        'length': length,
        'stopped': stopped,
        'jerk': jerk / length,
        'bumps': bumps / length,
        'path': path,
        'obs': obs_log,
        'act': act_log,
    }


def measures(result):
    """a dict of `run` -> where each episode ended, and where it was mid-way in its own time (n, 4)"""
    rows = np.arange(len(result['length']))
    return np.concatenate([result['path'][-1], result['path'][result['length'] // 2, rows]], 1)


def grow(world, seed=0, evaluations=DEFAULT, progress=True):
    """
    Grow an archive. The same seed and number of evaluations give the same archive.

    -> dict of params (E, P) float32, spread (E,) and quality (E,), final (E, 2), midway (E, 2), stopped (E,)
    """
    rng = np.random.default_rng(seed)
    archive = empty_archive(world, seed)
    first = rng.normal(size=(BATCH, N_PARAMS)) * np.where(np.arange(N_PARAMS) < (N_IN + 1) * HIDDEN, 1.0, 0.7)
    emitters = emitters_of(archive, first, seed)
    bar = tqdm(total=evaluations, desc='elites', unit='policy', mininterval=1, disable=None if progress else True)
    tried = generation = 0
    while tried < evaluations:
        params = first
        if generation:
            params = np.concatenate([emitter.ask() for emitter in emitters])
        params = params[: evaluations - tried].astype(np.float32)
        add(archive, params, world, [seed, generation])
        tried += len(params)
        generation += 1
        bar.update(len(params))
        bar.set_postfix(elites=len(archive), refresh=False)
    bar.close()
    return robust_elites(archive, world, [seed, generation])


def empty_archive(world, seed):
    from ribs.archives import GridArchive  # imports numba: slow, and only needed here

    return GridArchive(
        solution_dim=N_PARAMS,
        dims=(ARCHIVE, ARCHIVE, WAYS, WAYS),
        ranges=[(0, world.size)] * 4,
        learning_rate=1.0,
        threshold_min=-10.0,
        dtype=np.float32,
        seed=seed,
        extra_fields={'stopped': ((), np.float32)},
    )


def emitters_of(archive, first, seed):
    """two emitters, with small and with large mutations"""
    from ribs.emitters import IsoLineEmitter

    return [
        IsoLineEmitter(
            archive, iso_sigma=sigma, line_sigma=0.2, initial_solutions=first, batch_size=BATCH // 2, seed=seed + k
        )
        for k, sigma in enumerate((0.03, 0.15))
    ]


def add(archive, params, world, seed):
    """run policies (n, P), and those again with disturbances that could enter the archive; add these"""
    results = [result for _, result in in_order(partial(calm_run, world=world), blocks_of(len(params), params))]
    where, bonus, stopped = map(np.concatenate, zip(*results))
    occupied, elite = archive.retrieve(where)
    hopeful = np.flatnonzero(~occupied | (bonus > elite['objective'] + 0.02))  # they enter if they do not spread at all
    if not len(hopeful):
        return
    spread, wander = spreads(params[hopeful], where[hopeful], world, seed, REPLAYS)
    quality = bonus[hopeful] - (spread + 0.25 * wander) / 10
    quality[spread > TOO_FAR] = -1e3  # below the archive's threshold
    archive.add(params[hopeful], quality, where[hopeful], stopped=stopped[hopeful])


def blocks_of(n, *arrays, size=BLOCK):
    """
    yields (number, rows of each of the arrays (n, ..)): what one process runs side by side. They are an even number of
    about the same size, lest one of two processes wait for the other
    """
    count = min(n, 2 * math.ceil(n / (2 * size)))
    for number in range(count):
        rows = slice(number * n // count, (number + 1) * n // count)
        yield number, *(a[rows] for a in arrays)


def calm_run(block, world):
    """policies, run without disturbances -> `measures` (n, 4), quality but for the spread (n,), stopped (n,)"""
    _, params = block
    result = run(params, world, start_poses(world, len(params)))
    bonus = result['stopped'] - 0.5 * result['jerk'] - 0.5 * result['bumps']  # in tens of units of spread
    return measures(result), bonus, result['stopped']


def start_poses(world, n):
    return np.repeat(world.start_pose[None], n, 0)


def robust_elites(archive, world, seed):
    """the elites of an archive in the order of their cells, but for those that spread too far -> dict as `grow`"""
    elites = archive.data()
    order = np.argsort(elites['index'])
    elites = {key: values[order] for key, values in elites.items()}
    elites['spread'], _ = spreads(elites['solution'], elites['measures'], world, seed, FRESH)
    elites = {key: values[elites['spread'] <= TOO_FAR] for key, values in elites.items()}
    return {
        'params': elites['solution'].astype(np.float32),
        'spread': elites['spread'],
        'quality': elites['objective'],
        'final': elites['measures'][:, :2],
        'midway': elites['measures'][:, 2:],
        'stopped': elites['stopped'] > 0,
    }


def spreads(params, where, world, seed, replays):
    """
    How far disturbed runs of n policies are, on average, from `measures` where (n, 4) of the undisturbed run
    -> at the end (n,), mid-way (n,). seed: a list of ints
    """
    blocks = blocks_of(len(params), params, where, size=BLOCK // replays)
    work = partial(disturbed_runs, world=world, seed=seed, replays=replays)
    results = [result for _, result in in_order(work, blocks)]
    end, midway = map(np.concatenate, zip(*results)) if results else (np.empty(0), np.empty(0))
    return end, midway


def disturbed_runs(block, world, seed, replays):
    """what `spreads` says of a block"""
    number, params, where = block
    rows = np.repeat(np.arange(len(params)), replays)
    pose, gain = disturb(world, np.random.default_rng([*seed, number]), len(rows))
    off = measures(run(params[rows], world, pose, gain)) - where[rows]  # (n * replays, 4)
    end = np.hypot(off[:, 0], off[:, 1]).reshape(-1, replays)
    midway = np.hypot(off[:, 2], off[:, 3]).reshape(-1, replays)
    return end.mean(1), midway.mean(1)


def disturb(world, rng, n):
    """n start poses near the start, and gains of the wheels -> (n, 4), (n, 2)"""
    pose = start_poses(world, n)
    pose[:, :2] += rng.normal(0, START_XY, (n, 2))
    turn = rng.normal(0, START_TURN, n)
    c, s = pose[:, 2] - pose[:, 3] * turn, pose[:, 3] + pose[:, 2] * turn
    norm = np.sqrt(c * c + s * s)
    pose[:, 2], pose[:, 3] = c / norm, s / norm
    return pose, rng.normal(1, WHEELS, (n, 2)).astype(np.float32)


def rollout(params, world):
    """run stored policies (n, P) from the start: yields {'obs' (T, 9), 'act' (T, 2), 'path' (T + 1, 2)}, float32"""
    for _, episodes in in_order(partial(recorded_run, world=world), blocks_of(len(params), params, size=RECORDED)):
        yield from episodes


def recorded_run(block, world):
    _, params = block
    result = run(params, world, start_poses(world, len(params)), record=True)
    obs, act, path = result['obs'], result['act'], result['path']
    return [{'obs': obs[:m, k], 'act': act[:m, k], 'path': path[: m + 1, k]} for k, m in enumerate(result['length'])]


def coverage(final, places):
    """the share of the cells within reach in which an episode ended; final (E, 2)"""
    floor = places.archive_floor()
    column, row = places.archive_cell(final).T
    reached = np.zeros_like(floor)
    reached[row, column] = True
    return (reached & floor).sum() / floor.sum()
