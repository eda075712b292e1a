"""Every number a token: their order, their loss, who sees whom, and where the bins lie."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_model import batch, last, make
from torch.nn import functional as F

from data import quantize
from nanopilot.bins import DONE, RESET
from nanopilot.kv_cache import act_uncached

BINS = dict(fuse='bins', head='tokens', chunk=1, n_bd=0, text_len=0, block_size=4 * 50)


def episode(model, S=6):
    _, obs, act, _ = batch(model, 2, S)
    return obs, act


def test_the_order_of_tokens():
    steps = make(**BINS).steps
    vocabulary = steps.vocabulary
    obs = torch.tensor([[-9.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    has_prev = torch.tensor([False, True])  # at the start there is no action before, whatever is given
    assert vocabulary.act_ids(torch.tensor([7, 1]), has_prev).tolist() == [RESET, 2 + 1]
    obs_ids = vocabulary.obs_ids(obs, steps.edges).tolist()
    assert obs_ids == [[4 + 0, 14 + 5, 24 + 9], [4 + 5, 14 + 5, 24 + 5]] and vocabulary.size == 34
    spans = [range(34)[vocabulary.legal(slot)] for slot in range(4)]
    assert (
        [len(s) for s in spans] == [10, 10, 10, 2]
        and sorted(i for s in spans for i in s) == list(range(2, 34))
        and DONE == 1
    )


def test_a_token_is_predicted_by_those_before_it_alone():
    model = make(**BINS)
    obs, act = episode(model)
    text, before = (
        torch.zeros(2, 0, dtype=torch.int64),
        model(torch.zeros(2, 0, dtype=torch.int64), *episode(model))[0]['token'],
    )
    for step in range(6):
        for k in range(3):
            other = obs.clone()
            other[:, step, 0, k] = -9 * other[:, step, 0, k].sign()
            moved = (model(text, other, act)[0]['token'] != before).any(-1).flatten(1)
            assert not moved[:, : 4 * step + k + 1].any() and moved[:, 4 * step + k + 1 :].all()


def test_the_loss_is_the_slow_obvious_one():
    """every token that there is counts once: those of the steps, actions to be imitated, and DONE"""
    model = make(**BINS)
    obs, act = episode(model)
    real, over, first = torch.ones(2, 6, 1, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.bool), torch.tensor([0, 3])
    real[0, 4:], over[0, 4] = False, True  # one ends after 4 steps by itself
    real[1, 2] = False  # the other does, once, what is not to be imitated
    out, loss = model(torch.zeros(2, 0, dtype=torch.int64), obs, act, loss_mask=real, start=first, terminated=over)
    ce, ids = [], model.steps.targets(obs)['obs_ids']
    for b, length in enumerate((4, 6)):
        for s in range(length):
            for k in range(3):
                if (b, s, k) != (1, 0, 0):  # nothing says where a segment begins
                    ce.append(F.cross_entropy(out['token'][b, s, k], ids[b, s, k]))
            if real[b, s, 0]:
                ce.append(F.cross_entropy(out['token'][b, s, 3], 2 + act[b, s, 0]))
    ce.append(F.cross_entropy(out['token'][0, 4, 0], torch.tensor(DONE)))
    assert loss.item() == pytest.approx(sum(ce).item() / (9 * 4), rel=1e-5)


def test_only_legal_actions_are_chosen():
    model = make(**BINS)
    with torch.no_grad():
        model.head.proj.bias[DONE] = 99
    obs, act = episode(model)
    assert set(act_uncached(model, torch.zeros(2, 0, dtype=torch.int64), obs, act).flatten().tolist()) <= {0, 1}


def test_with_words_and_returns():
    """a prompt in front and a bd on each step's first token: both are seen from there on"""
    model = make(**{**BINS, 'n_bd': 2, 'text_len': 6, 'block_size': 6 + 4 * 50})
    text, obs, act, bd = batch(model, 2, 5)
    before = last(model(text, obs, act, bd)[0])
    assert (last(model(text, obs, act, bd + 1)[0]) != before).any(-1).all() and (
        last(model(text.flip(1), obs, act, bd)[0]) != before
    ).any(-1).all()


def test_it_learns_to_count():
    model = make(loud=False, **{**BINS, 'n_obs': 1, 'block_size': 2 * 50}).train()
    text, optimizer = torch.zeros(8, 0, dtype=torch.int64), torch.optim.Adam(model.parameters(), 1e-2)
    begins, real = torch.arange(8)[:, None], torch.ones(8, 12, 1, dtype=torch.bool)
    bins = (begins + torch.arange(12)) % 10
    obs, act = (model.steps.edges + 1e-3)[0, bins][:, :, None, None], (bins % 2)[..., None]
    for _ in range(150):
        loss = model(text, obs, act, loss_mask=real)[1]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    out = model.eval()(text, obs, act)[0]
    assert (out['token'][:, 1:, 0].argmax(-1) == model.steps.targets(obs)['obs_ids'][:, 1:, 0]).all() and (
        out['act'].argmax(-1) == act[..., 0]
    ).all()


def test_bins_hold_equally_many():
    obs = np.random.default_rng(0).normal(size=(5000, 3)) * [1, 10, 0.1]
    split = SimpleNamespace(obs=obs, meta={'obs_names': ['a', 'b', 'c']})
    edges = quantize.fit_bins(split, 8, [0, 2], 0)
    assert edges.shape == (2, 9) and (np.diff(edges) > 0).all()
    for column, e in zip((0, 2), edges):
        assert np.bincount((obs[:, column, None] >= e[1:-1]).sum(1), minlength=8) == pytest.approx(
            np.full(8, 625), abs=2
        )
    split.obs[:, 2] = 0
    with pytest.raises(ValueError, match='c apart'):
        quantize.fit_bins(split, 8, [0, 2], 0)
