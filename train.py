"""
Train a policy on prepared data, on one CPU, one GPU, or many.

$ python train.py config/toy_nav_cpu.py                  # a config file, then what differs from it
$ python train.py config/toy_nav_cpu.py --max_iters=100 --out_dir=out-try
$ torchrun --standalone --nproc_per_node=8 train.py config/toy_nav.py
"""

import config as settings  # first: it turns mistakes into one line

import copy
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import asdict, fields

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel as DDP
from tqdm import tqdm

from nanopilot import evaluate as evaluation
from nanopilot import hub
from nanopilot.checkpoint import (
    find_checkpoint,
    load_weights,
    newest_sound,
    read_file,
    read_tensors,
    steps_of,
    training_files,
    write_checkpoint,
)
from data import quantize as bins, quantize as clusters
from data.batches import Batches
from data.pictures import save
from data.prepared import Prepared, Rows, lock
from nanopilot.loop import Interrupt
from model import GPT, GPTConfig
from nanopilot.policy import Policy

# ------------------------------------------------------------------------------
# I/O
out_dir = 'out'
eval_interval = 500  # steps between validations, each with a checkpoint
eval_batches = 8  # batches a validation
rollouts = 0  # validation prompts to drive at every validation; what they achieve then chooses `best`, not the loss
keep_last = 2  # checkpoints that are kept, beside the best
keep_every = 0  # steps between checkpoints that are kept for good, a multiple of eval_interval; 0: none is
log_interval = 20  # steps between log lines
init_from = 'scratch'  # 'scratch', or 'resume': go on from out_dir's latest checkpoint
wandb_log = False  # also log to Weights & Biases
wandb_project = 'nanopilot'
wandb_run_name = ''  # '': out_dir
# data
dataset = 'toy_nav'  # folder in data/, prepared by prepare.py
data_dir = ''  # '': data/<dataset>/prepared
data_fraction = 1.0  # of the training episodes, taken evenly: would more of them help?
source_weights = ''  # share of each source in a batch, such as 'demonstrations=0.7,elites=0.3'; '': as they are
obs_names = ''  # observations to use, by name, separated by commas; '': all
batch_size = 64  # episodes a micro-batch, of all ranks together
gradient_accumulation_steps = 1  # micro-batches a step
bucket = 8  # batches that are drawn together and sorted by length, so that little is padding; 1: no sorting
drop_text = 0.1  # share of episodes trained without their prompt
drop_bd = '0.5'  # ... without their behaviour descriptor, also by source: 'demonstrations=0.8,elites=0.3'
# model
n_layer = 4
n_head = 4
n_embd = 256
dropout = 0.0
bias = False  # in LayerNorms and Linears?
block_size = (
    364  # tokens in view: text_len + 3 K (K with fuse='sum'); K = 100 steps of 4 are a whole episode of toy_nav
)
text_len = 64  # prompt tokens at most
chunk = 4  # environment steps a step of the sequence
fuse = 'interleave'  # 'interleave': bd, obs and act are tokens of their own; 'sum': one token a step, 3 times as fast; 'bins': every number a token
n_bins = 10  # of each observation, with fuse='bins'
n_hidden = 0  # states of a hidden Markov belief that follows the tokens; 0: none
privileged_obs = (
    ''  # observations that are known here but not when acting: the policy works them out from what it did and saw
)
past_actions = True  # are past actions among the tokens? Imitators that see them tend to repeat them: try both
obs_stack = 0  # newest observations in a step's token; 0: all of the chunk. 1 shows no motion to go on with
segment_len = 0  # steps of an episode trained on at a time; 0: whole episodes
curriculum = 0  # training steps over which segments grow and harder episodes come in; 0: all from the start
segment_from = 0  # steps, doubled until they are `segment_len`; 0: don't
difficulty_from = 1.0  # how hard (0 to 1) episodes are at the start, at most; 1.0: all of them
head = 'mse'  # 'mse', 'kmeans' (continuous actions) or 'ce' (discrete ones)
n_clusters = 64  # of the kmeans head
joint_clusters = True  # clusters of whole actions; False: of each action dimension by itself
focal = 0.0  # gamma of a focal loss on the choice of the cluster; 0.0: cross-entropy
offset_weight = 10.0  # of the kmeans head
n_future = 6  # foretell where it will be 1, 2, 4 .. 2^(n_future - 1) steps on, needs bd and path; 0: don't
next_obs = 0.0  # weight of predicting the next observations, too (--eval tells its errors); 0.0: don't
n_freq = 6  # octaves of sin and cos beside each observation
# optimizer
optimizer = 'adamw'  # or 'muon': that for the blocks' matrices, AdamW for the rest
learning_rate = 1e-3  # max learning rate
max_iters = 20000
weight_decay = 1e-2
beta1 = 0.9
beta2 = 0.95
grad_clip = 1.0  # clip gradients at this norm; 0.0: don't
skip_nonfinite = 0  # steps in a row whose gradient may be inf or nan: they are left out; one more ends the run
warmup_iters = 200
min_lr = 0.0  # at the end of the cosine
ema_decay = 0.999  # decay of the running mean of the weights, which is what checkpoints act with; 0.0: off
# system
device = 'auto'  # 'cpu', 'cuda', 'cuda:1'; 'auto': cuda where there is one
dtype = 'auto'  # 'float32' or 'bfloat16'; 'auto': bfloat16 on GPUs that have it, else float32 (CPUs are faster so)
compile = False  # torch.compile the model: worth it on GPUs
deterministic = False  # the same bytes from the same seed on GPUs too, and slower; CPUs always give them
threads = 0  # of the CPU, for each rank; 0: torch's own choice
seed = 1337
config = settings.read(globals(), __file__)
globals().update(config)

