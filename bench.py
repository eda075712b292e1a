"""
How fast is it? Each figure is a ratio of two things that are run in turn in this process: A B A B .., the median of the pairs.

$ python bench.py                     # one table; about 3 minutes on 2 cores
$ python bench.py --only=rollout      # one part: rollout, environment or evaluation
"""
import config as settings # first: it turns mistakes into one line

import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cache import Cache
from data.toy_nav import env_kwargs, make_env, make_vec, spec
from model import GPT, PAD, GPTConfig
from policy import Policy

# ------------------------------------------------------------------------------
only = '' # 'rollout', 'environment' or 'evaluation'; '': all
pairs = 7 # of every comparison
threads = 2 # of the CPU
out_file = '' # also write the table there, as JSON with the machine's description
force = False # although the machine is busy
seed = 1337
config = settings.read(globals(), __file__)
globals().update(config)
# ------------------------------------------------------------------------------

# the size of the ancestor (Language-Conditioned QD): a prompt padded to 226 tokens, 403 steps of 3, two layers of 360
ANCESTOR = dict(text_len=226, n_layer=2, n_head=4, n_embd=360, chunk=1, n_obs=5, n_act=2, n_bd=2, n_ahead=0, max_steps=403, vocab_size=900)


def seconds(f):
    t = time.perf_counter()
    f()
    return time.perf_counter() - t


def compare(name, slow, fast, goal, n_slow=1, n_fast=1):
    """ slow(), which does n_slow of something, against fast(), which does n_fast -> a row of the table """
    slow(), fast() # warm up
    ratios, each = [], []
    for _ in tqdm(range(pairs), desc=name, disable=None):
        a, b = seconds(slow) / n_slow, seconds(fast) / n_fast
        ratios.append(a / b)
        each.append(b)
    return {'name': name, 'ratio': float(np.median(ratios)), 'low': min(ratios), 'high': max(ratios), 'goal': goal, 'ms': 1e3 * float(np.median(each))}


def inputs(c, B, S, N):
    g = torch.Generator().manual_seed(seed)
    return (torch.randint(4, c.vocab_size, (B, N), generator=g), torch.randn(B, S, c.chunk, c.n_obs, generator=g),
            torch.randn(B, S, c.chunk, c.n_act, generator=g), torch.randn(B, 1, c.n_bd, generator=g))


def policy_in_flight(K, B, N, begun):
    """ a model of the ancestor's size with a window of K steps, and the cache of B episodes that have had `begun` steps """
    torch.manual_seed(seed)
    model = GPT(GPTConfig(block_size=ANCESTOR['text_len'] + 3 * K, **ANCESTOR)).eval().by_columns()
    text, obs, act, bd = inputs(model.config, B, begun, N)
    cache = Cache(model, B)
    cache.read(np.arange(B), text.tolist(), bd[:, 0])
    for s in range(begun):
        cache.step(obs[:, s], act[:, s])
        cache.t += 1

    def steps(n=20): # not counted, so that the episode is as long every time
        for _ in range(n):
            cache.step(obs[:, 0], act[:, 0])
    return model, steps


@torch.no_grad()
def rollout():
    """ a step of an episode: from the cache, or by computing all of it anew """
    rows, steps_of = [], {}
    for B, K in (1, 403), (1, 64), (32, 403), (32, 64), (64, 64), (512, 64):
        if (B, K) == (32, 403):
            continue # the goal names the window of 64
        begun = 350 if K == 403 else 80
        model, steps_of[B, K] = policy_in_flight(K, B, 226, begun)
        if B <= 32:
            text, obs, act, bd = inputs(model.config, B, 403, 226)
            text[:, 40:] = PAD # as the ancestor pads: the cache has no such help here, it holds 226 words
            rows.append(compare(f'cached, against recomputed and padded to 1435 tokens; batch {B}, window {K}',
                                lambda: model(text, obs, act, bd), steps_of[B, K], {1: 100, 32: 200}[B], n_fast=20))
        if B <= 32 and K == 64:
            text, obs, act, bd = inputs(model.config, B, 64, 184)
            rows.append(compare(f'cached, against a cropped window of 376 tokens; batch {B}, window 64',
                                lambda: model(text, obs, act, bd), steps_of[B, K], {1: 20, 32: 50}[B], n_fast=20))
    for B in 64, 512:
        rows.append(compare(f'a step in a batch of {B}, against one alone', steps_of[1, 64], steps_of[B, 64], 4 if B == 64 else None, 20, 20 * B))
    return rows


