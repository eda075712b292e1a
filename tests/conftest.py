"""
What the tests share: small data, prepared and trained on once a session, and two ways to run a script.

$ python -m pytest                        # all of them
$ python -m pytest tests/test_model.py -k window --durations=10
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported: same bits whatever the machine
os.environ.pop('NANOPILOT_DEBUG', None)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PREPARE = ['--val_share=0.1', '--test_share=0.2', '--hold_out=0.05']
SMALL = ['--n_embd=16', '--n_layer=1', '--n_head=2', '--batch_size=8', '--eval_batches=1']
TINY = [
    'config/toy_nav_cpu.py',
    *SMALL,
    '--log_interval=1',
    '--source_weights=',
    '--drop_bd=0.7',
    '--say_len=0',
    '--more_texts=0',
    '--optimizer=adamw',
    '--rollouts=0',
    '--dtype=float32',  # the same bytes at all times: no trial decides
]


def pytest_collection_modifyitems(items):
    """the files that take longest come first, lest one process waits for the other at the end"""
    longest = [
        'test_readme.py',
        'test_never_lost.py',
        'test_train.py',
        'test_sample_policy.py',
        'test_datasets.py',
        'test_prepare.py',
        'test_page.py',
        'test_bench.py',
        'test_onnx.py',
        'test_offline.py',
        'test_exports.py',
        'test_dreams.py',
        'test_cartpole.py',
        'test_hub.py',
        'test_encoders.py',
    ]
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


def alone(command):
    """an evaluation in one process, unless the test says how many: the tests themselves are two at a time"""
    words = list(map(str, command))
    scored = words[0].endswith('sample_policy.py') and any(word.startswith('--eval') for word in words)
    return words + ['--workers=1'] * (scored and not any(word.startswith('--workers') for word in words))


def run(*command, cwd, env=None, ranks=1):
    """
    a script of the project, or a module as 'bench.speed', as a user runs it -> CompletedProcess with text; env: further
    variables of the environment. With them, or with '-c', Python itself begins anew. ranks: so many processes, as of
    torchrun but without its agent, which write to one stdout
    """
    command = alone(command)
    command = [str(ROOT / c) if c.endswith('.py') and (ROOT / c).exists() else str(c) for c in command]
    if command[0].startswith('bench.'):
        command = ['-m', *command]
    variables = {**os.environ, 'PYTHONPATH': str(ROOT), **(env or {})}
    if env is None and command[0] != '-c':
        return python(command, cwd, variables, ranks)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=300, env=variables
    )


@cache
def warm_python():
    """warm.py, which ends with this process"""
    return subprocess.Popen(
        [sys.executable, ROOT / 'tests' / 'warm.py'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def as_ranks(n):
    """the variables by which torchrun tells n processes of each other, a dict for each"""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    same = {'WORLD_SIZE': str(n), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    return [{**same, 'RANK': str(rank), 'LOCAL_RANK': str(rank)} for rank in range(n)]


def python(args, cwd, env, ranks=1):
    """`python *args` in other processes that have loaded torch and the like already -> CompletedProcess with text"""
    with tempfile.TemporaryDirectory() as folder:
        files = {name: os.path.join(folder, name) for name in ('stdout', 'stderr')}
        for file in files.values():
            Path(file).touch()
        job = {'args': list(map(str, args)), 'cwd': str(cwd), 'env': env, 'seconds': 300, **files}
        job['ranks'] = as_ranks(ranks) if ranks > 1 else [{}]
        print(json.dumps(job), file=warm_python().stdin, flush=True)
        status = int(warm_python().stdout.readline())
        said = {name: Path(file).read_text() for name, file in files.items()}
    return subprocess.CompletedProcess(args, status, **said)


def refused(process, *words):
    """it ended with one line that says what was wrong -> that line"""
    lines = process.stderr.strip().splitlines()
    assert process.returncode != 0, process.stdout
    assert 'Traceback' not in process.stderr, process.stderr
    for word in words:
        assert word in lines[-1], lines
    return lines[-1]


def hashes(folder):
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(Path(folder).rglob('*'))
        if f.is_file()
    }


def flip(file, where=0.5):
    """change one bit; where: 0 to 1, from the file's beginning to its end"""
    data = bytearray(Path(file).read_bytes())
    data[min(int(len(data) * where), len(data) - 1)] ^= 1
    Path(file).write_bytes(bytes(data))


