"""
From the columns of somebody's file to episodes: which column is what, where episodes end, and whether it all fits.

A source (data/importers/*.py) has a `file`, a `kind`, in words, `notes`, what there is to say of it, `unread`, {column:
[piece, why it holds no numbers]}, a `layout` and `pieces()`, dicts of arrays (rows, ..) or lists of strings, any number
of times. The layout says what a piece is:
'episodes': one; 'elements': one, unless ends are flagged inside; 'steps': rows of many, which go on in the next piece.

Nothing is guessed in silence. What does not fit is a ValueError that names file, episode, column, value and cure; what
is assumed or left out is in the report.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

SPELLINGS = {
    'obs': ('observations', 'observation', 'obs', 'observation.state', 'states', 'state', 'features'),
    'act': ('actions', 'action', 'acts', 'act'),
    'reward': ('rewards', 'reward', 'rews', 'rew', 'next.reward'),
    'to_go': ('returns_to_go', 'return_to_go', 'rtg', 'rtgs', 'to_go'),
    'episode': ('episode_index', 'episode', 'episode_id', 'episode_number', 'traj_id', 'trajectory', 'ep'),
    'starts': ('episode_starts', 'is_first', 'starts'),
    'text': ('mission', 'missions', 'instruction', 'language_instruction', 'task', 'prompt', 'text'),
    'timestep': ('timesteps', 'timestep', 't', 'step', 'steps', 'frame_index'),
}
ENDS = ('terminals', 'terminal', 'terminations', 'termination', 'terminated', 'dones', 'done', 'is_last', 'next.done')
TIMEOUTS = ('timeouts', 'timeout', 'truncations', 'truncation', 'truncated')
ENDS += ('is_terminal', *TIMEOUTS)
NUMBERED = {'obs': r'(?:observations?|obs|states?|o|s)', 'act': r'(?:actions?|acts?|a)'}
NUMBER = r'[_.\[ ]?(\d+)\]?$'
ROUNDING = 1e-5  # how far an action may be over a bound, as a share of it, and is rounded to it
IGNORED_QUIETLY = ('next_observations', 'next_obs', 'next_states', 'infos', 'info', 'index', 'timestamp')


@dataclass
class Fields:
    """Which columns are what."""

    obs: list
    act: list
    reward: str | None = None
    to_go: str | None = None
    episode: str | None = None
    starts: str | None = None
    text: str | None = None
    timestep: str | None = None
    ends: list = field(default_factory=list)

    def columns(self):
        one = (self.reward, self.to_go, self.episode, self.starts, self.text, self.timestep)
        return [*self.obs, *self.act, *(name for name in one if name), *self.ends]


@dataclass
class Options:
    """What the user says of a file."""

    obs_keys: str = ''  # of a dict of observations, separated by commas
    clip_actions: bool = False  # those beyond their bounds
    rollout: str = ''  # module:function that makes an episode of a solution (data/importers/ribs.py)


def width_of(column):
    """numbers a row"""
    return int(np.prod(column.shape[1:]))


def is_text(column):
    return isinstance(column, list)


# ------------------------------------------------------------------------------
# which column is what


def fields_of(source, piece, spec, options):
    """the first piece of a source -> Fields; ValueError. spec: the data set's, or {}"""
    spelt = {}
    for name, spellings in SPELLINGS.items():
        spelt[name] = next((s for s in spellings if s in piece), None)
    obs = observations(source, piece, spelt, spec, options)
    act = [spelt['act']] if spelt['act'] else numbered(piece, 'act') or named(piece, spec.get('act_names', []))
    if not obs or not act:
        missing = 'observations' if not obs else 'actions'
        unread = source.unread
        wanted = [s for name in ('obs', 'act') for s in SPELLINGS[name] if s in unread]
        if wanted:
            i, why = unread[wanted[0]]
            raise ValueError(f'{source.file}, episode {i}, {wanted[0]}: {why}. Save an array of numbers')
        raise ValueError(
            f'{source.file}: no {missing} among its columns {", ".join(map(repr, piece))}. '
            f'Call them {missing}, or {missing}_0, {missing}_1, .. where each number has a column'
        )
    texts = [key for key in piece if is_text(piece[key]) and key.split('/')[-1] in SPELLINGS['text']]
    names = {name: spelt[name] for name in ('reward', 'to_go', 'episode', 'starts', 'timestep')}
    names['timestep'] = names['timestep'] if names['timestep'] not in (*obs, *act) else None
    ends = [key for key in ENDS if key in piece and not is_text(piece[key]) and piece[key].ndim]
    if names['episode']:  # says all of it
        ends = []
    return Fields(obs, act, text=texts[0] if texts else None, ends=ends, **names)


