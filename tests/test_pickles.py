"""Pickles of strangers: trajectories come through, nothing is executed, and what is neither is one line."""

import os
import pickle

import numpy as np
import pytest
from conftest import run

from data import cartpole
from data.archive import Archive
from data.contract import archive_meta
from data.importers.archives import archives_of
from data.importers.detect import open_source
from data.importers.trajectories import Import, Options


@pytest.fixture
def trajectories():
    rng = np.random.default_rng(0)
    return [
        {
            'observations': rng.normal(0, 0.01, (n, 4)).astype(np.float32),
            'actions': rng.integers(2, size=n),
            'rewards': np.ones(n),
            'terminals': np.zeros(n, bool),
        }
        for n in rng.integers(5, 30, 60)
    ]


def written(tmp_path, what, protocol=pickle.DEFAULT_PROTOCOL):
    (tmp_path / 'mine.pkl').write_bytes(pickle.dumps(what, protocol))
    return tmp_path / 'mine.pkl'


def read(file):
    return list(Import(open_source(file), 'mine', {}, Options()).episodes())


def to_archive(file, folder):
    kwargs = cartpole.env_kwargs()
    meta = archive_meta(cartpole, kwargs)
    (made,) = archives_of(str(file), folder, cartpole, kwargs, meta, Options())
    return made


def refused(file):
    with pytest.raises(ValueError) as e:
        read(file)
    assert '\n' not in str(e.value) and 'mine.pkl' in str(e.value)
    return str(e.value)


@pytest.mark.parametrize('protocol', range(6))
def test_every_protocol_is_read(protocol, trajectories, tmp_path):
    for a, b in zip(read(written(tmp_path, trajectories[:3], protocol)), trajectories[:3], strict=True):
        assert (
            np.array_equal(a['obs'], b['observations'])
            and np.array_equal(a['act'][:, 0], b['actions'])
            and (a['reward'] == 1).all()
        )


@pytest.mark.parametrize(
    'kind', ['other names', 'lists', 'one observation more', 'fortran, big-endian', 'steps', 'episodes of steps']
)
def test_every_spelling_is_read(kind, trajectories, tmp_path):
    what = trajectories[:3]
    if kind == 'other names':
        what = [{'states': e['observations'], 'acts': e['actions'], 'rews': e['rewards']} for e in what]
    elif kind == 'lists':
        what = [{k: v.tolist() for k, v in e.items()} for e in what]
    elif kind == 'one observation more':
        what = [{**e, 'observations': np.concatenate([e['observations'], np.ones((1, 4), np.float32)])} for e in what]
    elif kind == 'fortran, big-endian':
        what = [{**e, 'observations': np.asfortranarray(e['observations'].astype('>f8'))} for e in what]
    elif 'steps' in kind:
        what = [
            [(s, a, float(len(e['actions']) - t), t) for t, (s, a) in enumerate(zip(e['observations'], e['actions']))]
            for e in what
        ]
        what = what if kind == 'episodes of steps' else [step for e in what for step in e]
    for a, b in zip(read(written(tmp_path, what)), trajectories[:3], strict=True):
        assert (
            np.array_equal(a['obs'], b['observations'])
            and np.array_equal(a['act'][:, 0], b['actions'])
            and (a['reward'] == 1).all()
        )


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'call',
    [
        (os.system, ('touch pwned',)),
        (eval, ("open('pwned', 'w')",)),
        (np.load, ('x',)),
        (np.dtype, ('O',)),
        (np.array, ([1],)),
    ],
    ids=lambda c: c[0].__name__,
)
def test_nothing_is_executed(call, trajectories, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(written(tmp_path, [*trajectories[:2], {**trajectories[2], 'actions': Evil(*call)}]))
    assert 'asks for' in message or 'where numbers should be' in message
    assert sorted(os.listdir(tmp_path)) == ['mine.pkl']


@pytest.mark.parametrize(
    'what',
    [
        {'a': 1},
        [],
        [1, 2],
        'text',
        [{'observations': [[1]]}],
        [{'obs': [['a']], 'act': [1]}],
        [(1, 2)],
        [{'obs': np.array([object()]), 'act': [1]}],
        [{'obs': [[1, 2], [3]], 'act': [1, 1]}],
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_trajectory_is_one_line(what, tmp_path):
    refused(written(tmp_path, what))


def test_damage_is_one_line(trajectories, tmp_path):
    file = written(tmp_path, trajectories)
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for _ in range(6):
        damaged = bytearray(whole)
        damaged[rng.integers(60)] ^= 0xFF
        file.write_bytes(bytes(damaged[: rng.integers(20, len(whole) // 2)]))
        refused(file)


def test_a_bomb_ends_at_the_limit(tmp_path, monkeypatch):
    (tmp_path / 'mine.pkl').write_bytes(b'\x80\x04]' + b'q\x00' + b'(' + b'h\x00h\x00' * 1000 + b'e' + b'N' * 10 + b'.')
    refused(tmp_path / 'mine.pkl')
    huge = b'\x80\x04\x8e' + (1 << 40).to_bytes(8, 'little') + b'x'  # says it holds a terabyte
    (tmp_path / 'mine.pkl').write_bytes(huge)
    refused(tmp_path / 'mine.pkl')


def test_an_archive_is_made_of_them(trajectories, tmp_path):
    made = Archive(to_archive(written(tmp_path, trajectories), tmp_path / 'a'))
    made.check(archive_meta(cartpole, cartpole.env_kwargs()))
    assert made.file.name == 'imported_mine.parquet' and made.meta['replay'] is False
    for a, b in zip(next(made.groups()), trajectories, strict=True):
        assert np.array_equal(a['obs'], b['observations']) and np.array_equal(a['act'][:, 0], b['actions'])
        assert a['bd'] == len(b['actions']) and len(a['path']) == len(b['actions']) + 1


def test_trajectories_of_another_width_are_one_line(trajectories, tmp_path):
    file = written(tmp_path, [{**e, 'observations': e['observations'][:, :3]} for e in trajectories])
    with pytest.raises(ValueError) as e:
        to_archive(file, tmp_path / 'a')
    assert 'mine.pkl, episode 0: 3 observations and 1 actions a step, but cartpole has 4 and 1' in str(e.value)
    assert not (tmp_path / 'a').exists()


def test_pickles_are_prepared_and_trained_on(trajectories, tmp_path):
    file = written(tmp_path, trajectories)
    process = run(
        'prepare.py',
        '--dataset=cartpole',
        f'--archive={file}',
        '--out_dir=p',
        '--archive_dir=a',
        '--val_share=0.1',
        '--test_share=0.1',
        cwd=tmp_path,
    )
    assert (
        process.returncode == 0 and '60 of 60 episodes are kept' in process.stdout and 'not replayed' in process.stdout
    ), process.stderr
    process = run(
        'train.py',
        'config/cartpole.py',
        '--data_dir=p',
        '--max_iters=2',
        '--n_layer=1',
        '--batch_size=4',
        '--out_dir=o',
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    process = run('prepare.py', f'--archive={file}', '--out_dir=q', cwd=tmp_path)
    assert process.returncode and 'toy_nav' in process.stderr.strip().splitlines()[-1]
