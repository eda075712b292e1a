"""
Rollouts, scored: of a condition and of every kind of its episodes, of what a data set measures itself, and of a
checkpoint in train.py. Every score is a mean over all episodes, a dict of metrics.py with its interval and n.
"""

import numpy as np

from data import metrics
from data.contract import has_environment, part
from nanopilot.conditions import Condition, free_sentences, no_prompt, one_of, readable_episodes
from nanopilot.rollout import annotated, dataset_of, draw, rollout, rollouts


def score(policy, condition, samples=1, **sampling):
    """score_conditions of one of them"""
    return next(score_conditions(policy, [condition], samples, **sampling))


def score_conditions(policy, conditions, samples=1, **sampling):
    """
    yields for each condition a dict of scores, each a dict of metrics.py; for each episode and sample what the data
    set's score says of it, its verdict, {} where nothing does; and the rollouts, of each episode its samples. Of a
    condition without prompt_of the episodes themselves are scored: their paths stand for rollouts
    """
    jobs = [
        (condition.requests(samples), condition.env_kwargs, condition.temperature)
        for condition in conditions
        if condition.prompt_of
    ]
    results = rollouts(policy, jobs, **sampling)
    for condition in conditions:
        driven = [[{'path': e['path'], 'told': {}}] for e in condition.episodes]
        if condition.prompt_of:
            rolled = next(results)
            driven = [rolled[i : i + samples] for i in range(0, len(rolled), samples)]
        yield *score_driven(policy, condition.episodes, driven), driven


def score_driven(policy, episodes, driven):
    """driven: of each episode its samples, dicts with path and told -> scores and verdicts, as of score_conditions"""
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    scores = end_scores(policy, episodes, [[r['path'] for r in samples] for samples in driven])
    verdicts = [[{} for _ in samples] for samples in driven]
    if episodes[0]['request'] and hasattr(dataset, 'score'):
        verdicts = [
            [dataset.score(e['request'], r['path'][begins_at(e) :], e['path'], kwargs, **r['told']) for r in samples]
            for e, samples in zip(episodes, driven)
        ]
        scores |= request_scores(verdicts)
    if not scores:
        part(dataset, 'score')
    return scores, verdicts


def begins_at(episode):
    """the step at which an episode's own request is asked: what it was asked before does not count"""
    return episode['change'][0] if 'change' in episode else 0


def end_scores(policy, episodes, paths):
    """where rollouts end, paths: those of each episode's samples, beside where the episode did"""
    low, high = policy.data_spec['bd_low'], policy.data_spec['bd_high']
    if not low or episodes[0]['bd'] is None:  # nothing is known to end where it should
        return {}
    errors = np.array(
        [
            metrics.bd_error([p[-1] for p in samples], [e['bd']] * len(samples), low, high)
            for e, samples in zip(episodes, paths)
        ]
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
        if isinstance(value, (bool, float)) and all(name in v for samples in verdicts for v in samples):
            values = [np.mean([v[name] for v in samples]) for samples in verdicts]
            yes_or_no = isinstance(value, bool) and all(len(samples) == 1 for samples in verdicts)
            scores[name] = metrics.proportion(values) if yes_or_no else metrics.bootstrap(values)
    return scores


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
    begun, was_asked = [], []
    for e, samples in zip(condition.episodes, driven):
        begins = begins_at(e)
        begun += [{'act': rolled['act'][:begins], 'seed': int(e['seed']), 'asked': e['request']} for rolled in samples]
        was_asked += [len(rolled['act']) > begins for rolled in samples]
    possible = dataset.possible(begun, env_kwargs or policy.data_spec['env_kwargs']) & was_asked
    possible_verdicts = [
        [v for v, ok in zip(samples, oks) if ok] for samples, oks in zip(verdicts, possible.reshape(len(driven), -1))
    ]
    possible_verdicts = [samples for samples in possible_verdicts if samples]
    return [{'name': f'{name}, the possible ones', **request_scores(possible_verdicts)}] if possible_verdicts else []


def score_kinds(policy, condition, samples=1, **sampling):
    """rows of the scores of a condition and of every kind of its episodes; none where it has no episodes"""
    if not condition.episodes:
        return []
    scores, verdicts, _ = score(policy, condition, samples, **sampling)
    rows = [{'name': condition.name, **scores}]
    for kind in dict.fromkeys(e['kind'] for e in condition.episodes):
        of_kind = [of_episode for e, of_episode in zip(condition.episodes, verdicts) if e['kind'] == kind]
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
        shown = [{**e, 'prompt': None, 'bd': None} for e in episodes[:12]]
        draw(policy, picture, annotated(policy, shown, **changes), **changes)
    row = {'name': name}
    for key, value in measures[0].items():
        values = [m[key] for m in measures if m[key] == m[key]]  # nan: it does not apply
        row[key] = metrics.proportion(values) if isinstance(value, bool) else metrics.bootstrap(values)
    return row


# ------------------------------------------------------------------------------
# of a checkpoint, in train.py


def rollout_score(policy, split, n, seed=1337):
    """
    how well a checkpoint of train.py does: the success of rollouts for n prompts of a split; of a data set without,
    minus the mean bd error; None where nothing that is asked can be read, or scored
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
    if 'bd_error' in scores:
        return -scores['bd_error']['mean']
    return None


def scores_to_log(policy, split, n, seed=1337):
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
        chosen = np.random.default_rng(seed).permutation(len(free.episodes))[:n]
        condition = Condition(free.name, [free.episodes[i] for i in chosen])
        scores['free'] = score(policy, condition, seed=seed)[0]['success']['mean']
    return scores


def scores_rollouts(policy):
    """is there something to act in, and to say of it: where it should end, what was asked, or what is measured?"""
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    scorable = policy.data_spec['bd_low'] or hasattr(dataset, 'score') or hasattr(dataset, 'measure')
    return bool(scorable) and has_environment(dataset, kwargs)
