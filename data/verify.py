"""
Replay verification: an episode is kept if the environment, reset with its seed and stepped with its actions, gives the
same observations, the same path and the same end, bit for bit. An episode that is there twice is kept once.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from data.contract import environments, folder_of, part


def verify(data, episodes, kwargs, spec, replay=True):
    """
    -> for each episode None, or why it is dropped (str). Adds 'path' to episodes that have none.

    episodes: dicts of an archive, all with the same columns
    spec: the data set's, for these kwargs
    replay: False where an archive's metadata say that its episodes cannot be: then shapes and values alone are checked
    """
    reasons = [check_shapes(e) or check_values(e, spec) for e in episodes]
    valid = [i for i, reason in enumerate(reasons) if reason is None]
    if valid and replay:
        for i, reason in zip(valid, replay_all(data, [episodes[i] for i in valid], kwargs, spec)):
            reasons[i] = reason
    elif not replay:
        for i in valid:
            episodes[i].setdefault('path', end_alone(episodes[i]))
    return reasons


def end_alone(episode):
    """the path of an episode of which the end is known: nan, not known, before"""
    path = np.full((len(episode['act']) + 1, len(episode['bd'])), np.nan, np.float32)
    path[-1] = episode['bd']
    return path


def check_shapes(episode):
    """-> None, or what does not fit the number of its steps: 'shape' or 'parts'"""
    T = len(episode['act'])
    lengths = {'obs': T, 'path': T + 1, 'taught': T, 'subgoal': T}
    if T == 0 or any(len(episode[name]) != n for name, n in lengths.items() if name in episode):
        return 'shape'
    return None if are_parts(episode.get('parts'), T) else 'parts'


def are_parts(text, T):
    """does it say what some of T steps do? text: of an archive, None or '': nothing"""
    try:
        parts = json.loads(text or '[]')
        return all(
            (type(phrase), type(first), type(end)) == (str, int, int) and 0 <= first < end <= T
            for phrase, first, end in parts
        )
    except (ValueError, TypeError, RecursionError):
        return False


def check_values(episode, spec):
    """-> None, or what is wrong with its numbers"""
    if not all(np.isfinite(episode[name]).all() for name in ('obs', 'act', 'bd')):
        return 'not finite'
    act = episode['act']
    if (act < np.array(spec['act_low'])).any() or (act > np.array(spec['act_high'])).any():
        return 'action out of range'
    kinds = np.array(spec.get('obs_kinds') or 0)
    obs = episode['obs']
    if ((kinds > 0) & ((obs < 0) | (obs >= kinds) | (obs % 1 != 0))).any():
        return 'an id out of range'
    return None


# ------------------------------------------------------------------------------
# replay


@dataclass
class Recording:
    """n episodes side by side, for n environments that step together; zeros past an episode's end"""

    length: np.ndarray  # (n,) steps
    seeds: list
    obs: np.ndarray  # (T, n, n_obs)
    act: np.ndarray  # (T, n, n_act), of discrete actions (T, n) int64
    bd: np.ndarray  # (n, n_bd) at the end
    path: np.ndarray = None  # (T + 1, n, n_bd), where it was recorded
    policies: np.ndarray = None  # (n, P), where each episode is that of a stored policy

    @classmethod
    def of(cls, episodes, continuous):
        first = episodes[0]
        length = np.array([len(e['act']) for e in episodes])
        act = side_by_side(episodes, 'act', length)
        recording = cls(
            length=length,
            seeds=[e['seed'] for e in episodes],
            obs=side_by_side(episodes, 'obs', length),
            act=act if continuous else act[..., 0].astype(np.int64),
            bd=np.stack([e['bd'] for e in episodes]),
        )
        if 'path' in first:
            recording.path = side_by_side(episodes, 'path', length + 1)
        if len(first.get('policy', [])):
            recording.policies = np.stack([e['policy'] for e in episodes])
        return recording


def side_by_side(episodes, name, length):
    """-> (longest, n, width) with the first length[k] rows of episode k's array, then zeros"""
    first = episodes[0][name]
    rows = np.zeros((length.max(), len(episodes)) + first.shape[1:], first.dtype)
    for k, (e, n) in enumerate(zip(episodes, length)):
        rows[:n, k] = e[name]
    return rows


def replay_all(data, episodes, kwargs, spec):
    """step all episodes in the environment at once -> for each None or what differs first; adds missing paths"""
    recorded = Recording.of(episodes, spec['continuous'])
    n, length, T = len(episodes), recorded.length, recorded.length.max()
    reasons = [None] * n

    def drop(rows, reason):
        for k in np.flatnonzero(rows):
            reasons[k] = reasons[k] or reason

    env = environments(data, n, kwargs)
    obs, info = env.reset(seed=recorded.seeds)
    path = np.empty((T + 1, n, len(spec['bd_names'])), np.float32)
    for t in range(T + 1):
        path[t] = descriptor(data, info)
        if recorded.path is not None:
            drop((path[t] != recorded.path[t]).any(-1) & (t <= length), 'goes elsewhere when replayed')
        if t == T:
            break
        going = t < length  # (n,)
        obs = obs.reshape(n, -1)  # labels have no axis of their own
        drop((obs != recorded.obs[t]).any(-1) & going, 'other observations when replayed')
        if recorded.policies is not None:
            act = part(data, 'controller')(recorded.policies, obs)
            differs = (act != recorded.act[t]).reshape(n, -1).any(-1)
            drop(differs & going, 'policy acts differently when replayed')
        obs, _, terminated, truncated, info = env.step(recorded.act[t])
        drop((terminated | truncated) & (t + 1 < length), 'is over before its end when replayed')
    drop((path[length, np.arange(n)] != recorded.bd).any(-1), 'ends elsewhere when replayed')
    if recorded.path is None:
        for k, e in enumerate(episodes):
            e['path'] = path[: length[k] + 1, k]
    return reasons


def descriptor(data, info):
    """info of an environment's reset or step -> bd (n, n_bd)"""
    if 'bd' not in info:
        raise ValueError(
            f"{folder_of(data)}: the environments of make_vec(n, **kwargs) give no info['bd'], "
            'the behaviour descriptor were this the end. Add it: see data/README.md'
        )
    return info['bd']


# ------------------------------------------------------------------------------
# duplicates


def digest(episode):
    """the SHA-256 of its actions and observations"""
    arrays = (np.ascontiguousarray(episode[name]) for name in ('act', 'obs'))
    return hashlib.sha256(b''.join(arrays)).digest()


class Duplicates:
    """Remembers episodes, to say of later ones that they are there already."""

    def __init__(self):
        self.digests = set()
        self.splits_of_end = {}

    def repeats(self, digest):
        """are the actions and observations with this digest those of an earlier episode?"""
        if digest in self.digests:
            return True
        self.digests.add(digest)
        return False

    def crosses(self, episode, splits):
        """does an earlier episode of other splits end exactly there?"""
        if not len(episode['bd']):
            return False
        return self.splits_of_end.setdefault(episode['bd'].tobytes(), splits) != splits
