"""
Share what was made: prepared data as a folder for the Hugging Face hub, and the card beside a policy. Files only:
nothing here goes online. The cards are cards/*.md.

$ python prepare.py --export=hub/toy_nav                     # Parquet, README.md, pictures
$ python prepare.py --archive=hub/toy_nav --describe=keep    # and back: the same arrays in the same splits
$ hf upload you/toy-nav hub/toy_nav --repo-type=dataset      # others: datasets.load_dataset('you/toy-nav')
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data import archive
from data.contract import environments, has_environment
from data.exporters.episodes import NEW_FOLDER, check_licence, megabytes, whole_folder
from data.prepared import SPLITS, Prepared
from nanopilot.card import HUB, data_card, evenly, ours

ROWS = 1024  # episodes in memory at a time, and in a row group
SHARD = 200e6  # bytes: a file that has reached them is the last but for another
TEXTS = pa.list_(pa.string())
WORDS = {
    'source': pa.string(),
    'seed': pa.int64(),
    'asked': pa.string(),
    'novel': pa.string(),
    'text': TEXTS,
    'loose': TEXTS,
    'held_out': TEXTS,
    'visits': pa.string(),
}


# ------------------------------------------------------------------------------
# a data set


def check(to, licence):
    """refuse what cannot be exported to: a folder that holds anything else"""
    to = Path(to)
    check_licence(licence)
    if to.exists() and not to.is_dir():
        raise ValueError(f'export={to} is a file. {NEW_FOLDER}')
    files = [p.relative_to(to) for p in to.rglob('*') if p.is_file()] if to.is_dir() else []
    foreign = [p for p in files if not is_exported(p)]
    if files and not ours(to / 'README.md'):
        foreign.append('its README.md')
    if foreign:
        raise ValueError(f'export={to} is there, and {foreign[0]} is not of an export. {NEW_FOLDER}')


def is_exported(file):
    return file.suffix == '.png' or str(file) in ('README.md', 'environment.json') or file.match('data/*.parquet')


def export(folder, to, dataset, about, licence):
    """
    Write prepared data to a folder, all of it or nothing; an OSError says what is in the way.

    dataset: its module; about: what archives of it say of themselves
    """
    to = Path(to)
    check(to, licence)
    splits = {s: Prepared(folder, s) for s in SPLITS}
    with whole_folder(to) as partial:
        write_export(partial, folder, splits, to.resolve().name, dataset, about, licence)
    upload = f'hf upload you/{to.resolve().name} {to} --repo-type=dataset'
    print(f'exported {sum(map(len, splits.values()))} episodes to {to} ({megabytes(to):.0f} MB). Next: {upload}')


def write_export(partial, folder, splits, name, dataset, about, licence):
    meta = splits['train'].meta
    replay = all(a.get('replay', True) for a in meta['archives'])
    (partial / 'data').mkdir()
    for s, split in splits.items():
        file_meta = {'version': archive.VERSION, **about, 'split': s}
        if not replay:
            file_meta['replay'] = False
        schema = columns(meta).with_metadata({'nanopilot': json.dumps(file_meta)})
        write_split(partial / 'data', HUB[s], tables(split, dataset), schema)
    for file in Path(folder).glob('*.png'):
        shutil.copyfile(file, partial / file.name)
    draw(partial / 'episodes.png', splits['test'], dataset)
    (partial / 'environment.json').write_text(json.dumps(meta['env_kwargs']))
    card = data_card(splits, partial, name, dataset, licence, replay)
    (partial / 'README.md').write_text(card, encoding='utf-8')


def text_columns(meta):
    """columns of episodes.parquet that are exported, {name: type}"""
    return {**WORDS, 'parts': pa.string()} if meta.get('parts') else WORDS


def columns(meta):
    vectors = pa.list_(pa.list_(pa.float32()))
    path = {'path': vectors} if meta['bd_names'] else {}  # archives leave out what has no width
    if meta.get('subgoal'):
        path['subgoal'] = vectors
    return pa.schema(
        {
            **text_columns(meta),
            'hard': pa.float32(),
            'bd': pa.list_(pa.float32()),
            'obs': vectors,
            'act': vectors if meta['continuous'] else pa.list_(pa.int64()),
            **path,
            'taught': pa.list_(pa.bool_()),
        }
    )


def nested(rows, start):
    """
    rows (steps,) or (steps, width) of episodes that begin at start (n + 1) -> an Arrow array of n lists, or lists
    of lists
    """
    flat = pa.array(np.ravel(rows))
    if rows.ndim == 2:
        flat = pa.ListArray.from_arrays(pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]), flat)
    return pa.ListArray.from_arrays(pa.array(start, pa.int32()), flat)


def tables(split, dataset):
    """a split's episodes, ROWS at a time, as Arrow tables"""
    schema, first = columns(split.meta), 0
    bar = tqdm(total=len(split), desc=f'export {split.split}', unit='ep', mininterval=1, disable=None)
    with pq.ParquetFile(split.folder / split.split / 'episodes.parquet', pre_buffer=False) as file:
        for rows in file.iter_batches(ROWS, columns=list(text_columns(split.meta))):
            arrays = dict(zip(rows.schema.names, rows.columns))
            arrays |= array_columns(split, slice(first, first + len(rows)), rows['seed'].to_numpy(), dataset)
            yield pa.table([arrays[name] for name in schema.names], schema=schema)
            first += len(rows)
            bar.update(len(rows))
    bar.close()


