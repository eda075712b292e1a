"""
What a policy does with what it is asked: episodes driven many at once, their scores, pictures of what went wrong.

Every score is over all episodes of fixed seeds, with a 95% interval and n. A row of the table is one way of asking; the
episodes, and so the seeds, are the same from row to row.
"""

import importlib
import json
import sys
from collections import Counter, defaultdict
from itertools import zip_longest

import numpy as np
import torch
from tqdm import tqdm

from data import metrics
from data.pictures import save
from data.prepared import SPLITS, Prepared
from data.text import mistype

TEST_SEEDS = 1_000_000  # added to the seeds of environments
WORDS = {
    'carried_out': 'carried out',
    'in_order': 'places in order',
    'at_destination': 'ends there',
    'kept_off': 'keeps off',
    'landmark_f1': 'landmark F1',
    'colour_f1': 'colour F1',
}
ENDS = {
    'bd_error': 'bd error',
    'bd_error_median': 'median bd error',
    'within_5': 'within 5%',
    'within_10': 'within 10%',
    'bd_error_best': 'best sample',
}


def world_of(policy):
    """the data set that the policy was trained on: its environment, its words, its scores"""
    return importlib.import_module(f'data.{policy.info["dataset"]}')


def annotated(policy, episodes, **changes):
    """episodes, dicts with prompt, bd and path, with what the data set has to say of them: said, visits, verdict, ok"""

    def steps(prompt, bd, path, kwargs):
        return {'said': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}

    judge, kwargs = getattr(world_of(policy), 'report', steps), {**policy.data_spec['env_kwargs'], **changes}
    return [{**e, **judge(e['prompt'], e['bd'], e['path'], kwargs)} for e in episodes]


def draw(policy, picture, episodes, **changes):
    """the data set's picture of up to 12 judged episodes, if it has any"""
    if episodes and hasattr(world_of(policy), 'draw_episodes'):
        world_of(policy).draw_episodes(picture, episodes[:12], {**policy.data_spec['env_kwargs'], **changes})
        print(f'picture: {picture}' + (' (the first 12)' if len(episodes) > 12 else ''))


def rollout(
    policy, texts, bds, seeds, batch_size=256, temperature=0.0, top_p=1.0, seed=1337, desc='drive', env_kwargs=None
):
    """
    Drive one episode for each of n requests; every one runs to its own end. Row r drives the requests r, r + rows, ..: which
    row an episode gets does not depend on how long others take, so none is favoured for being short.

    texts: str or None each; bds: numbers or None each; seeds: of the environments; env_kwargs: another environment than that
    of training; the rest as Policy.act's
    -> list of {'obs' (T, n_obs), 'act' (T, ...), 'path' (T + 1, n_bd), 'seed'}
    """
    total, n, chunk = len(texts), min(batch_size, len(texts)), policy.config.chunk
    env = world_of(policy).make_vec(n, **(env_kwargs or policy.data_spec['env_kwargs']))
    seen, info = env.reset(seed=[int(s) for s in seeds[:n]])
    policy.reset(texts[:n], bds[:n])
    which, going, clock = np.arange(n), np.ones(n, bool), 0
    obs, acts, paths = ([[] for _ in texts] for _ in range(3))
    for i in range(n):
        paths[i].append(info['bd'][i])
    generator = torch.Generator(policy.device).manual_seed(seed)

    def left():
        """what is left of the returns asked for, (n, 1); None where bd is no return"""
        if 'discount' not in policy.data_spec:
            return None
        asked, so_far = (
            np.array([[np.nan] if bds[i] is None else bds[i] for i in which], np.float32),
            np.array([paths[i][-1] for i in which]),
        )
        return metrics.to_go(
            asked, so_far, np.array([[len(paths[i]) - 1] for i in which]), policy.data_spec['discount']
        )

    bar = tqdm(total=total, desc=desc, unit='ep', disable=None if total > batch_size else True)
    while True:
        now = policy.act(seen, left(), skip=~going, temperature=temperature, top_p=top_p, generator=generator)
        before, (seen, _, terminated, truncated, info) = seen, env.step(now)
        for row in np.flatnonzero(going):
            obs[which[row]].append(before[row])
            acts[which[row]].append(now[row])
            paths[which[row]].append(info['bd'][row])
        bar.update(int((going & (terminated | truncated)).sum()))
        going &= ~(terminated | truncated)
        clock += 1
        waiting = ~going & (which + n < total)
        if waiting.any() and (clock % chunk == 0 or not going.any()):  # together with the others' decisions
            which[waiting] += n
            mine = which[waiting]
            fresh, info = env.reset(seed=[int(i) for i in np.asarray(seeds)[which]], options={'reset_mask': waiting})
            seen = np.where(waiting[:, None], fresh, seen)
            policy.reset_rows(waiting, [texts[i] for i in mine], [bds[i] for i in mine])
            for i, end in zip(mine, info['bd'][waiting]):
                paths[i].append(end)
            going |= waiting
        if not going.any():
            break
    bar.close()
    return [
        {'obs': np.array(o), 'act': np.array(a), 'path': np.array(p), 'seed': int(s)}
        for o, a, p, s in zip(obs, acts, paths, seeds)
    ]


