"""
Episodes that a policy acts in: what is asked, what was seen, what is planned. All but the network, and without torch:
policy.py brings a checkpoint, onnx_policy.py an export.

One environment. Observations (n_obs,) give an action as its step() takes it, (n_act,) or an int:

    policy.reset([None], bd=[[200]])                 # what to reach: a return, here
    obs, _ = env.reset(seed=0)
    reward, over = None, False
    while not over:
        act = policy.act(obs, reward=reward)         # where bd is a return, rewards are counted: what is left of it?
        obs, reward, terminated, truncated, _ = env.step(act)
        over = terminated or truncated

Many, a gymnasium.vector.VectorEnv. What a row that has ended needs is said by its metadata['autoreset_mode']:

    NEXT_STEP, Gymnasium's default: the next step resets it. It takes no step, then it begins anew
        act = policy.act(obs, reward=reward, skip=done)
        obs, reward, terminated, truncated, _ = env.step(act)
        policy.reset_rows(done)
        done = terminated | truncated                # before the loop: reward = None, done = np.zeros(n, bool)

    SAME_STEP: obs is of its next episode already
        act = policy.act(obs, reward=reward)
        obs, reward, terminated, truncated, _ = env.step(act)
        policy.reset_rows(terminated | truncated)

    DISABLED: it is reset here
        act = policy.act(obs, reward=reward)
        obs, reward, terminated, truncated, _ = env.step(act)
        done = terminated | truncated
        if done.any():
            obs, _ = env.reset(options={'reset_mask': done})
            policy.reset_rows(done)
"""

import math

import numpy as np

from data.metrics import to_go
from data.nearest_words import PromptReader
from data.text import END, NOT_GIVEN, words
from nanopilot.requests import NotUnderstood, check_requests

REMEMBERED = 10_000  # prompts of which it is remembered what was said
SHOWN = 40  # words that a policy knows, in a message
FAR = 100.0  # standard deviations from the mean of training: an observation that is further off is a mistake
MIN_STD = 0.1  # .. which are taken to be at least that large


class ReturnsToGo:
    """What is left of the returns that n rows are to reach, as their rewards come in; nan: none is asked."""

    def __init__(self, n, discount):
        self.discount = discount
        self.initial = np.full((n, 1), np.nan)  # of whole episodes, when they began
        self.bd = np.full((n, 1), np.nan)  # what is counted down ..
        self.so_far = np.zeros((n, 1))  # .. by the rewards since then
        self.steps = np.zeros((n, 1))

    def count_from(self, rows, bd):
        """bd (len(rows), 1) is what is left now"""
        self.bd[rows] = bd
        self.so_far[rows] = 0
        self.steps[rows] = 0

    def after(self, rows, reward):
        """what is left of the returns of rows after another step that gave reward (len(rows),) -> (len(rows), 1)"""
        self.so_far[rows] += self.discount ** self.steps[rows] * reward[:, None]
        self.steps[rows] += 1
        return to_go(self.bd[rows], self.so_far[rows], self.steps[rows], self.discount)


