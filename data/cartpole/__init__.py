"""
CartPole-v1 of Gymnasium (Barto, Sutton & Anderson, 1983), conditioned on returns: the smallest data set, and the example to copy.

bd is the return of an episode. A spec with a `discount` says so: in training and acting each step is then told what is
left of it, the return to go (Decision Transformer, Chen et al., arXiv 2106.01345).
"""

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from data.pictures import panels

SOURCES = {'noisy': 2000}  # what collect() makes, and how much of it by default
RANDOM = (0.6, 0.3, 0.1)  # shares of random actions, each in a third of the episodes
TARGETS = (10, 25, 50, 100, 150, 200, 300, 400, 500)  # returns that are asked for when a policy is scored
OBS_NAMES = ['x', 'x_dot', 'theta', 'theta_dot']


def env_kwargs(discount=1.0):
    """discount: of the rewards in the return"""
    if not 0.99 <= discount <= 1:
        raise ValueError(
            f"{discount=} must be 0.99 to 1: below, what is left of a return after 500 steps drowns in float32's rounding"
        )
    return {'discount': float(discount)}


class RunningReturn(gym.Wrapper):
    """info['bd'], (1,) float32: the return so far."""

    def __init__(self, env, discount):
        super().__init__(env)
        self.discount = discount

    def reset(self, **how):
        obs, info = self.env.reset(**how)
        self.weight, self.so_far = 1.0, 0.0
        return obs, {**info, 'bd': np.float32([0])}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.so_far, self.weight = self.so_far + self.weight * reward, self.weight * self.discount
        return obs, reward, terminated, truncated, {**info, 'bd': np.float32([self.so_far])}


def make_env(render_mode=None, discount=1.0):
    return RunningReturn(gym.make('CartPole-v1', render_mode=render_mode), discount)


def make_vec(n, discount=1.0):
    return gym.vector.SyncVectorEnv([lambda: make_env(discount=discount)] * n)


def sources(kwargs):
    return list(SOURCES)


def spec(kwargs):
    most = sum(kwargs['discount'] ** t for t in range(500))
    return {
        'obs_names': OBS_NAMES,
        'act_names': ['left', 'right'],
        'bd_names': ['return'],
        'bd_low': [0],
        'bd_high': [most],
        'act_low': [0],
        'act_high': [1],
        'continuous': False,
        'max_steps': 500,
        'discount': kwargs['discount'],
    }


def drive(obs):
    """the heuristic driver: push towards angle + 0.3 x angular velocity. obs (n, 4) -> (n,) int64"""
    return (obs[:, 2] + 0.3 * obs[:, 3] > 0).astype(np.int64)


def play(make_vec, n, choose, rng, desc):
    """
    n episodes, 500 at a time. choose(obs (m, 4), which (m,)) -> act (m,) int64, taught (m,) bool, for episodes `which` of the n
    -> dicts of obs, act, path, bd, taught and seed
    """
    bar = tqdm(total=n, desc=desc, unit='ep', mininterval=1, disable=None)
    for first in range(0, n, 500):
        which = np.arange(first, min(n, first + 500))
        seeds, env = rng.integers(2**31, size=len(which)), make_vec(len(which))
        obs, info = env.reset(seed=seeds.tolist())
        seen, acts, taughts, paths, over, length = (
            [],
            [],
            [],
            [info['bd']],
            np.zeros(len(which), bool),
            np.zeros(len(which), int),
        )
        while not over.all():
            act, taught = choose(obs, which)
            seen.append(obs), acts.append(act), taughts.append(taught)
            obs, _, terminated, truncated, info = env.step(act)
            paths.append(info['bd'])
            length[~over] += 1
            over |= terminated | truncated
        seen, acts, taughts, paths = (np.stack(a, 1) for a in (seen, acts, taughts, paths))
        for i, m in enumerate(length):
            yield {
                'obs': seen[i, :m],
                'act': acts[i, :m, None],
                'taught': taughts[i, :m],
                'path': paths[i, : m + 1],
                'bd': paths[i, m],
                'seed': int(seeds[i]),
            }
        bar.update(len(which))
    bar.close()


def collect(source, size, seed, kwargs):
    """episodes of the driver who now and then does something random"""
    rng = np.random.default_rng(seed)

    def choose(obs, which):
        share = np.array(RANDOM)[which % len(RANDOM)]
        return np.where(rng.random(len(obs)) < share, rng.integers(2, size=len(obs)), drive(obs)), np.ones(
            len(obs), bool
        )

    for i, e in enumerate(
        play(lambda n: make_vec(n, **kwargs), max(3, round(SOURCES[source] * size)), choose, rng, source)
    ):
        yield {**e, 'source': source, 'hard': RANDOM[i % len(RANDOM)]}


def from_trajectory(episode, kwargs):
    """a trajectory made elsewhere, with its 'reward' (T,); without, a step is worth 1 -> its bd and path"""
    reward = np.asarray(episode.get('reward', np.ones(len(episode['act']))), np.float64).reshape(-1)
    so_far = np.cumsum(reward * kwargs['discount'] ** np.arange(len(reward)))
    path = np.r_[0, so_far].astype(np.float32)[:, None]
    return {'path': path, 'bd': path[-1]}


def report(prompt, bd, path, kwargs):
    """the return that was asked for, and the one achieved"""
    asked, achieved = None if bd is None else bd[0], float(path[-1, 0])
    said = f'return {achieved:.0f}' + ('' if asked is None else f', asked for {asked:g}')
    return {'said': said, 'visits': [], 'verdict': {'return': achieved}, 'ok': None}


def draw_episodes(file, episodes, kwargs):
    """a PNG of the cart's and the pole's way through up to 12 episodes"""

    def draw(ax, e):
        ax.plot(e['obs'][:, 0], label='x, m')
        ax.plot(np.degrees(e['obs'][:, 2]), label='angle, degrees')
        ax.set(title=e['said'], xlabel='step', xlim=(0, 500), ylim=(-15, 15))

    panels(file, episodes, draw)
