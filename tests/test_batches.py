"""What a step learns from: short and easy first, if a curriculum says so; what is over, and where."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.batches import SEES_SUBGOAL, Batches, Curriculum


class Split(SimpleNamespace):
    def __len__(self):
        return len(self.length)


GROWING = ('segment_len', 'curriculum', 'segment_from', 'difficulty_from')


def make(length, hard=None, source=None, **how):
    """batches of episodes of such lengths; every observation is its episode's number, and its step"""
    length, start = np.array(length), np.concatenate([[0], np.cumsum(length)])
    n, T = len(length), start[-1]
    obs = np.stack([np.repeat(np.arange(n), length), np.arange(T) - np.repeat(start[:-1], length)], 1).astype(
        np.float32
    )
    split = Split(
        obs=obs,
        act=np.zeros((T, 1), np.float32),
        path=np.zeros((T, 0), np.float32),
        taught=np.ones(T, bool),
        subgoal=None,
        span=None,
        bd=np.zeros((n, 0), np.float32),
        start=start,
        length=length,
        source=np.zeros(n, np.uint8) if source is None else source,
        hard=np.full(n, np.nan) if hard is None else np.array(hard),
        text_start=np.array([0]),
        episode_text=np.zeros(n + 1, int),
        meta={
            'sources': ['a', 'b'][: 1 if source is None else 2],
            'longest': int(length.max()),
            'max_steps': 40,
            'text_len': 0,
        },
    )
    curriculum = Curriculum(**{k: how.pop(k) for k in GROWING if k in how})
    return Batches(split, 0, 1337, 8, 2, 2, 1, curriculum, **how)


def test_segments_double_until_they_are_whole():
    batches = make([40] * 20, curriculum=60, segment_from=3)
    longest = [batches.batch(step)['obs'].shape[1] for step in range(0, 80, 2)]
    assert (
        longest[0] == 3 and longest[-1] == 20 and sorted(set(longest)) == [3, 6, 12, 20] and longest == sorted(longest)
    )
    assert longest.index(20) * 2 < 60 and all(x == 20 for x in longest[30:])
    begins = {int(b) for step in range(6) for b in batches.batch(step)['start']}
    assert len(begins) > 5  # from anywhere in an episode
    assert [len(a) for name, a in batches.batch(3).items() if name != 'n_real'] == [8] * 8


def test_harder_episodes_come_in_later():
    hard = np.linspace(0, 1, 200)
    batches = make([10] * 200, hard, curriculum=100, difficulty_from=0.3)
    for step in range(0, 140, 2):
        most = 0.3 + 0.7 * min(1, step / 100)
        seen = hard[batches.batch(step)['obs'][:, 0, -1, 0].astype(int)]
        assert seen.max() <= most + 1e-6, step
    late = np.concatenate([hard[batches.batch(step)['obs'][:, 0, -1, 0].astype(int)] for step in range(100, 160)])
    assert late.mean() == pytest.approx(0.5, abs=0.05) and late.max() > 0.95


def test_a_curriculum_wants_to_know_what_is_hard():
    with pytest.raises(ValueError, match='hard'):
        make([10] * 20, curriculum=100, difficulty_from=0.3)
    with pytest.raises(ValueError, match='of a is that easy'):
        make([10] * 20, np.ones(20), curriculum=100, difficulty_from=0.3)


def test_a_batch_of_a_curriculum_depends_on_its_number_alone():
    one, other = (
        make([40, 30, 20] * 9, np.arange(27) / 27, curriculum=20, segment_from=2, difficulty_from=0.5) for _ in range(2)
    )
    for step in (13, 2, 7, 2, 30):
        other.batch(step + 1)
        a, b = one.batch(step), other.batch(step)
        assert a.keys() == b.keys() and a.pop('n_real') == b.pop('n_real')
        for name in a:
            assert np.array_equal(a[name], b[name], equal_nan=True), name


def test_what_has_terminated():
    """after the last step of those that ended by themselves, not of those that were cut off, and not in the middle"""
    batches = make([40, 12, 7], extra_steps=1)
    for step in range(6):
        batch = batches.batch(step)
        obs, terminated = batch['obs'], batch['terminated']
        for b in range(8):
            episode, at = int(obs[b, 0, -1, 0]), np.flatnonzero(terminated[b])
            assert at.tolist() == {0: [], 1: [6], 2: [4]}[episode]
            assert terminated.shape[1] == batch['loss_mask'].shape[1]
    halves = make([12] * 5, segment_len=4, extra_steps=1)
    batch = halves.batch(0)
    assert (batch['terminated'].any(1) == (batch['start'] == 2)).all() and len(set(batch['start'])) > 1


