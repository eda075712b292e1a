"""The policy: what each token sees, what the loss counts, what acting returns."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from data.text import PAD
from model import GPT, HEADS, STEPS, GPTConfig, MSEHead, StepEmbedding
from nanopilot import attention
from nanopilot.auxiliary import FUTURE_BINS, FUTURE_WEIGHT
from nanopilot.kv_cache import KVCache, act_uncached, by_columns
from nanopilot.layers import squared_relu
from nanopilot.sampling import sample_logits

TINY = dict(
    block_size=6 + 3 * 50,
    text_len=6,
    vocab_size=20,
    max_steps=50,
    chunk=2,
    fuse='interleave',
    past_actions=True,
    obs_stack=0,
    n_obs=3,
    n_act=2,
    n_bd=2,
    n_layer=2,
    n_head=2,
    n_embd=16,
    n_future=0,
    n_freq=2,
    n_clusters=4,
)


FUSE = ['interleave', 'sum']  # three tokens a step, or one


def make(loud=True, **changes):
    """a small model; loud: weights large enough that whatever may have an influence has one"""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**TINY, **changes})).eval()
    if loud:
        for name, p in model.named_parameters():
            if p.dim() > 1 or name == 'steps.bd_null':
                std = 0.05 if name.startswith('recurrent.estimate') else 0.3  # what feeds back must not run away
                torch.nn.init.normal_(p, std=std)
        if model.config.head == 'kmeans':
            torch.nn.init.normal_(model.head.centers)
    return model


def batch(model, B=2, S=7, N=5, seed=1, n_words=None):
    """text, obs, act, bd of random numbers; n_words real prompt tokens, then padding"""
    c, g = model.config, torch.Generator().manual_seed(seed)
    text = torch.randint(4, c.vocab_size, (B, N if c.text_len else 0), generator=g)
    if n_words is not None:
        text[:, n_words:] = PAD
    obs = torch.randn(B, S, c.chunk, c.n_obs, generator=g)
    act = (
        torch.randint(c.n_act, (B, S, c.chunk), generator=g)
        if HEADS[c.head].discrete
        else torch.randn(B, S, c.chunk, c.n_act, generator=g)
    )
    return text, obs, act, torch.randn(B, 1, c.n_bd, generator=g)


def last(out):
    return torch.cat([v.flatten(2) for v in out.values()], -1)  # (B, S, all that is predicted)


def tokens(model, text, obs, act, bd):
    """the sequence of model.py's diagram, embedded"""
    B, S = obs.shape[:2]
    t = torch.arange(S).expand(B, S)
    prev_act = F.pad(model.head.encode(act).flatten(2)[:, :-1], (0, 0, 1, 0))
    x, _ = model.embed_steps(obs, prev_act, model.steps.embed_bd(bd), t > 0, t)
    return torch.cat([model.embed_text(text), x.flatten(1, 2)[:, model.steps.first_slot :]], 1)


def mask(model, text, S):
    T = text.shape[1] + S * model.config.n_slots - model.steps.first_slot
    return attention.mask(text, T, model.config.n_slots, model.config.window)


def test_padding_may_go_on_beyond_the_longest_episode():
    """a segment that begins late, among longer ones: GPUs want one shape"""
    model = make()
    text, obs, act, bd = batch(model, S=8)
    real = (torch.arange(8) < 5)[None, :, None].expand(2, 8, 2)
    late = torch.full((2,), 45)  # of 50
    padded = model(text, obs, act, bd, start=late, loss_mask=real)[1]
    short = model(text, obs[:, :5], act[:, :5], bd, start=late, loss_mask=real[:, :5])[1]
    assert torch.allclose(padded, short)


# ------------------------------------------------------------------------------
# order and mask


def test_token_order():
    """prompt first, then act before, bd, obs of each step: each input moves exactly its own rows of the sequence"""
    model, S, N = make(), 3, 4
    text, obs, act, _ = batch(model, 1, S, N)
    bd = torch.randn(1, S, 2)
    before = tokens(model, text, obs, act, bd)
    assert before.shape == (1, N + 3 * S - 1, 16)

    def rows(**changed):
        after = tokens(model, **{'text': text, 'obs': obs, 'act': act, 'bd': bd, **changed})
        return (after != before).any(-1)[0].nonzero().flatten().tolist()

    for i in range(N):
        other = text.clone()
        other[0, i] = 3
        assert rows(text=other) == [i]
    for t in range(S):
        plus = torch.zeros(1, S, 1)
        plus[0, t] = 1
        assert rows(bd=bd + plus) == [N + 3 * t]
        assert rows(obs=obs + plus[..., None]) == [N + 3 * t + 1]
        assert rows(act=act + plus[..., None]) == [N + 3 * t + 2] * (t + 1 < S)  # the last one is what is predicted


