"""
Acting at the price of the newest tokens: what a policy has read and seen stays as keys and values.

`act_uncached` computes everything anew and is what this must equal: keys and values hold absolute times and the mask
looks at steps, so nothing that is kept ever changes when the window moves on (tests/test_kv_cache.py).
"""

from functools import partial

import numpy as np
import torch
import torch.nn as nn
from torch.nn import functional as F

from data.text import PAD, pad_prompts
from nanopilot import ring
from nanopilot.attention import token_ids

SHARED_KEYS = 256  # keys of one prompt in all rows together, from which on it pays to fetch them once


class KVCache:
    """
    What n episodes have shown the policy so far. Begin with `read`, then for each decision `step` and count it in `t`.

    Columns: the prompt's tokens, then a ring of steps of n_slots tokens; step t is in place t modulo `ring`, so nothing
    is ever moved. The token of the action before (where there is one) belongs to the step before and sees that one's
    whole window: then the ring has K + 1 places.
    """

    def __init__(self, model, n, pad_prompts=pad_prompts):
        """Of n rows for a GPT, on its device. pad_prompts: lists of token ids -> what GPT.embed_text reads."""
        config, weight = model.config, model.ln_f.weight
        self.model, self.pad_prompts = model, pad_prompts
        self.N, self.n_slots = config.n_text, config.n_slots
        self.ring = ring.places(config.window, model.steps.first_slot)
        self.device, self.dtype = weight.device, weight.dtype
        columns = self.N + self.ring * self.n_slots
        shape = (config.n_layer, n, config.n_head, columns, config.n_embd // config.n_head)
        self.k, self.v = self.zeros(*shape), self.zeros(*shape)
        self.bd_emb = None  # it rarely changes
        if config.n_bd:
            self.bd_emb = self.zeros(n, 1, config.n_embd)
        self.query = None  # of the prompts, for the cross-attention
        if config.n_cross_head:
            self.query = self.zeros(n, config.n_embd)
        # the state of recurrent parts before each step: so a step can be taken again
        self.state = {
            name: part.initial().detach().expand(n, config.max_steps + 1, -1).clone()
            for name, part in model.recurrent.items()
        }
        self.t = np.zeros(n, np.int64)  # the step that comes next, on the CPU: nothing waits for a device to know it
        self.prompts = [()] * n  # token ids
        self.longest, self.one_prompt = 0, True  # of the prompts; do all rows have the same one?
        # masks are added to scores: -inf where a row has no word in a column ..
        self.word_mask = self.zeros(n, 1, 1, columns)
        # .. and for what a step does not see; the steps t and t + ring see the same columns from t = ring on
        self.step_mask = self.make_step_mask(config.window)  # (2 * ring, 1, n_slots, columns)

    def zeros(self, *shape):
        return torch.zeros(shape, device=self.device, dtype=self.dtype)

    def make_step_mask(self, K):
        seen = torch.from_numpy(ring.seen_steps(K, self.n_slots, self.model.steps.first_slot))
        mask = torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~seen, -torch.inf)
        return F.pad(mask, (self.N, 0))[:, None].to(self.device)

    def mask(self, t, rows, columns):
        """
        What to add to the scores of rows at their steps t, in a slice of columns -> (n or 1, 1, n_slots, columns).
        """
        pattern = ring.pattern(t, self.ring)
        if (pattern == pattern[0]).all():
            mask = self.step_mask[pattern[0], None]
        else:
            mask = self.step_mask[torch.from_numpy(pattern).to(self.device)]
        if not self.one_prompt:
            mask = mask + self.word_mask[rows]
        return mask[..., columns]

    @torch.inference_mode()
    def read(self, rows, prompts, bd=None):
        """
        Begin new episodes in rows (n,), with prompts, n lists of token ids, and bd (n, n_bd), nan where not given.
        A prompt is computed once, however many rows have it and however often.
        """
        self.t[rows] = 0
        index = torch.as_tensor(rows, device=self.device)
        for cached in self.k, self.v:
            cached[:, index, :, self.N :] = 0.0  # even a nan left there is gone
        if bd is None:
            bd = torch.full((len(rows), self.model.config.n_bd), torch.nan, device=self.device, dtype=self.dtype)
        self.set_bd(index, bd)
        if self.N:
            self.read_prompts(dict(zip(map(int, rows), map(tuple, prompts))))

    def set_bd(self, rows, bd):
        """bd (n, n_bd), nan where not given: what rows are to reach from now on."""
        if self.bd_emb is not None:
            self.bd_emb[rows] = self.model.steps.embed_bd(bd[:, None])

    def read_prompts(self, prompt_of):
        """prompt_of: {row: token ids}. Columns count back from the first step: prompts of any length end beside it."""
        prompt_of = {row: prompt for row, prompt in prompt_of.items() if prompt != self.prompts[row]}
        row_with = {prompt: row for row, prompt in enumerate(self.prompts) if row not in prompt_of}
        for row, prompt in prompt_of.items():
            self.prompts[row] = prompt
            self.word_mask[row] = 0.0
            self.word_mask[row, ..., : self.N - len(prompt)] = -torch.inf
            if prompt in row_with:
                self.copy_prompt(row, row_with[prompt])
        self.longest = max(map(len, self.prompts))
        self.one_prompt = len(set(self.prompts)) == 1
        new = list(dict.fromkeys(prompt for prompt in prompt_of.values() if prompt not in row_with))
        if new:
            self.compute_prompts(new, prompt_of)

    def copy_prompt(self, row, other):
        """Row has the same prompt as the other."""
        for cached in self.k, self.v:
            cached[:, row, :, : self.N] = cached[:, other, :, : self.N]
        if self.query is not None:
            self.query[row] = self.query[other]

    def compute_prompts(self, new, prompt_of):
        """Keys and values of the prompts `new`, for all rows of prompt_of that have one of them."""
        text = torch.from_numpy(self.pad_prompts(new)).to(self.device)
        x = self.model.embed_text(text)
        width = x.shape[1]
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        mask = causal & (token_ids(text) != PAD)[:, None, None]
        number = {prompt: i for i, prompt in enumerate(new)}
        places = [(row, number[prompt], len(prompt)) for row, prompt in prompt_of.items() if prompt in number]
        if self.query is not None:
            rows, numbers, _ = zip(*places)
            self.query[list(rows)] = self.model.text_query(text)[list(numbers)]

        def attend(q, k, v, dropout_p, keys, values):
            for row, i, n in places:
                keys[row, :, self.N - n : self.N] = k[i, :, :n]
                values[row, :, self.N - n : self.N] = v[i, :, :n]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

        for keys, values, block in zip(self.k, self.v, self.model.h):
            x = block(x, partial(attend, keys=keys, values=values))

    @torch.inference_mode()
    def step(self, obs, prev_act, bd=None, rows=None):
        """
        The head's output at the next step of each episode: forward's at its newest step, for the price of n_slots
        tokens.

        obs (n, chunk, n_obs), up to the decision; prev_act (n, chunk, ...), what was done since the last one; bd (n,
        n_bd), nan where not given, None: as before; rows (n,), a numpy array, None: all. Does not count the step:
        `t[rows] += 1` does, until then it can be taken again.
        """
        model, t = self.model, self.t[slice(None) if rows is None else rows]
        latest = int(t.max())
        ring.check_length(latest, model.config.max_steps)
        here = slice(None) if rows is None else torch.from_numpy(rows).to(obs.device)
        if bd is not None:
            self.set_bd(here, bd)
        x = self.embed(obs, prev_act, here, torch.from_numpy(t).to(obs.device)[:, None])

        columns = slice(self.N - self.longest, self.N + min(latest + 1, self.ring) * self.n_slots)
        mask, write = self.mask(t, here, columns), self.writer(t, rows)
        attention = F.scaled_dot_product_attention
        if self.one_prompt and len(t) * self.longest >= SHARED_KEYS:
            attention = partial(attend_one_prompt, n=self.longest)

        def attend(keys, values, slots, q, k, v, dropout_p):
            write(keys, k)
            write(values, v)
            keys, values = keys[here, :, columns], values[here, :, columns]
            return attention(q[:, :, slots], keys, values, attn_mask=mask[:, :, slots])

        for i, block in enumerate(model.h):
            slots = predicting_slots(model, i)
            x = block(x, partial(attend, self.k[i], self.v[i], slots), partial(take_slots, slots=slots))
        return model.head(model.to_head(model.ln_f(x), model, {}))

    def embed(self, obs, prev_act, here, t):
        """The tokens of the next step of each row, (n, n_slots, C); keeps the state of recurrent parts. t (n, 1)."""
        model = self.model
        prev_act = model.head.encode(prev_act[:, None]).flatten(2)
        obs, has_prev, bd_emb = obs[:, None], t > 0, None
        query = None if self.query is None else self.query[here]
        if self.bd_emb is not None:
            bd_emb = self.bd_emb[here]
        if not self.state:
            return model.embed_steps(obs, prev_act, bd_emb, has_prev, t, query=query)[0][:, 0]
        at = torch.arange(len(self.t), device=self.device)[here], t[:, 0]
        before = {name: states[at] for name, states in self.state.items()}
        x, after = model.embed_steps(obs, prev_act, bd_emb, has_prev, t, before, query)
        for name, states in self.state.items():
            states[at[0], at[1] + 1] = after[name][:, 0]
        return x[:, 0]

    def writer(self, t, rows):
        """
        -> write(keys, k): put the k (n, nh, n_slots, hs) of steps t (n,) into a layer's keys, in the places of the
        ring.
        """
        column = self.N + t % self.ring * self.n_slots
        if rows is None and (t == t[0]).all():  # in lockstep a slice will do

            def write(cached, new):
                cached[:, :, column[0] : column[0] + self.n_slots] = new

            return write
        rows = np.arange(len(t)) if rows is None else rows
        rows = torch.from_numpy(rows).to(self.device)[:, None]
        columns = torch.from_numpy(column[:, None] + np.arange(self.n_slots)).to(self.device)

        def write_rows(cached, new):
            cached[rows, :, columns] = new.transpose(1, 2)  # (n, n_slots, nh, hs)

        return write_rows


