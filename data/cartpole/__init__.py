"""
CartPole-v1 of Gymnasium (Barto, Sutton & Anderson, 1983), conditioned on returns: the smallest data set, and the
example to copy.

bd is the return of an episode. A spec with a `discount` says so: in training and acting each step is then told what is
left of it, the return to go (Decision Transformer, Chen et al., arXiv 2106.01345).
"""

from functools import partial

import gymnasium as gym
import numpy as np

from data import page
from data.pictures import panels
from data.workers import ranges_in_order

COLLECT_VERSION = 2  # raised when collect() makes other episodes than before
SOURCES = {'noisy': 2000}  # what collect() makes, and how much of it by default
RANDOM = (0.6, 0.3, 0.1)  # shares of random actions, each in a third of the episodes
TARGETS = (10, 25, 50, 100, 150, 200, 300, 400, 500)  # returns that are asked for when a policy is scored
OBS_NAMES = ['x', 'x_dot', 'theta', 'theta_dot']
STEPS = 500  # of an episode at most
ASSUMED_REWARD = 1.0  # of a step, where a trajectory made elsewhere says nothing of rewards
BLOCK = 250  # episodes side by side, and on one process


def env_kwargs(discount=1.0):
    """discount: of the rewards in the return"""
    if not 0.99 <= discount <= 1:
        why = f"what is left of a return after {STEPS} steps drowns in float32's rounding"
        raise ValueError(f'{discount=} must be 0.99 to 1: below, {why}')
    return {'discount': float(discount)}


class RunningReturn(gym.Wrapper):
    """info['bd'], (1,) float32: the return so far."""

    def __init__(self, env, discount):
        super().__init__(env)
        self.discount = discount

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        self.weight = 1.0
        self.so_far = 0.0
        return obs, {**info, 'bd': np.float32([0])}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.so_far += self.weight * reward
        self.weight *= self.discount
        return obs, reward, terminated, truncated, {**info, 'bd': np.float32([self.so_far])}


def make_env(render_mode=None, discount=1.0):
    return RunningReturn(gym.make('CartPole-v1', render_mode=render_mode), discount)


def make_vec(n, discount=1.0):
    return gym.vector.SyncVectorEnv([lambda: make_env(discount=discount)] * n)


def sources(kwargs):
    return list(SOURCES)


def spec(kwargs):
    most = sum(kwargs['discount'] ** t for t in range(STEPS))
    return {
        'obs_names': OBS_NAMES,
        'act_names': ['left', 'right'],
        'bd_names': ['return'],
        'bd_low': [0],
        'bd_high': [most],
        'act_low': [0],
        'act_high': [1],
        'continuous': False,
        'max_steps': STEPS,
        'discount': kwargs['discount'],
    }


def heuristic(obs):
    """push towards angle + 0.3 x angular velocity: obs (n, 4) -> act (n,) int64"""
    return (obs[:, 2] + 0.3 * obs[:, 3] > 0).astype(np.int64)


def rollout(make_vec, total, choose, seed, desc):
    """
    Episodes, BLOCK at a time, whichever process makes a block. make_vec(n) -> environments; choose(obs (n, 4), episodes
    (n,), rng) -> act (n,) int64, imitate (n,) bool, for episodes of these numbers; seed: ints
    -> dicts of obs, act, path, bd, taught and seed
    """
    work = partial(rollout_block, make_vec=make_vec, choose=choose, seed=seed)
    for _, episodes in ranges_in_order(work, total, BLOCK, desc):
        yield from episodes


def rollout_block(numbers, make_vec, choose, seed):
    """the episodes of these numbers, a list"""
    numbers = np.array(numbers)
    rng = np.random.default_rng([*seed, numbers[0]])
    seeds = rng.integers(2**31, size=len(numbers))
    steps, length = side_by_side(make_vec(len(numbers)), numbers, seeds, partial(choose, rng=rng))
    obs, act, imitate, path = (np.stack(column, 1) for column in steps)  # (n, T, ..)
    return [
        {
            'obs': obs[i, :T],
            'act': act[i, :T, None],
            'taught': imitate[i, :T],
            'path': path[i, : T + 1],
            'bd': path[i, T],
            'seed': int(seeds[i]),
        }
        for i, T in enumerate(length)
    ]


def side_by_side(env, numbers, seeds, choose):
    """
    episodes side by side until the last one is over -> lists of what was at each step, obs act imitate path;
    lengths (n,)
    """
    obs, info = env.reset(seed=seeds.tolist())
    over = np.zeros(len(numbers), bool)
    length = np.zeros(len(numbers), int)
    obs_log, act_log, imitate_log, path = [], [], [], [info['bd']]
    while not over.all():
        act, imitate = choose(obs, numbers)
        obs_log.append(obs)
        act_log.append(act)
        imitate_log.append(imitate)
        obs, _, terminated, truncated, info = env.step(act)
        path.append(info['bd'])
        length[~over] += 1
        over |= terminated | truncated
    return (obs_log, act_log, imitate_log, path), length


def collect(source, size, seed, kwargs):
    """episodes of the heuristic, which now and then does something random"""
    total = max(3, round(SOURCES[source] * size))
    for i, episode in enumerate(rollout(partial(make_vec, **kwargs), total, mostly_right, [seed], source)):
        yield {**episode, 'source': source, 'hard': RANDOM[i % len(RANDOM)]}


def mostly_right(obs, numbers, rng):
    """what the heuristic does, or something random -> act (n,), which to imitate (n,): all"""
    disturbed = rng.random(len(obs)) < np.array(RANDOM)[numbers % len(RANDOM)]
    act = np.where(disturbed, rng.integers(2, size=len(obs)), heuristic(obs))
    return act, np.ones(len(obs), bool)


def from_trajectory(episode, kwargs):
    """a trajectory made elsewhere, with its 'reward' (T,) -> its bd and path"""
    reward = np.asarray(episode['reward'], np.float64).reshape(-1)
    so_far = np.cumsum(reward * kwargs['discount'] ** np.arange(len(reward)))
    path = np.r_[0, so_far].astype(np.float32)[:, None]  # (T + 1, 1)
    return {'path': path, 'bd': path[-1]}


def report(prompt, bd, path, kwargs):
    """the return that was asked for, and the one achieved"""
    achieved = float(path[-1, 0])
    summary = f'return {achieved:.0f}'
    if bd is not None:
        summary += f', asked for {bd[0]:g}'
    return {'summary': summary, 'visits': [], 'verdict': {'return': achieved}, 'ok': None}


class Page(page.Page):
    """the cart; a slider asks for a return, a click pushes"""

    view = (-2.6, -0.5, 2.6, 1.5)
    can_push = can_dream = True
    bd_names = ('return',)
    push_speed = 0.5  # m/s that a push adds

    def shapes(self, env, obs):
        x, _, theta, _ = obs
        return page.cart_and_pole(x, x + np.sin(theta), np.cos(theta), 2.4)

    def push(self, env, x, y):
        cart = env.envs[0].unwrapped
        state = np.array(cart.state)
        state[1] += self.push_speed * np.sign(x - state[0])
        cart.state = tuple(state)


def draw_episodes(file, episodes, kwargs):
    """a PNG of the cart's and the pole's way through up to 12 episodes"""

    def draw(ax, e):
        ax.plot(e['obs'][:, 0], label='x, m')
        ax.plot(np.degrees(e['obs'][:, 2]), label='angle, degrees')
        ax.set(title=e['summary'], xlabel='step', xlim=(0, STEPS), ylim=(-15, 15))

    panels(file, episodes, draw)
