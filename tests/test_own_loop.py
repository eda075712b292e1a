"""A loop of one's own: returns counted down by rewards, every mode of autoreset, one environment, what is refused."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from test_model import make

from data import cartpole
from data.text import Tokenizer
from nanopilot.policy import Policy
from nanopilot.requests import read_requests
from nanopilot.rollout import rollout

OBS = np.zeros((1, 4), np.float32)


def asked_for_returns(discount=1.0, **changes):
    """a Policy of random weights for CartPole"""
    small = {'n_obs': 4, 'n_act': 2, 'n_bd': 1, 'chunk': 1, 'head': 'ce', 'text_len': 0, 'block_size': 3 * 5}
    model = make(**{**small, 'max_steps': 500, **changes})
    model.steps.obs_norm.std.fill_(1.0)
    kwargs = cartpole.env_kwargs(discount)
    data = {'env_kwargs': kwargs, 'words': [], **cartpole.spec(kwargs)}
    return Policy(model, {'dataset': 'cartpole', 'data': data, 'obs_columns': [0, 1, 2, 3]})


def environments(mode, n=3):
    return gym.vector.SyncVectorEnv([cartpole.make_env] * n, autoreset_mode=mode)


def alone(policy, obs_log, target):
    """the same observations in a loop of one environment, 1 a step -> what it is told is left, its actions"""
    policy.reset([None], bd=[[target]])
    told, acts, reward = [], [], None
    for obs in obs_log:
        acts.append(policy.act(obs, reward=reward))
        told.append(policy.bd[0, 0])
        reward = 1.0
    return told, acts


def next_step(policy, env, obs, seen):
    reward, done = None, np.zeros(3, bool)
    for _ in range(60):
        act = policy.act(obs, reward=reward, skip=done)
        seen(obs, act, ~done)
        obs, reward, terminated, truncated, _ = env.step(act)
        policy.reset_rows(done)
        done = terminated | truncated
        seen.ended(done)


def same_step(policy, env, obs, seen):
    reward = None
    for _ in range(60):
        act = policy.act(obs, reward=reward)
        seen(obs, act, np.ones(3, bool))
        obs, reward, terminated, truncated, _ = env.step(act)
        policy.reset_rows(terminated | truncated)
        seen.ended(terminated | truncated)


def disabled(policy, env, obs, seen):
    reward = None
    for _ in range(60):
        act = policy.act(obs, reward=reward)
        seen(obs, act, np.ones(3, bool))
        obs, reward, terminated, truncated, _ = env.step(act)
        done = terminated | truncated
        seen.ended(done)
        if done.any():
            obs, _ = env.reset(options={'reset_mask': done})
            policy.reset_rows(done)


class Seen:
    """the episodes of three rows: what was observed and told, and what was done"""

    def __init__(self, policy):
        self.policy = policy
        self.open = [[], [], []]
        self.episodes = []

    def __call__(self, obs, act, running):
        for row in np.flatnonzero(running):
            self.open[row].append((obs[row], act[row], self.policy.bd[row, 0]))

    def ended(self, done):
        for row in np.flatnonzero(done):
            if self.open[row]:
                self.episodes.append(self.open[row])
                self.open[row] = []


LOOPS = {AutoresetMode.NEXT_STEP: next_step, AutoresetMode.SAME_STEP: same_step, AutoresetMode.DISABLED: disabled}


@pytest.mark.parametrize('mode', LOOPS, ids=lambda mode: mode.name)
@pytest.mark.parametrize('discount', [1.0, 0.99])
def test_every_episode_is_as_in_an_environment_by_itself(mode, discount):
    policy = asked_for_returns(discount)
    env, seen = environments(mode), Seen(policy)
    obs, _ = env.reset(seed=0)
    policy.reset([None] * 3, bd=[[30]] * 3)
    LOOPS[mode](policy, env, obs, seen)
    assert len(seen.episodes) > 5
    for episode in seen.episodes:
        obs_log, acts, told = zip(*episode)
        assert told[0] == 30 and np.abs(obs_log[0]).max() < 0.05, 'it begins where episodes begin'
        told_alone, acts_alone = alone(asked_for_returns(discount), obs_log, 30)
        assert np.allclose(told, told_alone, atol=1e-4) and list(acts) == acts_alone


@pytest.mark.parametrize('discount', [1.0, 0.99])
def test_rewards_count_down_as_rollouts_do(discount, monkeypatch):
    policy, told = asked_for_returns(discount), []
    decide = policy.decide
    monkeypatch.setattr(policy, 'decide', lambda *how: told.append(policy.bd.copy()) or decide(*how))
    (episode,) = rollout(policy, [None], [[25.0]], [3])
    expected = np.concatenate(told)[:, 0]
    told.clear()
    env = cartpole.make_env(discount=discount)
    policy.reset([None], bd=[[25]])
    obs, _ = env.reset(seed=3)
    acts, reward, over = [], None, False
    while not over:
        act = policy.act(obs, reward=reward)
        assert type(act) is int
        acts.append(act)
        obs, reward, terminated, truncated, _ = env.step(act)
        over = terminated or truncated
    assert acts == episode['act'].tolist()
    assert np.allclose(np.concatenate(told)[:, 0], expected, atol=1e-4) and expected[-1] < 25


def test_a_loop_that_tells_nothing_of_its_return_is_refused():
    """and nothing has changed by that: told then, it goes on"""
    policy = asked_for_returns()
    policy.reset([None], bd=[[25]])
    policy.act(OBS)
    with pytest.raises(ValueError, match=r'what is left of the return\? .* act\(obs, reward=reward\)'):
        policy.act(OBS)
    policy.act(OBS, reward=[2])
    assert policy.bd == 23
    policy.act(OBS, bd=[[7]])
    policy.act(OBS, reward=[2])
    assert policy.bd == 5, 'counted from what it was told last'
    policy.reset_rows([True])
    policy.act(OBS)
    assert policy.bd == 25, 'the next episode is asked for all of it'
    for reward, words in ([np.nan], 'nan in row 0'), ([1, 2], r'shape \(2,\), not \(1,\)'):
        with pytest.raises(ValueError, match=words):
            policy.act(OBS, reward=reward)
    with pytest.raises(ValueError, match='Give one of them'):
        policy.act(OBS, bd=[[7]], reward=[1])
    policy.act(OBS, reward=[1])
    assert policy.bd == 24


def test_a_reward_is_not_needed_where_no_return_is_asked_for(trained):
    """nor looked at: a loop may tell it anyway"""
    policy = Policy.load(trained)
    acts = []
    for reward in None, [0.0]:
        policy.reset(['go to the bed'], [[150, 40]])
        acts.append([policy.act(np.full((1, 9), 0.5), reward=reward) for _ in range(20)])
    assert np.array_equal(*acts)


def test_one_environment_needs_no_axis_of_rows(trained):
    policy = Policy.load(trained)
    policy.reset(['go to the bed'])
    many = [policy.act(np.full((1, 9), 0.5))[0] for _ in range(10)]
    policy.reset(['go to the bed'])
    one = [policy.act(np.full(9, 0.5)) for _ in range(10)]
    assert one[0].shape == (2,) and np.array_equal(one, many)
    policy.reset(['go to the bed'] * 2)
    with pytest.raises(ValueError, match='shape'):
        policy.act(np.full(9, 0.5))


def test_labels_need_no_axis_of_their_own():
    policy = asked_for_returns(n_obs=1)
    policy.data_spec['obs_names'], policy.obs_columns = ['place'], np.array([0])
    policy.reset([None], bd=[[9]])
    assert policy.act(1) in (0, 1)
    policy.reset([None] * 2, bd=[[9]] * 2)
    assert policy.act(np.array([1, 0])).shape == (2,)


@pytest.mark.parametrize(
    'asked, words',
    [
        (('go to the bed',), r"prompts is one string. Give a list, a prompt for each row: \['go to the bed'\]"),
        ((['zebra xylophone'],), 'knows no word'),
        (([7],), 'must be a string'),
        ((['go to the bed'], [[1, 2, 3]]), 'Give 2 numbers'),
        ((['go to the bed'], [[np.nan, 2]]), 'Give 2 numbers'),
        ((['go to the bed'], [[1, 2], [3, 4]]), '2 bd for 1 rows'),
        ((['go to the bed'], ['near']), 'not numbers'),
        ((['go to the bed'], [[900, 2]]), 'not within'),
    ],
)
def test_what_sample_policy_refuses_is_refused(trained, asked, words):
    policy = Policy.load(trained)
    with pytest.raises(ValueError, match=words):
        policy.reset(*asked)
    policy.reset(['go to the bed'])
    with pytest.raises(ValueError, match=words):
        policy.reset_rows([True], *asked)
    assert policy.prompts == ['go to the bed'] and np.isnan(policy.bd).all()


def test_a_policy_of_returns_alone_is_asked_for_one():
    policy = asked_for_returns()
    for asked, words in (
        (([None] * 2,), 'nothing is asked of row 0. Give a bd for each row: return'),
        (([None] * 2, [[20], None]), 'row 1'),
        ((['balance'], [[20]]), 'without language'),
        (([None], [[np.nan]]), 'Give 1 numbers'),
        (([None], [[np.inf]]), 'Give 1 numbers'),
    ):
        with pytest.raises(ValueError, match=words):
            policy.reset(*asked)
    policy.reset([None], [20])
    assert policy.bd == 20, 'a number is one number'
    for bd, words in ([[1, 2]], r'shape \(1, 2\), not \(1, 1\)'), ([[np.inf]], 'inf'):
        with pytest.raises(ValueError, match=words):
            policy.act(OBS, bd=bd)


def test_a_policy_without_a_bd_is_given_none():
    tokenizer = Tokenizer.train(['go to the bed'] * 9, 60)
    policy = asked_for_returns(n_bd=0, text_len=8, vocab_size=tokenizer.vocab_size, block_size=8 + 2 * 5)
    policy = Policy(policy.model, {**policy.info, 'data': {**policy.data_spec, 'bd_names': []}}, tokenizer)
    with pytest.raises(ValueError, match='without a bd'):
        policy.reset(['go'], [[20]])


def test_warnings_of_reset_are_those_of_sample_policy(trained, capsys):
    """each once, however many rows ask for the same"""
    policy = Policy.load(trained)
    policy.reset(['go to the xqzzt'] * 3)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith('warning: xqzzt was never seen in training, it is ')
    assert sum('xqzzt' in line for line in said) == 1
    policy.reset(['go to the bed'] * 3)
    policy.change_prompts([True, False, False], ['go to the xqzzt'])
    assert 'xqzzt' in capsys.readouterr().err
    policy = asked_for_returns()
    policy.reset([None] * 2, [[900]] * 2)
    assert capsys.readouterr().err == 'warning: 900 is out of the range of returns: 0 to 500\n'


# ------------------------------------------------------------------------------
# files of prompts


@pytest.mark.parametrize(
    'text, expected',
    [
        ('["go to the bed", "go to the sofa"]', [('go to the bed', None), ('go to the sofa', None)]),
        ('[\n {"prompt": "go", "bd": [1, 2]},\n "stop"\n]', [('go', [1, 2]), ('stop', None)]),
        ('go\n\n{"bd": "1,2"}\n', [('go', None), (None, [1, 2])]),
        ('\ufeffgo', [('go', None)]),
    ],
)
def test_a_file_of_prompts_is_lines_or_json(text, expected, tmp_path):
    (tmp_path / 'prompts').write_text(text, encoding='utf-8')
    requests = read_requests(tmp_path / 'prompts')
    assert [request for _, *request in requests] == list(map(list, expected))
    assert all(str(tmp_path / 'prompts') in where for where, *_ in requests)


@pytest.mark.parametrize(
    'text, words',
    [
        ('["go", 7]', 'prompt 2: it is 7. Give'),
        ('["go"', 'not JSON'),
        ('[]', 'holds no prompt'),
        ('go\n{"prompt": 7}', 'line 2: the prompt must be a string'),
        ('go\n{"prompt": "go", "db": [1, 2]}', "line 2: 'db' is not known"),
        ('go\n{"bd": "here"}', "line 2: bd='here' is not numbers"),
        ('go to the caf\u00e9', 'not in UTF-8: byte 0xe9 at 13. Save it as UTF-8'),
    ],
)
def test_a_file_of_prompts_that_is_none_is_refused_by_name(text, words, tmp_path):
    (tmp_path / 'prompts.txt').write_text(text, encoding='latin-1')
    with pytest.raises(ValueError, match=words) as e:
        read_requests(tmp_path / 'prompts.txt')
    assert 'prompts.txt' in str(e.value) and '\n' not in str(e.value)
