"""
Other people's files: the same episodes come out of each format, or one line says what does not fit and how to mend it.
"""

import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import zipfile

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run

from data import cartpole
from data.archive import Archive
from data.contract import archive_meta
from data.importers.archives import Import, Options, archives_of
from data.importers.detect import open_source


def make_episodes(lengths, seed=0):
    """like CartPole's: a reward of 1 a step, so that the return is the length"""
    rng = np.random.default_rng(seed)
    return [
        {
            'observations': rng.normal(0, 0.01, (n, 4)).astype(np.float32),
            'actions': rng.integers(2, size=n),
            'rewards': np.ones(n),
            'terminals': np.arange(n) == n - 1,
        }
        for n in lengths
    ]


LENGTHS = (26, 5, 17, 11, 12, 6, 9, 7)
BASE = make_episodes(LENGTHS)
FLAT = {name: np.concatenate([e[name] for e in BASE]) for name in BASE[0]}
PENDULUM = {'obs_names': ['cos', 'sin', 'speed'], 'act_names': ['torque'], 'act_low': [-2], 'act_high': [2]}
PENDULUM |= {'bd_names': [], 'bd_low': [], 'bd_high': [], 'continuous': True, 'max_steps': 200}


class Dataset:
    """a data set of this spec, without a simulator"""

    __name__ = 'data.mine'

    def __init__(self, spec):
        self.spec = lambda kwargs: spec


def imported(file, tmp_path, spec=None, **options):
    """a file, or names separated by commas, through an archive -> episodes"""
    dataset = Dataset(spec) if spec else cartpole
    kwargs = {} if spec else cartpole.env_kwargs()
    meta = archive_meta(dataset, kwargs)
    files = archives_of(str(file), tmp_path / 'archives', dataset, kwargs, meta, Options(**options))
    return [episode for file in files for group in Archive(file).groups() for episode in group]


def refused(file, tmp_path, *words, **options):
    """it is refused in one line with these words, and nothing is written"""
    with pytest.raises((ValueError, OSError)) as e:
        imported(file, tmp_path, **options)
    message = str(e.value)
    assert '\n' not in message and not (tmp_path / 'archives').exists(), message
    for word in words:
        assert word in message, message
    return message


def same(episodes, wanted=BASE):
    assert len(episodes) == len(wanted)
    for e, w in zip(episodes, wanted):
        assert np.array_equal(e['obs'], w['observations']) and np.array_equal(e['act'][:, 0], w['actions'])
        assert e['bd'] == [np.sum(w['rewards'])] and len(e['path']) == len(w['actions']) + 1
    return True


def dumped(file, *contents):
    file.write_bytes(b''.join(pickle.dumps(content) for content in contents))
    return file


def without(name, *numbers):
    """BASE less a column of these episodes, or of all"""
    numbers = numbers or range(len(BASE))
    return [{k: v for k, v in e.items() if k != name or i not in numbers} for i, e in enumerate(BASE)]


def changed(number, **columns):
    """BASE with other columns in one episode"""
    return [{**e, **columns} if i == number else e for i, e in enumerate(BASE)]


# ------------------------------------------------------------------------------
# the same episodes in many forms


def steps(last, by_episode, first=0):
    """tuples (state, action, reward or return to go, done or timestep)"""
    made = []
    for e in BASE:
        T = len(e['actions'])
        rows = [(s, a, 1.0, t == T - 1) for t, (s, a) in enumerate(zip(e['observations'], e['actions']))]
        if last == 'timestep':
            rows = [(s, a, float(T - t), first + t) for t, (s, a, *_) in enumerate(rows)]
        elif last == 'next':
            rows = [(s, a, r, s + 1, done) for s, a, r, done in rows]
        made.append(rows)
    return made if by_episode else [row for rows in made for row in rows]


def npy(content):
    stream = io.BytesIO()
    np.save(stream, np.array(content, dtype=object), allow_pickle=True)
    return stream.getvalue()


def columns_of_episodes():
    return {name: [e[name] for e in BASE] for name in BASE[0]}


PICKLES = {
    'dicts': BASE,
    'float actions': [{**e, 'actions': e['actions'].astype(float)} for e in BASE],
    'defaultdict': [collections.defaultdict(list, e) for e in BASE],
    'a dict of steps': FLAT,
    'a dict of episodes': {f'episode_{i}': e for i, e in enumerate(BASE)},
    'columns of episodes': columns_of_episodes(),
    '(s, a, r, done)': steps('done', by_episode=False),
    'episodes of (s, a, r, done)': steps('done', by_episode=True),
    'episodes of (s, a, r, s, done)': steps('next', by_episode=True),
    '(s, a, to go, t)': steps('timestep', by_episode=False),
    'episodes of (s, a, to go, t from 1)': steps('timestep', by_episode=True, first=1),
    '(s, a, to go, t from 1)': steps('timestep', by_episode=False, first=1),
    'returns to go': [{**w, 'returns_to_go': np.cumsum(e['rewards'])[::-1]} for w, e in zip(without('rewards'), BASE)],
}


@pytest.mark.parametrize('form', PICKLES)
def test_a_pickle_of_any_form(form, tmp_path):
    assert same(imported(dumped(tmp_path / 'x.pkl', PICKLES[form]), tmp_path))


@pytest.mark.parametrize('name', ['x.pkl.gz', 'x.bz2', 'x.p', 'x.PKL', 'x.xz', 'x', 'x.npy', 'x.joblib', 'x.z.joblib'])
def test_a_pickle_of_any_name(name, tmp_path):
    """what it is, its content says"""
    file, content = tmp_path / name, pickle.dumps(BASE)
    if 'joblib' in name:
        joblib.dump(BASE, file, compress=3 * ('.z.' in name))
    else:
        compress = {'x.pkl.gz': gzip.compress, 'x.bz2': bz2.compress, 'x.xz': lzma.compress}.get(name, lambda x: x)
        file.write_bytes(npy(BASE) if name == 'x.npy' else compress(content))
    assert same(imported(file, tmp_path))


