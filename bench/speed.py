"""
How fast is it? Each figure is a ratio of two things that are run in turn in this process: A B A B .., the median of the pairs.

$ python bench.py                                    # one table; about 15 minutes on 2 cores
$ python bench.py --only=rollout,attention           # some parts: rollout, attention, training, environment, evaluation, prepare, ranks, start, gpu
$ python bench.py --nanogpt=../nanoGPT               # also against a checkout of nanoGPT; with `pip install '.[bench]'` also against
                                                     # Hugging Face's DecisionTransformerModel
$ python bench.py --out_file=bench/two_cores.json    # keep it, with the machine's description, and draw it
"""

import config as settings  # first: it turns mistakes into one line

import contextlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from nanopilot.attention import PAD
from nanopilot.kv_cache import KVCache
from nanopilot.checkpoint import training_files, write_checkpoint
from data import archive
from data.batches import Batches
from data.prepared import VERSION, NpyWriter, Prepared, SplitWriter
from data.toy_nav import collect, env_kwargs, make_env, make_vec, spec
from model import GPT, GPTConfig
from nanopilot.optim import Muon
from nanopilot.policy import Policy

# ------------------------------------------------------------------------------
only = ''  # parts, separated by commas; '': all
pairs = 7  # of every comparison
threads = 2  # of the CPU
nanogpt = ''  # a checkout of nanoGPT to train beside
out_file = ''  # also write the table there, as JSON with the machine's description, and a picture beside it
force = False  # although the machine is busy
seed = 1337
config = settings.read(globals(), __file__)
globals().update(config)
# ------------------------------------------------------------------------------
ROOT = Path(__file__).parent.parent

# the size of the ancestor (Language-Conditioned QD): a prompt padded to 226 tokens, 403 steps of 3, two layers of 360
ANCESTOR = dict(
    text_len=226,
    n_layer=2,
    n_head=4,
    n_embd=360,
    chunk=1,
    n_obs=5,
    n_act=2,
    n_bd=2,
    n_future=0,
    max_steps=403,
    vocab_size=900,
)
# Hugging Face's Decision Transformer as published for the Hopper: returns, states and actions of the last 20 steps
HOPPER = dict(
    block_size=60,
    text_len=0,
    n_layer=3,
    n_head=1,
    n_embd=128,
    chunk=1,
    n_obs=11,
    n_act=3,
    n_bd=1,
    n_future=0,
    n_freq=0,
    max_steps=4096,
)
# config/toy_nav.py
DEFAULT = dict(
    block_size=64 + 50,
    text_len=64,
    fuse='sum',
    past_actions=False,
    obs_stack=1,
    n_layer=6,
    n_head=4,
    n_embd=128,
    chunk=8,
)


def seconds(f):
    t = time.perf_counter()
    f()
    return time.perf_counter() - t


def compare(name, slow, fast, goal, n_slow=1, n_fast=1):
    """slow(), which does n_slow of something, against fast(), which does n_fast -> a row of the table"""
    slow(), fast()  # warm up
    ratios, each = [], []
    for _ in tqdm(range(pairs), desc=name, disable=None):
        a, b = seconds(slow) / n_slow, seconds(fast) / n_fast
        ratios.append(a / b)
        each.append(b)
    return {
        'name': name,
        'ratio': float(np.median(ratios)),
        'low': min(ratios),
        'high': max(ratios),
        'goal': goal,
        'ms': 1e3 * float(np.median(each)),
    }


def measure(name, f, unit, goal, per=1.0):
    """what has no other to be compared with: f() returns how much of it was done, None for the seconds it took -> a row"""
    found = []
    for _ in tqdm(range(pairs), desc=name, disable=None):
        t = time.perf_counter()
        amount = f()
        t = time.perf_counter() - t
        found.append((t if amount is None else amount / t) * per)
    return {
        'name': name,
        'value': float(np.median(found)),
        'low': min(found),
        'high': max(found),
        'unit': unit,
        'goal': goal,
    }


def skipped(name, why):
    return {'name': name, 'skipped': why}


# ------------------------------------------------------------------------------
# acting