def episodes_of(split, policy):
    """a Prepared split -> its episodes with bd and path, and of their sentences those that the policy can read"""
    episodes = split.episodes()
    for i, e in enumerate(episodes):
        e['seed'] = e['seed'] if e['seed'] >= 0 else i  # where imported ones began is not known
        e['bd'], e['path'] = np.array(split.bd[i]), np.array(split.path[split.start[i] : split.start[i + 1]])
        if policy.config.text_len:
            e.update({k: [t for t in e[k] if policy.fits(t)] for k in ('text', 'loose', 'held_out')})
    return episodes


def score(policy, chosen, texts=None, with_bd=False, samples=1, desc='drive', **how):
    """
    One way of asking for what episodes did: texts, a str or None each, and with_bd, their own descriptor. Without texts: the
    episodes themselves, what could be reached at most.

    -> a dict of scores, each a dict of metrics.py, the verdicts of world.score for each episode and sample, and the paths
    """
    world, kwargs = world_of(policy), policy.data_spec['env_kwargs']
    if texts is None:
        paths = [[e['path']] for e in chosen]
    else:
        asked = [
            (text, e['bd'] if with_bd else None, e['seed']) for e, text in zip(chosen, texts) for _ in range(samples)
        ]
        driven = rollout(policy, *zip(*asked), desc=desc, **how)
        paths = [[d['path'] for d in driven[i : i + samples]] for i in range(0, len(driven), samples)]
    low, high = policy.data_spec['bd_low'], policy.data_spec['bd_high']
    error = np.array(
        [metrics.bd_error([p[-1] for p in some], [e['bd']] * len(some), low, high) for some, e in zip(paths, chosen)]
    )  # (n, samples)
    mean = error.mean(1)
    scores = {
        'bd_error': metrics.bootstrap(mean),
        'bd_error_median': metrics.bootstrap(mean, np.median),
        'within_5': metrics.proportion(mean <= 0.05),
        'within_10': metrics.proportion(mean <= 0.1),
    }
    if samples > 1:
        scores['bd_error_best'] = metrics.bootstrap(error.min(1))
    judged = (
        [[world.score(e['asked'], p, e['path'], kwargs) for p in some] for some, e in zip(paths, chosen)]
        if chosen[0]['asked']
        else []
    )
    for k, v in judged[0][0].items() if judged else ():
        if isinstance(v, (bool, float)) and all(k in j for some in judged for j in some):
            values = [np.mean([j[k] for j in some]) for some in judged]
            scores[k] = (
                metrics.proportion(values) if isinstance(v, bool) and len(judged[0]) == 1 else metrics.bootstrap(values)
            )
    return scores, judged, paths


def one_of(texts, rng):
    """a sentence drawn from rng, None where there is none"""
    return texts[int(rng.integers(len(texts)))] if texts else None


def quick(policy, split, n, seed=1337):
    """what train.py chooses a checkpoint by: the share of n prompts of a split that are carried out, minus the mean bd error, or what the data set measures as success"""
    if hasattr(world_of(policy), 'measure'):
        return trial(policy, 'unseen starts', {}, n, seed=seed)['success']['mean']
    rng, language = np.random.default_rng(seed), policy.config.text_len > 0
    every = list(
        {e['group']: e for e in episodes_of(split, policy) if e['text'] or not language}.values()
    )  # nothing is asked twice
    some = [every[i] for i in rng.permutation(len(every))[:n]]
    scores, *_ = score(policy, some, [one_of(e['text'], rng) for e in some], with_bd=not language, seed=seed)
    return scores['carried_out']['mean'] if 'carried_out' in scores else -scores['bd_error']['mean']


