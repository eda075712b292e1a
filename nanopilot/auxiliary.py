"""
Optional parts of the policy: what it does not observe, worked out from what it did and saw (StateEstimator,
HiddenMarkov), what it also learns to predict, because that teaches more than actions alone (FutureBD, NextObs), and
acting on the sub-goal that it predicts (SubgoalMLP). And Fourier features.
"""

import math

import torch
import torch.nn as nn
from torch.nn import functional as F

from nanopilot.layers import masked_mean, refuse, squared_relu, within_episode

ERROR = 0.003, 0.3  # StateEstimator: errors of an episode's estimates in training, log-uniform, in standard deviations
OWN = 0.5  # proportion of episodes that begin each step at their own estimate instead
FUTURE_BINS = 40  # intervals of each dimension, one of which FutureBD chooses: sharper than a mean
FUTURE_WEIGHT = 0.2  # of that cross-entropy beside the action's loss


def check(config):
    """Refuse settings of a GPT that cannot be: what is to be predicted is not there, or frequencies would grow."""
    refuse(config.n_future and not config.n_bd, f'n_future={config.n_future}, but there is no bd. Set --n_future=0')
    expects = config.n_future and config.subgoal
    why = 'no sub-goal is predicted: the data has none, or n_future=0'
    refuse(
        config.subgoal_layers and not expects,
        f'subgoal_layers={config.subgoal_layers}, but {why}. Set --subgoal_layers=0',
    )
    fades = 0 < config.freq_decay <= 1
    refuse(not fades, f'freq_decay={config.freq_decay:g} is not above 0 and at most 1. Set --freq_decay=0.5, or 1.0')


class FourierFeatures(nn.Module):
    """
    Sines and cosines of numbers at config.n_freq frequencies: one wave from -4 to 4, then twice as many, and so on
    (Tancik et al., arXiv 2006.10739). Each is freq_decay times as strong as the one before: below 1, numbers that are
    near each other have features that are, too.
    """

    def __init__(self, config):
        super().__init__()
        frequency = [math.pi / 4 * 2.0**i for i in range(config.n_freq)]
        strength = [config.freq_decay**i for i in range(config.n_freq)]
        # lists: a power of a tensor would import torch._dynamo, which takes a second
        self.register_buffer('frequency', torch.tensor(frequency), persistent=False)
        self.register_buffer('strength', torch.tensor(strength), persistent=False)

    def forward(self, x):
        """x (..., n) normalised -> (..., 2 * n_freq * n)"""
        x = x[..., None] * self.frequency
        return torch.cat([x.sin() * self.strength, x.cos() * self.strength], dim=-1).flatten(-2)

    def beside(self, x):
        """x (..., n) normalised -> x, and then its features, (..., n + 2 * n_freq * n)"""
        return torch.cat([x, self(x)], dim=-1)