def inputs(c, B, S, N):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randint(4, c.vocab_size, (1, N), generator=g).expand(B, -1),
        torch.randn(B, S, c.chunk, c.n_obs, generator=g),
        torch.randn(B, S, c.chunk, c.n_act, generator=g),
        torch.randn(B, 1, c.n_bd, generator=g),
    )


def in_flight(model, B, N, begun):
    """the cache of B episodes with the same prompt of N tokens that have had `begun` steps -> a function that steps"""
    text, obs, act, bd = inputs(model.config, B, begun, N)
    obs, act, bd = (x.to(model.time.weight.device) for x in (obs, act, bd))
    kept = KVCache(model, B)
    kept.read(np.arange(B), text.tolist(), bd[:, 0])
    for s in range(begun):
        kept.step(obs[:, s], act[:, s])
        kept.t += 1

    def steps(n):  # not counted, so that the episode is as long every time
        for _ in range(n):
            kept.step(obs[:, 0], act[:, 0])

    return steps


def make(**changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**changes)).eval().by_columns()


@torch.inference_mode()
def rollout():
    """a step of an episode: from the cache, or by computing all of it anew"""
    rows, one = [], None
    for B, K in (1, 403), (1, 64), (8, 64), (32, 64), (64, 64), (512, 64):
        model = make(**ANCESTOR, block_size=ANCESTOR['text_len'] + 3 * K)
        n = 20 if B < 64 else 4
        steps = partial(in_flight(model, B, 226, 350 if K == 403 else 80), n)
        if B in (1, 32):
            text, obs, act, bd = inputs(model.config, B, 403, 226)
            text = text.clone()
            text[:, 40:] = PAD  # as the ancestor pads: the cache has no such help here, it holds 226 words
            rows.append(
                compare(
                    f'cached, against recomputed and padded to 1435 tokens; batch {B}, window {K}',
                    lambda: model(text, obs, act, bd, execution='dense'),
                    steps,
                    {1: 100, 32: 200}[B],
                    n_fast=n,
                )
            )
        if B in (1, 32) and K == 64:
            text, obs, act, bd = inputs(model.config, B, 64, 184)
            rows.append(
                compare(
                    f'cached, against a cropped window of 376 tokens; batch {B}, window 64',
                    lambda: model(text, obs, act, bd),
                    steps,
                    {1: 20, 32: 50}[B],
                    n_fast=n,
                )
            )
        if (B, K) == (1, 64):
            one = steps
        elif B > 1:
            rows.append(
                compare(f'a step in a batch of {B}, against one alone', one, steps, 4 if B == 64 else None, 20, n * B)
            )
    return rows + against_hugging_face()


