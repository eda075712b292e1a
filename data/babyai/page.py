"""
babyai on the page: the level as minigrid draws it, what the agent sees in it lighter; its own mission to be asked.
"""

from data import page
from data.babyai.env import BabyAIVec

TILE = 32  # pixels of a cell


class Page(page.Frames):
    """Another start is another level. Only its own mission is judged, by minigrid."""

    speed = 0.25  # a step is a cell

    def __init__(self, kwargs):
        env = BabyAIVec(1, **kwargs)
        env.reset(seed=[0])
        super().__init__(kwargs, self.frame(env), [])

    def frame(self, env):
        return env.levels[0].get_frame(highlight=True, tile_size=TILE)

    def suggestions(self, env):
        return [env.missions[0]]

    def progress(self, env, prompt, bd, path):
        mission = env.missions[0]
        told = super().progress(env, prompt, bd, path)
        if prompt and prompt.lower().strip(' .!') == mission:
            return {**told, 'ok': bool(env.success[0])}
        return {**told, 'readings': [['only the mission of this level is judged', mission]] if prompt else []}
