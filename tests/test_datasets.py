"""The contract of data/README.md, held by every folder in data/ that is a data set: environments, archive, training, acting."""

import importlib
import json

import gymnasium as gym
import numpy as np
import pytest
from conftest import ROOT, SMALL, run
from gymnasium.utils.env_checker import check_env

from data import archive

NAMES = sorted(p.parent.name for p in (ROOT / 'data').glob('*/__init__.py'))
SIZE = {'toy_nav': 0.01}.get  # of what collect() makes by default
TINY = [*SMALL, '--log_interval=1', '--rollouts=2', '--max_iters=4', '--eval_interval=2', '--device=cpu']


@pytest.fixture(scope='module', params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope='module')
def world(name):
    return importlib.import_module(f'data.{name}')


@pytest.fixture(scope='module')
def folder(name, tmp_path_factory):
    """prepared, small, from archives made for it"""
    folder = tmp_path_factory.mktemp(name)
    done = run(
        'prepare.py',
        f'--dataset={name}',
        f'--size={SIZE(name, 0.05)}',
        f'--out_dir={folder / "prepared"}',
        f'--archive_dir={folder / "archives"}',
        '--val_share=0.1',
        '--test_share=0.2',
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope='module')
def out(name, folder):
    done = run('train.py', f'config/{name}.py', *TINY, f'--data_dir={folder / "prepared"}', '--out_dir=out', cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / 'out'


def test_the_environment_is_one_of_gymnasiums(world):
    env = world.make_env(**world.env_kwargs())
    check_env(env.unwrapped if not hasattr(env.unwrapped, 'info') else env, skip_render_check=True)
    _, info = env.reset(seed=0)
    spec = world.spec(world.env_kwargs())
    assert np.shape(info['bd']) == (len(spec['bd_names']),) and env.observation_space.shape == (len(spec['obs_names']),)
    assert isinstance(env.action_space, gym.spaces.Box if spec['continuous'] else gym.spaces.Discrete)


def test_many_at_once_move_as_one_alone(world):
    kwargs = world.env_kwargs()
    many, alone = world.make_vec(3, **kwargs), world.make_env(**kwargs)
    seen, info = many.reset(seed=[5, 6, 7])
    one, about = alone.reset(seed=6)
    many.action_space.seed(0)
    for _ in range(12):
        assert np.array_equal(seen[1], one) and np.array_equal(info['bd'][1], about['bd'])
        act = many.action_space.sample()
        seen, _, over, late, info = many.step(act)
        one, _, ended, _, about = alone.step(act[1])
        if ended:
            break


def test_what_is_collected_is_kept(world, folder, name):
    meta = json.loads((folder / 'prepared' / 'meta.json').read_text())
    spec = world.spec(world.env_kwargs())
    assert all(meta[k] == json.loads(json.dumps(v)) for k, v in spec.items())
    made = sum(len(archive.Archive(f)) for f in (folder / 'archives').glob('*.parquet'))
    kept = sum(c['episodes'] for c in meta['counts'].values())
    assert 0.98 * made <= kept <= made and set(meta['sources']) <= set(world.sources(world.env_kwargs()))


def test_it_trains_goes_on_and_acts(world, folder, out, name):
    done = run(
        'train.py',
        f'config/{name}.py',
        *TINY,
        '--max_iters=6',
        f'--data_dir={folder / "prepared"}',
        '--out_dir=out',
        '--init_from=resume',
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    spec = world.spec(world.env_kwargs())
    asked = (
        ['--bd=' + ','.join(str((a + b) / 2) for a, b in zip(spec['bd_low'], spec['bd_high']))]
        if spec['bd_names']
        else []
    )
    done = run('sample_policy.py', '--out_dir=out', *asked, '--json=done.json', cwd=folder)
    assert done.returncode == 0, done.stderr
    episode = json.loads((folder / 'done.json').read_text())[0]
    assert len(episode['path']) == len(episode['actions']) + 1 and (out / 'drive.png').read_bytes()[:4] == b'\x89PNG'


def test_it_is_scored(folder, out):
    done = run(
        'sample_policy.py',
        '--out_dir=out',
        '--eval=test',
        '--eval_episodes=4',
        f'--data_dir={folder / "prepared"}',
        cwd=folder,
    )
    assert done.returncode == 0 and (out / 'eval_test.json').is_file(), done.stderr
