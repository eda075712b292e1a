"""
Train a policy on prepared data, on one CPU, one GPU, or many.

$ python train.py config/toy_nav_cpu.py                  # a config file, then what differs from it
$ python train.py config/toy_nav_cpu.py --max_iters=100 --out_dir=out-try
$ torchrun --standalone --nproc_per_node=8 train.py      # without a config file: the settings below, in out/
"""

import config as settings  # isort: skip  # first: it turns mistakes into one line
import copy
import math
import os
import sys
from dataclasses import asdict, fields

import torch
from tqdm import tqdm

from data.batches import Batches, Curriculum
from data.prepared import Prepared
from model import GPT, HEADS, STEPS, GPTConfig
from nanopilot import attention, card, checkpoint, loop, precision, resuming
from nanopilot.kv_cache import by_columns
from nanopilot.policy import Policy
from nanopilot.scoring import scores_to_log

# ------------------------------------------------------------------------------
# I/O
out_dir = 'out'
eval_interval = 2000  # steps between validations, each with a checkpoint
eval_batches = 8  # batches a validation
rollouts = 100  # prompts of validation, and of people, to act on each time; logged: `best` is that of the lowest loss
keep_last = 2  # checkpoints that are kept, beside the best
keep_every = 0  # steps between checkpoints that are kept for good, a multiple of eval_interval; 0: none is
log_interval = 100  # steps between log lines
init_from = 'scratch'  # 'scratch'; 'resume': out_dir's latest checkpoint; or the folder of a policy to fine-tune
wandb_log = False  # also log to Weights & Biases
wandb_project = 'nanopilot'
wandb_run_name = ''  # '': out_dir
# data
dataset = 'toy_nav'  # folder in data/, prepared by prepare.py
data_dir = ''  # '': data/<dataset>/prepared
data_fraction = 1.0  # of the training episodes, taken evenly: would more of them help?
source_weights = 'demonstrations=0.75,elites=0.25'  # how often each source is drawn; '': as often as it is there
obs_names = ''  # observations to use, by name, separated by commas; '': all
privileged_obs = ''  # known in training but not when acting: the policy estimates them from what it did and observed
batch_size = 16  # episodes a micro-batch, of all ranks together: many small steps beat few large ones
gradient_accumulation_steps = 1  # micro-batches a step
bucket = 8  # batches that are drawn together and sorted by length, so that little is padding; 1: no sorting
drop_text = '0.05'  # proportion of episodes trained without their prompt, one number for all or by source
drop_bd = 'demonstrations=0.8,elites=0.3'  # .. without their behaviour descriptor, likewise
segment_len = 0  # steps of an episode trained on at a time; 0: whole episodes
curriculum = 0  # training steps over which segments grow and harder episodes come in; 0: all from the start
segment_from = 0  # steps of the first segments, doubled until they are `segment_len`; 0: they do not grow
difficulty_from = 1.0  # the hardest episodes at the start, 0 to 1; 1.0: all of them
# model
n_layer = 6
n_head = 4
n_embd = 128
dropout = 0.0
bias = False  # in LayerNorms and Linears?
text_len = 64  # prompt tokens at most
say_len = 0  # tokens at most: the policy says a prompt in plain words and acts on these; 0: it acts on the prompt
more_texts = 0  # of which it learns to say that, in every step
chunk = 8  # environment steps a step of the sequence
block_size = 64 + 50  # tokens in view: text_len, and K steps of their tokens; 50 steps of 8 are a whole episode
fuse = 'sum'  # 'sum': one token a step; 'interleave': act, bd and obs are tokens of their own; 'bins': every number is
n_bins = 10  # of each observation, with fuse='bins'
n_hidden = 0  # states of a hidden Markov model that follows the tokens; 0: none
past_actions = False  # are past actions among the tokens? Imitators that see how they moved tend to repeat it
n_cross_head = 0  # heads of attention from the prompt to observations that are ids; 0: none
obs_stack = 1  # newest observations in a step; 0: all of the chunk. 1 shows no motion to go on with
head = 'mse'  # 'mse', 'kmeans' (continuous actions), 'ce' (discrete ones) or 'tokens' (with fuse='bins')
n_clusters = 64  # of the kmeans head
joint_clusters = True  # clusters of whole actions; False: of each action dimension by itself
offset_weight = 10.0  # of the kmeans head
n_future = 6  # predict the bd 1, 2, 4 .. 2^(n_future - 1) steps later, too; 0: don't
subgoal_layers = 0  # of an MLP through which the predicted sub-goal goes to the head, where data has them; 0: none
next_obs = 0.0  # weight of predicting the next observations, too (--eval shows its errors); 0.0: don't
n_freq = 6  # frequencies of sin and cos beside each observation
freq_decay = 1.0  # each is so many times as strong as the one before; 0.5: near numbers look alike
# optimizer
optimizer = 'muon'  # for the blocks' matrices, with AdamW for the rest; or 'adamw' for all
learning_rate = 2e-3  # max learning rate
max_iters = 22000
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
dtype = 'auto'  # 'float32' or 'bfloat16'; 'auto': bfloat16 where it is faster; on CPUs a short trial tells
compile = False  # torch.compile the model: worth it on GPUs
deterministic = False  # the same bytes from the same seed on GPUs too, and slower; CPUs always give them
threads = 0  # of the CPU, for each rank; 0: torch's own choice
seed = 1337
CHOICES = {'fuse': STEPS, 'head': HEADS, 'optimizer': ('adamw', 'muon'), 'dtype': ('auto', 'float32', 'bfloat16')}
AT_LEAST = {'batch_size': 1, 'gradient_accumulation_steps': 1, 'bucket': 1, 'chunk': 1, 'eval_interval': 1}
AT_LEAST |= {'eval_batches': 1, 'keep_last': 1, 'log_interval': 1, 'n_layer': 1, 'n_head': 1, 'n_embd': 1}
AT_LEAST |= {'n_clusters': 1, 'n_hidden': 0, 'n_future': 0, 'n_freq': 0, 'subgoal_layers': 0, 'next_obs': 0}
AT_LEAST |= {'max_iters': 0, 'warmup_iters': 0, 'grad_clip': 0, 'skip_nonfinite': 0, 'rollouts': 0, 'keep_every': 0}
AT_LEAST |= {'say_len': 0, 'more_texts': 0, 'threads': 0, 'n_cross_head': 0, 'seed': 0, 'learning_rate': 0}
config = settings.read(globals(), __file__, CHOICES, AT_LEAST)
globals().update(config)
wandb = loop.load_wandb(wandb_log)

