"""
Words to tokens: a sentencepiece vocabulary learned from a data set's own training texts. Runs without torch. Other
tokenizers are in encoders.py.

Ids 0 to 3 are padding, unknown, 'no prompt given' and the end of a prompt. Case does not matter. A mark of punctuation
is a token where the training texts have it: "cabinet, blue tile" are two places, "cabinet blue tile" may be one.
"""

import io
import math
import re
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from itertools import islice, pairwise

import numpy as np

LEARN_FROM = 500_000  # texts at most: they are in memory while the vocabulary is learned
REMEMBERED = 10_000  # words whose tokens are kept
PAD, UNKNOWN, NOT_GIVEN, END = 0, 1, 2, 3
RESERVED = 4
MARKS = ',.;:!?/()=>+'  # of punctuation, that are tokens
WORD = r'\w+(?:-\w+)*'
DAMAGED = "the tokenizer's file is damaged. Run: python prepare.py"


class Tokenizer:
    """
    encode(text) -> ids; unknown(text) -> its words that no training text had. `model` (bytes) and `known`, the words
    and marks of the training texts, rebuild it: sorted, and then those that were added later, which get ids of their
    own.
    """

    text_width = 0  # of the states that a frozen encoder gives in place of ids

    def __init__(self, model, known, **options):
        self.model = model
        self.known = list(known)
        self.marks = marks_of(self.known)
        self.words = set(known).difference(MARKS)
        self.sorted_words = tuple(sorted(self.words))
        self.ids_of = {}  # of words that were encoded before
        self.load(**options)

    def __reduce__(self):
        """pickled, as other processes get it: what rebuilds it"""
        return type(self), (self.model, self.known)

    def load(self):
        """raises ValueError where `model` is damaged"""
        import sentencepiece

        try:
            self.pieces = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise ValueError(DAMAGED) from None

    @classmethod
    def train(cls, texts, vocab_size=900):
        """
        Learn a vocabulary of at most vocab_size, marks among it.

        texts: strings that can be iterated over again, in a fixed order (another order gives another vocabulary); of
        more than LEARN_FROM, evenly spaced ones are learned from
        """
        import sentencepiece

        sample, known, chunks = corpus(texts)
        needed = len(set(''.join(chunks)) | {' '}) + RESERVED  # the reserved ids are pieces too
        if vocab_size < needed:
            raise ValueError(f'vocab_size={vocab_size} is too small: the letters alone take {needed}. Raise it')
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=map(clean, sample),
            model_writer=model,
            model_type='bpe',
            vocab_size=vocab_size - len(chunks.intersection(MARKS)),
            hard_vocab_limit=False,
            split_by_unicode_script=False,
            character_coverage=1.0,
            num_threads=1,
            minloglevel=2,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=NOT_GIVEN,
            eos_id=END,
        )
        return cls(model.getvalue(), known)

    @property
    def vocab_size(self):
        return self.pieces.vocab_size() + len(self.marks)

    def encode(self, text):
        ids = []
        # no piece goes across a space: word by word is the same, and faster
        for word in clean(text, self.marks).split():
            if word not in self.ids_of:
                if len(self.ids_of) == REMEMBERED:
                    self.ids_of.clear()
                self.ids_of[word] = self.ids(word)
            ids += self.ids_of[word]
        return [*ids, END]

    def ids(self, word):
        """of a word, or of a mark: these come after the pieces, so a vocabulary can be given new ones"""
        if word in self.marks:
            return [self.pieces.vocab_size() + self.marks.index(word)]
        return self.pieces.encode(word)

    def decode(self, ids):
        """-> the words, without marks"""
        return self.pieces.decode([int(i) for i in ids if END < i < self.pieces.vocab_size()])

    def pad_prompts(self, prompts):
        """lists of ids -> what the model reads as text, see pad_prompts"""
        return pad_prompts(prompts)

    def unknown(self, text):
        return sorted(words(text) - self.words)

    def misspelt(self, text):
        """words that no training text had, but that look like one that did -> {'frigde': 'fridge'}"""
        typed_for = {word: spelled(word, self.sorted_words) for word in self.unknown(text)}
        return {word: meant for word, meant in typed_for.items() if meant}


