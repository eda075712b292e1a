"""
Conditions under which a policy is scored, ways to ask it for what episodes did: the rows of evaluate.py's table. A
request is for the data set alone to read: its tags and loosened (data/README.md).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from data import metrics
from data.contract import part
from data.text import mistype
from nanopilot.rollout import Episode, dataset_of

DRAWN = ', drawn at {:g}'  # what names of rows end in whose actions are drawn at a temperature


def its_prompt(episode):
    return episode['prompt']


def no_prompt(episode):
    return None


def loose_prompt(episode):
    return episode['loose'][0]


@dataclass
class Condition:
    """a row of the table: how a policy is asked for what episodes did"""

    name: str
    episodes: list  # dicts of readable_episodes, with a prompt
    # an episode -> its prompt, or None; no function: the episodes themselves are scored, no rollouts
    prompt_of: Callable | None = its_prompt
    with_bd: bool = False  # is their descriptor asked for, too?
    env_kwargs: dict | None = None  # another environment than that of training
    temperature: float | None = None  # of the actions; None: that of the evaluation

    def requests(self, samples=1):
        """-> the Episodes to roll out, `samples` of each in a row"""
        requests = []
        for e in self.episodes:
            bd = e['bd'] if self.with_bd else None
            requests += [Episode(self.prompt_of(e), bd, int(e['seed']), e.get('change')) for _ in range(samples)]
        return requests


def also_drawn(conditions, temperature):
    """each condition that drives and, after it, the same with actions drawn at a temperature; 0: these alone"""
    with_drawn = []
    for condition in conditions:
        with_drawn.append(condition)
        if temperature and condition.prompt_of:
            with_drawn.append(
                replace(condition, name=condition.name + DRAWN.format(temperature), temperature=temperature)
            )
    return with_drawn


def conditions_of(policy, episodes, n, seed, rng):
    """
    for n (0: all) of the readable_episodes of a source, the rows of the table -> [Condition, ..], some without episodes
    """
    usual = [e for e in episodes if e['novel'] != 'longer']
    if policy.config.text_len:
        longer = [e for e in episodes if e['novel'] == 'longer']
        return conditions_in_words(policy, with_prompts(usual, rng), with_prompts(longer, rng), n or None, seed, rng)
    return [Condition('bd', usual[: n or None], no_prompt, True)] if policy.config.n_bd else []


def conditions_in_words(policy, usual, longer, n, seed, rng):
    """usual, longer: episodes with prompts, of requests that may be like those of training, and of longer ones"""
    dataset = dataset_of(policy)
    episodes = usual[:n]
    rephrased = [{**e, 'prompt': one_of(e['held_out'], rng)} for e in episodes if e['held_out']]
    mistyped = [{**e, 'prompt': mistype(e['prompt'], rng)} for e in episodes]
    as_recorded = [] if hasattr(dataset, 'TELLS') else episodes  # what only an environment tells was not recorded
    conditions = [
        Condition('themselves', as_recorded, None),
        Condition('prompt', episodes),
        Condition('no prompt', episodes, no_prompt),
        Condition('swapped prompt', swapped(episodes, seed)),
        Condition('held-out phrasing', rephrased),
        Condition('typing mistakes', [e for e in mistyped if policy.fits(e['prompt'])]),
    ]
    for name, changes in getattr(dataset, 'REWORDED', {}).items():
        conditions.append(Condition(name, reworded(policy, episodes, np.random.default_rng([seed, 1]), **changes)))
    combined = [e for e in usual if e['novel'] == 'combination']
    conditions += [
        Condition('held-out combination', combined[:n]),
        Condition('trained combination', [e for e in usual if not e['novel']][:n] if combined else []),
        Condition('longer than trained', longer[:n]),
    ]
    for tag, tagged in by_tag(dataset, usual).items():
        conditions.append(Condition(tag, tagged[:n]))
    conditions.append(Condition('destination only', loosened(dataset, episodes), loose_prompt))
    if hasattr(dataset, 'CHANGED_AT'):
        conditions.append(Condition('asked something else on the way', changed(usual, n, seed, *dataset.CHANGED_AT)))
    for name, changes in getattr(dataset, 'VARIANTS', {}).items():
        conditions.append(
            Condition(name, elsewhere(episodes, seed), env_kwargs={**policy.data_spec['env_kwargs'], **changes})
        )
    if policy.config.n_bd:
        conditions += [
            Condition('bd', episodes, no_prompt, True),
            Condition('prompt and bd', episodes, its_prompt, True),
        ]
    return conditions


def reads_free_sentences(policy):
    return policy.config.text_len > 0 and hasattr(dataset_of(policy), 'free_sentences')


def free_rows(policy, split):
    """rows of what people typed, for a split -> {name: which of the data set's sentences it asks}"""
    if not reads_free_sentences(policy):
        return {}
    rows = {'free sentences': split}
    if split == 'test':
        rows['free sentences written last'] = 'last'
    return rows


def free_sentences(policy, split, name='free sentences'):
    """
    what people typed, all that the data set has for a split; no episode shows it done. One that is too long for the
    policy is driven without a prompt: it is not carried out, and counts
    """
    sentences = []
    if reads_free_sentences(policy):
        sentences = dataset_of(policy).free_sentences(split, policy.data_spec['env_kwargs'])
    prompts = [s['text'] if policy.fits(s['text']) else None for s in sentences]
    unknown = {'bd': None, 'path': None, 'seed': 0}
    return Condition(name, [{**s, **unknown, 'prompt': prompt} for s, prompt in zip(sentences, prompts)])


def readable_episodes(split, policy):
    """
    a Prepared split -> its episodes, dicts with their number in it, request, bd and path, and of their sentences those
    that the policy can read
    """
    episodes = split.episodes()
    for i, e in enumerate(episodes):
        e['number'] = i
        e['request'] = e.pop('asked')
        if e['seed'] < 0:  # of imported ones: where they began is not known
            e['seed'] = i
        e['bd'] = np.array(split.bd[i])
        e['path'] = np.array(split.path[split.start[i] : split.start[i + 1]])  # (T, n_bd): after each step
        if policy.config.text_len:
            for name in ('text', 'loose', 'held_out'):
                e[name] = [t for t in e[name] if policy.fits(t)]
    return episodes


def one_of(texts, rng):
    """a sentence drawn from rng"""
    return texts[int(rng.integers(len(texts)))]


def with_prompts(episodes, rng):
    """
    those that have a sentence, each with one of its own as prompt; of a group, in which all ask for the same, the
    last in place of the first
    """
    return list({e['group']: {**e, 'prompt': one_of(e['text'], rng)} for e in episodes if e['text']}.values())


def swapped(episodes, seed):
    """each with another's prompt, of another group, that asks for something else; none where all ask for the same"""
    requests = [e['request'] or e['group'] for e in episodes]
    if len(set(requests)) < 2:
        return []
    others = metrics.derange([e['group'] for e in episodes], seed, requests)
    return [{**e, 'prompt': episodes[i]['prompt']} for e, i in zip(episodes, others)]


def reworded(policy, episodes, rng, **changes):
    """each with its prompt in words that no training text has; without those that have no such word"""
    reword = part(dataset_of(policy), 'reword')
    changed = [{**e, 'prompt': reword(e['prompt'], rng, **changes)} for e in episodes]
    return [e for e in changed if e['prompt'] and policy.fits(e['prompt'])]


def by_tag(dataset, episodes):
    """further rows, by the data set's own names -> {tag: episodes}"""
    tagged = defaultdict(list)
    if not hasattr(dataset, 'tags'):
        return tagged
    for e in episodes:
        if e['request']:
            for tag in dataset.tags(e['request']):
                tagged[tag].append(e)
    return tagged


def loosened(dataset, episodes):
    """those that have a sentence that says less, with the request that this one makes"""
    if not hasattr(dataset, 'loosened'):
        return []
    return [{**e, 'request': dataset.loosened(e['request'])} for e in episodes if e['loose'] and e['request']]


def changed(episodes, n, seed, first, last):
    """
    n of those that take more than `last` steps, each with another's prompt, until from one of the steps first to last
    on its own is asked; no episode shows that done from there
    """
    episodes = [e for e in episodes if e['request'] and len(e['path']) > last][:n]
    rng = np.random.default_rng([seed, 2])
    steps = rng.integers(first, last + 1, len(episodes))
    unknown = {'bd': None, 'path': None}
    pairs = zip(swapped(episodes, seed), steps, episodes)
    return [{**e, **unknown, 'change': (int(step), original['prompt'])} for e, step, original in pairs]


def elsewhere(episodes, seed):
    """each with another seed, for elites may share one; they begin where demonstrations do"""
    return [{**e, 'seed': seed + i} for i, e in enumerate(episodes)]
