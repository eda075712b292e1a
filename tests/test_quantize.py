"""Clusters of actions: what they leave, and which are of use."""

from functools import partial

import numpy as np
import pytest

from data import quantize


def actions(n=600, chunk=2, seed=0):
    """two dimensions that choose among 3 and 2 values each, alike within a chunk"""
    rng = np.random.default_rng(seed)
    return (
        np.stack([rng.choice([-2.0, 0.0, 1.0], n), rng.choice([0.0, 3.0], n)], 1)[:, None]
        .repeat(chunk, 1)
        .astype(np.float32)
    )


@pytest.mark.parametrize('joint, k, left', [(True, 6, 0), (False, 3, 0), (True, 2, 0.25)])
def test_centers_are_where_the_actions_are(joint, k, left):
    a = actions()
    centers = quantize.fit_clusters(a, k, joint, 0)
    assert centers.shape == ((1, k, 4) if joint else (2, k, 2))
    diagnosis = quantize.diagnose_clusters(a, centers)
    assert diagnosis['k'] == k and (diagnosis['floor'] < 1e-6 if not left else diagnosis['floor'] > left)
    if joint and k == 6:
        assert diagnosis['dead'] == 0 and diagnosis['perplexity'] == pytest.approx(6, abs=0.3)
        assert {tuple(c) for c in centers[0].round(3)} == {tuple(r) for r in a.reshape(-1, 4).round(3)}


def test_a_center_that_nothing_is_near_is_dead():
    diagnosis = quantize.diagnose_clusters(
        actions(), np.concatenate([quantize.fit_clusters(actions(), 6, True, 0), np.full((1, 2, 4), 99, np.float32)], 1)
    )
    assert diagnosis['dead'] == 2 and diagnosis['perplexity'] < 6.1


def test_more_clusters_than_actions_are_refused():
    with pytest.raises(ValueError, match='n_clusters=9'):
        quantize.fit_clusters(actions(5), 9, True, 0)


def test_the_sample_is_of_the_training_actions_normalised(prepared):
    from data.prepared import Prepared

    train = Prepared(prepared, 'train')
    norm = train.meta['normaliser']['act']
    got = quantize.sample_actions(train, 8, 0, 4000)
    assert got.shape[1:] == (8, 2) and 1000 < len(got) < 4000  # without the disturbed ones
    assert (got * norm['std'] + norm['mean']).min() > -1 - 1e-5 and (got * norm['std'] + norm['mean']).max() < 1 + 1e-5
    for a in got[:20]:  # each is somewhere in the data
        flat = (a * norm['std'] + norm['mean'])[:, 0]
        near = np.flatnonzero(np.abs(train.act[:, 0] - flat[0]) < 1e-5)
        assert any(np.allclose(train.act[i : i + 8, 0], flat, atol=1e-5) for i in near)


def test_a_table_for_choosing_k(prepared, script, capsys, monkeypatch):
    monkeypatch.setattr(quantize, 'sample_actions', partial(quantize.sample_actions, n=4000))
    script('prepare.py', '--suggest_k', '--chunk=4', f'--out_dir={prepared}')
    output = capsys.readouterr().out
    assert '| k, chunk 4 |' in output and '| 64 |' in output and 'suggested: ' in output
