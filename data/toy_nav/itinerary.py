"""
An itinerary: the places to pass in order and the one to stop at. The same object is put into words and scores a path,
so a description and its score cannot disagree (after Minigrid's BabyAI verifier); `parse` reads it from a sentence.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np

from data.text import words
from data.toy_nav import phrases
from data.toy_nav.phrases import TURNS
from data.toy_nav.places import Place
from data.toy_nav.reading import Unclear, marked, mentions
from data.toy_nav.recognise import recognised, some_recognised, with_prohibitions
from data.toy_nav.world import COMPASS, STAND

ORDERED = {'then', 'before', 'after'}  # cues of `reading` after which a verb with -ing is no more than a verb
CONJUNCTIONS = {*ORDERED, 'stop', 'back', 'first'}  # .. without verbs
AVOIDABLE = ('tile', 'at', 'side')  # kinds of places, each forbidden about as often
MAX_PLACES = 4  # of itineraries that are driven in training: longer ones are for testing
SAID_PLACES = [0.2, 0.25, 0.25, 0.17, 0.13]  # share of 1 .. 5 places in itineraries that are words alone
SAID_AVOID = [0.57, 0.28, 0.12, 0.03]  # .. of 0 .. 3 to avoid
MOST_WITH_THREE = 3  # places beside three to avoid: what is said of more is too long


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

    def plain(self):
        """in plain words: go to the fan, then north of the bed, but avoid the red tile; of no place nothing"""
        if not self.places:
            return ''
        text = 'go to ' + ', then '.join(map(str, self.places))
        if self.loose:
            text = f'end up at {self.places[-1]}'
        if self.avoid:
            text += ', but avoid ' + ' and '.join(map(str, self.avoid))
        return text

    def destination(self):
        return Itinerary(self.places[-1:], loose=True)

    def names(self):
        """the landmarks of all its places"""
        return set().union(*(place.names() for place in self.places + self.avoid))

    def to_text(self, rng, style, held_out=False):
        """one sentence in a style of STYLES, drawn from rng; held_out: in a phrasing kept for testing"""
        return phrases.sentence(self, style, random_numbers(rng), held_out)

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


def any_itinerary(rng, places):
    """an itinerary that can be said; whether anybody could drive it is not asked"""
    n = 1 + int(rng.choice(len(SAID_PLACES), p=SAID_PLACES))
    n_avoid = int(rng.choice(len(SAID_AVOID), p=SAID_AVOID))
    if n_avoid == 3:
        n = min(n, MOST_WITH_THREE)
    drawn = {}  # in their order
    while len(drawn) < n + n_avoid:
        place = places.draw(rng)
        if len(drawn) < n or place.kind in AVOIDABLE:
            drawn.setdefault(place)
    return Itinerary(tuple(drawn)[:n], avoid=tuple(drawn)[n:])


def descriptions(itinerary, rng, n=8, held_out=False, loose=0):
    """
    n distinct sentences for an itinerary, the styles in turn, then `loose` ones that name the destination only.

    A one-place itinerary has no looser form: its destination is all there is to say.
    """
    draw = random_numbers(rng)
    texts = distinct(lambda k: phrases.sentence(itinerary, TURNS[k % len(TURNS)], draw, held_out), n)
    if len(itinerary.places) > 1:
        styles = [TURNS[int(draw() * len(TURNS))] for _ in range(loose)]
        texts += [phrases.sentence(itinerary.destination(), style, draw) for style in styles]
    return texts


def distinct(say, n):
    """n distinct texts, each of them say(the number of those before); fewer where it says too few"""
    texts = []
    for _ in range(50 * n):
        text = say(len(texts))
        if text not in texts:
            texts.append(text)
        if len(texts) == n:
            break
    return texts


def only_forbidding(avoid, rng, n):
    """n distinct sentences that forbid one or two places, and ask for none"""
    draw = random_numbers(rng)
    return distinct(lambda _: phrases.only_forbidding(avoid, draw), n)


def instead_of(meant, other, rng, n):
    """n distinct sentences that ask for places and name another that is not meant"""
    draw = random_numbers(rng)
    return distinct(lambda _: phrases.instead_of(meant, other, draw), n)


def random_numbers(rng):
    """a function that draws numbers from 0 to 1, from rng's bits: ten times as fast as rng"""
    return Random(int(rng.integers(2**63))).random


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


