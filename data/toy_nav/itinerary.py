"""
An itinerary: the places to pass in order and the one to stop at. It says itself in words and judges a path by itself,
so a description and its score cannot disagree (after Minigrid's BabyAI verifier); `parse` reads it back from a sentence.
"""
import json
import re
from dataclasses import dataclass

import numpy as np

from data.toy_nav.places import Place
from data.toy_nav.world import COMPASS, STAND

# ------------------------------------------------------------------------------
# words. A sentence is an opening with the first place, a join for each place between, and an end with the last.
# {go} {pass} {stop} are a verb with its place, {goes} ... the same in the third person, {at} the bare place.
# The phrasings in HELD_OUT are for testing and never trained on.

STYLES = {
    'request': {
        'open': ["Can you {go}", "Could you {go}", "Can you please {go}", "Could you please {go}", "Will you please {go}"],
        'join': [", then {pass}", " and then {pass}", ", after that {pass}"],
        'end': [" and {stop}", ", then {stop}", " and finally {stop}"], 'mark': "?"},
    'instruction': {
        'open': ["{go}", "First {go}", "Please {go}", "Robot, {go}"],
        'join': [", then {pass}", ". Then {pass}", ", after that {pass}", ". After that {pass}"],
        'end': [", then {stop}", " and {stop}", ", and finally {stop}", ". Finally {stop}"], 'mark': "."},
    'narrative': {
        'open': ["The robot starts and {passes}", "The robot {goes}", "It sets off and {passes}", "First the robot {goes}"],
        'join': [", then {passes}", ", then it {goes}", " and then {passes}", ". Then it {passes}"],
        'end': [" and {stops}", ", then it {stops}", ". In the end it {stops}", ", and finally {stops}"], 'mark': "."},
    'short': {
        'open': ["{go}", "{at}", "{at}"],
        'join': [", {at}", ", then {at}", " then {at}", " then {pass}"],
        'end': [", {at}", ", then {at}", " then {at}", " then {stop}"], 'mark': ""},
}
HELD_OUT = {
    'request': {
        'open': ["Please can you {go}", "Robot, could you {go}", "Robot, will you {go}"],
        'join': [" and after that {pass}", ", then please {pass}"],
        'end': [", after that {stop}", " and in the end {stop}"], 'mark': "?"},
    'instruction': {
        'open': ["Robot, please {go}", "Robot, first {go}", "Set off and {go}"],
        'join': [" and then {pass}", ", then, robot, {pass}"],
        'end': [", and in the end {stop}", " and then {stop}"], 'mark': "."},
    'narrative': {
        'open': ["First it {goes}", "The robot sets off, {passes}", "It {goes}"],
        'join': [", after that it {passes}", ". After that it {goes}"],
        'end': [", after that it {stops}", ". Finally it {stops}"], 'mark': "."},
    'short': {
        'open': ["first {at}", "please {at}"],
        'join': [" and then {at}", " and {at}"],
        'end': [" and then {at}", ", finally {at}"], 'mark': ""},
}
LOOSE = {'request': "Can you {end}?", 'instruction': "{end}.", 'narrative': "In the end the robot {ends}.", 'short': "{end}"}
VERBS = {'go': ["go", "drive", "head", "move"], 'pass': ["pass", "go", "drive"], 'stop': ["stop", "finish", "halt", "go"],
         'goes': ["goes", "drives", "heads", "moves"], 'passes': ["passes", "goes", "drives"],
         'stops': ["stops", "finishes", "halts"], 'end': ["end up", "arrive"], 'ends': ["ends up", "arrives"]}
TO = {'go': "to ", 'drive': "to ", 'head': "to ", 'move': "to ", 'goes': "to ", 'drives': "to ", 'heads': "to ", 'moves': "to ",
      'pass': "by ", 'passes': "by "} # any other verb: at the fridge, on the purple tile


