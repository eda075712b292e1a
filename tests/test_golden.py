"""
200 small models of every kind, against what they computed before the code was written anew: outputs, losses, cached
steps.

tests/golden/models.json holds a line a model: its settings and the numbers. Weights and inputs are drawn here, from a
model's number and a weight's name alone.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from data.text import PAD
from model import GPT, GPTConfig
from nanopilot.attention import kernel_for, token_ids
from nanopilot.kv_cache import KVCache

GOLDEN = Path(__file__).parent / 'golden' / 'models.json'
B, S = 2, 7


def normal(*shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def fill(tensors, number):
    """tensors {name: parameter or buffer}: values that depend on a model's number and their names"""
    for name, p in tensors.items():
        x = normal(*p.shape, seed=[number, zlib.crc32(name.encode())])
        if name.startswith('recurrent.estimate.'):
            x = 0.05 * x  # what it estimates adds up
        elif name.endswith(('.std', 'period')):
            x = 0.5 + x.abs()
        elif 'ln_' in name:
            x = 1 + 0.1 * x
        elif name.endswith('edges'):
            x = x.cumsum(-1) / 3
        elif name.endswith(('low', 'high')):
            continue
        elif p.ndim == 2 and not name.endswith('.mean'):
            x = 0.3 * x
        p.detach().copy_(x)


def inputs(config, number):
    """
    -> a batch for a model of config, a dict; S steps, of which some are not to be imitated and some rows are short
    """
    c, rng = config, np.random.default_rng([number, 0])
    N = int(rng.integers(2, c.text_len + 1)) if c.text_len else 0
    text = torch.from_numpy(rng.integers(4, c.vocab_size, (B, N)))
    text[1, N // 2 + 1 :] = 0  # padding
    if c.text_width:
        states = normal(B, N, c.text_width, seed=[number, 1]) * (text != 0)[..., None]
        text = torch.cat([text.clamp(max=1)[..., None].float(), states], 2)
    discrete = c.head not in ('mse', 'kmeans')
    act = (
        rng.integers(c.n_act, size=(B, S, c.chunk))
        if discrete
        else rng.standard_normal((B, S, c.chunk, c.n_act)).astype(np.float32)
    )
    bd = normal(B, 1 if number % 3 else S, c.n_bd, seed=[number, 2])
    if c.n_bd and number % 2:
        bd[1] = torch.nan  # not given
    loss_mask = torch.from_numpy(rng.random((B, S, c.chunk)) < 0.8)
    loss_mask[1, S - 2 :] = False
    terminated = torch.zeros(B, S, dtype=torch.bool)
    terminated[1, S - 2] = c.fuse == 'bins'
    start = torch.tensor([0, int(rng.integers(3))]) if not c.n_privileged else torch.zeros(B, dtype=torch.int64)
    future = (
        torch.rand(B, S, c.n_future, c.n_bd, generator=torch.Generator().manual_seed(number)) if c.n_future else None
    )
    return {
        'text': text,
        'obs': normal(B, S, c.chunk, c.n_obs + c.n_privileged, seed=[number, 3]),
        'act': torch.from_numpy(act),
        'bd': bd,
        'loss_mask': loss_mask,
        'start': start,
        'terminated': terminated,
        'future_bd': future,
    }


def digest(out):
    """tensors (B, S, ..) or (B, S * n, ..) -> {name: (B, S) numbers}, sums with weights that tell all places apart"""
    sums = {}
    for name, x in out.items():
        x = x.reshape(B, S, -1).double()
        sums[name] = (x * torch.cos(torch.arange(x.shape[2], dtype=torch.float64))).sum(2)
    return sums


@pytest.fixture(scope='module')
def golden():
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize('kernel', [None, 'dense'])
def test_outputs_and_losses_are_what_they_were(golden, kernel):
    for number, line in enumerate(golden):
        model = GPT(GPTConfig(**line['config'])).eval()
        fill(model.state_dict(), number)
        batch = inputs(model.config, number)
        with torch.no_grad():
            out, loss = model(**batch, kernel=kernel)
            if kernel == 'dense' or kernel_for(model, batch['text'].shape[1], S, torch.device('cpu')) == 'dense':
                compare(out, line['out'], line['config'])  # packed rows mean nothing after their end
            model.train()
            torch.manual_seed(number)
            _, training_loss = model(**batch, kernel=kernel)
        assert loss.item() == pytest.approx(line['loss'], rel=1e-5, abs=1e-5), line['config']
        assert training_loss.item() == pytest.approx(line['training_loss'], rel=1e-5, abs=1e-5), line['config']


def test_cached_steps_are_what_they_were(golden):
    for number, line in enumerate(golden):
        model = GPT(GPTConfig(**line['config'])).eval()
        fill(model.state_dict(), number)
        batch = inputs(model.config, number)
        out = from_cache(model, batch)
        expected = line.get('out_from_the_start', line['out'])
        compare(out, {k: expected[k] for k in out}, line['config'])


def compare(out, expected, config):
    for name, numbers in digest(out).items():
        off = (numbers.flatten() - torch.tensor(expected[name], dtype=torch.float64)).abs().max().item()
        scale = 1 + np.abs(expected[name]).max()
        assert off < 1e-5 * scale, (name, off, scale, config)


def from_cache(model, batch):
    """-> the head's output for every step, each computed from the cache alone"""
    text, obs, act, bd = (batch[k] for k in ('text', 'obs', 'act', 'bd'))
    obs = obs[..., : model.config.n_obs]
    prompts = [list(range(i, i + 1)) for i in range(B)]

    def padded_text(_):
        return text.numpy()

    cache = KVCache(model, B, pad_prompts=padded_text)
    if model.config.text_len:
        words = (token_ids(text) != PAD).sum(1)
        prompts = [tuple(range(100 * i, 100 * i + int(n))) for i, n in enumerate(words)]  # only their length counts
    cache.read(np.arange(B), prompts)
    steps = []
    before = torch.zeros_like(act[:, 0])
    for t in range(S):
        steps.append(cache.step(obs[:, t], before, bd[:, min(t, bd.shape[1] - 1)]))
        cache.t += 1
        before = act[:, t]
    return {k: torch.cat([step[k] for step in steps], 1) for k in steps[0]}
