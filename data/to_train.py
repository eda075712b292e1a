"""
The command that trains with prepared data: a config file, and what of it these data do not go with.
"""

import ast
import runpy
import shlex
from pathlib import Path

from data.batches import by_source

ROOT = Path(__file__).parent.parent


def to_train(meta, file, data_dir='', policy='', model=None):
    """
    meta: of prepared data; file: the config to begin with, if it is there; data_dir: '' where train.py looks; policy:
    the folder of one to fine-tune, '' to train from scratch; model: the settings of its GPT
    """
    has_config = (ROOT / file).is_file()
    settings = train_settings(ROOT / file if has_config else None)
    changes = {**of_actions(meta, settings), **of_texts(meta, settings), **of_sources(meta, settings)}
    if policy:
        changes |= {name: value for name, value in model.items() if settings.get(name, value) != value}
        if Path(policy).resolve() != Path(settings['init_from']).resolve():
            changes['init_from'] = policy
    if data_dir:
        changes['data_dir'] = data_dir
    config = file if has_config else f'--dataset={meta["dataset"]}'
    return shlex.join(['python', 'train.py', config, *(f'--{name}={value}' for name, value in changes.items())])


def train_settings(file):
    """the constants among the settings of train.py, less what a config file, or None, sets"""
    tree = ast.parse((ROOT / 'train.py').read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)]
    defaults = {node.targets[0].id: node.value.value for node in assigned if isinstance(node.targets[0], ast.Name)}
    return defaults | (runpy.run_path(str(file)) if file else {})


def of_actions(meta, settings):
    """settings that the actions ask for"""
    if not meta['continuous'] and settings['head'] in ('mse', 'kmeans'):
        return {'head': 'ce'}
    return {}


def of_texts(meta, settings):
    """settings that the prompts ask for, or that there are none"""
    changes = {}
    n = settings['text_len']
    if meta['text_len'] and n < meta['longest_text'] or not meta['text_len'] and n:
        changes['text_len'] = meta['text_len']
        if 'block_size' in settings:
            changes['block_size'] = settings['block_size'] + meta['text_len'] - n
    if settings['say_len'] and not meta.get('longest_said'):
        changes |= {'say_len': 0, 'more_texts': 0}
    if settings['n_cross_head'] and not meta['text_len']:
        changes['n_cross_head'] = 0
    return changes


def of_sources(meta, settings):
    """settings that name sources: of those that are not named, an average one"""
    changes = {}
    for name in 'source_weights', 'drop_text', 'drop_bd':
        setting = str(settings[name])
        if '=' not in setting:
            continue
        weights = by_source(setting)
        if weights.keys() == set(meta['sources']):
            continue
        average = round(sum(weights.values()) / len(weights), 3)
        changes[name] = ','.join(f'{source}={weights.get(source, average):g}' for source in meta['sources'])
    return changes
