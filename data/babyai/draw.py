"""Pictures of episodes: the level, the way through it, and what the agent saw last."""

from textwrap import fill

import numpy as np

from data.babyai.env import ACTIONS, BabyAIVec
from data.babyai.views import SIZE, TRIPLES
from data.pictures import save_figure

TILE = 12  # pixels of a cell


def replayed(episode, kwargs):
    """-> the level at first (height, width, 3), places (T + 1, 2) on the way, the level at last, the last view"""
    env = BabyAIVec(1, **kwargs)
    obs, _ = env.reset(seed=[int(episode['seed'])])
    level = env.levels[0]
    first, places = level.get_frame(highlight=False, tile_size=TILE), [level.agent_pos]
    for action in np.asarray(episode['act']).reshape(-1):
        obs, *_ = env.step([int(action)])
        places.append(level.agent_pos)
    last = level.get_frame(highlight=False, tile_size=TILE)
    return first, np.array(places), last, view_of(obs[0])


def view_of(obs):
    """an observation (50,) -> the picture of its cells (7 * TILE, 7 * TILE, 3)"""
    from minigrid.core.grid import Grid

    grid, seen = Grid.decode(TRIPLES[obs[: SIZE**2]].reshape(SIZE, SIZE, 3))
    return grid.render(TILE, (SIZE // 2, SIZE - 1), agent_dir=3, highlight_mask=seen)


def draw_episodes(file, episodes, kwargs):
    """a PNG of up to 12 episodes: the level and the way, the level at the end, what was seen then; the mission"""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.9 * -(-len(episodes) // 2)), layout='constrained')
    axes = figure.subplots(-(-len(episodes) // 2), 6, squeeze=False)
    for ax in axes.flat:
        ax.axis('off')
    for panels, episode in zip(axes.reshape(-1, 3), episodes):
        first, places, last, view = replayed(episode, kwargs)
        for ax, picture in zip(panels, (first, last, view)):
            ax.imshow(picture)
        panels[0].plot(*((places + 0.5) * TILE).T, 'w-', lw=1)
        panels[0].set_title(fill(episode['prompt'] or 'no prompt', 44), fontsize=7, loc='left')
        panels[1].set_title(episode['summary'], fontsize=7, loc='left')
        panels[2].set_title(f'last: {ACTIONS[int(np.ravel(episode["act"])[-1])]}', fontsize=7, loc='left')
    save_figure(file, figure, dpi=80)
