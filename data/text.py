"""
Words to tokens: a sentencepiece vocabulary learned from a data set's own training texts. Runs without torch. Others: encoders.py.

Ids 0 to 3 are padding, unknown, 'no prompt given' and the end of a prompt. Case and punctuation do not matter.
"""

import io
import math
import re
from difflib import SequenceMatcher, get_close_matches
from itertools import islice

import numpy as np

LEARN_FROM = 500_000  # texts at most: they are in memory while the vocabulary is learned
PAD, UNKNOWN, NOT_GIVEN, END = 0, 1, 2, 3
RESERVED = 4
DAMAGED = "the tokenizer's file is damaged. Run: python prepare.py"


class Tokenizer:
    """encode(text) -> ids; unknown(text) -> its words that no training text had. `model` (bytes) and `words` rebuild it."""

    text_width = 0  # of the states that a frozen encoder gives in place of ids

    def __init__(self, model, words, **how):
        self.model, self.words, self.sorted = model, set(words), sorted(words)
        self.open(**how)

    def open(self):
        import sentencepiece

        try:
            self.pieces = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except RuntimeError:
            raise ValueError(DAMAGED) from None

    @classmethod
    def train(cls, texts, vocab_size=900):
        """
        texts: strings that can be iterated over again, in a fixed order (another order gives another vocabulary); of very
        many, some evenly spaced ones are learned from. vocab_size is an upper limit
        """
        import sentencepiece

        some, known, chunks = learnt_from(texts)
        needed = len(set(''.join(chunks)) | {' '}) + RESERVED  # the reserved ids are pieces too
        if vocab_size < needed:
            raise ValueError(f'vocab_size={vocab_size} is too small: the letters alone take {needed}. Raise it')
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=some,
            model_writer=model,
            model_type='bpe',
            vocab_size=vocab_size,
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
        return self.pieces.vocab_size()

    def encode(self, text):
        return self.pieces.encode(clean(text)) + [END]

    def decode(self, ids):
        return self.pieces.decode([int(i) for i in ids if i > END])

    def pad_prompts(self, prompts):
        """lists of ids -> what GPT.words reads"""
        return pad_prompts(prompts)

    def unknown(self, text):
        return sorted(words(text) - self.words)

    def misspelt(self, text):
        """words that no training text had, but that look like one that did -> {'frigde': 'fridge'}"""
        near = {w: get_close_matches(w, self.sorted, 1, 0.7) for w in self.unknown(text) if len(w) > 2}

        def meant(w, k):  # other words look alike too: rest is not west, nor sit its
            return (
                len(w) > 3
                and sorted(w) == sorted(k)
                or SequenceMatcher(None, w, k).ratio() >= (0.8 if len(w) > 3 else 0.85)
            )

        return {w: k for w, found in near.items() for k in found if meant(w, k)}

    def fix_typos(self, text):
        """the same text without typing mistakes"""
        known = self.misspelt(text)
        return re.sub(r'\w+', lambda m: known.get(m[0].lower(), m[0]), text) if known else text


def learnt_from(texts):
    """texts -> some of them, cleaned; the words of all, sorted; all that stands between spaces"""
    chunks, n = set(), 0
    for n, text in enumerate(texts, 1):
        chunks.update(clean(text).split())
    if not n:
        raise ValueError('no texts to learn a vocabulary from')
    return map(clean, islice(texts, 0, None, math.ceil(n / LEARN_FROM))), sorted(words(' '.join(chunks))), chunks


def pad_prompts(prompts, n=None, states=None, width=0):
    """
    Lists of ids -> (B, N) int64, N the longest or n. With the frozen states of each, (N, width), None for 'not given':
    (B, N, 1 + width) float32, in front of them what kind of token it is: padding, one with states, 'not given'
    """
    rows = np.full((len(prompts), n or max(map(len, prompts))), PAD)
    for row, prompt in zip(rows, prompts):
        row[: len(prompt)] = prompt
    if states is None:
        return rows
    all_of_it = np.zeros((*rows.shape, 1 + width), np.float32)
    all_of_it[..., 0] = np.where(rows > UNKNOWN, UNKNOWN, rows)
    for row, s in zip(all_of_it, states):
        if s is None:
            row[0, 0] = NOT_GIVEN
        else:
            row[: len(s), 1:] = s
    return all_of_it


def clean(text):
    """lower case, and no punctuation but the hyphen of north-east: it would lengthen prompts and says nothing"""
    return ' '.join(re.findall(r'\w+(?:-\w+)*', text.lower()))


def words(text):
    return set(clean(text).replace('-', ' ').split())


def mistype(text, rng):
    """a sentence as a hasty person types it: in capitals, and in every other long word two letters swapped, one left out, or one doubled"""

    def slip(match):
        word = match[0]
        if len(word) < 4 or rng.random() < 0.5:
            return word
        i, how = int(rng.integers(1, len(word) - 1)), int(rng.integers(3))
        return word[:i] + (word[i + 1] + word[i], '', word[i] * 2)[how] + word[i + (2, 1, 1)[how] :]

    return re.sub(r'\w+', slip, text).upper()
