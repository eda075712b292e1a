"""
nanoPilot's model: a GPT reads a prompt, then an episode as steps of [action before, bd, obs], and predicts actions.

    w_0 .. w_{N-1} | bd_0 obs_0 | act_0 bd_1 obs_1 | .. | act_{t-1} bd_t obs_t        [act_t is predicted at obs_t]

A step is written in the order of decisions: what was done before it, what to reach, what is observed. Its last token
predicts. Training and acting embed a step by one function, GPT.embed_steps. The prompt never leaves; of the steps, a
token sees its own and the K-1 before it (the block slides). A step has an embedding of its absolute time, so its keys
and values do not depend on where the window is (nanopilot/kv_cache.py). One step may hold `chunk` environment steps:
the observations up to its decision, and the actions that follow it.

References: nanoGPT (Karpathy); Decision Transformer (Chen et al., 2106.01345); Behavior Transformers (Shafiullah et
al., 2206.11251) for the kmeans head; Quality-Diversity Transformer (Macé et al., 2303.16207) for bd.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

from data import quantize
from nanopilot import attention, auxiliary, bins, checkpoint, observations, optim
from nanopilot.auxiliary import FourierFeatures, FutureBD, HiddenMarkov, NextObs, StateEstimator
from nanopilot.layers import Normalizer, masked_mean, refuse, squared_relu
from nanopilot.sampling import sample_logits
from nanopilot.saying import Saying


@dataclass
class GPTConfig:
    block_size: int = 114  # tokens in view: text_len of the prompt, and K steps of n_slots tokens
    text_len: int = 64  # prompt tokens at most, 0: no language
    say_len: int = 0  # tokens said of a prompt: nanopilot/saying.py
    vocab_size: int = 900
    text_width: int = 0  # of a frozen encoder's states (data/encoders.py); 0: tokens are ids
    max_steps: int = 100  # steps an episode can have, each of `chunk` environment steps
    chunk: int = 8  # environment steps in one step of the sequence
    fuse: str = 'sum'  # how a step is written, see STEPS
    n_bins: int = 10  # of each observation in 'bins'
    n_hidden: int = 0  # states of a hidden Markov model that follows the tokens
    past_actions: bool = False  # among the tokens? Imitators may repeat them (1905.11979)
    obs_stack: int = 1  # newest observations in a step; 0: all of the chunk
    n_obs: int = 9
    kind_parts: tuple = ()  # what each kind is made of
    obs_kinds: tuple = ()  # of how many kinds each is, if an id; 0: a number; (): all numbers
    n_cross_head: int = 0  # heads of attention from the prompt to observed ids
    n_privileged: int = 0  # observations that only training has: the policy estimates them
    n_act: int = 2  # dimensions of an action, or number of discrete ones
    n_bd: int = 2  # 0: no behaviour descriptor
    head: str = 'mse'  # what is predicted, see HEADS
    n_clusters: int = 64  # of the kmeans head
    joint_clusters: bool = True  # clusters of whole actions; False: of each of their dimensions by itself
    offset_weight: float = 10.0  # of the kmeans head: its offset loss beside its cross-entropy
    next_obs: float = 0.0  # weight of predicting the next observations, too; 0: don't
    n_future: int = 6  # predict the bd 1, 2, 4 .. 2^(n_future - 1) steps later, too
    subgoal: bool = False  # .. and what the episode heads for: the data says it
    subgoal_layers: int = 0  # layers of an MLP through which that prediction goes to the head; 0: none
    n_freq: int = 6  # frequencies of sin and cos beside each observation
    freq_decay: float = 1.0  # each is so many times as strong as the one before
    n_layer: int = 6
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = False  # in the LayerNorms and Linears of the blocks

    def __post_init__(self):
        refuse(self.fuse not in STEPS, f'fuse={self.fuse!r} is not known. Choose one of {", ".join(STEPS)}')
        refuse(self.head not in HEADS, f'head={self.head!r} is not known. Choose one of {", ".join(HEADS)}')
        refuse(self.n_embd % self.n_head, f'n_embd={self.n_embd} is no multiple of n_head={self.n_head}. Change one')
        auxiliary.check(self)
        bins.check(self)
        observations.check(self)
        self.n_text = max(self.text_len, self.say_len)  # acted on
        self.n_slots = STEPS[self.fuse].slots(self)  # tokens in a step
        self.window = (self.block_size - self.text_len) // self.n_slots  # K, steps in view
        refuse(self.window < 1, f'block_size={self.block_size} holds no step beside text_len={self.text_len}. Raise it')


# -----------------------------------------------------------------------------
# the trunk: nanoGPT's, but attention is handed in


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        # key, query, value projections for all heads, in one
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.n_head, self.dropout = config.n_head, config.dropout

    def forward(self, x, attend):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (h.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for h in (q, k, v))  # (B, nh, T, hs)
        # attend applies the mask; a cache also keeps k and v; in the last block only tokens that predict come back
        y = attend(q, k, v, dropout_p=self.dropout * self.training)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).flatten(2)))  # (B, nh, T, hs) -> (B, T, C)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        x = squared_relu(self.c_fc(x))  # as good as GELU and cheaper (So et al., 2109.08668)
        return self.dropout(self.c_proj(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, attend, rows=attention.unchanged):
        """rows: the tokens that go on, where attend returns those alone (nanopilot/attention.py)"""
        x = rows(x) + self.attn(self.ln_1(x), attend)
        return x + self.mlp(self.ln_2(x))


# -----------------------------------------------------------------------------
# a step of the episode -> its tokens. A step begins with the action before it; its last token predicts


class StepEmbedding(nn.Module):
    """What the ways to write a step share: the normaliser of obs and bd, their projections, the embedding of time."""

    act_slot = False  # has the action before a token of its own?

    def __init__(self, config):
        super().__init__()
        self.n_obs, self.n_slots = config.n_obs, self.slots(config)
        self.first_slot = int(self.act_slot and config.past_actions)  # the first step has no action before it
        self.time = nn.Embedding(config.max_steps, config.n_embd)  # absolute
        self.add_inputs(config)
        self.bd = None
        if config.n_bd:
            self.bd = nn.Linear(config.n_bd * (1 + 2 * config.n_freq), config.n_embd)
            self.bd_null = nn.Parameter(torch.zeros(config.n_embd))  # stands for one that is not given
        self.fourier = FourierFeatures(config)
        # normalisers travel with the weights: whoever loads them sees what training saw
        self.obs_norm = Normalizer(config.n_obs + config.n_privileged)
        self.bd_norm = Normalizer(config.n_bd)

    def add_inputs(self, config):
        self.obs = observations.reader(config)
        self.act = nn.Linear(config.chunk * config.n_act, config.n_embd) if config.past_actions else None

    def embed_obs(self, obs, estimate):
        """obs (B, S, chunk, n_obs), estimate (B, S, n_privileged) or None -> (B, S, C)"""
        return self.obs(obs[..., : self.n_obs], self.obs_norm, self.fourier, estimate)

    def embed_bd(self, bd):
        """bd (B, S, n_bd), nan: not given -> (B, S, C), None where there is no bd"""
        if self.bd is None:
            return None
        given = ~bd.isnan().any(-1, keepdim=True)
        bd = self.bd_norm(bd.nan_to_num())
        return torch.where(given, self.bd(self.fourier.beside(bd)), self.bd_null)

    def targets(self, obs):
        """obs (B, S, chunk, ..) -> what of it a loss may ask for"""
        return {'obs': self.obs_norm(obs), 'obs_std': self.obs_norm.std}

    def fit(self, split, columns, seed):
        """split: the training data; columns: of its observations, the privileged ones last"""
        self.obs_norm.fit(split.meta['normaliser']['obs'], columns)
        self.bd_norm.fit(split.meta['normaliser']['bd'])


class Interleave(StepEmbedding):
    """[act before, bd, obs], a token each"""

    act_slot = True
    slots = staticmethod(lambda config: config.past_actions + (config.n_bd > 0) + 1)

    def forward(self, obs, prev_act, bd_emb, has_prev, t, estimate=None):
        """prev_act (B, S, chunk * n_act), bd_emb (B, S or 1, C), has_prev, t (B, S) -> (B, S, n_slots, C)"""
        now = self.time(t)
        slots = [self.embed_obs(obs, estimate) + now]
        if bd_emb is not None:
            slots.insert(0, bd_emb + now)
        if self.act is not None:  # it has the time of the step it belongs to
            slots.insert(0, self.act(prev_act) + self.time((t - 1).clamp(min=0)))
        return torch.stack(slots, dim=2)


class Sum(StepEmbedding):
    """one token, the sum of act before, bd and obs: a third of the tokens"""

    slots = staticmethod(lambda config: 1)

    def forward(self, obs, prev_act, bd_emb, has_prev, t, estimate=None):
        """as Interleave's -> (B, S, 1, C)"""
        x = self.embed_obs(obs, estimate) + self.time(t)
        if bd_emb is not None:
            x = x + bd_emb
        if self.act is not None:  # masked at the first step; Interleave's token of it is cut off
            x = x + self.act(prev_act) * has_prev[..., None]
        return x[:, :, None]


