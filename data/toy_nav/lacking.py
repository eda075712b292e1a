"""
What people ask for and no request can mean: things and places that the room does not have, a choice between places,
how often to go to one. All words come from language/lacking.json.
"""

import re
from dataclasses import replace
from functools import lru_cache

from data.toy_nav.phrases import read
from data.toy_nav.reading import ARTICLES, MARKS, THE, either, marked, patterns


def doubts_of(text, places):
    """-> lines, one for each thing of a text that cannot be followed as it is meant"""
    text, named = marked(text, places)
    lines = [f'the room has no {found["thing"]}' for found in lacking_patterns()['thing'].finditer(text)]
    for place in named.values():
        if replace(place, tile='') not in places.all:  # two things too far apart, or a side behind a wall
            lines.append(f'the room has no place {place}')
    for found in lacking_patterns()['choice'].finditer(text):
        first, last = found[0][0], found['other']
        if named[first] != named[last] and not is_forbidden(text, found.start(), found.end('other')):
            lines.append(f'"{found["choice"]}" between places may be misread: say only where to go')
    lines += [f'"{found["count"]}" cannot be followed' for found in lacking_patterns()['count'].finditer(text)]
    return list(dict.fromkeys(lines))


def is_forbidden(text, start, end):
    """are places from start to end to be avoided, by what stands before them and others of their list, or behind?"""
    before = re.sub(rf'{THE}(?:{MARKS},?(?: or| and)? {THE})*$', '', text[:start])
    return bool(patterns()['avoid'].search(before) or patterns()['avoided'].match(text, end))


@lru_cache(maxsize=1)
def lacking_patterns():
    words = read('lacking')
    things, choices, counts = (either(words[kind]) for kind in ('things', 'choices', 'counts'))
    where = rf'(?:(?:{ARTICLES}|to|by|at|near|past|via|visit) |^|[,.;:>] ?|(?:then|and) )'
    return {
        # not as a part of something, "the table with the lamp", nor as its kind, "the computer desk"
        'thing': re.compile(rf'(?<!{MARKS} with )(?<!{MARKS} of ){where}(?P<thing>{things})(?:s|es)?\b(?! {MARKS})'),
        'choice': re.compile(rf'{MARKS},? (?P<choice>{choices}) {THE}(?=(?P<other>{MARKS}))'),
        'count': re.compile(rf'{MARKS},? (?P<count>{counts}|\d+ times|\d+ ?x)\b'),
    }
