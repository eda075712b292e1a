"""Descriptions by a language model: its server may misbehave, its answers may be wrong, and its key appears nowhere."""

import json
import re
import sys

import numpy as np
import pytest
from conftest import ROOT, flip, hashes, refused, run
from llm_server import KEY, completion, keys, serve, serving_fixture  # noqa: F401, fixtures

import data.toy_nav as toy_nav
from data.archive import save
from data.disk_cache import DiskCache
from data.prepared import SPLITS, Prepared
from data.toy_nav.itinerary import Itinerary, parse

SOON = {'Retry-After': '0.01'}


@pytest.fixture
def start(serving, tmp_path):
    """start(answer, ...): a server that follows a script -> an LLM that sends to it, and the server"""
    from data.llm import LLM

    def call(answer, file='kept.sqlite', timeout=0.3, **options):
        server = serving(answer)
        return LLM('scripted', DiskCache(tmp_path / file), timeout=timeout, **options), server

    return call


def user(text):
    """the messages to a model that say it"""
    return [{'role': 'user', 'content': text}]


def assert_no_key(folder, *printed):
    """the key is in no file and in nothing printed"""
    for text in [*printed, *(f.read_bytes() for f in folder.rglob('*') if f.is_file())]:
        assert KEY.encode() not in (text if isinstance(text, bytes) else text.encode())


# ------------------------------------------------------------------------------
# the cache of answers


def test_what_is_cached_is_there_again(tmp_path):
    cache = DiskCache(tmp_path / 'a' / 'kept.sqlite')
    assert cache.get('x') is None
    cache.put('x', b'\x00\xff')
    cache.put('x', b'new')
    cache.put('y', b'')
    again = DiskCache(tmp_path / 'a' / 'kept.sqlite')  # without closing the first: as a killed run leaves it
    assert again.get('x') == b'new'
    assert cache.get('y') == b''
    cache.close()


@pytest.mark.parametrize('what', ['text', 'cut', 'flipped', 'another database'])
def test_a_file_that_is_no_cache_is_one_line(what, tmp_path):
    file = tmp_path / 'kept.sqlite'
    if what == 'text':
        file.write_text('hello, this is no database. ' * 99)
    elif what == 'another database':
        import sqlite3

        sqlite3.connect(file).execute('create table mine (a)').connection.close()
    else:
        cache = DiskCache(file)
        cache.put('x', b'value' * 2000)
        cache.close()
        content = file.read_bytes()
        if what == 'cut':
            file.write_bytes(content[:5000])
        else:
            flip(file, (content.index(b'value' * 9) + 4) / len(content))
    with pytest.raises(ValueError, match='kept.sqlite is damaged.*Delete it') as e:
        DiskCache(file).get('x')
    assert '\n' not in str(e.value)


# ------------------------------------------------------------------------------
# a server that misbehaves

GOOD = json.dumps(completion('hello'))
BAD = {
    '429': (429, SOON, '{"error": {"message": "slower"}}'),
    '429 in ms': (429, {'Retry-After-Ms': '5'}, ''),
    '500': (500, {}, 'oh no'),
    '503 html': (503, {'Content-Type': 'text/html'}, '<html>'),
    'hangs': 0.5,
    'cut JSON': (200, {}, GOOD[:70]),
    'cut connection': (200, {'Content-Length': len(GOOD) + 9}, GOOD),
    'html': (200, {}, '<html>'),
    'a list': (200, {}, '[1]'),
    'null': (200, {}, 'null'),
    'wrong fields': (200, {}, '{"answer": "hello"}'),
    'no choices': (200, {}, '{"choices": []}'),
    'choices a string': (200, {}, '{"choices": "hello"}'),
    'no message': (200, {}, '{"choices": [{"message": null}]}'),
    'a number': (200, {}, GOOD.replace('"hello"', '5')),
    'empty': '',
    'blank': ' \n ',
    'not UTF-8': (
        200,
        {'Content-Type': 'application/json; charset=utf-8'},
        '\ud800'.encode('utf-16', 'surrogatepass').decode('latin-1'),
    ),
    'repeats the key': f'You said {KEY}?',
    'recites': 'hello',
}


