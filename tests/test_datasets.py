"""
The contract of data/README.md: held by every folder in data/ that is a data set, the same as what the code asks
for, and what is missing is named.
"""

import ast
import importlib
import json
import re
import shlex
import shutil
import types

import gymnasium as gym
import numpy as np
import pytest
from conftest import ROOT, SMALL, refused, run
from gymnasium.utils.env_checker import check_env

from data import archive
from data.prepared import Prepared

NAMES = sorted({p.parent.name for p in (ROOT / 'data').glob('*/__init__.py')} - {'gym'})  # made of a file: test_gym.py
SIZE = {'toy_nav': 0.01, 'metaworld': 0.03}.get  # of what collect() makes by default
TINY = [*SMALL, '--log_interval=1', '--rollouts=2', '--max_iters=4', '--eval_interval=2', '--device=cpu']


@pytest.fixture(scope='module', params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope='module')
def dataset(name):
    return importlib.import_module(f'data.{name}')


@pytest.fixture(scope='module')
def folder(name, tmp_path_factory):
    """prepared, small, from archives made for it"""
    folder = tmp_path_factory.mktemp(name)
    process = run(
        'prepare.py',
        f'--dataset={name}',
        f'--size={SIZE(name, 0.05)}',
        f'--out_dir={folder / "prepared"}',
        f'--archive_dir={folder / "archives"}',
        '--val_share=0.1',
        '--test_share=0.2',
        cwd=folder,
    )
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture(scope='module')
def config_file(name, dataset):
    """the settings to train it with"""
    if hasattr(dataset, 'config_file'):
        return dataset.config_file(dataset.env_kwargs())
    return f'config/{name}.py'