class Order:
    """
    The marks of a sentence in the order that it means, read one after the other.

    Where a place is followed by 'after', 'via' and the like, those that come next belong before it: it is `held` back
    to the end of the clause. So is the place that follows 'before' at the beginning of a clause. `sure`: so do those
    after a 'then', as in "go to C, but first to A and then to B". "Go to C after A, then B" is not clear.
    """

    def __init__(self):
        self.marks = []
        self.stopping = False  # at the last place, a verb said
        self.begin()

    def begin(self):
        """a clause"""
        self.start = len(self.marks)
        self.after = False  # it begins with 'after'
        self.leaving = False  # it begins with 'from'
        self.next_held = False
        self.held = ''  # by which kind of cue
        self.sure = False
        self.then = False  # since then

    def add(self, mention):
        """raises Unclear"""
        said = set(mention.cues)
        n_held = self.hold(mention.cues)
        if mention.first and not self.held and len(self.marks) > self.start:
            self.need(len(self.marks) == self.start + 1)
            self.marks.insert(-1, mention.mark)
        elif self.held and (n_held or not self.goes_on(said)):
            self.marks.insert(-1, mention.mark)
        else:
            self.held = 'before' if self.next_held else ''
            self.next_held = self.sure = False
            self.stopping = 'halt' in said
            self.marks.append(mention.mark)

    def hold(self, cues):
        """read the cues before a place -> does one of them hold back the last place?"""
        holds = False
        for i, cue in enumerate(cues):
            at_start = len(self.marks) == self.start
            ordered = ORDERED.intersection(cues[:i])
            if cue == 'stop' or cue == 'then' and not self.held:
                self.begin()
            elif cue == 'then':
                self.then = True
            elif cue == 'from':
                self.need(at_start)
                self.leaving = True
            elif cue == 'back' and (self.leaving or 'then' in ordered):
                self.leaving = False
            elif cue == 'first':
                self.sure = self.held or self.next_held
                self.need(self.sure or not self.marks or ordered)
            elif cue == 'before':
                self.need(at_start or not self.held and not self.after)
                self.next_held = at_start
            elif cue == 'after' and at_start:
                self.after = True
            elif cue == 'passing' and (at_start or ordered):
                pass
            elif cue in ('after', 'back', 'passing') and self.marks and not self.held:
                self.held = cue
                self.sure = cue == 'back' or self.stopping
                holds = True
        return holds

    def goes_on(self, said):
        """does the clause go on after the place that was held back? said: kinds of the cues before the next place"""
        verbs = said & {'verb', 'halt', 'arrive', 'passing'}
        if self.held == 'before':
            self.need(not said & {'halt', 'arrive'} and (not self.then or self.sure))
            return False
        self.need(self.sure or verbs or not self.then)
        return not self.sure and bool(verbs)

    def need(self, clear):
        if not clear:
            raise Unclear


def parse(text, places):
    """
    A sentence -> the Itinerary of the places it names, in the order it means ("the bed after the fridge" begins at the
    fridge), less those it says to avoid or not to mean; None where it names no place, or can be read in more than
    one way.
    """
    text, named = marked(text, places)
    known = recognised(text) or beside_prohibitions(text)
    if not known:
        text = with_prohibitions(text)
        known = recognised(text)
    try:
        order, avoid, loose = known or by_cues(text)
    except Unclear:
        return None
    if not order:
        return None
    avoid = sorted(avoid, key=list(named).index)  # as the sentence names them
    return Itinerary(tuple(map(named.get, order)), loose, tuple(map(named.get, avoid)))


def forbidden_places(text, said, places):
    """
    of the places that a sentence `said` goes to, those that it forbids itself, or that the text that it is said of
    forbids in one list with others of `said` ("not by the bed, the fan or the stove"); or all of them, where the text
    only forbids these. Other texts may be too free to be read here
    """
    itinerary = parse(said, places)
    if itinerary is None:
        return []
    listed = avoided_by(text, places)
    in_one_list = set(listed) & set(itinerary.avoid) or len(set(listed) & set(itinerary.places)) > 1
    if itinerary.avoid or in_one_list:
        avoided = (*itinerary.avoid, *listed) if in_one_list else itinerary.avoid
        return [place for place in itinerary.places if place in avoided]
    text, named = marked(text, places)
    try:
        order, avoid, _ = recognised(text) or by_cues(with_prohibitions(text))
    except Unclear:
        return []
    only_forbids = not order and {named[mark] for mark in avoid}.issuperset(itinerary.places)
    return list(itinerary.places) * only_forbids


def avoided_by(text, places):
    """the places that a text says to avoid, and those behind a comma that it may: not the bed, the fan"""
    itinerary = parse(text, places)
    if itinerary:
        return itinerary.avoid
    text, named = marked(text, places)
    try:
        order, avoid, _ = by_cues(with_prohibitions(text), commas=True)
    except Unclear:
        return ()
    return tuple(map(named.get, avoid)) if order else ()


def left_out(text, said, places):
    """the places that a text names and a sentence `said` of it lacks; none where `said` names others instead"""
    itinerary = parse(said, places)
    named = dict.fromkeys(marked(text, places)[1].values())
    if itinerary is None or not named.keys() >= {*itinerary.places, *itinerary.avoid}:
        return []
    return [place for place in named if place not in (*itinerary.places, *itinerary.avoid)]


def by_cues(text, commas=False):
    """
    a text with marks -> those to go to in that order, those to avoid, is only a destination asked for? commas: as of
    mentions
    """
    order, avoid = Order(), []
    cues = []  # of the places to avoid: a sentence may have ended before one
    last = []
    for mention in mentions(text, commas):
        cues += mention.cues
        if mention.avoided:
            avoid.append(mention.mark)
            cues = [cue for cue in cues if cue in CONJUNCTIONS]
            continue
        order.add(replace(mention, cues=cues))
        last, cues = cues, []
    loose = len(order.marks) == 1 and ('arrive' in last or 'destination' in last)
    return order.marks, avoid, loose


def beside_prohibitions(text):
    """
    of a text with marks that has an order which is recognised, where all around it only forbids -> the marks to go to
    in that order, those to avoid, False; None of other texts
    """
    for order, avoid, rest in some_recognised(text):
        try:
            left, more, _ = by_cues(with_prohibitions(rest))
        except Unclear:
            continue
        if not left:
            return order, avoid + more, False
    return None


def not_understood(text, places):
    """the words of a sentence that no description has, sorted: `parse` ignores them"""
    return sorted(word for word in words(text) - known_words(places) if not word.isdigit())


@lru_cache(maxsize=4)
def known_words(places):
    """every word of a description"""
    known = [phrases.all_words(), *COMPASS, *(f'{side}ern' for side in COMPASS), *places.objects, *places.tiles]
    return words(' '.join(known))
