"""
What bd is, where a data set is made of a file, --bd: 'return', where there are rewards; 'obs:0,1', columns of the last
observation, by number or by name; 'info:KEY', what the environment tells under this key in the last step; 'none'. Files
and environments are asked the same.

A class has `names` of its numbers; `of_episode(episode)`, bd and path of one of a file; `spec(imports)`, its part of
a spec, of all of them; `begin(obs, info)` and `step(obs, reward, info)`, what it is in an environment so far.
"""

import numpy as np

from data.importers.archives import returns


def descriptor(bd, spec):
    """--bd -> its object; ValueError. spec: the data set's, as far as it is known"""
    kind, _, what = bd.partition(':')
    if bd == 'return':
        return Return()
    if bd == 'none':
        return Nothing()
    if kind == 'obs' and what:
        return OfObs(what, spec['obs_names'])
    if kind == 'info' and what:
        return OfInfo(what, spec.get('bd_names', ()))
    raise ValueError(f"bd={bd!r} is not known. Set it to 'return', 'obs:0,1', 'info:KEY' or 'none'")


class Nothing:
    """Nothing to reach for: imitation, or words."""

    names = ()

    def of_episode(self, episode):
        T = len(episode['act'])
        return {'bd': np.zeros(0, np.float32), 'path': np.zeros((T + 1, 0), np.float32)}

    def spec(self, imports):
        return {'bd_names': [], 'bd_low': [], 'bd_high': []}

    def begin(self, obs, info):
        return np.zeros(0, np.float32)

    def step(self, obs, reward, info):
        return np.zeros(0, np.float32)


class Return:
    """The return, not discounted."""

    names = ('return',)

    def of_episode(self, episode):
        return returns(episode['reward'], 1.0)

    def spec(self, imports):
        for found in imports:
            if not (found.fields.reward or found.fields.to_go):
                raise ValueError(f'{found.source.file} has no rewards, of which --bd=return is made. Set another --bd')
        low = min(found.returns[0] for found in imports)
        high = max(found.returns[1] for found in imports)
        return {'bd_names': ['return'], 'bd_low': [low], 'bd_high': [high], 'discount': 1.0}

    def begin(self, obs, info):
        self.so_far = 0.0
        return np.float32([0])

    def step(self, obs, reward, info):
        self.so_far += float(reward)
        return np.float32([self.so_far])


class Measured:
    """Numbers that are there at every step; bd is where they end."""

    def spec(self, imports):
        ends = [self.of_episode(episode)['bd'] for found in imports for episode in found.episodes()]
        low, high = np.min(ends, 0), np.max(ends, 0)
        if not np.isfinite([low, high]).all():
            raise ValueError(f'{", ".join(self.names)} is not finite at the end of an episode. Set another --bd')
        if (low == high).all():
            raise ValueError(f'{", ".join(self.names)} is the same at the end of every episode. Set another --bd')
        return {'bd_names': list(self.names), 'bd_low': low.tolist(), 'bd_high': high.tolist()}


class OfObs(Measured):
    """
    Columns of the last observation. Of a file it is the one that the last action was chosen by: what came of that
    action is not in every file.
    """

    def __init__(self, what, obs_names):
        self.columns = [column_of(name.strip(), obs_names) for name in what.split(',')]
        self.names = [obs_names[k] for k in self.columns]

    def of_episode(self, episode):
        path = np.asarray(episode['obs'], np.float32)[:, self.columns]
        return {'bd': path[-1], 'path': np.concatenate([path, path[-1:]])}

    def begin(self, obs, info):
        return obs[self.columns]

    def step(self, obs, reward, info):
        return obs[self.columns]


def column_of(name, obs_names):
    """a number or a name -> the number"""
    if name in obs_names:
        return obs_names.index(name)
    if not name.isdigit() or int(name) >= len(obs_names):
        known = ', '.join(obs_names[:20])
        raise ValueError(f'bd=obs:{name}: no such observation. Give numbers below {len(obs_names)}, or names: {known}')
    return int(name)


class OfInfo(Measured):
    """
    What the environment tells under a key at every step. A file has it in a column infos/KEY, info/KEY or KEY, a row
    for each action, or one more before them, of the start. Where the start has none, it is that of the first step in a
    file, and nan in an environment.
    """

    def __init__(self, key, names):
        self.key = key
        self.names = names

    def of_episode(self, episode):
        told = episode['info'] if 'info' in episode else episode['path']  # the latter: prepared, to be exported
        path = np.asarray(told, np.float32)
        if len(path) == len(episode['act']):
            path = np.concatenate([path[:1], path])
        return {'bd': path[-1], 'path': path}

    def spec(self, imports):
        for found in imports:
            episode = next(iter(found.episodes()))
            n = episode['info'].shape[1]
            names = [self.key] if n == 1 else [f'{self.key}_{k}' for k in range(n)]
            if self.names and self.names != names:
                raise ValueError(f'{found.source.file}: {self.key} has {n} numbers, others {len(self.names)}')
            self.names = names
        return {'info': self.key, **super().spec(imports)}

    def begin(self, obs, info):
        if self.key not in info:
            return np.full(len(self.names), np.nan, np.float32)
        return np.asarray(info[self.key], np.float32).reshape(-1)

    def step(self, obs, reward, info):
        if self.key not in info:
            there = ', '.join(info) or 'nothing'
            raise ValueError(f'the environment tells no {self.key!r} in the info of a step, but {there}. Set --bd')
        return np.asarray(info[self.key], np.float32).reshape(-1)
