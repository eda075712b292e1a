"""Words to tokens and back."""

import pickle

import numpy as np
import pytest

from data.text import END, NOT_GIVEN, PAD, UNKNOWN, Tokenizer, clean, mistype, replaced, words

TEXTS = [
    'Go north of the fridge.',
    'Pass by the stove, then stop near the bed.',
    'Can you go to the file cabinet?',
    'drive to the purple tile',
]


@pytest.fixture(scope='module')
def tokenizer():
    return Tokenizer.train(TEXTS, 120)


def test_round_trip(tokenizer):
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == clean(text)


def test_every_prompt_ends_with_its_end_and_uses_no_other_reserved_id(tokenizer):
    for text in TEXTS:
        *ids, last = tokenizer.encode(text)
        assert last == END and ids and not set(ids) & {PAD, UNKNOWN, NOT_GIVEN, END}


def test_word_by_word_a_text_has_the_same_tokens(tokenizer):
    odd = ['north-east zebra 12', 'Straße naïve \u2026 \u00bd \ufb01sh', '\u4e2d\u6587 fridge', '', '_ - __a']
    for text in [*TEXTS, *odd, *TEXTS]:
        words = [i for i in tokenizer.encode(text) if i < tokenizer.pieces.vocab_size()]  # and no marks
        assert words == [*tokenizer.pieces.encode(clean(text)), END]


def test_another_process_gets_the_same_tokenizer(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert (again.model, again.words, again.marks) == (tokenizer.model, tokenizer.words, tokenizer.marks)
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_case_and_spaces_do_not_matter(tokenizer):
    assert tokenizer.encode('GO  North of\tthe FRIDGE. ') == tokenizer.encode('go north of the fridge.')


def test_unknown_words_are_named(tokenizer):
    assert tokenizer.unknown('Go NORTH of the zebra and the xylophone!') == ['and', 'xylophone', 'zebra']
    assert tokenizer.unknown(TEXTS[1]) == []


def mended(tokenizer, text):
    return replaced(text, tokenizer.misspelt(text))


def test_typing_mistakes_are_mended_and_other_words_left_alone(tokenizer):
    assert (
        mended(tokenizer, 'Go nroth of the FRIDEG, then stp at the purpel tiles')
        == 'Go north of the fridge, then stop at the purple tile'
    )
    for text in TEXTS + ['buy a zebra', "Don't", 'rest', 'sink', 'goal']:
        assert mended(tokenizer, text) == text


def test_mistyped_sentences_are_mostly_understood(tokenizer):
    rng = np.random.default_rng(0)
    typed = [mistype(text, rng) for text in TEXTS * 50]
    assert (
        all(t.isupper() for t in typed)
        and np.mean([clean(t) == clean(text) for t, text in zip(typed, TEXTS * 50)]) < 0.4
    )
    assert np.mean([clean(mended(tokenizer, t)) == clean(text) for t, text in zip(typed, TEXTS * 50)]) > 0.65


def test_words_are_without_marks():
    assert words("It's 2 o'clock:\nGo north-east of THE fridge!") == {
        'it',
        's',
        '2',
        'o',
        'clock',
        'go',
        'north',
        'east',
        'of',
        'the',
        'fridge',
    }
    assert words('?! - ...') == set()


def test_marks_that_texts_have_are_tokens():
    texts = ['fridge, bed, go.', 'go: fridge!', 'bed']
    tokenizer = Tokenizer.train(texts, 60)
    assert tokenizer.marks == [',', ':']  # what ends a text says nothing
    assert tokenizer.vocab_size == tokenizer.pieces.vocab_size() + 2
    assert tokenizer.encode('Go : fridge ,bed?!') == tokenizer.encode('go: fridge, bed')
    assert tokenizer.encode('fridge, bed') != tokenizer.encode('fridge bed') != tokenizer.encode('fridge: bed')
    assert tokenizer.encode('fridge; bed?') == tokenizer.encode('fridge bed'), 'no text has that one'
    assert tokenizer.decode(tokenizer.encode('fridge, bed')) == 'fridge bed'
    assert tokenizer.unknown('fridge, bed: cat') == ['cat']
    assert Tokenizer(tokenizer.model, tokenizer.words).encode('fridge, bed') == tokenizer.encode('fridge bed')
    assert tokenizer.encode('north-east') != tokenizer.encode('north east')


def test_marks_that_are_added_leave_the_ids_of_others_as_they_are():
    tokenizer = Tokenizer.train(['go: fridge! bed', 'bed'], 60)
    grown = Tokenizer(tokenizer.model, [*tokenizer.known, *sorted([',', 'zebra', '(', 'an'])])
    assert (tokenizer.marks, grown.marks) == ([':', '!'], [':', '!', '(', ','])
    assert grown.encode('go: fridge! bed') == tokenizer.encode('go: fridge! bed')
    twice = Tokenizer(grown.model, [*grown.known, ')'])
    assert twice.marks == [':', '!', '(', ',', ')']
    assert pickle.loads(pickle.dumps(twice)).marks == twice.marks


def test_the_vocabulary_keeps_its_limit(tokenizer):
    assert tokenizer.vocab_size <= 120
    assert Tokenizer.train(TEXTS, 60).vocab_size <= 60


def test_a_limit_below_the_letters_is_refused_in_one_line():
    with pytest.raises(ValueError) as e:
        Tokenizer.train(TEXTS, 10)
    assert '\n' not in str(e.value)


def test_same_texts_same_bytes(tokenizer):
    assert Tokenizer.train(TEXTS, 120).model == tokenizer.model


def test_model_and_words_rebuild_it(tokenizer):
    again = Tokenizer(tokenizer.model, sorted(tokenizer.words))
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0]) and again.unknown('zebra') == ['zebra']


def test_a_damaged_model_is_refused(tokenizer):
    for bad in b'not a model', tokenizer.model[: len(tokenizer.model) // 2]:
        with pytest.raises(ValueError, match='damaged'):
            Tokenizer(bad, [])


def test_no_texts_are_refused():
    with pytest.raises(ValueError, match='no texts'):
        Tokenizer.train([], 100)
