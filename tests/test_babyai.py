"""BabyAI: minigrid's own levels, views and success; observations that are ids, from the archive to the action."""

import copy
import hashlib
import io
import itertools
import json
import re
import shutil
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from conftest import SMALL, TINY, refused, run
from safetensors.torch import load_file, save_file
from test_model import batch, last, make

from data import archive, babyai, contract, metrics
from data.archive import obs_dtype
from data.prepared import Prepared
from data.verify import verify
from nanopilot import checkpoint, scoring
from nanopilot.auxiliary import FourierFeatures
from nanopilot.conditions import Condition, also_drawn, readable_episodes
from nanopilot.kv_cache import KVCache
from nanopilot.observations import CrossAttention, Ids
from nanopilot.policy import Policy
from nanopilot.rollout import rollout

pytest.importorskip('minigrid', reason="minigrid is not installed: pip install '.[babyai]'")

from data.babyai.demonstrations import show
from data.babyai.env import BabyAIVec, make_level
from data.babyai.mirror import ACTION, DIRECTION, mirrored_obs, mirrored_text
from data.babyai.views import DOOR, PARTS, TRIPLES, visible

LEVELS = ['GoToLocal', 'PutNextLocal', 'GoToSeq', 'BossLevel', 'Unlock', 'KeyCorridor', 'BlockedUnlockPickup']
SPEC = babyai.spec({'max_steps': 64})
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


def before_the_agent(env):
    """'red box', or '' for nothing"""
    thing = env.grid.get(*env.front_pos)
    return f'{thing.color} {thing.type}' if thing else ''


def asked_for(words):
    """'go to a red box' -> 'red box'; 'go to the box' -> 'box'"""
    return re.fullmatch('go to (?:the|a) (.*)', words)[1]


def test_parts_of_a_mission_are_what_its_steps_do():
    """a part of one action ends where the thing that it names comes before the agent, not earlier"""
    env, n = BabyAIVec(1, level='GoToSeq'), 0
    for seed in range(30):
        episode = show(env, seed)
        parts, T = json.loads(episode['parts']), len(episode['act'])
        single = [part for part in parts if part[0].count('go to') == 1]
        env.reset(seed=[seed])
        seen = []
        for act in episode['act']:
            env.step(act)
            seen.append(before_the_agent(env.levels[0]))
        for words, first, end in single:
            assert seen[end - 1].endswith(asked_for(words))
            assert not any(thing.endswith(asked_for(words)) for thing in seen[first : end - 1])
        assert episode['asked'].count('go to') == max(1, len(single)), 'each action is a part, or the whole'
        rest = [part for part in parts if part not in single]
        assert all(end == T and first in [end for *_, end in single] for _, first, end in rest)
        n += len(parts)
    assert n > 30


def test_what_is_named_as_seen_from_the_start_is_asked_for_there_alone():
    """'open the red door behind you' is behind where the episode began"""
    env = BabyAIVec(1, level='SynthSeq')
    shown = [episode for seed in range(60) if (episode := show(env, seed))]
    parts = [part for episode in shown for part in json.loads(episode['parts'])]
    begins = [first for words, first, _ in parts if re.search('behind|left|right', words)]
    assert len(begins) > 2 and not any(begins)


def in_a_mirror(env):
    """a level of minigrid -> the same, the other way round"""
    other = copy.deepcopy(env)
    for x in range(env.width):
        for y in range(env.height):
            other.grid.set(env.width - 1 - x, y, copy.deepcopy(env.grid.get(x, y)))
    other.agent_pos = env.width - 1 - env.agent_pos[0], env.agent_pos[1]
    other.agent_dir = int(DIRECTION[env.agent_dir])
    return other


@pytest.mark.parametrize('level', ['GoToSeq', 'BossLevel'])
def test_what_is_seen_in_a_mirror_is_what_a_mirrored_level_shows(level):
    rng, env, other = np.random.default_rng(0), BabyAIVec(1, level=level), BabyAIVec(1, level=level)
    obs, _ = env.reset(seed=[3])
    other.reset(seed=[3])
    other.levels[0] = in_a_mirror(env.levels[0])
    env.levels[0].instrs.verify = other.levels[0].instrs.verify = lambda action: 'continue'  # neither is over
    other.views.begin(0, other.levels[0])
    for _ in range(300):
        seen = other.observe()
        assert np.array_equal(mirrored_obs(obs), seen)
        action = rng.choice(7, p=SOMETIMES)
        obs, *_ = env.step([action])
        other.step([ACTION[action]])


