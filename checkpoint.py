"""
Checkpoints: a directory of safetensors, the tokenizer and one JSON, which holds the other files' SHA-256 and its own.

Nothing in them is executed when they are read, and a file of which one bit has changed is refused. train.py writes them.
"""
import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

FORMAT = 2
UNSEALED = b'0' * 64 # where the JSON holds its own SHA-256


def read_checkpoint(folder):
    """ a checkpoint's JSON """
    file = Path(folder) / 'checkpoint.json'
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}. Train one: python train.py config/toy_nav_cpu.py")
    try:
        data = file.read_bytes()
        info = json.loads(data)
        if info['format'] != FORMAT:
            raise ValueError(f"{file} has format {info['format']}, this program reads {FORMAT}")
        if seal(data.replace(info['sha256']['checkpoint.json'].encode(), UNSEALED)) != data:
            raise KeyError
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged. Take an earlier checkpoint beside it, or train again") from None
    return info


def seal(data):
    """ put the SHA-256 of a checkpoint's JSON (bytes) in the place that is kept for it """
    return data.replace(UNSEALED, hashlib.sha256(data).hexdigest().encode())


def read_file(folder, name, info):
    """ one of a checkpoint's files, if its bytes are those that were written """
    file = Path(folder) / name
    try:
        data = file.read_bytes()
    except OSError:
        raise FileNotFoundError(f"{file} is missing. Take an earlier checkpoint beside it, or train again") from None
    if hashlib.sha256(data).hexdigest() != info['sha256'].get(name):
        raise ValueError(f"{file} is damaged: its SHA-256 is not the checkpoint's. Take an earlier one beside it, or train again")
    return data


def read_tensors(folder, name, info):
    try:
        return load_safetensors(read_file(folder, name, info))
    except SafetensorError as e:
        raise ValueError(f"{Path(folder) / name} is damaged ({e}). Take an earlier one beside it, or train again") from None


def load_weights(model, tensors, where):
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as e:
        raise ValueError(f"{where}: the weights do not fit the architecture ({str(e).splitlines()[-1].strip()})") from None
