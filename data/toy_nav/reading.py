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

# letters that nobody uses stand for the places of a sentence and for the objects of a room
MARKS, FIRST_MARK = '[\ue000-\ue7ff]', 0xE000
FORBIDDEN, FIRST_FORBIDDEN = '[\ue800-\uefff]', 0xE800  # marks that say, too, that the place is to be avoided
THINGS, FIRST_THING = '[\uf000-\uf8ff]', 0xF000
ARTICLES = 'the|that|this|our|your|my|a|an'
THE = rf'(?:(?:{ARTICLES}) )?'


def either(words):
    """a pattern for any of these, the longest first: file cabinet before cabinet"""
    return '|'.join(re.escape(word.lower()) for word in sorted(words, key=len, reverse=True))


def plain(text):
    """lower case, without contractions and without letters that nobody uses"""
    text = re.sub('[\ue000-\uf8ff]', '', text)
    text = re.sub('[\u2018\u2019]', "'", text.lower())
    text = re.sub("n't\\b", ' not', text)
    text = re.sub(r'\bdont\b', 'do not', text)
    text = re.sub("'ve\\b", ' have', text)
    text = re.sub(r'\b(you mind|why (do )?not)\b', 'please', text)  # nothing is forbidden
    text = re.sub('<-+>', '<>', text)
    text = re.sub('\u2192|=>|->', '>', text)
    text = text.replace('\n', '. ')
    return re.sub(r'\s+', ' ', text)


# ------------------------------------------------------------------------------
# places


class Reader:
    """Finds the places of a room in a sentence."""

    def __init__(self, places):
        known = read('places')
        things = own_names(places.objects, known['things']) | own_names(places.objects, known['descriptions'])
        self.objects = list(places.objects)
        article = re.escape('the ')
        self.letters = {}
        for name, thing in things.items():
            self.letters[without_articles(name)] = chr(FIRST_THING + self.objects.index(thing))
        self.thing = re.compile(rf'\b(?:{either(things).replace(article, THE)})\b')
        self.colours = own_names(places.tiles, known['colours'])
        self.sides = own_names(COMPASS, known['sides'])
        self.pattern = mention_pattern(*map(either, (self.colours, self.sides, known['tile nouns'])))

    def with_letters(self, text):
        """-> the text, each object that it names replaced by a letter of THINGS"""
        return self.thing.sub(lambda m: self.letters[without_articles(m[0])], text)

    def mentions(self, text):
        """a text with letters -> [(start, end, Place), ..]"""
        return [(m.start(), m.end(), self.place(m)) for m in self.pattern.finditer(text)]

    def place(self, mention):
        colour = part_of(mention, 'colour')
        if colour:
            return Place('tile', self.colours[colour])
        things = sorted({ord(letter) - FIRST_THING for letter in re.findall(THINGS, mention[0])})
        names = [self.objects[i] for i in things]
        side = part_of(mention, 'side')
        if side:
            return Place('side', names[0], self.sides[side])
        if len(names) == 2:
            return Place('between', names[0], other=names[1])
        return Place('at', names[0])


@lru_cache(maxsize=4)
def reader(places):
    return Reader(places)


def own_names(names, others):
    """-> {what it is called, in lower case: the room's name for it}"""
    known = {other.lower(): name for name in names for other in others.get(name, [])}
    return known | {name.lower(): name for name in names}


def without_articles(name):
    return re.sub(rf'\b(?:{ARTICLES}) ', '', name)


def part_of(mention, name):
    """the group of a match whose name begins so; None where there is none"""
    return next((part for group, part in mention.groupdict().items() if part and group.startswith(name)), None)