@dataclass(frozen=True)
class Itinerary:
    """places: in the order to pass them, the last is where to stop. loose: only the destination is asked for, by any way."""
    places: tuple
    loose: bool = False

    def __str__(self):
        return ('... > ' if self.loose else '') + ' > '.join(map(str, self.places))

    def to_json(self):
        return json.dumps([{k: v for k, v in vars(p).items() if v} for p in self.places])

    @staticmethod
    def from_json(text):
        return Itinerary(tuple(Place(**p) for p in json.loads(text)))

    def destination(self):
        return Itinerary(self.places[-1:], loose=True)

    def names(self):
        return set().union(*(p.names() for p in self.places))

    def say(self, rng, style, held_out=False):
        """ one sentence in a style of STYLES, drawn from rng; held_out: in a phrasing kept for testing """
        if self.loose:
            return capital(fill(LOOSE[style], self.places[0], rng), style)
        frames = (HELD_OUT if held_out else STYLES)[style]
        slots = ['open'] + ['join'] * (len(self.places) - 2) + ['end'] * (len(self.places) > 1)
        text = ''.join(fill(pick(rng, frames[slot]), place, rng) for slot, place in zip(slots, self.places))
        return capital(text + frames['mark'], style)

    def match(self, path, places):
        """
        Score a path (T + 1, 2) against this itinerary, in a `Places`.

        Returns {'carried_out': every place in order and it stopped inside the last, 'in_order': share of the places passed
        in order, 'at_destination': it ended inside the last place, 'stopped': it moved less than 2 units in its last 16
        steps, 'steps': when each place was passed, None where it was not}.
        """
        if not len(path):
            return {'carried_out': False, 'in_order': 0.0, 'at_destination': False, 'stopped': False, 'steps': [None] * len(self.places)}
        cells, after, steps = places.cell(path), 0, []
        for i, place in enumerate(self.places):
            inside = np.flatnonzero(places.mask(place)[cells][after:])
            if i == len(self.places) - 1 and len(inside) and inside[-1] + after != len(path) - 1:
                inside = [] # the last one counts only if it ends there
            steps.append(int(inside[0]) + after if len(inside) else None)
            after = steps[-1] if len(inside) else after
        at_destination = bool(places.mask(self.places[-1])[places.cell(path[-1])])
        in_order = sum(s is not None for s in steps) / len(steps)
        return {'carried_out': in_order == 1.0 and stopped(path), 'in_order': in_order, 'at_destination': at_destination,
                'stopped': stopped(path), 'steps': steps}


def stopped(path):
    """ did it move less than 2 units in its last 16 steps? """
    return len(path) > STAND and bool(np.hypot(*(path[-STAND - 1:] - path[-1]).T).max() < 2.0)


def fill(frame, place, rng):
    """ put a place into a frame: '{stop}', the purple tile -> 'stop on the purple tile' """
    if place.kind == 'between' and rng.random() < 0.5:
        said = f'between the {place.other} and the {place.name}' + (f' on the {place.tile} tile' if place.tile else '')
    else:
        said = str(place)
    slot = re.search(r'{(\w+)}', frame).group(1)
    if slot == 'at':
        return frame.replace('{at}', said)
    verb = pick(rng, VERBS[slot])
    if place.kind in ('at', 'tile'):
        preposition = {'at': "at ", 'tile': "on "}[place.kind]
        said = TO.get(verb, "to " if slot in ('stop', 'stops') and verb == 'go' else preposition) + said
        said = re.sub('^by the (.* tile)$', r'over the \1', said) # pass by the fridge, pass over the purple tile
    return frame.replace('{' + slot + '}', f'{verb} {said}')


def pick(rng, options):
    return options[int(rng.integers(len(options)))] # rng.choice takes ten times as long


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


def from_visits(visits, rng, max_places=4):
    """ the itinerary of an annotated path: its nearest visits, in order, and where it ended. rng mentions some tiles. """
    end = visits[-1]
    near = [v for v in visits[:-1] if v['place']]
    near = [v for v in near if v in sorted(near, key=lambda v: v['distance'])[:max_places - 1]]
    def place(v):
        return Place('side', v['place'], v['side'], tile=v['tile'] if rng.random() < 0.2 else '')
    return Itinerary(tuple(map(place, near)) + (place(end) if end['place'] else Place('tile', end['tile']),))


def parse(text, places):
    """ a sentence -> the Itinerary of the places it names, in the order it names them; None where it names none """
    text = re.sub(r'\s+', ' ', text.lower())
    known = {name.lower(): name for name in places.objects + places.tiles} # a scene may write TV
    objects = '|'.join(sorted((re.escape(name.lower()) for name in places.objects), key=len, reverse=True)) # file cabinet before cabinet
    tiles = '|'.join(re.escape(name.lower()) for name in places.tiles)
    side = r'(?P<ns>north|south)?(?:[ -]?(?P<ew>east|west))?'
    mention = re.compile(rf'\bbetween (?:the )?(?P<a>{objects}) and (?:the )?(?P<b>{objects})\b|'
                         rf'\b{side}(?: side)? of (?:the )?(?P<o>{objects})\b|\b(?P<t>{tiles}) tile\b|\b(?P<at>{objects})\b')
    found, end = [], 0
    for match in mention.finditer(text):
        m = {k: known.get(v, v) for k, v in match.groupdict().items()}
        if m['t']:
            if found and text[end:match.start()] == ' on the ' and not found[-1].tile and found[-1].kind != 'tile':
                found[-1] = Place(found[-1].kind, found[-1].name, found[-1].side, found[-1].other, m['t'])
            else:
                found.append(Place('tile', m['t']))
        elif m['a'] and m['a'] != m['b']:
            a, b = sorted((m['a'], m['b']), key=places.objects.index)
            found.append(Place('between', a, other=b))
        elif m['o']:
            compass = '-'.join(filter(None, (m['ns'], m['ew'])))
            found.append(Place('side', m['o'], compass) if compass in COMPASS else Place('at', m['o']))
        elif m['at'] or m['a']:
            found.append(Place('at', m['at'] or m['a']))
        end = match.end()
    if not found:
        return None
    loose = len(found) == 1 and re.search(r'\b(ends? up|arrives?)\b', text)
    return Itinerary(tuple(found), bool(loose))