# ------------------------------------------------------------------------------
# ranks and devices
ranks = loop.Ranks()
print0 = ranks.print
device = loop.find_device(device, ranks)
ranks.check(batch_size, more_texts)
loop.set_up(device, threads, deterministic)
ranks.meet(device)

# ------------------------------------------------------------------------------
# data
data_dir = data_dir or os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data', dataset, 'prepared')
train, val = Prepared(data_dir, 'train'), Prepared(data_dir, 'val')
train.check(dataset, text_len, head, HEADS, say_len, more_texts)
if privileged_obs and (segment_len or segment_from):
    raise ValueError(f'{privileged_obs=} is estimated from the start of episodes. Leave out segment_len, segment_from')
if keep_every % eval_interval:
    raise ValueError(f'keep_every={keep_every} is not a multiple of eval_interval={eval_interval}. Make it one')
view = train.view(obs_names, privileged_obs)
obs_columns = view.columns[: view.n_obs]
data_info = {'dataset': dataset, 'data': train.data_spec(), 'obs_columns': obs_columns}

# ------------------------------------------------------------------------------
# model
extra_steps = int(head == 'tokens')  # the step after the last, which says that it was the last
model_args = {f.name: config[f.name] for f in fields(GPTConfig) if f.name in config}
model_args |= train.model_args(view, chunk, extra_steps)
model_args['subgoal_layers'] *= model_args.get('subgoal', False)  # what the data does not say cannot be learned
gptconf = GPTConfig(**model_args)
drawing = {k: config[k] for k in ('seed', 'batch_size', 'bucket', 'chunk', 'n_future', 'drop_text', 'drop_bd')}
drawing |= {'source_weights': source_weights, 'columns': view.columns, 'extra_steps': extra_steps, 'say_len': say_len}
drawing |= {'n_slots': gptconf.n_slots, 'fixed_text_len': text_len if compile or device != 'cpu' else None}  # one shape
growing = Curriculum(segment_len, curriculum, segment_from, difficulty_from, gradient_accumulation_steps)
train_batches = Batches(train, 0, curriculum=growing, data_fraction=data_fraction, more_texts=more_texts, **drawing)
val_batches = Batches(val, 1, curriculum=Curriculum(segment_len), **drawing)
torch.manual_seed(seed)
raw_model = GPT(gptconf).to(device)
optimizers = raw_model.configure_optimizers(optimizer, weight_decay, learning_rate, (beta1, beta2))
averaged = loop.Averaged(raw_model, ema_decay)  # what checkpoints act with
trained = raw_model, averaged.mean, optimizers
step, resumed = 0, None
best = {'loss': math.inf, 'rollout': -math.inf}
scores = []  # (loss, score of the rollouts) at each validation that has some
if ranks.restarts and checkpoint.steps_of(out_dir):  # begun again after a rank was lost
    init_from = 'resume'
