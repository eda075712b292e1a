"""
How well does a policy do what it is asked? Rollouts for the episodes of a split, scored as in scoring.py; tables, a
verdict, pictures of what went wrong.

A row of the table is a Condition. The episodes, and so the seeds, are the same from row to row; every score is
a mean over all of them, with its 95% interval and n. What was asked of an episode, its `request`, is for the data
set alone to read: score, tags, loosened (data/README.md).
"""

import sys
from collections import Counter, defaultdict
from itertools import zip_longest

import numpy as np

from data.metrics import interval
from nanopilot import offline
from nanopilot.conditions import DRAWN, also_drawn, conditions_of, free_rows, free_sentences, readable_episodes
from nanopilot.returns import returns
from nanopilot.rollout import annotated, dataset_of, draw
from nanopilot.scoring import measured, possible_rows, score_conditions, score_kinds, scores_rollouts

TEST_SEEDS = 1_000_000  # added to the seeds of environments
OFFLINE = 'offline'  # the row of scores without rollouts
SCORES = {'success': 'success'}  # column heads, where a data set names none
ENDS = {
    'bd_error': 'bd error',
    'bd_error_median': 'median bd error',
    'within_5': 'within 5%',
    'within_10': 'within 10%',
    'bd_error_best': 'best sample',
}


def evaluate(policy, split, pictures, n_episodes=400, samples=1, only=(), drawn_at=0.0, **sampling):
    """
    Score a Prepared split in every condition, or in those named in only, n_episodes of each source at most (0:
    all); print the tables and the verdict, and draw a sheet of episodes and one of failures to <pictures>.png and
    <pictures>_failures.png. Without rollouts to score, offline alone. drawn_at: a temperature at which actions are
    drawn in further rows, 0: there are none.

    -> {'rows': the scores, 'kinds': how the prompts ended, counted, 'rollouts': those for a prompt alone, 'offline':
    what offline.evaluate returns}
    """
    seed, episodes = sampling['seed'], readable_episodes(split, policy)
    results = {'rows': [], 'kinds': {}, 'rollouts': []}
    for source in split.meta['sources']:
        warn_of_unreadable(policy, source, [e for e in episodes if e['source'] == source])
    if scores_rollouts(policy):
        results = evaluate_rollouts(policy, split, episodes, pictures, n_episodes, samples, only, drawn_at, **sampling)
    else:
        wanted_rows(only, [OFFLINE])
        print(
            f'{split.split} split, step {policy.info["step"]}; no rollouts: no environment, or nothing to score them by'
        )
    if not only or OFFLINE in only:
        chosen = some_of_each(split.meta['sources'], episodes, n_episodes, seed)
        results['offline'] = offline.evaluate(policy, split, chosen, pictures, seed)
    return results


def some_of_each(sources, episodes, n, seed):
    """n readable episodes of each source, drawn; 0: all"""
    rng = np.random.default_rng([seed, 3])
    shuffled = [episodes[i] for i in rng.permutation(len(episodes)) if episodes[i]['novel'] != 'longer']
    chosen = []
    for source in sources:
        of_source = [e for e in shuffled if e['source'] == source]
        chosen += of_source[: n or None]
    return chosen


def evaluate_rollouts(policy, split, episodes, pictures, n_episodes, samples, only, drawn_at, **sampling):
    """evaluate's part for which there are rollouts; episodes: all readable ones of the split"""
    dataset, sources = dataset_of(policy), split.meta['sources']
    measures = getattr(dataset, 'MEASURES', {})
    conditions = conditions_by_source(policy, sources, episodes, n_episodes, sampling['seed'])
    typed = free_rows(policy, split.split)
    free = [free_sentences(policy, which, name) for name, which in typed.items() if not only or name in only]
    no_row = {condition.name for condition in free if not condition.episodes}
    environments = {'unseen starts': {}, **getattr(dataset, 'VARIANTS', {})} if measures else {}
    row_names = [OFFLINE, *environments, *(name for name in typed if name not in no_row)]
    row_names += [condition.name for of_source in conditions.values() for condition in of_source]
    row_names += ['returns'] * ('discount' in policy.data_spec)
    wanted = wanted_rows(only, row_names)

    rows, driven = rows_of_sources(policy, conditions, wanted, samples, drawn_at, **sampling)
    for condition in also_drawn(free, drawn_at):
        rows += score_kinds(policy, condition, samples, **sampling)
    # where nothing but a seed is asked, the test's seeds are not those that train.py has logged scores of
    fresh = {**sampling, 'seed': sampling['seed'] + TEST_SEEDS} if split.split == 'test' else sampling
    measured_rows = []
    for name in [name for name in environments if name in wanted]:
        picture = f'{pictures}_{name.replace(" ", "_")}.png'
        measured_rows.append(measured(policy, name, environments[name], n_episodes or 400, picture, **fresh))
    return_rows = returns(policy, n_episodes or 100, pictures, **sampling) if 'returns' in wanted else []

    print(f'{split.split} split, step {policy.info["step"]}; mean [95% interval], in %')
    print(table('what the words ask', getattr(dataset, 'SCORES', SCORES), rows), end='')
    print(table('where it ends, in % of the diagonal', ENDS, rows), end='')
    print(table('driven', measures, measured_rows), end='')
    kinds = count_kinds(driven)
    for source, counted in kinds.items():
        if counted:
            print(f'\n{source}, prompt: ' + ', '.join(f'{n} {kind}' for kind, n in counted.items()))
    print(verdict(rows, sources) + (verdict(rows, sources, DRAWN.format(drawn_at)) if drawn_at else ''))
    if driven:
        sheets(policy, driven, pictures)
    return {'rows': rows + measured_rows + return_rows, 'kinds': kinds, 'rollouts': driven}


