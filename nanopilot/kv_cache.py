"""
Acting at the price of the newest tokens: what a policy has read and seen stays as keys and values.

`GPT.act` computes everything anew and is what this must equal: keys and values hold absolute times and the mask looks at
steps, so nothing that is kept ever changes when the window moves on (tests/test_cache.py).
"""

from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from nanopilot.attention import sees
from data.text import pad_prompts
from model import kinds


class KVCache:
    """
    What n episodes have shown the policy so far. Begin with `read`, then for each decision `step` and count it in `t`.

    Columns: the prompt's tokens, then a ring of decisions, each of [the action before, bd, obs]; decision t is in place t
    modulo `ring`, so nothing is ever moved. An action's token belongs to the step before and sees that one's whole window:
    where there are any, the ring has K + 1 places.
    """

    def __init__(self, model, n, pad_prompts=pad_prompts):
        """of n rows for a GPT, on its device; pad_prompts: how lists of token ids become what GPT.words reads"""
        config, device, dtype = model.config, model.time.weight.device, model.time.weight.dtype
        K, n_slots, N = config.window, config.n_slots, config.text_len
        self.model, self.N, self.ring, self.pad_prompts = model, N, K + config.act_token, pad_prompts
        shape = (config.n_layer, n, config.n_head, N + self.ring * n_slots, config.n_embd // config.n_head)
        self.k, self.v = torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
        self.bd = torch.zeros(n, 1, config.n_embd, device=device, dtype=dtype)  # embedded
        if config.n_privileged:  # before each step: what is believed at a step can be taken again
            self.believed = model.belief.first.detach().expand(n, config.max_steps + 1, -1).clone()
        if config.n_hidden:  # the same of the belief that follows the tokens
            self.latent = model.latent.first.detach().softmax(0).expand(n, config.max_steps + 1, -1).clone()
        self.t = np.zeros(n, np.int64)  # the step that comes next, on the CPU: nothing waits for a device to know it
        self.prompts = [()] * n  # token ids
        self.longest, self.alike = 0, True  # of the prompts; are they all one and the same?
        self.unseen = torch.zeros(
            n, 1, 1, shape[3], device=device, dtype=dtype
        )  # added to scores: -inf where a row has no word
        # added too, what the tokens of decision t see; the same for t and t + ring from ring on: (2 * ring, 1, n_slots, columns)
        t, column, slot = (
            torch.arange(2 * self.ring)[:, None, None],
            torch.arange(self.ring * n_slots),
            torch.arange(n_slots),
        )
        held = t - (t - column // n_slots) % self.ring  # the decision in each column, negative: none yet
        step, k_step = (
            at - (of < config.act_token).long() for at, of in ((t, slot[:, None]), (held, column % n_slots))
        )
        seen = sees(step, t * n_slots + slot[:, None], k_step, held * n_slots + column % n_slots, K) & (k_step >= 0)
        seen |= (step < 0) & (
            held == t
        )  # at the start there is no action before: its token sees something, and nobody sees it
        self.seen = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)
        self.seen = F.pad(self.seen, (N, 0))[:, None].to(device)

    def mask(self, t, rows, begin, end):
        """what to add to the scores of rows (None: all) at their decisions t, for columns begin to end -> (n or 1, 1, n_slots, columns)"""
        pattern = np.where(t < self.ring, t, t % self.ring + self.ring)
        seen = (
            self.seen[pattern[0], None]
            if (pattern == pattern[0]).all()
            else self.seen[torch.from_numpy(pattern).to(self.seen.device)]
        )
        if not self.alike:
            seen = seen + (self.unseen if rows is None else self.unseen[rows])
        return seen[..., begin:end]

    @torch.inference_mode()
    def read(self, rows, prompts, bd=None):
        """
        Begin new episodes in rows (n,), with prompts, n lists of token ids, and bd (n, n_bd), nan where not given.
        A prompt is computed once, however many rows ask it and however often.
        """
        self.t[rows] = 0
        device, on = self.k.device, torch.as_tensor(rows, device=self.k.device)
        self.k[:, on, :, self.N :], self.v[:, on, :, self.N :] = 0.0, 0.0  # even a nan left there is gone
        if self.model.config.n_bd:
            self.bd[on] = self.model.aim(
                torch.full((len(rows), 1, self.model.config.n_bd), torch.nan, device=device)
                if bd is None
                else bd[:, None]
            )
        if not self.model.config.text_len:
            return
        asked = {
            row: tuple(prompt) for row, prompt in zip(map(int, rows), prompts) if tuple(prompt) != self.prompts[row]
        }
        held = {prompt: row for row, prompt in enumerate(self.prompts) if row not in asked}
        new = list(dict.fromkeys(prompt for prompt in asked.values() if prompt not in held))
        for row, prompt in asked.items():
            self.prompts[row] = prompt
            # columns are counted back from the first step, so that prompts of any length stand next to the episode
            self.unseen[row, ..., : self.N - len(prompt)], self.unseen[row, ..., self.N - len(prompt) :] = (
                -torch.inf,
                0.0,
            )
            if prompt in held:
                for kept in self.k, self.v:
                    kept[:, row, :, : self.N] = kept[:, held[prompt], :, : self.N]
        self.longest, self.alike = max(map(len, self.prompts)), len(set(self.prompts)) == 1
        if not new:
            return
        text = torch.from_numpy(self.pad_prompts(new)).to(device)
        x, attend = self.model.words(text), self.model.attention_of(kinds(text), 0, 'dense')
        place = {prompt: i for i, prompt in enumerate(new)}
        goes = [(row, place[prompt], len(prompt)) for row, prompt in asked.items() if prompt in place]
        for k_all, v_all, block in zip(self.k, self.v, self.model.blocks):

            def past(k, v):
                for row, i, n in goes:
                    k_all[row, :, self.N - n : self.N], v_all[row, :, self.N - n : self.N] = k[i, :, :n], v[i, :, :n]
                return k, v

            x = block(x, attend, past)

    @torch.inference_mode()
    def step(self, obs, act, bd=None, rows=None):
        """
        The heads' output at the next step of each episode in a cache: forward's at its newest step, for the price of n_slots tokens.

        obs (n, chunk, n_obs), up to the decision; act (n, chunk, ...), what was done since the last one; bd (n, n_bd), nan where
        not given, None: as before; rows (n,), a numpy array, None: all. Does not count the step:
        `t[rows] += 1` does, until then it can be taken again.
        """
        c, every, t = self.model.config, slice(None), self.t if rows is None else self.t[rows]
        latest, together = int(t.max()), rows is None and (t == t[0]).all()  # in lockstep slices will do
        if latest >= c.max_steps:
            raise ValueError(f'an episode has reached step {latest}, but the policy knows {c.max_steps} only. Reset it')
        here = every if rows is None else torch.from_numpy(rows).to(obs.device)
        on = torch.from_numpy(t).to(obs.device)[:, None]
        if c.n_bd and bd is not None:
            self.bd[here] = self.model.aim(bd[:, None])
        believed = None
        if c.n_privileged:
            row = torch.arange(len(self.t), device=obs.device)[here]
            told = self.model.told(obs[:, None], self.model.done(act[:, None]) * (on > 0)[..., None])
            believed = self.model.belief.step(self.believed[row, on[:, 0]][:, None], told)
            self.believed[row, on[:, 0] + 1] = believed[:, 0]
        b = self.bd[here] if c.n_bd else None
        o, a = (None, None) if c.fuse == 'bins' else self.model.parts(obs[:, None], act[:, None], believed)
        if c.fuse == 'bins':
            x = self.model.numbers(obs[:, None], act, on > 0, b, self.model.time(on)).flatten(1, 2)
        elif c.fuse == 'sum':
            x = (o if b is None else b + o) + self.model.time(on)
            x = x if a is None else x + a * (on > 0)[..., None]
        else:  # the action before belongs to its own step
            now = torch.cat([(on - 1).clamp(min=0)] * c.act_token + [on] * (c.n_slots - c.act_token), 1)
            x = torch.cat([part for part in (a, b, o) if part is not None], 1) + self.model.time(now)  # (n, n_slots, C)
        if c.n_hidden:
            row, live = (
                torch.arange(len(self.t), device=x.device)[here],
                torch.ones(x.shape[:2], dtype=torch.bool, device=x.device),
            )
            live[:, : c.act_token] = on > 0  # at the start there is no action before
            emitted, latent = self.model.latent(x, self.latent[row, on[:, 0]], live)
            x, self.latent[row, on[:, 0] + 1] = x + emitted, latent[:, -1]
        begin, end = self.N - self.longest, self.N + min(latest + 1, self.ring) * c.n_slots
        mask = self.mask(t, None if rows is None else here, begin, end)
        attend = partial(F.scaled_dot_product_attention, attn_mask=mask)
        if self.alike and len(t) * self.longest >= 256:
            attend = partial(attend_alike, mask=mask, n=self.longest)
        column = self.N + t % self.ring * c.n_slots
        if together:
            where = every, every, slice(column[0], column[0] + c.n_slots)
        else:
            column = torch.from_numpy(column[:, None] + np.arange(c.n_slots)).to(obs.device)
            where = (torch.arange(len(t), device=obs.device) if rows is None else here)[:, None], every, column
        last = lambda x: x[:, -1:]  # noqa: E731
        for i, (k_all, v_all, block) in enumerate(zip(self.k, self.v, self.model.blocks)):

            def past(k, v):
                k_all[where], v_all[where] = (k, v) if together else (k.transpose(1, 2), v.transpose(1, 2))
                return k_all[here, :, begin:end], v_all[here, :, begin:end]

            x = block(x, attend, past, last if i == len(self.model.blocks) - 1 and c.fuse != 'bins' else None)
        return self.model.heads(self.model.ln_f(x))


def attend_alike(q, k, v, mask, n, dropout_p=0.0):
    """attention of rows whose first n keys are the same: they are fetched once. q (B, nh, T, hs), k and v (B, nh, columns, hs)"""
    B, nh, T, hs = q.shape
    q = q * hs**-0.5
    together = q.transpose(0, 1).reshape(nh, B * T, hs)
    scores = (together @ k[0, :, :n].transpose(1, 2)).view(nh, B, T, n).transpose(0, 1)
    p = torch.softmax(torch.cat([scores, q @ k[:, :, n:].transpose(2, 3)], 3) + mask, 3)
    words = p[..., :n].transpose(0, 1).reshape(nh, B * T, n) @ v[0, :, :n]
    return words.view(nh, B, T, hs).transpose(0, 1) + p[..., n:] @ v[:, :, n:]
