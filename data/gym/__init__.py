"""
A data set made of a file, with an environment of Gymnasium or with none: no code for the common case.

$ python prepare.py --dataset=gym --env=Hopper-v5 --archive=hopper.hdf5
$ python prepare.py --dataset=gym --archive=my_robot/             # nothing to replay or to drive in: a real robot

Its spec comes from the environment's spaces where there is one, and from the file. bd is the return where the file has
rewards, and else nothing; texts are the file's own. An environment of one's own, --env=my.module:make, is code: it runs
only where a command names it, never because a checkpoint does.
"""

import importlib
import re

import gymnasium as gym
import numpy as np

from data.importers.archives import Options, opened_sources, returns
from data.importers.trajectories import Import

ID = re.compile(r'[\w./-]+')  # of a registered environment; with a colon, a module is imported
LABELS = 100  # whole numbers up to here are discrete actions, where no environment says


class Named(str):
    """An environment that the user's command names: code of theirs may run. No file or checkpoint can hold one."""


def env_kwargs(env='', spec=None):
    """env: an id of Gymnasium, module:function, or ''; spec: what of_files() found"""
    if spec is None:
        raise ValueError(
            '--dataset=gym is made of a file. Name it: --archive=FILE, and its environment: --env=Hopper-v5'
        )
    return {'env': env, 'spec': spec}


def spec(kwargs):
    return kwargs['spec']


def sources(kwargs):
    return []


def collect(source, size, seed, kwargs):
    """nothing: its episodes are a file's"""
    return iter(())


def has_environment(kwargs):
    return bool(kwargs['env'])


# ------------------------------------------------------------------------------
# the spec


def of_files(names, env='', obs_keys='', clip_actions=False):
    """files of --archive -> the arguments that env_kwargs() keeps. env: as there, named by the user"""
    options = Options(obs_keys, clip_actions)
    found = []
    for path, source in opened_sources(names):
        if source is None:
            raise ValueError(f'{path} is an archive already. Pass its data set: --dataset')
        found.append(Import(source, 'the first file', {'flatten': True}, options).survey())
    env = Named(env)
    made = merged(found)
    if env:
        made |= of_spaces(env, made)
    return {'env': env, 'spec': made}


def merged(found):
    """surveys of files -> a spec"""
    widths = {survey.widths for survey in found}
    if len(widths) > 1:
        raise ValueError(f'the files of --archive differ in observations and actions a step: {sorted(widths)}')
    n_obs, n_act = widths.pop()
    low = np.min([survey.low for survey in found], 0).astype(float)
    high = np.max([survey.high for survey in found], 0).astype(float)
    discrete = n_act == 1 and all(s.integral for s in found) and low[0] >= 0 and high[0] < LABELS
    made = {
        'obs_names': names_of(found[0].fields.obs, n_obs, 'obs'),
        'act_names': names_of(found[0].fields.act, n_act, 'act'),
        'act_low': low.tolist(),
        'act_high': high.tolist(),
        'continuous': not discrete,
        'max_steps': max(max(survey.lengths) for survey in found),
    }
    if discrete:
        made |= {'act_names': [str(k) for k in range(int(high[0]) + 1)], 'act_low': [0], 'act_high': [int(high[0])]}
    return made | bd_of(found)


def bd_of(found):
    """the return where there are rewards, and else nothing"""
    if not all(survey.fields.reward or survey.fields.to_go for survey in found):
        return {'bd_names': [], 'bd_low': [], 'bd_high': []}
    low = min(survey.returns[0] for survey in found)
    high = max(survey.returns[1] for survey in found)
    return {'bd_names': ['return'], 'bd_low': [low], 'bd_high': [high], 'discount': 1.0}


def names_of(columns, n, what):
    """the file's own names where each number has a column"""
    return list(columns) if len(columns) == n else [f'{what}_{k}' for k in range(n)]


def of_spaces(env, made):
    """what an environment's spaces say, beside what the file does: a dict to change the spec by; ValueError"""
    environment = raw_env(env)
    n = size_of(environment.observation_space)
    if n != len(made['obs_names']):
        raise ValueError(f'{env} has {n} observations, and the files {len(made["obs_names"])}. Name another --env')
    said = {'max_steps': made['max_steps']}
    if environment.spec and environment.spec.max_episode_steps:
        said['max_steps'] = max(made['max_steps'], environment.spec.max_episode_steps)
    space = environment.action_space
    environment.close()
    if isinstance(space, gym.spaces.Discrete):
        if space.start or made['continuous'] or made['act_high'][0] >= space.n:
            raise ValueError(
                f'{env} has {space}, and the actions of the files go from {made["act_low"][0]:g} to '
                f'{made["act_high"][0]:g}{", with fractions" * made["continuous"]}. Name another --env'
            )
        return said | {'act_names': [str(k) for k in range(space.n)], 'act_low': [0], 'act_high': [int(space.n) - 1]}
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1 or space.shape[0] != len(made['act_low']):
        raise ValueError(
            f'{env} has actions {space}, and the files {len(made["act_low"])} numbers a step. Name another --env'
        )
    low = np.where(np.isfinite(space.low), space.low, made['act_low'])
    high = np.where(np.isfinite(space.high), space.high, made['act_high'])
    names = [f'act_{k}' for k in range(len(low))]
    return said | {'continuous': True, 'act_names': names, 'act_low': low.tolist(), 'act_high': high.tolist()}