class StateEstimator(nn.Module):
    """
    Observations that only training has, estimated, normalised: s_t = s_{t-1} + f(s_{t-1}, act_{t-1}, obs_t), f an MLP.

    In training the truth is known ("Learning by Cheating", Chen et al., arXiv 1912.12294), when acting it is never
    asked for. f learns one step at a time, all steps at once, from the truth with an error added, or from its own
    estimate (Data as Demonstrator, Venkatraman et al., AAAI 2015): so it learns to correct what it got wrong.
    """

    def __init__(self, config):
        super().__init__()
        self.n_obs, n, width = config.n_obs, config.n_privileged, 2 * config.n_embd
        n_waves = 2 * config.n_freq
        n_inputs = config.chunk * config.n_act + config.n_obs * (config.chunk + n_waves)
        self.first = nn.Parameter(torch.zeros(n))  # the estimate before the first step
        self.inputs = nn.Linear(n_inputs, width)
        self.memory = nn.Linear(n * (1 + n_waves), width, bias=False)
        self.inner = nn.Linear(width, width)
        self.change = nn.Linear(width, n)
        self.fourier = FourierFeatures(config)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def initial(self):
        """-> (n,), what is carried into the first step."""
        return self.first

    def step(self, before, features):
        """before (..., n), features (..., width), what self.inputs makes of the step -> (..., n)."""
        h = features + self.memory(self.fourier.beside(before))
        return before + self.change(F.relu(self.inner(squared_relu(h))))

    @torch.no_grad()
    def unroll(self, features, before):
        """features (B, S, width), before (B, n) -> the estimate at each step (B, S, n)."""
        estimates = [before]
        for now in features.unbind(1):
            estimates.append(self.step(estimates[-1], now))
        return torch.stack(estimates[1:], 1)

    def forward(self, obs, prev_act, before=None):
        """
        obs (B, S, chunk, n_obs) normalised, in training with the n_privileged that are estimated, too; prev_act
        (B, S, chunk * n_act), 0 where there is none; before (B, n), the estimate so far -> (B, S, n).
        """
        observed, truth = obs[..., : self.n_obs], obs[:, :, -1, self.n_obs :]
        features = [prev_act, observed.flatten(2), self.fourier(observed[:, :, -1])]
        features = self.inputs(torch.cat(features, dim=-1))
        with torch.autocast(obs.device.type, enabled=False):  # small changes that add up need float32
            features = features.float()
            first = self.first.expand(len(obs), -1) if before is None else before
            estimates = self.unroll(features, first)
            if not self.training:
                return estimates
            low, high = map(math.log, ERROR)
            spread = (low + (high - low) * torch.rand_like(truth[:, :1, :1])).exp()
            start = torch.where(torch.rand_like(spread) < OWN, estimates, truth + spread * torch.randn_like(truth))
            return self.step(torch.cat([first[:, None], start[:, :-1]], 1), features)

    def loss(self, estimate, batch):
        """estimate (B, S, n) -> its squared error, a mean over the steps of the episodes; 0 but in training."""
        if not self.training:
            return 0.0
        truth = batch['obs'][:, :, -1, self.n_obs :]
        within = within_episode(batch['loss_mask'])
        return masked_mean(((estimate - truth) ** 2).mean(-1), within)


class HiddenMarkov(nn.Module):
    """
    A hidden Markov model of n states that follows the tokens: b_t ~ (b_{t-1} P) * e(token t), all sums being 1, P
    row-stochastic (Rabiner, 1989, the forward pass); what it emits on average is added to the token. One token after
    the other: products of matrices in pairs, or in blocks, took as long or longer on CPUs.
    """

    def __init__(self, n, width):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(n))  # logits before the first token
        self.transition = nn.Parameter(7 * torch.eye(n))  # logits of P's rows: states last a while
        self.evidence = nn.Linear(width, n)
        self.emission = nn.Linear(n, width, bias=False)
        nn.init.normal_(self.evidence.weight, std=width**-0.5)  # the states differ from the start
        nn.init.normal_(self.emission.weight, std=0.2)

    def initial(self):
        """-> (n,), the probabilities that are carried into the first step."""
        return self.first.softmax(0)

    def token_evidence(self, x):
        """x (B, T, C) -> what each token says of the states (B, T, n)."""
        return self.evidence(F.layer_norm(x.float(), x.shape[2:])).softmax(2)

    def forward(self, x, has_prev, first_slot, before=None):
        """
        x (B, S, n_slots, C), the tokens of steps; has_prev (B, S) bool, False at the very first step, which begins with
        the token first_slot; before (B, n), the probabilities so far -> x and what is emitted; the probabilities after
        each step (B, S, n). Never in bfloat16.
        """
        live = torch.ones(x.shape[:3], dtype=torch.bool, device=x.device)
        live[:, :, :first_slot] = has_prev[..., None]
        with torch.autocast(x.device.type, enabled=False):
            tokens = x.flatten(1, 2)  # (B, S * n_slots, C)
            evidence = self.token_evidence(tokens)
            b = self.initial().expand(len(x), -1) if before is None else before
            b = self.follow(b, evidence, live.flatten(1))
            emitted = self.emission(b).view_as(x)
        return x + emitted, b.unflatten(1, x.shape[1:3])[:, :, -1]

    def loss(self, probabilities, batch):
        """Nothing tells the states apart but what they are good for."""
        return 0.0

    def follow(self, b, evidence, live):
        """
        b (B, n), evidence (B, T, n); live (B, T) bool: other tokens change nothing -> the probabilities (B, T, n).
        """
        P, states = self.transition.softmax(1), []
        for t, e in enumerate(evidence.unbind(1)):
            b = torch.where(live[:, t, None], b @ P * e, b)
            if t % 4 == 3:  # in between they only get smaller together
                b = b / b.sum(1, keepdim=True)
            states.append(b)
        b = torch.stack(states, 1)
        return b / b.sum(2, keepdim=True)


