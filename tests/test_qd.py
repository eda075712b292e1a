"""The quality-diversity archive: it grows the same every time, replays, and covers more than chance."""

import numpy as np
import pytest
from conftest import PREPARE, run

from data import archive, toy_nav
from data.toy_nav import qd
from data.toy_nav.itinerary import Itinerary
from data.toy_nav.places import ARCHIVE


@pytest.fixture(scope='module')
def grown(places):
    return qd.grow(places.world, seed=0, evaluations=3000, progress=False)


def test_an_archive_has_one_row_an_elite(grown):
    n = len(grown['spread'])
    assert n > 50 and grown['params'].shape == (n, qd.N_PARAMS) and grown['params'].dtype == np.float32
    assert grown['final'].shape == grown['midway'].shape == (n, 2) and grown['quality'].shape == grown[
        'stopped'
    ].shape == (n,)
    assert grown['spread'].min() >= 0 and grown['spread'].max() <= qd.TOO_FAR and 0 < grown['stopped'].mean() < 1


def test_same_seed_same_archive(grown, places):
    again = qd.grow(places.world, seed=0, evaluations=3000, progress=False)
    assert all(np.array_equal(grown[k], again[k]) for k in grown)


def test_no_two_elites_share_a_cell(grown, places):
    size = places.world.size
    cells = {
        (*map(int, a * ARCHIVE // size), *map(int, b * qd.WAYS // size))
        for a, b in zip(grown['final'], grown['midway'])
    }
    assert len(cells) == len(grown['spread'])


def test_elites_end_where_the_archive_says(grown, places):
    for i, e in enumerate(qd.rollout(grown['params'][:60], places.world)):
        assert len(e['obs']) == len(e['act']) == len(e['path']) - 1
        assert np.allclose(e['path'][-1], grown['final'][i], atol=1e-4)
        assert grown['stopped'][i] == (len(e['act']) < places.world.max_steps or (np.abs(e['act'][-16:]) < 0.1).all())


def test_a_rollout_is_the_environments_episode(grown, places, kwargs):
    """one at a time in the Gymnasium environment, bit for bit"""
    for params, e in list(zip(grown['params'], qd.rollout(grown['params'], places.world)))[::40]:
        env = toy_nav.make_env(**kwargs)
        obs, info = env.reset(seed=0)
        for t, a in enumerate(e['act']):
            assert np.array_equal(obs, e['obs'][t]) and np.array_equal(qd.act(params[None], obs[None])[0], a), t
            obs, _, terminated, truncated, info = env.step(a)
            assert np.array_equal(info['bd'], e['path'][t + 1]), t
        assert terminated or truncated


def test_a_policy_acts_as_it_would_alone(grown):
    rng = np.random.default_rng(0)
    n = min(100, len(grown['params']))
    obs = rng.uniform(0, 1, (n, 9)).astype(np.float32) * np.float32([1, 1, 1, 1, 1, 200, 200, 1, 1])
    together = qd.act(grown['params'][:n], obs)
    assert together.shape == (n, 2) and np.abs(together).max() <= 1
    assert all(
        np.array_equal(together[i : i + 1], qd.act(grown['params'][i : i + 1], obs[i : i + 1])) for i in range(n)
    )


def test_coverage_is_a_share_of_the_floor(places, grown):
    assert qd.coverage(np.zeros((0, 2)), places) == 0
    everywhere = np.stack([places.x[places.reachable], places.y[places.reachable]], 1)
    assert qd.coverage(everywhere, places) == 1
    one = qd.coverage(np.array([[100.0, 100.0]]), places)
    assert 0 < one < 0.002 and qd.coverage(np.array([[1.0, 1.0]]), places) == 0  # inside a wall
    assert qd.coverage(grown['final'], places) > 20 * one


# ------------------------------------------------------------------------------
# through prepare.py, beside demonstrations


@pytest.fixture(scope='module')
def both(grown, places, archive_meta, demo_archive, tmp_path_factory):
    """demonstrations and elites, three of them tampered with, prepared together -> the process, its folder, how many"""
    cwd = tmp_path_factory.mktemp('both')
    episodes = [
        {**e, 'bd': e['path'][-1], 'policy': p, 'spread': float(s), 'seed': 0, 'source': 'elites'}
        for p, s, e in zip(grown['params'][:80], grown['spread'], qd.rollout(grown['params'][:80], places.world))
    ]
    for i, change in (3, 0.5), (4, 1e-3):
        episodes[i]['policy'] = episodes[i]['policy'] + np.float32(change)
    archive.save(cwd / 'elites.parquet', episodes, archive_meta)
    process = run('prepare.py', f'--archive={demo_archive},elites.parquet', '--out_dir=p', *PREPARE, cwd=cwd)
    assert process.returncode == 0, process.stderr
    return process, cwd / 'p', len(episodes)


def test_a_policy_that_acts_otherwise_is_dropped(both):
    assert 'dropped 2 of elites: policy acts differently when replayed' in both[0].stdout


def test_elites_are_described_split_and_counted(both):
    from data.prepared import SPLITS, Prepared

    process, folder, n = both
    ends, count = {}, 0
    for s in SPLITS:
        data = Prepared(folder, s)
        rows = data.episodes()
        assert data.meta['sources'] == ['demonstrations', 'elites']
        assert [data.meta['sources'][k] for k in data.source] == [r['source'] for r in rows]
        for row, bd in zip(rows, np.array(data.bd)):
            assert ends.setdefault(bd.tobytes(), s) == s  # no end in two splits
            count += row['source'] == 'elites'
            assert len(row['text']) == 8
    said = [int(line.split()[1]) for line in process.stdout.splitlines() if 'of elites' in line]
    assert count == n - sum(said) and (folder / 'elites.png').stat().st_size > 10000


def test_an_elite_carries_out_what_it_is_described_as(both, places):
    """an annotation that its own score refuses would be a wrong label"""
    from data.prepared import Prepared

    data = Prepared(both[1], 'train')
    stopped, carried_out = [], []
    for i, row in enumerate(data.episodes()):
        if row['source'] == 'elites':
            path = np.concatenate([[[20, 50]], data.path[data.start[i] : data.start[i + 1]]])
            verdict = Itinerary.from_json(row['asked']).match(path, places)
            stopped.append(verdict['stopped'])
            carried_out.append(verdict['in_order'] == 1.0)
    assert len(stopped) > 30 and np.mean(carried_out) >= 0.98


def test_collecting_by_size_is_reproducible(tmp_path, script):
    small = ['--size=0.001', '--archive_dir=a', *PREPARE]
    script('prepare.py', *small, '--out_dir=p')
    first = {f.name: f.read_bytes() for f in (tmp_path / 'a').iterdir()}
    script('prepare.py', *small, '--out_dir=p', '--recollect')
    assert {f.name: f.read_bytes() for f in (tmp_path / 'a').iterdir()} == first and set(first) == {
        'demonstrations.parquet',
        'elites.parquet',
    }
