"""
Scores without a simulator: what a policy would do at every step of the episodes of a split, beside what was done.
Errors are means over the steps of an episode (action_errors.py), scores means over episodes, with intervals by the
bootstrap over episodes.

Does it listen? The same with nothing asked, and with what another episode is asked: where the error does not rise, what
is asked is ignored.
"""

import numpy as np

from data import metrics
from data.metrics import interval
from data.pictures import save_figure
from data.prepared import Prepared
from nanopilot.action_errors import DECADES, MEASURES, REPEAT, bd_word, curve_spans, errors, ways_to_ask
from nanopilot.conditions import one_of

FEW = 20  # episodes that say little


def evaluate(policy, split, episodes, pictures, seed):
    """
    Print the tables and the verdict for episodes, those of a Prepared split, and draw <pictures>_offline.png.

    -> {'rows': of each way to ask and baseline the scores, by dimension or action and by step, 'rises' of the error
    with another's prompt or bd, 'gains': how much larger the baselines' are, 'verdict': lines}
    """
    episodes = [{**e, 'prompt': None} for e in episodes]
    if policy.config.text_len:
        rng = np.random.default_rng(seed)
        with_words = [e for e in episodes if e['text']]
        episodes = [{**e, 'prompt': one_of(e['text'], rng)} for e in with_words] or episodes
    check(policy, split, episodes)
    measure = MEASURES[policy.config.head](policy, Prepared(split.folder, 'train'))
    ways = ways_to_ask(policy, split, episodes, seed)
    row_errors = errors(policy, measure, split, ways)
    rows = [row_of(name, of_row, measure) for name, of_row in row_errors.items()]
    rises, gains = rises_of(policy, measure, row_errors), gains_of(measure, row_errors)
    print_table(measure, rows)
    print_parts(measure, rows)
    lines = verdict(policy, rises, gains)
    print('\n' + '\n'.join(lines))
    spans = curve_spans(split.length[[e['number'] for e in episodes]].max())
    draw(f'{pictures}_offline.png', measure, row_errors, rows, spans)
    return {'rows': rows, 'rises': rises, 'gains': gains, 'verdict': lines}


def check_names(policy, meta, folder):
    """refuse prepared data, by their meta.json, of other observations, actions or bd than a policy was trained on"""
    for name in 'obs_names', 'act_names', 'bd_names':
        if meta[name] != policy.data_spec[name]:
            raise ValueError(f"{folder}: {name} differ from those of the policy's training. Set --data_dir")


def check(policy, split, episodes):
    """refuse a split that is not of the data that the policy was trained on"""
    check_names(policy, split.meta, split.folder)
    if not episodes:
        raise ValueError(f'{split.folder} has no episodes in its {split.split} split. Prepare it with a larger share')
    longest = split.length[[e['number'] for e in episodes]].max()
    most = policy.config.max_steps * policy.config.chunk
    if longest > most:
        raise ValueError(f'{split.folder} has an episode of {longest} steps, the policy knows {most}. Set --data_dir')


def row_of(name, of_row, measure):
    """-> a row of the table: scores, and the main ones by step and by dimension or action"""
    row = {'name': name, **{key: score(of_row[key]['all']) for key in measure.titles}}
    decades = of_row[measure.compared]['decades'].T
    row['by step'] = {decade(*d): score(x) for d, x in zip(DECADES, decades) if not np.isnan(x).all()}
    parts = of_row[measure.shown_by_part]['parts'].T
    row[f'by {measure.part}'] = {part: score(x) for part, x in zip(measure.parts, parts)}
    return row


def score(values):
    """of those episodes that have one"""
    return metrics.bootstrap(values[~np.isnan(values)])


def decade(first, end):
    return f'{first + 1} to {end}' if end else f'from {first + 1}'


def rises_of(policy, measure, row_errors):
    """-> {(what, beside what): how much the main score rises with another's, in each episode}, where that is known"""
    target = bd_word(policy)
    pairs = {
        ('prompt', ''): 'prompt',
        ('prompt', target): f'prompt and {target}',
        (target, ''): target,
        (target, 'prompt'): f'prompt and {target}',
    }
    rises = {}
    for (what, beside), right in pairs.items():
        wrong = right.replace(what, f"another's {what}")
        if right in row_errors and wrong in row_errors:
            difference = row_errors[wrong][measure.compared]['all'] - row_errors[right][measure.compared]['all']
            rises[f'{what} beside {beside}' if beside else what] = score(difference)
    return rises


def gains_of(measure, row_errors):
    """-> {baseline: how much larger its main score is than the policy's, in each episode}"""
    policy_errors = next(iter(row_errors.values()))[measure.compared]['all']
    return {
        name: score(row_errors[name][measure.compared]['all'] - policy_errors) for name in (REPEAT, measure.constant)
    }