def test_a_token_knows_its_place_and_its_time():
    model = make()
    text, obs, act, bd = batch(model, 1, 2, 2)
    x = tokens(model, torch.full((1, 2), 7), obs[:, :1].repeat(1, 3, 1, 1), act[:, :1].repeat(1, 3, 1, 1), bd)
    assert not torch.allclose(x[0, 0], x[0, 1])  # the same word twice
    assert not torch.allclose(x[0, 2:5], x[0, 5:8])  # the same step twice
    same = x[0, 5:8] - x[0, 2:5]
    assert torch.allclose(same, same[:1].expand(3, -1), atol=1e-6)  # and one embedding for the three tokens of a step


def test_token_order_where_a_step_is_one_token():
    """the sum of bd, obs and the action before"""
    model, S, N = make(fuse='sum'), 3, 4
    text, obs, act, _ = batch(model, 1, S, N)
    bd = torch.randn(1, S, 2)
    before = tokens(model, text, obs, act, bd)
    assert before.shape == (1, N + S, 16)

    def rows(obs=obs, act=act, bd=bd):
        return (tokens(model, text, obs, act, bd) != before).any(-1)[0].nonzero().flatten().tolist()

    for t in range(S):
        plus = torch.zeros(1, S, 1)
        plus[0, t] = 1
        assert rows(bd=bd + plus) == rows(obs=obs + plus[..., None]) == [N + t]
        assert rows(act=act + plus[..., None]) == [N + t + 1] * (t + 1 < S)


@pytest.mark.parametrize('fuse', FUSE)
@pytest.mark.parametrize('head', ['mse', 'kmeans', 'ce'])
def test_future_does_not_leak(head, fuse):
    model = make(head=head, fuse=fuse, n_future=2)
    text, obs, act, bd = batch(model)
    before = last(model(text, obs, act, bd)[0])
    for t in range(7):
        _, obs2, act2, _ = batch(model, seed=2 + t)
        obs2[:, : t + 1], act2[:, :t] = obs[:, : t + 1], act[:, :t]  # act_t itself is what is to be predicted
        after = last(model(text, obs2, act2, bd)[0])
        assert torch.allclose(before[:, : t + 1], after[:, : t + 1], atol=1e-6)
        assert t == 6 or (before[:, t + 1 :] - after[:, t + 1 :]).abs().max() > 1e-3


@pytest.mark.parametrize('fuse', FUSE)
def test_everything_of_the_past_has_an_influence(fuse):
    model = make(fuse=fuse)
    inputs = batch(model)
    before = last(model(*inputs)[0])[:, -1]
    for k in range(4):
        changed = list(inputs)
        changed[k] = inputs[k].clone()
        changed[k][:, 0] = 3 if k == 0 else inputs[k][:, 0] + 1
        assert (last(model(*changed)[0])[:, -1] - before).abs().max() > 1e-3, ['text', 'obs', 'act', 'bd'][k]


def test_the_mask_counts_its_keys():
    model = make(block_size=6 + 3 * 3)  # K = 3
    K, n_words, N, S = 3, 4, 6, 7
    text, *_ = batch(model, 1, S, N, n_words=n_words)
    seen = mask(model, text, S)[0, 0]
    assert model.config.window == K and seen.shape == (N + 3 * S - 1,) * 2
    for t in range(S):
        for slot in range(
            3 if t + 1 < S else 2
        ):  # bd, obs and the action after them see what the step sees, up to themselves
            assert seen[N + 3 * t + slot].sum() == n_words + 3 * min(t + 1, K) - (2 - slot)
    assert not seen[:, n_words:N].any()