if init_from == 'resume':
    resumed = resuming.resume(out_dir, *trained, model_args, obs_columns, config, train.tokenizer())
    step, best, scores = resumed['step'], resumed['best'], resumed['scores']
    print0(*resuming.differences(resumed, config, data_info))  # a note, or nothing
elif init_from != 'scratch':
    resuming.begin_from(init_from, raw_model, averaged.mean, model_args, obs_columns, train.tokenizer())
else:
    for line in raw_model.fit(train, view.columns, seed):  # normaliser, bounds, bins, centres
        print0(line)
S = math.ceil(train_batches.longest / chunk)  # of the longest episode or segment
tokens = batch_size // ranks.n, text_len + S * gptconf.n_slots
dtype, why = precision.choose(dtype, device, ranks, raw_model, tokens, resumed)
autocast = precision.autocast(dtype, device)
if compile:
    print0('compiling the model... (takes a minute or two)')
model = ranks.wrap(torch.compile(raw_model) if compile else raw_model, device)

K = gptconf.window
millions = raw_model.num_params() / 1e6
batch = f'{batch_size} x {gradient_accumulation_steps}'
print0(f'{millions:.2f}M parameters, {head} head; window of {K} steps of {chunk} beside {text_len} prompt tokens')
print0(f'{len(train)} episodes to train on, {len(val)} to validate; {batch} a step over {ranks.n} rank(s)')
print0(f'attention: {attention.kernel_for(raw_model, text_len, S, torch.device(device))}; {optimizer}; {dtype}: {why}')
print0(f'{device}, {torch.get_num_threads()} threads; step {step} to {max_iters}, checkpoints in {out_dir}')
for note in loop.notes(gptconf, config):
    print0(f'note: {note}')


def micro_batches(step):
    """what a step trains on: this rank's rows of each micro-batch"""
    first = step * gradient_accumulation_steps
    return [train_batches.batch(first + i, ranks.rows) for i in range(gradient_accumulation_steps)]


def add_gradients(micro, n_real):
    """of micro-batches with n_real real steps over all ranks -> this rank's part of the loss"""
    loss_sum = torch.zeros((), device=device)
    for i, batch in enumerate(micro):
        batch = loop.to_device(batch, device)
        with ranks.sync(model, last=i == gradient_accumulation_steps - 1), autocast:
            _, loss = model(**batch)
        # DDP averages over ranks: weigh by this rank's part of the real steps, so that each counts once
        loss = loss * (batch['loss_mask'].sum() / n_real)
        (loss * ranks.n).backward()
        loss_sum += loss.detach()
    return loss_sum


def get_lr(it):
    if it < warmup_iters:
        return learning_rate * (it + 1) / warmup_iters
    progress = min(1.0, (it - warmup_iters) / max(1, max_iters - warmup_iters))
    return min_lr + 0.5 * (1 + math.cos(math.pi * progress)) * (learning_rate - min_lr)


@torch.no_grad()
def validate():
    """the loss of the head alone, on fixed batches of the validation split; every rank takes its rows"""
    raw_model.eval()
    total = torch.zeros((), device=device)
    n_real = 0
    for i in range(eval_batches):
        if interrupt.signum:  # then nobody uses it
            break
        batch = val_batches.batch(i, ranks.rows)
        n_real += batch.pop('n_real')
        del batch['future_bd']
        batch = loop.to_device(batch, device)
        with autocast:
            _, loss = raw_model(**batch)
        total += loss * batch['loss_mask'].sum()
    raw_model.train()
    return ranks.sum(total).item() / max(n_real, 1)


def roll_out():
    """the scores of rollouts with the averaged weights, None if a signal comes; training does not notice"""
    with averaged.swapped():  # not to be interrupted: the weights are never left half swapped
        acting = by_columns(copy.deepcopy(raw_model).eval())
    policy = Policy(acting, data_info, val.tokenizer(), device)
    return interrupt.unless_signalled(scores_to_log, policy, val, rollouts, seed)


def save_checkpoint(val_loss, pointers):
    """all there is, named by the pointers, 'latest' and others; val_loss: None if it was not measured -> its JSON"""
    files = resuming.training_files(*trained)
    if train.tokenizer():
        files['tokenizer.model'] = train.tokenizer().model
    info = {'model': asdict(gptconf), 'settings': config, **data_info, **checkpoint.versions()}
    info |= {'step': step, 'val_loss': val_loss, 'best': best, 'scores': scores}
    info |= {'dtype': dtype, 'device': device.split(':')[0]}
    checkpoint.write_checkpoint(out_dir, f'step_{step:07d}', files, info, pointers)
    checkpoint.remove_old(out_dir, keep_last, keep_every)
    return info


