"""
nanoPilot's model: a GPT that reads a prompt, then an episode as [bd, obs, act] tokens, and says the next action.

    w_0 .. w_{N-1} | bd_0 obs_0 act_0 | bd_1 obs_1 act_1 | .. | bd_t obs_t [act_t is predicted at obs_t]

The prompt never leaves; of the steps, a query sees its own and the K-1 before it (the block slides). Every step carries an
embedding of its absolute time, so what a step's keys and values hold does not depend on where the window is. One step may
carry `chunk` environment steps: the observations up to its decision and the actions that follow it. What a policy sees of its
own motion tempts it to go on as it went: without `past_actions` there are no past actions, with obs_stack = 1 no past observations
within a step.

References: nanoGPT (Karpathy); Decision Transformer (Chen et al., arXiv 2106.01345); Behavior Transformers (Shafiullah et
al., arXiv 2206.11251) for the kmeans head; Quality-Diversity Transformer (Macé et al., arXiv 2303.16207) for bd.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn as nn
from torch.nn import functional as F

from nanopilot import attention
from nanopilot.attention import PAD
from nanopilot.auxiliary import StateEstimator, HiddenMarkov, NextObs, waves
from nanopilot.bins import Bins
from nanopilot.checkpoint import load_weights, read_checkpoint, read_tensors
from nanopilot.optim import Muon

AHEAD_BINS = 40  # foretelling is a choice between so many intervals of each bd dimension: sharper than a mean
AHEAD_WEIGHT = 0.2  # of that cross-entropy beside the action's loss
BELIEF_WEIGHT = 1.0  # of the squared error of what is believed


@dataclass
class GPTConfig:
    block_size: int = 364  # tokens in view: the prompt's text_len, and K steps of n_slots tokens
    text_len: int = 64  # prompt tokens at most, 0: no language
    vocab_size: int = 900
    text_width: int = (
        0  # of the states that a frozen encoder gives for each token (data/encoders.py); 0: tokens are ids
    )
    max_steps: int = 100  # steps an episode can have, each of `chunk` environment steps
    chunk: int = 4  # environment steps in one step of the sequence
    fuse: str = 'interleave'  # 'interleave': 3 tokens a step; 'sum': one, of bd, obs and the action before; 'bins': every number a token (bins.py)
    n_bins: int = 10  # of each observation, with 'bins'
    n_hidden: int = 0  # states of a hidden Markov belief that follows the tokens (belief.py); 0: none
    past_actions: bool = True  # are past actions among them? Who sees them may repeat them instead of looking (de Haan et al., 1905.11979)
    obs_stack: int = 0  # newest observations in a step's token; 0: all of the chunk
    n_obs: int = 9
    n_privileged: int = 0  # observations that only training knows: the policy works them out (belief.py)
    n_act: int = 2  # dimensions of a continuous action, or number of discrete ones
    n_bd: int = 2  # 0: no behaviour descriptor
    head: str = 'mse'  # 'mse', 'kmeans' (continuous: cluster + offset) or 'ce' (discrete)
    n_clusters: int = 64  # of the kmeans head
    joint_clusters: bool = True  # its clusters are of whole actions; False: of each of their dimensions by itself
    focal: float = 0.0  # gamma of the focal loss on its choice (Lin et al., 1708.02002); 0: cross-entropy
    offset_weight: float = 10.0  # its offset loss beside its cross-entropy
    next_obs: float = 0.0  # weight of the error in predicting the next observations, too; 0: don't
    n_future: int = 6  # also foretell where the episode will be 1, 2, 4 .. 2^(n_future - 1) steps on: 0: don't
    n_freq: int = 6  # octaves of sin and cos beside each observation: positions are seen sharper
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 256
    dropout: float = 0.0
    bias: bool = False  # in LayerNorms and Linears of the blocks

    @property
    def n_slots(self):
        """tokens a step: [bd, obs, act], less what there is not; one; or [the action before, every number of obs]"""
        return {'interleave': 1 + (self.n_bd > 0) + self.past_actions, 'sum': 1, 'bins': 1 + self.n_obs}[self.fuse]

    @property
    def act_token(self):
        return int(self.fuse == 'interleave' and self.past_actions)  # have actions a token of their own?

    @property
    def n_groups(self):
        return 1 if self.joint_clusters else self.n_act  # choices of a cluster in an action

    @property
    def decides(self):
        """the place in a step of its (last) obs token, which predicts"""
        return self.n_obs if self.fuse == 'bins' else int(self.fuse == 'interleave' and self.n_bd > 0)

    @property
    def window(self):
        return (self.block_size - self.text_len) // self.n_slots  # K, steps in view


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config.n_embd % config.n_head == 0, f'{config.n_embd=} {config.n_head=}'
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.n_head, self.dropout = config.n_head, config.dropout

    def forward(self, x, attend, past=None, take=None, ask=None):
        B, _, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (
            h.view(B, -1, self.n_head, C // self.n_head).transpose(1, 2) for h in (q if ask is None else ask(q), k, v)
        )
        if past is not None:
            k, v = past(k, v)  # keeps what is new, returns all there is
        y = attend(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, -1, C)  # (B, nh, T, hs) -> (B, T, C)
        return self.resid_dropout(self.c_proj(y if take is None else take(y)))


class SquaredReLU(torch.autograd.Function):
    """As good as GELU and cheaper (So et al., 2109.08668); its gradient here takes half the passes of F.relu(x).square()'s, to the same bit."""

    @staticmethod
    def forward(ctx, x):
        h = F.relu(x)
        ctx.save_for_backward(h)
        return h * h

    @staticmethod
    def backward(ctx, gradient):
        return (gradient * ctx.saved_tensors[0]).mul_(2)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()

    def forward(self, x):
        return self.dropout(self.c_proj(SquaredReLU.apply(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, attend, past=None, take=None, ask=None):
        """
        attend: the attention, as attention_of chooses it. Only the last block drops tokens: take says which go on after attention, ask
        which have queries at all.
        """
        y, fewer = self.attn(self.ln_1(x), attend, past, take, ask), take or ask
        x = y + (x if fewer is None else fewer(x))
        return x + self.mlp(self.ln_2(x))


def delayed(x):
    """x (B, S, C) of the step before, nothing at the start"""
    return F.pad(x[:, :-1], (0, 0, 1, 0))


def n_steps(real):
    """real (B, S, chunk) -> the steps of each episode (B, 1)"""
    return (real.any(2) * torch.arange(1, real.shape[1] + 1, device=real.device)).amax(1, keepdim=True)


def kinds(text):
    """text as GPT.words reads it -> (B, N) int64, PAD where there is no token"""
    return text if text.ndim == 2 else text[..., 0].long()


def tokens_at(x, at):
    """x (B, T, C), at (B, S) -> (B, S, C); faster than gather, in its gradient too"""
    B, T, C = x.shape
    return (
        x.flatten(0, 1).index_select(0, (at + T * torch.arange(B, device=x.device)[:, None]).flatten()).view(B, -1, C)
    )


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config.head in ('mse', 'kmeans', 'ce'), f'{config.head=}'
        assert config.fuse in ('interleave', 'sum', 'bins'), f'{config.fuse=}'
        assert config.fuse != 'bins' or (config.head, config.chunk, config.past_actions) == ('ce', 1, True), (
            f'{config.fuse=} {config.head=} {config.chunk=} {config.past_actions=}'
        )
        assert config.fuse != 'bins' or not (config.n_privileged or config.next_obs or config.n_future), (
            f'{config.fuse=} foretells by itself'
        )
        assert 0 <= config.obs_stack <= config.chunk, f'{config.obs_stack=} {config.chunk=}'
        assert config.window >= 1, f'{config.block_size=} holds no step beside {config.text_len=}'
        assert config.n_bd or not config.n_future, f'{config.n_future=} needs a bd'
        self.config = config
        C, n_out = config.n_embd, config.chunk * config.n_act
        n_waves = 2 * config.n_freq
        self.text_in = nn.Embedding(config.vocab_size, C) if config.text_len else None
        self.states_in = nn.Linear(config.text_width, C) if config.text_len and config.text_width else None
        self.text_pos = nn.Embedding(config.text_len, C) if config.text_len else None
        self.time = nn.Embedding(config.max_steps, C)  # absolute, shared by the three tokens of a step
        self.bins = Bins(config.n_obs, config.n_bins, config.n_act, C) if config.fuse == 'bins' else None
        if self.bins is None:
            self.obs_in = nn.Linear(
                config.n_obs * ((config.obs_stack or config.chunk) + n_waves) + config.n_privileged * (1 + n_waves), C
            )
            self.act_in = nn.Linear(n_out, C) if config.past_actions else None
        if config.n_bd:
            self.bd_in = nn.Linear(config.n_bd * (1 + n_waves), C)
            self.bd_not_given = nn.Parameter(torch.zeros(C))
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(C, bias=config.bias)
        if config.head == 'kmeans':
            self.cluster_head = nn.Linear(C, config.n_groups * config.n_clusters)
            self.offset_head = nn.Linear(C, config.n_clusters * n_out)
            self.register_buffer(
                'centers', torch.zeros(config.n_groups, config.n_clusters, n_out // config.n_groups)
            )  # in normalised actions
        elif self.bins is None:
            self.head = nn.Linear(C, n_out)
        self.ahead_head = nn.Linear(C, config.n_future * config.n_bd * AHEAD_BINS) if config.n_future else None
        # the normaliser travels with the weights: whoever loads them sees what training saw
        for name, n in ('obs', config.n_obs + config.n_privileged), ('act', config.n_act), ('bd', config.n_bd):
            self.register_buffer(f'{name}_mean', torch.zeros(n))
            self.register_buffer(f'{name}_std', torch.ones(n))
        self.register_buffer('octaves', math.pi / 4 * 2.0 ** torch.arange(config.n_freq), persistent=False)
        self.register_buffer('bd_low', torch.zeros(config.n_bd))
        self.register_buffer('bd_high', torch.ones(config.n_bd))
        self.register_buffer('act_low', torch.full((config.n_act,), -torch.inf))
        self.register_buffer('act_high', torch.full((config.n_act,), torch.inf))

        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith('c_proj.weight'):  # scaled init of the residual projections, as in GPT-2
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * config.n_layer))
        # these are initialised as it was measured, not as a GPT
        self.latent = HiddenMarkov(config.n_hidden, C) if config.n_hidden else None
        self.next_obs = NextObs(config.n_obs, config.chunk, n_out, C, config.next_obs) if config.next_obs else None
        if config.n_privileged:
            self.belief = StateEstimator(
                config.n_privileged, n_out + config.n_obs * (config.chunk + n_waves), self.octaves, 2 * C
            )

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def mask(self, text, S):
        """text (B, N), S steps -> (B, 1, T, T) bool, T = N + n_slots * S: may this query (row) see that key (column)?"""
        return attention.mask(text, S, self.config.n_slots, self.config.window)

    def execution(self, N, S, device):
        """the fastest way to attend, for N words and S steps"""
        if self.bins is not None and N:  # packing, for the causal kernel, keeps one token a step
            return 'dense'
        return attention.fastest(
            N, S, self.config.n_slots, self.config.window, device, self.config.dropout if self.training else 0.0
        )

    def attention_of(self, text, S, execution):
        """-> attend(q, k, v, dropout_p) under the mask of text (B, N) and S steps"""
        return attention.attention(text, S, self.config.n_slots, self.config.window, execution)

    def seen(self, obs):
        """obs (B, S, chunk, n_obs), or with what is to be believed -> normalised, without that"""
        n = self.config.n_obs
        return (obs[..., :n] - self.obs_mean[:n]) / self.obs_std[:n]

    def done(self, act):
        """act (B, S, chunk, ...) -> normalised or one-hot, (B, S, chunk * n_act)"""
        act = (
            F.one_hot(act, self.config.n_act).to(self.act_mean.dtype)
            if self.config.head == 'ce'
            else (act - self.act_mean) / self.act_std
        )
        return act.flatten(2)

    def told(self, obs, before):
        """what a belief has to go by, embedded: obs, and before (B, S, chunk * n_act), what was done since the last decision"""
        obs = self.seen(obs)
        return self.belief.told(torch.cat([before, obs.flatten(2), waves(obs[:, :, -1], self.octaves)], dim=-1))

    def parts(self, obs, act, believed=None):
        """what a step is made of, embedded: obs, with what is believed, (B, S, C) and act, None without past_actions"""
        obs = self.seen(obs)
        seen = [obs[:, :, -self.config.obs_stack :].flatten(2), waves(obs[:, :, -1], self.octaves)]
        seen += [] if believed is None else [believed, waves(believed, self.octaves)]
        return self.obs_in(torch.cat(seen, dim=-1)), self.act_in(self.done(act)) if self.config.past_actions else None

    def aim(self, bd):
        """bd (B, S, n_bd), nan: not given -> (B, S, C)"""
        given = ~bd.isnan().any(-1, keepdim=True)
        bd = (torch.nan_to_num(bd) - self.bd_mean) / self.bd_std
        return torch.where(given, self.bd_in(torch.cat([bd, waves(bd, self.octaves)], dim=-1)), self.bd_not_given)

    def words(self, text):
        """text (B, N), or (B, N, 1 + text_width): what kind of token each is, and its frozen states -> (B, N, C)"""
        x = self.text_in(kinds(text)) + self.text_pos.weight[: text.shape[1]]
        return x if self.states_in is None else x + self.states_in(text[..., 1:])

    def numbers(self, obs, before, begun, b, now):
        """a step's tokens where every number is one, embedded: as Bins.tokens', with bd b and time now (B, S, C) -> (B, S, n_slots, C)"""
        x = self.bins.embedding(self.bins.tokens(obs[:, :, 0], before, begun)) + now[..., None, :]
        return x if b is None else torch.cat([x[:, :, :1] + b[:, :, None], x[:, :, 1:]], 2)

    def tokens(self, text, obs, act, bd, first=None, believed=None):
        """the sequence of the diagram above, embedded -> (B, N + n_slots * S, C)"""
        B, S = obs.shape[:2]
        assert self.config.max_steps >= S, f'{S} steps, but max_steps = {self.config.max_steps}'
        now = torch.arange(S, device=obs.device)  # (S,), or (B, S) for segments that begin later
        now = self.time(now if first is None else now + first[:, None])
        b = self.aim(bd).expand(B, S, -1) if self.config.n_bd else None
        if self.bins is not None:
            x = self.numbers(
                obs, F.pad(act[:, :-1, 0], (1, 0)), torch.arange(S, device=obs.device) > 0, b, now
            ).flatten(1, 2)
        else:
            o, a = self.parts(obs, act, believed)
            if self.config.fuse == 'sum':
                a = None if a is None else delayed(a)
                x = sum(part for part in (b, o, a) if part is not None) + now
            else:  # (B, S, n_slots, C) -> (B, n_slots * S, C)
                x = (torch.stack([part for part in (b, o, a) if part is not None], dim=2) + now[..., None, :]).flatten(
                    1, 2
                )
        if self.latent is not None:
            x = x + self.latent(x)[0]
        if self.config.text_len:
            x = torch.cat([self.words(text), x], dim=1)
        return self.drop(x)

    def packed(self, x, text, S, real):
        """
        Words and steps side by side: padding goes to a row's end, where no query sees it, and what all rows have there is cut off.

        x (B, N + n_slots * S, C) -> (B, T, C), and where the tokens that predict are in it, (B, S). T depends on text (B, N)
        and, unless it is None, on real (B, S, chunk).
        """
        (B, N), n_slots = text.shape, self.config.n_slots
        steps = torch.arange(S, device=x.device)
        n_words = (text != PAD).sum(1, keepdim=True)
        n = n_words + (S if real is None else n_steps(real)) * n_slots
        i = torch.arange(
            x.shape[1] if torch.compiler.is_compiling() else int(n.max()), device=x.device
        )  # compiled code wants one shape
        of = torch.where(i < n_words, i, (i + N - n_words).clamp(max=x.shape[1] - 1))
        at = (n_words + self.config.decides + steps * n_slots).clamp(max=len(i) - 1)
        return tokens_at(x, of), at

    def forward(self, text, obs, act, bd=None, real=None, ahead=None, first=None, over=None, execution=None):
        """
        text (B, N) int64, ended by padding (N = 0: no language), or with a frozen encoder's states (B, N, 1 + text_width); obs (B, S, chunk, n_obs), up to each decision, and in
        training what is to be believed after them, n_obs + n_privileged in all;
        act (B, S, chunk, n_act) float, or (B, S, chunk) int64 with the ce head, from each decision on;
        bd (B, S or 1, n_bd), nan where not given; real (B, S, chunk) bool, False where an episode is over or not to be imitated; ahead
        (B, S, n_future, n_bd), where it will be some steps on; first (B,) int64, the step at which each segment begins, or 0; over (B, S)
        bool, True where, after its last step, an episode has ended by itself; execution: 'dense', 'causal' (a window that covers all), 'banded' or 'flex', equal in value; None: the fastest.

        -> (out, loss): the head's output for every step, a dict of tensors (B, S, ...), and the mean loss over the real
        environment steps, None without `real`; what is said after an episode's last real step means nothing. With `ahead` the
        error of foretelling it is added, in training that of what is believed and of the next observations, too.
        """
        N, S, n_slots = text.shape[1], obs.shape[1], self.config.n_slots
        believed = truth = None
        if self.config.n_privileged:
            if self.training:
                truth = ((obs[:, :, -1] - self.obs_mean) / self.obs_std)[..., self.config.n_obs :]
            believed = self.belief(self.told(obs, delayed(self.done(act))), truth)
        x = self.tokens(text, obs, act, bd, first, None if believed is None else believed.detach())
        text = kinds(text)
        execution = execution or self.execution(N, S, x.device)
        attend, seen = self.attention_of(text, S, execution), None
        if execution == 'causal' and N:
            x, at = self.packed(x, text, S, real)
            take = partial(tokens_at, at=at)
            if n_slots > 1:
                seen = (at[..., None] >= torch.arange(x.shape[1], device=x.device))[:, None]
        else:
            take = lambda x: x[:, N:] if self.bins is not None else x[:, N + self.config.decides :: n_slots]  # noqa: E731
            if self.bins is None and n_slots > 1 and execution in ('dense', 'causal'):
                seen = self.mask(text, S)[:, :, N + self.config.decides :: n_slots]
        for block in self.blocks[:-1]:
            x = block(x, attend)
        if seen is None:  # of the last block only the tokens that predict are of use
            x = self.blocks[-1](x, attend, take=take)
        else:
            x = self.blocks[-1](x, partial(F.scaled_dot_product_attention, attn_mask=seen), ask=take)
        x = self.ln_f(x)
        out = self.heads(x)
        if self.next_obs is not None:
            out['next'] = self.next_obs(x, self.seen(obs[:, :, -1]), self.done(act))
        loss = None
        if real is not None:
            loss = (
                self.loss(out, act, real)
                if self.bins is None
                else self.bins.loss(out['token'], obs[:, :, 0], act[..., 0], real[..., 0], over, first)
            )
        if truth is not None:
            within = torch.arange(S, device=x.device) < n_steps(real)
            loss = loss + BELIEF_WEIGHT * (((believed - truth) ** 2).mean(-1) * within).sum() / within.sum().clamp(
                min=1
            )
        if self.training and self.next_obs is not None and loss is not None:
            loss = loss + self.next_obs.loss(
                out['next'], self.seen(obs), self.obs_std[: self.config.n_obs], n_steps(real), real.sum()
            )
        if ahead is not None and self.config.n_future:
            # says at every step what the prompt is about; the actions alone say it at the turnings only
            bins = ((ahead - self.bd_low) / (self.bd_high - self.bd_low) * AHEAD_BINS).long().clamp(0, AHEAD_BINS - 1)
            ce = (
                F.cross_entropy(out['ahead'].flatten(0, -2), bins.flatten(), reduction='none')
                .view(bins.shape)
                .mean((-1, -2))
            )
            loss = loss + AHEAD_WEIGHT * (ce[..., None] * real).sum() / real.sum().clamp(min=1)
        return out, loss

    def heads(self, x):
        """x (B, S, C) after the last norm, at the tokens that predict, or (B, S * n_slots, C) where all do -> a dict of tensors (B, S, ..)"""
        if self.bins is not None:
            logits = self.bins.head(x).unflatten(1, (-1, self.config.n_slots))
            return {'token': logits, 'act': logits[:, :, -1, self.bins.legal(self.config.n_obs)]}
        out = (
            {'cluster': self.cluster_head(x), 'offset': self.offset_head(x)}
            if self.config.head == 'kmeans'
            else {'act': self.head(x)}
        )
        if self.config.n_future:
            out['ahead'] = self.ahead_head(x).unflatten(-1, (self.config.n_future, self.config.n_bd, AHEAD_BINS))
        return out

    def loss(self, out, act, real):
        """the mean over the real environment steps"""
        n = real.sum().clamp(min=1)
        if self.config.head == 'ce':
            logits = out['act'].unflatten(-1, (self.config.chunk, self.config.n_act)).flatten(0, 2)
            return (F.cross_entropy(logits, act.flatten(), reduction='none') * real.flatten()).sum() / n
        target = (act - self.act_mean) / self.act_std  # (B, S, chunk, n_act)
        if self.config.head == 'mse':
            error = (out['act'].view_as(target) - target) ** 2
            return (error.mean(-1) * real).sum() / n
        logits = self.choices(out)
        G = self.config.n_groups
        grouped = target.unflatten(-1, (G, -1)).movedim(-2, 0).flatten(3)  # (G, B, S, chunk * n_act / G)
        nearest = (
            torch.cdist(grouped.flatten(1, 2), self.centers).argmin(-1).view(grouped.shape[:3]).movedim(0, -1)
        )  # (B, S, G)
        ce = F.cross_entropy(logits.flatten(0, 2), nearest.flatten(), reduction='none').view(nearest.shape)
        ce = (
            (ce * (1 - torch.exp(-ce)).clamp(min=1e-6) ** self.config.focal).mean(-1)
            if self.config.focal
            else ce.mean(-1)
        )
        error = (self.decode(out, nearest) - target) ** 2
        return ((ce[..., None] + self.config.offset_weight * error.mean(-1)) * real).sum() / n

    def choices(self, out):
        """the kmeans head's logits, (B, S, n_groups, n_clusters)"""
        return out['cluster'].unflatten(-1, (self.config.n_groups, self.config.n_clusters))

    def decode(self, out, cluster):
        """chosen clusters (B, S, n_groups) and their offsets -> normalised actions (B, S, chunk, n_act)"""
        G = self.config.n_groups
        offset = out['offset'].unflatten(-1, (G, self.config.n_clusters, -1))
        offset = offset.gather(3, cluster[..., None, None].expand(-1, -1, -1, 1, offset.shape[-1])).squeeze(
            3
        )  # (B, S, G, chunk * n_act / G)
        action = self.centers[torch.arange(G, device=cluster.device), cluster] + offset
        return action.unflatten(-1, (self.config.chunk, -1)).transpose(2, 3).flatten(3)

    def choose(self, out, temperature=0.0, top_p=1.0, generator=None):
        """
        The heads' output at the newest step, a dict of tensors (B, 1, ...) -> the next `chunk` actions, (B, chunk, n_act)
        within the action space, or (B, chunk) int64 with the ce head.

        temperature 0 is greedy; else clusters or discrete actions are drawn, from the top_p most probable.
        """
        if self.config.head == 'ce':
            return draw(
                out['act'].unflatten(-1, (self.config.chunk, self.config.n_act))[:, 0], temperature, top_p, generator
            )
        if self.config.head == 'kmeans':
            a = self.decode(out, draw(self.choices(out), temperature, top_p, generator))
        else:
            a = out['act']
        a = a.view(len(a), self.config.chunk, self.config.n_act) * self.act_std + self.act_mean
        return torch.minimum(torch.maximum(a, self.act_low), self.act_high)

    @torch.inference_mode()
    def act(self, text, obs, act, bd=None, **how):
        """
        The next actions, as `choose` returns them, by computing every step anew: the oracle of `step`.

        Arguments as forward's, the episodes so far; act at the last step is not looked at.
        """
        out, _ = self(text, obs, act, bd)
        return self.choose({k: v[:, -1:] for k, v in out.items()}, **how)

    def configure_optimizers(self, name, weight_decay, learning_rate, betas):
        """
        'adamw', or 'muon' for the matrices of the blocks and AdamW for the rest -> list of optimizers.

        Matrices decay, vectors do not. AdamW is fused: one kernel, also on CPUs. Both step equally far: one learning rate serves.
        """
        hidden = [p for p in self.blocks.parameters() if p.dim() == 2] if name == 'muon' else []
        rest = [p for p in self.parameters() if not any(p is h for h in hidden)]
        groups = [
            {'params': [p for p in rest if p.dim() >= 2], 'weight_decay': weight_decay},
            {'params': [p for p in rest if p.dim() < 2], 'weight_decay': 0.0},
        ]
        optimizers = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
        if hidden:
            optimizers.append(Muon(hidden, learning_rate, weight_decay))
        return optimizers

    @classmethod
    def from_checkpoint(cls, folder, device='cpu'):
        """a checkpoint's directory -> the model in evaluation mode, and the checkpoint's JSON. Executes nothing it reads"""
        info = read_checkpoint(folder)
        tensors = read_tensors(folder, 'model.safetensors', info)
        try:
            if info['model'].get('n_layer', 0) > len(tensors):
                raise ValueError(f'{info["model"]["n_layer"]} layers, but {len(tensors)} tensors')
            with torch.device('meta'):  # takes no memory, whatever the file claims
                load_weights(cls(GPTConfig(**info['model'])), {k: v.to('meta') for k, v in tensors.items()}, folder)
        except (
            TypeError,
            ValueError,
            AssertionError,
            RuntimeError,
            OverflowError,
            AttributeError,
            ZeroDivisionError,
        ) as e:
            raise ValueError(
                f'{folder} says of its model what does not fit its weights ({str(e).strip().splitlines()[-1] if str(e) else type(e).__name__}). Train again'
            ) from None
        model = cls(GPTConfig(**info['model']))
        load_weights(model, tensors, folder)
        model.to(device).eval().by_columns()
        return model, info

    def by_columns(self):
        """lay out the matrices so that CPUs multiply few rows fast (4 to 48: up to 3 times as fast); for acting, not for training"""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.t().contiguous().t()
        return self


def draw(logits, temperature, top_p, generator):
    """logits (..., n) -> (...) int64: the best, or drawn from the fewest options that hold top_p of the probability"""
    if temperature == 0:
        return logits.argmax(-1)
    p, order = torch.softmax(logits / temperature, dim=-1).sort(dim=-1, descending=True)
    p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)  # the first one always stays
    i = torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(*p.shape[:-1], 1)
    return order.gather(-1, i).squeeze(-1)