# ------------------------------------------------------------------------------
# ranks and devices
ddp = 'RANK' in os.environ  # set by torchrun
rank, world_size = (int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])) if ddp else (0, 1)
master = rank == 0
if device != 'auto' and device.split(':')[0] not in ('cpu', 'cuda'):
    raise ValueError(f"device={device!r} is not known: 'auto', 'cpu', 'cuda' or 'cuda:1'")
if device == 'auto':
    device = f'cuda:{os.environ.get("LOCAL_RANK", 0)}' if torch.cuda.is_available() else 'cpu'
elif ddp and device == 'cuda':
    device = f'cuda:{os.environ["LOCAL_RANK"]}'
on_gpu = device.startswith('cuda')
if on_gpu and not torch.cuda.is_available():
    raise ValueError(f'device={device}, but torch sees no GPU. Leave it out, or --device=cpu')
if batch_size % world_size:
    raise ValueError(f'batch_size={batch_size} cannot be shared by {world_size} ranks. Make it a multiple of them')
if threads:
    torch.set_num_threads(threads)
if on_gpu:
    torch.cuda.set_device(device)
if deterministic:
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read by cuBLAS when it starts
    torch.use_deterministic_algorithms(True)
if ddp:
    store, *_ = next(rendezvous('env://'))
    restarts = int(
        os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)
    )  # of torchrun, whose store still has the addresses of those that are gone
    dist.init_process_group(
        'nccl' if on_gpu else 'gloo',
        store=dist.PrefixStore(f'attempt_{restarts}', store),
        rank=rank,
        world_size=world_size,
    )
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
if dtype == 'auto':
    dtype = 'bfloat16' if on_gpu and torch.cuda.is_bf16_supported() else 'float32'
if dtype not in ('float32', 'bfloat16'):
    raise ValueError(f"dtype={dtype!r} is not known: 'float32' or 'bfloat16'")
autocast = nullcontext() if dtype == 'float32' else torch.autocast(device.split(':')[0], torch.bfloat16)


def say(*words):
    if master:
        print(*words, flush=True)


