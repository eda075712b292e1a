"""
CartPole-v1 with nothing asked, for a model in which every number is a token (fuse='bins'): it balances, and it dreams.

An expert's episodes, in part of which something else acts now and then, which is not to be imitated; and episodes of random actions.
"""

from itertools import product

import gymnasium as gym
import numpy as np

from data.cartpole import OBS_NAMES, draw_episodes, play  # noqa: F401, the pictures are the same

SOURCES = {'expert': 600, 'random': 6000}  # what collect() makes, and how much of it by default
DISTURBED = (0.0, 0.1, 0.2)  # shares of actions that are not the expert's, each in a third of its episodes
STEPS = 500
MEASURES = {'success': 'balanced to the end', 'return': 'return, % of 500'}


class NoBD(gym.Wrapper):
    """There is no behaviour descriptor: info['bd'] has no width."""

    def reset(self, **how):
        obs, info = self.env.reset(**how)
        return obs, {**info, 'bd': np.zeros(0, np.float32)}

    def step(self, action):
        *rest, info = self.env.step(action)
        return *rest, {**info, 'bd': np.zeros(0, np.float32)}


def env_kwargs():
    return {}


def make_env(render_mode=None):
    return NoBD(gym.make('CartPole-v1', render_mode=render_mode))


def make_vec(n):
    return gym.vector.SyncVectorEnv([make_env] * n)


def sources(kwargs):
    return list(SOURCES)


def spec(kwargs):
    return {
        'obs_names': OBS_NAMES,
        'act_names': ['left', 'right'],
        'bd_names': [],
        'bd_low': [],
        'bd_high': [],
        'act_low': [0],
        'act_high': [1],
        'continuous': False,
        'max_steps': STEPS,
    }


def drive(obs):
    """the expert: cartpole's driver, who also minds where the cart is. obs (n, 4) -> (n,) int64"""
    return (obs @ np.array([0.05, 0.08, 1, 0.3]) > 0).astype(np.int64)


def collect(source, size, seed, kwargs):
    rng = np.random.default_rng([seed, list(SOURCES).index(source)])

    def choose(obs, which):
        anything = rng.integers(2, size=len(obs))
        if source == 'random':
            return anything, np.ones(len(obs), bool)
        disturbed = rng.random(len(obs)) < np.array(DISTURBED)[which % len(DISTURBED)]
        return np.where(disturbed, anything, drive(obs)), ~disturbed

    for e in play(make_vec, max(3, round(SOURCES[source] * size)), choose, rng, source):
        yield {**e, 'source': source}


def measure(episodes, kwargs):
    return [{'success': len(e['act']) == STEPS, 'return': len(e['act']) / STEPS} for e in episodes]


def report(prompt, bd, path, kwargs):
    return {'said': f'{len(path) - 1} steps', 'visits': [], 'verdict': {'return': len(path) - 1.0}, 'ok': None}


def reach(low, high, act, kwargs):
    """
    Where a step of CartPole's physics leads from anywhere between low and high (n, 4) by act (n,) -> low, high (n, 4). The equations of
    Gymnasium's CartPole-v1 (Barto, Sutton & Anderson, 1983): positions are linear in the box, velocities nearly, but for the angular velocity's
    square: the corners, and those of no angular velocity, bound them.
    """
    values = [(low[:, d], high[:, d]) for d in range(3)] + [(low[:, 3], high[:, 3], np.clip(0, low[:, 3], high[:, 3]))]
    x, v, theta, w = np.moveaxis(np.array([np.stack(corner, 1) for corner in product(*values)]), 2, 0)  # (24, n)
    force, total, moment = np.where(act == 1, 10.0, -10.0), 1.1, 0.05  # N, kg, kg m
    push = (force + moment * w**2 * np.sin(theta)) / total
    turn = (9.8 * np.sin(theta) - np.cos(theta) * push) / (0.5 * (4 / 3 - 0.1 * np.cos(theta) ** 2 / total))
    then = np.stack(
        [x + 0.02 * v, v + 0.02 * (push - moment * turn * np.cos(theta) / total), theta + 0.02 * w, w + 0.02 * turn], 2
    )
    return then.min(0), then.max(0)


def can_end(low, high):
    """is the episode over somewhere between low and high (n, 4)? -> (n,) bool"""
    limit = np.array([2.4, 12 * np.pi / 180])
    return (np.maximum(-low, high)[:, [0, 2]] >= limit - 1e-6).any(1)
