"""The robot, its room and its environments."""

import json
import math
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import data.toy_nav as toy_nav
from data.toy_nav.driver import STANDS, demonstrate
from data.toy_nav.env import ANYWHERE
from data.toy_nav.itinerary import Itinerary, parse
from data.toy_nav.planner import Driven, forbid, in_time, sample_itinerary
from data.toy_nav.reading import marked
from data.toy_nav.world import SCENE, World
from data.verify import verify

ID = 'nanopilot/ToyNav-v0'


@pytest.fixture(scope='module')
def world():
    return World()


@pytest.fixture(scope='module')
def driven(world):
    """200 robots drive for 400 steps and bump into everything -> poses, actions, bumpers (steps, 200, ..)"""
    rng = np.random.default_rng(0)
    pose, act = world.random_poses(rng, 200), np.zeros((200, 2))
    poses, acts, bumpers = [pose], [], []
    for t in range(400):
        if t % 20 == 0:
            act = np.clip(rng.normal(0.5, 0.6, (200, 2)), -1, 1).astype(np.float32)
        pose, bump = world.step(pose, act)
        poses.append(pose)
        acts.append(act)
        bumpers.append(bump)
    return np.array(poses), np.array(acts), np.array(bumpers)


# ------------------------------------------------------------------------------
# physics, against the slow obvious version


def slow_distance(world, x, y):
    """-> distance to the nearest wall and the point of it that is nearest"""
    best = (math.inf, 0, 0)
    for x0, y0, x1, y1 in world.walls:
        wx, wy = min(max(x, x0), x1), min(max(y, y0), y1)
        best = min(best, (math.hypot(x - wx, y - wy), wx, wy))
    return best


def slow_step(world, pose, act):
    x, y = pose[:2]
    theta = math.atan2(pose[3], pose[2])
    left, right = (world.max_speed * min(max(float(a), -1), 1) for a in act)
    turn, v = (right - left) / (2 * world.radius), (left + right) / 2
    nx, ny = x + v * math.cos(theta + turn / 2), y + v * math.sin(theta + turn / 2)
    theta += turn
    d, wx, wy = slow_distance(world, nx, ny)
    angle = None
    if d < world.radius:
        angle = math.remainder(math.atan2(wy - ny, wx - nx) - theta, 2 * math.pi)  # of the wall, seen by the robot
        nx, ny = wx + (nx - wx) / d * world.radius, wy + (ny - wy) / d * world.radius
        if slow_distance(world, nx, ny)[0] < world.radius - 1e-9:
            nx, ny = x, y
    return nx, ny, math.cos(theta), math.sin(theta), angle


def test_a_step_is_the_slow_obvious_one(world, driven):
    poses, acts, bumpers = driven
    touching = np.argwhere(bumpers.any(-1))
    free = np.argwhere(~bumpers.any(-1))
    rng = np.random.default_rng(1)
    assert len(touching) > 1000
    for moves in touching, free:
        for t, i in moves[rng.choice(len(moves), 400, replace=False)]:
            *expected, angle = slow_step(world, poses[t, i], acts[t, i])
            assert np.allclose(poses[t + 1, i], expected, atol=1e-6), (t, i)
            if moves is touching and abs(abs(math.degrees(angle)) - 15) > 0.2:  # 15 degrees is a rounded 0.26
                assert abs(math.degrees(angle)) < 90.1
                assert bumpers[t, i].tolist() == [math.degrees(angle) > -15, math.degrees(angle) < 15], (t, i)


def test_a_robot_is_never_inside_a_wall(world, driven):
    poses = driven[0]
    assert world.clearance(*poses.reshape(-1, 4)[:, :2].T).min() > world.radius - 1e-6
    assert poses[..., :2].min() > 10 and poses[..., :2].max() < 190


def test_a_heading_keeps_its_length(driven):
    assert np.allclose((driven[0][..., 2:] ** 2).sum(-1), 1, atol=1e-12)


