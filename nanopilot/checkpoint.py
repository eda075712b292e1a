"""
Checkpoints: a directory of safetensors, the tokenizer and one JSON, which holds the SHA-256 of the others.

They are all there or not at all: files are written and synced in a directory that nobody reads, the JSON last, and the
directory is then renamed. Nothing in them is executed when they are read, and a file of which one bit has changed is
refused: the JSON holds its own SHA-256, too. train.py writes them.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as safetensors_bytes
from torch.overrides import TorchFunctionMode

from data.prepared import SPEC, is_a, lock, sync

FORMAT = 3
NEEDED = {'model', 'settings', 'dataset', 'data', 'obs_columns', 'step', 'val_loss', 'best', 'scores'}  # of the JSON
RENAMED = {'look': 'n_cross_head'}  # settings of earlier versions, as they are called now ..
RENAMED_TENSORS = {'look.ln_asked.': 'cross_attn.ln_query.', 'look.': 'cross_attn.'}  # .. and parts of models
UNSEALED = b'0' * 64  # where the JSON holds its own SHA-256


class Unsound(ValueError):
    """A checkpoint, or a file of it, cannot be used. `reason` is the message without its cure."""

    def __init__(self, reason, cure):
        super().__init__(f'{reason}. {cure}')
        self.reason = reason


# ------------------------------------------------------------------------------
# reading


def read_checkpoint(folder):
    """a checkpoint's JSON -> dict; Unsound where it is damaged, or of another format"""
    file = Path(folder) / 'checkpoint.json'
    if not file.is_file():
        raise FileNotFoundError(f'no checkpoint in {folder}. Run train.py, or name another')
    try:
        data = file.read_bytes()
        info = json.loads(data)
        sealed = seal(data.replace(info['sha256']['checkpoint.json'].encode(), UNSEALED)) == data
        whole = sealed and info['format'] == FORMAT and is_whole(info)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        sealed = whole = False
    if sealed and info['format'] != FORMAT:
        raise Unsound(f'{file} has format {info["format"]}, this program reads {FORMAT}', 'Train again')
    if not whole:
        raise Unsound(f'{file} is damaged', cure_of_damage(folder))
    for part in ('model', 'settings'):
        info[part] = {RENAMED.get(name, name): value for name, value in info[part].items()}
    return info


def is_whole(info):
    """is all in a checkpoint's JSON that is needed, and of the kind that it should be?"""
    parts = isinstance(info['model'], dict) and isinstance(info['settings'], dict)
    data_is_described = all(is_a(info['data'][k], kind) for k, kind in SPEC.items())
    return set(info) >= NEEDED and parts and data_is_described and info['dataset'].isidentifier()


def read_file(folder, name, info):
    """one of a checkpoint's files, if its bytes are those that were written -> bytes"""
    file = Path(folder) / name
    try:
        data = file.read_bytes()
    except OSError:
        raise Unsound(f'{file} is missing', cure_of_damage(folder)) from None
    if hashlib.sha256(data).hexdigest() != info['sha256'].get(name):
        raise Unsound(f"{file} is damaged: its SHA-256 is not the checkpoint's", cure_of_damage(folder))
    return data


def read_tensors(folder, name, info):
    """-> {name: tensor}, on the CPU"""
    try:
        tensors = load_safetensors(read_file(folder, name, info))
    except SafetensorError as e:
        raise Unsound(f'{Path(folder) / name} is damaged ({e})', cure_of_damage(folder)) from None
    return {renamed(name): tensor for name, tensor in tensors.items()}


def renamed(name):
    """what a tensor is called now"""
    for old, new in RENAMED_TENSORS.items():
        name = name.replace(old, new)
    return name


def load_weights(model, tensors, folder):
    """put tensors {name: tensor} into a model; Unsound where they are not those it has"""
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as e:
        mismatch = str(e).splitlines()[-1].strip()
        raise Unsound(f'{folder}: the weights do not fit the architecture ({mismatch})', 'Train again') from None


class NotFilled(TorchFunctionMode):
    """no first weights for a model that gets others: to draw some on 'meta' imports torch's compiler, for seconds"""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, '__module__', None) == 'torch.nn.init':
            return args[0] if args else kwargs['tensor']
        return function(*args, **(kwargs or {}))


