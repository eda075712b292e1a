"""
Levels of BabyAI (Chevalier-Boisvert et al., ICLR 2019, arXiv 1810.08272) as minigrid makes them: one, and many at once.

Levels, missions, steps and success are minigrid's own; of many at once only the views are computed here (views.py).
"""

import io
import os
from contextlib import redirect_stdout

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete

from data.babyai.views import KINDS, SIZE, Views
from data.vector_env import SingleEnv, VectorEnvBase

ACTIONS = ['left', 'right', 'forward', 'pickup', 'drop', 'toggle', 'done']
PICKUP, TOGGLE = 3, 5  # and what is between: actions that change the cell before the agent
OBS_KINDS = [KINDS] * SIZE**2 + [4]  # the cells, and the direction
OBSERVATIONS = Box(np.zeros(len(OBS_KINDS), np.uint8), np.array(OBS_KINDS, np.uint8) - 1, dtype=np.uint8)
MOST_ROOMS = 8  # that a mission can ask to go to: two clauses of two, each to put one thing next to another
NOT_MADE = "data/babyai takes minigrid. Install it: pip install '.[babyai]'"


def make_level(name):
    """'GoToLocal' -> minigrid's environment, which draws nothing and prints nothing; ValueError where there is none"""
    os.environ.setdefault('SDL_VIDEODRIVER', 'dummy')
    os.environ.setdefault('PYGAME_HIDE_SUPPORT_PROMPT', '1')
    try:
        import minigrid  # noqa: F401, it registers the levels
    except ModuleNotFoundError:
        raise ValueError(NOT_MADE) from None
    known = {key.split('-')[1]: key for key in gym.registry if key.startswith('BabyAI-')}
    if name not in known:
        raise ValueError(f'BabyAI has no level {name!r}. There are: {", ".join(known)}')
    return gym.make(known[name], disable_env_checker=True).unwrapped


def env_kwargs(level='GoToLocal', max_steps=0, held_out=()):
    """
    level: one, or several, 'GoToLocal,PickupLoc': that of seed s is number s % n, of minigrid's seed s // n; max_steps:
    of an episode, where the level allows more; 0: as many as it allows; held_out: things such as 'green key' that no
    training mission names
    """
    levels = [make_level(name) for name in level.split(',')]
    longest = max(env.room_size**2 * env.num_rows * env.num_cols * MOST_ROOMS for env in levels)
    most = min(int(max_steps) or longest, longest)
    return {'level': level, 'max_steps': most, 'held_out': list(held_out)}


def nothing():
    """in place of minigrid's own view, which takes most of the time of a step"""


class BabyAIVec(VectorEnvBase):
    """
    n levels. Observations are ids: the kind of each of the 49 cells that the agent sees, and the direction it looks in.
    info has 'success' (n,) bool: is the mission carried out? And 'mission' (n,), sentences. Rewards are minigrid's.
    """

    def __init__(self, num_envs, level='GoToLocal', max_steps=0, held_out=()):
        kwargs = env_kwargs(level, max_steps, held_out)
        super().__init__(num_envs, OBSERVATIONS, Discrete(len(ACTIONS)), np.full(num_envs, kwargs['max_steps']))
        self.most_steps = kwargs['max_steps']
        self.names = level.split(',')
        sizes = [(env.height, env.width) for env in map(make_level, self.names)]
        self.views = Views(num_envs, *np.max(sizes, 0))
        self.made = [{} for _ in range(num_envs)]  # levels of each row, made when they are needed
        self.levels = [None] * num_envs  # in which each row is
        self.missions = np.full(num_envs, '', object)
        self.success = np.zeros(num_envs, bool)

    def begin(self, rows):
        for row in rows:
            seed, index = None, row % len(self.names)
            if self.seeds[row] is not None:
                seed, index = divmod(self.seeds[row], len(self.names))
            if self.generators[row] is not None:  # this seed has begun an episode: the next one goes on from there
                seed = None
            env = self.levels[row] = self.level(row, self.names[index])
            with redirect_stdout(io.StringIO()):  # it says which levels it rejects
                env.reset(seed=seed)
            self.generators[row] = env.np_random
            self.missions[row] = env.mission
            self.max_steps[row] = min(env.max_steps, self.most_steps)
            self.success[row] = False
            self.views.begin(row, env)

    def level(self, row, name):
        """minigrid's environment of this name for a row"""
        if name not in self.made[row]:
            self.made[row][name] = make_level(name)
            self.made[row][name].gen_obs = nothing
        return self.made[row][name]

    def move(self, act):
        reward, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        for row in np.flatnonzero(~self.done):
            env, action = self.levels[row], int(act[row])
            _, reward[row], terminated[row], _, _ = env.step(action)
            self.views.move(row, env)
            if PICKUP <= action <= TOGGLE:
                self.views.change(row, env)
        self.success = terminated & (reward > 0)  # a mission that has become impossible terminates, too
        return reward, terminated

    def observe(self):
        return np.concatenate([self.views.see(), self.views.direction[:, None].astype(np.uint8)], 1)

    def where(self):
        return np.zeros((self.num_envs, 0), np.float32)

    def info(self):
        return {**super().info(), 'success': self.success.copy(), 'mission': self.missions.copy()}


class BabyAI(SingleEnv):
    """one of them"""

    vector_env = BabyAIVec
    observation_space = OBSERVATIONS
    action_space = Discrete(len(ACTIONS))
