"""
The base of the data sets' vector environments: seeds, resets and ends of episodes of n environments stepped in numpy.

Autoreset is Gymnasium's NEXT_STEP: the step after an episode's end ignores its action and resets.
"""

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class VectorEnvBase(VectorEnv):
    """
    A subclass implements
        begin(rows)   starts an episode in those environments, with random numbers from self.generator(row)
        move(act)     steps all of them -> reward (n,), terminated (n,)
        observe()     -> observations (n, n_obs) float32, an array that is never changed afterwards
        where()       -> behaviour descriptors (n, n_bd)
    """

    metadata = {'render_modes': [], 'autoreset_mode': AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs, observation_space, action_space, max_steps):
        self.num_envs = num_envs
        self.max_steps = max_steps
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.seeds = [None] * num_envs
        self.generators = [None] * num_envs
        self.t = None  # (n,) steps of each episode so far; None before the first reset
        self.done = np.zeros(num_envs, bool)  # did the last step end the episode?

    def generator(self, row):
        """the random numbers of a row; made at the first call, since making one takes longer than a step"""
        if self.generators[row] is None:
            self.generators[row] = seeding.np_random(self.seeds[row])[0]
        return self.generators[row]

    def reset(self, *, seed=None, options=None):
        """
        seed: an int (row i gets seed + i, as in Gymnasium) or one for each row.
        options={'reset_mask': (n,) bool}, as in Gymnasium's SyncVectorEnv: only those rows are reset; the others'
        observations stay what they are.
        """
        mask = (options or {}).get('reset_mask')
        rows = np.arange(self.num_envs)
        if self.t is None:
            self.t = np.zeros(self.num_envs, int)
        elif mask is not None:
            rows = np.flatnonzero(mask)
        if isinstance(seed, (int, np.integer)):
            seed = [seed + i for i in range(self.num_envs)]
        if seed is not None:
            for i in rows:
                if seed[i] is not None:
                    self.seeds[i] = int(seed[i])
                    self.generators[i] = None
        self.restart(rows)
        return self.observe(), self.info()

    def restart(self, rows):
        self.t[rows] = 0
        self.done[rows] = False
        self.begin(rows)

    def checked(self, actions):
        """actions -> an array (n, ..) float32; refuses a step before the first reset, and what is not finite"""
        if self.t is None:
            raise ResetNeeded('call reset() before step()')
        act = np.asarray(actions, dtype=np.float32).reshape(self.num_envs, *self.single_action_space.shape)
        if not np.isfinite(act).all():
            raise ValueError(f'the action of robot {int(np.argwhere(~np.isfinite(act))[0, 0])} is not finite')
        return act

    def step(self, actions):
        act = self.checked(actions)
        rows = np.flatnonzero(self.done)
        reward, terminated = self.move(act)
        self.t += 1
        if len(rows):
            self.restart(rows)
            reward[rows] = 0
            terminated[rows] = False
        truncated = self.t >= self.max_steps
        self.done = terminated | truncated
        return self.observe(), reward, terminated, truncated, self.info()

    def info(self):
        return {'bd': self.where(), '_bd': np.ones(self.num_envs, bool)}


class SingleEnv(gym.Env):
    """one environment of a VectorEnvBase. A subclass says of which, and has the spaces"""

    metadata = {'render_modes': []}
    vector_env: type

    def __init__(self, render_mode=None, **kwargs):
        self.many = self.vector_env(1, **kwargs)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        obs, info = self.many.reset(seed=None if seed is None else [seed])
        return obs[0], self.first(info)

    def step(self, action):
        obs, reward, terminated, truncated, info = self.many.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), self.first(info)

    @staticmethod
    def first(info):
        return {k: v[0] for k, v in info.items() if k != '_bd'}
