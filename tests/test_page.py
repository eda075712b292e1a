"""
The page of sample_policy.py --serve: in a real browser (headless Chromium by Playwright), and by plain clients of its
websocket.
"""

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib import metadata
from urllib.parse import urlsplit

import gymnasium as gym
import numpy as np
import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from data import contract
from data import gym as gym_data
from model import GPT, GPTConfig
from nanopilot import Policy
from nanopilot.checkpoint import find_checkpoint
from nanopilot.page import space
from nanopilot.page.drives import Drives
from nanopilot.page.sessions import Session, news

try:
    from playwright import sync_api as api
except ImportError:
    api = None

websockets = pytest.importorskip('websockets', reason="the page's server is not installed: pip install '.[page]'")
pytest.importorskip('starlette', reason="the page's server is not installed: pip install '.[page]'")
pytest.importorskip('uvicorn', reason="the page's server is not installed: pip install '.[page]'")
from nanopilot.page.server import (  # noqa: E402, after what it needs was looked for
    LOOPBACK,
    UVICORN,
    Sessions,
    make_app,
    serve,
    uvicorn,
)

SECOND = 1000  # of Playwright's times


def started(*args):
    """sample_policy.py --serve on a free port -> its process, its address"""
    command = [sys.executable, ROOT / 'sample_policy.py', '--serve', '--port=0', *args]
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    line = process.stdout.readline()
    assert 'http://127.0.0.1:' in line, process.communicate()[1]
    return process, line.split()[0]


def ended(process):
    """as by Ctrl-C -> what it printed on stderr, its exit code"""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    return errors, process.returncode


@pytest.fixture(scope='module')
def server():
    """in the end Ctrl-C ends it, while a robot is on its way in a browser"""
    process, url = started()
    yield url

    async def talk(client):
        await client.do(do='ask', prompt='go to the bed')
        await client.until(lambda m: m['robots'][0]['steps'] > 3)
        return await asyncio.to_thread(ended, process)

    assert session(url, talk) == ('', 0)


@contextlib.contextmanager
def served(policy, limit=2):
    """the page of a policy, by a thread -> its address"""
    with socket.create_server(('127.0.0.1', 0)) as listening:
        web = uvicorn.Server(uvicorn.Config(make_app(policy, 'untrained', limit, LOOPBACK), **UVICORN))
        thread = threading.Thread(target=web.run, kwargs={'sockets': [listening]})
        thread.start()
        yield f'http://127.0.0.1:{listening.getsockname()[1]}'
        web.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


# ------------------------------------------------------------------------------
# plain clients


class Client:
    """a browser's end of the websocket, without a browser"""

    def __init__(self, url):
        self.url = url
        self.states = []

    async def __aenter__(self):
        self.ws = await websockets.connect(f'ws{self.url[4:]}/ws', origin=self.url)
        return self

    async def __aexit__(self, *error):
        await self.ws.close()

    async def receive(self):
        message = json.loads(await asyncio.wait_for(self.ws.recv(), 20))
        if 'robots' in message:
            self.states.append(message)
        return message

    async def until(self, reached):
        while True:
            message = await self.receive()
            if reached(message):
                return message

    async def do(self, **command):
        await self.ws.send(json.dumps(command))

    async def over(self):
        """the end of an episode that has begun"""
        message = await self.until(lambda m: 'robots' in m and m['robots'][0]['over'] and m['robots'][0]['steps'])
        return message['robots'][0]

    async def refused(self, words, **command):
        """.. in a line with these words"""
        await self.do(**command)
        message = await self.until(lambda m: words in m.get('error', ''))
        assert '\n' not in message['error']


def session(url, talk):
    """talk(client), and what it returns"""

    async def run():
        async with Client(url) as client:
            await client.until(lambda m: 'robots' in m)
            return await talk(client)

    return asyncio.run(run())


def has_begun(episode):
    return lambda m: m['robots'][0]['episode'] == episode


def test_it_carries_out_what_is_asked(server):
    async def talk(client):
        await client.do(do='speed', speed=8)
        await client.do(do='ask', prompt='go north of the fridge')
        return await client.over()

    robot = session(server, talk)
    assert robot['progress']['ok'] and robot['progress']['steps'][0] > 10


