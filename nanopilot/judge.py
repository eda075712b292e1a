"""
How well does a path do what a prompt asks, to a language model or to a person? And is such a judge to be trusted?

$ python sample_policy.py --eval=test --judge=gpt-4o-mini   # a language model scores rollouts; its server: data/llm.py
$ python sample_policy.py --eval=test --human               # a page for a person to score the same, blind

A data set offers its paths in words, narrate, what counts, JUDGE_RULES, and pictures, draw_episodes (data/README.md).
"""

import base64
import hashlib
import html
import json
import tempfile
from pathlib import Path

import numpy as np

from data import metrics
from data.contract import part
from data.disk_cache import DiskCache
from data.llm import LLM, ask_until_valid
from data.metrics import interval
from data.pictures import save_text
from data.prepared import is_a
from nanopilot.rollout import dataset_of

TRUSTED = 0.7  # area under the ROC curve that a judge needs: 0.5 is guessing
QUESTION = """This was asked:

{prompt}

This is what was done, in order:

{narration}

How well was it done? {rules} 1: all of it was done; 0: none of it; between: a part. \
Answer with JSON and nothing else: {"score": <number from 0 to 1>}"""
AGAIN = 'That is no score. Answer with JSON and nothing else: {"score": <number from 0 to 1>}'
FOLDER = Path(__file__).parent


class Opinions:
    """what a language model and a person think of rollouts; both are optional"""

    def __init__(self, out_dir, model, human, seed):
        """
        model: the name of a language model, or ''; human: write a page for a person? Scores that are there are read
        """
        self.out_dir = Path(out_dir)
        self.human = human
        self.seed = seed
        self.person = read_scores(self.out_dir / 'human.json')
        self.llm = LLM(model, DiskCache(self.out_dir / 'llm.sqlite')) if model else None

    def of(self, policy, rollouts):
        """rollouts: dicts of evaluate.with_rollout -> {'judge', 'agreement'}, what there is of them; prints reports"""
        dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
        results, scores = {}, None
        if self.llm:
            results['judge'] = judged_by(self.llm, dataset, rollouts, kwargs, self.seed)
            scores = results['judge']['scores']
        if self.human:
            write_page(self.out_dir / 'human.html', dataset, rollouts, kwargs, self.seed)
        if self.person is not None:
            results['agreement'] = agreement(self.person, rollouts, scores)
        return results


def name_of(rollout):
    """the same wherever it is scored: it is of its prompt and its path"""
    path = np.asarray(rollout['path'], np.float32)
    return hashlib.sha256(rollout['prompt'].encode() + path.tobytes()).hexdigest()[:16]


def dataset_score(rollout):
    """the data set's own: the share of what was asked that was done in order, or whether all of it was done"""
    verdict = rollout['verdict']
    return float(verdict.get('in_order', verdict['success']))


def area(right, wrong):
    """under the ROC curve: how often a right one scores above a wrong one, a tie is half"""
    return float((np.sign(right[:, None] - wrong[None]).mean() + 1) / 2)


def rank_correlation(a, b):
    """two scores of the same -> Kendall's tau and Spearman's, nan where one of them never changes"""
    from scipy.stats import kendalltau

    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    kendall = np.nan
    if len(a) > 1 and np.ptp(a) and np.ptp(b):
        kendall = float(kendalltau(a, b).statistic)
    return {'kendall': kendall, 'spearman': metrics.spearman(a, b), 'n': len(a)}


# ------------------------------------------------------------------------------
# a language model


def score_of(text):
    """an answer -> its score; None where it is anything but a number in [0, 1] or {"score": such a number}"""
    try:
        answer = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if isinstance(answer, tuple) and len(answer) == 1 and answer[0][0] == 'score':
        answer = answer[0][1]
    return float(answer) if is_a(answer, float) and 0 <= answer <= 1 else None


def scores_of(llm, dataset, pairs, kwargs, desc):
    """pairs: prompt and path (T + 1, n_bd) each -> their scores, nan where there is none"""
    question = QUESTION.replace('{rules}', getattr(dataset, 'JUDGE_RULES', ''))
    narrate = part(dataset, 'narrate')

    def again(text):
        return AGAIN if score_of(text) is None else None

    def ask(pair):
        prompt, path = pair
        content = question.replace('{narration}', narrate(path, kwargs)).replace('{prompt}', prompt)
        answer, _ = ask_until_valid(llm, [{'role': 'user', 'content': content}], again)
        return np.nan if answer is None else score_of(answer)

    return np.array(llm.map(ask, pairs, desc), dtype=float)


