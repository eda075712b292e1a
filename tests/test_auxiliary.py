"""What is not observed: worked out from what was done and seen, truly recurrent, and better for it."""

import numpy as np
import pytest
import torch
from test_model import batch, last, make
from torch.nn import functional as F

from model import GPTConfig
from nanopilot.auxiliary import FUTURE_BINS, FUTURE_WEIGHT, FourierFeatures, FutureBD, HiddenMarkov, StateEstimator
from nanopilot.kv_cache import KVCache


def test_the_truth_is_not_looked_at_when_acting():
    model = make(n_privileged=2)
    text, obs, act, bd = batch(model)
    privileged = torch.cat([obs, torch.randn(*obs.shape[:3], 2)], -1)
    assert torch.equal(last(model(text, privileged, act, bd)[0]), last(model(text, obs, act, bd)[0]))
    real = torch.ones(act.shape[:3], dtype=torch.bool)
    with pytest.raises(RuntimeError):  # in training it has to be there
        model.train()(text, obs, act, bd, loss_mask=real)


def test_an_estimate_is_of_all_of_the_past():
    """what was done and seen at the first step moves the last estimate; what comes later moves none before"""
    model = make(n_privileged=2)
    _, obs, act, _ = batch(model, 1, 12)

    def estimate(obs, act):
        prev_act = F.pad(model.head.encode(act).flatten(2)[:, :-1], (0, 0, 1, 0))
        return model.recurrent['estimate'](model.steps.obs_norm(obs), prev_act)

    for changed in (obs, act):
        kept, before = changed.clone(), estimate(obs, act)
        changed[:, 0] += 1
        assert (estimate(obs, act)[:, -1] != before[:, -1]).all()
        changed.copy_(kept)
        changed[:, 6] += 1
        moved = (estimate(obs, act) != before).any(-1)[0]
        assert not moved[:6].any() and moved[7:].all()
        changed.copy_(kept)


def test_a_step_taken_again_estimates_the_same():
    model = make(n_privileged=2)
    text, obs, act, bd = batch(model, 2, 3)
    cache = KVCache(model, 2)
    cache.read(np.arange(2), [row.tolist() for row in text])
    cache.step(obs[:, 0], act[:, 0], bd[:, 0])
    cache.t += 1
    once, again = (last(cache.step(obs[:, 1], act[:, 0], bd[:, 0])) for _ in range(2))
    assert torch.equal(once, again)


def test_the_policy_loss_does_not_bend_the_estimate():
    """the estimator learns from its own error, over the steps of the episode alone"""
    model = make(n_privileged=2).train()
    text, obs, act, bd = batch(model, 3, 8)
    obs, real = torch.cat([obs, torch.randn(*obs.shape[:3], 2)], -1), torch.zeros(3, 8, 2, dtype=torch.bool)
    real[:, :5] = True

    def gradient(act_of_it):
        torch.manual_seed(0)
        model.zero_grad()
        model(text, obs, act_of_it, bd, loss_mask=real)[1].backward()
        return torch.cat([p.grad.flatten() for p in model.recurrent['estimate'].parameters()])

    whole, later = gradient(act), act.clone()
    later[:, 4] += 1  # the last action: imitated, but followed by no step
    assert torch.equal(gradient(later), whole)
    obs[:, 5:] += 1  # after the end
    assert torch.equal(gradient(act), whole)


def test_half_precision_neither_blurs_nor_stops_it():
    """what adds up over an episode is kept in float32, and learns, under autocast too"""
    model = make(n_privileged=2).train()
    text, obs, act, bd = batch(model, 3, 8)
    obs, real = torch.cat([obs, torch.randn(*obs.shape[:3], 2)], -1), torch.ones(3, 8, 2, dtype=torch.bool)
    with torch.autocast('cpu', torch.bfloat16):
        assert model.recurrent['estimate'](obs, torch.zeros(3, 8, 4)).dtype == torch.float32
        model(text, obs, act, bd, loss_mask=real)[1].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.recurrent['estimate'].parameters())