def test_torch_tensors(tmp_path):
    torch = pytest.importorskip('torch')
    torch.save([{k: torch.as_tensor(v) for k, v in e.items()} for e in BASE], tmp_path / 'x.pt')
    assert same(imported(tmp_path / 'x.pt', tmp_path))


def test_numbers_and_arrays_of_one_number(tmp_path):
    """rewards that are partly of shape (1,), and empty arrays of protocol 2"""
    odd = [{**e, 'rewards': [1.0, *np.ones((len(e['actions']) - 1, 1))], 'infos': np.zeros(0)} for e in BASE]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(odd, 2))
    assert same(imported(tmp_path / 'x.pkl', tmp_path))


def test_several_pickles_in_one_file(tmp_path):
    assert same(imported(dumped(tmp_path / 'x.pkl', BASE[:3], BASE[3:]), tmp_path))
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(BASE[:3]) + b'garbage')
    (tmp_path / 'archives' / 'imported_x.parquet').unlink()
    (tmp_path / 'archives').rmdir()
    refused(tmp_path / 'x.pkl', tmp_path, 'pickle 2 of it, at byte')


def test_files_of_the_same_name(tmp_path):
    for k in range(2):
        (tmp_path / f'seed_{k}').mkdir()
        dumped(tmp_path / f'seed_{k}' / 'x.pkl', BASE[4 * k : 4 * k + 4])
    names = f'{tmp_path}/seed_0/x.pkl,{tmp_path}/seed_1/x.pkl'
    assert same(imported(names, tmp_path))
    assert same(imported(f'{tmp_path}/seed_*/x.pkl', tmp_path))


def as_csv(delimiter=','):
    lines = [delimiter.join(['o0', 'o1', 'o2', 'o3', 'action', 'reward', 'done'])]
    for e in BASE:
        for obs, act, reward, done in zip(*e.values()):
            lines.append(delimiter.join([*(repr(float(o)) for o in obs), str(act), str(reward), str(bool(done))]))
    return '\n'.join(lines) + '\n'


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_csv(delimiter, tmp_path):
    (tmp_path / 'x.csv').write_text(as_csv(delimiter))
    assert same(imported(tmp_path / 'x.csv', tmp_path))


def test_csv_with_decimal_commas(tmp_path, capsys):
    """as spreadsheets write it in half of Europe"""
    (tmp_path / 'x.csv').write_text(as_csv(';').replace('.', ','))
    assert same(imported(tmp_path / 'x.csv', tmp_path))
    assert 'decimal commas' in capsys.readouterr().out


def test_csv_whose_columns_differ_in_their_decimal_points(tmp_path):
    (tmp_path / 'x.csv').write_text('obs_0;action;done\n0.5;1,5;0\n0.25;2;1\n')
    with pytest.raises(ValueError, match='obs_0 has decimal points and action decimal commas: write the same'):
        imported(tmp_path / 'x.csv', tmp_path)


def test_a_comma_in_a_text_is_no_decimal_point(tmp_path):
    (tmp_path / 'x.csv').write_text(as_csv(';').replace('\n', ';a, b 1,5\n').replace('done;a, b 1,5', 'done;note'))
    assert same(imported(tmp_path / 'x.csv', tmp_path))


def test_csv_of_another_encoding(tmp_path):
    (tmp_path / 'x.csv').write_bytes('obs_0;action;done;hôtel\n0,5;1;1;x\n'.encode('cp1252'))
    with pytest.raises(ValueError, match='not in UTF-8.*Save it as UTF-8'):
        imported(tmp_path / 'x.csv', tmp_path)


@pytest.mark.parametrize('form', ['episodes', 'steps', 'episode numbers', 'arrow', 'stream'])
def test_tables(form, tmp_path):
    if form == 'episodes':
        table = pa.table({k: [e[k].tolist() for e in BASE] for k in BASE[0]})
    else:
        columns = {f'obs_{k}': FLAT['observations'][:, k] for k in range(4)}
        columns |= {'action': FLAT['actions'], 'reward': FLAT['rewards']}
        ends = (
            {'episode': np.repeat(np.arange(len(BASE)), LENGTHS)} if 'numbers' in form else {'done': FLAT['terminals']}
        )
        table = pa.table(columns | ends)
    if form in ('arrow', 'stream'):
        new = pa.ipc.new_file if form == 'arrow' else pa.ipc.new_stream
        with new(str(tmp_path / 'x'), table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, tmp_path / 'x')
    assert same(imported(tmp_path / 'x', tmp_path))


def test_a_row_an_episode(tmp_path, capsys):
    """columns (episodes, steps, ..), as saved by who collects episodes of one length"""
    short = [{name: column[:5] for name, column in e.items()} for e in BASE]
    columns = {name: np.stack([e[name] for e in short]) for name in ('observations', 'actions', 'rewards')}
    np.savez(tmp_path / 'x.npz', **columns)
    assert same(imported(tmp_path / 'x.npz', tmp_path), short)
    assert '(episodes, 5, 4): each row is an episode' in capsys.readouterr().out
    columns['actions'] = columns['actions'][:, :, None]
    assert same(imported(dumped(tmp_path / 'x.pkl', columns), tmp_path), short)


def test_axes_of_length_1_are_no_grid(tmp_path):
    """(steps, 1, n), as of an environment that is a vector of one"""
    flat = {**FLAT, 'observations': FLAT['observations'][:, None], 'actions': FLAT['actions'][:, None, None]}
    np.savez(tmp_path / 'x.npz', **flat)
    assert same(imported(tmp_path / 'x.npz', tmp_path))


def test_a_comma_in_a_name(tmp_path):
    np.savez(tmp_path / 'lake, 25 episodes.npz', **FLAT)
    assert same(imported(tmp_path / 'lake, 25 episodes.npz', tmp_path))


