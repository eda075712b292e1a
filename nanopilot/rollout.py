"""
Rollouts of a policy: an episode for each of many requests, a batch of them at a time; and what their data set says
of them.

    episodes = rollout(policy, ['go to the bed', None], [None, [150, 40]], seeds=[1, 2])
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from data import contract, metrics


def dataset_of(policy):
    """the data set that a policy was trained on, a module: data/README.md"""
    return contract.load(policy.info['dataset'])


@dataclass
class Episode:
    """one episode of a rollout, as far as it has come"""

    prompt: str | None
    bd: list | None
    seed: int
    obs: list = field(default_factory=list)
    act: list = field(default_factory=list)
    path: list = field(default_factory=list)  # the descriptor, were this the end: at the start, and after each step

    def arrays(self):
        return {
            'obs': np.array(self.obs),  # (T, n_obs)
            'act': np.array(self.act),  # (T, n_act), or (T,) of discrete ones
            'path': np.array(self.path),  # (T + 1, n_bd)
            'seed': int(self.seed),
        }


class Rows:
    """
    n environments side by side, which work through a list of episodes. Row r runs the episodes r, r + n, r + 2n,
    ..: which row an episode gets does not depend on how long others take, so none is favoured for being short.
    """

    def __init__(self, policy, episodes, n, env_kwargs):
        self.policy = policy
        self.episodes = episodes
        self.n = n
        self.env = contract.environments(dataset_of(policy), n, env_kwargs)
        self.current = np.arange(n)  # the number of each row's episode
        self.running = np.ones(n, bool)
        self.steps = 0
        obs, info = self.env.reset(seed=[e.seed for e in self.of_rows()])
        self.obs = obs.reshape(n, -1)  # labels have no axis of their own
        policy.reset([e.prompt for e in self.of_rows()], [e.bd for e in self.of_rows()])
        self.begin(info, self.running)

    def of_rows(self):
        return [self.episodes[i] for i in self.current]

    def begin(self, info, rows):
        for row in np.flatnonzero(rows):
            self.episodes[self.current[row]].path.append(info['bd'][row])

    def to_go(self):
        """what is left of the returns that were asked for, (n, 1); None where bd is no return"""
        if 'discount' not in self.policy.data_spec:
            return None
        episodes = self.of_rows()
        returns = np.array([[np.nan] if e.bd is None else e.bd for e in episodes], np.float32)
        so_far = np.array([e.path[-1] for e in episodes])
        steps = np.array([[len(e.path) - 1] for e in episodes])
        return metrics.to_go(returns, so_far, steps, self.policy.data_spec['discount'])

    def step(self, **sampling):
        """a step of all rows that run -> how many episodes ended with it"""
        act = self.policy.act(self.obs, self.to_go(), skip=~self.running, **sampling)
        obs, _, terminated, truncated, info = self.env.step(act)
        for row in np.flatnonzero(self.running):
            episode = self.episodes[self.current[row]]
            episode.obs.append(self.obs[row])
            episode.act.append(act[row])
            episode.path.append(info['bd'][row])
        ended = self.running & (terminated | truncated)
        self.obs = obs.reshape(self.n, -1)
        self.running &= ~ended
        self.steps += 1
        return int(ended.sum())

    def refill(self):
        """
        rows whose episode is over begin their next one, together with the other rows' decisions: the policy decides
        once a chunk
        """
        waiting = ~self.running & (self.current + self.n < len(self.episodes))
        decides = self.steps % self.policy.config.chunk == 0 or not self.running.any()
        if not (waiting.any() and decides):
            return
        self.current[waiting] += self.n
        obs, info = self.env.reset(seed=[e.seed for e in self.of_rows()], options={'reset_mask': waiting})
        self.obs = np.where(waiting[:, None], obs.reshape(self.n, -1), self.obs)
        fresh = [self.episodes[i] for i in self.current[waiting]]
        self.policy.reset_rows(waiting, [e.prompt for e in fresh], [e.bd for e in fresh])
        self.begin(info, waiting)
        self.running |= waiting


def rollout(
    policy, prompts, bds, seeds, batch_size=256, temperature=0.0, top_p=1.0, seed=1337, desc='rollout', env_kwargs=None
):
    """
    An episode for each of n requests, every one to its own end.

    prompts: str or None each; bds: n_bd numbers or None each; seeds: of the environments; seed: of the sampling;
    env_kwargs: another environment than that of training; the rest as in Policy.act -> list of {'obs' (T, n_obs),
    'act' (T, ...), 'path' (T + 1, n_bd), 'seed'}
    """
    episodes = [Episode(prompt, bd, int(s)) for prompt, bd, s in zip(prompts, bds, seeds)]
    rows = Rows(policy, episodes, min(batch_size, len(episodes)), env_kwargs or policy.data_spec['env_kwargs'])
    generator = torch.Generator(policy.device).manual_seed(seed)
    one_batch = len(episodes) <= batch_size
    bar = tqdm(total=len(episodes), desc=desc, unit='ep', disable=True if one_batch else None)
    while rows.running.any():
        bar.update(rows.step(temperature=temperature, top_p=top_p, generator=generator))
        rows.refill()
    bar.close()
    return [e.arrays() for e in episodes]


def annotated(policy, episodes, **changes):
    """
    episodes, dicts with prompt, bd and path, and what their data set reports of each: summary, visits, verdict, ok;
    changes: of env_kwargs
    """
    kwargs = {**policy.data_spec['env_kwargs'], **changes}
    report = getattr(dataset_of(policy), 'report', report_length)
    return [{**e, **report(e['prompt'], e['bd'], e['path'], kwargs)} for e in episodes]


def report_length(prompt, bd, path, kwargs):
    """where a data set has no report of its own"""
    return {'summary': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}


def draw(policy, picture, episodes, **changes):
    """the data set's picture of up to 12 annotated episodes, if it draws any"""
    dataset = dataset_of(policy)
    if episodes and hasattr(dataset, 'draw_episodes'):
        dataset.draw_episodes(picture, episodes[:12], {**policy.data_spec['env_kwargs'], **changes})
        print(f'picture: {picture}' + (' (the first 12)' if len(episodes) > 12 else ''))
