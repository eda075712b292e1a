"""
A policy that says a prompt again, in the plain words of its data set, and acts on what it has said:

    the prompt END, the same in plain words END          what it learns as language models do, token by token
    plain words END | steps ..                           what it acts on

One GPT does both. So reading is taught by words, on as many texts as there are, and driving by demonstrations; and what
a policy has understood is no secret (an inner monologue before acting: Huang et al., arXiv 2207.05608).
"""

import math

import torch
import torch.nn as nn
from torch.nn import functional as F

from data.text import END, NOT_GIVEN, PAD, pad_prompts
from nanopilot import attention
from nanopilot.layers import refuse

AT_ONCE = 64  # prompts
NOT_SAID = -1  # in the place of a token's id


class Saying(nn.Module):
    """
    The next token of a text, from what all blocks but the last make of it: the last one computes only what predicts
    actions. The embeddings of tokens are the output's weights, too.
    """

    def __init__(self, config):
        super().__init__()
        ids = config.text_len and not config.text_width
        refuse(not ids, f'say_len={config.say_len}, but there are no prompts of ids. Set --say_len=0')
        self.ln = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.say_len = config.say_len

    def forward(self, x, batch):
        """-> the mean cross-entropy of what is said in more_text; 0 where there is none"""
        gpt, text = batch['gpt'], batch.get('more_text')
        if text is None:
            return x.new_zeros(())
        return self.cross_entropy(gpt, self.read(gpt, text), text)

    def loss(self, loss, batch):
        return loss

    def fit(self, split, columns, seed):
        """nothing is taken from the data"""

    def read(self, gpt, text):
        """text (M, N) -> (M, N, C)"""
        x = gpt.drop(gpt.embed_text(text))
        attend = attention.causal(text.device)
        for block in gpt.h[:-1]:
            x = block(x, attend)
        return x

    def logits(self, gpt, x):
        """x (.., C) -> (.., vocab_size)"""
        return F.linear(self.ln(x), gpt.wte.weight)

    def cross_entropy(self, gpt, x, text):
        """x (B, N, C), of text (B, N): of the tokens between its first END and its second, that one among them"""
        ends = (text[:, :-1] == END).cumsum(1)
        is_said = (ends == 1) & (text[:, 1:] != PAD)  # tokens after which one is said
        x, next_one = x[:, :-1], text[:, 1:].masked_fill(~is_said, NOT_SAID)
        if not torch.compiler.is_compiling():  # compiled code wants one shape
            x, next_one = x[is_said], next_one[is_said]
        logits = self.logits(gpt, x).float().flatten(0, -2)
        loss = F.cross_entropy(logits, next_one.flatten(), ignore_index=NOT_SAID, reduction='sum')
        return loss / is_said.sum().clamp(min=1)


# ------------------------------------------------------------------------------
# acting


@torch.inference_mode()
def say(gpt, prompts):
    """
    lists of ids that end in END -> what the policy says of them, lists of ids that end in END: always the likeliest
    token. Where nothing is asked, the same
    """
    rows = [i for i, ids in enumerate(prompts) if ids != [NOT_GIVEN]]
    answers = {}
    for first in range(0, len(rows), AT_ONCE):
        batch = rows[first : first + AT_ONCE]
        answers |= dict(zip(batch, say_batch(gpt, [prompts[i] for i in batch])))
    return [answers.get(i, ids) for i, ids in enumerate(prompts)]


def say_batch(gpt, prompts):
    """say, of some prompts at once"""
    saying, device = gpt.aux['saying'], gpt.wte.weight.device
    lengths = torch.tensor([len(ids) for ids in prompts], device=device)
    text = torch.from_numpy(pad_prompts(prompts)).to(device)
    blocks = [(block, Memory(lengths, saying.say_len)) for block in gpt.h[:-1]]
    x = gpt.embed_text(text)
    for block, memory in blocks:
        x = block(x, memory.read)
    x = x[torch.arange(len(prompts), device=device), lengths - 1]
    tokens = []
    while True:
        tokens.append(saying.logits(gpt, x).argmax(-1))
        if len(tokens) == saying.say_len or (torch.stack(tokens) == END).any(0).all():
            return [up_to_end(ids) for ids in torch.stack(tokens, 1).tolist()]
        x = (gpt.wte(tokens[-1]) + gpt.wpe(lengths + len(tokens) - 1))[:, None]
        for block, memory in blocks:
            x = block(x, memory.next)
        x = x[:, 0]


@torch.inference_mode()
def probability(gpt, prompt, answer):
    """of saying just this of a prompt, float; both are lists of ids"""
    saying, device = gpt.aux['saying'], gpt.wte.weight.device
    x = saying.read(gpt, torch.tensor([[*prompt, *answer[:-1]]], device=device))
    log_p = saying.logits(gpt, x[0, len(prompt) - 1 :]).float().log_softmax(-1)
    return log_p[range(len(answer)), answer].sum().exp().item()


@torch.inference_mode()
def likeliest(gpt, prompt, n):
    """the n likeliest things to say of a prompt, a list of ids, by beam search -> [(ids, probability), ..]"""
    saying, device = gpt.aux['saying'], gpt.wte.weight.device
    ended, going = [], [([], 0.0)]
    for _ in range(saying.say_len):
        x = saying.read(gpt, torch.tensor([prompt + ids for ids, _ in going], device=device))
        log_p, token = saying.logits(gpt, x[:, -1]).float().log_softmax(-1).topk(n)
        grown = []
        for (ids, p), more, tokens in zip(going, log_p.tolist(), token.tolist()):
            grown += [([*ids, t], p + q) for t, q in zip(tokens, more)]
        best = sorted([*ended, *grown], key=lambda one: -one[1])[:n]
        ended = [one for one in best if one[0][-1] == END]
        going = [one for one in best if one[0][-1] != END]
        if not going:
            break
    return [(ids, math.exp(p)) for ids, p in best]


def up_to_end(ids):
    """what was said, up to the first END; where there is none, END stands in the last place"""
    n = ids.index(END) if END in ids else len(ids) - 1
    return [*ids[:n], END]


class Memory:
    """Keys and values of a block: of prompts, each of its own length, and of what is said after them."""

    def __init__(self, lengths, say_len):
        self.last = lengths - 1  # the newest column of each row
        self.say_len = say_len

    def read(self, q, k, v, dropout_p=0.0):
        """attention of the prompts, whose padding is at their ends"""
        self.k, self.v = (F.pad(tensor, (0, 0, 0, self.say_len)) for tensor in (k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def next(self, q, k, v, dropout_p=0.0):
        """attention of one more token in each row"""
        self.last = self.last + 1
        rows = torch.arange(len(q), device=q.device)
        self.k[rows, :, self.last] = k[:, :, 0]
        self.v[rows, :, self.last] = v[:, :, 0]
        seen = torch.arange(self.k.shape[2], device=q.device) <= self.last[:, None]
        return F.scaled_dot_product_attention(q, self.k, self.v, attn_mask=seen[:, None, None])
