"""
Runs that are never lost: killed, stopped, out of room, damaged, twice at once. The long versions are in
tests/torture.py.
"""

import copy
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
import torture
from conftest import PREPARE, ROOT, TINY, flip, hashes, python, refused, run
from torture import info

from data.prepared import lock
from model import GPT
from nanopilot import checkpoint as checkpoints
from nanopilot.checkpoint import newest_sound, steps_of, write_checkpoint

ARGS = [
    '--max_iters=20',
    '--eval_interval=7',
    '--dropout=0.1',
    '--learning_rate=1e-2',
    '--gradient_accumulation_steps=2',
    '--rollouts=2',
]


@pytest.fixture
def train(script, prepared):
    return lambda out, *args: script('train.py', *TINY, f'--data_dir={prepared}', f'--out_dir={out}', *args)


@pytest.fixture
def saved(tmp_path):
    """three checkpoints of one file each, and what a fourth is written with"""
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, f'step_{step:07d}', {'a': bytes([step]) * 100}, info(step), ['latest'])
    return tmp_path


# ------------------------------------------------------------------------------
# checkpoints


def test_what_is_written_is_on_the_disk_before_anyone_can_find_it(tmp_path, monkeypatch):
    did = []

    def record(name, real, *args):
        did.append((name, os.readlink(f'/proc/self/fd/{args[0]}') if name == 'fsync' else str(args[1])))
        return real(*args)

    for name in 'fsync', 'rename', 'replace':
        monkeypatch.setattr(
            os,
            name,
            partial(record, name, getattr(os, name)),
        )
    write_checkpoint(tmp_path, 'step_0000001', {'a': b'1', 'b': b'2'}, info(1), ['latest'])
    said = [(name, os.path.basename(file)) for name, file in did]
    assert said == [
        ('fsync', 'a'),
        ('fsync', 'b'),
        ('fsync', 'checkpoint.json'),
        ('fsync', '.step_0000001.partial'),
        ('rename', 'step_0000001'),
        ('fsync', tmp_path.name),
        ('fsync', '.latest'),
        ('replace', 'latest'),
        ('fsync', tmp_path.name),
    ]
    said = json.loads((tmp_path / 'step_0000001' / 'checkpoint.json').read_text())
    assert len(said['sha256']) == 3


@pytest.mark.parametrize('name, at', [('fsync', i) for i in range(5)] + [('rename', 0), ('replace', 0), ('mkdir', 0)])
def test_whatever_fails_the_last_good_one_is_intact(saved, monkeypatch, name, at):
    """no space, no permission, a failing disk, at any moment: one line, and nothing is left half-written"""
    before, real, calls = hashes(saved), getattr(os, name), []

    def failing(*a, **k):
        calls.append(a)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real(*a, **k)

    with monkeypatch.context() as patched:
        patched.setattr(os, name, failing)
        with pytest.raises(OSError, match='No space left.*Free some space') as e:
            write_checkpoint(saved, 'step_0000004', {'a': b'4' * 100}, info(4), ['latest'])
    assert '\n' not in str(e.value) and not list(saved.glob('*.partial'))
    after = {k: v for k, v in hashes(saved).items() if not k.startswith(('step_0000004', '.latest'))}
    assert after == before and newest_sound(saved)[1]['step'] in (3, 4)


def test_a_step_that_could_not_be_saved_again_is_as_it_was(saved, monkeypatch):
    before, real = hashes(saved), os.rename

    def failing(a, b):
        if str(a).endswith('.partial'):
            raise OSError(errno.EIO, 'Input/output error')
        return real(a, b)

    with monkeypatch.context() as patched:
        patched.setattr(os, 'rename', failing)
        with pytest.raises(OSError, match='Input/output error'):
            write_checkpoint(saved, 'step_0000003', {'a': b'new'}, info(3), ['latest'])
    assert hashes(saved) == before


def test_a_step_that_is_saved_again_is_there_once(saved):
    write_checkpoint(saved, 'step_0000003', {'a': b'new'}, info(3), ['latest'])
    assert (saved / 'step_0000003' / 'a').read_bytes() == b'new' and [p.name for p in steps_of(saved)] == [
        'step_0000003',
        'step_0000002',
        'step_0000001',
    ]
    assert not [p for p in saved.iterdir() if p.name.endswith(('.old', '.partial'))]


