"""
Share what was made: prepared data as a folder for the Hugging Face hub, and the card beside a policy. Files only: nothing here goes online.

$ python prepare.py --export=hub/toy_nav                     # Parquet, README.md, pictures: datasets.load_dataset('hub/toy_nav')
$ python prepare.py --archive=hub/toy_nav --describe=keep    # and back: the same arrays in the same splits
$ hf upload you/toy-nav hub/toy_nav --repo-type=dataset
"""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data import archive
from data.pictures import save
from data.prepared import SPLITS, Prepared, begin, finish

ROWS = 1024  # episodes in memory at a time, and in a row group
SHARD = 200e6  # bytes: a file that has reached them is the last but for another
HUB = {'train': 'train', 'val': 'validation', 'test': 'test'}  # what the hub calls the splits
MARK = '<!-- written by nanoPilot, which writes it anew: delete this line to keep it as it is -->'
SETTINGS = (
    'size',
    'describe',
    'texts',
    'text_len',
    'vocab_size',
    'val_share',
    'test_share',
    'hold_out',
    'seed',
)  # of prepare.py that cards name: no paths
TRAINED = (
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
)  # .. and of train.py
SIZES = (
    (1e3, 'n<1K'),
    (1e4, '1K<n<10K'),
    (1e5, '10K<n<100K'),
    (1e6, '100K<n<1M'),
    (1e7, '1M<n<10M'),
    (float('inf'), 'n>10M'),
)
TEXT = pa.list_(pa.string())
WORDS = {
    'source': pa.string(),
    'seed': pa.int64(),
    'asked': pa.string(),
    'novel': pa.string(),
    'text': TEXT,
    'loose': TEXT,
    'held_out': TEXT,
    'visits': pa.string(),
}


# ------------------------------------------------------------------------------
# a data set


def check(to, licence):
    """refuse what cannot be exported to: a folder that holds anything else"""
    to = Path(to)
    if not re.fullmatch(r'[a-z0-9][a-z0-9.-]*', licence):
        raise ValueError(f'licence={licence!r} is not as the hub calls them: mit, apache-2.0, cc-by-4.0')
    if to.exists() and not to.is_dir():
        raise ValueError(f'export={to} is a file. Name a folder that is not there yet')
    found = [p.relative_to(to) for p in to.rglob('*') if p.is_file()] if to.is_dir() else []
    foreign = [
        p
        for p in found
        if p.suffix != '.png' and str(p) not in ('README.md', 'environment.json') and not p.match('data/*.parquet')
    ]
    if found and (foreign or not ours(to / 'README.md')):
        raise ValueError(
            f'export={to} is there, and {foreign[0] if foreign else "its README.md"} is not of an export. Name a folder that is not there yet'
        )


def ours(card):
    return card.is_file() and MARK in card.read_text(errors='replace')


def export(folder, to, world, about, licence):
    """
    Write prepared data to a folder, all of it or nothing; an OSError says what is in the way.

    world: the data set's module; about: what archives of it say of themselves
    """
    to, splits = Path(to), {s: Prepared(folder, s) for s in SPLITS}
    check(to, licence)
    meta, partial = splits['train'].meta, to.with_name(f'{to.name}.partial')
    replay = all(a.get('replay', True) for a in meta['archives'])
    held = begin(partial)
    try:
        (partial / 'data').mkdir()
        for s, split in splits.items():
            said = {'version': archive.VERSION, **about, 'split': s, **({} if replay else {'replay': False})}
            write_split(
                partial / 'data',
                HUB[s],
                tables(split, world),
                columns(meta).with_metadata({'nanopilot': json.dumps(said)}),
            )
        for file in Path(folder).glob('*.png'):
            shutil.copyfile(file, partial / file.name)
        draw(partial / 'episodes.png', splits['test'], world)
        (partial / 'environment.json').write_text(json.dumps(meta['env_kwargs']))
        (partial / 'README.md').write_text(
            data_card(splits, partial, to.resolve().name, world, licence, replay), encoding='utf-8'
        )
        finish(partial, to)
    except OSError as e:
        raise OSError(
            f'nothing could be exported to {to}: {e.strerror or e}. Free some space there, or set another --export'
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(held)
    written = sum(f.stat().st_size for f in to.rglob('*') if f.is_file())
    print(
        f'exported {sum(map(len, splits.values()))} episodes to {to} ({written / 1e6:.0f} MB). Next: hf upload you/{to.resolve().name} {to} --repo-type=dataset'
    )


def columns(meta):
    vectors = pa.list_(pa.list_(pa.float32()))
    path = {'path': vectors} if meta['bd_names'] else {}  # archives leave out what has no width
    return pa.schema(
        {
            **WORDS,
            'hard': pa.float32(),
            'bd': pa.list_(pa.float32()),
            'obs': vectors,
            'act': vectors if meta['continuous'] else pa.list_(pa.int64()),
            **path,
            'taught': pa.list_(pa.bool_()),
        }
    )


def nested(rows, start):
    """rows (steps,) or (steps, width) of episodes that begin at start (n + 1) -> an Arrow array of n lists, or lists of lists"""
    flat = pa.array(np.ravel(rows))
    if rows.ndim == 2:
        flat = pa.ListArray.from_arrays(pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]), flat)
    return pa.ListArray.from_arrays(pa.array(start, pa.int32()), flat)