def judged_by(llm, dataset, rollouts, kwargs, seed):
    """
    A language model scores rollouts, dicts of evaluate.with_rollout; and is itself judged: on the episodes that the
    prompts were taken from, whose paths are right by construction, with their own prompt and with another's.

    Prints a report -> {'mean', 'auc': scores with their intervals, 'spearman', 'trusted', 'unanswered', 'scores':
    by name_of}
    """
    score = part(dataset, 'score')
    pairs = []
    for e, i in zip(rollouts, metrics.derange([e['group'] for e in rollouts], seed)):
        other, path = rollouts[i], e['reference']
        if not score(other['request'], path, path, kwargs)['success']:  # some paths do what another's prompt asks, too
            pairs.append((e['prompt'], other['prompt'], path))
    given = [(e['prompt'], e['path']) for e in rollouts]
    scores = scores_of(llm, dataset, given, kwargs, 'rollouts judged')
    right = scores_of(llm, dataset, [(prompt, path) for prompt, _, path in pairs], kwargs, 'right pairs judged')
    wrong = scores_of(llm, dataset, [(other, path) for _, other, path in pairs], kwargs, 'swapped pairs judged')
    all_scores = np.concatenate([scores, right, wrong])
    both, answered = ~np.isnan(right) & ~np.isnan(wrong), ~np.isnan(scores)
    right, wrong = right[both], wrong[both]

    def areas(rows, axis=0):  # of episodes drawn with replacement: the bootstrap of metrics.bootstrap
        return np.apply_along_axis(lambda i: area(right[i.astype(int)], wrong[i.astype(int)]), -1, rows)

    auc = metrics.bootstrap(np.arange(len(right)), areas)
    dataset_scores = np.array([dataset_score(e) for e in rollouts])
    correlation = rank_correlation(scores[answered], dataset_scores[answered])
    report = {
        'model': llm.model,
        'mean': metrics.bootstrap(scores[answered]),
        'auc': auc,
        'spearman': {k: correlation[k] for k in ('spearman', 'n')},
        'trusted': auc['mean'] >= TRUSTED,
        'unanswered': int(np.isnan(all_scores).sum()),
        'scores': {name_of(e): float(s) for e, s in zip(rollouts, scores) if s == s},
    }
    print_report(llm, report, len(all_scores))
    return report


def print_report(llm, report, n):
    mean, auc, correlation = report['mean'], report['auc'], report['spearman']
    print(
        f'\njudge {llm.model}: {llm.requests} requests, {llm.tokens} tokens, {llm.cached} answers from '
        f'{llm.cache.file}; {report["unanswered"]} of {n} without a score'
    )
    print(f'  score of the rollouts {interval(mean, False, 2)} of {mean["n"]}')
    print(f'  right against swapped prompts, area under the ROC curve {interval(auc, False, 2)} of {auc["n"]}')
    print("  rank correlation with the data set's own score, Spearman's {spearman:.2f} of {n}".format(**correlation))
    if not report['trusted']:
        print('  this judge cannot tell right from wrong')


# ------------------------------------------------------------------------------
# a person


def write_page(file, dataset, rollouts, kwargs, seed):
    """a page that shows prompts and paths, in an order of its own and without a verdict, and saves the scores"""
    page = (FOLDER / 'cards' / 'human.html').read_text(encoding='utf-8')
    forms = []
    with tempfile.TemporaryDirectory() as folder:
        for i in np.random.default_rng(seed).permutation(len(rollouts)):
            forms.append(form(dataset, rollouts[i], kwargs, Path(folder) / 'path.png'))
    page = page.replace('{rules}', html.escape(getattr(dataset, 'JUDGE_RULES', '')))
    page = page.replace('{forms}', '\n'.join(forms))
    save_text(file, page)
    print(f'\npage for a person: {file}; its human.json belongs beside it, then run this again')


def form(dataset, rollout, kwargs, picture):
    """a prompt, a path without a verdict, and five scores to choose from, as HTML"""
    blank = {'prompt': rollout['prompt'], 'bd': None, 'path': rollout['path'], 'verdict': {}, 'ok': None}
    part(dataset, 'draw_episodes')(picture, [blank], kwargs)
    image = base64.b64encode(picture.read_bytes()).decode()
    options = ''.join(
        f'<label><input type="radio" name="{name_of(rollout)}" value="{x}"> {x}</label>'
        for x in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<fieldset><legend>{html.escape(rollout["prompt"])}</legend>'
        f'<img alt="" src="data:image/png;base64,{image}"><br>{options}</fieldset>'
    )


def read_scores(file):
    """human.json -> {name_of a rollout: score in [0, 1]}, None where there is no such file"""
    cure = 'Save it again from the page of --human, or delete it'
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise ValueError(f'{file} is not JSON. {cure}') from None
    scores = content.get('scores') if isinstance(content, dict) and set(content) == {'scores'} else None
    if not is_a(scores, dict) or not all(is_a(s, float) and 0 <= s <= 1 for s in scores.values()):
        raise ValueError(f'{file} must hold {{"scores": {{name: a number from 0 to 1, ..}}}} and nothing else. {cure}')
    return scores


def agreement(person, rollouts, judge=None):
    """
    Does a person, {name: score}, agree with the data set's own score, and with a judge's, {name: score}?
    Prints it -> rank correlations
    """
    dataset_scores = {name_of(e): dataset_score(e) for e in rollouts}
    correlations = {}
    for what, scores in ("the data set's score", dataset_scores), ('the judge', judge):
        if scores is not None:
            both = sorted(person.keys() & scores.keys() & dataset_scores.keys())
            correlations[what] = rank_correlation([person[k] for k in both], [scores[k] for k in both])
            line = "a person and {}: Kendall's {kendall:.2f}, Spearman's {spearman:.2f}, of {n}"
            print(line.format(what, **correlations[what]))
    unknown = len(person.keys() - dataset_scores.keys())
    if unknown:
        print(f'{unknown} scores of the person are of other rollouts, and left out')
    return correlations