def test_the_mask_counts_its_keys_where_a_step_is_one_token():
    model = make(block_size=6 + 3, fuse='sum')
    text, *_ = batch(model, 1, N=6, n_words=4)
    seen = mask(model, text, 7)[0, 0]
    assert model.config.window == 3 and [int(seen[6 + t].sum()) for t in range(7)] == [
        4 + min(t + 1, 3) for t in range(7)
    ]


def test_the_mask_is_the_slow_obvious_one():
    model = make(block_size=6 + 3 * 2)
    text = torch.tensor([[5, 6, 7, PAD], [5, PAD, PAD, PAD]])
    got, N, S, K = mask(model, text, 5), 4, 5, 2
    for b in range(2):
        for i in range(N + 3 * S - 1):
            for j in range(N + 3 * S - 1):
                if j < N:
                    expected = text[b, j] != PAD and j <= i
                else:
                    expected = j <= i and (i - N) // 3 - (j - N) // 3 < K
                assert got[b, 0, i, j] == bool(expected), (b, i, j)


@pytest.mark.parametrize('fuse', FUSE)
@pytest.mark.parametrize('K, n_layer', [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_the_window_slides(K, n_layer, fuse):
    """through L layers a step reaches L (K - 1) further, and not one more"""
    model = make(block_size=6 + (3 if fuse == 'interleave' else 1) * K, n_layer=n_layer, fuse=fuse).double()
    text, obs, act, bd = (a.double() if a.is_floating_point() else a for a in batch(model, 1, 12))
    other = obs.clone()
    other[:, 0] += torch.randn(other[:, 0].shape, dtype=torch.double)
    moved = (last(model(text, obs, act, bd)[0]) - last(model(text, other, act, bd)[0])).abs().amax((0, 2))
    reach = n_layer * (K - 1)
    assert moved[reach] > 1e-9
    assert (moved[reach + 1 :] < 1e-12).all()


@pytest.mark.parametrize('head', ['mse', 'kmeans', 'ce'])
def test_padding_changes_nothing(head):
    model = make(head=head, fuse='sum' if head == 'kmeans' else 'interleave')
    text, obs, act, bd = batch(model, n_words=3)
    real = torch.ones(2, 7, 2, dtype=torch.bool)
    short, long = text[:, :3], F.pad(text, (0, 1), value=PAD)
    (out, loss), (out2, loss2) = model(short, obs, act, bd, loss_mask=real), model(long, obs, act, bd, loss_mask=real)
    assert torch.allclose(last(out), last(out2), atol=1e-5)
    assert loss.item() == pytest.approx(loss2.item(), rel=1e-6)
    assert torch.allclose(
        act_uncached(model, short, obs, act, bd).float(), act_uncached(model, long, obs, act, bd).float(), atol=1e-5
    )


def test_a_row_does_not_depend_on_the_others():
    model = make()
    text, obs, act, bd = batch(model, 3)
    alone = act_uncached(model, text[1:2], obs[1:2], act[1:2], bd[1:2])
    assert torch.allclose(act_uncached(model, text, obs, act, bd)[1:2], alone, atol=1e-6)


def test_more_steps_than_max_steps_are_refused():
    model = make(max_steps=4, block_size=6 + 3 * 4)
    with pytest.raises(AssertionError, match='max_steps=4'):
        model(*batch(model, S=5))


def test_a_block_that_holds_no_step_is_refused():
    with pytest.raises(ValueError, match='block_size=8 .* Raise it'):
        make(block_size=8)


# ------------------------------------------------------------------------------
# conditions


@pytest.mark.parametrize('given', [[float('nan'), 0.3], [0.3, float('nan')], [float('nan')] * 2])
def test_a_nan_means_not_given_whatever_the_other_numbers(given):
    model = make()
    text, obs, act, bd = batch(model)
    nothing = model(text, obs, act, torch.full((2, 1, 2), float('nan')))[0]['act']
    assert torch.equal(model(text, obs, act, torch.tensor(given).expand(2, 1, 2))[0]['act'], nothing)
    assert not torch.allclose(model(text, obs, act, bd)[0]['act'], nothing)
    assert not torch.allclose(
        model(text, obs, act, torch.zeros(2, 1, 2))[0]['act'], nothing
    )  # 0 is a number like any other


def test_a_nan_leaves_the_gradients_finite():
    model = make(n_future=2)
    text, obs, act, bd = batch(model)
    bd[0] = float('nan')
    every = torch.ones(2, 7, 2, dtype=torch.bool)
    model(text, obs, act, bd, loss_mask=every, future_bd=torch.randn(2, 7, 2, 2))[1].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_one_bd_stands_for_every_step():
    model = make()
    text, obs, act, bd = batch(model)
    assert torch.allclose(
        model(text, obs, act, bd)[0]['act'], model(text, obs, act, bd.expand(2, 7, 2))[0]['act'], atol=1e-6
    )


def test_without_bd_a_step_has_two_tokens():
    model = make(n_bd=0, block_size=6 + 2 * 3)
    text, obs, act, _ = batch(model)
    assert model.config.n_slots == 2 and model.config.window == 3
    assert tokens(model, text, obs, act, None).shape == (2, 5 + 2 * 7 - 1, 16)
    obs2 = obs.clone()
    obs2[:, 4] += 1
    moved = (model(text, obs, act)[0]['act'] != model(text, obs2, act)[0]['act']).any(-1).any(0)
    assert moved.tolist() == [False] * 4 + [True] * 3
    assert act_uncached(model, text, obs, act).shape == (2, 2, 2)
    one = make(n_bd=0, fuse='sum')
    assert tokens(one, text, obs, act, None).shape == (2, 5 + 7, 16) and act_uncached(one, text, obs, act).shape == (
        2,
        2,
        2,
    )


def test_without_bd_there_is_no_future_bd_to_predict():
    with pytest.raises(ValueError, match='n_future=3.*--n_future=0'):
        make(n_bd=0, n_future=3)


@pytest.mark.parametrize('fuse', FUSE)
def test_without_past_actions_they_change_nothing(fuse):
    model = make(fuse=fuse, past_actions=False)
    text, obs, act, bd = batch(model)
    assert (
        model.config.n_slots == {'interleave': 2, 'sum': 1}[fuse]
        and tokens(model, text, obs, act, bd).shape[1] == 5 + 7 * model.config.n_slots
    )
    assert torch.equal(last(model(text, obs, act, bd)[0]), last(model(text, obs, torch.randn_like(act), bd)[0]))
    obs2 = obs.clone()
    obs2[:, 4] += 1
    difference = (last(model(text, obs2, act, bd)[0]) - last(model(text, obs, act, bd)[0])).abs().amax((0, 2))
    assert (difference[:4] < 1e-6).all() and (
        difference[4:] > 1e-3
    ).all()  # each step still decides at its own observation


def test_obs_stack_is_how_many_observations_a_step_shows():
    for obs_stack, chunk in (1, 3), (2, 3), (0, 3):
        model = make(obs_stack=obs_stack, chunk=chunk)
        text, obs, act, bd = batch(model)
        before = last(model(text, obs, act, bd)[0])
        for k in range(chunk):
            other = obs.clone()
            other[:, :, k] += 1
            assert torch.equal(last(model(text, other, act, bd)[0]), before) == (k < chunk - (obs_stack or chunk))


def test_without_language_the_episode_comes_first():
    model = make(text_len=0, block_size=3 * 50)
    text, obs, act, bd = batch(model)
    assert text.shape == (2, 0) and tokens(model, text, obs, act, bd).shape == (2, 3 * 7 - 1, 16)
    assert torch.allclose(
        act_uncached(model, text, obs, act, bd).flatten(1), model(text, obs, act, bd)[0]['act'][:, -1], atol=1e-6
    )


# ------------------------------------------------------------------------------
# loss


def plain(**changes):
    """one observation, one action, one step at a time, no prompt, and heads that say what their bias says"""
    model = make(loud=False, **{**dict(text_len=0, block_size=60, chunk=1, n_obs=1, n_act=1, n_clusters=2), **changes})
    for name, p in model.named_parameters():
        if name.startswith(('head', 'aux')):
            torch.nn.init.zeros_(p)
    return model


def test_the_loss_counts_real_steps_only():
    model = plain()
    with torch.no_grad():
        model.head.proj.bias.fill_(0.5)
    act = torch.tensor([[1.0, 2.0, 99.0], [0.0, 99.0, 99.0]]).reshape(2, 3, 1, 1)
    real = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)[..., None]
    loss = model(
        torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 3, 1, 1), act, torch.zeros(2, 1, 2), loss_mask=real
    )[1]
    assert loss.item() == pytest.approx((0.25 + 2.25 + 0.25) / 3)  # of three real steps; not a mean of episodes' means


