"""
n robots in lockstep in numpy, as a gymnasium.vector.VectorEnv: what is alike in every data set's own.

Autoreset is Gymnasium's NEXT_STEP: the step after an episode's end ignores its action and resets.
"""

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class VectorEnvBase(VectorEnv):
    """
    A subclass says what happens: `begin(rows)` puts those at the start of an episode, drawing from self.generator(row); `move(act)`
    takes a step with all -> reward (n,), terminated (n,); `observe()` -> (n, n_obs) float32, never changed afterwards; `where()` -> (n, n_bd).
    """

    metadata = {'render_modes': [], 'autoreset_mode': AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs, observation_space, action_space, max_steps):
        self.num_envs, self.max_steps = num_envs, max_steps
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space, self.action_space = (
            batch_space(observation_space, num_envs),
            batch_space(action_space, num_envs),
        )
        self.seeds, self.generators, self.t, self.done = (
            [None] * num_envs,
            [None] * num_envs,
            None,
            np.zeros(num_envs, bool),
        )

    def generator(self, row):
        """made when it is first asked for: many never are, and making one takes longer than a step"""
        if self.generators[row] is None:
            self.generators[row] = seeding.np_random(self.seeds[row])[0]
        return self.generators[row]

    def reset(self, *, seed=None, options=None):
        """
        seed: an int (robot i gets seed + i, as in Gymnasium) or one a robot. options={'reset_mask': (n,) bool}, as in
        Gymnasium's SyncVectorEnv: only those begin anew; the others' observations are what they were.
        """
        n, mask = self.num_envs, (options or {}).get('reset_mask')
        rows = np.arange(n) if mask is None or self.t is None else np.flatnonzero(mask)
        self.t = np.zeros(n, int) if self.t is None else self.t
        if seed is not None:
            seeds = [seed + i for i in range(n)] if isinstance(seed, (int, np.integer)) else seed
            for i in rows:
                if seeds[i] is not None:
                    self.seeds[i], self.generators[i] = int(seeds[i]), None
        self.restart(rows)
        return self.observe(), self.info()

    def restart(self, rows):
        self.t[rows], self.done[rows] = 0, False
        self.begin(rows)

    def step(self, actions):
        if self.t is None:
            raise ResetNeeded('call reset() before step()')
        act = np.asarray(actions, dtype=np.float32).reshape(self.num_envs, *self.single_action_space.shape)
        if not np.isfinite(act).all():
            raise ValueError(f'the action of robot {int(np.argwhere(~np.isfinite(act))[0, 0])} is not finite')
        again = np.flatnonzero(self.done)
        reward, terminated = self.move(act)
        self.t += 1
        if len(again):
            self.restart(again)
            reward[again], terminated[again] = 0, False
        truncated = self.t >= self.max_steps
        self.done = terminated | truncated
        return self.observe(), reward, terminated, truncated, self.info()

    def info(self):
        return {'bd': self.where(), '_bd': np.ones(self.num_envs, bool)}