def tables(split, world):
    """a split's episodes, ROWS at a time, as Arrow tables"""
    schema, first = columns(split.meta), 0
    bar = tqdm(total=len(split), desc=f'export {split.split}', unit='ep', mininterval=1, disable=None)
    with pq.ParquetFile(split.folder / split.split / 'episodes.parquet', pre_buffer=False) as file:
        for words in file.iter_batches(ROWS, columns=list(WORDS)):
            here = slice(first, first + len(words))
            start, bd = split.start[first : here.stop + 1], split.bd[here]
            steps = slice(start[0], start[-1])
            arrays = {name: words[name] for name in WORDS}
            arrays |= {
                name: nested(np.array(getattr(split, name)[steps]), start - start[0])
                for name in ('obs', 'act', 'taught')
            }
            arrays |= {
                'hard': pa.array(split.hard[here]),
                'bd': nested(np.ravel(bd), np.arange(len(bd) + 1) * bd.shape[1]),
            }
            if 'path' in schema.names:
                whole = np.insert(
                    split.path[steps],
                    start[:-1] - start[0],
                    starts(split, here, words['seed'].to_numpy(), world),
                    axis=0,
                )
                arrays['path'] = nested(whole, start - start[0] + np.arange(len(start)))
            yield pa.table([arrays[name] for name in schema.names], schema=schema)
            first = here.stop
            bar.update(len(words))
    bar.close()


def starts(split, here, seeds, world):
    """where episodes began, (n, n_bd), which prepared data leaves out: the environment says, of its seeds; of trajectories without, the data set"""
    kwargs, began = split.meta['env_kwargs'], np.zeros_like(split.bd[here])
    known = seeds >= 0
    if known.any():
        began[known] = world.make_vec(int(known.sum()), **kwargs).reset(seed=seeds[known].tolist())[1]['bd']
    for k in np.flatnonzero(~known):
        began[k] = world.from_trajectory(episode(split, here.start + k), kwargs)['path'][0]
    return began


def episode(split, i):
    here = slice(split.start[i], split.start[i + 1])
    return {name: np.array(getattr(split, name)[here]) for name in ('obs', 'act', 'path')}


def write_split(folder, name, tables, schema):
    """Arrow tables -> name-00000-of-00002.parquet, ..: Parquet files of about SHARD bytes"""
    files = []
    for table in tables:
        files.append(folder / f'{name}-{len(files):05d}.parquet')
        with pq.ParquetWriter(files[-1], schema, compression='zstd', write_page_checksum=True) as writer:
            while table is not None:
                writer.write_table(table)
                table = next(tables, None) if files[-1].stat().st_size < SHARD else None
    for file in files:
        file.rename(folder / f'{file.stem}-of-{len(files):05d}.parquet')


