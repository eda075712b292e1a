"""
A quality-diversity archive of toy_nav: thousands of small reactive policies that end in different places by different ways.

MAP-Elites (Mouret & Clune, arXiv 1504.04909) with pyribs. Diversity is where an episode ends (cells of 5 x 5) and where
it was mid-way (12.5 x 12.5). Quality is a low spread first, as in MAP-Elites Low-Spread (Macé et al., arXiv 2303.16207): replays
with small disturbances must end at the same place by the same way; then arriving and staying, smooth and free driving.
"""

import numpy as np
from tqdm import tqdm

from data.toy_nav.places import ARCHIVE
from data.toy_nav.world import STAND, STILL

DEFAULT = 84000  # policies tried by default
BATCH = 3000  # policies tried at a time
HIDDEN = 12
N_IN, N_OUT = 9, 3
N_PARAMS = (N_IN + 1) * HIDDEN + (HIDDEN + 1) * N_OUT
WAYS = 16  # cells to a side for where an episode was mid-way
REPLAYS = 3  # disturbed runs of each policy that could enter; those it enters by were lucky ones, hence
FRESH = 4  # ... as many again of each elite in the end, for the spread that is stored
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
    return p[: (N_IN + 1) * HIDDEN].reshape(N_IN + 1, HIDDEN, -1), p[(N_IN + 1) * HIDDEN :].reshape(
        HIDDEN + 1, N_OUT, -1
    )


