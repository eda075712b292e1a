"""
A language model's server that follows a script, on this machine: it answers as an OpenAI-compatible one, or misbehaves.

    with serve(lambda body, n: 'hello') as server: server.url, server.requests

A test file that imports `keys` and `serving_fixture` has a key, and the fixture `serving`: servers that end with its
tests.
"""

import http.server
import json
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

openai = pytest.importorskip('openai', reason="the openai package is not installed: pip install '.[llm]'")
KEY = 'sk-the-key-that-nobody-may-see'


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', KEY)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setattr(openai._base_client, 'INITIAL_RETRY_DELAY', 0.01)


@pytest.fixture(name='serving')
def serving_fixture(monkeypatch):
    """serving(answer) starts a server that follows a script, for what asks a language model from now on"""
    with ExitStack() as running:

        def call(answer):
            server = running.enter_context(serve(answer))
            monkeypatch.setenv('OPENAI_BASE_URL', server.url)
            return server

        yield call


def completion(text, **changes):
    return {
        'id': 'x',
        'object': 'chat.completion',
        'created': 1,
        'model': 'scripted',
        'usage': {'prompt_tokens': 3, 'completion_tokens': 4, 'total_tokens': 7},
        'choices': [{'index': 0, 'finish_reason': 'stop', 'message': {'role': 'assistant', 'content': text}}],
        **changes,
    }


@contextmanager
def serve(answer):
    """
    answer(body, n), of the n-th request from 0 -> str: what the model says; (status, headers, body): that instead;
    a float: seconds of silence, then nothing
    """
    requests = []
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
            with lock:
                requests.append({**body, 'path': self.path, 'authorization': self.headers['Authorization']})
                n = len(requests) - 1
            reply = answer(body, n)
            if isinstance(reply, float):
                time.sleep(reply)
            elif isinstance(reply, tuple):
                self.send(*reply)
            else:
                self.send(200, {}, json.dumps(completion(reply)))

        def send(self, status, headers, text):
            content = text.encode()
            self.send_response(status)
            for name, value in {'Content-Type': 'application/json', 'Content-Length': len(content), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    server.requests = requests
    server.url = f'http://127.0.0.1:{server.server_port}/v1'
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
