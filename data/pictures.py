"""
Files that are never half-written, and pictures that data sets share: a panel for each episode.
"""

import os
from pathlib import Path


def save(file, write):
    """write(name) a file under another name first: a reader never gets half of it"""
    write(f'{file}.tmp')
    os.replace(f'{file}.tmp', file)


def save_text(file, text):
    save(file, lambda f: Path(f).write_text(text, encoding='utf-8'))


def save_figure(file, figure, dpi=120):
    """a figure of matplotlib as a PNG"""
    save(file, lambda f: figure.savefig(f, dpi=dpi, format='png'))


def panels(file, episodes, draw, columns=3):
    """a PNG with a panel for each episode, which draw(ax, episode) fills; the last has the legend"""
    from matplotlib.figure import Figure

    columns = min(columns, len(episodes))
    rows = -(-len(episodes) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax, episode in zip(axes, episodes):
        draw(ax, episode)
    ax.legend(fontsize=7)
    for ax in axes[len(episodes) :]:
        ax.set_axis_off()
    save_figure(file, figure, dpi=100)