def test_lasers_see_what_a_marching_ray_meets(world, driven):
    poses = driven[0].reshape(-1, 4)[::803]
    got, step = world.lasers(poses), 0.02
    r = np.arange(0, world.laser_range, step)
    for k, degrees in enumerate(world.scene['robot']['lasers_degrees']):
        theta = np.arctan2(poses[:, 3], poses[:, 2]) + math.radians(degrees)
        x, y = poses[:, :1] + r * np.cos(theta)[:, None], poses[:, 1:2] + r * np.sin(theta)[:, None]
        inside = np.zeros(x.shape, bool)
        for x0, y0, x1, y1 in world.walls:
            inside |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        meets = np.where(inside.any(1), inside.argmax(1) * step, world.laser_range)
        # a ray that just clips a corner between two marks
        grazes = np.abs(got[:, k] * world.laser_range - meets) > 2 * step
        assert grazes.mean() < 0.01 and np.all(got[grazes, k] * world.laser_range < meets[grazes])
    assert got.min() > 0 and got.max() == 1 and len(poses) == 100


def test_left_and_right_are_not_swapped(world):
    pose = np.array([[100, 60, 1.0, 0.0]])  # heads east
    turned = world.step(pose, np.array([[0.0, 1.0]]))[0]
    assert turned[0, 3] > 0  # the right wheel is faster: to the left, north
    left, ahead, right = world.lasers(np.array([[100, 20, 1.0, 0.0]]))[0]  # the southern wall is near
    assert right < left


def test_a_robot_moves_as_it_would_alone(world, driven):
    poses, acts, _ = driven
    many, obs = world.advance(np.tile(poses[50], (20, 1)), np.tile(acts[50], (20, 1)))  # on two threads
    for i in 0, 7, 199:
        one, one_obs = world.advance(poses[50][i : i + 1], acts[50][i : i + 1])
        assert np.array_equal(many[i::200], np.tile(one, (20, 1)))
        assert np.array_equal(obs[i::200], np.tile(one_obs, (20, 1)))


def test_random_poses_fit(world):
    poses = world.random_poses(np.random.default_rng(0), 500)
    assert poses.shape == (500, 4) and world.clearance(*poses[:, :2].T).min() >= world.radius
    assert np.allclose((poses[:, 2:] ** 2).sum(1), 1)


# ------------------------------------------------------------------------------
# as environments


@pytest.mark.parametrize('args', [{}, {'pose': False}, {'start_anywhere': True}])
def test_check_env(args):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_env(gym.make(ID, **args).unwrapped, skip_render_check=bool(args))


def test_it_renders_without_a_display():
    env = gym.make(ID, render_mode='rgb_array')
    env.reset(seed=0)
    before = env.render()
    for _ in range(30):
        env.step(np.array([1, 1], dtype=np.float32))
    after = env.render()
    assert before.shape == (400, 400, 3) and before.dtype == np.uint8 and (before != after).any()
    assert (before != after).any(-1).mean() < 0.2  # the room stays where it is


def test_the_observation_is_named_and_starts_as_documented():
    obs, info = gym.make(ID).reset(seed=0)
    assert obs.shape == (9,) and obs.dtype == np.float32 and len(toy_nav.OBS_NAMES) == 9
    assert obs[5:].tolist() == pytest.approx([20, 50, math.sqrt(0.5), math.sqrt(0.5)])
    assert info['bd'].tolist() == [20, 50]
    assert gym.make(ID, pose=False).reset(seed=0)[0].tolist() == obs[:5].tolist()


def test_starts_anywhere_come_from_the_seed():
    env = gym.make(ID, start_anywhere=True)
    a, b, c = (env.reset(seed=s)[0] for s in (1, 2, 1))
    assert (a == c).all() and (a != b).any()
    assert (env.reset()[0] != c).any()  # without a seed the next one


def test_large_seeds_begin_anywhere_and_others_where_the_scene_says():
    env, vec = gym.make(ID), toy_nav.make_vec(3)
    seeds = [ANYWHERE, ANYWHERE - 1, ANYWHERE + 5]
    obs = vec.reset(seed=seeds)[0]
    assert obs[1, 5:7].tolist() == [20, 50] and (obs[[0, 2], 5:] != obs[1, 5:]).any(1).all()
    for seed, row in zip(seeds, obs):
        assert np.array_equal(env.reset(seed=seed)[0], row)
    assert np.array_equal(toy_nav.make_vec(3, start_anywhere=True).reset(seed=seeds)[0][::2], obs[::2])
    assert (vec.reset()[0][[0, 2]] != obs[[0, 2]]).any(1).all()  # without a seed the next one, anywhere too
    assert np.array_equal(gym.make(ID).reset()[0], obs[1])  # who gives none begins where the scene says


