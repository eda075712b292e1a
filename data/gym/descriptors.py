"""
What bd is, where a data set is made of a file, --bd: 'return', where there are rewards; 'obs:0,1', columns of the last
observation, by number or by name; 'none'. Files and environments are asked the same.

A class has `names` of its numbers; `of_episode(episode)`, bd and path of one of a file; `spec(imports)`, its part of
a spec, of all of them; `begin(obs, info)` and `step(obs, reward, info)`, what it is in an environment so far.
"""

import numpy as np

from data.importers.archives import returns


def descriptor(bd, obs_names):
    """--bd -> its object; ValueError. obs_names: of the data set"""
    kind, _, what = bd.partition(':')
    if bd == 'return':
        return Return()
    if bd == 'none':
        return Nothing()
    if kind == 'obs' and what:
        return OfObs(what, obs_names)
    raise ValueError(f"bd={bd!r} is not known. Set it to 'return', 'obs:0,1' or 'none'")


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
