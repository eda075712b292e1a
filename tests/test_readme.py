"""Every command and example of README.md, CONTRIBUTING.md and data/README.md runs, small."""

import os
import re
import shlex
import shutil

import gymnasium as gym
import numpy as np
import pytest
from conftest import ROOT, python
from conftest import SMALL as SMALL_MODEL

SMALL = {  # what makes a command of each script take seconds
    'prepare.py': ['--size=0.002', '--val_share=0.1', '--test_share=0.1'],
    'train.py': [*SMALL_MODEL, '--max_iters=2', '--rollouts=2', '--device=cpu', '--init_from=scratch'],
    'sample_policy.py': ['--eval_episodes=4', '--workers=1'],
    'bench.speed': ['--only=environment', '--pairs=1', '--force'],
    'bench.compare': [],
    'bench.house': [],
}
FINE_TUNED = ['--max_iters=2', '--batch_size=2', '--more_texts=2', '--rollouts=2', '--device=cpu']  # no small model
MORE = {  # .. of those that have this in them
    '--dataset': ['--size=0.01'],  # toy_nav is the largest
    'cartpole_bins --': ['--size=0.05'],
    'out-swingup --eval': ['--rows=unseen starts'],
    'sample_policy.py --eval=test --': ['--rows=prompt'],  # people's sentences are many
    '--eval=test --eval_episodes': ['--rows=prompt,prompt and bd'],
}


def commands(text):
    """the lines of a README's indented blocks that a user would type, without their comments"""
    return [line.split('  #')[0].strip() for line in text.splitlines() if re.match(r'    (python|torchrun) ', line)]


def code(file, which=0):
    """an example of Python in a README, with fewer episodes"""
    return re.findall(r'```python\n(.*?)```', (ROOT / file).read_text(), re.S)[which].replace('range(300)', 'range(30)')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """a copy of the project: the commands write where they write by default"""
    copy = tmp_path_factory.mktemp('readme') / 'nanopilot'
    left_out = shutil.ignore_patterns('.git', '.venv', 'out*', 'archives', 'prepared', '__pycache__', 'tests')
    shutil.copytree(ROOT, copy, ignore=left_out)
    shutil.copy(copy / 'data/toy_nav/scene.json', copy / 'my_room.json')
    return copy


def succeeds(folder, *args):
    process = python(args, folder, dict(os.environ))
    assert process.returncode == 0, (args, process.stdout[-500:], process.stderr[-2000:])


def small(command):
    """a command of the README -> what to give to python, so that it takes seconds"""
    words = shlex.split(command)
    script = next(word for word in words if word in SMALL)
    more = [arg for part, args in MORE.items() if part in f'{command} --' for arg in args]
    if words[0] == 'torchrun':
        words = ['python', '-m', 'torch.distributed.run', *words[1:]]
    words = [word.replace('nproc_per_node=8', 'nproc_per_node=2') for word in words]
    if script == 'prepare.py' and '--workers' not in command:
        more.append('--workers=1')  # for so little, others take longer to begin than what they do
    if 'config/finetune' in command:
        return [*words[1:], *FINE_TUNED]
    return [*words[1:], *SMALL[script], *more]


def test_the_readmes_commands_run(folder):
    written = commands((ROOT / 'README.md').read_text())
    scripts = ['sample_policy.py', 'prepare.py', 'train.py', 'sample_policy.py']
    assert [command.split()[1] for command in written[:4]] == scripts
    for command in written:
        if 'mine.parquet' in command:
            succeeds(folder, '-c', code('README.md', 1))
        if 'cartpole.npz' in command:
            random_cartpole(folder / 'cartpole.npz')
        succeeds(folder, *small(command))


def random_cartpole(file):
    """some episodes of CartPole with random actions, in the layout of D4RL"""
    env = gym.make('CartPole-v1')
    env.action_space.seed(0)
    rows = []
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        terminated = False
        while not terminated:
            act = env.action_space.sample()
            after, reward, terminated, _, _ = env.step(act)
            rows.append((obs, act, reward, terminated))
            obs = after
    names = 'observations', 'actions', 'rewards', 'terminals'
    np.savez(file, **dict(zip(names, map(np.array, zip(*rows)))))


def test_the_loop_of_the_readme_runs(trained, folder):
    succeeds(folder, '-c', code('README.md').replace("'out-toy-nav-cpu'", repr(str(trained))))


def test_the_smallest_data_set_is_one(folder):
    (folder / 'data' / 'mine').mkdir()
    (folder / 'data' / 'mine' / '__init__.py').write_text(code('data/README.md'))
    few = {
        'prepare.py': ['--size=0.03', '--val_share=0.2', '--test_share=0.2'],
        'train.py': ['--max_iters=3', '--n_layer=1', '--batch_size=4'],
        'sample_policy.py': ['--eval_episodes=2'],
    }
    written = [
        shlex.split(command)
        for command in commands((ROOT / 'data/README.md').read_text())
        if 'mine' in command and 'parquet' not in command
    ]
    assert len(written) == 4
    for _, script, *args in written:
        succeeds(folder, script, *args, *few[script])
    assert (folder / 'out-mine' / 'eval_test_returns.png').is_file()


def test_the_example_of_data_readme_runs(folder):
    succeeds(folder, '-c', code('data/README.md', 2))
    shares = ['--val_share=0.2', '--test_share=0.2']
    succeeds(folder, 'prepare.py', '--archive=mine.parquet', '--out_dir=p', *shares)


def test_make_runs_what_the_readme_shows():
    makefile = (ROOT / 'Makefile').read_text()
    readme = (ROOT / 'README.md').read_text()
    for command in (
        'prepare.py',
        'train.py config/toy_nav_cpu.py',
        'sample_policy.py --out_dir=out-toy-nav-cpu --prompts=data/toy_nav/prompts.txt',
        'sample_policy.py --out_dir=out-toy-nav-cpu --eval=test',
    ):
        assert f'$(BIN)/python {command}' in makefile
        assert f'python {command}' in readme


def test_every_file_that_is_named_exists():
    for name in 'README.md', 'CONTRIBUTING.md':
        text = (ROOT / name).read_text()
        named = re.findall(r'`((?:nanopilot|data|config|bench|tests)/[\w/.]*\w)`', text)
        named += re.findall(r'\]\(([\w/.]+)\)', text)
        assert len(named) > 2
        for file in named:
            assert (ROOT / file).exists(), (name, file)


def test_contributing_is_short():
    lines = (ROOT / 'CONTRIBUTING.md').read_text().splitlines()
    assert len(lines) <= 40
