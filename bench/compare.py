"""
Compare runs that sample_policy.py --eval has scored: what differs between them, what they score, a picture of it.

$ python sample_policy.py --out_dir=out-a --eval=val           # for each of them, then
$ python compare.py out-a out-b out-c                          # a table, in Markdown
$ python compare.py out-a out-b --against=data_fraction           # also a picture: the scores against a setting. Mind the =
"""

import config as settings  # first: it turns mistakes into one line

import importlib
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from data.pictures import save
from nanopilot.evaluate import ENDS, WORDS

# ------------------------------------------------------------------------------
split = 'val'  # which evaluation of theirs: 'val', 'test'
ask = 'prompt:carried_out,prompt:in_order,prompt and bd:bd_error_median,prompt and bd:landmark_f1'  # scores to show: row:score, of every source
against = ''  # a setting of train.py: also draw the scores against it
picture = 'compare.png'  # where to
runs = list(dict.fromkeys(a for a in sys.argv[1:] if not a.startswith('-')))
sys.argv = [a for a in sys.argv if a not in runs]
globals().update(settings.read(globals(), __file__))
IGNORED = {
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
}  # differences that are none
SHARES = {**WORDS, **ENDS}
# ------------------------------------------------------------------------------


def load(run):
    file = Path(run) / f'eval_{split}.json'
    if not file.is_file():
        raise FileNotFoundError(f'no {file}. Make it: python sample_policy.py --out_dir={run} --eval={split}')
    try:
        found = json.loads(file.read_text())
        how = {
            k: found['settings'][k] for k in ('checkpoint', 'guidance', 'temperature', 'num_samples', 'eval_episodes')
        }
        SHARES.update(getattr(importlib.import_module(f'data.{found["trained"]["dataset"]}'), 'MEASURES', {}))
        return {'trained': found['trained'], 'how': how, 'rows': {row['name']: row for row in found['rows']}}
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'{file} is damaged, or of an older version. Make it again: python sample_policy.py --out_dir={run} --eval={split}'
        ) from None


def grouped(loaded):
    """runs that differ in nothing but the seed stand together -> {what differs: runs}"""

    def said(run):
        return {**{k: v for k, v in run['trained'].items() if k not in IGNORED}, **run['how']}

    every = [said(run) for run in loaded]
    common = {k for k in every[0] if all(k in e and e[k] == every[0][k] for e in every)}
    groups = defaultdict(list)
    for run, e in zip(loaded, every):
        groups[', '.join(f'{k}={v}' for k, v in sorted(e.items()) if k not in common) or 'all alike'].append(run)
    return groups


def scores_of(loaded):
    """the scores asked for that some run has -> [(row, score)]"""
    wanted = [part.strip().rpartition(':') for part in ask.split(',')]
    names = dict.fromkeys(name for run in loaded for name in run['rows'])
    found = [
        (name, score)
        for row, _, score in wanted
        for name in names
        if row in (name, name.split(': ')[-1])
        and any(isinstance(run['rows'].get(name, {}).get(score), dict) for run in loaded)
    ]
    if not found:
        raise ValueError(f'ask={ask!r}: no run has any of these. Rows: {", ".join(names)}; scores: {", ".join(SHARES)}')
    return found


def value(group, name, score):
    """-> mean, low, high, shares in %: the 95% interval of one run, the range of several seeds; None where it was not scored"""
    each = [run['rows'][name][score] for run in group if score in run['rows'].get(name, {})]
    if not each:
        return None
    means, unit = [s['mean'] for s in each], 100 if score in SHARES else 1
    found = (means[0], each[0]['low'], each[0]['high']) if len(each) == 1 else (np.mean(means), min(means), max(means))
    return tuple(unit * x for x in found)


def draw(groups, scores):
    from matplotlib.figure import Figure

    def number(group):
        at = group[0]['trained'].get(against)
        if not isinstance(at, (int, float)):
            raise ValueError(
                f'against={against!r} is {at!r} in one of them: to draw against it takes a setting of train.py that is a number'
            )
        return at

    figure = Figure(figsize=(3.6 * len(scores), 3.4), layout='constrained')
    for ax, (name, score) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores):
        points = sorted((number(group), *shown) for group in groups.values() if (shown := value(group, name, score)))
        x, mean, low, high = np.array(points).T
        ax.errorbar(x, mean, np.maximum([mean - low, high - mean], 0), fmt='o-', capsize=3)  # rounding stays inside
        if min(x) > 0 and max(x) > 5 * min(x):
            ax.set_xscale('log')
            ax.set_xticks(x, [f'{v:g}' for v in x], minor=False)
            ax.set_xticks([], minor=True)
        ax.set(
            xlabel=against, title=f'{name}\n' + (f'{SHARES[score]}, %' if score in SHARES else score), ylim=(0, None)
        )
        ax.grid(alpha=0.3)
    save(picture, lambda f: figure.savefig(f, dpi=120, format=Path(picture).suffix[1:] or 'png'))
    print(f'picture: {picture}')


def main():
    if split not in ('val', 'test'):
        raise ValueError(f"split={split!r} is not known: 'val' or 'test'")
    if not runs:
        raise ValueError('nothing to compare. Name the out_dir of some runs: python compare.py out-a out-b')
    loaded = [load(run) for run in runs]
    groups, scores = grouped(loaded), scores_of(loaded)
    print(
        '| what differs | seeds | ' + ' | '.join(f'{name}, {SHARES.get(score, score)}' for name, score in scores) + ' |'
    )
    print('|---|---|' + '---|' * len(scores))
    for what, group in groups.items():
        shown = [value(group, name, score) for name, score in scores]
        print(
            f'| {what} | {len(group)} | '
            + ' | '.join('-' if v is None else f'{v[0]:.1f} [{v[1]:.1f}, {v[2]:.1f}]' for v in shown)
            + ' |'
        )
    print('shares in %; [95% interval] of one run, [least, most] of several seeds')
    if against:
        draw(groups, scores)


if __name__ == '__main__':
    main()
