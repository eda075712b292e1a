"""
Robots that people steer: each has an environment of its own and a row of one batch, so that those that are on the way
share each computation of the policy. All of it is to be called from one thread.
"""

import numpy as np
import torch

from data import contract, metrics
from data.page import Bars
from nanopilot.dreams import Dreamer, consistent
from nanopilot.requests import doubts, other_meanings, refuse_contradiction
from nanopilot.rollout import dataset_of

MAX_PROMPT = 300  # characters


class Drive:
    """
    One robot. row: of the batch; env: its environment, None in a dream; obs (n_obs,): what it observes; path: the
    descriptor at the start and after each step; start: numbers with which Page.put begins there again; episode: how
    many requests have begun; asked: what the data set reads in the request; read_as: words never seen in training, and
    what each is read as, or None; future: where it expects to be, [[x, y], ..]
    """

    def __init__(self, row, env):
        self.row, self.env = row, env
        self.prompt = self.bd = None
        self.read = None  # the prompt in the words that it is read as ..
        self.understood = ''  # .. where the policy says them itself
        self.sure = None  # .. with which probability
        self.others = []  # .. what else may be meant, where it is not sure
        self.seed = 0
        self.episode = 0
        self.asked, self.read_as = {}, {}
        self.over = True  # nothing is asked yet


class Drives:
    """Up to n robots of a policy. beside: what can be opened beside one of them, an object; None: nothing can."""

    def __init__(self, policy, n):
        self.policy, self.n = policy, n
        self.dataset = dataset_of(policy)
        self.kwargs = policy.data_spec['env_kwargs']
        self.page = page_of(policy, self.dataset)
        self.is_return = 'discount' in policy.data_spec
        self.needs_request = bool(policy.config.text_len or policy.config.n_bd)
        self.free = list(range(n))
        policy.begin([None] * n)
        self.obs = np.zeros((n, len(policy.data_spec['obs_names'])), np.float32)
        self.future = predicted_bd(policy)
        all_observed = len(policy.obs_columns) == self.obs.shape[1]
        self.beside = Others(self) if self.needs_request else None
        if self.page.can_dream and policy.config.fuse == 'bins' and all_observed and not self.is_return:
            self.beside = Dreams(self)
        self.close(self.open())  # an environment that cannot be made is said now

    def open(self):
        """a robot at the start of seed 0, asked nothing yet"""
        env = self.page.environment(lambda n: contract.environments(self.dataset, n, self.kwargs))
        drive = Drive(self.free.pop(), env)
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
        from now on: an episode with the new request that begins where the robot is. Of 200 prompts changed after 30 to
        100 steps that carries out 81%, policy.change_prompts 65%, in 300 steps each
        """
        self.check(prompt, bd)
        another = prompt != drive.prompt or bd != drive.bd and not self.is_return
        self.request(drive, prompt, bd)
        drive.others = []
        if drive.understood:
            drive.others = [text for text, _ in other_meanings(self.policy, prompt, drive.understood, drive.sure)]
        if self.page.can_put:
            self.begin(drive, drive.seed, self.page.state(drive.env))
        elif drive.over:
            self.begin(drive, drive.seed)
        else:  # the environment goes on
            if another:
                self.tell(drive)
            drive.asked = self.shown_request(drive)
            drive.episode += 1

    def request(self, drive, prompt, bd):
        """what its next episode is asked. None and None are refused by `check` alone"""
        unknown = self.policy.check(prompt, bd)
        said, sure = '', None
        if prompt and self.policy.config.say_len:
            refuse_contradiction(self.policy, prompt)
            said, sure = self.policy.how_sure(prompt)
        drive.prompt, drive.bd, drive.read_as = prompt, bd, unknown
        drive.understood, drive.sure = said, sure
        drive.read = (said or self.policy.as_read(prompt)) if prompt else None

    def shown_request(self, drive):
        """what Page.request shows of its request, and what of it cannot be understood as it is meant"""
        asked = self.page.request(drive.read, drive.bd)
        asked['notes'] += doubts(self.policy, drive.prompt) if drive.prompt else []
        return asked

    def tell(self, drive):
        """the policy begins an episode with the request as it is"""
        row = np.array([drive.row])
        self.policy.ask(row, [drive.prompt])
        self.policy.begin_rows(row, [drive.bd])

    def begin(self, drive, seed=0, start=()):
        """an episode with the request as it is, from a seed's start, or from these numbers of Page.put"""
        if len(start):
            obs, bd = self.page.put(drive.env, start)  # refuses before anything is changed
        else:
            obs, info = drive.env.reset(seed=[seed])
            bd = info['bd']
        drive.path = [bd[0]]
        self.tell(drive)
        self.observe(drive, obs)
        drive.act, drive.future, drive.over = [], [], False
        drive.seed, drive.start = seed, self.page.state(drive.env)
        drive.asked = self.shown_request(drive)
        drive.episode += 1

    def observe(self, drive, obs):
        self.obs[drive.row] = obs.reshape(-1)
        drive.obs = self.obs[drive.row]

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
        dreams = [drive for drive in drives if drive.env is None]
        if dreams:
            self.beside.step(dreams)
        if len(dreams) < len(drives):
            self.step_robots([drive for drive in drives if drive.env is not None])

    def step_robots(self, drives):
        skip = np.ones(self.n, bool)
        skip[[drive.row for drive in drives]] = False
        decides = np.flatnonzero(~skip & (self.policy.k == self.policy.config.chunk))
        act = self.policy.act(self.obs, self.to_go(drives), skip=skip)
        future = dict(zip(decides, self.future() if len(decides) else []))
        for drive in drives:
            drive.future = future.get(drive.row, drive.future)
            obs, _, terminated, truncated, info = drive.env.step(act[drive.row : drive.row + 1])
            self.observe(drive, obs)
            drive.act.append(act[drive.row])
            drive.path.append(info['bd'][0])
            drive.over = bool(terminated[0] | truncated[0])

    def progress(self, drive):
        """as of Page.progress"""
        if drive.env is None:
            return self.beside.progress(drive)
        return self.page.progress(drive.env, drive.read, drive.bd, np.array(drive.path))


