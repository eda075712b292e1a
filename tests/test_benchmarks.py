"""bench.benchmarks: the page is what the script makes of the files that are kept, and a row says what was scored."""

import json

import pytest
from conftest import refused, run

from bench import benchmarks
from data import metrics


def row(name, hits, n=100):
    return {'name': name, 'success': metrics.proportion([True] * hits + [False] * (n - hits)), 'other': 'not kept'}


@pytest.fixture
def scores(tmp_path):
    """a file as sample_policy.py --eval --drawn_at=0.5 writes it"""
    ways = {'prompt': 80, 'prompt, drawn at 0.5': 90, 'swapped prompt': 30, 'swapped prompt, drawn at 0.5': 45}
    rows = [row(f'Near: {way}', hits) for way, hits in ways.items()] + [{'name': 'offline'}]
    trained = {'seed': 7, 'out_dir': '/somewhere/of/mine'}
    found = {'step': 30, 'trained': trained, 'settings': {'temperature': 0.0}, 'env_kwargs': {'max_steps': 12}}
    file = tmp_path / 'eval_test.json'
    file.write_text(json.dumps({**found, 'rows': rows}))
    return file


@pytest.fixture
def said(monkeypatch):
    """what the command says of a run"""
    values = {'data': '9 demonstrations', 'minutes': 2.5, 'machine': 'one core', 'trained_by': 'config/near.py'}
    for key, value in values.items():
        monkeypatch.setattr(benchmarks, key, value)


def test_the_page_is_what_the_script_makes_of_the_files():
    assert benchmarks.PAGE.read_text() == benchmarks.page(benchmarks.FOLDER)


def test_a_run_is_a_row_for_each_way_to_choose_actions(scores, said):
    lines = benchmarks.ours([benchmarks.kept(scores)]).splitlines()
    assert lines[0].startswith("| task | data | n | actions | its prompt | another's | gap |")
    greedy, drawn = lines[2:]
    assert greedy.startswith('| Near | 9 demonstrations | 100 | greedy | 80.0 [71.1, 86.7] | 30.0 [')
    assert '| drawn at 0.5 | 90.0 [' in drawn and '| 45.0 | config/near.py, seed 7, step 30 | 2.5, one core |' in drawn


def test_seeds_of_one_policy_are_a_row_and_their_spread_is_beside_it(scores, said):
    runs = [benchmarks.kept(scores) for _ in range(3)]
    for run_of, seed, hits in zip(runs, (9, 7, 8), (84, 80, 79), strict=True):
        run_of |= {'seed': seed, 'step': 30 + (seed == 9)}
        run_of['rows'][0] = row('Near: prompt', hits)
    other = {**benchmarks.kept(scores), 'config': 'config/far.py'}
    greedy, drawn, alone, _ = benchmarks.ours([*runs, other]).splitlines()[2:]
    assert greedy.startswith('| Near | 9 demonstrations | 100 | greedy | 81.0 [72.2, 87.5]; 79.0 to 84.0 | 30.0 [')
    assert '| 51.0; 49.0 to 54.0 | config/near.py, seeds 7, 8, 9, step 30, 31 | 2.5, one core |' in greedy
    assert '| 90.0 [82.6, 94.5]; 90.0 to 90.0 |' in drawn
    assert '| 50.0 | config/far.py, seed 7, step 30 |' in alone


def test_a_task_may_have_another_name_than_its_source(scores, said, monkeypatch):
    monkeypatch.setattr(benchmarks, 'task', 'MT10')
    assert benchmarks.ours([benchmarks.kept(scores)]).splitlines()[2].startswith('| MT10 | 9 demonstrations |')


def test_many_tasks_are_pooled_and_few_are_not(scores, said):
    run_of = benchmarks.kept(scores)
    for n in 3, 4:
        run_of['rows'] = [row(f'task {i}: prompt', 10 * i) for i in range(n)]
        lines = benchmarks.ours([run_of]).splitlines()[2:]
        assert len(lines) == (3 if n == 3 else 1)
    assert lines[0].startswith('| 4 tasks | 9 demonstrations | 400 | greedy | 15.0 [')
    assert '| - | config/near.py' in lines[0]  # no gap: nothing is known of another's prompt


def test_what_is_kept_names_no_place_of_a_machine():
    files = list(benchmarks.FOLDER.glob('*.json'))
    assert files and not any('"/' in file.read_text() or 'out_dir' in file.read_text() for file in files)


def test_a_run_is_kept_with_what_made_it(scores, tmp_path):
    refused(run('bench.benchmarks', f'--keep={scores}', '--name=near', cwd=tmp_path), '--trained_by=')
    scores.write_text(json.dumps({**json.loads(scores.read_text()), 'rows': []}))
    with pytest.raises(ValueError, match='nothing of success'):
        benchmarks.kept(scores)
    assert not (benchmarks.FOLDER / 'near.json').exists()