class EveryNumber(bins.NumberTokens, StepEmbedding):
    """[act before or RESET, x_0 .. x_{n-1}], every number a token of a vocabulary (nanopilot/bins.py)"""


STEPS = {'interleave': Interleave, 'sum': Sum, 'bins': EveryNumber}

# -----------------------------------------------------------------------------
# heads: encode(act) what the model reads, forward(x) what it predicts, loss(out, batch), sample(out) the actions


class MSEHead(nn.Module):
    """the mean action; and what the heads share: the normaliser and the bounds of actions"""

    discrete = False  # actions
    every_token = False  # does every token of a step predict, or its last alone?

    def __init__(self, config):
        super().__init__()
        self.shape = config.chunk, config.n_act
        self.add_outputs(config)
        self.act_norm = Normalizer(config.n_act, bounded=True)

    def add_outputs(self, config):
        self.proj = nn.Linear(config.n_embd, config.chunk * config.n_act)

    def encode(self, act):
        """act (B, S, chunk, n_act) -> normalised"""
        return self.act_norm(act)

    def forward(self, x):
        return {'act': self.proj(x)}

    def loss(self, out, batch):
        error = (out['act'].view_as(batch['act']) - batch['act']) ** 2  # (B, S, chunk, n_act)
        return masked_mean(error.mean(-1), batch['loss_mask'])

    def sample(self, out, temperature=0.0, top_p=1.0, generator=None):
        return self.act_norm.undo(out['act'].reshape(-1, *self.shape))

    def fit(self, split, columns, seed):
        if not self.discrete:
            self.act_norm.fit(split.meta['normaliser']['act'], low=split.meta['act_low'], high=split.meta['act_high'])


