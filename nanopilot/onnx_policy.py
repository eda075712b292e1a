"""
A policy that was exported as ONNX, for robots without torch: numpy, sentencepiece and onnxruntime are enough.

    policy = OnnxPolicy.load('policy.onnx')          # $ python sample_policy.py --export=policy.onnx
    policy.reset(['go north of the fridge'])
    while driving:
        obs = env.step(policy.act(obs))              # all else as Policy's: rows, rewards, skip, reset_rows, ..

An episode has its keys and values in arrays that the graph of a step reads and writes in place: nothing is copied. The
graph takes one row, so more rows cost as much as they are; for many at once there is Policy.
"""

import hashlib
import json
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data.encoders import load_tokenizer
from data.text import END, NOT_GIVEN
from nanopilot import ring
from nanopilot.episodes import Episodes

FORMAT = 2  # of the JSON beside the graphs, which onnx_export.py writes
PARTS = {'format', 'config', 'state', 'obs_mean', 'obs_std', 'tokenizer', 'dataset', 'data', 'obs_columns', 'sha256'}
ROOM = 16  # steps that an episode has room for at first; attention costs as much as there is room
MORE = 1.25  # .. so it is given more on demand: times as much


class OnnxPolicy(Episodes):
    """n episodes in lockstep or each at its own step, acted in by an exported policy; reset, act, ..: episodes.py."""

    def __init__(self, info, tokenizer, step, prompt, saying=None):
        """
        info: the JSON beside the graphs; step, prompt, saying: their sessions, prompt None without language, saying
        None where the policy says nothing
        """
        statistics = [np.array(info[name], np.float32) for name in ('obs_mean', 'obs_std')]
        config = SimpleNamespace(**info['config'])
        super().__init__(config, info, tokenizer, *statistics, config.discrete)
        self.graphs = step, prompt
        self.saying = saying
        self.step_mask = make_step_mask(config)

    @classmethod
    def load(cls, file, threads=1):
        """file: the .onnx that was exported, with what was written beside it; threads: of the CPU"""
        info = read_info(file)
        step_file, prompt_file, _, saying_file = names(file)
        step = open_graph(step_file, info, threads)
        tokenizer = prompt = saying = None
        if info['config']['text_len']:
            prompt = open_graph(prompt_file, info, threads)
            kind, model = info['tokenizer']
            tokenizer = load_tokenizer(kind, b64decode(model), info['data']['words'])
        if info['config']['say_len']:
            saying = open_graph(saying_file, info, threads)
        return cls(info, tokenizer, step, prompt, saying)

    def act(self, obs, bd=None, skip=None, temperature=0.0, reward=None):
        if temperature:
            raise ValueError(f'{temperature=}, but an exported policy draws nothing. Leave it out, or act with Policy')
        return super().act(obs, bd, skip, reward=reward)

    def new_cache(self, n):
        return OnnxCache(*self.graphs, self.config, self.info['state'], self.step_mask, n)

    def say(self, prompts):
        return [ids if ids == [NOT_GIVEN] else self.said_of(ids) for ids in prompts]

    def said_of(self, prompt):
        """what the policy says of a prompt's ids: the likeliest token, one after the other, END in the last place"""
        n_tokens = self.config.text_len + self.config.say_len
        text = np.zeros((1, n_tokens), np.int64)  # padding at the end, which no token before it sees
        text[0, : len(prompt)] = prompt
        for n in range(len(prompt), len(prompt) + self.config.say_len):
            (tokens,) = self.saying.run(None, {'text': text})
            text[0, n] = tokens[0, n - 1]
            if text[0, n] == END:
                break
        text[0, n] = END
        return text[0, len(prompt) : n + 1].tolist()

    def inputs(self, array):
        return array

    def sample(self, out, temperature, top_p, generator):
        return out  # actions already


# ------------------------------------------------------------------------------
# files


def names(file):
    """policy.onnx -> the files of a step, of a prompt, of all else, and of what is said of a prompt"""
    file = Path(file)
    prompt, saying = (file.with_name(f'{file.stem}_{part}.onnx') for part in ('prompt', 'saying'))
    return file, prompt, file.with_suffix('.json'), saying


