"""
A data set made of a file, with an environment of Gymnasium or with none: no code for the common case.

$ python prepare.py --dataset=gym --env=Hopper-v5 --archive=hopper.hdf5
$ python prepare.py --dataset=gym --archive=my_robot/             # nothing to replay or to drive in: a real robot

Its spec comes from the environment's spaces where there is one, and from the file (spaces.py). bd is the return where
the file has rewards, and else nothing, unless --bd says what (descriptors.py); texts are the file's own. An environment
of one's own, --env=my.module:make, is code: it runs only where a command names it, never because a checkpoint does.
"""

import importlib
import json
import os
import re
import sys

import gymnasium as gym
import numpy as np

from data import page
from data.archive import Archive
from data.gym.descriptors import descriptor
from data.gym.files import is_dict, merged, parts_line, refuse_other_labels, surveys_of
from data.gym.spaces import Rounded, flat, is_labels, label_bounds, size_of
from data.importers.archives import Options, opened_sources

ID = re.compile(r'[\w./-]+')  # of a registered environment; with a colon, a module is imported
NAMES_CODE = re.compile(r'"[^"]*:[^"]*"')  # text with a colon, in JSON: module:what


class Named(str):
    """An environment that the user's command names: code of theirs may run. No file or checkpoint can hold one."""


def env_kwargs(env='', spec=None, obs_keys='', bd='', env_kwargs=None):
    """
    env: an id of Gymnasium, module:function, or ''; spec: what of_files() found; obs_keys: of a Dict of observations;
    bd: as of --bd, '': the return if the spec has one; env_kwargs: what the environment is made with, a dict
    """
    if spec is None:
        raise ValueError(
            '--dataset=gym is made of a file. Name it: --archive=FILE, and its environment: --env=Hopper-v5'
        )
    bd = bd or ('return' if spec['bd_names'] else 'none')
    kept = {'env': env, 'spec': spec, 'obs_keys': obs_keys, 'bd': bd}
    return kept | ({'env_kwargs': env_kwargs} if env_kwargs else {})


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


def of_files(names, env='', obs_keys='', clip_actions=False, bd='', made_with='{}'):
    """
    files of --archive -> the arguments that env_kwargs() keeps. env: as there, named by the user; bd: of --bd;
    made_with: of --env_kwargs, JSON
    """
    env, made_with = Named(env), read_json(made_with)
    opened = opened_sources(names)
    archives = [path for path, source in opened if source is None]
    if len(archives) == len(opened):
        return of_archives(archives, {'env': env, 'obs_keys': obs_keys, 'bd': bd, 'env_kwargs': made_with})
    if made_with and not env:
        raise ValueError(f'env_kwargs={json.dumps(made_with)}: of which environment? Name it: --env')
    if archives:
        raise ValueError(f'{archives[0]} is an archive already, and other files are not. Prepare them one by one')
    surveys = surveys_of([source for _, source in opened], bd, Options(obs_keys, clip_actions))
    made = merged(surveys)
    if not obs_keys and is_dict(surveys[0]):
        made['flatten'] = True
        print(parts_line(surveys[0]))
    if not bd:
        rewarded = all(survey.fields.reward or survey.fields.to_go for survey in surveys)
        bd = 'return' if rewarded else 'none'
    made |= descriptor(bd, made).spec(surveys)
    if env:
        made |= of_spaces(env, made, obs_keys, made_with, surveys)
    return env_kwargs(env, made, obs_keys, bd, made_with)


def read_json(text):
    """of --env_kwargs -> dict; ValueError where it is none"""
    try:
        arguments = json.loads(text)
    except ValueError as e:
        raise ValueError(f'env_kwargs={text!r}: {e}. It is JSON with arguments of --env: {{"g": 5}}') from None
    if not isinstance(arguments, dict):
        raise ValueError(f'env_kwargs={text!r} names no arguments. It is JSON with arguments of --env: {{"g": 5}}')
    return arguments


