"""
Orders of people.json and all ways to forbid, read back: there are more than cues.json has words for, so a sentence is
compared with each, word by word. Marks in a text stand for its places, see `marked` in reading.py.
"""

import re
from collections import defaultdict
from functools import cached_property, lru_cache

from data.toy_nav.phrases import read, third_person
from data.toy_nav.reading import ARTICLES, FORBIDDEN, MARKS, forbidden, patterns, plain

ORDERS = ('one people', 'whole people', 'both people', 'tile both people')
SIGNS = {'clause': '. ', 'part': ' '}  # of prohibitions
SLOT = re.compile(r'{at(?::(\w))?}')
PUNCTUATION = r'[\s,;.!?:()"\'*-]'
TOKEN = re.compile(rf"\0|[a-z0-9_]+(?:['-][a-z0-9_]+)*|(?!{PUNCTUATION})[^\w]")


class Phrase:
    """
    A phrase that can be searched for. slots: for each place that it names, '1' for the first to go to, 'x' for one to
    avoid, '' for that of a prohibition; sign: what stands around a forbidden place in a text.
    """

    def __init__(self, text, sign=''):
        tokens = TOKEN.findall(plain(SLOT.sub('\0', text)))
        self.slots = SLOT.findall(text)
        self.sign = sign
        self.ends_in_place = tokens[-1] == '\0'
        self.words = [token for token in tokens if token[0].isalnum()]
        self.tokens = tokens

    @cached_property
    def pattern(self):
        """compiled where it is needed: few of the phrases have a word of a sentence"""
        return re.compile(rf'(?<!\w){pattern(self.tokens)}(?!\w)')

    def shortened(self, match):
        behind = '' if self.ends_in_place else self.sign
        return self.sign + forbidden(match[1]) + behind


def pattern(tokens):
    """words, signs and places in that order, with any punctuation in between"""
    place = rf'(?:(?!th(?:at|is) (?:{ARTICLES}) )(?:{patterns()["place words"]}) )*+({MARKS})'
    text = ''
    for last, token in zip(['', *tokens], tokens):
        if last:
            least = '+' if last[-1].isalnum() and token[0].isalnum() else '*'
            text += PUNCTUATION + least
        text += place if token == '\0' else re.escape(token)
    return text


@lru_cache(maxsize=1)
def orders():
    return by_word([Phrase(text) for name in ORDERS for text in read('people')[name]])


@lru_cache(maxsize=1)
def prohibitions():
    found = {}
    for file in 'avoid', 'people', 'held_out':
        for name, phrases in read(file).items():
            for kind in SIGNS.keys() & name.split():
                found |= dict.fromkeys([*phrases, *map(third_person, phrases)], SIGNS[kind])
    return by_word([Phrase(text, sign) for text, sign in found.items()])


def by_word(phrases):
    """-> {a word: the phrases whose longest word it is}"""
    found = defaultdict(list)
    for phrase in phrases:
        found[max(phrase.words, key=len, default='')].append(phrase)
    return found


def found_in(text, phrases):
    """-> (phrase, match) of those that a text has, those with most words first"""
    words = {'', *TOKEN.findall(text)}
    candidates = [phrase for word in words for phrase in phrases.get(word, [])]
    for phrase in sorted(candidates, key=lambda phrase: -len(phrase.words)):
        match = phrase.pattern.search(text)
        if match:
            yield phrase, match


def recognised(text):
    """
    -> the marks of a text in the order to go to them, those to avoid, False (it is no mere destination); None where no
    phrase names all of its places, but for those that are marked as forbidden
    """
    already = re.findall(FORBIDDEN, text)
    text = re.sub(FORBIDDEN, '', text)
    n = len(re.findall(MARKS, text))
    for phrase, match in found_in(text, orders()):
        if len(phrase.slots) == n:
            marks = dict(zip(phrase.slots, match.groups()))
            avoided = [marks.pop('x')] if 'x' in marks else []
            return [marks[slot] for slot in sorted(marks)], avoided + already, False
    return None


def with_prohibitions(text):
    """-> a text in which a forbidden mark and a sign stand in the place of each phrase that forbids a place"""
    for phrase, _ in found_in(text, prohibitions()):
        text = phrase.pattern.sub(phrase.shortened, text)  # what was found before may have been a part of it
    return text