def forward(weights, obs):
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
    Drive n policies (n, P) from poses (n, 4), their wheels turning gain (n, 2) times as fast as told.

    -> dict of length (n,), stopped (n,), jerk (n,), bumps (n,), path (max_steps + 1, n, 2), that stays where an episode ended;
    with record also obs (max_steps, n, 9) and act (max_steps, n, 2)
    """
    n, steps = len(params), world.max_steps
    path = np.empty((steps + 1, n, 2), np.float32)
    path[0] = pose[:, :2]
    seen, done = (np.zeros((steps, n, k), np.float32) if record else None for k in (N_IN, 2))
    length, jerk, bumps = np.full(n, steps), np.zeros(n), np.zeros(n)
    i, weights = np.arange(n), layers(params)  # those that are not over yet, and now and then a few that are
    stood, before = np.zeros(n, int), np.zeros((n, 2), np.float32)
    obs = world.observe(pose, np.zeros((n, 2)))
    for t in range(steps):
        a = forward(weights, obs)
        if record:
            seen[t, i], done[t, i] = obs, a
        going = stood < STAND
        stood = np.where(going & (np.abs(a) >= STILL).any(1), 0, stood + 1)
        jerk[i] += np.abs(a - before).mean(1) * going
        pose, obs = world.advance(pose, a if gain is None else a * gain[i])
        bumps[i] += obs[:, 3:5].max(1) * going
        before, path[t + 1] = a, path[t]
        path[t + 1, i[going]] = pose[going, :2]
        length[i[stood == STAND]] = t + 1
        go = stood < STAND
        if go.mean() < 0.9:
            i, pose, obs, before, stood = i[go], pose[go], obs[go], before[go], stood[go]
            weights = tuple(np.ascontiguousarray(w[..., go]) for w in weights)
        if not len(i):
            path[t + 2 :] = path[t + 1]
            break
    stopped = length < steps
    stopped[i] |= stood == STAND
    return {
        'length': length,
        'stopped': stopped,
        'jerk': jerk / length,
        'bumps': bumps / length,
        'path': path,
        'obs': seen,
        'act': done,
    }


def measures(driven):
    """where each episode was mid-way in its own time and where it ended -> (n, 4)"""
    rows = np.arange(len(driven['length']))
    return np.concatenate([driven['path'][-1], driven['path'][driven['length'] // 2, rows]], 1)


def grow(world, seed=0, evaluations=DEFAULT, progress=True):
    """
    Grow an archive. The same seed and number of evaluations give the same archive.

    -> dict of params (E, P) float32, spread (E,) and quality (E,), final (E, 2), midway (E, 2), stopped (E,)
    """
    from ribs.archives import GridArchive  # numba: slow to import, and only needed here
    from ribs.emitters import IsoLineEmitter

    rng, room = np.random.default_rng(seed), (0, world.size)
    archive = GridArchive(
        solution_dim=N_PARAMS,
        dims=(ARCHIVE, ARCHIVE, WAYS, WAYS),
        ranges=[room] * 4,
        learning_rate=1.0,
        threshold_min=-10.0,
        dtype=np.float32,
        seed=seed,
        extra_fields={'stopped': ((), np.float32)},
    )
    first = rng.normal(size=(BATCH, N_PARAMS)) * np.where(np.arange(N_PARAMS) < (N_IN + 1) * HIDDEN, 1.0, 0.7)
    emitters = [
        IsoLineEmitter(
            archive, iso_sigma=sigma, line_sigma=0.2, initial_solutions=first, batch_size=BATCH // 2, seed=seed + k
        )
        for k, sigma in enumerate((0.03, 0.15))
    ]
    bar = tqdm(total=evaluations, desc='elites', unit='policy', mininterval=1, disable=None if progress else True)
    tried = 0
    while tried < evaluations:
        params = first if not tried else np.concatenate([e.ask() for e in emitters])
        params = params[: evaluations - tried].astype(np.float32)
        n = len(params)
        driven = run(params, world, np.repeat(world.start_pose[None], n, 0))
        where = measures(driven)
        bonus = driven['stopped'] - 0.5 * driven['jerk'] - 0.5 * driven['bumps']  # in tens of units of spread
        there, elite = archive.retrieve(where)
        hopeful = np.flatnonzero(~there | (bonus > elite['objective'] + 0.02))  # with no spread at all it would enter
        if len(hopeful):
            spread, wander = spreads(params[hopeful], where[hopeful], world, rng, REPLAYS)
            quality = np.where(
                spread > TOO_FAR, -1e3, bonus[hopeful] - (spread + 0.25 * wander) / 10
            )  # -1e3: below the archive's threshold
            archive.add(params[hopeful], quality, where[hopeful], stopped=driven['stopped'][hopeful])
        tried += n
        bar.update(n)
        bar.set_postfix(elites=len(archive), refresh=False)
    bar.close()
    found = archive.data()
    order = np.argsort(found['index'])
    found = {k: v[order] for k, v in found.items()}
    found['spread'] = np.concatenate(
        [
            spreads(found['solution'][i : i + BATCH], found['measures'][i : i + BATCH], world, rng, FRESH)[0]
            for i in range(0, len(order), BATCH)
        ]
        or [np.empty(0)]
    )
    found = {k: v[found['spread'] <= TOO_FAR] for k, v in found.items()}
    return {
        'params': found['solution'].astype(np.float32),
        'spread': found['spread'],
        'quality': found['objective'],
        'final': found['measures'][:, :2],
        'midway': found['measures'][:, 2:],
        'stopped': found['stopped'] > 0,
    }


def spreads(params, where, world, rng, replays):
    """how far disturbed runs of n policies end, and are mid-way, from where (n, 4) they were without -> means (n,), (n,)"""
    again = np.repeat(np.arange(len(params)), replays)
    off = measures(run(params[again], world, *disturb(world, rng, len(again)))) - where[again]
    return tuple(np.hypot(off[:, k], off[:, k + 1]).reshape(-1, replays).mean(1) for k in (0, 2))


def disturb(world, rng, n):
    """n start poses near the start, and gains of the wheels -> (n, 4), (n, 2)"""
    pose = np.repeat(world.start_pose[None], n, 0)
    pose[:, :2] += rng.normal(0, START_XY, (n, 2))
    turn = rng.normal(0, START_TURN, n)
    c, s = pose[:, 2] - pose[:, 3] * turn, pose[:, 3] + pose[:, 2] * turn
    norm = np.sqrt(c * c + s * s)
    pose[:, 2], pose[:, 3] = c / norm, s / norm
    return pose, rng.normal(1, WHEELS, (n, 2)).astype(np.float32)


def rollout(params, world, block=2000):
    """drive stored policies (n, P) again: yields {'obs' (T, 9), 'act' (T, 2), 'path' (T + 1, 2)}, float32"""
    for first in range(0, len(params), block):
        some = params[first : first + block]
        driven = run(some, world, np.repeat(world.start_pose[None], len(some), 0), record=True)
        for k, m in enumerate(driven['length']):
            yield {'obs': driven['obs'][:m, k], 'act': driven['act'][:m, k], 'path': driven['path'][: m + 1, k]}


def coverage(final, places):
    """the share of the cells within reach in which an episode ended; final (E, 2)"""
    floor = places.archive_floor()
    column, row = places.archive_cell(final).T
    reached = np.zeros_like(floor)
    reached[row, column] = True
    return (reached & floor).sum() / floor.sum()