def test_a_new_prompt_goes_on_from_where_the_robot_is(server):
    async def talk(client):
        await client.do(do='ask', prompt='go to the bed')
        before = await client.until(lambda m: m['robots'][0]['steps'] >= 30)
        await client.do(do='ask', prompt='go to the cactus')
        return before, await client.until(has_begun(before['robots'][0]['episode'] + 1))

    before, after = session(server, talk)
    start, here = after['robots'][0]['path'][0], before['robots'][0]['path'][-1]
    assert np.hypot(*np.subtract(start, here)) < 6  # it drove on for a tick or two
    assert np.hypot(*np.subtract(start, [20, 50])) > 15
    assert after['robots'][0]['asked']['goals'] == ['the cactus']


def test_it_takes_20_steps_a_second_at_speed_1(server):
    async def talk(client):
        await client.do(do='ask', prompt='go to the bed')
        first = await client.until(lambda m: m['robots'][0]['steps'] >= 5)
        began = time.monotonic()
        last = await client.until(lambda m: m['robots'][0]['steps'] >= 65)
        return (last['robots'][0]['steps'] - first['robots'][0]['steps']) / (time.monotonic() - began)

    assert session(server, talk) >= 20


def test_a_link_begins_the_same_drive_again(server):
    asked = {'do': 'ask', 'prompt': 'fan, then bed', 'seed': 0, 'start': [100.0, 60.0, 0.6, 0.8]}

    async def talk(client):
        await client.do(do='speed', speed=8)
        await client.do(**asked)
        await client.until(lambda m: m['robots'][0]['steps'] > 0)
        await client.over()
        episode = client.states[-1]['robots'][0]['episode']
        return [xy for m in client.states for xy in m['robots'][0]['path'] if m['robots'][0]['episode'] == episode]

    first, second = session(server, talk), session(server, talk)
    assert first[0] == [100, 60] and len(first) > 20
    assert first == second


def test_one_without_a_prompt_drives_beside_it(server):
    async def talk(client):
        await client.do(do='speed', speed=8)
        await client.do(do='beside', on=True)
        await client.do(do='ask', prompt='go north of the fridge')
        robot = await client.over()
        return robot, client.states[-1]['robots'][1]

    robot, beside = session(server, talk)
    assert robot['progress']['ok']
    assert beside['start'] == robot['start'] and beside['progress']['ok'] is None and beside['steps'] > 10


def test_words_never_seen_are_said(server):
    async def talk(client):
        await client.do(do='ask', prompt='go to the frigde qwxzk')
        return await client.until(has_begun(2))

    asked = session(server, talk)['robots'][0]['asked']
    assert asked['read_as']['frigde'] == 'fridge' and 'qwxzk' in asked['read_as']
    assert asked['goals'] == ['the fridge']  # it is judged as it is read


def test_what_the_room_lacks_is_said(server):
    async def talk(client):
        await client.do(do='ask', prompt='go to the piano and to the fridge')
        return await client.until(has_begun(2))

    asked = session(server, talk)['robots'][0]['asked']
    assert 'the room has no piano' in asked['notes']


def test_a_point_in_a_wall_is_said(server):
    async def talk(client):
        await client.do(do='ask', bd=[4, 4])
        wall = await client.until(has_begun(2))
        await client.do(do='ask', bd=[100, 60])
        return wall, await client.until(has_begun(3))

    wall, floor = session(server, talk)
    assert 'in a wall' in wall['robots'][0]['asked']['notes'][0] and floor['robots'][0]['asked']['notes'] == []


def test_mistakes_are_said_in_one_line_and_the_drive_goes_on(server):
    async def talk(client):
        await client.do(do='ask', prompt='go to the bed')
        await client.refused('in a wall', do='put', at=[0.0, 0.0])
        await client.refused('list of numbers', do='put', at='here')
        await client.refused('list of two numbers', do='put', at=None)
        await client.refused('list of two numbers', do='push', at=None)
        await client.refused('list of two numbers', do='push', at=[1.0, 2.0, 3.0])
        await client.refused('a start is', do='ask', prompt='go to the bed', start=[1.0, 2.0, 3.0])
        await client.refused('list of numbers', do='put', at=[float('nan'), 1.0])
        await client.refused('not within', do='ask', prompt='', bd=[1.0, 9e8])
        await client.refused('nothing is asked', do='ask', prompt='   ')
        await client.refused('knows no word', do='ask', prompt='???')
        await client.refused('asks for nothing', do='ask', prompt='hello')
        await client.refused('Shorten it', do='ask', prompt='go ' * 150)
        await client.refused('is a string', do='ask', prompt=7)
        await client.refused('whole number', do='ask', prompt='go to the bed', seed=-1)
        await client.refused('other arguments', do='ask', promt='go')
        await client.refused('no such command', do='__init__')
        await client.ws.send('{')
        await client.until(lambda m: 'not JSON' in m.get('error', ''))
        await client.refused('other arguments', do='ask', promt='go')
        await client.ws.send('[' * 4000)
        await client.until(lambda m: 'not JSON' in m.get('error', ''))
        steps = client.states[-1]['robots'][0]['steps']
        await client.until(lambda m: m.get('robots') and m['robots'][0]['steps'] > steps)

    session(server, talk)