def hopper():
    """-> Hugging Face's model at the size of HOPPER, or None"""
    try:
        from transformers import DecisionTransformerConfig, DecisionTransformerModel
    except ImportError:
        return None
    torch.manual_seed(seed)
    return DecisionTransformerModel(
        DecisionTransformerConfig(
            state_dim=11,
            act_dim=3,
            hidden_size=128,
            n_layer=3,
            n_head=1,
            max_ep_len=4096,
            bos_token_id=None,
            eos_token_id=None,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    ).eval()


@torch.inference_mode()
def against_hugging_face():
    theirs, name = hopper(), "cached, against Hugging Face's Decision Transformer, K = 20; batch "
    if theirs is None:
        return [skipped(name + '1 and 64', "pip install '.[bench]'")]
    history = dict(
        states=torch.randn(1, 80, 11),
        actions=torch.randn(1, 80, 3),
        returns_to_go=torch.randn(1, 80, 1),
        timesteps=torch.arange(80)[None],
    )

    def act():  # one environment, the last 20 steps, computed anew: as its documentation drives it
        for _ in range(4):
            theirs(
                **{k: v[:, -20:] for k, v in history.items()},
                rewards=None,
                attention_mask=torch.ones(1, 20, dtype=torch.long),
            ).action_preds[0, -1]

    return [
        compare(
            f'{name}{B}' + (' (theirs one by one)' if B > 1 else ''),
            act,
            partial(in_flight(make(**HOPPER), B, 0, 80), 20),
            goal,
            4,
            20 * B,
        )
        for B, goal in ((1, 4), (64, 40))
    ]


# ------------------------------------------------------------------------------
# training


def attention():
    """forward and backward of attention alone"""
    B, nh, T, hs, W = 2, 6, 1536, 64, 192
    model = GPT(
        GPTConfig(text_len=0, block_size=W, fuse='sum', n_layer=1, n_head=nh, n_embd=nh * hs, n_future=0, max_steps=T)
    )
    q, k, v = (torch.randn(B, nh, T, hs, requires_grad=True) for _ in range(3))
    text = torch.zeros(B, 0, dtype=torch.long)

    def run(execution):
        model.attention_of(text, T, execution)(q, k, v, dropout_p=0.0).sum().backward()

    return [
        compare(
            f'banded attention, against a dense mask; {T} tokens, a window of {W}, forward and backward',
            lambda: run('dense'),
            lambda: run('banded'),
            2,
        )
    ]


def synthetic(folder, c, episodes=256):
    """prepared data on disk that fills the sequences of config c: prompts of text_len, episodes of max_steps"""
    rng, n, T = np.random.default_rng(seed), episodes, c.max_steps * c.chunk
    width = {'obs': (c.n_obs,), 'act': (c.n_act,), 'path': (c.n_bd,), 'taught': (), 'bd': (c.n_bd,)}
    split = SplitWriter(folder / 'train', width, {'taught': bool})
    for _ in range(n):
        e = {name: rng.normal(size=((T,) if name != 'bd' else ()) + w) for name, w in width.items()} | {
            'taught': np.ones(T)
        }
        split.append(
            e,
            {
                'source': 'noise',
                'seed': 0,
                'asked': '',
                'novel': '',
                'text': [],
                'loose': [],
                'held_out': [],
                'visits': '',
                'group': '',
                'bd': [],
            },
        )
    split.close()
    text = NpyWriter(folder / 'train' / 'text.npy', (), np.uint16)
    text.append(rng.integers(4, c.vocab_size, n * c.text_len))
    text.close()
    for name, array in (
        ('text_start', np.arange(n + 1) * c.text_len),
        ('episode_text', np.arange(n + 1)),
        ('source', np.zeros(n, np.uint8)),
        ('hard', np.zeros(n, np.float32)),
    ):
        np.save(folder / 'train' / f'{name}.npy', array)
    (folder / 'meta.json').write_text(
        json.dumps(
            dict(
                version=VERSION,
                dataset='noise',
                env_kwargs={},
                normaliser={},
                counts={'train': {'steps': n * T}},
                sources=['noise'],
                words=[],
                obs_names=[''] * c.n_obs,
                act_names=[''] * c.n_act,
                bd_names=[''] * c.n_bd,
                bd_low=[],
                bd_high=[],
                act_low=[],
                act_high=[],
                continuous=True,
                text_len=c.text_len,
                longest=T,
                longest_text=c.text_len,
                max_steps=T,
                vocab_size=c.vocab_size,
                archives=[],
            )
        )
    )
    return Prepared(folder, 'train')


def loop(c, batches):
    """the loop of train.py -> a function that takes n steps, and one that writes a checkpoint into a directory"""
    torch.manual_seed(seed)
    model, loader = GPT(c).train(), ThreadPoolExecutor(1)
    optimizers = model.configure_optimizers('adamw', 0.01, 1e-3, (0.9, 0.95))
    averaged = {k: p.detach().clone() for k, p in model.named_parameters()}
    state = {'step': 0, 'next': loader.submit(batches.batch, 0)}

    def steps(n):
        for _ in range(n):
            *batch, n_real = state['next'].result()
            state['step'] += 1
            state['next'] = loader.submit(batches.batch, state['step'])
            text, obs, act, bd, real, ahead, first, _ = map(torch.from_numpy, batch)
            loss = model(text, obs, act, bd, real, ahead if c.n_future else None, first)[1]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for o in optimizers:
                o.step()
                o.zero_grad(set_to_none=True)
            torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in model.parameters()], 0.001)

    def save(folder):
        write_checkpoint(
            folder, f'step_{state["step"]:07d}', training_files(model, averaged, optimizers), {}, ['latest']
        )

    return steps, save


