"""Where episodes end: at flags, starts, numbers of episodes, times that begin again; or each row is one."""

import numpy as np

from data.importers.columns import is_text


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
    open_rows, n_rows, last, numbers = [], 0, {}, set()
    for piece in source.pieces():
        place = f'rows from {n_rows}'
        n = n_actions(source, fields, piece, place)
        ends = flags(source, place, piece, fields.ends, n)
        begin = begins(source, fields, piece, last, n, place, numbers)
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


def begins(source, fields, piece, last, n, place, numbers):
    """
    (n,) bool: does an episode begin with this row? numbers: those of the episodes so far, a set that is added to; one
    that comes back is refused: episodes whose rows are not in order would be cut up
    """
    first = np.zeros(n, bool)
    if fields.starts:
        first |= flags(source, place, piece, [fields.starts], n)
    by_number = fields.episode or fields.restarting()
    if by_number and n:
        values = np.asarray(piece[by_number]).reshape(-1)
        if values.dtype.kind == 'f' and np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise ValueError(
                f'{source.file}, {place}: {by_number} is nan at row {row} of these. Give each row a number'
            )
        before = np.append([last.get(by_number, values[0])], values[:-1])
        if by_number == fields.timestep:
            return first | (values < before)
        changed = values != before
        first |= changed
        add_numbers(f'{source.file}, {place}: {by_number}', values[changed | (np.arange(n) == 0) & (not last)], numbers)
    return first


def add_numbers(name, new, numbers):
    """new numbers of episodes to those before, a set; ValueError where one comes back"""
    for number in new.tolist():
        if number in numbers:
            shown = str(number).removesuffix('.0')
            cure = 'Sort the rows by episode and time, or give each episode a number of its own'
            raise ValueError(f'{name} {shown} comes back after others. {cure}')
        numbers.add(number)


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
# a row an episode


def is_stack(piece, fields):
    """are its rows episodes, observations (episodes, steps, n) and actions (episodes, steps, ..)?"""
    if len(fields.obs) > 1 or is_text(piece[fields.act[0]]):
        return False
    obs, act = piece[fields.obs[0]], piece[fields.act[0]]
    if obs.ndim != 3 or act.ndim not in (2, 3) or len(obs) != len(act):
        return False
    return act.shape[1] > 1 and obs.shape[1] - act.shape[1] in (0, 1)


class Stack:
    """A source whose rows are episodes of one length, as one of elements."""

    layout = 'elements'

    def __init__(self, source, piece, fields):
        self.source, self.file, self.unread, self.kind = source, source.file, source.unread, source.kind
        self.act = fields.act[0]
        shape = ('episodes', *piece[fields.obs[0]].shape[1:])
        self.notes = [*source.notes, f'{fields.obs[0]} are ({", ".join(map(str, shape))}): each row is an episode']

    def pieces(self):
        for piece in self.source.pieces():
            n = len(piece[self.act])
            columns = {name: c for name, c in piece.items() if not is_text(c) and c.ndim > 1 and len(c) == n}
            texts = {name: words for name, words in piece.items() if is_text(words) and len(words) == n}
            for i in range(n):
                numbers = {name: column[i] for name, column in columns.items()}
                yield numbers | {name: [words[i]] for name, words in texts.items()}