def test_an_episode_in_a_mirror_is_trained_on_too(tmp_path, script, refuses):
    kwargs = '--env_kwargs={"level": "SynthSeq", "max_steps": 200}'
    few = ['--dataset=babyai', kwargs, '--size=0.003', '--val_share=0.1', '--test_share=0.1', '--workers=1']
    folders = [f'--out_dir={tmp_path / "p"}', f'--archive_dir={tmp_path / "a"}']
    script('prepare.py', *few, *folders, '--mirror=True')
    split = Prepared(tmp_path / 'p', 'train')
    rows, at = split.episodes(), split.start
    assert len(rows) % 2 == 0 and len(rows) > 20
    for k in range(0, len(rows), 2):
        here, there = slice(at[k], at[k + 1]), slice(at[k + 1], at[k + 2])
        assert np.array_equal(split.obs[there], mirrored_obs(split.obs[here]))
        assert rows[k + 1]['parts'] == mirrored_text(rows[k]['parts'])
    assert any('left' in row['text'][0] for row in rows)
    assert len(Prepared(tmp_path / 'p', 'val')) < 10
    refuses('prepare.py', *few, '--mirror=True', f'--export={tmp_path / "e"}', words=['mirror', 'replayed'])
    refuses('prepare.py', '--mirror=True', words=['toy_nav has no mirrored'])


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


# ------------------------------------------------------------------------------
# the model

KINDS = [5, 0, 5, 3]  # of four observations; the second is a number
OF_IDS = dict(
    n_obs=4,
    obs_kinds=KINDS,
    n_cross_head=2,
    n_embd=16,
    chunk=1,
    n_bd=0,
    n_future=0,
    text_len=6,
    head='ce',
    n_act=3,
    obs_stack=1,
)


def with_ids(model, B=3, S=9, **options):
    """batch() of a model whose observations are those of KINDS"""
    text, obs, act, bd = batch(model, B, S, **options)
    ids = torch.randint(0, 3, obs.shape, generator=torch.Generator().manual_seed(2)).float()
    is_id = torch.tensor(KINDS) > 0
    return text, torch.where(is_id, ids, obs), act, bd


def test_an_id_is_its_own_columns_row():
    config = make(**OF_IDS).config
    ids, fourier = Ids(config), FourierFeatures(config)
    obs = torch.tensor([4.0, 0.7, 1.0, 2.0]).view(1, 1, 1, 4)
    table, number = ids.table.weight, torch.tensor([[[[0.7]]]])
    expected = table[4] + table[5 + 1] + table[10 + 2] + ids.numbers(number, torch.nn.Identity(), fourier)[0, 0]
    assert torch.allclose(ids(obs, torch.nn.Identity(), fourier)[0, 0], expected, atol=1e-6)


def test_kinds_share_what_is_learned_of_their_parts():
    parts = [[0, 3], [0, 4], [1, 3], [1, 4], [2]]
    config = make(**OF_IDS, kind_parts=parts).config
    ids, attention = Ids(config), CrossAttention(config)
    table = ids.table.weight
    assert len(table) == 5 + 5 + 3  # columns of 3 kinds have no parts
    obs = torch.tensor([4.0, 0.0, 1.0, 2.0]).view(1, 1, 1, 4)
    ids.numbers = None
    expected = table[2] + (table[5] + table[5 + 4]) + table[10 + 2]
    assert torch.allclose(ids(obs, torch.nn.Identity(), FourierFeatures(config))[0, 0], expected, atol=1e-6)
    whole = CrossAttention(make(**OF_IDS).config)  # the same with a key and a value written out for each kind
    for name in 'kind_key', 'kind_value':
        of_parts = getattr(attention, name)
        of_kinds = [of_parts[:, [3 + part for part in some]].sum(1) for some in parts]
        setattr(whole, name, torch.nn.Parameter(torch.cat([of_parts[:, :3], torch.stack(of_kinds, 1)], 1)))
    for name in 'place_key', 'place_value', 'out':
        setattr(whole, name, getattr(attention, name))
    query = torch.randn(1, 16)
    assert torch.allclose(attention(obs, query), whole(obs, query), atol=1e-6)