def evaluate(policy, split, pictures, n_episodes=400, samples=1, only=(), **how):
    """
    Score a Prepared split in every way of asking, or in those named in only, n_episodes of each source at most (0: all); print the tables and the
    verdict, and draw a sheet of episodes and one of failures to <pictures>.png and <pictures>_failures.png.

    -> {'rows': the scores, 'kinds': how the prompts ended, counted, 'drawn': the episodes that a prompt alone was driven for}
    """
    world, seed, rows, kinds, drawn, known = world_of(policy), how['seed'], [], {}, [], set()
    fresh = (
        {**how, 'seed': seed + TEST_SEEDS} if split.split == 'test' else how
    )  # where nothing but a seed is asked, the test's are not those that chose the checkpoint
    rng, every = np.random.default_rng(seed), episodes_of(split, policy)

    def row(name, chosen, texts=None, with_bd=False, **changes):
        known.add(name.partition(': ')[2])
        if chosen and (not only or name.partition(': ')[2] in only):
            scores, judged, paths = score(policy, chosen, texts, with_bd, samples, name, **how, **changes)
            rows.append({'name': name, **scores})
            return judged, paths

    for source in split.meta['sources']:
        some = [every[i] for i in rng.permutation(len(every)) if every[i]['source'] == source]
        some, longer = [e for e in some if e['novel'] != 'longer'], [e for e in some if e['novel'] == 'longer']
        if policy.config.text_len:
            too_long = sum(not e['text'] for e in some)
            if too_long:
                print(
                    f"{source}: {too_long} episodes left out, their descriptions are longer than the model's text_len",
                    file=sys.stderr,
                )
            # nothing is asked twice, and each with one sentence
            once, longer = (
                list({e['group']: {**e, 'said': one_of(e['text'], rng)} for e in es if e['text']}.values())
                for es in (some, longer)
            )
            some, bans = once[: n_episodes or None], [e for e in once if '"avoid"' in e['asked']]

            def ask(name, chosen, words=lambda e: e['said'], **changes):
                chosen = chosen[: n_episodes or None]
                return row(f'{source}: {name}', chosen, [words(e) for e in chosen], **changes)

            row(f'{source}: themselves', some)
            if prompted := ask('prompt', some):
                judged, paths = prompted
                ended = [j[0].get('kind') for j in judged]
                kinds[source] = dict(Counter(ended).most_common())
                drawn += [
                    {
                        'prompt': e['said'],
                        'bd': None,
                        'path': p[0],
                        'reference': e['path'],
                        'kind': kind,
                        'verdict': j[0],
                        'source': source,
                        'asked': e['asked'],
                        'group': e['group'],
                    }
                    for e, p, kind, j in zip(some, paths, ended, judged)
                ]
            ask('no prompt', some, lambda e: None)
            if len(some) > 1:
                row(
                    f'{source}: swapped prompt',
                    some,
                    [some[i]['said'] for i in metrics.derange([e['group'] for e in some], seed)],
                )
            ask('held-out phrasing', [e for e in some if e['held_out']], lambda e: one_of(e['held_out'], rng))
            mistyped = [{**e, 'said': mistype(e['said'], rng)} for e in some]
            ask('typing mistakes', [e for e in mistyped if policy.fits(e['said'])])
            for name, changes in getattr(world, 'REWORDED', {}).items():
                others = np.random.default_rng([seed, 1])
                ask(
                    name,
                    [
                        {**e, 'said': said}
                        for e in some
                        if (said := world.reword(e['said'], others, **changes)) and policy.fits(said)
                    ],
                )
            ask('held-out combination', [e for e in once if e['novel'] == 'combination'])
            ask('longer than trained', longer)
            ask('something to avoid', bans)
            loose = [{**e, 'asked': json.dumps(json.loads(e['asked'])[-1:])} for e in some if e['loose']]
            ask('destination only', loose, lambda e: e['loose'][0])
            for name, changes in getattr(
                world, 'VARIANTS', {}
            ).items():  # elites may all have one seed: they begin where demonstrations do
                elsewhere = [{**e, 'seed': seed + i} for i, e in enumerate(some)]
                ask(name, elsewhere, env_kwargs={**policy.data_spec['env_kwargs'], **changes})
        if policy.config.n_bd:
            some = some[: n_episodes or None]
            row(f'{source}: bd', some, [None] * len(some), True)
            if policy.config.text_len:
                row(f'{source}: prompt and bd', some, [e['said'] for e in some], True)
    measures = getattr(world, 'MEASURES', {})
    trials = {'unseen starts': {}, **getattr(world, 'VARIANTS', {})} if measures else {}
    known |= {*trials, *['returns'] * ('discount' in policy.data_spec)}
    if set(only) - known:
        raise ValueError(
            f'rows={", ".join(only)}: there is no {sorted(set(only) - known)[0]!r}. There are: {", ".join(sorted(known))}'
        )
    rows += [
        trial(policy, name, changes, n_episodes or 400, f'{pictures}_{name.replace(" ", "_")}.png', **fresh)
        for name, changes in trials.items()
        if not only or name in only
    ]
    if 'discount' in policy.data_spec and (not only or 'returns' in only):
        rows += returns(policy, n_episodes or 100, pictures, **how)
    print(f'{split.split} split, step {policy.info["step"]}; mean [95% interval], in %')
    for title, heads in (
        ('what the words ask', WORDS),
        ('where it ends, in % of the diagonal', ENDS),
        ('driven', measures),
    ):
        print(table(title, heads, rows), end='')
    for source, counted in kinds.items():
        print(f'\n{source}, prompt: ' + ', '.join(f'{n} {kind}' for kind, n in counted.items()))
    print(verdict(rows, split.meta['sources']))
    if drawn:
        sheets(policy, drawn, pictures)
    return {'rows': rows, 'kinds': kinds, 'drawn': drawn}


