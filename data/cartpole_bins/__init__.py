"""
CartPole-v1 with nothing asked, for a model in which every number is a token (fuse='bins'): it balances, and it dreams.

An expert's episodes, in part of which something else acts now and then, which is not to be imitated; and episodes of
random actions.
"""

from itertools import product

import gymnasium as gym
import numpy as np

from data import cartpole
from data.cartpole import OBS_NAMES, STEPS, draw_episodes, rollout  # noqa: F401, the pictures are the same

COLLECT_VERSION = 2  # raised when collect() makes other episodes than before
SOURCES = {'expert': 600, 'random': 6000}  # what collect() makes, and how much of it by default
DISTURBED = (0.0, 0.1, 0.2)  # shares of actions that are not the expert's, each in a third of its episodes
MEASURES = {'success': 'balanced to the end', 'return': 'return, % of 500'}
# of Gymnasium's CartPole-v1
FORCE, GRAVITY, DT = 10.0, 9.8, 0.02  # N, m/s^2, s
MASS, POLE_MASS, HALF_LENGTH = 1.1, 0.1, 0.5  # kg of cart and pole, kg, m
LIMITS = np.array([2.4, 12 * np.pi / 180])  # of x in m and theta in radians: beyond, an episode is over


class NoBD(gym.Wrapper):
    """There is no behaviour descriptor: info['bd'] has no width."""

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
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


def heuristic(obs):
    """the expert: cartpole's heuristic, which also minds where the cart is. obs (n, 4) -> act (n,) int64"""
    return (obs @ np.array([0.05, 0.08, 1, 0.3]) > 0).astype(np.int64)


def collect(source, size, seed, kwargs):
    total = max(3, round(SOURCES[source] * size))
    choose = {'expert': mostly_expert, 'random': at_random}[source]
    for episode in rollout(make_vec, total, choose, [seed, list(SOURCES).index(source)], source):
        yield {**episode, 'source': source}


def at_random(obs, numbers, rng):
    """-> act (n,), which to imitate (n,): all"""
    return rng.integers(2, size=len(obs)), np.ones(len(obs), bool)


def mostly_expert(obs, numbers, rng):
    """what the expert does, or something random, which is not to be imitated"""
    random, _ = at_random(obs, numbers, rng)
    disturbed = rng.random(len(obs)) < np.array(DISTURBED)[numbers % len(DISTURBED)]
    return np.where(disturbed, random, heuristic(obs)), ~disturbed


def measure(episodes, kwargs):
    return [{'success': len(e['act']) == STEPS, 'return': len(e['act']) / STEPS} for e in episodes]


def report(prompt, bd, path, kwargs):
    steps = len(path) - 1
    return {'summary': f'{steps} steps', 'visits': [], 'verdict': {'return': float(steps)}, 'ok': None}


class Page(cartpole.Page):
    """the cart; nothing is asked, a click pushes"""

    bd_names = ()


def reach(low, high, act, kwargs):
    """
    Where a step leads from anywhere between low and high (n, 4) by act (n,) -> low, high (n, 4). Positions are
    linear in the box, velocities nearly, but for the angular velocity's square: the corners, and those of no
    angular velocity, bound them.
    """
    values = [(low[:, d], high[:, d]) for d in range(3)] + [(low[:, 3], high[:, 3], np.clip(0, low[:, 3], high[:, 3]))]
    corners = np.array([np.stack(corner, 1) for corner in product(*values)])  # (24, n, 4)
    then = advance(corners, act)
    return then.min(0), then.max(0)


def advance(state, act):
    """state (.., n, 4), act (n,) -> the state a step later: the equations of Gymnasium's CartPole-v1"""
    x, v, theta, w = np.moveaxis(state, -1, 0)
    force = np.where(act == 1, FORCE, -FORCE)
    moment = POLE_MASS * HALF_LENGTH
    push = (force + moment * w**2 * np.sin(theta)) / MASS
    inertia = HALF_LENGTH * (4 / 3 - POLE_MASS * np.cos(theta) ** 2 / MASS)
    turn = (GRAVITY * np.sin(theta) - np.cos(theta) * push) / inertia
    slide = push - moment * turn * np.cos(theta) / MASS
    return np.stack([x + DT * v, v + DT * slide, theta + DT * w, w + DT * turn], -1)


def can_end(low, high):
    """is the episode over somewhere between low and high (n, 4)? -> (n,) bool"""
    return (np.maximum(-low, high)[:, [0, 2]] >= LIMITS - 1e-6).any(1)