def draw(file, split, world, n=12):
    """a sheet of test episodes as sample_policy.py draws a policy's, where the data set can"""
    if not (hasattr(world, 'judge') and hasattr(world, 'draw_episodes')):
        return
    kwargs, rows, shown = split.meta['env_kwargs'], split.episodes(['text', 'seed']), []
    for i in evenly(len(split), n):
        e, prompt = episode(split, i), (rows[i]['text'] or [None])[0]
        e['path'] = np.concatenate([starts(split, slice(i, i + 1), np.array([rows[i]['seed']]), world), e['path']])
        bd = None if prompt else split.bd[i].tolist() or None
        shown.append(
            {**e, 'seed': rows[i]['seed'], 'prompt': prompt, 'bd': bd, **world.report(prompt, bd, e['path'], kwargs)}
        )
    world.draw_episodes(file, shown, kwargs)


def evenly(n, some):
    return np.linspace(0, n - 1, min(n, some)).round().astype(int)


# ------------------------------------------------------------------------------
# cards: front matter that the hub reads, then Markdown


def card(head, *parts):
    """head: {name: what JSON can hold}, which YAML can, too; parts: paragraphs"""
    return (
        '\n\n'.join(
            [
                '---\n' + ''.join(f'{k}: {json.dumps(v)}\n' for k, v in head.items()) + '---',
                MARK,
                *(p for p in parts if p),
            ]
        )
        + '\n'
    )


def table(head, rows):
    return '\n'.join(
        '| ' + ' | '.join(str(x).replace('|', '\\|') for x in row) + ' |' for row in (head, ['---'] * len(head), *rows)
    )


def spans(names, low, high):
    return ', '.join(f'{name} {a:.4g} to {b:.4g}' for name, a, b in zip(names, low, high))


def moments(head, names, norm):
    return table(
        (head, 'mean, training split', 'standard deviation'),
        [(k, f'{m:.4g}', f'{s:.4g}') for k, m, s in zip(names, norm['mean'], norm['std'])],
    )


def listed(sentences):
    return '\n'.join(f'- {s}' for s in sentences)