def conditions_by_source(policy, sources, episodes, n, seed):
    """-> {source: conditions_of n of its readable episodes, shuffled}"""
    rng = np.random.default_rng(seed)
    conditions = {}
    for source in sources:
        shuffled = [episodes[i] for i in rng.permutation(len(episodes))]
        conditions[source] = conditions_of(policy, [e for e in shuffled if e['source'] == source], n, seed, rng)
    return conditions


def wanted_rows(only, row_names):
    """-> a set: the rows named in only, or all of row_names; ValueError where one is not"""
    unknown = sorted(set(only) - set(row_names))
    if unknown:
        possible = ', '.join(sorted(set(row_names)))
        raise ValueError(f'rows={", ".join(only)}: there is no {unknown[0]!r}. There are: {possible}')
    return set(only or row_names)


def rows_of_sources(policy, conditions, wanted, samples, drawn_at, **sampling):
    """
    conditions: {source: Conditions} -> rows of scores, of those that are wanted and have episodes; the first rollout of
    each episode for its prompt alone, as of with_rollout
    """
    jobs = []
    for source, of_source in conditions.items():
        chosen = [condition for condition in of_source if condition.episodes and condition.name in wanted]
        jobs += [(source, condition) for condition in also_drawn(chosen, drawn_at)]
    scored = score_conditions(policy, [condition for _, condition in jobs], samples, **sampling)
    rows, first = [], []
    for (source, condition), (scores, verdicts, driven) in zip(jobs, scored):
        name = f'{source}: {condition.name}'
        rows.append({'name': name, **scores})
        rows += possible_rows(policy, name, condition, verdicts, driven)
        if condition.name == 'prompt':
            triples = zip(condition.episodes, driven, verdicts)
            first += [with_rollout(e, samples_of[0], verdict[0]) for e, samples_of, verdict in triples]
    return rows, first


def count_kinds(rollouts):
    """how rollouts, dicts of with_rollout, ended -> {source: {kind: how many}}, most first"""
    kinds = {}
    for source in dict.fromkeys(r['source'] for r in rollouts):
        of_source = [r['kind'] for r in rollouts if r['source'] == source and r['kind']]
        kinds[source] = dict(Counter(of_source).most_common())
    return kinds


def warn_of_unreadable(policy, source, episodes):
    n = sum(not e['text'] for e in episodes if e['novel'] != 'longer')
    if policy.config.text_len and n:
        why = "their descriptions are longer than the model's text_len"
        print(f'{source}: {n} episodes left out, {why}', file=sys.stderr)


def with_rollout(episode, rolled, verdict):
    """an episode of a split and a rollout for its prompt -> what pictures and judges need of both"""
    return {
        **rolled,
        'prompt': episode['prompt'],
        'bd': None,
        'reference': episode['path'],
        'kind': verdict.get('kind'),
        'verdict': verdict,
        'source': episode['source'],
        'request': episode['request'],
        'group': episode['group'],
    }


def table(title, heads, rows):
    """the scores that heads, {score: column head}, name, as Markdown; nothing where no row has any of them"""

    def cell(row, name, n):
        if name not in row:
            return '-'
        few = f' of {row[name]["n"]}' if row[name]['n'] != n else ''
        return interval(row[name]) + few

    heads = {name: head for name, head in heads.items() if any(name in row for row in rows)}
    if not heads:
        return ''
    lines = [f'| {title} | n | ' + ' | '.join(heads.values()) + ' |', '|---|---|' + '---|' * len(heads)]
    for row in rows:
        n = next((row[name]['n'] for name in heads if name in row), 0)
        if n:
            lines.append(f'| {row["name"]} | {n} | ' + ' | '.join(cell(row, name, n) for name in heads) + ' |')
    return '\n' + '\n'.join(lines) + '\n'


def verdict(rows, sources, drawn=''):
    """does it listen? drawn: what names of the rows end in"""
    success = {row['name']: row['success'] for row in rows if 'success' in row}
    lines = []
    for source in sources:
        right, wrong = (success.get(f'{source}: {condition}{drawn}') for condition in ('prompt', 'swapped prompt'))
        if not (right and wrong):
            continue
        if right['low'] > wrong['high']:
            both = (
                f"success {100 * right['mean']:.0f}% with the right prompt, {100 * wrong['mean']:.0f}% with another's"
            )
            lines.append(f'\n{source}{drawn}: the policy listens: {both}')
        else:
            same = 'right and swapped prompts score within their intervals'
            lines.append(f'\n{source}{drawn}: WARNING: the policy may be ignoring the prompt: {same}')
    return ''.join(lines)


def sheets(policy, rollouts, pictures, n=12):
    """a picture of the first n rollouts, and one of up to n failures, some of every kind"""
    failed = defaultdict(list)
    for r in rollouts:
        if not r['verdict'].get('success', True):
            failed[r['kind']].append(r)
    # the first of every kind, then the second of every kind
    failures = [r for nth in zip_longest(*failed.values()) for r in nth if r]
    draw(policy, f'{pictures}.png', annotated(policy, rollouts[:n]))
    draw(policy, f'{pictures}_failures.png', annotated(policy, failures[:n]))
