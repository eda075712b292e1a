"""
The cards of what is shared: a README.md with front matter that the Hugging Face hub reads, then Markdown. Templates:
cards/*.md: {name} is filled in, a paragraph that starts with {?name} is left out where there is none.
"""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np

from data.contract import has_environment, load
from data.pictures import save_text
from data.prepared import SPLITS

HUB = {'train': 'train', 'val': 'validation', 'test': 'test'}  # what the hub calls the splits
MARK = '<!-- written by nanoPilot, which writes it anew: delete this line to keep it as it is -->'
CARDS = Path(__file__).parent / 'cards'
# settings of prepare.py and of train.py that cards name: no paths
PREPARED = ['size', 'describe', 'texts', 'text_len', 'vocab_size', 'val_share', 'test_share', 'hold_out', 'seed']
TRAINED = [
    'max_iters',
    'optimizer',
    'learning_rate',
    'batch_size',
    'gradient_accumulation_steps',
    'source_weights',
    'data_fraction',
    'drop_text',
    'drop_bd',
    'seed',
]
SIZES = {1e3: 'n<1K', 1e4: '1K<n<10K', 1e5: '10K<n<100K', 1e6: '100K<n<1M', 1e7: '1M<n<10M', float('inf'): 'n>10M'}


def ours(card):
    return card.is_file() and MARK in card.read_text(errors='replace')


def evenly(n, most):
    return np.linspace(0, n - 1, min(n, most)).round().astype(int)


def render(template, head, **values):
    """
    cards/<template>.md with its {placeholders} filled. A paragraph that begins with {?name} is there if `name` is
    true; one that is empty is left out. head: {name: what JSON can hold}, which YAML can, too
    """
    paragraphs = []
    for text in (CARDS / f'{template}.md').read_text(encoding='utf-8').strip().split('\n\n'):
        condition = re.match(r'{\?(\w+)}', text)
        if condition and not values[condition[1]]:
            continue
        paragraphs.append(re.sub(r'^{\?\w+}', '', text).format(**values))
    front = '---\n' + ''.join(f'{k}: {json.dumps(v)}\n' for k, v in head.items()) + '---'
    return '\n\n'.join([front, MARK, *filter(None, paragraphs)]) + '\n'


def table(head, rows):
    rows = (head, ['---'] * len(head), *rows)
    return '\n'.join('| ' + ' | '.join(str(x).replace('|', '\\|') for x in row) + ' |' for row in rows)


def settings_table(head, settings, names):
    return table((head, 'value'), [(k, f'`{settings[k]}`') for k in names if settings[k] != ''])


def spans(names, low, high):
    return ', '.join(f'{name} {a:.4g} to {b:.4g}' for name, a, b in zip(names, low, high))


def moments(head, names, norm):
    rows = [(k, f'{m:.4g}', f'{s:.4g}') for k, m, s in zip(names, norm['mean'], norm['std'])]
    return table((head, 'mean, training split', 'standard deviation'), rows)


def archives_of(spec):
    return ', '.join(f'`{a["file"]}` (SHA-256 `{a["sha256"]}`)' for a in spec['archives'])


def language_tags(language):
    return ['language-conditioned'] * bool(language)


