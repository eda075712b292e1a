"""
The long versions of what tests/ holds about runs that are never lost.   make torture, or: python tests/torture.py kill
signals resume bits fuzz

kill     kill -9 at 200 random moments of a loop that saves; the same for torch.save in place, which is nanoGPT's way
signals  SIGTERM and Ctrl-C at random moments of a run, one rank and two, 25 times each
resume   20 steps in one go, and stopped in 19 places and gone on: the same bytes
bits     bits flipped in and bytes cut off every file of a checkpoint, 2000 times
fuzz     10,000 mutations of each file that comes from strangers
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import strangers
import torch
from conftest import TINY
from safetensors.torch import save as safetensors_bytes
from tqdm import tqdm

from data.prepared import SPEC
from nanopilot.checkpoint import newest_sound, read_tensors, write_checkpoint

# ------------------------------------------------------------------------------
# kill -9


def info(step):
    """the least that the JSON of a checkpoint says"""
    return {
        'model': {},
        'settings': {},
        'dataset': 'toy_nav',
        'obs_columns': [],
        'step': step,
        'val_loss': None,
        'best': {},
        'scores': [],
        'data': {k: {} if kind is dict else True if kind is bool else [] for k, kind in SPEC.items()},
    }


def save_forever(folder, ours, pipe, size):
    """a run that does nothing but save; says so after each"""
    for step in range(1, 10**6):
        tensors = {'model.w': torch.full((size,), float(step)), 'step': torch.tensor(step)}
        if ours:
            write_checkpoint(
                folder,
                f'step_{step:07d}',
                {'train_state.safetensors': safetensors_bytes(tensors)},
                info(step),
                ['latest'],
            )
            for old in sorted(Path(folder).glob('step_*'))[:-2]:
                shutil.rmtree(old)
        else:
            torch.save(tensors, f'{folder}/ckpt.pt')
        os.write(pipe, step.to_bytes(4, 'little'))


def found(folder, ours):
    """-> the step that a resume would go on from; raises if it cannot"""
    if ours:
        where, info = newest_sound(folder)
        tensors = read_tensors(where, 'train_state.safetensors', info)
    else:
        tensors = torch.load(f'{folder}/ckpt.pt', weights_only=True)
    if not (tensors['model.w'] == tensors['step']).all():
        raise ValueError('torn')
    return int(tensors['step'])


def kill(times=200, ours=True, size=200_000, seed=0):
    """-> how many of n kills lost something: nothing could be read, or an older step than had been saved"""
    rng, lost = random.Random(seed), Counter()
    for _ in tqdm(
        range(times), desc='kill -9, ' + ('our checkpoints' if ours else 'torch.save in place'), disable=None
    ):
        with tempfile.TemporaryDirectory() as folder:
            read, write = os.pipe()
            child = os.fork()
            if not child:
                try:
                    save_forever(folder, ours, write, size)
                finally:
                    os._exit(1)
            os.close(write)
            saved = int.from_bytes(os.read(read, 4), 'little')  # the first is there
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            while said := os.read(read, 4):
                saved = int.from_bytes(said, 'little')
            os.close(read)
            try:
                lost['older'] += found(folder, ours) < saved
            except Exception:
                lost['unreadable'] += 1
    return sum(lost.values())


# ------------------------------------------------------------------------------
# bits


def bits(folder, times=2000, seed=0):
    """a checkpoint's directory -> damages tried, and those that were not refused"""
    from model import GPT

    rng, accepted = np.random.default_rng(seed), []
    with tempfile.TemporaryDirectory() as there:
        copy = Path(there) / 'step_0000001'
        shutil.copytree(folder, copy)
        files = sorted(copy.iterdir())
        for i in tqdm(range(times), desc='bits', disable=None):
            file = files[i % len(files)]
            whole = file.read_bytes()
            at = int(rng.integers(len(whole)))
            file.write_bytes(
                whole[:at]
                if i % 3 == 0
                else whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :]
            )
            try:
                GPT.from_checkpoint(copy)
                newest_sound(there)
                accepted.append((file.name, at))
            except (ValueError, OSError) as e:
                assert '\n' not in str(e), e
            file.write_bytes(whole)
    return times, accepted


