"""
What a policy does not observe, worked out from what it did and saw: numbers that training knows (StateEstimator), a state that nobody
knows (HiddenMarkov), and what is observed next (NextObs).
"""

import math

import torch
import torch.nn as nn
from torch.nn import functional as F

ERROR = (
    0.003,
    0.3,
)  # standard deviations of an episode's errors before a step, between these, in those of what is believed
OWN = 0.5  # share of episodes that begin each step at their own belief


def waves(x, octaves):
    """x (..., n) normalised -> sin and cos of it at each octave (..., 2 * octaves * n); Tancik et al., arXiv 2006.10739"""
    x = x[..., None] * octaves
    return torch.cat([x.sin(), x.cos()], dim=-1).flatten(-2)


class StateEstimator(nn.Module):
    """
    n numbers believed, normalised, from n_told numbers at every step: b_t = b_{t-1} + f(b_{t-1}, act_{t-1}, obs_t), f an MLP.

    In training the truth is known ("Learning by Cheating", Chen et al., arXiv 1912.12294), when acting it is never asked for. f learns
    one step at a time, all steps at once, from the truth and an error before it, or from what it believed itself (Data as
    Demonstrator, Venkatraman et al., AAAI 2015): so it learns to mend what it got wrong.
    """

    def __init__(self, n, n_told, octaves, width):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(n))  # before the first step
        self.told = nn.Linear(n_told, width)
        self.held = nn.Linear(n * (1 + 2 * len(octaves)), width, bias=False)
        self.inner = nn.Linear(width, width)
        self.change = nn.Linear(width, n)
        self.register_buffer('octaves', octaves.clone(), persistent=False)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def step(self, before, told):
        """before (..., n), told (..., width), what self.told makes of the step -> (..., n)"""
        h = F.relu(told + self.held(torch.cat([before, waves(before, self.octaves)], dim=-1))).square()
        return before + self.change(F.relu(self.inner(h)))

    @torch.no_grad()
    def unroll(self, told):
        """told (B, S, width) -> what is believed at each step of B episodes, from their beginning (B, S, n)"""
        believed = [self.first.expand(len(told), -1)]
        for now in told.unbind(1):
            believed.append(self.step(believed[-1], now))
        return torch.stack(believed[1:], 1)

    def forward(self, told, truth=None):
        """told (B, S, width), and truth (B, S, n) in training -> (B, S, n). In float32: what adds up has no digits to lose"""
        with torch.autocast(told.device.type, enabled=False):
            told = told.float()
            own = self.unroll(told)
            if truth is None:
                return own
            low, high = map(math.log, ERROR)
            spread = (low + (high - low) * torch.rand_like(truth[:, :1, :1])).exp()
            before = torch.where(torch.rand_like(spread) < OWN, own, truth + spread * torch.randn_like(truth))
            return self.step(torch.cat([self.first.expand(len(told), 1, -1), before[:, :-1]], 1), told)


class HiddenMarkov(nn.Module):
    """
    A hidden Markov model's belief over n states that follows the tokens: b_t ~ (b_{t-1} P) * e(token t), all sums being 1, P row-stochastic
    (Rabiner, 1989, the forward pass); what it emits on average is added to the token. One token after the other: products of matrices in
    pairs, or in blocks, took as long or longer on CPUs.
    """

    def __init__(self, n, width):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(n))  # logits of the belief before the first token
        self.moves = nn.Parameter(7 * torch.eye(n))  # logits of P's rows: states last a while
        self.evidence = nn.Linear(width, n)
        self.emission = nn.Linear(n, width, bias=False)
        nn.init.normal_(self.evidence.weight, std=width**-0.5)  # the states differ from the start
        nn.init.normal_(self.emission.weight, std=0.2)

    def seen(self, x):
        """x (B, T, C) -> what each token is evidence of (B, T, n)"""
        return self.evidence(F.layer_norm(x.float(), x.shape[2:])).softmax(2)

    def forward(self, x, before=None, live=None):
        """
        x (B, T, C); before (B, n), what was believed before them, None: what is at the start; live (B, T) bool: others change no belief
        -> what to add to each (B, T, C), and the belief at each (B, T, n). Never in bfloat16
        """
        with torch.autocast(x.device.type, enabled=False):
            b = self.first.softmax(0).expand(len(x), -1) if before is None else before
            P, found = self.moves.softmax(1), []
            for t, seen in enumerate(self.seen(x).unbind(1)):
                then = b @ P * seen
                b = then if live is None else torch.where(live[:, t, None], then, b)
                if t % 4 == 3:  # in between they only get smaller together
                    b = b / b.sum(1, keepdim=True)
                found.append(b)
            b = torch.stack(found, 1)
            b = b / b.sum(2, keepdim=True)
            return self.emission(b), b


class NextObs(nn.Module):
    """The next `chunk` observations, from what stands at a step's prediction and the actions that are taken: a model of the world."""

    def __init__(self, n_obs, chunk, n_done, width, weight):
        super().__init__()
        self.state, self.action = nn.Linear(width, width), nn.Linear(n_done, width, bias=False)
        self.change = nn.Linear(width, chunk * n_obs)
        self.chunk, self.weight = chunk, weight
        self.register_buffer(
            'period', torch.zeros(n_obs)
        )  # of angles, 0: none; their numbers are within half a period of 0
        nn.init.zeros_(self.change.weight)  # at first nothing changes
        nn.init.zeros_(self.change.bias)

    def forward(self, x, obs, done):
        """x (B, S, C), obs (B, S, n_obs), the newest, and done (B, S, n_done), the actions, normalised -> (B, S, chunk, n_obs), normalised"""
        change = self.change(F.relu(self.state(x) + self.action(done)).square())
        return obs[:, :, None] + change.unflatten(2, (self.chunk, -1))

    def loss(self, said, obs, std, steps, n_real):
        """said and obs (B, S, chunk, n_obs), normalised by std, steps (B, 1) of each episode -> the weighed squared error, a mean over n_real"""
        off, period = said[:, :-1] - obs[:, 1:], self.period / std
        off = (
            off - period * (off.detach() / period.clamp(min=1e-9)).round()
        )  # an angle is nearly right beyond its seam, too
        within = torch.arange(1, obs.shape[1], device=obs.device) < steps
        return self.weight * self.chunk * ((off**2).mean((2, 3)) * within).sum() / n_real.clamp(min=1)

    def wrapped(self, obs):
        """obs (..., n_obs), in their units, with angles within half a period of 0"""
        return torch.where(
            self.period > 0, (obs + self.period / 2) % self.period.clamp(min=1e-9) - self.period / 2, obs
        )
