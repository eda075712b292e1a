"""
What the loop of train.py is made of: ranks, batches fetched in advance, the running mean of the weights, signals, logs.
"""

import json
import os
import shlex
import signal
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel as DDP

from data import metrics
from data.pictures import save_figure, save_text

# ------------------------------------------------------------------------------
# ranks and devices


class Ranks:
    """The processes that torchrun has started, or this one alone: they share out every batch."""

    def __init__(self):
        self.ddp = 'RANK' in os.environ  # set by torchrun
        self.rank = int(os.environ.get('RANK', 0))
        self.n = int(os.environ.get('WORLD_SIZE', 1))
        self.local = int(os.environ.get('LOCAL_RANK', 0))
        self.master = self.rank == 0
        self.no_bar = None if self.master else True  # of tqdm; None: only outside a terminal
        self.rows = slice(self.rank, None, self.n)  # of a batch that is sorted by length: ranks get equal work
        self.restarts = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))  # after a rank was lost

    def check(self, batch_size, more_texts):
        """refuse what ranks cannot share; more_texts: 0: none"""
        if self.n > 1 and not self.ddp:
            raise ValueError('WORLD_SIZE is set, and RANK is not. Start it with torchrun, or unset WORLD_SIZE')
        if batch_size % self.n:
            raise ValueError(f'batch_size={batch_size} cannot be shared by {self.n} ranks. Make it a multiple of them')
        if 0 < more_texts < self.n:
            raise ValueError(f'{more_texts=} cannot be shared by {self.n} ranks. Set it to as many, or more')

    def meet(self, device):
        if self.ddp:
            missing = [name for name in ('WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
            if missing:
                raise ValueError(f'RANK is set, and {", ".join(missing)} is not. Start it with torchrun, or unset RANK')
            store, *_ = next(rendezvous('env://'))
            store = dist.PrefixStore(f'attempt_{self.restarts}', store)  # it still has the addresses of lost ranks
            backend = 'nccl' if device.startswith('cuda') else 'gloo'
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.n)

    def print(self, *words):
        """print once, not once a rank; nothing where there are no words"""
        if self.master and words:
            print(*words, flush=True)

    def wrap(self, model, device):
        """-> a model whose gradients are those of all ranks"""
        if not self.ddp:
            return model
        return DDP(model, device_ids=[int(device.split(':')[1])] if device.startswith('cuda') else None)

    def sync(self, model, last):
        """a context for a backward pass: ranks share gradients at the last micro-batch of a step"""
        return nullcontext() if last or not self.ddp else model.no_sync()

    def sum(self, x):
        """-> x, made the sum over ranks in place"""
        if self.ddp:
            dist.all_reduce(x)
        return x

    def part(self):
        if self.ddp:
            dist.barrier()  # gloo aborts now and then if a rank leaves early
            dist.destroy_process_group()


def find_device(device, ranks):
    """'auto', 'cpu', 'cuda' or 'cuda:1' -> the torch device of this rank"""
    if device != 'auto' and device.split(':')[0] not in ('cpu', 'cuda'):
        raise ValueError(f"device={device!r} is not known. Set it to 'auto', 'cpu', 'cuda' or 'cuda:1'")
    if device == 'auto':
        device = f'cuda:{ranks.local}' if torch.cuda.is_available() else 'cpu'
    elif device == 'cuda' and ranks.ddp:
        device = f'cuda:{ranks.local}'
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise ValueError(f'device={device}, but torch sees no GPU. Leave it out, or --device=cpu')
    return device


def set_up(device, threads, deterministic):
    """torch's switches; threads: of the CPU, 0: its own choice; deterministic: the same bytes on GPUs, too"""
    if threads:
        torch.set_num_threads(threads)
    if device.startswith('cuda'):
        torch.cuda.set_device(device)
    if deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read by cuBLAS when it starts
        torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def to_device(batch, device):
    """a dict of numpy arrays -> of tensors"""
    batch = {name: torch.from_numpy(a) for name, a in batch.items()}
    if device.startswith('cuda'):
        batch = {name: a.pin_memory().to(device, non_blocking=True) for name, a in batch.items()}
    return batch


def prefetch(f, *args):
    """compute f(*args) meanwhile, in a thread that the process does not wait for when it ends -> its Future"""
    future = Future()

    def work():
        try:
            future.set_result(f(*args))
        except BaseException as e:
            future.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    return future


def to_evaluate(out_dir, data_dir):
    """-> the command that scores a run; data_dir: '' where its data are in the usual place"""
    command = ['python', 'sample_policy.py', f'--out_dir={out_dir}', '--eval=test']
    if data_dir:
        command.append(f'--data_dir={data_dir}')
    return shlex.join(command)


# ------------------------------------------------------------------------------
# weights


class Averaged:
    """The running mean of a model's parameters: `mean` {name: tensor}. Checkpoints act with it."""

    def __init__(self, model, decay):
        """decay: of the mean, 0 to 1; 0: the mean is the parameters themselves"""
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.mean = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step):
        """follow the parameters after training step number `step`"""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0  # young averages follow faster
        torch._foreach_lerp_(list(self.mean.values()), [p.detach() for p in self.parameters.values()], 1 - decay)

    @contextmanager
    def swapped(self):
        """within it the mean is in the place of the parameters; they are put back even if the code within raises"""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self):
        for name, p in self.parameters.items():
            trained = p.detach().clone()
            p.copy_(self.mean[name])
            self.mean[name].copy_(trained)