@pytest.fixture(scope='module')
def out(config_file, folder):
    process = run('train.py', config_file, *TINY, f'--data_dir={folder / "prepared"}', '--out_dir=out', cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder / 'out'


def test_the_environment_is_one_of_gymnasiums(dataset):
    env = dataset.make_env(**dataset.env_kwargs())
    check_env(env.unwrapped if not hasattr(env.unwrapped, 'info') else env, skip_render_check=True)
    _, info = env.reset(seed=0)
    spec = dataset.spec(dataset.env_kwargs())
    assert np.shape(info['bd']) == (len(spec['bd_names']),) and env.observation_space.shape == (len(spec['obs_names']),)
    assert isinstance(env.action_space, gym.spaces.Box if spec['continuous'] else gym.spaces.Discrete)


def test_many_at_once_move_as_one_alone(dataset):
    kwargs = dataset.env_kwargs()
    many, alone = dataset.make_vec(3, **kwargs), dataset.make_env(**kwargs)
    obs, info = many.reset(seed=[5, 6, 7])
    obs_alone, info_alone = alone.reset(seed=6)
    many.action_space.seed(0)
    for _ in range(12):
        assert np.array_equal(obs[1], obs_alone) and np.array_equal(info['bd'][1], info_alone['bd'])
        act = many.action_space.sample()
        obs, _, _, _, info = many.step(act)
        obs_alone, _, terminated, _, info_alone = alone.step(act[1])
        if terminated:
            break


def test_what_is_collected_is_kept(dataset, folder, name):
    meta = json.loads((folder / 'prepared' / 'meta.json').read_text())
    spec = dataset.spec(dataset.env_kwargs())
    assert all(meta[k] == json.loads(json.dumps(v)) for k, v in spec.items())
    made = sum(len(archive.Archive(f)) for f in (folder / 'archives').glob('*.parquet'))
    kept = sum(c['episodes'] for c in meta['counts'].values())
    assert 0.98 * made <= kept <= made and set(meta['sources']) <= set(dataset.sources(dataset.env_kwargs()))


def test_it_trains_goes_on_and_acts(dataset, folder, out, config_file):
    process = run(
        'train.py',
        config_file,
        *TINY,
        '--max_iters=6',
        f'--data_dir={folder / "prepared"}',
        '--out_dir=out',
        '--init_from=resume',
        cwd=folder,
    )
    assert process.returncode == 0, process.stderr
    spec = dataset.spec(dataset.env_kwargs())
    sentence = Prepared(folder / 'prepared', 'val').first_text()
    asked = [f'--prompt={sentence}'] if sentence else []
    if spec['bd_names']:
        asked = ['--bd=' + ','.join(str((a + b) / 2) for a, b in zip(spec['bd_low'], spec['bd_high']))]
    process = run('sample_policy.py', '--out_dir=out', *asked, '--json=done.json', cwd=folder)
    assert process.returncode == 0, process.stderr
    episode = json.loads((folder / 'done.json').read_text())[0]
    assert len(episode['path']) == len(episode['actions']) + 1 and (out / 'drive.png').read_bytes()[:4] == b'\x89PNG'


def test_it_is_scored(name, folder, out):
    """in every row; of toy_nav in few, people's sentences are many: test_sample_policy.py has them all"""
    rows = ['--rows=prompt,bd,offline'] if name == 'toy_nav' else []
    process = run(
        'sample_policy.py',
        '--out_dir=out',
        '--eval=val',
        '--eval_episodes=4',
        '--workers=1',
        *rows,
        f'--data_dir={folder / "prepared"}',
        cwd=folder,
    )
    assert process.returncode == 0 and (out / 'eval_val.json').is_file(), process.stderr


# ------------------------------------------------------------------------------
# the contract itself

FILES = [
    'prepare.py',
    'sample_policy.py',
    'train.py',
    'nanopilot/*.py',
    'nanopilot/page/*.py',
    'data/*.py',
    'data/importers/*.py',
    'bench/*.py',
]
LOADERS = {'contract', 'load', 'dataset_of', 'part', 'import_module'}  # who calls one of them has a data set
HANDLES = {'dataset', 'data'}  # and calls it so
FOR_USERS = {'make_env'}  # of the contract: what only a user's own loop asks for


def documented():
    """names in the first column of the table in data/README.md"""
    table = (ROOT / 'data/README.md').read_text().split('## What a data set offers')[1].split('\n## ')[0]
    cells = re.findall(r'^\| (`.*?) \| ', table, re.M)
    return {name for cell in cells for name in re.findall(r'`(\w+)', cell)}


def asked_for(source):
    """what a file's code takes from a data set's module"""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {getattr(c.func, 'id', getattr(c.func, 'attr', '')) for c in calls}
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    if not LOADERS & (called | imported):
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_handle(node.value) and node.attr not in vars(str):
            names.add(node.attr)  # prepare.py's setting `dataset` is a name, a string
    for call in calls:
        function = getattr(call.func, 'id', getattr(call.func, 'attr', ''))
        if function in {'part', 'getattr', 'hasattr'} and call.args and is_handle(call.args[0]):
            names |= {a.value for a in call.args[1:2] if isinstance(a, ast.Constant)}
    return {name for name in names if not name.startswith('__')}


def is_handle(node):
    """`dataset`, `self.dataset`, dataset_of(policy)"""
    if isinstance(node, ast.Call):
        return getattr(node.func, 'id', '') in {'dataset_of', 'load'}
    return getattr(node, 'id', getattr(node, 'attr', '')) in HANDLES


def test_the_table_of_the_contract_is_what_the_code_asks_for():
    files = [file for pattern in FILES for file in sorted(ROOT.glob(pattern))]
    asked = set().union(*(asked_for(file.read_text()) for file in files))
    assert asked - documented() == set()
    assert documented() - asked == FOR_USERS


def test_what_is_asked_for_is_found():
    source = (
        "from x import dataset_of\ndataset = dataset_of(p)\ndataset.a\npart(dataset, 'b')\ngetattr(dataset, 'c', 1)"
    )
    assert asked_for(source) == {'a', 'b', 'c'} and asked_for('data = file.read()\ndata.a') == set()


@pytest.mark.parametrize('missing', ['make_vec', 'measure', 'score'])
def test_a_part_that_is_missing_is_one_line_that_names_it(missing):
    from data.contract import part

    dataset = types.ModuleType('data.mine')
    with pytest.raises(ValueError, match=rf'data/mine has no {missing}.*data/README.md') as e:
        part(dataset, missing)
    assert '\n' not in str(e.value)


def readme_code(heading):
    """the Python and the commands of a section of data/README.md"""
    section = (ROOT / 'data/README.md').read_text().split(f'\n## {heading}\n')[1].split('\n## ')[0]
    (code,) = re.findall(r'```python\n(.*?)```', section, re.S)
    return code, [shlex.split(line) for line in section.splitlines() if line.startswith('    python ')]


@pytest.fixture(scope='module')
def spoken(tmp_path_factory):
    """
    a copy of the project with the data set with words of data/README.md in it, prepared and trained -> folder, outputs
    """
    folder = tmp_path_factory.mktemp('spoken') / 'nanopilot'
    ignored = shutil.ignore_patterns('.git', '.venv', 'out*', 'archives', 'prepared', '__pycache__', 'tests')
    shutil.copytree(ROOT, folder, ignore=ignored)
    for name, heading in ('mine', 'The smallest one'), ('spoken', 'One with words'):
        (folder / 'data' / name).mkdir()
        (folder / 'data' / name / '__init__.py').write_text(readme_code(heading)[0])
    small = {
        'prepare.py': ['--size=0.03', '--val_share=0.2', '--test_share=0.2'],
        'train.py': [*TINY, '--max_iters=3'],
        'sample_policy.py': ['--eval_episodes=6', '--workers=1'],
    }
    printed = []
    for _, script, *args in readme_code('One with words')[1]:
        process = run(str(folder / script), *args, *small[script], cwd=folder)
        assert process.returncode == 0, (script, process.stderr)
        printed.append(process.stdout)
    return folder, printed


def test_a_data_set_with_sentences_alone_trains_is_asked_and_scored(spoken):
    folder, (_, _, asked, scored) = spoken
    assert re.search(r'^\d+ steps$', asked, re.M) and '1 episodes' in asked
    rows = {row['name']: row for row in json.loads((folder / 'out-spoken' / 'eval_test.json').read_text())['rows']}
    assert {'noisy: prompt', 'noisy: no prompt', 'noisy: swapped prompt', 'noisy: bd'} <= set(rows)
    assert rows['noisy: prompt']['bd_error']['n'] == 6 and 'success' not in rows['noisy: prompt']
    assert '| noisy: typing mistakes | 6 |' in scored and 'what the words ask' not in scored


@pytest.mark.parametrize(
    'missing, args',
    [
        ('make_vec', ['--prompt=balance the pole briefly']),
        ('measure', ['--eval=test', '--rows=unseen starts']),
        ('reword', ['--eval=test', '--rows=other words']),
    ],
)
def test_a_data_set_without_it_ends_in_one_line(missing, args, spoken):
    folder, _ = spoken
    file = folder / 'data' / 'spoken' / '__init__.py'
    whole = file.read_text()
    lacking = {
        'make_vec': 'del make_vec\n',
        'measure': "MEASURES = {'success': 'it is done'}\n",
        'reword': "REWORDED = {'other words': {}}\n",
    }
    file.write_text(f'{whole}\n\n{lacking[missing]}')
    try:
        process = run(
            str(folder / 'sample_policy.py'),
            '--out_dir=out-spoken',
            '--eval_episodes=4',
            '--workers=1',
            *args,
            cwd=folder,
        )
    finally:
        file.write_text(whole)
    refused(process, f'data/spoken has no {missing}')


def test_without_score_and_bd_there_is_nothing_to_score():
    from nanopilot.conditions import Condition
    from nanopilot.scoring import score

    class Lacking:
        info = {'dataset': 'cartpole_bins'}
        data_spec = {'env_kwargs': {}, 'bd_low': [], 'bd_high': []}

    condition = Condition('themselves', [{'path': np.zeros((3, 0)), 'bd': np.zeros(0), 'request': ''}], None)
    with pytest.raises(ValueError, match='data/cartpole_bins has no score'):
        score(Lacking, condition)
