"""
From the columns of somebody's file to episodes: which column is what, where episodes end, and whether it all fits.

A source (data/importers/*.py) has a `file`, a `kind`, in words, `notes`, what there is to say of it, `unread`, {column:
[piece, why it holds no numbers]}, a `layout` and `pieces()`, dicts of arrays (rows, ..) or lists of strings, any number
of times. Those that skip what environments tell (infos/..) read it where their `with_infos` is set. The layout says
what a piece is:
'episodes': one; 'elements': one, unless ends are flagged inside; 'steps': rows of many, which go on in the next piece.

Nothing is guessed in silence. What does not fit is a ValueError that names file, episode, column, value and cure; what
is assumed or left out is in the report.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from data.importers import checks
from data.importers.boundaries import Stack, cut, is_stack, settle
from data.importers.columns import SPELLINGS, TIMEOUTS, fields_of, is_text, listed
from data.importers.tuples import Tuples

IGNORED_QUIETLY = ('next_observations', 'next_obs', 'next_states', 'infos', 'info', 'index', 'timestamp')


@dataclass
class Options:
    """What the user says of a file."""

    obs_keys: str = ''  # of a dict of observations, separated by commas
    clip_actions: bool = False  # those beyond their bounds
    rollout: str = ''  # module:function that makes an episode of a solution (data/importers/ribs.py)


class Import:
    """The episodes of a source; after a first pass, `survey()`, `report()` says what was understood."""

    def __init__(self, source, dataset, spec, options):
        """dataset: its name, for messages; spec: the data set's, or {'flatten': True} where it is made of the data"""
        source.with_infos = bool(spec.get('info'))
        first = first_of(source)
        if 'item 0' in first:
            source = Tuples(source)
            first = first_of(source)
        self.fields = fields_of(source, first, spec, options)
        if source.layout == 'steps' and is_stack(first, self.fields):
            source = Stack(source, first, self.fields)
            first = first_of(source)
            self.fields = fields_of(source, first, spec, options)
        self.source, self.dataset, self.spec, self.options = source, dataset, spec, options
        self.ignored = [name for name in first if self.is_ignored(name)]
        self.assumed_reward = None
        self.layout, self.how = source.layout, ''
        if self.layout == 'elements':
            self.layout, self.how = settle(source, self.fields)
        elif self.layout == 'steps' and not self.fields.say_where_episodes_end():
            self.how = 'no column says where episodes end (terminals, timeouts, episode): all of it is taken as one'
        self.reset()

    def is_ignored(self, name):
        """is a column one that others may miss?"""
        return name not in self.fields.columns() and name.partition('/')[0] not in IGNORED_QUIETLY

    def why_unread(self, name):
        """a column for the report, with what keeps it from being read where it is called like a text"""
        return f'{name} ({self.source.unread[name][1]})' if name.split('/')[-1] in SPELLINGS['text'] else name

    def reset(self):
        self.n = 0
        self.lengths = Counter()
        self.notes = Counter()  # what was assumed, repaired or left out: episodes
        self.empty, self.beyond = [], []
        self.furthest = None  # (how far, what is said of it)
        self.texts = set()
        self.values = set()  # of actions, up to a number
        self.widths = None
        self.low, self.high = np.inf, -np.inf
        self.integral = True
        self.returns = (np.inf, -np.inf)

    def assume_reward(self, reward):
        """that of each step, where no episode has any"""
        self.assumed_reward = reward

    def survey(self):
        """go through all of it; ValueError where something does not fit, or nothing is left"""
        for _ in self.episodes():
            pass
        if self.beyond and not self.n:
            raise ValueError(f'{self.source.file}: {self.beyond_note()}')
        if not self.n:
            raise ValueError(f'{self.source.file} holds no episodes with steps')
        return self

    def places(self):
        """yields (place, piece) an episode"""
        if self.layout == 'steps':
            for place, piece in cut(self.source, self.fields, lambda text: self.notes.update([text])):
                yield from self.in_time(place, piece)
            return
        for i, piece in enumerate(self.source.pieces()):
            yield f'episode {i}', piece

    def in_time(self, place, piece):
        """old files of D4RL do not say where time was over: each stretch is cut after max_steps"""
        n, most = len(piece[self.fields.act[0]]), self.spec.get('max_steps')
        ends_by_time = {*self.fields.ends} & {*TIMEOUTS} or self.fields.starts or self.fields.episode
        if not most or n <= most or ends_by_time:
            yield place, piece
            return
        self.notes[f'cut after {most} steps, the longest of {self.dataset}: no column says where time is over'] += 1
        for a in range(0, n, most):
            yield f'{place}, from step {a}', {name: column[a : a + most] for name, column in piece.items()}

    def episodes(self):
        """yields {'obs' (T, n_obs), 'act' (T, n_act), 'reward' (T,) if there are any, 'text': [str] if there is any}"""
        self.reset()
        for place, piece in self.places():
            episode = self.episode(place, piece)
            if episode is not None:
                self.n += 1
                self.lengths[len(episode['act'])] += 1
                yield episode

    @np.errstate(over='ignore', invalid='ignore')  # what is beyond float32 is inf there, and left out as not finite
    def episode(self, place, piece):
        """None where it is left out, which is counted"""
        where = f'{self.source.file}, {place}'
        checks.complete(where, piece, self.fields, self.source)
        T = len(piece[self.fields.act[0]])
        if T == 0:
            self.empty.append(place.removeprefix('episode '))
            return None
        checks.in_order(where, piece, self.fields, T)
        act = self.actions(where, piece, T)
        most = self.spec.get('max_steps', T)
        if T > most:
            raise ValueError(
                f'{where}: {T} steps, but an episode of {self.dataset} has {most} at most. '
                'Flag where episodes end (terminals, timeouts), or name the data set it is of: --dataset'
            )
        obs = self.columns(where, piece, self.fields.obs, T, one_more=True)
        self.check_widths(where, obs, act)
        act = act.astype(np.float32)  # as it is kept, which may round it beyond a bound
        if 'act_names' in self.spec:
            act = self.fitted(where, place, act)
        if act is None:
            return None
        self.note_values(act)
        episode = {'obs': obs.astype(np.float32), 'act': act.astype(np.float32)}
        if self.fields.reward or self.fields.to_go:
            episode['reward'] = checks.rewards(where, piece, self.fields, T)
        elif self.assumed_reward is not None:
            episode['reward'] = np.full(T, self.assumed_reward)
        if 'reward' in episode:
            total = float(episode['reward'].sum())
            self.returns = (min(self.returns[0], total), max(self.returns[1], total))
        if self.fields.info:
            episode['info'] = self.told(where, piece[self.fields.info], T)
        if self.fields.text:
            episode['text'] = [self.text(piece[self.fields.text])]
        return episode

    def columns(self, where, piece, names, T, one_more=False):
        """-> (T, width), the columns of these names side by side"""
        flatten = bool(self.options.obs_keys)
        return checks.side_by_side(where, piece, names, T, self.fields.act[0], one_more, flatten)

    def told(self, where, column, T):
        """what the environment told -> (T, width), of each step, or (T + 1, width), of the start, too"""
        name, column = self.fields.info, np.asarray(column)
        if column.dtype.kind not in 'biuf' or not column.ndim or len(column) not in (T, T + 1):
            raise ValueError(f'{where}, {name}: {column.shape} {column.dtype}. Save {T} or {T + 1} rows of numbers')
        return column.reshape(len(column), -1)

    def actions(self, where, piece, T):
        """(T, n_act), as they stand; words become the place among the data set's act_names"""
        name = self.fields.act[0]
        if is_text(piece[name]):
            return checks.numbers_of_words(where, name, piece[name], list(self.spec.get('act_names', [])))
        return self.columns(where, piece, self.fields.act, T)

    def check_widths(self, where, obs, act):
        widths = (obs.shape[1], act.shape[1])
        wanted, of, one_hot = self.widths or widths, 'the first one', False
        if 'obs_names' in self.spec:
            n_act = len(self.spec['act_names']) if self.spec['continuous'] else 1
            wanted, of = (len(self.spec['obs_names']), n_act), self.dataset
            one_hot = not self.spec['continuous'] and widths[1] == len(self.spec['act_names'])
        self.widths = wanted
        checks.as_wide(where, widths, wanted, of, self.fields, one_hot)

    def fitted(self, where, place, act):
        """actions as the data set's spec has them; None where they are beyond their bounds"""
        if self.spec['continuous']:
            return self.within(place, act)
        return checks.labels(where, self.fields.act[0], act, self.spec, self.dataset)

    def within(self, place, act):
        """continuous actions; a hair over a bound is rounded to it, more is left out unless they are to be clipped"""
        if not np.isfinite(act).all():  # left out as not finite: clipped, it would be a label
            return act
        low, high = np.array(self.spec['act_low']), np.array(self.spec['act_high'])
        over = np.maximum(act - high, low - act)
        if not (over > 0).any():
            return act
        t, k = np.unravel_index(over.argmax(), over.shape)
        bound = high[k] if act[t, k] > high[k] else low[k]
        said = f'{self.spec["act_names"][k]} {act[t, k]:.7g} at step {t} of {place}, its bound is {bound:g}'
        rounding = (over <= checks.ROUNDING * np.maximum(1, np.maximum(abs(low), abs(high)))).all()
        if rounding or self.options.clip_actions:
            self.notes['with actions beyond their bounds, clipped' + (' (rounding)' if rounding else '')] += 1
            return np.clip(act, *checks.inside32(low, high))
        self.beyond.append(place)
        if self.furthest is None or over.max() > self.furthest[0]:
            self.furthest = (over.max(), said)
        return None

    def beyond_note(self):
        n = len(self.beyond)
        return f'{n} episodes left out, their actions are out of range: {self.furthest[1]}. --clip_actions clips them'

    def note_values(self, act):
        """what there is to say of an episode's actions in the end"""
        finite = act[np.isfinite(act).all(1)].astype(float)  # an episode with nan is left out later
        self.integral = self.integral and bool((finite == np.round(finite)).all())
        if act.shape[1] == 1 and len(self.values) < 100:
            self.values.update(np.unique(finite).tolist())
        self.low = np.minimum(self.low, finite.min(0, initial=np.inf))
        self.high = np.maximum(self.high, finite.max(0, initial=-np.inf))

    def text(self, column):
        if len(set(column)) > 1:
            self.notes[f'whose {self.fields.text} changes on the way: the first is taken'] += 1
        if len(self.texts) < 1000:
            self.texts.add(column[0])
        return column[0]

    def report(self):
        """what was understood -> lines"""
        fields, n = self.fields, self.lengths.total()
        steps = sum(k * count for k, count in self.lengths.items())
        spread = f'{min(self.lengths)} to {max(self.lengths)} an episode'
        lines = [f'{self.source.file}: {self.source.kind}; {n} episodes, {steps} steps ({spread})']
        act = f'{", ".join(fields.act)} ({self.widths[1]}: {values_of(self)})'
        parts = [f'observations {", ".join(fields.obs)} ({self.widths[0]})', f'actions {act}']
        parts += [f'rewards {fields.reward}'] * bool(fields.reward)
        ends = [*fields.ends, *filter(None, (fields.starts, fields.episode))]
        parts += [f'ends {", ".join(ends)}'] * bool(ends)
        if self.layout == 'steps' and fields.restarting():
            parts.append(f'ends where {fields.timestep} begins again')
        parts += [f'info {fields.info}'] * bool(fields.info)
        parts += [f'text {fields.text} ({len(self.texts)} distinct)'] * bool(fields.text)
        ignored = [*self.ignored, *map(self.why_unread, filter(self.is_ignored, self.source.unread))]
        ignored = [name or 'a column without a name' for name in ignored]
        parts += [f'ignored {listed(ignored)}'] * bool(ignored)
        lines.append('; '.join(parts))
        lines += [*self.source.notes, self.how] if self.how else list(self.source.notes)
        if fields.to_go and not fields.reward:
            lines.append(f'rewards are the steps of {fields.to_go}, taken as returns without a discount')
        if self.assumed_reward is not None:
            lines.append(f'no rewards in episode 0, nor in any other: {self.assumed_reward:g} a step is assumed')
        if self.empty:
            lines.append(f'{len(self.empty)} without steps left out: {listed(self.empty)}')
        for text, count in self.notes.items():
            lines.append(text if text.startswith('the last') else f'{count} episodes {text}')
        if self.beyond:
            lines.append(self.beyond_note())
        return lines


def first_of(source):
    """the first piece; ValueError where there is none"""
    for piece in source.pieces():
        return piece
    for name, (i, why) in source.unread.items():
        raise ValueError(f'{source.file}, episode {i}, {name}: {why}. Save arrays of numbers')
    raise ValueError(f'{source.file} holds no episodes')


def values_of(found):
    """the actions' values or their range, for the report"""
    if found.widths[1] == 1 and len(found.values) <= 12:
        return ', '.join(f'{v:g}' for v in sorted(found.values))
    return f'{np.min(found.low):.4g} to {np.max(found.high):.4g}'
