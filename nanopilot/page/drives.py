"""
Robots that people steer: each has an environment of its own and a row of one batch, so that those that are on the way
share each computation of the policy. All of it is to be called from one thread.
"""

import numpy as np
import torch

from data import contract, metrics
from nanopilot.rollout import dataset_of

MAX_PROMPT = 300  # characters


class Drive:
    """
    One robot. row: of the batch; path: the descriptor at the start and after each step; start: numbers with which
    Page.put begins there again; episode: how many have begun; asked: what the data set reads in the request; read_as:
    words never seen in training, and what each is read as, or None; future: where it expects to be, [[x, y], ..]
    """

    def __init__(self, row, env):
        self.row, self.env = row, env
        self.prompt = self.bd = None
        self.read = None  # the prompt in the words that it is read as
        self.seed = 0
        self.episode = 0
        self.asked, self.read_as = {}, {}
        self.over = True  # nothing is asked yet


class Drives:
    """Up to n robots of a policy."""

    def __init__(self, policy, n):
        self.policy, self.n = policy, n
        self.dataset = dataset_of(policy)
        self.kwargs = policy.data_spec['env_kwargs']
        self.page = contract.part(self.dataset, 'Page')(self.kwargs)
        self.is_return = 'discount' in policy.data_spec
        self.needs_request = bool(policy.config.text_len or policy.config.n_bd)
        self.free = list(range(n))
        policy.begin([None] * n)
        self.obs = np.zeros((n, len(policy.data_spec['obs_names'])), np.float32)
        self.future = predicted_bd(policy)

    def open(self):
        """a robot at the start of seed 0, asked nothing yet"""
        drive = Drive(self.free.pop(), contract.environments(self.dataset, 1, self.kwargs))
        self.begin(drive)
        drive.over = True
        return drive

    def close(self, drive):
        drive.env.close()
        self.free.append(drive.row)

    def check(self, prompt, bd):
        """refuse what cannot be asked"""
        if prompt is None and bd is None and self.needs_request:
            raise ValueError('nothing is asked. Type what to do')
        if prompt and len(prompt) > MAX_PROMPT:
            raise ValueError(f'the prompt has {len(prompt)} characters, {MAX_PROMPT} are read. Shorten it')
        self.policy.check(prompt, bd)

    def ask(self, drive, prompt, bd):
        """
        from now on: an episode with the new request that begins where the robot is, where the data set can do so. Of
        200 prompts changed after 30 to 100 steps that carries out 81%, policy.change_prompts 65%, in 300 steps each
        """
        self.check(prompt, bd)
        self.request(drive, prompt, bd)
        if self.page.can_put:
            self.begin(drive, drive.seed, self.page.state(drive.env))
        elif drive.over:
            self.begin(drive, drive.seed)
        else:
            drive.asked = self.page.request(drive.read, bd)

    def request(self, drive, prompt, bd):
        """what its next episode is asked. None and None are refused by `check` alone"""
        unknown = self.policy.check(prompt, bd)
        drive.prompt, drive.bd, drive.read_as = prompt, bd, unknown
        drive.read = self.policy.as_read(prompt) if prompt else None

    def begin(self, drive, seed=0, start=()):
        """an episode with the request as it is, from a seed's start, or from these numbers of Page.put"""
        if len(start):
            obs, bd = self.page.put(drive.env, start)  # refuses before anything is changed
        else:
            obs, info = drive.env.reset(seed=[seed])
            bd = info['bd']
        drive.path = [bd[0]]
        row = np.array([drive.row])
        self.policy.ask(row, [drive.prompt])
        self.policy.begin_rows(row, [drive.bd])
        self.obs[drive.row] = obs.reshape(-1)
        drive.act, drive.future, drive.over = [], [], False
        drive.seed, drive.start = seed, self.page.state(drive.env)
        drive.asked = self.page.request(drive.read, drive.bd)
        drive.episode += 1

    def to_go(self, drives):
        """what is left of the returns that are asked for, (n, 1); None where bd is no return"""
        if not self.is_return:
            return None
        bd, so_far, steps = np.full((self.n, 1), np.nan, np.float32), np.zeros((self.n, 1)), np.zeros((self.n, 1))
        for drive in drives:
            bd[drive.row] = np.nan if drive.bd is None else drive.bd
            so_far[drive.row] = drive.path[-1]
            steps[drive.row] = len(drive.act)
        return metrics.to_go(bd, so_far, steps, self.policy.data_spec['discount'])

    def step(self, drives):
        """an environment step of these, none of which is over"""
        skip = np.ones(self.n, bool)
        skip[[drive.row for drive in drives]] = False
        decides = np.flatnonzero(~skip & (self.policy.k == self.policy.config.chunk))
        act = self.policy.act(self.obs, self.to_go(drives), skip=skip)
        future = dict(zip(decides, self.future() if len(decides) else []))
        for drive in drives:
            drive.future = future.get(drive.row, drive.future)
            obs, _, terminated, truncated, info = drive.env.step(act[drive.row : drive.row + 1])
            self.obs[drive.row] = obs.reshape(-1)
            drive.act.append(act[drive.row])
            drive.path.append(info['bd'][0])
            drive.over = bool(terminated[0] | truncated[0])


def predicted_bd(policy):
    """
    -> a function: where the rows of the policy's last decision expect to be 1, 2, 4, .. decisions later, lists [[x, y],
    ..]; nothing where the model does not predict it
    """
    if 'future_bd' not in policy.model.aux:
        return list
    part = policy.model.aux['future_bd']
    kept = {}
    policy.model.ln_f.register_forward_hook(lambda module, inputs, x: kept.update(x=x))

    @torch.inference_mode()
    def predict():
        share = part(kept['x'][:, -1:], None)[:, 0].softmax(-1)  # (n, n_future, n_bd, bins)
        share = share[:, : policy.config.n_future]  # without the sub-goal
        middles = (torch.arange(share.shape[-1], device=share.device) + 0.5) / share.shape[-1]
        mean = part.low + (share @ middles) * (part.high - part.low)  # (n, n_future, n_bd)
        return mean.double().cpu().numpy().round(1).tolist()

    return predict