def observations(source, piece, spelt, spec, options):
    """-> the columns that are observations, in order"""
    prefixes = [f'{s}/' for s in SPELLINGS['obs'] if any(key.startswith(f'{s}/') for key in piece)]
    keys = [key for key in options.obs_keys.split(',') if key]
    if keys:
        prefix = prefixes[0] if prefixes else ''
        known = {key.removeprefix(prefix): key for key in piece if not is_text(piece[key])}
        for key in keys:
            if key not in known:
                raise ValueError(f'{source.file}: no observation {key!r} in it. There are: {", ".join(known)}')
        return [known[key] for key in keys]
    if spelt['obs'] and not is_text(piece[spelt['obs']]):
        return [spelt['obs']]
    if not prefixes:
        return numbered(piece, 'obs') or named(piece, spec.get('obs_names', []))
    inside = [key for key in piece if key.startswith(prefixes[0]) and not is_text(piece[key])]
    if len(inside) == 1 or spec.get('flatten'):  # as gymnasium.spaces flattens a Dict: by its sorted keys
        return sorted(inside)
    said = ', '.join(f'{key.removeprefix(prefixes[0])} {piece[key].shape[1:]}' for key in inside)
    which = ','.join(key.removeprefix(prefixes[0]) for key in inside)
    raise ValueError(
        f'{source.file}: its observations are a dict of {said}. Say which, in this order: --obs_keys={which}'
    )


def numbered(piece, what):
    """columns obs_0, obs_1, .. in the order of their numbers, which count up without a gap"""
    found = {}
    for key in piece:
        match = re.match(NUMBERED[what] + NUMBER, key)
        if match:
            found[int(match[1])] = key
    numbers = sorted(found)
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise ValueError(f'its columns {", ".join(found[n] for n in numbers)} leave out a number. Save all of them')
    return [found[n] for n in numbers]


def named(piece, names):
    """columns with the data set's own names, all of them or none"""
    return list(names) if names and all(name in piece for name in names) else []


# ------------------------------------------------------------------------------
# tuples: what their items mean


class Tuples:
    """A source of 'item 0', 'item 1', .. under the names that their values give away."""

    def __init__(self, source):
        self.source = source
        self.file = source.file
        self.names = self.meaning()
        self.layout = source.layout
        if 'done' in self.names:
            self.layout = 'elements' if source.layout == 'episodes' else 'steps'
        self.kind = f'{source.kind}, tuples of ({", ".join(self.names)})'
        self.notes = []
        self.unread = {}

    def pieces(self):
        for piece in self.source.pieces():
            yield {name: piece[f'item {k}'] for k, name in enumerate(self.names) if f'item {k}' in piece}

    def refuse(self, why):
        raise ValueError(
            f'{self.file}: its tuples cannot be told apart: {why}. '
            'Save one dict an episode: observations, actions, rewards'
        )

    def meaning(self):
        pieces = list(self.source.pieces())
        unread = [f'item {k}: {why}' for k, (_, why) in self.source.unread.items()]
        if unread or any(is_text(column) for piece in pieces for column in piece.values()):
            self.refuse(unread[0] if unread else 'there are strings among them')
        if len(pieces[0]) == 4:
            return self.of_four(pieces)
        shapes = [pieces[0][f'item {k}'].shape[1:] for k in range(len(pieces[0]))]
        scalars = [k for k in range(2, len(shapes)) if shapes[k] in ((), (1,))]
        if shapes[3] == shapes[0] and len(shapes[0]) == 1 and scalars == [2, *range(4, len(shapes))]:
            return ['observations', 'actions', 'rewards', 'next_observations', 'done', 'truncated'][: len(shapes)]
        return self.refuse(f'items of shapes {shapes}')

    def of_four(self, pieces):
        """(state, action, reward, done), or (state, action, return to go, timestep)"""
        last = [np.asarray(piece['item 3']).reshape(-1) for piece in pieces]
        if all(values.dtype == bool for values in last):
            return ['observations', 'actions', 'rewards', 'done']
        if not all((values == np.round(values)).all() for values in last):
            self.refuse(f'the fourth item is neither a flag nor a timestep ({last[0][0]})')
        counts = all(self.counts(values) for values in last)
        flags = all(np.isin(values, (0, 1)).all() for values in last)
        if counts == flags:
            self.refuse(
                'the fourth item may be a flag and a timestep' if counts else 'the fourth item does not count up'
            )
        if flags:
            return ['observations', 'actions', 'rewards', 'done']
        third = np.concatenate([np.asarray(piece['item 2']).reshape(-1) for piece in pieces])
        if len(third) > 2 and (third == third[0]).all():
            self.refuse(f'the third item is {third[0]:g} at all steps, a reward or a return to go')
        return ['observations', 'actions', 'returns_to_go', 'timestep']

    def counts(self, values):
        """do they count up from 0 or 1, again and again where steps of many episodes follow each other?"""
        first = values[0]
        goes_on = np.diff(values) == 1
        restarts = values[1:] == first
        if self.source.layout == 'episodes':
            restarts = np.zeros(len(goes_on), bool)
        return first in (0, 1) and bool((goes_on | restarts).all())


