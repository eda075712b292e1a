"""
An itinerary: the places to pass in order and the one to stop at. The same object is put into words and scores a path,
so a description and its score cannot disagree (after Minigrid's BabyAI verifier); `parse` reads it from a sentence.
"""

import json
import re
from dataclasses import dataclass, replace

import numpy as np

from data.text import words
from data.toy_nav import phrases
from data.toy_nav.phrases import STYLES, pick
from data.toy_nav.places import Place
from data.toy_nav.world import COMPASS, STAND

MAX_PLACES = 4  # of itineraries that are trained on: longer ones are for testing


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
        text = ' > '.join(map(str, self.places))
        if self.loose:
            text = '... > ' + text
        return text + ''.join(f', not {place}' for place in self.avoid)

    def to_json(self):
        """[{'kind': .., 'name': .., ..}, ..]: what to avoid comes first, marked by 'avoid': true"""
        avoid = [{**to_dict(place), 'avoid': True} for place in self.avoid]
        return json.dumps(avoid + [to_dict(place) for place in self.places])

    @staticmethod
    def from_json(text):
        places, avoid = [], []
        for fields in json.loads(text):
            if fields.pop('avoid', False):
                avoid.append(Place(**fields))
            else:
                places.append(Place(**fields))
        return Itinerary(tuple(places), avoid=tuple(avoid))

    def destination(self):
        return Itinerary(self.places[-1:], loose=True)

    def names(self):
        """the landmarks of all its places"""
        return set().union(*(place.names() for place in self.places + self.avoid))

    def to_text(self, rng, style, held_out=False):
        """one sentence in a style of STYLES, drawn from rng; held_out: in a phrasing kept for testing"""
        if self.loose:
            return phrases.loose_sentence(self.places[0], style, rng)
        return phrases.sentence(self.places, self.avoid, style, rng, held_out)

    def match(self, path, places):
        """
        Score a path (T + 1, 2) against this itinerary, in a `Places`. Returns a dict of

            carried_out     every place in order, stopped inside the last, and never entered what to avoid
            in_order        share of the places that were passed in order
            at_destination  the path ends inside the last place
            stopped         it moved less than 2 units in its last 16 steps
            kept_off        it never entered what to avoid
            steps           when each place was passed, None where it was not
        """
        steps = self.steps_passed(path, places)
        in_order = sum(step is not None for step in steps) / len(steps)
        kept_off = not any(entered(place, path, places) for place in self.avoid)
        return {
            'carried_out': in_order == 1.0 and stopped(path) and kept_off,
            'in_order': in_order,
            'at_destination': len(path) > 0 and entered(self.places[-1], path[-1:], places),
            'stopped': stopped(path),
            'kept_off': kept_off,
            'steps': steps,
        }

    def steps_passed(self, path, places):
        """-> for each place the first step at which path (T + 1, 2) was inside, after the places before; or None"""
        if not len(path):
            return [None] * len(self.places)
        cells = places.cell(path)
        after = 0
        steps = []
        for place in self.places:
            inside = after + np.flatnonzero(places.mask(place)[cells][after:])
            if len(steps) == len(self.places) - 1 and len(inside) and inside[-1] != len(path) - 1:
                inside = []  # the last place counts only where the path ends in it
            step = None
            if len(inside):
                step = after = int(inside[0])
            steps.append(step)
        return steps

    def kind(self, path, places, verdict):
        """how a path (T + 1, 2) with that dict of `match` ended: 'carried out', or the first thing that went wrong"""
        if verdict['carried_out']:
            return 'carried out'
        if not verdict['kept_off']:
            return 'entered what to avoid'
        if len(path) > places.world.max_steps:
            if verdict['stopped']:
                return 'stuck'
            if verdict['at_destination']:
                return 'did not stop'
            return 'ran out of time'
        if not verdict['at_destination']:
            return 'stopped in the wrong place'
        if all(entered(place, path, places) for place in self.places):
            return 'wrong order'
        return 'missed a place on the way'


def to_dict(place):
    return {key: value for key, value in vars(place).items() if value}


def entered(place, path, places):
    """was path (T + 1, 2) ever inside a place?"""
    return bool(places.mask(place)[places.cell(path)].any())


def stopped(path):
    """did it move less than 2 units in its last 16 steps?"""
    return len(path) > STAND and bool(np.hypot(*(path[-STAND - 1 :] - path[-1]).T).max() < 2.0)


def descriptions(itinerary, rng, n=8, held_out=False, loose=0):
    """
    n distinct sentences for an itinerary, the styles in turn, then `loose` ones that name the destination only.

    A one-place itinerary has no looser form: its destination is all there is to say.
    """
    styles = list(STYLES)
    texts = []
    for _ in range(50 * n):
        text = itinerary.to_text(rng, styles[len(texts) % len(styles)], held_out)
        if text not in texts:
            texts.append(text)
        if len(texts) == n:
            break
    if len(itinerary.places) > 1:
        texts += [itinerary.destination().to_text(rng, pick(rng, styles)) for _ in range(loose)]
    return texts


