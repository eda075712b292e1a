"""
The web server of the page: its own files and one websocket, nothing else. `serve` runs until Ctrl-C.

Any page that is open in the same browser can send requests to this machine. So the Host and the Origin of each are
checked (a name that another site points here is refused), and the page may load from nowhere else.
"""

import asyncio
import contextlib
import json
import socket
import tempfile
import time
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from nanopilot.page.drives import Drives
from nanopilot.page.sessions import RATE, Session, news
from nanopilot.rollout import annotated, for_json

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocketClose, WebSocketDisconnect
except ImportError as e:
    raise ImportError(f"--serve needs what is not installed ({e.name}). Run: pip install '.[page]'") from None

FILES = {
    '/': ('page.html', 'text/html'),
    '/page.css': ('page.css', 'text/css'),
    '/page.js': ('page.js', 'text/javascript'),
}
HEADERS = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}
LOOPBACK = ['127.0.0.1', 'localhost', '::1']
MAX_MESSAGE = 4096  # bytes
UVICORN = {
    'ws': 'websockets-sansio',
    'ws_max_size': MAX_MESSAGE,
    'ws_per_message_deflate': False,  # messages are small, and many
    'log_level': 'warning',
    'server_header': False,
    'timeout_graceful_shutdown': 1,
}
MAX_FILES = 4  # that wait to be made


class Sessions:
    """Those that drive, those that wait for one of them to go, and the clock that moves them all."""

    def __init__(self, policy, limit):
        self.drives = Drives(policy, 2 * limit)  # each may have another beside it
        self.limit = limit
        self.by_id = {}
        self.seats = limit  # that are free
        self.waiting = deque()  # futures, one for each that waits for a seat
        self.worker = ThreadPoolExecutor(1, 'drive')  # all that computes, off the event loop
        self.scribe = ThreadPoolExecutor(1, 'files')
        self.n_files = 0

    async def enter(self):
        """-> a new session, for one that has a seat"""
        session = await self.compute(Session, self.drives)
        await self.compute(session.publish)
        session.news = asyncio.Event()
        self.by_id[session.id] = session
        return session

    async def leave(self, session):
        del self.by_id[session.id]
        await self.compute(session.close)

    def free_seat(self):
        """the next in line has it"""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.seats += 1

    def compute(self, f, *args):
        return asyncio.get_running_loop().run_in_executor(self.worker, f, *args)

    async def run(self):
        """a tick every 1 / RATE s. One that takes longer delays the next: everyone gets slower, none is left behind"""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            sessions = [s for s in self.by_id.values() if s.commands or s.on_the_way() and not s.paused]
            if sessions:
                await self.compute(self.tick, sessions)
                for session in sessions:
                    session.news.set()
            due = max(due + 1 / RATE, loop.time())
            await asyncio.sleep(due - loop.time())

    def tick(self, sessions):
        """obey, step, publish; what fails is told here, not on the page, and the server goes on"""
        sessions = [s for s in sessions if s.id in self.by_id]  # those that left meanwhile are closed
        try:
            started = time.monotonic()
            for session in sessions:
                session.obey()
            self.step(sessions, until=started + 1 / RATE)
            for session in sessions:
                session.publish()
        except Exception:
            traceback.print_exc()
            for session in sessions:
                session.fail()

    def step(self, sessions, until):
        """the steps that are due; none begins after that time: the fast ones must not stop the slow"""
        left = {session: session.due() for session in sessions}
        while any(left.values()) and time.monotonic() < until:
            drives = []
            for session in [s for s in sessions if left[s]]:
                left[session] -= 1
                drives += session.on_the_way()
            if drives:
                self.drives.step(drives)


class OwnPagesOnly:
    """refuses requests by a name that is not of hosts (None: any is), and websockets of another site's page"""

    def __init__(self, app, hosts):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope, receive, send):
        if scope['type'] == 'lifespan' or self.is_own(scope):
            await self.app(scope, receive, send)
        elif scope['type'] == 'http':
            await PlainTextResponse('this server has another name', 400, HEADERS)(scope, receive, send)
        else:
            await WebSocketClose(4403, 'another site')(scope, receive, send)

    def is_own(self, scope):
        headers = Headers(scope=scope)
        host = headers.get('host', '')
        if self.hosts and urlsplit(f'//{host}').hostname not in self.hosts:
            return False
        return scope['type'] == 'http' or headers.get('origin') in (f'http://{host}', f'https://{host}')


