"""
Itineraries in words. The phrases are data, in language/:

    order.json     how an order is said, forward and backward
    avoid.json     how a place is forbidden
    verbs.json     going, passing, stopping
    places.json    what things, colours, sides and spots are called
    whereabouts.json   longer ways to say a place, by writers who had seen none of these files
    manner.json    what people say around it
    people.json    complete sentences, and ways to forbid, by writers who had seen none of these files
    plain.json     the few phrases of the versions before: PLAIN of the sentences are made of them
    held_out.json  phrases for testing, in the place of those of the same name
    nothing.json   what people say that names no place
    lacking.json   what no request can mean: things of other rooms, choices and counts
    cues.json      what the parser looks for

A phrase is for something, and for a style or a family of styles: 'join short'. It has slots: `{go:front}` is a verb of
going with all places but the last, `{going:front}` the same with -ing, `{at:last}` the last place alone, `{lead}` the
opening that was drawn, `{clause}`, `{toward}`, `{by}` and `{stay}` a phrase of that name. A phrase of `{at:x}`,
`{at:y}` and `{at:z}` forbids two or three places together: 'clause two people', 'both three people'; 'forbids' asks for
no place, and the `{at:x}` of 'instead' is not meant.
"""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from data.toy_nav.world import opposite

FOLDER = Path(__file__).parent / 'language'
PLAIN = 0.25  # share of sentences that are made of plain.json
# share of orders that one phrase says of all places, not one phrase after the other
WHOLE = {'request': 0.35, 'instruction': 0.35, 'narrative': 0.35, 'short': 0.35, 'people': 0.8}
BOTH = 0.4  # share of orders with a prohibition that one phrase says together, where there are any
# share of orders of three and more places that are said in two sentences
TWO_SENTENCES = {'request': 0.15, 'instruction': 0.15, 'narrative': 0.15, 'short': 0.15, 'people': 0}
AHEAD, AMID = 0.3, 0.15  # share of prohibitions before the order, and within it
LISTED = 0.5  # share of two and three places to avoid that one phrase forbids together, where there are any
CALL, CLOSE = 0.15, 0.15  # share of sentences that begin with a call, and that end in a closing word
OTHER = 0.45  # share of names that are said in another word
DESCRIBED = 0.1  # share of things that are said by what they are for
LONGER = 0.12  # share of places that are said in a phrase of whereabouts.json
BEHIND = 0.3  # share of tiles among those whose colour is said behind, "the tile that is as red as a tomato"
ON_MAP = 0.4  # share of sides among those that are said as on a map, or by where the thing is seen
LOWER, UPPER = 0.3, 0.02  # share of sentences without a capital, and in capitals only
FAMILIES = {  # style: whose phrases it draws from
    'request': ('request', 'imperative', 'sentence'),
    'instruction': ('instruction', 'imperative', 'sentence'),
    'narrative': ('narrative', 'sentence'),
    'short': ('short',),
    'people': ('people', 'instruction', 'imperative', 'sentence'),
}
STYLES = tuple(FAMILIES)
TURNS = ('request', 'people', 'instruction', 'people', 'narrative', 'people', 'short', 'people')  # of descriptions
SLOT = re.compile(r'{(?:(\w+):)?(\w+)}')
ING = {'going': 'go', 'passing': 'pass', 'stopping': 'stop'}  # slots with -ing
THIRD = {  # said of a robot that is told about, not spoken to
    "you've": 'it has',
    'you have': 'it has',
    'you are': 'it is',
    'yourself': 'itself',
    'your': 'its',
    'you': 'it',
}
SELECT = {  # the places that a slot is about; all, where this does not say
    'first': slice(0, 1),
    'last': slice(-1, None),
    'front': slice(0, -1),
    'rest': slice(1, None),
    'middle': slice(1, -1),
    **{str(k + 1): slice(k, k + 1) for k in range(5)},
    'x': slice(-1, None),  # of all places and then those to avoid, the first of them last
    'y': slice(-2, -1),
    'z': slice(-3, -2),
}
TOGETHER = {1: '', 2: ' two', 3: ' three'}  # places that a phrase forbids: how it is called


# ------------------------------------------------------------------------------
# the phrases


