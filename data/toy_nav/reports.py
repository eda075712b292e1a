"""
What a robot did, in lines for a person to read; and what pictures show of an episode.
"""

import numpy as np

from data.toy_nav.itinerary import not_understood, parse, stopped
from data.toy_nav.llm import place_name


def report(prompt, bd, path, places):
    """
    prompt (str or None), bd (2 numbers or None), path (T + 1, 2) -> {'summary': lines of text, 'visits',
    'itinerary' (None where the prompt names no place), 'verdict': Itinerary.match's dict and the distance from bd,
    'ok': True, False or None}
    """
    itinerary = parse(prompt, places) if prompt else None
    visits = places.visits(path)
    verdict = itinerary.match(path, places) if itinerary else {}
    lines = [f'"{prompt}"' if prompt else 'no prompt', *where_it_drove(path, visits)]
    if bd is not None:
        verdict['bd_distance'] = float(np.hypot(*(path[-1] - np.array(bd))))
        lines.append(f'  {verdict["bd_distance"]:.1f} units from the asked ({bd[0]:g}, {bd[1]:g})')
    if itinerary:
        lines += what_it_did(itinerary, verdict, prompt, path, places)
    elif prompt:
        known = places.made_of()
        lines.append(f'  cannot be judged: the prompt names no place, or not in a clear order. {known}')
    ok = verdict['carried_out'] if itinerary else None
    return {'summary': '\n'.join(lines), 'visits': visits, 'itinerary': itinerary, 'verdict': verdict, 'ok': ok}


def where_it_drove(path, visits):
    *passed, last = visits
    passed = ', '.join(f'{place_name(v)} (step {v["step"]})' for v in passed if v['place'])
    x, y = path[-1]
    ended = 'stopped' if stopped(path) else 'was still driving'
    return [
        f'  passed: {passed or "nothing"}',
        f'  {ended} at ({x:.0f}, {y:.0f}), {place_name(last)} on the {last["tile"]} tile, after {len(path) - 1} steps',
    ]


def what_it_did(itinerary, verdict, prompt, path, places):
    details = []
    for place, step in zip(itinerary.places, verdict['steps']):
        details.append(f'{place}: ' + ('no' if step is None else f'step {step}'))
    if not verdict['stopped']:
        details.append('did not stop')
    if not verdict['kept_off']:
        details += [f'entered {p}' for p in itinerary.avoid if places.mask(p)[places.cell(path)].any()]
    yes = 'yes' if verdict['carried_out'] else 'NO'
    lines = [f'  carried out: {yes} ({"; ".join(details)})']
    missed = not_understood(prompt, places)
    if missed:
        lines.append(f'  not understood, and not judged: {", ".join(missed)}')
    return lines


def panel(episode, places):
    """an annotated episode -> what draw.py puts into one panel"""
    itinerary = episode.get('itinerary')
    goals = itinerary.places if itinerary else ()
    avoid = itinerary.avoid if itinerary else ()
    return {
        'title': episode['prompt'] or 'bd = ' + ', '.join(f'{x:g}' for x in episode['bd']),
        'path': episode['path'],
        'bd': episode['bd'],
        'ok': episode['ok'],
        'kind': episode.get('kind'),
        'reference': episode.get('reference'),
        'avoid': [places.mask(p) for p in avoid],
        'steps': [(str(p), s) for p, s in zip(goals, episode['verdict'].get('steps', ()))],
        'regions': [places.mask(p) for p in goals],
    }