# ------------------------------------------------------------------------------
# where episodes end


def flags(source, place, piece, columns, n):
    """-> (n,) bool, True where any of these columns is"""
    any_of = np.zeros(n, bool)
    for name in columns:
        values = np.asarray(piece[name])
        if values.size != n:
            raise ValueError(
                f'{source.file}, {place}: {name} has {values.size} values, and there are {n} actions. '
                'Save one for each action'
            )
        values = values.reshape(-1)
        if values.dtype != bool and not np.isin(values, (0, 1)).all():
            odd = values[~np.isin(values, (0, 1))][0]
            raise ValueError(f'{source.file}, {place}: {name} is {odd:g}, where a flag is 0 or 1. Save True or False')
        any_of |= values.astype(bool)
    return any_of


def settle(source, fields):
    """-> what the pieces of a source with 'elements' are: 'episodes' or 'steps', and a note, '' where all is plain"""
    inside, open_ended, lengths, single, total = [], [], [], 0, 0
    for i, piece in enumerate(source.pieces()):
        missing = [name for name in fields.ends if name not in piece]
        n = len(piece[fields.act[0]]) if fields.act[0] in piece and np.ndim(piece[fields.act[0]]) else 0
        if missing or not n:
            continue  # what is missing is said later, with its episode
        ends = flags(source, f'episode {i}', piece, fields.ends, n)
        lengths.append(n)
        if ends[:-1].any():
            inside.append((i, int(np.flatnonzero(ends)[0]), n))
            single += int((ends[1:] & ends[:-1]).sum())
            total += int(ends.sum())
        if not ends[-1]:
            open_ended.append(i)
    if not inside:
        return 'episodes', ''
    i, step, n = inside[0]
    where = f'{source.file}, episode {i}: {" or ".join(fields.ends)} is set at step {step} of {n}'
    if single * 2 > total:
        raise ValueError(f'{where} and stays so: a success, and no end. Save it under another name')
    if not open_ended:
        return 'steps', f'elements are cut where {" or ".join(fields.ends)} is set inside'
    if len(set(lengths[:-1])) <= 1:  # blocks of a stream
        return 'steps', f'its {len(lengths)} elements of {lengths[0]} steps are joined, and cut at the flags inside'
    raise ValueError(
        f'{where}, and episode {open_ended[0]} ends without it: neither whole episodes nor blocks of equal length. '
        'Save one element an episode'
    )