@cache
def read(name):
    """a file of language/ -> its dict"""
    return json.loads((FOLDER / f'{name}.json').read_text())


def third_person(text):
    return re.sub(rf'\b({"|".join(THIRD)})\b', lambda m: THIRD[m[1]], text)


def compiled(phrase):
    """', then {go:next}' -> [', then ', ('go', 'next')]"""
    parts = []
    end = 0
    for slot in SLOT.finditer(phrase):
        parts += [phrase[end : slot.start()], (slot[1] or slot[2], slot[2])]
        end = slot.end()
    return [part for part in (*parts, phrase[end:]) if part]


def says_all(phrase, n):
    """does a phrase name each of n places once?"""
    named = []
    for role, selected in SLOT.findall(phrase):
        if role:
            chosen = range(n)[SELECT.get(selected, slice(None))]
            if not chosen:
                return False
            named += chosen
    return sorted(named) == list(range(n))


def options(verb, after):
    """'stop', 'at, -, @' -> [('stop at ', 'thing'), ('stop ', 'thing'), ('stop ', 'where')]"""
    found = []
    for word in after.split(', '):
        if word in '-@':
            found.append((f'{verb} ', {'-': 'thing', '@': 'where'}[word]))
        else:
            found.append((f'{verb} {word} ', 'thing'))
    return found


class Grammar:
    """The phrases and verbs of some files of language/, those of a later file in the place of an earlier one's."""

    def __init__(self, *names):
        self.data = {}
        for name in names:
            self.data |= read(name)
        self.compiled = {}
        self.verbs = {form: self.verbs_in(form) for form in ('base', 'third', 'past', 'ing', 'its ing')}

    def phrases(self, what, style, n=None):
        """the compiled phrases that are for `what` in a style; n: only those that name n places"""
        key = what, style, n
        if key not in self.compiled:
            found = [phrase for family in FAMILIES[style] for phrase in self.data.get(f'{what} {family}', [])]
            if n is not None:
                found = [phrase for phrase in found if says_all(phrase, n)]
            if style == 'narrative':
                found = map(third_person, found)
            self.compiled[key] = [compiled(phrase) for phrase in found]
        return self.compiled[key]

    def verbs_in(self, form):
        """-> {role: for each verb {kind of place: [(the verb and what follows it, 'thing' or 'where'), ..]}}"""
        column = ('base', 'third', 'past', 'ing', 'its ing').index(form)
        table = {}
        for role, verbs in self.data['verbs'].items():
            table[role] = []
            for *forms, at, tile, spot in verbs:
                word = [*forms, third_person(forms[-1])][column]
                at, tile, spot = (options(word, after) for after in (at, tile, spot))
                table[role].append({'at': at, 'tile': tile, 'side': spot, 'between': spot})
        return table


@cache
def grammar(name):
    wide = 'order', 'avoid', 'verbs', 'places', 'whereabouts', 'manner', 'people'
    files = {'plain': ['plain'], 'wide': wide, 'held out': [*wide, 'held_out']}[name]
    return Grammar(*files)


def listed(items):
    """['a', 'b', 'c'] -> 'a, b and c'"""
    return ' and '.join(filter(None, [', '.join(items[:-1]), items[-1]]))


# ------------------------------------------------------------------------------
# a sentence