def of_archives(paths, given):
    """archives of this data set, as --export writes them -> what they keep. given: settings, '' where there is none"""
    kept = None
    for path in paths:
        meta = Archive(path).meta
        if meta['dataset'] != 'gym':
            raise ValueError(
                f'{path} is an archive of {meta["dataset"]}. Pass its data set: --dataset={meta["dataset"]}'
            )
        kept = env_kwargs(**meta['env_kwargs'])
        for name, value in given.items():
            before = kept.get(name, {})
            if value and value != before:
                raise ValueError(f'{path} was made with {name}={before!r}, not {value!r}. Leave out --{name}')
    return kept | {'env': given['env'] or kept['env']}  # code runs only where the command names it


def of_spaces(env, made, obs_keys='', made_with=None, surveys=()):
    """
    what an environment's spaces say, beside what the file does: a dict to change the spec by; ValueError. surveys:
    of the files, where they are there
    """
    environment = raw_env(env, None, made_with)
    n = size_of(environment.observation_space, obs_keys)
    if n != len(made['obs_names']):
        raise ValueError(f'{env} has {n} observations, and the files {len(made["obs_names"])}. Name another --env')
    said = {'max_steps': made['max_steps']}
    if environment.spec and environment.spec.max_episode_steps:
        said['max_steps'] = max(made['max_steps'], environment.spec.max_episode_steps)
    space = environment.action_space
    environment.close()
    if isinstance(space, gym.spaces.Discrete):
        refuse_other_labels(env, space, made, surveys)
        names = [str(k) for k in range(space.n)]
        return said | {'continuous': False, 'act_names': names, 'act_low': [0], 'act_high': [int(space.n) - 1]}
    if is_labels(space):
        low, high = label_bounds(space)
        space = gym.spaces.Box(low, high)
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1 or space.shape[0] != len(made['act_low']):
        raise ValueError(
            f'{env} has actions {environment.action_space}, and the files {len(made["act_low"])} numbers a step. '
            'Name another --env'
        )
    low = np.where(np.isfinite(space.low), space.low, made['act_low'])
    high = np.where(np.isfinite(space.high), space.high, made['act_high'])
    names = [f'act_{k}' for k in range(len(low))]
    return said | {'continuous': True, 'act_names': names, 'act_low': low.tolist(), 'act_high': high.tolist()}


# ------------------------------------------------------------------------------
# the environment


def in_environment(env, kwargs):
    """
    env_kwargs, with an environment that the user's command names; ValueError where its spaces do not fit. What the
    data's own is made with, another is not
    """
    env = Named(env)
    made_with = kwargs.get('env_kwargs') if env == kwargs['env'] else None
    of_spaces(env, kwargs['spec'], kwargs['obs_keys'], made_with)
    return {**env_kwargs(**{**kwargs, 'env_kwargs': made_with}), 'env': env}


def raw_env(env, render_mode=None, made_with=None):
    """made_with: its arguments, a dict"""
    if not env:
        raise ValueError('this data set has no environment to act in. Name one: --env')
    is_code = not ID.fullmatch(env) or NAMES_CODE.search(json.dumps(made_with))
    if is_code and not isinstance(env, Named):
        raise ValueError(f'the environment {env} is code. If you trust it, name it: --env={env}')
    module, colon, function = env.partition(':')
    arguments = dict(made_with or {})
    try:
        if colon and not re.search(r'-v\d+$', function):
            made = getattr(importlib.import_module(module), function)(**arguments)
            if not isinstance(made, gym.Env):
                raise ValueError(f'{env} returns {type(made).__name__}, no gymnasium.Env. Return one')
            return made
        if render_mode:  # not all take one
            arguments['render_mode'] = render_mode
        return gym.make(env, **arguments)
    except TypeError as e:
        if not made_with:
            raise
        why = str(e).strip().split('\n')[0]
        raise ValueError(f'{env} cannot be made with env_kwargs={json.dumps(made_with)} ({why}). Change them') from None
    except (ImportError, AttributeError, gym.error.Error) as e:
        why = str(e).strip().split('\n')[0]
        raise ValueError(f'no environment {env} ({why}). Install what it is of, or name another: --env') from None