def cut(source, fields, note):
    """
    rows of many episodes -> yields (place, piece) an episode. The rest behind the last flag is unfinished: left out,
    which note(text) hears of, unless nothing but starts or numbers say where episodes are
    """
    open_rows, n_rows, last = [], 0, {}
    for piece in source.pieces():
        place = f'rows from {n_rows}'
        n = n_actions(source, fields, piece, place)
        ends = flags(source, place, piece, fields.ends, n)
        begin = begins(source, fields, piece, last, n, place)
        boundaries = np.flatnonzero(ends | np.append(begin[1:], False)[:n]) + 1
        if n and begin[0] and open_rows:
            yield joined(open_rows, n_rows)
            open_rows = []
        a = 0
        for b in [*boundaries.tolist(), n]:
            if b > a:
                open_rows.append({name: piece[name][a:b] for name in fields.columns()})
            if b in boundaries and open_rows:
                yield joined(open_rows, n_rows + b)
                open_rows = []
            a = b
        if n:
            last = {name: piece[name][-1] for name in (fields.episode, fields.timestep) if name}
        n_rows += n
    if not open_rows:
        return
    place, rest = joined(open_rows, n_rows)
    n = len(rest[fields.act[0]])
    if fields.ends and not (fields.starts or fields.episode) and n < n_rows:
        note(f'the last {n} steps are cut off by its end, without {" or ".join(fields.ends)}: left out')
        return
    yield place, rest


def begins(source, fields, piece, last, n, place):
    """(n,) bool: does an episode begin with this row?"""
    first = np.zeros(n, bool)
    if fields.starts:
        first |= flags(source, place, piece, [fields.starts], n)
    by_number = fields.episode or (fields.timestep if not (fields.ends or fields.starts) else None)
    if by_number and n:
        values = np.asarray(piece[by_number]).reshape(-1)
        before = np.append([last.get(by_number, values[0])], values[:-1])
        first |= values != before if by_number == fields.episode else values < before
    return first


def joined(rows, end):
    """pieces of one episode -> (place, piece)"""
    n = sum(len(next(iter(piece.values()))) for piece in rows)
    whole = {}
    for name, column in rows[0].items():
        parts = [piece[name] for piece in rows]
        whole[name] = sum(parts, []) if is_text(column) else np.concatenate(parts)
    return f'rows {end - n} to {end - 1}', whole


def n_actions(source, fields, piece, place):
    """rows of a piece; ValueError where a column has another number of them"""
    n = len(piece[fields.act[0]])
    for name in fields.columns():
        if len(piece[name]) != n:
            raise ValueError(
                f'{source.file}, {place}: {name} has {len(piece[name])} rows, and {fields.act[0]} has {n}. '
                'All columns need the same'
            )
    return n


# ------------------------------------------------------------------------------
# episodes


