"""A data set made of a file: from one command to a policy, with an environment of Gymnasium or with none."""

import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from conftest import SMALL, hashes, refused, run

from data import gym as gym_data
from data.gym import spaces

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


class Reach(gym.Env):
    """a point that several labels at once move; observed as a dict"""

    observation_space = gym.spaces.Dict(
        at=gym.spaces.Box(-9, 9, (2,)), goal=gym.spaces.Dict(x=gym.spaces.Box(-9, 9, (1,))), step=gym.spaces.Discrete(9)
    )
    action_space = gym.spaces.MultiDiscrete([3, 2])

    def seen(self):
        return {'at': self.at.copy(), 'goal': {'x': np.float32([4])}, 'step': self.t}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.t = self.np_random.uniform(-1, 1, 2).astype(np.float32), 0
        return self.seen(), {'height': np.float32(0)}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.at = self.at + np.float32([action[0] - 1, action[1]])
        self.t += 1
        return self.seen(), 0.5, self.t == 5, False, {'height': np.float32(self.at[1] / 2)}


gym.register('Reach-v0', Reach)


def reached(n=20):
    """n episodes of Reach -> dicts as of a pickle"""
    env, rng, episodes = Reach(), np.random.default_rng(0), []
    for i in range(n):
        rows = {'observations/at': [], 'observations/goal/x': [], 'observations/step': [], 'actions': []}
        rows |= {'rewards': [], 'infos/height': []}
        obs, _ = env.reset(seed=i)
        over = False
        while not over:
            act = rng.integers([3, 2])
            after, reward, over, _, info = env.step(act)
            values = obs['at'], obs['goal']['x'], obs['step'], act, reward, info['height']
            for name, value in zip(rows, values):
                rows[name].append(value)
            obs = after
        episodes.append({name: np.array(values) for name, values in rows.items()})
    return episodes


@pytest.fixture
def reach(tmp_path):
    (tmp_path / 'reach.pkl').write_bytes(pickle.dumps(reached()))
    return str(tmp_path / 'reach.pkl')


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
    prepared(tmp_path, 'x.csv', '--bd=obs:0,1', '--export=hub')
    for card in 'o/README.md', 'hub/README.md':
        assert 'simulated' not in (tmp_path / card).read_text() and 'recorded' in (tmp_path / card).read_text()


def driven_by(kwargs, actions, seed=0):
    """an episode in the data set's own environments -> obs (T + 1, n_obs), bd (T + 1, n_bd)"""
    env = gym_data.make_vec(1, **kwargs)
    obs, info = env.reset(seed=seed)
    obs_log, path = [obs[0]], [info['bd'][0]]
    for act in actions:
        obs, _, _, _, info = env.step(act[None])
        obs_log.append(obs[0])
        path.append(info['bd'][0])
    return np.array(obs_log), np.array(path)


def test_several_labels_at_once_are_numbers_that_are_rounded(reach):
    """what a policy gives is the nearest label; the file's own actions give the file's own observations"""
    kwargs = gym_data.of_files(reach, 'Reach-v0')
    spec, first = kwargs['spec'], reached(1)[0]
    assert spec['continuous'] and spec['act_low'] == [0, 0] and spec['act_high'] == [2, 1]
    rough = first['actions'] + np.random.default_rng(0).uniform(-0.45, 0.45, (5, 2))
    obs, _ = driven_by(kwargs, rough.astype(np.float32))
    assert spec['obs_names'][:2] == ['obs_0', 'obs_1'] and np.allclose(obs[:5, :2], first['observations/at'])
    driven_by(kwargs, np.float32([[9, 9], [-9, -9]]))  # beyond is the last one


def test_one_label_of_each_kind_of_space():
    for space, low, high in (
        (gym.spaces.MultiDiscrete([3, 2]), [0, 0], [2, 1]),
        (gym.spaces.MultiDiscrete([3, 2], start=[1, -1]), [1, -1], [3, 0]),
        (gym.spaces.MultiBinary(3), [0, 0, 0], [1, 1, 1]),
    ):
        found = spaces.label_bounds(space)
        assert [bound.tolist() for bound in found] == [low, high]
        env = gym.Env()
        env.action_space = space
        for act in found:
            assert space.contains(spaces.Rounded(env).action(act))