# ------------------------------------------------------------------------------
# data
root = os.path.dirname(os.path.abspath(__file__))
data_dir = data_dir or os.path.join(root, 'data', dataset, 'prepared')
train, val = Prepared(data_dir, 'train'), Prepared(data_dir, 'val')
meta = train.meta
if meta['dataset'] != dataset:
    raise ValueError(f'{data_dir} holds {meta["dataset"]}, not {dataset}. Set --dataset')
believed = [n for n in privileged_obs.split(',') if n]
unknown = [n for n in [*obs_names.split(','), *believed] if n and n not in meta['obs_names']]
if unknown:
    raise ValueError(f'there is no observation {unknown[0]!r} in {data_dir}. There are: {", ".join(meta["obs_names"])}')
about = {
    k: meta[k]
    for k in (
        'env_kwargs',
        'obs_names',
        'act_names',
        'bd_names',
        'bd_low',
        'bd_high',
        'act_low',
        'act_high',
        'continuous',
        'words',
        'archives',
        'normaliser',
        'discount',
        'obs_period',
        'text_encoder',
    )
    if k in meta
}  # what checkpoints say of the data
columns = [meta['obs_names'].index(n) for n in obs_names.split(',') if n] or [
    i for i, n in enumerate(meta['obs_names']) if n not in believed
]
with_believed = columns + [meta['obs_names'].index(n) for n in believed]  # what batches hold
continuous, language = meta['continuous'], meta['text_len'] > 0
if (head == 'ce') == continuous:
    raise ValueError(
        f'head={head!r} does not go with the {"continuous" if continuous else "discrete"} actions of {dataset}. '
        f'Set --head={"mse or kmeans" if continuous else "ce"}'
    )
if text_len < meta['longest_text']:
    raise ValueError(
        f'text_len={text_len}, but prompts in {data_dir} have up to {meta["longest_text"]} tokens. Raise it, or prepare with --text_len={text_len}'
    )
if language and not text_len or text_len and not language:
    raise ValueError(
        f'text_len={text_len}, but {data_dir} has {"prompts" if language else "no language"}. Set --text_len={meta["text_len"]}'
    )
if n_clusters < 1 or focal < 0 or rollouts < 0 or not 0 < data_fraction <= 1:
    raise ValueError(
        f'{n_clusters=} must be 1 or more, {focal=} and {rollouts=} 0 or more, {data_fraction=} above 0 and 1 at most'
    )
for name in (
    'keep_last',
    'chunk',
    'batch_size',
    'gradient_accumulation_steps',
    'bucket',
    'eval_interval',
    'eval_batches',
    'log_interval',
    'n_layer',
    'n_head',
    'n_embd',
):
    if config[name] < 1:
        raise ValueError(f'{name}={config[name]} must be 1 or more')
if optimizer not in ('adamw', 'muon'):
    raise ValueError(f"optimizer={optimizer!r} is not known: 'adamw' or 'muon'")
if head not in ('mse', 'kmeans', 'ce'):
    raise ValueError(f"head={head!r} is not known: 'mse', 'kmeans' or 'ce'")
if n_future and not meta['bd_names']:
    raise ValueError(f'n_future={n_future}, but {dataset} has no behaviour descriptor to foretell. Set --n_future=0')
if set(believed) & set(obs_names.split(',')) or believed and (segment_len or segment_from):
    raise ValueError(
        f'{privileged_obs=}: what is believed is not observed (obs_names), and episodes are trained on whole (segment_len=0)'
    )
if fuse == 'bins' and (
    (head, chunk, past_actions, n_future, next_obs) != ('ce', 1, True, 0, 0) or believed or n_bins < 2
):
    raise ValueError(
        "fuse='bins' wants discrete actions (head='ce'), chunk=1, past_actions=True, n_future=0, next_obs=0, n_bins of 2 or more, and nothing believed"
    )
if (
    bool(segment_from or difficulty_from < 1) != bool(curriculum)
    or segment_len
    and segment_from > segment_len
    or min(curriculum, segment_from, n_hidden, next_obs, keep_every) < 0
):
    raise ValueError(
        f'a curriculum needs steps and something that grows: {curriculum=}, {segment_from=} (at most {segment_len=}), {difficulty_from=}; {n_hidden=}, {next_obs=}, {keep_every=}: none is below 0'
    )