class Episodes:
    """
    n episodes in lockstep or each at its own step. One decision covers `chunk` environment steps: it is the row's plan.

    Subclasses say how it is computed: `new_cache(n)`, what keeps what n rows have read and seen, as KVCache does;
    `inputs(array)`, an array as that cache takes it; `sample(out, ..)`, the actions (n, chunk, ..) of a step's output;
    `say(prompts)`, what the policy says of lists of ids.
    """

    def __init__(self, config, info, tokenizer, obs_mean, obs_std, discrete):
        """
        config: sizes, as of a GPTConfig; info: a checkpoint's JSON, or of it dataset, data and obs_columns; obs_mean,
        obs_std (n_obs,): of training; discrete: are actions numbers of a choice?
        """
        self.config = config
        self.info = info
        self.data_spec = info['data']
        self.tokenizer = tokenizer
        self.reader = PromptReader(tokenizer, self.data_spec.get('neighbours')) if tokenizer else None
        self.obs_columns = np.array(info['obs_columns'])
        self.obs_mean, self.obs_std = obs_mean, obs_std
        self.obs_far = FAR * np.maximum(obs_std, MIN_STD)
        all_kinds = np.array(self.data_spec.get('obs_kinds') or [0] * len(self.data_spec['obs_names']))
        self.obs_kinds = all_kinds[self.obs_columns]  # (n_obs,), of ids; 0: a number
        self.discrete = discrete
        self.cache = None
        self.said = {}  # ids of prompts: those of what it said of them

    # ------------------------------------------------------------------------------
    # requests

    def tokens(self, prompt):
        """a prompt, None where there is none -> ids (N,)"""
        if not self.config.text_len:
            return []
        ids = self.tokenizer.encode(self.as_read(prompt)) if prompt else [NOT_GIVEN]
        n, longest = len(ids), self.config.text_len
        if n > longest:
            raise ValueError(f'the prompt has {n} tokens, the model reads {longest}. Shorten it: {prompt[:60]!r}..')
        return ids

    def asked(self, prompts):
        """str or None each -> the ids to act on: of the prompt, or of what the policy says of it, if it does"""
        tokens = [self.tokens(prompt) for prompt in prompts]
        if not self.config.say_len:
            return tokens
        if len(self.said) > REMEMBERED:
            self.said.clear()
        new = [ids for ids in dict.fromkeys(map(tuple, tokens)) if ids not in self.said]
        if new:
            self.said |= zip(new, self.say(list(map(list, new))))
        return [self.said[tuple(ids)] for ids in tokens]

    def understood(self, prompt):
        """-> what the policy says of a prompt, str: what it has understood, in plain words"""
        return self.tokenizer.decode(self.asked([prompt])[0])

    def fits(self, prompt):
        return len(self.tokenizer.encode(self.as_read(prompt))) <= self.config.text_len

    def as_read(self, prompt):
        """a prompt in the words that it is read as (data/nearest_words.py)"""
        return self.reader.read(prompt)[0]

    def within(self, bd):
        """is it in the range of training?"""
        return all(a <= x <= b for a, x, b in zip(self.data_spec['bd_low'], bd, self.data_spec['bd_high']))

    def check(self, prompt, bd):
        """
        refuse what cannot be asked of this policy -> {word of a prompt that training did not have: the known word that
        it is read as, or None}
        """
        if bd is not None:
            self.check_bd(bd)
        if not prompt:
            return {}
        if not self.config.text_len:
            raise ValueError('this policy was trained without language: it cannot read a prompt. Give a bd')
        self.tokens(prompt)
        _, unknown = self.reader.read(prompt)
        if not words(prompt) - set(unknown) and not any(unknown.values()):
            raise NotUnderstood(f'the policy knows no word of {prompt!r}. {self.known_words()}')
        if self.config.say_len and self.asked([prompt]) == [[END]]:
            cure = 'Say it in other words, ask for something else or, where it only forbids, say where to go, too'
            raise NotUnderstood(f'{prompt!r} asks for nothing that the policy knows. {cure}')
        return unknown

    def known_words(self):
        """-> all of a few words, or some of many: an end of a message"""
        vocabulary = [word for word in self.tokenizer.sorted_words if word.isalpha()]
        shown = vocabulary[:: math.ceil(len(vocabulary) / SHOWN)] if vocabulary else []
        return f'Of the {len(vocabulary)} that it knows, some are: {", ".join(shown)}'

    def check_bd(self, bd):
        low, high, names = (self.data_spec[k] for k in ('bd_low', 'bd_high', 'bd_names'))
        if not names:
            raise ValueError(f'this policy was trained without a bd: it cannot reach for {bd}. Leave it out')
        fine = self.within(bd) or 'discount' in self.data_spec and np.isfinite(bd).all()  # any return may be tried
        if len(bd) != len(low) or not fine:
            cure = f'Give {len(low)} numbers within: {", ".join(names)}'
            raise ValueError(f'bd={bd} is not within {low} to {high}. {cure}')

    # ------------------------------------------------------------------------------
    # episodes

    def reset(self, prompts, bd=None):
        """
        begin len(prompts) episodes. prompts: str or None each; bd: None, or n_bd numbers or None each. What cannot be
        asked is a ValueError, what training did not show is warned of; see check_request of requests.py for more
        """
        check_requests(self, len(prompts), prompts, [None] * len(prompts) if bd is None else bd)
        self.begin(prompts, bd)

    def begin(self, prompts, bd=None):
        """reset without its checks, as for the rows of --eval: one of them asks for nothing"""
        n, c = len(prompts), self.config
        tokens = self.asked(prompts)  # refuses one before anything is begun
        self.cache = self.new_cache(n)
        self.prompts, self.prompt_tokens = list(prompts), tokens
        self.bd = np.full((n, c.n_bd), np.nan, np.float32)
        self.new_bd = np.zeros(n, bool)  # rows whose bd the cache does not have yet
        self.recent = np.zeros((n, c.chunk, c.n_obs), np.float32)  # the last `chunk` observations
        if self.discrete:
            self.plan = np.zeros((n, c.chunk), np.int64)
        else:
            self.plan = np.zeros((n, c.chunk, c.n_act), np.float32)
        self.k = np.full(n, c.chunk)  # where in its plan a row is; at its end it decides anew
        self.fresh = np.ones(n, bool)  # rows without an observation yet
        self.past = [self.past_of(a) for a in (self.recent, self.plan, self.bd)]  # as they were at each decision
        self.returns = ReturnsToGo(n, self.data_spec['discount']) if 'discount' in self.data_spec else None
        self.begin_rows(np.arange(n), [None] * n if bd is None else bd)

    def past_of(self, a):
        """room for an array (n, ..) at every step"""
        return np.empty((len(a), self.config.max_steps, *a.shape[1:]), a.dtype)  # (n, max_steps, ..)

    def reset_rows(self, mask, prompts=None, bd=None):
        """
        begin new episodes where mask (n,), with a new prompt and bd for each such row, or with those it had; a return
        that was asked for at the last reset is whole again
        """
        rows = np.flatnonzero(mask)
        check_requests(self, len(rows), prompts, bd)
        if prompts is not None:
            self.ask(rows, prompts)
        self.begin_rows(rows, bd)

    def begin_rows(self, rows, bd=None):
        """new episodes in rows (n,), with bd, numbers or None each; None: those they had"""
        if bd is not None:
            for row, numbers in zip(rows, bd):
                self.bd[row] = np.nan if numbers is None else numbers
        if self.returns:
            if bd is not None:
                self.returns.initial[rows] = self.bd[rows]
            self.bd[rows] = self.returns.initial[rows]
            self.returns.count_from(rows, self.bd[rows])
        self.new_bd[rows] = False  # it is read with the prompts
        self.k[rows] = self.config.chunk
        self.plan[rows] = 0
        self.fresh[rows] = True
        self.read(rows)

    def ask(self, rows, prompts):
        """rows (n,) have these prompts from now on; one that cannot be read is refused before any is kept"""
        tokens = self.asked(prompts)
        for row, prompt, ids in zip(rows, prompts, tokens):
            self.prompts[row], self.prompt_tokens[row] = prompt, ids

    def read(self, rows):
        """let the cache read the prompts of rows (n,): nothing else is left in them"""
        if len(rows):
            tokens = [self.prompt_tokens[row] for row in rows]
            self.cache.read(rows, tokens, self.inputs(self.bd[rows]))

    def change_prompts(self, mask, prompts):
        """
        Ask for something else in the middle of an episode, of the rows where mask (n,). What happened before is
        computed anew under the new prompt: they go on exactly as if it had been asked from the start. A plan that
        has begun is carried out before. To forget what happened, as toy_nav does better: reset_rows(mask, prompts).
        """
        rows = np.flatnonzero(mask)
        check_requests(self, len(rows), prompts)
        steps = self.cache.t[rows]
        self.ask(rows, prompts)
        self.read(rows)
        for t in range(max(steps, default=0)):
            replayed = rows[steps > t]
            self.step(replayed, *(a[replayed, t] for a in self.past))

    def step(self, rows, recent, plan, bd):
        """
        a step of rows (n,) with their observations, the actions before and what to reach (None: as before) -> the
        head's output
        """
        inputs = [None if a is None else self.inputs(a) for a in (recent, plan, bd)]
        out = self.cache.step(*inputs, rows=None if len(rows) == len(self.k) else rows)
        self.cache.t[rows] += 1
        return out

    def act(self, obs, bd=None, skip=None, temperature=0.0, top_p=1.0, generator=None, reward=None):
        """
        obs (n, n_obs), what the environment showed last; columns that were not trained on may hold anything -> the
        actions for its next step, (n, n_act) float32 or (n,) int64. Of one row, obs (n_obs,) -> (n_act,) or an int.

        bd (n, n_bd): what to reach from the next decision on, such as a return to go; None: as before, but what is left
        of a return, for which reward (n,), of the last step, is needed. It does not matter where a row has just begun,
        nor where bd is no return. skip (n,) bool: rows that take no step, because their episode is over: nothing of
        theirs changes, and what is returned for them means nothing.
        """
        if self.cache is None:
            raise ValueError('the policy does not know yet what is asked. Call reset(prompts) first')
        n = len(self.k)
        alone = n == 1 and np.ndim(obs) < 2  # one environment, without an axis of rows
        go = np.ones(n, bool) if skip is None else ~np.atleast_1d(np.asarray(skip, bool))
        obs = self.check_obs(self.as_rows(obs), go)
        rows, bd = self.changed_bds(bd, reward, go)
        if len(rows):
            self.bd[rows] = bd
            self.new_bd[rows] = True
        self.see(obs, go)
        rows = np.flatnonzero(go & (self.k == self.config.chunk))
        if len(rows):
            self.decide(rows, temperature, top_p, generator)
        k = np.minimum(self.k, self.config.chunk - 1)
        self.k += go
        act = self.plan[np.arange(n), k]
        if alone:
            return int(act[0]) if self.discrete else act[0]
        return act

    def as_rows(self, obs):
        """observations as one environment or n show them, labels without an axis of their own -> (n, n_obs)"""
        obs = np.asarray(obs, np.float32)
        labels = len(self.data_spec['obs_names']) == 1 and obs.shape == (len(self.k),)
        if labels or len(self.k) == 1 and obs.ndim < 2:
            return obs.reshape(len(self.k), -1)
        return obs

    def changed_bds(self, bd, reward, go):
        """what act() is given -> rows that reach for something else from now on, bd (len(rows), n_bd) of these"""
        if bd is not None:
            if reward is not None:
                raise ValueError('bd says what is left of a return, reward makes it known, too. Give one of them')
            rows = np.flatnonzero(go)
            bd = self.check_bds(bd, go)[rows]
            if self.returns:
                self.returns.count_from(rows, bd)
            return rows, bd
        rows = np.zeros(0, int)
        if self.returns:
            rows = np.flatnonzero(go & ~self.fresh & ~np.isnan(self.bd[:, 0]))
        if not len(rows):
            return rows, None
        if reward is None:
            raise ValueError(
                'what is left of the return? Tell act() the reward of the last step: act(obs, reward=reward), '
                'or what is left: act(obs, bd=left)'
            )
        return rows, self.returns.after(rows, self.check_reward(reward, rows)[rows])

    def check_bds(self, bd, go):
        """refuse bd (n, n_bd) that cannot be asked for in rows where go (n,); nan: nothing is -> as an array"""
        bd = np.asarray(bd, np.float32)
        n, names = len(self.k), self.data_spec['bd_names']
        bd = np.atleast_2d(bd) if n == 1 else bd
        if bd.shape != (n, len(names)):
            raise ValueError(
                f'bd has shape {bd.shape}, not {(n, len(names))}: {n} rows of {", ".join(names) or "none"}'
            )
        within = (np.array(self.data_spec['bd_low']) <= bd) & (bd <= np.array(self.data_spec['bd_high']))
        if self.returns:
            within = np.isfinite(bd)
        fine = within.all(1) | np.isnan(bd).all(1)
        if not fine[go].all():
            self.check_bd(bd[np.flatnonzero(go & ~fine)[0]].tolist())
        return bd

    def check_reward(self, reward, rows):
        """refuse a reward (n,) that is no number in some of rows -> as an array"""
        reward = np.atleast_1d(np.asarray(reward, np.float64))
        n = len(self.k)
        if reward.shape != (n,):
            raise ValueError(
                f'reward has shape {reward.shape}, not {(n,)}. Give that of the last step, one for each row'
            )
        odd = rows[~np.isfinite(reward[rows])]
        if len(odd):
            raise ValueError(f'reward is {reward[odd[0]]} in row {odd[0]}. Give that of the last step')
        return reward

    def see(self, obs, go):
        """keep observations (n, n_obs) of rows where go (n,)"""
        newest = np.concatenate([self.recent[:, 1:], obs[:, None]], 1)
        self.recent = np.where(go[:, None, None], newest, self.recent)
        begins = go & self.fresh
        if begins.any():
            self.recent[begins] = obs[begins, None]
            self.fresh[begins] = False

    def check_obs(self, obs, go):
        """
        refuse observations (n, all of them) that training has nothing like, in rows where go (n,) -> those it was
        trained on, (n, n_obs)
        """
        names, columns = self.data_spec['obs_names'], self.obs_columns
        n = len(self.k)
        if obs.shape != (n, len(names)):
            raise ValueError(f'obs has shape {obs.shape}, not {(n, len(names))}: {n} rows of {", ".join(names)}')
        obs = obs[:, columns]
        self.check_ids(obs[go])
        sane = (np.abs(obs - self.obs_mean) < self.obs_far) | (self.obs_kinds > 0)  # nor nan, nor inf
        if not sane[go].all():
            row, i = np.argwhere(go[:, None] & ~sane)[0]
            trained = f'{self.obs_mean[i]:.3g} +- {self.obs_std[i]:.3g}'
            raise ValueError(
                f'{names[columns[i]]} is {obs[row, i]:g} in row {row}; in training it was {trained}. '
                'Are the units, the order, the environment the same?'
            )
        return obs

    def check_ids(self, obs):
        """refuse observations (n, n_obs) of which some should be ids and are none"""
        kinds = self.obs_kinds
        odd = (kinds > 0) & ~((obs >= 0) & (obs < kinds) & (obs % 1 == 0))
        if odd.any():
            row, i = np.argwhere(odd)[0]
            name = self.data_spec['obs_names'][self.obs_columns[i]]
            raise ValueError(
                f'{name} is {obs[row, i]:g}, and no id of 0 to {kinds[i] - 1}. Is the environment the same?'
            )

    def decide(self, rows, temperature, top_p, generator):
        """new plans for rows (n,)"""
        inputs = self.recent[rows], self.plan[rows], self.bd[rows]
        t = self.cache.t[rows]
        # refuses an episode that is too long, before anything is kept of it
        out = self.step(rows, *inputs[:2], inputs[2] if self.new_bd[rows].any() else None)
        self.new_bd[rows] = False
        for past, a in zip(self.past, inputs):
            past[rows, t] = a
        self.plan[rows] = self.sample(out, temperature, top_p, generator)
        self.k[rows] = 0
