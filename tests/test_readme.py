"""Every command and example of the README and data/README.md runs, small."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from conftest import SMALL as SMALL_MODEL

SMALL = {
    'prepare.py': ['--size=0.01', '--val_share=0.1', '--test_share=0.1'],
    'train.py': [*SMALL_MODEL, '--max_iters=2', '--rollouts=2', '--device=cpu'],
    'sample_policy.py': ['--eval_episodes=4'],
    'bench/speed.py': ['--only=environment', '--pairs=1', '--force'],
}
MORE = {
    'cartpole_bins --': ['--size=0.05'],
    '--text_encoder': ['--size=0.004'],
    'out-swingup --eval': ['--rows=unseen starts'],
    '--eval=test --eval_episodes': ['--rows=prompt,prompt and bd'],
}


def commands(text):
    """the lines of a README's indented blocks that a user would type"""
    return [line.split('  #')[0].strip() for line in text.splitlines() if re.match(r'    (python|torchrun) ', line)]


def code(file, which=0):
    return re.findall(r'```python\n(.*?)```', (ROOT / file).read_text(), re.S)[which].replace('range(300)', 'range(30)')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """a copy of the project: the commands write where they write by default"""
    there = tmp_path_factory.mktemp('readme') / 'nanopilot'
    shutil.copytree(
        ROOT,
        there,
        ignore=shutil.ignore_patterns('.git', '.venv', 'out*', 'archives', 'prepared', '__pycache__', 'tests'),
    )
    shutil.copy(there / 'data/toy_nav/scene.json', there / 'my_room.json')
    return there


def ran(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (command, done.stdout[-500:], done.stderr[-2000:])


def test_the_readmes_commands_run(folder):
    written = commands((ROOT / 'README.md').read_text())
    assert [c.split()[1] for c in written[:3]] == ['prepare.py', 'train.py', 'sample_policy.py']
    for command in written:
        if 'mine.parquet' in command:
            ran([sys.executable, '-c', code('README.md', 1)], folder)
        words = shlex.split(command)
        script = next(w for w in words if w in SMALL)
        if words[0] == 'torchrun':
            words = ['-m', 'torch.distributed.run', *words[1:]]
        words = [w.replace('nproc_per_node=8', 'nproc_per_node=2') for w in words if w != 'python']
        small = (
            SMALL[script]
            + (['--init_from=scratch'] if script == 'train.py' else [])
            + [a for part, args in MORE.items() if part in command + ' --' for a in args]
        )
        ran([sys.executable, *words, *small], folder)


def test_the_loop_of_the_readme_runs(trained, folder):
    ran([sys.executable, '-c', code('README.md').replace("'out-toy-nav-cpu'", repr(str(trained)))], folder)


def test_the_smallest_data_set_is_one(folder):
    (folder / 'data' / 'mine').mkdir()
    (folder / 'data' / 'mine' / '__init__.py').write_text(code('data/README.md'))
    small = {
        'prepare.py': ['--size=0.03', '--val_share=0.2', '--test_share=0.2'],
        'train.py': ['--max_iters=3', '--n_layer=1', '--batch_size=4'],
        'sample_policy.py': ['--eval_episodes=2'],
    }
    told = [
        shlex.split(line)
        for line in (ROOT / 'data/README.md').read_text().splitlines()
        if line.startswith('    python') and 'mine' in line and 'parquet' not in line
    ]
    assert len(told) == 4
    for _, script, *args in told:
        ran([sys.executable, script, *args, *small[script]], folder)
    assert (folder / 'out-mine' / 'eval_test_returns.png').is_file()


def test_the_example_of_data_readme_runs(folder):
    ran([sys.executable, '-c', code('data/README.md', 1)], folder)
    ran(
        [sys.executable, 'prepare.py', '--archive=mine.parquet', '--out_dir=p', '--val_share=0.2', '--test_share=0.2'],
        folder,
    )


def test_make_runs_what_the_readme_shows():
    made = (ROOT / 'Makefile').read_text()
    for command in (
        'prepare.py',
        'train.py config/toy_nav_cpu.py',
        'sample_policy.py --prompts=data/toy_nav/prompts.txt',
        'sample_policy.py --eval=test',
    ):
        assert f'$(BIN)/python {command}' in made and f'python {command}' in (ROOT / 'README.md').read_text()
