"""
An itinerary: the places to pass in order and the one to stop at. It says itself in words and judges a path by itself,
so a description and its score cannot disagree (after Minigrid's BabyAI verifier); `parse` reads it back from a sentence.
"""

import json
import re
from dataclasses import dataclass, replace

import numpy as np

from data.text import words
from data.toy_nav.places import Place
from data.toy_nav.world import COMPASS, STAND

# ------------------------------------------------------------------------------
# words. A sentence is an opening with the first place, a join for each place between, an end with the last, and what to avoid.
# {go} {pass} {stop} are a verb with its place, {goes} ... the same in the third person, {at} the bare place.
# The phrasings in HELD_OUT are for testing and never trained on.

MAX_PLACES = 4  # more are never trained on: longer itineraries are for testing
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
}  # any other verb: at the fridge, on the purple tile
AFTER = re.compile(r'\bafter\b(?! (that|this|which)\b)')  # between two places: the second comes first
AVOID = re.compile(
    r'\b(avoid(s|ing)?|without( passing| going| driving| crossing| touching)?|not|never|(keep|stay)(s|ing)? (away from|off|clear of))'
    r'( (pass|go|drive|cross|touch))?( (to|by|over|at|near|on))?( the)? $'
)  # before a place: keep away from it


@dataclass(frozen=True)
class Itinerary:
    """
    places: in the order to pass them, the last is where to stop. loose: only the destination is asked for, by any way.
    avoid: places not to enter on the way.
    """

    places: tuple
    loose: bool = False
    avoid: tuple = ()

    def __str__(self):
        return (
            ('... > ' if self.loose else '')
            + ' > '.join(map(str, self.places))
            + ''.join(f', not {p}' for p in self.avoid)
        )

    def to_json(self):
        said = [{k: v for k, v in vars(p).items() if v} for p in self.avoid + self.places]
        return json.dumps([{**p, 'avoid': True} if i < len(self.avoid) else p for i, p in enumerate(said)])

    @staticmethod
    def from_json(text):
        said = json.loads(text)
        places, avoid = (
            [Place(**{k: v for k, v in p.items() if k != 'avoid'}) for p in said if p.get('avoid', False) == a]
            for a in (False, True)
        )
        return Itinerary(tuple(places), avoid=tuple(avoid))

    def destination(self):
        return Itinerary(self.places[-1:], loose=True)

    def names(self):
        return set().union(*(p.names() for p in self.places + self.avoid))

    def say(self, rng, style, held_out=False):
        """one sentence in a style of STYLES, drawn from rng; held_out: in a phrasing kept for testing"""
        if self.loose:
            return capital(fill(LOOSE[style], self.places[0], rng), style)
        frames = (HELD_OUT if held_out else STYLES)[style]
        slots = ['open'] + ['join'] * (len(self.places) - 2) + ['end'] * (len(self.places) > 1)
        slots += ['avoid'] * len(self.avoid)
        text = ''.join(
            fill(pick(rng, frames[slot]), place, rng) for slot, place in zip(slots, self.places + self.avoid)
        )
        return capital(text + frames['mark'], style)

    def match(self, path, places):
        """
        Score a path (T + 1, 2) against this itinerary, in a `Places`.

        Returns {'carried_out': every place in order, it stopped inside the last and kept off what to avoid, 'in_order': share
        of the places passed in order, 'at_destination': it ended inside the last place, 'stopped': it moved less than 2 units
        in its last 16 steps, 'kept_off': it never entered what to avoid, 'steps': when each place was passed, None where it was not}.
        """
        if not len(path):
            return {
                'carried_out': False,
                'in_order': 0.0,
                'at_destination': False,
                'stopped': False,
                'kept_off': True,
                'steps': [None] * len(self.places),
            }
        cells, after, steps = places.cell(path), 0, []
        for i, place in enumerate(self.places):
            inside = np.flatnonzero(places.mask(place)[cells][after:])
            if i == len(self.places) - 1 and len(inside) and inside[-1] + after != len(path) - 1:
                inside = []  # the last one counts only if it ends there
            steps.append(int(inside[0]) + after if len(inside) else None)
            after = steps[-1] if len(inside) else after
        at_destination = bool(places.mask(self.places[-1])[places.cell(path[-1])])
        in_order = sum(s is not None for s in steps) / len(steps)
        kept_off = not any(places.mask(p)[cells].any() for p in self.avoid)
        return {
            'carried_out': in_order == 1.0 and stopped(path) and kept_off,
            'in_order': in_order,
            'at_destination': at_destination,
            'stopped': stopped(path),
            'kept_off': kept_off,
            'steps': steps,
        }

    def kind(self, path, places, verdict):
        """how a path (T + 1, 2) with that verdict of match ended: 'carried out', or the first thing that went wrong"""
        cells = places.cell(path)
        if verdict['carried_out']:
            return 'carried out'
        if not verdict['kept_off']:
            return 'entered what to avoid'
        if len(path) > places.world.max_steps and not verdict['stopped']:
            return 'did not stop' if verdict['at_destination'] else 'ran out of time'
        if len(path) > places.world.max_steps:
            return 'stuck'
        if not verdict['at_destination']:
            return 'stopped in the wrong place'
        return 'wrong order' if all(places.mask(p)[cells].any() for p in self.places) else 'missed a place on the way'


def stopped(path):
    """did it move less than 2 units in its last 16 steps?"""
    return len(path) > STAND and bool(np.hypot(*(path[-STAND - 1 :] - path[-1]).T).max() < 2.0)