if keep_every % eval_interval:
    raise ValueError(
        f'keep_every={keep_every} must be a multiple of eval_interval={eval_interval}: checkpoints are written then'
    )
if not 0 <= obs_stack <= chunk:
    raise ValueError(f'obs_stack={obs_stack} must be 0 to chunk={chunk}')
if fuse not in ('interleave', 'sum', 'bins'):
    raise ValueError(f"fuse={fuse!r} is not known: 'interleave', 'sum' or 'bins'")
beyond = int(fuse == 'bins')  # the step after the last, which says that it was the last
max_steps = math.ceil(max(meta['longest'], meta['max_steps']) / chunk) + beyond
model_args = dict(
    block_size=block_size,
    text_len=text_len,
    vocab_size=meta['vocab_size'],
    text_width=train.text_width,
    max_steps=max_steps,
    chunk=chunk,
    fuse=fuse,
    n_bins=n_bins,
    n_hidden=n_hidden,
    past_actions=past_actions,
    obs_stack=obs_stack,
    n_obs=len(columns),
    n_privileged=len(believed),
    n_act=len(meta['act_names']),
    n_bd=len(meta['bd_names']),
    head=head,
    n_clusters=n_clusters,
    joint_clusters=joint_clusters,
    focal=focal,
    offset_weight=offset_weight,
    next_obs=next_obs,
    n_future=n_future,
    n_freq=n_freq,
    n_layer=n_layer,
    n_head=n_head,
    n_embd=n_embd,
    dropout=dropout,
    bias=bias,
)
gptconf = GPTConfig(**model_args)
if gptconf.window < 1:
    raise ValueError(f'block_size={block_size} leaves no room for a step beside text_len={text_len}. Raise it')
how = dict(
    seed=seed,
    batch_size=batch_size,
    bucket=bucket,
    chunk=chunk,
    n_slots=gptconf.n_slots,
    segment_len=segment_len,
    n_future=n_future,
    columns=with_believed,
    beyond=beyond,
    drop_text=drop_text,
    drop_bd=drop_bd,
    source_weights=source_weights,
    fixed=text_len if compile or on_gpu else None,
)  # compiled code wants one shape
grow = dict(
    curriculum=curriculum * gradient_accumulation_steps, segment_from=segment_from, difficulty_from=difficulty_from
)
batches = {'train': Batches(train, 0, **how, **grow, data_fraction=data_fraction), 'val': Batches(val, 1, **how)}


def batch_of(name, step, share=slice(None)):
    *arrays, n_real = batches[name].batch(step, share)
    return *map(torch.from_numpy, arrays), n_real


mine = slice(rank, None, world_size)  # every world_size-th episode: sorted by length, ranks get equal work


def micro_batches(step):
    """what a step trains on"""
    return [batch_of('train', step * gradient_accumulation_steps + i, mine) for i in range(gradient_accumulation_steps)]


def ahead(f, *args):
    """compute f(*args) meanwhile, in a thread that the process does not wait for when it ends -> its Future"""
    future = Future()

    def work():
        try:
            future.set_result(f(*args))
        except BaseException as e:
            future.set_exception(e)

    threading.Thread(target=work, daemon=True).start()
    return future


def to_device(batch):
    return [a.pin_memory().to(device, non_blocking=True) if on_gpu else a for a in batch]


# ------------------------------------------------------------------------------
# model and optimizer
assert set(model_args) == {f.name for f in fields(GPTConfig)}
if n_embd % n_head:
    raise ValueError(f'n_embd={n_embd} cannot be shared by n_head={n_head} heads. Make it a multiple')
torch.manual_seed(seed)
model = GPT(gptconf).to(device)
step, best, scores, resumed = (
    0,
    {'loss': math.inf, 'rollout': -math.inf},
    [],
    None,
)  # scores: (loss, what the rollouts achieved) so far
if ddp and restarts and steps_of(out_dir):  # begun again after a rank was lost
    init_from = 'resume'