class KMeansHead(MSEHead):
    """a cluster of actions, and the offset from its centre: for actions of several modes"""

    def add_outputs(self, config):
        self.joint, self.offset_weight, self.k = config.joint_clusters, config.offset_weight, config.n_clusters
        n_out = config.chunk * config.n_act
        self.G = 1 if self.joint else config.n_act  # groups of action dimensions, each with its own clusters
        self.cluster = nn.Linear(config.n_embd, self.G * self.k)
        self.offset = nn.Linear(config.n_embd, self.k * n_out)
        self.register_buffer('centers', torch.zeros(self.G, self.k, n_out // self.G))  # of normalised actions

    def forward(self, x):
        return {'cluster': self.cluster(x), 'offset': self.offset(x)}

    def logits(self, out):
        return out['cluster'].unflatten(-1, (self.G, self.k))  # (B, S, G, n_clusters)

    def cluster_to_action(self, out, cluster):
        """clusters (B, S, G) and the offsets of out -> normalised actions (B, S, chunk, n_act)"""
        offset = out['offset'].unflatten(-1, (self.G, self.k, -1))
        index = cluster[..., None, None].expand(-1, -1, -1, 1, offset.shape[-1])
        offset = offset.gather(3, index).squeeze(3)  # (B, S, G, chunk * n_act / G)
        act = self.centers[torch.arange(self.G, device=cluster.device), cluster] + offset
        return act.unflatten(-1, (self.shape[0], -1)).transpose(2, 3).flatten(3)  # (B, S, chunk, n_act)

    def nearest(self, act):
        """normalised actions (B, S, chunk, n_act) -> their clusters (B, S, G)"""
        grouped = act.unflatten(-1, (self.G, -1)).movedim(-2, 0).flatten(3)  # (G, B, S, chunk * n_act / G)
        nearest = torch.cdist(grouped.flatten(1, 2), self.centers).argmin(-1)  # (G, B * S)
        return nearest.view(grouped.shape[:3]).movedim(0, -1)  # (B, S, G)

    def loss(self, out, batch):
        act, logits = batch['act'], self.logits(out)
        nearest = self.nearest(act)
        ce = F.cross_entropy(logits.flatten(0, 2), nearest.flatten(), reduction='none').view(nearest.shape).mean(-1)
        error = ((self.cluster_to_action(out, nearest) - act) ** 2).mean(-1)  # (B, S, chunk)
        return masked_mean(ce[..., None] + self.offset_weight * error, batch['loss_mask'])

    def sample(self, out, temperature=0.0, top_p=1.0, generator=None):
        cluster = sample_logits(self.logits(out), temperature, top_p, generator)
        return self.act_norm.undo(self.cluster_to_action(out, cluster).squeeze(1))

    def fit(self, split, columns, seed):
        super().fit(split, columns, seed)
        actions = quantize.sample_actions(split, self.shape[0], seed)
        centers = quantize.fit_clusters(actions, self.k, self.joint, seed)
        self.centers.copy_(torch.from_numpy(centers))
        return quantize.describe_clusters(quantize.diagnose_clusters(actions, centers))


class CEHead(MSEHead):
    """one of n_act discrete actions"""

    discrete = True

    def encode(self, act):
        """act (B, S, chunk) int64 -> one-hot"""
        return F.one_hot(act, self.shape[1]).to(self.proj.weight.dtype)

    def loss(self, out, batch):
        act = batch['act'].argmax(-1)  # (B, S, chunk)
        logits = out['act'].reshape(-1, self.shape[1])
        return masked_mean(F.cross_entropy(logits, act.flatten(), reduction='none').view(act.shape), batch['loss_mask'])

    def sample(self, out, temperature=0.0, top_p=1.0, generator=None):
        """-> (B, chunk) int64"""
        return sample_logits(out['act'].reshape(-1, *self.shape), temperature, top_p, generator)


class TokenHead(bins.TokenPrediction, CEHead):
    """what comes next, at every token of an EveryNumber step: a language model of episodes (nanopilot/bins.py)"""


HEADS = {'mse': MSEHead, 'kmeans': KMeansHead, 'ce': CEHead, 'tokens': TokenHead}


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, C = config, config.n_embd
        self.wte = self.wpe = self.text_states = None
        if config.text_len:
            self.wte = nn.Embedding(config.vocab_size, C)
            if config.text_width:
                self.text_states = nn.Linear(config.text_width, C)
            self.wpe = nn.Embedding(config.text_len + config.say_len, C)
        self.steps = STEPS[config.fuse](config)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(C, bias=config.bias)
        self.head = HEADS[config.head](config)
        self.aux = nn.ModuleDict()  # what else is predicted, in training
        if config.n_future:
            self.aux['future_bd'] = FutureBD(config)
        self.to_head = (auxiliary.SubgoalMLP if config.subgoal_layers else auxiliary.WithoutSubgoal)(config)
        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith('c_proj.weight'):  # scaled init of the residual projections, as in GPT-2
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * config.n_layer))
        # created after self.apply: these parts keep their own initialisation
        self.cross_attn = observations.CrossAttention(config) if config.n_cross_head else None
        self.recurrent = nn.ModuleDict()  # what carries a state from step to step
        if config.n_hidden:
            self.recurrent['hidden'] = HiddenMarkov(config.n_hidden, C)
        if config.next_obs:
            self.aux['next_obs'] = NextObs(config)
        if config.say_len:
            self.aux['saying'] = Saying(config)
        if config.n_privileged:
            self.recurrent['estimate'] = StateEstimator(config)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def fit(self, split, columns, seed):
        """Take from the training data what is not learned: normalisers, bins, centres -> lines to print"""
        parts = self.steps, self.head, *self.aux.values()
        return [line for part in parts if (line := part.fit(split, columns, seed))]

    def embed_text(self, text):
        """text (B, N) ids, or (B, N, 1 + text_width): the kind of each token and its frozen states -> (B, N, C)"""
        if self.wte is None:
            return torch.empty(len(text), 0, self.config.n_embd, device=text.device)
        x = self.wte(attention.token_ids(text)) + self.wpe.weight[: text.shape[1]]
        if self.text_states is not None:
            x = x + self.text_states(text[..., 1:])
        return x

    def text_query(self, text):
        """text, as of embed_text -> its query for cross_attn (B, C); None without one"""
        return self.cross_attn and self.cross_attn.text_query(text, self.embed_text(text))

    def embed_steps(self, obs, prev_act, bd_emb, has_prev, t, state=None, query=None):
        """
        THE place where a step becomes tokens, for training (S steps at once) and for acting (S = 1, the cache).
        obs (B, S, chunk, n_obs), raw; prev_act (B, S, chunk * n_act), encoded; bd_emb (B, S or 1, C), from embed_bd;
        has_prev (B, S) bool: is there an action before, in this episode or segment of one? t (B, S) int64, the time in
        the episode; state {name: (B, n)}: what the recurrent parts carry into the first of these steps; query (B, C)
        -> tokens (B, S, n_slots, C), the state after each step
        """
        before, after, estimate = state or {}, {}, None
        if 'estimate' in self.recurrent:
            prev_act = prev_act * has_prev[..., None]
            after['estimate'] = self.recurrent['estimate'](self.steps.obs_norm(obs), prev_act, before.get('estimate'))
            estimate = after['estimate'].detach()  # no gradient from the policy's loss
        x = self.steps(obs, prev_act, bd_emb, has_prev, t, estimate)
        if self.cross_attn is not None:
            x = torch.cat([x[:, :, :-1], x[:, :, -1:] + self.cross_attn(obs, query)[:, :, None]], dim=2)
        if 'hidden' in self.recurrent:
            x, after['hidden'] = self.recurrent['hidden'](x, has_prev, self.steps.first_slot, before.get('hidden'))
        return x, after

    def forward(self, text, obs, act, bd=None, start=0, loss_mask=None, kernel=None, **targets):
        """
        text (B, N); obs (B, S, chunk, n_obs); act (B, S, chunk, n_act), int64 (B, S, chunk); bd (B, S or 1, n_bd);
        start (B,), the time of a segment's first step; loss_mask (B, S, chunk), the actions to imitate; targets:
        future_bd (B, S, n_future, n_bd), subgoal (B, S, n_bd), sees_subgoal, terminated, more_text: data/batches.py
        -> what is predicted, by name, (B, S, ..) each but 'saying', a loss; and the loss, None without a loss_mask
        """
        B, S = obs.shape[:2]
        assert self.config.max_steps >= S, f'{S} steps, but {self.config.max_steps=}'
        act = self.head.encode(act)  # (B, S, chunk, n_act); a step begins with the one before it
        prev_act = F.pad(act.flatten(2)[:, :-1], (0, 0, 1, 0))  # (B, S, chunk * n_act)
        i = torch.arange(S, device=obs.device).expand(B, S)
        t = i + torch.as_tensor(start, device=obs.device).view(-1, 1)
        t = t.clip(max=self.config.max_steps - 1)  # padding
        bd_emb, query = self.steps.embed_bd(bd), self.text_query(text)
        x, state = self.embed_steps(obs, prev_act, bd_emb, i > 0, t, query=query)  # (B, S, n_slots, C)
        x = x.flatten(1, 2)[:, self.steps.first_slot :]
        plan = attention.plan(self, text, S, kernel, loss_mask)
        x = plan.pack(self.drop(torch.cat([self.embed_text(text), x], dim=1)))  # (B, T, C)
        for block in self.h[:-1]:
            x = block(x, plan.attend)
        x = self.ln_f(self.h[-1](x, plan.attend_rows, plan.rows))  # (B, n, C)
        batch = {'act': act, 'loss_mask': loss_mask, 'start': start, 'gpt': self, **self.steps.targets(obs), **targets}
        out = self.head(self.to_head(x, self, batch)) | {name: part(x, batch) for name, part in self.aux.items()}
        loss = None
        if loss_mask is not None:
            parts, predicted = {**self.aux, **self.recurrent}, out | state
            loss = self.head.loss(out, batch) + sum(part.loss(predicted[name], batch) for name, part in parts.items())
        return out, loss

    def configure_optimizers(self, name, weight_decay, learning_rate, betas):
        return optim.configure_optimizers(self, name, weight_decay, learning_rate, betas)

    @classmethod
    def from_checkpoint(cls, folder, device='cpu'):
        """A checkpoint's directory -> the model, in evaluation mode, and the checkpoint's JSON. Executes nothing."""
        model, info = checkpoint.load_model(cls, GPTConfig, folder)
        return model.to(device).eval(), info
