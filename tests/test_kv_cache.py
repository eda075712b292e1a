"""The cache: stepping through an episode gives what one forward pass over the whole of it gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import FUSE, batch, last, make

from data.text import PAD
from nanopilot.kv_cache import KVCache


def prompts_of(text):
    return [row[row != PAD].tolist() for row in text]


def rollout(model, text, obs, act, bd, cache=None, rows=None):
    """the heads' output at every step, by stepping (B, S, n)"""
    cache = cache or KVCache(model, len(obs))
    every = np.arange(len(obs)) if rows is None else rows
    cache.read(every, prompts_of(text))
    out = []
    for s in range(obs.shape[1]):
        before = act[:, s - 1] if s else torch.full_like(act[:, 0], 0)
        out.append(last(cache.step(obs[:, s], before, bd[:, min(s, bd.shape[1] - 1)], rows)))
        cache.t[every] += 1
    return torch.cat(out, 1)


@settings(max_examples=40, deadline=None)
@given(
    n_layer=st.sampled_from([1, 2, 4]),
    K=st.sampled_from([1, 2, 5, 40]),
    S=st.integers(1, 40),
    N=st.sampled_from([0, 1, 6]),
    fuse=st.sampled_from([*FUSE, 'bins']),
    past_actions=st.booleans(),
    n_bd=st.sampled_from([0, 2]),
    n_privileged=st.sampled_from([0, 2]),
    n_hidden=st.sampled_from([0, 3]),
    subgoal_layers=st.sampled_from([0, 2]),
    head=st.sampled_from(['mse', 'ce', 'kmeans']),
    seed=st.integers(0, 99),
)
def test_the_cache_equals_the_masked_forward(
    n_layer, K, S, N, fuse, past_actions, n_bd, n_privileged, n_hidden, subgoal_layers, head, seed
):
    """X1, X9: teacher-forced stepping, every head, far beyond the window"""
    n_slots = {'sum': 1, 'interleave': 1 + (n_bd > 0) + past_actions, 'bins': 4}[fuse]
    only = {}
    if fuse == 'bins':
        only = {'past_actions': True, 'n_privileged': 0, 'head': 'tokens', 'chunk': 1}
    elif subgoal_layers and n_bd:
        only = {'subgoal_layers': subgoal_layers, 'subgoal': True, 'n_future': 1}
    model = make(
        **{
            **dict(
                n_layer=n_layer,
                text_len=N,
                block_size=N + n_slots * K,
                fuse=fuse,
                past_actions=past_actions,
                n_bd=n_bd,
                n_privileged=n_privileged,
                n_hidden=n_hidden,
                head=head,
            ),
            **only,
        }
    )
    text, obs, act, bd = batch(model, 3, S, N, seed)
    if N == 6:
        text[1, 3:] = PAD  # rows may have prompts of different lengths
    out = model(text, obs, act, bd)[0]
    out.pop('future_bd', None)  # the cache predicts actions alone
    assert torch.allclose(rollout(model, text, obs, act, bd), last(out), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('fuse', FUSE)
def test_cropping_is_something_else(fuse):
    """X4: to cut the window out and compute it anew is not what was trained, from two layers on"""
    n_slots = {'sum': 1, 'interleave': 3}[fuse]
    model = make(n_layer=2, block_size=6 + n_slots * 4, fuse=fuse)
    text, obs, act, bd = batch(model, 2, 12)
    cropped = model(text, obs[:, -4:], act[:, -4:], bd, start=torch.tensor([8, 8]))[0]
    assert (last(cropped)[:, -1] - rollout(model, text, obs, act, bd)[:, -1]).abs().max() > 1e-2


@pytest.mark.parametrize('fuse', FUSE)
def test_the_past_reaches_exactly_so_far(fuse):
    """X2: the first step moves the steps up to L * (K - 1), and not a bit of those after it"""
    n_layer, K, S = 3, 4, 16
    model = make(n_layer=n_layer, block_size=6 + {'sum': 1, 'interleave': 3}[fuse] * K, fuse=fuse)
    text, obs, act, bd = batch(model, 1, S)
    other = obs.clone()
    other[:, 0] = torch.randn_like(obs[:, 0])
    difference = (rollout(model, text, obs, act, bd) - rollout(model, text, other, act, bd)).abs().amax((0, 2))
    reach = n_layer * (K - 1)
    assert difference[reach] > 0 and (difference[reach + 1 :] == 0).all()


@pytest.mark.parametrize('fuse', FUSE)
def test_rows_at_their_own_times(fuse):
    """
    X5, X6: a row that begins again in the middle of another's episode sees nothing of what was there, not even nan
    """
    model = make(block_size=6 + {'sum': 1, 'interleave': 3}[fuse] * 4, fuse=fuse)
    text, obs, act, bd = batch(model, 3, 14)
    whole = last(model(text, obs, act, bd)[0])
    cache, done = KVCache(model, 2), []
    cache.read(np.arange(2), prompts_of(text[:2]))
    at, who = [0, 0], [0, 1]
    for clock in range(14):
        if clock == 5:  # row 1 ends, its columns are poisoned, and episode 2 takes it
            cache.k[:, 1], cache.v[:, 1] = torch.nan, torch.nan
            cache.read(np.array([1]), prompts_of(text[2:]))
            at[1], who[1] = 0, 2
        o = torch.stack([obs[e, t] for e, t in zip(who, at)])
        a = torch.stack([act[e, t - 1] if t else act[e, 0] for e, t in zip(who, at)])
        out = last(cache.step(o, a, bd[who, 0]))
        cache.t += 1
        for row in range(2):
            done.append(torch.allclose(out[row, 0], whole[who[row], at[row]], atol=1e-4, rtol=1e-4))
            at[row] += 1
    assert all(done)


def test_some_rows_only():
    model = make()
    text, obs, act, bd = batch(model, 5, 6)
    whole = last(model(text, obs, act, bd)[0])
    rows, cache = np.array([4, 1]), KVCache(model, 5)
    before = cache.k.clone()
    out = rollout(model, text[rows], obs[rows], act[rows], bd[rows], cache, rows)
    assert torch.allclose(out, whole[rows], atol=1e-4, rtol=1e-4)
    assert torch.equal(cache.k[:, [0, 2, 3]], before[:, [0, 2, 3]]) and cache.t.tolist() == [0, 6, 0, 0, 6]


def test_a_step_can_be_taken_again():
    """until it is counted: a rollout that waits for one row changes nothing for the others"""
    model = make()
    text, obs, act, bd = batch(model, 2, 6)
    whole, cache = last(model(text, obs, act, bd)[0]), KVCache(model, 2)
    cache.read(np.arange(2), prompts_of(text))
    for s in range(6):
        before = act[:, s - 1] if s else act[:, 0]
        cache.step(torch.randn_like(obs[:, s]), torch.randn_like(before), bd[:, 0])
        assert torch.allclose(last(cache.step(obs[:, s], before, bd[:, 0]))[:, 0], whole[:, s], atol=1e-4, rtol=1e-4)
        cache.t += 1


def test_the_cache_does_not_grow():
    model = make(block_size=6 + 3 * 4)
    text, obs, act, bd = batch(model, 2, 30)
    cache = KVCache(model, 2)
    held = cache.k.numel()
    rollout(model, text, obs, act, bd, cache)
    assert cache.k.numel() == held == 2 * 2 * 2 * (6 + 3 * 5) * 8


def test_an_episode_that_is_too_long_is_refused():
    """X8: never a clamp"""
    model = make(max_steps=3)
    text, obs, act, bd = batch(model, 1, 4)
    with pytest.raises(ValueError, match='step 3.*3 only'):
        rollout(model, text, obs, act, bd)


def test_a_prompt_is_read_once_however_many_rows_have_it(monkeypatch):
    """X7: and its length in other rows changes nothing"""
    model, shapes = make(), []
    embed_text = model.embed_text
    monkeypatch.setattr(model, 'embed_text', lambda text: shapes.append(text.shape) or embed_text(text))
    text, obs, act, bd = batch(model, 6, 5, 6, n_words=4)
    text[:4] = text[0]
    text[4:] = text[4]
    out = rollout(model, text, obs, act, bd)
    assert shapes == [(2, 4)]
    assert torch.allclose(out[:4], rollout(model, text[:4, :4], obs[:4], act[:4], bd[:4]), atol=1e-5)