def test_things_of_a_colour_share_it():
    parts, triples = [set(some) for some in PARTS], TRIPLES.tolist()
    assert len(PARTS) == len(TRIPLES) and len(set(map(frozenset, parts))) == len(PARTS)
    for a, b in itertools.combinations(range(3, len(PARTS)), 2):
        (type_a, colour_a, state_a), (type_b, colour_b, state_b) = triples[a], triples[b]
        shared = (type_a == type_b) + (colour_a == colour_b)
        shared += type_a == type_b == DOOR and state_a == state_b
        assert len(parts[a] & parts[b]) == shared


def test_cross_attention_is_that_of_keys_and_values_written_out():
    config = make(**OF_IDS).config
    attention, query = CrossAttention(config), torch.randn(1, 16)
    obs = torch.tensor([4.0, 0.7, 1.0, 2.0]).view(1, 1, 1, 4)
    rows = [3 + 4, 3 + 1, 2]  # columns of 5 kinds share their rows, after those of 3
    q, n = query.view(2, 1, 8), range(3)
    keys = torch.stack([attention.kind_key[:, rows[i]] + attention.place_key[:, i] for i in n], 1)
    values = torch.stack([attention.kind_value[:, rows[i]] + attention.place_value[:, i] for i in n], 1)
    seen = torch.nn.functional.scaled_dot_product_attention(q, keys, values)  # (2, 1, 8)
    assert torch.allclose(attention(obs, query)[0, 0], attention.out(seen.flatten()), atol=1e-6)


@pytest.mark.parametrize('fuse', ['sum', 'interleave'])
@pytest.mark.parametrize('past_actions', [False, True])
def test_the_cache_attends_as_the_forward_does(fuse, past_actions):
    n_slots = 1 + past_actions if fuse == 'interleave' else 1
    model = make(**OF_IDS, fuse=fuse, past_actions=past_actions, block_size=6 + 4 * n_slots)
    text, obs, act, bd = with_ids(model)
    text[1, 2:] = 0  # a shorter prompt
    expected = last(model(text, obs, act, bd)[0])
    cache = KVCache(model, 3)
    cache.read(np.arange(3), [row[row != 0].tolist() for row in text])
    for s in range(9):
        out = cache.step(obs[:, s], act[:, s - 1] if s else torch.zeros_like(act[:, 0]))
        assert torch.allclose(last(out)[:, 0], expected[:, s], atol=1e-5)
        cache.t += 1


def test_what_is_asked_changes_what_is_seen_and_padding_does_not():
    model = make(**OF_IDS)
    text, obs, act, bd = with_ids(model, B=1)
    query = model.text_query(text)
    assert torch.allclose(model.text_query(torch.nn.functional.pad(text, (0, 1))), query, atol=1e-6)
    assert (model.text_query(text.flip(1)) - query).abs().max() > 0.01  # the order of words counts
    assert (model.cross_attn(obs, query) - model.cross_attn(obs, -query)).abs().max() > 0.01


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(obs_kinds=()), 'no observation is an id'),
        (dict(text_len=0), 'no prompt'),
        (dict(n_cross_head=3), 'no multiple of n_cross_head=3'),
        (dict(kind_parts=[[0], [1]]), 'no observation has 2 kinds'),
        (dict(next_obs=0.1), 'neither estimated, predicted nor stacked'),
        (dict(obs_stack=0), 'neither estimated, predicted nor stacked'),
    ],
)
def test_what_does_not_go_with_ids_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        make(**{**OF_IDS, **changes})


