"""
What a training run saves to its checkpoints, and what goes on from one (resume) or begins with a policy's weights
(begin_from). Both refuse, by a ValueError, what would be another run than the one that is asked for.
"""

import math
import os

import torch
from safetensors.torch import save as safetensors_bytes

from nanopilot.checkpoint import (
    find_checkpoint,
    grown,
    load_weights,
    newest_sound,
    read_checkpoint,
    read_file,
    read_tensors,
    steps_of,
)

# settings that a run may go on with and differ in, to the same bits
NOT_OF_TRAINING = {'out_dir', 'data_dir', 'init_from', 'eval_interval', 'eval_batches', 'rollouts', 'keep_last'}
NOT_OF_TRAINING |= {'keep_every', 'log_interval', 'wandb_log', 'wandb_project', 'wandb_run_name', 'threads', 'device'}
NOT_OF_TRAINING |= {'dtype', 'max_iters', 'skip_nonfinite'}  # dtype stays; a run that is to be longer says so itself


def training_files(model, averaged, optimizers):
    """
    All that a run goes on from, as files {name: bytes}. model.safetensors is what acts: `averaged` {parameter: its
    running mean} and the buffers; train_state.safetensors holds the weights as they are trained, that mean, and the
    state of the optimizers.
    """
    weights = model.state_dict()
    state = {f'model.{name}': v for name, v in weights.items()}
    state |= {f'ema.{name}': v for name, v in averaged.items()}
    state |= optimizer_state(model, optimizers)
    acting = {name: averaged.get(name, v).contiguous().cpu() for name, v in weights.items()}
    return {
        'model.safetensors': safetensors_bytes(acting),
        'train_state.safetensors': safetensors_bytes({k: v.contiguous().cpu().clone() for k, v in state.items()}),
    }


def owners(optimizers):
    """-> {parameter: its optimizer}"""
    return {p: o for o in optimizers for group in o.param_groups for p in group['params']}


def optimizer_state(model, optimizers):
    """
    All state that optimizers keep of a model's parameters, whatever its names, as tensors
    -> {'optimizer.<name>.<parameter>': tensor, 'number.<name>.<parameter>': of one element, what was a Python number}
    """
    owner = owners(optimizers)
    tensors = {}
    for parameter, p in model.named_parameters():
        for name, v in owner[p].state.get(p, {}).items():
            if '.' in name or not isinstance(v, (torch.Tensor, bool, int, float)):
                raise TypeError(f'the state {name!r} of {type(owner[p]).__name__} is not a tensor or a number: {v!r}')
            if isinstance(v, torch.Tensor):
                tensors[f'optimizer.{name}.{parameter}'] = v
            else:
                kind = torch.float64 if isinstance(v, float) else None  # bool and int64 by themselves
                tensors[f'number.{name}.{parameter}'] = torch.tensor(v, dtype=kind)
    return tensors


def load_optimizer_state(model, optimizers, saved):
    """saved: what optimizer_state returns, and it may hold more: the optimizers' state, in the place of their own"""
    parameters, owner = dict(model.named_parameters()), owners(optimizers)
    for p, o in owner.items():
        o.state[p] = {}
    for full_name, v in saved.items():
        kind, _, rest = full_name.partition('.')
        if kind in ('optimizer', 'number'):
            name, _, parameter = rest.partition('.')
            p = parameters[parameter]
            owner[p].state[p][name] = v.item() if kind == 'number' else v.to(p.device)


def check_resumable(folder, info, model, model_args, columns, config, tokenizer):
    """
    Refuse to go on from a checkpoint under other settings than it was trained with, by ValueErrors.

    info: its JSON; model: of this run; model_args: of its GPTConfig; columns: of its observations; config: its settings
    tokenizer: of its data, None without language
    """
    same_observations = info['obs_columns'] == columns
    if not same_observations or info['settings'].get('privileged_obs') != config['privileged_obs']:
        raise ValueError(
            f'{folder} was trained on other observations (obs_names, privileged_obs). Resume with the same'
        )
    if info['step'] > config['max_iters']:
        raise ValueError(f'{folder} is at step {info["step"]} already. Raise --max_iters={config["max_iters"]}')
    optimizer = info['settings'].get('optimizer')
    if optimizer != config['optimizer']:
        raise ValueError(
            f'{folder} was trained with optimizer={optimizer!r}, this run has {config["optimizer"]!r}. '
            'Resume with the same'
        )
    check_model(folder, info, model, model_args, tokenizer, 'Resume with the same settings')