if init_from == 'resume':
    folder, resumed = newest_sound(out_dir)
    had = asdict(GPTConfig(**resumed['model']))
    differs = [k for k, v in model_args.items() if had[k] != v]
    if resumed['obs_columns'] != columns or resumed['settings'].get('privileged_obs', '') != privileged_obs:
        raise ValueError(
            f'{folder} was trained on other observations (obs_names, privileged_obs). Resume with the same'
        )
    if resumed['settings'].get('optimizer', 'adamw') != optimizer:
        raise ValueError(
            f'{folder} was trained with optimizer={resumed["settings"].get("optimizer")!r}, this run has {optimizer!r}. Resume with the same'
        )
    if differs:
        raise ValueError(
            f'{folder} has {differs[0]}={had[differs[0]]!r}, this run {model_args[differs[0]]!r}. Resume with the same settings'
        )
    if language and read_file(folder, 'tokenizer.model', resumed) != train.tokenizer().model:
        raise ValueError(
            f'{folder} reads prompts with another vocabulary than that of {data_dir}. Resume with the data it was trained on, or begin anew'
        )
    saved = read_tensors(folder, 'train_state.safetensors', resumed)
    load_weights(model, {k[6:]: v for k, v in saved.items() if k.startswith('model.')}, folder)
    step, best, scores = resumed['step'], resumed['best'], resumed['scores']
    if resumed['settings']['rollouts'] != rollouts:  # what was achieved so far is measured otherwise
        best['rollout'], scores = -math.inf, []
elif init_from != 'scratch':
    raise ValueError(f"init_from={init_from!r} is not known: 'scratch' or 'resume'")
else:
    norm = meta['normaliser']
    for name, values in ('obs', norm['obs']), ('bd', norm['bd']), ('act', norm.get('act')):
        for moment in ('mean', 'std'):
            if values:
                at = with_believed if name == 'obs' else slice(None)
                getattr(model, f'{name}_{moment}').copy_(torch.tensor(np.array(values[moment])[at]))
    if meta['bd_names']:
        model.bd_low.copy_(torch.tensor(meta['bd_low']))
        model.bd_high.copy_(torch.tensor(meta['bd_high']))
    if continuous:
        model.act_low.copy_(torch.tensor(meta['act_low']))
        model.act_high.copy_(torch.tensor(meta['act_high']))
    if next_obs and 'obs_period' in meta:
        model.next_obs.period.copy_(torch.tensor(np.array(meta['obs_period'])[columns]))
    if fuse == 'bins':
        model.bins.edges.copy_(torch.from_numpy(bins.fit_bins(train, n_bins, columns, seed)))
    if head == 'kmeans':
        actions = clusters.sample_actions(train, chunk, seed)
        centers = clusters.fit_clusters(actions, n_clusters, joint_clusters, seed)
        model.centers.copy_(torch.from_numpy(centers))
        say(clusters.said(clusters.diagnose(actions, centers)))
optimizers = model.configure_optimizers(optimizer, weight_decay, learning_rate, (beta1, beta2))
averaged = {k: v.detach().clone() for k, v in model.named_parameters()}  # what checkpoints act with
parameters = dict(model.named_parameters())
if resumed:
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group['params']}
    for k, p in parameters.items():
        averaged[k].copy_(saved['ema.' + k])
        owner[id(p)].state[p] = {
            m: saved[f'{m}.{k}'].to(device)
            for m in ('step', 'exp_avg', 'exp_avg_sq', 'momentum_buffer')
            if f'{m}.{k}' in saved
        }
    del saved
raw_model = model
if compile:
    say('compiling the model... (takes a minute or two)')
    model = torch.compile(model)
if ddp:
    model = DDP(model, device_ids=[int(device.split(':')[1])] if on_gpu else None)