@pytest.mark.parametrize('args', [{}, {'start_anywhere': True}, {'pose': False}])
def test_vector_and_single_environments_in_lockstep(args):
    """gymnasium's own vectorisation of the single environment is the oracle, over ends and autoresets"""
    fast = gym.make_vec(ID, num_envs=4, vectorization_mode='vector_entry_point', **args)
    slow = gym.make_vec(
        ID, num_envs=4, vectorization_mode='sync', vector_kwargs={'autoreset_mode': AutoresetMode.NEXT_STEP}, **args
    )
    assert fast.metadata['autoreset_mode'] == slow.metadata['autoreset_mode']
    assert fast.single_observation_space == slow.single_observation_space and fast.action_space == slow.action_space
    rng, ends = np.random.default_rng(0), {'terminated': 0, 'truncated': 0}
    (a, info_a), (b, info_b) = fast.reset(seed=7), slow.reset(seed=7)
    assert np.array_equal(a, b) and np.array_equal(info_a['bd'], info_b['bd'])
    for t in range(850):
        act = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
        if t % 100 > 70:  # two of them stop for good now and then
            act[:2] = rng.uniform(-0.09, 0.09, (2, 2))
        one, other = fast.step(act), slow.step(act)
        for name, x, y in zip(('observation', 'reward', 'terminated', 'truncated'), one, other):
            assert np.array_equal(x, y) and x.dtype == y.dtype, (name, t)
        assert np.array_equal(one[4]['bd'], other[4]['bd']), t
        ends['terminated'] += one[2].sum()
        ends['truncated'] += one[3].sum()
    assert ends['terminated'] >= 8 and ends['truncated'] >= 4, ends
    assert np.array_equal(fast.reset()[0], slow.reset()[0])  # and what a second reset draws


def test_a_list_of_seeds_and_a_first_seed_mean_the_same():
    env = toy_nav.make_vec(3, start_anywhere=True)
    assert np.array_equal(env.reset(seed=5)[0], env.reset(seed=[5, 6, 7])[0])
    assert np.array_equal(env.reset(seed=5)[0], env.reset(seed=np.array([5, 6, 7]))[0])
    assert np.array_equal(env.reset(seed=5)[0], env.reset(seed=np.int64(5))[0])
    assert np.array_equal(env.reset(seed=[6, 5, 9])[0][1], gym.make(ID, start_anywhere=True).reset(seed=5)[0])


def test_standing_still_for_16_steps_ends_the_episode():
    env = toy_nav.make_env()
    env.reset(seed=0)
    for _ in range(15):
        assert not env.step([0.09, -0.09])[2]
    env.step([0.2, 0.0])  # one wheel moves: it counts anew
    flags = [env.step([0.0, 0.05])[2] for _ in range(16)]
    assert flags == [False] * 15 + [True]


def test_an_episode_is_cut_after_400_steps():
    env = toy_nav.make_env()
    env.reset(seed=0)
    flags = [env.step([1.0, -1.0])[3] for _ in range(400)]
    assert flags == [False] * 399 + [True]


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused(bad):
    env, vec = toy_nav.make_env(), toy_nav.make_vec(3)
    env.reset(seed=0)
    vec.reset(seed=0)
    with pytest.raises(ValueError, match='not finite'):
        env.step([0.1, bad])
    with pytest.raises(ValueError, match='robot 1 is not finite'):
        vec.step([[0, 0], [bad, 0], [0, 0]])