@pytest.fixture
def script(monkeypatch, tmp_path):
    """script('train.py', '--key=value') runs it in this process, from another directory -> its variables"""

    def call(file, *args, name='__main__'):
        monkeypatch.chdir(tmp_path)
        args = [str(ROOT / a) if a.startswith('config/') else str(a) for a in args]
        monkeypatch.setattr(sys, 'argv', alone([str(ROOT / file), *args]))
        # runpy would empty its names on return, and functions would find nothing
        names = {'__name__': name, '__file__': str(ROOT / file), '__package__': str(Path(file).parent).strip('.')}
        handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            exec(compile((ROOT / file).read_text(), str(ROOT / file), 'exec'), names)
        except BaseException as e:
            # a process that died would have released the lock of its folder
            if isinstance(names.get('lock_fd'), int) and not isinstance(e, SystemExit):
                os.close(names['lock_fd'])
            raise
        finally:  # pytest's own are back
            for s, handler in handlers.items():
                signal.signal(s, handler)
            if 'torch' in sys.modules:  # --deterministic would slow down all that comes after
                sys.modules['torch'].use_deterministic_algorithms(False)
        return names

    return call


@pytest.fixture
def refuses(script):
    """refuses('train.py', '--head=ce', words=['head']): the script ends in an error that is one line"""

    def call(file, *args, words=()):
        with pytest.raises((ValueError, OSError, ImportError)) as e:
            script(file, *args)
        message = str(e.value)
        assert '\n' not in message and len(message) > 20, message
        for word in words:
            assert word in message, message
        return message

    return call


# ------------------------------------------------------------------------------
# data and a policy, made once


@pytest.fixture(scope='session')
def kwargs():
    from data import toy_nav

    return toy_nav.env_kwargs()


@pytest.fixture(scope='session')
def places(kwargs):
    from data import toy_nav

    return toy_nav.places(kwargs)


@pytest.fixture(scope='session')
def ways(places):
    from data.toy_nav.planner import PathPlanner

    return PathPlanner(places)


@pytest.fixture(scope='session')
def archive_meta(kwargs):
    from data import toy_nav

    return {'dataset': 'toy_nav', 'env_kwargs': kwargs, 'n_obs': 9, 'n_act': 2, 'n_bd': 2, **toy_nav.spec(kwargs)}


@pytest.fixture(scope='session')
def demos(kwargs):
    from data import toy_nav

    return list(toy_nav.collect('demonstrations', 150 / toy_nav.SOURCES['demonstrations'], 3, kwargs))


@pytest.fixture(scope='session')
def demo_archive(demos, archive_meta, tmp_path_factory):
    from data import archive

    file = tmp_path_factory.mktemp('archives') / 'demos.parquet'
    archive.save(file, demos, archive_meta)
    return file


@pytest.fixture(scope='session')
def preparing(demo_archive, tmp_path_factory):
    """prepare.py on the demonstrations -> its process and its folder"""
    folder = tmp_path_factory.mktemp('prepared') / 'prepared'
    process = run('prepare.py', f'--archive={demo_archive}', f'--out_dir={folder}', *PREPARE, cwd=folder.parent)
    assert process.returncode == 0, process.stderr
    return process, folder


@pytest.fixture(scope='session')
def prepared(preparing):
    return preparing[1]


@pytest.fixture(scope='session')
def training(prepared, tmp_path_factory):
    """train.py for 60 steps -> its process and its folder"""
    cwd = tmp_path_factory.mktemp('training')
    process = run(
        'train.py',
        *TINY,
        f'--data_dir={prepared}',
        '--out_dir=out',
        '--max_iters=60',
        '--eval_interval=40',
        '--warmup_iters=10',
        '--learning_rate=1e-2',
        cwd=cwd,
    )
    assert process.returncode == 0, process.stderr
    return process, cwd / 'out'


@pytest.fixture(scope='session')
def trained(training):
    """the directory of a training run. Copy it before you write to it"""
    return training[1]


@pytest.fixture(scope='session')
def checkpoint(trained):
    return trained / (trained / 'latest').read_text().strip()