def check_model(folder, info, model, model_args, tokenizer, cure):
    """ValueError where a checkpoint's model is another one than that of model_args, or reads another vocabulary"""
    before = type(model.config)(**info['model'])  # settings that are newer than a checkpoint are at their defaults
    for name, value in model_args.items():
        was = getattr(before, name)
        if was != value and (was or value):  # nothing is () or []
            raise ValueError(f'{folder} has {name}={was!r}, this run {value!r}. {cure}')
    if tokenizer and read_file(folder, 'tokenizer.model', info) != tokenizer.model:
        raise ValueError(
            f'{folder} reads prompts with another vocabulary than that of the data. Train on the data it was trained '
            f'on, or prepare with its vocabulary: prepare.py --tokenizer_of={folder}'
        )


def differences(info, config, data_info):
    """
    what differs between a checkpoint, info: its JSON, and the run that goes on from it -> lines: a note, or nothing.
    config: the run's settings; data_info: its data
    """
    before = info['settings']
    compared = [name for name in config if name in before and name not in NOT_OF_TRAINING]
    changed = [name for name in compared if as_number(before[name]) != as_number(config[name])]
    descriptions = [f'{name}={before[name]!r} before, {config[name]!r} now' for name in changed]
    then, now = info['data'], data_info['data']
    if [a.get('sha256') for a in then['archives']] != [a.get('sha256') for a in now['archives']]:
        descriptions.append('other archives')
    elif any(then.get(name) != now.get(name) for name in ('normaliser', 'env_kwargs', 'words')):
        descriptions.append('the archives are prepared in another way')
    if not descriptions:
        return []
    return [f'note: it goes on, but not to the bit, as what it learns from or how differs: {"; ".join(descriptions)}']


def as_number(value):
    """a setting that may be a number or one by source: '0.05' is 0.05, as which older checkpoints have it"""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def after_nan(out_dir):
    """what is left of a run whose numbers went wrong, and the cure"""
    left = f'The last checkpoint in {out_dir} is intact' if steps_of(out_dir) else 'There is no checkpoint yet'
    return f'{left}. Lower --learning_rate'


def resume(out_dir, model, averaged, optimizers, model_args, columns, config, tokenizer):
    """
    Put back, in place, all that training_files saved to the newest intact checkpoint -> its JSON, whose step, best and
    scores say where the run is. Refuses as check_resumable, whose arguments follow those of training_files.
    """
    folder, info = newest_sound(out_dir)
    check_resumable(folder, info, model, model_args, columns, config, tokenizer)
    saved = read_tensors(folder, 'train_state.safetensors', info)
    weights = {k.removeprefix('model.'): v for k, v in saved.items() if k.startswith('model.')}
    load_weights(model, weights, folder)
    for name, mean in averaged.items():
        mean.copy_(saved[f'ema.{name}'])
    load_optimizer_state(model, optimizers, saved)
    if info['settings'].get('rollouts') != config['rollouts']:  # scores so far are of another kind
        info['best']['rollout'] = -math.inf
        info['scores'] = []
    return info


def begin_from(out_dir, model, averaged, model_args, columns, tokenizer):
    """
    Copy the weights of a trained policy, and its normalisers, into model and averaged. ValueErrors where it is another
    model, or of other observations.
    """
    if not os.path.isdir(out_dir):
        raise FileNotFoundError(f"init_from={out_dir!r} is no folder of a policy. Name one, or 'scratch' or 'resume'")
    folder = find_checkpoint(out_dir)
    info = read_checkpoint(folder)
    if info['obs_columns'] != columns:
        raise ValueError(f'{folder} was trained on other observations (obs_names). Train with the same')
    same = {name: value for name, value in model_args.items() if name not in ('dropout', 'say_len', 'vocab_size')}
    check_model(folder, info, model, same, tokenizer, 'Train with the same settings, or from scratch')
    load_weights(model, with_saying(model, read_tensors(folder, 'model.safetensors', info)), folder)
    for name, mean in averaged.items():
        mean.copy_(model.get_parameter(name))


def with_saying(model, tensors):
    """
    a policy's tensors, and for what it lacks (the part that says what is read, newer tokens, later places of longer
    texts) those that the model begins with
    """
    fresh = model.state_dict()
    return grown({name: tensor for name, tensor in fresh.items() if name.startswith('aux.saying.')} | tensors, fresh)
