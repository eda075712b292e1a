"""
Which column of somebody's file is what: by its name, by the numbers that names end in, by the data set's own names.
"""

import re
from dataclasses import dataclass, field

SPELLINGS = {
    'obs': ('observations', 'observation', 'obs', 'observation.state', 'states', 'state', 'features'),
    'act': ('actions', 'action', 'acts', 'act'),
    'reward': ('rewards', 'reward', 'rews', 'rew', 'next.reward'),
    'to_go': ('returns_to_go', 'return_to_go', 'rtg', 'rtgs', 'to_go'),
    'episode': ('episode_index', 'episode', 'episode_id', 'episode_number', 'traj_id', 'trajectory', 'ep'),
    'starts': ('episode_starts', 'is_first', 'starts'),
    'text': ('mission', 'missions', 'instruction', 'language_instruction', 'task', 'prompt', 'text'),
    'timestep': ('timesteps', 'timestep', 'time_step', 't', 'step', 'steps', 'step_index', 'step_id', 'frame_index'),
}
ENDS = ('terminals', 'terminal', 'terminations', 'termination', 'terminated', 'dones', 'done', 'is_last', 'next.done')
TIMEOUTS = ('timeouts', 'timeout', 'truncations', 'truncation', 'truncated')
ENDS += ('is_terminal', *TIMEOUTS)
NUMBERED = {'obs': r'(?:observations?|obs|states?|o|s)', 'act': r'(?:actions?|acts?|a)'}
NUMBER = r'[_.\[ ]?(\d+)\]?$'


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
    info: str | None = None  # what an environment tells of a step, which bd is made of
    ends: list = field(default_factory=list)

    def columns(self):
        one = (self.reward, self.to_go, self.episode, self.starts, self.text, self.timestep, self.info)
        return [*self.obs, *self.act, *(name for name in one if name), *self.ends]

    def restarting(self):
        """the column that begins again with each episode, where no other says it; or None"""
        return None if self.ends or self.starts or self.episode else self.timestep

    def say_where_episodes_end(self):
        return bool(self.ends or self.starts or self.episode or self.timestep)


def is_text(column):
    return isinstance(column, list)


def text_of(value):
    return value.decode('utf-8', 'replace') if isinstance(value, bytes) else str(value)


def words_or_numbers(array):
    """an array of strings, one a step, -> a list of them; one of numbers as it is; ValueError"""
    if array.dtype.kind not in 'SU':
        return array
    if array.ndim > 1:
        raise ValueError(f'it holds strings of shape {array.shape}, where one a step should be')
    return [text_of(word) for word in array.reshape(-1).tolist()]


def fields_of(source, piece, spec, options):
    """the first piece of a source -> Fields; ValueError. spec: the data set's, or {}"""
    spelt = {}
    for name, spellings in SPELLINGS.items():
        spelt[name] = next((s for s in spellings if s in piece), None)
    obs = observations(source, piece, spelt, spec, options)
    act = [spelt['act']] if spelt['act'] else numbered(source, piece, 'act') or named(piece, spec.get('act_names', []))
    refuse_unread(source, piece, {**spelt, 'obs': obs, 'act': act})
    refuse_lists_in_words(source, piece, spelt)
    if not obs or not act:
        missing = 'observations' if not obs else 'actions'
        raise ValueError(
            f'{source.file}: no {missing} among its columns {listed(map(repr, piece), 12)}. '
            f'Call them {missing}, or {missing}_0, {missing}_1, .. where each number has a column'
        )
    texts = [key for key in piece if is_text(piece[key]) and key.split('/')[-1] in SPELLINGS['text']]
    names = {name: spelt[name] for name in ('reward', 'to_go', 'episode', 'starts', 'timestep')}
    names['timestep'] = names['timestep'] if names['timestep'] not in (*obs, *act) else None
    ends = [key for key in ENDS if key in piece and not is_text(piece[key]) and piece[key].ndim]
    if names['episode']:  # says all of it
        ends = []
    info = info_column(source, piece, spec.get('info'))
    return Fields(obs, act, text=texts[0] if texts else None, ends=ends, info=info, **names)


def info_column(source, piece, key):
    """-> the column of what an environment tells under this key; None where none is asked for"""
    if not key:
        return None
    spelt = [name for name in (f'infos/{key}', f'info/{key}', f'env_infos/{key}', key) if name in piece]
    if not spelt:
        there = listed(name for name in piece if not is_text(piece[name]))
        raise ValueError(f'{source.file}: no column infos/{key}, info/{key} or {key}. There are: {there}. Set --bd')
    return spelt[0]


def refuse_unread(source, piece, found):
    """ValueError where a column holds no numbers that means what no other column does. found: {meaning: column}"""
    found['ends'] = found['episode'] or any(name in piece for name in ENDS)
    words = next((name for name in ENDS if is_text(piece.get(name))), None)
    if words and not found['episode'] and all(is_text(piece[name]) for name in ENDS if name in piece):
        raise ValueError(f'{source.file}, {words}: {piece[words][0]!r}, where a flag is 0 or 1. Save True or False')
    wanted = {what: SPELLINGS[what] for what in ('obs', 'act', 'reward', 'to_go', 'episode', 'starts')}
    wanted |= {'ends': ENDS}
    for what, spellings in wanted.items():
        name = next((s for s in spellings if s in source.unread), None)
        if name and not found[what]:
            i, why = source.unread[name]
            raise ValueError(f'{source.file}, episode {i}, {name}: {why}. Save an array of numbers')


def refuse_lists_in_words(source, piece, spelt):
    """ValueError where a cell of a csv holds a whole list, which is text there"""
    for name in filter(None, (spelt['obs'], spelt['act'])):
        if is_text(piece[name]) and piece[name] and piece[name][0].lstrip().startswith(('[', '(', 'array(')):
            raise ValueError(
                f'{source.file}, {name}: a cell holds a list, as text ({piece[name][0][:24]!r}). Save a column '
                f'for each number, {name}_0, {name}_1, .., or Parquet, whose cells can be lists'
            )


def listed(words, most=8):
    """the first of them"""
    words = list(words)
    return ', '.join(words[:most]) + f', and {len(words) - most} more' * (len(words) > most)


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
        return numbered(source, piece, 'obs') or named(piece, spec.get('obs_names', []))
    inside = [key for key in piece if key.startswith(prefixes[0]) and not is_text(piece[key])]
    if len(inside) == 1 or spec.get('flatten'):  # as gymnasium.spaces flattens a Dict: by its sorted keys
        return sorted(inside)
    said = ', '.join(f'{key.removeprefix(prefixes[0])} {piece[key].shape[1:]}' for key in inside)
    which = ','.join(key.removeprefix(prefixes[0]) for key in inside)
    raise ValueError(
        f'{source.file}: its observations are a dict of {said}. Say which, in this order: --obs_keys={which}'
    )


def numbered(source, piece, what):
    """columns obs_0, obs_1, .. in the order of their numbers, which count up without a gap"""
    found = {}
    for key in piece:
        match = re.match(NUMBERED[what] + NUMBER, key)
        if match:
            found[int(match[1])] = key
    numbers = sorted(found)
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        there = ', '.join(found[n] for n in numbers)
        raise ValueError(f'{source.file}: its columns {there} leave out a number. Save all of them')
    return [found[n] for n in numbers]


def named(piece, names):
    """columns with the data set's own names, all of them or none"""
    return list(names) if names and all(name in piece for name in names) else []
