"""
Sharing: what is exported is what was prepared, others can load it, it can be prepared again, and a card's numbers
are right.
"""

import errno
import json
import os
import re
import shutil
from types import ModuleType

os.environ['HF_HUB_OFFLINE'] = '1'  # before datasets is imported: nobody is called

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import PREPARE, ROOT, TINY, hashes

from data import cartpole, cartpole_bins, toy_nav
from data.prepared import SPLITS, Prepared, lock
from nanopilot import hub

ARRAYS = ('obs', 'act', 'taught', 'bd', 'hard')


def about(data, kwargs):
    spec = data.spec(kwargs)
    return {
        'dataset': data.__name__.split('.')[1],
        'env_kwargs': kwargs,
        'n_obs': len(spec['obs_names']),
        'n_act': len(spec['act_names']) if spec['continuous'] else 1,
        'n_bd': len(spec['bd_names']),
        **spec,
    }


@pytest.fixture(scope='module')
def exported(prepared, kwargs, tmp_path_factory):
    to = tmp_path_factory.mktemp('hub') / 'shared'
    hub.export(prepared, to, toy_nav, about(toy_nav, kwargs), 'cc-by-4.0')
    return to


@pytest.fixture(autouse=True)
def undrawn(exported, monkeypatch):
    """one export has its picture drawn, which takes seconds"""
    for data in toy_nav, cartpole, cartpole_bins:
        monkeypatch.setattr(data, 'draw_episodes', lambda file, episodes, kwargs: file.write_bytes(b'drawn'))


@pytest.fixture
def again(prepared, kwargs, tmp_path):
    """again() exports into tmp_path/hub"""
    return lambda to='hub': hub.export(prepared, tmp_path / to, toy_nav, about(toy_nav, kwargs), 'mit')


def head(card):
    return pytest.importorskip('yaml').safe_load(card.read_text().split('---\n')[1])


def loaded(folder, cache):
    datasets = pytest.importorskip('datasets')
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def same(rows, split, began=None):
    """rows of a data set on the hub are the prepared arrays, bit for bit"""
    words = split.episodes()
    assert len(rows) == len(split)
    for i, (row, word) in enumerate(zip(rows, words)):
        here = slice(split.start[i], split.start[i + 1])
        for name in ARRAYS:
            want = getattr(split, name)[i if name in ('bd', 'hard') else here]
            assert np.array_equal(np.array(row[name], want.dtype), want, equal_nan=name == 'hard'), (name, i)
        path = np.array(row['path'], np.float32)
        assert np.array_equal(path[1:], split.path[here]) and (
            began is None or np.array_equal(path[0], began[row['seed']])
        )
        assert {k: row[k] for k in hub.WORDS} == {k: word[k] for k in hub.WORDS}


# ------------------------------------------------------------------------------
# a data set


def test_others_load_what_was_prepared(exported, prepared, demos, tmp_path):
    there, began = loaded(exported, tmp_path), {e['seed']: e['path'][0] for e in demos}
    assert set(there) == {'train', 'validation', 'test'}
    for s in SPLITS:
        same(there[hub.HUB[s]], Prepared(prepared, s), began)


def test_the_cards_numbers_are_right(exported, prepared):
    card, said = (exported / 'README.md').read_text(), head(exported / 'README.md')
    assert (
        said['license'] == 'cc-by-4.0'
        and said['task_categories'] == ['robotics']
        and said['language'] == ['en']
        and said['size_categories'] == ['n<1K']
    )
    for files in said['configs'][0]['data_files']:
        split = Prepared(prepared, {v: k for k, v in hub.HUB.items()}[files['split']])
        found = [pq.read_metadata(f).num_rows for f in exported.glob(files['path'])]
        assert (
            sum(found) == len(split)
            and f'| {files["split"]} | {len(split):,} | {len(split.obs):,} | {len(split):,} | {len(found)} |' in card
        )
    column = pq.read_schema(next(exported.glob('data/test*'))).names
    assert re.findall(r'^\| (\w+) \| `', card, re.M)[: len(column)] == column
    for picture in re.findall(r'\]\((.*?)\)', card):
        assert (exported / picture).stat().st_size > 1000


def test_no_path_of_the_machine_is_told(exported, prepared, trained):
    told = b''.join(f.read_bytes() for f in exported.rglob('*') if f.is_file()) + (trained / 'README.md').read_bytes()
    for path in exported.parent, prepared, trained, ROOT, os.path.expanduser('~'):
        assert str(path).encode() not in told or str(path) in ('/', '/root')


def test_prepared_again_it_is_the_same(exported, prepared, script, tmp_path):
    """splits, words, tokens and arrays, to the byte"""
    script(
        'prepare.py', f'--archive={exported}', '--describe=keep', '--out_dir=p', '--seed=7'
    )  # another seed would split otherwise
    ours, theirs = hashes(tmp_path / 'p'), hashes(prepared)
    assert {k for k in theirs if ours[k] != theirs[k]} == {'meta.json'}
    ours, theirs = (Prepared(folder, 'test').meta for folder in (tmp_path / 'p', prepared))
    assert (
        ours['counts'] == theirs['counts'] and ours['normaliser'] == theirs['normaliser'] and len(ours['archives']) == 3
    )


