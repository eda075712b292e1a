"""
Training texts as people type them: without punctuation, with words that mean nothing to the robot, without little
words, with typing mistakes. The policy reads these in place of the texts that are kept, and learns which words matter;
the vocabulary and the known words stay those of the phrases. Texts of the other splits stay what they are.
"""

from functools import lru_cache

from data.text import clean, slip
from data.toy_nav.phrases import FOLDER, read

UNMARKED = 0.25  # share of training texts without punctuation
FOREIGN = 0.12  # share of training texts with foreign words
SHORT = 0.12  # .. that lack little words
MISTYPED = 0.1  # .. with typing mistakes
MOST_FOREIGN = 3  # foreign words in a text
SCRAMBLED = 0.2  # share of foreign words that are no words
LEFT_OUT = 0.5  # share of its little words that a text lacks, where it lacks some
SLIPS = 0.2  # share of its long words with a typing mistake, in a text with some
LETTERS = 'abcdefghijklmnopqrstuvwxyz'


@lru_cache(maxsize=1)
def foreign_words():
    """ordinary English words that no phrase has, none of them about a room or an order"""
    return (FOLDER / 'foreign_words.txt').read_text().split()


def roughen(text, rng):
    """a training text as the policy reads it, rng: a random.Random"""
    words = text.split()
    if rng.random() < UNMARKED:
        words = clean(text).split()
    if rng.random() < SHORT:
        little = read('manner')['little words']
        words = [word for word in words if word.lower() not in little or rng.random() > LEFT_OUT]
    if rng.random() < MISTYPED:
        words = [slip(word, rng.random) if len(word) > 3 and rng.random() < SLIPS else word for word in words]
    if rng.random() < FOREIGN:
        for _ in range(rng.randint(1, MOST_FOREIGN)):
            words.insert(rng.randint(0, len(words)), foreign_word(rng))
    return ' '.join(words)


def foreign_word(rng):
    if rng.random() < SCRAMBLED:
        return ''.join(rng.choices(LETTERS, k=rng.randint(2, 8)))
    return rng.choice(foreign_words())