def load_model(GPT, GPTConfig, folder):
    """a checkpoint's directory -> the model it describes, with its weights, and its JSON; or Unsound"""
    info = read_checkpoint(folder)
    tensors = read_tensors(folder, 'model.safetensors', info)
    try:
        if info['model'].get('n_layer', 0) > len(tensors):
            raise ValueError(f'{info["model"]["n_layer"]} layers, but {len(tensors)} tensors')
        with torch.device('meta'), NotFilled():  # takes no memory, whatever the file claims
            shapes = {name: v.to('meta') for name, v in tensors.items()}
            load_weights(GPT(GPTConfig(**info['model'])), shapes, folder)
    except Unsound:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError, AttributeError, ZeroDivisionError) as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[-1]
        raise Unsound(f'{folder} describes a model that cannot be built ({reason})', 'Train again') from None
    with NotFilled():
        model = GPT(GPTConfig(**info['model']))
    load_weights(model, tensors, folder)
    return model, info


def find_checkpoint(out_dir, which='best'):
    """the directory that out_dir's `best` or `latest` names, or the one called so; or out_dir, if it is one"""
    out = Path(out_dir)
    if not out.is_dir():
        raise FileNotFoundError(f'no checkpoint in {out_dir}: no such folder. Run train.py, or name another')
    if (out / 'checkpoint.json').is_file():
        if which not in ('best', 'latest'):
            raise FileNotFoundError(f'{out_dir} is one checkpoint, there is no {which!r} in it. Leave out --checkpoint')
        return out
    if which == 'best' and not (out / which).is_file() and (out / 'latest').is_file():
        which = 'latest'  # stopped before anything was measured
    if (out / which).is_file():
        return out / (out / which).read_text().strip()
    return out / which


def steps_of(out_dir):
    """the directories of checkpoints in out_dir, newest first"""
    return sorted((p for p in Path(out_dir).glob('step_*') if p.name[5:].isdigit()), key=lambda p: -int(p.name[5:]))


def newest_sound(out_dir):
    """
    -> the checkpoint that `latest` names, or the newest before it that is whole, and its JSON. All of it is read. Those
    that are not whole are named on stderr; FileNotFoundError where there is no other.
    """
    folders = steps_of(out_dir)
    latest = find_checkpoint(out_dir, 'latest') if Path(out_dir).is_dir() else None
    if latest in folders:
        folders = folders[folders.index(latest) :]
    reasons = []
    for folder in folders:
        try:
            info = read_checkpoint(folder)
            for name in info['sha256']:
                if name != 'checkpoint.json':
                    read_file(folder, name, info)
        except (OSError, Unsound) as e:
            reasons.append(getattr(e, 'reason', f'{folder / "checkpoint.json"} is missing'))
            continue
        for reason in reasons:
            print(f'warning: {reason}. Going on from {folder.name}', file=sys.stderr)
        return folder, info
    why = f' ({reasons[0]})' if reasons else ''
    raise FileNotFoundError(f'no intact checkpoint is in {out_dir}{why}. Leave out --init_from=resume to train again')


def cure_of_damage(folder):
    """the cure for a damaged checkpoint: another one, if there is one"""
    beside = [p.name for p in steps_of(Path(folder).parent) if p.name != Path(folder).name]
    return f'Beside it there is --checkpoint={beside[0]}' if beside else 'There is no other beside it: train again'


def seal(data):
    """put the SHA-256 of a checkpoint's JSON (bytes) in the place that is kept for it"""
    return data.replace(UNSEALED, hashlib.sha256(data).hexdigest().encode())


# ------------------------------------------------------------------------------
# writing


def put(file, content):
    """write bytes and wait until they are on the disk"""
    with open(file, 'wb') as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def write_checkpoint(out_dir, name, files, info, pointers=()):
    """
    Write files {name: bytes} and info, a dict that becomes the JSON, to out_dir/<name>, then let the pointers, files of
    one line such as 'latest', name it. An OSError says what is in the way; what was there before is then as it was.
    """
    out = Path(out_dir)
    partial, old = out / f'.{name}.partial', out / f'.{name}.old'
    sha256 = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    info = {
        **info,
        'format': FORMAT,
        'sha256': {**sha256, 'checkpoint.json': UNSEALED.decode()},
    }
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file, content in files.items():
            put(partial / file, content)
        sealed = seal(json.dumps(info).encode())
        put(partial / 'checkpoint.json', sealed)  # a directory without it is no checkpoint
        sync(partial)
        if (out / name).exists():  # of this very step, from before a resume
            os.rename(out / name, old)
        os.rename(partial, out / name)
        sync(out)
        for pointer in pointers:
            put(out / f'.{pointer}', f'{name}\n'.encode())
            os.replace(out / f'.{pointer}', out / pointer)
        sync(out)
    except OSError as e:
        if old.exists() and not (out / name).exists():
            os.rename(old, out / name)
        raise OSError(
            f'no checkpoint could be written to {out / name}: {e.strerror or e}. '
            'Free some space there or set --out_dir; earlier ones are intact'
        ) from None
    finally:
        for left in partial, old:
            shutil.rmtree(left, ignore_errors=True)


