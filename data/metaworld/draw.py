"""Pictures of episodes: where the hand and the things went, and the goal, from above and from the side."""

from textwrap import fill

import numpy as np

from data.pictures import save_figure

VIEWS = {'from above': (0, 1), 'from the side': (1, 2)}  # which of x, y, z
PARTS = {'hand': 0, 'thing': 4, 'second thing': 11}  # where each begins in an observation
GOAL = 36


def draw_episodes(file, episodes, kwargs):
    """a PNG of up to 12 episodes, in metres; of each two views, the prompt, and how it ended"""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.9 * -(-len(episodes) // 3)), layout='constrained')
    axes = figure.subplots(-(-len(episodes) // 3), 6, squeeze=False)
    for ax in axes.flat:
        ax.axis('off')
    for panels, episode in zip(axes.reshape(-1, 2), episodes):
        for ax, view in zip(panels, VIEWS):
            paths(ax, np.asarray(episode['obs']), *VIEWS[view])
            ax.set_xlabel(view, fontsize=6)
        panels[0].set_title(fill(episode['prompt'] or 'no prompt', 34), fontsize=7, loc='left')
        panels[1].set_title(f'{episode["summary"]}\n{episode.get("kind") or ""}', fontsize=7, loc='left')
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=4, fontsize=7)
    save_figure(file, figure, dpi=80)


def paths(ax, obs, across, up):
    """one view of an episode's observations (T, 39)"""
    ax.axis('on')
    ax.tick_params(labelsize=5)
    ax.set_aspect('equal', 'datalim')
    for name, first in PARTS.items():
        if obs[:, first : first + 3].any():  # zeros: there is none
            ax.plot(obs[:, first + across], obs[:, first + up], '.-', ms=2, lw=1, label=name)
    ax.plot(obs[0, GOAL + across], obs[0, GOAL + up], 'r*', label='goal')
