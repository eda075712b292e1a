"""
What a sentence is made of, for `parse` in itinerary.py: the places it names, and between them the words that say an
order or forbid a place. All words come from language/.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from data.toy_nav.phrases import read, strings, third_person
from data.toy_nav.places import Place
from data.toy_nav.world import COMPASS

THE = r'(?:(?:the|that|this|our|your|my|a|an) )?'


def either(words):
    """a pattern for any of these, the longest first: file cabinet before cabinet"""
    return '|'.join(re.escape(word.lower()) for word in sorted(words, key=len, reverse=True))


def plain(text):
    """lower case, without contractions; 2. before a place says then"""
    text = re.sub('[\u2018\u2019]', "'", text.lower())
    text = re.sub("n't\\b", ' not', text)
    text = re.sub(r'\bdont\b', 'do not', text)
    text = re.sub("'ve\\b", ' have', text)
    text = re.sub(r'\b(you mind|why (do )?not)\b', 'please', text)  # nothing is forbidden
    text = re.sub('\u2192|=>|->', '>', text)
    text = text.replace('\n', '. ')
    text = re.sub(r'(^|\s)\d[.):]\s', ' then ', text)
    return re.sub(r'\s+', ' ', text)


# ------------------------------------------------------------------------------
# places


class Reader:
    """Finds the places of a room in a sentence."""

    def __init__(self, places):
        known = read('places')
        self.things = own_names(places.objects, known['things'])
        self.colours = own_names(places.tiles, known['colours'])
        self.sides = own_names(COMPASS, known['sides'])
        self.pattern = mention_pattern(known, self.things, self.colours, self.sides)
        self.order = {name: i for i, name in enumerate(places.objects)}

    def mentions(self, text):
        """-> [(start, end, Place), ..]"""
        return [(m.start(), m.end(), self.place(m)) for m in self.pattern.finditer(text)]

    def place(self, mention):
        m = mention.groupdict()
        colour = m['colour'] or m['its_colour'] or m['alone']
        if colour:
            return Place('tile', self.colours[colour])
        a, b = m['a'] or m['a1'] or m['a2'], m['b'] or m['b1'] or m['b2']
        if a and self.things[a] != self.things[b]:
            a, b = sorted((self.things[a], self.things[b]), key=self.order.get)
            return Place('between', a, other=b)
        side = m['side'] or m['its_side']
        thing = self.things[m['of'] or m['its'] or m['at'] or a]
        if side:
            return Place('side', thing, self.sides[side])
        return Place('at', thing)


@lru_cache(maxsize=4)
def reader(places):
    return Reader(places)


def own_names(names, others):
    """-> {what it is called, in lower case: the room's name for it}"""
    known = {other.lower(): name for name in names for other in others.get(name, [])}
    return known | {name.lower(): name for name in names}


def mention_pattern(known, things, colours, sides):
    """a place in a sentence, its parts in named groups"""
    thing, colour, side = map(either, (things, colours, sides))
    tile = either(known['tile nouns'])
    part = r'(?:side|end|edge|part|corner)'
    of = rf'(?P<side>{side})(?:ern)?(?: {part})? (?:of|from) {THE}(?P<of>{thing})'
    # the bed's north, the bed's north side, bed, north side, bed: north side, bed north, bed (north)
    its = (
        rf"(?P<its>{thing})(?:'s | \(|[,:]? (?=(?:{side})(?:ern)? {part}\b)| )(?P<its_side>{side})(?:ern)?(?: {part})?"
        rf'(?:\)|\b(?!-| (?:{part} )?(?:of|from)\b)(?! (?:away|by the|next to)\b))'
    )
    gap = rf'gap (?P<a1>{thing})/(?P<b1>{thing})|(?P<a2>{thing})(?:/| and )(?P<b2>{thing}) gap'
    return re.compile(
        rf'\b(?:between|middle of|gap of) {THE}(?P<a>{thing}) and {THE}(?P<b>{thing})\b|\b(?:{gap})\b|\b{of}\b|\b{its}|'
        rf'\b(?P<colour>{colour})(?:[- ]colou?red)? (?:{tile}|part of {THE}floor|one)s?\b|'
        rf'\b(?:{tile}) that is (?P<its_colour>{colour})\b|\b(?P<alone>{colour})\b(?! (?:{thing})\b)|'
        rf'\b(?P<at>{thing})\b'
    )


# ------------------------------------------------------------------------------
# what stands between them


@dataclass
class Mention:
    """
    A place in a sentence. cues: the kinds of the words between it and the place before, in order; avoided: it is one to
    keep away from; first: 'on the way' or the like stands behind it.
    """

    place: Place
    cues: list
    avoided: bool
    first: bool


def mentions(text, places):
    """-> list of Mention; None where it is not clear whether one is to be avoided"""
    text = plain(text)
    found = []
    for start, end, place in reader(places).mentions(text):
        if found and patterns()['narrows'].fullmatch(text[found[-1][1] : start]) and narrows(place, found[-1][2]):
            start, _, narrowed = found.pop()
            place = replace(narrowed, tile=place.name)
        found.append((start, end, place))
    mentioned = []
    starts = [start for start, _, _ in found] + [len(text)]
    gap = text[: starts[0]]
    for (_, end, place), start in zip(found, starts[1:]):
        avoided, first, behind = words_behind(text[end:start])
        forbidden = patterns()['avoid'].search(gap)
        if forbidden:
            gap = gap[: forbidden.start()]
        cues = [kinds()[cue[0]] for cue in patterns()['cue'].finditer(gap)]
        avoided = avoided or bool(forbidden)
        if mentioned and mentioned[-1].avoided and not avoided and not cues:
            if not patterns()['and'].fullmatch(gap):
                return None
            avoided = True
        mentioned.append(Mention(place, cues, avoided, first))
        gap = behind
    return mentioned


def words_behind(text):
    """-> is the place before to be avoided? is it first? the text without the words that say so"""
    forbidden = patterns()['avoided'].match(text)
    if forbidden:
        return True, False, text[forbidden.end() :]
    first = patterns()['first after'].match(text)
    if first:
        return False, True, text[first.end() :]
    return False, False, text


def narrows(tile, place):
    """north of the fridge + the pink tile: is it the tile on which the place lies?"""
    return tile.kind == 'tile' and place.kind != 'tile' and not place.tile


@lru_cache(maxsize=1)
def kinds():
    """-> {a cue, a verb or a mark in lower case: what kind it is}"""
    kinds = dict.fromkeys('.!?;', 'stop') | dict.fromkeys((':', ' - '), 'pause')
    for role in 'arrive', 'visit', 'go', 'pass', 'stop':
        for base, third, past, ing, *_ in read('verbs')['verbs'][role]:
            finite = {'stop': 'halt', 'arrive': 'arrive'}.get(role, 'verb')
            kinds |= dict.fromkeys((base, third, past), finite)
            kinds |= dict.fromkeys((ing, third_person(ing)), {'pass': 'passing'}.get(role, finite))
    for kind in 'then', 'after', 'back', 'from', 'before', 'verb', 'first', 'destination':
        kinds |= dict.fromkeys(read('cues')[kind], kind)
    return kinds


@lru_cache(maxsize=1)
def patterns():
    """what cues look like before a place and behind one"""
    cues = read('cues')
    spots = either({word for text in strings(place_phrases()) for word in re.findall(r'[a-z]+', text)})
    verbs = {word for verb in strings(read('verbs')['verbs']) for word in verb.replace(',', '').split()}
    words = [cue for cue in kinds() if cue[0].isalpha()]
    with_article = [word for word in words if word.endswith((' that', ' this'))]  # after that, but not after that bed
    others = either(set(words) - set(with_article))
    stated = either({*cues['stated'], *verbs} - {'-', '@'})
    return {
        'cue': re.compile(rf'(?<!\w)(?:(?:{either(with_article)})(?! ?$)|{others})(?!\w)|[.!?;:>+/]| - '),
        'avoid': re.compile(rf'(?<!\w)(?:{either(cues["avoid"])})(?:[\s,:]+(?:{stated}|{spots}))*[\s,:]*$'),
        'avoided': re.compile(rf'[\s,]*(?:{either(cues["avoided"])})(?!\w)'),
        'first after': re.compile(rf'\s(?:{either(cues["first after"])})(?! to\b)(?!\w)'),
        'and': re.compile(rf',? (?:and|or|nor) (?:(?:{spots}) )*'),
        'narrows': re.compile(rf' (?:on|in|within|inside) {THE}'),
    }


def place_phrases():
    """the phrases of a place, without their slots and names"""
    known = read('places')
    phrases = [known[kind] for kind in ('at', 'side', 'tile', 'between')]
    return [re.sub('{.*?}', '', text) for text in strings([phrases, known['spots'], known['tile nouns']])]