def data_card(splits, written, name, dataset, licence, replay):
    """the README.md of an export; written: the folder that has its files; name: what that will be called"""
    meta, n = splits['train'].meta, sum(map(len, splits.values()))
    simulated = has_environment(dataset, meta['env_kwargs'])
    data, norm, language = meta['dataset'], meta['normaliser'], meta['text_len'] > 0
    files = {s: f'data/{HUB[s]}-*.parquet' for s in SPLITS}
    head = {
        'license': licence,
        'pretty_name': f'nanoPilot {data}',
        'task_categories': ['robotics'],
        **({'language': ['en']} if language else {}),
        'tags': ['nanopilot', 'imitation-learning', *language_tags(language), data],
        'size_categories': [size for most, size in SIZES.items() if n < most][:1],
        'configs': [
            {'config_name': 'default', 'data_files': [{'split': HUB[s], 'path': files[s]} for s in SPLITS]},
        ],
    }
    command = f'python prepare.py --dataset={data} --archive={name}' + ' --describe=keep' * language
    if not hasattr(dataset, 'of_files') and meta['env_kwargs'] != dataset.env_kwargs():
        command += f' --env_kwargs="$(cat {name}/environment.json)"'
    novel = Counter(row['novel'] for row in splits['test'].episodes(['novel']) if row['novel'])
    return render(
        'data',
        head,
        data=data,
        name=name,
        what=first_sentence(dataset.__doc__ or ''),
        n=n,
        of_environment=' of this simulated environment' * simulated,
        in_words=', each put into words' * language,
        and_words=' and with the same words' * language,
        pictures=pictures_of(written, language),
        n_obs=len(meta['obs_names']),
        command=command,
        columns=table(('column', 'type, shape', 'what it is'), column_rows(meta)),
        obs_moments=moments('obs', meta['obs_names'], norm['obs']),
        act_moments=moments('act', meta['act_names'], norm['act']) if meta['continuous'] else '',
        counts=counts_table(meta, written),
        language=language,
        no_language=not language,
        split_rule=meta['split_rule'],
        hold_out=meta['settings']['hold_out'],
        novel=', '.join(f'{k} ({why})' for why, k in sorted(novel.items())),
        ends_differ=meta['bd_names'] and 'discount' not in meta,
        replay=simulated and replay,
        no_replay=simulated and not replay,
        recorded=not simulated,
        prompts='\n'.join(f'- {text}' for text in some_prompts(splits['test'])),
        settings=table(('setting of prepare.py', 'value'), [(k, f'`{meta["settings"][k]}`') for k in PREPARED]),
        archives=archives_of(meta),
    )


def first_sentence(doc):
    return ' '.join(doc.strip().split('\n\n')[0].split()).split('. ')[0].rstrip('.')


def pictures_of(folder, language):
    paragraphs = []
    for picture in sorted(folder.glob('*.png')):
        caption = f'Where the {picture.stem} end.'
        if picture.stem == 'episodes':
            caption = 'Test episodes' + ' and their prompts' * language + '.'
        paragraphs.append(f'![{picture.stem}]({picture.name})\n\n*{caption}*')
    return '\n\n'.join(paragraphs)


def column_rows(meta):
    """(name, type, what it is) of the columns of an export"""
    n_obs, n_act, n_bd = (len(meta[f'{k}_names']) for k in ('obs', 'act', 'bd'))
    bd = path = subgoal = parts = ''
    if meta.get('subgoal'):
        subgoal = 'what it heads for at each step; nan: not known'
    if meta.get('parts'):
        parts = 'prompts of some of its steps: [prompt, first step, the one after the last] (JSON)'
    if n_bd:
        bd = f'at the end, {spans(meta["bd_names"], meta["bd_low"], meta["bd_high"])}'
        path = 'the descriptor, were this the end: at the start, and after each step'
    if meta['continuous']:
        act_type, acts = f'`float32 (T, {n_act})`', spans(meta['act_names'], meta['act_low'], meta['act_high'])
    else:
        act_type, acts = '`int64 (T)`', ', '.join(f'{i}: {act}' for i, act in enumerate(meta['act_names']))
    rows = [
        ('source', '`string`', f'who drove: {", ".join(meta["sources"])}'),
        ('seed', '`int64`', "of the environment's reset; -1: not known"),
        ('asked', '`string`', 'what the episode does, for a program to read (JSON)'),
        ('novel', '`string`', 'why it is for testing only, or empty'),
        ('text', '`list<string>`', 'prompts that ask for what it does'),
        ('loose', '`list<string>`', 'prompts that say less, such as the destination only'),
        ('held_out', '`list<string>`', 'prompts in phrasings that the training split has none of (test only)'),
        ('visits', '`string`', 'what was passed on the way (JSON)'),
        ('parts', '`string`', parts),
        ('hard', '`float32`', 'how difficult, 0 to 1; nan: nobody says'),
        ('bd', f'`float32 ({n_bd})`', f'behaviour descriptor: {bd or "there is none"}'),
        ('obs', f'`float32 (T, {n_obs})`', 'what was seen before each action'),
        ('act', act_type, f'what was done: {acts}'),
        ('path', f'`float32 (T + 1, {n_bd})`', path),
        ('subgoal', f'`float32 (T, {n_bd})`', subgoal),
        ('taught', '`bool (T)`', 'false where the action is not to be imitated, because something disturbed it'),
    ]
    return [row for row in rows if row[2]]


