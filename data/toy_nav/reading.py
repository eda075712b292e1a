"""
What a sentence is made of, for `parse` in itinerary.py: the places it names, and between them the words that say an
order or forbid a place. All words come from language/.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby

from data.toy_nav.phrases import read, strings, third_person
from data.toy_nav.places import Place
from data.toy_nav.world import COMPASS, opposite

# letters that nobody uses stand for the places of a sentence and for the objects of a room
MARKS, FIRST_MARK = '[\ue000-\ue7ff]', 0xE000
FORBIDDEN, FIRST_FORBIDDEN = '[\ue800-\uefff]', 0xE800  # marks that say, too, that the place is to be avoided
THINGS, FIRST_THING = '[\uf000-\uf8ff]', 0xF000
ARTICLES = 'the|that|this|our|your|my|a|an'
# words to a place that are left to the sentence around it
LEADING = 'just|at|by|near|on|in|to|over|inside|within|beside|along|onto|around'
THE = rf'(?:(?:{ARTICLES}) )?'
PART = r'(?:side|end|edge|part|corner|flank|face|border)'
# behind a side that follows its thing: it does not belong to the next one, "the bed, north of the fan"
NOT_THE_NEXT = rf'(?!-| (?:{PART} )?(?:of|from)\b)(?! (?:away|by the|next to)\b)(?![ -](?:east|west|left|right)\b)'

# how it is written, in lower case, and what that is for us
SPELLINGS = [
    (re.compile(written), meant)
    for written, meant in {
        '[\ue000-\uf8ff]': '',
        '[\u2018\u2019]': "'",
        r"n't\b": ' not',
        r'\bdont\b': 'do not',
        r"'ve\b": ' have',
        r'\b(?:you mind|why (?:do )?not)\b': 'please',  # nothing is forbidden
        '<-+>': '<>',
        '\u2192|=>|->': '>',
        r'\n': '. ',
        r'\s+': ' ',
    }.items()
]


def either(words):
    """a pattern for any of these, the longest first: file cabinet before file"""
    return as_tree([word.lower() for word in words])


def any_article(words):
    """.. with any article, or none, where they have 'the': blotch on our floor"""
    patterns = []
    by_length = sorted(map(str.lower, words), key=len, reverse=True)
    for has_article, some in groupby(by_length, lambda word: any_the(word) != word):
        if has_article:
            patterns += [any_the(re.escape(word)) for word in some]
        else:
            patterns.append(either(some))
    return '|'.join(patterns)


def any_the(pattern):
    """.. with any article, or none, for each 'the'"""
    return re.sub(r'\bthe\\? ', lambda _: THE, pattern)


def as_tree(words):
    """a pattern for any of these that branches where they differ: of thousands a search tries few"""
    after = defaultdict(list)
    for word in words:
        if word:
            after[word[0]].append(word[1:])
    branches = [re.escape(letter) + as_tree(rest) for letter, rest in after.items()]
    if not branches:
        return ''
    if len(branches) == 1 and '' not in words:
        return branches[0]
    return f'(?:{"|".join(branches)})' + ('?' if '' in words else '')


def plain(text):
    """lower case, without contractions and without letters that nobody uses"""
    text = text.lower()
    for written, meant in SPELLINGS:
        text = written.sub(meant, text)
    return text


# ------------------------------------------------------------------------------
# places


class PlacePhrase:
    """
    A phrase of whereabouts.json, "a step {side} from the {thing}", to be found in a text with letters.

    kind: of Place; side: where the phrase itself says it ("above the {thing}"); seen: its {side} is where the thing is
    seen from the place ("with the {thing} to your {side}"). slots: {name of a slot: pattern of what it may be}
    """

    def __init__(self, text, kind, slots, side='', seen=False):
        self.text = re.sub(rf'^(?:(?:{LEADING}|{ARTICLES}) )+(?=.*{{)', '', plain(text))
        self.kind, self.slots, self.side, self.seen = kind, slots, side, seen
        self.words = set(re.findall(r'[a-z]+', re.sub('{.*?}', ' ', self.text))).difference(ARTICLES.split('|'))

    @cached_property
    def pattern(self):
        """compiled when it is first looked for: there are hundreds"""
        text = re.escape(self.text)
        text = any_the(text.replace(re.escape('{ern}'), r'\{side\}'))
        for name, pattern in self.slots.items():
            text = text.replace(rf'\{{{name}\}}', pattern)
        behind = NOT_THE_NEXT if self.kind == 'side' else ''
        return re.compile(rf'(?<!\w){text}(?!\w){behind}')


class Names:
    """
    Thousands of names, found in a text word by word: the longest at each word, with any article, or none, where they
    have 'the'.
    """

    def __init__(self, letters):
        """letters: {name in lower case: the letter to put in its place}"""
        self.tree = {}  # a token of a name -> the tree of what may follow; None: the letter, where a name ends
        for name, letter in letters.items():
            node = self.tree
            for token in re.findall(r'\bthe |\w+|\W', name):
                node = node.setdefault(token, {})
            node[None] = letter

    def replaced(self, text):
        """-> the text, with letters in the places of names"""
        tokens = [*re.findall(r'\w+|\W', text), '']  # which ends it
        parts = []
        i = 0
        while tokens[i]:
            end, letter = self.longest(tokens, i, self.tree)
            parts.append(letter if end else tokens[i])
            i = end or i + 1
        return ''.join(parts)

    def longest(self, tokens, i, node):
        """-> (the token behind the longest name that goes on at token i as a tree does, its letter); (0, '')"""
        ends = [(0, '')]
        if None in node:
            ends.append((i, node[None]))
        if tokens[i] in node:
            ends.append(self.longest(tokens, i + 1, node[tokens[i]]))
        if 'the ' in node:
            ends.append(self.longest(tokens, i, node['the ']))
            if tokens[i] in ARTICLES.split('|') and tokens[i + 1] == ' ':
                ends.append(self.longest(tokens, i + 2, node['the ']))
        return max(ends)


class Reader:
    """Finds the places of a room in a sentence."""

    def __init__(self, places):
        known = {**read('places'), **read('whereabouts')}
        things = own_names(places.objects, known['things']) | own_names(places.objects, known['descriptions'])
        self.objects = list(places.objects)
        letters = {thing: chr(FIRST_THING + number) for number, thing in enumerate(self.objects)}
        self.things = Names({name: letters[thing] for name, thing in things.items()})
        self.colours = own_names(places.tiles, known['colours'])
        behind = own_names(places.tiles, known['colours behind'])
        self.colours_behind = {without_articles(text): colour for text, colour in behind.items()}
        self.sides = own_names(COMPASS, known['sides'])
        self.pattern = mention_pattern(*map(any_article, (self.colours, behind, self.sides, known['tile nouns'])))
        phrases = list(self.longer_phrases(known))
        self.order = {phrase: number for number, phrase in enumerate(phrases)}
        self.phrases = by_word(phrases)

    def longer_phrases(self, known):
        """yields a PlacePhrase for each of whereabouts.json"""
        slots = dict.fromkeys(('thing', 'a', 'b'), THINGS) | {
            'side': f'(?P<side>{either(self.sides)})(?:ern)?',
            'colour': f'(?P<colour>{either(self.colours)})',
            'tile': f'(?:{any_article(known["tile nouns"])})s?',
            'spot': f'(?:{either(known["spots"])})',
        }
        for kind, texts in known['longer'].items():
            for text in strings(list(texts.values())):
                yield PlacePhrase(text, kind, slots)
        for text in known['seen']:
            yield PlacePhrase(text, 'side', slots, seen=True)
        for side, texts in known['on map'].items():
            for text in texts:
                yield PlacePhrase(text, 'side', slots, side)

    def with_letters(self, text):
        """-> the text, each object that it names replaced by a letter of THINGS"""
        return self.things.replaced(text)

    def mentions(self, text):
        """
        a text with letters -> [(start, end, Place), ..]; of those that overlap the first, and the longest. But the side
        of a thing is not the thing: by the bed, on its north side
        """
        found = [(m.start(), m.end(), self.place(m)) for m in self.pattern.finditer(text)]
        words = set(re.findall(r'[a-z]+', text))
        possible = [phrase for word in words for phrase in self.phrases.get(word, []) if phrase.words <= words]
        for phrase in sorted(possible, key=self.order.get):
            found += [(m.start(), m.end(), self.place_of(phrase, m)) for m in phrase.pattern.finditer(text)]
        kept = []
        behind, kind = 0, ''  # where the last one kept ends, and of what kind it is
        for start, end, place in sorted(found, key=lambda mention: (mention[0], -mention[1])):
            if end > behind > start and (kind, place.kind) == ('at', 'side'):
                kept.pop()
                behind = start
            if start >= behind:
                kept.append((start, end, place))
                behind, kind = end, place.kind
        return kept

    def place_of(self, phrase, mention):
        """the place that a match of a PlacePhrase names"""
        names = self.things_in(mention[0])
        if phrase.kind == 'tile':
            return Place('tile', self.colours[mention['colour']])
        if phrase.kind == 'between':
            return Place('between', names[0], other=names[-1])
        if phrase.kind == 'at':
            return Place('at', names[0])
        side = phrase.side or self.sides[mention['side']]
        return Place('side', names[0], opposite(side) if phrase.seen else side)

    def place(self, mention):
        """the place that a match of `mention_pattern` names"""
        colour = part_of(mention, 'colour')
        if colour:
            return Place('tile', self.colours.get(colour) or self.colours_behind[without_articles(colour)])
        names = self.things_in(mention[0])
        side = part_of(mention, 'side')
        if side:
            return Place('side', names[0], self.sides[side])
        if len(names) == 2:
            return Place('between', names[0], other=names[1])
        return Place('at', names[0])

    def things_in(self, text):
        """the names of a text's letters, in the order of the room's objects"""
        return [self.objects[i] for i in sorted({ord(letter) - FIRST_THING for letter in re.findall(THINGS, text)})]


def by_word(phrases):
    """-> {a word: the phrases whose longest word it is}"""
    found = defaultdict(list)
    for phrase in phrases:
        found[max(phrase.words, key=len, default='')].append(phrase)
    return found


@lru_cache(maxsize=4)
def reader(places):
    return Reader(places)


def own_names(names, others):
    """-> {what it is called, in lower case: the room's name for it}"""
    known = {plain(other): name for name in names for other in others.get(name, [])}
    return known | {name.lower(): name for name in names}


def without_articles(name):
    return re.sub(rf'\b(?:{ARTICLES}) ', '', name)


def part_of(mention, name):
    """the group of a match whose name begins so; None where there is none"""
    return next((part for group, part in mention.groupdict().items() if part and group.startswith(name)), None)


def mention_pattern(colour, behind, side, tile):
    """a place in a text with letters; groups: its colour, also one that stands behind its tile, or its side"""
    thing = rf'{THE}{THINGS}'
    floor = rf'(?:{tile}|(?:part|bit|piece) of {THE}floor|one)s?'
    middle = 'between|betwixt|btw|mid|midway|halfway|equally far from|(?:middle|midpoint|gap|centre|center) of'
    # the bed's north, the bed's north side, bed, north side, bed north, bed (north), bed / north, bed: north
    its = rf"'s |[,:]? (?=(?:{side})(?:ern)? {PART}\b)| / | - |: | = | that (?:is|faces) | "
    its += rf'|, (?=(?:{side})(?:ern)?(?:[.,;]|$))'
    its += rf'|,? (?:on|to) (?:(?:its|{ARTICLES}) )?'
    return re.compile(
        '|'.join(
            [
                rf'\b(?:{middle}) {thing}(?: on one side)?(?:,? and | & | \+ ){thing}(?: on {THE}other\b)?',
                rf'\b(?:halfway|midway|half way|corridor|passage|line)(?: along)?(?: from)? {thing} to {thing}',
                rf'\b(?:separates|separating) {thing} from {thing}',
                rf'\bgap {THINGS}/{THINGS}|{THINGS} <> {THINGS}',
                rf'{THINGS}(?:/|-| and | & | x ){THINGS} (?:gap|middle|midpoint|centre|center)\b',
                rf'\b(?P<side>{side})(?:ern)?(?: {PART})? (?:of|from) {thing}',
                rf'{THINGS} [([](?P<side_in>{side})(?:ern)?(?: {PART})?[])]',
                rf'{THINGS}(?:{its})(?P<side_behind>{side})(?:ern)?(?: {PART})?\b{NOT_THE_NEXT}',
                rf'\b(?P<colour>{colour})(?:[- ]colou?red)? {floor}\b',
                rf'\b(?:{tile}) (?P<colour_longer>{behind})(?!\w)',
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


def mentions(text, commas=False):
    """
    a text with marks -> list of Mention. Raises Unclear where one may be to go to or to avoid; commas: what a comma
    alone parts from a place to avoid is to be avoided, too
    """
    text = re.sub(r'(^|\s)\d[.):]\s', ' then ', text)  # 2. before a place
    mentioned = []
    gap, *rest = re.split(f'({MARKS}|{FORBIDDEN})', text)
    gaps = rest[1::2]
    for i, (mark, behind) in enumerate(zip(rest[::2], gaps)):
        avoided, first, behind = words_behind(behind)
        avoided = avoided or re.match(FORBIDDEN, mark)
        cue = patterns()['avoid'].search(gap)
        if cue:
            gap = gap[: cue.start()]
        cues = [kinds()[cue[0]] for cue in patterns()['cue'].finditer(gap)]
        avoided = bool(avoided or cue)
        if mentioned and mentioned[-1].avoided and not avoided and not cues:
            listed = patterns()['comma'].fullmatch(gap) and (commas or ends_in_and(gaps[i:]))
            avoided = bool(listed or patterns()['and'].fullmatch(gap))
            if not avoided and not patterns()['more'].search(gap):
                raise Unclear
        mentioned.append(Mention(mark, cues, avoided, first))
        gap = behind
    return mentioned


def ends_in_and(gaps):
    """does a list go on to a last place with 'and' or 'or', by commas alone? gaps: the texts behind its places"""
    for gap in gaps:
        if patterns()['and'].fullmatch(gap):
            return True
        if not patterns()['comma'].fullmatch(gap):
            return False
    return False


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
        'comma': re.compile(rf', (?:(?:{ARTICLES}|{spots}) )*'),
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