def array_columns(split, rows, seeds, dataset):
    """the arrays of some episodes as columns"""
    start, bd = split.start[rows.start : rows.stop + 1], split.bd[rows]
    steps, start = slice(start[0], start[-1]), start - start[0]
    names = ('obs', 'act', 'taught') + ('subgoal',) * (split.subgoal is not None)
    arrays = {name: nested(np.array(getattr(split, name)[steps]), start) for name in names}
    arrays['hard'] = pa.array(split.hard[rows])
    arrays['bd'] = nested(np.ravel(bd), np.arange(len(bd) + 1) * bd.shape[1])
    if split.meta['bd_names']:
        path = np.insert(split.path[steps], start[:-1], first_bd(split, rows, seeds, dataset), axis=0)
        arrays['path'] = nested(path, start + np.arange(len(start)))
    return arrays


def first_bd(split, rows, seeds, dataset):
    """
    Where episodes began, (n, n_bd), which prepared data leaves out: the environment says, of its seeds; of trajectories
    without, the data set; nan where neither can. A return begins at 0
    """
    if 'discount' in split.meta:
        return np.zeros_like(split.bd[rows])
    kwargs = split.meta['env_kwargs']
    began = np.full_like(split.bd[rows], np.nan)
    known = (seeds >= 0) & bool(has_environment(dataset, kwargs))
    if known.any():
        env = environments(dataset, int(known.sum()), kwargs)
        began[known] = env.reset(seed=seeds[known].tolist())[1]['bd']
    if hasattr(dataset, 'from_trajectory'):
        for k in np.flatnonzero(~known):
            trajectory = dataset.from_trajectory(episode(split, rows.start + k), kwargs)
            began[k] = trajectory['path'][0]
    return began


def episode(split, i):
    steps = slice(split.start[i], split.start[i + 1])
    return {name: np.array(getattr(split, name)[steps]) for name in ('obs', 'act', 'path')}


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


def draw(file, split, dataset, n=12):
    """a sheet of test episodes as sample_policy.py draws a policy's, where the data set can"""
    if not (hasattr(dataset, 'report') and hasattr(dataset, 'draw_episodes')):
        return
    kwargs, words = split.meta['env_kwargs'], split.episodes(['text', 'seed'])
    episodes = []
    for i in evenly(len(split), n):
        e, seed = episode(split, i), words[i]['seed']
        prompt = (words[i]['text'] or [None])[0]
        bd = None if prompt else split.bd[i].tolist() or None
        e['path'] = np.concatenate([first_bd(split, slice(i, i + 1), np.array([seed]), dataset), e['path']])
        e |= {'seed': seed, 'prompt': prompt, 'bd': bd}
        episodes.append({**e, **dataset.report(prompt, bd, e['path'], kwargs)})
    dataset.draw_episodes(file, episodes, kwargs)