def read_info(file):
    """-> the JSON beside a graph; refuses what is not there, damaged, or of another format"""
    info_file = names(file)[2]
    again = f'Export it: python sample_policy.py --export={file}'
    try:
        info = json.loads(info_file.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f'there is no {info_file}. {again}') from None
    except (ValueError, RecursionError):
        raise ValueError(f'{info_file} is damaged. {again}') from None
    if not isinstance(info, dict) or not set(info) >= PARTS or info['format'] != FORMAT:
        raise ValueError(f'{info_file} is not of format {FORMAT}, or parts of it are missing. {again}')
    if info['sha256'].get('this') != digest(info):
        raise ValueError(f'{info_file} is damaged. {again}')
    return info


def digest(info):
    """-> the SHA-256 of all that a JSON says but its own"""
    sha256 = {name: value for name, value in info['sha256'].items() if name != 'this'}
    return hashlib.sha256(json.dumps({**info, 'sha256': sha256}, sort_keys=True).encode()).hexdigest()


def open_graph(file, info, threads=1):
    """-> the session of a graph, if its bytes are those that were exported with info"""
    import onnxruntime

    again = 'Export it again: python sample_policy.py --export'
    try:
        graph = file.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f'{file} is missing. {again}') from None
    if hashlib.sha256(graph).hexdigest() != info['sha256'].get(file.name):
        raise ValueError(f'{file} is damaged, or of another export than the JSON beside it. {again}')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])


# ------------------------------------------------------------------------------
# keys and values


def make_step_mask(config):
    """what is added to the scores of a step's tokens, -inf where one is not seen (2 * ring, n_slots, ring * n_slots)"""
    seen = ring.seen_steps(config.window, config.n_slots, config.first_slot)
    return np.where(seen, np.float32(0), np.float32(-np.inf))


class OnnxCache:
    """What n episodes have shown the policy so far, each in a Row; used as KVCache is, with numpy arrays."""

    def __init__(self, step, prompt, config, state, step_mask, n):
        self.config = config
        self.prompt = prompt
        self.rows = [Row(step, config, state, step_mask) for _ in range(n)]
        self.t = np.zeros(n, np.int64)  # the step that comes next
        self.bd = np.full((n, config.n_bd), np.nan, np.float32)
        self.prompts = [()] * n  # token ids
        self.words = {}  # {prompt: its keys and values}, of the prompts that rows have

    def read(self, rows, prompts, bd):
        """begin new episodes in rows (n,), with prompts, n lists of token ids, and bd (n, n_bd), nan: not given"""
        self.t[rows] = 0
        self.bd[rows] = bd
        for row, prompt in zip(rows, prompts):
            self.prompts[row] = tuple(prompt)
        before, self.words = self.words, {}
        for prompt in set(self.prompts):
            self.words[prompt] = before[prompt] if prompt in before else self.read_prompt(prompt)
        for row in rows:
            self.rows[row].begin(self.words[self.prompts[row]])

    def read_prompt(self, prompt):
        """-> its keys and values (n_layer, 2, n_head, len(prompt), head_size)"""
        c = self.config
        if not prompt:
            return np.zeros((c.n_layer, 2, c.n_head, 0, c.head_size), np.float32)
        text = np.zeros((1, c.n_text), np.int64)  # padding at the end, which no word sees
        text[0, : len(prompt)] = prompt
        (words,) = self.prompt.run(None, {'text': text})
        return words[:, :, :, : len(prompt)]

    def step(self, obs, prev_act, bd=None, rows=None):
        """
        -> the actions (n, chunk, ..) of the next step of each row.

        obs (n, chunk, n_obs), up to the decision; prev_act (n, chunk, ..), what was done since the last one; bd (n,
        n_bd), nan where not given, None: as before; rows (n,), None: all. Does not count the step: `t[rows] += 1` does;
        with recurrent parts, whose state moves on, it cannot be taken again.
        """
        rows = np.arange(len(self.rows)) if rows is None else rows
        ring.check_length(self.t[rows].max(), self.config.max_steps)
        if bd is not None:
            self.bd[rows] = bd
        inputs = zip(rows, obs, prev_act)
        return np.concatenate([self.rows[row].step(self.t[row], *given, self.bd[row]) for row, *given in inputs])