class FutureBD(nn.Module):
    """
    Where the episode will be 1, 2, 4 .. 2^(n_future - 1) steps from now, predicted at every step: so every step learns
    what the prompt is about; the actions alone say it where the path turns. Where the data says it, also the sub-goal:
    what the robot heads for now.
    """

    def __init__(self, config):
        super().__init__()
        self.subgoal = config.subgoal
        self.shape = config.n_future + config.subgoal, config.n_bd, FUTURE_BINS
        self.proj = nn.Linear(config.n_embd, math.prod(self.shape))
        self.register_buffer('low', torch.zeros(config.n_bd))
        self.register_buffer('high', torch.ones(config.n_bd))

    def forward(self, x, batch):
        """x (B, S, C) -> logits (B, S, n_future, n_bd, FUTURE_BINS); those of the sub-goal are one more, the last."""
        return self.proj(x).unflatten(-1, self.shape)

    @torch.no_grad()
    def expected_subgoal(self, x):
        """x (B, S, C) -> (B, S, n_bd)"""
        n = math.prod(self.shape[1:])
        logits = F.linear(x, self.proj.weight[-n:], self.proj.bias[-n:])
        return self.expected(logits.unflatten(-1, self.shape[1:]))

    def expected(self, logits):
        """logits (.., n_bd, FUTURE_BINS) -> (.., n_bd), the mean over the intervals"""
        middles = (torch.arange(FUTURE_BINS, device=logits.device) + 0.5) / FUTURE_BINS
        return self.low + (self.high - self.low) * (logits.float().softmax(-1) * middles).sum(-1)

    def loss(self, logits, batch):
        """
        batch: future_bd (B, S, n_future, n_bd), subgoal (B, S, n_bd), loss_mask (B, S, chunk) -> the weighed
        cross-entropy, 0 without future_bd, and for what is nan.
        """
        future = batch.get('future_bd')
        if future is None:
            return 0.0
        if self.subgoal:
            future = torch.cat([future, batch['subgoal'][:, :, None]], 2)
        mask = batch['loss_mask']
        share = (future - self.low) / (self.high - self.low)
        bins = (share * FUTURE_BINS).nan_to_num().long().clamp(0, FUTURE_BINS - 1)
        bins[future.isnan()] = -100  # cross_entropy ignores it
        ce = F.cross_entropy(logits.flatten(0, -2), bins.flatten(), reduction='none').view(bins.shape).mean(-1)
        n = ce.shape[-1] - self.subgoal  # the sub-goal's is the last, and counts as much as all the others
        ce = ce[..., :n].mean(-1) + ce[..., n:].sum(-1)
        return FUTURE_WEIGHT * masked_mean(ce[..., None], mask)

    def fit(self, split, columns, seed):
        """Take the range of bd from the training data."""
        self.low.copy_(torch.tensor(split.meta['bd_low']))
        self.high.copy_(torch.tensor(split.meta['bd_high']))