def nanogpt_loop(T, B, c, folder):
    """nanoGPT's train.py on the same machine: its model, its optimizer, its batches, without compiling"""
    where = importlib.util.spec_from_file_location('nanogpt_model', Path(nanogpt) / 'model.py')
    theirs = importlib.util.module_from_spec(where)
    sys.modules['nanogpt_model'] = theirs
    where.loader.exec_module(theirs)
    np.random.default_rng(seed).integers(0, 65, 2**20).astype(np.uint16).tofile(folder / 'train.bin')
    torch.manual_seed(seed)
    model = theirs.GPT(
        theirs.GPTConfig(
            block_size=T, vocab_size=65, n_layer=c.n_layer, n_head=c.n_head, n_embd=c.n_embd, dropout=0.0, bias=False
        )
    ).train()
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), 'cpu')

    def get_batch():
        data = np.memmap(folder / 'train.bin', dtype=np.uint16, mode='r')
        at = torch.randint(len(data) - T, (B,))
        return (torch.stack([torch.from_numpy(data[i + d : i + d + T].astype(np.int64)) for i in at]) for d in (0, 1))

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


def hugging_face_loop(theirs, batches):
    theirs.train()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)

    def steps(n):
        for i in range(n):
            _, obs, act, bd, real, _, first, *_ = (
                torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in batches.batch(i)
            )
            B, S = obs.shape[:2]
            mask = torch.ones(B, S, dtype=torch.long)
            out = theirs(
                states=obs[:, :, 0],
                actions=act[:, :, 0],
                returns_to_go=bd.nan_to_num().expand(-1, S, -1),
                rewards=None,
                timesteps=torch.arange(S).expand(B, -1),
                attention_mask=mask,
            )
            F.mse_loss(out.action_preds, act[:, :, 0]).backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.25)
            optimizer.step()
            optimizer.zero_grad()

    return steps


def training():
    rows, B = [], 16
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        c = GPTConfig(
            block_size=256,
            text_len=64,
            vocab_size=65,
            max_steps=64,
            chunk=1,
            n_layer=4,
            n_head=4,
            n_embd=128,
            n_future=0,
        )
        batches = Batches(synthetic(folder, c), 0, seed, B, 8, c.chunk, c.n_slots)
        (ours, _), name = loop(c, batches), 'training tokens, against nanoGPT; 4 x 128, 16 x 256 tokens, no compile'
        if nanogpt:
            rows.append(compare(name, partial(nanogpt_loop(256, B, c, folder), 8), partial(ours, 8), 1.15))
        else:
            rows.append(skipped(name, '--nanogpt=DIR'))
        rows.append(
            compare(
                'a training step, against gathering its batch (a share of <= 2%)',
                partial(ours, 8),
                lambda: [batches.batch(i) for i in range(8)],
                50,
            )
        )
        small = dict(text_len=0, max_steps=64, chunk=1, n_bd=1, n_layer=3, n_embd=64, n_future=0)
        layouts = [GPTConfig(block_size=3 * 20, **small), GPTConfig(fuse='sum', block_size=20, **small)]
        stepped = [
            loop(c, Batches(synthetic(folder / c.fuse, c), 0, seed, 32, 8, c.chunk, c.n_slots))[0] for c in layouts
        ]
        rows.append(
            compare(
                'a training step of one token a step, against three; 3 x 64, 32 x 64 steps',
                *(partial(steps, 8) for steps in stepped),
                2,
            )
        )
        c = GPTConfig(**DEFAULT, max_steps=50)
        ours, save = loop(
            c, Batches(synthetic(folder / 'default', c), 0, seed, 16, 8, c.chunk, c.n_slots, n_future=c.n_future)
        )
        rows.append(
            compare(
                '1,000 training steps, against writing a checkpoint (a share of <= 1%); default model',
                partial(ours, 8),
                partial(save, folder),
                100,
                8 / 1000,
            )
        )
        matrices = [
            torch.nn.Parameter(torch.randn(shape)) for shape in ((384, 128), (128, 128), (512, 128), (128, 512)) * 4
        ]
        for p in matrices:
            p.grad = torch.randn_like(p)
        rows.append(
            compare(
                "Muon's step, against torch.optim.Muon's; 4 x 128",
                torch.optim.Muon(matrices, lr=0.0).step,
                Muon(matrices, 0.0, 0.0).step,
                None,
            )
        )
    theirs, name = hopper(), "training tokens, against Hugging Face's Decision Transformer; 3 x 128, 64 x 60 tokens"
    if theirs is None:
        return rows + [skipped(name, "pip install '.[bench]'")]
    with tempfile.TemporaryDirectory() as folder:
        c = GPTConfig(**HOPPER | {'max_steps': 20})
        batches = Batches(synthetic(Path(folder), c), 0, seed, 64, 8, c.chunk, c.n_slots)
        return rows + [
            compare(name, partial(hugging_face_loop(theirs, batches), 8), partial(loop(c, batches)[0], 8), 2)
        ]


