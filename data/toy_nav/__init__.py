"""
toy_nav: a robot in a furnished room, steered by words. What a data set offers (data/README.md), and the Gymnasium id.

The parts: world.py physics, env.py environments, places.py landmarks, itinerary.py words and scores, driver.py
demonstrations, qd.py the quality-diversity archive, draw.py pictures, llm.py what language models are asked and told.
"""

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from data.metrics import lcs_f1
from data.toy_nav import llm
from data.toy_nav.env import ToyNav, ToyNavVec
from data.toy_nav.itinerary import MAX_PLACES, Itinerary, descriptions, from_visits, not_understood, parse, stopped
from data.toy_nav.llm import LLM_STYLES, place_name
from data.toy_nav.places import Places
from data.toy_nav.world import ACT_NAMES, BD_NAMES, OBS_NAMES, World

if 'nanopilot/ToyNav-v0' not in gym.registry:
    gym.register(
        'nanopilot/ToyNav-v0', entry_point='data.toy_nav.env:ToyNav', vector_entry_point='data.toy_nav.env:ToyNavVec'
    )

SOURCES = {'demonstrations': 30000, 'elites': 1}  # what collect() makes, and how much of it by default
COLLECTED = 3  # raised when collect() makes other episodes than before: archives of another number are made again
VARIANTS = {'random starts': {'start_anywhere': True}}  # other environments to score a policy in
REWORDED = {
    'a word never seen': {'most': 1},
    'words never seen': {},
    **{f'a {kind} never seen': {'most': 1, 'kind': kind} for kind in ('thing', 'colour', 'direction')},
}  # of reword
QD_SOURCE = 'elites'  # which of them is a quality-diversity archive
make_env, make_vec = ToyNav, ToyNavVec


def env_kwargs(scene='', start_anywhere=False):
    """arguments as a user gives them -> as archives and checkpoints keep them: the scene itself, no path"""
    return {'scene': World(scene).scene, 'start_anywhere': start_anywhere}


@lru_cache(maxsize=4)
def places_of(scene):
    return Places(World(json.loads(scene)))


def places(kwargs):
    """the landmarks of an environment, made once"""
    return places_of(json.dumps(kwargs['scene']))


def sources(kwargs):
    """what collect() makes for an environment: elites are reactive policies of the fixed start"""
    return [s for s in SOURCES if s != 'elites' or not kwargs['start_anywhere']]


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


def collect(source, size, seed, kwargs):
    """episodes of a source, `size` times the default amount: yields dicts for data/archive.py; prints what was dropped"""
    yield from {'demonstrations': demonstrations, 'elites': elites}[source](size, seed, kwargs)


def demonstrations(size, seed, kwargs):
    from data.toy_nav.driver import PathPlanner, demonstrate, sample_itinerary

    where = places(kwargs)
    ways, rng, n = PathPlanner(where), np.random.default_rng(seed), max(1, round(SOURCES['demonstrations'] * size))
    times, dropped, block = Counter(), 0, 1000
    bar = tqdm(total=n, desc='demonstrations', unit='ep', mininterval=1, disable=None)
    for first in range(0, n, block):
        count = min(block, n - first)
        seeds = rng.integers(2**31, size=count)
        env = ToyNavVec(count, **kwargs)
        env.reset(seed=seeds)
        asked = [sample_itinerary(rng, ways, env.state[k, :2], times) for k in range(count)]
        for k, (itinerary, episode) in enumerate(zip(asked, demonstrate(asked, env.state, ways, rng))):
            if itinerary.match(episode['path'], where)['carried_out']:
                yield {
                    **episode,
                    'bd': episode['path'][-1],
                    'asked': itinerary.to_json(),
                    'seed': int(seeds[k]),
                    'source': 'demonstrations',
                }
            else:
                dropped += 1
        ways.forget()
        bar.update(count)
    bar.close()
    print(
        f'demonstrations: {n - dropped} of {n} carried out their itinerary ({1 - dropped / n:.2%}), {dropped} dropped'
    )