def marks_of(known):
    """the marks of a Tokenizer in the order of their ids: as in MARKS, and then as they were added"""
    added = next((i for i, (a, b) in enumerate(pairwise(known), 1) if a > b), len(known))
    first = [mark for mark in MARKS if mark in known[:added]]
    return first + [word for word in known[added:] if word in MARKS]


def replaced(text, others):
    """a text with others, {word in lower case: what stands in its place, None: nothing does}"""
    return re.sub(r'\w+', lambda m: others.get(m[0].lower()) or m[0], text)


@lru_cache(maxsize=10_000)
def spelled(word, known_words):
    """the one of a tuple of known words that a word was typed for, '' where it is none"""
    if len(word) < 3:
        return ''
    return next((other for other in get_close_matches(word, known_words, 1, 0.7) if is_typo(word, other)), '')


def is_typo(word, other):
    """other words look alike too: rest is not west, nor sit its"""
    if len(word) > 3 and sorted(word) == sorted(other):
        return True
    least = 0.8 if len(word) > 3 else 0.85
    return SequenceMatcher(None, word, other).ratio() >= least


def corpus(texts):
    """
    texts -> an iterable of those to learn from, cleaned but for marks; the words and marks of all, sorted; all that
    stands between spaces then
    """
    chunks = set()
    n = 0
    for text in texts:
        chunks.update(clean(text, MARKS).split())
        n += 1
    if not n:
        raise ValueError('no texts to learn a vocabulary from.')
    sample = islice(texts, 0, None, math.ceil(n / LEARN_FROM))
    known = words(' '.join(chunks)) | chunks.intersection(MARKS)
    return (clean(text, MARKS) for text in sample), sorted(known), chunks


def pad_prompts(prompts, n=None, states=None, width=0):
    """
    Lists of ids -> (B, N) int64, N the longest or n.

    With the states of a frozen encoder for each prompt, (N, width), or None for 'not given': (B, N, 1 + width) float32,
    in front of the states the kind of token: PAD, UNKNOWN (it has states) or NOT_GIVEN.
    """
    ids = np.full((len(prompts), n or max(map(len, prompts))), PAD)  # (B, N)
    for row, prompt in zip(ids, prompts):
        row[: len(prompt)] = prompt
    if states is None:
        return ids
    padded = np.zeros((*ids.shape, 1 + width), np.float32)  # (B, N, 1 + width)
    padded[..., 0] = np.minimum(ids, UNKNOWN)
    for row, prompt_states in zip(padded, states):
        if prompt_states is None:
            row[0, 0] = NOT_GIVEN
        else:
            row[: len(prompt_states), 1:] = prompt_states
    return padded


def clean(text, marks=''):
    """
    lower case, and no punctuation but the hyphen of north-east and these marks, with spaces around them. What ends a
    text says nothing
    """
    patterns = [WORD, *map(re.escape, marks)]
    return ' '.join(re.findall('|'.join(patterns), text.lower().rstrip(' .!?')))


def words(text):
    return set(clean(text).replace('-', ' ').split())


def has_words(text):
    return re.search(WORD, text) is not None


def mistype(text, rng):
    """
    A sentence as a hasty person types it: in capitals, and in every other long word two letters swapped, one left out,
    or one doubled.
    """

    def typed(match):
        word = match[0]
        if len(word) < 4 or rng.random() < 0.5:
            return word
        return slip(word, rng.random)

    return re.sub(r'\w+', typed, text).upper()


def slip(word, draw):
    """a word of three letters and more with two of them swapped, one left out or one doubled; draw() is 0 to 1"""
    i = 1 + int(draw() * (len(word) - 2))
    before, letter, after = word[:i], word[i], word[i + 1 :]
    swapped = before + after[0] + letter + after[1:]
    left_out = before + after
    doubled = before + letter * 2 + after
    return (swapped, left_out, doubled)[int(draw() * 3)]
