"""
Sentences in words that no training text has: unseen_words.json holds words of descriptions and others that mean the
same.
"""

import json
import re
from functools import lru_cache
from pathlib import Path

from data.toy_nav.phrases import read

REWORDED = {  # rows of the evaluation: arguments of reword
    'a word never seen': {'most': 1},
    'words never seen': {},
    'a thing never seen': {'most': 1, 'kind': 'thing'},
    'a colour never seen': {'most': 1, 'kind': 'colour'},
    'a direction never seen': {'most': 1, 'kind': 'direction'},
}


@lru_cache(maxsize=1)
def unseen_words():
    """{kind of words: {a word of descriptions: others that mean the same and are never trained on}}"""
    return json.loads((Path(__file__).parent / 'unseen_words.json').read_text())


@lru_cache(maxsize=8)
def others_of(kind=''):
    """{a word of descriptions: words that mean the same and are never trained on}, of a kind or of all"""
    others = {}
    for name, words in unseen_words().items():
        if kind not in ('', name):
            continue
        others |= words
        for word, unseen in words.items():
            others |= dict.fromkeys(read('places').get(f'{name}s', {}).get(word, []), unseen)
    return others


def reword(text, rng, most=None, kind=''):
    """
    A sentence with other words wherever there are any (of a kind), or in `most` places, drawn from rng; None where
    there are none.
    """
    longest_first = sorted(others_of(), key=len, reverse=True)  # file cabinet before cabinet; south-west of stays
    pattern = re.compile(rf'(?<![\w-])({"|".join(map(re.escape, longest_first))})(?!\w)', re.I)
    others = others_of(kind)
    matches = [m for m in pattern.finditer(text) if m[0].lower() in others]
    if not matches:
        return None
    for k in sorted(rng.permutation(len(matches))[:most], reverse=True):
        match, options = matches[k], others[matches[k][0].lower()]
        text = text[: match.start()] + options[int(rng.integers(len(options)))] + text[match.end() :]
    return text
