"""bench.speed: every part runs, no ratio falls back, and nothing is published from a busy machine."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, run

from bench import scripts
from bench.gpu import gpu
from bench.pairs import Bench

ROWS = {
    'rollout': [
        'cached, against recomputed',
        'exported, against recomputed',
        'cached, against a cropped',
        'a step in a batch',
        "cached, against Hugging Face's",
        "exported, against Hugging Face's",
    ],
    'attention': ['causal attention'],
    'training': [
        'nanoGPT',
        'gathering',
        'one token a step',
        'checkpoint',
        'Muon',
        'square()',
        'Hugging Face',
        'ceiling',
    ],
    'environment': ['robots at once', 'robot steps'],
    'evaluation': ['1,000 episodes'],
    'prepare': ['prepare, without descriptions'],
    'files': ['HDF5 of', 'Parquet of', 'against one call of its library'],
    'workers': ['2 workers, against 1'],
    'ranks': ['2 gloo ranks'],
    'start': ['to its picture'],
    'busy': ['idle: threads that soon sleep', 'one busy neighbour against idle'],
    'gpu': ['matmul ceiling', 'policy steps'],
}


@pytest.fixture
def bench(tmp_path):
    torch.set_num_threads(1)
    return Bench(tmp_path, pairs=3)


SCRIPTS = ['prepare', 'ranks', 'start']  # these share the data that they prepare


@pytest.mark.parametrize('parts', [[part] for part in ROWS if part not in SCRIPTS] + [SCRIPTS], ids='+'.join)
def test_every_part_runs(parts, tmp_path):
    """as the documented command does, in the smallest sizes"""
    only = f'--only={",".join(parts)}'
    process = run('bench.speed', only, '--tiny', '--pairs=1', '--threads=1', '--force', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    table = [line for line in process.stdout.splitlines() if line.startswith('| ')]
    for name in (name for part in parts for name in ROWS[part]):
        assert any(name in row for row in table), (name, process.stdout)


def test_every_part_is_tested():
    assert set(ROWS) == set(speed_parts())


def speed_parts():
    """the parts that --only knows, as its refusal lists them"""
    process = run('bench.speed', '--only=none', '--force', cwd=ROOT)
    return process.stderr.strip().rpartition('Choose from: ')[2].split(', ')


def test_a_gpus_figures_are_shares(bench):
    """on the CPU, tiny, where a small product may be slower than a training step"""
    bench.tiny = True
    deterministic, training, policies = gpu(bench, device='cpu')
    assert training['value'] > 0
    assert deterministic['ratio'] > 0
    assert policies['value'] > 0
    if not torch.cuda.is_available():
        assert all(row['skipped'] == 'no GPU' for row in gpu(bench))


# ------------------------------------------------------------------------------
# the comparing and the table


def test_it_compares_in_turn_and_takes_the_median(bench):
    order = []
    row = bench.compare('a', lambda: order.append('slow'), lambda: order.append('fast'), None)
    assert order == ['slow', 'fast'] * 4 and np.isfinite(row['ratio'])


def test_the_slow_is_the_numerator(bench):
    row = bench.compare('a', lambda: sum(range(10**6)), lambda: sum(range(10**4)), None)
    assert row['ratio'] > 10
    halved = bench.compare('a', lambda: sum(range(10**6)), lambda: sum(range(10**6)), None, n_slow=1, n_fast=100)
    assert 50 < halved['ratio'] < 200


def test_one_process_is_compared_with_two_ranks(bench, monkeypatch):
    """their processes replaced"""
    calls = []

    def script(name, *args, ranks=0):
        calls.append((name, ranks))
        return f'step     12 | loss 1.0 | lr 1e-3 | {200 - 50 * ranks:6.1f} ms | 10k steps/s | data 0.1%'

    monkeypatch.setattr(scripts, 'script', script)
    monkeypatch.setattr(scripts, 'demonstrations', lambda bench: bench.folder)
    (row,) = scripts.ranks(bench)
    assert row['ratio'] == 2
    assert calls == [('train.py', 0), ('train.py', 2)] * 3


def test_it_writes_and_draws_what_it_prints(script, tmp_path, capsys):
    script('bench/speed.py', '--only=environment', '--pairs=1', '--force', '--out_file=b/bench.json')
    written = json.loads((tmp_path / 'b/bench.json').read_text())
    printed = capsys.readouterr().out
    assert written['about']['torch']
    assert written['rows'][0]['name'] in printed
    assert f'{written["rows"][1]["value"]:,.0f}/s | >= 500,000/s' in printed
    assert (tmp_path / 'b/bench.png').stat().st_size > 1000


def test_a_busy_machine_is_refused(refuses, monkeypatch):
    monkeypatch.setattr('os.getloadavg', lambda: (1.5, 1.5, 1.5))
    refuses('bench/speed.py', '--only=environment', words=('busy', '1.50', '--force'))
    refuses('bench/speed.py', '--only=sorcery', '--force', words=('sorcery', 'rollout'))
    refuses('bench/speed.py', '--nanogpt=nowhere', '--force', words=('nowhere', 'model.py'))
    assert 'nanogpt_model' not in sys.modules


@pytest.mark.parametrize('name', ['speed', 'compare', 'house'])
def test_run_as_a_file_it_says_how_it_is_run(name, tmp_path):
    """from anywhere, and with nothing of the project on the path"""
    file = str(ROOT / 'bench' / f'{name}.py')
    process = subprocess.run([sys.executable, file], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode != 0
    assert process.stderr.strip().splitlines() == [f"run it from the checkout's root: python -m bench.{name}"]