# ------------------------------------------------------------------------------
# signals


class Interrupted(BaseException):
    """Raised by a signal, but only within `unless_signalled`; no Exception, lest libraries deal with it."""


class Interrupt:
    """
    SIGTERM and Ctrl-C ask a run to stop: what it is doing is finished, or broken off where that is harmless, and all of
    it is saved. `signum`: the first signal since install(), 0: none; a second one changes nothing.
    """

    def __init__(self):
        self.signum = 0
        self.breakable = False
        self.group = None

    def install(self):
        if dist.is_initialized():
            self.group = dist.new_group(backend='gloo')  # not worth waiting for a GPU
        for s in signal.SIGTERM, signal.SIGINT:
            signal.signal(s, self.handle)
        return self

    def handle(self, signum, frame):
        self.signum = self.signum or signum
        if self.breakable:
            self.breakable = False
            raise Interrupted

    def on_any_rank(self):
        """the signal of any rank, 0: none. The same for all ranks, who have to call it at the same places"""
        if self.group is None:
            return self.signum
        signum = torch.tensor(self.signum)
        dist.all_reduce(signum, dist.ReduceOp.MAX, group=self.group)
        return signum.item()

    def unless_signalled(self, f, *args):
        """f(*args), which has no effect but its result: None, at once, if a signal has come or comes"""
        try:
            try:
                self.breakable = True
                return None if self.signum else f(*args)
            finally:
                self.breakable = False
        except Interrupted:  # maybe just before it could not be raised any more
            return None

    def or_exit(self, where, f, *args):
        """f(*args), but a signal ends this process at once: nothing is there yet that could be lost. where: to print"""
        result = self.unless_signalled(f, *args)
        if result is None:
            print(f'stopped by signal {self.signum} {where}', flush=True)
            os._exit(128 + self.signum)  # another rank may wait for this one, and this one for it
        return result


# ------------------------------------------------------------------------------
# logs


class Log:
    """log.jsonl of a run, a line a row, and Weights & Biases beside it, or a DummyWandb."""

    def __init__(self, file, step, wandb):
        """step: rows after it are dropped, because they come again"""
        self.file = file
        self.wandb = wandb
        kept_rows = [row for row in self.rows() if row['step'] <= step]
        text = ''.join(json.dumps(row) + '\n' for row in kept_rows)
        save_text(file, text)

    def rows(self):
        """those that are whole: of the last one a full disk may have left a part"""
        if not os.path.exists(self.file):
            return []
        with open(self.file) as f:
            return [json.loads(line) for line in f if line.endswith('\n')]

    def write(self, step, **row):
        with open(self.file, 'a') as f:
            f.write(json.dumps({'step': step, **row}) + '\n')
        self.wandb.log(row, step=step)