def test_a_long_message_ends_the_session(server):
    async def talk(client):
        await client.ws.send('x' * 10_000)
        with pytest.raises(websockets.ConnectionClosedError) as e:
            await client.until(lambda m: False)
        return e.value.rcvd.code

    assert session(server, talk) == 1009


@pytest.mark.parametrize('origin', ['http://evil.example', 'null', None])
def test_another_sites_page_is_refused(server, origin):
    async def connect():
        await websockets.connect(f'ws{server[4:]}/ws', origin=origin)

    with pytest.raises(websockets.InvalidStatus) as e:
        asyncio.run(connect())
    assert e.value.response.status_code == 403


def get(url, **headers):
    """-> status, headers, body"""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read()


def test_a_name_that_another_site_points_here_is_refused(server):
    assert get(server)[0] == 200
    assert get(server, Host='evil.example')[0] == 400
    assert get(server, Host='evil.example:127.0.0.1')[0] == 400
    assert get(server, Host=f'localhost:{urlsplit(server).port}')[0] == 200


@pytest.mark.parametrize(
    'path', ['/server.py', '/../server.py', '/%2e%2e/server.py', '/docs', '/page.html', '//etc/passwd']
)
def test_no_other_file_is_served(server, path):
    status, _, body = get(server + path)
    assert status == 404 and b'import' not in body


def test_downloads(server):
    async def talk(client):
        await client.do(do='speed', speed=8)
        await client.do(do='ask', prompt='go to the fan')
        assert (await asyncio.to_thread(get, f'{server}/drive.json?session=other'))[0] == 404
        await client.over()
        session = f'?session={client.id}'
        return [await asyncio.to_thread(get, f'{server}/drive.{kind}{session}') for kind in ('json', 'gif')]

    async def run():
        async with Client(server) as client:
            client.id = (await client.until(lambda m: 'hello' in m))['hello']['session']
            return await talk(client)

    (status, _, body), (gif_status, headers, gif) = asyncio.run(run())
    found = json.loads(body)
    assert status == 200 and found['prompt'] == 'go to the fan'
    assert len(found['path']) == len(found['actions']) + 1 and found['start'][:2] == found['path'][0]
    assert gif_status == 200 and gif.startswith(b'GIF89a') and 'attachment' in headers['Content-Disposition']


def test_a_third_waits_a_fifth_is_refused_and_who_goes_makes_room():
    async def run(url):
        clients = [await Client(url).__aenter__() for _ in range(2)]
        for client in clients:
            await client.until(lambda m: 'robots' in m)
        waiting = [await Client(url).__aenter__() for _ in range(2)]
        assert [(await client.receive())['waiting'] for client in waiting] == [1, 2]
        async with Client(url) as fifth:
            assert (await fifth.receive()) == {'full': 2}
        await waiting[0].__aexit__()
        await clients[0].__aexit__()
        await waiting[1].until(lambda m: 'robots' in m)  # the one before it went away
        for client in clients[1], waiting[1]:
            await client.__aexit__()

    with served(untrained('swingup'), limit=2) as url:
        for _ in range(3):  # every time the same: no seat is lost
            asyncio.run(run(url))


def test_20_browsers_at_once_take_10_steps_a_second_each(server):
    """bounded: 4 seconds of 20 plain clients on the loopback"""

    async def one():
        async with Client(server) as client:
            await client.do(do='ask', prompt='go to the bed, then to the fridge, then stop at the cactus')
            await client.until(lambda m: 'robots' in m and m['robots'][0]['steps'] >= 5)
            began, first = time.monotonic(), client.states[-1]['robots'][0]['steps']
            while time.monotonic() < began + 4:
                await client.receive()
            return (client.states[-1]['robots'][0]['steps'] - first) / (time.monotonic() - began)

    async def run():
        return await asyncio.gather(*[one() for _ in range(20)])

    rates = asyncio.run(run())
    assert min(rates) >= 10, rates


