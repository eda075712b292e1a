"""
Compare runs that sample_policy.py --eval has scored: what differs between them, what they score, a picture of it.

$ python sample_policy.py --out_dir=out-a --eval=val                      # for each of them, then
$ python -m bench.compare out-a out-b out-c                               # from the checkout's root: a Markdown table
$ python -m bench.compare out-a out-b --against=data_fraction             # also the scores drawn against a setting
"""

import sys

if __name__ == '__main__' and not __package__:
    sys.exit("run it from the checkout's root: python -m bench.compare")

import config as settings  # first: it turns mistakes into one line

import importlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from data.metrics import interval
from data.pictures import save
from nanopilot.evaluate import ENDS
from nanopilot.resuming import as_number

# ------------------------------------------------------------------------------
runs = ()  # the out_dirs of the runs
split = 'val'  # whose scores: 'val', 'test'
ask = (
    'prompt:success,prompt:in_order,prompt and bd:bd_error_median,prompt and bd:landmark_f1'  # row:score of any source
)
against = ''  # a setting of train.py: also draw the scores against it
picture = 'compare.png'  # where to
config = settings.read(globals(), __file__, choices={'split': ('val', 'test')}, positional='runs')
globals().update(config)
# ------------------------------------------------------------------------------
SAMPLING = ('checkpoint', 'temperature', 'num_samples', 'eval_episodes')  # settings of sample_policy.py that matter
IGNORED = {  # settings of train.py in which runs may differ and still be alike
    'out_dir',
    'seed',
    'device',
    'threads',
    'init_from',
    'eval_interval',
    'log_interval',
    'rollouts',
    'keep_every',
    'wandb_log',
    'wandb_run_name',
}


def load(run):
    """-> what the evaluation of a run says: {'trained': settings, 'sampling': settings, 'rows': {name: scores}}"""
    file = Path(run) / f'eval_{split}.json'
    again = f'python sample_policy.py --out_dir={run} --eval={split}'
    if not file.is_file():
        raise FileNotFoundError(f'no {file}. Make it: {again}')
    try:
        scores = json.loads(file.read_text())
        sampling = {name: scores['settings'][name] for name in SAMPLING}
        rows = {row['name']: row for row in scores['rows']}
        return {'trained': scores['trained'], 'sampling': sampling, 'rows': rows, 'heads': heads(scores['trained'])}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f'{file} is damaged, or of an older version. Make it again: {again}') from None


def heads(trained):
    """-> {score: its head in a table} of the scores that are proportions, shown in %"""
    dataset = importlib.import_module(f'data.{trained["dataset"]}')
    return {'success': 'success', **ENDS, **getattr(dataset, 'SCORES', {}), **getattr(dataset, 'MEASURES', {})}


def grouped(loaded):
    """runs that differ in nothing but the seed stand together -> {what differs: runs}"""
    settings_of = []
    for run in loaded:
        trained = {name: as_number(value) for name, value in run['trained'].items() if name not in IGNORED}
        settings_of.append({**trained, **run['sampling']})
    first = settings_of[0]
    common = {name for name in first if all(name in s and s[name] == first[name] for s in settings_of)}
    groups = defaultdict(list)
    for run, values in zip(loaded, settings_of):
        differs = [f'{name}={value}' for name, value in sorted(values.items()) if name not in common]
        groups[', '.join(differs) or 'all alike'].append(run)
    return groups


def scores_of(loaded):
    """the scores of `ask` that at least one run has -> [(row, score)]"""
    rows = dict.fromkeys(name for run in loaded for name in run['rows'])
    scores = []
    for part in ask.split(','):
        row, _, score = part.strip().rpartition(':')
        for name in rows:
            if row in (name, name.split(': ')[-1]) and any(has(run, name, score) for run in loaded):
                scores.append((name, score))
    if not scores:
        names = ', '.join(dict.fromkeys(score for run in loaded for score in run['heads']))
        raise ValueError(f'ask={ask!r}: no run has any of these. Rows: {", ".join(rows)}; scores: {names}')
    return scores


def has(run, row, score):
    return isinstance(run['rows'].get(row, {}).get(score), dict)


def pooled(group, row, score):
    """-> {"mean", "low", "high"}: the 95% interval of one run, the range of several seeds; None without a score"""
    values = [run['rows'][row][score] for run in group if has(run, row, score)]
    if len(values) < 2:
        return values[0] if values else None
    means = [value['mean'] for value in values]
    return {'mean': float(np.mean(means)), 'low': min(means), 'high': max(means)}


def shown(group, row, score):
    """-> a cell of the table"""
    value = pooled(group, row, score)
    return '-' if value is None else interval(value, percent=score in group[0]['heads'])


def number(group):
    """-> the setting `against` of a group"""
    value = as_number(group[0]['trained'].get(against))
    if not isinstance(value, (int, float)):
        raise ValueError(
            f'against={against!r} is {value!r} in one of them. Name a setting of train.py that is a number'
        )
    return value


def points(groups, row, score):
    """-> x, mean, low and high (groups,) in the order of x, proportions in %"""
    found = []
    for group in groups.values():
        value = pooled(group, row, score)
        if value is not None:
            scale = 100 if score in group[0]['heads'] else 1
            found.append((number(group), scale * value['mean'], scale * value['low'], scale * value['high']))
    return np.array(sorted(found)).T


def draw(groups, scores, heads):
    """the picture: a panel for each score, against the setting"""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(scores), 3.4), layout='constrained')
    for ax, (row, score) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores):
        x, mean, low, high = points(groups, row, score)
        errors = np.maximum([mean - low, high - mean], 0)  # rounding stays inside
        ax.errorbar(x, mean, errors, fmt='o-', capsize=3)
        if min(x) > 0 and max(x) > 5 * min(x):
            ax.set_xscale('log')
            ax.set_xticks(x, [f'{v:g}' for v in x], minor=False)
            ax.set_xticks([], minor=True)
        head = f'{heads[score]}, %' if score in heads else score
        ax.set(xlabel=against, title=f'{row}\n{head}', ylim=(0, None))
        ax.grid(alpha=0.3)
    save(picture, lambda f: figure.savefig(f, dpi=120, format=Path(picture).suffix[1:] or 'png'))
    print(f'picture: {picture}')


def main():
    if not runs:
        raise ValueError('nothing to compare. Name the out_dir of some runs: python -m bench.compare out-a out-b')
    loaded = [load(run) for run in dict.fromkeys(runs)]
    groups = grouped(loaded)
    scores = scores_of(loaded)
    heads = {score: head for run in loaded for score, head in run['heads'].items()}
    columns = [f'{row}, {heads.get(score, score)}' for row, score in scores]
    print('| ' + ' | '.join(['what differs', 'seeds', *columns]) + ' |')
    print('|---|---|' + '---|' * len(scores))
    for differs, group in groups.items():
        cells = [shown(group, row, score) for row, score in scores]
        print('| ' + ' | '.join([differs, str(len(group)), *cells]) + ' |')
    print('proportions in %; [95% interval] of one run, [least, most] of several seeds')
    if against:
        draw(groups, scores, heads)


if __name__ == '__main__':
    main()