interrupt = Interrupt()
window = raw_model.config.window
say(
    f'{raw_model.num_params() / 1e6:.2f}M parameters, {head} head; window of {window} steps of {chunk} beside {text_len} prompt tokens'
)
say(
    f'{len(train)} episodes to train on, {len(val)} to validate; {batch_size} x {gradient_accumulation_steps} a step over {world_size} rank(s)'
)
say(
    f'attention: {raw_model.execution(text_len, math.ceil(batches["train"].longest / chunk), torch.device(device))}; {optimizer}'
)
say(f'{device}, {dtype}, {torch.get_num_threads()} threads; step {step} to {max_iters}, checkpoints in {out_dir}')
if segment_len and segment_len < min(max_steps, 2 * n_layer * window) and window < max_steps:
    say(
        f'note: segments of {segment_len} steps are shorter than what {n_layer} layers of {window} can see; --segment_len={2 * n_layer * window}'
    )
if n_hidden and (segment_len or segment_from):
    say('note: the hidden state begins anew with every segment; acting carries it through whole episodes')


def add_gradients(micro, n_step):
    """of micro-batches of n_step real steps, over all ranks -> this rank's share of the loss"""
    loss_sum = torch.zeros((), device=device)
    for i, (*batch, _) in enumerate(micro):
        batch = to_device(batch)
        last = i == gradient_accumulation_steps - 1
        with nullcontext() if last or not ddp else model.no_sync(), autocast:
            _, loss = model(*batch)
        # DDP averages over ranks: weigh by this rank's share of the steps, so that each counts once
        share = loss * (batch[4].sum() / n_step)
        (share * world_size).backward()
        loss_sum += share.detach()
    return loss_sum


def learning_rate_at(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / warmup_iters
    done = min(1.0, (it - warmup_iters) / max(1, max_iters - warmup_iters))
    return min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (learning_rate - min_lr)


@torch.no_grad()
def swap_in_average():
    """exchange the model's weights and their running mean; the second call undoes the first"""
    for k, p in parameters.items():
        kept = p.detach().clone()
        p.copy_(averaged[k])
        averaged[k].copy_(kept)


@torch.no_grad()
def validate():
    """the loss of the averaged weights on fixed batches of the validation split; every rank takes its share"""
    swap_in_average()
    raw_model.eval()
    total, n = torch.zeros((), device=device), 0
    for i in range(eval_batches):
        if interrupt.asked:  # then nobody uses it
            break
        *batch, _, first, over, n_real = batch_of('val', i, mine)
        with autocast:
            _, loss = raw_model(*to_device(batch), first=first.to(device), over=over.to(device))
        total, n = total + loss * batch[4].sum().to(device), n + n_real
    raw_model.train()
    swap_in_average()
    if ddp:
        dist.all_reduce(total)
    return total.item() / max(n, 1)


def roll_out():
    """what the averaged weights achieve on validation prompts, see evaluation.quick; changes nothing of the training"""
    swap_in_average()
    acting = copy.deepcopy(raw_model).eval().by_columns()
    swap_in_average()
    policy = Policy(acting, {'dataset': dataset, 'data': about, 'obs_columns': columns}, val.tokenizer(), device)
    return interrupt.unless_asked(
        evaluation.quick, policy, val, rollouts, seed
    )  # not the exchange above: weights are never left half exchanged


def git_commit():
    try:
        return subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=root, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ''


def save_checkpoint(val_loss, pointers):
    """all there is, and let the pointers, 'latest' and others, name it; then remove what is not to be kept. val_loss: None if it was not measured -> its JSON"""
    files = training_files(raw_model, averaged, optimizers)
    if language:
        files['tokenizer.model'] = train.tokenizer().model
    info = {
        'model': asdict(raw_model.config),
        'settings': config,
        'dataset': dataset,
        'data': about,
        'obs_columns': columns,
        'step': step,
        'val_loss': val_loss,
        'best': best,
        'scores': scores,
        'git_commit': git_commit(),
        'versions': {'torch': torch.__version__, 'numpy': np.__version__},
    }
    write_checkpoint(out_dir, f'step_{step:07d}', files, info, pointers)
    named = {find_checkpoint(out_dir, p).name for p in ('latest', 'best', 'best_loss')}
    for folder in steps_of(out_dir)[keep_last:]:
        if folder.name not in named and not (keep_every and int(folder.name[5:]) % keep_every == 0):
            shutil.rmtree(folder)
    return info


def draw_log():
    """a picture of the losses, and of what the rollouts achieved"""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in open(log_file)]
    figure = Figure(figsize=(7, 4), layout='constrained')
    ax = figure.add_subplot()
    ax.plot(
        [r['step'] for r in rows if 'loss' in r], [r['loss'] for r in rows if 'loss' in r], lw=0.8, label='training'
    )
    ax.plot(
        [r['step'] for r in rows if 'val' in r],
        [r['val'] for r in rows if 'val' in r],
        'o-',
        ms=3,
        label='validation, averaged weights',
    )
    ax.set(xlabel='step', ylabel='loss', yscale='log')
    ax.legend(loc='lower left')
    if rollouts:
        score = ax.twinx()
        score.plot(
            [r['step'] for r in rows if 'rollout' in r],
            [r['rollout'] for r in rows if 'rollout' in r],
            's-',
            ms=3,
            color='tab:green',
        )
        score.set_ylabel(f'achieved by {rollouts} rollouts', color='tab:green')
    save(os.path.join(out_dir, 'loss.png'), lambda f: figure.savefig(f, dpi=120, format='png'))