def trial(policy, name, changes, n, picture=None, **how):
    """n episodes of new seeds, nothing asked, in an environment with changes -> a row of what the data set measures; a picture of some"""
    kwargs, seeds = {**policy.data_spec['env_kwargs'], **changes}, how['seed'] + np.arange(n)
    driven = rollout(policy, [None] * n, [None] * n, seeds, desc=name, env_kwargs=kwargs, **how)
    found = world_of(policy).measure(driven, kwargs)
    if picture:
        draw(
            policy,
            picture,
            annotated(policy, [{**e, 'prompt': None, 'bd': None} for e in driven[:12]], **changes),
            **changes,
        )
    return {
        'name': name,
        **{
            k: (metrics.proportion if isinstance(found[0][k], bool) else metrics.bootstrap)(
                [f[k] for f in found if f[k] == f[k]]
            )
            for k in found[0]
        },
    }


def returns(policy, n, pictures, **how):
    """ask for the returns TARGETS of a data set, n episodes each -> rows with the 'return' that was achieved; a table and a picture of them"""
    from matplotlib.figure import Figure
    from scipy.stats import spearmanr

    rows, seeds, asked, achieved = [], how['seed'] + np.arange(n), [], []
    targets = getattr(
        world_of(policy), 'TARGETS', np.linspace(policy.data_spec['bd_low'][0], policy.data_spec['bd_high'][0], 6)
    )
    for target in targets:
        got = [
            d['path'][-1, 0]
            for d in rollout(policy, [None] * n, [[target]] * n, seeds, desc=f'return {target:g}', **how)
        ]
        rows.append({'name': f'return {target:g}', 'return': metrics.bootstrap(got)})
        asked += [float(target)] * n
        achieved += got
    print('| return asked for | n | achieved | least |\n|---|---|---|---|')
    for k, row in enumerate(rows):
        print(
            '| {} | {n} | {mean:.1f} [{low:.1f}, {high:.1f}] | {:.0f} |'.format(
                row['name'][7:], min(achieved[k * n : (k + 1) * n]), **row['return']
            )
        )
    print(
        f"Spearman's rank correlation of asked and achieved, over {len(asked)} episodes: {spearmanr(asked, achieved).statistic:.3f}\n"
    )
    figure = Figure(figsize=(4.5, 4), layout='constrained')
    ax, x = figure.subplots(), np.array(targets)
    mean, low, high = (np.array([row['return'][k] for row in rows]) for k in ('mean', 'low', 'high'))
    ax.plot(x, x, color='0.7', label='as asked')
    ax.errorbar(x, mean, [mean - low, high - mean], fmt='o-', capsize=3, label=f'achieved, mean of {n}')
    ax.set(xlabel='return asked for', ylabel='return')
    ax.legend()
    save(f'{pictures}_returns.png', lambda f: figure.savefig(f, dpi=120, format='png'))
    print(f'picture: {pictures}_returns.png\n')
    return rows


