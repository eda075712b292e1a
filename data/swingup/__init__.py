"""
Cart-pole swing-up with a continuous force, its masses and length drawn anew for every episode and never shown: a policy
must find out from its own history what it drives. There is no bd and there are no words.

The parts: physics.py equations and the teacher, env.py environments.
"""

from functools import partial

import numpy as np

from data import page
from data.pictures import panels
from data.swingup.env import SwingUp, SwingUpVec, env_kwargs  # noqa: F401, env_kwargs is of the contract
from data.swingup.physics import DT, FORCE, RANGES, STEPS, TRACK, Teacher, upright
from data.workers import ranges_in_order

COLLECT_VERSION = 2  # raised when collect() makes other episodes than before
SOURCES = {'clean': 1500, 'disturbed': 3000}  # what collect() makes by default, before what is held out and what fails
OBS_NAMES = ['x', 'x_dot', 'theta', 'theta_dot']
BLOCK = 250  # episodes side by side, and on one process
KICKS = 3  # of a disturbed episode: something else pushes at most this often ..
KICK_STEPS = (5, 25)  # .. for a number of steps between these ..
CALM = 200  # .. and not in this many steps before the end
ASTRAY = 2.0  # metres: in half of them the teacher also stands so far off the middle, at most ..
ASTRAY_STEPS = (50, 150)  # .. for a number of steps between these: nor is that to be imitated
STAYS = 50  # steps at the end in which it has to be upright all the time
HELD_OUT = {  # no system with any of these is in an archive; off the middle, where it is hardest
    'cart': [1.25, 1.35],
    'pole': [0.08, 0.1],
    'half': [0.4, 0.44],
}
VARIANTS = {
    'unseen parameters': HELD_OUT,
    'hanging at rest': {'start': 'hanging'},
    # out of the range of training
    'heavier poles': {'pole': [0.25, 0.4]},
    'longer poles': {'half': [0.65, 0.9]},
    'shorter poles': {'half': [0.2, 0.35]},
    'heavier carts': {'cart': [1.5, 2.5]},
}
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


# ------------------------------------------------------------------------------
# episodes of the teacher, who knows the system


class Disturbances:
    """when something else pushes n carts, and when the teacher stands elsewhere, drawn from rng"""

    def __init__(self, n, disturbed, rng):
        self.begin = np.full((n, KICKS), STEPS)
        if disturbed:
            self.begin = rng.integers(STEPS - CALM, size=(n, KICKS))
        self.steps = rng.integers(*KICK_STEPS, (n, KICKS))
        self.force = rng.uniform(-1, 1, (n, KICKS))
        self.astray_from = rng.integers(STEPS - CALM, size=n)
        astray_steps = rng.integers(*ASTRAY_STEPS, n)
        self.middle = rng.uniform(-ASTRAY, ASTRAY, n)
        astray_steps[(rng.random(n) < 0.5) | (not disturbed)] = 0
        self.astray_to = np.minimum(self.astray_from + astray_steps, STEPS - CALM)

    def act(self, teacher, state, t):
        """-> the force (n,), and whether it is the teacher's from the middle, to be imitated (n,)"""
        astray = (self.astray_from <= t) & (t < self.astray_to)
        kicked = (self.begin <= t) & (t < self.begin + self.steps)  # (n, KICKS)
        act = teacher.act(state, np.where(astray, self.middle, 0.0))
        for k in range(KICKS):
            act = np.where(kicked[:, k], self.force[:, k], act)
        return act, ~kicked.any(1) & ~astray


def collect(source, size, seed, kwargs):
    """
    Episodes of the teacher that stand up and stay; in disturbed ones something else pushes now and then, which is
    not to be imitated
    """
    total = max(2, round(SOURCES[source] * size))
    work = partial(taught_block, source=source, seed=seed, kwargs=kwargs)
    for _, episodes in ranges_in_order(work, total, BLOCK, source):
        yield from episodes


