"""Dreams: what they are made of, which of their steps can be, and predicted observations."""

import json

import numpy as np
import pytest
import torch
from conftest import refused, run

from data import cartpole_bins
from data.prepared import Prepared
from nanopilot import dreams
from nanopilot.bins import DONE
from nanopilot.policy import Policy


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """
    a language model of CartPole, and a swing-up policy that predicts what it will observe; both have seen next to
    nothing
    """
    folder = tmp_path_factory.mktemp('dreams')
    for name in 'cartpole_bins', 'swingup':
        process = run(
            'prepare.py',
            f'--dataset={name}',
            '--size=0.02',
            f'--out_dir={name}',
            '--archive_dir=a',
            '--val_share=0.2',
            '--test_share=0.2',
            cwd=folder,
        )
        assert process.returncode == 0, process.stderr
        process = run(
            'train.py',
            f'config/{name}.py',
            f'--data_dir={name}',
            f'--out_dir=out_{name}',
            '--max_iters=3',
            '--n_layer=1',
            '--n_embd=16',
            '--n_head=2',
            '--batch_size=4',
            '--rollouts=0',
            '--learning_rate=1e-5',
            cwd=folder,
        )
        assert process.returncode == 0, process.stderr
    return folder


def test_dreams_are_drawn_beside_what_happened(folder, refuses):
    process = run(
        'sample_policy.py', '--out_dir=out_cartpole_bins', '--dream=5', '--data_dir=cartpole_bins', cwd=folder
    )
    assert process.returncode == 0, process.stderr
    found = json.loads((folder / 'out_cartpole_bins' / 'dream.json').read_text())['possible']
    assert (
        found['real']['mean'] == 1 and found['shuffled']['mean'] < 0.6 and found['dreamt']['mean'] < 0.6
    )  # it has learned nothing
    assert (folder / 'out_cartpole_bins' / 'dream.png').read_bytes()[:4] == b'\x89PNG'
    refuses(
        'sample_policy.py',
        f'--out_dir={folder / "out_swingup"}',
        '--dream=5',
        f'--data_dir={folder / "swingup"}',
        words=['cannot dream'],
    )
    refuses(
        'sample_policy.py',
        f'--out_dir={folder / "out_cartpole_bins"}',
        '--dream=5',
        '--eval=test',
        words=['asked nothing'],
    )


def test_a_dream_is_what_the_model_says_of_it(folder):
    """every token drawn is among the likely ones of one pass over the whole dream; and it ends when DONE is drawn"""
    policy = Policy.load(folder / 'out_cartpole_bins')
    edges = policy.model.steps.edges
    inside = (edges[:, 1:] + edges[:, :-1]) / 2
    with torch.no_grad():
        policy.model.head.proj.weight *= 20  # it has opinions
    dreamt = dreams.dream(policy, 6, top_p=0.3, seed=1)
    assert len({len(e['act']) for e in dreamt}) > 1 or not any(e['terminated'] for e in dreamt)
    for e in dreamt:
        T = min(len(e['act']), 60)
        obs, act = (
            inside[torch.arange(4), torch.from_numpy(e['bins'][:T])][None, :, None],
            torch.from_numpy(e['act'][:T])[None, :, None],
        )
        with torch.no_grad():
            logits = policy.model(torch.zeros(1, 0, dtype=torch.int64), obs, act)[0]['token'][0]
        for slot, drawn in enumerate([*e['bins'][:T].T, e['act'][:T]]):
            choices = logits[:, slot, policy.model.steps.vocabulary.legal(slot)]
            if slot == 0:  # a step may also be DONE, but not the first one
                done = logits[:, slot, DONE].clone()
                done[0] = -torch.inf
                choices = torch.cat([choices, done[:, None]], 1)
            p = choices.softmax(-1)
            more = (p > p[torch.arange(T), torch.from_numpy(drawn)][:, None] + 1e-4) * p
            assert (more.sum(1) <= 0.3 + 1e-3).all()