def data_card(splits, written, name, world, licence, replay):
    """the README.md of an export; written: the folder that has its files; name: what that will be called"""
    meta, data = splits['train'].meta, splits['train'].meta['dataset']
    norm, language, n = meta['normaliser'], meta['text_len'] > 0, sum(map(len, splits.values()))
    what = ' '.join((world.__doc__ or '').strip().split('\n\n')[0].split()).split('. ')[0].rstrip('.')
    head = {
        'license': licence,
        'pretty_name': f'nanoPilot {data}',
        'task_categories': ['robotics'],
        **({'language': ['en']} if language else {}),
        'tags': ['nanopilot', 'imitation-learning', *(['language-conditioned'] if language else []), data],
        'size_categories': [next(said for most, said in SIZES if n < most)],
        'configs': [
            {
                'config_name': 'default',
                'data_files': [{'split': HUB[s], 'path': f'data/{HUB[s]}-*.parquet'} for s in SPLITS],
            }
        ],
    }
    ends = spans(meta['bd_names'], meta['bd_low'], meta['bd_high'])
    acts = (
        f'`float32 (T, {len(meta["act_names"])})` | what was done: {spans(meta["act_names"], meta["act_low"], meta["act_high"])}'
        if meta['continuous']
        else '`int64 (T)` | what was done: ' + ', '.join(f'{i}: {a}' for i, a in enumerate(meta['act_names']))
    )
    schema = [
        ('source', '`string`', f'who drove: {", ".join(meta["sources"])}'),
        ('seed', '`int64`', "of the environment's reset; -1: not known"),
        ('asked', '`string`', 'what the episode does, for a program to read (JSON)'),
        ('novel', '`string`', 'why it is for testing only, or empty'),
        ('text', '`list<string>`', 'prompts that ask for what it does'),
        ('loose', '`list<string>`', 'prompts that say less, such as the destination only'),
        ('held_out', '`list<string>`', 'prompts in phrasings that the training split has none of (test only)'),
        ('visits', '`string`', 'what was passed on the way (JSON)'),
        ('hard', '`float32`', 'how difficult, 0 to 1; nan: nobody says'),
        (
            'bd',
            f'`float32 ({len(meta["bd_names"])})`',
            'behaviour descriptor: ' + (f'at the end, {ends}' if ends else 'there is none'),
        ),
        ('obs', f'`float32 (T, {len(meta["obs_names"])})`', 'what was seen before each action'),
        ('act', *acts.split(' | ')),
        *(
            [
                (
                    'path',
                    f'`float32 (T + 1, {len(meta["bd_names"])})`',
                    'the descriptor, were this the end: at the start, and after each step',
                )
            ]
            if meta['bd_names']
            else []
        ),
        ('taught', '`bool (T)`', 'false where the action is not to be imitated, because something disturbed it'),
    ]
    sources = [s for s in meta['sources'] if any(c.get(s) for c in meta['counts'].values())]
    counts = [
        (
            HUB[s],
            *(f'{meta["counts"][s].get(k, 0):,}' for k in ('episodes', 'steps', *sources)),
            len(list(written.glob(f'data/{HUB[s]}-*'))),
        )
        for s in SPLITS
    ]
    novel = {}
    for row in splits['test'].episodes(['novel']):
        novel[row['novel']] = novel.get(row['novel'], 0) + bool(row['novel'])
    novel = ', '.join(f'{k} ({why})' for why, k in sorted(novel.items()) if why)
    shown = splits['test'].episodes(['text', 'held_out'])
    prompts = [
        row[k][0]
        for row in (shown[i] for i in evenly(len(shown), 8))
        for k in ('text', 'held_out')[: 1 + (len(row['held_out']) > 0)]
        if row[k]
    ]
    own = meta['env_kwargs'] != world.env_kwargs()
    command = (
        f'python prepare.py --dataset={data} --archive={name}'
        + ' --describe=keep' * language
        + f' --env_kwargs="$(cat {name}/environment.json)"' * own
    )
    pictures = [
        f'![{p.stem}]({p.name})\n\n*{told}*'
        for p in sorted(written.glob('*.png'))
        for told in [
            'Test episodes' + (' and their prompts.' if language else '.')
            if p.stem == 'episodes'
            else f'Where the {p.stem} end.'
        ]
    ]
    return card(
        head,
        f'# {data}',
        f'{what}. {n:,} whole episodes of this simulated environment,'
        + ' each put into words,' * language
        + ' for policies that learn by imitation. '
        'Made by nanoPilot, a small nanoGPT fork that is steered by words.',
        *pictures,
        '## Load it',
        f"```python\nimport numpy as np\nfrom datasets import load_dataset\n\nepisodes = load_dataset('{name}', split='train') # this folder, or its name on the hub\n"
        f"obs = np.array(episodes[0]['obs'], np.float32) # (T, {len(meta['obs_names'])})\n```",
        'Train on it with nanoPilot, in the same splits' + (' and with the same words' * language) + ':',
        f'    {command}\n    python train.py config/{data}.py',
        "The files are nanoPilot archives: their schema's metadata have the environment, which is in `environment.json`, too.",
        '## Columns',
        "One row an episode of T steps. Numbers are in the environment's own units.",
        table(('column', 'type, shape', 'what it is'), schema),
        moments('obs', meta['obs_names'], norm['obs']),
        moments('act', meta['act_names'], norm['act']) if meta['continuous'] else '',
        '## Splits',
        table(('split', 'episodes', 'steps', *sources, 'files'), counts),
        f'Split {meta["split_rule"]} (`hold_out={meta["settings"]["hold_out"]}`).'
        if language
        else 'Each episode is in one split, by a hash of its number.',
        f'Of the test episodes, {novel} are for testing only.' if novel else '',
        'No two of different splits end exactly alike.' if meta['bd_names'] and 'discount' not in meta else '',
        '## Verified',
        'Every episode was replayed in the environment from its seed and gave the same observations and the same end, bit for bit; those that did not, and doubles, '
        'were left out.'
        if replay
        else 'Episodes of some sources could not be replayed in the environment: they are as they were recorded.',
        '## Prompts' if prompts else '',
        'Of the test split, some in phrasings that are held out:' if prompts else '',
        listed(prompts),
        '## How it was made',
        table(('setting of prepare.py', 'value'), [(k, f'`{meta["settings"][k]}`') for k in SETTINGS]),
        'From the archives ' + ', '.join(f'`{a["file"]}` (SHA-256 `{a["sha256"]}`)' for a in meta['archives']) + '.',
    )


