"""
BabyAI (Chevalier-Boisvert et al., ICLR 2019, arXiv 1810.08272): missions in words, in the grid worlds of minigrid, of
which an agent sees 7 x 7 cells. Levels and missions are minigrid's, by seed; its bot demonstrates them.

The parts: env.py environments, views.py what their agents see, demonstrations.py the bot's episodes, parts.py missions
taken apart, mirror.py episodes in a mirror, draw.py pictures, page.py the page of --serve.
"""

from data.babyai.demonstrations import demonstrations
from data.babyai.draw import draw_episodes  # noqa: F401, it is of the contract
from data.babyai.env import ACTIONS, OBS_KINDS, BabyAI, BabyAIVec, env_kwargs, make_level  # noqa: F401
from data.babyai.mirror import mirrored  # noqa: F401, so is this
from data.babyai.page import Page  # noqa: F401, of the contract, too
from data.babyai.views import PARTS, SIZE

COLLECT_VERSION = 2  # raised when collect() makes other episodes than before
SCORES = {'success': 'carried out'}
TELLS = ('success',)  # what the environment alone knows of an episode
OBS_NAMES = [f'cell {i // SIZE} {i % SIZE}' for i in range(SIZE**2)] + ['direction']  # from the left, from afar

make_env, make_vec = BabyAI, BabyAIVec


def sources(kwargs):
    return kwargs['level'].split(',')


def config_file(kwargs):
    """the settings to train with: of one level of one room, of several, of houses"""
    levels = [make_level(name) for name in sources(kwargs)]
    if any(level.num_rows * level.num_cols > 1 for level in levels):
        return 'config/babyai_seq.py'
    return 'config/babyai_local.py' if len(levels) > 1 else 'config/babyai.py'


def spec(kwargs):
    return {
        'obs_names': OBS_NAMES,
        'obs_kinds': OBS_KINDS,
        'kind_parts': PARTS,
        'act_names': ACTIONS,
        'bd_names': [],
        'bd_low': [],
        'bd_high': [],
        'act_low': [0],
        'act_high': [len(ACTIONS) - 1],
        'continuous': False,
        'max_steps': kwargs['max_steps'],
    }


def collect(source, size, seed, kwargs):
    """episodes of minigrid's bot"""
    yield from demonstrations(source, sources(kwargs).index(source), size, seed, kwargs)


def describe(episode, rng, kwargs, n):
    """the mission, its only sentence; a level is in one split alone, missions are in all of them"""
    mission = episode['asked']
    novel = any(thing in mission for thing in kwargs['held_out'])
    return {
        'text': [mission],
        'asked': mission,
        'group': f'{episode["source"]} {episode["seed"]}',
        'novel': 'combination' if novel else '',
    }


def score(request, path, reference, kwargs, success):
    """success: what minigrid said of a rollout"""
    return {'success': success, 'kind': 'carried out' if success else 'not carried out'}


def report(prompt, bd, path, kwargs):
    return {'summary': f'{len(path) - 1} steps', 'visits': [], 'verdict': {}, 'ok': None}
