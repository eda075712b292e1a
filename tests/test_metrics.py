"""Scores, against values worked by hand."""

import math

import numpy as np
import pytest

from data.metrics import bd_error, bootstrap, derange, lcs_f1, proportion


@pytest.mark.parametrize(
    'hits, n, low, high',
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_interval(hits, n, low, high):  # Newcombe 1998, and (x + z^2/2 -+ z sqrt(x(n-x)/n + z^2/4)) / (n + z^2)
    s = proportion([True] * hits + [False] * (n - hits))
    assert s['mean'] == hits / n and s['n'] == n
    assert s['low'] == pytest.approx(low, abs=2e-4) and s['high'] == pytest.approx(high, abs=2e-4)
    assert 0 <= s['low'] <= s['mean'] <= s['high'] + 1e-12 and s['high'] <= 1


def test_nothing_counted_says_so():
    assert proportion([])['n'] == bootstrap([])['n'] == 0
    assert math.isnan(proportion([])['mean']) and (proportion([])['low'], proportion([])['high']) == (0, 1)


def test_bootstrap_mean_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(3, 2, 400)
    a, half = bootstrap(values), 1.96 * values.std() / 20
    assert a['mean'] == pytest.approx(values.mean()) and a['n'] == 400
    assert a['low'] == pytest.approx(values.mean() - half, abs=0.05) and a['high'] == pytest.approx(
        values.mean() + half, abs=0.05
    )


def test_bootstrap_is_seeded_and_takes_other_statistics():
    assert bootstrap([1, 2, 9, 4]) == bootstrap([1, 2, 9, 4])
    assert bootstrap([1, 2, 9], np.median)['mean'] == 2
    assert bootstrap([5.0] * 4) == {'mean': 5, 'low': 5, 'high': 5, 'n': 4}


def test_bd_error_is_a_share_of_the_diagonal():
    got = bd_error([[3, 4], [0, 0], [30, 40]], [[0, 0], [0, 0], [0, 0]], [0, 0], [30, 40])
    assert got.tolist() == [0.1, 0.0, 1.0]


@pytest.mark.parametrize('seed', range(20))
def test_swapped_never_gives_the_same_group(seed):
    groups = np.random.default_rng(seed).integers(0, 3, 40)
    groups[:2] = 0, 1
    other = derange(groups, seed)
    assert other.shape == (40,) and (groups[other] != groups).all()


def test_swapping_within_one_group_is_refused():
    with pytest.raises(ValueError, match='no other prompt'):
        derange(['a', 'a'])


@pytest.mark.parametrize(
    'asked, found, f1',
    [
        ('abc', 'abc', 1),
        ('abc', 'cba', 1 / 3),
        ('abc', 'xaybzc', 6 / 9),
        ('ab', '', 0),
        ('', '', 1),
        ('aab', 'ab', 4 / 5),
    ],
)
def test_lcs_f1(asked, found, f1):
    assert lcs_f1(list(asked), list(found)) == lcs_f1(list(found), list(asked)) == pytest.approx(f1)
