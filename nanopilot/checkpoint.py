"""
Checkpoints: a directory of safetensors, the tokenizer and one JSON, which holds the other files' sizes and SHA-256, and its own.

They are all there or not at all: files are written and synced in a directory that nobody reads, the JSON last, and the directory is then
renamed. Nothing in them is executed when they are read, and a file of which one bit has changed is refused. train.py writes them.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors, save as safetensors_bytes

from data.prepared import SPEC, is_a, sync

FORMAT = 2
NEEDED = {'model', 'settings', 'dataset', 'data', 'obs_columns', 'step', 'val_loss', 'best', 'scores'}  # of the JSON
UNSEALED = b'0' * 64  # where the JSON holds its own SHA-256


def read_checkpoint(folder):
    """a checkpoint's JSON"""
    file = Path(folder) / 'checkpoint.json'
    if not file.is_file():
        raise FileNotFoundError(f'no checkpoint in {folder}. Train one: python train.py config/toy_nav_cpu.py')
    try:
        data = file.read_bytes()
        info = json.loads(data)
        if seal(data.replace(info['sha256']['checkpoint.json'].encode(), UNSEALED)) != data:
            raise KeyError
        if info['format'] != FORMAT:
            raise ValueError(f'{file} has format {info["format"]}, this program reads {FORMAT}')
        if (
            not set(info) >= NEEDED
            or not all(is_a(info['data'][k], kind) for k, kind in SPEC.items())
            or not info['dataset'].isidentifier()
        ):
            raise KeyError
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError(f'{file} is damaged. {others(folder)}') from None
    return info


def put(file, content):
    """write bytes and wait until they are on the disk"""
    with open(file, 'wb') as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())


def training_files(model, averaged, optimizers):
    """
    All that a run goes on from, as files {name: bytes}. model.safetensors is what acts: `averaged` {name of a parameter: its running mean} and the
    buffers; train_state.safetensors holds the weights as they are trained, that mean, and the optimizers' moments.
    """
    weights = model.state_dict()
    state = {f'model.{k}': v for k, v in weights.items()} | {f'ema.{k}': v for k, v in averaged.items()}
    state |= {
        f'{m}.{k}': v for o in optimizers for k, p in model.named_parameters() for m, v in o.state.get(p, {}).items()
    }
    return {
        'model.safetensors': safetensors_bytes({k: averaged.get(k, v).contiguous().cpu() for k, v in weights.items()}),
        'train_state.safetensors': safetensors_bytes({k: v.contiguous().cpu().clone() for k, v in state.items()}),
    }


def write_checkpoint(out_dir, name, files, info, pointers=()):
    """
    Write files {name: bytes} and info, a dict that becomes the JSON, to out_dir/<name>, then let the pointers ('latest', 'best'), files of one
    line, name it. An OSError says what is in the way; what was there before is then as it was.
    """
    out = Path(out_dir)
    partial, old = out / f'.{name}.partial', out / f'.{name}.old'
    info = {
        **info,
        'format': FORMAT,
        'bytes': {k: len(v) for k, v in files.items()},
        'sha256': {
            **{k: hashlib.sha256(v).hexdigest() for k, v in files.items()},
            'checkpoint.json': UNSEALED.decode(),
        },
    }
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file, content in files.items():
            put(partial / file, content)
        put(
            partial / 'checkpoint.json', seal(json.dumps(info, indent=1).encode())
        )  # a directory without it is no checkpoint
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
            f'no checkpoint could be written to {out / name}: {e.strerror or e}. Free some space there or set --out_dir; earlier ones are sound'
        ) from None
    finally:
        for left in partial, old:
            shutil.rmtree(left, ignore_errors=True)


def find_checkpoint(out_dir, which='best'):
    """the directory that out_dir's `best` or `latest` names, or one of its directories; or out_dir, if it is a checkpoint"""
    out = Path(out_dir)
    if not out.is_dir():
        raise FileNotFoundError(
            f'no checkpoint in {out_dir}. Train one: python train.py config/toy_nav_cpu.py, or set --out_dir'
        )
    if (out / 'checkpoint.json').is_file():
        return out
    if which == 'best' and not (out / which).is_file() and (out / 'latest').is_file():
        which = 'latest'  # stopped before anything was measured
    return out / (out / which).read_text().strip() if (out / which).is_file() else out / which


def steps_of(out_dir):
    """the directories of checkpoints in out_dir, newest first"""
    return sorted((p for p in Path(out_dir).glob('step_*') if p.name[5:].isdigit()), key=lambda p: -int(p.name[5:]))


def newest_sound(out_dir):
    """
    -> the checkpoint that `latest` names, or the newest before it that is whole, and its JSON; those that are not are named on stderr. Every byte
    of it is looked at
    """
    latest, every = find_checkpoint(out_dir, 'latest') if Path(out_dir).is_dir() else None, steps_of(out_dir)
    for folder in every[every.index(latest) if latest in every else 0 :]:
        try:
            info = read_checkpoint(folder)
            for name in info['sha256']:
                if name != 'checkpoint.json':
                    read_file(folder, name, info)
            return folder, info
        except (OSError, ValueError) as e:
            print(f'warning: {e}. Going on from the one before', file=sys.stderr)
    raise FileNotFoundError(
        f'nothing to resume in {out_dir}: no sound checkpoint is there. Leave out --init_from=resume'
    )


def others(folder):
    """what to take in place of a checkpoint that is damaged"""
    beside = [p.name for p in steps_of(Path(folder).parent) if p.name != Path(folder).name]
    return f'Beside it there is --checkpoint={beside[0]}' if beside else 'There is no other beside it: train again'


def seal(data):
    """put the SHA-256 of a checkpoint's JSON (bytes) in the place that is kept for it"""
    return data.replace(UNSEALED, hashlib.sha256(data).hexdigest().encode())


def read_file(folder, name, info):
    """one of a checkpoint's files, if its bytes are those that were written"""
    file = Path(folder) / name
    try:
        data = file.read_bytes()
    except OSError:
        raise FileNotFoundError(f'{file} is missing. {others(folder)}') from None
    if hashlib.sha256(data).hexdigest() != info['sha256'].get(name):
        raise ValueError(f"{file} is damaged: its SHA-256 is not the checkpoint's. {others(folder)}")
    return data


def read_tensors(folder, name, info):
    try:
        return load_safetensors(read_file(folder, name, info))
    except SafetensorError as e:
        raise ValueError(f'{Path(folder) / name} is damaged ({e}). {others(folder)}') from None


def load_weights(model, tensors, where):
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as e:
        raise ValueError(
            f'{where}: the weights do not fit the architecture ({str(e).splitlines()[-1].strip()})'
        ) from None
