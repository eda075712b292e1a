"""
nanoPilot's model: a GPT that reads a prompt, then an episode as [bd, obs, act] tokens, and says the next action.

    w_0 .. w_{N-1} | bd_0 obs_0 act_0 | bd_1 obs_1 act_1 | .. | bd_t obs_t [act_t is predicted at obs_t]

The prompt never leaves; of the steps, a query sees its own and the K-1 before it (the block slides). Every step carries an
embedding of its absolute time, so what a step's keys and values hold does not depend on where the window is. One step may
carry `chunk` environment steps: the observations up to its decision and the actions that follow it. What a policy sees of its
own motion tempts it to go on as it went: without `see_act` there are no past actions, with n_seen = 1 no past observations
within a step.

References: nanoGPT (Karpathy); Decision Transformer (Chen et al., arXiv 2106.01345); Behavior Transformers (Shafiullah et
al., arXiv 2206.11251) for the kmeans head; Quality-Diversity Transformer (Macé et al., arXiv 2303.16207) for bd.
"""
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch.nn import functional as F

AHEAD_BINS = 40 # foretelling is a choice between so many intervals of each bd dimension: sharper than a mean
AHEAD_WEIGHT = 0.2 # of that cross-entropy beside the action's loss
PAD = 0 # the token id of a prompt's padding: never attended to
FORMAT = 1 # of a checkpoint
UNSEALED = b'0' * 64 # where its JSON holds its own SHA-256


@dataclass
class GPTConfig:
    block_size: int = 364    # tokens in view: the prompt's text_len, and K steps of 3 tokens (2 where there is no bd)
    text_len: int = 64       # prompt tokens at most, 0: no language
    vocab_size: int = 900
    max_steps: int = 100     # steps an episode can have, each of `chunk` environment steps
    chunk: int = 4           # environment steps in one step of the sequence
    fuse: str = 'interleave' # 'interleave': 3 tokens a step; 'sum': one, of bd, obs and the action before: 3 times as fast
    see_act: bool = True     # are past actions among them? Who sees them may repeat them instead of looking (de Haan et al., 1905.11979)
    n_seen: int = 0          # newest observations in a step's token; 0: all of the chunk
    n_obs: int = 9
    n_act: int = 2           # dimensions of a continuous action, or number of discrete ones
    n_bd: int = 2            # 0: no behaviour descriptor
    head: str = 'mse'        # 'mse', 'kmeans' (continuous: cluster + offset) or 'ce' (discrete)
    n_clusters: int = 64     # of the kmeans head
    offset_weight: float = 10.0 # its offset loss beside its cross-entropy
    n_ahead: int = 6         # also foretell where the episode will be 1, 2, 4 .. 2^(n_ahead - 1) steps on: 0: don't
    n_freq: int = 6          # octaves of sin and cos beside each observation: positions are seen sharper
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 256
    dropout: float = 0.0
    bias: bool = False       # in LayerNorms and Linears of the blocks

    @property
    def n_slots(self):
        return 1 if self.fuse == 'sum' else 1 + (self.n_bd > 0) + self.see_act # tokens a step: [bd, obs, act], less what there is not

    @property
    def window(self):
        return (self.block_size - self.text_len) // self.n_slots # K, steps in view


class SelfAttention(nn.Module):

    def __init__(self, config):
        super().__init__()
        assert config.n_embd % config.n_head == 0, f"{config.n_embd=} {config.n_head=}"
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.n_head, self.dropout = config.n_head, config.dropout

    def forward(self, x, mask):
        B, T, C = x.size()
        q, k, v = (h.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for h in self.c_attn(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, T, C) # (B, nh, T, hs) -> (B, T, C)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):

    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(F.relu(self.c_fc(x)).square())) # as good as GELU and cheaper (So et al., 2109.08668)


