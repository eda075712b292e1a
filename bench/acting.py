"""Acting: a step of an episode from the cache, steps of the robot, whole rollouts."""

from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from bench import hugging_face
from bench.pairs import skipped
from bench.sizes import ACTING, ANCESTOR, HOPPER, make, noise
from data.text import PAD, pad_prompts
from data.toy_nav import env_kwargs, make_env, make_vec, spec
from nanopilot.kv_cache import KVCache
from nanopilot.onnx_export import export
from nanopilot.onnx_policy import OnnxPolicy, names, open_graph, read_info
from nanopilot.policy import Policy

WORDS = 40  # of the ancestor's prompts; the rest of their tokens is padding


def in_flight(bench, model, B, N, begun):
    """B episodes with the same prompt of N tokens that are `begun` steps old -> a function that takes n more steps"""
    device = next(model.parameters()).device
    text, obs, act, bd = noise(bench, model.config, B, begun, N)
    obs, act, bd = obs.to(device), act.to(device), bd.to(device)
    cache = KVCache(model, B)
    cache.read(np.arange(B), text.tolist(), bd[:, 0])
    for s in range(begun):
        cache.step(obs[:, s], act[:, s])
        cache.t += 1

    def steps(n):
        for _ in range(n):  # not counted in cache.t: the episode is as long every time
            cache.step(obs[:, 0], act[:, 0])

    return steps


def exported(bench, model, N, begun):
    """.. one such episode, acted in by OnnxPolicy: what a user calls, with its checks. chunk=1"""
    n_obs = model.config.n_obs
    info = {'dataset': 'noise', 'data': {'obs_names': [''] * n_obs}, 'obs_columns': list(range(n_obs))}
    file = bench.folder / 'policy.onnx'
    export(Policy(model, info), file)
    info = read_info(file)
    step, prompt, *_ = names(file)
    graphs = open_graph(step, info), open_graph(prompt, info) if N else None
    policy = OnnxPolicy(info, TokenIds(), *graphs)
    text, obs, _, bd = noise(bench, model.config, 1, begun, N)
    obs = obs[0].numpy()  # (begun, 1, n_obs)
    policy.begin(text.tolist(), bd[:, 0].numpy())
    for now in obs:
        policy.act(now)

    def steps(n):
        for _ in range(n):  # not counted, as above
            policy.act(obs[0])
            policy.cache.t -= 1

    return steps


@torch.inference_mode()
def recompute(model, *inputs, **how):
    model(*inputs, **how)


def rollout(bench):
    """a step of an episode, from the cache, against computing the whole sequence again"""
    rows = []
    N, T = bench.size((226, 403), (48, 6))
    long, window = bench.size((403, 64), (6, 3))
    alone = None
    for B, K in bench.size(((1, 403), (1, 64), (8, 64), (32, 64), (64, 64), (512, 64)), ((1, 6), (1, 3), (2, 3))):
        fields = ANCESTOR | dict(text_len=N, max_steps=T)
        model = make(bench, K, **fields)
        n = 20 if B < 64 else 4
        begun = bench.size(350 if K == long else 80, 4)
        steps = partial(in_flight(bench, model, B, N, begun), n)
        if B in (1, 32):
            rows += against_recomputing(bench, model, B, K, steps, n, begun)
        if B == 1 and K == window:
            alone = steps
        elif B > 1:
            goal = 4 if B == 64 else None
            rows.append(bench.compare(f'a step in a batch of {B}, against one alone', alone, steps, goal, 20, n * B))
    return rows + against_hugging_face(bench)