def test_it_is_written_in_files_of_some_size_and_the_same_bytes_again(again, exported, monkeypatch, tmp_path, prepared):
    again('one'), again('two')
    assert hashes(tmp_path / 'one' / 'data') == hashes(exported / 'data')
    again('two')  # over what is ours
    assert {k: v for k, v in hashes(tmp_path / 'one').items() if k != 'README.md'} == {
        k: v for k, v in hashes(tmp_path / 'two').items() if k != 'README.md'
    }
    monkeypatch.setattr(hub, 'ROWS', 30)
    monkeypatch.setattr(hub, 'SHARD', 1)
    again('many')
    files, n = (
        sorted(f.name for f in (tmp_path / 'many' / 'data').glob('train-*')),
        -(-len(Prepared(prepared, 'train')) // 30),
    )
    assert files == [f'train-{i:05d}-of-{n:05d}.parquet' for i in range(n)] and n > 2
    same(
        [row for f in files for row in pq.read_table(tmp_path / 'many' / 'data' / f).to_pylist()],
        Prepared(prepared, 'train'),
    )


def test_prepare_exports_what_is_there_or_prepares_it_first(demo_archive, script, capsys, tmp_path):
    args = [f'--archive={demo_archive}', '--out_dir=p', *PREPARE, '--export=hub/x', '--licence=mit']
    script('prepare.py', *args)
    assert (
        'verified' in capsys.readouterr().out
        and sorted(f.name for f in tmp_path.iterdir()) == ['hub', 'p']
        and os.listdir(tmp_path / 'hub') == ['x']
    )
    before = hashes(tmp_path / 'p')
    script('prepare.py', *args[:-2], '--export=hub/y')
    said = capsys.readouterr().out
    assert 'verified' not in said and 'hf upload you/y hub/y' in said and hashes(tmp_path / 'p') == before
    assert hashes(tmp_path / 'hub' / 'x' / 'data') == hashes(tmp_path / 'hub' / 'y' / 'data')
    script('prepare.py', *args[:-2], '--export=hub/y', '--texts=4')
    assert 'verified' in capsys.readouterr().out and hashes(tmp_path / 'p') != before


@pytest.mark.parametrize('file', ['mine.txt', 'README.md', 'data/notes.txt', '.git/config'])
def test_a_folder_of_something_else_is_refused(file, again, refuses, exported, tmp_path):
    shutil.copytree(exported, tmp_path / 'hub')
    (tmp_path / 'hub' / file).parent.mkdir(exist_ok=True)
    (tmp_path / 'hub' / file).write_text('mine')
    before = hashes(tmp_path)
    assert file in refuses(
        'prepare.py', '--export=hub', '--size=0.001', '--out_dir=p', '--archive_dir=a', words=['hub', 'Name a folder']
    )
    with pytest.raises(ValueError, match='Name a folder'):
        again()
    assert hashes(tmp_path) == before


def test_a_file_or_a_licence_of_two_lines_is_refused(refuses, tmp_path):
    (tmp_path / 'hub').write_text('')
    refuses('prepare.py', '--export=hub', words=['hub is a file'])
    refuses('prepare.py', '--export=new', '--licence=mit\ntags: [x]', words=['licence', 'apache-2.0'])


@pytest.mark.parametrize('there', [False, True])
@pytest.mark.parametrize('what', ['write_table', 'rename', 'fsync'])
def test_whatever_fails_nothing_is_half_written(what, there, again, monkeypatch, tmp_path):
    """no space, at any moment: one line, and what was there is as it was"""
    if there:
        again()
    before, owner = hashes(tmp_path), pq.ParquetWriter if what == 'write_table' else os
    real = getattr(owner, what)

    def failing(*a, **k):
        if what == 'rename' and not str(a[0]).endswith('.partial'):
            return real(*a, **k)
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patched:
        patched.setattr(owner, what, failing)
        with pytest.raises(OSError, match='No space left.*Free some space'):
            again()
    assert hashes(tmp_path) == before and not list(tmp_path.glob('*.partial')) and not list(tmp_path.glob('*.old'))


def test_two_at_once_are_refused(again, tmp_path):
    (tmp_path / 'hub.partial').mkdir()
    held = lock(tmp_path / 'hub.partial')
    with pytest.raises(OSError, match='another process'):
        again()
    os.close(held)
    again()  # what a killed one has left is in nobody's way


def test_returns_and_discrete_actions(script, tmp_path):
    """
    no language, int64 actions, an environment with arguments; the splits survive although nothing in the episodes
    tells them
    """
    args = ['--dataset=cartpole', '--env_kwargs={"discount": 0.99}']
    script(
        'prepare.py',
        *args,
        '--size=0.02',
        '--out_dir=p',
        '--archive_dir=a',
        '--val_share=0.2',
        '--test_share=0.2',
        '--export=hub',
    )
    said, card = head(tmp_path / 'hub' / 'README.md'), (tmp_path / 'hub' / 'README.md').read_text()
    assert 'language' not in said and '## Prompts' not in card and '--env_kwargs="$(cat hub/environment.json)"' in card
    there = loaded(tmp_path / 'hub', tmp_path / 'cache')
    for s in SPLITS:
        same(there[hub.HUB[s]], Prepared(tmp_path / 'p', s))
    script(
        'prepare.py',
        '--dataset=cartpole',
        '--archive=hub',
        f'--env_kwargs={(tmp_path / "hub" / "environment.json").read_text()}',
        '--out_dir=q',
    )
    for s in SPLITS:
        ours, theirs = Prepared(tmp_path / 'q', s), Prepared(tmp_path / 'p', s)
        assert all(np.array_equal(getattr(ours, k), getattr(theirs, k)) for k in (*ARRAYS, 'path', 'start'))


def test_no_descriptor_at_all(script, tmp_path):
    script(
        'prepare.py',
        '--dataset=cartpole_bins',
        '--size=0.02',
        '--out_dir=p',
        '--archive_dir=a',
        '--val_share=0.2',
        '--test_share=0.2',
        '--export=hub',
    )
    assert 'path' not in pq.read_schema(next((tmp_path / 'hub' / 'data').glob('test*'))).names
    script('prepare.py', '--dataset=cartpole_bins', '--archive=hub', '--out_dir=q')
    assert all(np.array_equal(Prepared(tmp_path / 'q', s).act, Prepared(tmp_path / 'p', s).act) for s in SPLITS)


def test_trajectories_that_cannot_be_replayed(tmp_path, script):
    import pickle

    episodes = list(cartpole.collect('noisy', 0.02, 3, cartpole.env_kwargs()))
    (tmp_path / 'mine.pkl').write_bytes(
        pickle.dumps(
            [{'observations': e['obs'], 'actions': e['act'], 'rewards': np.ones(len(e['act']))} for e in episodes]
        )
    )
    script(
        'prepare.py',
        '--dataset=cartpole',
        '--archive=mine.pkl',
        '--out_dir=p',
        '--archive_dir=a',
        '--val_share=0.2',
        '--test_share=0.2',
        '--export=hub',
    )
    assert 'could not be replayed' in (tmp_path / 'hub' / 'README.md').read_text()
    script('prepare.py', '--dataset=cartpole', '--archive=hub', '--out_dir=q')
    assert all(np.array_equal(Prepared(tmp_path / 'q', s).path, Prepared(tmp_path / 'p', s).path) for s in SPLITS)


# ------------------------------------------------------------------------------
# a policy


def test_the_model_card_says_what_the_run_did(trained, checkpoint, prepared):
    said, card, info = (
        head(trained / 'README.md'),
        (trained / 'README.md').read_text(),
        json.loads((checkpoint / 'checkpoint.json').read_text()),
    )
    assert (
        said['library_name'] == 'nanopilot'
        and said['pipeline_tag'] == 'robotics'
        and said['datasets'] == ['toy_nav']
        and said['license'] == 'mit'
    )
    rows = [json.loads(line) for line in open(trained / 'log.jsonl')]
    validated = [(str(r['step']), f'{r["val"]:.4f}') for r in rows if 'val' in r]
    assert [v[0] for v in validated] == ['40', '60'] and re.findall(
        r'^\| (\d+) \| (\d+\.\d{4}) \|$', card, re.M
    ) == validated
    assert (
        f'Step 60 of 60, validation loss {info["val_loss"]:.4f}; the lowest so far {info["best"]["loss"]:.4f}.' in card
    )
    assert (
        f'{len(Prepared(prepared, "train"))} episodes' in card
        and info['data']['archives'][0]['sha256'] in card
        and '| n_embd | `16` |' in card
    )
    from model import GPT

    assert f'{GPT.from_checkpoint(checkpoint, "cpu")[0].num_params():,} parameters' in card


def test_the_model_cards_example_runs(trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    (example,) = re.findall(r'```python\n(.*?)```', (trained / 'README.md').read_text(), re.S)
    names = {}
    exec(example, names)
    assert names['obs'].shape == (1, 9) and names['policy'].prompts[0]


def test_a_card_of_ones_own_is_kept(script, prepared, tmp_path):
    (tmp_path / 'o').mkdir()
    (tmp_path / 'o' / 'README.md').write_text('mine')
    train = [*TINY, f'--data_dir={prepared}', '--max_iters=1', '--eval_interval=1']
    script('train.py', *train, '--out_dir=o')
    assert (tmp_path / 'o' / 'README.md').read_text() == 'mine'
    script('train.py', *train, '--out_dir=other', '--rollouts=2')
    assert re.search(r'^\| step \| loss \| rollouts \|$', (tmp_path / 'other' / 'README.md').read_text(), re.M)


def test_where_episodes_without_a_simulator_began_is_not_known(prepared):
    recorded = ModuleType('data.recorded')  # a data set that has neither environments nor from_trajectory
    assert np.isnan(hub.first_bd(Prepared(prepared, 'test'), slice(0, 2), np.array([0, -1]), recorded)).all()