def taught_block(numbers, source, seed, kwargs):
    """those of the episodes of these numbers that are to be kept, a list"""
    n = len(numbers)
    rng = np.random.default_rng([seed, list(SOURCES).index(source), numbers[0] // BLOCK])
    seeds = rng.integers(2**31, size=n)
    env = SwingUpVec(n, **kwargs)
    _, info = env.reset(seed=seeds)
    obs, act, imitate, length = teach(env, Teacher(info['system']), Disturbances(n, source == 'disturbed', rng))
    hard, held_out = difficulty(info['system'], kwargs), is_held_out(info['system'])
    return [
        {
            'obs': obs[i],
            'act': act[i],
            'taught': imitate[i],
            'bd': np.zeros(0),
            'seed': int(seeds[i]),
            'source': source,
            'hard': float(hard[i]),
        }
        for i in np.flatnonzero((length == STEPS) & upright(obs[:, -STAYS:]).all(1) & ~held_out)
    ]


def teach(env, teacher, disturbances):
    """an episode of n carts -> obs (n, STEPS, 4), act (n, STEPS, 1), imitate (n, STEPS), length (n,)"""
    obs = env.observe()
    length = np.full(len(obs), STEPS)
    obs_log, act_log, imitate_log = [], [], []
    for t in range(STEPS):
        act, imitate = disturbances.act(teacher, env.state, t)
        act = act.astype(np.float32)[:, None]
        obs_log.append(obs)
        act_log.append(act)
        imitate_log.append(imitate)
        obs, _, terminated, _, _ = env.step(act)
        length[terminated & (length == STEPS)] = t + 1
    return np.stack(obs_log, 1), np.stack(act_log, 1), np.stack(imitate_log, 1), length


def difficulty(system, kwargs):
    """systems (n, 3) -> how far they are from the middle of the ranges they are drawn from, 0 to 1, (n,)"""
    low, high = np.array([kwargs[k] for k in RANGES]).T
    off = np.abs(2 * (system - low) / np.maximum(high - low, 1e-9) - 1)
    return np.where(high > low, off, 0).max(1)


def is_held_out(system):
    low, high = np.array(list(HELD_OUT.values())).T
    return ((low <= system) & (system <= high)).any(1)


# ------------------------------------------------------------------------------
# what is measured and shown of rollouts, beside the teacher from the same start


def shown_by_teacher(seeds, kwargs):
    """
    n episodes of the teacher's, from the starts of these seeds -> obs (STEPS, n, 4), act (STEPS, n, 1) and whether he
    balanced (STEPS, n)
    """
    env = SwingUpVec(len(seeds), **kwargs)
    obs, info = env.reset(seed=list(seeds))
    teacher = Teacher(info['system'])
    obs_log, act_log, balancing = [], [], []
    for _ in range(STEPS):
        act = teacher.act(env.state).astype(np.float32)[:, None]
        obs_log.append(obs)
        act_log.append(act)
        balancing.append(teacher.balancing)
        obs, *_ = env.step(act)
    return np.array(obs_log), np.array(act_log), np.array(balancing)


def measure(episodes, kwargs):
    """
    Of rollouts: did the pole stay up, for how long was it, in which regime was the cart (would the teacher, there,
    pump or balance?), is that the regime of the teacher at that time from the same start, how far are the forces
    off his
    """
    n, seeds = len(episodes), [e['seed'] for e in episodes]
    obs, act = np.zeros((STEPS, n, 4)), np.zeros((STEPS, n))
    for i, e in enumerate(episodes):
        obs[: len(e['obs']), i] = e['obs']
        act[: len(e['act']), i] = e['act'][:, 0]
    _, info = SwingUpVec(n, **kwargs).reset(seed=seeds)
    teacher_obs, _, teacher_balancing = shown_by_teacher(seeds, kwargs)
    teacher = Teacher(info['system'])
    forces, balancing = [], []
    for state in obs:
        forces.append(teacher.act(state))
        balancing.append(teacher.balancing)
    off, balancing = np.abs(act - forces), np.array(balancing)  # (STEPS, n)
    measures = []
    for i, e in enumerate(episodes):
        T = len(e['obs'])
        balances = balancing[:T, i]
        measures.append(
            {
                'success': bool(T == STEPS and upright(obs[-STAYS:, i]).all()),
                'upright': upright(obs[:T, i]).sum() / STEPS,
                'teacher_upright': upright(teacher_obs[:, i]).mean(),
                'balancing': balances.sum() / STEPS,
                'same_regime': (balances == teacher_balancing[:T, i]).sum() / STEPS,
                'off_middle': np.abs(obs[max(0, T - STAYS) : T, i, 0]).mean() / TRACK,
                'force_pumping': mean_or_nan(off[:T, i][~balances]),
                'force_balancing': mean_or_nan(off[:T, i][balances]),
            }
        )
    return measures


def mean_or_nan(values):
    return values.mean() if len(values) else np.nan


def report(prompt, bd, path, kwargs):
    return {'summary': f'{(len(path) - 1) * DT:g} seconds', 'visits': [], 'verdict': {}, 'ok': None}


class Page(page.Page):
    """the cart, with the system that the policy is not shown; another start has another system, a click pushes"""

    view = (-4.2, -1.6, 4.2, 1.6)
    can_push = True
    push_speed = 1.0  # m/s that a push adds

    def shapes(self, env, obs):
        x, _, theta, _ = env.state[0]
        length = 2 * env.system[0, 2]
        return page.cart_and_pole(x, x - length * np.sin(theta), length * np.cos(theta), TRACK)

    def progress(self, env, prompt, bd, path):
        cart, pole, half = env.system[0]
        system = f'cart {cart:.2f} kg, pole {pole:.2f} kg, 2 x {half:.2f} m'
        up = 'yes' if upright(env.state)[0] else 'no'
        readings = [['system', system], ['upright', up], ['seconds', f'{(len(path) - 1) * DT:.1f}']]
        return {**super().progress(env, prompt, bd, path), 'readings': readings}

    def push(self, env, x, y):
        env.state = env.state.copy()
        env.state[0, 1] += self.push_speed * np.sign(x - env.state[0, 0])


def draw_episodes(file, episodes, kwargs):
    """a PNG: the angle and the force of up to 12 episodes, and those of the teacher from the same start"""

    def draw(ax, e):
        _, info = SwingUpVec(1, **kwargs).reset(seed=[e['seed']])
        teacher_obs, teacher_act, _ = shown_by_teacher([e['seed']], kwargs)
        for name, obs, act in ('policy', e['obs'], e['act']), ('teacher', teacher_obs[:, 0], teacher_act[:, 0]):
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
        title = 'cart {:.2f} kg, pole {:.2f} kg, 2 x {:.2f} m'.format(*info['system'][0])
        ax.set(xlabel='seconds', xlim=(0, STEPS * DT), title=title)

    panels(file, episodes, draw)
