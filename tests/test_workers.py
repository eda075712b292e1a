"""Work shared by processes: the same bytes for any number and engine, one line where one dies, bounded memory."""

import math
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from conftest import PREPARE, ROOT, hashes, refused, run

from data import workers
from data.toy_nav.itinerary import Itinerary
from data.toy_nav.planner import SAME, Driven
from data.workers import AHEAD, in_order, use

SMALL = ['--size=0.017', '--out_dir=p', '--archive_dir=a', *PREPARE]  # two blocks of demonstrations, more of elites


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """what one process prepares"""
    cwd = tmp_path_factory.mktemp('alone')
    process = run('prepare.py', *SMALL, '--workers=1', cwd=cwd)
    assert process.returncode == 0, process.stderr
    return hashes(cwd)


@pytest.fixture(scope='module')
def cluster():
    """the address of a Dask cluster of two processes"""
    distributed = pytest.importorskip('distributed')
    path = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = str(ROOT)
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        yield cluster.scheduler_address
    if path is None:
        del os.environ['PYTHONPATH']
    else:
        os.environ['PYTHONPATH'] = path


# ------------------------------------------------------------------------------
# the same bytes


def test_results_are_used_up(monkeypatch):
    """a generator of joblib's that is dropped at its last result ends the processes that work on the next blocks"""
    used_up = []

    def results(f, blocks):
        yield from map(f, blocks)
        used_up.append(list(blocks))

    monkeypatch.setattr(workers, 'results', results)
    monkeypatch.setattr(workers, 'settings', {'n_jobs': 1})
    assert list(in_order(math.sqrt, [1, 4, 9])) == [(1, 1), (4, 2), (9, 3)]
    assert used_up == [[1, 4], [9]]


def test_any_number_of_processes_makes_the_same_files(alone, tmp_path):
    process = run('prepare.py', *SMALL, '--workers=3', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert hashes(tmp_path) == alone


def test_a_cluster_makes_the_same_files(cluster, tmp_path):
    made = []
    for engine in ['--workers=1'], ['--engine=dask', f'--scheduler={cluster}']:
        cwd = tmp_path / engine[0]
        cwd.mkdir()
        process = run('prepare.py', '--dataset=swingup', *SMALL, '--size=0.05', *engine, cwd=cwd)
        assert process.returncode == 0, process.stderr
        made.append(hashes(cwd))
    assert made[0] == made[1]


def test_all_blocks_together_drive_a_place_as_often_as_one():
    for n_blocks in (1, 3, 10, 60):
        for kind in ('fridge', 'bed', 'sofa'):
            itinerary = one_place(kind)
            assert sum(Driven(block, n_blocks).most(itinerary) for block in range(n_blocks)) == SAME


def one_place(name):
    from data.toy_nav.places import Place

    return Itinerary((Place('at', name),))


# ------------------------------------------------------------------------------
# in order, few at a time


def slower_first(n):
    time.sleep(0.02 * (7 - n % 7))
    return n


@pytest.mark.parametrize('n', [1, 2])
def test_results_come_in_the_order_of_their_blocks(n):
    with use(n):
        assert list(in_order(partial(slower_first), range(23))) == [(i, i) for i in range(23)]
        assert list(in_order(math.sqrt, [])) == []


@pytest.mark.parametrize('n', [1, 2])
def test_no_more_blocks_are_taken_than_are_worked_on(n):
    taken = []
    blocks = (taken.append(i) or i for i in range(100))
    with use(n):
        for i, _ in in_order(math.sqrt, blocks):
            assert len(taken) - i <= 2 * n * AHEAD
    assert len(taken) == 100


def test_a_process_has_one_thread_and_one_block_needs_no_process():
    with use(2):
        assert {threads for _, threads in in_order(os.environ.get, ['OMP_NUM_THREADS'] * 8)} == {'1'}
        assert os.getpid() not in {pid for _, pid in in_order(pid_of, range(4))}
        assert list(in_order(pid_of, [1])) == [(1, os.getpid())]
    assert list(in_order(pid_of, [1, 2])) == [(1, os.getpid()), (2, os.getpid())]


def pid_of(_):
    return os.getpid()


def test_by_default_all_cores_work():
    import joblib

    with use():
        assert workers.settings['n_jobs'] == joblib.cpu_count()
    assert workers.settings is None


# ------------------------------------------------------------------------------
# what goes wrong is one line, and nothing is half-written


def test_an_error_of_a_block_is_that_of_the_caller():
    with pytest.raises(ValueError, match='math domain error'), use(2):
        list(in_order(math.sqrt, [4, 1, -1, 9, 16]))
    assert workers.settings is None


def heed_interrupts():
    """a shell lets what it starts in the background ignore them, and so would a process of these tests"""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def started(cwd, *args):
    """prepare.py, with two processes that are at work"""
    command = [sys.executable, str(ROOT / 'prepare.py'), *SMALL, '--workers=2', *args]
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    while len(at_work(process)) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def at_work(process):
    """ids of its worker processes that have begun"""
    import psutil  # dask's extra brings it

    children = psutil.Process(process.pid).children()
    return [child.pid for child in children if 'popen_loky' in ' '.join(child.cmdline())]


def ended(process):
    """-> the process with what it printed, as of subprocess.run"""
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_a_process_that_is_killed_is_one_line(tmp_path):
    process = started(tmp_path, '--size=1')
    os.kill(at_work(process)[0], signal.SIGKILL)
    done = ended(process)
    refused(done, 'prepare.py: a worker process has died', 'Run again')
    assert len(done.stderr.strip().splitlines()) == 1
    assert files(tmp_path) == []


@pytest.mark.parametrize('signum, said', [(signal.SIGTERM, 'terminated'), (signal.SIGINT, 'interrupted')])
def test_stopped_it_leaves_nothing_behind(signum, said, tmp_path):
    process = started(tmp_path, '--size=1')
    workers = at_work(process)
    process.send_signal(signum)
    refused(ended(process), said)
    assert files(tmp_path) == []
    assert not [pid for pid in workers if os.path.exists(f'/proc/{pid}') and not is_zombie(pid)]


def is_zombie(pid):
    with open(f'/proc/{pid}/stat') as f:
        return f.read().split()[2] == 'Z'


def files(folder):
    return [file for file in folder.rglob('*') if file.is_file()]


def test_what_does_not_go_together_is_refused(refuses):
    refuses('prepare.py', '--scheduler=tcp://there:8786', words=['tcp://there:8786', '--engine=dask'])
    refuses('prepare.py', '--engine=abacus', words=["'abacus'", 'loky', 'dask', 'ray'])
    refuses('prepare.py', '--workers=-1', words=['workers=-1'])


def test_an_engine_that_is_not_installed_is_named(tmp_path):
    (tmp_path / 'ray.py').write_text('raise ModuleNotFoundError("No module named \'ray\'")')
    process = run('prepare.py', '--engine=ray', cwd=tmp_path, env={'PYTHONPATH': f'{tmp_path}:{ROOT}'})
    refused(process, "prepare.py: No module named 'ray'", '.[all]')
