"""
Who sees whom, and three ways to compute it that are equal in value: a token sees the prompt and a window of steps that
slides.

    dense   the whole matrix under its mask; the oracle of the others
    causal  where the window covers everything: torch's causal kernel, with the padding moved to the end of each row
    flex    FlexAttention's block-sparse kernel, on GPUs

`python -m bench.speed --only=attention` measures them; `fastest` chooses, and `plan` says what the blocks of a GPT do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from data.text import PAD
from nanopilot.layers import episode_lengths
from nanopilot.ring import sees

ROUND = 8  # tokens: on CPUs products in bfloat16 are prepared anew for every length, so that few lengths are faster


def attend_causally(q, k, v, dropout_p=0.0):
    """each token sees those before it, and itself"""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, is_causal=True)


def mask(text, T, n_slots, K):
    """
    text (B, N), T tokens of which N are words and the others n_slots a step -> (B, 1, T, T) bool: may this query (row)
    see that key (column)? Every token sees the prompt before it, never its padding. A token of step i also sees the
    steps i - K < j <= i, up to itself. The first step may lack slots at its front (`first_slot`): the token before
    step i + 1 is then the action of step i and sees what step i sees.
    """
    N = text.shape[1]
    i = torch.arange(T, device=text.device)
    step = (i - N).div(n_slots, rounding_mode='floor')
    not_padding = F.pad(text != PAD, (0, T - N), value=True)  # (B, T)
    return sees(step[:, None], i[:, None], step, i, K)[None, None] & not_padding[:, None, None, :]


def fastest(N, S, n_slots, K, device, dropout):
    """The fastest way to attend, for N words and S steps of n_slots tokens, of which K are in view."""
    if device.type == 'cuda':  # FlexAttention knows no dropout, and compiles for every shape
        return 'flex' if N + S * n_slots >= 256 and not dropout else 'dense'
    return 'causal' if S <= K else 'dense'


@dataclass
class Plan:
    """What the blocks of one forward pass do, chosen once."""

    pack: Callable  # (B, T, C) -> (B, T', C), the tokens in the order in which they are computed
    attend: Callable  # (q, k, v, dropout_p) -> y, each (B, nh, T', hs)
    rows: Callable  # (B, T', C) -> (B, n, C), the n tokens that predict: of each step the last, or all
    attend_rows: Callable  # (q, k, v, dropout_p) -> y (B, nh, n, hs), for those alone: what the last block does


def kernel_for(model, N, S, device):
    """The fastest way for a GPT to attend to N words and S steps."""
    config = model.config
    if model.head.every_token and N:  # where words and steps are packed, one token a step predicts
        return 'dense'
    return fastest(N, S, config.n_slots, config.window, device, config.dropout * model.training)


def plan(model, text, S, kernel=None, loss_mask=None):
    """
    How a GPT attends to text, as embed_text reads it, and S steps. kernel: None: the fastest. loss_mask (B, S, chunk):
    what is predicted after its last step means nothing; None: all steps count.
    """
    chosen = plan_for(kernel, model, text, S, loss_mask)
    if not bfloat16_on_cpu(text.device):
        return chosen
    return replace(chosen, attend=in_float32(chosen.attend), attend_rows=in_float32(chosen.attend_rows))


def bfloat16_on_cpu(device):
    return device.type == 'cpu' and torch.is_autocast_enabled('cpu')


def in_float32(attend):
    """Attention whose inputs may be bfloat16: on CPUs its gradient takes 8 times as long in that."""

    def attend_in_float32(q, k, v, dropout_p=0.0):
        with torch.autocast('cpu', enabled=False):
            return attend(q.float(), k.float(), v.float(), dropout_p=dropout_p)

    return attend_in_float32


def causal(device):
    """attention of texts alone, whose padding is at their ends: (q, k, v, dropout_p) -> y"""
    return in_float32(attend_causally) if bfloat16_on_cpu(device) else attend_causally


def plan_for(kernel, model, text, S, loss_mask):
    """plan, in the precision of its inputs"""
    text, steps = token_ids(text), model.steps
    N, n_slots = text.shape[1], steps.n_slots
    kernel = kernel or kernel_for(model, N, S, text.device)
    if kernel == 'causal' and N:
        lengths = S if loss_mask is None else episode_lengths(loss_mask)
        return packed_plan(text, S, steps, lengths)
    T = N + S * n_slots - steps.first_slot
    first = N + n_slots - 1 - steps.first_slot  # the token that predicts the first action
    predicting = slice(N, None) if model.head.every_token else slice(first, None, n_slots)
    return PLANS[kernel](text, T, n_slots, model.config.window, predicting)


def dense_plan(text, T, n_slots, K, predicting):
    """a mask of all pairs of tokens. predicting: a slice of the tokens"""
    seen = mask(text, T, n_slots, K)
    attend = partial(F.scaled_dot_product_attention, attn_mask=seen)
    rows = tokens_in(predicting)
    return Plan(unchanged, attend, rows, select_before(seen[:, :, predicting], rows))


def causal_plan(text, T, n_slots, K, predicting):
    """no mask: there are no words, and all steps are in view"""
    if n_slots == 1:
        return Plan(unchanged, attend_causally, unchanged, attend_causally)
    rows = tokens_in(predicting)
    return Plan(unchanged, attend_causally, rows, select_before(mask(text, T, n_slots, K)[:, :, predicting], rows))


def flex_plan(text, T, n_slots, K, predicting):
    """FlexAttention, which skips blocks of the mask"""
    attend, rows = flex(text, T, n_slots, K), tokens_in(predicting)
    return Plan(unchanged, attend, rows, select_after(attend, rows))


PLANS = {'dense': dense_plan, 'causal': causal_plan, 'flex': flex_plan}


def tokens_in(places):
    """places: a slice -> a function that takes those tokens, (B, T, C) -> (B, S, C)"""

    def rows(x):
        return x[:, places]

    return rows


def packed_plan(text, S, steps, lengths):
    """
    Words and steps side by side, so that the causal kernel needs no mask: padding goes to the end of a row, where no
    query sees it, and what is padding in all rows is cut off. lengths: the steps of each row that count, (B, 1) or S.
    """
    N, n_slots = text.shape[1], steps.n_slots
    T = N + S * n_slots - steps.first_slot
    n_words = (text != PAD).sum(1, keepdim=True)  # (B, 1)
    ends = n_words + lengths * n_slots - steps.first_slot
    n = T if torch.compiler.is_compiling() else int(ends.max())  # compiled code wants one shape
    if bfloat16_on_cpu(text.device):
        n = min(T, -(-n // ROUND) * ROUND)
    i = torch.arange(n, device=text.device)
    source = torch.where(i < n_words, i, (i + N - n_words).clamp(max=T - 1))  # (B, n)
    first = n_words + n_slots - 1 - steps.first_slot
    predicts = (first + n_slots * torch.arange(S, device=text.device)).clamp(max=n - 1)  # (B, S)

    rows = partial(gather_tokens, index=predicts)
    if n_slots == 1:
        attend_rows = select_after(attend_causally, rows)
    else:
        attend_rows = select_before((predicts[..., None] >= i)[:, None], rows)
    return Plan(partial(gather_tokens, index=source), attend_causally, rows, attend_rows)


def token_ids(text):
    """text (B, N) ids, or (B, N, 1 + width) with the states of a frozen encoder -> (B, N) int64, PAD: no token."""
    if text.ndim == 3:
        return text[..., 0].long()
    return text


def unchanged(x):
    return x


def per_head(rows):
    """
    A choice of tokens, (B, T, C) -> (B, S, C), for tensors that are split in heads: (B, nh, T, hs) -> (B, nh, S, hs).
    """

    def select(x):
        n_head = x.shape[1]
        return rows(x.transpose(1, 2).flatten(2)).unflatten(2, (n_head, -1)).transpose(1, 2)

    return select


def select_before(mask, rows):
    """Attention of some queries alone, under their rows of the mask."""

    def attend(q, k, v, dropout_p=0.0):
        return F.scaled_dot_product_attention(per_head(rows)(q), k, v, attn_mask=mask, dropout_p=dropout_p)

    return attend


def select_after(attend, rows):
    """Attention of all queries, of which some go on: for kernels that want them all."""

    def attend_and_select(q, k, v, dropout_p=0.0):
        return per_head(rows)(attend(q, k, v, dropout_p=dropout_p))

    return attend_and_select


def gather_tokens(x, index):
    """x (B, T, C), index (B, S) -> (B, S, C). Faster than gather, in its gradient too."""
    B, T, C = x.shape
    first = T * torch.arange(B, device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, (index + first).flatten()).view(B, -1, C)


def flex(text, T, n_slots, K):
    """-> attend(q, k, v, dropout_p) by FlexAttention, under the mask of text (B, N) and T tokens."""
    N = text.shape[1]
    not_padding = F.pad(text != PAD, (0, T - N), value=True)

    def step_of(i):
        return (i + n_slots * T - N) // n_slots - T  # floor division of numbers that are not negative

    def seen(b, h, i, j):
        return sees(step_of(i), i, step_of(j), j, K) & not_padding[b, j]

    blocks = create_block_mask(seen, len(text), None, T, T, device=text.device)

    def attend(q, k, v, dropout_p=0.0):
        kernel = compiled_flex() if q.is_cuda else flex_attention
        return kernel(q, k, v, block_mask=blocks)

    return attend


@cache
def compiled_flex():
    return torch.compile(flex_attention, dynamic=False)  # uncompiled it builds the whole matrix