def fill(frame, place, rng):
    """put a place into a frame: '{stop}', the purple tile -> 'stop on the purple tile'"""
    if place.kind == 'between' and rng.random() < 0.5:
        said = f'between the {place.other} and the {place.name}' + (f' on the {place.tile} tile' if place.tile else '')
    else:
        said = str(place)
    slot = re.search(r'{(\w+)}', frame).group(1)
    if slot == 'at':
        return frame.replace('{at}', said)
    verb = pick(rng, VERBS[slot])
    if place.kind in ('at', 'tile'):
        preposition = {'at': 'at ', 'tile': 'on '}[place.kind]
        said = TO.get(verb, 'to ' if slot in ('stop', 'stops') and verb == 'go' else preposition) + said
        said = re.sub('^by the (.* tile)$', r'over the \1', said)  # pass by the fridge, pass over the purple tile
    return frame.replace('{' + slot + '}', f'{verb} {said}')


def pick(rng, options):
    return options[int(rng.integers(len(options)))]  # rng.choice takes ten times as long


def capital(text, style):
    return text if style == 'short' else text[0].upper() + text[1:]


def descriptions(itinerary, rng, n=8, held_out=False, loose=0):
    """
    n distinct sentences for an itinerary, the styles in turn, then `loose` ones that name the destination only.

    A one-place itinerary has no looser form: its destination is all there is to say.
    """
    texts, styles = [], list(STYLES)
    for attempt in range(50 * n):
        text = itinerary.say(rng, styles[len(texts) % len(styles)], held_out)
        if text not in texts:
            texts.append(text)
        if len(texts) == n:
            break
    if len(itinerary.places) > 1:
        texts += [itinerary.destination().say(rng, styles[int(rng.integers(len(styles)))]) for _ in range(loose)]
    return texts


# ------------------------------------------------------------------------------
# and back: read the places a sentence names, in its order


def from_visits(visits, rng, max_places=MAX_PLACES):
    """the itinerary of an annotated path: its nearest visits, in order, and where it ended. rng mentions some tiles."""
    end = visits[-1]
    near = [v for v in visits[:-1] if v['place']]
    near = [v for v in near if v in sorted(near, key=lambda v: v['distance'])[: max_places - 1]]

    def place(v):
        return Place('side', v['place'], v['side'], tile=v['tile'] if rng.random() < 0.2 else '')

    return Itinerary(tuple(map(place, near)) + (place(end) if end['place'] else Place('tile', end['tile']),))


def parse(text, places):
    """
    A sentence -> the Itinerary of the places it names, in the order it means ("the bed after the fridge" begins at the
    fridge), less those it says to avoid; None where it names no place to go to.
    """
    text = re.sub(r'\s+', ' ', text.lower())
    known = {name.lower(): name for name in places.objects + places.tiles}  # a scene may write TV
    objects = '|'.join(
        sorted((re.escape(name.lower()) for name in places.objects), key=len, reverse=True)
    )  # file cabinet before cabinet
    tiles = '|'.join(re.escape(name.lower()) for name in places.tiles)
    side = r'(?P<ns>north|south)?(?:[ -]?(?P<ew>east|west))?'
    mention = re.compile(
        rf'\bbetween (?:the )?(?P<a>{objects}) and (?:the )?(?P<b>{objects})\b|'
        rf'\b(?=[nsew]){side}(?: side)? of (?:the )?(?P<o>{objects})\b|\b(?P<t>{tiles}) tiles?\b|\b(?P<at>{objects})\b'
    )
    found, avoid, end, begins = [], [], 0, 0  # begins: the sentence, among those found
    later, banned = False, False  # the last one found comes after the next; the last mention was one to avoid
    for match in mention.finditer(text):
        m = {k: known.get(v, v) for k, v in match.groupdict().items()}
        between = text[end : match.start()]
        if '.' in between:
            begins, later = len(found), False
        last = (avoid if banned else found)[-1:]
        if m['t'] and last and between == ' on the ' and not last[0].tile and last[0].kind != 'tile':
            (avoid if banned else found)[-1] = replace(last[0], tile=m['t'])
        elif AVOID.search(text[: match.start()]) or banned and re.fullmatch(r',? (and|or|nor)( the)? ', between):
            avoid.append(place_of(m, places))
            banned = True
        else:
            banned = False
            earlier = later or len(found) > begins and AFTER.search(between)
            later = len(found) == begins and 'before' in between.split()
            found.insert(len(found) - bool(earlier), place_of(m, places))
        end = match.end()
    if not found:
        return None
    loose = len(found) == 1 and re.search(r'\b(ends? up|arrives?)\b', text)
    return Itinerary(tuple(found), bool(loose), tuple(avoid))


def not_understood(text, places):
    """the words of a sentence that no description has: nothing was made of them"""
    frames = [f for frames in (*STYLES.values(), *HELD_OUT.values()) for slot in frames.values() for f in slot] + list(
        LOOSE.values()
    )
    said = (
        [re.sub('{.*?}', ' ', f) for f in frames]
        + [verb for verbs in VERBS.values() for verb in verbs]
        + list(TO.values())
        + list(COMPASS)
    )
    said += [
        *places.objects,
        *places.tiles,
        'between the on at over near tile tiles side before after of and or nor',
        'avoid avoiding not never going driving crossing touching stay stays staying keeping off clear cross touch',
    ]
    return sorted(words(text) - words(' '.join(said)))


def place_of(m, places):
    """the groups of a mention -> its Place"""
    if m['t']:
        return Place('tile', m['t'])
    if m['a'] and m['a'] != m['b']:
        a, b = sorted((m['a'], m['b']), key=places.objects.index)
        return Place('between', a, other=b)
    compass = '-'.join(filter(None, (m['ns'], m['ew'])))
    return Place('side', m['o'], compass) if m['o'] and compass in COMPASS else Place('at', m['o'] or m['at'] or m['a'])
