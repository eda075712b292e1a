"""nanopilot.precision: bfloat16 on CPUs, where a trial says that it is faster; attention stays in float32."""

import pytest
import torch
from torch.nn import functional as F

from model import GPT, GPTConfig
from nanopilot import precision
from nanopilot.loop import Ranks
from nanopilot.optim import Muon

SHAPE = 6, 7  # rows and steps


def make(n_embd=32, **fields):
    torch.manual_seed(0)
    fields = dict(text_len=5, block_size=5 + 3 * 7, fuse='interleave', past_actions=True, chunk=2) | fields
    return GPT(GPTConfig(n_layer=2, n_head=2, n_embd=n_embd, vocab_size=20, max_steps=10, **fields))


def loss_of(model, dtype):
    """of made-up episodes of several lengths, and the gradients"""
    g = torch.Generator().manual_seed(1)
    (B, S), c = SHAPE, model.config
    text = torch.randint(1, 20, (B, 5), generator=g)
    obs = torch.randn(B, S, c.chunk, c.n_obs, generator=g)
    act = torch.randn(B, S, c.chunk, c.n_act, generator=g)
    mask = (torch.arange(S) < torch.tensor([[6], [6], [5], [4], [6], [6]]))[..., None].expand(B, S, c.chunk)
    with precision.autocast(dtype, 'cpu'):
        loss = model(text, obs, act, torch.zeros(B, 1, c.n_bd), loss_mask=mask)[1]
    loss.backward()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize('fields', [{}, {'fuse': 'sum'}, {'block_size': 5 + 3 * 2}], ids=['all', 'sum', 'window'])
def test_it_learns_the_same_but_for_rounding(fields):
    (loss, gradient), (rough_loss, rough) = (loss_of(make(**fields), dtype) for dtype in ('float32', 'bfloat16'))
    assert rough.dtype == torch.float32
    assert abs(rough_loss - loss) < 0.01 * loss and not torch.equal(rough_loss, loss)
    assert F.cosine_similarity(rough, gradient, dim=0) > 0.99


def test_attention_is_computed_in_float32_and_for_few_lengths(monkeypatch):
    plain, seen = F.scaled_dot_product_attention, []

    def attention(q, k, v, **kwargs):
        seen.append((q.dtype, k.shape[2]))
        return plain(q, k, v, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', attention)
    loss_of(make(), 'bfloat16')
    assert seen == [(torch.float32, 24)] * 2
    seen.clear()
    loss_of(make(), 'float32')
    assert [length for _, length in seen] == [22] * 2  # 5 words, 6 steps of 3 tokens, the first without an action


@pytest.mark.parametrize('times_as_fast, dtype', [(2.7, 'bfloat16'), (1.1, 'float32'), (0.6, 'float32')])
def test_a_trial_decides_and_is_told(times_as_fast, dtype, monkeypatch):
    monkeypatch.setattr(precision, 'speedup', lambda *args: times_as_fast)
    chosen, why = precision.choose('auto', 'cpu', Ranks(), make(), (2, 8))
    assert chosen == dtype and f'{times_as_fast} times as fast' in why


def test_what_is_set_or_was_chosen_before_needs_no_trial(monkeypatch):
    monkeypatch.setattr(precision, 'speedup', None)
    before = {'dtype': 'bfloat16', 'device': 'cpu'}
    assert precision.choose('float32', 'cpu', Ranks(), make(), (2, 8), before)[0] == 'float32'
    assert precision.choose('auto', 'cpu', Ranks(), make(), (2, 8), before)[0] == 'bfloat16'


def test_what_was_chosen_on_another_device_is_tried_again(monkeypatch):
    monkeypatch.setattr(precision, 'speedup', lambda *args: 0.5)
    before = {'dtype': 'bfloat16', 'device': 'cuda'}
    assert precision.choose('auto', 'cpu', Ranks(), make(), (2, 8), before)[0] == 'float32'


HAS_BFLOAT16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


@pytest.mark.skipif(HAS_BFLOAT16, reason='this CPU multiplies bfloat16')
def test_a_cpu_without_bfloat16_stays_with_float32():
    assert precision.choose('auto', 'cpu', Ranks(), make(n_embd=128), (16, 64))[0] == 'float32'


def test_a_trial_leaves_no_gradient_and_the_same_random_numbers():
    model = make()
    state = torch.get_rng_state()
    assert precision.speedup(model.h[0], 2, 8) > 0
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_muon_under_autocast_is_muon_but_for_rounding():
    g = torch.Generator().manual_seed(1)
    exact, rough = (torch.nn.Parameter(torch.ones(24, 8)) for _ in range(2))
    exact.grad = rough.grad = torch.randn(24, 8, generator=g)
    Muon([exact], 0.01, 0.1).step()
    with precision.autocast('bfloat16', 'cpu'):
        Muon([rough], 0.01, 0.1).step()
    assert torch.allclose(exact, rough, atol=2e-3) and not torch.equal(exact, rough)
