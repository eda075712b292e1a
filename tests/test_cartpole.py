"""CartPole asked for returns: one function says what is left, in training and in acting; the driver and his noise."""

import json

import numpy as np
import pytest
from conftest import run

from data import cartpole, metrics
from data.batches import Batches, Curriculum
from data.prepared import Prepared
from nanopilot.policy import Policy
from nanopilot.rollout import rollout


@pytest.fixture(scope='module')
def episodes():
    return list(cartpole.collect('noisy', 0.015, 3, cartpole.env_kwargs()))


@pytest.fixture(scope='module', params=[1.0, 0.99])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('cartpole')
    kwargs = json.dumps({'discount': request.param})
    done = run(
        'prepare.py',
        '--dataset=cartpole',
        '--size=0.02',
        f'--env_kwargs={kwargs}',
        '--out_dir=p',
        '--archive_dir=a',
        '--val_share=0.2',
        '--test_share=0.2',
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    done = run(
        'train.py',
        'config/cartpole.py',
        '--data_dir=p',
        '--max_iters=3',
        '--n_layer=1',
        '--batch_size=4',
        '--out_dir=o',
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_less_noise_balances_longer(episodes):
    returns = np.array([e['bd'][0] for e in episodes])
    assert returns[0::3].mean() < 200 < returns[1::3].mean() < returns[2::3].mean() and returns.max() == 500
    assert all(len(e['act']) == e['bd'][0] == e['path'][-1, 0] for e in episodes)


def test_each_step_is_told_what_is_left(folder):
    """the discounted sum of the rewards from there on, whatever segment_len it is in"""
    split = Prepared(folder / 'p', 'train')
    discount = split.meta['discount']
    batches = Batches(split, 0, 1, 4, 2, 1, 3, Curriculum(segment_len=30))
    for step in range(4):
        bd = batches.batch(step)['bd']
        drawn = {name: a[step % 2] for name, a in batches.group(step // 2).items()}
        for b in range(4):
            T = split.length[drawn['episode'][b]]
            for s in range(drawn['length'][b]):
                expected = sum(discount**k for k in range(T - drawn['start'][b] - s))
                assert bd[b, s, 0] == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_acting_is_told_the_same(folder, monkeypatch):
    """bd falls by what was received, for every row by its own"""
    policy, told = Policy.load(folder / 'o'), []
    act = policy.act
    monkeypatch.setattr(policy, 'act', lambda obs, bd, **how: told.append(bd[:, 0].copy()) or act(obs, bd, **how))
    driven = rollout(policy, [None] * 3, [[8.0], [5.0], None], [1, 2, 3])
    discount = policy.data_spec['discount']
    left = [8.0, 5.0]
    for t in range(min(len(d['act']) for d in driven[:2])):
        assert told[t][:2] == pytest.approx(left, rel=1e-3, abs=1e-3) and np.isnan(told[t][2])
        left = [(x - 1) / discount for x in left]


def test_what_is_left_of_a_return():
    assert metrics.to_go(np.array([10.0]), np.array([4.0]), 4, 1.0) == [6]
    rewards = np.array([1.0, 2.0, 3.0])
    whole, so_far = (rewards * 0.5 ** np.arange(3)).sum(), rewards[0]
    assert metrics.to_go(np.array([whole]), np.array([so_far]), 1, 0.5) == pytest.approx([2 + 3 * 0.5])


def test_returns_are_scored_and_drawn(folder):
    done = run('sample_policy.py', '--out_dir=o', '--eval=test', '--eval_episodes=3', cwd=folder)
    assert done.returncode == 0 and 'rank correlation' in done.stdout, done.stderr
    assert 'data: p, which it was trained on' in done.stdout
    moved = run('sample_policy.py', f'--out_dir={folder}/o', '--eval=test', cwd=folder.parent)
    assert moved.returncode != 0 and 'no prepared data in' in moved.stderr  # p is not there: the usual place is tried
    rows = {r['name']: r for r in json.loads((folder / 'o' / 'eval_test.json').read_text())['rows']}
    assert [f'return {t}' in rows for t in cartpole.TARGETS] == [True] * 9 and rows['return 10']['return']['n'] == 3
    assert (folder / 'o' / 'eval_test_returns.png').read_bytes()[:4] == b'\x89PNG'


def test_what_cannot_be_asked(folder, script, refuses, capsys):
    script('sample_policy.py', f'--out_dir={folder / "o"}', '--bd=900')
    assert 'out of the range' in capsys.readouterr().err
    refuses('sample_policy.py', f'--out_dir={folder / "o"}', '--prompt=balance', words=['without language'])
    refuses('sample_policy.py', f'--out_dir={folder / "o"}', '--bd=nan', words=['nan'])
    refuses('prepare.py', '--dataset=cartpole', '--env_kwargs={"discount": 0.9}', words=['discount'])
