"""
toy_nav on the page: the room and the robot as shapes, what a prompt asks for, a robot that is put down elsewhere.
"""

from functools import lru_cache

import numpy as np
from contourpy import contour_generator

from data import page
from data.page import box, circle, line, polygon, text
from data.toy_nav.draw import BAD, END, INK, REQUESTED, WALL
from data.toy_nav.env import ANYWHERE
from data.toy_nav.icons import TILES, icon
from data.toy_nav.itinerary import entered, not_understood, parse

EXAMPLES = (
    'go north of the fridge',
    'fan, then bed',
    'pass by the stove, then stop near the bed',
    'head for the cabinet, but keep off the red tile',
    'First pass south of the bathtub, then drive east of the fan and finally stop west of the cabinet.',
)


class Page(page.Page):
    """A request is a prompt, a point to end at, or both. A state is a pose: x, y, cos and sin of the heading."""

    examples = EXAMPLES
    seeds = (ANYWHERE, 2**32)
    bd_is_point = True
    can_put = True

    def __init__(self, kwargs, places):
        super().__init__(kwargs)
        self.places, self.world = places, places.world
        self.view = (0, 0, self.world.size, self.world.size)
        self.parsed = lru_cache(maxsize=256)(lambda prompt: parse(prompt, places))

    def background(self):
        world, t = self.world, self.world.tile_size
        shapes = []
        for k, name in enumerate(np.ravel(world.tile_names)):
            x, y = world.border + k % 3 * t, world.border + (2 - k // 3) * t
            shapes.append(box(x, y, x + t, y + t, fill=TILES.get(name, '#ededf0'), edge='#ffffff'))
            shapes.append(text(x + 8, y + t - 4, str(name), 4.5, fill='#5b6170'))
        shapes += [box(*wall, fill=WALL) for wall in world.walls]
        for name, (x, y) in world.objects.items():
            shapes += [as_polygon(patch) for patch in icon(name, x, y)]
            shapes.append(text(x, y - 9, name, 5))
        return shapes

    def shapes(self, env, obs):
        x, y, c, s = env.state[0]
        r = self.world.radius
        body = circle(x, y, r, fill=END, edge='#ffffff', width=2)
        return [body, line([[x, y], [x + r * c, y + r * s]], '#ffffff', 3)]

    def request(self, prompt, bd):
        shapes, near = [], []
        if bd is not None:
            x, y = bd
            if self.world.clearance(np.array([x]), np.array([y]))[0] < self.world.radius:
                near = ['the point asked for is in a wall, or at one: it can only come near']
            shapes += [line([[x - 4, y - 4], [x + 4, y + 4]], INK, 3), line([[x - 4, y + 4], [x + 4, y - 4]], INK, 3)]
        itinerary = self.parsed(prompt) if prompt else None
        if not itinerary:
            known = self.places.made_of()
            notes = [f'cannot be judged: it names no place, or not in a clear order. {known}'] if prompt else []
            return {'goals': [], 'avoid': [], 'notes': near + notes, 'shapes': shapes}
        missed = not_understood(prompt, self.places)
        notes = [f'not understood, and not judged: {", ".join(missed)}'] if missed else []
        for place in itinerary.avoid:
            shapes += outline(self.places.mask(place), BAD)
        for number, place in enumerate(itinerary.places, 1):
            mask = self.places.mask(place)
            shapes += [*outline(mask, REQUESTED), *numbered(mask, number)]
        goals, avoid = list(map(str, itinerary.places)), list(map(str, itinerary.avoid))
        return {'goals': goals, 'avoid': avoid, 'notes': near + notes, 'shapes': shapes}

    def progress(self, env, prompt, bd, path):
        readings = []
        if bd is not None:
            readings.append(['from the point asked for', f'{np.hypot(*(path[-1] - np.array(bd))):.1f} units'])
        itinerary = self.parsed(prompt) if prompt else None
        if not itinerary:
            return {'steps': [], 'entered': [], 'ok': None, 'readings': readings}
        verdict = itinerary.match(path, self.places)
        found = [entered(place, path, self.places) for place in itinerary.avoid]
        return {'steps': verdict['steps'], 'entered': found, 'ok': verdict['carried_out'], 'readings': readings}

    def state(self, env):
        return env.state[0].tolist()

    def put(self, env, state):
        pose = np.array([*state, *env.state[0, len(state) :]], dtype=float)
        if pose.shape != (4,) or not np.isfinite(pose).all() or not 0.99 < np.hypot(*pose[2:]) < 1.01:
            raise ValueError('a start is x, y, and the cos and sin of the heading')
        inside = 0 < pose[:2].min() and pose[:2].max() < self.world.size
        if not inside or self.world.clearance(*pose[:2, None])[0] < self.world.radius - 1e-6:
            raise ValueError(f'the robot does not fit there: ({pose[0]:.0f}, {pose[1]:.0f}) is in a wall, or at one')
        env.place(pose[None])
        return env.observe(), env.where()


def as_polygon(patch):
    """a patch of matplotlib, with its thin edge"""
    points = patch.get_transform().transform_path(patch.get_path()).to_polygons()[0]
    r, g, b, _ = (round(255 * x) for x in patch.get_facecolor())
    return polygon(points, fill=f'#{r:02x}{g:02x}{b:02x}', edge=INK, width=0.5)


def outline(mask, colour):
    """the outline of mask (size, size) [y, x]"""
    cells = np.arange(len(mask)) + 0.5
    lines = contour_generator(cells, cells, mask.astype(float)).lines(0.5)
    return [line(points, colour, 2, dashed=True) for points in lines]


def numbered(mask, number):
    """the number of a place, in its middle; none where it has no floor"""
    y, x = np.nonzero(mask)
    if not len(x):
        return []
    nearest = np.hypot(x - x.mean(), y - y.mean()).argmin()
    x, y = x[nearest] + 0.5, y[nearest] + 0.5
    return [circle(x, y, 5, fill='#ffffff', edge=REQUESTED, width=2), text(x, y, str(number), 7, fill=REQUESTED)]
