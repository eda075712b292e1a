"""
A policy as ONNX: the graph of a step, the graph that reads a prompt, that of what a policy says of it, if it does, and
a JSON of all else that onnx_policy.py needs.

The graph of a step: what is observed, what was done before, what to reach, time, keys and values -> actions, and the
same keys and values with those of the step's tokens among them. Each graph takes one row. Normalisers are in them.
"""

import hashlib
import json
import logging
import os
import warnings
from base64 import b64encode
from functools import partial

import torch
import torch.nn as nn
from torch.nn import functional as F

from nanopilot.kv_cache import predicting_slots, take_slots
from nanopilot.onnx_policy import FORMAT, digest, names

OPSET = 24  # the first that has TensorScatter
COLUMNS = 8  # of the example that is traced; any number is then taken


class Step(nn.Module):
    """One step of one episode, as KVCache.step takes it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, obs, prev_act, t, column, mask, keys, values, state, bd=None):
        """
        obs (1, chunk, n_obs); prev_act (1, chunk, ..); t (1, 1); column (1,), of the step's first token; mask (1, 1,
        n_slots, columns), added to scores; keys, values: of each layer (1, nh, columns, hs); state {name: (1, n)} of
        recurrent parts; bd (1, n_bd), nan: not given -> actions (1, chunk, ..); keys, values and state after the step
        """
        model = self.model
        bd_emb = None
        if bd is not None:
            bd_emb = model.steps.embed_bd(bd[:, None])
        prev_act = model.head.encode(prev_act[:, None]).flatten(2)
        x, after = model.embed_steps(obs[:, None], prev_act, bd_emb, t > 0, t, state)
        x = x[:, 0]  # (1, n_slots, C)
        cache = []

        def attend(slots, old_keys, old_values, q, k, v, dropout_p):
            cache.append((write(old_keys, k, column), write(old_values, v, column)))
            return F.scaled_dot_product_attention(q[:, :, slots], *cache[-1], attn_mask=mask[:, :, slots])

        for i, block in enumerate(model.h):
            slots = predicting_slots(model, i)
            x = block(x, partial(attend, slots, keys[i], values[i]), partial(take_slots, slots=slots))
        act = model.head.sample(model.head(model.to_head(model.ln_f(x), model, {})))
        return act, *zip(*cache), [after[name][:, 0] for name in state]


def write(cached, new, column):
    """ONNX's way to put new (1, nh, n_slots, hs) into cached (1, nh, columns, hs) in place -> cached"""
    return torch.onnx.ops.symbolic(
        'TensorScatter', (cached, new, column), {'axis': 2}, dtype=cached.dtype, shape=cached.shape, version=OPSET
    )


class Prompt(nn.Module):
    """The keys and values of a prompt, padded at its end."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, text):
        """text (1, n_text) -> (n_layer, 2, nh, n_text, hs)"""
        cache = []

        def attend(q, k, v, dropout_p):
            cache.append(torch.cat([k, v]))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        x = self.model.embed_text(text)
        for block in self.model.h:
            x = block(x, attend)
        return torch.stack(cache)


class NextToken(nn.Module):
    """What a policy that says what it has understood would say after each token of a text."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.saying = model.aux['saying']

    def forward(self, text):
        """text (1, text_len + say_len) -> ids of the same shape"""
        return self.saying.logits(self.model, self.saying.read(self.model, text)).argmax(-1)