# ------------------------------------------------------------------------------
# fuzz


def mutated(data, rng):
    """bytes with a few things done to them"""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(6)
        if what == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at : at + rng.choice([1, 4, 64, len(data)])]
        elif what == 2:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
        elif what == 3:
            data[at : at + 8] = rng.choice(
                [
                    b'\xff' * 8,
                    b'\x00' * 8,
                    (2**40).to_bytes(8, 'little'),
                    b'99999999',
                    b'-1      ',
                    b'{"a": [[',
                    b'NaN     ',
                ]
            )
        elif what == 4:
            end = at + rng.randrange(64)
            data[at:at] = data[at:end] * rng.choice([1, 2, 1000])
        elif data:
            other = rng.randrange(len(data))
            data[at : at + 16] = data[other : other + 16]
    return bytes(data)


def save_small_archive(file):
    from data import archive

    rng, meta = np.random.default_rng(0), {'dataset': 'toy_nav', 'env_kwargs': {}, 'n_obs': 9, 'n_act': 2, 'n_bd': 2}
    arrays = [{'obs': rng.normal(size=(5, 9)), 'act': rng.normal(size=(5, 2)), 'bd': [1, 2]} for _ in range(4)]
    words = {'source': 'a', 'text': ['go to the bed']}
    archive.save(file, [{**a, **words, 'seed': i} for i, a in enumerate(arrays)], meta)


def read_pickle(data):
    import io

    from data import pickled_trajectories, pickles

    try:
        pickled_trajectories.trajectories(pickles.Reader(io.BytesIO(data), encoding='latin1').load())
    except Exception as e:  # its process turns all of them into one line
        raise ValueError(str(e).partition('\n')[0]) from None


def read_settings(data):
    import config

    config.override({'a': 1, 'b': 0.5, 'c': 'x', 'd': True}, data.decode('latin1').split(' '))


def parsers(out):
    """a trained run's directory -> {name: (a valid input, what reads it)}"""
    import json
    import pickle

    from data import archive
    from data.prepared import Prepared, load_meta
    from nanopilot.checkpoint import UNSEALED, find_checkpoint, seal
    from nanopilot.policy import Policy

    folder, there = find_checkpoint(out, 'latest'), Path(tempfile.mkdtemp())
    policy = Policy.load(folder)
    save_small_archive(there / 'a.parquet')
    info = json.loads((folder / 'checkpoint.json').read_text())
    shutil.copytree(info['settings']['data_dir'], there / 'p')
    shutil.copytree(folder, there / 'c')

    def read_archive(data):
        (there / 'b.parquet').write_bytes(data)
        list(archive.Archive(there / 'b.parquet').groups())

    def read_prepared(name):
        def read(data):
            (there / 'p' / name).write_bytes(data)
            load_meta(there / 'p')
            split = Prepared(there / 'p', 'train')
            for i in range(0, len(split), 50):
                split.prompt(i % max(1, len(split.text_start) - 1))

        return read

    def read_checkpoint(data):  # whoever makes one can also make its SHA-256 right
        try:
            info = json.loads(data)
            info['sha256']['checkpoint.json'] = UNSEALED.decode()
            data = seal(json.dumps(info, indent=1).encode())
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        (there / 'c' / 'checkpoint.json').write_bytes(data)
        Policy.load(there / 'c')

    def read_prompt(data):
        policy.check(data.decode('utf8', 'replace'), None)

    read_prompt(b'xylophone, fridge')  # the first unknown word loads the tables of word vectors

    return {
        **strangers.importers(there / 'importers'),
        'archive': ((there / 'a.parquet').read_bytes(), read_archive),
        'meta.json': ((there / 'p/meta.json').read_bytes(), read_prepared('meta.json')),
        'start.npy': ((there / 'p/train/start.npy').read_bytes(), read_prepared('train/start.npy')),
        'checkpoint': (json.dumps(info, indent=1).encode(), read_checkpoint),
        'pickle': (
            pickle.dumps([{'observations': np.ones((4, 3)), 'actions': np.ones((4, 1)), 'rewards': np.ones(4)}] * 2),
            read_pickle,
        ),
        'settings': (b'--a=3 --b 2.5 --c=[1,2] --d --b=1e3', read_settings),
        'prompt': (b'go north of the fridge, then stop near the bed', read_prompt),
    }