def export(folder, to, mean_with=''):
    """
    Write what acts of a checkpoint to a folder, which is then a checkpoint that can act and not be resumed: matrices in
    half precision, vectors, such as the normaliser's, in float32. FileExistsError where something is there; OSError as
    of write_checkpoint. mean_with: a run or a folder; what is written is the mean of its weights and these.
    """
    to = Path(to)
    if to.exists():
        raise FileExistsError(f'{to} is there already. Export to another folder, or remove it')
    info = read_checkpoint(folder)
    weights = read_tensors(folder, 'model.safetensors', info)
    if mean_with:
        weights = means(weights, find_checkpoint(mean_with))
    half = {name: w.half() if w.ndim > 1 else w for name, w in weights.items()}
    files = {'model.safetensors': safetensors_bytes(half)}
    if 'tokenizer.model' in info['sha256']:
        files['tokenizer.model'] = read_file(folder, 'tokenizer.model', info)
    write_checkpoint(to.parent, to.name, files, info)


def grown(tensors, others):
    """tensors, with wte and wpe as long as those of others, whose further rows they get: newer tokens, later places"""
    tables = {'wte.weight', 'wpe.weight'} & tensors.keys() & others.keys()
    tables = [name for name in tables if others[name].shape[1] == tensors[name].shape[1]]
    more = {name: others[name][len(tensors[name]) :].to(tensors[name]) for name in tables}
    return tensors | {name: torch.cat([tensors[name], rows]) for name, rows in more.items()}


def means(weights, folder):
    """
    Of weights and a checkpoint's, {name: tensor}: one was fine-tuned from the other, and between them lies what is
    often better at the tasks of both (Wortsman et al., arXiv 2109.01903). ValueError where it is another model.
    """
    others = grown(read_tensors(folder, 'model.safetensors', read_checkpoint(folder)), weights)
    if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in others.items()}:
        raise ValueError(f'{folder} holds another model. Name the policy that this one was fine-tuned from')
    return {name: (w.float() + others[name].float()) / 2 for name, w in weights.items()}


def remove_old(out_dir, keep_last, keep_every):
    """remove all but the newest keep_last checkpoints, those at multiples of keep_every steps, and those in use"""
    named = {find_checkpoint(out_dir, pointer).name for pointer in ('latest', 'best')}
    for folder in steps_of(out_dir)[keep_last:]:
        kept_for_good = keep_every and int(folder.name[5:]) % keep_every == 0
        if folder.name not in named and not kept_for_good:
            shutil.rmtree(folder)


def open_out_dir(out_dir, resumed):
    """
    Make out_dir, and lock it until this process ends, however it does -> the file descriptor of the lock, for os.close.
    Unless a run is resumed, one that is there is moved aside, with a line that says so: nothing of it is lost.
    """
    if not out_dir:
        raise ValueError("out_dir='' is no folder. Name one: --out_dir=out")
    out_dir = os.path.normpath(out_dir)  # out/ is moved to out.1
    os.makedirs(out_dir, exist_ok=True)
    lock_fd = lock(out_dir)
    if not resumed and steps_of(out_dir):
        aside = next(f'{out_dir}.{n}' for n in range(1, 10**6) if not os.path.exists(f'{out_dir}.{n}'))
        os.rename(out_dir, aside)
        os.close(lock_fd)
        os.makedirs(out_dir)
        lock_fd = lock(out_dir)
        print(f'note: {out_dir} held a run, it is now in {aside}; --init_from=resume would have gone on with it')
    return lock_fd


def versions():
    """what of this program and its libraries a checkpoint names"""
    root = Path(__file__).parent
    try:
        result = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=root, capture_output=True, text=True)
        commit = result.stdout.strip()
    except OSError:
        commit = ''
    return {'git_commit': commit, 'versions': {'torch': torch.__version__, 'numpy': np.__version__}}
