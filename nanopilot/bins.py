"""
Every number a token, next-token loss on all of them: a language model of episodes (Trajectory Transformer, Janner et al., arXiv
2106.02039).

    RESET x_0 .. x_{n-1} | act_0 x_0 .. x_{n-1} | act_1 x_0 .. x_{n-1} | .. | act_{T-1} DONE

A step is the action before it, or RESET where an episode (in training, a segment of it) begins, and its observations, each in one of n_bins of its own. What
stands at the last of them predicts the action; what stands at an action, that the episode is over or how it goes on.
"""

import torch
import torch.nn as nn
from torch.nn import functional as F

RESET, DONE = 0, 1  # then the actions, then the bins of each observation


class Bins(nn.Module):
    """The vocabulary of n_act actions and n_obs observations: their tokens, embedded, and what is predicted of them."""

    def __init__(self, n_obs, n_bins, n_act, width):
        super().__init__()
        self.n_act, self.n_bins = n_act, n_bins
        self.vocab_size = 2 + n_act + n_obs * n_bins
        self.embedding = nn.Embedding(self.vocab_size, width)
        self.head = nn.Linear(width, self.vocab_size)
        self.register_buffer(
            'edges', torch.linspace(-2, 2, n_bins + 1).repeat(n_obs, 1)
        )  # of the bins, rising: data/bins.py finds them

    def of(self, obs):
        """obs (..., n_obs) -> their tokens, int64"""
        n = torch.arange(len(self.edges), device=obs.device)
        return (
            2 + self.n_act + n * self.n_bins + (obs[..., None] >= self.edges[:, 1:-1]).sum(-1)
        )  # the outermost hold all beyond, too

    def tokens(self, obs, before, begun):
        """obs (B, S, n_obs), before (B, S) int64, the action before, begun (.., S) bool, False where there is none -> (B, S, 1 + n_obs)"""
        return torch.cat([torch.where(begun, 2 + before, RESET)[..., None], self.of(obs)], 2)

    def legal(self, slot):
        """which tokens can follow a step's token number `slot` -> a slice of the vocabulary; after the action, DONE can, too"""
        first = 2 + self.n_act + slot * self.n_bins
        return slice(2, 2 + self.n_act) if slot == len(self.edges) else slice(first, first + self.n_bins)

    def loss(self, logits, obs, act, real, over, first):
        """
        logits (B, S, 1 + n_obs, vocab_size) -> the cross-entropy of the tokens that there are, a token of a real step. over (B, S) bool:
        there, after its last step, the episode is over; first (B,): where a segment begins, which nothing foretells unless it is 0.
        """
        within = real.flip(1).cumsum(1).flip(1) > 0  # what comes before something to be imitated has happened, too
        counts = torch.cat([within[..., None].expand(*within.shape, obs.shape[-1]).clone(), real[..., None]], 2)
        counts[:, 0, 0] &= True if first is None else first == 0
        target = torch.cat([self.of(obs), 2 + act[..., None]], 2)
        if over is not None:
            target[..., 0] = torch.where(over, DONE, target[..., 0])
            counts[..., 0] |= over
        ce = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction='none').view(target.shape)
        return (ce * counts).sum() / (real.sum().clamp(min=1) * target.shape[2])
