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
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

from checkpoint import load_weights, read_checkpoint, read_tensors

AHEAD_BINS = 40 # foretelling is a choice between so many intervals of each bd dimension: sharper than a mean
AHEAD_WEIGHT = 0.2 # of that cross-entropy beside the action's loss
PAD = 0 # the token id of a prompt's padding: never attended to


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

    def forward(self, x, mask, past=None):
        B, T, C = x.size()
        q, k, v = (h.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for h in self.c_attn(x).split(C, dim=2))
        if past is not None:
            k, v = past(k, v) # keeps what is new, returns all there is
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

    def forward(self, x, mask, past=None):
        x = x + self.attn(self.ln_1(x), mask, past)
        return x + self.mlp(self.ln_2(x))


class Cache:
    """
    What n episodes have shown the policy so far, as keys and values. They never change, so a step costs its own tokens only.

    Columns: the prompt's tokens, then a ring of K + 1 steps (an action's token belongs to the step before the newest and
    sees that one's whole window). `step` says which step a ring's column holds, -1: none; so nothing is ever moved.
    """

    def __init__(self, config, n, device='cpu', dtype=torch.float32):
        self.N, ring = config.text_len, (config.window + 1) * config.n_slots
        shape = (config.n_layer, n, config.n_head, self.N + ring, config.n_embd // config.n_head)
        self.k, self.v = torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype)
        self.words = torch.zeros(n, self.N, dtype=torch.bool, device=device) # the columns that hold a prompt
        self.longest = 0 # prompt so far
        self.step = torch.full((n, ring), -1, device=device)
        self.t = torch.zeros(n, dtype=torch.long, device=device) # the step that comes next


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

    def parts(self, obs, act, bd):
        """ what a step is made of, embedded: bd (None where there is none), obs, act (None without see_act), each (B, S, C) """
        obs = (obs - self.obs_mean) / self.obs_std # (B, S, chunk, n_obs)
        o = self.obs_in(torch.cat([obs[:, :, -self.config.n_seen:].flatten(2), self.waves(obs[:, :, -1])], dim=-1))
        b = a = None
        if self.config.n_bd: # nan: not given
            given = ~bd.isnan().any(-1, keepdim=True)
            bd = (torch.nan_to_num(bd) - self.bd_mean) / self.bd_std
            b = torch.where(given, self.bd_in(torch.cat([bd, self.waves(bd)], dim=-1)), self.bd_not_given).expand_as(o)
        if self.config.see_act:
            a = F.one_hot(act, self.config.n_act).to(o.dtype) if self.config.head == 'ce' else (act - self.act_mean) / self.act_std
            a = self.act_in(a.flatten(2))
        return b, o, a

    def words(self, text):
        return self.text_in(text) + self.text_pos.weight[:text.shape[1]]

    def tokens(self, text, obs, act, bd, first=None):
        """ the sequence of the diagram above, embedded -> (B, N + n_slots * S, C) """
        B, S = obs.shape[:2]
        assert S <= self.config.max_steps, f"{S} steps, but max_steps = {self.config.max_steps}"
        now = torch.arange(S, device=obs.device) # (S,), or (B, S) for stretches that begin later
        now = self.time(now if first is None else now + first[:, None])
        b, o, a = self.parts(obs, act, bd)
        if self.config.fuse == 'sum':
            if a is not None:
                a = F.pad(a[:, :-1], (0, 0, 1, 0)) # the action before, nothing at the start
            x = sum(part for part in (b, o, a) if part is not None) + now
        else: # (B, S, n_slots, C) -> (B, n_slots * S, C)
            x = (torch.stack([part for part in (b, o, a) if part is not None], dim=2) + now[..., None, :]).flatten(1, 2)
        if self.config.text_len:
            x = torch.cat([self.words(text), x], dim=1)
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
        out = self.heads(x[:, text.shape[1]:][:, decides::n_slots]) # (B, S, C) at the obs tokens, which predict the action
        loss = None if real is None else self.loss(out, act, real)
        if ahead is not None and self.config.n_ahead:
            # says at every step what the prompt is about; the actions alone say it at the turnings only
            bins = ((ahead - self.bd_low) / (self.bd_high - self.bd_low) * AHEAD_BINS).long().clamp(0, AHEAD_BINS - 1)
            ce = F.cross_entropy(out['ahead'].flatten(0, -2), bins.flatten(), reduction='none').view(bins.shape).mean((-1, -2))
            loss = loss + AHEAD_WEIGHT * (ce[..., None] * real).sum() / real.sum().clamp(min=1)
        return out, loss

    def heads(self, x):
        x = self.ln_f(x)
        out = {'cluster': self.cluster_head(x), 'offset': self.offset_head(x)} if self.config.head == 'kmeans' else {'act': self.head(x)}
        if self.config.n_ahead:
            out['ahead'] = self.ahead_head(x).unflatten(-1, (self.config.n_ahead, self.config.n_bd, AHEAD_BINS))
        return out

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

    def choose(self, out, temperature=0.0, top_p=1.0, generator=None):
        """
        The heads' output at the newest step, a dict of tensors (B, 1, ...) -> the next `chunk` actions, (B, chunk, n_act)
        within the action space, or (B, chunk) int64 with the ce head.

        temperature 0 is greedy; else clusters or discrete actions are drawn, from the top_p most probable.
        """
        if self.config.head == 'ce':
            return draw(out['act'].unflatten(-1, (self.config.chunk, self.config.n_act))[:, 0], temperature, top_p, generator)
        if self.config.head == 'kmeans':
            cluster = draw(out['cluster'], temperature, top_p, generator)
            a = self.centers[cluster] + self.offset(out, cluster)
        else:
            a = out['act']
        a = a.view(len(a), self.config.chunk, self.config.n_act) * self.act_std + self.act_mean
        return torch.minimum(torch.maximum(a, self.act_low), self.act_high)

    @torch.no_grad()
    def act(self, text, obs, act, bd=None, **how):
        """
        The next actions, as `choose` returns them, by computing every step anew: the oracle of `step`.

        Arguments as forward's, the episodes so far; act at the last step is not looked at.
        """
        out, _ = self(text, obs, act, bd)
        return self.choose({k: v[:, -1:] for k, v in out.items()}, **how)

    @torch.no_grad()
    def read(self, cache, rows, text):
        """ begin new episodes in rows (n,) of a cache, with prompts text (n, N), ended by padding: each distinct one is read once """
        cache.step[rows], cache.t[rows], cache.words[rows] = -1, 0, False
        cache.k[:, rows], cache.v[:, rows] = 0.0, 0.0
        if not text.shape[1]:
            return
        text, of = torch.unique(text, dim=0, return_inverse=True)
        # columns are counted back from the first step, so that prompts of any length stand next to the episode
        N, last = text.shape[1], (text != PAD).sum(1)
        here = torch.arange(N, device=text.device) - N + last[:, None] # (n, N), the word that goes into a column, negative: none
        at, seen = here.clamp(min=0), here >= 0
        x, mask = self.words(text), self.mask(text, 0)
        for k_all, v_all, block in zip(cache.k, cache.v, self.blocks):
            def past(k, v):
                for new, kept in (k, k_all), (v, v_all): # (n, nh, N, hs)
                    new = new.gather(2, at[:, None, :, None].expand_as(new)) * seen[:, None, :, None]
                    kept[rows, :, cache.N - N:cache.N] = new[of]
                return k, v
            x = block(x, mask, past)
        cache.words[rows, cache.N - N:] = seen[of]
        cache.longest = max(cache.longest, N)

    @torch.no_grad()
    def step(self, cache, obs, act, bd=None, rows=None):
        """
        The heads' output at the next step of each episode in a cache: forward's at its newest step, for the price of n_slots tokens.

        obs (n, chunk, n_obs), up to the decision; act (n, chunk, ...), what was done since the last one; bd (n, n_bd), nan where
        not given; rows (n,) of the cache, None: all. Does not count the step: `cache.t[rows] += 1` does, until then it can
        be taken again.
        """
        c, every = self.config, rows is None
        rows = torch.arange(len(cache.t), device=obs.device) if every else rows
        t = cache.t[rows]
        latest = int(t.max())
        if latest >= c.max_steps:
            raise ValueError(f"an episode has reached step {latest}, but the policy knows {c.max_steps} only. Reset it")
        b, o, a = self.parts(obs[:, None], act[:, None], None if bd is None else bd[:, None])
        now = self.time(t)[:, None]
        if c.fuse == 'sum':
            x = sum(part for part in (b, o) if part is not None) + now
            x = x if a is None else x + a * (t > 0)[:, None, None]
            of, kind = t[:, None], torch.zeros(1, dtype=torch.long, device=x.device)
        else: # the action before belongs to its own step; at the start there is none, and its column stays unseen
            made = [part + now for part in (b, o) if part is not None]
            kind = torch.arange(len(made), device=o.device)
            of = t[:, None].expand(-1, len(made))
            if a is not None:
                made.insert(0, a + self.time((t - 1).clamp(min=0))[:, None])
                of = torch.cat([t[:, None] - 1, of], 1) # -1 is never seen
                kind = torch.cat([kind.new_full((1,), c.n_slots - 1), kind])
            x = torch.cat(made, 1)
        column = of % (c.window + 1) * c.n_slots + kind # (n, tokens) in the ring
        cache.step[rows[:, None], column] = of
        begin, end = cache.N - cache.longest, cache.N + min(latest + 1, c.window + 1) * c.n_slots
        held = cache.step[rows, :end - cache.N][:, None] # (n, 1, columns)
        kinds = torch.arange(end - cache.N, device=x.device) % c.n_slots
        mine = of[..., None]
        seen = (held >= 0) & (held <= mine) & (held > mine - c.window) & ((held < mine) | (kinds <= kind[:, None]))
        seen |= mine < 0 # sees anything rather than nothing: a softmax over nothing is nan
        mask = torch.cat([cache.words[rows, begin:][:, None].expand(-1, x.shape[1], -1), seen], 2)[:, None]
        for k_all, v_all, block in zip(cache.k, cache.v, self.blocks):
            def past(k, v):
                for new, kept in (k, k_all), (v, v_all):
                    kept[rows[:, None], :, cache.N + column] = new.transpose(1, 2)
                return (kept[:, :, begin:end] if every else kept[rows, :, begin:end] for kept in (k_all, v_all))
            x = block(x, mask, past)
        return self.heads(x[:, -1:])

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
