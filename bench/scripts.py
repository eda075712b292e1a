"""The scripts as a user runs them, start included: preparing, training in two ranks, a prompt's picture."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bench.pairs import ratio_row
from data import archive
from data.toy_nav import collect, env_kwargs

ROOT = Path(__file__).parent.parent


def script(name, *args, ranks=0):
    """run a script of the project -> what it printed"""
    launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={ranks}'] if ranks else []
    args = [str(ROOT / a) if a.startswith('config/') else a for a in args]
    process = subprocess.run([sys.executable, *launch, str(ROOT / name), *args], capture_output=True, text=True)
    if process.returncode:
        raise ValueError(f'{name} {" ".join(args)} failed: {process.stderr.strip().splitlines()[-1]}')
    return process.stdout


def demonstrations(bench):
    """-> a folder with an archive of demonstrations, and the same prepared; made once"""
    folder = bench.folder / 'demonstrations'
    if folder.exists():
        return folder
    folder.mkdir()
    kwargs = env_kwargs()
    episodes = collect('demonstrations', bench.size(0.03, 0.002), bench.seed, kwargs)
    meta = {'dataset': 'toy_nav', 'env_kwargs': kwargs, 'n_obs': 9, 'n_act': 2, 'n_bd': 2}
    archive.save(folder / 'a.parquet', episodes, meta)
    script('prepare.py', f'--archive={folder / "a.parquet"}', f'--out_dir={folder / "p"}', *splits(bench))
    return folder


def splits(bench):
    """few episodes need larger shares, lest a split be empty"""
    return bench.size([], ['--val_share=0.2', '--test_share=0.2'])


def prepare(bench):
    """replaying, annotating, splitting and packing an archive"""
    folder = demonstrations(bench)
    file = folder / 'a.parquet'

    def once():
        script('prepare.py', f'--archive={file}', '--describe=keep', f'--out_dir={folder / "again"}', *splits(bench))

    name = 'prepare, without descriptions (600 episodes, starting up counted)'
    return [bench.per_second(name, once, os.path.getsize(file) / 1e6, ' MB/s', 8)]


def workers(bench):
    """collecting a tenth of toy_nav and preparing it, by one process and by two"""

    def prepare(n):
        folders = [f'--out_dir={bench.folder / "prepared"}', f'--archive_dir={bench.folder / "archives"}']
        what = bench.size(['--size=0.1'], ['--dataset=swingup', '--size=0.04'])
        script('prepare.py', '--recollect', *what, f'--workers={n}', *folders, *splits(bench))

    name = 'prepare, a tenth of toy_nav collected and all: 2 workers, against 1'
    return [bench.compare(name, partial(prepare, 1), partial(prepare, 2), 1.8)]


def train(bench, *args, ranks=0):
    """train.py on the demonstrations, small if the bench is tiny -> what it printed"""
    folder = demonstrations(bench)
    small = bench.size([], ['--n_layer=1', '--n_embd=16', '--n_head=1'])
    data = [f'--data_dir={folder / "p"}', f'--out_dir={folder / "out"}', '--source_weights=', '--drop_bd=0.8']
    fixed = ['--eval_batches=1', '--rollouts=0']
    return script('train.py', 'config/toy_nav_cpu.py', *data, *fixed, *small, *args, ranks=ranks)


def ranks(bench):
    """the time of a training step of config/toy_nav_cpu.py with 64 episodes, by one process and by two"""
    n = bench.size(12, 2)
    args = [f'--batch_size={bench.size(64, 4)}', f'--max_iters={2 * n}', f'--log_interval={n}']
    args += ['--eval_interval=100', '--threads=1']
    times = {0: [], 2: []}
    for _ in tqdm(range(bench.pairs), desc='ranks', disable=None):
        for count, found in times.items():
            printed = train(bench, *args, ranks=count)
            found.append(float(re.findall(r'\| +([\d.]+) ms', printed)[-1]) / 1e3)
    return [ratio_row('2 gloo ranks, against 1 process; 1 thread each', times[0], times[2], 1.7)]


def start(bench):
    """from nothing to a picture"""
    train(bench, '--max_iters=0')
    out = demonstrations(bench) / 'out'

    def once():
        script('sample_policy.py', f'--out_dir={out}', '--prompt', 'go north of the fridge')

    return [bench.duration('sample_policy.py --prompt, to its picture', once, ' s', 6)]
