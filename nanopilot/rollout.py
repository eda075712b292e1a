"""
Rollouts of a policy: an episode for each of many requests, in batches that processes may share; and what their data
set says of them.

    episodes = rollout(policy, ['go to the bed', None], [None, [150, 40]], seeds=[1, 2])
"""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from data import contract, metrics
from data.workers import in_order

BATCH_SIZE = 100  # episodes at once: more are no faster on a CPU


def dataset_of(policy):
    """the data set that a policy was trained on, a module: data/README.md"""
    return contract.load(policy.info['dataset'])


@dataclass
class Episode:
    """one episode of a rollout, as far as it has come"""

    prompt: str | None
    bd: list | None
    seed: int
    change: tuple | None = None  # (step, prompt): what is asked instead from that step on
    obs: list = field(default_factory=list)
    act: list = field(default_factory=list)
    path: list = field(default_factory=list)  # the descriptor, were this the end: at the start, and after each step
    told: dict = field(default_factory=dict)  # of what the environment TELLS (data/README.md): was it so at any step?

    def is_due(self):
        """is something else asked from this step on?"""
        return self.change is not None and len(self.act) == self.change[0]

    def arrays(self):
        return {
            'obs': np.array(self.obs),  # (T, n_obs)
            'act': np.array(self.act),  # (T, n_act), or (T,) of discrete ones
            'path': np.array(self.path),  # (T + 1, n_bd)
            'seed': int(self.seed),
            'told': self.told,
        }


class Rows:
    """Environments side by side, an episode in each: one that is over waits for the others."""

    def __init__(self, policy, episodes, env_kwargs):
        self.policy = policy
        self.episodes = episodes
        self.data = dataset_of(policy)
        self.env = contract.environments(self.data, len(episodes), env_kwargs)
        self.running = np.ones(len(episodes), bool)
        obs, info = self.env.reset(seed=[e.seed for e in episodes])
        self.obs = obs.reshape(len(episodes), -1)  # labels have no axis of their own
        policy.begin([e.prompt for e in episodes], [e.bd for e in episodes])
        for episode, bd in zip(episodes, info['bd']):
            episode.path.append(bd)

    def to_go(self):
        """what is left of the returns that were asked for, (n, 1); None where bd is no return"""
        if 'discount' not in self.policy.data_spec:
            return None
        returns = np.array([[np.nan] if e.bd is None else e.bd for e in self.episodes], np.float32)
        so_far = np.array([e.path[-1] for e in self.episodes])
        steps = np.array([[len(e.path) - 1] for e in self.episodes])
        return metrics.to_go(returns, so_far, steps, self.policy.data_spec['discount'])

    def change_prompts(self):
        """rows that have come to the step from which on something else is asked begin an episode where they are"""
        due = [row for row in np.flatnonzero(self.running) if self.episodes[row].is_due()]
        if due:
            self.policy.ask(due, [self.episodes[row].change[1] for row in due])
            self.policy.begin_rows(np.array(due))

    def step(self, **sampling):
        """a step of all rows that run"""
        self.change_prompts()
        act = self.policy.act(self.obs, self.to_go(), skip=~self.running, **sampling)
        obs, _, terminated, truncated, info = self.env.step(act)
        flags = contract.told(self.data, info)
        for row in np.flatnonzero(self.running):
            episode = self.episodes[row]
            episode.obs.append(self.obs[row])
            episode.act.append(act[row])
            episode.path.append(info['bd'][row])
            for name, values in flags.items():
                episode.told[name] = episode.told.get(name, False) or bool(values[row])
        self.obs = obs.reshape(len(obs), -1)
        self.running &= ~(terminated | truncated)


def rollout(policy, prompts, bds, seeds, desc='rollouts', env_kwargs=None, **sampling):
    """
    An episode for each of n requests, every one to its own end.

    prompts: str or None each; bds: n_bd numbers or None each; seeds: of the environments; env_kwargs: another
    environment than that of training; sampling: as of rollouts -> list of {'obs' (T, n_obs), 'act' (T, ...), 'path'
    (T + 1, n_bd), 'seed', 'told'}
    """
    episodes = [Episode(prompt, bd, int(s)) for prompt, bd, s in zip(prompts, bds, seeds)]
    return next(rollouts(policy, [(episodes, env_kwargs, None)], desc, **sampling))


def rollouts(policy, jobs, desc='rollouts', batch_size=BATCH_SIZE, temperature=0.0, top_p=1.0, seed=1337):
    """
    yields what rollout returns, for each of the jobs: (new Episodes, env_kwargs or None, a temperature in place of
    that of all jobs or None). Within `use` of data/workers.py processes share the batches of all jobs.

    batch_size: episodes at once, at most; seed: of the sampling; the rest as in Policy.act. What comes of an episode
    depends on its batch, in the last digit: batches depend on nothing but their job.
    """
    batches = []
    for episodes, env_kwargs, own_temperature in jobs:
        n = len(episodes)
        size = math.ceil(n / math.ceil(n / batch_size))  # all of about the same
        at = temperature if own_temperature is None else own_temperature
        for first in range(0, n, size):
            batches.append((episodes[first : first + size], env_kwargs, at, seed + first))
    total = sum(len(episodes) for episodes, *_ in jobs)
    bar = tqdm(total=total, desc=desc, unit='ep', disable=None if len(batches) > 1 else True)
    results = in_order(partial(run_batch, policy, top_p), batches)
    for episodes, *_ in jobs:
        finished = []
        while len(finished) < len(episodes):
            _, ended = next(results)
            finished += ended
            bar.update(len(ended))
        yield finished
    bar.close()


def run_batch(policy, top_p, batch):
    """a batch of Episodes to their ends -> their arrays"""
    episodes, env_kwargs, temperature, seed = batch
    rows = Rows(policy, episodes, env_kwargs or policy.data_spec['env_kwargs'])
    generator = torch.Generator(policy.device).manual_seed(seed)
    while rows.running.any():
        rows.step(temperature=temperature, top_p=top_p, generator=generator)
    return [e.arrays() for e in episodes]


def annotated(policy, episodes, **changes):
    """
    episodes, dicts with prompt, bd and path, and what their data set reports of each: summary, visits, verdict, ok. One
    that has 'understood' is judged by it: what the policy said of the prompt. changes: of env_kwargs
    """
    kwargs = {**policy.data_spec['env_kwargs'], **changes}
    report = getattr(dataset_of(policy), 'report', report_length)
    return [{**e, **report(e.get('understood') or e['prompt'], e['bd'], e['path'], kwargs)} for e in episodes]


def for_json(e):
    """what is written of an annotated episode, a dict"""
    arrays = {'path': e['path'].tolist(), 'actions': e['act'].tolist()}
    return {**arrays, **{k: e[k] for k in ('prompt', 'understood', 'sure', 'bd', 'visits', 'verdict')}}


def report_length(prompt, bd, path, kwargs):
    """where a data set has no report of its own"""
    return {'summary': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}


def draw(policy, picture, episodes, **changes):
    """the data set's picture of up to 12 annotated episodes, if it draws any"""
    dataset = dataset_of(policy)
    if episodes and hasattr(dataset, 'draw_episodes'):
        dataset.draw_episodes(picture, episodes[:12], {**policy.data_spec['env_kwargs'], **changes})
        print(f'picture: {picture}' + (' (the first 12)' if len(episodes) > 12 else ''))
