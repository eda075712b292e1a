"""
toy_nav: a robot in a furnished room, steered by words. What a data set offers (data/README.md), and the Gymnasium id.

The parts: world.py physics, env.py environments, places.py landmarks, itinerary.py what is asked and scored, phrases.py
and reading.py words for it and back, noise.py and rewording.py other words, driver.py and qd.py what sources.py
collects, llm.py what language models are asked and told, reports.py, draw.py and page.py what people read and see.
"""

import json
from functools import lru_cache
from pathlib import Path

import gymnasium as gym

from data.metrics import lcs_f1
from data.toy_nav import llm, phrases, reports
from data.toy_nav.env import ToyNav, ToyNavVec
from data.toy_nav.itinerary import (
    MAX_PLACES,
    Itinerary,
    any_itinerary,
    descriptions,
    forbidden_places,
    from_visits,
    instead_of,
    left_out,
    only_forbidding,
)
from data.toy_nav.lacking import doubts_of
from data.toy_nav.llm import LLM_STYLES  # noqa: F401, of the contract
from data.toy_nav.noise import roughen  # noqa: F401, of the contract
from data.toy_nav.places import Places
from data.toy_nav.rewording import REWORDED, reword  # noqa: F401, of the contract
from data.toy_nav.sources import COLLECTORS, SOURCES, possible, relabel  # noqa: F401, of the contract
from data.toy_nav.world import ACT_NAMES, BD_NAMES, OBS_NAMES, World

if 'nanopilot/ToyNav-v0' not in gym.registry:
    gym.register(
        'nanopilot/ToyNav-v0', entry_point='data.toy_nav.env:ToyNav', vector_entry_point='data.toy_nav.env:ToyNavVec'
    )

COLLECT_VERSION = 6  # raised when collect() makes other episodes than before: older archives are made again
VARIANTS = {'random starts': {'start_anywhere': True}}  # other environments to score a policy in
FINE_TUNING = 'config/finetune_toy_nav.py'  # of the policy that comes with nanoPilot
FREE_SENTENCES = Path(__file__).parent / 'free_sentences.jsonl'  # of people, with what they mean: 'dev', 'test', 'last'
NOTHING = 0.02  # share of requests in words alone that name no place
FORBIDS = 0.05  # .. that only forbid
INSTEAD = 0.05  # .. that name a place that is not meant, where there are two or more
CHANGED_AT = (50, 100)  # steps between which a row of --eval asks for something else: there are 300 left to do it
MORE_SOURCES = ('points',)  # what collect() also makes, where --sources names it
QD_SOURCE = 'elites'  # which of the sources is a quality-diversity archive
SCORES = {  # of score(): column heads
    'success': 'carried out',
    'in_order': 'places in order',
    'at_destination': 'ends there',
    'kept_off': 'keeps off',
    'landmark_f1': 'landmark F1',
    'colour_f1': 'colour F1',
}
JUDGE_RULES = (
    'A robot drives in a furnished room. Every place must be passed in the order asked for, it must stop at the last '
    'one, and keep off what it was to avoid. Passing other places on the way does no harm.'
)


# ------------------------------------------------------------------------------
# the environment

make_env, make_vec = ToyNav, ToyNavVec


def env_kwargs(scene='', start_anywhere=False):
    """arguments as a user gives them -> as archives and checkpoints keep them: the scene itself, no path"""
    return {'scene': World(scene).scene, 'start_anywhere': start_anywhere}


def places(kwargs):
    """the landmarks of an environment, made once"""
    return places_of(json.dumps(kwargs['scene']))


@lru_cache(maxsize=4)
def places_of(scene):
    return Places(World(json.loads(scene)))


def spec(kwargs):
    """what prepare.py and checkpoints need to know of an environment"""
    world = World(kwargs['scene'])
    return {
        'obs_names': OBS_NAMES,
        'act_names': ACT_NAMES,
        'bd_names': BD_NAMES,
        'bd_low': [0, 0],
        'bd_high': [world.size, world.size],
        'act_low': [-1, -1],
        'act_high': [1, 1],
        'continuous': True,
        'max_steps': world.max_steps,
    }


# ------------------------------------------------------------------------------
# episodes


