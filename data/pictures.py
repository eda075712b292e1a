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

    rows = -(-len(episodes) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout='constrained')
    for ax, episode in zip(figure.subplots(rows, columns, squeeze=False).flat, episodes):
        draw(ax, episode)
    ax.legend(fontsize=7)
    save(file, lambda f: figure.savefig(f, dpi=100, format='png'))