# ------------------------------------------------------------------------------
# the rest of the road


def environment():
    """a step of the robot: thousands at once, or one"""
    n, rng = 4096, np.random.default_rng(seed)
    many, one = make_vec(n), make_env()
    many.reset(seed=seed), one.reset(seed=seed)
    act = rng.uniform(0.2, 1, (n, 2)).astype(np.float32)

    def steps():
        for _ in range(10):
            many.step(act)
        return 10 * n

    return [
        compare(
            'a step of 4096 robots at once, against one alone',
            lambda: [one.step(act[0]) for _ in range(200)],
            steps,
            None,
            200,
            10 * n,
        ),
        measure('robot steps', steps, '/s', 500_000),
    ]


def evaluation():
    """a thousand episodes of toy_nav with the model of config/toy_nav.py, as it starts: it never stops"""
    c = GPTConfig(
        block_size=64 + 200, text_len=64, past_actions=False, obs_stack=1, n_layer=6, n_head=8, n_embd=256, chunk=4
    )
    names, kwargs, n = spec(env_kwargs()), env_kwargs(), 250
    torch.manual_seed(seed)
    policy = Policy(
        GPT(c).eval().by_columns(), {'data': {**names, 'env_kwargs': kwargs}, 'obs_columns': list(range(9))}
    )
    policy.tokens = lambda text: text
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(4, 900, rng.integers(5, 40)).tolist() for _ in range(n)]
    env = make_vec(n, **kwargs)

    def once():
        policy.reset(prompts)
        seen, _ = env.reset(seed=seed)
        for _ in range(400):
            seen, *_ = env.step(np.maximum(policy.act(seen), 0.2))

    return [measure('1,000 episodes of 400 steps, default model', once, ' minutes', 3, 1000 / n / 60)]


@cache
def demonstrations():
    """-> a folder with an archive of 600 demonstrations, prepared"""
    folder, kwargs = Path(stack.enter_context(tempfile.TemporaryDirectory())), env_kwargs()
    archive.save(
        folder / 'a.parquet',
        collect('demonstrations', 0.03, seed, kwargs),
        {'dataset': 'toy_nav', 'env_kwargs': kwargs, 'n_obs': 9, 'n_act': 2, 'n_bd': 2},
    )
    script('prepare.py', f'--archive={folder / "a.parquet"}', f'--out_dir={folder / "p"}')
    return folder


def script(name, *args, ranks=0):
    """run a script of the project -> what it printed"""
    launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={ranks}'] if ranks else []
    args = [str(ROOT / a) if a.startswith('config/') else a for a in args]
    done = subprocess.run([sys.executable, *launch, str(ROOT / name), *args], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f'{name} {" ".join(args)} failed: {done.stderr.strip().splitlines()[-1]}')
    return done.stdout


def prepare():
    """replaying, annotating, splitting and packing an archive"""
    folder = demonstrations()
    size = os.path.getsize(folder / 'a.parquet') / 1e6

    def once():
        script('prepare.py', f'--archive={folder / "a.parquet"}', '--describe=keep', f'--out_dir={folder / "again"}')
        return size

    return [measure('prepare, without descriptions (600 episodes, starting up counted)', once, ' MB/s', 50)]