def elites(size, seed, kwargs):
    from data.toy_nav.qd import DEFAULT, coverage, grow, rollout

    where = places(kwargs)
    found = grow(where.world, seed, max(1000, round(DEFAULT * size)))
    spread = found['spread']
    print(
        f'elites: {len(spread)}, {coverage(found["final"], where):.1%} of the reachable 5 x 5 cells, '
        f'spread median {np.median(spread):.1f}, 90% below {np.quantile(spread, 0.9):.1f} units, {found["stopped"].mean():.0%} stop'
    )
    for params, spread, episode in zip(found['params'], found['spread'], rollout(found['params'], where.world)):
        yield {
            **episode,
            'bd': episode['path'][-1],
            'policy': params,
            'spread': float(spread),
            'seed': 0,
            'source': 'elites',
        }


def controller(policy, obs):
    """the actions (n, 2) of stored policies (n, P) for obs (n, 9): replaying checks them too"""
    from data.toy_nav.qd import act

    return act(policy, obs)


def describe(episode, rng, kwargs, n=8):
    """
    Annotate an episode and put it into words.

    -> {'visits': list of events; 'asked': JSON of the itinerary; 'group': no two splits share it; 'names': landmarks, of
    which combinations are held out; 'novel': why it is for testing only, or ''; 'hard': 0 to 1, by the number of places; 'text', 'loose' (destination only): sentences}
    """
    where = places(kwargs)
    visits = where.visits(episode['path'])
    itinerary = Itinerary.from_json(episode['asked']) if episode.get('asked') else from_visits(visits, rng)
    texts = descriptions(itinerary, rng, n, loose=min(n, 1))
    return {
        'visits': visits,
        'asked': itinerary.to_json(),
        'group': str(Itinerary(itinerary.places)),
        'names': itinerary.names(),
        'novel': 'longer' if len(itinerary.places) > MAX_PLACES else '',
        'hard': min(1.0, len(itinerary.places) / MAX_PLACES),
        'text': texts[:n],
        'loose': texts[n:],
    }


def paraphrase(asked, rng, n=4):
    """the same in phrasings that no training text has -> n sentences"""
    return descriptions(Itinerary.from_json(asked), rng, n, held_out=True)


@lru_cache(maxsize=1)
def unseen_words():
    """kinds of words -> words of descriptions and others that mean the same and are never trained on"""
    return json.loads((Path(__file__).parent / 'unseen_words.json').read_text())


def reword(text, rng, most=None, kind=''):
    """a sentence in words that no training text has, wherever there are any (of a kind), or in `most` places, drawn from rng; None where there are none"""
    others = {word: said for k, words in unseen_words().items() if kind in ('', k) for word, said in words.items()}
    known = '|'.join(
        map(re.escape, sorted((word for words in unseen_words().values() for word in words), key=len, reverse=True))
    )  # file cabinet before cabinet
    found = [
        m for m in re.finditer(rf'(?<![\w-])({known})(?!\w)', text, re.I) if m[0].lower() in others
    ]  # south-west of stays what it is
    chosen = sorted(rng.permutation(len(found))[:most])
    for k in reversed(chosen):
        options, match = others[found[k][0].lower()], found[k]
        text = text[: match.start()] + options[int(rng.integers(len(options)))] + text[match.end() :]
    return text if chosen else None


def llm_prompt(asked, style, kwargs):
    """what a language model is asked, to describe an itinerary (JSON) in one of LLM_STYLES"""
    return llm.llm_prompt(Itinerary.from_json(asked), style, places(kwargs))


def invalid_because(text, asked, kwargs):
    """what is wrong with a language model's description of an itinerary (JSON), for it to be told; None where it is right"""
    return llm.invalid_because(text, Itinerary.from_json(asked), places(kwargs))


def narrate(path, kwargs):
    """a path (T + 1, 2) in words, for a language model to judge: no verdict, no coordinates"""
    return llm.narrate(path, places(kwargs))


def score(asked, path, reference, kwargs):
    """
    What was asked for (JSON of an itinerary), the path (T, 2) that was driven, and that of the episode it was taken from ->
    Itinerary.match's dict, the kind of failure, and how alike the two are: 'landmark_f1', what they visit, and 'colour_f1', the tiles they cross
    """
    where = places(kwargs)

    def landmarks(path):
        return [v['place'] for v in where.visits(path) if v['place']]

    itinerary = Itinerary.from_json(asked)
    verdict = itinerary.match(path, where)
    kind = itinerary.kind(path, where, verdict)
    if not itinerary.avoid:  # nothing to keep off
        del verdict['kept_off']
    return {
        **verdict,
        'kind': kind,
        'landmark_f1': lcs_f1(landmarks(reference), landmarks(path)),
        'colour_f1': lcs_f1(where.colours(reference), where.colours(path)),
    }


