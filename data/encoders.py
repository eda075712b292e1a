"""
Other ways to read a prompt than the vocabulary that is learned by default (text.py); `pip install '.[words]'`.

    bpe       byte-level BPE, learned from the training texts
    tiktoken  the part of GPT-2's BPE that the training texts need: any other word is read as smaller pieces, or bytes
    bert      a frozen BERT: a prompt is the hidden states of its tokens (torch is imported when they are computed)

Which one a data set was prepared with is in its meta.json, and in the checkpoints of what was trained on it.
"""

import hashlib
import importlib.util
import json
from base64 import b64decode, b64encode
from functools import cached_property, partial
from itertools import groupby, pairwise
from pathlib import Path

from data.text import DAMAGED, END, NOT_GIVEN, RESERVED, Tokenizer, clean, corpus, pad_prompts

N_BYTES = 256  # each is a token of a byte-level BPE
# of a BERT's hidden states: the last layer is best for its own task, not for words (data/toy_nav/experiments.md)
LAYER = -2
BATCH_SIZE = 64  # prompts of one length that a frozen BERT reads together


# ------------------------------------------------------------------------------
# byte-level BPE


class BPE(Tokenizer):
    """A byte-level BPE, computed by tiktoken. `model` (bytes): its ranks in tiktoken's format, see read_ranks."""

    def load(self):
        """raises ValueError where `model` is damaged"""
        try:
            ranks = read_ranks(self.model)
        except ValueError:
            raise ValueError(DAMAGED) from None
        if sorted(ranks.values()) != list(range(len(ranks))):
            raise ValueError(DAMAGED)
        self.pieces = tiktoken_encoding(ranks)

    @classmethod
    def train(cls, texts, vocab_size=900):
        """
        Learn a vocabulary of at most vocab_size, with the tokenizers library: its merges in their order are the ranks.

        texts: as for Tokenizer.train. Raises ValueError where vocab_size is too small for the bytes.
        """
        from tokenizers import Tokenizer as LibraryTokenizer
        from tokenizers import models, pre_tokenizers, trainers

        least = N_BYTES + RESERVED
        if vocab_size < least:
            raise ValueError(f'vocab_size={vocab_size} is too small: the bytes alone take {least}. Raise it')
        sample, known, _ = corpus(texts)
        bpe = LibraryTokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - RESERVED,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        bpe.train_from_iterator((f' {text}' for text in sample), trainer)
        byte_of = byte_level_alphabet()
        ranks = {bytes(byte_of[letter] for letter in token): rank for token, rank in bpe.get_vocab().items()}
        return cls(dump_ranks(ranks), known)

    @classmethod
    def from_gpt2(cls, texts, file=''):
        """
        The tokens of GPT-2's BPE that the texts need, and those they are merged from, ranked as in GPT-2's.

        texts: as for Tokenizer.train; file: as for gpt2_ranks, whose errors it raises
        """
        ranks, gpt2 = gpt2_ranks(file)
        _, known, chunks = corpus(texts)
        token_of = {rank: token for token, rank in ranks.items()}
        needed = {bytes([b]) for b in range(N_BYTES)}

        def add(token):  # with what it is merged from: then GPT-2's BPE and this one read the texts alike
            if token not in needed:
                needed.add(token)
                for half in halves(token, ranks):
                    add(half)

        for chunk in chunks:
            for rank in gpt2.encode_ordinary(f' {chunk}'):
                add(token_of[rank])
        in_order = sorted(needed, key=ranks.get)
        return cls(dump_ranks({token: rank for rank, token in enumerate(in_order)}), known)

    @property
    def vocab_size(self):
        return self.pieces.n_vocab + RESERVED

    def encode(self, text):
        # the space: a word has the same tokens at the start as elsewhere
        ranks = self.pieces.encode_ordinary(f' {clean(text, self.marks)}')
        return [rank + RESERVED for rank in ranks] + [END]

    def decode(self, ids):
        return self.pieces.decode([int(i) - RESERVED for i in ids if i >= RESERVED]).strip()


