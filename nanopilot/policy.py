"""
A trained policy for any loop: prompts in, observations in, actions out.

    policy = Policy.load('out-toy-nav-cpu')
    env = make_vec(8)                                # any gymnasium.vector.VectorEnv with the observations of training
    obs, _ = env.reset(seed=0)
    policy.reset(['go north of the fridge'] * 8)
    over = np.zeros(8, bool)
    for _ in range(400):
        obs, _, terminated, truncated, _ = env.step(policy.act(obs, skip=over)) # an ended row ignores this action, and so do we
        policy.reset_rows(over)                      # Gymnasium's NEXT_STEP: now that row has begun a new episode
        over = terminated | truncated
"""

import numpy as np
import torch

from nanopilot.kv_cache import KVCache
from nanopilot.checkpoint import find_checkpoint, read_file
from data.encoders import load_tokenizer
from data.text import NOT_GIVEN, pad_prompts, words
from model import GPT


FAR, LEAST = (
    100.0,
    0.1,
)  # standard deviations (of this size at least) from the mean of training: what is further off is a mistake


class Policy:
    """
    n episodes in lockstep or each at its own step, driven by one checkpoint.

    Keys and values are kept (cache.py), so an environment step costs the same however long the episode is; the prompt of
    an episode is read once. One decision covers `chunk` environment steps.

    guidance w goes from what would be done unasked, w = 0, to what is asked, w = 1, and beyond (Ho & Salimans, arXiv
    2207.12598): each row then has a twin that was asked for nothing.
    """

    def __init__(self, model, info, tokenizer=None, device='cpu', guidance=1.0):
        self.model, self.info, self.tokenizer, self.device, self.guidance = model, info, tokenizer, device, guidance
        self.config, self.data_spec = model.config, info['data']
        self.seen_mean, self.seen_std = (a[: model.config.n_obs].cpu().numpy() for a in (model.obs_mean, model.obs_std))
        self.cache = None

    @classmethod
    def load(cls, out_dir, which='best', device='cpu', guidance=1.0, bert_model=''):
        """
        A directory that train.py wrote; which: 'best' by rollouts if it made any, else by validation loss, 'best_loss', 'latest', or a directory
        in it. bert_model: where the frozen encoder is, if it has one; '': where it was when the prompts were prepared
        """
        folder = find_checkpoint(out_dir, which)
        model, info = GPT.from_checkpoint(folder, device)
        tokenizer = None
        if model.config.text_len:
            tokenizer = load_tokenizer(
                info['data'].get('text_encoder', 'learned'),
                read_file(folder, 'tokenizer.model', info),
                info['data']['words'],
                bert_model,
            )
        return cls(model, info, tokenizer, device, guidance)

    # ------------------------------------------------------------------------------
    # what is asked

    def tokens(self, text):
        """a prompt, None where there is none -> ids (N,)"""
        if not self.config.text_len:
            return []
        ids = self.tokenizer.encode(self.tokenizer.fix_typos(text)) if text else [NOT_GIVEN]
        if len(ids) > self.config.text_len:
            raise ValueError(
                f'the prompt has {len(ids)} tokens, the model reads {self.config.text_len}. Shorten it: {text[:60]!r}..'
            )
        return ids

    def fits(self, text):
        return len(self.tokenizer.encode(self.tokenizer.fix_typos(text))) <= self.config.text_len

    def within(self, bd):
        """is it in the range that training knew?"""
        return all(a <= x <= b for a, x, b in zip(self.data_spec['bd_low'], bd, self.data_spec['bd_high']))

    def check(self, text, bd):
        """refuse what cannot be asked of this policy -> the words of a prompt that it has never seen: what it reads each as, or None"""
        if bd is not None:
            low, high = self.data_spec['bd_low'], self.data_spec['bd_high']
            if len(bd) != len(low) or not (
                self.within(bd) or 'discount' in self.data_spec and np.isfinite(bd).all()
            ):  # a return out of range is tried
                raise ValueError(
                    f'bd={bd} is not within {low} to {high}. Give {len(low)} numbers within: {", ".join(self.data_spec["bd_names"])}'
                )
        if not text:
            return {}
        if not self.config.text_len:
            raise ValueError('this policy was trained without language: it cannot read a prompt. Give a bd')
        self.tokens(text)
        misspelt = self.tokenizer.misspelt(text)
        unknown = {w: misspelt.get(w) for w in self.tokenizer.unknown(text)}
        if not words(text) - set(unknown) and not misspelt:
            raise ValueError(f'the policy knows no word of {text!r}. It knows: {", ".join(self.data_spec["words"])}')
        return unknown

    # ------------------------------------------------------------------------------
    # episodes

    def reset(self, prompts, bd=None):
        """begin len(prompts) episodes. prompts: str or None each; bd: None, or n_bd numbers or None each"""
        n, c = len(prompts), self.config
        self.cache = KVCache(
            self.model,
            n if self.guidance == 1 else 2 * n,
            self.tokenizer.pad_prompts if self.tokenizer else pad_prompts,
        )
        self.prompts, self.bd = [None] * n, np.full((n, c.n_bd), np.nan, np.float32)
        self.recent = np.zeros((n, c.chunk, c.n_obs), np.float32)  # the last `chunk` observations
        self.plan = np.zeros(
            (n, c.chunk) if c.head == 'ce' else (n, c.chunk, c.n_act), np.int64 if c.head == 'ce' else np.float32
        )
        self.k = np.full(n, c.chunk)  # where in its plan a row is; at its end it decides anew
        self.fresh = np.ones(n, bool)  # rows that have seen nothing yet
        self.past = [
            np.empty((n, c.max_steps, *a.shape[1:]), a.dtype) for a in (self.recent, self.plan, self.bd)
        ]  # as they were at each decision
        self.reset_rows(np.ones(n, bool), prompts, [None] * n if bd is None else bd)

    def reset_rows(self, mask, prompts=None, bd=None):
        """begin new episodes where mask (n,), with a new prompt and bd for each such row, or with those it had"""
        rows = np.flatnonzero(mask)
        for i, row in enumerate(rows):
            self.prompts[row] = self.prompts[row] if prompts is None else prompts[i]
            self.bd[row] = self.bd[row] if bd is None else np.nan if bd[i] is None else bd[i]
        self.k[rows], self.plan[rows], self.fresh[rows] = self.config.chunk, 0, True
        self.read(rows)

    def read(self, rows):
        if len(rows):
            prompts, bd = [self.tokens(self.prompts[row]) for row in rows], self.bd[rows]
            if self.guidance != 1:
                prompts, bd = prompts + [self.tokens(None)] * len(rows), np.concatenate([bd, np.full_like(bd, np.nan)])
            self.cache.read(self.twins(rows), prompts, torch.from_numpy(bd).to(self.device))

    def twins(self, rows):
        """rows of the cache for rows of the policy"""
        return rows if self.guidance == 1 else np.concatenate([rows, rows + len(self.k)])

    def change_prompts(self, mask, prompts):
        """
        Ask something else in the middle of an episode, of the rows where mask (n,). What they have lived through is computed
        anew under the new prompt: they go on exactly as if it had been asked from the start. Their plans are dropped.
        """
        rows = np.flatnonzero(mask)
        steps = self.cache.t[rows]
        for row, prompt in zip(rows, prompts):
            self.prompts[row] = prompt
        self.read(rows)
        for t in range(max(steps, default=0)):
            some = rows[steps > t]
            self.step(some, *(a[some, t] for a in self.past))

    def step(self, rows, recent, plan, bd):
        """show rows (n,) what they have seen, done and are to reach (None: as before) -> the heads' output for their next step"""
        shown, twins = [recent, plan, bd], self.twins(rows)
        if self.guidance != 1:
            shown = [
                None if a is None else np.concatenate([a, b])
                for a, b in ((recent, recent), (plan, plan), (bd, bd if bd is None else np.full_like(bd, np.nan)))
            ]
        shown = [None if a is None else torch.from_numpy(a).to(self.device) for a in shown]
        out = self.cache.step(*shown, rows=None if len(rows) == len(self.k) else twins)
        self.cache.t[twins] += 1
        if self.guidance != 1:
            out = {k: torch.lerp(v[len(rows) :], v[: len(rows)], self.guidance) for k, v in out.items()}
        return out

    def act(self, obs, bd=None, skip=None, temperature=0.0, top_p=1.0, generator=None):
        """
        obs (n, n_obs), what the environment showed last; columns that were not trained on may hold anything -> the actions for its next step, (n, n_act) float32 or (n,) int64.

        bd (n, n_bd): what to reach from now on, such as a return to go; else as at reset. skip (n,) bool: rows that take no
        step, because their episode is over: nothing of theirs changes, and what is returned for them means nothing.
        """
        if self.cache is None:
            raise ValueError('the policy does not know yet what is asked. Call reset(prompts) first')
        obs = np.asarray(obs, np.float32)
        expected = (len(self.k), len(self.data_spec['obs_names']))
        if obs.shape != expected:
            raise ValueError(
                f'obs has shape {obs.shape}, not {expected}: {len(self.k)} rows of {", ".join(self.data_spec["obs_names"])}'
            )
        go = np.ones(len(obs), bool) if skip is None else ~np.asarray(skip, bool)
        obs = obs[:, self.info['obs_columns']]
        sane = np.abs((obs - self.seen_mean) / np.maximum(self.seen_std, LEAST)) < FAR  # nor nan, nor inf
        if not sane[go].all():
            row, column = np.argwhere(go[:, None] & ~sane)[0]
            raise ValueError(
                f'{self.data_spec["obs_names"][self.info["obs_columns"][column]]} is {obs[row, column]:g} in row {row}; in training it was {self.seen_mean[column]:.3g} +- '
                f'{self.seen_std[column]:.3g}. Are the units, the order, the environment the same?'
            )
        self.recent[go] = np.concatenate([self.recent[go, 1:], obs[go, None]], 1)
        begins = go & self.fresh
        self.recent[begins], self.fresh[begins] = obs[begins, None], False
        if bd is not None:
            self.bd[go] = np.asarray(bd, np.float32)[go]
        rows = np.flatnonzero(go & (self.k == self.config.chunk))
        if len(rows):
            shown, t = (self.recent[rows], self.plan[rows], self.bd[rows]), self.cache.t[rows]
            out = self.step(
                rows, *shown[:2], None if bd is None else shown[2]
            )  # refuses an episode that is too long, before anything is kept of it
            for kept, a in zip(self.past, shown):
                kept[rows, t] = a
            self.plan[rows] = self.model.choose(out, temperature, top_p, generator).cpu().numpy()
            self.k[rows] = 0
        now = np.minimum(self.k, self.config.chunk - 1)
        self.k[go] += 1
        return self.plan[np.arange(len(obs)), now].copy()