def test_the_loss_counts_half_a_chunk():
    model = plain(chunk=2)
    act = torch.tensor([[1.0, 2.0], [3.0, 99.0]]).reshape(1, 2, 2, 1)
    real = torch.tensor([[[1, 1], [1, 0]]], dtype=torch.bool)
    loss = model(
        torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 2, 2, 1), act, torch.zeros(1, 1, 2), loss_mask=real
    )[1]
    assert loss.item() == pytest.approx((1 + 4 + 9) / 3)


def test_the_loss_is_in_normalised_actions():
    model = plain()
    model.head.act_norm.mean.fill_(2.0)
    model.head.act_norm.std.fill_(4.0)
    loss = model(
        torch.zeros(1, 0, dtype=torch.long),
        torch.zeros(1, 1, 1, 1),
        torch.full((1, 1, 1, 1), 10.0),
        torch.zeros(1, 1, 2),
        loss_mask=torch.ones(1, 1, 1, dtype=torch.bool),
    )[1]
    assert loss.item() == pytest.approx(((10 - 2) / 4) ** 2)


def test_cross_entropy_of_hand_made_logits():
    model = plain(head='ce', n_act=3)
    with torch.no_grad():
        model.head.proj.bias.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
    act, real = torch.tensor([[[1], [2], [0]]]), torch.tensor([[[True], [True], [False]]])
    loss = model(
        torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 3, 1, 1), act, torch.zeros(1, 1, 2), loss_mask=real
    )[1]
    assert loss.item() == pytest.approx(-(math.log(2 / 8) + math.log(5 / 8)) / 2)


