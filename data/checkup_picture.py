"""The picture of a check-up (checkup.py): six panels, and below them its page and what it found."""

from textwrap import wrap

import numpy as np

from data import pictures

INK, GREY, BLUE, RED = '#1d2433', '#a9afbd', '#3d3fa8', '#c4232f'
ROWS = 24  # numbers of an observation that are drawn


def draw(file, title, checkup, redundancy, lines, findings, summary):
    """
    A PNG. checkup: a Checkup; redundancy: a Redundancy of redundant.py; lines: (label, line) of the page; findings:
    lines; summary: what stands in their place where there are none
    """
    from matplotlib.figure import Figure

    rows = [(label, line, INK) for label, line in lines]
    rows += [('!', line, RED) for line in findings] or [('', summary, BLUE)]
    rows = [(label, wrap(line, 150), colour) for label, line, colour in rows]
    below = 0.3 + 0.2 * sum(len(parts) for _, parts, _ in rows)  # inches
    figure = Figure(figsize=(12, 6.6 + below), layout='constrained', facecolor='white')
    panels, foot = figure.subfigures(2, 1, height_ratios=(6.6, below))
    panels.suptitle('\n'.join(wrap(title, 110)), size=12, weight='bold', color=INK, parse_math=False)
    panels.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    axes = panels.subplots(2, 3).flat
    draw_lengths(next(axes), checkup)
    draw_columns(next(axes), checkup.obs, 'observations', checkup.obs.low, checkup.obs.high)
    draw_actions(next(axes), checkup)
    draw_returns(next(axes), checkup)
    draw_texts(next(axes), checkup)
    draw_redundancy(next(axes), redundancy)
    write(foot, rows, below)
    pictures.save_figure(file, figure, dpi=110)


def write(foot, rows, height):
    """rows of (label, lines, colour) in a figure of this height in inches"""
    y = 1 - 0.1 / height
    for label, parts, colour in rows:
        style = {'size': 9, 'color': colour, 'va': 'top', 'parse_math': False}
        foot.text(0.115, y, label, ha='right', weight='bold', **style)
        for part in parts:
            foot.text(0.125, y, part, **style)
            y -= 0.2 / height


def titled(ax, title):
    ax.set_title(title, size=10, color=INK, loc='left', parse_math=False)
    ax.spines[['top', 'right']].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)


def histogram(ax, values, title, weights=None):
    low, high = min(values), max(values)
    bins = 30
    if weights:  # whole numbers
        bins = np.linspace(low - 0.5, high + 0.5, min(30, high - low + 1) + 1)
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.hist(values, bins=bins, weights=weights, color=BLUE)
    ax.yaxis.get_major_locator().set_params(integer=True)
    titled(ax, title)


def nothing(ax, title):
    """a panel of which there is nothing to show"""
    titled(ax, title)
    ax.axis('off')


def draw_lengths(ax, checkup):
    histogram(ax, list(checkup.lengths), 'episodes by their steps', list(checkup.lengths.values()))


def draw_columns(ax, columns, title, low, high):
    """where the values of each number lie between low and high, (n,): a row each"""
    rows = np.array(columns.rows.sample())[:, :ROWS]  # (m, n)
    names, low, high = columns.names[:ROWS], low[:ROWS], high[:ROWS]
    share = (rows - low) / np.maximum(high - low, 1e-30)
    image = np.array([np.histogram(column, 30, (0, 1))[0] for column in share.T])  # (n, 30)
    image = np.sqrt(image / image.max(1, keepdims=True).clip(1))  # rare values are seen, too
    ax.imshow(image, aspect='auto', cmap='Purples', extent=(0, 1, len(names) - 0.5, -0.5), interpolation='nearest')
    still = columns.constant()[:ROWS]
    colours = [RED if k else INK for k in still]
    more = f', the first {ROWS} of {len(columns.names)}' if len(columns.names) > ROWS else ''
    titled(ax, f'{title}{more}')
    ax.set_xticks([])
    ax.set_yticks(range(len(names)), [str(name)[:16] for name in names], parse_math=False)
    ranges = [f'{a:.3g}' if a == b else f'{a:.3g} to {b:.3g}' for a, b in zip(low, high)]
    for k, (label, colour) in enumerate(zip(ax.get_yticklabels(), colours)):
        label.set(color=colour, size=7)
        ax.text(1.02, k, ranges[k], size=7, color=colour, va='center')
    ax.spines[:].set_visible(False)


def draw_actions(ax, checkup):
    if checkup.continuous:
        draw_columns(ax, checkup.act, 'actions, between their bounds', checkup.low, checkup.high)
        return
    names = checkup.meta['act_names']
    counts = [checkup.labels[k] for k in range(int(checkup.low[0]), int(checkup.low[0]) + len(names))]
    ax.bar(range(len(names)), counts, color=BLUE)
    ax.set_xticks(range(len(names)), names, parse_math=False)
    titled(ax, 'actions: steps')


def draw_returns(ax, checkup):
    """or what there is of lengths of texts"""
    if checkup.returns.items:
        histogram(ax, checkup.returns.sample(), 'episodes by their return')
    elif checkup.text_lengths:
        histogram(ax, list(checkup.text_lengths), 'texts by their words', list(checkup.text_lengths.values()))
    else:
        nothing(ax, 'no rewards')


def draw_texts(ax, checkup):
    """the most frequent texts"""
    if not checkup.text_lengths:
        nothing(ax, 'no texts')
        return
    frequent = sorted(checkup.texts.values(), key=lambda entry: -entry['splits'].total())[:10]
    counts = [value['splits'].total() for value in frequent]
    ax.barh(range(len(frequent)), counts, color='#c9cae8')
    for k, value in enumerate(frequent):
        label = value['text'] if len(value['text']) < 48 else f'{value["text"][:46]}..'
        ax.text(0.02 * counts[0], k, label, size=7, color=INK, va='center', parse_math=False)
    ax.invert_yaxis()
    ax.set_yticks([])
    ax.xaxis.get_major_locator().set_params(integer=True)
    titled(ax, f'episodes of the most frequent of {len(checkup.texts)} texts')


def draw_redundancy(ax, redundancy):
    if not redundancy.kind:
        nothing(ax, '\n'.join(wrap(f'words: {redundancy.why}', 45)))
        return
    scores = [100 * redundancy.accuracy['mean'], 100 * redundancy.chance['mean']]
    redundant_words = redundancy.verdict.endswith('redundant')
    ax.bar([0, 1], scores, color=[RED if redundant_words else BLUE, GREY], width=0.6)
    error = [[scores[0] - 100 * redundancy.accuracy['low']], [100 * redundancy.accuracy['high'] - scores[0]]]
    ax.errorbar([0], scores[:1], error, color=INK, capsize=4)
    ax.set_xticks([0, 1], ['told by the first observation', 'guessed'])
    ax.set_ylim(0, 105)
    titled(ax, f'words: {redundancy.verdict} (% right, {redundancy.n_classes} {redundancy.kind}, n={redundancy.n})')
