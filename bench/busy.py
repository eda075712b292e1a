"""Training beside other busy processes, with threads that soon sleep while they wait, as our scripts set it, or not."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bench.pairs import ratio_row
from data.threads import BRIEFLY, BY_USER

ROOT = Path(__file__).parent.parent
NEIGHBOUR = 'while True: pass'
SERVE = 'from bench import busy; busy.serve({tiny}, {folder!r}, {threads})'
TORCHS_OWN = {'GOMP_SPINCOUNT': '300000'}  # GNU OpenMP's default, said aloud: what is set is not changed by us


def serve(tiny, folder, threads):
    """in a process of its own, whose environment is read when torch is loaded: a line n -> the time of n steps"""
    import torch

    from bench.learning import training_loop
    from bench.pairs import Bench, seconds
    from bench.sizes import TOY_NAV, batches, config_of

    torch.set_num_threads(threads)
    bench = Bench(Path(folder), tiny=tiny)
    config = config_of(bench, bench.size(50, 2), **TOY_NAV | {'n_layer': 4})
    steps, _ = training_loop(bench, config, batches(bench, config, bench.size(16, 2), f'busy_{os.getpid()}'))
    steps(3)
    print('ready', flush=True)
    for line in sys.stdin:
        n = int(line)
        print(seconds(partial(steps, n)) / n, flush=True)


@contextmanager
def trainer(bench, waiting):
    """a process that trains; waiting: how its threads wait -> a function: n steps, how long did one take?"""
    environment = {k: v for k, v in os.environ.items() if k not in BY_USER} | waiting
    code = SERVE.format(tiny=bench.tiny, folder=str(bench.folder), threads=os.cpu_count())
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env=environment, **pipes)

    def time_of_step(n):
        print(n, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    with process:
        process.stdout.readline()  # 'ready'
        try:
            yield time_of_step
        finally:
            process.stdin.close()  # it ends


@contextmanager
def neighbours(n):
    """n processes that keep a core each busy"""
    processes = [subprocess.Popen([sys.executable, '-c', NEIGHBOUR]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def busy(bench):
    """a training step of config/toy_nav_cpu.py on all cores, with no, one and two busy neighbours"""
    n = bench.size(6, 1)
    own, brief = {}, {}
    with trainer(bench, TORCHS_OWN) as spinning, trainer(bench, BRIEFLY) as sleeping:
        for _ in tqdm(range(bench.pairs), desc='busy', disable=None):
            for count in 0, 1, 2:
                with neighbours(count):
                    own.setdefault(count, []).append(spinning(n))
                    brief.setdefault(count, []).append(sleeping(n))
    what = 'a training step on all cores'
    return [
        ratio_row(f'{what}, idle: threads that soon sleep, against spinning', own[0], brief[0], 0.97),
        ratio_row(f'{what}, one busy neighbour: the same', own[1], brief[1], None),
        ratio_row(f'{what}, two busy neighbours: the same', own[2], brief[2], None),
        ratio_row(f'{what}, one busy neighbour against idle', brief[0], brief[1], 0.4),
        ratio_row(f'{what}, two busy neighbours against idle', brief[0], brief[2], None),
    ]