# ------------------------------------------------------------------------------
# the loop
wandb = None
if master:
    os.makedirs(out_dir, exist_ok=True)
    held = lock(out_dir)  # until this process ends, however it does
    if not resumed and steps_of(out_dir):  # a run is there: nothing of it is lost
        aside = next(f'{out_dir}.{n}' for n in range(1, 10**6) if not os.path.exists(f'{out_dir}.{n}'))
        os.rename(out_dir, aside)
        os.close(held)
        os.makedirs(out_dir)
        held = lock(out_dir)
        say(f'note: {out_dir} held a run, it is now in {aside}; --init_from=resume would have gone on with it')
    log_file = os.path.join(out_dir, 'log.jsonl')
    kept = (
        [line for line in open(log_file) if json.loads(line)['step'] <= step]
        if resumed and os.path.exists(log_file)
        else []
    )
    with open(log_file, 'w') as f:  # lines after the checkpoint come again
        f.writelines(kept)
    if wandb_log:
        import wandb

        wandb.init(project=wandb_project, name=wandb_run_name or out_dir, config=config)


def log(**row):
    if master:
        with open(log_file, 'a') as f:
            f.write(json.dumps({'step': step, **row}) + '\n')
        if wandb:
            wandb.log(row, step=step)


interrupt.install()
bar = tqdm(
    total=max_iters, initial=step, desc='train', unit='it', mininterval=5, disable=None if master else True
)  # None: only in a terminal
model.train()
began, upcoming = step, ahead(micro_batches, step)
since, waited, env_steps, skipped = time.time(), 0.0, 0, 0
saved_at = resumed['step'] if resumed else None
validated_at = saved_at if resumed and resumed['val_loss'] is not None else None
while True:
    asked = time.time()
    micro = interrupt.unless_asked(upcoming.result)  # before ranks wait for each other
    waited += time.time() - asked
    signalled = interrupt.by_any()
    if signalled:
        if master and saved_at != step:
            save_checkpoint(None, ['latest'])
        break
    if (step % eval_interval == 0 and (step or max_iters == 0) or step == max_iters) and step != validated_at:
        val_loss, achieved = validate(), None
        if master:
            achieved = roll_out() if rollouts else -val_loss
        if interrupt.by_any():
            continue
        if not math.isfinite(val_loss):
            raise ValueError(
                f'the validation loss is {val_loss} at step {step}. Lower --learning_rate; the last checkpoint in {out_dir} is sound'
            )
        validated_at = saved_at = step
        if master:
            named = [
                name
                for name, good in (('best_loss', val_loss <= best['loss']), ('best', achieved >= best['rollout']))
                if good
            ]
            best = {'loss': min(best['loss'], val_loss), 'rollout': max(best['rollout'], achieved)}
            scores.append((val_loss, achieved))
            tqdm.write(
                f'step {step:6d} | val {val_loss:.4f} | best {best["loss"]:.4f}'
                + (f' | rollouts {achieved:.3f} | best {best["rollout"]:.3f}' if rollouts else '')
            )
            log(val=val_loss, **({'rollout': achieved} if rollouts else {}))
            info = save_checkpoint(val_loss, ['latest', *named])
            draw_log()
            prompt = (
                next((text for row in Rows(val.folder / 'val', ['text']) for text in row['text']), None)
                if language
                else None
            )
            with open(log_file) as f:
                hub.save_model_card(
                    out_dir, info, raw_model.num_params(), int(len(train) * data_fraction), prompt, map(json.loads, f)
                )
        since, waited, env_steps = time.time(), 0.0, 0
    if step >= max_iters:
        break

    torch.manual_seed(
        (seed * 1_000_003 + step) * 4099 + rank
    )  # for dropout and the like: a step depends on its number alone
    for group in (group for o in optimizers for group in o.param_groups):
        group['lr'] = learning_rate_at(step)
    upcoming = ahead(micro_batches, step + 1)
    n_step = sum(n_real for *_, n_real in micro)  # real steps in the whole batch, over ranks and micro-batches
    if compile and step == began:
        loss_sum = interrupt.unless_asked(add_gradients, micro, n_step)
        if loss_sum is None:  # this run has nothing yet that could be lost
            say(f'stopped by signal {interrupt.asked} while compiling: all is as it was at step {step}')
            os._exit(128 + interrupt.asked)  # another rank may wait for this one, and this one for it
    else:
        loss_sum = add_gradients(micro, n_step)
    norm = torch.nn.utils.clip_grad_norm_(
        model.parameters(), grad_clip or math.inf
    ).item()  # the same on every rank: what is wrong on one is wrong on all
    step += 1
    skipped = 0 if math.isfinite(norm) else skipped + 1
    if skipped > skip_nonfinite:
        raise ValueError(
            f'the gradient is {norm} at step {step}, batches {(step - 1) * gradient_accumulation_steps} to {step * gradient_accumulation_steps - 1}. The weights and the '
            f'last checkpoint in {out_dir} are sound. Lower --learning_rate, or --skip_nonfinite=3'
        )
    for o in optimizers:
        if not skipped:
            o.step()
        o.zero_grad(set_to_none=True)
    env_steps += n_step
    if not skipped:
        decay = min(ema_decay, (1 + step) / (10 + step)) if ema_decay else 0.0  # young averages follow faster
        torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in parameters.values()], 1 - decay)
    bar.update()
    if step % log_interval == 0:
        if ddp:
            dist.all_reduce(loss_sum)
        took = time.time() - since
        loss_now = loss_sum.item()
        log(loss=loss_now, lr=learning_rate_at(step - 1))
        if master:
            tqdm.write(
                f'step {step:6d} | loss {loss_now:.4f} | lr {learning_rate_at(step - 1):.1e} | {1e3 * took / log_interval:6.1f} ms | {env_steps / took / 1e3:.0f}k steps/s | data {100 * waited / took:.1f}%'
            )
        since, waited, env_steps = time.time(), 0.0, 0
bar.close()
if master and not signalled and rollouts and len(scores) > 2:
    from scipy.stats import spearmanr

    say(
        f'rank correlation of validation loss and rollouts over {len(scores)} checkpoints: {spearmanr(*zip(*scores)).statistic:.2f} (-1: the loss tells the best)'
    )
if signalled:
    say(f'stopped by signal {signalled}: all of step {step} is in {out_dir}. --init_from=resume goes on')
else:
    say(f'done: {out_dir}. Next: python sample_policy.py --out_dir={out_dir} --eval=test')
if ddp:
    dist.barrier()  # gloo aborts now and then if a rank leaves early
    dist.destroy_process_group()
if master:
    os.close(held)
if signalled:
    sys.exit(128 + signalled)