def from_visits(visits, rng, max_places=MAX_PLACES):
    """the itinerary of an annotated path: its nearest visits in order, and where it ended. rng names a tile at times"""

    def place(visit):
        tile = ''
        if rng.random() < 0.2:
            tile = visit['tile']
        return Place('side', visit['place'], visit['side'], tile=tile)

    *passed, end = visits
    passed = [visit for visit in passed if visit['place']]
    nearest = sorted(passed, key=lambda visit: visit['distance'])[: max_places - 1]
    places = [place(visit) for visit in passed if visit in nearest]
    if end['place']:
        places.append(place(end))
    else:
        places.append(Place('tile', end['tile']))
    return Itinerary(tuple(places))


# ------------------------------------------------------------------------------
# from a sentence to an itinerary

AFTER = re.compile(r'\bafter\b(?! (that|this|which)\b)')  # between two places: the second comes first
AVOID = re.compile(  # before a place: keep away from it
    r'\b(avoid(s|ing)?|without( passing| going| driving| crossing| touching)?|not|never|'
    r'(keep|stay)(s|ing)? (away from|off|clear of))'
    r'( (pass|go|drive|cross|touch))?( (to|by|over|at|near|on))?( the)? $'
)
AND_AVOID = re.compile(r',? (and|or|nor)( the)? ')  # between two places to avoid
UNDERSTOOD = [  # by `parse`, though no description has them
    'between the on at over near tile tiles side before after of and or nor',
    'avoid avoiding not never going driving crossing touching stay stays staying keeping off clear cross touch',
]


def parse(text, places):
    """
    A sentence -> the Itinerary of the places it names, in the order it means ("the bed after the fridge" begins at the
    fridge), less those it says to avoid; None where it names no place to go to.
    """
    text = re.sub(r'\s+', ' ', text.lower())
    to_pass, to_avoid = [], []
    n_before = 0  # places to pass in the sentences before this one
    reverse = False  # the last place to pass comes after the next one: "before the bed, pass the fridge"
    avoiding = False  # the last place named is one to avoid
    end = 0  # of the last place named
    for mention in mention_pattern(places).finditer(text):
        between = text[end : mention.start()]
        end = mention.end()
        place = mentioned_place(mention, places)
        if '.' in between:
            n_before = len(to_pass)
            reverse = False
        current = to_avoid if avoiding else to_pass
        if current and between == ' on the ' and narrows(place, current[-1]):
            current[-1] = replace(current[-1], tile=place.name)
            continue
        avoiding = bool(AVOID.search(text[: mention.start()]) or avoiding and AND_AVOID.fullmatch(between))
        if avoiding:
            to_avoid.append(place)
            continue
        first_of_sentence = len(to_pass) == n_before
        if reverse or not first_of_sentence and AFTER.search(between):
            to_pass.insert(len(to_pass) - 1, place)
        else:
            to_pass.append(place)
        reverse = first_of_sentence and 'before' in between.split()
    if not to_pass:
        return None
    loose = len(to_pass) == 1 and re.search(r'\b(ends? up|arrives?)\b', text)
    return Itinerary(tuple(to_pass), bool(loose), tuple(to_avoid))


def narrows(tile, place):
    """north of the fridge + the pink tile: is it the tile on which the place lies?"""
    return tile.kind == 'tile' and place.kind != 'tile' and not place.tile


def mention_pattern(places):
    """a place in a lower-case sentence, its parts in named groups"""
    longest_first = sorted((re.escape(name.lower()) for name in places.objects), key=len, reverse=True)
    objects = '|'.join(longest_first)  # file cabinet before cabinet
    tiles = '|'.join(re.escape(name.lower()) for name in places.tiles)
    side = r'(?P<ns>north|south)?(?:[ -]?(?P<ew>east|west))?'
    return re.compile(
        rf'\bbetween (?:the )?(?P<a>{objects}) and (?:the )?(?P<b>{objects})\b|'
        rf'\b(?=[nsew]){side}(?: side)? of (?:the )?(?P<of>{objects})\b|'
        rf'\b(?P<tile>{tiles}) tiles?\b|\b(?P<at>{objects})\b'
    )


def mentioned_place(mention, places):
    """a match of mention_pattern -> its Place"""
    spelling = {name.lower(): name for name in places.objects + places.tiles}  # a scene may write TV
    m = {group: spelling.get(text, text) for group, text in mention.groupdict().items()}
    if m['tile']:
        return Place('tile', m['tile'])
    if m['a'] and m['a'] != m['b']:
        a, b = sorted((m['a'], m['b']), key=places.objects.index)
        return Place('between', a, other=b)
    compass = '-'.join(filter(None, (m['ns'], m['ew'])))
    if m['of'] and compass in COMPASS:
        return Place('side', m['of'], compass)
    return Place('at', m['of'] or m['at'] or m['a'])


def not_understood(text, places):
    """the words of a sentence that no description has, sorted: `parse` ignores them"""
    known = phrases.all_words() + list(COMPASS) + places.objects + places.tiles + UNDERSTOOD
    return sorted(words(text) - words(' '.join(known)))