def cells(bd, kwargs):
    """bd (n, 2) -> the cells of the archive they lie in, (n, 2) int"""
    return places(kwargs).archive_cell(bd)


def report(prompt, bd, path, kwargs):
    """
    What a robot did, for a person to read and a program to use.

    prompt (str or None), bd (2 numbers or None), path (T + 1, 2) -> {'said': lines of text, 'visits', 'itinerary' (None where
    the prompt names no place), 'verdict': Itinerary.match's dict and the distance from bd, 'ok': True, False or None}
    """
    where, end = places(kwargs), path[-1]
    itinerary, visits = parse(prompt, where) if prompt else None, where.visits(path)
    verdict = itinerary.match(path, where) if itinerary else {}
    passed = [f'{place_name(v)} (step {v["step"]})' for v in visits[:-1] if v['place']]
    last = visits[-1]
    lines = [
        f'"{prompt}"' if prompt else 'no prompt',
        f'  passed: {", ".join(passed) or "nothing"}',
        f'  {"stopped" if stopped(path) else "was still driving"} at ({end[0]:.0f}, {end[1]:.0f}), '
        f'{place_name(last)} on the {last["tile"]} tile, after {len(path) - 1} steps',
    ]
    if bd is not None:
        verdict['bd_distance'] = float(np.hypot(*(end - np.array(bd))))
        lines.append(f'  {verdict["bd_distance"]:.1f} units from the asked ({bd[0]:g}, {bd[1]:g})')
    ok = None
    if itinerary:
        ok = verdict['carried_out']
        steps = [
            f'{p}: {"step " + str(s) if s is not None else "no"}' for p, s in zip(itinerary.places, verdict['steps'])
        ]
        steps += ['did not stop'] * (not verdict['stopped']) + [
            f'entered {p}' for p in itinerary.avoid if not verdict['kept_off'] and where.mask(p)[where.cell(path)].any()
        ]
        lines.append(f'  carried out: {"yes" if ok else "NO"} ({"; ".join(steps)})')
        missed = not_understood(prompt, where)
        lines += [f'  not understood, and not judged: {", ".join(missed)}'] * bool(missed)
    elif prompt:
        lines.append(
            f'  cannot be judged: the prompt names no place. Places are made of: {", ".join(where.objects)}; tiles: {", ".join(where.tiles)}'
        )
    return {'said': '\n'.join(lines), 'visits': visits, 'itinerary': itinerary, 'verdict': verdict, 'ok': ok}


def panel(episode, kwargs):
    """an episode of sample_policy.py -> what draw.py puts into one panel"""
    asked = episode.get('itinerary')
    goals = asked.places if asked else ()
    title = episode['prompt'] or 'bd = ' + ', '.join(f'{x:g}' for x in episode['bd'])
    return {
        'title': title,
        'path': episode['path'],
        'bd': episode['bd'],
        'ok': episode['ok'],
        'kind': episode.get('kind'),
        'reference': episode.get('reference'),
        'avoid': [places(kwargs).mask(p) for p in asked.avoid] if asked else [],
        'steps': [(str(p), s) for p, s in zip(goals, episode['verdict'].get('steps', ()))],
        'regions': [places(kwargs).mask(p) for p in goals],
    }


def draw_episodes(file, episodes, kwargs):
    from data.toy_nav.draw import picture

    picture(file, World(kwargs['scene']), [panel(e, kwargs) for e in episodes])


def animate(file, episode, kwargs):
    from data.toy_nav.draw import animation

    animation(file, World(kwargs['scene']), panel(episode, kwargs))


def draw_recovery(file, asked, reached, close, kwargs):
    from data.toy_nav.draw import recovery

    recovery(file, places(kwargs), asked, reached, close)


def draw_archive(file, bd, spread, kwargs):
    from data.toy_nav.draw import heat_map

    heat_map(file, places(kwargs), bd, spread)