def tiktoken_encoding(ranks):
    import tiktoken
    from tiktoken_ext.openai_public import r50k_pat_str

    return tiktoken.Encoding('bpe', pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


def gpt2_ranks(file=''):
    """
    file: GPT-2's ranks in tiktoken's format; '': those in tiktoken's cache, which it fills from the network

    -> {token: rank}, and the tiktoken.Encoding of them. Raises OSError where there are none, ValueError where the
    file is of another format.
    """
    import tiktoken

    try:
        if file:
            ranks = read_ranks(Path(file).read_bytes())
        else:
            ranks = tiktoken.get_encoding('gpt2')._mergeable_ranks
        return ranks, tiktoken_encoding(ranks)
    except OSError as e:
        place = file or 'they are not in the cache of tiktoken, and the network does not give them'
        raise OSError(
            f'no GPT-2 ranks: {place} ({e.strerror or type(e).__name__}). '
            "Give a file of them in tiktoken's format: --gpt2_ranks=r50k_base.tiktoken"
        ) from None
    except ValueError:
        raise ValueError(
            f"{file} does not hold GPT-2's ranks in tiktoken's format: a line for each token, base64 and a number. "
            'Download r50k_base.tiktoken again'
        ) from None


def read_ranks(data):
    """
    bytes in tiktoken's format, a line for each token: base64 and its rank -> {token: rank}

    Raises ValueError where they are not, or where a byte is not a token.
    """
    pairs = (line.split() for line in data.splitlines())
    ranks = {b64decode(token, validate=True): int(rank) for token, rank in pairs}
    if not all(bytes([b]) in ranks for b in range(N_BYTES)):
        raise ValueError('not every byte is a token')
    return ranks


def dump_ranks(ranks):
    """{token: rank} -> bytes in tiktoken's format"""
    by_rank = sorted(ranks.items(), key=lambda pair: pair[1])
    return b''.join(b64encode(token) + b' %d\n' % rank for token, rank in by_rank)


def halves(token, ranks):
    """-> the two tokens that the last merge joins into this one"""
    parts = [bytes([b]) for b in token]
    last = ranks[token]
    while len(parts) > 2:
        _, i = min((ranks.get(a + b, last), i) for i, (a, b) in enumerate(pairwise(parts)))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def byte_level_alphabet():
    """-> {letter: byte}, for the letters that GPT-2 and the tokenizers library write bytes as"""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # these stand for themselves
    others = sorted(set(range(N_BYTES)) - set(printable))  # and these for the letters from 256 on
    byte_of = {chr(b): b for b in printable}
    byte_of |= {chr(N_BYTES + i): b for i, b in enumerate(others)}
    return byte_of


# ------------------------------------------------------------------------------
# a frozen BERT


class FrozenBERT(Tokenizer):
    """
    A frozen BERT of transformers. `model` (bytes): JSON of its name, layer and width, and the SHA-256 of its weights,
    which stay where they are.
    """

    vocab_size = RESERVED  # the policy embeds the kind of each token, beside its state: see pad_prompts in text.py

    def __reduce__(self):
        return partial(type(self), bert_model=self.name), (self.model, self.known)

    def load(self, bert_model=''):
        """bert_model: where the BERT is now; '': where it was. Raises ValueError where `model` is damaged"""
        try:
            spec = json.loads(self.model)
            self.name = bert_model or spec['name']
            self.layer = spec['layer']
            self.text_width = spec['width']
            self.sha256 = spec['sha256']
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(DAMAGED) from None
        numbers = isinstance(self.layer, int) and isinstance(self.text_width, int)
        if not isinstance(self.name, str) or not numbers or self.text_width < 1:
            raise ValueError(DAMAGED)

    @classmethod
    def from_pretrained(cls, texts, name):
        """
        texts: as for Tokenizer.train; name: a folder, an installed package that carries a model, or a name on the
        hub, to download from. Raises OSError where there is no BERT.
        """
        _, known, _ = corpus(texts)
        reader = from_transformers('AutoTokenizer', name, download=True)
        bert = from_transformers('AutoModel', name, download=True, use_safetensors=True).eval()
        spec = {'name': name, 'layer': LAYER, 'width': bert.config.hidden_size, 'sha256': digest(bert)}
        tokenizer = cls(json.dumps(spec).encode(), known)
        tokenizer.reader = reader
        tokenizer.bert = bert
        return tokenizer

    @cached_property
    def reader(self):
        return from_transformers('AutoTokenizer', self.name)

    @cached_property
    def bert(self):
        bert = from_transformers('AutoModel', self.name, use_safetensors=True).eval()
        if digest(bert) != self.sha256:
            raise ValueError(
                f'{self.name} holds other weights than those the prompts were read with. '
                'Set --bert_model to the folder of those'
            )
        return bert

    def encode(self, text):
        """BERT's own tokens for beginning and end are among the ids"""
        return [i + RESERVED for i in self.reader(clean(text, self.marks))['input_ids']]

    def decode(self, ids):
        return self.reader.decode([int(i) - RESERVED for i in ids if i >= RESERVED], skip_special_tokens=True)

    def unknown(self, text):
        """-> words that are in no training text, and that BERT reads as more than one token"""
        return [word for word in super().unknown(text) if len(self.reader.tokenize(word)) > 1]

    def states(self, prompts):
        """prompts: lists of ids -> a list of their states, (N, text_width) float16; None for [NOT_GIVEN]"""
        prompts = [tuple(map(int, prompt)) for prompt in prompts]
        states_of = {(NOT_GIVEN,): None}
        new = sorted(set(prompts) - set(states_of), key=len)
        # none is padded: its states are the same whatever it is read with
        for _, group in groupby(new, key=len):
            same_length = list(group)
            for first in range(0, len(same_length), BATCH_SIZE):
                batch = same_length[first : first + BATCH_SIZE]
                states_of.update(zip(batch, self.hidden_states(batch)))
        return [states_of[prompt] for prompt in prompts]

    def hidden_states(self, prompts):
        """prompts: B tuples of N ids each -> (B, N, text_width) float16"""
        import torch

        ids = torch.tensor(prompts) - RESERVED  # (B, N)
        with torch.inference_mode():
            out = self.bert(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        return out.hidden_states[self.layer].half().numpy()

    def pad_prompts(self, prompts):
        """lists of ids -> (B, N, 1 + text_width) float32, see pad_prompts in text.py"""
        return pad_prompts(prompts, None, self.states(prompts), self.text_width)


def from_transformers(kind, name, download=False, **options):
    """
    A tokenizer or a model of transformers; nothing in its folder is executed.

    kind: 'AutoTokenizer' or 'AutoModel'. Raises OSError where there is none of that name.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    auto_class = getattr(transformers, kind)
    try:
        return auto_class.from_pretrained(model_folder(name), local_files_only=not download, **options)
    except (OSError, ValueError) as e:
        raise OSError(
            f'no BERT at bert_model={name!r} ({str(e).splitlines()[0][:160]}). '
            'Give a folder that holds one, or a name on the hub: the first time, this needs a network'
        ) from None


def model_folder(name):
    """-> the folder of the model that an installed package carries; for any other name, the name"""
    if not name.isidentifier() or Path(name).is_dir():
        return name
    package = importlib.util.find_spec(name)
    if package is None or not package.origin:
        return name
    return str(Path(package.origin).parent / 'model')


def digest(bert):
    """-> the SHA-256 of a model's weights"""
    sha = hashlib.sha256()
    for name, weights in sorted(bert.state_dict().items()):
        sha.update(name.encode())
        sha.update(weights.contiguous().numpy().tobytes())
    return sha.hexdigest()


# ------------------------------------------------------------------------------

ENCODERS = {'learned': Tokenizer, 'bpe': BPE, 'tiktoken': BPE, 'bert': FrozenBERT}


def learn(kind, texts, vocab_size, gpt2_ranks='', bert_model=''):
    """
    The tokenizer of a data set.

    kind: of ENCODERS; texts: as for Tokenizer.train; gpt2_ranks: the file for 'tiktoken'; bert_model: the name for
    'bert'. Raises ValueError, or OSError where GPT-2's ranks or the BERT are not there.
    """
    if kind == 'tiktoken':
        return BPE.from_gpt2(texts, gpt2_ranks)
    if kind == 'bert':
        return FrozenBERT.from_pretrained(texts, bert_model)
    return ENCODERS[kind].train(texts, vocab_size)


def load_tokenizer(kind, model, known, bert_model=''):
    """
    The tokenizer of a data set or a checkpoint.

    model (bytes), known: those of the Tokenizer; bert_model: where a frozen BERT is now, '': where it was.
    Raises ValueError where the kind is unknown, the model is damaged, or bert_model is given for another kind.
    """
    if kind not in ENCODERS:
        kinds = ', '.join(ENCODERS)
        raise ValueError(f'the prompts were read with text_encoder={str(kind)[:40]!r}, known are: {kinds}')
    if not bert_model:
        return ENCODERS[kind](model, known)
    if kind != 'bert':
        raise ValueError(f'bert_model={bert_model!r}, but prompts are read with text_encoder={kind!r}. Leave it out')
    return FrozenBERT(model, known, bert_model=bert_model)
