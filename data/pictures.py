"""
Pictures that data sets share: files that are never half-written, and a panel for each episode.
"""

import os


def save(file, write):
    """write(name) a file under another name first: a reader never gets half of it"""
    write(f'{file}.tmp')
    os.replace(f'{file}.tmp', file)


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
    save(file, lambda f: figure.savefig(f, dpi=100, format='png'))