def sources(kwargs):
    """what collect() makes for an environment by default: elites are reactive policies of the fixed start"""
    if kwargs['start_anywhere']:
        return ['demonstrations']
    return ['demonstrations', 'elites']


def collect(source, size, seed, kwargs):
    """
    episodes of a source, `size` times the default amount: yields dicts for data/archive.py; prints what was dropped
    """
    yield from COLLECTORS[source](size, seed, kwargs, places(kwargs))


def controller(policy, obs):
    """the actions (n, 2) of stored policies (n, P) for obs (n, 9): replaying checks them too"""
    from data.toy_nav.qd import act

    return act(policy, obs)


def cells(bd, kwargs):
    """bd (n, 2) -> the cells of the archive they lie in, (n, 2) int"""
    return places(kwargs).archive_cell(bd)


# ------------------------------------------------------------------------------
# words. A request is the JSON of an itinerary


def describe(episode, rng, kwargs, n=8):
    """
    Annotate an episode and put it into words.

    -> {'visits': list of events; 'asked': the request; 'group': no two splits share it; 'names': landmarks, of
    which combinations are held out; 'novel': why it is for testing only, or ''; 'hard': 0 to 1, by the number of
    places; 'text', 'loose' (destination only): sentences}
    """
    visits = places(kwargs).visits(episode['path'])
    itinerary = Itinerary.from_json(episode['asked']) if episode.get('asked') else from_visits(visits, rng)
    return {
        'visits': visits,
        'novel': 'longer' if len(itinerary.places) > MAX_PLACES else '',
        'hard': min(1.0, len(itinerary.places) / MAX_PLACES),
        **in_words(itinerary, rng, n),
    }


def words_only(rng, kwargs, n=8):
    """
    a request in words: what describe() returns of it, without an episode that carries it out. Any; at times one that
    names no place, that only forbids, or that names a place besides that is not meant
    """
    drawn = rng.random()
    if drawn < NOTHING:
        return notes_of(Itinerary(()), rng.choice(phrases.read('nothing')['train'], n, replace=False))
    itinerary = any_itinerary(rng, places(kwargs))
    if drawn < NOTHING + FORBIDS:
        avoid = itinerary.places[:2]
        return notes_of(Itinerary(()), only_forbidding(avoid, rng, n), also_named=avoid)
    if drawn < NOTHING + FORBIDS + INSTEAD and len(itinerary.places) > 1:
        *meant, other = itinerary.places[:3]
        return notes_of(Itinerary(tuple(meant)), instead_of(meant, other, rng, n), also_named=[other])
    return in_words(itinerary, rng, n)


def notes_of(itinerary, texts, also_named=()):
    """what describe() returns of a request in these words, which may name other places, too"""
    texts = list(map(str, texts))
    group = str(Itinerary(itinerary.places)) or ' '.join(texts[:1])  # of no place any: other texts are kept for testing
    names = itinerary.names().union(*(place.names() for place in also_named))
    return {'asked': itinerary.to_json(), 'group': group, 'names': names, 'text': texts, 'loose': []}


def in_words(itinerary, rng, n):
    texts = descriptions(itinerary, rng, n, loose=min(n, 1))
    return {**notes_of(itinerary, texts[:n]), 'loose': texts[n:]}


def plain(request, loose):
    """what a request asks for, as the policy says it before it acts; loose: the destination alone"""
    itinerary = Itinerary.from_json(request)
    if loose:
        itinerary = itinerary.destination()
    return itinerary.plain()


def asked_of(kwargs):
    """what can be asked for, for the message to a prompt that says nothing of it"""
    return places(kwargs).made_of()


def doubts(prompt, said, kwargs):
    """-> lines: what of a prompt no policy can do as it is meant, and what `said`, a policy's words for it, lacks"""
    lines = doubts_of(prompt, places(kwargs))
    left_behind = left_out(prompt, said, places(kwargs)) if said else []
    return lines + [f'"{place}" is left out of what is understood' for place in left_behind]


def forbidden(prompt, said, kwargs):
    """the places, in words, that what a policy says of a prompt goes to although they are forbidden"""
    return [str(place) for place in forbidden_places(prompt, said, places(kwargs))]


