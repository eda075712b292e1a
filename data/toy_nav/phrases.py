"""
The phrases that toy_nav's sentences are made of. A sentence is an opening with the first place, a join for each place
between, an end with the last, then what to avoid, and a mark.

{go} {pass} {stop} stand for a verb with its place, {goes} {passes} {stops} for the same in the third person, {at} for
the place alone.
"""

import re
from dataclasses import replace

STYLES = {
    'request': {
        'open': [
            'Can you {go}',
            'Could you {go}',
            'Can you please {go}',
            'Could you please {go}',
            'Will you please {go}',
        ],
        'join': [', then {pass}', ' and then {pass}', ', after that {pass}'],
        'end': [' and {stop}', ', then {stop}', ' and finally {stop}'],
        'avoid': [' without passing {at}', ', but avoid {at}', ' and avoid {at}'],
        'mark': '?',
    },
    'instruction': {
        'open': ['{go}', 'First {go}', 'Please {go}', 'Robot, {go}'],
        'join': [', then {pass}', '. Then {pass}', ', after that {pass}', '. After that {pass}'],
        'end': [', then {stop}', ' and {stop}', ', and finally {stop}', '. Finally {stop}'],
        'avoid': [' without passing {at}', ', but avoid {at}', '. Avoid {at}', ', but keep away from {at}'],
        'mark': '.',
    },
    'narrative': {
        'open': [
            'The robot starts and {passes}',
            'The robot {goes}',
            'It sets off and {passes}',
            'First the robot {goes}',
        ],
        'join': [', then {passes}', ', then it {goes}', ' and then {passes}', '. Then it {passes}'],
        'end': [' and {stops}', ', then it {stops}', '. In the end it {stops}', ', and finally {stops}'],
        'avoid': [' without passing {at}', ', but avoids {at}', '. It keeps away from {at}', '. It avoids {at}'],
        'mark': '.',
    },
    'short': {
        'open': ['{go}', '{at}', '{at}'],
        'join': [', {at}', ', then {at}', ' then {at}', ' then {pass}'],
        'end': [', {at}', ', then {at}', ' then {at}', ' then {stop}'],
        'avoid': [' without {at}', ', not {at}', ', avoid {at}'],
        'mark': '',
    },
}
# for testing and never trained on
HELD_OUT = {
    'request': {
        'open': ['Please can you {go}', 'Robot, could you {go}', 'Robot, will you {go}'],
        'join': [' and after that {pass}', ', then please {pass}'],
        'end': [', after that {stop}', ' and in the end {stop}'],
        'avoid': [', without passing {at} please', ' and keep away from {at}'],
        'mark': '?',
    },
    'instruction': {
        'open': ['Robot, please {go}', 'Robot, first {go}', 'Set off and {go}'],
        'join': [' and then {pass}', ', then, robot, {pass}'],
        'end': [', and in the end {stop}', ' and then {stop}'],
        'avoid': ['. Keep away from {at}', ' and avoid {at}'],
        'mark': '.',
    },
    'narrative': {
        'open': ['First it {goes}', 'The robot sets off, {passes}', 'It {goes}'],
        'join': [', after that it {passes}', '. After that it {goes}'],
        'end': [', after that it {stops}', '. Finally it {stops}'],
        'avoid': [', but keeps away from {at}', ' and avoids {at}'],
        'mark': '.',
    },
    'short': {
        'open': ['first {at}', 'please {at}'],
        'join': [' and then {at}', ' and {at}'],
        'end': [' and then {at}', ', finally {at}'],
        'avoid': [', but not {at}', ', keep away from {at}'],
        'mark': '',
    },
}
# only the destination is named
LOOSE = {
    'request': 'Can you {end}?',
    'instruction': '{end}.',
    'narrative': 'In the end the robot {ends}.',
    'short': '{end}',
}
VERBS = {
    'go': ['go', 'drive', 'head', 'move'],
    'pass': ['pass', 'go', 'drive'],
    'stop': ['stop', 'finish', 'halt', 'go'],
    'goes': ['goes', 'drives', 'heads', 'moves'],
    'passes': ['passes', 'goes', 'drives'],
    'stops': ['stops', 'finishes', 'halts'],
    'end': ['end up', 'arrive'],
    'ends': ['ends up', 'arrives'],
}
# before an object or a tile
TO = {
    'go': 'to ',
    'drive': 'to ',
    'head': 'to ',
    'move': 'to ',
    'goes': 'to ',
    'drives': 'to ',
    'heads': 'to ',
    'moves': 'to ',
    'pass': 'by ',
    'passes': 'by ',
}  # with any other verb: at the fridge, on the purple tile


def pick(rng, options):
    return options[int(rng.integers(len(options)))]  # rng.choice takes ten times as long


def fill(frame, place, rng):
    """put a place into a frame: '{stop}', the purple tile -> 'stop on the purple tile'"""
    text = str(place)
    if place.kind == 'between' and rng.random() < 0.5:  # the other way round means the same
        text = str(replace(place, name=place.other, other=place.name))
    slot = re.search(r'{(\w+)}', frame).group(1)
    if slot != 'at':
        verb = pick(rng, VERBS[slot])
        text = f'{verb} {with_preposition(verb, place, text)}'
    return frame.replace('{' + slot + '}', text)


def with_preposition(verb, place, text):
    if place.kind not in ('at', 'tile'):
        return text  # go north of the fridge, stop between the bed and the sofa
    preposition = {'at': 'at ', 'tile': 'on '}[place.kind]
    text = TO.get(verb, preposition) + text
    return re.sub('^by the (.* tile)$', r'over the \1', text)  # pass by the fridge, pass over the purple tile


def sentence(places, avoid, style, rng, held_out=False):
    """places to pass in order, and those to avoid -> one sentence in a style of STYLES"""
    frames = STYLES[style]
    if held_out:
        frames = HELD_OUT[style]
    slots = ['open'] + ['join'] * (len(places) - 2) + ['end'] * (len(places) > 1) + ['avoid'] * len(avoid)
    parts = [fill(pick(rng, frames[slot]), place, rng) for slot, place in zip(slots, places + avoid)]
    return capital(''.join(parts) + frames['mark'], style)


def loose_sentence(destination, style, rng):
    """one sentence that names the destination only"""
    return capital(fill(LOOSE[style], destination, rng), style)


def capital(text, style):
    if style == 'short':
        return text
    return text[0].upper() + text[1:]


def all_words():
    """every piece of text that sentences are made of, but for the places"""
    slots = [slot for table in (STYLES, HELD_OUT) for style in table.values() for slot in style.values()]
    frames = [frame for slot in slots for frame in slot] + list(LOOSE.values())
    verbs = [verb for verbs in VERBS.values() for verb in verbs]
    return [re.sub('{.*?}', ' ', frame) for frame in frames] + verbs + list(TO.values())