@pytest.mark.parametrize('what', BAD)
def test_a_request_that_goes_wrong_is_sent_again(what, start, tmp_path):
    llm, server = start(lambda body, n: BAD[what] if n < 2 else 'hello')
    assert llm.ask(user('hi')) == 'hello'
    assert len(server.requests) == (1 if what == 'recites' else 3)
    assert {r['authorization'] for r in server.requests} == {f'Bearer {KEY}'}
    assert {r['path'] for r in server.requests} == {'/v1/chat/completions'}
    assert llm.tokens in (7, 21) and llm.cached == 0
    assert_no_key(tmp_path)


@pytest.mark.parametrize('what', ['429', '500', 'hangs', 'cut JSON', 'empty'])
def test_it_is_not_sent_for_ever(what, start, tmp_path):
    """a request without an answer is passed over; after many the run ends in one line, and the answers are cached"""
    from data.llm import MAX_FAILURES, NoAnswer, ask_until_valid

    def answer(body, n):
        return 'hello' if body['messages'][0]['content'] == 'good' else BAD[what]

    def describe(text):
        return ask_until_valid(llm, user(text), lambda text: None)

    llm, server = start(answer, retries=1, timeout=0.1)
    assert llm.ask(user('good')) == 'hello'
    with pytest.raises(NoAnswer):
        llm.ask(user('bad'))
    assert len(server.requests) <= 5
    assert describe('bad') == (None, 0)
    with pytest.raises(OSError, match='does not answer .*kept: run this again') as e:
        llm.map(describe, list(map(str, range(3 * MAX_FAILURES))), 'described')
    assert '\n' not in str(e.value) and llm.ask(user('good')) == 'hello' and llm.cached == 1
    assert_no_key(tmp_path, str(e.value))


@pytest.mark.parametrize('status, words', [(401, 'OPENAI_API_KEY'), (403, 'OPENAI_API_KEY'), (404, "model's name")])
def test_what_no_repetition_mends_ends_the_run_at_once(status, words, start, tmp_path):
    llm, server = start(lambda body, n: (status, {}, json.dumps({'error': {'message': f'wrong: {KEY}\nreally'}})))
    with pytest.raises(ValueError, match=f'scripted.*{words}.*{status}') as e:
        llm.map(lambda text: llm.ask(user(text)), ['a'], 'asked')
    assert '\n' not in str(e.value) and len(server.requests) == 1
    assert_no_key(tmp_path, str(e.value))


def test_nobody_there_ends_the_run_at_once(start, monkeypatch, tmp_path):
    from data.llm import LLM

    monkeypatch.setenv('OPENAI_BASE_URL', 'http://user:secret@127.0.0.1:9/v1')
    with pytest.raises(OSError, match='127.0.0.1:9 does not answer .no connection.*OPENAI_BASE_URL') as e:
        LLM('scripted', DiskCache(tmp_path / 'kept.sqlite'), retries=2).ask(user('hi'))
    assert '\n' not in str(e.value) and 'secret' not in str(e.value)


def test_a_request_that_is_refused_says_why_without_the_key(start, tmp_path):
    """a server that knows no max_tokens, say, or that repeats what it was sent"""
    from data.llm import NoAnswer

    llm, _ = start(lambda body, n: (400, {}, json.dumps({'error': {'message': f'{KEY} may not\nset max_tokens'}})))

    def ask(text):
        with pytest.raises(NoAnswer):
            llm.ask(user(text))

    with pytest.raises(OSError, match='status 400.*may not set max_tokens') as e:
        llm.map(ask, ['a', 'b'], 'asked')
    assert '\n' not in str(e.value)
    assert_no_key(tmp_path, str(e.value))


def test_no_server_and_a_strange_key_are_one_line(monkeypatch, tmp_path):
    from data.llm import LLM

    monkeypatch.delenv('OPENAI_BASE_URL', raising=False)
    for key, words in (
        ('', 'Set OPENAI_BASE_URL'),
        ('sk-\u201cpasted\u201d', 'Copy it again'),
        ('two\nlines', 'Copy it again'),
    ):
        monkeypatch.setenv('OPENAI_API_KEY', key)
        with pytest.raises(ValueError, match=words):
            LLM('scripted', DiskCache(tmp_path / 'kept.sqlite'))


