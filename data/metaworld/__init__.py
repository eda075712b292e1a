"""
Meta-World (Yu et al., CoRL 2019, arXiv 1910.10897): 50 tasks of a robot's hand, MT10 and MT50 among them, each asked
for in a sentence. Its scripted policies demonstrate; what is seen is 39 numbers, the place of the goal among them.

The parts: env.py environments, demonstrations.py episodes of the scripted policies, sentences.json words, draw.py
pictures.
"""

import json
from pathlib import Path

from data.metaworld.demonstrations import demonstrations, relabel  # noqa: F401, it is of the contract
from data.metaworld.draw import draw_episodes  # noqa: F401, it too
from data.metaworld.env import MetaWorld, MetaWorldVec, env_kwargs  # noqa: F401, it too

SENTENCES = json.loads((Path(__file__).parent / 'sentences.json').read_text())  # of each task
FOR_TESTING = 2  # of them, the last
SCORES = {'success': 'carried out'}
TELLS = ('success',)  # what the environment alone knows of an episode
OBJECT = ['x', 'y', 'z', 'qx', 'qy', 'qz', 'qw']  # place and orientation; zeros: there is none, or it has none
NOW = ['hand x', 'hand y', 'hand z', 'gripper', *(f'{thing} {n}' for thing in ('thing', 'second') for n in OBJECT)]
OBS_NAMES = [*NOW, *(f'{name} before' for name in NOW), 'goal x', 'goal y', 'goal z']

make_env, make_vec = MetaWorld, MetaWorldVec


def sources(kwargs):
    return ['scripted']


def config_file(kwargs):
    """the settings to train with"""
    return 'config/mt50.py' if len(kwargs['tasks'].split(',')) > 25 else 'config/mt10.py'


def spec(kwargs):
    return {
        'obs_names': OBS_NAMES,
        'act_names': ['x', 'y', 'z', 'grip'],
        'bd_names': [],
        'bd_low': [],
        'bd_high': [],
        'act_low': [-1] * 4,
        'act_high': [1] * 4,
        'continuous': True,
        'max_steps': kwargs['max_steps'],
    }


def collect(source, size, seed, kwargs):
    """episodes of the scripted policies"""
    yield from demonstrations(source, size, seed, kwargs)


def describe(episode, rng, kwargs, n):
    """n of the task's sentences; a goal is in one split alone, tasks are in all of them"""
    task = episode['asked']
    return {
        'text': rng.permutation(SENTENCES[task][:-FOR_TESTING])[:n].tolist(),
        'asked': task,
        'group': str(episode['seed']),
    }


def paraphrase(request, rng):
    """the sentences of a task that no training has"""
    return SENTENCES[request][-FOR_TESTING:]


def score(request, path, reference, kwargs, success):
    """success: what Meta-World said of a rollout"""
    return {'success': success, 'kind': f'{request}: {"carried out" if success else "not carried out"}'}


def report(prompt, bd, path, kwargs):
    return {'summary': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}
