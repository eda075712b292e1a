"""The models that are timed, and made-up inputs and data that fill their sequences."""

import json
from dataclasses import replace

import numpy as np
import torch

from data.batches import Batches
from data.prepared import VERSION, Prepared
from data.writing import NpyWriter, SplitWriter
from model import GPT, GPTConfig
from nanopilot.kv_cache import by_columns

# a step of three tokens: the action before, bd, obs
INTERLEAVE = dict(fuse='interleave', past_actions=True, chunk=1)
# the size of the ancestor (Language-Conditioned QD): a prompt padded to 226 tokens, 403 steps of 3, two layers of 360
ANCESTOR = INTERLEAVE | dict(text_len=226, n_layer=2, n_head=4, n_embd=360, n_obs=5, n_act=2, n_bd=2, n_future=0)
ANCESTOR |= dict(max_steps=403, vocab_size=900)
# Hugging Face's Decision Transformer as published for the Hopper: returns, states and actions of the last 20 steps
HOPPER = INTERLEAVE | dict(text_len=0, n_layer=3, n_head=1, n_embd=128, n_obs=11, n_act=3, n_bd=1, n_future=0, n_freq=0)
HOPPER |= dict(max_steps=4096)
# the default model, of which 50 steps are in view
TOY_NAV = dict(text_len=64, fuse='sum', past_actions=False, obs_stack=1, n_layer=6, n_head=4, n_embd=128, chunk=8)
TOY_NAV |= dict(max_steps=50)
# config/swingup.py, of which 100 steps are in view
SWINGUP = dict(text_len=0, fuse='sum', past_actions=True, obs_stack=0, n_layer=4, n_head=4, n_embd=128, chunk=2)
SWINGUP |= dict(n_obs=5, n_act=1, n_bd=0, n_future=0, max_steps=250)
# a policy to act with, of which 200 steps are in view
ACTING = dict(text_len=64, fuse='interleave', past_actions=False, n_layer=6, n_head=8, n_embd=256, chunk=4)


def config_of(bench, K, **fields):
    """a GPTConfig with K steps in view, with one narrow layer if the bench is tiny"""
    if bench.tiny:
        fields |= dict(n_layer=1, n_head=1, n_embd=16)
    config = GPTConfig(**fields, block_size=2**20)
    return replace(config, block_size=config.text_len + K * config.n_slots)


def make(bench, K, **fields):
    """a model to act with"""
    torch.manual_seed(bench.seed)
    return by_columns(GPT(config_of(bench, K, **fields)).eval())


def noise(bench, config, B, S, N):
    """-> text (B, N), the same in all rows, obs, act (B, S, chunk, ..) and bd (B, 1, n_bd), None without"""
    g = torch.Generator().manual_seed(bench.seed)
    text = torch.randint(4, config.vocab_size, (1, N), generator=g).expand(B, -1)
    obs = torch.randn(B, S, config.chunk, config.n_obs, generator=g)
    act = torch.randn(B, S, config.chunk, config.n_act, generator=g)
    bd = torch.randn(B, 1, config.n_bd, generator=g) if config.n_bd else None
    return text, obs, act, bd


def batches(bench, config, B, name):
    """batches of B made-up episodes that fill the sequences of a model; name: of their folder"""
    split = prepared_noise(bench.folder / name, config, bench.size(256, 16), bench.seed)
    return Batches(
        split,
        which=0,
        seed=bench.seed,
        batch_size=B,
        bucket=bench.size(8, 2),
        chunk=config.chunk,
        n_slots=config.n_slots,
        n_future=config.n_future,
    )


def prepared_noise(folder, config, n, seed):
    """prepared data of n episodes on disk: prompts of text_len tokens, episodes of max_steps steps"""
    rng = np.random.default_rng(seed)
    T = config.max_steps * config.chunk
    width = {
        'obs': (config.n_obs,),
        'act': (config.n_act,),
        'path': (config.n_bd,),
        'taught': (),
        'bd': (config.n_bd,),
    }
    split = SplitWriter(folder / 'train', width, {'taught': bool})
    row = dict.fromkeys(('asked', 'novel', 'visits', 'group'), '') | {'source': 'noise', 'seed': 0, 'parts': '[]'}
    row |= dict.fromkeys(('text', 'loose', 'held_out', 'bd'), [])
    for _ in range(n):
        episode = {name: rng.normal(size=(T, *w)) for name, w in width.items()}
        episode |= {'taught': np.ones(T), 'bd': rng.normal(size=config.n_bd)}
        split.append(episode, row)
    split.close()
    text = NpyWriter(folder / 'train' / 'text.npy', (), np.uint16)
    text.append(rng.integers(4, config.vocab_size, n * config.text_len))
    text.close()
    np.save(folder / 'train' / 'text_start.npy', np.arange(n + 1) * config.text_len)
    np.save(folder / 'train' / 'episode_text.npy', np.arange(n + 1))
    np.save(folder / 'train' / 'source.npy', np.zeros(n, np.uint8))
    np.save(folder / 'train' / 'hard.npy', np.zeros(n, np.float32))
    (folder / 'meta.json').write_text(json.dumps(meta_of(config, n, T)))
    return Prepared(folder, 'train')


def meta_of(config, n, T):
    """what meta.json says of n made-up episodes of T environment steps"""
    return dict(
        version=VERSION,
        dataset='noise',
        env_kwargs={},
        normaliser={},
        counts={'train': {'steps': n * T}},
        sources=['noise'],
        words=[],
        obs_names=[''] * config.n_obs,
        act_names=[''] * config.n_act,
        bd_names=[''] * config.n_bd,
        bd_low=[],
        bd_high=[],
        act_low=[],
        act_high=[],
        continuous=True,
        text_len=config.text_len,
        longest=T,
        longest_text=config.text_len,
        max_steps=T,
        vocab_size=config.vocab_size,
        archives=[],
    )