def test_npz(tmp_path):
    np.savez(tmp_path / 'd4rl.npz', **FLAT, timeouts=np.zeros(len(FLAT['actions']), bool))
    assert same(imported(tmp_path / 'd4rl.npz', tmp_path))
    starts = np.append(True, FLAT['terminals'][:-1])
    expert = {'obs': FLAT['observations'], 'actions': FLAT['actions'][:, None], 'rewards': FLAT['rewards']}
    np.savez(tmp_path / 'sb.npz', **expert, episode_starts=starts, episode_returns=np.array(LENGTHS, float))
    assert same(imported(tmp_path / 'sb.npz', tmp_path))
    indices = np.cumsum(LENGTHS)[:-1]
    obs = np.concatenate([np.append(e['observations'], np.ones((1, 4), np.float32), 0) for e in BASE])
    np.savez(tmp_path / 'im.npz', obs=obs, acts=FLAT['actions'], rews=FLAT['rewards'], indices=indices, terminal=True)
    assert same(imported(tmp_path / 'im.npz', tmp_path))
    with pytest.raises(ValueError, match=r'indices\[0\] is .* ascending'):
        np.savez(tmp_path / 'im.npz', obs=obs, acts=FLAT['actions'], indices=indices[::-1], terminal=True)
        imported(tmp_path / 'im.npz', tmp_path)


def test_rows_are_read_in_blocks(tmp_path, monkeypatch):
    """an episode goes on in the next block, and begins with one"""
    from data.importers import npz, tables

    monkeypatch.setattr(npz, 'ROWS', 13)
    monkeypatch.setattr(tables, 'ROWS', 13)
    np.savez(tmp_path / 'x.npz', **FLAT)
    assert same(imported(tmp_path / 'x.npz', tmp_path))
    columns = {f'obs_{k}': FLAT['observations'][:, k] for k in range(4)}
    numbers = np.repeat(np.arange(len(BASE)), LENGTHS)
    pq.write_table(
        pa.table({**columns, 'a': FLAT['actions'], 'reward': FLAT['rewards'], 'episode': numbers}), tmp_path / 'y'
    )
    with pytest.raises(ValueError, match='no actions'):
        imported(tmp_path / 'y', tmp_path)
    table = pa.table({**columns, 'action': FLAT['actions'], 'reward': FLAT['rewards'], 'episode': numbers})
    pq.write_table(table, tmp_path / 'y')
    assert same(imported(tmp_path / 'y', tmp_path))


# ------------------------------------------------------------------------------
# HDF5


def write_d4rl(file, flat=FLAT, **more):
    h5py = pytest.importorskip('h5py')
    with h5py.File(file, 'w') as f:
        for name, values in {**flat, **more}.items():
            f[name] = values


def test_d4rl(tmp_path, monkeypatch):
    h5py = pytest.importorskip('h5py')
    qpos = {'infos/qpos': np.zeros((93, 9)), 'metadata/algorithm': 'SAC'}
    write_d4rl(tmp_path / 'x', timeouts=np.zeros(93, bool), next_observations=FLAT['observations'], **qpos)
    assert same(imported(tmp_path / 'x', tmp_path))
    from data.importers import hdf5

    monkeypatch.setattr(hdf5, 'ROWS', 13)
    assert same(imported(tmp_path / 'x', tmp_path))
    with h5py.File(tmp_path / 'x', 'a') as f:
        f['a named type'] = np.dtype('f4')
    assert same(imported(tmp_path / 'x', tmp_path))
    write_d4rl(tmp_path / 'y', rewards=np.ones(92))
    refused(tmp_path / 'y', tmp_path / 'b', 'rewards has 92 rows')


def test_what_leaves_an_hdf5_file_is_refused(tmp_path):
    h5py = pytest.importorskip('h5py')
    flat = {k: v for k, v in FLAT.items() if k != 'actions'}
    write_d4rl(tmp_path / 'x', flat)
    write_d4rl(tmp_path / 'other')
    with h5py.File(tmp_path / 'x', 'a') as f:
        f['actions'] = h5py.ExternalLink('other', 'actions')
    refused(tmp_path / 'x', tmp_path, 'actions is a link')
    write_d4rl(tmp_path / 'y', flat)
    with h5py.File(tmp_path / 'y', 'a') as f:
        f.create_dataset('actions', (93,), 'i8', external=[('other', 0, 93 * 8)])
    refused(tmp_path / 'y', tmp_path, 'actions lies in another file')
    with h5py.File(tmp_path / 'z', 'w') as f:
        f['observations'] = FLAT['observations']
        f.create_dataset('actions', (93,), h5py.ref_dtype)
    refused(tmp_path / 'z', tmp_path, 'actions', 'where numbers should be')
    with h5py.File(tmp_path / 'w', 'w') as f:
        f.create_dataset('observations', (1 << 40, 4), 'f4', chunks=(1 << 10, 4))
        f.create_dataset('actions', (1 << 40,), 'i8', chunks=(1 << 10,))
    refused(tmp_path / 'w', tmp_path, 'far more than the file')


def test_robomimic(tmp_path):
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'x', 'w') as f:
        for i, e in enumerate(BASE):
            group = f.create_group(f'data/demo_{i}')
            group['actions'], group['rewards'], group['dones'] = e['actions'], e['rewards'], e['terminals']
            group['obs/joints'], group['obs/object'] = e['observations'][:, :3], e['observations'][:, 3:]
            group['states'] = np.zeros((len(e['actions']), 31))
    refused(tmp_path / 'x', tmp_path, '--obs_keys=joints,object')
    assert same(imported(tmp_path / 'x', tmp_path, obs_keys='joints,object'))