def kmeans_by_hand():
    model = plain(head='kmeans', offset_weight=10.0)
    model.head.centers.copy_(torch.tensor([[-1.0], [1.0]]))
    with torch.no_grad():
        model.head.offset.bias.copy_(torch.tensor([0.1, 0.3]))
        model.head.cluster.bias.copy_(torch.tensor([math.log(3), 0.0]))  # it prefers the first
    return model


def test_kmeans_offsets_belong_to_the_true_cluster():
    model = kmeans_by_hand()
    args = (
        torch.zeros(1, 0, dtype=torch.long),
        torch.zeros(1, 1, 1, 1),
        torch.full((1, 1, 1, 1), 0.8),
        torch.zeros(1, 1, 2),
    )
    loss = model(*args, loss_mask=torch.ones(1, 1, 1, dtype=torch.bool))[1]
    # 0.8 is nearest to centre 1, which the head gives 1/4; with its offset 1 + 0.3
    assert loss.item() == pytest.approx(-math.log(1 / 4) + 10 * (1.3 - 0.8) ** 2, rel=1e-5)
    loss.backward()
    assert model.head.offset.bias.grad[0] == 0 and model.head.offset.bias.grad[1] > 0


def test_kmeans_acts_with_centre_plus_offset():
    model = kmeans_by_hand()
    model.head.act_norm.mean.fill_(5.0)
    model.head.act_norm.std.fill_(2.0)
    args = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 2)
    assert act_uncached(model, *args).item() == pytest.approx((-1 + 0.1) * 2 + 5)
    many = [a.expand(400, *a.shape[1:]) for a in args]
    drawn = act_uncached(model, *many, temperature=1.0, generator=torch.Generator().manual_seed(0)).flatten()
    assert torch.allclose(drawn.unique(), torch.tensor([-0.9 * 2 + 5, 1.3 * 2 + 5]))
    assert (drawn > 5).float().mean().item() == pytest.approx(1 / 4, abs=0.07)