def model_card(out_dir, info, n_params, n_episodes, prompt, rows):
    """the README.md of a training run. info: a checkpoint's JSON; prompt: an example, or None; rows: of log.jsonl, dicts"""
    name, data, about = Path(out_dir).resolve().name, info['dataset'], info['data']
    validations = [r for r in rows if 'val' in r]
    rolled = any('rollout' in r for r in validations)
    bd = None if prompt or not about['bd_names'] else [round(x) for x in about['normaliser']['bd']['mean']]
    asked = f' --prompt {json.dumps(prompt)}' if prompt else f' --bd={",".join(map(str, bd))}' if bd else ''
    head = {
        'license': 'mit',
        'library_name': 'nanopilot',
        'pipeline_tag': 'robotics',
        **({'language': ['en']} if info['model']['text_len'] else {}),
        'tags': [
            'nanopilot',
            'imitation-learning',
            *(['language-conditioned'] if info['model']['text_len'] else []),
            data,
        ],
        'datasets': [data],
    }
    return card(
        head,
        f'# {name}',
        f'A policy for {data}, a simulated environment: a GPT of {n_params:,} parameters, trained by imitation with nanoPilot. It sees '
        + ', '.join(about['obs_names'][i] for i in info['obs_columns'])
        + f', and does {" or ".join(about["act_names"]) if not about["continuous"] else ", ".join(about["act_names"])}.',
        f'Step {info["step"]:,} of {info["settings"]["max_iters"]:,}, validation loss {info["val_loss"]:.4f}; the lowest so far {info["best"]["loss"]:.4f}'
        + (f', and the best rollouts {info["best"]["rollout"]:.3f}' if rolled else '')
        + '.',
        '![loss](loss.png)',
        '## Use it',
        f"In nanoPilot's folder, with this one in it as `{name}`:",
        f'    python sample_policy.py --out_dir={name}{asked}',
        f"```python\nfrom data.{data} import make_vec\nfrom nanopilot import Policy\n\npolicy = Policy.load('{name}')\nenv = make_vec(1, **policy.data_spec['env_kwargs'])\nobs, _ = env.reset(seed=0)\n"
        f'policy.reset([{prompt!r}]{f", [{bd}]" if bd else ""})\nobs, *_ = env.step(policy.act(obs)) # and so on, until the episode is over\n```',
        '## Intended use and limits',
        f'For study, in this simulated environment: it has driven no real robot, and knows no safety. It knows what its data show, and no {"words" if prompt else "goals"} beyond. '
        + (
            'What it does of what it is asked is in `eval_test.json`, by `sample_policy.py --eval=test`.'
            if (Path(out_dir) / 'eval_test.json').is_file()
            else f'It has not been scored on the test split yet: `python sample_policy.py --out_dir={name} --eval=test`.'
        ),
        '## Validation',
        table(
            ('step', 'loss', *(['rollouts'] if rolled else [])),
            [
                (r['step'], f'{r["val"]:.4f}', *([f'{r.get("rollout", float("nan")):.3f}'] if rolled else []))
                for r in validations
            ],
        ),
        '## Trained on',
        f'{n_episodes:,} episodes of {data}, from the archives '
        + ', '.join(f'`{a["file"]}` (SHA-256 `{a["sha256"]}`)' for a in about['archives'])
        + '.',
        table(
            ('setting of train.py', 'value'),
            [(k, f'`{info["settings"][k]}`') for k in TRAINED if info['settings'][k] != ''],
        ),
        '## Architecture',
        table(('setting', 'value'), [(k, f'`{v}`') for k, v in info['model'].items()]),
    )


def save_model_card(out_dir, *what):
    """beside the checkpoints, unless a README.md is there that someone else has written"""
    file = Path(out_dir) / 'README.md'
    if not file.exists() or ours(file):
        save(file, lambda f: Path(f).write_text(model_card(out_dir, *what), encoding='utf-8'))
