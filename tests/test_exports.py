"""
Exports for other libraries: what they read is what was prepared, our importers read it back, and they read what those
libraries write as those do.
"""

import errno
import json
import os
import pickle
import subprocess
import sys

os.environ['HF_HUB_OFFLINE'] = '1'  # before datasets is imported: nobody is called

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import hashes, run

from data import cartpole, toy_nav
from data.archive import Archive
from data.contract import archive_meta
from data.exporters import episodes as exports
from data.exporters import lerobot, minari
from data.importers.archives import Options, archives_of
from data.prepared import SPLITS, Prepared, lock

FORMATS = {'minari': minari, 'lerobot': lerobot}
SHARES = ['--val_share=0.2', '--test_share=0.2']
FRAMES = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = LeRobotDataset('you/x', root=sys.argv[1])
rows = data.hf_dataset.with_format('numpy')[:]
texts = [data.meta.tasks.iloc[i].name for i in rows['task_index']]
kept = 'observation.state', 'action', 'next.reward', 'next.done', 'taught', 'episode_index', 'timestamp'
np.savez(sys.argv[2], task=np.array(texts), **{name: rows[name] for name in kept})
print(json.dumps([data.num_episodes, data.fps, data[0]['task'], data[len(data) - 1]['task']]))
"""


class Wordless:
    """toy_nav's episodes without what they are about, which no importer knows"""

    __name__ = 'data.mine'

    def spec(self, kwargs):
        return {**toy_nav.spec(kwargs), 'bd_names': [], 'bd_low': [], 'bd_high': []}