def forbid(event, args):
    """an audit hook: what no file may make the program do"""
    if event in ('os.system', 'os.exec', 'os.posix_spawn', 'subprocess.Popen', 'socket.connect'):
        os.write(2, f'FORBIDDEN {event}\n'.encode())
        os._exit(66)


def fuzz(out, times=10_000, seconds=5, memory=64, only=None, batch=250):
    """
    Mutations of the input of each parser, `times` of each, in processes that do nothing else -> {name: {'fine',
    'refused', 'wrong', 'MB'}}; wrong is all but success and an error of one line: another exception, a crash, a hang of
    more than `seconds`, a process that grows by more than `memory` MB
    """
    import json
    import resource

    found = {}
    for name, (valid, parse) in parsers(out).items():
        if only and name not in only:
            continue
        counted, wrong, most = Counter(), [], 0
        for first in tqdm(range(0, times, batch), desc=f'fuzz {name}', disable=None):
            read, write = os.pipe()
            child = os.fork()
            if not child:
                status = 1
                try:
                    sys.addaudithook(forbid)
                    before, mine, odd = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Counter(), []
                    for i in range(first, min(times, first + batch)):
                        signal.alarm(seconds)
                        data = mutated(valid, random.Random(f'{name} {i}'))
                        try:
                            parse(data)
                            mine['fine'] += 1
                        except (ValueError, OSError) as e:
                            mine['refused'] += 1
                            if '\n' in str(e):
                                odd.append((i, 'more than a line', str(e)[:300]))
                        except BaseException as e:
                            odd.append((i, type(e).__name__, str(e)[:300]))
                        signal.alarm(0)
                    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10
                    if grown > memory:
                        odd.append((first, 'memory', f'{grown} MB'))
                    os.write(write, json.dumps([mine, odd[:20], grown]).encode())
                    status = 0
                finally:
                    os._exit(status)
            os.close(write)
            with open(read, 'rb') as f:
                said = f.read()
            _, status = os.waitpid(child, 0)
            if status:
                wrong.append((first, 'died', f'status {status}'))
            else:
                mine, odd, grown = json.loads(said)
                counted.update(mine)
                most = max(most, grown)
                wrong += odd
        found[name] = {**counted, 'wrong': wrong, 'MB': most}
    return found


# ------------------------------------------------------------------------------
# signals, resumes


TRAIN = ['--eval_batches=2', '--dropout=0.1', '--gradient_accumulation_steps=2', '--rollouts=2', '--eval_interval=7']