# ------------------------------------------------------------------------------
# the loop
if ranks.master:
    lock_fd = checkpoint.open_out_dir(out_dir, resumed)
    loop.begin_wandb(wandb, project=wandb_project, name=wandb_run_name or out_dir, config=config)
    log = loop.Log(os.path.join(out_dir, 'log.jsonl'), step, wandb)
interrupt = loop.Interrupt().install()
bar = tqdm(total=max_iters, initial=step, desc='train', unit='it', mininterval=5, disable=ranks.no_bar)
first_step, skipped = step, 0  # skipped: steps in a row
saved_at = resumed and resumed['step']
validated_at = saved_at if resumed and resumed['val_loss'] is not None else None
upcoming = loop.prefetch(micro_batches, step)
throughput = loop.Throughput()
while True:
    with throughput.waiting():
        micro = interrupt.unless_signalled(upcoming.result)  # before ranks wait for each other
    signalled = interrupt.on_any_rank()
    if signalled:
        if ranks.master and saved_at != step:
            save_checkpoint(None, ['latest'])
        break

    # validate, and save
    is_due = step == max_iters or step > 0 and step % eval_interval == 0
    if is_due and step != validated_at:
        with averaged.swapped():
            val_loss = validate()
        rolled = roll_out() if ranks.master and rollouts else {}
        if interrupt.on_any_rank():
            continue
        if not math.isfinite(val_loss):
            raise ValueError(f'the validation loss is {val_loss} at step {step}. {resuming.after_nan(out_dir)}')
        validated_at = saved_at = step
        if ranks.master:
            score = rolled.get('rollout', -val_loss)
            pointers = ['latest', 'best'] if val_loss <= best['loss'] else ['latest']
            best = {'loss': min(best['loss'], val_loss), 'rollout': max(best['rollout'], score)}
            if 'rollout' in rolled:
                scores.append((val_loss, score))
            row = {'val': val_loss, **rolled}
            tqdm.write(loop.validation_line(step, row, best))
            log.write(step, **row)
            info = save_checkpoint(val_loss, pointers)
            loop.plot_log(log.rows(), os.path.join(out_dir, 'loss.png'))
            n_episodes = int(len(train) * data_fraction)
            card.save_model_card(out_dir, info, raw_model.num_params(), n_episodes, val.first_text(), log.rows())
        throughput.reset()
    if step >= max_iters:
        break

    # a training step, which depends on its number alone
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + ranks.rank)  # for dropout and the like
    lr = get_lr(step)
    for group in (group for o in optimizers for group in o.param_groups):
        group['lr'] = lr
    upcoming = loop.prefetch(micro_batches, step + 1)
    n_real = sum(batch.pop('n_real') for batch in micro)  # environment steps in the whole batch, of all ranks
    if compile and step == first_step:
        loss_sum = interrupt.or_exit(f'while compiling: all is as at step {step}', add_gradients, micro, n_real)
    else:
        loss_sum = add_gradients(micro, n_real)
    # the norm is the same on every rank: what is wrong on one is wrong on all
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip or math.inf).item()
    step += 1
    skipped = 0 if math.isfinite(norm) else skipped + 1
    if skipped > skip_nonfinite:
        batch = (step - 1) * gradient_accumulation_steps
        raise ValueError(
            f'the gradient is {norm} at step {step}, batches {batch} to {batch + gradient_accumulation_steps - 1}. '
            f'{resuming.after_nan(out_dir)}, or --skip_nonfinite=3'
        )
    for o in optimizers:
        if not skipped:
            with autocast:  # Muon has products, too
                o.step()
        o.zero_grad(set_to_none=True)
    if not skipped:
        averaged.update(step)
    throughput.step(n_real)
    bar.update()
    if step % log_interval == 0:
        loss = ranks.sum(loss_sum).item()
        if ranks.master:
            log.write(step, loss=loss, lr=lr)
            tqdm.write(f'step {step:6d} | loss {loss:.4f} | lr {lr:.1e} | {throughput.report()}')
        throughput.reset()
bar.close()
if signalled:
    print0(f'stopped by signal {signalled}: all of step {step} is in {out_dir}. --init_from=resume goes on')
else:
    if rollouts and len(scores) > 2:
        print0(loop.agreement(scores))
    print0(f'done: {out_dir}. Next: {loop.to_evaluate(out_dir, config["data_dir"])}')
ranks.part()
if ranks.master:
    wandb.finish()
    os.close(lock_fd)
if signalled:
    sys.exit(128 + signalled)
