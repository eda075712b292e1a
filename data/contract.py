"""
The module of a data set, by its name; and one line, instead of a traceback, that names what it lacks.
data/README.md says what each part is.
"""

import importlib
import json
from pathlib import Path

REQUIRED = ('sources', 'env_kwargs', 'make_env', 'make_vec', 'spec', 'collect')
SIMULATOR = ('make_env', 'make_vec', 'collect')  # of these all, or none: a real robot's data have no simulator
SPEC_NAMES = (
    'obs_names',
    'act_names',
    'bd_names',
    'bd_low',
    'bd_high',
    'act_low',
    'act_high',
    'continuous',
    'max_steps',
)  # what spec(kwargs) returns at least
EPISODE = ('obs', 'act', 'bd', 'seed', 'source')  # what an episode of collect() holds at least
CALLS = {
    'sources': 'sources(kwargs)',
    'env_kwargs': 'env_kwargs(**given)',
    'make_env': 'make_env(render_mode=None, **kwargs)',
    'make_vec': 'make_vec(n, **kwargs)',
    'spec': 'spec(kwargs)',
    'collect': 'collect(source, size, seed, kwargs)',
    'in_environment': 'in_environment(env, kwargs)',
    'describe': 'describe(episode, rng, kwargs, n)',
    'words_only': 'words_only(rng, kwargs, n)',
    'plain': 'plain(request, loose)',
    'llm_prompt': 'llm_prompt(request, style, kwargs)',
    'invalid_because': 'invalid_because(text, request, kwargs)',
    'controller': 'controller(policy, obs)',
    'relabel': 'relabel(rollouts, seed, kwargs)',
    'possible': 'possible(begun, kwargs)',
    'mirrored': 'mirrored(episode, notes)',
    'from_trajectory': 'from_trajectory(episode, kwargs)',
    'score': 'score(request, path, reference, kwargs)',
    'free_sentences': 'free_sentences(split, kwargs)',
    'reword': 'reword(text, rng, **changes)',
    'measure': 'measure(episodes, kwargs)',
    'narrate': 'narrate(path, kwargs)',
    'draw_episodes': 'draw_episodes(file, episodes, kwargs)',
    'animate': 'animate(file, episode, kwargs)',
    'reach': 'reach(low, high, act, kwargs)',
    'can_end': 'can_end(low, high)',
    'cells': 'cells(bd, kwargs)',
    'draw_recovery': 'draw_recovery(file, asked, reached, close, kwargs)',
    'Page': 'Page(kwargs)',
}  # for messages: how a part is called


def names():
    """the data sets there are: folders of data/ that are packages"""
    return sorted(file.parent.name for file in Path(__file__).parent.glob('*/__init__.py'))


def load(name):
    """'toy_nav' -> the module data.toy_nav, with everything that every data set must offer"""
    try:
        dataset = importlib.import_module(f'data.{name}')
    except ModuleNotFoundError as e:
        if not f'data.{name}.'.startswith(f'{e.name}.'):  # it is there, and imports what is not
            raise
        raise ValueError(f'no data set data/{name}. There are: {", ".join(names())}') from None
    simulated = any(hasattr(dataset, name) for name in SIMULATOR)
    for required in REQUIRED:
        if simulated or required not in SIMULATOR:
            part(dataset, required)
    return dataset


def name_of(dataset):
    """'toy_nav'"""
    return dataset.__name__.removeprefix('data.')


def folder_of(dataset):
    """'data/toy_nav', for messages"""
    return dataset.__name__.replace('.', '/')


def part(dataset, name, cure=''):
    """what a data set offers under this name; a ValueError where it does not. cure: the end of the message"""
    if not hasattr(dataset, name):
        folder = folder_of(dataset)
        cure = cure or f'Add it to {folder}/__init__.py: data/README.md says what it is'
        raise ValueError(f'{folder} has no {CALLS.get(name, name)}. {cure}')
    return getattr(dataset, name)