class Site:
    """what the server answers"""

    def __init__(self, sessions, title, hosts):
        self.sessions = sessions
        # one that anybody may call may be in a frame, as Spaces are; one of this machine may not
        self.headers = HEADERS if hosts is None else {**HEADERS, 'X-Frame-Options': 'DENY'}
        page = sessions.drives.page
        self.hello = {
            'title': title,
            'view': page.view,
            'background': page.background(),
            'examples': page.examples,
            'takes': {
                'prompt': bool(sessions.drives.policy.config.text_len),
                'point': page.bd_is_point,
                'put': page.can_put,
                'push': page.can_push,
                'gif': hasattr(sessions.drives.dataset, 'animate'),
                'beside': getattr(sessions.drives.beside, 'kind', None),
            },
            'speed': page.speed,
            'bd': bd_of(sessions.drives.policy, page),
        }

    def routes(self):
        files = [Route(path, self.file_of(name, kind)) for path, (name, kind) in FILES.items()]
        downloads = [Route('/drive.json', self.as_json), Route('/drive.gif', self.as_gif)]
        return [*files, *downloads, WebSocketRoute('/ws', self.websocket)]

    def file_of(self, name, kind):
        content = (Path(__file__).parent / name).read_bytes()

        async def answer(request):
            return Response(content, media_type=kind, headers=self.headers)

        return answer

    async def websocket(self, ws):
        await ws.accept()
        with contextlib.suppress(WebSocketDisconnect):
            if await self.seated(ws):
                try:
                    await self.talk(ws)
                finally:
                    self.sessions.free_seat()

    async def seated(self, ws):
        """wait for a seat -> is there one?"""
        sessions = self.sessions
        if sessions.seats:
            sessions.seats -= 1
            return True
        if len(sessions.waiting) >= sessions.limit:
            await ws.send_json({'full': sessions.limit})
            await ws.close(4429, 'full')
            return False
        turn = asyncio.get_running_loop().create_future()
        sessions.waiting.append(turn)
        await ws.send_json({'waiting': len(sessions.waiting)})
        left = asyncio.ensure_future(ws.receive())  # a browser says nothing here, but that it goes
        await asyncio.wait([turn, left], return_when=asyncio.FIRST_COMPLETED)
        if not left.done():
            left.cancel()
            return True
        if turn.done():
            sessions.free_seat()
        else:
            sessions.waiting.remove(turn)
        return False

    async def talk(self, ws):
        session = await self.sessions.enter()
        sender = asyncio.ensure_future(self.send(ws, session))
        try:
            while True:
                text = await ws.receive_text()
                try:
                    session.take(text)
                except ValueError as e:
                    await ws.send_json({'error': str(e)})
        except KeyError:  # it was no text
            await ws.close(1003)
        finally:
            sender.cancel()
            await self.sessions.leave(session)

    async def send(self, ws, session):
        """the newest state, as often as the browser takes it: a slow one skips some"""
        told = []
        with contextlib.suppress(WebSocketDisconnect):
            await ws.send_json({'hello': {**self.hello, 'session': session.id}})
            while True:
                message, told = news(session.published, told)
                await ws.send_text(json.dumps(message, separators=(',', ':')))
                await session.news.wait()
                session.news.clear()

    # ------------------------------------------------------------------------------
    # downloads

    async def as_json(self, request):
        return await self.made(request, self.episode, 'application/json', 'drive.json')

    async def as_gif(self, request):
        if not self.hello['takes']['gif']:
            return PlainTextResponse('there are no animations of this data set', 404, HEADERS)
        return await self.made(request, self.gif, 'image/gif', 'drive.gif')

    async def made(self, request, make, kind, name):
        """a file of a session's episode so far, made by another thread"""
        session = self.sessions.by_id.get(request.query_params.get('session', ''))
        if session is None or not session.drive.act:
            return PlainTextResponse('there is no episode yet', 404, HEADERS)
        if self.sessions.n_files >= MAX_FILES:
            return PlainTextResponse('too many files at once. Try again in a few seconds', 503, HEADERS)
        self.sessions.n_files += 1
        try:
            content = await asyncio.get_running_loop().run_in_executor(self.sessions.scribe, make, session.drive)
        finally:
            self.sessions.n_files -= 1
        headers = {**HEADERS, 'Content-Disposition': f'attachment; filename="{name}"'}
        return Response(content, media_type=kind, headers=headers)

    def annotated(self, drive):
        act, path = np.array(drive.act), np.array(drive.path)
        T = min(len(act), len(path) - 1)  # a step may be going on
        asked = {'prompt': drive.read, 'understood': drive.understood or None, 'sure': drive.sure, 'bd': drive.bd}
        episode = {**asked, 'act': act[:T], 'path': path[: T + 1]}
        return annotated(self.sessions.drives.policy, [episode])[0]

    def episode(self, drive):
        """the keys of sample_policy.py --json, and how to begin there again"""
        return json.dumps({**for_json(self.annotated(drive)), 'seed': drive.seed, 'start': drive.start})

    def gif(self, drive):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / 'drive.gif'
            self.sessions.drives.dataset.animate(file, self.annotated(drive), self.sessions.drives.kwargs)
            return file.read_bytes()


def bd_of(policy, page):
    """a slider for each number that is asked for, none where it is a point of the picture"""
    spec = policy.data_spec
    if page.bd_is_point or not policy.config.n_bd:
        return []
    sliders = []
    for name, low, high in zip(spec['bd_names'], spec['bd_low'], spec['bd_high']):
        step = 1 if high - low >= 50 else (high - low) / 100
        sliders.append({'name': name, 'low': low, 'high': high, 'step': step})
    return sliders


def make_app(policy, title, limit, hosts):
    """
    The Starlette app. limit: sessions at once, and as many may wait; hosts: names that it may be called by, None: any
    """
    sessions = Sessions(policy, limit)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        clock = asyncio.ensure_future(sessions.run())
        yield
        clock.cancel()
        sessions.worker.shutdown(cancel_futures=True)
        sessions.scribe.shutdown(cancel_futures=True)

    own = Middleware(OwnPagesOnly, hosts=hosts)
    return Starlette(routes=Site(sessions, title, hosts).routes(), middleware=[own], lifespan=lifespan)


def serve(policy, title, host='127.0.0.1', port=8000, limit=32):
    """
    The page at http://host:port until Ctrl-C; port 0: any that is free. An address other than this machine's loopback
    may be called by any name, and by anybody: there is no password
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as listening:
            hosts = LOOPBACK if host in LOOPBACK else None
            app = make_app(policy, title, limit, hosts)
            name = f'[{host}]' if ':' in host else host
            print(f'http://{name}:{listening.getsockname()[1]}    (Ctrl-C ends it)', flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(uvicorn.Config(app, **UVICORN)).run(sockets=[listening])
    except OSError as e:
        raise OSError(f'{host}:{port} cannot be used ({e.strerror}). Choose another --port, or --port=0') from None