def verdict(policy, rises, gains):
    """does it listen, and is it better than who knows less? -> lines"""
    lines = []
    for name, gain in gains.items():
        if gain['low'] <= 0:
            lines.append(f'WARNING: the policy is no better than "{name}" ({difference(gain)})')
    inputs = ['prompt'] * (policy.config.text_len > 0) + [bd_word(policy)] * (policy.config.n_bd > 0)
    for name in inputs:
        if not any(key.split(' beside ')[0] == name for key in rises):
            lines.append(f'whether it listens cannot be told: no episode is asked for another {name}')
    return lines + [listens(name, rise) for name, rise in rises.items()]


def listens(name, rise):
    """name: a key of rises -> a line"""
    what, _, beside = name.partition(' beside ')
    words = {'prompt': 'words'}.get(what, what)
    given = f'given the {beside}, ' if beside else ''
    if rise['low'] > 0:
        return f"{given}the policy listens to the {words}: the error rises with another's {what} ({difference(rise)})"
    if rise['high'] < 0:
        verb, why = 'mislead', f"the error falls with another's {what}"
    else:
        verb, why = 'are ignored', f"the error is the same with another's {what}"
    if words != 'words':
        verb = {'mislead': 'misleads', 'are ignored': 'is ignored'}[verb]
    return f'WARNING: {given}the {words} {verb}: {why} ({difference(rise)})'


def difference(change):
    few = ', too few to be sure' if change['n'] < FEW else ''
    return f'difference {interval(change, False, 4)}, {change["n"]} episodes{few}'


def print_table(measure, rows):
    steps = list(rows[0]['by step'])
    heads = [measure.titles[measure.compared], *(f'.. steps {s}' for s in steps)]
    others = [key for key in measure.titles if key != measure.compared]
    heads += [measure.titles[key] for key in others]
    print('\n| offline, one step ahead | n | ' + ' | '.join(heads) + ' |\n|---|---|' + '---|' * len(heads))
    for row in rows:
        scores = [row[measure.compared], *(row['by step'].get(s) for s in steps), *(row[key] for key in others)]
        cells = ' | '.join(interval(s, False, 3) if s else '-' for s in scores)
        print(f'| {row["name"]} | {row[measure.compared]["n"]} | {cells} |')


def print_parts(measure, rows):
    """what of the policy and the baselines is told of each dimension or action"""
    rows = policy_and_baselines(measure, rows)
    title = f'{measure.titles[measure.shown_by_part]} by {measure.part}'
    print(f'\n| {title} | ' + ' | '.join(row['name'] for row in rows) + ' |')
    print('|---|' + '---|' * len(rows))
    for part in measure.parts:
        scores = [row[f'by {measure.part}'][part] for row in rows]
        if scores[0]['n']:
            print(f'| {part} | ' + ' | '.join(interval(s, False, 3) for s in scores) + ' |')


def policy_and_baselines(measure, rows):
    return [row for i, row in enumerate(rows) if not i or row['name'] in (REPEAT, measure.constant)]


def draw(picture, measure, row_errors, rows, spans):
    """a PNG: the main score by step, and by dimension or action, with another's prompt or bd, and of baselines, too"""
    from matplotlib.figure import Figure

    greys = {REPEAT: '0.45', measure.constant: '0.75'}
    others = [row['name'] for row in rows[1:] if "another's" in row['name']]
    colours = {rows[0]['name']: 'C0', **{name: f'C{i}' for i, name in enumerate(others, 1)}, **greys}
    rows = [row for row in rows if row['name'] in colours]
    figure = Figure(figsize=(12, 4.2), layout='constrained')
    by_step, by_part = figure.subplots(1, 2)
    middles = np.array([(first + end + 1) / 2 for first, end in spans])
    for name in colours:
        curve = row_errors[name][measure.compared]['curve']
        reached = ~np.isnan(curve).all(0)
        by_step.plot(middles[reached], np.nanmean(curve[:, reached], 0), '.-', label=name, color=colours[name])
    by_step.set(xlabel='step of the episode', ylabel=measure.titles[measure.compared], ylim=(0, None))
    figure.legend(loc='outside upper center', ncols=4, fontsize=9, frameon=False)
    draw_parts(by_part, measure, rows, colours)
    save_figure(picture, figure)
    print(f'picture: {picture}')


def draw_parts(ax, measure, rows, colours):
    """bars with intervals"""
    width = 0.8 / len(rows)
    x = np.arange(len(measure.parts))
    for i, row in enumerate(rows):
        scores = [row[f'by {measure.part}'][part] for part in measure.parts]
        mean, low, high = (np.array([s[key] for s in scores]) for key in ('mean', 'low', 'high'))
        error = np.maximum([mean - low, high - mean], 0)  # of a bootstrap, the mean may lie outside
        ax.bar(x + (i + 0.5) * width - 0.4, mean, width, yerr=error, color=colours[row['name']], error_kw={'lw': 0.8})
    ax.set_xticks(x, measure.parts, rotation=30 if len(x) > 6 else 0, fontsize=8)
    ax.set(xlabel=measure.part, ylabel=measure.titles[measure.shown_by_part])