# ------------------------------------------------------------------------------
# the environment


def in_environment(env, kwargs):
    """env_kwargs, with an environment that the user's command names; ValueError where its spaces do not fit"""
    env = Named(env)
    of_spaces(env, kwargs['spec'])
    return {**kwargs, 'env': env}


def raw_env(env, render_mode=None):
    if not env:
        raise ValueError('this data set has no environment to act in. Name one: --env')
    if not ID.fullmatch(env) and not isinstance(env, Named):
        raise ValueError(f'the environment {env} is code. If you trust it, name it: --env={env}')
    module, colon, function = env.partition(':')
    try:
        if colon and not re.search(r'-v\d+$', function):
            return getattr(importlib.import_module(module), function)()
        return gym.make(env, render_mode=render_mode)
    except (ImportError, AttributeError, gym.error.Error) as e:
        why = str(e).strip().split('\n')[0]
        raise ValueError(f'no environment {env} ({why}). Install what it is of, or name another: --env') from None


def size_of(space):
    """numbers of an observation; a label is one, a Dict is its parts by sorted names"""
    if isinstance(space, gym.spaces.Dict):
        return sum(size_of(space[key]) for key in space)
    if isinstance(space, gym.spaces.Text):
        return 0
    if isinstance(space, gym.spaces.Box | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return int(np.prod(space.shape))
    if isinstance(space, gym.spaces.Discrete):
        return 1
    raise ValueError(f'observations of {space} are not read. Wrap the environment: --env=my.module:make')


def flat(space, obs):
    """an observation -> (n_obs,) float32"""
    if isinstance(space, gym.spaces.Dict):
        return np.concatenate([flat(space[key], obs[key]) for key in sorted(space)])
    if isinstance(space, gym.spaces.Text):
        return np.zeros(0, np.float32)
    return np.asarray(obs, np.float32).reshape(-1)


class Flat(gym.Wrapper):
    """Observations as one vector; info['bd'], the return so far, or nothing."""

    def __init__(self, env, n_bd):
        super().__init__(env)
        self.n_bd = n_bd
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size_of(env.observation_space),), np.float32)

    def seen(self, obs, info):
        return flat(self.env.observation_space, obs), {**info, 'bd': np.float32([self.so_far] * self.n_bd)}

    def reset(self, **how):
        self.so_far = 0.0
        return self.seen(*self.env.reset(**how))

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.so_far += float(reward)
        obs, info = self.seen(obs, info)
        return obs, reward, terminated, truncated, info


def make_env(render_mode=None, env='', spec=None):
    limited = gym.wrappers.TimeLimit(raw_env(env, render_mode), spec['max_steps'])
    return Flat(limited, len(spec['bd_names']))


def make_vec(n, env='', spec=None):
    return gym.vector.SyncVectorEnv([lambda: make_env(env=env, spec=spec)] * n)


# ------------------------------------------------------------------------------
# episodes


def describe(episode, rng, kwargs, n):
    """the file's own texts"""
    return {'text': list(episode.get('text') or [])}


def from_trajectory(episode, kwargs):
    if kwargs['spec']['bd_names']:
        return returns(episode['reward'], kwargs['spec']['discount'])
    T = len(episode['act'])
    return {'bd': np.zeros(0, np.float32), 'path': np.zeros((T + 1, 0), np.float32)}


def report(prompt, bd, path, kwargs):
    """the return that was asked for, and the one achieved"""
    if not len(path[-1]):
        return {'summary': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}
    achieved = float(path[-1, 0])
    summary = f'return {achieved:.4g}' + (f', asked for {bd[0]:g}' if bd is not None else '')
    return {'summary': summary, 'visits': [], 'verdict': {'return': achieved}, 'ok': None}


def config_file(kwargs):
    """the settings to train it with"""
    return 'config/gym.py' if kwargs['spec']['continuous'] else 'config/gym_discrete.py'
