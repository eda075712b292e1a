"""
How well does a policy do what it is asked? Rollouts for the episodes of a split, scored; tables, a verdict,
pictures of what went wrong.

A row of the table is a Condition. The episodes, and so the seeds, are the same from row to row; every score is
a mean over all of them, with its 95% interval and n. What was asked of an episode, its `request`, is for the data
set alone to read: score, tags, loosened (data/README.md).
"""

import sys
from collections import Counter, defaultdict
from itertools import zip_longest

import numpy as np

from data import metrics
from data.contract import has_environment, part
from data.metrics import interval
from data.pictures import save
from data.prepared import SPLITS, Prepared
from nanopilot import offline
from nanopilot.conditions import (
    DRAWN,
    Condition,
    also_drawn,
    conditions_of,
    free_rows,
    free_sentences,
    its_prompt,
    no_prompt,
    one_of,
    readable_episodes,
)
from nanopilot.rollout import annotated, dataset_of, draw, rollout, rollouts

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


# ------------------------------------------------------------------------------
# scores


def score(policy, condition, samples=1, **sampling):
    """score_conditions of one of them"""
    return next(score_conditions(policy, [condition], samples, **sampling))


def score_conditions(policy, conditions, samples=1, **sampling):
    """
    yields for each condition, of its rollouts, or of the episodes themselves: a dict of scores, each a dict of
    metrics.py; for each episode and sample what the data set's score says of it, {} where nothing does; the rollouts,
    or of the episodes themselves their paths
    """
    jobs = [
        (condition.requests(samples), condition.env_kwargs, condition.temperature)
        for condition in conditions
        if condition.prompt_of
    ]
    done = rollouts(policy, jobs, **sampling)
    for condition in conditions:
        driven = [[{'path': e['path'], 'told': {}}] for e in condition.episodes]
        if condition.prompt_of:
            rolled = next(done)
            driven = [rolled[i : i + samples] for i in range(0, len(rolled), samples)]
        paths, told = ([[r[name] for r in some] for some in driven] for name in ('path', 'told'))
        scores, verdicts, _ = score_paths(policy, condition.episodes, paths, told)
        yield scores, verdicts, driven


def score_paths(policy, episodes, paths, told=None):
    """
    paths: those of each episode's samples; told: what the environment said of each, dicts, None: it says nothing
    -> scores, verdicts, as of score_conditions, and paths
    """
    told = told or [[{}] * len(some) for some in paths]
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    scores = end_scores(policy, episodes, paths)
    verdicts = [[{} for _ in some] for some in paths]
    if episodes[0]['request'] and hasattr(dataset, 'score'):
        verdicts = []
        for e, some, said in zip(episodes, paths, told):
            begins = begins_at(e)
            pairs = zip(some, said)
            verdicts.append([dataset.score(e['request'], p[begins:], e['path'], kwargs, **s) for p, s in pairs])
        scores |= request_scores(verdicts)
    if not scores:
        part(dataset, 'score')
    return scores, verdicts, paths


def begins_at(episode):
    """the step at which an episode's own request is asked: what it was asked before does not count"""
    return episode['change'][0] if 'change' in episode else 0


def end_scores(policy, episodes, paths):
    """where rollouts end, paths: those of each episode's samples, beside where the episode did"""
    low, high = policy.data_spec['bd_low'], policy.data_spec['bd_high']
    if not low or episodes[0]['bd'] is None:  # nothing is known to end where it should
        return {}
    errors = np.array(
        [metrics.bd_error([p[-1] for p in some], [e['bd']] * len(some), low, high) for e, some in zip(episodes, paths)]
    )  # (n, samples)
    mean = errors.mean(1)
    scores = {
        'bd_error': metrics.bootstrap(mean),
        'bd_error_median': metrics.bootstrap(mean, np.median),
        'within_5': metrics.proportion(mean <= 0.05),
        'within_10': metrics.proportion(mean <= 0.1),
    }
    if errors.shape[1] > 1:
        scores['bd_error_best'] = metrics.bootstrap(errors.min(1))
    return scores