def mention_pattern(colour, side, tile):
    """a place in a text with letters; groups: its colour or its side"""
    thing = rf'{THE}{THINGS}'
    part = r'(?:side|end|edge|part|corner|flank|face|border)'
    floor = rf'(?:{tile}|(?:part|bit|piece) of {THE}floor|one)s?'
    middle = 'between|betwixt|btw|mid|midway|halfway|equally far from|(?:middle|midpoint|gap|centre|center) of'
    # the bed's north, the bed's north side, bed, north side, bed north, bed (north), bed / north, bed: north
    its = rf"'s |[,:]? (?=(?:{side})(?:ern)? {part}\b)| / | - |: | = | that (?:is|faces) | "
    its += rf'|, (?=(?:{side})(?:ern)?(?:[.,;]|$))'
    its += rf'|,? (?:on|to) (?:(?:its|{ARTICLES}) )?'
    not_the_next = rf'(?!-| (?:{part} )?(?:of|from)\b)(?! (?:away|by the|next to)\b)(?![ -](?:east|west|left|right)\b)'
    return re.compile(
        '|'.join(
            [
                rf'\b(?:{middle}) {thing}(?: on one side)?(?:,? and | & | \+ ){thing}(?: on {THE}other\b)?',
                rf'\b(?:halfway|midway|half way|corridor|passage|line)(?: along)?(?: from)? {thing} to {thing}',
                rf'\b(?:separates|separating) {thing} from {thing}',
                rf'\bgap {THINGS}/{THINGS}|{THINGS} <> {THINGS}',
                rf'{THINGS}(?:/|-| and | & | x ){THINGS} (?:gap|middle|midpoint|centre|center)\b',
                rf'\b(?P<side>{side})(?:ern)?(?: {part})? (?:of|from) {thing}',
                rf'{THINGS} [([](?P<side_in>{side})(?:ern)?(?: {part})?[])]',
                rf'{THINGS}(?:{its})(?P<side_behind>{side})(?:ern)?(?: {part})?\b{not_the_next}',
                rf'\b(?P<colour>{colour})(?:[- ]colou?red)? {floor}\b',
                rf'\b(?:{tile})(?: that is|:| whose colou?r is)? (?P<colour_behind>{colour})\b(?! (?:{floor})\b)',
                rf'\b(?P<colour_alone>{colour})\b(?! {THINGS})',
                THINGS,
            ]
        )
    )


# ------------------------------------------------------------------------------
# what stands between them


def forbidden(mark):
    return chr(ord(mark) - FIRST_MARK + FIRST_FORBIDDEN)


class Unclear(Exception):
    """a sentence that can be read in more than one way"""


@dataclass
class Mention:
    """
    A place in a sentence, by its mark. cues: the kinds of the words between it and the place before, in order; avoided:
    it is one to keep away from; first: 'on the way' or the like stands behind it.
    """

    mark: str
    cues: list
    avoided: bool
    first: bool


def marked(text, places):
    """
    -> the text in lower case with a mark in the place of each place that it names, one letter of MARKS, and {mark:
    Place}, forbidden ones, too
    """
    text = reader(places).with_letters(plain(text))
    found = []
    for start, end, place in reader(places).mentions(text):
        if found and patterns()['narrows'].fullmatch(text[found[-1][1] : start]) and narrows(place, found[-1][2]):
            start, _, narrowed = found.pop()
            place = replace(narrowed, tile=place.name)
        found.append((start, end, place))
    named = {}
    parts = []
    behind = 0
    for start, end, place in found:
        mark = chr(FIRST_MARK + len(named) // 2)
        named[mark] = named[forbidden(mark)] = place
        parts += [text[behind:start], mark]
        behind = end
    return ''.join([*parts, text[behind:]]), named


def mentions(text):
    """a text with marks -> list of Mention. Raises Unclear where one may be to go to or to avoid"""
    text = re.sub(r'(^|\s)\d[.):]\s', ' then ', text)  # 2. before a place
    mentioned = []
    gap, *rest = re.split(f'({MARKS}|{FORBIDDEN})', text)
    for mark, behind in zip(rest[::2], rest[1::2]):
        avoided, first, behind = words_behind(behind)
        avoided = avoided or re.match(FORBIDDEN, mark)
        cue = patterns()['avoid'].search(gap)
        if cue:
            gap = gap[: cue.start()]
        cues = [kinds()[cue[0]] for cue in patterns()['cue'].finditer(gap)]
        avoided = bool(avoided or cue)
        if mentioned and mentioned[-1].avoided and not avoided and not cues:
            avoided = bool(patterns()['and'].fullmatch(gap))
            if not avoided and not patterns()['more'].search(gap):
                raise Unclear
        mentioned.append(Mention(mark, cues, avoided, first))
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
    spots = either(spot_words())
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
        'more': re.compile(rf'\b(?!(?:{ARTICLES}|{spots})\b)\w'),
        'narrows': re.compile(rf' (?:on|in|within|inside) {THE}'),
    }


@lru_cache(maxsize=1)
def place_words():
    """words of places, but their names"""
    return spot_words() | set(ARTICLES.split('|'))


def spot_words():
    return {word for text in strings(place_phrases()) for word in re.findall(r'[a-z]+', text)}


def place_phrases():
    """the phrases of a place, without their slots and names"""
    known = read('places')
    phrases = [known[kind] for kind in ('at', 'side', 'tile', 'between')]
    return [re.sub('{.*?}', '', text) for text in strings([phrases, known['spots'], known['tile nouns']])]
