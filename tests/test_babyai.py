"""BabyAI: minigrid's own levels, views and success; observations that are ids, from the archive to the action."""

import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from data import archive, babyai, contract
from data.archive import obs_dtype
from data.verify import verify

pytest.importorskip('minigrid', reason="minigrid is not installed: pip install '.[babyai]'")

from data.babyai.demonstrations import show
from data.babyai.env import BabyAIVec, make_level
from data.babyai.views import TRIPLES, visible

LEVELS = ['GoToLocal', 'PutNextLocal', 'GoToSeq', 'BossLevel', 'Unlock', 'KeyCorridor', 'BlockedUnlockPickup']
SOMETIMES = [0.2, 0.2, 0.3, 0.1, 0.1, 0.1, 0]  # how often a random agent does each action


def cells(obs):
    """observations (50,) -> minigrid's image and direction"""
    return TRIPLES[obs[:49]].reshape(7, 7, 3), obs[49]


# ------------------------------------------------------------------------------
# the environments


@pytest.mark.parametrize('level', LEVELS)
def test_levels_views_and_success_are_minigrids_own(level):
    n, rng = 6, np.random.default_rng(0)
    many, own = BabyAIVec(n, level=level), [make_level(level) for _ in range(n)]
    obs, info = many.reset(seed=0)
    with redirect_stdout(io.StringIO()):
        seen = [env.reset(seed=i)[0] for i, env in enumerate(own)]
    running = np.ones(n, bool)
    for _ in range(120):
        act = rng.choice(7, size=n, p=SOMETIMES)
        for i in np.flatnonzero(running):
            image, direction = cells(obs[i])
            assert np.array_equal(image, seen[i]['image']) and direction == seen[i]['direction']
            assert info['mission'][i] == seen[i]['mission']
        obs, reward, terminated, truncated, info = many.step(act)
        for i in np.flatnonzero(running):
            seen[i], *expected, _ = own[i].step(act[i])
            assert [reward[i], terminated[i], truncated[i]] == expected
            assert info['success'][i] == (expected[0] > 0)
        running &= ~(terminated | truncated)


def test_what_hides_what_is_minigrids():
    from minigrid.core.grid import Grid
    from minigrid.core.world_object import Wall

    rng = np.random.default_rng(1)
    for _ in range(200):
        walls, grid = rng.random((7, 7)) < rng.random(), Grid(7, 7)
        for x, y in np.argwhere(walls):
            grid.set(x, y, Wall())
        kinds = np.where(walls, 2, 1)
        assert np.array_equal(visible(kinds[None])[0], grid.process_vis((3, 6)))


def test_a_row_that_is_over_begins_another_level_by_itself():
    env, alone = BabyAIVec(2, level='GoToLocal', max_steps=3), BabyAIVec(1, level='GoToLocal', max_steps=3)
    env.reset(seed=[4, 5])
    alone.reset(seed=[5])
    missions = set()
    for _ in range(40):
        obs, _, _, truncated, info = env.step([0, 0])
        obs_alone, *_, info_alone = alone.step([0])
        assert np.array_equal(obs[1], obs_alone[0]) and info['mission'][1] == info_alone['mission'][0]
        missions.add(info['mission'][1])
    assert len(missions) > 3


def test_several_levels_are_told_apart_by_their_seeds():
    env = BabyAIVec(2, level='GoToLocal,PutNextLocal')
    _, info = env.reset(seed=[2 * 7, 2 * 7 + 1])
    alone = [BabyAIVec(1, level=level).reset(seed=[7])[1]['mission'][0] for level in ('GoToLocal', 'PutNextLocal')]
    assert info['mission'].tolist() == alone
    assert info['mission'][0].startswith('go to') and info['mission'][1].startswith('put')


def test_a_level_that_is_not_there_is_named():
    with pytest.raises(ValueError, match='BabyAI has no level'):
        contract.read_env_kwargs(babyai, '{"level": "GoHome"}')


# ------------------------------------------------------------------------------
# demonstrations, archives


@pytest.fixture(scope='module')
def demonstrated():
    kwargs = babyai.env_kwargs('GoToLocal,PickupLoc')
    episodes = [e for source in babyai.sources(kwargs) for e in babyai.collect(source, 0.002, 0, kwargs)]
    return kwargs, [{**e, **{name: np.array(e[name]) for name in ('obs', 'act', 'bd')}} for e in episodes]


def test_the_bot_carries_out_what_is_asked(demonstrated):
    kwargs, episodes = demonstrated
    assert len(episodes) == 40 and {e['source'] for e in episodes} == {'GoToLocal', 'PickupLoc'}
    assert verify(babyai, episodes, kwargs, babyai.spec(kwargs)) == [None] * 40


def test_a_mission_that_the_bot_fails_is_no_demonstration(monkeypatch):
    import minigrid.utils.baby_ai_bot as bot

    env = BabyAIVec(1, level='GoToLocal', max_steps=64)
    assert show(env, 3) is not None
    monkeypatch.setattr(bot.BabyAIBot, 'replan', lambda *_: 0)  # turns until the time is over
    assert show(env, 3) is None
    monkeypatch.setattr(bot.BabyAIBot, 'replan', lambda *_: 1 / 0)
    assert show(env, 3) is None


def test_ids_are_kept_in_bytes(demonstrated, tmp_path):
    kwargs, episodes = demonstrated
    archive.save(tmp_path / 'a.parquet', episodes, contract.archive_meta(babyai, kwargs))
    read = next(archive.Archive(tmp_path / 'a.parquet').groups())
    assert read[3]['obs'].dtype == np.uint8 and np.array_equal(read[3]['obs'], episodes[3]['obs'])
    assert [str(obs_dtype({'obs_kinds': kinds})) for kinds in ([], [0, 9], [256, 2], [257])] == [
        'float32',
        'float32',
        'uint8',
        'uint16',
    ]
    odd = {**episodes[0], 'obs': episodes[0]['obs'] + 0.5}
    with pytest.raises(ValueError, match='is no id'):
        archive.save(tmp_path / 'b.parquet', [odd], contract.archive_meta(babyai, kwargs))
    assert not (tmp_path / 'b.parquet').exists()
    beyond = {**episodes[0], 'obs': np.full_like(episodes[0]['obs'], 39)}
    assert verify(babyai, [beyond, odd], kwargs, babyai.spec(kwargs)) == ['an id out of range'] * 2


def test_kinds_that_do_not_fit_are_refused(monkeypatch):
    kwargs = babyai.env_kwargs()
    for kinds in ([3], [39] * 49 + [-1], [39.0] * 50):
        monkeypatch.setattr(babyai, 'spec', lambda _, kinds=kinds: {**SPEC, 'obs_kinds': kinds})
        with pytest.raises(ValueError, match='obs_kinds'):
            contract.read_spec(babyai, kwargs)


SPEC = babyai.spec({'max_steps': 64})
