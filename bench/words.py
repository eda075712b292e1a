"""
How well words that no training text has are read as known ones: by letters alone, and by meaning, with and without
what stands beside them.

$ python -m bench.words                                  # data/toy_nav/prepared
$ python -m bench.words my_prepared --all                # another folder that prepare.py wrote; also every word

bench/words.json holds sentences, in each a new word and the known ones that are right for it, [] where none is: LEAST
of data/nearest_words.py was chosen on them. data/toy_nav/unseen_words.json was not looked at for that: it is the test.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from data import nearest_words
from data.nearest_words import PromptReader
from data.prepared import Prepared
from data.text import words
from data.toy_nav.phrases import read
from data.toy_nav.rewording import unseen_words

FRAMES = {
    'thing': 'go to the {}, then stop at the bed',
    'colour': 'stop on the {} tile',
    'direction': 'go {} the bed',
    'order': 'go to the bed, {} stop at the sofa',
}  # for the words of unseen_words.json


def dev():
    """-> {kind: [(sentence, the new words in it, the known words that are right for them)]}"""
    kinds = json.loads((Path(__file__).parent / 'words.json').read_text())
    return {kind: [(frame.format(new), new, right) for frame, new, right in rows] for kind, rows in kinds.items()}


def test():
    """-> the same of unseen_words.json"""
    kinds = {}
    for kind, others in unseen_words().items():
        pairs = [(new, known) for known, news in others.items() for new in news]
        kinds[kind] = [(FRAMES[kind].format(new), new, known.split()) for new, known in pairs]
    return kinds


def outcome(reader, sentence, new, right):
    """-> 'right', 'wrong' or 'not understood'"""
    _, read_as = reader.read(sentence)
    said = [known for word, known in read_as.items() if word in words(new) and known]
    if not said:
        return 'not understood'
    return 'right' if set(said) <= words(' '.join(alike(right))) else 'wrong'


def alike(right):
    """known words, a list -> these and what descriptions call the same: couch may be read as loveseat"""
    names = {*right, ' '.join(right)}
    called = [others for kind in ('things', 'colours', 'sides') for others in read('places')[kind].items()]
    return [*names, *(word for name, others in called if name in names for word in others)]


def table(name, kinds, reader):
    total = Counter()
    print(f'| {name} | n | right | wrong | not understood |\n|---|---|---|---|---|')
    for kind, rows in kinds.items():
        count = Counter(outcome(reader, *row) for row in rows)
        print(f'| {kind} | {len(rows)} | {count["right"]} | {count["wrong"]} | {count["not understood"]} |')
        total += count if kind != 'none' else Counter()
    n = sum(total.values())
    print(f'| but for none | {n} | {total["right"]} | {total["wrong"]} | {total["not understood"]} |\n')


def main():
    folders = [arg for arg in sys.argv[1:] if not arg.startswith('--')]
    split = Prepared(folders[0] if folders else 'data/toy_nav/prepared', 'train')
    if not nearest_words.tables():
        raise SystemExit(f'there is no table of word vectors. Install it: {nearest_words.INSTALL}')
    letters = PromptReader(split.tokenizer())
    letters.by_meaning = False
    readers = {'letters alone': letters, 'meaning': PromptReader(split.tokenizer())}
    if 'neighbours' in split.meta:
        readers['meaning and neighbours'] = PromptReader(split.tokenizer(), split.meta['neighbours'])
    for reader_name, reader in readers.items():
        for name, kinds in (('bench/words.json', dev()), ('unseen_words.json', test())):
            table(f'{reader_name}: {name}', kinds, reader)
            if '--all' in sys.argv:
                every = [row for rows in kinds.values() for row in rows]
                print('\n'.join(f'{outcome(reader, *row)}: {reader.read(row[0])}' for row in every) + '\n')


if __name__ == '__main__':
    main()