def example(policy, state):
    """inputs of a Step, and which of their sizes are free"""
    c = policy.config
    prev_act = torch.zeros(1, c.chunk, c.n_act)
    if policy.discrete:
        prev_act = torch.zeros(1, c.chunk, dtype=torch.int64)
    keys = [torch.zeros(1, c.n_head, COLUMNS, c.n_embd // c.n_head) for _ in range(c.n_layer)]
    inputs = {
        'obs': torch.zeros(1, c.chunk, c.n_obs),
        'prev_act': prev_act,
        't': torch.zeros(1, 1, dtype=torch.int64),
        'column': torch.zeros(1, dtype=torch.int64),
        'mask': torch.zeros(1, 1, c.n_slots, COLUMNS),
        'keys': keys,
        'values': [k.clone() for k in keys],  # one tensor given twice would be traced as one input
        'state': {name: first[None] for name, first in state.items()},
    }
    if c.n_bd:
        inputs['bd'] = torch.zeros(1, c.n_bd)
    free = {2: torch.export.Dim.DYNAMIC}
    sizes = dict.fromkeys(inputs) | {'mask': {3: torch.export.Dim.DYNAMIC}}
    sizes |= {'keys': [free] * c.n_layer, 'values': [free] * c.n_layer, 'state': dict.fromkeys(state)}
    return inputs, sizes


def graph_of(module, inputs, outputs, sizes=None):
    """-> the bytes of a module's ONNX; outputs: their names"""
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)  # it misses torchvision
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        traced = torch.export.export(module.eval(), (), inputs, dynamic_shapes=sizes)
        program = torch.onnx.export(traced, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False)
    return program.model_proto.SerializeToString()


def step_graph(policy, state):
    inputs, sizes = example(policy, state)
    layers = range(policy.config.n_layer)
    outputs = ['act', *(f'new_keys_{i}' for i in layers), *(f'new_values_{i}' for i in layers)]
    return graph_of(Step(policy.model), inputs, outputs + [f'after_{name}' for name in state], sizes)


def prompt_graph(policy):
    text = torch.ones(1, policy.config.n_text, dtype=torch.int64)
    return graph_of(Prompt(policy.model), {'text': text}, ['words'])


def saying_graph(policy):
    text = torch.ones(1, policy.config.text_len + policy.config.say_len, dtype=torch.int64)
    return graph_of(NextToken(policy.model), {'text': text}, ['token'])


def describe(policy, state, sha256):
    """what the JSON says"""
    c = policy.config
    sizes = 'text_len', 'say_len', 'n_text', 'max_steps', 'chunk', 'window', 'n_slots', 'n_obs', 'n_act', 'n_bd'
    sizes += 'n_layer', 'n_head'
    derived = {
        'head_size': c.n_embd // c.n_head,
        'first_slot': policy.model.steps.first_slot,
        'discrete': policy.discrete,
    }
    tokenizer = None
    if policy.tokenizer:
        tokenizer = policy.data_spec.get('text_encoder', 'learned'), b64encode(policy.tokenizer.model).decode()
    return {
        'format': FORMAT,
        'config': {name: getattr(c, name) for name in sizes} | derived,
        'state': {name: first.tolist() for name, first in state.items()},
        'obs_mean': policy.obs_mean.tolist(),
        'obs_std': policy.obs_std.tolist(),
        'tokenizer': tokenizer,
        'dataset': policy.info['dataset'],
        'data': policy.data_spec,
        'obs_columns': policy.info['obs_columns'],
        'sha256': sha256,
    }


def export(policy, file):
    """write a Policy as file, which ends in .onnx, and what belongs beside it -> their names"""
    if not str(file).endswith('.onnx'):
        raise ValueError(f'export={str(file)!r} does not end in .onnx. Name it so, such as policy.onnx')
    if policy.config.text_width:
        raise ValueError(
            'prompts are read by a frozen BERT, which needs torch. Export a policy of another text_encoder'
        )
    if policy.config.n_cross_head:
        raise ValueError('cross-attention is not exported yet. Export a policy of --n_cross_head=0')
    state = {name: part.initial().detach().cpu() for name, part in policy.model.recurrent.items()}
    step_file, prompt_file, info_file, saying_file = names(file)
    written = {step_file: step_graph(policy, state)}
    if policy.config.text_len:
        written[prompt_file] = prompt_graph(policy)
    if policy.config.say_len:
        written[saying_file] = saying_graph(policy)
    sha256 = {f.name: hashlib.sha256(graph).hexdigest() for f, graph in written.items()}
    info = describe(policy, state, sha256)
    sha256['this'] = digest(json.loads(json.dumps(info)))  # of what is read back
    written[info_file] = json.dumps(info).encode()
    step_file.parent.mkdir(parents=True, exist_ok=True)
    for f, content in written.items():  # a reader never gets half of one, nor some of another export: see sha256
        f.with_name(f'{f.name}.tmp').write_bytes(content)
    for f in written:
        os.replace(f.with_name(f'{f.name}.tmp'), f)
    return list(written)
