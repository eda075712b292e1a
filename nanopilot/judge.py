"""
How well does a path do what a prompt asks, to a language model or to a person? And is such a judge to be trusted?

$ python sample_policy.py --eval=test --judge=gpt-4o-mini   # a language model scores rollouts; its server: data/llm.py
$ python sample_policy.py --eval=test --human               # a page for a person to score the same, blind
"""

import base64
import hashlib
import html
import json
import tempfile
from pathlib import Path

import numpy as np

from data import metrics
from data.llm import ask_until_valid
from data.pictures import save
from data.prepared import is_a

TRUSTED = 0.7  # area under the ROC curve that a judge needs: 0.5 is guessing
QUESTION = """A robot in a furnished room was asked:

{prompt}

This is what it came by, what it drove over and where it ended, in order:

{told}

How well did it do what it was asked? Every place must be passed in the order asked for, it must stop at the last one, and keep off what it was to avoid. \
Passing other places on the way does no harm. 1: all of it was done; 0: none of it; between: a part. Answer with JSON and nothing else: {"score": <number from 0 to 1>}"""
AGAIN = 'That is no score. Answer with JSON and nothing else: {"score": <number from 0 to 1>}'


def score_of(text):
    """an answer -> its score; None where it is anything but a number in [0, 1] or {"score": such a number}"""
    try:
        found = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, tuple) and len(found) == 1 and found[0][0] == 'score':
        found = found[0][1]
    return float(found) if is_a(found, float) and 0 <= found <= 1 else None


def scores_of(llm, world, pairs, kwargs, desc):
    """pairs: prompt and path (T + 1, n_bd) each -> their scores, nan where there is none"""

    def ask(pair):
        prompt, path = pair
        question = QUESTION.replace('{told}', world.narrate(path, kwargs)).replace('{prompt}', prompt)
        answer, _ = ask_until_valid(
            llm, [{'role': 'user', 'content': question}], lambda text: AGAIN if score_of(text) is None else None
        )
        return np.nan if answer is None else score_of(answer)

    return np.array(llm.each(ask, pairs, desc), dtype=float)


def name_of(e):
    """of a rollout, the same wherever it is scored: it is of its prompt and its path"""
    return hashlib.sha256(e['prompt'].encode() + np.asarray(e['path'], np.float32).tobytes()).hexdigest()[:16]


def done(e):
    """the deterministic score: the share of the places that were passed in order"""
    return float(e['verdict'].get('in_order', e['verdict']['carried_out']))


def area(right, wrong):
    """under the ROC curve: how often a right one scores above a wrong one, a tie is half"""
    return float((np.sign(right[:, None] - wrong[None]).mean() + 1) / 2)


def alike(a, b):
    """two scores of the same -> their rank correlations, Kendall's tau and Spearman's, nan where one of them never changes"""
    from scipy.stats import kendalltau, spearmanr

    a, b = (np.asarray(x, dtype=float) for x in (a, b))
    varied = len(a) > 1 and np.ptp(a) and np.ptp(b)
    return {
        'kendall': float(kendalltau(a, b).statistic) if varied else np.nan,
        'spearman': float(spearmanr(a, b).statistic) if varied else np.nan,
        'n': len(a),
    }


# ------------------------------------------------------------------------------
# a language model


def judged_by(llm, world, rollouts, kwargs, seed):
    """
    A language model scores rollouts, dicts of evaluation.evaluate's 'drawn'; and is itself judged: on the episodes that the
    prompts were taken from, whose paths are right by construction, with their own prompt and with another's.

    Prints a report -> {'mean', 'auc': scores with their intervals, 'spearman', 'trusted', 'unanswered', 'scores': by name_of}
    """
    other = metrics.derange([e['group'] for e in rollouts], seed)
    swapped = [
        (rollouts[i], e)
        for i, e in zip(other, rollouts)  # but for those that a path does all the same
        if not world.score(rollouts[i]['asked'], e['reference'], e['reference'], kwargs)['carried_out']
    ]
    mine = scores_of(llm, world, [(e['prompt'], e['path']) for e in rollouts], kwargs, 'rollouts judged')
    right = scores_of(llm, world, [(e['prompt'], e['reference']) for _, e in swapped], kwargs, 'right pairs judged')
    wrong = scores_of(llm, world, [(o['prompt'], e['reference']) for o, e in swapped], kwargs, 'swapped pairs judged')
    unanswered = int(np.isnan(np.concatenate([mine, right, wrong])).sum())
    both, some = ~np.isnan(right) & ~np.isnan(wrong), ~np.isnan(mine)
    right, wrong = right[both], wrong[both]

    def areas(rows, axis=0):  # of episodes drawn with replacement: the bootstrap of metrics.bootstrap
        return np.apply_along_axis(lambda i: area(right[i.astype(int)], wrong[i.astype(int)]), -1, rows)

    found = {
        'model': llm.model,
        'mean': metrics.bootstrap(mine[some]),
        'auc': metrics.bootstrap(np.arange(len(right)), areas),
        'spearman': {
            k: v for k, v in alike(mine[some], [done(e) for e, s in zip(rollouts, some) if s]).items() if k != 'kendall'
        },
    }
    found |= {
        'trusted': found['auc']['mean'] >= TRUSTED,
        'unanswered': unanswered,
        'scores': {name_of(e): float(s) for e, s in zip(rollouts, mine) if s == s},
    }
    print(
        f'\njudge {llm.model}: {llm.requests} requests, {llm.tokens} tokens, {llm.cached} answers from {llm.kept.file}; {unanswered} of {len(mine) + 2 * len(swapped)} without a score'
    )
    print('  score of the rollouts {mean:.2f} [{low:.2f}, {high:.2f}] of {n}'.format(**found['mean']))
    print(
        '  right against swapped prompts, area under the ROC curve {mean:.2f} [{low:.2f}, {high:.2f}] of {n}'.format(
            **found['auc']
        )
    )
    print(
        "  rank correlation with the places passed in order, Spearman's {spearman:.2f} of {n}".format(
            **found['spearman']
        )
    )
    if not found['trusted']:
        print('  this judge cannot tell right from wrong')
    return found