def counts_table(meta, folder):
    counts = meta['counts']
    sources = [name for name in meta['sources'] if any(c.get(name) for c in counts.values())]
    rows = []
    for s in SPLITS:
        numbers = [f'{counts[s].get(k, 0):,}' for k in ('episodes', 'steps', *sources)]
        rows.append((HUB[s], *numbers, len(list(folder.glob(f'data/{HUB[s]}-*')))))
    return table(('split', 'episodes', 'steps', *sources, 'files'), rows)


def some_prompts(split):
    """of 8 episodes each, a prompt, and one in a phrasing that is held out"""
    words = split.episodes(['text', 'held_out'])
    rows = [words[i] for i in evenly(len(words), 8)]
    return [row[k][0] for row in rows for k in ('text', 'held_out') if row[k]]


def model_card(out_dir, info, n_params, n_episodes, prompt, rows):
    """
    the README.md of a training run. info: a checkpoint's JSON; prompt: an example, or None; rows: of log.jsonl, dicts
    """
    name, spec, settings = Path(out_dir).resolve().name, info['data'], info['settings']
    language = info['model']['text_len']
    head = {
        'license': 'mit',
        'library_name': 'nanopilot',
        'pipeline_tag': 'robotics',
        **({'language': ['en']} if language else {}),
        'tags': ['nanopilot', 'imitation-learning', *language_tags(language), info['dataset']],
        'datasets': [info['dataset']],
    }
    rows = [row for row in rows if 'val' in row]
    rolled = [row['rollout'] for row in rows if 'rollout' in row]
    simulated = has_environment(load(info['dataset']), spec['env_kwargs'])
    request, reset = example_request(spec, prompt)
    scored = (Path(out_dir) / 'eval_test.json').is_file()
    return render(
        'model',
        head,
        name=name,
        data=info['dataset'],
        n_params=n_params,
        n_episodes=n_episodes,
        obs=', '.join(spec['obs_names'][i] for i in info['obs_columns']),
        acts=(', ' if spec['continuous'] else ' or ').join(spec['act_names']),
        step=info['step'],
        max_iters=settings['max_iters'],
        val_loss=info['val_loss'],
        best_loss=info['best']['loss'],
        best_rollout=f', and the best rollouts {max(rolled):.3f}' if rolled else '',
        asked=request,
        reset=reset,
        known='words' if prompt else 'goals',
        simulated=simulated,
        recorded=not simulated,
        scored=scored,
        not_scored=not scored,
        validations=validations_table(rows, bool(rolled)),
        settings=settings_table('setting of train.py', settings, TRAINED),
        architecture=settings_table('setting', info['model'], info['model']),
        archives=archives_of(spec),
    )


def example_request(spec, prompt):
    """-> options of sample_policy.py, arguments of Policy.reset: a prompt, the mean bd without one, or nothing"""
    if prompt:
        return f' --prompt {json.dumps(prompt)}', f'[{prompt!r}]'
    if spec['bd_names']:
        bd = [round(x) for x in spec['normaliser']['bd']['mean']]
        return f' --bd={",".join(map(str, bd))}', f'[None], [{bd}]'
    return '', '[None]'


def validations_table(rows, with_rollouts):
    head = ('step', 'loss', *['rollouts'] * with_rollouts)
    lines = []
    for row in rows:
        rollout = [f'{row.get("rollout", float("nan")):.3f}'] * with_rollouts
        lines.append((row['step'], f'{row["val"]:.4f}', *rollout))
    return table(head, lines)


def save_model_card(out_dir, *what):
    """beside the checkpoints, unless a README.md is there that someone else has written"""
    file = Path(out_dir) / 'README.md'
    if not file.exists() or ours(file):
        save_text(file, model_card(out_dir, *what))
