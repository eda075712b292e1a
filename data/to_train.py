"""
The command that trains with prepared data, with what its config file does not fit.
"""

import ast
import runpy
import shlex
from pathlib import Path

from data.batches import per_source

ROOT = Path(__file__).parent.parent
FOR_ANY = {'source_weights': '', 'drop_bd': 0.5}  # settings that name sources: what fits any


def to_train(meta, file, data_dir=''):
    """meta: of prepared data; file: the config to begin with, if it is there; data_dir: '' where train.py looks"""
    found = (ROOT / file).is_file()
    settings = train_settings(ROOT / file if found else None)
    parts = ['train.py', file if found else f'--dataset={meta["dataset"]}']
    if bool(meta['text_len']) != bool(settings['text_len']):
        parts.append(f'--text_len={meta["text_len"]}')
        if meta['text_len']:
            parts.append(f'--block_size={settings["block_size"] + meta["text_len"]}')
    for name, value in FOR_ANY.items():
        if settings[name] != '' and not fits(str(settings[name]), meta['sources'], name):
            parts.append(f'--{name}={value}')
    if data_dir:
        parts.append(f'--data_dir={data_dir}')
    return shlex.join(['python', *parts])


def train_settings(file):
    """the constants among the settings of train.py, less what a config file, or None, sets"""
    tree = ast.parse((ROOT / 'train.py').read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    defaults = {node.targets[0].id: node.value.value for node in assigned if isinstance(node.targets[0], ast.Name)}
    return defaults | (runpy.run_path(str(file)) if file else {})


def fits(setting, sources, name):
    """does a setting name these sources, or none?"""
    try:
        per_source(setting, sources, name)
    except ValueError:
        return False
    return True