def request_scores(verdicts):
    """
    of what the data set's score says of each episode and sample: the shares, and the yes or no, that it says of all
    of them
    """
    scores = {}
    for name, value in verdicts[0][0].items():
        if isinstance(value, (bool, float)) and all(name in v for some in verdicts for v in some):
            values = [np.mean([v[name] for v in some]) for some in verdicts]
            yes_or_no = isinstance(value, bool) and all(len(some) == 1 for some in verdicts)
            scores[name] = metrics.proportion(values) if yes_or_no else metrics.bootstrap(values)
    return scores


def rollout_score(policy, split, n, seed=1337):
    """
    how well a checkpoint of train.py does: the success of rollouts for n prompts of a split; of a data set without,
    minus the mean bd error; None where the split asks for nothing that it can read
    """
    if hasattr(dataset_of(policy), 'measure'):
        return measured(policy, 'unseen starts', {}, n, seed=seed)['success']['mean']
    rng = np.random.default_rng(seed)
    language = policy.config.text_len > 0
    episodes = [e for e in readable_episodes(split, policy) if e['text'] or not language]
    if not episodes:
        return None
    episodes = list({e['group']: e for e in episodes}.values())  # nothing is asked twice
    episodes = [episodes[i] for i in rng.permutation(len(episodes))[:n]]
    if language:
        condition = Condition('rollouts', [{**e, 'prompt': one_of(e['text'], rng)} for e in episodes])
    else:
        condition = Condition('rollouts', episodes, no_prompt, True)
    scores, _, _ = score(policy, condition, seed=seed)
    if 'success' in scores:
        return scores['success']['mean']
    if 'bd_error' not in scores:
        part(dataset_of(policy), 'score')
    return -scores['bd_error']['mean']


def rollout_scores(policy, split, n, seed=1337):
    """
    what train.py logs of n rollouts -> {'rollout': rollout_score, 'free': the success of n of what people typed, where
    the data set has that}
    """
    if not scores_rollouts(policy):
        return {}
    scores = {}
    score_of_split = rollout_score(policy, split, n, seed)
    if score_of_split is not None:
        scores['rollout'] = score_of_split
    free = free_sentences(policy, split.split)
    if free.episodes:
        some = np.random.default_rng(seed).permutation(len(free.episodes))[:n]
        condition = Condition(free.name, [free.episodes[i] for i in some])
        scores['free'] = score(policy, condition, seed=seed)[0]['success']['mean']
    return scores


def scores_rollouts(policy):
    """is there something to act in, and to say of it: where it should end, what was asked, or what is measured?"""
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    known = policy.data_spec['bd_low'] or hasattr(dataset, 'score') or hasattr(dataset, 'measure')
    return bool(known) and has_environment(dataset, kwargs)


def score_kinds(policy, condition, samples=1, **sampling):
    """rows of the scores of a condition and of every kind of its episodes; none where it has no episodes"""
    if not condition.episodes:
        return []
    scores, verdicts, _ = score(policy, condition, samples, **sampling)
    rows = [{'name': condition.name, **scores}]
    for kind in dict.fromkeys(e['kind'] for e in condition.episodes):
        of_kind = [some for e, some in zip(condition.episodes, verdicts) if e['kind'] == kind]
        rows.append({'name': f'{condition.name}: {kind}', **request_scores(of_kind)})
    return rows