@pytest.mark.parametrize('place', ['dataset', 'attribute'])
def test_words_of_an_episode_of_hdf5_are_its_text(place, tmp_path, capsys):
    """said once, and not in rows; of a flat file once for all of its steps"""
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'x', 'w') as f:
        for i, e in enumerate(BASE):
            group = f.create_group(f'data/demo_{i}')
            group['actions'], group['rewards'], group['obs/s'] = e['actions'], e['rewards'], e['observations']
            (group if place == 'dataset' else group.attrs)['language_instruction'] = f'go to {i}'
        f['mask/train'] = [b'demo_0']
    episodes = imported(tmp_path / 'x', tmp_path)
    assert 'mask/.. (train, valid) are ignored: the episodes are split anew' in capsys.readouterr().out
    assert same(episodes) and [e['text'] for e in episodes] == [[f'go to {i}'] for i in range(len(BASE))]
    write_d4rl(tmp_path / 'y')
    with h5py.File(tmp_path / 'y', 'a') as f:
        (f if place == 'dataset' else f.attrs)['task'] = 'balance it'
    assert all(e['text'] == ['balance it'] for e in imported(tmp_path / 'y', tmp_path))


def test_arrays_of_strings_are_texts(tmp_path, capsys):
    """one a step, one for all, one an episode of a pickle; others are ignored, and the report says why"""
    said = np.repeat([f'go to {i}' for i in range(len(BASE))], LENGTHS)
    wanted = [[f'go to {i}'] for i in range(len(BASE))]
    np.savez(tmp_path / 'x.npz', **FLAT, instruction=said)
    assert [e['text'] for e in imported(tmp_path / 'x.npz', tmp_path)] == wanted
    np.savez(tmp_path / 'y.npz', **FLAT, task=np.array('balance it'))
    assert all(e['text'] == ['balance it'] for e in imported(tmp_path / 'y.npz', tmp_path))
    for array in np.array, np.str_:
        file = dumped(tmp_path / 'z.pkl', [{**e, 'task': array(w[0])} for e, w in zip(BASE, wanted)])
        assert [e['text'] for e in imported(file, tmp_path)] == wanted
    np.savez(tmp_path / 'w.npz', **FLAT, task=said[:8])
    assert same(imported(tmp_path / 'w.npz', tmp_path))
    assert 'ignored task (it has 8 rows, and there are 93 steps)' in capsys.readouterr().out
    refused(
        dumped(tmp_path / 'v.pkl', changed(0, rewards=np.array(['1'] * 26))), tmp_path / 'b', 'rewards', 'holds text'
    )
    flags = [{**e, 'terminals': np.array(['no', 'yes'])[e['terminals'] * 1]} for e in BASE]
    refused(dumped(tmp_path / 'v.pkl', flags), tmp_path / 'b', "v.pkl, terminals: 'no', where a flag is 0 or 1")


# ------------------------------------------------------------------------------
# Minari


def write_minari(folder, form, **meta):
    """as Minari 0.5 writes it: Dict observations with an image, a direction and a mission, T + 1 of each"""
    (folder / 'data').mkdir(parents=True)
    said = {'total_episodes': len(BASE), 'total_steps': sum(LENGTHS), 'data_format': form, **meta}
    (folder / 'data' / 'metadata.json').write_text(json.dumps(said))
    rows = []
    for e in BASE:
        obs = np.append(e['observations'], np.ones((1, 4), np.float32), 0)
        rows.append({'observations': {'numbers': obs, 'mission': ['go to the bed'] * len(obs)}})
        rows[-1] |= {'actions': e['actions'], 'rewards': e['rewards'], 'terminations': e['terminals']}
    if form == 'hdf5':
        h5py = pytest.importorskip('h5py')
        with h5py.File(folder / 'data' / 'main_data.hdf5', 'w') as f:
            for i, e in enumerate(rows):
                group = f.create_group(f'episode_{i}')
                for name in 'actions', 'rewards', 'terminations':
                    group[name] = e[name]
                group['observations/numbers'] = e['observations']['numbers']
                group.create_dataset(
                    'observations/mission', data=e['observations']['mission'], dtype=h5py.string_dtype()
                )
        return
    for i, e in enumerate(rows):
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(e['observations']['numbers'].reshape(-1)), 4)
        obs = pa.StructArray.from_arrays([numbers, pa.array(e['observations']['mission'])], ['numbers', 'mission'])
        padded = {
            name: np.append(e[name], [0]).astype(e[name].dtype) for name in ('actions', 'rewards', 'terminations')
        }
        part = folder / 'data' / str(i)
        part.mkdir()
        table = pa.table({'observations': obs, **padded})
        (part / 'metadata.json').write_text(json.dumps({'id': i, 'total_steps': len(e['actions'])}))
        if form == 'parquet':
            pq.write_table(table, part / 'part-0.parquet')
        else:
            with pa.ipc.new_file(str(part / 'part-0.arrow'), table.schema) as writer:
                writer.write_table(table)


@pytest.mark.parametrize('form', ['hdf5', 'arrow', 'parquet'])
def test_minari(form, tmp_path):
    write_minari(tmp_path / 'x-v0', form)
    episodes = imported(tmp_path / 'x-v0', tmp_path)
    assert same(episodes) and all(e['text'] == ['go to the bed'] for e in episodes)
    assert same(imported(tmp_path / 'x-v0' / 'data', tmp_path))
    write_minari(tmp_path / 'y-v0', form, total_episodes=9)
    refused(tmp_path / 'y-v0', tmp_path / 'b', 'metadata say 9 episodes, and 8 are there')


@pytest.mark.parametrize('form', ['d4rl', 'hdf5', 'arrow'])
def test_what_environments_tell_is_read_where_it_is_asked_for(form, tmp_path):
    """--bd=info:x, a row an action in D4RL's file, and one more of the start in Minari's"""
    h5py = pytest.importorskip('h5py')
    x, many = tmp_path / 'x', form != 'd4rl'
    if form == 'd4rl':
        write_d4rl(x, **{'infos/x': np.arange(93.0)})
    else:
        write_minari(x, form)
    if form == 'hdf5':
        with h5py.File(x / 'data' / 'main_data.hdf5', 'a') as f:
            for i, n in enumerate(LENGTHS):
                f[f'episode_{i}/infos/x'] = np.arange(n + 1.0)
    for part in x.glob('data/*/part-0.arrow'):
        table = pa.ipc.open_file(part.read_bytes()).read_all()
        told = pa.StructArray.from_arrays([pa.array(np.arange(float(len(table))))], ['x'])
        with pa.ipc.new_file(str(part), table.append_column('infos', told).schema) as writer:
            writer.write_table(table.append_column('infos', told))
    spec = {'flatten': True, 'info': 'x'}
    episodes = list(Import(open_source(x), 'mine', spec, Options()).survey().episodes())
    assert episodes[0]['info'].shape == (26 + many, 1) and episodes[0]['info'][-1] == 25 + many
    with pytest.raises(ValueError, match='no column infos/y.* There are: .*infos/x'):
        Import(open_source(x), 'mine', {**spec, 'info': 'y'}, Options())