def ranks():
    """the time of a training step of config/toy_nav_cpu.py with 64 episodes, by one process and by two"""
    folder, found = demonstrations(), {0: [], 2: []}
    for _ in tqdm(range(pairs), desc='ranks', disable=None):
        for n in found:
            said = script(
                'train.py',
                'config/toy_nav_cpu.py',
                f'--data_dir={folder / "p"}',
                f'--out_dir={folder / "out"}',
                '--source_weights=',
                '--batch_size=64',
                '--max_iters=24',
                '--log_interval=12',
                '--eval_interval=100',
                '--eval_batches=1',
                '--threads=1',
                ranks=n,
            )
            found[n].append(float(re.findall(r'\| +([\d.]+) ms', said)[-1]))
    ratios = np.array(found[0]) / found[2]
    return [
        {
            'name': '2 gloo ranks, against 1 process; 1 thread each',
            'ratio': float(np.median(ratios)),
            'low': min(ratios),
            'high': max(ratios),
            'goal': 1.7,
            'ms': float(np.median(found[2])),
        }
    ]


def start():
    """from nothing to a picture"""
    folder = demonstrations()
    script(
        'train.py',
        'config/toy_nav_cpu.py',
        f'--data_dir={folder / "p"}',
        f'--out_dir={folder / "out"}',
        '--source_weights=',
        '--max_iters=0',
        '--eval_batches=1',
    )
    return [
        measure(
            'sample_policy.py --prompt, to its picture',
            lambda: (
                script('sample_policy.py', f'--out_dir={folder / "out"}', '--prompt', 'go north of the fridge') and None
            ),
            ' s',
            6,
        )
    ]