def validation_line(step, row, best):
    """row: of log.jsonl, with the scores of rollouts where there are some; best: {'loss', 'rollout'} -> to print"""
    line = f'step {step:6d} | val {row["val"]:.4f} | best {best["loss"]:.4f}'
    if 'rollout' in row:
        line += f' | rollouts {row["rollout"]:.3f} | best {best["rollout"]:.3f}'
    if 'free' in row:
        line += f' | free sentences {row["free"]:.3f}'
    return line


def notes(gptconf, config):
    """what a user may not expect of these settings: gptconf, of the model; config, of train.py -> lines to print"""
    K, n_layer, segment_len = gptconf.window, gptconf.n_layer, config['segment_len']
    reach = min(gptconf.max_steps, n_layer * (K - 1) + 1)  # each layer sees K - 1 steps further back
    if 0 < segment_len < reach:
        yield f'{n_layer} layers of {K} steps can see {reach} steps, more than {segment_len=}. Raise it'
    if gptconf.n_hidden and (segment_len or config['segment_from']):
        yield 'the hidden state begins anew with every segment; acting carries it through whole episodes'
    if gptconf.subgoal_layers < config['subgoal_layers']:
        yield f'the data does not say what its episodes head for: subgoal_layers={config["subgoal_layers"]} is 0'


class Throughput:
    """How fast training steps are, since reset(): what they did, and how long they waited for their data."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.since = time.time()
        self.waited = 0.0  # seconds, for batches
        self.steps = self.env_steps = 0

    def step(self, env_steps):
        """a training step is done, on so many steps of episodes"""
        self.steps += 1
        self.env_steps += env_steps

    @contextmanager
    def waiting(self):
        t = time.time()
        yield
        self.waited += time.time() - t

    def report(self):
        """-> a part of a log line"""
        took = time.time() - self.since
        speed = f'{1e3 * took / self.steps:6.1f} ms | {self.env_steps / took / 1e3:.0f}k steps/s'
        return f'{speed} | data {100 * self.waited / took:.1f}%'


class DummyWandb:
    """In the place of Weights & Biases where a run does not log to it."""

    def init(self, **settings):
        pass

    def log(self, row, step):
        pass

    def finish(self):
        pass


def load_wandb(wanted):
    """-> the package, or a DummyWandb; an ImportError comes before the run has done anything"""
    if not wanted:
        return DummyWandb()
    import wandb

    return wandb


def begin_wandb(wandb, **settings):
    """begin a run there, or in a DummyWandb; a ValueError where that is refused, as where nobody is logged in"""
    try:
        wandb.init(**settings)
    except getattr(wandb, 'Error', ()) as e:
        raise ValueError(f'wandb: {e}. Run wandb login, set WANDB_MODE=offline, or leave out --wandb_log') from None


def agreement(scores):
    """scores: [(validation loss, score of the rollouts)] -> a line to print: do they agree?"""
    r = metrics.spearman(*zip(*scores))
    return (
        f'rank correlation of validation loss and rollouts over {len(scores)} checkpoints: {r:.2f} '
        '(-1: the loss finds the best)'
    )


def plot_log(rows, file):
    """a picture of the losses, and of the scores of rollouts where there are some; rows: of log.jsonl"""
    from matplotlib.figure import Figure

    def column(name):
        """-> steps, values"""
        return list(zip(*((row['step'], row[name]) for row in rows if name in row))) or [(), ()]

    figure = Figure(figsize=(7, 4), layout='constrained')
    ax = figure.add_subplot()
    ax.plot(*column('loss'), lw=0.8, label='training')
    ax.plot(*column('val'), 'o-', ms=3, label='validation, averaged weights')
    ax.set(xlabel='step', ylabel='loss', yscale='log')
    if any('rollout' in row for row in rows):
        score = ax.twinx()
        score.plot(*column('rollout'), 's-', ms=3, color='tab:green', label='rollouts')
        if any('free' in row for row in rows):
            score.plot(*column('free'), 's:', ms=3, color='tab:green', label='.. of free sentences')
        score.set_ylabel('score of the rollouts', color='tab:green')
    figure.legend(loc='outside upper center', ncols=4, fontsize=9, frameon=False)
    save_figure(file, figure)