class Block(nn.Module):

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):

    def __init__(self, config):
        super().__init__()
        assert config.head in ('mse', 'kmeans', 'ce'), f"{config.head=}"
        assert config.fuse in ('interleave', 'sum'), f"{config.fuse=}"
        assert 0 <= config.n_seen <= config.chunk, f"{config.n_seen=} {config.chunk=}"
        assert config.window >= 1, f"{config.block_size=} holds no step beside {config.text_len=}"
        assert config.n_bd or not config.n_ahead, f"{config.n_ahead=} needs a bd"
        self.config = config
        C, n_out = config.n_embd, config.chunk * config.n_act
        n_waves = 2 * config.n_freq
        self.text_in = nn.Embedding(config.vocab_size, C) if config.text_len else None
        self.text_pos = nn.Embedding(config.text_len, C) if config.text_len else None
        self.time = nn.Embedding(config.max_steps, C) # absolute, shared by the three tokens of a step
        self.obs_in = nn.Linear(config.n_obs * ((config.n_seen or config.chunk) + n_waves), C)
        self.act_in = nn.Linear(n_out, C) if config.see_act else None
        if config.n_bd:
            self.bd_in = nn.Linear(config.n_bd * (1 + n_waves), C)
            self.bd_not_given = nn.Parameter(torch.zeros(C))
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.ln_f = nn.LayerNorm(C, bias=config.bias)
        if config.head == 'kmeans':
            self.cluster_head = nn.Linear(C, config.n_clusters)
            self.offset_head = nn.Linear(C, config.n_clusters * n_out)
            self.register_buffer('centers', torch.zeros(config.n_clusters, n_out)) # in normalised actions
        else:
            self.head = nn.Linear(C, n_out)
        self.ahead_head = nn.Linear(C, config.n_ahead * config.n_bd * AHEAD_BINS) if config.n_ahead else None
        # the normaliser travels with the weights: whoever loads them sees what training saw
        for name, n in ('obs', config.n_obs), ('act', config.n_act), ('bd', config.n_bd):
            self.register_buffer(f'{name}_mean', torch.zeros(n))
            self.register_buffer(f'{name}_std', torch.ones(n))
        self.register_buffer('bd_low', torch.zeros(config.n_bd))
        self.register_buffer('bd_high', torch.ones(config.n_bd))
        self.register_buffer('act_low', torch.full((config.n_act,), -torch.inf))
        self.register_buffer('act_high', torch.full((config.n_act,), torch.inf))

        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith('c_proj.weight'): # scaled init of the residual projections, as in GPT-2
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * config.n_layer))

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def waves(self, x):
        """ x (..., n) normalised -> sin and cos of it at n_freq octaves (..., 2 * n_freq * n); Tancik et al., 2006.10739 """
        x = x[..., None] * (math.pi / 4 * 2.0 ** torch.arange(self.config.n_freq, device=x.device))
        return torch.cat([x.sin(), x.cos()], dim=-1).flatten(-2)

    def mask(self, text, S):
        """
        text (B, N), S steps -> (B, 1, T, T) bool, T = N + n_slots * S: may this query (row) see that key (column)?

        Every token sees the prompt before it, never its padding. A step also sees the steps i - K < j <= i up to itself.
        """
        N, n_slots = text.shape[1], self.config.n_slots
        i = torch.arange(N + n_slots * S, device=text.device)
        step = (i - N).div(n_slots, rounding_mode='floor')
        past = i[:, None] >= i[None, :]
        window = (step[:, None] - step[None, :] < self.config.window) | (i[None, :] < N)
        seen = F.pad(text != PAD, (0, n_slots * S), value=True) # (B, T)
        return (past & window)[None, None] & seen[:, None, None, :]

    def tokens(self, text, obs, act, bd, first=None):
        """ the sequence of the diagram above, embedded -> (B, N + n_slots * S, C) """
        B, S = obs.shape[:2]
        assert S <= self.config.max_steps, f"{S} steps, but max_steps = {self.config.max_steps}"
        now = torch.arange(S, device=obs.device) # (S,), or (B, S) for stretches that begin later
        now = self.time(now if first is None else now + first[:, None])
        obs = (obs - self.obs_mean) / self.obs_std # (B, S, chunk, n_obs)
        o = self.obs_in(torch.cat([obs[:, :, -self.config.n_seen:].flatten(2), self.waves(obs[:, :, -1])], dim=-1))
        parts = [o]
        if self.config.see_act:
            a = F.one_hot(act, self.config.n_act).to(o.dtype) if self.config.head == 'ce' else (act - self.act_mean) / self.act_std
            a = self.act_in(a.flatten(2))
            # summed: the action before, nothing at the start
            parts.append(F.pad(a[:, :-1], (0, 0, 1, 0)) if self.config.fuse == 'sum' else a)
        if self.config.n_bd: # nan: not given
            given = ~bd.isnan().any(-1, keepdim=True)
            bd = (torch.nan_to_num(bd) - self.bd_mean) / self.bd_std
            b = torch.where(given, self.bd_in(torch.cat([bd, self.waves(bd)], dim=-1)), self.bd_not_given)
            parts.insert(0, b.expand(B, S, -1))
        if self.config.fuse == 'sum':
            x = sum(parts) + now
        else:
            x = (torch.stack(parts, dim=2) + now[..., None, :]).flatten(1, 2) # (B, S, n_slots, C) -> (B, n_slots * S, C)
        if self.config.text_len:
            x = torch.cat([self.text_in(text) + self.text_pos.weight[:text.shape[1]], x], dim=1)
        return self.drop(x)

    def forward(self, text, obs, act, bd=None, real=None, ahead=None, first=None):
        """
        text (B, N) int64, ended by padding (N = 0: no language); obs (B, S, chunk, n_obs), up to each decision;
        act (B, S, chunk, n_act) float, or (B, S, chunk) int64 with the ce head, from each decision on;
        bd (B, S or 1, n_bd), nan where not given; real (B, S, chunk) bool, False where an episode is over; ahead
        (B, S, n_ahead, n_bd), where it will be some steps on; first (B,) int64, the step at which each stretch begins, or 0.

        -> (out, loss): the head's output for every step, a dict of tensors (B, S, ...), and the mean loss over the real
        environment steps, None without `real`. With `ahead` the error of foretelling it is added.
        """
        S, n_slots, decides = obs.shape[1], self.config.n_slots, int(self.config.fuse == 'interleave' and self.config.n_bd > 0)
        x = self.tokens(text, obs, act, bd, first)
        mask = self.mask(text, S)
        for block in self.blocks:
            x = block(x, mask)
        x = self.ln_f(x[:, text.shape[1]:][:, decides::n_slots]) # (B, S, C) at the obs tokens, which predict the action
        out = {'cluster': self.cluster_head(x), 'offset': self.offset_head(x)} if self.config.head == 'kmeans' else {'act': self.head(x)}
        if self.config.n_ahead:
            out['ahead'] = self.ahead_head(x).unflatten(-1, (self.config.n_ahead, self.config.n_bd, AHEAD_BINS))
        loss = None if real is None else self.loss(out, act, real)
        if ahead is not None and self.config.n_ahead:
            # says at every step what the prompt is about; the actions alone say it at the turnings only
            bins = ((ahead - self.bd_low) / (self.bd_high - self.bd_low) * AHEAD_BINS).long().clamp(0, AHEAD_BINS - 1)
            ce = F.cross_entropy(out['ahead'].flatten(0, -2), bins.flatten(), reduction='none').view(bins.shape).mean((-1, -2))
            loss = loss + AHEAD_WEIGHT * (ce[..., None] * real).sum() / real.sum().clamp(min=1)
        return out, loss

    def loss(self, out, act, real):
        """ the mean over the real environment steps """
        n = real.sum().clamp(min=1)
        if self.config.head == 'ce':
            logits = out['act'].unflatten(-1, (self.config.chunk, self.config.n_act))
            return F.cross_entropy(logits[real], act[real], reduction='sum') / n
        target = (act - self.act_mean) / self.act_std # (B, S, chunk, n_act)
        if self.config.head == 'mse':
            error = (out['act'].view_as(target) - target) ** 2
            return (error.mean(-1) * real).sum() / n
        nearest = torch.cdist(target.flatten(2), self.centers.expand(len(target), -1, -1)).argmin(-1) # (B, S)
        ce = F.cross_entropy(out['cluster'].transpose(1, 2), nearest, reduction='none') # (B, S)
        predicted = self.centers[nearest] + self.offset(out, nearest)
        error = (predicted.view_as(target) - target) ** 2
        return ((ce[..., None] + self.config.offset_weight * error.mean(-1)) * real).sum() / n

    def offset(self, out, cluster):
        """ the offset that goes with a chosen cluster (B, S) -> (B, S, chunk * n_act) """
        offset = out['offset'].unflatten(-1, (self.config.n_clusters, -1))
        return offset.gather(2, cluster[..., None, None].expand(-1, -1, 1, offset.shape[-1])).squeeze(2)

    @torch.no_grad()
    def act(self, text, obs, act, bd=None, temperature=0.0, top_p=1.0, generator=None):
        """
        The next `chunk` actions, (B, chunk, n_act) within the action space, or (B, chunk) int64 with the ce head.

        Arguments as forward's, the episodes so far; act at the last step is not looked at. Every step is computed
        anew. temperature 0 is greedy; else clusters or discrete actions are drawn, from the top_p most probable.
        """
        out, _ = self(text, obs, act, bd)
        out = {k: v[:, -1:] for k, v in out.items()}
        if self.config.head == 'ce':
            logits = out['act'].unflatten(-1, (self.config.chunk, self.config.n_act))[:, 0]
            return draw(logits, temperature, top_p, generator)
        if self.config.head == 'kmeans':
            cluster = draw(out['cluster'], temperature, top_p, generator)
            a = self.centers[cluster] + self.offset(out, cluster)
        else:
            a = out['act']
        a = a.view(len(a), self.config.chunk, self.config.n_act) * self.act_std + self.act_mean
        return torch.minimum(torch.maximum(a, self.act_low), self.act_high)

    def configure_optimizer(self, weight_decay, learning_rate, betas):
        """ AdamW; matrices decay, vectors do not. Fused: one kernel, also on CPUs """
        params = [p for p in self.parameters() if p.requires_grad]
        groups = [{'params': [p for p in params if p.dim() >= 2], 'weight_decay': weight_decay},
                  {'params': [p for p in params if p.dim() < 2], 'weight_decay': 0.0}]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)

    @classmethod
    def from_checkpoint(cls, folder, device='cpu'):
        """ a checkpoint's directory -> the model in evaluation mode, and the checkpoint's JSON. Executes nothing it reads """
        info = read_checkpoint(folder)
        model = cls(GPTConfig(**info['model']))
        load_weights(model, read_tensors(folder, 'model.safetensors', info), folder)
        return model.to(device).eval(), info


