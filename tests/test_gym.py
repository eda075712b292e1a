"""A data set made of a file: from one command to a policy, with an environment of Gymnasium or with none."""

import json

import gymnasium as gym
import numpy as np
import pytest
from conftest import SMALL, refused, run

from data import gym as gym_data

SHARES = ['--val_share=0.2', '--test_share=0.2']
TINY = [*SMALL, '--max_iters=4', '--eval_interval=4', '--device=cpu', '--out_dir=o']


def driven(env, n, seed=0):
    """n episodes of random actions -> D4RL's columns"""
    env = gym.make(env)
    env.action_space.seed(seed)
    rows = {'observations': [], 'actions': [], 'rewards': [], 'terminals': [], 'timeouts': []}
    for i in range(n):
        obs, _ = env.reset(seed=seed + i)
        over = False
        while not over:
            act = env.action_space.sample()
            after, reward, terminated, truncated, _ = env.step(act)
            over = terminated or truncated
            for name, value in zip(rows, (obs, act, reward, terminated, truncated)):
                rows[name].append(value)
            obs = after
    return {name: np.array(values) for name, values in rows.items()}


def prepared(tmp_path, file, *args):
    args = [f'--archive={file}', '--dataset=gym', '--out_dir=p', '--archive_dir=a', *SHARES, *args]
    process = run('prepare.py', *args, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize('env, config', [('CartPole-v1', 'config/gym_discrete.py'), ('Pendulum-v1', 'config/gym.py')])
def test_a_file_of_an_environment_becomes_a_policy(env, config, tmp_path):
    np.savez(tmp_path / 'x.npz', **driven(env, 30))
    said = prepared(tmp_path, 'x.npz', f'--env={env}')
    assert '30 of 30 episodes are kept' in said and f'{config} --data_dir=p' in said
    process = run('train.py', config, '--data_dir=p', *TINY, '--rollouts=4', cwd=tmp_path)
    assert process.returncode == 0 and 'rollouts' in process.stdout, process.stderr
    process = run('sample_policy.py', '--out_dir=o', '--bd=20', cwd=tmp_path)
    assert process.returncode == 0 and 'asked for 20' in process.stdout, process.stderr


def test_a_file_without_an_environment(tmp_path):
    """numbers, texts, nothing to drive in: it prepares and trains, and acting in it is refused in a line"""
    rng = np.random.default_rng(0)
    lines = ['episode,obs_0,obs_1,action_0,action_1,task']
    for i in range(30):
        for _ in range(rng.integers(5, 9)):
            lines.append(
                f'{i},' + ','.join(f'{x:.4f}' for x in rng.normal(size=4)) + f',{"lift it" if i % 2 else "stop"}'
            )
    (tmp_path / 'x.csv').write_text('\n'.join(lines))
    said = prepared(tmp_path, 'x.csv')
    meta = json.loads((tmp_path / 'p' / 'meta.json').read_text())
    assert meta['bd_names'] == [] and meta['words'] and 'text task (2 distinct)' in said
    args = ['--data_dir=p', '--text_len=8', '--block_size=68', '--drop_bd=0', *TINY]
    process = run('train.py', 'config/gym.py', *args, '--rollouts=4', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    refused(run('sample_policy.py', '--out_dir=o', '--prompt=stop', cwd=tmp_path), 'no environment', '--env')


def test_a_dict_of_observations_is_flattened_by_its_sorted_keys():
    space = gym.spaces.Dict(b=gym.spaces.Discrete(4), a=gym.spaces.Box(-1, 1, (2,)), c=gym.spaces.Text(9))
    assert gym_data.size_of(space) == 3
    assert gym_data.flat(space, {'b': 3, 'a': np.float32([1, 2]), 'c': 'go'}).tolist() == [1, 2, 3]


def test_spaces_that_do_not_fit_are_one_line(tmp_path):
    np.savez(tmp_path / 'x.npz', **driven('CartPole-v1', 3))
    for env, word in ('Pendulum-v1', '3 observations'), ('Nowhere-v1', 'no environment'), ('Acrobot-v1', '6 obs'):
        args = ['--dataset=gym', '--archive=x.npz', f'--env={env}', '--out_dir=p', '--archive_dir=a']
        refused(run('prepare.py', *args, cwd=tmp_path), env, word)
    assert not (tmp_path / 'p').exists() and not (tmp_path / 'a').exists()


def test_code_runs_only_where_the_command_names_it():
    with pytest.raises(ValueError, match='is code. If you trust it, name it: --env=os:getcwd'):
        gym_data.make_env(env='os:getcwd', spec={'bd_names': []})