class Import:
    """The episodes of a source; after a first pass, `survey()`, `report()` says what was understood."""

    def __init__(self, source, dataset, spec, options):
        """dataset: its name, for messages; spec: the data set's, or {'flatten': True} where it is made of the data"""
        first = next(iter(source.pieces()), None)
        if first is None:
            raise ValueError(f'{source.file} holds no episodes')
        if 'item 0' in first:
            source = Tuples(source)
            first = next(source.pieces())
        self.source, self.dataset, self.spec, self.options = source, dataset, spec, options
        self.fields = fields_of(source, first, spec, options)
        self.ignored = [name for name in first if name not in (*self.fields.columns(), *IGNORED_QUIETLY)]
        self.assumed_reward = None
        self.layout, self.how = source.layout, ''
        if self.layout == 'elements':
            self.layout, self.how = settle(source, self.fields)
        self.reset()

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

    def episode(self, place, piece):
        """None where it is left out, which is counted"""
        where = f'{self.source.file}, {place}'
        self.check_columns(where, piece)
        T = len(piece[self.fields.act[0]])
        if T == 0:
            self.empty.append(place.removeprefix('episode '))
            return None
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
            act = self.within(place, act) if self.spec['continuous'] else self.labels(where, act)
        if act is None:
            return None
        finite = act[np.isfinite(act).all(1)].astype(float)  # an episode with nan is left out later
        self.integral = self.integral and bool((finite == np.round(finite)).all())
        if act.shape[1] == 1 and len(self.values) < 100:
            self.values.update(np.unique(finite).tolist())
        self.low = np.minimum(self.low, finite.min(0, initial=np.inf))
        self.high = np.maximum(self.high, finite.max(0, initial=-np.inf))
        episode = {'obs': obs.astype(np.float32), 'act': act.astype(np.float32)}
        reward = self.rewards(where, piece, T)
        if reward is not None:
            episode['reward'] = reward
            total = float(reward.sum())
            self.returns = (min(self.returns[0], total), max(self.returns[1], total))
        if self.fields.text:
            episode['text'] = [self.text(piece[self.fields.text])]
        return episode

    def check_columns(self, where, piece):
        """all that the first one has must be there; what it lacks must not be"""
        for name in self.fields.columns():
            if name in piece:
                continue
            if name in self.source.unread:
                raise ValueError(f'{where}, {name}: {self.source.unread[name][1]}. Save an array of numbers')
            raise ValueError(f'{where}: no {name}, which episode 0 has. Save it for all episodes, or for none')
        for what in ('reward', 'to_go'):
            name = next((s for s in SPELLINGS[what] if s in piece), None)
            if name and not getattr(self.fields, what):
                raise ValueError(
                    f'{self.source.file}, episode 0: no {name}, which {where.rpartition(", ")[2]} has. '
                    'Save it for all episodes, or for none'
                )

    def columns(self, where, piece, names, T, one_more=False):
        """-> (T, width), the columns of these names side by side"""
        arrays = []
        for name in names:
            column = piece[name]
            if is_text(column) or column.dtype.kind not in 'biuf':
                raise ValueError(f'{where}, {name}: it holds {kind_of(column)}, where numbers should be. Save numbers')
            n = len(column) if column.ndim else 0
            if n not in (T, T + one_more):
                allowed = f'neither {T}, as of {self.fields.act[0]}, nor {T + 1}' if one_more else f'not {T}'
                hint = ' Transpose it' if column.ndim == 2 and column.shape[1] in (T, T + 1) else ' Save one row a step'
                raise ValueError(f'{where}, {name}: the first axis of {column.shape} is {n}, {allowed}.{hint}')
            if column.ndim > 2 and not self.options.obs_keys:
                raise ValueError(
                    f'{where}, {name}: {column.shape[1:]} {column.dtype} a step: images and grids are not read. '
                    'Save numbers that describe what is seen, (steps, n), or flatten a small grid'
                )
            arrays.append(column[:T].reshape(T, -1))
        if len({a.dtype for a in arrays}) == 1 or len(arrays) == 1:
            return np.concatenate(arrays, 1)
        return np.concatenate([a.astype(np.float64) for a in arrays], 1)

    def actions(self, where, piece, T):
        """(T, n_act), as they stand; words become the place among the data set's act_names"""
        column = piece[self.fields.act[0]]
        if not is_text(column):
            return self.columns(where, piece, self.fields.act, T)
        names = list(self.spec.get('act_names', []))
        odd = [word for word in column if word not in names]
        if odd:
            raise ValueError(
                f'{where}, {self.fields.act[0]}: {odd[0]!r} is none of {", ".join(names)}. Save numbers, or these names'
            )
        return np.array([names.index(word) for word in column])[:, None]

    def check_widths(self, where, obs, act):
        widths = (obs.shape[1], act.shape[1])
        wanted, of = self.widths or widths, 'the first one'
        if 'obs_names' in self.spec:
            n_act = len(self.spec['act_names']) if self.spec['continuous'] else 1
            wanted, of = (len(self.spec['obs_names']), n_act), self.dataset
        self.widths = wanted
        if widths == wanted:
            return
        cure = 'Name the data set it is of: --dataset'
        if not self.spec.get('continuous', True) and widths[1] == len(self.spec['act_names']):
            cure = 'Actions in one-hot form? Save their numbers: actions.argmax(-1)'
        raise ValueError(
            f'{where}: {widths[0]} observations and {widths[1]} actions a step, but {of} has {wanted[0]} and '
            f'{wanted[1]} (columns {", ".join(self.fields.obs)} and {", ".join(self.fields.act)}). {cure}'
        )

    def labels(self, where, act):
        """discrete actions; ValueError where they are no labels of the data set"""
        name = self.fields.act[0]
        odd = act[act != np.round(act)]
        if odd.size:
            raise ValueError(
                f'{where}, {name}: {odd[0]:g} is no label of a discrete action; {self.dataset} has whole numbers. '
                'Save labels, or choose a data set with continuous actions'
            )
        low, high = self.spec['act_low'][0], self.spec['act_high'][0]
        if act.min() >= low and act.max() <= high:
            return act.astype(np.int64)
        values = np.unique(act)
        labels = ', '.join(f'{low + k:g} {label}' for k, label in enumerate(self.spec['act_names']))
        cure = f'Map them before saving: {labels}'
        if act.min() >= low + 1 and act.max() <= high + 1:
            cure = f'Save actions - 1: {labels}'
        said = ', '.join(f'{v:g}' for v in values[:8])
        raise ValueError(f'{where}, {name}: values {said}, but {self.dataset} has {low:g} to {high:g}. {cure}')

    def within(self, place, act):
        """continuous actions; a hair over a bound is rounded to it, more is left out unless they are to be clipped"""
        low, high = np.array(self.spec['act_low']), np.array(self.spec['act_high'])
        over = np.maximum(act - high, low - act)
        if not (over > 0).any():
            return act
        t, k = np.unravel_index(np.nanargmax(over), over.shape)
        bound = high[k] if act[t, k] > high[k] else low[k]
        said = f'{self.spec["act_names"][k]} {act[t, k]:.7g} at step {t} of {place}, its bound is {bound:g}'
        rounding = (over <= ROUNDING * np.maximum(1, np.maximum(abs(low), abs(high)))).all()
        if rounding or self.options.clip_actions:
            self.notes['with actions beyond their bounds, clipped' + (' (rounding)' if rounding else '')] += 1
            return np.clip(act, *inside32(low, high))
        self.beyond.append(place)
        if self.furthest is None or over.max() > self.furthest[0]:
            self.furthest = (over.max(), said)
        return None

    def beyond_note(self):
        n = len(self.beyond)
        return f'{n} episodes left out, their actions are out of range: {self.furthest[1]}. --clip_actions clips them'

    def rewards(self, where, piece, T):
        """(T,), of rewards or of returns to go, which fall by the reward; None where there are none"""
        name = self.fields.reward or self.fields.to_go
        if not name:
            return None if self.assumed_reward is None else np.full(T, self.assumed_reward)
        values = np.asarray(piece[name])
        if values.size != T or values.dtype.kind not in 'biuf':
            raise ValueError(
                f'{where}, {name}: {values.size} values, and there are {T} actions. Save one for each action: '
                'a first or a last one that belongs to no action is to be left out'
            )
        values = values.reshape(-1).astype(np.float64)
        if self.fields.reward:
            return values
        return values - np.append(values[1:], 0)

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
        parts += [f'text {fields.text} ({len(self.texts)} distinct)'] * bool(fields.text)
        parts += [f'ignored {", ".join(self.ignored[:8])}'] * bool(self.ignored)
        lines.append('; '.join(parts))
        lines += [*self.source.notes, self.how] if self.how else list(self.source.notes)
        if fields.to_go and not fields.reward:
            lines.append(f'rewards are the steps of {fields.to_go}, taken as returns without a discount')
        if self.assumed_reward is not None:
            lines.append(f'no rewards in episode 0, nor in any other: {self.assumed_reward:g} a step is assumed')
        if self.empty:
            lines.append(f'{len(self.empty)} without steps left out: {", ".join(self.empty[:8])}')
        for text, count in self.notes.items():
            lines.append(text if text.startswith('the last') else f'{count} episodes {text}')
        if self.beyond:
            lines.append(self.beyond_note())
        return lines


def inside32(low, high):
    """the least and the greatest float32 within these bounds"""
    low32, high32 = low.astype(np.float32), high.astype(np.float32)
    low32 = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
    return low32, np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)


def values_of(found):
    """the actions' values or their range, for the report"""
    if found.widths[1] == 1 and len(found.values) <= 12:
        return ', '.join(f'{v:g}' for v in sorted(found.values))
    return f'{np.min(found.low):.4g} to {np.max(found.high):.4g}'


def kind_of(column):
    return 'text' if is_text(column) else str(column.dtype)