# ------------------------------------------------------------------------------
# LeRobot


def write_lerobot(folder, version, tasks=('lift it', 'put it down'), **info):
    """v2.1: a file an episode; v3.0: several a file"""
    (folder / 'meta').mkdir(parents=True)
    said = {'codebase_version': version, 'total_episodes': len(BASE), 'total_frames': sum(LENGTHS), 'fps': 30, **info}
    (folder / 'meta' / 'info.json').write_text(json.dumps(said))
    tables = []
    for i, e in enumerate(BASE):
        T = len(e['actions'])
        tables.append(
            pa.table(
                {
                    'observation.state': pa.FixedSizeListArray.from_arrays(pa.array(e['observations'].reshape(-1)), 4),
                    'action': e['actions'].astype(np.float32),
                    'next.reward': e['rewards'].astype(np.float32),
                    'timestamp': np.arange(T, dtype=np.float32) / 30,
                    'frame_index': np.arange(T),
                    'episode_index': np.full(T, i),
                    'task_index': (np.arange(T) > 5) & (i == 0) | (i % 2 > 0),
                    'next.done': e['terminals'],
                }
            )
        )
        tables[-1] = tables[-1].set_column(6, 'task_index', tables[-1]['task_index'].cast(pa.int64()))
    chunk = folder / 'data' / 'chunk-000'
    chunk.mkdir(parents=True)
    rows = [{'task_index': i, 'task': task} for i, task in enumerate(tasks)]
    if version == 'v3.0':
        for k in range(2):
            pq.write_table(
                pa.concat_tables(tables[5 * k : 5 * k + 5]), chunk / f'file-{k:03d}.parquet', row_group_size=9
            )
        unnamed = pa.table({'task_index': range(len(tasks)), '__index_level_0__': list(tasks)})
        pq.write_table(unnamed, folder / 'meta' / 'tasks.parquet')
    else:
        for i, table in enumerate(tables):
            pq.write_table(table, chunk / f'episode_{i:06d}.parquet')
        (folder / 'meta' / 'tasks.jsonl').write_text('\n'.join(map(json.dumps, rows)))


@pytest.mark.parametrize('version', ['v2.0', 'v2.1', 'v3.0'])
def test_lerobot(version, tmp_path, capsys):
    write_lerobot(tmp_path / 'x', version)
    episodes = imported(tmp_path / 'x', tmp_path)
    assert same(episodes) and [e['text'] for e in episodes] == [['lift it'], ['put it down']] * 4
    assert '1 episodes whose task changes on the way: the first is taken' in capsys.readouterr().out


def test_lerobot_as_others_write_it(tmp_path, capsys):
    write_lerobot(tmp_path / 'a', 'v2.1')
    (tmp_path / 'a' / 'meta' / 'info.json').write_text('')
    assert same(imported(tmp_path / 'a', tmp_path)) and 'info.json is empty' in capsys.readouterr().out
    write_lerobot(tmp_path / 'b', 'v3.0', codebase_version='v2.1')
    assert same(imported(tmp_path / 'b', tmp_path)) and 'the files are of v3' in capsys.readouterr().out
    write_lerobot(tmp_path / 'c', 'v3.0', total_frames=99)
    refused(tmp_path / 'c', tmp_path / 'x', 'says 99 frames, and its files hold 93')
    write_lerobot(tmp_path / 'd', 'v2.1', tasks=['lift it'])
    refused(tmp_path / 'd', tmp_path / 'x', 'task_index 1 is none of')
    write_lerobot(tmp_path / 'e', 'v2.1')
    (tmp_path / 'e' / 'meta' / 'tasks.jsonl').write_text('version https://git-lfs.github.com/spec/v1')
    refused(tmp_path / 'e', tmp_path / 'x', 'tasks.jsonl', 'git lfs pull')


# ------------------------------------------------------------------------------
# pyribs


def rolled_out(solution):
    """a trajectory of a solution: its number says which"""
    return BASE[int(solution[0])]


@pytest.mark.parametrize('form', ['csv', 'npz'])
def test_solutions_take_a_rollout(form, tmp_path):
    solution = np.stack([np.arange(len(BASE), dtype=float), np.ones(len(BASE))], 1)
    if form == 'npz':
        np.savez(tmp_path / 'x.npz', solution=solution, objective=np.ones(len(BASE)), measures=solution)
        (tmp_path / 'x.npz').rename(tmp_path / 'x')
    else:
        rows = [f'{a},{b},1.0,{a},{b},{k}' for k, (a, b) in enumerate(solution)]
        head = 'solution_0,solution_1,objective,behavior_0,behavior_1,index'
        (tmp_path / 'x').write_text('\n'.join([head, *rows]) + '\n')
    refused(tmp_path / 'x', tmp_path, 'without trajectories', '--rollout=module:function')
    refused(tmp_path / 'x', tmp_path, 'nowhere', rollout='nowhere:f')
    assert same(imported(tmp_path / 'x', tmp_path, rollout=f'{__name__}:rolled_out'))


# ------------------------------------------------------------------------------
# ends inside an element


