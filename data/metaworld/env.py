"""
Tasks of Meta-World (Yu et al., CoRL 2019, arXiv 1910.10897) in its own MuJoCo: a robot's hand, things, a goal.

MuJoCo's models are heavy (35 MB, 0.2 s to make): a process has one environment a task, in which episodes take turns.
"""

import copy
from functools import cache

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from data.vector_env import SingleEnv, VectorEnvBase

OBSERVATIONS = Box(-np.inf, np.inf, (39,), np.float32)
ACTIONS = Box(-1, 1, (4,), np.float32)
MOST_STEPS = 500  # of an episode: Meta-World's
NOT_INSTALLED = "data/metaworld takes metaworld. Install it: pip install '.[metaworld]'"


@cache
def packages():
    """-> the modules metaworld and mujoco; ValueError where they are not installed"""
    try:
        import metaworld.policies
        import mujoco
    except ModuleNotFoundError:
        raise ValueError(NOT_INSTALLED) from None
    return metaworld, mujoco


def env_kwargs(benchmark='MT10', tasks='', max_steps=MOST_STEPS):
    """
    benchmark: 'MT10', 'MT25' or 'MT50', Meta-World's lists of tasks; tasks: others, 'reach-v3,push-v3', instead;
    max_steps: of an episode
    """
    known = packages()[0].env_dict
    lists = {'MT10': known.MT10_V3, 'MT25': known.MT25_V3, 'MT50': known.MT50_V3}
    if benchmark not in lists:
        raise ValueError(f'Meta-World has no benchmark {benchmark!r}. Set {" or ".join(lists)}, or name tasks')
    names = tasks.split(',') if tasks else list(lists[benchmark])
    for name in names:
        if name not in known.MT50_V3:
            raise ValueError(f'Meta-World has no task {name!r}. There are: {", ".join(known.MT50_V3)}')
    if not 1 <= max_steps <= MOST_STEPS:
        raise ValueError(f'max_steps={max_steps}, but episodes of Meta-World have 1 to {MOST_STEPS} steps')
    return {'tasks': ','.join(names), 'max_steps': max_steps}


def task_of(seed, tasks):
    """-> the task of an environment's seed, one of tasks, and the seed of its goal"""
    goal, number = divmod(int(seed), len(tasks))
    return tasks[number], goal


class Scene:
    """Meta-World's environment of a task, its goal in view, that can be put into any episode."""

    def __init__(self, task):
        metaworld, self.mujoco = packages()
        self.env = metaworld.env_dict.ENV_CLS_MAP[task]()
        self.env._set_task_called = True
        self.env._partially_observable = False  # the goal is in view, as in MT10 and MT50
        del self.env.sawyer_observation_space  # made for a hidden goal: step() would clip the goal to it
        self.env._freeze_rand_vec = False  # goals are drawn ..
        self.env.seeded_rand_vec = True  # .. by the environment's seed
        self.model, self.data = self.env.model, self.env.data
        self.state = self.mujoco.mjtState.mjSTATE_INTEGRATION  # all that a step depends on, but for the model
        self.new = self.copied(vars(self.env)), self.places()

    def begin(self, seed):
        """-> the first observation (39,) of the episode with this goal, and the episode, to be given to step()"""
        attributes, places = self.new
        self.put(self.copied(attributes), places)
        self.mujoco.mj_resetData(self.model, self.data)
        self.env.seed(seed)
        obs, _ = self.env.reset()
        return obs, self.episode()

    def step(self, episode, act):
        """goes on with an episode -> observation (39,), reward, was it a success? and the episode"""
        attributes, places, state = episode
        self.put(attributes, places)
        self.mujoco.mj_setState(self.model, self.data, state, self.state)
        obs, reward, _, _, info = self.env.step(act)
        return obs, reward, info['success'] > 0, self.episode()

    def episode(self):
        """what an episode goes on from: attributes of its environment, where its things are, MuJoCo's state"""
        state = np.empty(self.mujoco.mj_stateSize(self.model, self.state))
        self.mujoco.mj_getState(self.model, self.data, state, self.state)
        return dict(vars(self.env)), self.places(), state

    def put(self, attributes, places):
        vars(self.env).clear()
        vars(self.env).update(attributes)
        self.model.body_pos[:], self.model.site_pos[:] = places

    def places(self):
        """where a task has put its things and marks, which are parts of the model"""
        return self.model.body_pos.copy(), self.model.site_pos.copy()

    def copied(self, attributes):
        """a copy to be changed, with the same model and data"""
        return copy.deepcopy(attributes, {id(part): part for part in (self.model, self.data)})


scene_of = cache(Scene)


class MetaWorldVec(VectorEnvBase):
    """
    n episodes, that of seed s of task number s % n_tasks, with the goal of seed s // n_tasks. A success ends it; what
    is over stays as it is until it is reset. info has 'success' (n,) bool. Rewards are Meta-World's.
    """

    metadata = {'render_modes': [], 'autoreset_mode': AutoresetMode.DISABLED}

    def __init__(self, num_envs, tasks, max_steps):
        """tasks: 'reach-v3,push-v3'"""
        super().__init__(num_envs, OBSERVATIONS, ACTIONS, max_steps)
        self.tasks = tasks.split(',')
        self.scenes = [None] * num_envs  # of each row's task
        self.episodes = [None] * num_envs
        self.obs = np.zeros((num_envs, 39), np.float32)
        self.success = np.zeros(num_envs, bool)

    def begin(self, rows):
        self.obs = self.obs.copy()
        for row in rows:
            seed, begun = self.seeds[row], self.generators[row] is not None
            generator = self.generator(row)
            if seed is None or begun:  # no seed was given, or an earlier episode had it
                seed = generator.integers(2**31)
            task, goal = task_of(seed, self.tasks)
            self.scenes[row] = scene_of(task)
            self.obs[row], self.episodes[row] = self.scenes[row].begin(goal)
            self.success[row] = False

    def step(self, actions):
        act = self.checked(actions)
        self.obs, reward = self.obs.copy(), np.zeros(self.num_envs)
        going = np.flatnonzero(~self.done)
        for row in going:
            after = self.scenes[row].step(self.episodes[row], act[row])
            self.obs[row], reward[row], self.success[row], self.episodes[row] = after
        self.t[going] += 1
        truncated = self.t >= self.max_steps
        self.done = self.success | truncated
        return self.obs, reward, self.success.copy(), truncated, self.info()

    def observe(self):
        return self.obs

    def where(self):
        return np.zeros((self.num_envs, 0), np.float32)

    def info(self):
        return {**super().info(), 'success': self.success.copy()}


class MetaWorld(SingleEnv):
    """one of them"""

    vector_env = MetaWorldVec
    observation_space = OBSERVATIONS
    action_space = ACTIONS
