"""
Every number a token: the vocabulary of a language model of episodes (Trajectory Transformer, Janner et al., arXiv
2106.02039).

    RESET x_0 .. x_{n-1} | act_0 x_0 .. x_{n-1} | act_1 x_0 .. x_{n-1} | .. | act_{T-1} DONE

A step is the action before it, or RESET where an episode (in training, a segment of it) begins, and its observations,
each in one of n_bins of its own. The last of them predicts the action; an action predicts how it goes on, or that it is
DONE. NumberTokens makes a StepEmbedding of model.py write such steps (EveryNumber); TokenPrediction makes its CEHead
predict every token (TokenHead).
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

from data import quantize
from nanopilot.layers import refuse

RESET, DONE = 0, 1  # then the actions, then the bins of each observation
N_SPECIAL = 2


def check(config):
    """Refuse settings of a GPT that do not go with fuse='bins'."""
    is_bins = config.fuse == 'bins'
    refuse(is_bins != (config.head == 'tokens'), "fuse='bins' and head='tokens' go together. Set both, or neither")
    if is_bins:
        more = config.n_privileged or config.next_obs or config.n_future
        refuse(config.chunk > 1, f"fuse='bins' is for chunk=1, not {config.chunk}. Set --chunk=1")
        refuse(not config.past_actions, "fuse='bins' has past actions in it. Set --past_actions=True")
        refuse(config.n_bins < 2, f"fuse='bins' tells nothing apart with n_bins={config.n_bins}. Set 2 or more")
        refuse(more, "fuse='bins' predicts all numbers. Set --next_obs=0 --n_future=0 --privileged_obs=''")


@dataclass
class Vocabulary:
    """The token ids of n_act actions and n_obs observations of n_bins each."""

    n_obs: int
    n_bins: int
    n_act: int

    @property
    def size(self):
        return N_SPECIAL + self.n_act + self.n_obs * self.n_bins

    def act_ids(self, act, has_prev):
        """
        act (B, S) int64, the action before each step; has_prev (.., S) bool, False where there is none -> ids (B, S).
        """
        return torch.where(has_prev, N_SPECIAL + act, RESET)

    def obs_ids(self, obs, edges):
        """obs (..., n_obs), edges (n_obs, n_bins + 1), rising -> ids (..., n_obs)"""
        first = N_SPECIAL + self.n_act + torch.arange(self.n_obs, device=obs.device) * self.n_bins
        return first + in_bins(obs, edges)

    def legal(self, slot):
        """The ids that can follow token number `slot` of a step, a slice; after an action, DONE can, too."""
        if slot == self.n_obs:
            return slice(N_SPECIAL, N_SPECIAL + self.n_act)
        first = N_SPECIAL + self.n_act + slot * self.n_bins
        return slice(first, first + self.n_bins)


def in_bins(obs, edges):
    """obs (.., n_obs), edges (n_obs, n_bins + 1) -> the bin of each, (.., n_obs); the outermost hold all beyond"""
    return (obs[..., None] >= edges[:, 1:-1]).sum(-1)


def token_loss(logits, obs_ids, act, loss_mask, terminated, start):
    """
    logits (B, S, 1 + n_obs, size), obs_ids (B, S, n_obs), act (B, S) -> the cross-entropy of the tokens, a mean over
    the tokens of the steps that loss_mask (B, S) counts.

    terminated (B, S) bool, or None: after the step before, the episode ended by itself; start (B,), or 0: the step at
    which a segment begins: unless it is 0, nothing predicts the first of its numbers.
    """
    happened = loss_mask.flip(1).cumsum(1).flip(1) > 0  # before an action to imitate: these observations count, too
    counts = torch.cat([happened[..., None].expand(obs_ids.shape), loss_mask[..., None]], 2)
    counts[:, 0, 0] &= torch.as_tensor(start == 0, device=counts.device)
    target = torch.cat([obs_ids, N_SPECIAL + act[..., None]], 2)  # (B, S, 1 + n_obs)
    if terminated is not None:
        target[..., 0] = torch.where(terminated, DONE, target[..., 0])
        counts[..., 0] |= terminated
    ce = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction='none').view(target.shape)
    return (ce * counts).sum() / (loss_mask.sum().clamp(min=1) * target.shape[2])


class NumberTokens:
    """What makes a StepEmbedding write every number."""

    @staticmethod
    def slots(config):
        return 1 + config.n_obs

    def add_inputs(self, config):
        self.vocabulary = Vocabulary(config.n_obs, config.n_bins, config.n_act)
        self.wte = nn.Embedding(self.vocabulary.size, config.n_embd)
        self.register_buffer('edges', torch.linspace(-2, 2, config.n_bins + 1).repeat(config.n_obs, 1))  # of the bins

    def forward(self, obs, prev_act, bd_emb, has_prev, t, estimate=None):
        """
        obs (B, S, 1, n_obs), prev_act (B, S, n_act) one-hot, bd_emb (B, S or 1, C) or None, has_prev (B, S), t (B, S)
        -> (B, S, 1 + n_obs, C)
        """
        act_ids = self.vocabulary.act_ids(prev_act.argmax(-1), has_prev)  # (B, S)
        obs_ids = self.vocabulary.obs_ids(obs[:, :, -1], self.edges)  # (B, S, n_obs)
        x = self.wte(torch.cat([act_ids[..., None], obs_ids], 2)) + self.time(t)[:, :, None]
        if bd_emb is not None:
            x = torch.cat([x[:, :, :1] + bd_emb[:, :, None], x[:, :, 1:]], 2)
        return x

    def targets(self, obs):
        return {'obs_ids': self.vocabulary.obs_ids(obs[:, :, -1], self.edges)}

    def fit(self, split, columns, seed):
        n_bins = self.edges.shape[1] - 1
        self.edges.copy_(torch.from_numpy(quantize.fit_bins(split, n_bins, columns, seed)))
        super().fit(split, columns, seed)


class TokenPrediction:
    """What makes a CEHead predict what comes next at every token of a step; its last token has the action."""

    every_token = True

    def add_outputs(self, config):
        self.vocabulary = Vocabulary(config.n_obs, config.n_bins, config.n_act)
        self.proj = nn.Linear(config.n_embd, self.vocabulary.size)

    def forward(self, x):
        """x (B, S * n_slots, C) -> the logits of every token, and of the actions."""
        n_obs = self.vocabulary.n_obs
        logits = self.proj(x).unflatten(1, (-1, 1 + n_obs))  # (B, S, n_slots, size)
        return {'token': logits, 'act': logits[:, :, -1, self.vocabulary.legal(n_obs)]}

    def loss(self, out, batch):
        act, mask = batch['act'].argmax(-1)[..., 0], batch['loss_mask'][..., 0]  # (B, S): a chunk is one action
        return token_loss(out['token'], batch['obs_ids'], act, mask, batch.get('terminated'), batch['start'])