class Speaker:
    """Puts places into one sentence of a style, in the phrases of a Grammar; `draw` returns numbers from 0 to 1."""

    def __init__(self, grammar, style, draw):
        self.grammar = grammar
        self.data = grammar.data
        self.style = style
        self.draw = draw
        self.form, self.ing = 'base', 'ing'
        if style == 'narrative':
            self.form, self.ing = self.pick(self.data['forms narrative']), 'its ing'
        self.article = self.pick(self.data['articles'])
        self.lead = self.text('lead')
        self.said_tile = False

    def pick(self, options):
        return options[int(self.draw() * len(options))]

    def has(self, what, n=None):
        return bool(self.grammar.phrases(what, self.style, n))

    def text(self, what, places=(), n=None):
        """a phrase for something, its slots filled with places; '' where the grammar has none"""
        phrases = self.grammar.phrases(what, self.style, n)
        if not phrases:
            return ''
        return self.filled(self.pick(phrases), places)

    def filled(self, phrase, places):
        """a compiled phrase, its slots filled with places"""
        text = ''
        for part in phrase:
            if isinstance(part, str):
                text += part
            elif part[0] == 'lead':
                text += self.lead
            else:
                text += self.slot(part[0], places[SELECT.get(part[1], slice(None))])
        return text

    def slot(self, role, places):
        if role in ('clause', 'part'):
            return self.text(self.kind_of(role, places), places)
        if role in ('toward', 'by', 'stay'):
            return self.text(role, places)
        if role == 'numbered':
            return ' '.join(f'{i}. {self.at(place)}' for i, place in enumerate(places, 1))
        if role == 'where':
            return listed([self.said(place, 'where') for place in places])
        if role == 'at':
            return listed(list(map(self.at, places)))
        form = self.form
        if role in ING:
            form, role = self.ing, ING[role]
        verb, how = self.pick(self.pick(self.grammar.verbs[form][role])[places[0].kind])
        return verb + listed([self.said(place, how) for place in places])

    # places

    def at(self, place):
        """a place without a verb"""
        return self.said(place, self.pick(('thing', 'bare')))

    def said(self, place, how):
        """a place as a 'thing', 'bare', or as a phrase of 'where'"""
        text, place_said = self.phrase_of(place, how)
        if place.kind == 'tile':
            if self.said_tile and how == 'thing' and self.draw() < 0.1:
                text = self.data['said before']
            text = self.tile(text, place.name)
        else:
            text = self.landmark(text, place_said)
        if place.tile:
            text += self.tile(self.pick(self.data['narrows']), place.tile)
        text = re.sub(r'\bthe (?=(?:where|wherever|what|whatever|who)\b)', '', text)  # of "the where the milk is"
        if self.article == 'the ':
            return text
        if not self.article:
            return re.sub(r'\bthe ', '', text)
        return re.sub(r'\bthe (?!.*\bthe )', self.article, text)  # the north side of that bed

    def phrase_of(self, place, how):
        """-> a phrase, and the place that it names: that on the other side, if it says where the thing is seen"""
        longer = self.data.get('longer')
        if not longer or self.draw() > LONGER:
            return self.pick(self.data[place.kind][how]), place
        if place.kind == 'side' and how != 'thing' and self.draw() < ON_MAP:
            if how == 'where' and self.draw() < 0.5:
                return self.pick(self.data['seen']), replace(place, side=opposite(place.side))
            return self.pick(self.data['on map'][place.side]), place
        if place.kind == 'tile' and how != 'where' and self.draw() < BEHIND:
            return 'the {tile} ' + self.pick(self.data['colours behind'][place.name]), place
        return self.pick(longer[place.kind][how]), place

    def tile(self, text, colour):
        self.said_tile = True
        tile = self.pick(self.data['tile nouns'])
        spot = self.pick(self.data['spots'])
        return text.format(colour=self.other('colours', colour), tile=tile, spot=spot)

    def landmark(self, text, place):
        spot = self.pick(self.data['spots'])
        if place.kind == 'between':
            names = [self.thing(place.name), self.thing(place.other)]
            if self.draw() < 0.5:  # the other way round means the same
                names.reverse()
            return text.format(a=names[0], b=names[1], spot=spot)
        thing = self.thing(place.name)
        side = self.other('sides', place.side)
        return text.format(thing=thing, side=side, ern=f'{place.side}ern', spot=spot)

    def thing(self, name):
        if self.draw() < DESCRIBED and name in self.data.get('descriptions', {}):
            return self.pick(self.data['descriptions'][name])
        return self.other('things', name)

    def other(self, kind, name):
        """a name, or another word for the same"""
        others = self.data[kind].get(name)
        if not others or self.draw() > OTHER:
            return name
        return self.pick(others)

    # the order

    def order(self, places, opening='open'):
        """-> all places in words, in parts between which what to avoid may be said"""
        n = len(places)
        if n == 1:
            return [self.text({'open': 'one'}.get(opening, opening), places)]
        if n > 2 and self.has('seam') and self.draw() < TWO_SENTENCES[self.style]:
            return self.two_sentences(places)
        if self.has('whole') and (not self.has('open') or self.draw() < WHOLE[self.style]):
            return [self.text('whole', places, n)]
        slots = [opening, *['join'] * (n - 2), 'end']
        return [self.text(slot, [place]) for slot, place in zip(slots, places)]

    def two_sentences(self, places):
        k = 1 + int(self.draw() * (len(places) - 1))
        first, seam = self.order(places[:k], 'resume'), self.text('seam')
        self.lead = self.text('again')
        second = self.order(places[k:], 'resume')
        return [*first, seam + second[0], *second[1:]]

    def with_avoided(self, places, avoid):
        """-> an order, and places that one phrase forbids if there are any, in parts"""
        if not avoid:
            return self.order(places)
        both = [*places, *avoid]
        together = self.kind_of('both', avoid, len(both))
        if self.has(together, len(both)) and self.draw() < BOTH:
            return [self.text(together, both, len(both))]
        parts = self.order(places)
        k = len(parts)
        where = 'after'
        draw = self.draw()
        if draw < AHEAD and self.has('ahead'):
            where = 'ahead'
            k = 0
        elif draw > 1 - AMID and k > 1 and self.has('amid'):
            where = 'amid'
            k = 1 + int(self.draw() * (k - 1))
        return [*parts[:k], self.text(where, avoid), *parts[k:]]

    def kind_of(self, what, avoid, n=None):
        """'clause' -> 'clause two' of two places, 'tile clause' for half of those of a tile, where there are any"""
        if len(avoid) > 1:
            return what + TOGETHER[len(avoid)]
        if avoid[0].kind == 'tile' and self.has(f'tile {what}', n) and self.draw() < 0.5:
            return f'tile {what}'
        return what

    def apart(self, avoid):
        """places to avoid -> lists of those that one phrase forbids, x the last of them, y the one before"""
        if len(avoid) > 1 and self.has(self.kind_of('clause', avoid)) and self.draw() < LISTED:
            return [avoid[::-1]]
        return [[place] for place in avoid]

    # all of it

    def sentence(self, places, avoid=(), loose=False):
        if loose:
            text = self.text('loose', places)
        else:
            first, *others = self.apart(avoid) or [[]]
            parts = self.with_avoided(places, first)
            text = ''.join([*parts, *(self.text('after', forbidden) for forbidden in others)])
        if self.draw() < CALL:
            text = self.text('call') + text
        if self.draw() < CLOSE:
            text += self.text('close')
        return self.capital(text + self.text('mark'))

    def capital(self, text):
        draw = self.draw()
        if draw < UPPER:
            return text.upper()
        if self.style == 'short' or draw < LOWER:
            return text
        return text[0].upper() + text[1:]


