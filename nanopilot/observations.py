"""
How observations become part of a step: numbers by a linear map of them and of sines (Numbers), ids by an embedding of
each (Ids). And attention from the prompt to observations that are ids (CrossAttention).
"""

import torch
import torch.nn as nn
from torch.nn import functional as F

from data.text import PAD
from nanopilot.attention import token_ids
from nanopilot.layers import refuse

NEAR = 5  # words: a query depends on so many next to each other


def check(config):
    """Refuse settings of a GPT that do not go with observations that are ids, or with numbers."""
    n, chunk = config.obs_stack, config.chunk
    refuse(not 0 <= n <= chunk, f'obs_stack={n} is not in 0 to {chunk=}. Change one')
    ids = any(config.obs_kinds)
    more = config.n_privileged or config.next_obs or config.fuse == 'bins' or config.obs_stack != 1
    cure = "Set --privileged_obs='' --next_obs=0 --obs_stack=1 and another fuse than 'bins'"
    refuse(ids and more, f'observations that are ids are neither estimated, predicted nor stacked. {cure}')
    n = len(config.kind_parts)
    refuse(n and n not in config.obs_kinds, f'kind_parts has {n} rows, but no observation has {n} kinds. Change one')
    heads = config.n_cross_head
    refuse(heads and not ids, f'n_cross_head={heads}, but no observation is an id. Set --n_cross_head=0')
    refuse(heads and not config.text_len, f'n_cross_head={heads}, but there is no prompt. Set --n_cross_head=0')
    odd = heads and config.n_embd % heads
    refuse(odd, f'n_embd={config.n_embd} is no multiple of n_cross_head={heads}. Change one')


def reader(config):
    """-> what reads a step's observations: forward(obs, norm, fourier, estimate) -> (B, S, C)"""
    if any(config.obs_kinds):
        return Ids(config)
    return Numbers(config, config.n_obs)


class Numbers(nn.Linear):
    """The newest obs_stack observations of a step, normalised, and sin and cos of the newest."""

    def __init__(self, config, n):
        """n: how many of a step's observations it reads"""
        n_waves, n_stack = 2 * config.n_freq, config.obs_stack or config.chunk
        super().__init__(n * (n_stack + n_waves) + config.n_privileged * (1 + n_waves), config.n_embd)
        self.n_stack = n_stack

    def forward(self, obs, norm, fourier, estimate=None):
        """obs (B, S, chunk, n); norm, its Normalizer; estimate (B, S, n_privileged) or None -> (B, S, C)"""
        obs = norm(obs)
        features = [obs[:, :, -self.n_stack :].flatten(2), fourier(obs[:, :, -1])]
        if estimate is not None:
            features += [estimate, fourier(estimate)]
        return super().forward(torch.cat(features, dim=-1))


def parts_of(sizes, kind_parts):
    """
    Where the embeddings of kinds are, in one table for columns of `sizes` kinds each: those of a column with as many
    kinds as kind_parts has rows are sums of their parts', others have one of their own.

    -> rows of the table for each kind of each column (sum(sizes), m), where there are fewer the number after the last;
    how many rows there are
    """
    rows, n = [], 0
    for size in sizes:
        parts = kind_parts if size == len(kind_parts) else [[i] for i in range(size)]
        rows += [[n + part for part in of_kind] for of_kind in parts]
        n += 1 + max(part for of_kind in parts for part in of_kind)
    m = max(map(len, rows))
    return torch.tensor([of_kind + [n] * (m - len(of_kind)) for of_kind in rows]), n


def sum_of_parts(table, rows):
    """table (.., n, C) of the embeddings of parts, rows of parts_of -> (.., kinds, C) of kinds"""
    return F.pad(table, (0, 0, 0, 1))[..., rows, :].sum(-2)


