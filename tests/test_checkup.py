"""prepare.py --check: what will hurt is said before anything is prepared, and what will not is not."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PREPARE

from data import archive, redundant
from data.checkup import Columns
from data.samples import Contents, Reservoir

TASKS = ['pick up the red cube', 'open the top drawer', 'push the green button', 'put the lid on the pot']


def robot(n=120, told=0.0, seed=0):
    """episodes of an arm; told: how far obs_3 is from one task to the next"""
    rng = np.random.default_rng(seed)
    rows = []
    for task in rng.integers(4, size=n):
        T = int(rng.integers(5, 12))
        state = rng.normal(size=6) + np.cumsum(0.05 * rng.normal(size=(T, 6)), 0)
        state[:, 3] += told * task
        act = rng.uniform(-0.9, 0.9, size=(T, 2))
        rows.append({'observation.state': state, 'action': act, 'task': [TASKS[task]] * T})
    return rows


def saved(rows, tmp_path):
    rows = [{name: np.asarray(value).tolist() for name, value in row.items()} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / 'x.parquet')


@pytest.fixture
def page(script, tmp_path, capsys):
    """page(rows): what --check says of them, and that it writes a picture alone"""

    def check(rows, *args, file='x.parquet'):
        if rows:
            saved(rows, tmp_path)
        before = {*tmp_path.rglob('*')}
        dataset = [] if 'toy_nav' in str(args) else ['--dataset=gym']
        script('prepare.py', '--check', *dataset, f'--archive={file}', '--archive_dir=a', *args)
        written = {*tmp_path.rglob('*')} - before
        assert {path.name for path in written} <= {'a', 'check.png'}
        assert (tmp_path / 'a/check.png').read_bytes()[:4] == b'\x89PNG'
        return capsys.readouterr().out

    return check


def findings(said):
    return [line for line in said.splitlines() if line.startswith('! ')]


# ------------------------------------------------------------------------------
# words


def test_words_that_the_first_observation_tells_are_redundant(page):
    said = page(robot(told=4))
    (finding,) = findings(said)
    assert 'words are redundant' in finding and finding.endswith('obs_3') and 'Record different texts' in finding


def test_words_that_it_does_not_tell_are_needed(page):
    said = page(robot())
    assert 'words  needed.' in said and 'nothing was found that will hurt' in said


def test_copies_of_episodes_do_not_tell_their_words(page):
    """a nearest neighbour would find the copy"""
    rows = robot()
    said = page(rows + rows)
    assert 'words  needed.' in said and '120 of 240 episodes are the same as another' in findings(said)[0]


def test_words_are_seldom_called_redundant_by_chance():
    rng = np.random.default_rng(0)
    verdicts = [redundant.measure(rng.normal(size=(60, 8)), rng.choice(TASKS, 60)).verdict for _ in range(50)]
    assert sum(verdict.endswith('redundant') for verdict in verdicts) <= 2


@pytest.mark.parametrize('n_obs', [1, 200])
def test_they_are_found_among_many_observations(n_obs):
    rng = np.random.default_rng(0)
    task = rng.integers(4, size=300)
    obs = rng.normal(size=(300, n_obs))
    obs[:, n_obs // 2] += 6 * task
    told = redundant.measure(obs, [TASKS[k] for k in task])
    assert told.verdict == 'redundant' and told.columns[0] == n_obs // 2


def test_what_only_both_of_two_observations_tell_is_found():
    rng = np.random.default_rng(0)
    obs = rng.uniform(-1, 1, (400, 2))
    texts = [TASKS[int(a * b > 0)] for a, b in obs]
    assert redundant.measure(obs, texts).verdict == 'redundant'


@pytest.mark.parametrize('told', [True, False])
def test_of_texts_that_all_differ_words_are_asked_for(told):
    rng = np.random.default_rng(0)
    colour = rng.integers(3, size=300)
    texts = [
        f'{" ".join(rng.permutation(list("abcdef"))[:3])} {("red", "green", "blue")[k]} {i}'
        for i, k in enumerate(colour)
    ]
    obs = rng.normal(size=(300, 3)) + 5 * told * np.eye(3)[colour]
    found = redundant.measure(obs, texts)
    assert found.kind == 'words' and found.verdict == ('partly redundant' if told else 'needed')
    assert {word for word, _, _ in found.words} == ({'red', 'green', 'blue'} if told else set())


@pytest.mark.parametrize(
    'obs, texts, why',
    [
        (np.zeros((0, 3)), [], 'there are no texts'),
        (np.zeros((40, 3)), ['go'] * 40, 'all texts are the same'),
        (np.zeros((40, 3)), ['go', 'stop'] * 20, 'begin with the same observation'),
        (np.eye(4), TASKS, '4 episodes are too few'),
        (np.eye(40), [f'a{k}' for k in range(40)], 'they share no words'),
    ],
)
def test_what_cannot_be_measured_is_said(obs, texts, why):
    found = redundant.measure(obs, texts)
    assert why in found.why and not found.kind


# ------------------------------------------------------------------------------
# numbers, copies, splits


def test_each_thing_that_hurts_is_a_line_with_its_cure(page):
    rows = robot()
    for row in rows:
        row['observation.state'][:, 1] = 0.4
        row['observation.state'][:, 5] = row['observation.state'][:, 2]
        row['action'][:, 1] = np.sign(row['action'][:, 1])
    rows[3]['observation.state'][2, 0] = np.nan
    rows[9]['action'] = rows[8]['action']
    rows[9] = {**rows[8], 'task': ['stop'] * len(rows[8]['task'])}
    said = '\n'.join(findings(page(rows)))
    assert '1 of 120 episodes would be left out (first episode 3, step 2, obs_0): nan or inf. Repair' in said
    assert 'only the first is kept; 1 have other texts, which are lost' in said
    assert 'observations that never change: obs_1. ' in said
    assert 'the same at every step: obs_2, obs_5. ' in said
    assert 'actions at a bound in up to 100% of steps: act_1. ' in said


def test_actions_beyond_the_space_are_a_finding_and_no_refusal(page):
    rng = np.random.default_rng(0)
    rows = [{'obs': rng.normal(size=(9, 3)), 'action': rng.uniform(3, 5, (9, 1))} for _ in range(80)]
    said = page(rows, '--env=Pendulum-v1')
    assert '80 of 80 episodes would be left out (first episode 0, step ' in said and '[-2, 2]): ' in said
    assert 'in [-2, 2], seen 3.' in said and '--clip_actions' in said
    said = page(None, '--env=Pendulum-v1', '--clip_actions')
    assert 'would be left out' not in said and 'at a bound in up to 100% of steps' in said


def test_a_missing_action_leaves_the_bounds_what_they_are(page, refuses, tmp_path):
    rows = robot()
    rows[5]['action'][4, 1] = np.nan
    said = page(rows)
    assert 'episode 5, step 4, act_1' in findings(said)[0] and 'actions  2 a step in [-0.89' in said
    labels = np.array([0, 1, np.nan])
    saved([{'obs': np.eye(3), 'action': labels[[0, 1, k]]} for k in (0, 1, 2)], tmp_path)
    refuses('prepare.py', '--check', '--dataset=gym', '--archive=x.parquet', words=['episode 2, action: nan is no'])


def test_returns_that_are_all_the_same_are_said(page):
    rows = [{**row, 'reward': np.ones(4), 'action': row['action'][:4]} for row in robot()]
    for row in rows:
        row['observation.state'], row['task'] = row['observation.state'][:4], row['task'][:4]
    assert 'all returns are 4: asking for one says nothing' in page(rows)


def test_the_splits_are_those_that_prepare_makes(page, demo_archive, prepared):
    counts = json.loads((prepared / 'meta.json').read_text())['counts']
    splits = ', '.join(f'{counts[name]["episodes"]} {name}' for name in ('train', 'val', 'test'))
    said = page(None, '--dataset=toy_nav', *PREPARE, file=demo_archive)
    assert f'splits  {splits}\n' in said and 'words  needed.' in said


def test_what_is_no_file_of_trajectories_is_one_line(refuses, tmp_path):
    refuses('prepare.py', '--check', words=['--check looks at files', '--archive=FILE'])
    (tmp_path / 'x.parquet').write_bytes(b'version https://git-lfs')
    refuses('prepare.py', '--check', '--dataset=gym', '--archive=x.parquet', words=['git lfs pull'])
    rows = robot(4)
    for row in rows:
        row['observation.state'][:] = np.nan
    saved(rows, tmp_path)
    args = ['--check', '--dataset=gym', '--archive=x.parquet', '--archive_dir=a']
    refuses('prepare.py', *args, words=['no episode could be used', 'episode 0, step 0, obs_0', 'Repair'])
    assert not (tmp_path / 'a').exists()


# ------------------------------------------------------------------------------
# samples


def test_a_reservoir_holds_so_many_each_with_the_same_chance():
    counts = np.zeros(400)
    for seed in range(300):
        reservoir = Reservoir(20, np.random.default_rng(seed))
        for a in range(0, 400, 50):
            reservoir.add(np.arange(a, a + 50))
            assert len(reservoir.items) <= 90
        counts[reservoir.sample()] += 1
    assert counts.sum() == 300 * 20
    quarters = counts.reshape(4, 100).sum(1)
    assert abs(quarters - 1500).max() < 150


def test_contents_are_exact_up_to_a_number_and_estimated_beyond_it():
    def filled(n):
        contents = Contents(lambda: {'n': 0}, most=1000)
        for i in range(n):
            for _ in range(1 + i % 2):
                contents.of(b'%d' % i)['n'] += 1
            assert len(contents.entries) <= 1000
        return contents

    few, many = filled(1000), filled(20000)
    assert (len(few), few.count(lambda value: value['n'] - 1), few.estimate_note()) == (1000, 500, '')
    assert abs(len(many) - 20000) < 3000 and abs(many.count(lambda value: value['n'] - 1) - 10000) < 2000
    assert 'estimated from one in 32' in many.estimate_note()


def test_columns_are_equal_where_all_their_steps_are():
    rng = np.random.default_rng(0)
    columns = Columns(['a', 'b', 'c', 'zero', 'nought'], rng)
    for last in False, True:
        a = rng.normal(size=7)
        c = a + 1e-3 * last
        columns.add(np.stack([a, a, c, 0 * a, -0.0 * a], 1))
    assert columns.equal() == [['a', 'b']] and columns.constant().tolist() == [False] * 3 + [True] * 2


def test_paths_that_an_archive_leaves_out_come_from_its_replay(script, demos, archive_meta, tmp_path, capsys):
    """as of README's own simulator, whose archive says of an episode where it ended, and no more"""
    archive.save(tmp_path / 'x.parquet', [{k: v for k, v in e.items() if k != 'path'} for e in demos[:8]], archive_meta)
    script('prepare.py', '--check', f'--archive={tmp_path / "x.parquet"}', '--archive_dir=a')
    assert '8 ' in capsys.readouterr().out


@pytest.mark.parametrize(
    'column, text, words',
    [
        (
            'asked',
            'go to the fridge',
            ["episode 0: asked is 'go to the fridge', where toy_nav reads JSON", 'leave asked'],
        ),
        ('parts', 'nonsense', ['first episode 0): parts is not JSON [[sentence', 'leave parts out']),
    ],
)
def test_plain_text_where_an_archive_has_json_is_named(column, text, words, refuses, demos, archive_meta, tmp_path):
    """by --check and by prepare.py"""
    archive.save(tmp_path / 'x.parquet', [{**e, column: text} for e in demos[:4]], archive_meta)
    args = [f'--archive={tmp_path / "x.parquet"}', '--archive_dir=a', '--out_dir=p', '--workers=1']
    refuses('prepare.py', '--check', *args, words=['x.parquet', *words])
    said = refuses('prepare.py', *args)
    assert all(word in said for word in words) or said.startswith('all 4 episodes were left out: parts')
