"""What the files of --archive say of a data set: the spec that is made of them, and what is refused of them."""

import numpy as np

from data.importers.columns import is_text
from data.importers.trajectories import Import, first_of

LABELS = 100  # whole numbers up to here are discrete actions, where no environment says


def surveys_of(sources, bd, options):
    """opened files, and --bd -> an Import of each, after its survey; ValueError for what cannot be read"""
    wanted = {'flatten': True, 'info': bd.removeprefix('info:') if bd.startswith('info:') else ''}
    surveys = [Import(source, 'the first file', wanted, options) for source in sources]
    for survey in surveys:
        refuse_words(survey)
        refuse_pictures(survey, options.obs_keys)
        survey.survey()
    refuse_without_ends(surveys)
    return surveys


def merged(surveys):
    """surveys of files -> a spec"""
    widths = {survey.widths for survey in surveys}
    if len(widths) > 1:
        raise ValueError(f'the files of --archive differ in observations and actions a step: {sorted(widths)}')
    n_obs, n_act = widths.pop()
    low = np.min([survey.low for survey in surveys], 0).astype(float)
    high = np.max([survey.high for survey in surveys], 0).astype(float)
    discrete = n_act == 1 and all(s.integral for s in surveys) and low[0] >= 0 and high[0] < LABELS
    made = {
        'obs_names': names_of(surveys[0].fields.obs, n_obs, 'obs'),
        'act_names': names_of(surveys[0].fields.act, n_act, 'act'),
        'act_low': low.tolist(),
        'act_high': high.tolist(),
        'continuous': not discrete,
        'max_steps': max(max(survey.lengths) for survey in surveys),
    }
    if discrete:
        made |= {'act_names': [str(k) for k in range(int(high[0]) + 1)], 'act_low': [0], 'act_high': [int(high[0])]}
    return made


def names_of(columns, n, what):
    """the file's own names where each number has a column"""
    return list(columns) if len(columns) == n else [f'{what}_{k}' for k in range(n)]


def is_dict(survey):
    """are its observations parts of a dict, several?"""
    return len(survey.fields.obs) > 1 and '/' in survey.fields.obs[0]


def parts_line(survey):
    """which part of a dict became which observations"""
    first = first_of(survey.source)
    said, n = [], 0
    for name in survey.fields.obs:
        width = int(np.prod(first[name].shape[1:]))
        numbers = f'{n}' if width == 1 else f'{n} to {n + width - 1}'
        said.append(f'{name.partition("/")[2]} is {numbers}')
        n += width
    return f'{survey.source.file}: its observations are a dict, side by side by sorted names: {", ".join(said)}'


# ------------------------------------------------------------------------------
# what is refused


def refuse_words(survey):
    """ValueError where actions are words: no spec says which number each is"""
    name = survey.fields.act[0]
    column = first_of(survey.source)[name]
    if is_text(column):
        words = sorted(set(column))
        numbers = ', '.join(f'{k} for {word}' for k, word in enumerate(words[:4]))
        raise ValueError(
            f'{survey.source.file}, {name}: {words[0]!r} is no number. Save numbers, each word its own: {numbers}, ..'
        )


def refuse_pictures(survey, obs_keys):
    """ValueError where pictures or grids are among the parts of a dict, and others could be read"""
    if obs_keys or not is_dict(survey):
        return
    first = first_of(survey.source)
    shapes = {name.partition('/')[2]: first[name].shape[1:] for name in survey.fields.obs}
    grids = [name for name, shape in shapes.items() if sum(axis > 1 for axis in shape) > 1]
    numbers = [name for name in shapes if name not in grids]
    if grids and numbers:
        said = ', '.join(f'{name} {shapes[name]}' for name in grids)
        raise ValueError(
            f'{survey.source.file}: its observations are a dict, and images and grids in it are not read: {said}. '
            f'Name those that are numbers: --obs_keys={",".join(numbers)}'
        )


def refuse_without_ends(surveys):
    """ValueError where the rows of a file are one episode because nothing in it says where one ends"""
    survey, fields = surveys[0], surveys[0].fields
    if len(surveys) > 1 or survey.n > 1 or survey.layout != 'steps' or fields.starts or fields.episode:
        return
    if any(np.any(piece[name]) for name in fields.ends for piece in survey.source.pieces()):
        return
    why = f'{" and ".join(fields.ends)} never set' if fields.ends else 'no column says where'
    raise ValueError(
        f'{survey.source.file}: its {max(survey.lengths)} steps are one episode, as no end is flagged ({why}). Save '
        'terminals, 1 at the last step of each episode, or a column episode, its number; or name a file for each'
    )


def refuse_other_labels(env, space, made, surveys):
    """ValueError where actions of the files are no numbers of a Discrete space's labels, with how they would be"""
    n, last = len(made['act_low']), int(space.n) - 1
    if space.start:
        raise ValueError(f'{env} counts its actions from {space.start}, and not from 0. Wrap it: --env=my.module:make')
    if n > 1:
        one_hot = n == space.n and min(made['act_low']) == 0 and max(made['act_high']) == 1
        cure = 'Name another --env'
        if one_hot:
            cure = 'Actions in one-hot form? Save their numbers: actions.argmax(-1)'
        where = f'{surveys[0].source.file}: ' if surveys else ''
        raise ValueError(f'{where}actions are {n} numbers a step, but {env} has one, 0 to {last}. {cure}')
    for survey in surveys:
        refuse_values(env, last, f'{survey.source.file}, {survey.fields.act[0]}', np.array(sorted(survey.values)))
    whole = all(survey.integral for survey in surveys) if surveys else not made['continuous']
    if not whole or made['act_high'][0] > last:
        raise ValueError(f'{env} has actions 0 to {last}, and the data others. Name another --env')


def refuse_values(env, last, where, values):
    """ValueError where some of an action's values are not among 0, 1, .. last"""
    if np.isin(values, np.arange(last + 1)).all():
        return
    said = ', '.join(f'{value:g}' for value in values[:8]) + ', ..' * (len(values) > 8)
    cure = f'Map them to 0 .. {last} before saving, or name another --env'
    if (values != np.round(values)).any():
        cure = 'Numbers with fractions are no labels: name another --env'
    elif values.min() == 1 and values.max() == last + 1:
        cure = 'Save actions - 1'
    raise ValueError(f'{where}: values {said}, but {env} has 0 to {last}. {cure}')