def test_sources_keep_their_shares_in_a_curriculum():
    """one of them is hard, the other easy"""
    hard, source = np.r_[np.linspace(0.2, 1, 100), np.linspace(0, 0.5, 300)], np.repeat([0, 1], [100, 300])
    batches = make([10] * 400, hard, source, curriculum=100, difficulty_from=0.3, source_weights='a=0.25,b=0.75')
    for steps in range(40), range(100, 140):
        seen = np.concatenate([batches.batch(step)['obs'][:, 0, -1, 0].astype(int) for step in steps])
        assert (source[seen] == 0).mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    'settings, words',
    [
        (
            {'segment_from': 8, 'segment_len': 6, 'curriculum': 5},
            'segment_from=8 is longer than segment_len=6. Lower it',
        ),
        ({'curriculum': 5}, 'curriculum=5, but nothing grows'),
        ({'segment_from': 2}, 'Set curriculum'),
        ({'difficulty_from': 0.5}, 'Set curriculum'),
        ({'segment_len': -1}, 'segment_len=-1, .*below 0'),
    ],
)
def test_a_curriculum_that_makes_no_sense_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Curriculum(**settings)


def test_a_subgoal_is_that_of_the_moment_of_decision():
    batches = make([40, 12, 7])
    assert 'subgoal' not in batches.batch(0)
    batches.split.subgoal = batches.split.obs + 0.5
    batches.split.subgoal[:40] = np.nan  # of a source that has none
    for step in range(4):
        batch = batches.batch(step)
        obs, subgoal = batch['obs'], batch['subgoal']
        assert subgoal.shape == (*obs.shape[:2], 2)
        known = ~np.isnan(subgoal).any(-1)
        assert (known == (obs[:, :1, -1, 0] > 0)).all()
        within = known & batch['loss_mask'].any(-1)
        assert within.any() and np.array_equal(subgoal[within], obs[within][:, -1] + 0.5)


def test_half_of_the_episodes_are_told_their_subgoal_whatever_their_length():
    batches = make([40, 12, 7])
    batches.split.subgoal = batches.split.obs + 0.5
    drawn = [batches.batch(step) for step in range(400)]
    sees = np.concatenate([batch['sees_subgoal'] for batch in drawn])
    length = np.concatenate([batch['loss_mask'].sum((1, 2)) for batch in drawn])
    assert sees.mean() == pytest.approx(SEES_SUBGOAL, abs=0.03)
    assert np.corrcoef(sees, length)[0, 1] == pytest.approx(0, abs=0.06)
    assert np.array_equal(batches.batch(7, slice(1, None, 2))['sees_subgoal'], drawn[7]['sees_subgoal'][1::2])


@pytest.mark.parametrize('segment_len', [0, 3])
def test_a_sentence_of_some_steps_is_learned_from_these_alone(segment_len):
    """chunks of 2: a part that begins within one begins with it"""
    batches = make([40, 12], segment_len=segment_len)
    whole = 0, 2**62
    batches.split.episode_text = np.array([0, 3, 4])
    batches.split.span = np.array([whole, (0, 8), (9, 40), whole])
    batches.split.act = batches.split.obs[:, 1:]  # the number of the step
    spans = {0: (0, 40), 1: (0, 8), 2: (8, 40), 3: (0, 12)}
    seen = {text: set() for text in spans}
    for step in range(400):
        batch, drawn = batches.batch(step), batches.draw(step // 2)
        for text, act, imitated in zip(drawn['text'][step % 2], batch['act'], batch['loss_mask']):
            seen[text].update(act[imitated].ravel().tolist())
    assert seen == {text: set(range(*span)) for text, span in spans.items()}


def test_a_source_may_be_missing_in_a_split():
    """episodes that a policy began are in the training split alone: the others are drawn as if it were not named"""
    weights = 'a=0.5,b=0.5'
    alone = make([10] * 30, source=np.zeros(30, np.uint8), source_weights=weights)
    assert np.allclose(alone.weights, 1 / 30)
    with pytest.raises(ValueError, match='leave no episode of b'):
        make([10] * 30, source=np.r_[1, np.zeros(29)].astype(np.uint8), source_weights=weights, data_fraction=0.5)