def measured(policy, name, changes, n, picture=None, **sampling):
    """
    n rollouts from new seeds, nothing asked, in an environment with changes -> a row of what the data set measures;
    a picture of some
    """
    kwargs = {**policy.data_spec['env_kwargs'], **changes}
    seeds = sampling['seed'] + np.arange(n)
    episodes = rollout(policy, [None] * n, [None] * n, seeds, desc=name, env_kwargs=kwargs, **sampling)
    measures = part(dataset_of(policy), 'measure')(episodes, kwargs)
    if picture:
        some = [{**e, 'prompt': None, 'bd': None} for e in episodes[:12]]
        draw(policy, picture, annotated(policy, some, **changes), **changes)
    row = {'name': name}
    for key, value in measures[0].items():
        values = [m[key] for m in measures if m[key] == m[key]]  # nan: it does not apply
        row[key] = metrics.proportion(values) if isinstance(value, bool) else metrics.bootstrap(values)
    return row


# ------------------------------------------------------------------------------
# all of a split


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
    found = {'rows': [], 'kinds': {}, 'rollouts': []}
    for source in split.meta['sources']:
        warn_of_unreadable(policy, source, [e for e in episodes if e['source'] == source])
    if scores_rollouts(policy):
        found = drive(policy, split, episodes, pictures, n_episodes, samples, only, drawn_at, **sampling)
    else:
        check_rows(only, [OFFLINE])
        print(
            f'{split.split} split, step {policy.info["step"]}; no rollouts: no environment, or nothing to score them by'
        )
    if not only or OFFLINE in only:
        some = some_of_each(split.meta['sources'], episodes, n_episodes, seed)
        found['offline'] = offline.evaluate(policy, split, some, pictures, seed)
    return found


def some_of_each(sources, episodes, n, seed):
    """n readable episodes of each source, drawn; 0: all"""
    rng = np.random.default_rng([seed, 3])
    shuffled = [episodes[i] for i in rng.permutation(len(episodes)) if episodes[i]['novel'] != 'longer']
    return [e for source in sources for e in [e for e in shuffled if e['source'] == source][: n or None]]


def drive(policy, split, episodes, pictures, n_episodes, samples, only, drawn_at, **sampling):
    """evaluate's part for which there are rollouts; episodes: all readable ones of the split"""
    dataset, seed, sources = dataset_of(policy), sampling['seed'], split.meta['sources']
    measures = getattr(dataset, 'MEASURES', {})
    environments = {'unseen starts': {}, **getattr(dataset, 'VARIANTS', {})} if measures else {}
    has_returns = 'discount' in policy.data_spec
    rng = np.random.default_rng(seed)
    conditions = {}
    for source in sources:
        shuffled = [episodes[i] for i in rng.permutation(len(episodes))]
        of_source = [e for e in shuffled if e['source'] == source]
        conditions[source] = conditions_of(policy, of_source, n_episodes, seed, rng)
    typed = free_rows(policy, split.split)
    free = [free_sentences(policy, which, name) for name, which in typed.items() if not only or name in only]
    others = {OFFLINE, *environments, *typed} - {condition.name for condition in free if not condition.episodes}
    others |= {'returns'} if has_returns else set()
    check_rows(only, {condition.name for some in conditions.values() for condition in some} | others)

    chosen = {
        s: [condition for condition in conditions[s] if condition.episodes and (not only or condition.name in only)]
        for s in sources
    }
    asked = [(source, condition) for source in sources for condition in also_drawn(chosen[source], drawn_at)]
    rows, kinds, drawn = [], {}, []
    scored = score_conditions(policy, [condition for _, condition in asked], samples, **sampling)
    for (source, condition), (scores, verdicts, driven) in zip(asked, scored):
        rows.append({'name': f'{source}: {condition.name}', **scores})
        rows += possible_rows(policy, rows[-1]['name'], condition, verdicts, driven)
        if condition.name == 'prompt':
            first = [
                with_rollout(e, some[0], verdict[0]) for e, some, verdict in zip(condition.episodes, driven, verdicts)
            ]
            kinds[source] = dict(Counter(r['kind'] for r in first if r['kind']).most_common())
            drawn += first
    for condition in also_drawn(free, drawn_at):
        rows += score_kinds(policy, condition, samples, **sampling)
    # where nothing but a seed is asked, the test's seeds are not those that train.py has logged scores of
    fresh = {**sampling, 'seed': seed + TEST_SEEDS} if split.split == 'test' else sampling
    measured_rows = []
    for name, changes in environments.items():
        if not only or name in only:
            picture = f'{pictures}_{name.replace(" ", "_")}.png'
            measured_rows.append(measured(policy, name, changes, n_episodes or 400, picture, **fresh))
    return_rows = []
    if has_returns and (not only or 'returns' in only):
        return_rows = returns(policy, n_episodes or 100, pictures, **sampling)

    print(f'{split.split} split, step {policy.info["step"]}; mean [95% interval], in %')
    print(table('what the words ask', getattr(dataset, 'SCORES', SCORES), rows), end='')
    print(table('where it ends, in % of the diagonal', ENDS, rows), end='')
    print(table('driven', measures, measured_rows), end='')
    for source, counted in kinds.items():
        if counted:
            print(f'\n{source}, prompt: ' + ', '.join(f'{n} {kind}' for kind, n in counted.items()))
    print(verdict(rows, sources) + (verdict(rows, sources, DRAWN.format(drawn_at)) if drawn_at else ''))
    if drawn:
        sheets(policy, drawn, pictures)
    return {'rows': rows + measured_rows + return_rows, 'kinds': kinds, 'rollouts': drawn}