@pytest.mark.parametrize('damage', ['flip', 'cut', 'missing', 'no json'])
def test_a_damaged_one_is_named_and_the_one_before_taken(saved, damage, capsys):
    file = saved / 'step_0000003' / ('checkpoint.json' if damage == 'no json' else 'a')
    flip(file) if damage == 'flip' else os.truncate(file, 50) if damage == 'cut' else file.unlink()
    assert newest_sound(saved)[1]['step'] == 2
    said = capsys.readouterr().err
    assert 'step_0000003' in said and said.endswith('. Going on from step_0000002\n') and len(said.splitlines()) == 1
    assert 'train again' not in said and '--checkpoint' not in said, 'a cure that is not the one that is taken'
    for step in (1, 2):
        flip(saved / f'step_000000{step}' / 'a')
    with pytest.raises(FileNotFoundError, match='no intact checkpoint'):
        newest_sound(saved)


def test_kill_9_loses_nothing():
    assert torture.kill(15) == 0
    assert torture.kill(15, ours=False) > 0, 'the harness would not notice a loss'


def test_damaged_bits_are_refused(checkpoint):
    assert torture.bits(checkpoint, 60) == (60, [])


def test_a_checkpoint_that_claims_too_much_takes_no_memory(checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / 'c')
    said = json.loads((copy / 'checkpoint.json').read_text())
    for changes in (
        {'n_embd': 2**20},
        {'n_layer': 10**9},
        {'n_head': 0},
        {'n_embd': 'wide'},
        {'max_steps': -1},
        {'vocab_size': 2**40},
        {'beauty': 1},
    ):
        changed = {**said, 'model': {**said['model'], **changes}}
        changed['sha256']['checkpoint.json'] = checkpoints.UNSEALED.decode()
        (copy / 'checkpoint.json').write_bytes(checkpoints.seal(json.dumps(changed, indent=1).encode()))
        with pytest.raises(ValueError) as e:
            GPT.from_checkpoint(copy)
        assert '\n' not in str(e.value)


def test_what_strangers_files_do_is_one_line_or_nothing(training, prepared):
    for name, found in torture.fuzz(training[1], times=60, batch=60).items():
        assert not found['wrong'], (name, found['wrong'])
        assert found.get('refused', 0) + found.get('fine', 0) == 60


# ------------------------------------------------------------------------------
# being stopped


def signalled_at(monkeypatch, k, signum=signal.SIGTERM):
    """this process is sent a signal when batch k is gathered"""
    from data.batches import Batches

    real = Batches.batch

    def batch(self, step, rows=slice(None)):
        if step == k and self.which == 0:
            os.kill(os.getpid(), signum)
        return real(self, step, rows)

    monkeypatch.setattr(Batches, 'batch', batch)


