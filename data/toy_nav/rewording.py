"""
Sentences in words that no training text has: unseen_words.json holds words of descriptions and others that mean the
same.
"""

import json
import re
from functools import lru_cache
from pathlib import Path

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


def reword(text, rng, most=None, kind=''):
    """
    A sentence with other words wherever there are any (of a kind), or in `most` places, drawn from rng; None where
    there are none.
    """
    every = [word for words in unseen_words().values() for word in words]
    longest_first = sorted(
        every, key=len, reverse=True
    )  # file cabinet before cabinet, and south-west of stays what it is
    pattern = re.compile(rf'(?<![\w-])({"|".join(map(re.escape, longest_first))})(?!\w)', re.I)
    others = {}
    for name, words in unseen_words().items():
        if kind in ('', name):
            others.update(words)
    matches = [m for m in pattern.finditer(text) if m[0].lower() in others]
    if not matches:
        return None
    for k in sorted(rng.permutation(len(matches))[:most], reverse=True):
        match, options = matches[k], others[matches[k][0].lower()]
        text = text[: match.start()] + options[int(rng.integers(len(options)))] + text[match.end() :]
    return text