def draw(logits, temperature, top_p, generator):
    """ logits (..., n) -> (...) int64: the best, or drawn from the fewest options that hold top_p of the probability """
    if temperature == 0:
        return logits.argmax(-1)
    p, order = torch.softmax(logits / temperature, dim=-1).sort(dim=-1, descending=True)
    p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0) # the first one always stays
    i = torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(*p.shape[:-1], 1)
    return order.gather(-1, i).squeeze(-1)


# ------------------------------------------------------------------------------
# checkpoints: a directory of safetensors and one JSON that holds the other files' SHA-256. train.py writes them


def read_checkpoint(folder):
    """ a checkpoint's JSON """
    file = Path(folder) / 'checkpoint.json'
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}. Train one: python train.py config/toy_nav_cpu.py")
    try:
        data = file.read_bytes()
        info = json.loads(data)
        if info['format'] != FORMAT:
            raise ValueError(f"{file} has format {info['format']}, this program reads {FORMAT}")
        if seal(data.replace(info['sha256']['checkpoint.json'].encode(), UNSEALED)) != data:
            raise KeyError
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged. Take an earlier checkpoint beside it, or train again") from None
    return info


def seal(data):
    """ put the SHA-256 of a checkpoint's JSON (bytes) in the place that is kept for it """
    return data.replace(UNSEALED, hashlib.sha256(data).hexdigest().encode())


def read_file(folder, name, info):
    """ one of a checkpoint's files, if its bytes are those that were written """
    file = Path(folder) / name
    try:
        data = file.read_bytes()
    except OSError:
        raise FileNotFoundError(f"{file} is missing. Take an earlier checkpoint beside it, or train again") from None
    if hashlib.sha256(data).hexdigest() != info['sha256'].get(name):
        raise ValueError(f"{file} is damaged: its SHA-256 is not the checkpoint's. Take an earlier one beside it, or train again")
    return data


def read_tensors(folder, name, info):
    try:
        return load_safetensors(read_file(folder, name, info))
    except SafetensorError as e:
        raise ValueError(f"{Path(folder) / name} is damaged ({e}). Take an earlier one beside it, or train again") from None


def load_weights(model, tensors, where):
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as e:
        raise ValueError(f"{where}: the weights do not fit the architecture ({str(e).splitlines()[-1].strip()})") from None