def test_what_happened_can_be():
    """steps of Gymnasium's CartPole, in bins of any size, lead where the physics lead; random jumps do not"""
    rng, episodes = np.random.default_rng(0), list(cartpole_bins.collect('random', 0.003, 0, {}))
    for n_bins in 3, 10, 40:
        edges = np.quantile(np.concatenate([e['obs'] for e in episodes]), np.linspace(0, 1, n_bins + 1), axis=0).T
        for e in episodes:
            bins = (e['obs'][:, :, None] >= edges[:, 1:-1]).sum(2)
            assert dreams.consistent(cartpole_bins, bins[:-1], e['act'][:-1, 0], bins[1:], edges, {}).all()
    jump = dreams.consistent(
        cartpole_bins,
        rng.integers(40, size=(500, 4)),
        rng.integers(2, size=500),
        rng.integers(40, size=(500, 4)),
        edges,
        {},
    )
    assert jump.mean() < 0.02


def test_the_physics_are_gymnasiums():
    env = cartpole_bins.make_env()
    env.reset(seed=0)
    for state in np.random.default_rng(1).uniform(-0.25, 0.25, (50, 4)) * [10, 5, 1, 5]:
        for act in 0, 1:
            env.unwrapped.state = state
            env.unwrapped.steps_beyond_terminated = None
            then = env.step(act)[0]
            low, high = cartpole_bins.reach(state[None], state[None], np.array([act]), {})
            assert np.array_equal(low, high) and low[0] == pytest.approx(then, abs=1e-6)
            assert cartpole_bins.can_end(low, high)[0] == (abs(then[0]) > 2.4 or abs(then[2]) > 12 * np.pi / 180)
    rng = np.random.default_rng(2)
    low = rng.uniform(-1, 1, (500, 4)) * [2, 3, 0.2, 4]
    high, act = low + rng.uniform(0, 1, (500, 4)) * [1, 2, 0.2, 5], rng.integers(2, size=500)
    inside = low + rng.random((50, 500, 4)) * (high - low)
    to_low, to_high = cartpole_bins.reach(low, high, act, {})
    for some in inside:
        there = cartpole_bins.reach(some, some, act, {})[0]
        assert (to_low - 1e-4 <= there).all() and (there <= to_high + 1e-4).all()


def test_the_curriculum_and_the_permanent_checkpoints_of_the_large_config(folder):
    process = run(
        'train.py',
        'config/swingup_gpt2.py',
        '--data_dir=swingup',
        '--out_dir=large',
        '--compile=False',
        '--n_layer=1',
        '--n_embd=32',
        '--n_head=2',
        '--batch_size=2',
        '--segment_from=4',
        '--curriculum=4',
        '--max_iters=6',
        '--eval_interval=2',
        '--keep_every=2',
        '--rollouts=0',
        '--log_interval=1',
        cwd=folder,
    )
    assert process.returncode == 0 and 'window of 512 steps of 1' in process.stdout, process.stderr
    assert sorted(p.name for p in (folder / 'large').glob('step_*')) == ['step_0000002', 'step_0000004', 'step_0000006']
    refused(
        run(
            'train.py',
            'config/swingup_gpt2.py',
            '--data_dir=swingup',
            '--out_dir=large',
            '--keep_every=3',
            '--eval_interval=2',
            cwd=folder,
        ),
        'multiple of eval_interval',
    )


def test_who_has_learned_nothing_predicts_that_nothing_changes(folder):
    policy, split = Policy.load(folder / 'out_swingup'), Prepared(folder / 'swingup', 'test')
    found = dreams.predictions(policy, split, n=4)
    assert list(found) == ['x', 'x_dot', 'theta', 'theta_dot'] and list(found['x']) == [1, 2, 4, 8, 16]
    assert all(
        e['policy']['mean'] == pytest.approx(e['stays']['mean'], rel=0.1) and e['stays']['n'] == 4
        for errors in found.values()
        for e in errors.values()
    )
    assert max(e['stays']['mean'] for e in found['theta'].values()) < np.pi  # an angle is never further off
    assert found['x'][16]['stays']['mean'] > 4 * found['x'][1]['stays']['mean']
    process = run(
        'sample_policy.py',
        '--out_dir=out_swingup',
        '--eval=test',
        '--eval_episodes=2',
        '--rows=unseen starts',
        '--data_dir=swingup',
        cwd=folder,
    )
    assert (
        process.returncode == 0
        and '| theta_dot | ' in process.stdout
        and 'in the regime of the teacher' in process.stdout
    ), process.stderr