def test_a_cluster_for_each_dimension():
    """not joint_clusters: every dimension chooses among its own centres"""
    model = plain(head='kmeans', n_act=2, chunk=2, n_clusters=3, joint_clusters=False)
    centers = torch.arange(12.0).view(2, 3, 2)  # (dimension, cluster, chunk)
    model.head.centers.copy_(centers)
    # clusters 2 and 0 of the two dimensions, off by 0.25: act is (chunk, n_act)
    act = torch.stack([centers[0, 2], centers[1, 0]], 1)[None, None] + 0.25
    args = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 1, 2, 1), act, torch.zeros(1, 1, 2)
    loss = model(*args, loss_mask=torch.ones(1, 1, 2, dtype=torch.bool))[1].item()
    assert loss == pytest.approx(math.log(3) + 10 * 0.25**2)  # the logits are 0: each choice has a third
    with torch.no_grad():
        logits = model.head.cluster.bias.view(2, 3)
        logits[0, 2] = logits[1, 0] = 9.0
    assert torch.allclose(act_uncached(model, *args)[0], act[0, 0] - 0.25)


def test_predicting_the_future_bd_counts_real_steps_only():
    model = plain(n_future=2)
    model.aux['future_bd'].proj.bias.data.view(2, -1, FUTURE_BINS)[:, :, 20] = (
        10.0  # it says: in the 21st of 40 intervals of [0, 1]
    )
    args = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 2)
    real, future = torch.tensor([[[True], [True], [False]]]), torch.full((1, 3, 2, 2), 0.51)
    right, wrong = (math.log(math.exp(10) + FUTURE_BINS - 1) - logit for logit in (10, 0))
    future[:, 1] = 0.3
    for future[:, 2] in (0.51, 0.3, 1e6):  # the episode is over there
        loss = model(*args, loss_mask=real, future_bd=future)[1].item()
        assert loss == pytest.approx(FUTURE_WEIGHT * (right + wrong) / 2)  # the actions are right
    assert model(*args, loss_mask=real)[1].item() == 0


@pytest.mark.parametrize(
    'head, below, name',
    [('mse', 0.02, 'adamw'), ('kmeans', 0.1, 'adamw'), ('ce', 0.02, 'adamw'), ('mse', 0.02, 'muon')],
)
def test_overfits_one_batch(head, below, name):
    model = make(loud=False, head=head, n_embd=32, n_act=3).train()
    text, obs, act, bd = batch(model, 4, 5)
    if head == 'kmeans':
        model.head.centers.copy_(act.flatten(2).flatten(0, 1)[:4])
    real = torch.ones(4, 5, 2, dtype=torch.bool)
    optimizers = model.configure_optimizers(name, 0.0, 1e-2, (0.9, 0.95))
    losses = []
    for _ in range(150):
        loss = model(text, obs, act, bd, loss_mask=real)[1]
        loss.backward()
        for o in optimizers:
            o.step()
            o.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < below * losses[0], (losses[0], losses[-1])


def test_matrices_decay_and_vectors_do_not():
    model = make()
    decays, does_not = model.configure_optimizers('adamw', 0.1, 1e-3, (0.9, 0.95))[0].param_groups
    assert decays['weight_decay'] == 0.1 and all(p.dim() >= 2 for p in decays['params'])
    assert does_not['weight_decay'] == 0.0 and all(p.dim() < 2 for p in does_not['params'])
    assert len(decays['params']) + len(does_not['params']) == len(list(model.parameters()))


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = make(bias=True)
    adamw, muon = model.configure_optimizers('muon', 0.1, 1e-3, (0.9, 0.95))
    hidden = {
        id(p)
        for name, p in model.named_parameters()
        if name.startswith('h.') and name.endswith('weight') and 'ln' not in name
    }
    assert {id(p) for p in muon.param_groups[0]['params']} == hidden and len(hidden) == 8
    assert {id(p) for group in adamw.param_groups for p in group['params']} == {
        id(p) for p in model.parameters()
    } - hidden


# ------------------------------------------------------------------------------
# acting


@pytest.mark.parametrize('fuse', FUSE)
def test_act_equals_full_forward(fuse):
    """stepping through an episode says what one pass over the whole of it says"""
    for head in 'mse', 'kmeans', 'ce':
        model = make(head=head, fuse=fuse, block_size=6 + 3 * 3)
        text, obs, act, bd = batch(model)
        whole = model(text, obs, act, bd)[0]
        for t in range(7):
            a = act_uncached(model, text, obs[:, : t + 1], act[:, : t + 1], bd)
            if head == 'mse':
                expected = whole['act'][:, t].view(2, 2, 2)
            elif head == 'ce':
                expected = whole['act'][:, t].view(2, 2, 2).argmax(-1)
            else:
                best = whole['cluster'][:, t].argmax(-1)
                expected = (
                    model.head.centers[0, best]
                    + torch.stack([whole['offset'][b, t].view(4, -1)[best[b]] for b in range(2)])
                ).view(2, 2, 2)
            assert torch.allclose(a.float(), expected.float(), atol=1e-5), (head, t)


