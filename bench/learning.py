"""Learning: a training step against nanoGPT's, Hugging Face's and our own without what is said to make it fast."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import hugging_face
from bench.pairs import seconds, skipped, value_row
from bench.sizes import HOPPER, INTERLEAVE, SWINGUP, TOY_NAV, batches, config_of, noise
from model import GPT, MLP
from nanopilot import precision
from nanopilot.checkpoint import write_checkpoint
from nanopilot.loop import Ranks
from nanopilot.optim import Muon
from nanopilot.resuming import training_files

CEILING_GOALS = {'float32': 45, 'bfloat16': 20}  # %


def training_loop(bench, config, data, dtype='auto'):
    """the loop of train.py -> a function that takes n steps, and one that writes a checkpoint into a directory"""
    torch.manual_seed(bench.seed)
    model = GPT(config).train()
    optimizers = model.configure_optimizers('adamw', 0.01, 1e-3, (0.9, 0.95))
    tokens = data.batch_size, config.text_len + config.max_steps * config.n_slots
    dtype, _ = precision.choose(dtype, 'cpu', Ranks(), model, tokens)
    autocast = precision.autocast(dtype, 'cpu')
    averaged = {k: p.detach().clone() for k, p in model.named_parameters()}
    loader = ThreadPoolExecutor(1)
    state = {'step': 0, 'next': loader.submit(data.batch, 0)}

    def steps(n):
        for _ in range(n):
            batch = state['next'].result()
            batch.pop('n_real')
            state['step'] += 1
            state['next'] = loader.submit(data.batch, state['step'])
            with autocast:
                _, loss = model(**{name: torch.from_numpy(a) for name, a in batch.items()})
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in model.parameters()], 0.001)

    def save(folder):
        files = training_files(model, averaged, optimizers)
        write_checkpoint(folder, f'step_{state["step"]:07d}', files, {}, ['latest'])

    return steps, save


def nanogpt_loop(bench, config, T, B):
    """nanoGPT's train.py on the same machine: its model, its optimizer, its batches, without compiling"""
    where = importlib.util.spec_from_file_location('nanogpt_model', Path(bench.nanogpt) / 'model.py')
    theirs = importlib.util.module_from_spec(where)
    sys.modules['nanogpt_model'] = theirs
    where.loader.exec_module(theirs)
    file = bench.folder / 'train.bin'
    np.random.default_rng(bench.seed).integers(0, 65, 2**20).astype(np.uint16).tofile(file)
    torch.manual_seed(bench.seed)
    sizes = dict(n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd)
    model = theirs.GPT(theirs.GPTConfig(block_size=T, vocab_size=65, dropout=0.0, bias=False, **sizes)).train()
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), 'cpu')

    def get_batch():
        data = np.memmap(file, dtype=np.uint16, mode='r')
        ix = torch.randint(len(data) - T, (B,))
        x = torch.stack([torch.from_numpy(data[i : i + T].astype(np.int64)) for i in ix])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + T].astype(np.int64)) for i in ix])
        return x, y

    def steps(n):
        x, y = get_batch()
        for _ in range(n):
            loss = model(x, y)[1]
            x, y = get_batch()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return steps


def training(bench):
    rows = against_nanogpt(bench)
    rows.append(one_token_a_step(bench))
    rows.append(checkpoint(bench))
    rows.append(muon(bench))
    rows += squared_relu(bench)
    rows.append(against_hugging_face(bench))
    rows += [share_of_ceiling(bench, *goal) for goal in CEILING_GOALS.items()]
    return rows


def against_nanogpt(bench):
    """the same width, depth and tokens a batch; and how much of our step gathering the batch is"""
    B, S = bench.size((16, 64), (2, 4))
    fields = dict(text_len=S, vocab_size=65, max_steps=S, n_layer=4, n_head=4, n_embd=128, n_future=0)
    config = config_of(bench, S, **INTERLEAVE | fields)
    data = batches(bench, config, B, 'nanogpt')
    ours = partial(training_loop(bench, config, data)[0], 8)
    name = f'training tokens, against nanoGPT; 4 x 128, {B} x {4 * S} tokens, no compile'
    row = skipped(name, '--nanogpt=DIR')
    if bench.nanogpt:
        row = bench.compare(name, partial(nanogpt_loop(bench, config, 4 * S, B), 8), ours, 1.15)

    def gather():
        for i in range(8):
            data.batch(i)

    name = 'a training step, against gathering its batch (a share of <= 2%)'
    return [row, bench.compare(name, ours, gather, 50)]