def possible_rows(policy, name, condition, verdicts, driven):
    """
    Elsewhere or later than it was shown, some of what is asked cannot be done: a row of the rollouts in which it was
    asked at all, and in which the data set's driver could have done it. Of other conditions, and of a data set without
    a driver, no row
    """
    dataset, env_kwargs = dataset_of(policy), condition.env_kwargs
    as_shown = env_kwargs is None and not any('change' in e for e in condition.episodes)
    scored = condition.episodes[0]['request'] and hasattr(dataset, 'score')
    if as_shown or not scored or not hasattr(dataset, 'possible'):
        return []
    begun, asked = [], []
    for e, some in zip(condition.episodes, driven):
        begins = begins_at(e)
        begun += [{'act': rolled['act'][:begins], 'seed': int(e['seed']), 'asked': e['request']} for rolled in some]
        asked += [len(rolled['act']) > begins for rolled in some]
    possible = dataset.possible(begun, env_kwargs or policy.data_spec['env_kwargs']) & asked
    kept = [[v for v, ok in zip(some, oks) if ok] for some, oks in zip(verdicts, possible.reshape(len(driven), -1))]
    kept = [some for some in kept if some]
    return [{'name': f'{name}, the possible ones', **request_scores(kept)}] if kept else []


def warn_of_unreadable(policy, source, episodes):
    n = sum(not e['text'] for e in episodes if e['novel'] != 'longer')
    if policy.config.text_len and n:
        why = "their descriptions are longer than the model's text_len"
        print(f'{source}: {n} episodes left out, {why}', file=sys.stderr)


def check_rows(only, known):
    unknown = sorted(set(only) - set(known))
    if unknown:
        known = ', '.join(sorted(set(known)))
        raise ValueError(f'rows={", ".join(only)}: there is no {unknown[0]!r}. There are: {known}')


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


def returns(policy, n, pictures, **sampling):
    """
    ask for the returns TARGETS of a data set, n episodes each -> rows with the 'return' that was achieved; a table
    and a picture of them
    """
    from scipy.stats import spearmanr

    rows, asked, achieved = [], [], []
    seeds = sampling['seed'] + np.arange(n)
    evenly = np.linspace(policy.data_spec['bd_low'][0], policy.data_spec['bd_high'][0], 6)
    targets = getattr(dataset_of(policy), 'TARGETS', evenly)
    print('| return asked for | n | achieved | least |\n|---|---|---|---|')
    for target in targets:
        episodes = rollout(policy, [None] * n, [[target]] * n, seeds, desc=f'return {target:g}', **sampling)
        got = [e['path'][-1, 0] for e in episodes]
        score = metrics.bootstrap(got)
        rows.append({'name': f'return {target:g}', 'return': score})
        print(f'| {target:g} | {score["n"]} | {interval(score, percent=False)} | {min(got):.0f} |')
        asked += [float(target)] * n
        achieved += got
    correlation = spearmanr(asked, achieved).statistic
    print(f"Spearman's rank correlation of asked and achieved, over {len(asked)} episodes: {correlation:.3f}\n")
    draw_returns(f'{pictures}_returns.png', np.array(targets), rows, n)
    return rows