class Flat(gym.Wrapper):
    """Observations as one vector; info['bd'], what the descriptor is so far."""

    def __init__(self, env, obs_keys, bd):
        """bd: an object of descriptors.py"""
        super().__init__(env)
        self.keys = obs_keys
        self.bd = bd
        self.observation_space = gym.spaces.Box(
            -np.inf, np.inf, (size_of(env.observation_space, obs_keys),), np.float32
        )

    def reset(self, **how):
        obs, info = self.env.reset(**how)
        obs = flat(self.env.observation_space, obs, self.keys)
        return obs, {**info, 'bd': self.bd.begin(obs, info)}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        obs = flat(self.env.observation_space, obs, self.keys)
        return obs, reward, terminated, truncated, {**info, 'bd': self.bd.step(obs, reward, info)}


def make_env(render_mode=None, **kwargs):
    kwargs = env_kwargs(**kwargs)
    env = gym.wrappers.TimeLimit(
        raw_env(kwargs['env'], render_mode, kwargs.get('env_kwargs')), kwargs['spec']['max_steps']
    )
    if is_labels(env.action_space):
        env = Rounded(env)
    return Flat(env, kwargs['obs_keys'], bd_of(kwargs))


def make_vec(n, **kwargs):
    return gym.vector.SyncVectorEnv([lambda: make_env(**kwargs)] * n)


def bd_of(kwargs):
    """what bd is, as an object"""
    kwargs = env_kwargs(**kwargs)
    return descriptor(kwargs['bd'], kwargs['spec'])


# ------------------------------------------------------------------------------
# what it shows on the page of sample_policy.py --serve


class Drawn(page.Frames):
    """the environment's own picture"""

    def environment(self, make):
        return gym.vector.SyncVectorEnv([lambda: that_draws(self.kwargs)])


def Page(kwargs):
    """.. None where it draws none: its observations are shown then"""
    frame = first_frame(kwargs)
    return None if frame is None else Drawn(kwargs, frame, kwargs['spec']['bd_names'])


def that_draws(kwargs):
    """its environment, which draws where it can"""
    modes = raw_env(kwargs['env'], None, kwargs.get('env_kwargs')).metadata.get('render_modes', ())
    return make_env('rgb_array' if 'rgb_array' in modes else None, **kwargs)


def first_frame(kwargs):
    """a picture (h, w, 3) uint8, None where there is none; why drawing fails is said"""
    os.environ.setdefault('SDL_VIDEODRIVER', 'dummy')  # pictures, no windows
    env = that_draws(kwargs)
    if env.render_mode != 'rgb_array':
        return None
    try:
        env.reset(seed=0)
        return np.asarray(env.render(), np.uint8)
    except Exception as e:  # of somebody else's code: no library to draw with, no display
        why = str(e).split('\n')[0]
        print(f'{kwargs["env"]} cannot be drawn ({why}): the page shows its observations instead', file=sys.stderr)
        return None
    finally:
        env.close()


# ------------------------------------------------------------------------------
# episodes


def describe(episode, rng, kwargs, n):
    """the file's own texts"""
    return {'text': list(episode.get('text') or [])}


def from_trajectory(episode, kwargs):
    return bd_of(kwargs).of_episode(episode)


def report(prompt, bd, path, kwargs):
    """where it ends, or its return, and what was asked for"""
    names = kwargs['spec']['bd_names']
    if not names:
        return {'summary': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}
    achieved = {name: float(x) for name, x in zip(names, path[-1])}
    summary = ', '.join(f'{name} {x:.4g}' for name, x in achieved.items())
    if bd is not None:
        summary += f', asked for {", ".join(f"{x:g}" for x in bd)}'
    return {'summary': summary, 'visits': [], 'verdict': achieved, 'ok': None}


def config_file(kwargs):
    """the settings to train it with"""
    return 'config/gym.py' if kwargs['spec']['continuous'] else 'config/gym_discrete.py'