def gpu(device='cuda', widths=(128, 256, 384, 512, 768), tokens=65536, size=8192, n_rows=1024):
    """training in bfloat16, compiled, as a share of what a large matrix product reaches; and a step of many policies at once"""
    if device == 'cuda' and not torch.cuda.is_available():
        return [
            skipped('training, as a share of the matmul ceiling', 'no GPU'),
            skipped(f'policy steps, batch {n_rows}', 'no GPU'),
        ]
    wait = torch.cuda.synchronize if device == 'cuda' else lambda: None
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def per_second(f, amount, n=10):
        for _ in range(3):
            f()
        wait()
        t = seconds(lambda: ([f() for _ in range(n)], wait()))
        return n * amount / t

    rows = []
    for width, goal in zip(widths, (10, 20, 30, 35, 40)):
        c = GPTConfig(
            block_size=256,
            text_len=64,
            max_steps=64,
            chunk=1,
            n_layer=6,
            n_head=max(1, width // 64),
            n_embd=width,
            n_future=0,
        )
        torch.manual_seed(seed)
        model, B = GPT(c).to(device).train(), tokens // 256
        compiled = torch.compile(model) if device == 'cuda' else model
        (optimizer,) = model.configure_optimizers('adamw', 0.01, 1e-3, (0.9, 0.95))
        text, obs, act, bd = (x.to(device) for x in inputs(c, B, 64, 64))
        real = torch.ones(B, 64, 1, dtype=torch.bool, device=device)

        def step():
            with torch.autocast(device, torch.bfloat16):
                loss = compiled(text, obs, act, bd, real)[1]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        flops = (
            6 * sum(p.numel() for p in model.blocks.parameters()) + 12 * c.n_layer * width * 256
        )  # a token: nanoGPT's estimate, without embeddings
        share = [100 * per_second(step, flops * B * 256) / per_second(lambda: a @ b, 2 * size**3) for _ in range(pairs)]

        def deterministic():
            torch.use_deterministic_algorithms(True)
            step(), wait()
            torch.use_deterministic_algorithms(False)

        rows.append(
            compare(
                f'a training step with --deterministic, against one without, width {width}: its cost',
                deterministic,
                lambda: (step(), wait()),
                None,
            )
        )
        rows.append(
            {
                'name': f'training in bfloat16, compiled, width {width}: share of the matmul ceiling',
                'value': float(np.median(share)),
                'low': min(share),
                'high': max(share),
                'unit': ' %',
                'goal': goal,
            }
        )
    model = make(
        block_size=64 + 200, text_len=64, past_actions=False, obs_stack=1, n_layer=6, n_head=8, n_embd=256, chunk=4
    ).to(device)
    steps = in_flight(model, n_rows, 16, 50)
    found = [per_second(lambda: steps(1), n_rows * model.config.chunk) for _ in range(pairs)]
    return rows + [
        {
            'name': f'policy steps, batch {n_rows}',
            'value': float(np.median(found)),
            'low': min(found),
            'high': max(found),
            'unit': '/s',
            'goal': 500_000,
        }
    ]


# ------------------------------------------------------------------------------


def shown(r):
    """a row -> name, figure, goal, met?"""
    if 'skipped' in r:
        return r['name'], f'skipped: {r["skipped"]}', '-', ''
    if 'ratio' in r:
        goal, met = f'>= {r["goal"]}x' if r['goal'] else '-', r['goal'] and r['ratio'] >= r['goal']
        return (
            r['name'],
            f'{r["ratio"]:.1f}x [{r["low"]:.1f}, {r["high"]:.1f}], {r["ms"]:.3g} ms',
            goal,
            '' if not r['goal'] else 'yes' if met else 'no',
        )
    least = r['unit'].endswith(('/s', '%'))
    figure = f'{r["value"]:,.0f}' if r['value'] > 1000 else f'{r["value"]:.2g}'
    return (
        r['name'],
        figure + r['unit'],
        f'{">=" if least else "<="} {r["goal"]:,}{r["unit"]}',
        'yes' if (r['value'] >= r['goal']) == least else 'no',
    )


def draw(file, rows):
    """a picture of the ratios beside their goals"""
    from matplotlib.figure import Figure

    rows = [r for r in rows if 'ratio' in r][::-1]
    figure = Figure(figsize=(11, 0.42 * len(rows) + 1), layout='constrained')
    ax, y = figure.add_subplot(), np.arange(len(rows))
    ratio = np.array([r['ratio'] for r in rows])
    spread = np.abs(np.array([[r['low'], r['high']] for r in rows]).T - ratio)
    met = ['tab:green' if not r['goal'] or r['ratio'] >= r['goal'] else 'tab:orange' for r in rows]
    ax.barh(y, ratio, xerr=spread, color=met, height=0.6, error_kw={'lw': 0.8})
    ax.plot(*zip(*[(r['goal'], i) for i, r in enumerate(rows) if r['goal']]), 'k|', ms=14, label='goal')
    ax.set_yticks(y, [r['name'] for r in rows], fontsize=8)
    ax.set(xscale='log', xlabel='times as fast: median, least and most of the pairs')
    ax.axvline(1, color='k', lw=0.6)
    ax.legend()
    figure.savefig(file, dpi=110)


def main():
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    if load > 0.5 and not force:
        raise ValueError(
            f'the machine is busy (load average {load:.2f}): the figures would mean nothing. Wait, or --force'
        )
    parts = {f.__name__: f for f in (rollout, attention, training, environment, evaluation, prepare, ranks, start, gpu)}
    chosen = only.split(',') if only else list(parts)
    if set(chosen) - set(parts):
        raise ValueError(f'only={only!r}: {sorted(set(chosen) - set(parts))[0]!r} is not known: {", ".join(parts)}')
    if nanogpt and not (Path(nanogpt) / 'model.py').is_file():
        raise FileNotFoundError(f'no model.py in nanogpt={nanogpt!r}. Give the folder of a checkout of nanoGPT')
    about = {
        'machine': cpu(),
        'cores': os.cpu_count(),
        'threads': threads,
        'torch': torch.__version__,
        'numpy': np.__version__,
        'load': round(load, 2),
        'pairs': pairs,
    }
    print(', '.join(f'{k} {v}' for k, v in about.items()) + '\n')
    with stack:
        rows = [row for name in chosen for row in parts[name]()]
    print('| measure | median [least, most], of the faster | goal | met |\n|---|---|---|---|')
    for r in rows:
        print('| ' + ' | '.join(shown(r)) + ' |')
    if out_file:
        Path(out_file).parent.mkdir(parents=True, exist_ok=True)
        Path(out_file).write_text(json.dumps({'about': about, 'rows': rows}, indent=1) + '\n')
        draw(Path(out_file).with_suffix('.png'), rows)
        print(f'written: {out_file} and {Path(out_file).with_suffix(".png")}')


def cpu():
    """its name"""
    try:
        return re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


stack = contextlib.ExitStack()  # temporary folders, removed at the end
if __name__ == '__main__':
    main()