def chunks(n, rows=None):
    """all steps and 7 more, in elements of n steps, with flags where episodes end"""
    more = make_episodes([7], 1)[0]
    more['terminals'][:] = False
    flat = {k: np.concatenate([FLAT[k], more[k]]) for k in FLAT}
    total = len(flat['actions'])
    return [{k: v[a : a + n] for k, v in flat.items()} for a in range(0, total, n)]


@pytest.mark.parametrize('n', [10, 1000])
def test_ends_inside_are_ends(n, tmp_path, capsys):
    assert same(imported(dumped(tmp_path / 'x.pkl', chunks(n)), tmp_path))
    assert 'the last 7 steps are cut off by its end' in capsys.readouterr().out


def test_ends_inside_that_are_none(tmp_path):
    """neither whole episodes nor blocks"""
    early = np.zeros(26, bool)
    early[3] = True
    refused(dumped(tmp_path / 'x.pkl', changed(0, terminals=early)), tmp_path, 'episode 0', 'terminals', 'step 3 of 26')
    stays = [{**e, 'terminals': np.arange(len(e['actions'])) > 2} for e in BASE]
    refused(dumped(tmp_path / 'x.pkl', stays), tmp_path, 'episode 0', 'terminals', 'stays so')


def test_no_end_at_all(tmp_path, capsys):
    """rows that no flag divides are cut after the longest time, where nothing says when time is over"""
    long = make_episodes([1200])[0]
    long['terminals'][:] = False
    episodes = imported(dumped(tmp_path / 'x.pkl', long), tmp_path)
    assert [len(e['act']) for e in episodes] == [500, 500, 200]
    said = capsys.readouterr().out
    assert 'cut after 500 steps' in said and 'no column says where episodes end' not in said
    refused(dumped(tmp_path / 'y.pkl', [long]), tmp_path / 'b', 'episode 0', '1200 steps')
    del long['terminals']
    imported(dumped(tmp_path / 'x.pkl', long), tmp_path)
    assert 'no column says where episodes end' in capsys.readouterr().out


def numbered_rows(episodes, **more):
    """rows of a table: which episode, which step of it"""
    columns = {f'obs_{k}': FLAT['observations'][:, k] for k in range(4)}
    columns |= {'action': FLAT['actions'], 'reward': FLAT['rewards']}
    if episodes:
        columns['episode'] = np.repeat(np.arange(len(BASE)), LENGTHS)
    return pa.table({**columns, 'step': np.concatenate([np.arange(n) for n in LENGTHS]), **more})


@pytest.mark.parametrize('episodes, cure', [(True, 'Sort the rows'), (False, 'or flag where')])
def test_steps_out_of_order_are_refused(episodes, cure, tmp_path):
    """and not sorted: a column says that rows of an episode changed places, or that an end has no flag"""
    table = numbered_rows(episodes, **({} if episodes else {'done': FLAT['terminals']}))
    rows = np.arange(len(table))
    rows[[28, 29]] = [29, 28]  # steps 2 and 3 of the second episode
    pq.write_table(table.take(rows), tmp_path / 'x.parquet')
    said = refused(tmp_path / 'x.parquet', tmp_path, 'rows 26 to 30', 'step falls from 3 to 2 at row 3', cure)
    assert ('at row 3 of episode 1:' in said) == episodes
    (tmp_path / 'x.parquet').unlink()
    late = changed(2, timesteps=np.arange(17)[::-1])
    dumped(tmp_path / 'y.pkl', [{'timesteps': np.arange(len(e['actions'])), **e} for e in late])
    refused(tmp_path / 'y.pkl', tmp_path, 'episode 2: timesteps falls from 16 to 15 at row 1', 'Sort the rows')


def test_steps_that_begin_again_are_episodes_and_the_report_says_so(tmp_path, capsys):
    pq.write_table(numbered_rows(episodes=False), tmp_path / 'x.parquet')
    assert same(imported(tmp_path / 'x.parquet', tmp_path))
    assert 'rewards reward; ends where step begins again' in capsys.readouterr().out


# ------------------------------------------------------------------------------
# what does not fit