# ------------------------------------------------------------------------------
# a person

PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>How well was it done?</title>
<style>body { font: 16px sans-serif; max-width: 46em; margin: 2em auto } img { max-width: 100% } fieldset { margin: 2em 0 } label { margin-right: 1em } #save { position: sticky; bottom: 1em; font-size: 1.2em }</style>
<p>How well does each path do what was asked? Blue is where it begins, red where it ends. 1: all of it, in that order, stopped at the last place, off
what was to be avoided; 0: none of it. Leave out what you cannot tell. Save, and put the file human.json beside this page.
{FORMS}
<button id="save">Save human.json</button>
<script>
document.getElementById('save').onclick = () => {
  const scores = {}
  for (const one of document.querySelectorAll('input:checked')) scores[one.name] = Number(one.value)
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([JSON.stringify({scores})], {type: 'application/json'}))
  link.download = 'human.json'
  link.click()
}
</script>
</html>
"""


def write_page(file, world, rollouts, kwargs, seed):
    """a page that shows prompts and paths, in an order of its own and without a verdict, and saves the scores that are given"""
    forms = []
    with tempfile.TemporaryDirectory() as folder:
        for i in np.random.default_rng(seed).permutation(len(rollouts)):
            e, picture = rollouts[i], Path(folder) / 'path.png'
            world.draw_episodes(
                picture, [{'prompt': e['prompt'], 'bd': None, 'path': e['path'], 'verdict': {}, 'ok': None}], kwargs
            )
            options = ''.join(
                f'<label><input type="radio" name="{name_of(e)}" value="{x}"> {x}</label>'
                for x in (0, 0.25, 0.5, 0.75, 1)
            )
            forms.append(
                f'<fieldset><legend>{html.escape(e["prompt"])}</legend><img alt="" src="data:image/png;base64,'
                f'{base64.b64encode(picture.read_bytes()).decode()}"><br>{options}</fieldset>'
            )
    save(file, lambda f: Path(f).write_text(PAGE.replace('{FORMS}', '\n'.join(forms)), encoding='utf-8'))
    print(f'\npage for a person: {file}; its human.json belongs beside it, then run this again')


def read_scores(file):
    """human.json -> {name_of a rollout: score in [0, 1]}, None where there is no such file"""
    try:
        found = json.loads(Path(file).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        raise ValueError(f'{file} is not JSON. Save it again from the page of --human, or delete it') from None
    scores = found.get('scores') if isinstance(found, dict) and set(found) == {'scores'} else None
    if not is_a(scores, dict) or not all(is_a(s, float) and 0 <= s <= 1 for s in scores.values()):
        raise ValueError(
            f'{file} must hold {{"scores": {{name: a number from 0 to 1, ..}}}} and nothing else. Save it again from the page of --human, or delete it'
        )
    return scores


def agreement(person, rollouts, judge=None):
    """does a person, {name: score}, agree with the deterministic score, and with a judge's, {name: score}? Prints it -> rank correlations"""
    ours = {name_of(e): done(e) for e in rollouts}
    found = {}
    for what, scores in ('the places passed in order', ours), ('the judge', judge):
        if scores is not None:
            both = sorted(person.keys() & scores.keys() & ours.keys())
            found[what] = alike([person[k] for k in both], [scores[k] for k in both])
            print(
                "a person and {}: Kendall's {kendall:.2f}, Spearman's {spearman:.2f}, of {n}".format(
                    what, **found[what]
                )
            )
    if unknown := len(person.keys() - ours.keys()):
        print(f'{unknown} scores of the person are of other rollouts, and left out')
    return found