def launched(prepared, out, *args, ranks=1, restarts=0, stderr=subprocess.STDOUT):
    """train.py with a tiny model in a process of its own, or of torchrun with n ranks -> its Popen"""
    how = (
        ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={ranks}', f'--max-restarts={restarts}']
        if ranks > 1
        else []
    )
    return subprocess.Popen(
        [sys.executable, *how, 'train.py', *TINY, f'--data_dir={prepared}', f'--out_dir={out}', *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def trained(prepared, out, *args, ranks=1, after=None, delay=0.1, signum=signal.SIGTERM):
    """
    train.py in a process; after n lines that it prints, and a random delay, it is sent a signal
    -> exit code, seconds from the signal to the end, what it said
    """
    process, said, t = launched(prepared, out, *TRAIN, *args, ranks=ranks), [], time.time()
    for line in process.stdout:
        said.append(line)
        if len(said) == after:
            time.sleep(random.random() * delay)
            process.send_signal(signum)
            t = time.time()
    return process.wait(), time.time() - t, ''.join(said)


def signals(prepared, times=25):
    """-> signals sent, and what was not as promised"""
    wrong, sent, rng = [], 0, random.Random(0)
    with tempfile.TemporaryDirectory() as there:
        for ranks in 1, 2:
            for i in tqdm(range(times), desc=f'signals, {ranks} rank(s)', disable=None):
                signum, out, compiling = rng.choice([signal.SIGTERM, signal.SIGINT]), f'{there}/{ranks}_{i}', i % 5 == 4
                when = {'after': 5, 'delay': 10} if compiling else {'after': rng.randrange(6, 60)}
                code, took, said = trained(
                    prepared, out, '--max_iters=100000', f'--compile={compiling}', ranks=ranks, signum=signum, **when
                )
                sent += 1
                if (
                    took > 10
                    or ranks == 1
                    and code != 128 + signum
                    or 'goes on' not in said
                    and 'while compiling' not in said
                ):
                    wrong.append((ranks, i, code, round(took, 1), said[-300:]))
                elif 'goes on' in said:
                    newest_sound(out)
    return sent, wrong


def resume(prepared, steps=20):
    """a run is stopped after each of its lines, and goes on -> those from which it did not go on to the same bytes"""
    with tempfile.TemporaryDirectory() as there:
        files = ['log.jsonl', f'step_{steps:07d}/model.safetensors', f'step_{steps:07d}/train_state.safetensors']
        trained(prepared, f'{there}/straight', f'--max_iters={steps}')
        differs = []
        for k in tqdm(range(1, steps), desc='resume', disable=None):
            trained(prepared, f'{there}/{k}', f'--max_iters={steps}', after=5 + k)  # some lines come before the steps'
            trained(prepared, f'{there}/{k}', f'--max_iters={steps}', '--init_from=resume')
            if any(
                (Path(there) / 'straight' / f).read_bytes() != (Path(there) / str(k) / f).read_bytes() for f in files
            ):
                differs.append(k)
    return differs


def main():
    import json

    parts = sys.argv[1:] or ['kill', 'signals', 'resume', 'bits', 'fuzz']
    with tempfile.TemporaryDirectory() as there:
        prepared, out = f'{there}/prepared', f'{there}/out'
        if set(parts) - {'kill'}:
            subprocess.run(
                [
                    sys.executable,
                    'prepare.py',
                    '--size=0.01',
                    f'--out_dir={prepared}',
                    f'--archive_dir={there}/archives',
                    '--val_share=0.1',
                    '--test_share=0.2',
                ],
                cwd=ROOT,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            trained(prepared, out, '--max_iters=6', '--eval_interval=3')
        if 'kill' in parts:
            print(f'kill -9: {kill()} of 200 lost with our checkpoints')
            print(f'kill -9: {kill(ours=False)} of 200 lost with torch.save in place')
        if 'signals' in parts:
            sent, wrong = signals(prepared)
            print(f'signals: {sent} sent, {len(wrong)} not as promised {wrong[:3]}')
        if 'resume' in parts:
            differs = resume(prepared)
            print(f'resume: of 19 places {len(differs)} went on to other bytes {differs}')
        if 'bits' in parts:
            tried, accepted = bits(f'{out}/{Path(out, "latest").read_text().strip()}')
            print(f'bits: {tried} damages, {len(accepted)} accepted {accepted[:3]}')
        if 'fuzz' in parts:
            for name, found in fuzz(out).items():
                wrong = found.pop('wrong')
                print(f'fuzz {name}: {json.dumps(found)}, {len(wrong)} wrong {wrong[:3]}')


if __name__ == '__main__':
    main()
