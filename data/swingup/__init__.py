"""
Cart-pole swing-up with a continuous force, its masses and length drawn anew for every episode and never shown: who drives it
must find out from its own history what it drives. There is no bd and there are no words.
"""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from tqdm import tqdm

from data.vector_env import VectorEnvBase
from data.pictures import panels
from data.swingup import physics
from data.swingup.physics import DT, FORCE, RANGES, STEPS, TRACK, Teacher, upright

SOURCES = {
    'clean': 1500,
    'disturbed': 3000,
}  # what collect() makes, and how much of it by default, less what is held out and what fails
OBS_NAMES = ['x', 'x_dot', 'theta', 'theta_dot']
KICKS, HELD, CALM = (
    3,
    (5, 25),
    200,
)  # of a disturbed episode: at most so many times something else pushes, for so many steps; not in the last CALM
ASTRAY, LED = (
    2.0,
    (50, 150),
)  # in half of them the teacher also stands so far off the middle, at most, for so many steps: nor is that to be imitated
STAYS = 50  # steps at the end in which it has to be upright all the time
HELD_OUT = {
    'cart': [1.25, 1.35],
    'pole': [0.08, 0.1],
    'half': [0.4, 0.44],
}  # no system with any of these is in an archive; off the middle, where it is hardest
VARIANTS = {
    'unseen parameters': HELD_OUT,
    'hanging at rest': {'start': 'hanging'},
    'heavier poles': {'pole': [0.25, 0.4]},
    'longer poles': {'half': [0.65, 0.9]},
    'shorter poles': {'half': [0.2, 0.35]},
    'heavier carts': {'cart': [1.5, 2.5]},
}  # the last four are out of the range of training


def env_kwargs(start='anywhere', **ranges):
    """start: 'anywhere' or 'hanging'; cart, pole, half: [low, high] of their masses and half length"""
    unknown = set(ranges) - set(RANGES)
    if unknown or start not in ('anywhere', 'hanging'):
        raise TypeError(
            f"there is no {sorted(unknown) or start!r}: start is 'anywhere' or 'hanging', the ranges are {', '.join(RANGES)}"
        )
    return {'start': start, **{k: [float(x) for x in ranges.get(k, RANGES[k])] for k in RANGES}}


def begin(rng, start, ranges):
    """-> state (4,), system (3,)"""
    state = np.array([rng.uniform(-1, 1), rng.uniform(-0.5, 0.5), rng.uniform(-np.pi, np.pi), rng.uniform(-1, 1)])
    return np.array([0, 0, -np.pi, 0]) if start == 'hanging' else state, physics.draw(rng, 1, ranges)[0]


SPACES = (
    Box(-np.inf, np.inf, (4,), np.float32),
    Box(-1, 1, (1,), np.float32),
)  # observations; the force, as a share of FORCE


class SwingUpVec(VectorEnvBase):
    """
    n carts. Observations x, x_dot, theta (0 is up, within pi), theta_dot; the action is a share of FORCE. An episode is over after STEPS
    steps, or when the cart runs off the track. Rewards are cos(theta). info['system'] (n, 3) is not for the policy: masses and half length.
    """

    def __init__(self, num_envs, start='anywhere', **ranges):
        super().__init__(num_envs, *SPACES, STEPS)
        kwargs = env_kwargs(start, **ranges)
        self.start, self.ranges = kwargs.pop('start'), kwargs
        self.state, self.system = np.zeros((num_envs, 4)), np.ones((num_envs, 3))

    def begin(self, rows):
        for i in rows:
            self.state[i], self.system[i] = begin(self.generator(i), self.start, self.ranges)

    def move(self, act):
        self.state = physics.advance(self.state, act[:, 0].astype(np.float64), self.system)
        return np.cos(self.state[:, 2]), np.abs(self.state[:, 0]) > TRACK

    def observe(self):
        return self.state.astype(np.float32)

    def where(self):
        return np.zeros((self.num_envs, 0), np.float32)

    def info(self):
        return {**super().info(), 'system': self.system.copy()}


