"""What is not observed: worked out from what was done and seen, truly recurrent, and better for it."""
import numpy as np
import pytest
import torch
from test_model import batch, last, make

from belief import Belief
from cache import Cache


def test_the_truth_is_not_looked_at_when_acting():
    model = make(n_believed=2)
    text, obs, act, bd = batch(model)
    told = torch.cat([obs, torch.randn(*obs.shape[:3], 2)], -1)
    assert torch.equal(last(model(text, told, act, bd)[0]), last(model(text, obs, act, bd)[0]))
    real = torch.ones(act.shape[:3], dtype=torch.bool)
    with pytest.raises(RuntimeError): # in training it has to be there
        model.train()(text, obs, act, bd, real)


def test_a_belief_is_all_of_the_past():
    """ what was done and seen at the first step moves the last belief; what comes later moves none before """
    model = make(n_believed=2)
    _, obs, act, _ = batch(model, 1, 12)
    def believed(obs, act):
        return model.belief(model.told(obs, torch.nn.functional.pad(model.done(act)[:, :-1], (0, 0, 1, 0))))
    for changed in (obs, act):
        kept, before = changed.clone(), believed(obs, act)
        changed[:, 0] += 1
        assert (believed(obs, act)[:, -1] != before[:, -1]).all()
        changed.copy_(kept)
        changed[:, 6] += 1
        moved = (believed(obs, act) != before).any(-1)[0]
        assert not moved[:6].any() and moved[7:].all()
        changed.copy_(kept)


def test_a_step_taken_again_believes_the_same():
    model = make(n_believed=2)
    text, obs, act, bd = batch(model, 2, 3)
    cache = Cache(model, 2)
    cache.read(np.arange(2), [row.tolist() for row in text])
    cache.step(obs[:, 0], act[:, 0], bd[:, 0])
    cache.t += 1
    once, again = (last(cache.step(obs[:, 1], act[:, 0], bd[:, 0])) for _ in range(2))
    assert torch.equal(once, again)


def test_the_policy_loss_does_not_bend_the_belief():
    """ the belief learns from its own error, over the steps of the episode alone """
    model = make(n_believed=2).train()
    text, obs, act, bd = batch(model, 3, 8)
    obs, real = torch.cat([obs, torch.randn(*obs.shape[:3], 2)], -1), torch.zeros(3, 8, 2, dtype=torch.bool)
    real[:, :5] = True
    def gradient(act_of_it):
        torch.manual_seed(0)
        model.zero_grad()
        model(text, obs, act_of_it, bd, real)[1].backward()
        return torch.cat([p.grad.flatten() for p in model.belief.parameters()])
    whole, later = gradient(act), act.clone()
    later[:, 4] += 1 # the last action: imitated, but followed by no step
    assert torch.equal(gradient(later), whole)
    obs[:, 5:] += 1 # after the end
    assert torch.equal(gradient(act), whole)


def test_half_precision_neither_blurs_nor_stops_it():
    """what adds up over an episode is kept in float32, and learns, under autocast too"""
    model = make(n_believed=2).train()
    text, obs, act, bd = batch(model, 3, 8)
    obs, real = torch.cat([obs, torch.randn(*obs.shape[:3], 2)], -1), torch.ones(3, 8, 2, dtype=torch.bool)
    with torch.autocast('cpu', torch.bfloat16):
        assert model.belief(model.told(obs, torch.zeros(3, 8, 4))).dtype == torch.float32
        model(text, obs, act, bd, real)[1].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.belief.parameters())


def test_learns_to_find_its_way():
    """ dead reckoning: the sum of what was done, within a tenth of its spread after 30 steps, from a landmark seen now and then """
    torch.manual_seed(0)
    belief = Belief(1, 2, torch.pi / 4 * 2.0 ** torch.arange(3), 32)
    optimizer = torch.optim.AdamW(belief.parameters(), lr=3e-3)
    def episodes(n):
        did = torch.randn(n, 30, 1) / 5
        where = did.cumsum(1)
        return belief.told(torch.cat([did, (where > 0).float()], -1)), where
    for _ in range(600):
        told, truth = episodes(32)
        loss = ((belief(told, truth) - truth) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    told, truth = episodes(256)
    assert (belief(told) - truth).abs()[:, -1].mean() < 0.1 * truth[:, -1].std()
