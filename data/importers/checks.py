"""Does an episode fit? Its columns beside each other, and beside the data set's spec: ValueError with the cure."""

import numpy as np

from data.importers.columns import SPELLINGS, is_text

ROUNDING = 1e-5  # how far an action may be over a bound, as a share of it, and is rounded to it


def complete(where, piece, fields, source):
    """ValueError unless a piece has all that the first one has, and no rewards that the first one lacks"""
    for name in fields.columns():
        if name in piece:
            continue
        if name in source.unread:
            raise ValueError(f'{where}, {name}: {source.unread[name][1]}. Save an array of numbers')
        raise ValueError(f'{where}: no {name}, which episode 0 has. Save it for all episodes, or for none')
    for what in ('reward', 'to_go'):
        name = next((s for s in SPELLINGS[what] if s in piece), None)
        if name and not getattr(fields, what):
            raise ValueError(
                f'{source.file}, episode 0: no {name}, which {where.rpartition(", ")[2]} has. '
                'Save it for all episodes, or for none'
            )


def in_order(where, piece, fields, T):
    """ValueError where the number of a step is less than that of the step before"""
    name = fields.timestep
    numbers = np.asarray(piece[name]) if name else np.zeros(0)
    if numbers.size != T or numbers.dtype.kind not in 'iuf':
        return
    numbers = numbers.reshape(-1)
    falls = np.flatnonzero(numbers[1:] < numbers[:-1])
    if not falls.size:
        return
    row = int(falls[0]) + 1
    of, cure = '', 'Sort the rows by episode and step, or flag where the episode before ends'
    if fields.episode:
        number = str(np.asarray(piece[fields.episode]).reshape(-1)[0]).removesuffix('.0')
        of, cure = f' of {fields.episode} {number}', 'Sort the rows by episode and step'
    raise ValueError(
        f'{where}: {name} falls from {numbers[row - 1]:g} to {numbers[row]:g} at row {row}{of}: its steps are not in '
        f'order. {cure}, or rename {name} if it counts no steps'
    )


def side_by_side(where, piece, names, T, act, one_more=False, flatten=False):
    """
    Columns of numbers -> (T, width). one_more: there may be a last observation, which is left out; flatten: grids, too;
    act: the name of the actions, of which there are T
    """
    arrays = []
    for name in names:
        column = piece[name]
        if is_text(column) or column.dtype.kind not in 'biuf':
            raise ValueError(f'{where}, {name}: it holds {kind_of(column)}, where numbers should be. Save numbers')
        n = len(column) if column.ndim else 0
        if n not in (T, T + one_more):
            allowed = f'neither {T}, as of {act}, nor {T + 1}' if one_more else f'not {T}'
            hint = ' Transpose it' if column.ndim == 2 and column.shape[1] in (T, T + 1) else ' Save one row a step'
            raise ValueError(f'{where}, {name}: the first axis of {column.shape} is {n}, {allowed}.{hint}')
        if not flatten and sum(axis > 1 for axis in column.shape[1:]) > 1:
            raise ValueError(f'{where}, {name}: {column.shape[1:]} {column.dtype} a step: {grid_cure(name == act)}')
        arrays.append(column[:T].reshape(T, -1))
    if len(arrays) == 1:
        return arrays[0]
    if len({a.dtype for a in arrays}) == 1:
        return np.concatenate(arrays, 1)
    return np.concatenate([a.astype(np.float64) for a in arrays], 1)


def grid_cure(is_action):
    if is_action:
        return 'one action a step is read, and no chunks of them. Save the first of each, (steps, n)'
    return 'images and grids are not read. Save numbers that describe what is seen, (steps, n), or flatten a small grid'


def as_wide(where, widths, wanted, of, fields, one_hot):
    """ValueError unless (observations, actions) a step are as many as `of` has. one_hot: as wide as the labels are"""
    if widths == wanted:
        return
    cure = 'Name the data set it is of: --dataset'
    if one_hot:
        cure = 'Actions in one-hot form? Save their numbers: actions.argmax(-1)'
    raise ValueError(
        f'{where}: {widths[0]} observations and {widths[1]} actions a step, but {of} has {wanted[0]} and '
        f'{wanted[1]} (columns {", ".join(fields.obs)} and {", ".join(fields.act)}). {cure}'
    )


def numbers_of_words(where, name, words, labels):
    """a list of words -> (T, 1), their places among a data set's labels"""
    odd = [word for word in words if word not in labels]
    if odd:
        raise ValueError(f'{where}, {name}: {odd[0]!r} is none of {", ".join(labels)}. Save numbers, or these names')
    return np.array([labels.index(word) for word in words])[:, None]


def labels(where, name, act, spec, dataset):
    """discrete actions; ValueError where they are no labels of the data set"""
    odd = act[act != np.round(act)]
    if odd.size:
        raise ValueError(
            f'{where}, {name}: {odd[0]:g} is no label of a discrete action; {dataset} has whole numbers. '
            'Save labels, or choose a data set with continuous actions'
        )
    low, high = spec['act_low'][0], spec['act_high'][0]
    if act.min() >= low and act.max() <= high:
        return act.astype(np.int64)
    values = np.unique(act)
    meaning = ', '.join(f'{low + k:g} {label}' for k, label in enumerate(spec['act_names']))
    cure = f'Map them before saving: {meaning}'
    if act.min() >= low + 1 and act.max() <= high + 1:
        cure = f'Save actions - 1: {meaning}'
    said = ', '.join(f'{v:g}' for v in values[:8])
    raise ValueError(f'{where}, {name}: values {said}, but {dataset} has {low:g} to {high:g}. {cure}')


def inside32(low, high):
    """the least and the greatest float32 within these bounds"""
    low32, high32 = low.astype(np.float32), high.astype(np.float32)
    low32 = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
    return low32, np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)


def rewards(where, piece, fields, T):
    """(T,), of rewards or of returns to go, which fall by the reward"""
    name = fields.reward or fields.to_go
    values = np.asarray(piece[name])
    if values.dtype.kind not in 'biuf':
        raise ValueError(f'{where}, {name}: it holds {kind_of(piece[name])}, where numbers should be. Save numbers')
    if values.size != T:
        raise ValueError(
            f'{where}, {name}: {values.size} values, and there are {T} actions. Save one for each action: '
            'a first or a last one that belongs to no action is to be left out'
        )
    values = values.reshape(-1).astype(np.float64)
    if fields.reward:
        return values
    return values - np.append(values[1:], 0)


def kind_of(column):
    return 'text' if is_text(column) else str(column.dtype)