class SwingUp(gym.Env):
    """one of them"""

    metadata = {'render_modes': []}

    def __init__(self, render_mode=None, **kwargs):
        self.many, (self.observation_space, self.action_space) = SwingUpVec(1, **kwargs), SPACES

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        obs, info = self.many.reset(seed=None if seed is None else [seed])
        return obs[0], {k: v[0] for k, v in info.items() if k != '_bd'}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.many.step(np.asarray(action)[None])
        return (
            obs[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {k: v[0] for k, v in info.items() if k != '_bd'},
        )


make_env, make_vec = SwingUp, SwingUpVec


def sources(kwargs):
    return list(SOURCES)


def spec(kwargs):
    return {
        'obs_names': OBS_NAMES,
        'act_names': ['force'],
        'bd_names': [],
        'bd_low': [],
        'bd_high': [],
        'act_low': [-1],
        'act_high': [1],
        'continuous': True,
        'max_steps': STEPS,
        'obs_period': [0, 0, 2 * np.pi, 0],
    }


def collect(source, size, seed, kwargs):
    """episodes of the teacher, who knows the system; in disturbed ones something else pushes now and then, which is not to be imitated"""
    rng, n = np.random.default_rng(seed + list(SOURCES).index(source)), max(2, round(SOURCES[source] * size))
    bar = tqdm(total=n, desc=source, unit='ep', mininterval=1, disable=None)
    for first in range(0, n, 1000):
        count = min(1000, n - first)
        seeds, env = rng.integers(2**31, size=count), SwingUpVec(count, **kwargs)
        obs, info = env.reset(seed=seeds)
        teacher, seen, acts, taught, length = Teacher(info['system']), [], [], [], np.full(count, STEPS)
        begins = (
            rng.integers(STEPS - CALM, size=(count, KICKS)) if source == 'disturbed' else np.full((count, KICKS), STEPS)
        )
        lasts, pushes = rng.integers(*HELD, (count, KICKS)), rng.uniform(-1, 1, (count, KICKS))
        led_from, led_for, middle = (
            rng.integers(STEPS - CALM, size=count),
            rng.integers(*LED, count),
            rng.uniform(-ASTRAY, ASTRAY, count),
        )
        led_for[(rng.random(count) < 0.5) | (source == 'clean')] = 0
        for t in range(STEPS):
            led = (led_from <= t) & (t < np.minimum(led_from + led_for, STEPS - CALM))
            act = teacher.act(env.state, np.where(led, middle, 0.0))
            kicked = (begins <= t) & (t < begins + lasts)
            for k in range(KICKS):
                act = np.where(kicked[:, k], pushes[:, k], act)
            act = act.astype(np.float32)[:, None]
            seen.append(obs), acts.append(act), taught.append(~kicked.any(1) & ~led)
            obs, _, terminated, _, _ = env.step(act)
            length = np.where(terminated & (length == STEPS), t + 1, length)
        seen, acts, taught = np.stack(seen, 1), np.stack(acts, 1), np.stack(taught, 1)
        low, high = np.array([kwargs[k] for k in RANGES]).T
        hard = np.where(high > low, np.abs(2 * (info['system'] - low) / np.maximum(high - low, 1e-9) - 1), 0).max(
            1
        )  # how far it is from the middle of the ranges
        held_out = np.any([(a <= p) & (p <= b) for p, (a, b) in zip(info['system'].T, HELD_OUT.values())], axis=0)
        for i, m in enumerate(length):
            if m == STEPS and upright(seen[i, -STAYS:]).all() and not held_out[i]:  # it did what it should
                yield {
                    'obs': seen[i],
                    'act': acts[i],
                    'taught': taught[i],
                    'bd': np.zeros(0),
                    'seed': int(seeds[i]),
                    'source': source,
                    'hard': float(hard[i]),
                }
        bar.update(count)
    bar.close()


MEASURES = {
    'success': 'up, and stays',
    'upright': 'of the time upright',
    'teacher_upright': '.. the teacher',
    'balancing': 'balancing',
    'same_regime': 'in the regime of the teacher',
    'off_middle': 'of half the track off its middle, at the end',
    'force_pumping': 'force error, pumping',
    'force_balancing': '.. balancing',
}


def measure(episodes, kwargs):
    """
    What became of episodes that were driven: did the pole stay up, for how long was it, in which regime was the cart (would the teacher,
    there, pump or balance?), is that the regime of the teacher at that time from the same start, how far off his are the forces
    """
    obs, act = np.zeros((STEPS, len(episodes), 4)), np.zeros((STEPS, len(episodes)))
    for i, e in enumerate(episodes):
        obs[: len(e['obs']), i], act[: len(e['act']), i] = e['obs'], e['act'][:, 0]
    _, info = SwingUpVec(len(episodes), **kwargs).reset(seed=[e['seed'] for e in episodes])
    own_obs, _, own_regimes = shown_by_teacher([e['seed'] for e in episodes], kwargs)
    teacher, forces, regimes = Teacher(info['system']), [], []
    for state in obs:
        forces.append(teacher.act(state))
        regimes.append(teacher.balancing)
    own_upright = upright(own_obs).mean(0)
    off, regimes, found = np.abs(act - forces), np.array(regimes), []
    for i, e in enumerate(episodes):
        m = len(e['obs'])
        b = regimes[:m, i]
        found.append(
            {
                'success': bool(m == STEPS and upright(obs[-STAYS:, i]).all()),
                'upright': upright(obs[:m, i]).sum() / STEPS,
                'teacher_upright': own_upright[i],
                'balancing': b.sum() / STEPS,
                'same_regime': (b == own_regimes[:m, i]).sum() / STEPS,
                'off_middle': np.abs(obs[max(0, m - STAYS) : m, i, 0]).mean() / TRACK,
                'force_pumping': off[:m, i][~b].mean() if not b.all() else np.nan,
                'force_balancing': off[:m, i][b].mean() if b.any() else np.nan,
            }
        )
    return found


def report(prompt, bd, path, kwargs):
    return {'said': f'{(len(path) - 1) * DT:g} seconds', 'visits': [], 'verdict': {}, 'ok': None}


def draw_episodes(file, episodes, kwargs):
    """a PNG: the angle and the force of up to 12 episodes, and those of the teacher from the same start"""

    def draw(ax, e):
        _, info = SwingUpVec(1, **kwargs).reset(seed=[e['seed']])
        own_obs, own_act, _ = shown_by_teacher([e['seed']], kwargs)
        for name, obs, act in ('policy', e['obs'], e['act']), ('teacher', own_obs[:, 0], own_act[:, 0]):
            time = np.arange(len(obs)) * DT
            (line,) = ax.plot(time, np.degrees(np.unwrap(obs[:, 2])), label=f'{name}: angle, degrees')
            ax.plot(time, 90 * act[:, 0], lw=0.5, color=line.get_color(), label=f'{name}: force, 90 is {FORCE:g} N')
        ax.fill_between(
            np.arange(len(e['obs'])) * DT,
            0,
            1,
            where=upright(e['obs']),
            color='0.9',
            transform=ax.get_xaxis_transform(),
            label='policy: upright',
        )
        ax.set(
            xlabel='seconds',
            xlim=(0, STEPS * DT),
            title='cart {:.2f} kg, pole {:.2f} kg, 2 x {:.2f} m'.format(*info['system'][0]),
        )

    panels(file, episodes, draw)


def shown_by_teacher(seeds, kwargs):
    """n episodes of the teacher's, from the starts of these seeds -> obs (STEPS, n, 4), act (STEPS, n, 1) and whether he balanced (STEPS, n)"""
    env = SwingUpVec(len(seeds), **kwargs)
    obs, info = env.reset(seed=list(seeds))
    teacher, seen, acts, balancing = Teacher(info['system']), [], [], []
    for _ in range(STEPS):
        seen.append(obs)
        acts.append(teacher.act(env.state).astype(np.float32)[:, None])
        balancing.append(teacher.balancing)
        obs, *_ = env.step(acts[-1])
    return np.array(seen), np.array(acts), np.array(balancing)
