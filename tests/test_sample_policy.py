"""sample_policy.py: asked in words or numbers, it drives, says, draws and scores; mistakes are one line."""

import json
import re
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, flip, refused, run
from PIL import Image

from data import toy_nav
from nanopilot import evaluate as evaluation
from nanopilot import scoring
from nanopilot.checkpoint import read_checkpoint
from nanopilot.conditions import Condition
from nanopilot.recovery import recover
from nanopilot.rollout import rollout

PROMPT = 'go north of the fridge and then stop at the stove'


@pytest.fixture
def out(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'out')


@pytest.fixture
def sample(script, out, tmp_path):
    """sample('--prompt=...') in this process -> what --json wrote"""

    def call(*args):
        script('sample_policy.py', '--out_dir=out', '--json=done.json', *args)
        return json.loads((tmp_path / 'done.json').read_text())

    return call


@pytest.fixture
def refuses_to_drive(refuses, out):
    return lambda *args, words=(): refuses('sample_policy.py', '--out_dir=out', *args, words=words)


# ------------------------------------------------------------------------------
# driving


def test_a_prompt_drives_says_draws_and_writes(out, tmp_path):
    process = run('sample_policy.py', '--out_dir=out', '--prompt', PROMPT, '--gif', '--json=done.json', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    said = process.stdout
    assert (
        f'"{PROMPT}"' in said
        and re.search(r'passed: ', said)
        and re.search(r'(stopped|was still driving) at \(\d+, \d+\), .* on the \w+ tile, after \d+ steps', said)
    )
    assert re.search(r'carried out: (yes|NO) \(north of the fridge: (step \d+|no); the stove: (step \d+|no)', said)
    picture, gif = Image.open(out / 'drive.png'), Image.open(out / 'drive_0.gif')
    assert picture.format == 'PNG' and min(picture.size) > 400 and gif.format == 'GIF' and gif.n_frames > 3
    (done,) = json.loads((tmp_path / 'done.json').read_text())
    assert (
        set(done) == {'prompt', 'understood', 'sure', 'bd', 'path', 'actions', 'visits', 'verdict'}
        and (done['prompt'], done['understood']) == (PROMPT, None)
        and done['bd'] is None
    )
    assert len(done['path']) == len(done['actions']) + 1 and f'after {len(done["actions"])} steps' in said
    x, y = done['path'][-1]
    assert f'at ({x:.0f}, {y:.0f})' in said
    assert done['verdict']['carried_out'] == ('carried out: yes' in said) and len(done['verdict']['steps']) == 2
    assert set(done['visits'][0]) == {'step', 'place', 'side', 'tile', 'distance'}
    assert not [f for f in [*out.iterdir(), *tmp_path.iterdir()] if f.suffix in ('.partial', '.tmp')]


def test_the_written_actions_drive_the_written_path(sample, kwargs):
    (done,) = sample(f'--prompt={PROMPT}')
    env = toy_nav.make_env(**kwargs)
    _, info = env.reset(seed=1337)
    path, over = [info['bd']], False
    for a in done['actions']:
        assert not over
        _, _, terminated, truncated, info = env.step(np.array(a, dtype=np.float32))
        over = terminated or truncated
        path.append(info['bd'])
    assert over and np.allclose(path, done['path'], atol=1e-6)


def test_a_verdict_is_the_itinerarys(sample, places):
    from data.toy_nav.itinerary import parse

    (done,) = sample(f'--prompt={PROMPT}')
    verdict = parse(PROMPT, places).match(np.array(done['path']), places)
    assert done['verdict'] == json.loads(json.dumps(verdict)) and done['visits'] == places.visits(
        np.array(done['path'])
    )


def test_a_bd_alone_and_both(sample, capsys):
    (alone,) = sample('--bd=150,40')
    said = capsys.readouterr().out
    assert (
        alone['prompt'] is None
        and alone['bd'] == [150, 40]
        and 'no prompt' in said
        and 'from the asked (150, 40)' in said
    )
    x, y = alone['path'][-1]
    assert alone['verdict'] == {'bd_distance': pytest.approx(np.hypot(x - 150, y - 40))}
    (both,) = sample('--bd', '150, 40', f'--prompt={PROMPT}')
    assert both['prompt'] == PROMPT and {'bd_distance', 'carried_out'} <= set(both['verdict'])
    assert both['path'] != alone['path']


def test_prompts_come_from_a_file(sample, tmp_path):
    (tmp_path / 'texts.txt').write_text(
        'go to the bed\n\n{"prompt": "go to the stove", "bd": [30, 20]}\n'
        '{"bd": [100, 100]}\n{"prompt": "drive to the red tile"}\n'
    )
    done = sample('--prompts=texts.txt')
    assert [d['prompt'] for d in done] == ['go to the bed', 'go to the stove', None, 'drive to the red tile']
    assert [d['bd'] for d in done] == [None, [30, 20], [100, 100], None]


def test_the_prompts_that_come_with_it_can_be_driven(sample):
    assert len(sample(f'--prompts={ROOT / "data/toy_nav/prompts.txt"}')) >= 3


def test_same_seed_same_output(sample, capsys):
    said = []
    for _ in range(2):
        done = sample(f'--prompt={PROMPT}')
        said.append((done, re.sub(r'[\d.]+ s$', '', capsys.readouterr().out, flags=re.M)))
    assert said[0] == said[1]


def test_a_path_does_not_depend_on_the_batch(sample, tmp_path):
    texts = [
        'go to the bed',
        PROMPT,
        'First pass by the statue on the orange tile. Then drive over the blue tile and finally stop south-west '
        'of the cabinet.',
    ]
    (tmp_path / 'texts.txt').write_text('\n'.join(texts))
    together = sample('--prompts=texts.txt')

    def same(a, b):  # rounding differs in the last digit, and meeting a wall magnifies it: the first 100 steps
        return np.allclose(a['path'][:100], b['path'][:100], atol=0.05)

    for text, row in zip(texts, together):
        (alone,) = sample(f'--prompt={text}')
        assert same(alone, row), text
    apart = sample('--prompts=texts.txt', '--batch_size=2')
    assert all(map(same, together, apart))


def test_the_driver_feeds_what_training_fed(out, prepared):
    """
    X9: an episode of the data, driven with its own actions, shows the model what a training batch would have shown
    """
    import torch

    from data.prepared import Prepared
    from data.text import PAD
    from nanopilot.policy import Policy

    data, policy, outs = Prepared(prepared, 'train'), Policy.load(out), []
    b, prompt = int(np.argmax(data.length)), 'go to the bed'
    stored, T = data.act[data.start[b] : data.start[b + 1]], int(data.length[b])
    S = -(-T // 8)

    def sample(out, *how):  # instead of the policy: the stored actions
        outs.append(out)
        some, t = np.zeros((8, 2), np.float32), (len(outs) - 1) * 8
        some[: len(stored[t : t + 8])] = stored[t : t + 8]
        return torch.from_numpy(some)[None]

    policy.model.head.sample = sample
    (driven,) = rollout(policy, [prompt], [None], [data.episodes()[b]['seed']])
    assert np.array_equal(driven['act'], stored) and np.array_equal(
        driven['path'][1:], data.path[data.start[b] : data.start[b + 1]]
    )
    shown = data.start[b] + np.clip(np.arange(S * 8) - 7, 0, T - 1)
    acted = data.start[b] + np.minimum(np.arange(S * 8), T - 1)
    text = torch.tensor([policy.tokens(prompt) + [PAD] * 3])
    with torch.no_grad():
        whole, _ = policy.model(
            text,
            torch.from_numpy(data.obs[shown]).view(1, S, 8, -1),
            torch.from_numpy(data.act[acted]).view(1, S, 8, -1),
            torch.full((1, 1, 2), np.nan),
        )
    assert len(outs) == S
    for k in outs[0]:
        assert torch.allclose(torch.cat([o[k] for o in outs], 1), whole[k], atol=1e-4, rtol=1e-4), k


def test_every_request_is_driven_once_in_whatever_batch(sample, tmp_path):
    """what others drive beside it, or before it, changes nothing"""
    texts = [
        'go to the bed',
        PROMPT,
        'stop at the sofa',
        'go to the fan',
        'the statue',
        'north of the table',
        'the blue tile',
    ]
    (tmp_path / 'texts.txt').write_text('\n'.join(texts))
    few = sample('--prompts=texts.txt', '--batch_size=2')
    assert [d['prompt'] for d in few] == texts
    for one, other in zip(few, sample('--prompts=texts.txt')):
        assert np.allclose(one['path'][:100], other['path'][:100], atol=0.05)
        assert len(one['path']) == len(one['actions']) + 1 and one['path'][0] == [20, 50]


def test_several_samples_a_prompt(sample, capsys):
    done = sample(f'--prompt={PROMPT}', '--num_samples=3')
    assert len(done) == 3 and {d['prompt'] for d in done} == {PROMPT} and '3 episodes' in capsys.readouterr().out


def test_unknown_words_among_known_ones_are_named_and_it_drives(out, tmp_path):
    process = run('sample_policy.py', '--out_dir=out', '--prompt=go to the glorious fridge, xylophone', cwd=tmp_path)
    assert process.returncode == 0
    assert process.stderr.splitlines()[:2] == [
        f'warning: {word} was never seen in training, it is not understood' for word in ('glorious', 'xylophone')
    ]


def test_a_typing_mistake_is_read_as_what_was_meant(sample, capsys):
    meant, mistyped = sample('--prompt=go north of the fridge'), sample('--prompt=go nroth of the FRIDEG')
    said = capsys.readouterr().err
    assert meant[0]['path'] == mistyped[0]['path'] and meant[0]['verdict'] == mistyped[0]['verdict']
    assert 'nroth was never seen in training, it is read as north' in said and 'read as fridge' in said


def test_a_prompt_without_a_place_is_driven_and_not_judged(sample, capsys):
    (done,) = sample('--prompt=stop')
    assert done['verdict'] == {} and 'cannot be judged' in capsys.readouterr().out


def test_another_checkpoint_can_be_named(sample, out):
    name = (out / 'latest').read_text().strip()
    assert sample(f'--prompt={PROMPT}', f'--checkpoint={name}') == sample(f'--prompt={PROMPT}', '--checkpoint=latest')


def test_a_checkpoint_is_enough(trained, tmp_path, script):
    """its directory alone, elsewhere, under another name"""
    name = (trained / 'latest').read_text().strip()
    shutil.copytree(trained / name, tmp_path / 'elsewhere' / 'it')
    script('sample_policy.py', '--out_dir=elsewhere', '--checkpoint=it', f'--prompt={PROMPT}', '--json=a.json')
    script(
        'sample_policy.py',
        f'--out_dir={shutil.copytree(trained, tmp_path / "out")}',
        '--checkpoint=latest',
        f'--prompt={PROMPT}',
        '--json=b.json',
    )
    assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()


def test_temperature_draws_from_the_clusters(script, prepared):
    from conftest import TINY

    from nanopilot.policy import Policy

    script(
        'train.py', *TINY, f'--data_dir={prepared}', '--out_dir=out', '--max_iters=2', '--head=kmeans', '--n_clusters=6'
    )

    def acts(**how):
        return [e['act'].tolist() for e in rollout(Policy.load('out'), [PROMPT] * 2, [None] * 2, [0, 1], **how)]

    greedy, drawn, again, other = acts(), acts(temperature=1), acts(temperature=1), acts(temperature=1, seed=2)
    assert greedy[0] == greedy[1] and drawn[0] != drawn[1] and drawn == again != other
    assert np.allclose(acts(temperature=1, top_p=1e-6)[0], greedy[0], atol=1e-4)
    first, second = acts(temperature=1, batch_size=1)
    assert first != second, 'batches do not draw the same'


# ------------------------------------------------------------------------------
# scoring


WAYS = [
    'themselves',
    'prompt',
    'no prompt',
    'swapped prompt',
    'held-out phrasing',
    'typing mistakes',
    'a word never seen',
    'words never seen',
    'a thing never seen',
    'a colour never seen',
    'a direction never seen',
    'held-out combination',
    'trained combination',
    'longer than trained',
    'something to avoid',
    'destination only',
    'asked something else on the way',
    'asked something else on the way, the possible ones',
    'random starts',
    'random starts, the possible ones',
    'bd',
    'prompt and bd',
]
FREE = ['', ': terse', ': verbs', ': order', ': other words', ': prohibition', ': several sentences']
FREE = [f'{name}{kind}' for name in ('free sentences', 'free sentences written last') for kind in FREE]
REQUEST_SCORES = {'success', 'at_destination', 'stopped', 'in_order', 'landmark_f1', 'colour_f1'}
END_SCORES = {'bd_error', 'bd_error_median', 'within_5', 'within_10'}


@pytest.fixture
def few_sentences(tmp_path, monkeypatch):
    """of what people typed, two of each kind and split"""
    kept, n = [], Counter()
    for line in toy_nav.FREE_SENTENCES.read_text().splitlines():
        sentence = json.loads(line)
        which = sentence['kind'], sentence['split']
        n[which] += 1
        kept += [line] * (n[which] <= 2)
    file = tmp_path / 'few.jsonl'
    file.write_text('\n'.join(kept))
    monkeypatch.setattr(toy_nav, 'FREE_SENTENCES', file)


def test_eval_scores_every_way_of_asking(out, prepared, script, refuses, few_sentences, capsys):
    command = ['sample_policy.py', '--out_dir=out', '--eval=test', f'--data_dir={prepared}', '--eval_episodes=6']
    script(*command)
    said = capsys.readouterr()
    done = json.loads((out / 'eval_test.json').read_text())
    rows = {r['name']: r for r in done['rows']}
    assert done['split'] == 'test' and done['step'] == read_checkpoint(out / (out / 'best').read_text().strip())['step']
    assert list(rows) == [f'demonstrations: {way}' for way in WAYS] + FREE
    without_episode = [*FREE, 'demonstrations: asked something else on the way']
    without_episode += [f'{row}, the possible ones' for row in (without_episode[-1], 'demonstrations: random starts')]
    for name, row in [(name, row) for name, row in rows.items() if name not in without_episode]:
        check_row(name, row)
        assert f'| {name} | {row["bd_error"]["n"]} |' in said.out
    ceiling = rows['demonstrations: themselves']
    assert ceiling['success']['mean'] == ceiling['landmark_f1']['mean'] == ceiling['within_5']['mean'] == 1
    assert ceiling['bd_error']['mean'] == 0
    prompted = rows['demonstrations: prompt']
    assert prompted['success']['n'] == 6
    assert prompted['bd_error'] != rows['demonstrations: random starts']['bd_error']
    check_free_sentences([rows[name] for name in FREE[:7]], said.out, 'test')
    check_free_sentences([rows[name] for name in FREE[7:]], said.out, 'last')
    # 60 steps of training have taught it nothing
    assert 'WARNING: the policy may be ignoring the prompt' in said.out
    assert 'warning: ' not in said.err
    kinds = done['kinds']['demonstrations']
    assert sum(kinds.values()) == 6 and kinds.get('carried out', 0) == round(6 * prompted['success']['mean'])
    for name in 'eval_test.png', 'eval_test_failures.png':
        assert min(Image.open(out / name).size) > 400 and f'picture: {out.name}/{name}' in said.out
    script(*command, '--rows=typing mistakes, bd')
    # the same episodes, and the same words, as among the others
    expected = [rows['demonstrations: typing mistakes'], rows['demonstrations: bd']]
    assert json.loads((out / 'eval_test.json').read_text())['rows'] == expected
    refuses(*command, '--rows=promt', words=['promt', 'row'])


def check_row(name, row):
    """every score has its interval and one n; kept_off is there where something is to be avoided"""
    for k, score in row.items():
        if k != 'name':
            assert 0 <= score['low'] <= score['mean'] <= score['high'], (name, k)
            assert score['n'] == row['bd_error']['n'] > 0, (name, k)
    assert set(row) - {'name', 'kept_off'} == REQUEST_SCORES | END_SCORES
    assert 'kept_off' in row or 'avoid' not in name


def check_free_sentences(rows, printed, split):
    """all that people typed, however few the episodes are; no episode shows it, so nothing is compared with one"""
    sentences = toy_nav.free_sentences(split, toy_nav.env_kwargs())
    n = Counter(s['kind'] for s in sentences)
    whole, *kinds = rows
    assert whole['success']['n'] == len(sentences)
    assert [row['success']['n'] for row in kinds] == list(n.values())
    for score in 'success', 'in_order', 'at_destination':
        of_kinds = [row[score]['mean'] for row in kinds]
        assert whole[score]['mean'] == pytest.approx(np.average(of_kinds, weights=list(n.values())))
    for row, kind in zip(kinds, n):
        forbids = all('"avoid": true' in s['request'] for s in sentences if s['kind'] == kind)
        scores = {'success', 'in_order', 'at_destination', 'stopped'} | ({'kept_off'} if forbids else set())
        assert set(row) - {'name'} == scores
    for row in rows:
        assert f'| {row["name"]} | {row["success"]["n"]} |' in printed


def test_each_half_of_the_free_sentences_is_of_one_split(trained, monkeypatch):
    """what is driven is what the data set has for the split that is scored, from the start, prompt by prompt"""
    from nanopilot.conditions import free_sentences
    from nanopilot.policy import Policy

    policy, asked = Policy.load(trained), []

    def sentences(split, kwargs):
        asked.append(split)
        return [{'text': f'go to the {name}', 'request': '[]', 'kind': name} for name in ('bed', 'fridge')]

    monkeypatch.setattr(toy_nav, 'free_sentences', sentences)
    way = free_sentences(policy, 'val')
    assert asked == ['val'] and [e['prompt'] for e in way.episodes] == ['go to the bed', 'go to the fridge']
    monkeypatch.delattr(toy_nav, 'free_sentences')
    assert free_sentences(policy, 'val').episodes == []


# ------------------------------------------------------------------------------
# asked something else on the way


def test_another_prompt_is_asked_from_its_step_on(trained):
    """the plan that has begun is dropped: an episode begins with the new prompt where the robot is"""
    from nanopilot.policy import Policy
    from nanopilot.rollout import Episode, rollouts

    policy, other = Policy.load(trained), 'go to the bed'
    asked = [Episode(PROMPT, None, 0), Episode(PROMPT, None, 0, (20, other))]
    ((before, changed),) = rollouts(policy, [(asked, None, None)])
    assert np.array_equal(changed['act'][:20], before['act'][:20])
    policy.reset([other])
    assert np.allclose(policy.act(changed['obs'][20:21])[0], changed['act'][20], atol=1e-4)
    assert not np.allclose(changed['act'][20:28], before['act'][20:28], atol=1e-5)


def test_what_was_done_before_it_was_asked_does_not_count(trained, places):
    from nanopilot.conditions import changed
    from nanopilot.policy import Policy

    policy = Policy.load(trained)
    first, last = [{'kind': 'at', 'name': 'bed'}], [{'kind': 'at', 'name': 'stove'}]
    path = np.array([places.world.objects['bed']] * 60 + [places.world.objects['stove']] * 30)
    for step, in_order in (59, 1), (60, 0.5):
        e = {'request': json.dumps(first + last), 'bd': None, 'path': None, 'change': (step, 'a prompt')}
        scores, _ = scoring.score_driven(policy, [e], [[{'path': path, 'told': {}}]])
        assert scores['in_order']['mean'] == in_order and scores['success']['mean'] == (in_order == 1)
        assert not {'bd_error', 'landmark_f1'} & set(scores)
    episodes = [
        {'prompt': str(i), 'request': f'[{i}]', 'group': i, 'seed': i, 'bd': [i], 'path': np.zeros((80 + i, 2))}
        for i in range(40)
    ]
    rows = changed(episodes, 15, 0, 50, 100)
    assert len(rows) == 15 and {e['change'][0] for e in rows} <= set(range(50, 101))
    for e in rows:  # each was long enough, begins with another's prompt, and is scored by its own
        assert e['seed'] > 20 and e['prompt'] != e['change'][1] == str(e['seed']) and e['request'] == f'[{e["seed"]}]'


def test_what_was_never_asked_is_no_failure_of_what_was_possible(trained, monkeypatch):
    """a robot that stopped before the second prompt; and of several samples those count that could be done"""
    from nanopilot.policy import Policy

    policy = Policy.load(trained)
    monkeypatch.setattr(toy_nav, 'possible', lambda begun, kwargs: np.array([len(b['act']) == 60 for b in begun]))
    e = {'request': json.dumps([{'kind': 'at', 'name': 'bed'}]), 'seed': 1, 'change': (60, 'a prompt')}
    driven = [[{'act': np.zeros((n, 2))} for n in some] for some in ((50, 60, 90), (70, 80, 95))]
    verdicts = [[{'success': True}] * 2 + [{'success': False}], [{'success': True}, *[{'success': False}] * 2]]
    (row,) = scoring.possible_rows(policy, 'asked', Condition('asked', [e, e]), verdicts, driven)
    assert row['name'] == 'asked, the possible ones'
    assert row['success']['n'] == 2 and row['success']['mean'] == pytest.approx((0 + 1 / 3) / 2)
    assert not scoring.possible_rows(policy, 'prompt', Condition('prompt', [{'request': '[]'}]), [], [])


# ------------------------------------------------------------------------------
# processes


def test_any_number_of_processes_gives_the_same_figures(out, prepared, tmp_path):
    scored = []
    for workers in 1, 2:
        process = run(
            'sample_policy.py',
            '--out_dir=out',
            '--eval=test',
            f'--data_dir={prepared}',
            '--eval_episodes=3',
            '--batch_size=2',
            '--rows=prompt,random starts,prompt and bd',
            f'--workers={workers}',
            cwd=tmp_path,
        )
        assert process.returncode == 0, process.stderr
        scored.append(json.loads((out / 'eval_test.json').read_text()))
        assert scored[-1].pop('settings')['workers'] == workers
    assert scored[0] == scored[1]
    rows = [row['name'].removeprefix('demonstrations: ') for row in scored[0]['rows']]
    assert rows == ['prompt', 'random starts', 'random starts, the possible ones', 'prompt and bd']


# ------------------------------------------------------------------------------


def test_what_can_be_recovered_of_an_archive(script, out, trained, prepared, monkeypatch, capsys):
    """a cell counts where the episode ends in it or beside it; an archive there must be"""
    from nanopilot.policy import Policy

    policy = Policy.load(trained)
    how = {'batch_size': 64, 'temperature': 0.0, 'top_p': 1.0, 'seed': 0}
    monkeypatch.setattr(toy_nav, 'QD_SOURCE', 'demonstrations')
    off = np.array([4.9, 0.0])

    def rollouts(policy, jobs, **how):
        return ([{'path': np.array(e.bd)[None] + off, 'told': {}} for e in episodes] for episodes, *_ in jobs)

    monkeypatch.setattr(scoring, 'rollouts', rollouts)
    found = recover(policy, prepared, out / 'a', **how)
    assert (
        found['recovered']['mean'] == 1
        and found['bd_error_median']['mean'] == pytest.approx(4.9 / np.hypot(200, 200))
        and (out / 'a.png').exists()
    )
    assert 0 < found['held_out']['n'] < found['recovered']['n'] <= 150
    off[:] = 10, 0
    assert recover(policy, prepared, out / 'a', **how)['recovered']['mean'] < 0.3
    monkeypatch.setattr(toy_nav, 'QD_SOURCE', 'elites')
    with pytest.raises(ValueError, match='no quality-diversity archive'):
        recover(policy, prepared, out / 'a', **how)


def test_a_perfect_driver_scores_100(out, prepared, monkeypatch):
    """the measure, not the policy: who drives as the demonstrations did carries out all that is asked in full"""
    from data.prepared import Prepared
    from nanopilot.policy import Policy

    policy, data = Policy.load(out), Prepared(prepared, 'val')
    by_seed = {
        row['seed']: np.concatenate([data.path[data.start[i]][None], data.path[data.start[i] : data.start[i + 1]]])
        for i, row in enumerate(data.episodes())
    }

    def rollouts(policy, jobs, **how):
        act = np.zeros((100, 2))
        return (
            [{'path': by_seed.get(e.seed, np.zeros((20, 2))), 'act': act, 'told': {}} for e in episodes]
            for episodes, *_ in jobs
        )

    monkeypatch.setattr(scoring, 'rollouts', rollouts)
    found = evaluation.evaluate(policy, data, out / 'eval', seed=1)
    rows = {r['name']: r for r in found['rows']}
    assert list(found['kinds']['demonstrations']) == ['carried out'] and scoring.rollout_score(policy, data, 10) == 1
    assert rows['demonstrations: random starts']['success']['mean'] == 0  # other seeds
    for name in 'prompt', 'no prompt', 'bd', 'destination only', 'prompt and bd':
        row = rows[f'demonstrations: {name}']
        assert (
            row['success']['mean'] == row['stopped']['mean'] == row['in_order']['mean'] == 1
            and row['bd_error']['mean'] == 0
        )


def test_the_mean_of_samples_and_the_best_stand_side_by_side(script, prepared, tmp_path):
    from conftest import TINY

    script(
        'train.py', *TINY, f'--data_dir={prepared}', '--out_dir=km', '--max_iters=1', '--head=kmeans', '--n_clusters=8'
    )
    script(
        'sample_policy.py',
        '--out_dir=km',
        '--eval=val',
        f'--data_dir={prepared}',
        '--eval_episodes=4',
        '--num_samples=3',
        '--temperature=1.0',
        '--rows=prompt',
    )
    rows = {r['name']: r for r in json.loads((tmp_path / 'km' / 'eval_val.json').read_text())['rows']}
    row = rows['demonstrations: prompt']
    assert row['bd_error_best']['mean'] < row['bd_error']['mean'] and row['bd_error']['n'] == row['success']['n'] == 4


def test_scoring_on_other_archives_than_it_was_trained_on_is_said(script, out, prepared, tmp_path, capsys):
    shutil.copytree(prepared, tmp_path / 'p')
    meta = (tmp_path / 'p' / 'meta.json').read_text()
    (tmp_path / 'p' / 'meta.json').write_text(re.sub(r'("sha256": ")\w', r'\1x', meta))
    same_split = script(
        'sample_policy.py', '--out_dir=out', '--eval=val', '--data_dir=p', '--eval_episodes=2', '--rows=prompt'
    )['same_split']
    assert 'prepared from other archives' in capsys.readouterr().err
    assert same_split(made_of('ab'), made_of('a').data_spec)
    assert not same_split(made_of('a'), made_of('ab').data_spec)
    assert same_split(made_of('ab'), made_of('ba').data_spec)
    assert not same_split(made_of('ab'), made_of('ab', mean=0.51).data_spec)  # other episodes were trained on


def made_of(archives, mean=0.5):
    """a policy that was trained on these"""
    spec = {'archives': [{'sha256': name} for name in archives], 'normaliser': {'obs': {'mean': [mean]}}}
    return SimpleNamespace(data_spec=spec)


def test_scoring_leaves_out_what_the_model_cannot_read(script, demo_archive, few_sentences, tmp_path):
    """descriptions longer than text_len are in the data, and were not trained on"""
    from conftest import PREPARE, TINY

    script('prepare.py', f'--archive={demo_archive}', '--out_dir=short', '--text_len=18', *PREPARE)
    script('train.py', *TINY, '--data_dir=short', '--out_dir=out', '--max_iters=1', '--text_len=18', '--block_size=68')
    script('sample_policy.py', '--out_dir=out', '--eval=test', '--data_dir=short', '--eval_episodes=8')
    assert json.loads((tmp_path / 'out' / 'eval_test.json').read_text())['rows']


# ------------------------------------------------------------------------------
# mistakes


@pytest.mark.parametrize(
    'args, words',
    [
        ([], ['nothing is asked', '--prompt']),
        (['--prompt='], ['nothing is asked']),
        (['--prompt=   '], ['nothing is asked']),
        (['--prompt=Zzzqx qwxrtz'], ['knows no word', 'fridge']),
        (['--prompt=!?'], ['knows no word']),
        (['--prompt=' + 'go to the fridge, ' * 20], ['tokens', 'Shorten']),
        (['--bd=250,40'], ['250', '[0, 0]', '[200']),
        (['--bd=150'], ['2 numbers']),
        (['--bd=1,2,3'], ['2 numbers']),
        (['--bd=nan,40'], ['nan']),
        (['--bd=here,there'], ['here,there', '150,40']),
        (['--prompts=nowhere.txt'], ['nowhere.txt']),
        (['--prompts=empty.txt'], ['holds no prompt']),
        (['--prompts=bad.txt'], ['bad.txt, line 2', 'JSON']),
        (['--prompts=number.txt'], ['prompt']),
        (['--prompts=nothing.txt'], ['nothing is asked']),
        (['--prompts=bad.txt', '--prompt=go'], ["prompts='bad.txt'", 'Leave out --prompt']),
        (['--eval=test', '--prompt=go'], ["eval='test'", 'Leave out --prompt']),
        (['--eval=test', '--json=x.json'], ["eval='test'", '--json']),
        (['--rows=prompt', '--prompt=go'], ['--eval']),
        (['--json=nowhere/x.json', '--prompt=go'], ['nowhere/x.json', 'no such folder']),
        (['--eval=train'], ["'train'", 'test']),
        (['--eval=archive', '--data_dir=nowhere'], ['nowhere', 'python prepare.py']),
        (['--eval=test', '--data_dir=nowhere'], ['nowhere', 'python prepare.py']),
        (['--num_samples=0', '--prompt=go'], ['num_samples']),
        (['--num_samples=5', '--eval=test'], ['num_samples=5', 'temperature']),
        (['--temperature=-1', '--prompt=go'], ['temperature']),
        (['--top_p=0', '--prompt=go'], ['top_p']),
        (['--batch_size=0', '--prompt=go'], ['batch_size']),
        (['--device=tpu', '--prompt=go'], ['tpu']),
        (['--checkpoint=step_9', '--prompt=go'], ['step_9', 'train.py']),
        (['--temperature=1', '--prompt=go to the bed'], ['temperature', 'mse']),
    ],
    ids=lambda x: ' '.join(x)[:40],
)
def test_a_mistake_is_one_line(args, words, refuses_to_drive, tmp_path):
    (tmp_path / 'empty.txt').write_text('\n\n')
    (tmp_path / 'bad.txt').write_text('go\n{"prompt": \n')
    (tmp_path / 'number.txt').write_text('{"prompt": 5}')
    (tmp_path / 'nothing.txt').write_text('{"prompt": null}')
    refuses_to_drive(*args, words=words)


@pytest.mark.parametrize(
    'args, words',
    [
        (['--out_dir=nowhere', '--prompt=go'], ['no checkpoint in nowhere', 'train.py']),
        (['--out_dir=out', '--prompt='], ['nothing is asked']),
    ],
)
def test_a_mistake_ends_the_script_with_one_line(args, words, out, tmp_path):
    process = run('sample_policy.py', *args, cwd=tmp_path)
    refused(process, 'sample_policy.py: ', *words)
    assert len(process.stderr.strip().splitlines()) == 1 and process.stdout == ''


@pytest.mark.parametrize('where', [0.001, 0.3, 0.6, 0.999])
@pytest.mark.parametrize('name', ['model.safetensors', 'tokenizer.model'])
def test_a_damaged_checkpoint_is_refused(name, where, out, refuses_to_drive):
    flip(out / (out / 'best').read_text().strip() / name, where)
    refuses_to_drive(f'--prompt={PROMPT}', words=['damaged', name.split('.')[0]])


@pytest.mark.parametrize('name', ['model.safetensors', 'tokenizer.model', 'checkpoint.json'])
def test_a_file_that_is_missing_is_named(name, out, refuses_to_drive):
    (out / (out / 'best').read_text().strip() / name).unlink()
    refuses_to_drive(f'--prompt={PROMPT}', words=[name if name != 'checkpoint.json' else 'no checkpoint in'])


@pytest.mark.parametrize('key', ['data', 'dataset', 'obs_columns', 'sha256'])
def test_a_json_that_lacks_something_is_refused(key, out, refuses_to_drive):
    file = out / (out / 'best').read_text().strip() / 'checkpoint.json'
    info = json.loads(file.read_text())
    del info[key]
    file.write_text(json.dumps(info))
    refuses_to_drive(f'--prompt={PROMPT}', words=['checkpoint.json', 'damaged'])


def test_one_bad_line_does_not_spoil_a_file_of_prompts(out, tmp_path):
    """the others are driven and written; the exit code says that not all were"""
    (tmp_path / 'p.txt').write_text('go to the bed\nzzzqx qwxrtz\ngo to the sofa\n')
    process = run('sample_policy.py', f'--out_dir={out}', '--prompts=p.txt', '--json=done.json', cwd=tmp_path)
    refused(process, '1 of the prompts in p.txt could not be driven')
    assert 'warning: p.txt, line 2: the policy knows no word of' in process.stderr
    done = json.loads((tmp_path / 'done.json').read_text())
    assert [e['prompt'] for e in done] == ['go to the bed', 'go to the sofa']
    (tmp_path / 'p.txt').write_text('zzzqx\n')
    refused(
        run('sample_policy.py', f'--out_dir={out}', '--prompts=p.txt', cwd=tmp_path),
        'p.txt, line 1: the policy knows no word',
    )