def told(dataset, info):
    """info of its vector environment's step -> what the data set TELLS, {name: (n,)}; ValueError where it lacks"""
    names = getattr(dataset, 'TELLS', ())
    for name in names:
        if name not in info:
            raise ValueError(
                f"{folder_of(dataset)}: the environments of make_vec(n, **kwargs) give no info['{name}'], "
                'which TELLS names. Add it, or take it out: see data/README.md'
            )
    return {name: info[name] for name in names}


def has_environment(dataset, kwargs):
    """is there something to act in?"""
    predicate = getattr(dataset, 'has_environment', None)
    return hasattr(dataset, 'make_vec') and (predicate is None or predicate(kwargs))


def environments(dataset, n, kwargs):
    """-> its vector environment of n; ValueError where it has none, or one that hides where an episode ends"""
    env = part(dataset, 'make_vec')(n, **kwargs)
    mode = getattr(env, 'metadata', {}).get('autoreset_mode')
    if getattr(mode, 'name', '') == 'SAME_STEP':
        raise ValueError(
            f'{folder_of(dataset)}: the environments of make_vec reset within the step that ends an episode '
            '(autoreset_mode SAME_STEP), so that its end is not seen. Make them with AutoresetMode.NEXT_STEP'
        )
    return env


# ------------------------------------------------------------------------------
# what its parts return


def read_env_kwargs(dataset, text):
    """JSON of a setting -> the environment's arguments as the data set keeps them, defaults included"""
    try:
        return dataset.env_kwargs(**json.loads(text))
    except (json.JSONDecodeError, TypeError) as e:
        raise ValueError(
            f"env_kwargs={text!r}: {e}. It is JSON with arguments of {folder_of(dataset)}'s env_kwargs"
        ) from None


def read_spec(dataset, kwargs):
    """-> spec(kwargs); ValueError where it is not complete"""
    spec = dataset.spec(kwargs)
    missing = [name for name in SPEC_NAMES if name not in spec]
    if missing:
        raise ValueError(f'{folder_of(dataset)}: spec(kwargs) lacks {", ".join(missing)}. Add it: see data/README.md')
    kinds, n = spec.get('obs_kinds', []), len(spec['obs_names'])
    if kinds and (len(kinds) != n or not all(isinstance(k, int) and k >= 0 for k in kinds)):
        raise ValueError(
            f'{folder_of(dataset)}: obs_kinds of spec(kwargs) has to say of each of {n} observations how many kinds '
            f'there are, 0: it is a number. It is {str(kinds)[:60]}. See data/README.md'
        )
    return spec


def archive_meta(dataset, kwargs):
    """-> metadata of the data set's archives"""
    spec = read_spec(dataset, kwargs)
    return {
        'dataset': name_of(dataset),
        'env_kwargs': kwargs,
        'n_obs': len(spec['obs_names']),
        'n_act': len(spec['act_names']) if spec['continuous'] else 1,
        'n_bd': len(spec['bd_names']),
        **spec,
    }


def sources_to_collect(dataset, kwargs, named):
    """
    named: names, separated by commas -> a list of them, or of those that the data set has by default; none where it
    collects nothing; ValueError where it cannot collect one
    """
    by_default = list(dataset.sources(kwargs))
    available = [*by_default, *getattr(dataset, 'MORE_SOURCES', ())]
    if not available:
        return []
    chosen = [name.strip() for name in named.split(',') if name.strip()]
    unknown = ', '.join(sorted(set(chosen).difference(available)))
    if unknown:
        raise ValueError(
            f'sources={named}: {name_of(dataset)} collects no {unknown}. There are: {", ".join(available)}'
        )
    return list(dict.fromkeys(chosen)) or by_default


def check_episodes(dataset, episodes):
    """yields the episodes that collect() yields; ValueError where one lacks what every archive needs"""
    for episode in episodes:
        missing = [name for name in EPISODE if name not in episode]
        if missing:
            raise ValueError(
                f'{folder_of(dataset)}: collect() yields episodes without {", ".join(missing)}. '
                'Add it: see data/README.md'
            )
        yield episode
