"""
Who sees whom, and four ways to compute it that are equal in value: queries see the prompt and a block of steps that slides.

    dense   the whole matrix under its mask; the oracle of the others
    causal  where the window covers everything: torch's own causal kernel, padding having been moved to the rows' ends
    banded  blocks of W queries: time and memory linear in the length
    flex    FlexAttention's block-sparse kernel, on GPUs

`python bench.py --only=attention` measures them; `fastest` chooses.
"""

import math
from functools import cache, partial

import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

PAD = 0  # the token id of a prompt's padding: never attended to


def sees(q_step, q_at, k_step, k_at, K):
    """the mask, wherever it is needed: a query at place q_at of step q_step sees a key before it, of the last K steps or a word (step < 0)"""
    return (k_at <= q_at) & ((q_step - k_step < K) | (k_step < 0))


def mask(text, S, n_slots, K):
    """
    text (B, N), S steps of n_slots tokens -> (B, 1, T, T) bool, T = N + n_slots * S: may this query (row) see that key (column)?

    Every token sees the prompt before it, never its padding. A step also sees the steps i - K < j <= i up to itself.
    """
    N = text.shape[1]
    i = torch.arange(N + n_slots * S, device=text.device)
    step = (i - N).div(n_slots, rounding_mode='floor')
    seen = F.pad(text != PAD, (0, n_slots * S), value=True)  # (B, T)
    return sees(step[:, None], i[:, None], step, i, K)[None, None] & seen[:, None, None, :]


def fastest(N, S, n_slots, K, device, dropout):
    """the fastest way to attend, for N words and S steps of n_slots tokens, of which K are in view"""
    T, W = N + S * n_slots, K * n_slots
    if device.type == 'cuda':  # FlexAttention knows no dropout, and compiles for every shape
        return 'flex' if T >= 256 and not dropout else 'dense'
    if T - N <= W:
        return 'causal'
    return 'banded' if T >= 512 and T - N >= 3 * W else 'dense'


def attention(text, S, n_slots, K, execution):
    """-> attend(q, k, v, dropout_p) under the mask of text (B, N) and S steps"""
    N = text.shape[1]
    if execution == 'causal':  # wants rows without padding before their end, see GPT.packed
        return partial(F.scaled_dot_product_attention, is_causal=True)
    if execution == 'banded':
        return partial(band, mask=mask(text, 2 * K, n_slots, K), N=N, W=K * n_slots)
    if execution == 'flex':
        seen, T = F.pad(text != PAD, (0, n_slots * S), value=True), N + n_slots * S

        def of(b, h, i, j):
            return (
                sees((i + n_slots * T - N) // n_slots - T, i, (j + n_slots * T - N) // n_slots - T, j, K) & seen[b, j]
            )  # // of positives

        blocks = create_block_mask(of, len(text), None, T, T, device=text.device)
        return lambda q, k, v, dropout_p: (compiled_flex() if q.is_cuda else flex_attention)(q, k, v, block_mask=blocks)
    return partial(F.scaled_dot_product_attention, attn_mask=mask(text, S, n_slots, K))


def band(q, k, v, mask, N, W, dropout_p=0.0):
    """
    Attention to N words and the last W tokens, a block of W queries at a time: time and memory linear in the length.

    q, k, v (B, nh, T, hs); mask (B, 1, N + 2W, N + 2W), what two blocks see of each other: all blocks are alike.
    """
    B, nh, T, hs = q.shape
    n = math.ceil((T - N) / W) - 1  # blocks after the first
    first = F.scaled_dot_product_attention(
        *(h[:, :, : N + W] for h in (q, k, v)), attn_mask=mask[:, :, : N + W, : N + W], dropout_p=dropout_p
    )
    q, k, v = (F.pad(h, (0, 0, 0, N + (n + 1) * W - T)) for h in (q, k, v))
    q = q[:, :, N + W :].reshape(B, nh * n, W, hs)  # blocks stand beside the heads: they share the mask

    def behind(h):  # (B, nh, T, hs) -> (B, nh * n, N + 2W, hs), the words, the block before and the block itself
        steps = h[:, :, N:].unfold(2, 2 * W, W).transpose(3, 4)
        return torch.cat([h[:, :, None, :N].expand(-1, -1, n, -1, -1), steps], 3).flatten(1, 2)

    rest = F.scaled_dot_product_attention(q, behind(k), behind(v), attn_mask=mask[:, :, N + W :], dropout_p=dropout_p)
    return torch.cat([first, rest.view(B, nh, n * W, hs)], 2)[:, :, :T]


@cache
def compiled_flex():
    return torch.compile(flex_attention, dynamic=False)  # uncompiled it builds the whole matrix