@pytest.mark.parametrize('optimizer', ['adamw', 'muon'])
def test_stopped_anywhere_and_gone_on_it_is_the_same_run(train, tmp_path, optimizer, monkeypatch):
    """dropout, accumulation, evaluation and rollouts in between: the same bytes of weights, optimizer and log"""
    args = [*ARGS, f'--optimizer={optimizer}']
    train('straight', *args)
    for k in (1, 13, 28) if optimizer == 'adamw' else (14,):
        out = f'stopped_{k}'
        with monkeypatch.context() as patched:
            signalled_at(patched, k)
            with pytest.raises(SystemExit) as e:
                train(out, *args)
        assert e.value.code == 143
        stopped = int((tmp_path / out / 'latest').read_text()[5:])
        assert stopped in (k // 2 - 1, k // 2, k // 2 + 1), 'at the step at which it was asked'
        train(out, *args, '--init_from=resume')
        for file in 'log.jsonl', 'step_0000020/model.safetensors', 'step_0000020/train_state.safetensors':
            assert (tmp_path / out / file).read_bytes() == (tmp_path / 'straight' / file).read_bytes(), (k, file)


def wait_for(process, words):
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(process.wait())


@pytest.mark.parametrize('ranks, signum', [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_signal_ends_all_ranks_and_saves(prepared, tmp_path, ranks, signum):
    process = torture.launched(
        prepared, tmp_path / 'o', '--max_iters=100000', '--eval_interval=50', ranks=ranks, stderr=subprocess.PIPE
    )
    wait_for(process, 'step     60')
    t = time.time()
    process.send_signal(signum)
    if ranks == 1:  # a second one changes nothing
        process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert time.time() - t < 10 and 'Traceback' not in (err if ranks == 1 else ''), err
    assert process.returncode == 128 + signum if ranks == 1 else process.returncode
    step = newest_sound(tmp_path / 'o')[1]['step']
    assert step >= 60 and f'all of step {step} is in' in out
    done = run(
        'train.py',
        str(ROOT / TINY[0]),
        *TINY[1:],
        f'--data_dir={prepared}',
        '--out_dir=o',
        '--max_iters=100000',
        '--init_from=resume',
        '--help',
        cwd=tmp_path,
    )
    assert done.returncode == 0


def test_a_signal_in_a_rollout_breaks_it_off(train, tmp_path, monkeypatch):
    from nanopilot import scoring

    def endless(policy, split, n, seed=1337):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(scoring, 'rollout_score', endless)
    t = time.time()
    with pytest.raises(SystemExit):
        train('o', '--max_iters=4', '--eval_interval=2', '--rollouts=2')
    assert (
        time.time() - t < 20
        and newest_sound(tmp_path / 'o')[1]['step'] == 2
        and newest_sound(tmp_path / 'o')[1]['val_loss'] is None
    )


@pytest.mark.parametrize('where', ['copy.deepcopy', 'swap'])
def test_a_signal_before_a_rollout_leaves_the_weights_as_they_are(train, tmp_path, monkeypatch, where):
    """while the averaged weights are exchanged for the trained ones, or copied"""
    args = ['--max_iters=4', '--eval_interval=2', '--rollouts=2']
    train('straight', *args)
    real, calls = (copy.deepcopy if where == 'copy.deepcopy' else torch.Tensor.copy_), []

    def signalled(*a, **k):
        out = real(*a, **k)
        if isinstance(a[0], GPT if where == 'copy.deepcopy' else torch.nn.Parameter):
            calls.append(0)
            if len(calls) == (
                1 if where == 'copy.deepcopy' else 3 * len(parameters) - 2
            ):  # in the third exchange, the rollouts' first
                os.kill(os.getpid(), signal.SIGTERM)
        return out

    parameters = list(GPT.from_checkpoint(tmp_path / 'straight' / 'step_0000004')[0].parameters())
    with monkeypatch.context() as patched:
        patched.setattr(*((copy, 'deepcopy') if where == 'copy.deepcopy' else (torch.Tensor, 'copy_')), signalled)
        with pytest.raises(SystemExit):
            train('o', *args)
    assert calls and newest_sound(tmp_path / 'o')[1]['step'] == 2
    train('o', *args, '--init_from=resume')
    for file in 'log.jsonl', 'step_0000004/train_state.safetensors':
        assert (tmp_path / 'o' / file).read_bytes() == (tmp_path / 'straight' / file).read_bytes()


def test_two_runs_in_one_directory(prepared, tmp_path):
    process = torture.launched(prepared, tmp_path / 'o', '--max_iters=100000', '--eval_interval=50')
    try:
        wait_for(process, 'step     10')
        refused(
            run('train.py', *TINY, f'--data_dir={prepared}', '--out_dir=o', '--max_iters=2', cwd=tmp_path),
            'another process is writing to o',
        )
    finally:
        process.kill()
        process.communicate()
    assert (
        run('train.py', *TINY, f'--data_dir={prepared}', '--out_dir=o', '--max_iters=2', cwd=tmp_path).returncode == 0
    )  # the lock has died with it


def test_a_run_that_is_begun_again_is_moved_aside(train, tmp_path, capsys):
    train('o', '--max_iters=4', '--eval_interval=2')
    before = hashes(tmp_path / 'o')
    train('o/', '--max_iters=2', '--eval_interval=2')  # as a shell completes it
    assert 'it is now in o.1' in capsys.readouterr().out and hashes(tmp_path / 'o.1') == before
    assert [p.name for p in steps_of(tmp_path / 'o')] == ['step_0000002'] and newest_sound(tmp_path / 'o')[1][
        'step'
    ] == 2


def test_torchrun_begins_again_where_a_rank_was_lost(prepared, tmp_path):
    """kill -9 of one of two ranks; with --max-restarts the end is that of an undisturbed run"""
    args = ['--max_iters=60', '--eval_interval=10', '--dropout=0.1']
    whole = ['train.py', *torture.TINY, f'--data_dir={prepared}', f'--out_dir={tmp_path / "whole"}', *args]
    assert run(*whole, cwd=ROOT, ranks=2).returncode == 0
    process, said, lost = torture.launched(prepared, tmp_path / 'lost', *args, ranks=2, restarts=1), [], False
    for line in process.stdout:
        said.append(line)
        if not lost and 'step     25' in line:
            ranks = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(process.pid)], capture_output=True, text=True)
            os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
            lost = True
    assert process.wait() == 0, ''.join(said)[-2000:]
    assert lost and re.search('step [23]0 to 60', ''.join(said))
    for file in 'step_0000060/model.safetensors', 'step_0000060/train_state.safetensors':
        assert (tmp_path / 'whole' / file).read_bytes() == (tmp_path / 'lost' / file).read_bytes()


# ------------------------------------------------------------------------------
# numbers that go wrong


def spoiled(monkeypatch, steps):
    """the loss of these forward passes of training is nan"""
    real, passes = GPT.forward, []

    def forward(self, *args, **how):
        out, loss = real(self, *args, **how)
        if self.training:
            passes.append(0)
            loss = loss * (float('nan') if len(passes) - 1 in steps else 1.0)
        return out, loss

    monkeypatch.setattr(GPT, 'forward', forward)


def test_a_loss_that_is_nan_ends_the_run_before_the_update(train, tmp_path, monkeypatch):
    spoiled(monkeypatch, {5})
    with pytest.raises(ValueError, match='gradient is nan at step 6, batches 5 to 5.*skip_nonfinite'):
        train('o', '--max_iters=10', '--eval_interval=2', '--log_interval=100')
    where, info = newest_sound(tmp_path / 'o')
    assert info['step'] == 4 and all(
        v.isfinite().all()
        for k, v in checkpoints.read_tensors(where, 'model.safetensors', info).items()
        if not k.startswith('head.act_norm.')
    )


def test_a_nan_on_one_of_two_ranks_ends_both(prepared, tmp_path):
    """one observation of one episode is nan"""
    shutil.copytree(prepared, tmp_path / 'p')
    obs = np.load(tmp_path / 'p' / 'train' / 'obs.npy', mmap_mode='r+')
    obs[len(obs) // 2 : len(obs) // 2 + 20] = np.nan
    obs.flush()
    args = ['--data_dir=p', '--out_dir=o', '--max_iters=1000', '--eval_interval=1']
    process = run('train.py', *TINY, *args, cwd=tmp_path, ranks=2)
    assert process.returncode and process.stderr.count('the gradient is nan at step') == 2
    where, info = newest_sound(tmp_path / 'o')
    assert f'at step {info["step"] + 1}, batches' in process.stderr
    assert all(
        v.isfinite().all()
        for k, v in checkpoints.read_tensors(where, 'train_state.safetensors', info).items()
        if not k.startswith('model.head.act_norm.')
    )


def test_slow_data_is_not_waited_for(train, tmp_path, monkeypatch):
    from data.batches import Batches

    real = Batches.batch

    def batch(self, step, rows=slice(None)):
        if step == 3 and self.which == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return real(self, step, rows)

    monkeypatch.setattr(Batches, 'batch', batch)
    t = time.time()
    with pytest.raises(SystemExit) as e:
        train('o', '--max_iters=8')
    assert e.value.code == 143 and time.time() - t < 20 and newest_sound(tmp_path / 'o')[1]['step'] in (2, 3)


def test_some_may_be_left_out(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        spoiled(patched, {3, 4})
        train('o', '--max_iters=8', '--skip_nonfinite=2', '--eval_interval=100')
    where, info = newest_sound(tmp_path / 'o')
    assert info['step'] == 8 and all(
        v.isfinite().all()
        for k, v in checkpoints.read_tensors(where, 'model.safetensors', info).items()
        if not k.startswith('head.act_norm.')
    )
    with monkeypatch.context() as patched:
        spoiled(patched, {3, 4, 5})
        with pytest.raises(ValueError, match='step 6'):
            train('p', '--max_iters=8', '--skip_nonfinite=2', '--eval_interval=100')
    assert np.isfinite(
        [row.get('loss', 0) for row in map(json.loads, open(tmp_path / 'o' / 'log.jsonl')) if row['step'] not in (4, 5)]
    ).all()


# ------------------------------------------------------------------------------
# files from strangers


def test_no_loader_unpickles():
    """nor evaluates what it reads: not one of our files says so"""
    forbidden = re.compile(r'pickle\.loads?\(|torch\.load\(|allow_pickle=True|yaml\.load\(|(?<![\w.])(eval|exec)\(')
    for file in [*ROOT.glob('*.py'), *ROOT.glob('data/**/*.py'), *ROOT.glob('config/*.py')]:
        assert not forbidden.search(file.read_text()), file


WATCHED = """
import os, runpy, sys
def watch(event, args):
    forbidden = ('pickle.find_class', 'os.system', 'os.exec', 'os.posix_spawn', 'socket.connect', 'socket.getaddrinfo')
    if event in forbidden or event == 'subprocess.Popen' and 'git' not in str(args[1]):
        raise SystemExit(f'{event} {args}')
sys.addaudithook(watch)
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_nothing_is_executed_and_nobody_is_called(training, prepared, demo_archive, tmp_path):
    """an audit hook watches what resuming, driving, scoring and preparing from files do"""
    shutil.copytree(training[1], tmp_path / 'o')
    commands = [
        [
            'train.py',
            str(ROOT / TINY[0]),
            *TINY[1:],
            f'--data_dir={prepared}',
            '--out_dir=o',
            '--max_iters=62',
            '--init_from=resume',
            '--eval_interval=40',
            '--warmup_iters=10',
            '--learning_rate=1e-2',
        ],
        ['sample_policy.py', '--out_dir=o', '--prompt=go to the bed'],
        ['sample_policy.py', '--out_dir=o', '--eval=val', '--eval_episodes=2', f'--data_dir={prepared}', '--workers=1'],
        ['prepare.py', f'--archive={demo_archive}', '--out_dir=p', *PREPARE],
    ]
    for script, *args in commands:
        done = python(['-c', WATCHED, ROOT / script, *args], tmp_path, dict(os.environ))
        assert done.returncode == 0, (script, done.stderr[-500:])


# ------------------------------------------------------------------------------
# prepare.py


def test_prepare_killed_anywhere_and_run_again_gives_the_same_bytes(tmp_path):
    args = ['--dataset=swingup', '--size=0.05', '--val_share=0.1', '--test_share=0.2']
    assert run('prepare.py', *args, '--out_dir=whole', '--archive_dir=a', cwd=tmp_path).returncode == 0
    for wait in 2.0, 3.0, 4.0:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / 'prepare.py'), *args, '--out_dir=killed', '--archive_dir=b'],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(wait)
        process.kill()
        process.wait()
    done = run('prepare.py', *args, '--out_dir=killed', '--archive_dir=b', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole, killed = hashes(tmp_path / 'whole'), hashes(tmp_path / 'killed')
    assert {k: v for k, v in whole.items() if k != 'meta.json'} == {k: v for k, v in killed.items() if k != 'meta.json'}
    assert not list(tmp_path.glob('killed.*'))


def test_two_at_once_are_refused(tmp_path):
    (tmp_path / 'p.partial').mkdir()
    (tmp_path / 'p.partial' / 'mine').touch()
    held = lock(tmp_path / 'p.partial')
    refused(
        run('prepare.py', '--dataset=swingup', '--size=0.05', '--out_dir=p', '--archive_dir=a', cwd=tmp_path),
        'another process is writing to p.partial',
    )
    assert (tmp_path / 'p.partial' / 'mine').exists()
    os.close(held)