class Row:
    """
    An episode: every input and output of the graph of a step is an array here, bound to it once.

    Columns of keys and values: the prompt's tokens, then a ring of steps of n_slots tokens, as far as there is room.
    """

    def __init__(self, graph, config, state, step_mask):
        self.graph, self.config, self.step_mask = graph, config, step_mask
        self.ring = ring.places(config.window, config.first_slot)
        self.wanted = {node.name for node in graph.get_inputs()}  # a policy may do without some
        self.binding = graph.io_binding()
        shape, kind = (config.chunk, config.n_act), np.float32
        if config.discrete:
            shape, kind = (config.chunk,), np.int64
        self.act = self.bind_output('act', np.zeros((1, *shape), kind))
        self.obs = self.bind('obs', np.zeros((1, config.chunk, config.n_obs), np.float32))
        self.prev_act = self.bind('prev_act', np.zeros((1, *shape), kind))
        self.bd = self.bind('bd', np.zeros((1, config.n_bd), np.float32))
        self.t = self.bind('t', np.zeros((1, 1), np.int64))
        self.column = self.bind('column', np.zeros(1, np.int64))  # where the step's first token goes
        self.initial = {name: np.array([first], np.float32) for name, first in state.items()}  # of recurrent parts
        self.state = {name: self.bind(f'state_{name}', first.copy()) for name, first in self.initial.items()}
        self.after = {name: self.bind_output(f'after_{name}', first.copy()) for name, first in self.initial.items()}

    def bind(self, name, array, written=''):
        """the graph reads an array from now on; written: the name of the output that it writes there, too"""
        from onnxruntime import OrtValue

        if name in self.wanted:
            value = OrtValue.ortvalue_from_numpy(array)  # the same memory
            self.binding.bind_ortvalue_input(name, value)
            if written:
                self.binding.bind_ortvalue_output(written, value)
        return array

    def bind_output(self, name, array):
        from onnxruntime import OrtValue

        self.binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))
        return array

    def begin(self, words):
        """a new episode, with the keys and values of a prompt (n_layer, 2, n_head, n, head_size)"""
        self.n_words = words.shape[3]
        self.cached = words
        self.make_room(ROOM)
        for name, first in self.initial.items():
            self.after[name][:] = first

    def make_room(self, room):
        """for `room` steps, where there were fewer; at most for as many as the ring has"""
        room = min(room, self.ring)
        n_layer, _, n_head, before, head_size = self.cached.shape
        n_slots = self.config.n_slots
        columns = self.n_words + room * n_slots
        cached = np.zeros((n_layer, 2, n_head, columns, head_size), np.float32)
        cached[:, :, :, :before] = self.cached
        self.cached, self.room = cached, room
        for i, (keys, values) in enumerate(cached):
            self.bind(f'keys_{i}', keys[None], f'new_keys_{i}')
            self.bind(f'values_{i}', values[None], f'new_values_{i}')
        self.mask = self.bind('mask', np.zeros((1, 1, n_slots, columns), np.float32))

    def step(self, t, obs, prev_act, bd):
        """step t of the episode, obs (chunk, n_obs), prev_act (chunk, ..), bd (n_bd,) -> the actions (1, chunk, ..)"""
        if self.room <= t and self.room < self.ring:
            self.make_room(max(self.room + ROOM, int(MORE * self.room)))
        n_slots = self.config.n_slots
        self.obs[0], self.prev_act[0], self.bd[0], self.t[0] = obs, prev_act, bd, t
        self.column[0] = self.n_words + t % self.ring * n_slots
        self.mask[0, 0, :, self.n_words :] = self.step_mask[ring.pattern(t, self.ring), :, : self.room * n_slots]
        for name, before in self.state.items():
            before[:] = self.after[name]
        self.graph.run_with_iobinding(self.binding)
        return self.act
