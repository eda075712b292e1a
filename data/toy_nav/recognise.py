"""
Orders of people.json and all ways to forbid, read back: there are more than cues.json has words for, so a sentence is
compared with each, word by word. Marks in a text stand for its places, see `marked` in reading.py.
"""

import re
from functools import lru_cache

from data.toy_nav.phrases import read, third_person
from data.toy_nav.reading import ARTICLES, FORBIDDEN, MARKS, by_word, forbidden, place_words, plain

ORDERS = ('one', 'whole', 'both', 'tile both', 'both two', 'both three', 'instead')
SIGNS = {'clause': '. ', 'part': ' ', 'forbids': '. '}  # of prohibitions
TO_AVOID = 'xyz'  # slots
# words by which an order is recognised, at least: where it only names places to go to, in their order; within a text
WORDS_OF_LIST, WORDS_OF_PART = 3, 4
NEGATED = re.compile(r'\b(?:not|never)\b[^.;,:!?]*$')  # what stands before words that are no order
SLOT = re.compile(r'{at(?::(\w))?}')
PLACE = '\0'  # in a phrase: any place
TOKEN = re.compile(rf"{PLACE}|\w+(?:['-]\w+)*|[^\w\s,;.!?:()\"'*-]")  # words, signs and marks: no punctuation


class Phrase:
    """
    A phrase that can be searched for. slots: for each place that it names, '1' for the first to go to, 'x', 'y', 'z'
    for those to avoid, '' for that of a prohibition; sign: what stands around forbidden places in a text; rejects: its
    'x' is not to be gone to, and need not be avoided.
    """

    def __init__(self, text, sign='', rejects=False):
        self.rejects = rejects
        self.tokens = TOKEN.findall(plain(SLOT.sub(PLACE, text)))
        self.words = [token for token in self.tokens if token[0].isalnum()]
        self.distinct = frozenset(self.words)
        self.slots = SLOT.findall(text)
        self.sign = sign

    def is_list(self):
        """does it name just the places to go to, in their order?"""
        return self.slots == sorted(self.slots) and not set(TO_AVOID).intersection(self.slots)

    def is_order(self):
        """.. is it told from others by its words?"""
        return bool(self.slots) and (len(self.words) >= WORDS_OF_LIST or not self.is_list())

    def shortened(self, marks):
        behind = '' if self.tokens[-1] == PLACE else self.sign
        return self.sign + ' and '.join(map(forbidden, marks)) + behind

    def order_of(self, marks):
        """the marks of its slots -> those to go to, in their order, and those to avoid"""
        named = dict(zip(self.slots, marks))
        avoid = [named.pop(slot) for slot in TO_AVOID if slot in named]
        if self.rejects:  # "the bed instead of the fan" does not say to keep away from the fan
            avoid = []
        return [named[slot] for slot in sorted(named)], avoid


class Sentence:
    """A text with marks, token by token. `ahead[i]`: is it a word that only leads to a place, as 'the' and 'by' do?"""

    def __init__(self, text):
        self.text = text
        self.found = list(TOKEN.finditer(text))
        self.tokens = [match[0] for match in self.found]
        self.ahead = [self.leads_to_place(i) for i in range(len(self.tokens))]

    def leads_to_place(self, i):
        token = self.tokens[i]
        if token not in place_words():
            return False
        after = self.text[self.found[i].end() :]
        if not re.match(rf' (?:\w|{MARKS})', after):
            return False
        return token not in ('that', 'this') or not re.match(f' (?:{ARTICLES}) ', after)  # after that, the bed

    def matches(self, phrase):
        """where it has a phrase, punctuation aside -> yields (start, end, the marks of the phrase's slots)"""
        first = phrase.tokens[0]
        behind = 0  # where the last match ends
        for i, token in enumerate(self.tokens):
            if i < behind or first not in (token, PLACE):
                continue
            end, marks = self.match(phrase, i)
            if end:
                yield self.found[i].start(), self.found[end - 1].end(), marks
                behind = end

    def match(self, phrase, i):
        """-> (the token behind a phrase that begins at token i, its marks); (0, []) where it does not"""
        marks = []
        for token in phrase.tokens:
            if token == PLACE:
                while i < len(self.tokens) and self.ahead[i]:
                    i += 1
            if i == len(self.tokens):
                return 0, []
            found = self.tokens[i]
            if token == PLACE and re.match(MARKS, found):
                marks.append(found)
            elif token != found:
                return 0, []
            i += 1
        return i, marks


@lru_cache(maxsize=1)
def orders():
    found = [Phrase(text, rejects=name == 'instead') for name in ORDERS for text in read('people')[f'{name} people']]
    return by_word(filter(Phrase.is_order, found))


@lru_cache(maxsize=1)
def prohibitions():
    found = {}
    for file in 'avoid', 'people', 'held_out':
        for name, phrases in read(file).items():
            for kind in SIGNS.keys() & name.split():
                found |= dict.fromkeys([*phrases, *map(third_person, phrases)], SIGNS[kind])
    return by_word([Phrase(text, sign) for text, sign in found.items()])


def found_in(text, phrases):
    """-> (phrase, where its first match begins, where it ends, its marks) of those in a text, most words first"""
    sentence = Sentence(text)
    words = {*sentence.tokens}
    in_order = dict.fromkeys(['', *sentence.tokens])  # which phrase is found is no chance
    candidates = [phrase for word in in_order for phrase in phrases.get(word, []) if phrase.distinct <= words]
    for phrase in sorted(candidates, key=lambda phrase: -len(phrase.words)):
        first = next(sentence.matches(phrase), None)
        if first:
            yield phrase, *first


def recognised(text):
    """
    -> the marks of a text in the order to go to them, those to avoid, False (it is no mere destination); None where no
    phrase names all of its places, but for those that are marked as forbidden
    """
    already = re.findall(FORBIDDEN, text)
    text = re.sub(FORBIDDEN, '', text)
    n = len(re.findall(MARKS, text))
    for phrase, start, _, marks in found_in(text, orders()):
        if len(phrase.slots) == n and not NEGATED.search(text[:start]):
            order, avoid = phrase.order_of(marks)
            return order, avoid + already, False
    return None


def some_recognised(text):
    """yields the marks that an order, a part of a text, goes to and avoids, and the text around it"""
    for phrase, start, end, marks in found_in(text, orders()):
        if len(phrase.words) >= WORDS_OF_PART and not NEGATED.search(text[:start]):
            yield *phrase.order_of(marks), f'{text[:start]}. {text[end:]}'


def with_prohibitions(text):
    """-> a text in which a forbidden mark and a sign stand in the place of each phrase that forbids a place"""
    for phrase, *_ in found_in(text, prohibitions()):
        text = shortened(text, phrase)
    return text


def shortened(text, phrase):
    """a forbidden mark in the place of a phrase, where the text still has it: another may have been a part of it"""
    parts = []
    behind = 0
    for start, end, marks in Sentence(text).matches(phrase):
        parts += [text[behind:start], phrase.shortened(marks)]
        behind = end
    return ''.join([*parts, text[behind:]])
