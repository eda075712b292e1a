"""Meta-World: its own steps, goals and success, bit for bit, in whatever order; demonstrations, sentences, scores."""

import json

import numpy as np
import pytest
from conftest import SMALL, run
from gymnasium.vector import AutoresetMode

from data import archive, contract, metaworld
from data.verify import verify

pytest.importorskip('metaworld', reason="metaworld is not installed: pip install '.[metaworld]'")

from metaworld import policies
from metaworld.env_dict import ENV_CLS_MAP, MT10_V3, MT50_V3

from data.metaworld.demonstrations import scripted
from data.metaworld.env import MetaWorldVec, Scene

# of a puck, a joint, a thing that is part of the scene, two things
TASKS = ['push-v3', 'door-open-v3', 'drawer-close-v3', 'hammer-v3', 'reach-v3']
KWARGS = metaworld.env_kwargs(tasks=','.join(TASKS))


def own(task, seed):
    """Meta-World's environment, made anew, as lerobot seeds it, with the goal in view"""
    env = ENV_CLS_MAP[task]()
    env._set_task_called, env._partially_observable = True, False
    env._freeze_rand_vec, env.seeded_rand_vec = False, True
    del env.sawyer_observation_space
    env.seed(seed)
    return env


def actions(T, n, seed=0):
    """random velocities that are kept for some steps"""
    act = np.random.default_rng(seed).uniform(-1, 1, (T // 5 + 1, n, 4)).astype(np.float32)
    return act.repeat(5, axis=0)[:T]


def driven(env, act, **reset):
    """observations (T + 1, n, 39), success (T, n)"""
    obs, _ = env.reset(**reset)
    seen, success = [obs], []
    for a in act:
        obs, _, _, _, info = env.step(a)
        seen.append(obs)
        success.append(info['success'])
    return np.array(seen), np.array(success)


# ------------------------------------------------------------------------------
# the environments


def test_steps_goals_and_success_are_meta_worlds_own():
    n, act = 10, actions(30, 10)
    env = MetaWorldVec(n, **KWARGS)
    obs, success = driven(env, act, seed=100)
    for row in range(n):
        alone = own(TASKS[row % 5], (100 + row) // 5)
        seen, _ = alone.reset()
        assert np.array_equal(obs[0, row], seen.astype(np.float32))
        for t in range(30):
            seen, _, _, _, info = alone.step(act[t, row])
            assert np.array_equal(obs[t + 1, row], seen.astype(np.float32))
            assert success[t, row] == (info['success'] > 0)
            if success[t, row]:
                break
    assert obs[0, :, 36:].any(1).all()  # the goal is in view


def test_episodes_are_the_same_whatever_was_before_and_beside_them():
    act = actions(25, 4)
    env = MetaWorldVec(4, **KWARGS)
    obs, _ = driven(env, act, seed=[7, 12, 17, 22])  # four goals of one task
    driven(env, actions(25, 4, seed=1), seed=[22, 7, 3, 4])
    again, _ = driven(env, act[:, ::-1], seed=[22, 17, 12, 7])
    assert np.array_equal(again[:, ::-1], obs)
    assert len({tuple(goal) for goal in obs[0, :, 36:]}) == 4


def test_an_episode_leaves_nothing_in_the_environment_of_its_task():
    scene = Scene('hammer-v3')
    first, episode = scene.begin(3)
    for a in actions(20, 1):
        *_, episode = scene.step(episode, a[0])
    again, _ = scene.begin(3)
    other, _ = scene.begin(4)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_what_is_over_stays_as_it_is_until_it_is_reset():
    env = MetaWorldVec(2, 'reach-v3', 4)
    assert env.metadata['autoreset_mode'] == AutoresetMode.DISABLED
    env.reset(seed=0)
    for _ in range(4):
        obs, _, terminated, truncated, _ = env.step(actions(1, 2)[0])
    assert truncated.all() and not terminated.any()
    after, reward, _, truncated, _ = env.step(actions(1, 2)[0])
    assert np.array_equal(after, obs) and truncated.all() and not reward.any()
    obs, _ = env.reset(options={'reset_mask': np.array([False, True])})
    assert np.array_equal(obs[0], after[0]) and not np.array_equal(obs[1, 36:], after[1, 36:])
    *_, truncated, _ = env.step(actions(1, 2)[0])
    assert truncated.tolist() == [True, False]


def test_a_success_ends_an_episode():
    env = MetaWorldVec(1, 'reach-v3', 500)
    obs, info = env.reset(seed=[5])
    policy = policies.ENV_POLICY_MAP['reach-v3']()
    terminated, steps = [False], 0
    while not terminated[0]:
        assert not info['success'][0]
        obs, _, terminated, _, info = env.step(scripted(policy, obs[0])[None])
        steps += 1
    assert info['success'][0] and 10 < steps < 100
    assert np.linalg.norm(obs[0, :3] - obs[0, 36:]) < 0.1


@pytest.mark.parametrize(
    'given, words',
    [
        ({'benchmark': 'MT11'}, "no benchmark 'MT11'. Set MT10 or MT25 or MT50"),
        ({'tasks': 'reach-v3,fly-v3'}, "no task 'fly-v3'. There are: assembly-v3"),
        ({'max_steps': 501}, 'max_steps=501'),
    ],
)
def test_what_meta_world_does_not_have_is_named(given, words):
    with pytest.raises(ValueError, match=words):
        contract.read_env_kwargs(metaworld, json.dumps(given))


def test_benchmarks_are_meta_worlds_lists_of_tasks():
    ten, fifty = (metaworld.env_kwargs(name) for name in ('MT10', 'MT50'))
    assert ten['tasks'].split(',') == list(MT10_V3) and fifty['tasks'].split(',') == list(MT50_V3)
    assert metaworld.env_kwargs(**ten) == ten  # as archives keep them


# ------------------------------------------------------------------------------
# demonstrations


@pytest.fixture(scope='module')
def demonstrated():
    """two episodes of each of five tasks, one as it is, one disturbed; by this seed all succeed"""
    return list(metaworld.collect('scripted', 0.02, 2, KWARGS))


def test_scripted_policies_do_what_is_asked_and_replay_bit_for_bit(demonstrated):
    assert [e['asked'] for e in demonstrated] == TASKS * 2
    episodes = [{**e, 'bd': np.zeros(0, np.float32)} for e in demonstrated]
    assert verify(metaworld, episodes, KWARGS, metaworld.spec(KWARGS)) == [None] * 10
    shuffled = [episodes[i] for i in (8, 3, 5, 0)]
    shuffled[1] = {**shuffled[1], 'obs': shuffled[1]['obs'] + np.float32(1e-6)}
    other = [None, 'other observations when replayed', None, None]
    assert verify(metaworld, shuffled, KWARGS, metaworld.spec(KWARGS)) == other


def test_what_disturbs_is_not_to_be_imitated(demonstrated):
    assert all(e['taught'].all() for e in demonstrated[:5])
    assert all(0 < (~e['taught']).sum() < len(e['act']) for e in demonstrated[5:])
    policy = policies.ENV_POLICY_MAP['push-v3']()
    e = demonstrated[5]
    for obs, act, taught in zip(e['obs'], e['act'], e['taught']):
        expected = scripted(policy, obs)
        assert expected[3] == act[3] and np.array_equal(expected, act) == taught


def test_what_fails_is_dropped_and_counted(monkeypatch, capsys):
    kwargs = metaworld.env_kwargs(tasks='reach-v3,push-v3', max_steps=60)
    monkeypatch.setattr(policies.SawyerPushV3Policy, 'get_action', lambda *_: np.zeros(4))
    episodes = list(metaworld.collect('scripted', 0.01, 0, kwargs))
    assert [e['asked'] for e in episodes] == ['reach-v3']
    assert 'scripted: 1 of 2 episodes succeed, 1 dropped, 1 of push-v3' in capsys.readouterr().out


def test_a_scripted_policy_ends_what_another_begins(demonstrated):
    begun = {e['seed']: {'act': actions(40, 1)[:, 0], 'seed': e['seed'], 'asked': e['asked']} for e in demonstrated[:4]}
    ended = list(metaworld.relabel(list(begun.values()), 0, KWARGS))
    assert ended and len({(~e['taught']).sum() for e in ended}) > 1
    for e in ended:
        n = int((~e['taught']).sum())
        assert e['taught'][n:].all() and np.array_equal(e['act'][:n], begun[e['seed']]['act'][:n])
        assert e['asked'] == begun[e['seed']]['asked'] and e['source'] == 'relabelled'


# ------------------------------------------------------------------------------
# sentences


def test_every_task_has_eight_sentences_of_its_own():
    assert set(metaworld.SENTENCES) == set(MT50_V3)
    assert {len(some) for some in metaworld.SENTENCES.values()} == {8}
    every = [sentence for some in metaworld.SENTENCES.values() for sentence in some]
    assert len(set(every)) == 400


def test_held_out_sentences_are_never_trained_on_and_have_no_other_words():
    rng, known = np.random.default_rng(0), set()
    for task in MT50_V3:
        episode = {'asked': task, 'seed': 3}
        texts = metaworld.describe(episode, rng, KWARGS, 8)['text']
        assert len(texts) == 6 and len(metaworld.describe(episode, rng, KWARGS, 2)['text']) == 2
        assert not set(texts) & set(metaworld.paraphrase(task, rng))
        known |= set(' '.join(texts).replace(',', '').split())
    for task in MT50_V3:
        for sentence in metaworld.paraphrase(task, rng):
            assert set(sentence.replace(',', '').split()) <= known


# ------------------------------------------------------------------------------
# from the archive to the table


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('metaworld')
    two = json.dumps({'tasks': 'reach-v3,drawer-close-v3', 'max_steps': 100})
    small = ['--size=0.1', f'--env_kwargs={two}', '--test_share=0.4', '--val_share=0.2', '--out_dir=p', '--workers=1']
    process = run('prepare.py', '--dataset=metaworld', *small, f'--archive_dir={folder / "a"}', cwd=folder)
    assert process.returncode == 0, process.stderr
    tiny = [*SMALL, '--max_iters=3', '--eval_interval=3', '--log_interval=1', '--rollouts=2', '--dtype=float32']
    process = run('train.py', 'config/mt10.py', *tiny, '--data_dir=p', '--out_dir=out', cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_it_is_scored_in_its_words_and_in_others(trained):
    process = run('sample_policy.py', '--out_dir=out', '--data_dir=p', '--eval=test', '--eval_episodes=6', cwd=trained)
    assert process.returncode == 0, process.stderr
    scores = json.loads((trained / 'out/eval_test.json').read_text())
    rows = {row['name']: row for row in scores['rows']}
    ways = 'prompt', 'no prompt', 'swapped prompt', 'held-out phrasing'
    assert all(rows[f'scripted: {way}']['success']['n'] == 6 for way in ways)
    assert sum(scores['kinds']['scripted'].values()) == 6
    assert (trained / 'out/eval_test.png').read_bytes()[:4] == b'\x89PNG'


def test_held_out_sentences_are_in_the_test_split_alone(trained):
    found = {}
    for split in 'train', 'val', 'test':
        rows = archive.pq.read_table(trained / f'p/{split}/episodes.parquet').to_pylist()
        assert rows and all(set(row['text']) <= set(metaworld.SENTENCES[row['asked']][:6]) for row in rows)
        found[split] = [row['held_out'] for row in rows]
    assert not any(found['train'] + found['val']) and all(len(some) == 2 for some in found['test'])
