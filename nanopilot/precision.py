"""
In which precision a model is trained: float32, or its products in bfloat16 where they are faster.

On CPUs a trial tells: with AMX a product is 8 to 10 times as fast in bfloat16, with AVX512_BF16 twice as fast, on
others slower; what a training step gains depends on its shapes.
"""

import time
from contextlib import nullcontext

import numpy as np
import torch

from nanopilot import attention

WORTH = 1.15  # times as fast in a trial: what bfloat16 must be on a CPU to be chosen
TRIALS = 5  # of each, in turn
TOKENS = 2048  # of a trial at most: some ms of a small model, and not minutes of a large one


def autocast(dtype, device):
    """-> a context for what is to be computed in dtype, 'float32' or 'bfloat16'; it can be entered again"""
    if dtype == 'float32':
        return nullcontext()
    return torch.autocast(device.split(':')[0], torch.bfloat16)


def choose(dtype, device, ranks, model, tokens, before=None):
    """
    dtype: 'float32', 'bfloat16' or 'auto'; before: a checkpoint's JSON, to go on as it began; tokens (rows, columns) of
    a batch, for the trial -> 'float32' or 'bfloat16', the same on all ranks, and why
    """
    if dtype != 'auto':
        return dtype, 'as set'
    if before and before.get('device') == device.split(':')[0]:
        return before['dtype'], 'as before'
    if device.startswith('cuda'):
        if torch.cuda.is_bf16_supported():
            return 'bfloat16', 'the GPU has it'
        return 'float32', 'the GPU has no bfloat16'
    times_as_fast = torch.tensor(speedup(model.h[0], *tokens) if ranks.master else 0.0)
    ranks.sum(times_as_fast)
    dtype = 'bfloat16' if times_as_fast >= WORTH else 'float32'
    return dtype, f'in a trial bfloat16 was {times_as_fast:.1f} times as fast'


def speedup(block, rows, columns):
    """how many times as fast is a training step of one block on a CPU in bfloat16?"""
    rows = max(1, min(rows, TOKENS // columns))
    x = torch.randn(rows, columns, block.ln_1.weight.shape[0], generator=torch.Generator().manual_seed(0))
    times = {'float32': [], 'bfloat16': []}
    for _ in range(1 + TRIALS):
        for dtype, seconds in times.items():
            start = time.perf_counter()
            with autocast(dtype, 'cpu'):
                block(x, attention.in_float32(attention.attend_causally)).sum().backward()
            seconds.append(time.perf_counter() - start)
    block.zero_grad(set_to_none=True)
    return float(np.median(np.array(times['float32'][1:]) / times['bfloat16'][1:]))