@pytest.mark.parametrize('fuse', FUSE)
def test_the_action_to_come_is_not_looked_at(fuse):
    model = make(fuse=fuse)
    text, obs, act, bd = batch(model)
    other = act.clone()
    other[:, -1] += 100
    assert torch.equal(act_uncached(model, text, obs, act, bd), act_uncached(model, text, obs, other, bd))


def test_actions_are_in_units_and_within_bounds():
    model = make()
    args = batch(model)
    free = act_uncached(model, *args)
    model.head.act_norm.mean.fill_(3.0)
    model.head.act_norm.std.fill_(2.0)
    shifted = list(args)
    shifted[2] = args[2] * 2 + 3
    assert torch.allclose(act_uncached(model, *shifted), free * 2 + 3, atol=1e-4)
    model.head.act_norm.low.fill_(2.9)
    model.head.act_norm.high.fill_(3.1)
    a = act_uncached(model, *shifted)
    assert a.min() >= 2.9 and a.max() <= 3.1


def test_chunk_1_is_the_plain_case():
    model = make(chunk=1)
    text, obs, act, bd = batch(model)
    out, loss = model(text, obs, act, bd, loss_mask=torch.ones(2, 7, 1, dtype=torch.bool))
    assert out['act'].shape == (2, 7, 2) and act_uncached(model, text, obs, act, bd).shape == (2, 1, 2)
    assert loss.item() == pytest.approx(((out['act'] - act[:, :, 0]) ** 2).mean().item(), rel=1e-5)


def test_draw_is_greedy_or_as_probable_as_said():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(20000, 1)
    g = torch.Generator().manual_seed(0)
    assert (sample_logits(logits, 0.0, 1.0, g) == 0).all()

    def shares(*how):
        return torch.bincount(sample_logits(logits, *how, g), minlength=4) / 20000

    assert torch.allclose(shares(1.0, 1.0), torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.015)
    assert torch.allclose(shares(0.5, 1.0), torch.tensor([0.25, 0.09, 0.0225, 0.0025]) / 0.365, atol=0.015)  # squares
    assert torch.allclose(
        shares(1.0, 0.6), torch.tensor([0.5, 0.3, 0, 0]) / 0.8, atol=0.015
    )  # the fewest that hold 0.6
    assert shares(1.0, 1e-6).tolist() == [1, 0, 0, 0]


def test_draw_keeps_the_shape_and_the_order():
    logits = torch.randn(3, 5, 7)
    assert sample_logits(logits, 1.0, 1.0, None).shape == (3, 5)
    assert torch.equal(sample_logits(logits, 1e-4, 1.0, torch.Generator().manual_seed(0)), logits.argmax(-1))


# ------------------------------------------------------------------------------
# checkpoints