def against_recomputing(bench, model, B, K, steps, n, begun):
    """rows for B episodes of which K steps are in view; steps() takes n from the cache, where `begun` are already"""
    N, T = model.config.text_len, model.config.max_steps
    text, obs, act, bd = noise(bench, model.config, B, T, N)
    text = text.clone()
    text[:, WORDS:] = PAD  # as the ancestor pads; the cache gains nothing by it, its prompts have N tokens
    name = f'cached, against recomputed and padded to {N + 3 * T} tokens; batch {B}, window {K}'
    whole = partial(recompute, model, text, obs, act, bd, kernel='dense')
    rows = [bench.compare(name, whole, steps, {1: 100, 32: 200}[B], n_fast=n)]
    if B == 1:
        rows.append(against_exported(bench, name, whole, 1, 80, model, N, begun))
    if K < T:
        n_text = N - bench.size(42, 3)
        text, obs, act, bd = noise(bench, model.config, B, K, n_text)
        name = f'cached, against a cropped window of {n_text + 3 * K} tokens; batch {B}, window {K}'
        rows.append(
            bench.compare(name, partial(recompute, model, text, obs, act, bd), steps, {1: 20, 32: 50}[B], n_fast=n)
        )
    return rows


def against_hugging_face(bench):
    name = "cached, against Hugging Face's Decision Transformer, K = 20; batch "
    theirs = hugging_face.hopper(bench)
    if theirs is None:
        return [skipped(name + '1 and 64', "pip install '.[bench]'")]
    act = partial(hugging_face.act, theirs, 4)
    model = make(bench, 20, **HOPPER)
    begun = bench.size(80, 4)
    rows = [against_exported(bench, f'{name}1', act, 4, 5, model, 0, begun)]
    for B, goal, how in (1, 4, ''), (64, 40, ' (theirs one by one)'):
        steps = partial(in_flight(bench, model, B, 0, begun), 20)
        rows.append(bench.compare(f'{name}{B}{how}', act, steps, goal, 4, 20 * B))
    return rows


def against_exported(bench, name, slow, n_slow, goal, model, N, begun):
    """the row `name`, of a cached step, for the same model exported"""
    name = name.replace('cached', 'exported', 1)
    if not (find_spec('onnxruntime') and find_spec('onnxscript')):
        return skipped(name, "pip install '.[onnx]'")
    steps = partial(exported(bench, model, N, begun), 20)
    return bench.compare(name, slow, steps, goal, n_slow, 20)


def environment(bench):
    """a step of the robot: thousands at once, or one"""
    n = bench.size(4096, 64)
    many, one = make_vec(n), make_env()
    many.reset(seed=bench.seed)
    one.reset(seed=bench.seed)
    act = np.random.default_rng(bench.seed).uniform(0.2, 1, (n, 2)).astype(np.float32)

    def steps_alone():
        for _ in range(200):
            one.step(act[0])

    def steps():
        for _ in range(10):
            many.step(act)

    name = f'a step of {n} robots at once, against one alone'
    return [
        bench.compare(name, steps_alone, steps, None, 200, 10 * n),
        bench.per_second('robot steps', steps, 10 * n, '/s', 500_000),
    ]


class TokenIds:
    """The tokenizer of prompts that are token ids already, all known."""

    words = frozenset()
    text_width = 0

    def encode(self, ids):
        return ids

    def unknown(self, ids):
        return []

    def pad_prompts(self, prompts):
        return pad_prompts(prompts)


def evaluation(bench):
    """a thousand episodes of toy_nav with train.py's default model, as it starts: it never stops"""
    n, steps = bench.size((250, 400), (4, 8))
    kwargs = env_kwargs()
    data = {**spec(kwargs), 'env_kwargs': kwargs}
    model = make(bench, bench.size(200, 4), **ACTING)
    model.steps.obs_norm.std[:] = 100  # as if trained in this room: what is far from the training is refused
    policy = Policy(model, {'data': data, 'obs_columns': list(range(9))}, TokenIds())
    rng = np.random.default_rng(bench.seed)
    prompts = [rng.integers(4, 900, rng.integers(5, 40)).tolist() for _ in range(n)]
    env = make_vec(n, **kwargs)

    def episodes():
        policy.begin(prompts)
        obs, _ = env.reset(seed=bench.seed)
        for _ in range(steps):
            obs, *_ = env.step(np.maximum(policy.act(obs), 0.2))

    name = f'1,000 episodes of {steps} steps, default model'
    return [bench.duration(name, episodes, ' minutes', 3, 1000 / n / 60)]