# ------------------------------------------------------------------------------
# from the archive to the table


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('babyai')
    held_out = json.dumps({'level': 'GoToLocal', 'held_out': ['green key']})
    small = ['--size=0.02', f'--env_kwargs={held_out}', '--test_share=0.2', '--val_share=0.1', '--out_dir=p']
    process = run('prepare.py', '--dataset=babyai', *small, f'--archive_dir={folder / "a"}', cwd=folder)
    assert process.returncode == 0, process.stderr
    tiny = [*SMALL, '--max_iters=3', '--eval_interval=3', '--log_interval=1', '--rollouts=2', '--dtype=float32']
    process = run('train.py', 'config/babyai.py', *tiny, '--data_dir=p', '--out_dir=out', cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_ids_stay_bytes_and_held_out_things_are_for_testing(trained):
    assert np.load(trained / 'p/train/obs.npy').dtype == np.uint8
    meta = json.loads((trained / 'p/meta.json').read_text())
    assert meta['obs_kinds'] == [39] * 49 + [4]
    rows = {
        split: archive.pq.read_table(trained / f'p/{split}/episodes.parquet').to_pylist() for split in meta['counts']
    }
    assert not any('green key' in row['asked'] for split in ('train', 'val') for row in rows[split])
    assert any(row['novel'] == 'combination' for row in rows['test'])


EVAL = ['sample_policy.py', '--out_dir=out', '--data_dir=p', '--eval=test', '--eval_episodes=20']


def rows_of(folder, *more):
    """what an evaluation of the tiny policy scores -> its JSON, {name: row}"""
    process = run(*EVAL, *more, cwd=folder)
    assert process.returncode == 0, process.stderr
    scores = json.loads((folder / 'out/eval_test.json').read_text())
    return scores, {row['name']: row for row in scores['rows']}


def test_success_is_what_minigrid_says_and_swapped_prompts_ask_for_something_else(trained):
    scores, rows = rows_of(trained, '--drawn_at=1')
    conditions = 'prompt', 'swapped prompt', 'no prompt'
    assert {f'GoToLocal: {condition}{end}' for condition in conditions for end in ('', ', drawn at 1')} <= set(rows)
    assert rows['GoToLocal: prompt']['success']['n'] == 20 and 'GoToLocal: themselves' not in rows
    assert scores['env_kwargs']['held_out'] == ['green key'] and scores['counts']['episodes'] > 100
    assert (trained / 'out/eval_test.png').read_bytes()[:4] == b'\x89PNG'
    counted = [rows[f'GoToLocal: {which} combination']['success']['n'] for which in ('held-out', 'trained')]
    novel = [e['novel'] for e in archive.pq.read_table(trained / 'p/test/episodes.parquet').to_pylist()]
    assert counted == [min(20, novel.count(kind)) for kind in ('combination', '')]


def test_greedy_and_drawn_actions_stand_side_by_side(trained):
    policy, split = Policy.load(trained / 'out'), Prepared(trained / 'p', 'test')
    episodes = [{**e, 'prompt': e['text'][0]} for e in readable_episodes(split, policy)[:12]]
    conditions = also_drawn([Condition('themselves', episodes, None), Condition('prompt', episodes)], 2)
    assert [condition.name for condition in conditions] == ['themselves', 'prompt', 'prompt, drawn at 2']
    done = [driven for *_, driven in scoring.score_conditions(policy, conditions[1:], seed=1)]
    for (_, *alone), both in zip((scoring.score(policy, conditions[1], seed=1, temperature=t) for t in (0, 2)), done):
        for a, b in zip(alone[-1], both):
            assert np.array_equal(a[0]['act'], b[0]['act'])
    refused(run(*EVAL[:3], '--drawn_at=1', cwd=trained), '--eval=test')


def test_rollouts_keep_what_the_environment_tells(trained):
    policy = Policy.load(trained / 'out')
    episodes = rollout(policy, ['go to the red ball'] * 6, [None] * 6, range(6))
    env = BabyAIVec(1, **policy.data_spec['env_kwargs'])
    for e in episodes:
        _, info = env.reset(seed=[e['seed']])
        for act in e['act']:
            *_, info = env.step([act])
        assert e['told'] == {'success': info['success'][0]}
    policy.reset(['go to the red ball'])
    with pytest.raises(ValueError, match='cell 0 0 is 39, and no id of 0 to 38'):
        policy.act(np.full(50, 39))


def test_cross_attention_is_not_exported(trained):
    refused(run('sample_policy.py', '--out_dir=out', '--export=policy.onnx', cwd=trained), '--n_cross_head=0')


def test_what_the_environment_does_not_tell_is_named(monkeypatch):
    monkeypatch.setattr(babyai, 'TELLS', ('success', 'luck'))
    with pytest.raises(ValueError, match="no info\\['luck'\\]"):
        contract.told(babyai, {'success': np.zeros(2, bool)})


def test_another_group_that_asks_for_the_same_is_no_other_prompt():
    groups, requests = list('abcdef'), list('xxxyyx')
    other = metrics.derange(groups, 0, requests)
    assert all(requests[i] != requests[j] for i, j in enumerate(other))
    with pytest.raises(ValueError, match='the same'):
        metrics.derange(groups, 0, ['x'] * 6)


# ------------------------------------------------------------------------------
# other runs go on


def trained_on(folder, *more):
    """train.py for three more steps, with the settings of the tiny policy and more -> its process"""
    tiny = [*SMALL, '--eval_interval=3', '--log_interval=1', '--rollouts=0', '--dtype=float32']
    return run('train.py', 'config/babyai.py', *tiny, '--data_dir=p', *more, cwd=folder)


def test_a_policy_with_cross_attention_is_fine_tuned(trained):
    process = trained_on(trained, '--init_from=out', '--max_iters=3', '--out_dir=fine')
    assert process.returncode == 0, process.stderr
    before, after = (Policy.load(trained / name).model.cross_attn.query.weight for name in ('out', 'fine'))
    assert 0 < (before - after).abs().max() < 0.1


def test_a_run_without_cross_attention_goes_on_as_none_with_it(trained):
    process = trained_on(trained, '--n_cross_head=0', '--max_iters=3', '--out_dir=deaf')
    assert process.returncode == 0, process.stderr
    refused(
        trained_on(trained, '--init_from=resume', '--max_iters=6', '--out_dir=deaf'), 'n_cross_head=0', 'this run 4'
    )


def test_a_checkpoint_from_before_cross_attention_and_ids_is_resumed(tmp_path, prepared):
    command = ['train.py', *TINY, f'--data_dir={prepared}', '--out_dir=out', '--eval_interval=2']
    assert run(*command, '--max_iters=2', cwd=tmp_path).returncode == 0
    file = tmp_path / 'out/step_0000002/checkpoint.json'
    info = json.loads(file.read_text())
    for name in 'n_cross_head', 'obs_kinds':
        info['model'].pop(name)
    info['settings'].pop('n_cross_head')
    info['sha256']['checkpoint.json'] = checkpoint.UNSEALED.decode()
    file.write_bytes(checkpoint.seal(json.dumps(info, indent=1).encode()))
    process = run(*command, '--max_iters=4', '--init_from=resume', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert 'goes on, but not to the bit' not in process.stdout
    assert Policy.load(tmp_path / 'out').info['step'] == 4


def test_a_run_under_the_names_of_before_is_resumed(trained, tmp_path):
    """cross_attn was called look: in the JSON, and in the names of tensors"""
    shutil.copytree(trained / 'out', tmp_path / 'old')
    (folder,) = (tmp_path / 'old').glob('step_*')
    info = json.loads((folder / 'checkpoint.json').read_text())
    for part in 'model', 'settings':
        info[part]['look'] = info[part].pop('n_cross_head')
    for file in 'model.safetensors', 'train_state.safetensors':
        tensors = load_file(folder / file)
        before = {v: k for k, v in checkpoint.RENAMED_TENSORS.items()}
        old = dict(tensors)
        for new, name_before in before.items():
            old = {name.replace(new, name_before): v for name, v in old.items()}
        assert old.keys() != tensors.keys()
        save_file(old, folder / file)
        info['sha256'][file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    info['sha256']['checkpoint.json'] = checkpoint.UNSEALED.decode()
    (folder / 'checkpoint.json').write_bytes(checkpoint.seal(json.dumps(info).encode()))
    process = trained_on(trained, '--init_from=resume', '--max_iters=6', f'--out_dir={tmp_path / "old"}')
    assert process.returncode == 0, process.stderr
    assert 'step 3 to 6' in process.stdout


def test_the_config_is_that_of_the_levels():
    for level, name in ('GoToLocal', 'babyai'), ('GoToLocal,PickupLoc', 'babyai_local'), ('BossLevel', 'babyai_seq'):
        assert babyai.config_file({'level': level}) == f'config/{name}.py'