def one_token_a_step(bench):
    B, S = bench.size((32, 64), (2, 4))
    steps = []
    for fuse in 'interleave', 'sum':
        fields = dict(fuse=fuse, text_len=0, max_steps=S, n_bd=1, n_layer=3, n_embd=64, n_future=0)
        config = config_of(bench, bench.size(20, 2), **INTERLEAVE | fields)
        data = batches(bench, config, B, fuse)
        steps.append(partial(training_loop(bench, config, data)[0], 8))
    return bench.compare(f'a training step of one token a step, against three; 3 x 64, {B} x {S} steps', *steps, 2)


def checkpoint(bench):
    config = config_of(bench, 50, **TOY_NAV)
    steps, save = training_loop(bench, config, batches(bench, config, bench.size(16, 2), 'toy_nav'))
    name = '1,000 training steps, against writing a checkpoint (a share of <= 1%); default model'
    return bench.compare(name, partial(steps, 8), partial(save, bench.folder), 100, 8 / 1000)


def muon(bench):
    C = bench.size(128, 16)
    shapes = ((3 * C, C), (C, C), (4 * C, C), (C, 4 * C)) * 4
    matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in matrices:
        p.grad = torch.randn_like(p)
    theirs, ours = torch.optim.Muon(matrices, lr=0.0), Muon(matrices, 0.0, 0.0)
    return bench.compare("Muon's step, against torch.optim.Muon's; 4 x 128", theirs.step, ours.step, None)


def plain_mlp(mlp, x):
    return mlp.dropout(mlp.c_proj(F.relu(mlp.c_fc(x)).square()))


def squared_relu(bench):
    """does a gradient of its own pay for the MLP's squared ReLU?"""
    rows = []
    for name, K, fields in ('toy_nav', 50, TOY_NAV), ('swingup', 100, SWINGUP):
        config = config_of(bench, K, **fields)
        data = batches(bench, config, bench.size(16, 2), f'relu_{name}')
        steps = training_loop(bench, config, data)[0]

        def with_mlp(forward, steps=steps):
            with patch.object(MLP, 'forward', forward):
                steps(2)

        what = f"a training step with SquaredReLU's own gradient, against F.relu(x).square(); {name}"
        rows.append(bench.compare(what, partial(with_mlp, plain_mlp), partial(with_mlp, MLP.forward), 1.03))
    return rows


def against_hugging_face(bench):
    name = "training tokens, against Hugging Face's Decision Transformer; 3 x 128, 64 x 60 tokens"
    theirs = hugging_face.hopper(bench)
    if theirs is None:
        return skipped(name, "pip install '.[bench]'")
    config = config_of(bench, 20, **HOPPER | {'max_steps': 20})
    data = batches(bench, config, bench.size(64, 2), 'hopper')
    steps = partial(training_loop(bench, config, data)[0], 8)
    return bench.compare(name, partial(hugging_face.training_loop(theirs, data), 8), steps, 2)


def share_of_ceiling(bench, dtype, goal):
    """of what this machine reaches in one large product of the MLP's shape: how much does a training step reach?"""
    config = config_of(bench, 50, **TOY_NAV)
    B = bench.size(16, 2)
    steps, _ = training_loop(bench, config, batches(bench, config, B, f'ceiling_{dtype}'), dtype)
    with FlopCounterMode(display=False) as counter:
        steps(1)
    n = bench.size(10, 1)
    C, tokens = config.n_embd, B * (config.text_len + config.max_steps)
    x, weight = torch.randn(tokens, C), torch.randn(C, 4 * C)
    if dtype == 'bfloat16':
        x, weight = x.bfloat16(), weight.bfloat16()

    def products():
        for _ in range(100 * n):
            x @ weight

    products()
    share = []
    for _ in range(bench.pairs):
        ceiling = 100 * n * 2 * tokens * C * 4 * C / seconds(products)
        share.append(100 * n * counter.get_total_flops() / seconds(partial(steps, n)) / ceiling)
    return value_row(
        f"a training step in {dtype}: share of the CPU's matmul ceiling; the default model", share, ' %', goal
    )


def attention(bench):
    """forward and backward of a model where all steps are in view: torch's causal kernel against a dense mask"""
    config = config_of(bench, 50, **TOY_NAV)
    torch.manual_seed(bench.seed)
    model = GPT(config).train()
    B, S = bench.size(16, 2), config.max_steps
    batch = noise(bench, config, B, S, config.text_len)
    mask = torch.ones(B, S, config.chunk, dtype=torch.bool)

    def run(kernel):
        model(*batch, loss_mask=mask, kernel=kernel)[1].backward()
        model.zero_grad(set_to_none=True)

    name = 'causal attention, against a dense mask; the default model, 114 tokens, forward and backward'
    return [bench.compare(name, partial(run, 'dense'), partial(run, 'causal'), 1.0)]
