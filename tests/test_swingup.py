"""Swing-up: the physics keep energy, the teacher succeeds from everywhere, and what is pushed is not taught."""

import numpy as np
import pytest

from data import swingup
from data.swingup import physics


def test_without_force_nothing_is_won_or_lost():
    """energy of cart and pole, over ten seconds, within a few hundredths of what it takes to stand up"""
    rng, n = np.random.default_rng(0), 50
    system = physics.draw(rng, n)
    state = np.stack([np.zeros(n), rng.uniform(-1, 1, n), rng.uniform(-3, 3, n), rng.uniform(-1, 1, n)], 1)
    M, m, half = system.T

    def energy(s):
        return (
            (M + m) * s[:, 1] ** 2 / 2
            + m * half * s[:, 1] * s[:, 3] * np.cos(s[:, 2])
            + 2 / 3 * m * (half * s[:, 3]) ** 2
            + m * physics.G * half * np.cos(s[:, 2])
        )

    before, off = energy(state), 0
    for _ in range(physics.STEPS):
        state = physics.advance(state, np.zeros(n), system)
        off = np.maximum(off, np.abs(energy(state) - before) / (2 * m * physics.G * half))
    assert np.median(off) < 0.04 and off.max() < 0.2


def test_the_teacher_stands_it_up_from_everywhere():
    seen = []
    env = swingup.SwingUpVec(1000)
    obs, info = env.reset(seed=3)
    teacher, over = physics.Teacher(info['system']), np.zeros(1000, bool)
    for _ in range(physics.STEPS):
        act = teacher.act(env.state)[:, None]
        assert np.abs(act).max() <= 1
        obs, _, terminated, _, _ = env.step(act)
        over |= terminated
        seen.append(physics.upright(obs))
    assert (np.all(seen[-50:], 0) & ~over).mean() >= 0.99


@pytest.mark.parametrize('source', swingup.SOURCES)
def test_archives_hold_successes(source):
    episodes = list(swingup.collect(source, 0.03, 0, swingup.env_kwargs()))
    assert len(episodes) > 0.5 * 0.03 * swingup.SOURCES[source]
    assert all(physics.upright(e['obs'][-swingup.STAYS :]).all() and len(e['act']) == physics.STEPS for e in episodes)
    assert (np.mean([e['taught'].mean() for e in episodes]) == 1) == (source == 'clean')


def test_systems_are_drawn_from_the_ranges_asked_for():
    kwargs = swingup.env_kwargs(pole=[0.3, 0.4], start='hanging')
    obs, info = swingup.make_vec(20, **kwargs).reset(seed=0)
    assert (
        (info['system'][:, 1] >= 0.3).all()
        and (info['system'][:, 1] <= 0.4).all()
        and info['system'][:, 0].std() > 0.05
        and (np.abs(obs[:, 2]) > 3).all()
    )
    with pytest.raises(TypeError, match='mass'):
        swingup.env_kwargs(mass=[1, 2])


def test_the_teacher_measures_itself():
    obs, act, _ = swingup.shown_by_teacher([4, 5], swingup.env_kwargs())
    found, _ = swingup.measure(
        [{'seed': 4 + i, 'obs': obs[:, i], 'act': act[:, i]} for i in range(2)], swingup.env_kwargs()
    )
    assert (
        found['success']
        and max(found['force_pumping'], found['force_balancing']) < 1e-3
        and found['upright'] == found['teacher_upright'] > 0.3
        and found['same_regime'] == 1
    )