def draw_returns(picture, targets, rows, n):
    """a PNG: the returns that were asked for, and those that were achieved"""
    from matplotlib.figure import Figure

    mean, low, high = (np.array([row['return'][k] for row in rows]) for k in ('mean', 'low', 'high'))
    figure = Figure(figsize=(4.5, 4), layout='constrained')
    ax = figure.subplots()
    ax.plot(targets, targets, color='0.7', label='as asked')
    ax.errorbar(targets, mean, [mean - low, high - mean], fmt='o-', capsize=3, label=f'achieved, mean of {n}')
    ax.set(xlabel='return asked for', ylabel='return')
    ax.legend()
    save(picture, lambda f: figure.savefig(f, dpi=120, format='png'))
    print(f'picture: {picture}\n')


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


# ------------------------------------------------------------------------------
# a quality-diversity archive


def recover(policy, folder, pictures, **sampling):
    """
    How much of a quality-diversity archive the one policy has become: an elite of every cell is asked for, by
    prompt and bd. Most were trained on: this measures what is kept, not what generalises.

    -> {'recovered': share of the cells in which it ends, or right beside them; 'held_out': of those cells in which
    no elite ends that was trained on; and the scores of `score`}
    """
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    rng = np.random.default_rng(sampling['seed'])
    elites = []
    for name in SPLITS:
        episodes = readable_episodes(Prepared(folder, name), policy)
        elites += [{**e, 'split': name} for e in episodes if e['source'] == getattr(dataset, 'QD_SOURCE', None)]
    if not elites:
        raise ValueError(f'{folder} holds no quality-diversity archive. Evaluate another split: --eval=test')
    cells = part(dataset, 'cells')(np.array([e['bd'] for e in elites]), kwargs)
    trained = {tuple(cell) for cell, e in zip(cells, elites) if e['split'] == 'train'}
    one_a_cell = {tuple(cells[i]): i for i in rng.permutation(len(elites))}.values()
    elites = [elites[i] for i in one_a_cell]
    for e in elites:
        e['prompt'] = one_of(e['text'], rng) if e['text'] else None
    scores, _, driven = score(policy, Condition('archive', elites, its_prompt, True), **sampling)

    asked = np.array([e['bd'] for e in elites])
    reached = np.array([some[0]['path'][-1] for some in driven])
    asked_cells = dataset.cells(asked, kwargs)
    close = (np.abs(dataset.cells(reached, kwargs) - asked_cells) <= 1).all(1)
    held_out = np.array([tuple(cell) not in trained for cell in asked_cells])
    scores['recovered'] = metrics.proportion(close)
    scores['held_out'] = metrics.proportion(close[held_out])
    for name, what in (
        ('recovered', 'cells of the archive recovered, within one cell'),
        ('held_out', 'of those in which no elite ends that was trained on'),
    ):
        mean, limits = interval(scores[name]).split(' ', 1)
        print(f'{what}: {mean}% {limits} of {scores[name]["n"]}')
    error, median = 100 * scores['bd_error']['mean'], 100 * scores['bd_error_median']['mean']
    print(f'bd error {error:.1f}% of the diagonal, median {median:.1f}%')
    part(dataset, 'draw_recovery')(f'{pictures}.png', asked, reached, close, kwargs)
    print(f'picture: {pictures}.png')
    return scores
