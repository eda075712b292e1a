"""Policy, the face for a user's own loop: many rows, each at its own step, and what is refused."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from data.toy_nav import make_vec
from nanopilot.kv_cache import act_uncached
from nanopilot.policy import Policy

PROMPTS = ['go north of the fridge', 'stop at the stove', 'go to the bed, then the sofa']


@pytest.fixture
def policy(trained):
    return Policy.load(trained)


def episode(n, T=40, seed=0):
    """observations as an environment may show them (T, n, 9)"""
    return (np.random.default_rng(seed).normal(0.5, 0.25, (T, n, 9)) * [1, 1, 1, 1, 1, 200, 200, 1, 1]).astype(
        np.float32
    )


def act_on(policy, obs_log):
    return np.stack([policy.act(obs) for obs in obs_log])


def test_the_loop_of_its_docstring(policy):
    n = 4
    env = make_vec(n)
    assert env.metadata['autoreset_mode'] == AutoresetMode.NEXT_STEP
    obs, _ = env.reset(seed=0)
    policy.reset(['go north of the fridge'] * n)
    over, ended = np.zeros(n, bool), 0
    for _ in range(450):
        obs, _, terminated, truncated, _ = env.step(policy.act(obs, skip=over))
        policy.reset_rows(over)
        over = terminated | truncated
        ended += over.sum()
    assert ended >= n


def test_a_row_after_its_reset_is_as_good_as_new(policy):
    """the ignored step of NEXT_STEP does not advance the cache, and nothing of the old episode is left"""
    obs_log = episode(3)
    policy.reset(PROMPTS)
    alone = act_on(policy, obs_log[:24])
    policy.reset(PROMPTS)
    for t in range(13):  # not a multiple of chunk: rows decide at different times from now on
        policy.act(obs_log[t] + 5)
    policy.act(np.full_like(obs_log[0], np.nan), skip=np.ones(3, bool))  # what an ended row is shown is not looked at
    policy.reset_rows([True, False, True])
    again = act_on(policy, obs_log[:24])
    assert np.allclose(again[:, [0, 2]], alone[:, [0, 2]], atol=1e-4) and not np.allclose(
        again[:, 1], alone[:, 1], atol=1e-4
    )


def test_rows_that_wait_do_not_move(policy):
    obs_log = episode(2)
    policy.reset(PROMPTS[:2])
    straight = act_on(policy, obs_log[:30])
    policy.reset(PROMPTS[:2])
    got, t, rng = [[], []], [0, 0], np.random.default_rng(1)
    while min(t) < 30:
        skip = rng.random(2) < 0.4
        skip |= np.array(t) >= 30
        act = policy.act(np.stack([obs_log[min(k, 29), i] for i, k in enumerate(t)]), skip=skip)
        for i in np.flatnonzero(~skip):
            got[i].append(act[i])
            t[i] += 1
    assert np.allclose(np.array(got).swapaxes(0, 1), straight, atol=1e-4)


def test_a_prompt_changed_on_the_way_acts_as_if_asked_from_the_start(policy):
    """the next decision is the one that a full pass over the same past under the new prompt gives"""
    obs_log = episode(2)
    policy.reset(PROMPTS[:2], [[10, 20], None])
    act_on(policy, obs_log[:24])
    policy.change_prompts([True, False], ['go to the bed'])
    past, t = [a[0, :3].copy() for a in policy.past], policy.cache.t[0]
    assert policy.prompts == ['go to the bed', PROMPTS[1]] and t == 3
    act = policy.act(obs_log[24])
    obs, act_log = (
        np.concatenate([past[0], policy.past[0][0, 3:4]]),
        np.concatenate([past[1][1:], policy.past[1][0, 3:4]]),
    )
    expected = act_uncached(
        policy.model,
        torch.tensor([policy.tokens('go to the bed')]),
        torch.from_numpy(obs)[None],
        torch.from_numpy(np.concatenate([act_log, np.zeros_like(act_log[:1])]))[None],
        torch.tensor([[[10.0, 20.0]]]),
    )
    assert np.allclose(act[0], expected[0, 0], atol=1e-4)


def test_a_plan_that_has_begun_is_carried_out_before_another_prompt_counts(policy):
    obs_log = episode(1)
    policy.reset(PROMPTS[:1])
    before = act_on(policy, obs_log[:24])
    policy.reset(PROMPTS[:1])
    act_on(policy, obs_log[:19])
    policy.change_prompts([True], [PROMPTS[2]])
    assert np.array_equal(act_on(policy, obs_log[19:24]), before[19:24])
    in_the_middle = policy.act(obs_log[24])
    policy.reset(PROMPTS[:1])
    act_on(policy, obs_log[:24])
    policy.change_prompts([True], [PROMPTS[2]])
    assert np.allclose(policy.act(obs_log[24]), in_the_middle, atol=1e-5)


@pytest.mark.parametrize('at', [0, 3, 8, 9])
def test_a_bd_counts_from_the_next_decision_on_whenever_it_is_given(policy, at):
    """and stays: nan where there is none, for the rows that take a step"""
    obs_log, bd = episode(3), np.array([[10, 20], [150, 40], [90, 90]])
    decision = -(-at // 8) * 8

    def acted(given_at, changes=False):
        policy.reset(PROMPTS)
        acts = []
        for t, obs in enumerate(obs_log[:32]):
            acts.append(policy.act(obs, bd if t == given_at else None))
            if changes and t == at:
                policy.change_prompts([True, True, False], PROMPTS[:2])
        return np.array(acts)

    never, given = acted(None), acted(at)
    assert np.array_equal(given[:decision], never[:decision])
    assert not np.allclose(given[decision], never[decision], atol=1e-4)
    assert np.allclose(given, acted(decision), atol=1e-5)
    assert np.allclose(given, acted(at, changes=True), atol=1e-4), 'reading the past again does not forget it'


def test_a_prompt_that_is_refused_changes_nothing(policy):
    obs_log, long = episode(3), 'go to the bed ' * 60
    with pytest.raises(ValueError, match='tokens'):
        policy.reset([*PROMPTS[:2], long])
    with pytest.raises(ValueError, match='Call reset'):
        policy.act(obs_log[0])
    policy.reset(PROMPTS)
    straight = act_on(policy, obs_log[:30])
    policy.reset(PROMPTS)
    acts = list(act_on(policy, obs_log[:12]))
    for refused, words in (
        (lambda: policy.reset([long]), 'tokens'),
        (lambda: policy.reset_rows([True, False, True], ['go to the fan', long], [None, [1, 2]]), 'tokens'),
        (lambda: policy.change_prompts([True, False, True], ['go to the fan', long]), 'tokens'),
        (lambda: policy.change_prompts([True, False, True], ['go to the fan']), '1 prompts for 2 rows'),
    ):
        with pytest.raises(ValueError, match=words):
            refused()
    assert policy.prompts == PROMPTS
    assert np.array_equal([*acts, *act_on(policy, obs_log[12:30])], straight)


def test_what_cannot_be_is_refused(policy):
    with pytest.raises(ValueError, match='reset'):
        policy.act(episode(1)[0])
    policy.reset(PROMPTS)
    for obs, words in (
        (episode(2)[0], 'shape'),
        (episode(3)[0][:, :5], 'shape'),
        (np.full((3, 9), np.nan), 'is nan in row 0'),
        (np.full((3, 9), 1e9), 'Are the units'),
    ):
        with pytest.raises(ValueError, match=words):
            policy.act(obs)
    with pytest.raises(ValueError, match='tokens'):
        policy.reset(['go to the bed ' * 60])
