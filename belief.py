"""
What a policy does not observe, it works out from what it did and saw: b_t = b_{t-1} + f(b_{t-1}, act_{t-1}, obs_t), f an MLP.

In training the truth is known ("Learning by Cheating", Chen et al., arXiv 1912.12294), when acting it is never asked for. f learns
one step at a time, all steps at once, from the truth and an error before it, or from what it believed itself (Data as
Demonstrator, Venkatraman et al., AAAI 2015): so it learns to mend what it got wrong.
"""
import math

import torch
import torch.nn as nn
from torch.nn import functional as F

ERROR = 0.003, 0.3 # standard deviations of an episode's errors before a step, between these, in those of what is believed
OWN = 0.5          # share of episodes that begin each step at their own belief


def waves(x, octaves):
    """ x (..., n) normalised -> sin and cos of it at each octave (..., 2 * octaves * n); Tancik et al., arXiv 2006.10739 """
    x = x[..., None] * octaves
    return torch.cat([x.sin(), x.cos()], dim=-1).flatten(-2)


class Belief(nn.Module):
    """n numbers believed, normalised, from n_told numbers at every step."""

    def __init__(self, n, n_told, octaves, width):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(n)) # before the first step
        self.told = nn.Linear(n_told, width)
        self.held = nn.Linear(n * (1 + 2 * len(octaves)), width, bias=False)
        self.inner = nn.Linear(width, width)
        self.change = nn.Linear(width, n)
        self.register_buffer('octaves', octaves.clone(), persistent=False)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def step(self, before, told):
        """ before (..., n), told (..., width), what self.told makes of the step -> (..., n) """
        h = F.relu(told + self.held(torch.cat([before, waves(before, self.octaves)], dim=-1))).square()
        return before + self.change(F.relu(self.inner(h)))

    @torch.no_grad()
    def unroll(self, told):
        """ told (B, S, width) -> what is believed at each step of B episodes, from their beginning (B, S, n) """
        believed = [self.first.expand(len(told), -1)]
        for now in told.unbind(1):
            believed.append(self.step(believed[-1], now))
        return torch.stack(believed[1:], 1)

    def forward(self, told, truth=None):
        """ told (B, S, width), and truth (B, S, n) in training -> (B, S, n). In float32: what adds up has no digits to lose """
        with torch.autocast(told.device.type, enabled=False):
            told = told.float()
            own = self.unroll(told)
            if truth is None:
                return own
            low, high = map(math.log, ERROR)
            spread = (low + (high - low) * torch.rand_like(truth[:, :1, :1])).exp()
            before = torch.where(torch.rand_like(spread) < OWN, own, truth + spread * torch.randn_like(truth))
            return self.step(torch.cat([self.first.expand(len(told), 1, -1), before[:, :-1]], 1), told)