def table(title, heads, rows):
    """the scores that heads name, as Markdown; nothing where no row has any of them"""

    def shown(score, n):
        said = f'{100 * score["mean"]:5.1f} [{100 * score["low"]:4.1f}, {100 * score["high"]:4.1f}]'
        return said if score['n'] == n else said + f' of {score["n"]}'

    heads = {k: head for k, head in heads.items() if any(k in r for r in rows)}
    lines = [f'| {title} | n | ' + ' | '.join(heads.values()) + ' |', '|---|---|' + '---|' * len(heads)]
    for r in rows:
        if n := next((r[k]['n'] for k in heads if k in r), 0):
            lines.append(
                f'| {r["name"]} | {n} | ' + ' | '.join(shown(r[k], n) if k in r else '-' for k in heads) + ' |'
            )
    return '\n' + '\n'.join(lines) + '\n' if heads else ''


def verdict(rows, sources):
    """does it listen?"""
    found, lines = {r['name']: r for r in rows}, []
    for source in sources:
        right, wrong = (
            found.get(f'{source}: {asked}', {}).get('carried_out') for asked in ('prompt', 'swapped prompt')
        )
        if right and wrong and right['low'] > wrong['high']:
            lines.append(
                f"\n{source}: the policy listens: {100 * right['mean']:.0f}% with the right prompt, {100 * wrong['mean']:.0f}% with another's"
            )
        elif right and wrong:
            lines.append(
                f'\n{source}: WARNING: the policy may be ignoring the prompt: right and swapped prompts score within their intervals'
            )
    return ''.join(lines)


def sheets(policy, drawn, pictures, n=12):
    """a picture of the first n episodes, and one of up to n failures, some of every kind"""
    failed = defaultdict(list)
    for e in drawn:
        if e['kind'] and e['kind'] != 'carried out':
            failed[e['kind']].append(e)
    some = [
        e for nth in zip_longest(*failed.values()) for e in nth if e
    ]  # the first of every kind, then the second of every kind
    for file, chosen in (f'{pictures}.png', drawn[:n]), (f'{pictures}_failures.png', some[:n]):
        draw(policy, file, annotated(policy, chosen))


def recover(policy, folder, pictures, **how):
    """
    How much of a quality-diversity archive the one policy has become: an elite of every cell is asked for, by prompt and bd.
    Most were trained on: this measures what is kept, not what generalises.

    -> {'recovered': share of the cells in which it ends, or right beside them; 'held_out': of those cells in which no elite
    ends that was trained on; and the scores of `score`}
    """
    world, kwargs, rng = world_of(policy), policy.data_spec['env_kwargs'], np.random.default_rng(how['seed'])
    every = [
        {**e, 'split': s}
        for s in SPLITS
        for e in episodes_of(Prepared(folder, s), policy)
        if e['source'] == getattr(world, 'QD_SOURCE', None)
    ]
    if not every:
        raise ValueError(f'{folder} holds no quality-diversity archive. Evaluate another split: --eval=test')
    cells = world.cells(np.array([e['bd'] for e in every]), kwargs)
    chosen = [every[i] for i in {tuple(cells[i]): i for i in rng.permutation(len(every))}.values()]
    scores, _, paths = score(policy, chosen, [one_of(e['text'], rng) for e in chosen], True, desc='archive', **how)
    asked, reached = np.array([e['bd'] for e in chosen]), np.array([p[0][-1] for p in paths])
    close = (np.abs(world.cells(reached, kwargs) - world.cells(asked, kwargs)) <= 1).all(1)
    trained = {tuple(c) for c, e in zip(cells, every) if e['split'] == 'train'}
    held_out = np.array([tuple(c) not in trained for c in world.cells(asked, kwargs)])
    found = {'recovered': metrics.proportion(close), 'held_out': metrics.proportion(close[held_out]), **scores}
    for name, what in (
        ('recovered', 'cells of the archive recovered, within one cell'),
        ('held_out', 'of those in which no elite ends that was trained on'),
    ):
        print(
            f'{what}: {100 * found[name]["mean"]:.1f}% [{100 * found[name]["low"]:.1f}, {100 * found[name]["high"]:.1f}] of {found[name]["n"]}'
        )
    print(
        f'bd error {100 * scores["bd_error"]["mean"]:.1f}% of the diagonal, median {100 * scores["bd_error_median"]["mean"]:.1f}%'
    )
    world.draw_recovery(f'{pictures}.png', asked, reached, close, kwargs)
    print(f'picture: {pictures}.png')
    return found