REFUSED = {
    'a reward too many': (changed(2, rewards=np.ones(18)), ['episode 2', 'rewards', '18 values', '17 actions']),
    'a flag too many': (changed(2, terminals=np.zeros(18, bool)), ['episode 2', 'terminals', '18', '17']),
    'transposed': ([{**e, 'observations': e['observations'].T} for e in BASE], ['episode 0', '(4, 26)', 'Transpose']),
    'fractions': (changed(1, actions=np.full(5, 0.37)), ['episode 1', 'actions', '0.37', 'label']),
    'labels 1 and 2': ([{**e, 'actions': e['actions'] + 1} for e in BASE], ['values 1, 2', '0 to 1', 'actions - 1']),
    'one-hot': ([{**e, 'actions': np.eye(2)[e['actions']]} for e in BASE], ['episode 0', 'argmax']),
    'no reward at first': (without('rewards', 0), ['episode 0', 'rewards']),
    'no reward later': (without('rewards', 3), ['episode 3', 'rewards']),
    'no flag later': (without('terminals', 3), ['episode 3', 'terminals']),
    'another width': (changed(1, observations=np.zeros((5, 3))), ['episode 1', '3 observations', '4']),
    'images': ([{**e, 'observations': np.zeros((len(e['actions']), 7, 7, 3), np.uint8)} for e in BASE], ['images']),
    'rewards in words': (
        [{**e, 'rewards': [{}] * len(e['actions'])} for e in BASE],
        ['episode 0', 'rewards', 'a dict'],
    ),
    'flags in words': ([{**e, 'terminals': [{}] * len(e['actions'])} for e in BASE], ['terminals', 'a dict']),
    'chunks of actions': ([{**e, 'actions': np.zeros((len(e['actions']), 30, 7))} for e in BASE], ['chunks of them']),
    'arrays alone': ([e['observations'] for e in BASE], ['element 0 is an array']),
    'no actions': (without('actions'), ['no actions', "'observations'"]),
    'a flag of 2': (changed(0, terminals=np.full(26, 2)), ['episode 0', 'terminals', 'is 2']),
    'tuples of 3': ([[(s, 1, 1.0) for s in e['observations']] for e in BASE], ['tuples hold 3']),
    'a last item of 0 and 1': ([[([0.5] * 4, 1, 2.0, 0), ([0.5] * 4, 1, 1.0, 1)]], ['a flag and a timestep']),
    'a constant third': (
        [[(s, 1, 1.0, t) for t, s in enumerate(e['observations'])] for e in BASE],
        ['third item is 1'],
    ),
    'a pandas frame': (b'\x80\x04cpandas.core.frame\nDataFrame\n.', ['to_parquet']),
    'a pointer': (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n', ['git lfs pull']),
    'a web page': (b'<!DOCTYPE html><html></html>', ['web page']),
    'nothing': (b'', ['empty']),
    'other bytes': (bytes(range(7, 99)), ['none of the formats']),
    'json': (b'{"a": 1}', ['JSON']),
    'through Windows': (pickle.dumps(BASE[:2], 0).replace(b'\n', b'\r\n'), ['Windows']),
    'half a table': (b'PAR1' + bytes(50), ['not a whole Parquet file']),
    'half a zip': (b'PK\x03\x04' + bytes(50), ['damaged']),
}


@pytest.mark.parametrize('what', REFUSED)
def test_what_does_not_fit_is_one_line(what, tmp_path):
    content, words = REFUSED[what]
    file = tmp_path / 'x.pkl'
    file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    refused(file, tmp_path, 'x.pkl', *words)


LISTS = 'episode,observation,action\n0,"[0.1, 0.2]",1\n0,"[0.3, 0.4]",0\n'
CSVS = {
    'compressed': (gzip.compress(LISTS.encode()), ['is compressed', 'gunzip']),
    'a name twice': (b'episode,obs_0,obs_0,action\n0,1,1,1\n', ["names 'obs_0' twice"]),
    'no names': (b'0,1,1,1\n0,1,1,1\n', ['names no columns: write a header']),
    'an episode of nan': (b'episode,obs_0,action\n0,1,1\n,1,1\n0,1,1\n', ['rows from 0: episode is nan at row 1']),
    'lists in cells': (LISTS.encode(), ['observation: a cell holds a list', 'observation_0', 'Parquet']),
    'a number left out': (b'episode,obs_0,obs_2,action\n0,1,1,1\n', ['obs_0, obs_2 leave out a number']),
}


@pytest.mark.parametrize('what', CSVS)
def test_a_csv_that_is_not_read_says_why(what, tmp_path):
    content, words = CSVS[what]
    (tmp_path / 'x.csv').write_bytes(content)
    refused(tmp_path / 'x.csv', tmp_path, 'x.csv', *words, spec=PENDULUM)


def test_a_column_without_a_name_is_named(tmp_path, capsys):
    """pandas writes its index so"""
    (tmp_path / 'x.csv').write_text(
        '\n'.join(f'{i - 1},{row}' if i else f',{row}' for i, row in enumerate(as_csv().splitlines()))
    )
    assert same(imported(tmp_path / 'x.csv', tmp_path))
    assert 'ignored a column without a name\n' in capsys.readouterr().out


def test_observations_in_a_dict(tmp_path):
    rows = [{**e, 'observations': {'own': e['observations'][:, :3], 'goal': e['observations'][:, 3:]}} for e in BASE]
    file = dumped(tmp_path / 'x.pkl', rows)
    refused(file, tmp_path, '--obs_keys=own,goal', 'own (3,)')
    refused(file, tmp_path, 'aim', 'own, goal', obs_keys='aim')
    assert same(imported(file, tmp_path, obs_keys='own,goal'))


def test_an_episode_without_steps_is_left_out(tmp_path, capsys):
    file = dumped(tmp_path / 'x.pkl', [*BASE[:2], {k: v[:0] for k, v in BASE[0].items()}, *BASE[2:]])
    assert same(imported(file, tmp_path))
    assert '1 without steps left out: 2' in capsys.readouterr().out


def test_rewards_that_nobody_has_are_assumed_aloud(tmp_path, capsys):
    assert same(imported(dumped(tmp_path / 'x.pkl', without('rewards')), tmp_path))
    assert 'no rewards in episode 0, nor in any other: 1 a step is assumed' in capsys.readouterr().out
    returns = {**PENDULUM, 'bd_names': ['return'], 'bd_low': [0], 'bd_high': [1], 'discount': 1.0}
    file = dumped(tmp_path / 'y.pkl', [{'observations': np.zeros((5, 3)), 'actions': np.zeros((5, 1))}])
    refused(file, tmp_path / 'b', 'no rewards in episode 0', spec=returns)


@pytest.mark.parametrize('most, kept, said', [(2.000002, 3, 'rounding'), (2.5, 2, 'torque 2.5 at step 1 of episode 1')])
def test_actions_beyond_their_bounds(most, kept, said, tmp_path, capsys):
    rows = [{'observations': np.full((5, 3), i), 'actions': np.full((5, 1), 0.5)} for i in range(3)]
    rows[1]['actions'][1] = most
    file = dumped(tmp_path / 'x.pkl', rows)
    episodes = imported(file, tmp_path, PENDULUM)
    assert len(episodes) == kept and max(e['act'].max() for e in episodes) <= 2
    assert said in capsys.readouterr().out
    assert len(imported(file, tmp_path, PENDULUM, clip_actions=True)) == 3
    dumped(file, [rows[1]])
    if kept == 2:
        refused(file, tmp_path / 'b', '2.5', '--clip_actions', spec=PENDULUM)


def test_a_bound_that_float32_rounds_up_is_kept(tmp_path):
    spec = {**PENDULUM, 'act_low': [-0.4], 'act_high': [0.4]}
    file = dumped(tmp_path / 'x.pkl', [{'observations': np.zeros((5, 3)), 'actions': np.full((5, 1), np.float32(0.4))}])
    (episode,) = imported(file, tmp_path, spec)
    assert (episode['act'] <= 0.4).all()


# ------------------------------------------------------------------------------
# nothing is executed


class Touch:
    def __reduce__(self):
        import os

        return os.system, ('touch pwned',)


def test_nothing_in_a_container_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = [{**BASE[0], 'actions': Touch()}]
    (tmp_path / 'a.npy').write_bytes(npy(evil))
    (tmp_path / 'b.gz').write_bytes(gzip.compress(pickle.dumps(evil)))
    joblib.dump([BASE[0], Touch()], tmp_path / 'c.joblib')
    with zipfile.ZipFile(tmp_path / 'd.pt', 'w') as archive:
        archive.writestr('d/data.pkl', pickle.dumps(evil))
    np.savez(tmp_path / 'e.npz', observations=FLAT['observations'], actions=np.array([Touch()] * 3, dtype=object))
    dumped(tmp_path / 'f.pkl', BASE[:2], Touch())
    for name in 'a.npy', 'b.gz', 'c.joblib', 'd.pt', 'f.pkl':
        refused(tmp_path / name, tmp_path, name, 'asks for')
    refused(tmp_path / 'e.npz', tmp_path, 'actions', 'where numbers should be')
    whole = bytearray((tmp_path / 'e.npz').read_bytes())
    whole[whole.index(b'PK\x01\x02') + 8] |= 1  # the flag of what is encrypted
    (tmp_path / 'e.npz').write_bytes(whole)
    refused(tmp_path / 'e.npz', tmp_path, 'encrypted')
    assert not (tmp_path / 'pwned').exists()


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch = pytest.importorskip('torch')
    whole = torch.arange(8.0)
    torch.save([{'observations': whole.reshape(4, 2), 'actions': torch.zeros(4)}], tmp_path / 'x.pt')
    with zipfile.ZipFile(tmp_path / 'x.pt') as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / 'x.pt', 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content[: -len(content) // 2] if name.endswith('data/0') else content)
    refused(tmp_path / 'x.pt', tmp_path, 'beyond its storage')


@pytest.mark.parametrize('form', ['npz', 'csv', 'parquet', 'joblib', 'npy'])
def test_damage_is_one_line_or_the_same_shapes(form, tmp_path):
    """some bytes changed: an error of one line, or numbers"""
    if form == 'npz':
        np.savez(tmp_path / 'x', **FLAT)
        (tmp_path / 'x.npz').rename(tmp_path / 'x')
    elif form == 'csv':
        (tmp_path / 'x').write_text(as_csv())
    elif form == 'parquet':
        pq.write_table(pa.table({k: [e[k].tolist() for e in BASE] for k in BASE[0]}), tmp_path / 'x')
    elif form == 'joblib':
        joblib.dump(BASE, tmp_path / 'x')
    else:
        (tmp_path / 'x').write_bytes(npy(BASE))
    whole, rng = (tmp_path / 'x').read_bytes(), np.random.default_rng(0)
    for i in range(4 if form in ('joblib', 'npy') else 30):
        damaged = bytearray(whole[: len(whole) if i % 2 else rng.integers(8, len(whole))])
        for at in rng.integers(4, len(damaged), 3):
            damaged[at] = rng.integers(256)
        (tmp_path / 'x').write_bytes(damaged)
        try:
            episodes = imported(tmp_path / 'x', tmp_path)
        except (ValueError, OSError) as e:
            assert '\n' not in str(e) and 'x' in str(e), e
        else:
            assert all(e['obs'].shape == (len(e['act']), 4) for e in episodes)


def write_large(folder, form, n):
    """n steps of 30 numbers in episodes of 500"""
    folder.mkdir()
    obs = np.random.default_rng(0).normal(size=(n, 30)).astype(np.float32)
    episode = np.arange(n) // 500
    if form == 'hdf5':
        flat = {'observations': obs, 'actions': obs[:, :2], 'timeouts': np.append(np.diff(episode) > 0, True)}
        write_d4rl(folder / 'x', flat)
        return folder / 'x'
    rows = pa.FixedSizeListArray.from_arrays(pa.array(obs.reshape(-1)), 30)
    table = pa.table({'observation.state': rows, 'action': obs[:, 0], 'episode_index': episode})
    if form == 'parquet':
        pq.write_table(table, folder / 'x')
        return folder / 'x'
    for name in 'meta', 'data':
        (folder / name).mkdir()
    pq.write_table(table, folder / 'data/file-000.parquet')
    return folder


@pytest.mark.parametrize('form', ['hdf5', 'parquet', 'lerobot'])
def test_memory_does_not_grow_with_the_file(form, tmp_path):
    """the most that a process takes for a file, and for one of ten times the size, 50 MB of arrays"""
    files = [str(write_large(tmp_path / str(n), form, n)) for n in (40_000, 400_000)]
    code = f"""
import re
from data.importers.archives import Options
from data.importers.detect import open_source
from data.importers.trajectories import Import
def most():  # MB; that of getrusage counts the process that began this one, too
    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10
for file in {files}:
    survey = Import(open_source(file), 'mine', {{'flatten': True}}, Options()).survey()
    print(sum(len(e['act']) for e in survey.episodes()), most())
"""
    process = run('-c', code, cwd=tmp_path)
    (n, small), (many, large) = [map(int, line.split()) for line in process.stdout.splitlines()]
    assert (n, many) == (40_000, 400_000), process.stderr
    assert large - small < 25, (small, large)


def test_prepare_takes_a_table(tmp_path):
    """one command from a csv to prepared data"""
    (tmp_path / 'x.csv').write_text(as_csv())
    shares = ['--val_share=0.2', '--test_share=0.3', '--seed=1']
    process = run(
        'prepare.py', '--dataset=cartpole', '--archive=x.csv', '--out_dir=p', '--archive_dir=a', *shares, cwd=tmp_path
    )
    assert 'csv, one row a step; 8 episodes, 93 steps' in process.stdout, process.stderr
    assert process.returncode == 0, process.stderr