def test_learns_to_find_its_way():
    """
    dead reckoning: the sum of what was done, within a tenth of its spread after 30 steps, from a landmark seen now and
    then
    """
    torch.manual_seed(0)
    config = GPTConfig(n_obs=1, n_privileged=1, n_act=1, chunk=1, n_embd=32, n_future=0, n_freq=3)
    estimator = StateEstimator(config)
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=3e-3)

    def episodes(n):
        did = torch.randn(n, 30, 1) / 5
        where = did.cumsum(1)
        return torch.cat([(where > 0).float(), where], -1)[:, :, None], did, where

    for _ in range(800):
        obs, did, truth = episodes(32)
        loss = ((estimator(obs, did) - truth) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    obs, did, truth = episodes(256)
    assert (estimator.eval()(obs, did) - truth).abs()[:, -1].mean() < 0.1 * truth[:, -1].std()


# ------------------------------------------------------------------------------
# a hidden state


def hidden_markov():
    torch.manual_seed(0)
    return HiddenMarkov(8, 16)


def test_a_hidden_state_is_followed_as_rabiner_says():
    """its sums are 1, however long"""
    model, x = hidden_markov(), torch.randn(3, 100, 3, 16)
    has_prev = torch.ones(3, 100, dtype=torch.bool)
    evidence = model.token_evidence(x.flatten(1, 2))
    assert torch.allclose(model.transition.softmax(1).sum(1), torch.ones(8))
    b, expected = model.first.softmax(0).expand(3, -1), []
    for t in range(300):
        b = b @ model.transition.softmax(1) * evidence[:, t]
        b = b / b.sum(1, keepdim=True)
        expected.append(b)
    expected = torch.stack(expected, 1)
    after, states = model(x, has_prev, 1)
    assert torch.allclose(states, expected[:, 2::3], atol=1e-5)  # after each step of three tokens
    assert torch.allclose(after, x + model.emission(expected).view_as(x), atol=1e-5)
    later = model(x[:, 40:], has_prev[:, 40:], 1, states[:, 39])[1]
    assert torch.allclose(later, states[:, 40:], atol=1e-5)  # it goes on from anywhere
    has_prev[:, 0] = False  # the very first step begins in slot 1: what stands before it changes nothing
    x[:, 0, 0] = torch.randn(3, 16)
    first = model(x[:, :1], has_prev[:, :1], 1)[1]
    assert torch.allclose(first, model(x[:, :1, 1:], has_prev[:, :1], 0)[1], atol=1e-6)


def test_a_hidden_state_changes_what_is_said_and_nothing_before():
    with_, without = make(n_hidden=4), make()
    assert (last(with_(*batch(with_))[0]) != last(without(*batch(without))[0])).any()
    text, obs, act, bd = batch(with_, 1, 8)
    before, other = last(with_(text, obs, act, bd)[0]), obs.clone()
    other[:, 4] += 1
    moved = (last(with_(text, other, act, bd)[0]) != before).any(-1)[0]
    assert not moved[:4].any() and moved[4:].all()


@pytest.mark.parametrize('n_hidden', [0, 4])
def test_a_hidden_state_remembers_beyond_the_window(n_hidden):
    """what was seen at the first step is to be done ever after; only one step is in view"""
    torch.manual_seed(0)
    model = make(
        loud=False, n_hidden=n_hidden, block_size=3, text_len=0, head='ce', chunk=1, n_layer=1, past_actions=True
    ).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)  # with 1e-2, half of the seeds stay deaf
    text, bd = torch.zeros(32, 0, dtype=torch.int64), torch.zeros(32, 1, 2)
    for _ in range(200):
        obs, first = torch.zeros(32, 10, 1, 3), torch.randint(2, (32,))
        obs[:, 0, 0, 0] = 4.0 * first - 2
        act = first[:, None, None].expand(-1, 10, 1).clone()
        shown = torch.zeros_like(act)  # nor do its own actions give it away
        out, _ = model(text, obs, shown, bd)
        loss = F.cross_entropy(out['act'].flatten(0, 1), act.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert (loss.item() < 0.1) if n_hidden else (loss.item() > 0.5)


# ------------------------------------------------------------------------------
# what is observed next


def test_the_next_observations_are_learned():
    """those of obs' = 0.9 obs + act, with an angle that has a seam"""
    torch.manual_seed(0)
    model = make(loud=False, next_obs=1.0, chunk=1, n_obs=2, n_act=2, n_bd=0, text_len=0, block_size=100).train()
    model.aux['next_obs'].period.copy_(torch.tensor([0, 2 * np.pi]))
    optimizer, text, real = (
        torch.optim.Adam(model.parameters(), 1e-2),
        torch.zeros(16, 0, dtype=torch.int64),
        torch.ones(16, 20, 1, dtype=torch.bool),
    )

    def episodes():
        act, seen = torch.randn(16, 20, 1, 2), [torch.randn(16, 2)]
        for s in range(19):
            x, angle = (seen[-1] + act[:, s, 0]).T
            seen.append(torch.stack([0.9 * x, (angle + np.pi) % (2 * np.pi) - np.pi], 1))
        return torch.stack(seen, 1)[:, :, None], act

    def off(obs, act):
        d = model(text, obs, act)[0]['next_obs'][:, :-1] - obs[:, 1:]
        return model.aux['next_obs'].wrap(d).square().mean()

    first = off(*episodes()).item()
    for _ in range(300):
        obs, act = episodes()
        model(text, obs, act, loss_mask=real)[1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert off(*episodes()).item() < 0.1 * first


def test_predicting_does_not_see_what_it_predicts():
    model = make(next_obs=1.0)
    with torch.no_grad():
        model.aux['next_obs'].change.weight.normal_()
    text, obs, act, bd = batch(model, 1, 6)
    before, other, acted = model(text, obs, act, bd)[0]['next_obs'], obs.clone(), act.clone()
    other[:, 3] += 1
    acted[:, 2] += 1
    assert torch.equal(model(text, other, act, bd)[0]['next_obs'][:, :3], before[:, :3])
    moved = (model(text, obs, acted, bd)[0]['next_obs'] != before).any(-1).any(-1)[0]
    assert not moved[:2].any() and moved[2:].all()  # from the action that is taken on


@pytest.mark.parametrize('fuse', ['sum', 'bins'])
def test_two_halves_of_a_batch_weigh_as_the_whole(fuse):
    """
    as train.py puts ranks and micro-batches together: by their real steps; ragged lengths, and steps not to be imitated
    """
    changes = dict(next_obs=1.0) if fuse == 'sum' else dict(head='tokens', chunk=1, text_len=0, n_bd=0, block_size=100)
    model = make(fuse=fuse, **changes).train()
    inputs = batch(model, 4, 9)
    real = torch.arange(9)[None, :, None] < torch.tensor([9, 4, 2, 7])[:, None, None]
    real = real.repeat(1, 1, model.config.chunk)
    real[0, 3:5] = real[3, 1] = False
    whole = model(*inputs, loss_mask=real)[1]
    halves = [
        model(*(a[part] for a in inputs), loss_mask=real[part])[1] * real[part].sum() / real.sum()
        for part in (slice(2), slice(2, 4))
    ]
    assert sum(halves).item() == pytest.approx(whole.item(), rel=1e-5)


# ------------------------------------------------------------------------------
# what is headed for


def test_a_subgoal_is_one_more_prediction_and_nan_is_none():
    part = FutureBD(GPTConfig(n_future=2, subgoal=True, n_bd=2))
    logits = torch.zeros(1, 3, 3, 2, FUTURE_BINS)
    logits[:, :, 2, :, 20] = 50.0  # the sub-goal is in the 21st of 40 intervals of [0, 1]; of the rest it knows nothing
    assert part(torch.zeros(1, 3, 128), {}).shape == logits.shape
    future, subgoal = torch.full((1, 3, 2, 2), 0.51), torch.full((1, 3, 2), 0.51)
    batch = {'future_bd': future, 'subgoal': subgoal, 'loss_mask': torch.ones(1, 3, 1, dtype=torch.bool)}
    chance = FUTURE_WEIGHT * np.log(FUTURE_BINS)
    assert part.loss(logits, batch).item() == pytest.approx(chance)
    subgoal[:] = 0.1
    assert part.loss(logits, batch).item() == pytest.approx(chance + FUTURE_WEIGHT * 50)
    subgoal[:] = torch.nan
    assert part.loss(logits, batch).item() == pytest.approx(chance)
    assert part.loss(logits, {'loss_mask': batch['loss_mask']}) == 0  # when validating, nothing is predicted


def test_without_subgoals_nothing_is_added():
    assert make(n_future=2).aux['future_bd'].proj.out_features == 2 * 2 * FUTURE_BINS
    assert make(n_future=2, subgoal=True).aux['future_bd'].proj.out_features == 3 * 2 * FUTURE_BINS
    assert 'future_bd' not in make(n_future=0, subgoal=True).aux


def test_the_expected_subgoal_is_the_mean_over_the_intervals():
    part = FutureBD(GPTConfig(n_future=2, subgoal=True, n_bd=2, n_embd=16))
    part.low[:], part.high[:] = torch.tensor([0.0, -10.0]), torch.tensor([40.0, 10.0])
    x = torch.randn(3, 5, 16)
    p = part(x, {})[:, :, -1].softmax(-1)  # (3, 5, 2, FUTURE_BINS)
    middles = torch.stack([torch.arange(40) + 0.5, torch.arange(40) / 2 - 9.75])
    assert torch.allclose(part.expected_subgoal(x), (p * middles).sum(-1), atol=1e-4)


def test_only_what_is_told_of_true_subgoals_counts_and_only_in_training():
    model = make(n_future=2, subgoal=True, subgoal_layers=2)
    x, subgoal = torch.randn(3, 7, model.config.n_embd), torch.randn(3, 7, 2)
    subgoal[:, 3] = torch.nan
    batch = {'subgoal': subgoal, 'sees_subgoal': torch.tensor([True, False, True])}
    alone = model.to_head(x, model, {})
    assert torch.equal(model.to_head(x, model, batch), alone)  # when acting
    model.train()
    shown = model.to_head(x, model, batch)
    assert torch.equal(shown[1], alone[1]) and torch.equal(shown[:, 3], alone[:, 3])
    steps = [0, 1, 2, 4, 5, 6]
    assert (shown[::2, steps] != alone[::2, steps]).any(2).all()
    own = {**batch, 'subgoal': model.aux['future_bd'].expected_subgoal(x)}
    assert torch.equal(model.to_head(x, model, own), alone)  # the truth is read as an expectation is


def test_actions_do_not_pull_at_the_expected_subgoal():
    model = make(n_future=2, subgoal=True, subgoal_layers=1)
    x = torch.randn(2, 3, model.config.n_embd)
    model.head(model.to_head(x, model, {}))['act'].sum().backward()
    assert model.aux['future_bd'].proj.weight.grad is None and model.to_head.embed.weight.grad.any()


def test_subgoal_layers_need_a_subgoal():
    for changes in {'subgoal': False, 'n_future': 2}, {'subgoal': True, 'n_future': 0}:
        with pytest.raises(ValueError, match='subgoal_layers=1.*--subgoal_layers=0'):
            make(subgoal_layers=1, **changes)


def test_fourier_features_are_sines_and_cosines_of_octaves_that_may_fade():
    x = torch.linspace(-4, 4, 9)[:, None]
    plain = FourierFeatures(GPTConfig(n_freq=3))
    faded = FourierFeatures(GPTConfig(n_freq=3, freq_decay=0.5))
    angles = x * torch.pi / 4 * torch.tensor([1.0, 2.0, 4.0])
    assert torch.allclose(plain(x), torch.cat([angles.sin(), angles.cos()], 1), atol=1e-5)
    assert torch.equal(faded(x), plain(x) * torch.tensor([1.0, 0.5, 0.25, 1.0, 0.5, 0.25]))
    assert torch.equal(plain.beside(x), torch.cat([x, plain(x)], 1))


@pytest.mark.parametrize('freq_decay', [0.0, -0.5, 2.0, float('nan')])
def test_frequencies_do_not_grow(freq_decay):
    with pytest.raises(ValueError, match='freq_decay=.*is not above 0 and at most 1'):
        make(freq_decay=freq_decay)