@pytest.fixture(scope='module')
def cartpole_folder(tmp_path_factory):
    """CartPole, a little, prepared"""
    folder = tmp_path_factory.mktemp('cartpole')
    args = ['--dataset=cartpole', '--size=0.02', '--out_dir=p', '--archive_dir=a', *SHARES, '--workers=1']
    process = run('prepare.py', *args, cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder / 'p'


@pytest.fixture(scope='module')
def recorded_folder(tmp_path_factory):
    """CartPole from a pickle, of which no seeds are known"""
    folder = tmp_path_factory.mktemp('recorded')
    rng = np.random.default_rng(0)
    rows = []
    for e in cartpole.collect('noisy', 0.02, 3, cartpole.env_kwargs()):
        rewards = rng.normal(size=len(e['act']))
        rows.append({'observations': e['obs'], 'actions': e['act'], 'rewards': rewards})
    (folder / 'x.pkl').write_bytes(pickle.dumps(rows))
    args = ['--dataset=cartpole', '--archive=x.pkl', '--out_dir=p', '--archive_dir=a', *SHARES, '--workers=1']
    process = run('prepare.py', *args, cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder / 'p'


@pytest.fixture
def exported(prepared, cartpole_folder, recorded_folder, kwargs, tmp_path):
    """exported('minari', 'toy_nav') -> the folder, and the Prepared splits that it is of"""
    of = {'toy_nav': (prepared, toy_nav, kwargs), 'cartpole': (cartpole_folder, cartpole, cartpole.env_kwargs())}
    of['recorded'] = (recorded_folder, cartpole, cartpole.env_kwargs())

    def export(form, what, name='mine-v0'):
        if form == 'minari':
            pytest.importorskip('h5py')
        folder, data, arguments = of[what]
        FORMATS[form].export(folder, tmp_path / name, data, archive_meta(data, arguments), 'mit')
        return tmp_path / name, [Prepared(folder, s) for s in SPLITS]

    return export


def rows_of(splits):
    """yields (Prepared, slice of its steps, number of the episode in it, its words)"""
    for split in splits:
        for i, words in enumerate(split.episodes()):
            yield split, slice(split.start[i], split.start[i + 1]), i, words


def replayed(data, kwargs, seed, actions):
    """one environment, step by step -> observations (T + 1), rewards (T,), terminated, truncated"""
    env = data.make_env(**kwargs)
    obs, _ = env.reset(seed=seed)
    seen, rewards = [obs], []
    for act in actions:
        obs, reward, terminated, truncated, _ = env.step(act)
        seen.append(obs)
        rewards.append(reward)
    return np.array(seen), np.array(rewards), terminated, truncated


# ------------------------------------------------------------------------------
# Minari


def loaded(folder, monkeypatch):
    library = pytest.importorskip('minari', reason='minari is not installed: whether it reads an export is not tested')
    monkeypatch.setenv('MINARI_DATASETS_PATH', str(folder.parent))
    return library.load_dataset(folder.name)


@pytest.mark.parametrize('what', ['toy_nav', 'cartpole'])
def test_minari_reads_what_was_prepared(what, exported, monkeypatch):
    """observations to the last, rewards and ends are those of the environment"""
    folder, splits = exported('minari', what)
    there = loaded(folder, monkeypatch)
    data = {'toy_nav': toy_nav, 'cartpole': cartpole}[what]
    assert len(there) == sum(map(len, splits)) and there.total_steps == sum(len(s.obs) for s in splits)
    for k, (e, (split, steps, _, words)) in enumerate(zip(there, rows_of(splits))):
        obs = e.observations
        if what == 'toy_nav':
            assert obs['mission'] == [words['text'][0]] * (len(e) + 1)
            assert there.observation_space['mission'].contains(obs['mission'][0])
            obs = obs['observation']
        assert np.array_equal(obs[:-1], split.obs[steps]) and np.array_equal(e.actions, split.act[steps])
        assert there.action_space.contains(e.actions[0])
        assert np.array_equal(e.infos['bd'][1:], split.path[steps])
        assert np.array_equal(e.infos['taught'][:-1], split.taught[steps])
        if k % 7:
            continue
        seen, rewards, terminated, _ = replayed(data, split.meta['env_kwargs'], words['seed'], e.actions)
        assert np.array_equal(obs, seen) and np.array_equal(e.rewards, rewards)
        assert (e.terminations[-1], e.truncations[-1]) == (terminated, not terminated)
        assert not e.terminations[:-1].any() and not e.truncations[:-1].any()


def test_minari_has_all_words_and_the_splits(exported, monkeypatch):
    folder, splits = exported('minari', 'toy_nav')
    there = loaded(folder, monkeypatch)
    about = there.storage.get_episode_metadata(range(len(there)))
    for k, (said, (split, _, _, words)) in enumerate(zip(about, rows_of(splits))):
        assert list(said['text']) == words['text'] and list(said.get('loose', [])) == words['loose']
        assert said['split'] == split.split and said['seed'] == words['seed'] and said['asked'] == words['asked']
        first, end = there.storage.metadata['splits'][split.split]
        assert first <= k < end
    assert there.env_spec is None  # toy_nav is not registered with Gymnasium


def test_minari_makes_the_environment_again(exported, monkeypatch):
    folder, splits = exported('minari', 'cartpole')
    there = loaded(folder, monkeypatch)
    env = there.recover_environment()
    assert env.spec.id == 'CartPole-v1' and env.spec.max_episode_steps == 500
    obs, _ = env.reset(seed=next(iter(there.storage.get_episode_metadata([0])))['seed'])
    assert np.array_equal(obs, splits[0].obs[0])


def test_what_nothing_replays_is_said(exported, monkeypatch, capsys):
    """the last observation twice, rewards whose sums are the returns, and words about it"""
    folder, splits = exported('minari', 'recorded')
    assert '40 episodes could not be replayed' in capsys.readouterr().out
    there = loaded(folder, monkeypatch)
    assert 'could not be replayed' in there.storage.metadata['description']
    for e, (split, steps, *_) in zip(there, rows_of(splits)):
        assert np.array_equal(e.observations[-1], split.obs[steps][-1])
        assert np.array_equal(np.cumsum(e.rewards).astype(np.float32), split.path[steps][:, 0])
        assert e.truncations[-1] == (len(e) == 500) and e.terminations[-1] == (len(e) < 500)


def test_what_has_no_rewards_says_so(script, capsys, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [{'observations': rng.normal(size=(n, 3)), 'actions': rng.normal(size=(n, 1))} for n in range(5, 25)]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(rows))
    args = ['--dataset=gym', '--archive=x.pkl', '--out_dir=p', '--archive_dir=a', *SHARES]
    script('prepare.py', *args, '--export=l', '--export_format=lerobot')
    assert 'their rewards are not known' in capsys.readouterr().out
    assert 'next.reward' not in frames(tmp_path / 'l') and frames(tmp_path / 'l')['action'].shape == (290,)
    pytest.importorskip('h5py')
    script('prepare.py', *args, '--export=m-v0', '--export_format=minari')
    there = loaded(tmp_path / 'm-v0', monkeypatch)
    assert 'rewards are not known' in there.storage.metadata['description'] and there.env_spec is None
    assert there[0].actions.shape == (len(there[0]), 1) and not there[0].rewards.any()


# ------------------------------------------------------------------------------
# LeRobot


def frames(folder):
    """-> the columns of all frames, arrays"""
    tables = [pq.read_table(file) for file in sorted(folder.glob('data/*/*.parquet'))]
    assert len(tables) == 1
    return {name: np.array(tables[0][name].to_pylist()) for name in tables[0].schema.names}


@pytest.mark.parametrize('what', ['toy_nav', 'cartpole'])
def test_lerobots_files_hold_what_was_prepared(what, exported):
    folder, splits = exported('lerobot', what)
    there, info = frames(folder), json.loads((folder / 'meta' / 'info.json').read_text())
    for name, array in ('observation.state', 'obs'), ('action', 'act'), ('taught', 'taught'):
        wanted = np.concatenate([getattr(split, array) for split in splits])
        assert np.array_equal(there[name].astype(wanted.dtype), wanted)
    lengths = np.concatenate([split.length for split in splits])
    assert np.array_equal(np.bincount(there['episode_index']), lengths)
    assert np.array_equal(np.flatnonzero(there['next.done']), np.cumsum(lengths) - 1)
    assert info['fps'] == {'toy_nav': 30, 'cartpole': 50}[what] and info['total_frames'] == len(there['index'])
    assert np.allclose(there['timestamp'], there['frame_index'] / info['fps'])
    counts = [len(split) for split in splits]
    assert info['splits']['test'] == f'{sum(counts[:2])}:{sum(counts)}'
    assert {*info['features']} == {*there}


def test_lerobots_tasks_are_the_texts(exported):
    pandas = pytest.importorskip('pandas', reason='pandas is not installed, with which LeRobot reads tasks')
    folder, splits = exported('lerobot', 'toy_nav')
    tasks = pandas.read_parquet(folder / 'meta' / 'tasks.parquet')
    assert tasks.index.name == 'task' and tasks['task_index'].tolist() == list(range(len(tasks)))
    there = frames(folder)
    about = pq.read_table(folder / 'meta' / 'episodes').to_pylist()
    for said, (split, steps, _, words) in zip(about, rows_of(splits), strict=True):
        a, b = said['dataset_from_index'], said['dataset_to_index']
        assert b - a == said['length'] == steps.stop - steps.start and said['tasks'] == [words['text'][0]]
        assert {tasks.iloc[i].name for i in there['task_index'][a:b]} == {words['text'][0]}
        assert said['text'] == words['text'] and said['split'] == split.split and said['seed'] == words['seed']


def test_lerobots_statistics_are_those_of_the_frames(exported):
    folder, splits = exported('lerobot', 'cartpole')
    stats = json.loads((folder / 'meta' / 'stats.json').read_text())
    obs = np.concatenate([split.obs for split in splits]).astype(np.float64)
    there = stats['observation.state']
    assert np.array_equal(there['min'], obs.min(0)) and np.array_equal(there['max'], obs.max(0))
    assert np.allclose(there['mean'], obs.mean(0)) and np.allclose(there['std'], obs.std(0))
    assert there['count'] == [len(obs)] and len(there['q99']) == 4
    first = pq.read_table(folder / 'meta' / 'episodes')['stats/observation.state/mean'][0].as_py()
    assert np.allclose(first, splits[0].obs[: splits[0].length[0]].mean(0))


def test_lerobot_files_are_of_some_size(exported, monkeypatch):
    monkeypatch.setattr(exports, 'BLOCK', 10)
    monkeypatch.setattr(lerobot, 'SHARD', 1)
    folder, splits = exported('lerobot', 'cartpole')
    files = sorted(folder.glob('data/chunk-000/file-*.parquet'))
    about = pq.read_table(folder / 'meta' / 'episodes').to_pylist()
    assert len(files) == sum(-(-len(split) // 10) for split in splits)
    for said in about:
        numbers = pq.read_table(files[said['data/file_index']])['episode_index'].to_pylist()
        assert numbers.count(said['episode_index']) == said['length']


@pytest.mark.parametrize('what', ['toy_nav', 'cartpole'])
def test_lerobots_own_reader(what, exported, tmp_path):
    """lerobot pins torch, so that it is not among the extras: it is found where somebody has put it on PYTHONPATH"""
    probe = [sys.executable, '-c', 'from lerobot.datasets.lerobot_dataset import LeRobotDataset']
    found = subprocess.run(probe, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f'lerobot cannot be imported: {found.stderr.strip().splitlines()[-1]}')
    folder, splits = exported('lerobot', what)
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path / 'cache')}
    command = [sys.executable, '-c', FRAMES, folder, tmp_path / 'read.npz']
    process = subprocess.run(command, capture_output=True, text=True, env=env)
    assert process.returncode == 0, process.stderr
    there = np.load(tmp_path / 'read.npz')
    for name, array in ('observation.state', 'obs'), ('action', 'act'), ('taught', 'taught'):
        assert np.array_equal(there[name], np.concatenate([getattr(split, array) for split in splits]))
    texts = [words['text'][0] if words['text'] else '' for *_, words in rows_of(splits)]
    assert np.array_equal(there['task'], np.repeat(texts, np.concatenate([split.length for split in splits])))
    fps = {'toy_nav': 30, 'cartpole': 50}[what]
    assert json.loads(process.stdout.splitlines()[-1]) == [len(texts), fps, texts[0], texts[-1]]


# ------------------------------------------------------------------------------
# and back


def imported(folder, tmp_path, dataset, kwargs):
    meta = archive_meta(dataset, kwargs)
    (file,) = archives_of(str(folder), tmp_path / 'archives', dataset, kwargs, meta, Options())
    return [e for group in Archive(file).groups() for e in group]


@pytest.mark.parametrize('what', ['cartpole', 'recorded'])
@pytest.mark.parametrize('form', FORMATS)
def test_our_importers_read_returns_back(form, what, exported, tmp_path):
    folder, splits = exported(form, what)
    back = imported(folder, tmp_path, cartpole, cartpole.env_kwargs())
    for e, (split, steps, i, _) in zip(back, rows_of(splits), strict=True):
        assert np.array_equal(e['obs'], split.obs[steps]) and np.array_equal(e['act'][:, 0], split.act[steps])
        assert np.array_equal(e['path'][1:], split.path[steps]) and np.array_equal(e['bd'], split.bd[i])


@pytest.mark.parametrize('form', FORMATS)
def test_our_importers_read_words_back(form, exported, kwargs, tmp_path):
    folder, splits = exported(form, 'toy_nav')
    back = imported(folder, tmp_path, Wordless(), kwargs)
    for e, (split, steps, _, words) in zip(back, rows_of(splits), strict=True):
        assert np.array_equal(e['obs'], split.obs[steps]) and np.array_equal(e['act'], split.act[steps])
        assert e['text'] == words['text'][:1]


def written_by_minari(form, tmp_path):
    """a data set that the library itself writes, with Dict observations and a mission -> its folder"""
    library = pytest.importorskip('minari', reason='minari is not installed: what it writes is not read')
    import gymnasium as gym
    from minari.data_collector.episode_buffer import EpisodeBuffer

    rng, buffers = np.random.default_rng(0), []
    for n in (9, 4, 17):
        obs = {
            'numbers': rng.normal(size=(n + 1, 4)).astype(np.float32),
            'mission': ['go to the bed'] * (n + 1),
        }
        last = np.arange(n) == n - 1
        buffers.append(
            EpisodeBuffer(
                observations=obs,
                actions=rng.integers(2, size=n),
                rewards=rng.normal(size=n),
                terminations=last,
                truncations=last & False,
                infos=None,
            )
        )
    box = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    space = gym.spaces.Dict({'numbers': box, 'mission': gym.spaces.Text(20, charset='abcdefghijklmnopqrstuvwxyz ')})
    spaces = {'observation_space': space, 'action_space': gym.spaces.Discrete(2)}
    library.create_dataset_from_buffers('theirs-v0', buffers, **spaces, data_format=form)
    return tmp_path / 'theirs-v0'


@pytest.mark.filterwarnings('ignore')  # that nobody is named as author
@pytest.mark.parametrize('form', ['hdf5', 'arrow', 'parquet'])
def test_our_importer_reads_what_minari_writes_as_minari_does(form, monkeypatch, tmp_path):
    monkeypatch.setenv('MINARI_DATASETS_PATH', str(tmp_path))
    folder = written_by_minari(form, tmp_path)
    back = imported(folder, tmp_path, cartpole, cartpole.env_kwargs())
    for e, theirs in zip(back, loaded(folder, monkeypatch), strict=True):
        assert np.array_equal(e['obs'], theirs.observations['numbers'][:-1])
        assert np.array_equal(e['act'][:, 0], theirs.actions) and e['text'] == theirs.observations['mission'][:1]
        assert np.array_equal(e['path'][1:, 0], np.cumsum(theirs.rewards).astype(np.float32))


# ------------------------------------------------------------------------------
# what is refused


def test_prepare_exports_in_each_format(script, tmp_path, capsys):
    pytest.importorskip('h5py')
    args = ['--dataset=cartpole', '--size=0.02', '--out_dir=p', '--archive_dir=a', *SHARES]
    script('prepare.py', *args, '--export=m/x-v0', '--export_format=minari')
    assert 'MINARI_DATASETS_PATH=m minari show x-v0' in capsys.readouterr().out
    script('prepare.py', *args, '--export=l/x', '--export_format=lerobot', '--licence=cc-by-4.0')
    said = capsys.readouterr().out
    assert 'verified' not in said and "LeRobotDataset('you/x', root='l/x')" in said
    assert 'license: cc-by-4.0' in (tmp_path / 'l' / 'x' / 'README.md').read_text()
    script('prepare.py', '--dataset=cartpole', '--archive=m/x-v0,l/x', '--out_dir=q', '--archive_dir=b')


def test_what_cannot_be_exported_is_refused(refuses, monkeypatch, tmp_path):
    pytest.importorskip('h5py')
    (tmp_path / 'x-v0').mkdir()
    (tmp_path / 'x-v0' / 'mine.txt').write_text('mine')
    for form in FORMATS:
        words = ['export=x-v0 is there', 'not there yet']
        refuses('prepare.py', '--export=x-v0', f'--export_format={form}', words=words)
        refuses('prepare.py', '--export=y-v0', f'--export_format={form}', '--licence=a b', words=['apache-2.0'])
    refuses('prepare.py', '--export=m/toy.nav', '--export_format=minari', words=['--export=m/toy-nav-v0'])
    refuses('prepare.py', '--export=y', '--export_format=rlds', words=['hub', 'minari', 'lerobot'])
    monkeypatch.setitem(sys.modules, 'h5py', None)
    refuses('prepare.py', '--export=y-v0', '--export_format=minari', words=["pip install '.[hdf5]'"])
    assert [f.name for f in tmp_path.iterdir()] == ['x-v0']


@pytest.mark.parametrize('form', FORMATS)
def test_the_same_bytes_again(form, exported, tmp_path):
    exported(form, 'cartpole', 'a-v0'), exported(form, 'cartpole', 'b-v0')
    named = {'README.md', 'data/metadata.json'}  # these have the name of the folder
    ours, theirs = hashes(tmp_path / 'a-v0'), hashes(tmp_path / 'b-v0')
    assert {k for k in ours if ours[k] != theirs[k]} <= named and {*ours} == {*theirs}


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('what', ['write', 'rename', 'fsync'])
def test_whatever_fails_nothing_is_half_written(what, form, exported, monkeypatch, tmp_path):
    """no space, at any moment: one line"""

    def failing(*a, **k):
        raise OSError(errno.ENOSPC, 'No space left on device')

    if what == 'write':
        monkeypatch.setattr(minari, 'write_episode', failing)
        monkeypatch.setattr(lerobot, 'stats_of', failing)
    else:
        monkeypatch.setattr(os, what, failing)
    with pytest.raises(OSError, match='No space left.*Free some space'):
        exported(form, 'cartpole')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('form', FORMATS)
def test_two_at_once_are_refused(form, exported, tmp_path):
    (tmp_path / 'mine-v0.partial').mkdir()
    held = lock(tmp_path / 'mine-v0.partial')
    with pytest.raises(OSError, match='another process'):
        exported(form, 'cartpole')
    os.close(held)
    exported(form, 'cartpole')  # what a killed one has left is in nobody's way