def sentence(itinerary, style, draw, held_out=False):
    """one sentence for an Itinerary in a style of STYLES; draw() returns numbers from 0 to 1"""
    name = 'wide'
    if held_out:
        name = 'held out'
    elif draw() < PLAIN:
        name = 'plain'
    speaker = Speaker(grammar(name), style, draw)
    return speaker.sentence(itinerary.places, itinerary.avoid, itinerary.loose)


def only_forbidding(avoid, draw):
    """a sentence that forbids one place or two, and asks for none"""
    speaker = Speaker(grammar('wide'), 'people', draw)
    return speaker.capital(speaker.text('forbids' + TOGETHER[len(avoid)], avoid))


def instead_of(meant, other, draw):
    """a sentence that asks for some places, and names another that is not meant"""
    speaker = Speaker(grammar('wide'), 'people', draw)
    return speaker.capital(speaker.text('instead', [*meant, other], len(meant) + 1))


def all_words():
    """every phrase and word of language/, slots left out, but of what no request means"""
    files = [read(file.stem) for file in sorted(FOLDER.glob('*.json')) if file.stem not in ('nothing', 'lacking')]
    return re.sub('{.*?}', ' ', ' '.join(strings([{**file, 'about': ''} for file in files])))


def strings(data):
    """the strings within lists and dicts"""
    if isinstance(data, str):
        return [data]
    if isinstance(data, dict):
        data = [*data, *data.values()]
    return [text for item in data for text in strings(item)]
