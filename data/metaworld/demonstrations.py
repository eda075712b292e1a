"""
Demonstrations by Meta-World's scripted policies, which know each task: until it is done.

Every other one is disturbed: now and then something else moves the hand, which is not to be imitated, and the scripted
policy goes on from there. Those that do not succeed are dropped, and counted.
"""

import warnings
from collections import Counter
from functools import partial

import numpy as np

from data.metaworld.env import MetaWorldVec, packages, task_of
from data.workers import ranges_in_order

EPISODES = 100  # of each task, by default
BLOCK = 50  # episodes on one process
SEEDS = 10_000_000  # of goals, from one seed of collect() to the next
PUSHES = 3  # of a disturbed episode: something else moves the hand so often ..
PUSH_STEPS = 5, 16  # .. for a number of steps between these ..
PUSHED_BEFORE = 80  # .. that begin before this one


def demonstrations(source, size, seed, kwargs):
    """yields the episodes of all tasks, in turns; says how many failed, which are left out"""
    n_tasks = len(kwargs['tasks'].split(','))
    total = n_tasks * max(1, round(EPISODES * size))
    work = partial(shown, seed=seed, kwargs=kwargs)
    yield from kept(ranges_in_order(work, total, BLOCK, source), source)


def relabel(rollouts, seed, kwargs):
    """
    Episodes that a policy begins and the scripted one ends (DAgger, Ross et al., arXiv 1011.0686): what the policy did
    is not taught. Those that fail are dropped. rollouts: dicts: act (T, 4), and the seed of the environment
    """
    work = partial(taken_over, rollouts=rollouts, seed=seed, kwargs=kwargs)
    yield from kept(ranges_in_order(work, len(rollouts), BLOCK, 'relabelled'), 'relabelled')


def kept(blocks, source):
    """blocks: (numbers, (episodes, tasks that failed)) -> yields the episodes; says how many failed"""
    total, failed = 0, Counter()
    for numbers, (episodes, tasks) in blocks:
        total += len(numbers)
        failed.update(tasks)
        yield from ({**episode, 'source': source} for episode in episodes)
    why = ''.join(f', {n} of {task}' for task, n in failed.most_common())
    print(f'{source}: {total - failed.total()} of {total} episodes succeed, {failed.total()} dropped{why}')


def shown(numbers, seed, kwargs):
    """the episodes of these numbers that succeed, a list, and the tasks of the others"""
    env = MetaWorldVec(1, **kwargs)
    n_tasks = len(env.tasks)
    episodes, failed = [], []
    for number in numbers:
        own = np.full((env.max_steps, 4), np.nan, np.float32)
        disturbed = number // n_tasks % 2 == 1
        given = pushed(np.random.default_rng([seed, number]), env.max_steps) if disturbed else own
        add(show(env, seed * SEEDS * n_tasks + number, given), episodes, failed)
    return episodes, failed


def taken_over(numbers, rollouts, seed, kwargs):
    """as shown(), of rollouts of these numbers that the scripted policy ends from some step on"""
    env = MetaWorldVec(1, **kwargs)
    episodes, failed = [], []
    for number in numbers:
        act = rollouts[number]['act']
        step = np.random.default_rng([seed, number]).integers(len(act))
        given = np.full((env.max_steps, 4), np.nan, np.float32)
        given[:step] = act[:step]
        add(show(env, rollouts[number]['seed'], given), episodes, failed)
    return episodes, failed


def pushed(rng, n):
    """-> actions (n, 4) that something else takes; nan: the scripted policy's own, as is the gripper's always"""
    given = np.full((n, 4), np.nan, np.float32)
    for first in rng.integers(PUSHED_BEFORE, size=PUSHES):
        given[first : first + rng.integers(*PUSH_STEPS), :3] = rng.uniform(-1, 1, 3)
    return given


def show(env, seed, given):
    """
    an episode of the scripted policy and whether it succeeds; env: a MetaWorldVec(1); given (max_steps, 4): actions
    that are not its own, nan: its own
    """
    task, _ = task_of(seed, env.tasks)
    policy = packages()[0].policies.ENV_POLICY_MAP[task]()
    obs, info = env.reset(seed=[seed])
    obs_log, act_log, over = [], [], False
    while not over:
        instead = given[len(act_log)]
        act = np.where(np.isnan(instead), scripted(policy, obs[0]), instead)
        obs_log.append(obs[0])
        act_log.append(act)
        obs, _, terminated, truncated, info = env.step(act[None])
        over = terminated[0] or truncated[0]
    taught = np.isnan(given[: len(act_log)]).all(1)
    episode = {'obs': np.array(obs_log), 'act': np.array(act_log), 'taught': taught, 'bd': [], 'seed': seed}
    return {**episode, 'asked': task}, info['success'][0]


def scripted(policy, obs):
    """-> the action (4,) of a scripted policy, within bounds"""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that its actions are beyond them
        act = policy.get_action(obs.astype(np.float64))
    return np.clip(act, -1, 1).astype(np.float32)


def add(shown, episodes, failed):
    """what show() returned, to where it belongs"""
    episode, success = shown
    if success:
        episodes.append(episode)
    else:
        failed.append(episode['asked'])