def test_keys_of_a_dict_are_in_the_order_they_are_named_in(reach):
    kwargs = gym_data.of_files(reach, 'Reach-v0', 'goal/x,at')
    assert len(kwargs['spec']['obs_names']) == 3
    obs, _ = driven_by(kwargs, reached(1)[0]['actions'])
    assert np.array_equal(obs[:, 0], [4] * 6) and np.allclose(obs[:5, 1:], reached(1)[0]['observations/at'])
    with pytest.raises(ValueError, match="no observation 'far'. There is: at, goal, step. Set --obs_keys"):
        spaces.size_of(Reach.observation_space, 'at,far')


@pytest.mark.parametrize(
    'bd, names, last',
    [
        ('return', ['return'], lambda e: [2.5]),
        ('none', [], lambda e: []),
        ('', ['return'], lambda e: [2.5]),
        ('obs:1,0', ['obs_1', 'obs_0'], lambda e: e['observations/at'][-1, ::-1]),
        ('info:height', ['height'], lambda e: e['infos/height'][-1:]),
        ('obs:obs_1', ['obs_1'], lambda e: e['observations/at'][-1, 1:]),
    ],
)
def test_bd_is_what_the_command_says(bd, names, last, reach):
    """of a file and of an environment; that of the last observation is, in an environment, after the last action"""
    kwargs = gym_data.of_files(reach, 'Reach-v0', bd=bd)
    spec, first = kwargs['spec'], reached(1)[0]
    assert spec['bd_names'] == names and ('discount' in spec) == (names == ['return'])
    obs = np.concatenate([first['observations/at'], first['observations/goal/x']], 1)
    episode = {'obs': obs, 'act': first['actions'], 'reward': first['rewards'], 'info': first['infos/height'][:, None]}
    found = gym_data.from_trajectory(episode, kwargs)
    assert found['path'].shape == (6, len(names)) and np.allclose(found['bd'], last(first))
    assert all(low <= x <= high for low, x, high in zip(spec['bd_low'], found['bd'], spec['bd_high']))
    _, path = driven_by(kwargs, first['actions'])
    assert np.allclose(path[1:5], found['path'][1:5])
    assert 'asked for' in gym_data.report('', [1.0] * len(names), path, kwargs)['summary'] or not names


@pytest.mark.parametrize(
    'bd, words',
    [
        ('obs:7', 'no such observation. Give numbers below 4'),
        ('obs:obs_0,z', 'obs:z'),
        ('obs', 'not known'),
        ('info:depth', 'no column infos/depth, info/depth or depth. There are: .*infos/height'),
        ('obs:2', 'the same at the end of every episode'),
    ],
)
def test_a_bd_that_is_none_is_refused(bd, words, reach):
    with pytest.raises(ValueError, match=words):
        gym_data.of_files(reach, bd=bd)


def test_a_row_more_of_what_an_environment_tells_is_of_the_start(tmp_path):
    episodes = [{**e, 'infos/height': np.append(0.25, e['infos/height'])} for e in reached(5)]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(episodes))
    kwargs = gym_data.of_files(str(tmp_path / 'x.pkl'), 'Reach-v0', bd='info:height')
    found = gym_data.from_trajectory({'act': np.zeros(5), 'info': episodes[0]['infos/height'][:, None]}, kwargs)
    assert found['path'][0] == 0.25 and found['bd'] == episodes[0]['infos/height'][-1]
    for told in episodes[0]['infos/height'][:3], ['high'] * 5:
        (tmp_path / 'x.pkl').write_bytes(pickle.dumps([episodes[1], {**episodes[0], 'infos/height': told}]))
        with pytest.raises(ValueError, match='infos/height'):
            gym_data.of_files(str(tmp_path / 'x.pkl'), bd='info:height')


def test_an_environment_that_does_not_tell_is_refused(reach):
    kwargs = gym_data.of_files(reach, 'Reach-v0', bd='info:height')
    env = gym_data.make_env(**{**kwargs, 'bd': 'info:depth'})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="tells no 'depth' .*, but height. Set --bd"):
        env.step(np.float32([1, 1]))


def test_a_return_without_rewards_is_refused(tmp_path):
    bare = [{name: e[name] for name in ('observations/at', 'actions')} for e in reached(3)]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(bare))
    with pytest.raises(ValueError, match='has no rewards'):
        gym_data.of_files(str(tmp_path / 'x.pkl'), bd='return')


