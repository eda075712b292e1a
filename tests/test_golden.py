"""
200 small models of every kind, against what they computed before the code was written anew: outputs, losses, cached steps.

tests/golden/models.json holds a line a model: its settings and the numbers. Weights and inputs are drawn here, from a model's number
and a weight's name alone.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / 'golden' / 'models.json'
B, S = 2, 7


def normal(*shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def fill(tensors, number):
    """tensors {name: parameter or buffer}: values that depend on a model's number and their names"""
    for name, p in tensors.items():
        x = normal(*p.shape, seed=[number, zlib.crc32(name.encode())])
        if name.endswith(('_std', 'period')):
            x = 0.5 + x.abs()
        elif 'ln_' in name:
            x = 1 + 0.1 * x
        elif name.endswith('edges'):
            x = x.cumsum(-1) / 3
        elif name.endswith(('low', 'high')):
            continue
        elif p.ndim == 2 and not name.endswith('_mean'):
            x = 0.3 * x
        p.detach().copy_(x)


def inputs(config, number):
    """-> a batch for a model of config, a dict; S steps, of which some are not to be imitated and some rows are short"""
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
