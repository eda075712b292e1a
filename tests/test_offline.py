"""Scores without a simulator: equal to a slow oracle; who ignores what is asked is told from who listens."""

import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, python, refused, run
from PIL import Image

from data import gym as gym_data
from data.prepared import Prepared
from nanopilot import action_errors, offline
from nanopilot.conditions import readable_episodes
from nanopilot.policy import Policy

SHARES = ['--val_share=0.1', '--test_share=0.3']
TINY = ['--n_embd=32', '--n_layer=1', '--n_head=2', '--batch_size=16', '--drop_bd=0.1', '--warmup_iters=10']
TINY += ['--max_iters=200', '--eval_interval=200', '--learning_rate=5e-3', '--device=cpu', '--dtype=float32']
WORDS = ['--text_len=8', '--block_size=68']
LEAST = ['--max_iters=1', '--eval_interval=1']


def with_words(decide, rng):
    """a csv of a robot of two joints: is the first one's action what the text says, or what is observed?"""
    lines = ['episode,obs_0,obs_1,action_0,action_1,task']
    for i in range(120):
        obs, left = rng.normal(size=2), i % 2
        for _ in range(rng.integers(8, 15)):
            obs = 0.8 * obs + 0.6 * rng.normal(size=2)
            act = [1 - 2 * left if decide else np.tanh(obs[0]), np.tanh(obs[1])] + 0.1 * rng.normal(size=2)
            numbers = ','.join(f'{x:.4f}' for x in [*obs, *act])
            lines.append(f'{i},{numbers},go {"left" if left else "right"}')
    return '\n'.join(lines)


def of_returns(rng):
    """a csv of four observations that say nothing: an action of 1 is rewarded, and rare or frequent in an episode"""
    lines = ['episode,obs_0,obs_1,obs_2,obs_3,action,reward']
    for i in range(120):
        for _ in range(10):
            act = int(rng.random() < (0.1, 0.9)[i % 2])
            lines.append(f'{i},' + ','.join(f'{x:.4f}' for x in 0.1 * rng.normal(size=4)) + f',{act},{act}')
    return '\n'.join(lines)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """made(name, csv, config, ..) -> a folder with prepared data p and a policy o, of a file without environment"""
    folders = {}

    def call(name, csv, *args):
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            (folder / 'x.csv').write_text(csv)
            prepare = ['--dataset=gym', '--archive=x.csv', '--out_dir=p', '--archive_dir=a', *SHARES]
            process = run('prepare.py', *prepare, cwd=folder)
            assert process.returncode == 0, process.stderr
            process = run('train.py', *args, '--data_dir=p', '--out_dir=o', cwd=folder)
            assert process.returncode == 0, process.stderr
            folders[name] = folder
        return folders[name]

    return call


@pytest.fixture
def decided(made):
    return made('decided', with_words(True, np.random.default_rng(0)), 'config/gym.py', *TINY, *WORDS)


@pytest.fixture
def ignored(made):
    return made('ignored', with_words(False, np.random.default_rng(0)), 'config/gym.py', *TINY, *WORDS)


@pytest.fixture
def clustered(made):
    csv = with_words(True, np.random.default_rng(0))
    head = ['--head=kmeans', '--n_clusters=4', '--chunk=4', '--past_actions=True']
    return made('clustered', csv, 'config/gym.py', *TINY, *WORDS, *head, '--max_iters=50', '--eval_interval=50')


@pytest.fixture
def returns(made):
    return made('returns', of_returns(np.random.default_rng(0)), 'config/gym_discrete.py', *TINY)


def loaded(folder):
    return Policy.load(folder / 'o'), Prepared(folder / 'p', 'test')


def evaluated(folder, tmp_path):
    policy, split = loaded(folder)
    return offline.evaluate(policy, split, readable_episodes(split, policy), tmp_path / 'e', seed=1)


# ------------------------------------------------------------------------------
# equal to a slow oracle