@pytest.mark.parametrize('args', [{}, {'start_anywhere': True}], ids=['fixed start', 'start anywhere'])
def test_some_robots_begin_anew_and_the_others_go_on(args):
    """options={'reset_mask': ...} is Gymnasium's: its own vectorisation is the oracle"""
    fast, rng = toy_nav.make_vec(4, **args), np.random.default_rng(3)
    slow = gym.make_vec(
        ID, num_envs=4, vectorization_mode='sync', vector_kwargs={'autoreset_mode': AutoresetMode.NEXT_STEP}, **args
    )
    for env in fast, slow:
        env.reset(seed=7)
    for t in range(60):
        act = rng.uniform(0.2, 1, (4, 2)).astype(np.float32)
        assert np.array_equal(fast.step(act)[0], slow.step(act)[0])
        if t % 9 == 8:
            mask, seeds = rng.random(4) < 0.5, [int(s) for s in rng.integers(99, size=4)]
            mask[t // 9 % 4] = True
            (a, info), (b, _) = (env.reset(seed=seeds, options={'reset_mask': mask.copy()}) for env in (fast, slow))
            assert np.array_equal(a, b)
            assert (fast.t[mask] == 0).all()
            assert (fast.t[~mask] > 0).all()
            assert np.array_equal(info['bd'], fast.state[:, :2].astype(np.float32))


def test_stepping_before_a_reset_is_refused():
    with pytest.raises(gym.error.ResetNeeded):
        toy_nav.make_env().step([0, 0])


# ------------------------------------------------------------------------------
# scenes


def scene(**changes):
    s = json.loads(SCENE.read_text())
    for key, value in changes.items():
        at = s['robot'] if key in s['robot'] else s
        at[key] = value
    return s


def lacking(key):
    s = scene()
    del s[key]
    return s


BROKEN = {
    'no robot': lacking('robot'),
    'no walls': lacking('walls'),
    'no objects': lacking('objects'),
    'no tiles': lacking('tiles'),
    'a list': [1, 2],
    'a wall of three numbers': scene(walls=[[0, 0, 10]]),
    'a word for a number': scene(radius='big'),
    'an object in three dimensions': scene(objects={'lamp': [1, 2, 3]}),
    'a start inside a wall': scene(start=[5, 5]),
    'a start outside the room': scene(start=[-50, 50]),
    'two lasers': scene(lasers_degrees=[45, -45]),
    'a room that is no square': scene(room=[200, 100]),
    'two rows of tiles': scene(tiles={'rows_north_to_south': [['red', 'green', 'blue'], ['pink', 'gray', 'white']]}),
    'a gap in an outer wall': scene(walls=[*scene()['walls'][:3], [190, 0, 200, 90]]),
    'no outer walls': scene(walls=[[40, 118, 46, 160]]),
    'no objects at all': scene(objects={}),
    'a robot without size': scene(radius=0),
}


@pytest.mark.parametrize('what', BROKEN)
def test_a_broken_scene_is_one_clear_line(what):
    with pytest.raises(ValueError) as e:
        World(BROKEN[what])
    assert '\n' not in str(e.value) and 'scene' in str(e.value)


def test_a_scene_file_that_is_missing_or_no_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no scene file .*nowhere.json'):
        World(tmp_path / 'nowhere.json')
    (tmp_path / 'bad.json').write_text('{"room": [')
    with pytest.raises(ValueError, match='bad.json is not JSON'):
        World(tmp_path / 'bad.json')


@pytest.fixture(scope='module')
def own_scene(tmp_path_factory):
    file = tmp_path_factory.mktemp('scene') / 'mine.json'
    file.write_text(
        json.dumps(
            {
                'room': [100, 100],
                'walls': [[0, 0, 100, 5], [0, 95, 100, 100], [0, 0, 5, 100], [95, 0, 100, 100], [48, 5, 52, 60]],
                'objects': {'TV': [25, 80], 'desk lamp': [75, 25], 'lamp': [25, 25]},
                'tiles': {
                    'rows_north_to_south': [
                        ['red', 'green', 'blue'],
                        ['teal', 'brown', 'purple'],
                        ['pink', 'gray', 'white'],
                    ]
                },
                'robot': {
                    'radius': 3,
                    'start': [50, 80],
                    'heading_degrees': 0,
                    'max_wheel_speed': 1,
                    'lasers_degrees': [45, 0, -45],
                    'laser_range': 20,
                    'episode_steps': 300,
                },
            }
        )
    )
    return file


def test_a_scene_of_your_own(own_scene):
    kwargs = toy_nav.env_kwargs(scene=str(own_scene))
    env = gym.make(ID, **kwargs)
    obs, _ = env.reset(seed=0)
    assert obs[5:].tolist() == [50, 80, 1, 0] and env.observation_space.high[5] == 100
    own_scene_moved = json.loads(json.dumps(kwargs))  # as an archive and a checkpoint keep it: no path
    assert gym.make(ID, **own_scene_moved).reset(seed=0)[0].tolist() == obs.tolist()
    where = toy_nav.places(kwargs)
    assert where.tile_at([20, 50]) == 'teal' and where.mask(parse('the lamp', where).places[0])[30, 25]


def test_demonstrations_in_a_scene_of_your_own_are_carried_out_and_read_back(own_scene):
    kwargs = toy_nav.env_kwargs(scene=str(own_scene))
    where = toy_nav.places(kwargs)
    episodes = list(toy_nav.collect('demonstrations', 12 / toy_nav.SOURCES['demonstrations'], 0, kwargs))
    assert len(episodes) >= 11
    for e in episodes:
        request = Itinerary.from_json(e['asked'])
        for style in 'request', 'instruction', 'narrative', 'short':
            text = request.to_text(np.random.default_rng(0), style)
            assert parse(text, where) == request, text


# ------------------------------------------------------------------------------
# demonstrations


@pytest.fixture(scope='module')
def asked(ways, places):
    """400 itineraries, each from a start of its own -> poses (400, 4), itineraries"""
    rng = np.random.default_rng(3)
    pose = places.world.random_poses(rng, 400)
    driven = Driven()
    itineraries = [sample_itinerary(rng, ways, xy, driven) for xy in pose[:, :2]]
    yield pose, itineraries
    ways.forget()


def test_half_of_the_demonstrations_begin_anywhere(demos):
    anywhere = np.array([e['seed'] >= ANYWHERE for e in demos])
    where = np.array([e['obs'][0, 5:7] for e in demos])
    assert anywhere.mean() == pytest.approx(0.5, abs=0.15)
    assert (where[~anywhere] == [20, 50]).all()
    assert (where[anywhere].min(0) < 60).all() and (where[anywhere].max(0) > 140).all()


def test_a_quarter_asks_for_one_place_and_many_of_these_are_near(asked, ways):
    pose, itineraries = asked
    shares = np.bincount([len(i.places) for i in itineraries]) / len(itineraries)
    assert np.allclose(shares[1:5], [0.25, 0.3, 0.25, 0.2], atol=0.08)
    ones = [(xy, i.places[0]) for xy, i in zip(pose[:, :2], itineraries) if len(i.places) == 1]
    nearer = [ways.length(xy, p) < np.median([ways.length(xy, q) for q in ways.places.all]) for xy, p in ones]
    assert np.mean(nearer) > 0.6


def test_what_cannot_be_driven_in_time_is_not_asked(asked, ways, places):
    assert all(in_time(ways.route_length(xy, i), places.world) for xy, i in zip(asked[0][:, :2], asked[1]))


def test_two_fifths_forbid_a_place_and_half_of_those_are_not_on_the_way(asked, ways, places):
    pose, itineraries = asked
    on_the_way = []
    for xy, itinerary in zip(pose[:, :2], itineraries):
        if itinerary.avoid:
            route = ways.route_cells(xy, itinerary.places)
            on_the_way.append(places.mask(itinerary.avoid[0]).ravel()[route].any())
    assert len(on_the_way) / len(itineraries) == pytest.approx(0.4, abs=0.06)
    assert np.mean(on_the_way) == pytest.approx(0.5, abs=0.15)
    assert {i.avoid[0].kind for i in itineraries if i.avoid} == {'tile', 'at', 'side'}


def test_what_is_forbidden_elsewhere_is_never_on_the_way(ways, places):
    rng, start = np.random.default_rng(4), places.world.start_pose[:2]
    for k in range(5):
        plain = Itinerary((places.all[20 * k],))
        elsewhere = forbid(plain, rng, ways, start, on_the_way=False)
        assert elsewhere.avoid and elsewhere.places == plain.places
        assert not places.mask(elsewhere.avoid[0]).ravel()[ways.route_cells(start, plain.places)].any()
    ways.forget()


def test_the_driver_keeps_off_with_room_to_spare(asked, ways, places):
    """in the median twice the berth: a policy that follows it less exactly still keeps off"""
    some = [(pose, i) for pose, i in zip(*asked) if i.avoid]
    pose, itineraries = np.array([pose for pose, _ in some]), [i for _, i in some]
    clearance = []
    for itinerary, e in zip(itineraries, demonstrate(itineraries, pose, ways, np.random.default_rng(0))):
        distance = ways.distance_to(itinerary.avoid)
        i, j = places.cell(e['path'])
        clearance.append(distance[i * places.size + j].min())
    assert np.mean(np.array(clearance) > 4) > 0.95 and np.median(clearance) > 7


def test_some_are_driven_elsewhere_first(asked, ways):
    """.. for as long as there is time: a prompt may be given on the way to something else"""
    pose, itineraries = asked
    episodes = demonstrate(itineraries[:200], pose[:200], ways, np.random.default_rng(1))
    late = [e for e in episodes if not e['taught'][:45].any()]
    assert 3 <= len(late) <= 30
    carried_out = [i.match(e['path'], ways.places)['carried_out'] for i, e in zip(itineraries, episodes)]
    assert np.mean(carried_out) > 0.95


def test_the_subgoal_is_the_next_place_of_the_itinerary(asked, ways, places):
    pose, itineraries = (some[:50] for some in asked)
    for itinerary, e in zip(itineraries, demonstrate(itineraries, pose, ways, np.random.default_rng(2))):
        ends = [ways.end(place)[0] for place in itinerary.places]
        changes = np.flatnonzero((np.diff(e['subgoal'], axis=0) != 0).any(1)) + 1
        assert np.array_equal(e['subgoal'][np.r_[0, changes]], np.array(ends, np.float32))
        assert all(np.hypot(*(e['path'][t - 1] - e['subgoal'][t - 1])) < 6 for t in changes)


def test_points_are_driven_straight_to_and_their_bd_says_where(kwargs, places):
    episodes = list(toy_nav.collect('points', 60 / toy_nav.SOURCES['points'], 0, kwargs))
    assert len(episodes) >= 57 and {e['source'] for e in episodes} == {'points'}
    assert 0.3 < np.mean([e['seed'] >= ANYWHERE for e in episodes]) < 0.7
    for e in episodes:
        (goal,) = set(map(tuple, e['subgoal']))
        assert np.array_equal(e['bd'], e['path'][-1]) and np.hypot(*(e['bd'] - goal)) <= 2
        assert 'asked' not in e
    assert len({tuple(e['bd'] // 5) for e in episodes}) > 0.9 * len(episodes)  # anywhere on the floor
    assert verify(toy_nav, episodes, kwargs, toy_nav.spec(kwargs)) == [None] * len(episodes)
    again = list(toy_nav.collect('points', 60 / toy_nav.SOURCES['points'], 0, kwargs))
    assert all(np.array_equal(a['act'], b['act']) for a, b in zip(episodes, again, strict=True))


def test_where_nothing_can_be_driven_to_in_time_there_is_no_point(own_scene):
    scene = json.loads(own_scene.read_text())
    scene['robot']['episode_steps'] = 100
    own_scene.write_text(json.dumps(scene))
    kwargs = toy_nav.env_kwargs(scene=str(own_scene))
    with pytest.raises(ValueError, match='nothing can be driven to within an episode.*episode_steps'):
        list(toy_nav.collect('points', 3 / toy_nav.SOURCES['points'], 0, kwargs))


def test_what_is_possible_is_what_the_driver_ends_in_time(demos, kwargs):
    """with all steps of an episode nearly everything; after standing for 390 of the 400 nothing"""
    begun = [{'act': e['act'][:0], 'seed': e['seed'], 'asked': e['asked']} for e in demos[:60]]
    assert toy_nav.possible(begun, kwargs).mean() > 0.9
    done = [{**b, 'act': e['act']} for b, e in zip(begun, demos) if len(Itinerary.from_json(e['asked']).places) == 1]
    assert toy_nav.possible(done, kwargs).all()  # it stands where it should be
    late = [{**b, 'act': np.zeros((390, 2), np.float32)} for b in begun]
    assert not toy_nav.possible(late, kwargs).any()


# ------------------------------------------------------------------------------
# the driver takes over from a policy


WHEELS = {'stands': [0, 0], 'circles': [0.3, 1], 'goes straight': [1, 1], 'wavers': None}


@pytest.mark.parametrize('what', WHEELS)
def test_the_driver_puts_right_what_a_policy_began(what, demos, kwargs):
    act = np.random.default_rng(0).uniform(0, 1, (400, 2)) if what == 'wavers' else np.tile(WHEELS[what], (400, 1))
    rollouts = [{'act': act.astype(np.float32), 'seed': e['seed'], 'asked': e['asked']} for e in demos[:60]]
    episodes = list(toy_nav.relabel(rollouts, 5, kwargs))
    assert len(episodes) >= 54
    begun = {(r['seed'], r['asked']): r['act'] for r in rollouts}
    for e in episodes:
        first = int(e['taught'].argmax())  # the step at which the driver took over
        assert first >= 1 and e['taught'][first:].all()
        assert np.array_equal(e['act'][:first], begun[e['seed'], e['asked']][:first])
        assert not np.array_equal(e['act'][first:], begun[e['seed'], e['asked']][first : len(e['act'])])
        assert first <= STANDS or what != 'stands'
    assert verify(toy_nav, episodes, kwargs, toy_nav.spec(kwargs)) == [None] * len(episodes)
    again = list(toy_nav.relabel(rollouts, 5, kwargs))
    assert all(np.array_equal(a['act'], b['act']) for a, b in zip(episodes, again, strict=True))


def test_requests_in_words_alone_name_no_place_at_times(kwargs):
    drawn = [toy_nav.words_only(np.random.default_rng(i), kwargs, 8) for i in range(300)]
    nothing = [notes for notes in drawn if toy_nav.plain(notes['asked'], False) == '']
    assert 0 < len(nothing) < 25
    assert all(len(set(notes['text'])) == 8 and not notes['loose'] for notes in nothing)
    assert len({notes['group'] for notes in nothing}) > 1  # not all of them fall into another split
    forbidding = [notes for notes in nothing if notes['names']]
    assert 0 < len(forbidding) < len(nothing)


def test_a_place_that_is_not_meant_is_named_and_not_asked_for(kwargs, monkeypatch):
    monkeypatch.setattr(toy_nav, 'INSTEAD', 1.0)
    room = toy_nav.places(kwargs)
    n, misread = 0, []
    for i in range(60):
        notes = toy_nav.words_only(np.random.default_rng(i), kwargs, 4)
        asked = Itinerary.from_json(notes['asked'])
        if len(notes['names']) <= len(asked.names()) or not asked.places:
            continue
        n += len(notes['text'])
        for text in notes['text']:
            _, named = marked(text, room)
            if not set(asked.places) < set(named.values()) or asked.avoid or parse(text, room) != asked:
                misread.append(text)
    assert n > 80 and len(misread) <= 0.02 * n, misread


# ------------------------------------------------------------------------------
# sentences of people


def test_a_free_sentence_is_in_one_half_and_is_scored_without_an_episode(kwargs):
    halves = {split: toy_nav.free_sentences(split, kwargs) for split in ('val', 'test', 'last')}
    texts = {split: {s['text'] for s in half} for split, half in halves.items()}
    assert [len(t) for t in texts.values()] == [359, 1416, 309] and len(set.union(*texts.values())) == 2084
    path = np.full((400, 2), 50.0)
    for sentence in halves['val']:
        alone = toy_nav.score(sentence['request'], path, None, kwargs)
        beside = toy_nav.score(sentence['request'], path, path, kwargs)
        assert set(beside) - set(alone) == {'landmark_f1', 'colour_f1'} and alone.items() <= beside.items()


def test_free_sentences_of_a_scene_of_your_own_name_what_is_there(own_scene):
    kwargs = toy_nav.env_kwargs(scene=str(own_scene))
    found = toy_nav.free_sentences('val', kwargs)
    assert 0 < len(found) < 359
    for sentence in found:
        assert 'fridge' not in sentence['request']
        toy_nav.score(sentence['request'], np.full((300, 2), 50.0), None, kwargs)