def test_a_local_server_needs_no_key(start, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    llm, server = start(lambda body, n: 'hello')
    assert llm.ask(user('hi')) == 'hello' and KEY not in str(server.requests)


def test_the_same_is_asked_once_and_another_answer_can_be_asked_for(start, monkeypatch):
    llm, server = start(lambda body, n: f'answer {n}')
    assert [llm.ask(user('hi'), number) for number in (0, 1, 0)] == ['answer 0', 'answer 1', 'answer 0']
    assert llm.cached == 1
    again, _ = start(lambda body, n: 'another')
    assert again.ask(user('hi')) == 'answer 0'  # whatever the address
    warm, _ = start(lambda body, n: 'another', temperature=1.0)
    assert warm.ask(user('hi')) == 'another'


def test_many_are_asked_at_once_and_not_more(start):
    import threading
    import time

    n_open = []  # requests under way, after each that begins or ends
    lock = threading.Lock()

    def count(change):
        with lock:
            n_open.append(sum(n_open[-1:]) + change)

    def answer(body, n):
        count(1)
        time.sleep(0.05)
        count(-1)
        return body['messages'][0]['content']

    llm, _ = start(answer, concurrency=4, timeout=9)
    texts = list(map(str, range(24)))
    assert llm.map(lambda text: llm.ask(user(text)), texts, 'asked') == texts
    assert 2 <= max(n_open) <= 4


def test_a_wrong_answer_is_asked_for_again_with_the_complaint(start):
    from data.llm import ask_until_valid

    llm, server = start(lambda body, n: f'{len(body["messages"])}')
    assert ask_until_valid(llm, user('hi'), lambda text: None if text == '3' else 'wrong, because') == ('3', 2)
    messages = server.requests[1]['messages']
    assert [m['role'] for m in messages] == ['user', 'assistant', 'user']
    assert messages[2]['content'] == 'wrong, because'
    assert ask_until_valid(llm, user('hi'), lambda text: 'never right') == (None, 3)


# ------------------------------------------------------------------------------
# the request, and what is wrong with an answer

REQUEST = Itinerary.from_json(
    json.dumps(
        [
            {'kind': 'tile', 'name': 'purple', 'avoid': True},
            {'kind': 'side', 'name': 'fridge', 'side': 'north'},
            {'kind': 'between', 'name': 'chair', 'other': 'stove'},
            {'kind': 'at', 'name': 'bed', 'tile': 'white'},
        ]
    )
)
RIGHT = (
    'Go north of the fridge, then between the chair and the stove, and stop at the bed on the white tile, '
    'but avoid the purple tile.'
)


@pytest.mark.parametrize('style', toy_nav.LLM_STYLES)
def test_it_is_asked_with_the_scene_and_the_places(style, kwargs):
    text = toy_nav.llm_prompt(REQUEST.to_json(), style, kwargs)
    assert '{' not in text and 'the fridge on the pink tile' in text and 'yellow, orange and purple' in text
    passed = text.index('- pass: north of the fridge'), text.index('- pass: between the chair and the stove')
    assert passed[0] < passed[1] < text.index('- stop: the bed on the white tile')
    assert 'avoids: the purple tile' in text
    assert 'avoid' not in toy_nav.llm_prompt(REQUEST.destination().to_json(), style, kwargs)
    assert not re.search(r'\d', text)
    assert len({toy_nav.llm_prompt(REQUEST.to_json(), s, kwargs) for s in toy_nav.LLM_STYLES}) == 3


def test_names_of_a_scene_are_words_and_nothing_else(kwargs):
    scene = {**kwargs['scene'], 'objects': {'{rules}{x.__class__} $HOME': [100, 60], **kwargs['scene']['objects']}}
    text = toy_nav.llm_prompt(REQUEST.to_json(), 'request', {**kwargs, 'scene': scene})
    assert 'the {rules}{x.__class__} $HOME on the gray tile' in text


def test_a_placeholder_that_nobody_knows_is_one_line(kwargs, monkeypatch, tmp_path):
    for name in 'request', 'rules':
        (tmp_path / f'{name}.txt').write_text('{scene} {colour}')
    monkeypatch.setattr(toy_nav.llm, 'PROMPTS', tmp_path)
    with pytest.raises(ValueError, match="request.txt has a placeholder 'colour'.*There are: scene, places"):
        toy_nav.llm_prompt(REQUEST.to_json(), 'request', kwargs)


def test_offline_descriptions_are_nearly_all_right(kwargs, demos):
    rng = np.random.default_rng(0)
    n, wrong = 0, []
    for e in demos[:60]:
        words = toy_nav.describe(e, rng, kwargs)
        for text in words['text'] + toy_nav.paraphrase(words['asked'], rng):
            n += 1
            reason = toy_nav.invalid_because(text, words['asked'], kwargs) or ''
            if re.search('names|avoid', reason):  # its form is another thing: '1. the fridge 2. bed'
                wrong.append(text)
    assert n == 60 * 12 and len(wrong) <= 0.01 * n, wrong


@pytest.mark.parametrize(
    'text, words',
    [
        (RIGHT, None),
        (RIGHT.replace('avoid', 'keep away from'), None),
        ('Please avoid the purple tile. ' + RIGHT.replace(', but avoid the purple tile', ''), None),
        (RIGHT.replace('fridge', 'sofa'), 'in this order.*It names: north of the sofa'),
        (RIGHT.replace('north', 'south'), 'It names: south of the fridge'),
        (RIGHT.replace('north of', 'by'), 'It names: the fridge'),
        (RIGHT.replace(' on the white tile', ''), 'It names: .* the bed'),
        (RIGHT.replace('white', 'red'), 'the bed on the red tile'),
        (RIGHT.replace('chair', 'table'), 'the table'),
        (RIGHT + ' Then go to the sofa.', 'the sofa'),
        (
            'Go between the chair and the stove, then north of the fridge, and stop at the bed on the white tile, '
            'but avoid the purple tile.',
            'in this order',
        ),
        ('Stop at the bed on the white tile.', 'in this order'),
        (RIGHT.replace(', but avoid the purple tile', ''), 'to avoid is: the purple tile; it says to avoid: nothing'),
        (RIGHT.replace('purple', 'pink'), 'says to avoid: the pink tile'),
        ('Avoid the purple tile.', 'names none'),
        ('I cannot help with that.', 'names none'),
        ('x', 'names none'),
        (RIGHT.replace('then', 'then 30 units on, go'), 'says 3'),
        (RIGHT.replace('then', 'then at (98, 25)'), 'says 9'),
        (RIGHT.replace('then', 'take three turns, then go'), 'says three'),
        (RIGHT.replace('stop', 'follow the list and stop'), 'says list'),
        ('As JSON: ' + RIGHT, 'says JSON'),
        (RIGHT.replace('then', 'the next waypoint is'), 'says waypoint'),
        (f'"{RIGHT}"', 'quotation'),
        (f'\u201c{RIGHT}\u201d', 'quotation'),
        (RIGHT.replace(', then', '.\nThen'), 'one paragraph'),
        (f'**{RIGHT}**', 'markup'),
        (f'- {RIGHT}', 'markup'),
        (f'Sure! {RIGHT} ' + 'It is nice there. ' * 15, 'words; it must have 3 to 60'),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(text, words, kwargs):
    reason = toy_nav.invalid_because(text, REQUEST.to_json(), kwargs)
    if words is None:
        assert reason is None
    else:
        assert re.search(words, reason), reason


def test_a_bare_place_is_too_short(kwargs):
    request = Itinerary.from_json('[{"kind": "at", "name": "bed"}]').to_json()
    assert '3 to 60' in toy_nav.invalid_because('bed', request, kwargs)
    assert toy_nav.invalid_because('Arrive at the bed.', request, kwargs) is None


# ------------------------------------------------------------------------------
# prepare.py


@pytest.fixture(scope='session')
def small_archive(demos, archive_meta, tmp_path_factory):
    file = tmp_path_factory.mktemp('small') / 'small.parquet'
    save(file, demos[:N], archive_meta)
    return file


N = 16
LLM_SETTINGS = [
    '--out_dir=p',
    '--archive_dir=a',
    '--val_share=0.2',
    '--test_share=0.2',
    '--describe=llm',
    '--llm=scripted',
]


def good_answer(body):
    """the body of a request for a description -> what a good model answers"""
    request = body['messages'][0]['content']
    *passed, last = re.findall(r'- (?:pass|stop): (.*)', request)
    answer = 'Be so kind and ' + ''.join(f'go to {p}, then ' for p in passed) + f'stop at {last}'
    if avoid := re.search(r'avoids: (.*)\.', request):
        answer += f', but avoid {avoid[1].replace(", ", " and ")}'
    return answer + '.'


@pytest.fixture(scope='module')
def offline(demos, kwargs):
    """what the episodes are described by otherwise, by their seeds"""
    return {
        e['seed']: toy_nav.describe(e, np.random.default_rng([1337, k]), kwargs)['text']
        for k, e in enumerate(demos[:N], 1)
    }


def rows_of(folder, offline):
    """the texts of each episode, and what they would be otherwise"""
    rows = [(e['text'], offline[e['seed']]) for s in SPLITS for e in Prepared(folder, s).episodes()]
    assert len(rows) == N
    return rows


def numbers(pattern, printed):
    """what the groups of a pattern match"""
    return map(int, re.search(pattern, printed).groups())


@pytest.fixture
def prepare(script, small_archive, start, capsys):
    """prepare(answer, ...) with a server that follows a script -> what it printed, and the server"""

    def call(answer, *args):
        _, server = start(answer)
        script('prepare.py', f'--archive={small_archive}', *LLM_SETTINGS, *args)
        return ''.join(capsys.readouterr()), server

    return call


@pytest.mark.parametrize('share, n', [(0, 0), (0.5, 4), (1, 8)])
def test_the_share_mixes(share, n, prepare, offline, tmp_path, places):
    printed, server = prepare(lambda body, n: good_answer(body), f'--llm_share={share}')
    for row, without in rows_of(tmp_path / 'p', offline):
        assert row[: 8 - n] == without[: 8 - n] and [t.startswith('Be so kind') for t in row[8 - n :]] == [True] * n
        request = parse(without[0], places)
        assert all((p.places, p.avoid) == (request.places, request.avoid) for p in (parse(t, places) for t in row))
    n_asked, right = numbers(r'language model: (\d+) descriptions asked for, (\d+) right at first', printed)
    assert n_asked == right == len(server.requests)
    assert (n == 0) == (n_asked == 0)
    assert f'{7 * n_asked} tokens' in printed
    meta = json.loads((tmp_path / 'p' / 'meta.json').read_text())
    assert meta['settings']['describe'] == 'llm' and meta['settings']['llm'] == 'scripted'
    assert_no_key(tmp_path, printed)


def test_wrong_answers_are_complained_about_and_replaced_by_offline_ones(prepare, offline, tmp_path):
    """stories are always of the wrong place, questions at first"""

    def answer(body, n):
        request, *complaints = body['messages']
        question = 'as a question' in request['content']
        if 'third person' in request['content'] or question and not complaints:
            return 'Be so kind and stop at the glorious sofa.'
        return good_answer(body)

    printed, server = prepare(answer)
    n_asked, first, later, replaced, wrong, silent = numbers(
        r'(\d+) descriptions asked for, (\d+) right at first, (\d+) after a complaint; '
        r'(\d+) replaced by offline ones \((\d+) wrong, (\d+) without an answer',
        printed,
    )
    assert n_asked == first + later + wrong
    assert replaced == wrong > 0
    assert silent == 0
    assert 0 < first < later  # two of four are questions
    assert len(server.requests) == first + 2 * later + 3 * wrong
    complaints = [r['messages'][-1]['content'] for r in server.requests if len(r['messages']) > 1]
    assert any('It names: the sofa' in c for c in complaints)
    assert all('rite it again' in c for c in complaints)
    for row, without in rows_of(tmp_path / 'p', offline):
        assert [t.startswith('Be so kind') for t in row[4:]] == [True, True, False, True]
        assert row[:4] == without[:4]
        assert row[6] == without[6]


def test_a_server_that_misbehaves_all_the_time_is_survived(prepare, tmp_path):
    """429, 500, silence, cut JSON, wrong fields, nothing: the result is that of one that behaves"""
    kinds = ['429', '500', 'cut JSON', 'wrong fields', 'empty', 'cut connection']
    prepare(lambda body, n: good_answer(body))
    good = hashes(tmp_path / 'p')
    (tmp_path / 'a' / 'llm.sqlite').unlink()

    def answer(body, n):
        return good_answer(body) if n % 2 else BAD[kinds[n // 2 % len(kinds)]]

    printed, server = prepare(answer, '--llm_at_once=1')
    assert hashes(tmp_path / 'p') == good
    n_asked, right = numbers(
        r'(\d+) descriptions asked for, (\d+) right at first, 0 after a complaint; 0 replaced', printed
    )
    assert n_asked == right == len(server.requests) / 2
    assert_no_key(tmp_path, printed)


def test_an_interrupted_run_goes_on_where_it_was(small_archive, prepare, tmp_path, refuses, start, monkeypatch):
    """the server goes away in the middle; nothing is asked twice"""
    down = []

    def answer(body, n):
        if n >= 20:
            down.append(n)
            return 401, {}, '{}'
        return good_answer(body)

    start(answer)
    refuses('prepare.py', f'--archive={small_archive}', *LLM_SETTINGS, words=['scripted', 'OPENAI_API_KEY'])
    assert down and sorted(f.name for f in tmp_path.iterdir()) == ['a', 'kept.sqlite']  # no p.partial
    printed, server = prepare(lambda body, n: good_answer(body))
    n_asked = int(re.search(r'(\d+) descriptions asked for', printed).group(1))
    assert (
        f'{n_asked - 20} requests' in printed and '20 answers from' in printed and len(server.requests) == n_asked - 20
    )
    printed, server = prepare(lambda body, n: good_answer(body))
    assert ': 0' not in printed and '; 0 requests, 0 tokens' in printed and not server.requests


def test_a_killed_run_goes_on_where_it_was(small_archive, tmp_path):
    """kill -9 while it asks, from outside"""
    import os
    import signal
    import subprocess
    import time

    def answer(body, n):
        time.sleep(0.02)
        return good_answer(body)

    with serve(answer) as server:
        env = {**os.environ, 'OPENAI_BASE_URL': server.url, 'OPENAI_API_KEY': KEY}
        command = [
            sys.executable,
            str(ROOT / 'prepare.py'),
            f'--archive={small_archive}',
            *LLM_SETTINGS,
            '--llm_at_once=2',
        ]
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(server.requests) < 15:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(server.requests)
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        n_asked = int(re.search(r'(\d+) descriptions asked for', done.stdout).group(1))
        assert before < n_asked and len(server.requests) - n_asked <= 2  # those that were under way
        assert_no_key(tmp_path, done.stdout, done.stderr)


@pytest.mark.parametrize(
    'args, words',
    [
        ([], ['Set OPENAI_BASE_URL']),
        (['--llm='], ['must name']),
        (['--llm_share=1.5'], ['1.5']),
        (['--llm_at_once=0'], ['llm_at_once=0']),
        (['--dataset=cartpole', '--archive='], ['cartpole', 'Leave out --describe=llm']),
    ],
)
def test_a_mistake_is_one_line(args, words, small_archive, refuses, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY')
    monkeypatch.delenv('OPENAI_BASE_URL', raising=False)
    refuses('prepare.py', f'--archive={small_archive}', *LLM_SETTINGS, *args, words=words)


def test_without_openai_it_says_what_to_install(small_archive, tmp_path):
    (tmp_path / 'openai.py').write_text("raise ModuleNotFoundError(\"No module named 'openai'\", name='openai')")
    process = run(
        'prepare.py',
        f'--archive={small_archive}',
        *LLM_SETTINGS,
        cwd=tmp_path,
        env={'PYTHONPATH': str(tmp_path), 'OPENAI_API_KEY': KEY},
    )
    refused(process, 'prepare.py: ', "No module named 'openai'", '.[all]')
    assert_no_key(tmp_path, process.stderr, process.stdout)


def test_nobody_there_is_one_line_and_leaves_nothing(small_archive, refuses, monkeypatch, tmp_path):
    monkeypatch.setenv('OPENAI_BASE_URL', 'http://127.0.0.1:9/v1')
    refuses(
        'prepare.py',
        f'--archive={small_archive}',
        *LLM_SETTINGS,
        words=['127.0.0.1:9 does not answer', 'OPENAI_BASE_URL'],
    )
    assert not list(tmp_path.glob('p*'))
    assert_no_key(tmp_path)
