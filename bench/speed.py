"""
How fast is it? Each figure is a ratio of two things that run in turn in this process, A B A B ..: the pairs' median.

$ python -m bench.speed                            # from the checkout's root: one table, about 20 minutes on 2 cores
$ python -m bench.speed --only=rollout,attention   # some parts: rollout, attention, training, environment, evaluation,
                                                   # prepare, files, workers, ranks, start, busy, gpu
$ python -m bench.speed --nanogpt=../nanoGPT       # also against a checkout of nanoGPT; with `pip install '.[bench]'`
                                                   # also against Hugging Face's DecisionTransformerModel
$ python -m bench.speed --out_file=bench/two_cores.json   # keep it, with the machine's description, and draw it
"""

import sys

if __name__ == '__main__' and not __package__:
    sys.exit("run it from the checkout's root: python -m bench.speed")

import config as settings  # first: it turns mistakes into one line

import json
import os
import platform
import re
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench import acting, busy, files, gpu, learning, scripts
from bench.pairs import Bench

# ------------------------------------------------------------------------------
only = ''  # parts, separated by commas; '': all
pairs = 7  # of every comparison
tiny = False  # the smallest sizes: does every part run? The figures then mean nothing
threads = 2  # of the CPU
nanogpt = ''  # a checkout of nanoGPT to train beside
out_file = ''  # also write the table there, as JSON with the machine's description, and a picture beside it
force = False  # although the machine is busy
seed = 1337
config = settings.read(globals(), __file__)
globals().update(config)
# ------------------------------------------------------------------------------
PARTS = {
    'rollout': acting.rollout,
    'attention': learning.attention,
    'training': learning.training,
    'environment': acting.environment,
    'evaluation': acting.evaluation,
    'prepare': scripts.prepare,
    'files': files.files,
    'workers': scripts.workers,
    'ranks': scripts.ranks,
    'start': scripts.start,
    'busy': busy.busy,
    'gpu': gpu.gpu,
}


def columns(row):
    """a row -> its name, figure, goal, and whether it is met"""
    if 'skipped' in row:
        return row['name'], f'skipped: {row["skipped"]}', '-', ''
    if 'ratio' in row:
        figure = f'{row["ratio"]:.2f}x [{row["low"]:.2f}, {row["high"]:.2f}], {row["ms"]:.3g} ms'
        if not row['goal']:
            return row['name'], figure, '-', ''
        return row['name'], figure, f'>= {row["goal"]}x', yes(row['ratio'] >= row['goal'])
    unit = row['unit']
    figure = f'{row["value"]:,.0f}{unit}' if row['value'] > 1000 else f'{row["value"]:.2g}{unit}'
    if unit.endswith(('/s', '%')):
        return row['name'], figure, f'>= {row["goal"]:,}{unit}', yes(row['value'] >= row['goal'])
    return row['name'], figure, f'<= {row["goal"]:,}{unit}', yes(row['value'] <= row['goal'])


def yes(met):
    return 'yes' if met else 'no'


def draw(file, rows):
    """a picture of the ratios beside their goals"""
    from matplotlib.figure import Figure

    rows = [r for r in rows if 'ratio' in r][::-1]
    figure = Figure(figsize=(11, 0.42 * len(rows) + 1), layout='constrained')
    ax = figure.add_subplot()
    y = np.arange(len(rows))
    ratio = np.array([r['ratio'] for r in rows])
    spread = np.abs(np.array([[r['low'], r['high']] for r in rows]).T - ratio)
    colors = ['tab:green' if not r['goal'] or r['ratio'] >= r['goal'] else 'tab:orange' for r in rows]
    ax.barh(y, ratio, xerr=spread, color=colors, height=0.6, error_kw={'lw': 0.8})
    goals = [(r['goal'], i) for i, r in enumerate(rows) if r['goal']]
    ax.plot(*zip(*goals), 'k|', ms=14, label='goal')
    ax.set_yticks(y, [r['name'] for r in rows], fontsize=8)
    ax.set(xscale='log', xlabel='times as fast: median, least and most of the pairs')
    ax.axvline(1, color='k', lw=0.6)
    ax.legend()
    figure.savefig(file, dpi=110)


def processor():
    """its name"""
    try:
        return re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def check(names, load):
    """refuse what would give figures that mean nothing, or none"""
    if load > 0.5 and not force:
        raise ValueError(f'the machine is busy (load {load:.2f}): the figures would mean nothing. Wait, or --force')
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f'only={only!r}: there is no part {unknown[0]!r}. Choose from: {", ".join(PARTS)}')
    if nanogpt and not (Path(nanogpt) / 'model.py').is_file():
        raise FileNotFoundError(f'no model.py in nanogpt={nanogpt!r}. Give the folder of a checkout of nanoGPT')


def main():
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    names = only.split(',') if only else list(PARTS)
    check(names, load)
    about = {
        'machine': processor(),
        'cores': os.cpu_count(),
        'threads': threads,
        'torch': torch.__version__,
        'numpy': np.__version__,
        'load': round(load, 2),
        'pairs': pairs,
    }
    print(', '.join(f'{k} {v}' for k, v in about.items()) + '\n')
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), pairs, seed, tiny, nanogpt)
        for name in names:
            rows += PARTS[name](bench)
    print('| measure | median [least, most], of the faster | goal | met |\n|---|---|---|---|')
    for row in rows:
        print('| ' + ' | '.join(columns(row)) + ' |')
    if out_file:
        file = Path(out_file)
        picture = file.with_suffix('.png')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({'about': about, 'rows': rows}, indent=1) + '\n')
        draw(picture, rows)
        print(f'written: {file} and {picture}')


if __name__ == '__main__':
    main()
