"""bench.py: its comparisons do not fall back, and it publishes nothing from a busy machine. Gates are at half the goal, or of what is reached."""
import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import run


@pytest.fixture
def bench(script):
    names = script('bench.py', '--pairs=3', '--threads=1', '--force', name='tested')
    torch.set_num_threads(1)
    return names


def test_cached_rollouts_stay_fast(bench):
    """the ancestor's sizes at batch 1: about 50 times on one thread; the goal of 100 is not reached. The table is bench.py's"""
    model = bench['make'](**bench['ANCESTOR'], block_size=226 + 3 * 64)
    text, obs, act, bd = bench['inputs'](model.config, 1, 403, 226)
    steps = bench['in_flight'](model, 1, 226, 10)
    with torch.inference_mode():
        row = bench['compare']('cached', lambda: model(text, obs, act, bd, execution='dense'), partial(steps, 20), 100, n_fast=20)
        many = bench['compare']('batch', partial(steps, 20), partial(bench['in_flight'](model, 64, 226, 70), 4), 4, 20, 4 * 64)
    assert row['ratio'] >= 25 and row['low'] <= row['ratio'] <= row['high']
    assert many['ratio'] >= 2


def test_banded_attention_stays_fast(bench):
    assert bench['attention']()[0]['ratio'] >= 1.2


def test_gathering_batches_stays_cheap(bench):
    rows = {r['name']: r for r in bench['training']()}
    assert next(r for name, r in rows.items() if 'gathering' in name)['ratio'] >= 25
    assert any('nanoGPT' in name and r['skipped'] == '--nanogpt=DIR' for name, r in rows.items())


def test_what_a_gpu_would_be_asked(bench):
    """on the CPU, tiny: that it runs and that a share is one"""
    *training, policies = bench['gpu'](device='cpu', widths=(16,), tokens=512, size=256, n_rows=4)
    assert 0 < training[0]['value'] < 100 and policies['value'] > 0
    if not torch.cuda.is_available():
        assert all(r['skipped'] == 'no GPU' for r in bench['gpu']())


def test_it_compares_in_turn_and_takes_the_median(bench):
    order = []
    row = bench['compare']('a', lambda: order.append('slow'), lambda: order.append('fast'), None)
    assert order == ['slow', 'fast'] * 4 and np.isfinite(row['ratio'])


def test_it_writes_and_draws_what_it_prints(script, tmp_path, capsys):
    script('bench.py', '--only=environment', '--pairs=1', '--force', '--out_file=b/bench.json')
    done, said = json.loads((tmp_path / 'b/bench.json').read_text()), capsys.readouterr().out
    assert done['rows'][0]['name'] in said and f"{done['rows'][1]['value']:,.0f}/s | >= 500,000/s" in said and done['about']['torch']
    assert (tmp_path / 'b/bench.png').stat().st_size > 1000


def test_the_slow_parts_run(tmp_path):
    """scripts in subprocesses: preparing, two ranks, a cold start"""
    done = run('bench.py', '--only=prepare,ranks,start', '--pairs=1', '--force', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, unit in ('| prepare,', 'MB/s |'), ('| 2 gloo ranks', ' ms |'), ('| sample_policy.py', ' s |'):
        assert any(line.startswith(name) and unit in line for line in done.stdout.splitlines()), done.stdout
    assert not list(tmp_path.iterdir())


def test_a_busy_machine_is_refused(refuses, monkeypatch):
    monkeypatch.setattr('os.getloadavg', lambda: (1.5, 1.5, 1.5))
    refuses('bench.py', '--only=environment', words=('busy', '1.50', '--force'))
    refuses('bench.py', '--only=sorcery', '--force', words=('sorcery', 'rollout'))
    refuses('bench.py', '--nanogpt=nowhere', '--force', words=('nowhere', 'model.py'))
    assert 'nanogpt_model' not in sys.modules