def environment():
    """ a step of the robot: thousands at once, or one """
    n, rng = 4096, np.random.default_rng(seed)
    many, one = make_vec(n), make_env()
    many.reset(seed=seed), one.reset(seed=seed)
    act = rng.uniform(0.2, 1, (n, 2)).astype(np.float32)
    row = compare('environment: 4096 robots at once, against one alone', lambda: [one.step(act[0]) for _ in range(200)], lambda: [many.step(act) for _ in range(10)], None, 200, 10 * n)
    return [row | {'per_second': 1e3 / row['ms'], 'goal_per_second': 500_000}]


def evaluation():
    """ a thousand episodes of toy_nav with the model of config/toy_nav.py, as it starts: it never stops """
    c = GPTConfig(block_size=64 + 300, text_len=64, n_layer=6, n_head=8, n_embd=256, chunk=4)
    names, kwargs, n = spec(env_kwargs()), env_kwargs(), 250
    torch.manual_seed(seed)
    policy = Policy(GPT(c).eval(), {'data': {**names, 'env_kwargs': kwargs}, 'obs_columns': list(range(9))})
    policy.tokens = lambda text: text
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(4, 900, rng.integers(5, 40)).tolist() for _ in range(n)]
    env = make_vec(n, **kwargs)

    def once():
        policy.reset(prompts)
        seen, _ = env.reset(seed=seed)
        for _ in range(400):
            seen, *_ = env.step(np.maximum(policy.act(seen), 0.2))
    took = [seconds(once) for _ in tqdm(range(3), desc='evaluation')]
    return [{'name': '1,000 episodes of 400 steps, default model, minutes', 'minutes': float(np.median(took)) * 1000 / n / 60, 'goal_minutes': 3}]


def main():
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    if load > 0.5 and not force:
        raise ValueError(f"the machine is busy (load average {load:.2f}): the figures would mean nothing. Wait, or --force")
    parts = {'rollout': rollout, 'environment': environment, 'evaluation': evaluation}
    if only and only not in parts:
        raise ValueError(f"only={only!r} is not known: {', '.join(parts)}")
    about = {'machine': platform.processor() or platform.machine(), 'cores': os.cpu_count(), 'threads': threads, 'torch': torch.__version__,
             'numpy': np.__version__, 'load': load, 'pairs': pairs}
    print(', '.join(f'{k} {v}' for k, v in about.items()) + '\n')
    rows = [row for name, part in parts.items() if only in ('', name) for row in part()]
    print('| measure | ratio, median [least, most] | goal | of the faster |\n|---|---|---|---|')
    for r in rows:
        if 'ratio' in r:
            goal = f"{r['goal_per_second']:,}/s" if 'per_second' in r else f">= {r['goal']}x" if r['goal'] else '-'
            print(f"| {r['name']} | {r['ratio']:.1f} [{r['low']:.1f}, {r['high']:.1f}] | {goal} | " + (f"{r['per_second']:,.0f}/s" if 'per_second' in r else f"{r['ms']:.3f} ms") + ' |')
        else:
            print(f"| {r['name']} | {r['minutes']:.1f} | <= {r['goal_minutes']} | - |")
    if out_file:
        Path(out_file).parent.mkdir(parents=True, exist_ok=True)
        Path(out_file).write_text(json.dumps({'about': about, 'rows': rows}, indent=1) + '\n')
        print(f"written: {out_file}")


if __name__ == '__main__':
    main()