def test_a_port_that_is_taken_is_said_in_one_line(server):
    with pytest.raises(OSError, match='Choose another --port') as e:
        serve(None, '', port=urlsplit(server).port)
    assert '\n' not in str(e.value)


def test_no_other_site_frames_it(server):
    _, headers, _ = get(server)
    assert headers['X-Frame-Options'] == 'DENY' and "script-src 'self'" in headers['Content-Security-Policy']


# ------------------------------------------------------------------------------
# a folder for a container

ALONE = """
import json, runpy, sys

absent = set(json.loads(sys.argv[1]))

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name in absent else self.finder.find_spec(name, *rest)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Finder(finder) for finder in sys.meta_path]
sys.argv = ['sample_policy.py', '--serve', '--port=0', '--out_dir=policy']
sys.path.insert(0, '.')
runpy.run_path('sample_policy.py', run_name='__main__')
"""


def distributions(names):
    """installed packages of these names, and all that they need"""
    found, left = set(), [canonicalize_name(Requirement(name).name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:  # of another system
            continue
        left += [canonicalize_name(r.name) for r in needs if not r.marker or r.marker.evaluate({'extra': ''})]
    return found


def test_an_export_is_all_that_a_container_needs(tmp_path):
    """it runs from its folder alone, where there is no package but those that its requirements bring"""
    policy, folder = find_checkpoint(ROOT / 'data' / 'toy_nav' / 'policy', 'best'), tmp_path / 'space'
    space.export(policy, folder, 'toy_nav')
    card, dockerfile = (folder / 'README.md').read_text(), (folder / 'Dockerfile').read_text()
    port = re.search(r'app_port: (\d+)', card)[1]
    assert 'sdk: docker' in card and f'--port={port}' in dockerfile and '--host=0.0.0.0' in dockerfile
    assert sum(file.stat().st_size for file in folder.rglob('*')) < 11e6

    brought = distributions((folder / 'requirements.txt').read_text().splitlines())
    absent = [
        module
        for module, packages in metadata.packages_distributions().items()
        if not brought & {canonicalize_name(package) for package in packages}
    ]
    assert {'pytest', 'playwright'} <= set(absent) and 'uvicorn' not in absent
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    command = [sys.executable, '-c', ALONE, json.dumps(absent)]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    assert url, process.communicate()[1]
    assert session(url.split()[0], lambda client: client.do(do='ask', prompt='go to the bed')) is None
    assert ended(process) == ('', 0)
    with pytest.raises(ValueError, match='there already'):
        space.export(policy, folder, 'toy_nav')


# ------------------------------------------------------------------------------
# every data set, with a policy that has learned nothing

SIZES = {'n_layer': 1, 'n_head': 2, 'n_embd': 16, 'block_size': 60, 'chunk': 1}
OTHERS = {
    'cartpole': {'head': 'ce'},
    'swingup': {},
    'cartpole_bins': {'head': 'tokens', 'fuse': 'bins', 'past_actions': True},
}


def untrained(name, kwargs=None, **changes):
    """a policy of a data set that has learned nothing"""
    dataset = contract.load(name)
    kwargs = dataset.env_kwargs() if kwargs is None else kwargs
    data = contract.archive_meta(dataset, kwargs)
    sizes = {**SIZES, 'n_obs': data['n_obs'], 'n_act': len(data['act_names']), 'n_bd': data['n_bd'], **changes}
    config = GPTConfig(text_len=0, n_future=0, max_steps=data['max_steps'], **sizes)
    return Policy(GPT(config).eval(), {'dataset': name, 'data': data, 'obs_columns': list(range(data['n_obs']))})


def obeys(session, **command):
    """-> what it then tells of its robots"""
    session.take(json.dumps(command))
    session.obey()
    assert session.error == ''
    session.publish()
    return session.published['robots']


@pytest.mark.parametrize('name', OTHERS)
def test_every_data_set_is_driven_and_pushed(name):
    drives = Drives(untrained(name, **OTHERS[name]), 2)
    session = Session(drives)
    bd = [100.0] * len(drives.policy.data_spec['bd_names'])
    obeys(session, do='ask', bd=bd or None)
    drives.step(session.on_the_way())
    session.publish()
    before = session.published['robots'][0]
    right = before['shapes'][0]['points'][1][0]  # the end of the track
    obeys(session, do='push', at=[right, 0])
    drives.step(session.on_the_way())
    drives.step(session.on_the_way())
    session.publish()
    message, _ = news(session.published, [])
    after = json.loads(json.dumps(message))['robots'][0]  # it is JSON
    assert after['shapes'] != before['shapes'] and after['steps'] == 3
    while session.on_the_way():
        drives.step(session.on_the_way())
    obeys(session, do='another')
    assert session.on_the_way() and session.drive.seed > 0


def dreaming(drives):
    """a session beside whose robot a dream has begun"""
    session = Session(drives)
    obeys(session, do='ask')
    robot, dream = obeys(session, do='beside', on=True)
    assert robot['shapes'] == dream['shapes'] and dream['steps'] == 0
    return session


def test_a_dream_is_the_same_whatever_others_dream():
    drives = Drives(untrained('cartpole_bins', **OTHERS['cartpole_bins']), 2)
    drives.beside.dreamer.temperature = 0
    alone, beside = [], []
    first = dreaming(drives)
    for _ in range(4):
        drives.step([first.beside])
        alone.append(first.beside.obs.tolist())
    second = dreaming(drives)
    for _ in range(4):
        drives.step([second.beside, first.beside])
        beside.append(second.beside.obs.tolist())
    assert alone == beside and len(set(map(tuple, alone))) > 1


def test_the_steps_of_a_dream_that_can_be_are_counted():
    drives = Drives(untrained('cartpole_bins', **OTHERS['cartpole_bins']), 2)
    session = dreaming(drives)
    for _ in range(5):
        drives.step(session.on_the_way())
    session.publish()
    robot, dream = session.published['robots']
    assert robot['shapes'] != dream['shapes']
    counted = dict(dream['progress']['readings'])['steps that can be']
    assert re.fullmatch(rf'\d of {dream["steps"]}', counted) and counted != '5 of 5'  # it has learned nothing
    while not session.beside.over:
        drives.step([session.beside])
    assert len(session.beside.act) < drives.policy.config.max_steps
    obeys(session, do='beside', on=False)
    assert len(drives.beside.free) == 2


RETURN = {'bd_names': ['return'], 'bd_low': [0], 'bd_high': [100], 'discount': 1.0}


def of_a_file(env, bd='return', of_bd=RETURN):
    """arguments of data/gym for an environment, as of_files() makes them"""
    made = gym_data.raw_env(env)
    n_obs, n_act = made.observation_space.shape[0], int(made.action_space.n)
    spec = {
        'obs_names': [f'obs_{k}' for k in range(n_obs)],
        'act_names': [str(k) for k in range(n_act)],
        'act_low': [0],
        'act_high': [n_act - 1],
        'continuous': False,
        'max_steps': 200,
        **of_bd,
    }
    return gym_data.env_kwargs(gym_data.Named(env), spec, bd=bd)


def pixels(shape):
    picture = Image.open(io.BytesIO(base64.b64decode(shape['data'].split(',')[1])))
    return np.asarray(picture, int)


def test_an_environment_of_a_file_shows_its_own_picture():
    policy = untrained('gym', of_a_file('CartPole-v1'), head='ce')
    drives = Drives(policy, 2)
    session = Session(drives)
    (before,) = obeys(session, do='ask', bd=[50.0])
    for _ in range(8):
        drives.step(session.on_the_way())
    session.publish()
    (after,) = session.published['robots']
    (first,), (last,) = before['shapes'], after['shapes']
    assert first['kind'] == 'image' and drives.page.view == (0, 0, 600, 400)
    assert pixels(first).shape == (320, 480, 3)
    moved = np.abs(pixels(first) - pixels(last)).max(2) > 100
    assert 100 < moved.sum() < 0.2 * moved.size
    assert after['progress']['readings'] == [['return', '8, asked for 50, 42 to go']]


class Undrawn(gym.Env):
    """it draws nothing"""

    observation_space = gym.spaces.Box(-1, 1, (3,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.float32([0, 0, 0]), {}

    def step(self, action):
        return np.float32([0.5, -0.5, 7]), 1.0, False, False, {}


class Broken(Undrawn):
    """it cannot draw here"""

    metadata = {'render_modes': ['rgb_array'], 'render_fps': 25}
    render_mode = 'rgb_array'

    def render(self):
        raise OSError('no display')


@pytest.mark.parametrize('env', [Undrawn, Broken])
def test_an_environment_that_draws_nothing_shows_its_observations(env, monkeypatch, capsys):
    monkeypatch.setattr(gym_data, 'raw_env', lambda *_: env())
    drives = Drives(untrained('gym', of_a_file('mine:make'), head='ce'), 2)
    session = Session(drives)
    obeys(session, do='ask', bd=[50.0])
    drives.step(session.on_the_way())
    session.publish()
    shapes = session.published['robots'][0]['shapes']
    assert [s['text'] for s in shapes if s['kind'] == 'text'] == ['0.5', '-0.5', '7']
    bars = [np.ptp(s['points'], 0)[0] for s in shapes if s['kind'] == 'polygon']
    assert np.allclose(bars, [0.5, 0.5, 3])  # untrained: a deviation is 1; and at most 3
    assert ('cannot be drawn (no display)' in capsys.readouterr().err) == (env is Broken)


def test_without_an_environment_there_is_no_page():
    kwargs = {**of_a_file('CartPole-v1'), 'env': ''}
    with pytest.raises(ValueError, match='Name one: --env'):
        Drives(untrained('gym', kwargs, head='ce'), 2)


def test_another_request_on_the_way_reaches_a_policy_whose_environment_goes_on():
    where = {'bd_names': ['obs_0'], 'bd_low': [-2], 'bd_high': [2]}
    drives = Drives(untrained('gym', of_a_file('CartPole-v1', 'obs:0', where), head='ce'), 2)
    session = Session(drives)
    obeys(session, do='ask', bd=[1.0])
    for _ in range(3):
        drives.step(session.on_the_way())
    (robot,) = obeys(session, do='ask', bd=[-1.0])
    assert robot['asked']['bd'] == [-1] and robot['steps'] == 3 and robot['episode'] > 2
    assert drives.policy.bd[session.drive.row] == -1 and drives.policy.cache.t[session.drive.row] == 0
    drives.step(session.on_the_way())
    obeys(session, do='ask', bd=[-1.0])  # the same again changes nothing
    assert drives.policy.cache.t[session.drive.row] == 1


def test_a_level_suggests_its_mission_and_no_other_is_judged():
    pytest.importorskip('minigrid', reason="minigrid is not installed: pip install '.[babyai]'")
    from data import babyai

    kwargs = babyai.env_kwargs()
    page, env = babyai.Page(kwargs), babyai.make_vec(1, **kwargs)
    env.reset(seed=[5])
    (mission,) = page.suggestions(env)
    (shape,) = page.shapes(env, None)
    assert mission.startswith('go to') and pixels(shape).std() > 10
    path = np.zeros((1, 0))
    assert page.progress(env, mission, None, path)['ok'] is False
    env.success[0] = True
    assert page.progress(env, mission, None, path)['ok'] is True
    assert page.progress(env, f'{mission.capitalize()}.', None, path)['ok'] is True
    assert page.progress(env, 'go to the moon', None, path)['ok'] is None
    env.reset(seed=[6])
    assert page.progress(env, page.suggestions(env)[0], None, path)['ok'] is False


def test_what_fails_stops_the_robots_and_not_the_server(monkeypatch, capsys):
    def breaks(drives):
        raise RuntimeError('/a/path/of/the/server')

    sessions = Sessions(untrained('swingup', **OTHERS['swingup']), 1)
    session = asyncio.run(sessions.enter())
    session.take('{"do": "ask"}')
    with monkeypatch.context() as broken:
        broken.setattr(sessions.drives, 'step', breaks)
        sessions.tick([session])
    assert '/a/path' in capsys.readouterr().err
    assert 'failed' in session.published['error'] and '/a/path' not in json.dumps(session.published['error'])
    session.take('{"do": "restart"}')
    sessions.tick([session])
    assert session.published['error'] == '' and session.published['robots'][0]['steps'] == 1


def test_what_is_left_of_a_return_is_told_to_the_policy(monkeypatch):
    drives = Drives(untrained('cartpole', **OTHERS['cartpole']), 2)
    session = Session(drives)
    told = []
    act = drives.policy.act
    monkeypatch.setattr(drives.policy, 'act', lambda obs, bd, **rest: told.append(bd) or act(obs, bd, **rest))
    for bd in 50, 50, 20:
        session.ask(bd=[bd])
        drives.step(session.on_the_way())
    assert [bd[session.drive.row, 0] for bd in told] == [50, 49, 18]


# ------------------------------------------------------------------------------
# a browser


@pytest.fixture(scope='module')
def chromium():
    if api is None:
        pytest.skip("no browser is driven: pip install '.[test]'")
    file = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not file:
        pytest.skip('no Chromium is installed: apt-get install chromium')
    args = ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu']
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=file, headless=True, args=args)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, server):
    """opened(path, ..) -> a page; in the end: it has said nothing on the console, and asked nobody but its server"""
    contexts, heard, asked, ours = [], [], [], set()

    def call(path='/', at=server, **options):
        ours.add(urlsplit(at).netloc)
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20 * SECOND)
        page.on('console', lambda message: heard.append(message.text))
        page.on('pageerror', lambda error: heard.append(str(error)))
        page.on('request', lambda request: asked.append(request.url))
        page.on('websocket', lambda socket: asked.append(socket.url))
        context.route(lambda url: urlsplit(url).netloc not in ours, lambda route: route.abort())
        page.goto(at + path)
        page.get_by_text('connected', exact=True).wait_for()
        return page

    call.asked = asked
    yield call
    for context in contexts:
        context.close()
    assert heard == []
    assert {urlsplit(url).netloc for url in asked if not url.startswith('data:')} == ours


def shows(page, selector, text):
    """wait for a text, or a pattern"""
    api.expect(page.locator(selector)).to_contain_text(text, timeout=20 * SECOND)


def pressed(page, speed):
    """the slider's speed, by keyboard"""
    page.locator('#speed').focus()
    for _ in range(speed):
        page.keyboard.press('ArrowRight')


def number(page, selector):
    """the first number in a text"""
    return int(re.search(r'\d+', page.locator(selector).inner_text())[0])


def test_a_person_drives(opened, tmp_path):
    page = opened()
    page.locator('#prompt').fill('go north of the fridge')
    page.locator('#prompt').press('Enter')
    pressed(page, 2)
    assert page.locator('#speed-value').inner_text() == '4x'
    page.get_by_text('carried out', exact=False).first.wait_for()
    assert page.locator('#verdict').inner_text() == '✓ carried out'
    assert 'north of the fridge: step' in page.locator('#goals').inner_text()

    page.locator('#prompt').fill('go to the bed')
    page.get_by_role('button', name='Go', exact=True).click()
    shows(page, '#caption', re.compile(r'step [2-9]\d'))
    page.locator('#prompt').fill('go to the cactus')  # on the way
    page.locator('#prompt').press('Enter')
    shows(page, '#asked', 'cactus')

    box = page.locator('#picture').bounding_box()
    page.mouse.click(box['x'] + 0.75 * box['width'], box['y'] + 0.8 * box['height'])
    shows(page, '#asked', 'end at 150, 40')
    assert page.locator('#point').inner_text().endswith('150, 40')
    shows(page, '#caption', re.compile(r'step \d\d'))
    with page.expect_download() as download:
        page.get_by_role('link', name='JSON').click()
    found = json.loads(download.value.path().read_text())
    assert found['prompt'] == 'go to the cactus' and np.allclose(found['bd'], [150, 40], atol=1)

    page.set_viewport_size({'width': 360, 'height': 740})
    page.wait_for_timeout(200)
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    assert page.locator('#picture').bounding_box()['width'] <= 360


def test_pause_step_restart(opened):
    page = opened('/?prompt=go to the bed')
    shows(page, '#caption', re.compile(r'step \d'))
    page.get_by_role('button', name='Pause').click()
    page.get_by_text('paused').wait_for()
    page.wait_for_timeout(300)  # for a step that was on its way to the page
    before = number(page, '#caption')
    page.get_by_role('button', name='Step').click()
    shows(page, '#caption', f'step {before + 1},')
    page.get_by_role('button', name='Restart').click()
    shows(page, '#caption', 'step 0,')


def test_a_drag_puts_the_robot_there(opened):
    page = opened('/?prompt=go to the bed')
    shows(page, '#caption', re.compile(r'step \d'))
    page.get_by_role('button', name='Pause').click()
    box = page.locator('#picture').bounding_box()
    page.mouse.move(box['x'] + 0.2 * box['width'], box['y'] + 0.7 * box['height'])
    page.mouse.down()
    page.mouse.move(box['x'] + 0.5 * box['width'], box['y'] + 0.7 * box['height'], steps=5)
    page.mouse.up()
    api.expect(page.locator('#link')).to_have_attribute('href', re.compile('start=100'))


def test_keyboard_alone_is_enough(opened):
    page = opened()
    page.keyboard.type('go to the fridge')  # the cursor is in the box already
    page.keyboard.press('Enter')
    shows(page, '#caption', re.compile(r'step \d'))
    for _ in range(12):
        page.keyboard.press('Tab')
        if page.evaluate('document.activeElement.id') == 'picture':
            break
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowDown')
    page.keyboard.press('Enter')
    shows(page, '#asked', 'end at 105, 95')
    page.keyboard.press('Space')
    page.get_by_text('paused').wait_for()


def test_markup_is_text(opened):
    page = opened()
    markup = 'go to the bed <img src=x onerror=alert(1)><b>now</b>'
    page.on('dialog', lambda dialog: pytest.fail('a prompt was executed'))
    page.locator('#beside').check()
    page.locator('#beside-prompt').fill(markup)
    page.locator('#prompt').fill(markup)
    page.locator('#prompt').press('Enter')
    shows(page, '#asked', '<b>now</b>')
    page.goto(page.url + '?prompt=' + '%3Cimg src=x%3E go to the bed')
    shows(page, '#asked', '<img src=x>')
    assert page.locator('img, main b').count() == 0


def test_beside_it_drives_another(opened):
    page = opened('/?prompt=go to the fan')
    page.locator('#beside').check()
    page.locator('#beside-prompt').fill('go to the bed')
    page.locator('#beside-prompt').press('Tab')
    shows(page, '#beside-caption', 'go to the bed')
    assert page.locator('#beside-picture').bounding_box()['width'] > 100
    page.locator('#beside').uncheck()
    page.locator('#beside-figure').wait_for(state='hidden')


def test_who_wants_no_motion_sees_a_picture_a_second(opened):
    counting = """() => new Promise(done => {
        let n = 0
        const draw = CanvasRenderingContext2D.prototype.drawImage
        CanvasRenderingContext2D.prototype.drawImage = function (...args) { n += 1; draw.apply(this, args) }
        setTimeout(() => done(n), 2000)
    })"""
    counts = []
    for motion in 'no-preference', 'reduce':
        page = opened('/?prompt=go to the bed, then to the cactus', reduced_motion=motion)
        counts.append(page.evaluate(counting))
    assert counts[0] > 20 and 1 <= counts[1] <= 3, counts


COLOURS = """id => {
    const canvas = document.getElementById(id)
    const copy = new OffscreenCanvas(canvas.width, canvas.height)  // one that is read again and again is warned of
    const context = copy.getContext('2d')
    context.drawImage(canvas, 0, 0)
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height)
    return new Set(new Uint32Array(data.buffer)).size
}"""


def is_drawn(page, canvas, colours):
    """wait until a canvas has so many colours: its caption may be there before"""
    deadline = time.monotonic() + 20
    while page.evaluate(COLOURS, canvas) < colours:
        assert time.monotonic() < deadline


def test_a_dream_is_seen_beside_the_real_one(opened):
    with served(untrained('cartpole_bins', **OTHERS['cartpole_bins'])) as url:
        page = opened(at=url)
        page.get_by_role('button', name='Go', exact=True).click()
        page.get_by_label('Beside it: a dream').check()
        shows(page, '#beside-caption', re.compile(r'a dream: .*, steps that can be: \d+ of \d+'))
        is_drawn(page, 'beside-picture', 6)
        assert not page.locator('#beside-prompt').is_visible()


def test_what_an_environment_draws_is_seen(opened):
    with served(untrained('gym', of_a_file('CartPole-v1'), head='ce')) as url:
        page = opened('/?bd=70', at=url)
        shows(page, '#asked', 'return 70')
        shows(page, '#readings', 'asked for 70')
        assert page.locator('#bd-0').input_value() == '70'
        is_drawn(page, 'picture', 50)
        page.locator('#bd-0').focus()
        page.keyboard.press('ArrowRight')
        shows(page, '#asked', 'return 71')


def test_it_asks_for_four_things(opened, server):
    opened()
    paths = [urlsplit(url).path for url in opened.asked if not url.startswith('data:')]
    assert sorted(paths) == ['/', '/page.css', '/page.js', '/ws']