def predicting_slots(model, layer):
    """The tokens of a step that go on after attention in this layer: in the last one those that predict, else all."""
    if layer == len(model.h) - 1 and not model.head.every_token:
        return slice(-1, None)
    return slice(None)


def take_slots(x, slots):
    return x[:, slots]


@torch.inference_mode()
def act_uncached(model, text, obs, act, bd=None, **sampling):
    """
    The next actions (B, chunk, ..), every step computed anew: the oracle. Arguments as GPT.forward's, the episodes so
    far; act at the last step is not looked at. sampling: temperature and top_p of the head's sample.
    """
    out, _ = model(text, obs, act, bd)
    newest = {name: v[:, -1:] for name, v in out.items() if name not in model.aux}
    return model.head.sample(newest, **sampling)


def by_columns(model):
    """Lay out a GPT's matrices so that CPUs multiply few rows fast (4 to 48: up to 3 times); not for training."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
    return model


def attend_one_prompt(q, k, v, attn_mask, n):
    """
    Attention of rows whose first n keys are the same: they are fetched once. q (B, nh, T, hs), k, v (B, nh, columns,
    hs)
    """
    B, nh, T, hs = q.shape
    q = q * hs**-0.5
    all_rows = q.transpose(0, 1).reshape(nh, B * T, hs)
    to_words = (all_rows @ k[0, :, :n].transpose(1, 2)).view(nh, B, T, n).transpose(0, 1)
    to_steps = q @ k[:, :, n:].transpose(2, 3)
    p = torch.softmax(torch.cat([to_words, to_steps], 3) + attn_mask, 3)
    words = p[..., :n].transpose(0, 1).reshape(nh, B * T, n) @ v[0, :, :n]
    return words.view(nh, B, T, hs).transpose(0, 1) + p[..., n:] @ v[:, :, n:]