class SubgoalMLP(nn.Module):
    """
    What the episode heads for, then how to get there: the sub-goal that FutureBD expects is embedded and added to the
    token that predicts, and an MLP makes of it what the head reads. In training some episodes see the true one,
    so that steering is learned before sub-goals are (reasoning before acting: arXiv 2304.11063).
    """

    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.embed = nn.Linear(config.n_bd * (1 + 2 * config.n_freq), C)
        self.layers = nn.ModuleList(
            nn.ModuleDict({'ln': nn.LayerNorm(C), 'c_fc': nn.Linear(C, 4 * C), 'c_proj': nn.Linear(4 * C, C)})
            for _ in range(config.subgoal_layers)
        )

    def forward(self, x, gpt, batch):
        """
        x (B, S, C), of the tokens that predict; batch: subgoal (B, S, n_bd), the true one, nan: not known, and
        sees_subgoal (B,) bool -> (B, S, C)
        """
        goal = gpt.aux['future_bd'].expected_subgoal(x)
        if self.training and 'sees_subgoal' in batch:
            seen = batch['sees_subgoal'][:, None, None] & ~batch['subgoal'].isnan()
            goal = torch.where(seen, batch['subgoal'], goal)
        goal = gpt.steps.bd_norm(goal)
        x = x + self.embed(gpt.steps.fourier.beside(goal))
        for layer in self.layers:
            x = x + layer['c_proj'](squared_relu(layer['c_fc'](layer['ln'](x))))
        return x


class WithoutSubgoal(nn.Module):
    """The head reads the tokens that predict as they are: there is no SubgoalMLP."""

    def __init__(self, config):
        super().__init__()

    def forward(self, x, gpt, batch):
        return x


class NextObs(nn.Module):
    """
    The next `chunk` observations, from the token that predicts and the actions that are taken: a model of the world.
    """

    def __init__(self, config):
        super().__init__()
        C, n_out = config.n_embd, config.chunk * config.n_act
        self.n_obs, self.chunk, self.weight = config.n_obs, config.chunk, config.next_obs
        self.state = nn.Linear(C, C)
        self.action = nn.Linear(n_out, C, bias=False)
        self.change = nn.Linear(C, config.chunk * config.n_obs)
        # of angles, which are within half of it of 0; 0: none
        self.register_buffer('period', torch.zeros(config.n_obs))
        nn.init.zeros_(self.change.weight)  # at first nothing changes
        nn.init.zeros_(self.change.bias)

    def forward(self, x, batch):
        """x (B, S, C), batch: obs and act, normalised or one-hot -> (B, S, chunk, n_obs), normalised."""
        newest = batch['obs'][:, :, -1:, : self.n_obs]
        h = squared_relu(self.state(x) + self.action(batch['act'].flatten(2)))
        return newest + self.change(h).unflatten(2, (self.chunk, -1))

    def loss(self, predicted, batch):
        """
        predicted (B, S, chunk, n_obs) -> the weighed squared error, a mean over the steps that count; 0 but in
        training.
        """
        if not self.training:
            return 0.0
        mask, period = batch['loss_mask'], self.period / batch['obs_std'][: self.n_obs]
        error = predicted[:, :-1] - batch['obs'][:, 1:, :, : self.n_obs]
        turns = (error.detach() / period.clamp(min=1e-9)).round()
        error = error - period * turns  # an angle is nearly right beyond its seam, too
        within = within_episode(mask)[:, 1:]
        return self.weight * self.chunk * ((error**2).mean((2, 3)) * within).sum() / mask.sum().clamp(min=1)

    def wrap(self, obs):
        """obs (..., n_obs), in their units, with angles within half a period of 0."""
        half = self.period / 2
        return torch.where(self.period > 0, (obs + half) % self.period.clamp(min=1e-9) - half, obs)

    def fit(self, split, columns, seed):
        """Take the periods of angles from the training data."""
        if 'obs_period' in split.meta:
            self.period.copy_(torch.tensor(split.meta['obs_period'])[columns[: self.n_obs]])
