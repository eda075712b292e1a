"""
Other ways to read a prompt than the vocabulary that is learned by default (text.py); `pip install '.[words]'`.

    bpe       byte-level BPE, learned from the training texts
    tiktoken  GPT-2's BPE, of which what the training texts need is kept: any other word falls to smaller pieces, down to bytes
    bert      a frozen BERT: a prompt is the hidden states of its tokens (torch is imported when it is asked for them)

Which one a data set was prepared with is in its meta.json, and in the checkpoints of what was trained on it.
"""

import hashlib
import importlib.util
import json
from base64 import b64decode, b64encode
from functools import cached_property
from itertools import groupby, islice, pairwise
from pathlib import Path

from data.text import DAMAGED, END, NOT_GIVEN, RESERVED, Tokenizer, clean, learnt_from, pad_prompts

LAYER = -2  # of a BERT's hidden states: what the last one adds serves what it was trained for, not the words (data/toy_nav/readme.md)
AT_ONCE = 64  # prompts of one length that a frozen encoder reads together


# ------------------------------------------------------------------------------
# byte-level BPE


class Ranks(Tokenizer):
    """A byte-level BPE as tiktoken computes it. `model`: its ranks in tiktoken's own format, a line for each token."""

    def open(self):
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        try:
            ranks = read_ranks(self.model)
            if sorted(ranks.values()) != list(range(len(ranks))):
                raise ValueError
        except ValueError:
            raise ValueError(DAMAGED) from None
        self.pieces = tiktoken.Encoding('bpe', pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})

    @classmethod
    def train(cls, texts, vocab_size=900):
        """as Tokenizer.train; computed with the tokenizers library, whose merges in their order are the ranks"""
        from tokenizers import Tokenizer as Bpe, models, pre_tokenizers, trainers

        if vocab_size < 256 + RESERVED:
            raise ValueError(f'vocab_size={vocab_size} is too small: the bytes alone take {256 + RESERVED}. Raise it')
        some, known, _ = learnt_from(texts)
        bpe = Bpe(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.train_from_iterator(
            (f' {text}' for text in some),
            trainers.BpeTrainer(
                vocab_size=vocab_size - RESERVED,
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )
        shown = [
            *range(33, 127),
            *range(161, 173),
            *range(174, 256),
        ]  # bytes that the library writes as themselves, the others follow from 256 on
        byte = {chr(b): b for b in shown} | {
            chr(256 + i): b for i, b in enumerate(sorted(set(range(256)) - set(shown)))
        }
        return cls(written({bytes(byte[c] for c in token): rank for token, rank in bpe.get_vocab().items()}), known)

    @classmethod
    def of_gpt2(cls, texts, file=''):
        """file: GPT-2's ranks as tiktoken writes them, '': from tiktoken's cache, which it fills from the network"""
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        try:
            ranks = read_ranks(Path(file).read_bytes()) if file else tiktoken.get_encoding('gpt2')._mergeable_ranks
            full = tiktoken.Encoding('gpt2', pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
        except OSError as e:
            raise OSError(
                f'no GPT-2 ranks: {file or "they are not in the cache of tiktoken, and the network does not give them"} ({e.strerror or type(e).__name__}). '
                'Give a file of them as tiktoken writes it: --gpt2_ranks=r50k_base.tiktoken'
            ) from None
        except ValueError:
            raise ValueError(
                f"{file} does not hold GPT-2's ranks as tiktoken writes them: a line for each token, base64 and a number"
            ) from None
        _, known, chunks = learnt_from(texts)
        token, kept = {rank: t for t, rank in ranks.items()}, {bytes([b]) for b in range(256)}

        def keep(t):  # with what it is merged from: then words that were seen are merged as ever
            if t not in kept:
                kept.add(t)
                for half in halves(t, ranks):
                    keep(half)

        for chunk in chunks:
            for rank in full.encode_ordinary(f' {chunk}'):
                keep(token[rank])
        return cls(written({t: i for i, t in enumerate(sorted(kept, key=ranks.get))}), known)

    @property
    def vocab_size(self):
        return self.pieces.n_vocab + RESERVED

    def encode(self, text):
        return [rank + RESERVED for rank in self.pieces.encode_ordinary(f' {clean(text)}')] + [
            END
        ]  # a word is the same at the start as elsewhere

    def decode(self, ids):
        return self.pieces.decode([int(i) - RESERVED for i in ids if i >= RESERVED]).strip()


def read_ranks(data):
    """a file of tiktoken's -> {token: rank}"""
    ranks = {b64decode(token, validate=True): int(rank) for token, rank in (line.split() for line in data.splitlines())}
    if not all(bytes([b]) in ranks for b in range(256)):
        raise ValueError('not every byte is a token')
    return ranks


def written(ranks):
    return b''.join(b64encode(token) + b' %d\n' % rank for token, rank in sorted(ranks.items(), key=lambda t: t[1]))


def halves(token, ranks):
    """the two tokens that are merged into this one, last of all"""
    parts, end = [bytes([b]) for b in token], ranks[token]
    while len(parts) > 2:
        _, i = min((ranks.get(a + b, end), i) for i, (a, b) in enumerate(pairwise(parts)))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


# ------------------------------------------------------------------------------
# a frozen BERT


class Frozen(Tokenizer):
    """A frozen BERT of transformers. `model`: JSON of its name, layer and width, and the SHA-256 of its weights; these stay where they are."""

    vocab_size = RESERVED  # what the policy embeds is what kind of token there is

    def open(self, name=''):
        try:
            said = json.loads(self.model)
            self.name, self.layer, self.text_width, self.sha256 = (
                name or said['name'],
                said['layer'],
                said['width'],
                said['sha256'],
            )
            if (
                not isinstance(self.name, str)
                or not all(isinstance(n, int) for n in (self.layer, self.text_width))
                or self.text_width < 1
            ):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(DAMAGED) from None

    @classmethod
    def of(cls, texts, name):
        """name: a folder, an installed package that carries a model, or a name on the hub, which may then be downloaded from"""
        _, known, _ = learnt_from(texts)
        reader, bert = (
            loaded('AutoTokenizer', name, download=True),
            loaded('AutoModel', name, download=True, use_safetensors=True).eval(),
        )
        made = cls(
            json.dumps(
                {'name': name, 'layer': LAYER, 'width': bert.config.hidden_size, 'sha256': digest(bert)}
            ).encode(),
            known,
        )
        made.reader, made.bert = reader, bert
        return made

    @cached_property
    def reader(self):
        return loaded('AutoTokenizer', self.name)

    @cached_property
    def bert(self):
        bert = loaded('AutoModel', self.name, use_safetensors=True).eval()
        if digest(bert) != self.sha256:
            raise ValueError(
                f'{self.name} holds other weights than those the prompts were read with. Set --bert_model to the folder of those'
            )
        return bert

    def encode(self, text):
        return [
            i + RESERVED for i in self.reader(clean(text))['input_ids']
        ]  # its own tokens for beginning and end are among them

    def decode(self, ids):
        return self.reader.decode([int(i) - RESERVED for i in ids if i >= RESERVED], skip_special_tokens=True)

    def unknown(self, text):
        """words that no training text had, nor does the encoder know them as a whole"""
        return [word for word in super().unknown(text) if len(self.reader.tokenize(word)) > 1]

    def states(self, prompts):
        """prompts, lists of ids -> for each (N, text_width) float16, None for the one that says 'not given'"""
        import torch

        found, of_length = {(NOT_GIVEN,): None}, sorted({tuple(map(int, p)) for p in prompts} - {(NOT_GIVEN,)}, key=len)
        for _, same in groupby(of_length, len):
            while some := list(islice(same, AT_ONCE)):  # none is padded: each is read as it would be alone
                ids = torch.tensor(some) - RESERVED
                with torch.inference_mode():
                    out = self.bert(
                        input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
                    ).hidden_states[self.layer]
                found.update(zip(some, out.half().numpy()))
        return [found[tuple(map(int, p))] for p in prompts]

    def pad_prompts(self, prompts):
        return pad_prompts(prompts, None, self.states(prompts), self.text_width)


def loaded(kind, name, download=False, **how):
    """a tokenizer or a model of transformers; nothing in its folder is executed"""
    import transformers

    package = importlib.util.find_spec(name) if name.isidentifier() and not Path(name).is_dir() else None
    where = str(Path(package.origin).parent / 'model') if package and package.origin else name
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return getattr(transformers, kind).from_pretrained(where, local_files_only=not download, **how)
    except (OSError, ValueError) as e:
        raise OSError(
            f'no BERT at bert_model={name!r} ({str(e).splitlines()[0][:160]}). Give a folder that holds one, or, once and with a network, a name on the hub'
        ) from None


def digest(bert):
    """the SHA-256 of a model's weights"""
    sha = hashlib.sha256()
    for name, weights in sorted(bert.state_dict().items()):
        sha.update(name.encode())
        sha.update(weights.contiguous().numpy().tobytes())
    return sha.hexdigest()


# ------------------------------------------------------------------------------

ENCODERS = {'learned': Tokenizer, 'bpe': Ranks, 'tiktoken': Ranks, 'bert': Frozen}


def learn(kind, texts, vocab_size, gpt2_ranks='', bert_model=''):
    """the tokenizer of a data set; texts: as for Tokenizer.train"""
    if kind == 'tiktoken':
        return Ranks.of_gpt2(texts, gpt2_ranks)
    return Frozen.of(texts, bert_model) if kind == 'bert' else ENCODERS[kind].train(texts, vocab_size)


def load_tokenizer(kind, model, words, bert_model=''):
    """the tokenizer that a data set or a checkpoint holds; bert_model: where a frozen encoder is now, '': where it was"""
    if kind not in ENCODERS:
        raise ValueError(
            f'the prompts were read with text_encoder={str(kind)[:40]!r}, known are: {", ".join(ENCODERS)}'
        )
    if bert_model and kind != 'bert':
        raise ValueError(f'bert_model={bert_model!r}, but prompts are read with text_encoder={kind!r}. Leave it out')
    return ENCODERS[kind](model, words, **({'name': bert_model} if bert_model else {}))
