"""bench.compare: what differs, with the intervals of one run and the range of several seeds."""

import json

import pytest
from conftest import run

SAMPLING = {'temperature': 0.0, 'num_samples': 1, 'eval_episodes': 0, 'checkpoint': 'best'}


def score(mean):
    return {'mean': mean, 'low': mean - 0.05, 'high': mean + 0.05, 'n': 100}


def evaluated(folder, name, success, **trained):
    """the folder of a run that sample_policy.py --eval=val has scored"""
    (folder / name).mkdir()
    rows = [{'name': 'demonstrations: prompt', 'bd_error': score(0.2), 'success': score(success)}]
    trained = {'dataset': 'toy_nav', 'out_dir': name, 'seed': 0, 'n_layer': 2, 'data_fraction': 1.0, **trained}
    scores = {'settings': {**SAMPLING, 'out_dir': name}, 'rows': rows, 'trained': trained}
    (folder / name / 'eval_val.json').write_text(json.dumps(scores))


@pytest.fixture
def runs(tmp_path):
    evaluated(tmp_path, 'a', 0.5)
    evaluated(tmp_path, 'b', 0.7, seed=1)
    evaluated(tmp_path, 'c', 0.2, data_fraction=0.1)
    return tmp_path


def test_seeds_stand_together_and_what_differs_is_named(runs):
    process = run('bench.compare', 'a', 'b', 'c', cwd=runs)
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[2] == '| data_fraction=1.0 | 2 | 60.0 [50.0, 70.0] |'
    assert lines[3] == '| data_fraction=0.1 | 1 | 20.0 [15.0, 25.0] |'


def test_scores_are_drawn_against_a_setting(runs):
    process = run('bench.compare', 'a', 'b', 'c', '--against=data_fraction', cwd=runs)
    assert process.returncode == 0, process.stderr
    assert (runs / 'compare.png').read_bytes()[:4] == b'\x89PNG'


def test_a_run_named_twice_is_one(runs):
    assert '| all alike | 1 | 50.0 [45.0, 55.0] |' in run('bench.compare', 'a', 'a', cwd=runs).stdout


def test_seeds_that_agree_are_drawn(runs):
    for seed, name in enumerate('def'):
        evaluated(runs, name, 2 / 150, seed=seed)
    process = run('bench.compare', 'c', *'def', '--against=data_fraction', cwd=runs)
    assert process.returncode == 0, process.stderr


def test_mistakes_are_one_line(runs, refuses):
    refuses('bench/compare.py', words=['out_dir'])
    refuses('bench/compare.py', 'nowhere', words=['nowhere', '--eval=val'])
    refuses('bench/compare.py', str(runs / 'a'), '--ask=prompt:beauty', words=['beauty', 'success'])
    refuses('bench/compare.py', str(runs / 'a'), '--ask=prompt:name', words=['name', 'success'])
    refuses('bench/compare.py', str(runs / 'a'), '--split=archive', words=['archive', 'val'])
    refuses('bench/compare.py', str(runs / 'a'), '--against=out_dir', words=['against', 'number'])
    (runs / 'a' / 'eval_val.json').write_text('{}')
    refuses('bench/compare.py', str(runs / 'a'), words=['damaged', '--eval=val'])