class Ids(nn.Module):
    """The newest observations of a step: the sum of an embedding for each id of each column; and the numbers."""

    def __init__(self, config):
        super().__init__()
        self.columns = [i for i, kinds in enumerate(config.obs_kinds) if kinds]
        self.others = [i for i, kinds in enumerate(config.obs_kinds) if not kinds]
        kinds = [config.obs_kinds[i] for i in self.columns]
        first = [sum(kinds[:i]) for i in range(len(kinds))]  # row of each column's id 0
        self.register_buffer('first', torch.tensor(first), persistent=False)
        rows, n = parts_of(kinds, config.kind_parts)
        self.register_buffer('rows', rows, persistent=False)
        self.table = nn.Embedding(n, config.n_embd)
        self.numbers = Numbers(config, len(self.others)) if self.others else None

    def forward(self, obs, norm, fourier, estimate=None):
        """as Numbers'"""
        ids = obs[:, :, -1, self.columns].long() + self.first  # (B, S, n_ids)
        table = sum_of_parts(self.table.weight, self.rows)
        x = F.embedding_bag(ids.flatten(0, 1), table, mode='sum').unflatten(0, ids.shape[:2])
        if self.numbers is not None:
            x = x + self.numbers(norm(obs)[..., self.others], nn.Identity(), fourier)
        return x


class CrossAttention(nn.Module):
    """
    Attention from the prompt to the ids that a step shows, in n heads: which kinds are where? A key is the sum of what
    an id is and of the column it stands in, and so is a value: what is in view is scored kind by kind and column by
    column, and no key is ever made. Columns with as many kinds share them.
    """

    def __init__(self, config):
        super().__init__()
        self.n_head, C = config.n_cross_head, config.n_embd
        self.columns = [i for i, kinds in enumerate(config.obs_kinds) if kinds]
        kinds = [config.obs_kinds[i] for i in self.columns]
        sorts = sorted(set(kinds))  # numbers of kinds: columns of one share the rows of it
        first = [sum(sorts[: sorts.index(k)]) for k in kinds]
        self.register_buffer('first', torch.tensor(first), persistent=False)
        self.ln_words = nn.LayerNorm(C, bias=config.bias)
        self.phrases = nn.Conv1d(C, C, NEAR, padding=NEAR // 2)
        self.ln_query = nn.LayerNorm(C, bias=config.bias)
        self.query = nn.Linear(C, C)
        shape = self.n_head, C // self.n_head
        rows, n = parts_of(sorts, config.kind_parts)
        self.register_buffer('rows', rows, persistent=False)
        self.kind_key, self.kind_value = (nn.Parameter(torch.randn(shape[0], n, shape[1])) for _ in range(2))
        self.place_key, self.place_value = (nn.Parameter(torch.randn(shape[0], len(kinds), shape[1])) for _ in range(2))
        self.out = nn.Linear(C, C)

    def text_query(self, text, words):
        """text (B, N) ids, or with states; words (B, N, C), embedded -> (B, C)"""
        is_word = (token_ids(text) != PAD)[..., None]
        x = self.phrases((self.ln_words(words) * is_word).mT).mT  # (B, N, C)
        x = (F.relu(x) * is_word).sum(1) / is_word.sum(1)
        return self.query(self.ln_query(x))

    def forward(self, obs, query):
        """obs (B, S, chunk, n_obs), query (B, C) -> (B, S, C), to be added to the token of the observation"""
        ids = obs[:, :, -1, self.columns].long() + self.first  # (B, S, n)
        q = query.unflatten(1, (self.n_head, 1, -1)) * self.kind_key.shape[2] ** -0.5  # (B, nh, 1, hs)
        index = ids.flatten(1)[:, None].expand(-1, self.n_head, -1)  # (B, nh, S * n)
        keys, values = sum_of_parts(self.kind_key, self.rows), sum_of_parts(self.kind_value, self.rows)
        scores = (q @ keys.mT)[:, :, 0].gather(2, index).unflatten(2, ids.shape[1:])
        p = torch.softmax(scores + q @ self.place_key.mT, 3)  # (B, nh, S, n)
        of_kind = torch.zeros(*p.shape[:3], keys.shape[1], dtype=p.dtype, device=p.device)
        of_kind = of_kind.scatter_add(3, ids[:, None].expand_as(p), p)
        seen = of_kind @ values + p @ self.place_value  # (B, nh, S, hs)
        return self.out(seen.transpose(1, 2).flatten(2))
