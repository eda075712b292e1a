"""
Prepared data as a data set of Minari: data/metadata.json and data/main_data.hdf5, a group an episode. The folder's name
is the data set's id, so it ends in a version. It takes h5py: pip install '.[hdf5]'.

$ python prepare.py --export=minari/toy-nav-v0 --export_format=minari
$ MINARI_DATASETS_PATH=minari python -c "import minari; print(minari.load_dataset('toy-nav-v0'))"

Observations are the environment's. Where there are sentences, they are Dicts of `observation` and `mission`, as in
Minari's own data sets of BabyAI: an episode that Minari hands out has no metadata, so that a prompt in there would not
be seen by what reads them. All other sentences, the request and the split are attributes of an episode
(dataset.storage.get_episode_metadata); train, val and test follow each other, and `splits` of metadata.json says where.
infos: `bd`, the behaviour descriptor, were this the end, and `taught`, False where an action is not to be imitated.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.contract import has_environment
from data.exporters import episodes as exports
from data.prepared import Rows

VERSION = '0.5.0'  # of Minari, since which it is laid out so: later ones read it, too
LAYOUT = ('v110', 'v110')  # of HDF5, which every h5py since 2018 reads: a third of the size that the oldest has
ID = re.compile(r'[-\w]+-v\d+')


def check(to, licence):
    """refuse what cannot be exported to"""
    exports.check(to, licence)
    name = Path(to).resolve().name
    if not ID.fullmatch(name):
        cure = Path(to).parent / (re.sub(r'[^-\w]', '-', name) + '-v0')
        raise ValueError(
            f'export={to}: a data set of Minari is called name-v0, of letters, - and _. Set --export={cure}'
        )
    h5py()


def h5py():
    try:
        import h5py
    except ImportError:
        raise ValueError("--export_format=minari takes h5py. Install it: pip install '.[hdf5]'") from None
    return h5py


def export(folder, to, dataset, about, licence):
    """
    Write prepared data to a folder, all of it or nothing; an OSError says what is in the way.

    dataset: its module; about: what archives of it say of themselves
    """
    check(to, licence)
    name, episodes = Path(to).resolve().name, exports.Episodes(folder, dataset)
    with exports.whole_folder(to) as partial:
        data = partial / 'data'
        data.mkdir()
        with h5py().File(data / 'main_data.hdf5', 'w', libver=LAYOUT) as file:
            n_steps = write_episodes(file, episodes)
        said = metadata(episodes, name, n_steps, exports.megabytes(data), licence)
        (data / 'metadata.json').write_text(json.dumps(said, indent=1))
        card = exports.card(episodes, name, licence, 'minari')
        (partial / 'README.md').write_text(card, encoding='utf-8')
    for note in episodes.notes():
        print(f'  {note}')
    parent = Path(to).parent
    print(
        f'exported {len(episodes)} episodes to {to} ({exports.megabytes(to):.0f} MB). '
        f'Next: MINARI_DATASETS_PATH={parent} minari show {name}'
    )


# ------------------------------------------------------------------------------
# episodes


def write_episodes(file, episodes):
    """-> how many steps"""
    n, n_steps = 0, 0
    for block in episodes.blocks():
        for e in block:
            group = file.create_group(f'episode_{n}')
            write_episode(group, e, episodes.has_text)
            group.attrs['id'] = n
            n += 1
            n_steps += len(e['act'])
    return n_steps


def write_episode(group, e, has_text):
    T = len(e['act'])
    store(group, 'observations/observation' if has_text else 'observations', e['obs'])
    if has_text:
        mission = exports.text_of(e).encode()
        text = h5py().string_dtype('utf-8', max(1, len(mission)))
        store(group, 'observations/mission', np.full(T + 1, mission, text))
    store(group, 'actions', e['act'])
    store(group, 'rewards', e['reward'])
    store(group, 'terminations', e['terminated'])
    store(group, 'truncations', e['truncated'])
    store(group, 'infos/taught', np.append(e['taught'], True))  # an info is of an observation: there is one more
    if e['bd'].shape[1]:
        store(group, 'infos/bd', e['bd'])
    group.attrs['total_steps'] = T
    if e['seed'] >= 0:
        group.attrs['seed'] = e['seed']
    for name in ('split', 'source', 'asked', 'novel', 'text', 'loose', 'held_out'):
        if e[name]:
            group.attrs[name] = e[name]


def store(group, name, rows):
    packed = {'compression': 'gzip', 'compression_opts': 1, 'shuffle': True}
    group.create_dataset(name, data=rows, chunks=rows.shape, **packed)


# ------------------------------------------------------------------------------
# metadata


def metadata(episodes, name, n_steps, size, licence):
    """what metadata.json holds; spaces and the environment are JSON inside of it"""
    said = {
        'total_episodes': len(episodes),
        'total_steps': n_steps,
        'data_format': 'hdf5',
        'jpeg_encoding': False,
        'observation_space': json.dumps(observation_space(episodes)),
        'action_space': json.dumps(action_space(episodes.meta)),
        'dataset_id': name,
        'minari_version': VERSION,
        'dataset_size': round(size, 1),
        'description': episodes.summary(),
        'license': licence,
        'splits': episodes.ranges(),
        'nanopilot': {key: episodes.meta[key] for key in ('dataset', 'env_kwargs', 'obs_names', 'act_names')},
    }
    env_spec = registered(episodes)
    if env_spec:
        said['env_spec'] = env_spec
    return said


def observation_space(episodes):
    n = len(episodes.meta['obs_names'])
    box = box_of(n, [-np.inf] * n, [np.inf] * n)
    if not episodes.has_text:
        return box
    return {'type': 'Dict', 'subspaces': {'mission': text_space(episodes), 'observation': box}}


def text_space(episodes):
    """of all missions there are"""
    letters, longest = set(), 0
    for split in episodes.splits.values():
        for row in Rows(split.folder / split.split, ['text', 'loose']):
            text = exports.text_of(row)
            letters.update(text)
            longest = max(longest, len(text))
    return {'type': 'Text', 'max_length': longest, 'min_length': 0, 'charset': ''.join(sorted(letters))}


def action_space(meta):
    if meta['continuous']:
        return box_of(len(meta['act_names']), meta['act_low'], meta['act_high'])
    return {'type': 'Discrete', 'dtype': 'int64', 'start': int(meta['act_low'][0]), 'n': len(meta['act_names'])}


def box_of(n, low, high):
    return {'type': 'Box', 'dtype': 'float32', 'shape': [n], 'low': list(low), 'high': list(high)}


def registered(episodes):
    """the environment as Gymnasium makes it again, JSON; None where it does not"""
    if not (has_environment(episodes.dataset, episodes.kwargs) and hasattr(episodes.dataset, 'make_env')):
        return None
    env = episodes.dataset.make_env(**episodes.kwargs)
    spec, space = env.spec, env.unwrapped.observation_space
    env.close()
    if spec is None or space.shape != (len(episodes.meta['obs_names']),) or not isinstance(spec.entry_point, str):
        return None
    wrappers = tuple(w for w in spec.additional_wrappers if w.kwargs is not None)  # others cannot be made again
    kwargs = {name: value for name, value in spec.kwargs.items() if name != 'render_mode'}
    return replace(spec, additional_wrappers=wrappers, kwargs=kwargs).to_json()