def slowly(policy, split, k, prompt, bd):
    """of each decision of episode k, by a pass over what came before it alone -> what the head says, (S, ..) each"""
    c, rows = policy.config.chunk, slice(split.start[k], split.start[k + 1])
    obs, act, path = (np.array(a[rows]) for a in (split.obs, split.act, split.path))
    T = len(obs)
    text = torch.tensor([policy.tokens(prompt)])
    said = []
    for s in range(-(-T // c)):
        seen, done, asked = [], [], []
        for j in range(s + 1):
            seen.append([obs[max(i, 0)] for i in range(j * c - c + 1, j * c + 1)])
            done.append([act[min(i, T - 1)] for i in range(j * c, j * c + c)])
            asked.append(bd - (path[j * c - 1] if j else 0) if 'discount' in policy.data_spec else bd)
        inputs = (torch.tensor(np.array([a])) for a in (seen, done, asked))
        seen, done, asked = inputs
        with torch.inference_mode():
            out, _ = policy.model(text, seen, done, asked.float())
        said.append({name: x[:, -1:] for name, x in out.items()})
    return said, act


@pytest.mark.parametrize('name', ['decided', 'clustered'])
def test_errors_of_actions_are_those_of_a_slow_oracle(name, request):
    policy, split = loaded(request.getfixturevalue(name))
    train = Prepared(split.folder, 'train')
    mean, std = train.act.mean(0), train.act.std(0)
    episodes = [{**e, 'prompt': e['text'][0]} for e in readable_episodes(split, policy)][:5]
    measure = action_errors.MEASURES[policy.config.head](policy, train)
    ways = action_errors.ways_to_ask(policy, split, episodes, seed=1)
    found = action_errors.errors(policy, measure, split, ways)
    head, c = policy.model.head, policy.config.chunk
    for i, e in enumerate(episodes):
        said, act = slowly(policy, split, e['number'], e['prompt'], np.zeros(0))
        errors, repeats, hits = [], [], []
        for s, out in enumerate(said):
            chosen = head.sample(out).reshape(c, -1).numpy()
            real = act[s * c : s * c + c]
            last = act[s * c - 1] if s else mean
            errors += list(((chosen[: len(real)] - real) / std) ** 2)
            repeats += list(((last - real) / std) ** 2)
            if name == 'clustered':
                whole = np.concatenate([real, np.repeat(real[-1:], c - len(real), 0)])  # to its length, as in training
                away = ((whole - mean) / std).reshape(-1) - head.centers[0].numpy()
                nearest = (away**2).sum(1).argmin()
                hits += [int(out['cluster'].argmax()) == nearest] * len(real)
        of_policy = found['prompt']['error']
        assert np.allclose(of_policy['all'][i], np.mean(errors), rtol=1e-4)
        assert np.allclose(of_policy['parts'][i], np.mean(errors, 0), rtol=1e-4)
        assert np.allclose(of_policy['decades'][i, 0], np.mean(errors[:10]), rtol=1e-4)
        assert np.allclose(found['repeat the last action']['error']['all'][i], np.mean(repeats), rtol=1e-4)
        means = np.mean(((mean - act) / std) ** 2)
        assert np.allclose(found['the mean action']['error']['all'][i], means, rtol=1e-4)
        if name == 'clustered':
            assert found['prompt']['cluster']['all'][i] == pytest.approx(np.mean(hits))


def test_likelihoods_are_those_of_a_slow_oracle(returns):
    policy, split = loaded(returns)
    train = Prepared(split.folder, 'train')
    episodes = [{**e, 'prompt': None} for e in readable_episodes(split, policy)][:5]
    measure = action_errors.Discrete(policy, train)
    found = action_errors.errors(policy, measure, split, action_errors.ways_to_ask(policy, split, episodes, seed=1))
    frequent = int(np.bincount(train.act).argmax())
    share = (np.bincount(train.act) + 1) / (len(train.act) + 2)
    pairs = [(a, b) for i in range(len(train)) for a, b in zip(acts(train, i)[:-1], acts(train, i)[1:])]
    p = (sum(a == b for a, b in pairs) + 1) / (len(pairs) + 2)
    for i, e in enumerate(episodes):
        said, act = slowly(policy, split, e['number'], None, split.bd[e['number']])
        log_p = np.array([out['act'].log_softmax(-1).flatten().numpy() for out in said])
        assert found['return']['nll']['all'][i] == pytest.approx(-np.mean(log_p[np.arange(len(act)), act]), rel=1e-4)
        assert found['return']['accuracy']['all'][i] == pytest.approx(np.mean(log_p.argmax(1) == act))
        last = np.array([frequent, *act[:-1]])
        repeat = found['repeat the last action']
        assert repeat['nll']['all'][i] == pytest.approx(-np.mean(np.log(np.where(last == act, p, 1 - p))))
        assert repeat['accuracy']['all'][i] == pytest.approx(np.mean(last == act))
        usual = found['the most frequent action']
        assert usual['nll']['all'][i] == pytest.approx(-np.mean(np.log(share[act])))
        assert usual['accuracy']['parts'][i, frequent] == 1


def acts(split, i):
    return split.act[split.start[i] : split.start[i + 1]]


def test_another_is_asked_for_something_else(decided):
    policy, split = loaded(decided)
    episodes = [{**e, 'prompt': e['text'][0]} for e in readable_episodes(split, policy)]
    ways = action_errors.ways_to_ask(policy, split, episodes, seed=1)
    own, others = ways['prompt', ''].tokens, ways["another's prompt", ''].tokens
    assert len(own) == len(others) == len(split) and all(a != b for a, b in zip(own, others))


# ------------------------------------------------------------------------------
# does it listen?


def test_where_the_words_decide_the_policy_listens(decided, tmp_path, capsys):
    found = evaluated(decided, tmp_path)
    rows = {row['name']: row for row in found['rows']}
    usual = ['repeat the last action', 'the mean action']
    assert list(rows) == ['prompt', "another's prompt", 'nothing asked', *usual]
    assert rows['prompt']['error']['high'] < 0.1 and rows["another's prompt"]['error']['low'] > 1
    by_joint = rows["another's prompt"]['by dimension']
    assert by_joint['action_0']['low'] > 2 and by_joint['action_1']['high'] < 0.2  # the words say nothing of the other
    (line,) = found['verdict']
    assert line.startswith("the policy listens to the words: the error rises with another's prompt (difference ")
    assert line in capsys.readouterr().out


def test_where_the_words_are_noise_they_are_ignored(ignored, tmp_path):
    found = evaluated(ignored, tmp_path)
    assert found['rows'][0]['error']['high'] < 0.1
    (line,) = found['verdict']
    same = "WARNING: the words are ignored: the error is the same with another's prompt (difference "
    assert line.startswith(same) and abs(found['rises']['prompt']['mean']) < 0.01


def test_a_return_is_listened_to(returns, tmp_path):
    found = evaluated(returns, tmp_path)
    rows = {row['name']: row for row in found['rows']}
    usual = ['repeat the last action', 'the most frequent action']
    assert list(rows) == ['return', "another's return", 'nothing asked', *usual]
    assert rows['return']['accuracy']['low'] > 0.8 and set(rows['return']['by action']) == {'0', '1'}
    assert found['verdict'][-1].startswith('the policy listens to the return: ')


def test_one_that_has_learned_nothing_is_no_better_than_who_knows_less(made, tmp_path):
    csv = with_words(True, np.random.default_rng(0))
    found = evaluated(made('unlearned', csv, 'config/gym.py', *TINY, *WORDS, *LEAST), tmp_path)
    assert any('no better than "repeat the last action"' in line for line in found['verdict'])


def test_where_all_are_asked_for_the_same_it_cannot_be_told(decided, tmp_path):
    policy, split = loaded(decided)
    left = [e for e in readable_episodes(split, policy) if e['text'] == ['go left']]
    found = offline.evaluate(policy, split, left, tmp_path / 'e', seed=1)
    assert found['verdict'] == ['whether it listens cannot be told: no episode is asked for another prompt']


# ------------------------------------------------------------------------------
# the commands


def test_a_split_is_scored_without_an_environment(decided, tmp_path):
    command = ['sample_policy.py', '--out_dir=o', '--eval=test', '--data_dir=p', '--workers=1']
    process = run(*command, cwd=decided)
    assert process.returncode == 0, process.stderr
    assert '| prompt | ' in process.stdout and 'the policy listens to the words' in process.stdout
    found = json.loads((decided / 'o' / 'eval_test.json').read_text())
    assert found['rows'] == [] and len(found['offline']['rows']) == 5
    assert Image.open(decided / 'o' / 'eval_test_offline.png').format == 'PNG'
    refused(run(*command, '--rows=prompt', cwd=decided), "'prompt'", 'offline')
    both = run(*command[:-1], '--workers=2', cwd=decided)
    again = json.loads((decided / 'o' / 'eval_test.json').read_text())
    assert both.returncode == 0 and again['offline'] == found['offline']


def test_other_data_is_refused(decided, returns):
    command = ['sample_policy.py', f'--out_dir={returns / "o"}', '--eval=test', f'--data_dir={decided / "p"}']
    refused(run(*command, '--workers=1', cwd=returns), 'obs_names', '--data_dir')


def test_words_and_bd_are_told_apart(trained, prepared, script, tmp_path):
    """the robot in the room: a row for every way to ask it, beside each other and alone"""
    import shutil

    shutil.copytree(trained, tmp_path / 'out')
    args = ['--eval=test', f'--data_dir={prepared}', '--rows=offline', '--eval_episodes=8', '--workers=1']
    script('sample_policy.py', '--out_dir=out', *args)
    found = json.loads((tmp_path / 'out' / 'eval_test.json').read_text())
    rows = [row['name'] for row in found['offline']['rows']]
    asked = ['prompt and bd', "prompt and another's bd", 'prompt', "another's prompt and bd", "another's prompt"]
    assert found['rows'] == [] and rows[:8] == [*asked, 'bd', "another's bd", 'nothing asked']
    assert set(found['offline']['rises']) == {'prompt', 'prompt beside bd', 'bd', 'bd beside prompt'}


# ------------------------------------------------------------------------------
# an environment that the command names


def test_a_policy_acts_in_an_environment_that_the_command_names(returns, tmp_path):
    (tmp_path / 'mine.py').write_text('import gymnasium\n\n\ndef make():\n    return gymnasium.make("CartPole-v1")\n')
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}:{tmp_path}'}
    command = [ROOT / 'sample_policy.py', f'--out_dir={returns / "o"}']
    refused(python([*command, '--bd=5'], tmp_path, env), 'no environment', '--env')
    for name in 'CartPole-v1', 'mine:make':
        process = python([*command, '--bd=5', f'--env={name}'], tmp_path, env)
        assert process.returncode == 0 and re.search('return [0-9]+, asked for 5', process.stdout), process.stderr
    args = ['--eval=test', f'--data_dir={returns / "p"}', '--eval_episodes=4', '--env=mine:make', '--workers=2']
    process = python([*command, *args], tmp_path, env)
    assert process.returncode == 0, process.stderr
    assert 'return asked for' in process.stdout and 'offline, one step ahead' in process.stdout


def test_an_environment_that_does_not_fit_is_one_line(returns, trained, tmp_path):
    command = ['sample_policy.py', f'--out_dir={returns / "o"}', '--bd=5']
    refused(run(*command, '--env=Pendulum-v1', cwd=tmp_path), 'Pendulum-v1', '3 observations')
    refused(run(*command, '--env=nowhere:make', cwd=tmp_path), 'nowhere:make', '--env')
    other = ['sample_policy.py', f'--out_dir={trained}', '--prompt=go to the bed', '--env=CartPole-v1']
    refused(run(*other, cwd=tmp_path), '--env', 'toy_nav', 'Leave it out')


def test_what_the_command_names_reaches_processes_and_no_file():
    named = gym_data.Named('os:getcwd')
    assert isinstance(pickle.loads(pickle.dumps(named)), gym_data.Named)
    assert not isinstance(json.loads(json.dumps(named)), gym_data.Named)
