"""
What stands beside an episode's arrays: its annotation and its descriptions, by the data set's own words, those of the
archive, or a language model's.
"""

import json
from collections import Counter

import numpy as np

from data.contract import folder_of, part
from data.disk_cache import DiskCache
from data.llm import LLM, ask_until_valid

NOTES = {
    'text': [],
    'loose': [],
    'visits': [],
    'asked': '',
    'names': (),
    'novel': '',
}  # without describe(), or without a part of it
LISTS = ('text', 'loose')  # of sentences
# outcomes of asking a language model: right at first, after a complaint, never, no answer
FIRST, LATER, WRONG, NONE = range(4)


def annotate(data, episode, number, kwargs, n_texts, seed):
    """
    -> the episode's notes: what describe() of the data set returns, and NOTES for what it leaves out; ValueError

    number: the episode's, from 1. Its words depend on it and on the seed alone
    """
    notes = {**NOTES, 'group': str(number), 'number': number, 'parts': json.loads(episode.get('parts') or '[]')}
    if hasattr(data, 'describe'):
        notes |= data.describe(episode, np.random.default_rng([seed, number]), kwargs, n_texts)
    check_sentences(data, 'describe', notes)
    return notes


def annotate_words(data, number, kwargs, n_texts, seed):
    """-> the notes of a request without an episode, from words_only() of the data set"""
    rng = np.random.default_rng([seed, number, 2])
    notes = {**NOTES, 'group': str(number), 'parts': [], **data.words_only(rng, kwargs, n_texts)}
    check_sentences(data, 'words_only', notes)
    return notes


def check_sentences(data, part, notes):
    """ValueError where a part of a data set returned anything but sentences"""
    for name in LISTS:
        if not isinstance(notes[name], list) or not all(isinstance(text, str) for text in notes[name]):
            raise ValueError(
                f'{folder_of(data)}: {part}() returns {notes[name]!r} as {name!r}. '
                'Return a list of sentences: see data/README.md'
            )


def keep_texts(notes, episode):
    """the archive's own sentences in the place of the data set's"""
    return {**notes, **{name: list(episode.get(name) or []) for name in LISTS}}


def phrasings_for_test(data, notes, seed):
    """-> sentences that say the same in words that no training text has, [] where the data set offers none"""
    if not hasattr(data, 'paraphrase'):
        return []
    return data.paraphrase(notes['asked'], np.random.default_rng([seed, notes['number'], 1]))


class LLMDescriber:
    """A language model that writes some of the descriptions; `outcomes` counts its answers."""

    def __init__(self, data, kwargs, model, cache_file, share, concurrency):
        """data: the data set's module; model: its name at the server; share: of an episode's texts, 0 to 1"""
        for name in ('describe', 'llm_prompt', 'invalid_because', 'LLM_STYLES'):
            part(data, name, cure='Leave out --describe=llm, or write it: see data/README.md')
        if not model:
            raise ValueError('--describe=llm must name a language model: --llm=gpt-4o-mini')
        if not 0 <= share <= 1:
            raise ValueError(f'llm_share={share} is a share of the descriptions. Set it to 1 or less')
        self.data = data
        self.kwargs = kwargs
        self.share = share
        self.cache_file = cache_file
        self.llm = LLM(model, DiskCache(cache_file), temperature=1.0, concurrency=concurrency)
        self.outcomes = Counter()

    def write(self, group):
        """
        Replace the last texts of each notes in `group`, a list, by the model's; equal requests are one.
        A text for which it has no valid answer stays as it is.
        """
        places = {}  # (request, style, number): the texts to write, as (list, index)
        for notes in group:
            texts = notes['text']
            n = round(self.share * len(texts))
            for i in range(n):
                number, style = divmod(i, len(self.data.LLM_STYLES))
                job = (notes['asked'], self.data.LLM_STYLES[style], number)
                places.setdefault(job, []).append((texts, len(texts) - n + i))
        answers = self.llm.map(self.ask, list(places), 'described by the language model')
        for (answer, tries), targets in zip(answers, places.values()):
            self.outcomes[outcome(answer, tries)] += 1
            if answer:
                for texts, i in targets:
                    texts[i] = answer

    def ask(self, job):
        """-> (a valid description or None, the number of answers it took)"""
        request, style, number = job
        messages = [{'role': 'user', 'content': self.data.llm_prompt(request, style, self.kwargs)}]

        def invalid_because(text):
            return self.data.invalid_because(text, request, self.kwargs)

        return ask_until_valid(self.llm, messages, invalid_because, number)

    def summary(self):
        n = self.outcomes
        return (
            f'language model: {n.total()} descriptions asked for, '
            f'{n[FIRST]} right at first, {n[LATER]} after a complaint; '
            f'{n[WRONG] + n[NONE]} replaced by offline ones ({n[WRONG]} wrong, {n[NONE]} without an answer); '
            f'{self.llm.requests} requests, {self.llm.tokens} tokens, {self.llm.cached} answers from {self.cache_file}'
        )


def outcome(answer, tries):
    """tries: the number of answers it took, 0 where a request had none"""
    if tries == 0:
        return NONE
    if answer is None:
        return WRONG
    return FIRST if tries == 1 else LATER