def paraphrase(request, rng, n=4):
    """the same in phrasings that no training text has -> n sentences"""
    return descriptions(Itinerary.from_json(request), rng, n, held_out=True)


def tags(request):
    """rows of the evaluation that an episode belongs to, besides those of all"""
    return ['something to avoid'] * bool(Itinerary.from_json(request).avoid)


def loosened(request):
    """what a `loose` sentence asks for: its destination"""
    return Itinerary(Itinerary.from_json(request).places[-1:]).to_json()


def free_sentences(split, kwargs):
    """
    what people typed, of the set that a split is scored with: 'val' for choosing, 'test', and 'last', written when all
    else was done -> list of {'text', 'request', 'kind'}; without those that name what the room does not have
    """
    which = {'val': 'dev'}.get(split, split)
    names = {*places(kwargs).objects, *places(kwargs).tiles}
    found = []
    for sentence in map(json.loads, FREE_SENTENCES.read_text().splitlines()):
        meant = {place[part] for place in sentence['asked'] for part in ('name', 'other', 'tile') if part in place}
        if sentence['split'] == which and meant <= names:
            request = json.dumps(sentence['asked'])
            found.append({'text': sentence['text'], 'request': request, 'kind': sentence['kind']})
    return found


def llm_prompt(request, style, kwargs):
    """what a language model is asked, to describe a request in one of LLM_STYLES"""
    return llm.llm_prompt(Itinerary.from_json(request), style, places(kwargs))


def invalid_because(text, request, kwargs):
    """what is wrong with a language model's description of a request, for it to be told; None where it is right"""
    return llm.invalid_because(text, Itinerary.from_json(request), places(kwargs))


def narrate(path, kwargs):
    """a path (T + 1, 2) in words, for a language model to judge: no verdict, no coordinates"""
    return llm.narrate(path, places(kwargs))


def score(request, path, reference, kwargs):
    """
    A request, the path (T, 2) of a rollout, and that of the episode that the request was taken from ->
    Itinerary.match's dict, the kind of failure, and how alike the two paths are: 'landmark_f1', what they visit,
    and 'colour_f1', the tiles they cross. reference: None where no episode did what is asked; nothing is alike then
    """
    room = places(kwargs)

    def landmarks(path):
        return [v['place'] for v in room.visits(path) if v['place']]

    itinerary = Itinerary.from_json(request)
    verdict = itinerary.match(path, room)
    kind = itinerary.kind(path, room, verdict)
    if not itinerary.avoid:  # nothing to keep off
        del verdict['kept_off']
    scores = {'success': verdict.pop('carried_out'), **verdict, 'kind': kind}
    if reference is not None:
        scores['landmark_f1'] = lcs_f1(landmarks(reference), landmarks(path))
        scores['colour_f1'] = lcs_f1(room.colours(reference), room.colours(path))
    return scores


# ------------------------------------------------------------------------------
# for people


def report(prompt, bd, path, kwargs):
    """what a robot did, for a person to read and a program to use: reports.report"""
    return reports.report(prompt, bd, path, places(kwargs))


def panel(episode, kwargs):
    return reports.panel(episode, places(kwargs))


def draw_episodes(file, episodes, kwargs):
    """a PNG of up to 12 annotated episodes"""
    from data.toy_nav.draw import picture

    picture(file, World(kwargs['scene']), [panel(e, kwargs) for e in episodes])


def animate(file, episode, kwargs):
    """a GIF of one"""
    from data.toy_nav.draw import animation

    animation(file, World(kwargs['scene']), panel(episode, kwargs))


def Page(kwargs):
    """what the page of sample_policy.py --serve shows: page.Page"""
    from data.toy_nav import page

    return page.Page(kwargs, places(kwargs))


def draw_recovery(file, asked, reached, close, kwargs):
    """a PNG of which cells of the archive a policy recovers"""
    from data.toy_nav.draw import recovery

    recovery(file, places(kwargs), asked, reached, close)


def draw_archive(file, bd, spread, kwargs):
    """a PNG of where the elites end"""
    from data.toy_nav.draw import heat_map

    heat_map(file, places(kwargs), bd, spread)