def test_labels_as_observations(tmp_path):
    """FrozenLake: a file of places, an environment that shows a place, from one command to an episode"""
    np.savez(tmp_path / 'x.npz', **driven('FrozenLake-v1', 60))
    prepared(tmp_path, 'x.npz', '--env=FrozenLake-v1')
    process = run('train.py', 'config/gym_discrete.py', '--data_dir=p', *TINY, '--rollouts=2', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    process = run('sample_policy.py', '--out_dir=o', '--bd=1', cwd=tmp_path)
    assert process.returncode == 0 and 'asked for 1' in process.stdout, process.stderr


@pytest.mark.parametrize('bd', ['obs:1,2', 'return'])
def test_what_is_exported_is_prepared_again(bd, tmp_path):
    """the same arrays in the same splits, without a word of what the file was"""
    np.savez(tmp_path / 'x.npz', **driven('CartPole-v1', 30))
    prepared(tmp_path, 'x.npz', '--env=CartPole-v1', f'--bd={bd}', '--export=hub')
    args = ['--dataset=gym', '--archive=hub', '--out_dir=again', '--archive_dir=b']
    process = run('prepare.py', *args, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    before, after = hashes(tmp_path / 'p'), hashes(tmp_path / 'again')
    arrays = {name for name in before if name.endswith('.npy')}
    assert arrays and all(before[name] == after[name] for name in arrays)
    refused(run('prepare.py', *args, '--bd=none', cwd=tmp_path), f"bd='{bd}', not 'none'", '--bd')
    if bd == 'return':
        np.savez(tmp_path / 'x.npz', **driven('CartPole-v1', 20))
        said = prepared(tmp_path, 'x.npz', '--env=CartPole-v1', f'--bd={bd}', '--export=hub')
        assert '20 episodes' in said, 'the file has changed'
    refused(run('prepare.py', '--bd=return', cwd=tmp_path), 'toy_nav', '--dataset=gym')


def test_a_dict_of_observations_is_flattened_by_its_sorted_keys():
    space = gym.spaces.Dict(b=gym.spaces.Discrete(4), a=gym.spaces.Box(-1, 1, (2,)), c=gym.spaces.Text(9))
    assert gym_data.size_of(space) == 3
    assert gym_data.flat(space, {'b': 3, 'a': np.float32([1, 2]), 'c': 'go'}).tolist() == [1, 2, 3]


def test_spaces_that_do_not_fit_are_one_line(tmp_path):
    np.savez(tmp_path / 'x.npz', **driven('CartPole-v1', 3))
    others = ('Acrobot-v1', '6 obs'), ('os:getcwd', 'returns str, no gymnasium.Env')
    for env, word in ('Pendulum-v1', '3 observations'), ('Nowhere-v1', 'no environment'), *others:
        args = ['--dataset=gym', '--archive=x.npz', f'--env={env}', '--out_dir=p', '--archive_dir=a']
        refused(run('prepare.py', *args, cwd=tmp_path), env, word)
    assert not (tmp_path / 'p').exists() and not (tmp_path / 'a').exists()


def test_code_runs_only_where_the_command_names_it():
    with pytest.raises(ValueError, match='is code. If you trust it, name it: --env=os:getcwd'):
        gym_data.make_env(env='os:getcwd', spec={'bd_names': []})


def test_rows_that_are_not_in_order_are_refused(tmp_path):
    """an episode would be cut into pieces"""
    rows = ['episode,t,obs_0,action_0,reward'] + [
        f'{e},{t},{t / 9},{t % 2 - 0.3},1' for t in range(6) for e in range(4)
    ]
    (tmp_path / 'x.csv').write_text('\n'.join(rows))
    process = run('prepare.py', '--dataset=gym', '--archive=x.csv', '--out_dir=p', cwd=tmp_path)
    refused(process, 'x.csv', 'episode 0 comes back after others. Sort the rows by episode and time')


def test_a_file_may_be_called_as_what_is_counted(tmp_path):
    np.savez(tmp_path / 'steps.npz', **driven('CartPole-v1', 30))
    prepared(tmp_path, 'steps.npz', '--env=CartPole-v1', '--bd=return')
    args = ['--data_dir=p', *TINY[1:], '--max_iters=1', '--out_dir=o']
    process = run('train.py', 'config/gym_discrete.py', *args, cwd=tmp_path)
    assert process.returncode == 0, process.stderr


# ------------------------------------------------------------------------------
# files with a flaw


@pytest.fixture
def gym_prepares(script, tmp_path, capsys):
    """gym_prepares(episodes): what prepare.py says of a pickle of them"""

    def call(episodes, *args):
        (tmp_path / 'x.pkl').write_bytes(pickle.dumps(episodes))
        script('prepare.py', '--dataset=gym', '--archive=x.pkl', '--out_dir=p', '--archive_dir=a', '--workers=1', *args)
        return capsys.readouterr().out

    return call


def walks(n=12, T=5, **columns):
    """n episodes of random numbers, each with these columns as well"""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        walk = {'observations': rng.normal(size=(T, 3)), 'actions': rng.uniform(-1, 1, (T, 1))}
        made.append({**walk, 'rewards': rng.normal(size=T), **columns})
    return made


@pytest.mark.parametrize('text', ['', ' ', '?!'])
def test_texts_without_a_word_are_left_out_and_counted(text, gym_prepares, tmp_path):
    said = gym_prepares(walks(task=text))
    assert '12 texts hold no word: left out. No training episode has another: prepared without language' in said
    assert json.loads((tmp_path / 'p/meta.json').read_text())['vocab_size'] == 0
    assert '! 12 texts hold no word: they are left out' in gym_prepares(walks(task=text), '--check')
    said = gym_prepares([*walks(task='go'), *walks(6, T=4, task=text)])
    assert '6 texts hold no word: left out\n' in said and '12, 1 distinct' in said


def test_an_environment_is_made_with_the_arguments_of_the_command(gym_prepares, refuses, tmp_path):
    """they are kept with the data, and used wherever it acts"""
    gym_prepares(walks(), '--env=Pendulum-v1', '--env_kwargs={"g": 5}')
    kwargs = json.loads((tmp_path / 'p/meta.json').read_text())['env_kwargs']
    assert kwargs['env_kwargs'] == {'g': 5} and gym_data.make_env(**kwargs).unwrapped.g == 5
    assert gym_data.in_environment('Pendulum-v1', kwargs)['env_kwargs'] == {'g': 5}
    assert 'env_kwargs' not in gym_data.in_environment('MountainCarContinuous-v0', {**kwargs, 'spec': two_obs(kwargs)})
    for given, word in (
        ('x', 'It is JSON'),
        ('[5]', 'names no arguments'),
        ('{"h": 5}', "unexpected keyword argument 'h'"),
    ):
        args = ['--dataset=gym', '--archive=x.pkl', '--env=Pendulum-v1', f'--env_kwargs={given}']
        refuses('prepare.py', *args, words=['env_kwargs', word])
    refuses('prepare.py', '--dataset=gym', '--archive=x.pkl', '--env_kwargs={"g": 5}', words=['Name it: --env'])


def two_obs(kwargs):
    return {**kwargs['spec'], 'obs_names': ['x', 'v']}


def test_arguments_that_name_code_are_only_the_commands():
    kwargs = {'env': 'Pendulum-v1', 'spec': {'bd_names': [], 'max_steps': 9}, 'env_kwargs': {'g': ['os:getcwd']}}
    with pytest.raises(ValueError, match='is code. If you trust it'):
        gym_data.make_env(**kwargs)


def test_a_dict_of_numbers_is_side_by_side_by_sorted_names(gym_prepares, tmp_path):
    """in the file, by the words of the command, as in the environment"""
    said = gym_prepares(reached(), '--env=Reach-v0')
    assert 'a dict, side by side by sorted names: at is 0 to 1, goal/x is 2, step is 3\n' in said
    obs = np.load(tmp_path / 'p/train/obs.npy')
    assert (obs[:, 2] == 4).all() and obs[:5, 3].tolist() == [0, 1, 2, 3, 4]
    assert 'goal/x is 2' in gym_prepares(reached(), '--check')


def test_pictures_in_a_dict_are_refused_with_the_parts_that_are_numbers(tmp_path):
    episodes = [{**e, 'observations/eye': np.zeros((5, 8, 8, 3), np.uint8)} for e in reached(3)]
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(episodes))
    with pytest.raises(ValueError, match=r'not read: eye \(8, 8, 3\). .* --obs_keys=at,goal/x,step$'):
        gym_data.of_files(str(tmp_path / 'x.pkl'))
    assert len(gym_data.of_files(str(tmp_path / 'x.pkl'), obs_keys='at,goal/x,step')['spec']['obs_names']) == 4


@pytest.mark.filterwarnings('error::RuntimeWarning')
@pytest.mark.parametrize('column, number', [('actions', np.inf), ('observations', 1e300), ('rewards', 1e300)])
def test_what_is_not_finite_is_left_out_and_never_clipped(column, number, gym_prepares):
    """nor does numpy complain of it"""
    episodes = walks()
    episodes[3][column].reshape(5, -1)[2, 0] = number
    said = gym_prepares(episodes, '--env=Pendulum-v1', '--clip_actions')
    assert 'dropped 1 of x: not finite' in said and 'clipped' not in said
    assert '1 of 12 episodes would be left out (first episode 3' in gym_prepares(episodes, '--check')


@pytest.mark.parametrize('ends, why', [({'terminals': np.zeros(30)}, 'terminals never set'), ({}, 'no column says')])
def test_rows_of_which_no_end_is_flagged_are_refused(ends, why, tmp_path):
    (rows,) = walks(1, T=30, **ends)
    for name in 'x.npz', 'y.npz':
        np.savez(tmp_path / name, **rows)
    with pytest.raises(
        ValueError, match=f'x.npz: its 30 steps are one episode, as no end is flagged .{why}.*Save term'
    ):
        gym_data.of_files(str(tmp_path / 'x.npz'))
    assert gym_data.of_files(str(tmp_path / '*.npz'))['spec']['max_steps'] == 30, 'a file for each episode'


def test_where_nothing_is_left_of_a_file_it_is_said_why(gym_prepares, tmp_path):
    """nobody is told to collect more of a file"""
    for episodes, words in (
        (walks(observations=np.full((5, 3), np.nan)), 'all 12 episodes were left out: not finite. Where, and the cure'),
        (walks(1), "too few episodes to split: {'train': 1, 'val': 0, 'test': 0}. Record more, or raise val_share"),
    ):
        with pytest.raises(ValueError, match=words):
            gym_prepares(episodes)


@pytest.mark.parametrize('n', [2, 3])
def test_a_check_of_few_episodes_splits_them_by_count_as_prepare_does(n, gym_prepares, tmp_path):
    gym_prepares(walks(n))
    counts = json.loads((tmp_path / 'p/meta.json').read_text())['counts']
    splits = ', '.join(f'{counts[name]["episodes"]} {name}' for name in ('train', 'val', 'test'))
    said = gym_prepares(walks(n), '--check')
    assert f'splits  {splits}, by count' in said and 'no episode for' not in said


@pytest.mark.parametrize(
    'coded, words',
    [
        (lambda act: np.eye(2)[act], 'x.npz: actions are 2 numbers .* one-hot form.* actions.argmax\\(-1\\)'),
        (lambda act: 2 * act - 1, 'x.npz, actions: values -1, 1, but CartPole-v1 has 0 to 1. Map them to 0 .. 1'),
        (lambda act: act + 1, 'values 1, 2, but CartPole-v1 has 0 to 1. Save actions - 1$'),
        (lambda act: act + 0.5, 'values 0.5, 1.5, .* with fractions are no labels: name another --env'),
    ],
)
def test_labels_in_another_coding_are_refused_with_the_one_that_is_read(coded, words, tmp_path):
    rows = driven('CartPole-v1', 3)
    np.savez(tmp_path / 'x.npz', **{**rows, 'actions': coded(rows['actions'])})
    with pytest.raises(ValueError, match=words):
        gym_data.of_files(str(tmp_path / 'x.npz'), 'CartPole-v1')


def test_words_for_actions_are_refused(tmp_path):
    rows = [f'{e},{t},{t / 9},{("right", "left")[t % 2]},1' for e in range(3) for t in range(4)]
    (tmp_path / 'x.csv').write_text('\n'.join(['episode,t,obs_0,action,reward', *rows]))
    with pytest.raises(ValueError, match="x.csv, action: 'left' is no number. Save .* own: 0 for left, 1 for right"):
        gym_data.of_files(str(tmp_path / 'x.csv'))