def test_checkpoint_carries_the_normaliser(checkpoint, prepared):
    from data.prepared import load_meta

    model, info = GPT.from_checkpoint(checkpoint)
    norm = load_meta(prepared)['normaliser']
    for name, part in ('obs', model.steps.obs_norm), ('act', model.head.act_norm), ('bd', model.steps.bd_norm):
        for moment in 'mean', 'std':
            assert np.allclose(getattr(part, moment).numpy(), norm[name][moment], rtol=1e-6)
    assert model.head.act_norm.low.tolist() == [-1, -1] and model.head.act_norm.high.tolist() == [1, 1]
    assert not model.training and info['data']['normaliser'] == norm


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.sampled_from(['causal', 'flex']),
    K=st.integers(1, 5),
    S=st.integers(1, 17),
    N=st.sampled_from([0, 6]),
    fuse=st.sampled_from(FUSE),
    n_bd=st.sampled_from([0, 2]),
    seed=st.integers(0, 99),
)
def test_every_kernel_of_attention_is_the_masked_one(kernel, K, S, N, fuse, n_bd, seed):
    """
    in value and, where it has one on CPUs (flex has not), in gradient; prompts of several lengths, steps that fill no
    block
    """
    assume(kernel != 'causal' or S <= K)
    n_slots = 1 if fuse == 'sum' else 2 + (n_bd > 0)
    model = make(text_len=N, block_size=N + n_slots * K, fuse=fuse, n_bd=n_bd).train()
    text, obs, act, bd = batch(model, 3, S, N, seed)
    if N:
        text[1, 3:], text[2, 1:] = PAD, PAD
    real = torch.rand(3, S, 2, generator=torch.Generator().manual_seed(seed)) < 0.7

    def run(kernel):
        with torch.set_grad_enabled(kernel != 'flex'):
            out, loss = model(text, obs, act, bd, loss_mask=real, kernel=kernel)
        return last(out), [] if kernel == 'flex' else torch.autograd.grad(
            loss, list(model.parameters()), allow_unused=True
        )

    (plain, gradients), (fast, others) = run('dense'), run(kernel)
    counts = (
        real.any(-1).flip(1).cumsum(1).flip(1) > 0
    )  # up to the last step that is real; what is said after it means nothing
    assert torch.allclose(plain[counts], fast[counts], atol=1e-4, rtol=1e-4)
    for a, b in zip(gradients, others):
        assert a is None and b is None or torch.allclose(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('past_actions', [False, True])
def test_weights_by_columns_are_the_same_weights(past_actions):
    model = make(past_actions=past_actions)
    text, obs, act, bd = batch(model, 3, 5)
    before, weights = last(model(text, obs, act, bd)[0]), {k: v.clone() for k, v in model.state_dict().items()}
    assert torch.allclose(last(by_columns(model)(text, obs, act, bd)[0]), before, atol=1e-5)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_squared_relu_is_what_torch_makes_of_it():
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y, plain = squared_relu(x), F.relu(x).square()
    weight = torch.randn_like(x)
    with torch.no_grad():
        acting = squared_relu(x)
    assert torch.equal(y, plain) and torch.equal(acting, plain)
    assert torch.equal(*(torch.autograd.grad((z * weight).sum(), x)[0] for z in (y, plain)))


# ------------------------------------------------------------------------------
# a new head is one class and one line in HEADS, a new way to write a step one class and one line in STEPS


class L1Head(MSEHead):
    """the median action"""

    def loss(self, out, batch):
        error = (out['act'].view_as(batch['act']) - batch['act']).abs()
        return (error.mean(-1) * batch['loss_mask']).sum() / batch['loss_mask'].sum()


class GoalFirst(StepEmbedding):
    """[bd, the sum of obs and the action before]"""

    slots = staticmethod(lambda config: 2)

    def forward(self, obs, prev_act, bd_emb, has_prev, t, estimate=None):
        now = self.time(t)
        x = self.embed_obs(obs, estimate) + self.act(prev_act) * has_prev[..., None] + now
        return torch.stack([bd_emb.expand_as(x) + now, x], 2)


@pytest.mark.parametrize('fuse, head', [('sum', 'l1'), ('goal first', 'mse'), ('goal first', 'l1')])
def test_a_new_head_and_a_new_step_train_and_act_from_the_cache(monkeypatch, fuse, head):
    monkeypatch.setitem(HEADS, 'l1', L1Head)
    monkeypatch.setitem(STEPS, 'goal first', GoalFirst)
    model = make(loud=False, fuse=fuse, head=head, block_size=6 + 2 * 3, n_embd=32).train()
    text, obs, act, bd = batch(model, 4, 7)
    (optimizer,) = model.configure_optimizers('adamw', 0.0, 1e-2, (0.9, 0.95))
    losses = []
    for _ in range(100):
        loss = model(text, obs, act, bd, loss_mask=torch.ones(4, 7, 2, dtype=torch.bool))[1]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0], (losses[0], losses[-1])
    cache, before = KVCache(model.eval(), 4), torch.zeros_like(act[:, 0])
    cache.read(np.arange(4), text.tolist(), bd[:, 0])
    for t in range(7):  # far beyond the window
        a = model.head.sample(cache.step(obs[:, t], before))
        assert torch.allclose(a, act_uncached(model, text, obs[:, : t + 1], act[:, : t + 1], bd), atol=1e-4), t
        cache.t += 1
        before = act[:, t]