# ------------------------------------------------------------------------------
# what goes beside a robot


class Others:
    """Another robot, from the same start with another prompt or with nothing asked."""

    kind = 'other'

    def __init__(self, drives):
        self.drives = drives
        self.open, self.close = drives.open, drives.close

    def begin(self, other, drive, prompt):
        """beside drive, which has just begun"""
        self.drives.request(other, prompt, None)
        self.drives.begin(other, drive.seed, drive.start)
        other.over = drive.over


class Dreams:
    """
    What a policy that is a model of every number makes up: from the same first observations and request it draws
    actions and what would be observed then. Where the data set says which steps can be, those are counted.
    """

    kind = 'dream'

    def __init__(self, drives):
        self.policy, self.dataset, self.kwargs = drives.policy, drives.dataset, drives.kwargs
        self.dreamer = Dreamer(drives.policy, drives.n)
        self.free = list(range(drives.n))
        self.counts = hasattr(drives.dataset, 'reach')

    def open(self):
        return Drive(self.free.pop(), None)

    def close(self, dream):
        self.free.append(dream.row)

    def begin(self, dream, drive, prompt):
        """where drive is, and asked the same; a prompt of its own it has not"""
        row, bd = np.array([dream.row]), None
        if drive.bd is not None:
            bd = self.policy.inputs(np.float32([drive.bd]))
        self.dreamer.begin(row, self.policy.asked([drive.prompt]), bd)
        self.dreamer.see(row, self.policy.inputs(drive.obs[None]))
        dream.prompt, dream.bd, dream.seed, dream.start = drive.prompt, drive.bd, drive.seed, drive.start
        dream.obs, dream.asked = drive.obs.copy(), {**drive.asked, 'goals': [], 'avoid': []}
        dream.act, dream.path, dream.future, dream.n_possible = [], [], [], 0
        dream.over = drive.over
        dream.episode += 1

    def step(self, dreams):
        """a step of these, none of which is over"""
        rows = np.array([dream.row for dream in dreams])
        bins, act = self.dreamer.bins[rows], self.dreamer.act[rows]
        ended = self.dreamer.step(rows)
        possible = self.possible(bins, act, self.dreamer.bins[rows])
        for dream, a, can_be, end in zip(dreams, act.tolist(), possible, ended):
            if not end:
                dream.act.append(a)
                dream.obs = self.dreamer.obs[dream.row].cpu().numpy().copy()
                dream.n_possible += bool(can_be)
            dream.over = bool(end) or len(dream.act) >= self.policy.config.max_steps - 1

    def possible(self, bins, act, then):
        """steps from bins (n, n_obs) by act (n,) to `then` -> can they be? (n,) bool"""
        if not self.counts:
            return np.zeros(len(act), bool)
        edges = self.dreamer.edges.cpu().numpy()
        return consistent(self.dataset, bins.cpu().numpy(), act.cpu().numpy(), then.cpu().numpy(), edges, self.kwargs)

    def progress(self, dream):
        readings = [['steps that can be', f'{dream.n_possible} of {len(dream.act)}']] if self.counts else []
        return {'steps': [], 'entered': [], 'ok': None, 'readings': readings}


# ------------------------------------------------------------------------------


def page_of(policy, dataset):
    """what its data set shows, or else the observations"""
    data = policy.data_spec
    page = dataset.Page(data['env_kwargs']) if hasattr(dataset, 'Page') else None
    if page is not None:
        return page
    return Bars(data['env_kwargs'], data, policy.obs_columns, policy.obs_mean, policy.obs_std)


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
        logits = part(kept['x'][:, -1:], None)[:, 0, : policy.config.n_future]  # without the sub-goal
        return part.expected(logits).double().cpu().numpy().round(1).tolist()  # (n, n_future, n_bd)

    return predict
