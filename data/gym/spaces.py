"""
Spaces of Gymnasium as vectors of numbers, one way for files and environments: labels are one number, a Dict is its
parts by sorted names, or those of --obs_keys in their order; several labels at once (MultiDiscrete, MultiBinary) are
a number each, which is rounded when it is acted with.
"""

import gymnasium as gym
import numpy as np


def parts(space, keys):
    """-> list of (path, space): the whole, or what keys, 'a,b/c', name of a Dict"""
    if not keys:
        return [((), space)]
    found = []
    for key in keys.split(','):
        part, path = space, tuple(key.strip().split('/'))
        for name in path:
            if not isinstance(part, gym.spaces.Dict) or name not in part.spaces:
                there = ', '.join(part) if isinstance(part, gym.spaces.Dict) else part
                raise ValueError(f'the environment has no observation {key!r}. There is: {there}. Set --obs_keys')
            part = part[name]
        found.append((path, part))
    return found


def size_of(space, keys=''):
    """numbers of an observation; ValueError where it is of no kind that is read"""
    if keys:
        return sum(size_of(part) for _, part in parts(space, keys))
    if isinstance(space, gym.spaces.Dict):
        return sum(size_of(space[key]) for key in space)
    if isinstance(space, gym.spaces.Text):
        return 0
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return int(np.prod(space.shape))
    if isinstance(space, gym.spaces.Discrete):
        return 1
    raise ValueError(f'observations of {space} are not read. Wrap the environment: --env=my.module:make')


def flat(space, obs, keys=''):
    """an observation -> (n_obs,) float32"""
    if keys:
        return np.concatenate([flat(part, at(obs, path)) for path, part in parts(space, keys)])
    if isinstance(space, gym.spaces.Dict):
        return np.concatenate([flat(space[key], obs[key]) for key in sorted(space)])
    if isinstance(space, gym.spaces.Text):
        return np.zeros(0, np.float32)
    return np.asarray(obs, np.float32).reshape(-1)


def at(obs, path):
    """what is at a path of nested dicts"""
    for name in path:
        obs = obs[name]
    return obs


class Rounded(gym.ActionWrapper):
    """Several labels at once, (n_act,), taken as numbers: the nearest label of each."""

    def __init__(self, env):
        super().__init__(env)
        low, high = label_bounds(env.action_space)
        self.labels = env.action_space
        self.action_space = gym.spaces.Box(low, high, dtype=np.float32)

    def action(self, action):
        nearest = np.rint(np.clip(action, self.action_space.low, self.action_space.high))
        return nearest.astype(self.labels.dtype).reshape(self.labels.shape)


def is_labels(space):
    """several labels at once?"""
    return isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary)


def label_bounds(space):
    """the least and the greatest label of each -> two arrays (n_act,) float32"""
    if isinstance(space, gym.spaces.MultiBinary):
        n = int(np.prod(space.shape))
        return np.zeros(n, np.float32), np.ones(n, np.float32)
    low = np.asarray(space.start, np.float32).reshape(-1)
    return low, low + np.asarray(space.nvec, np.float32).reshape(-1) - 1
