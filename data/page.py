"""
What a data set shows on the page of `sample_policy.py --serve`, and what may be done there: a subclass of Page.

A picture is a list of shapes from back to front, dicts that become JSON, in units of the data set, y up. Colours are as
in CSS: '#1d2433'.
"""

import base64
import io

import numpy as np
from PIL import Image

MOST_BARS = 40  # observations that are drawn
MOST_PIXELS = 480  # of a picture's longer side


def polygon(points, fill='', edge='', width=1):
    """points: [[x, y], ..]; width: of the edge, in pixels"""
    return {'kind': 'polygon', 'points': as_lists(points), 'fill': fill, 'edge': edge, 'width': width}


def box(x0, y0, x1, y1, **colours):
    return polygon([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **colours)


def line(points, edge, width=1, dashed=False):
    return {'kind': 'line', 'points': as_lists(points), 'edge': edge, 'width': width, 'dashed': dashed}


def circle(x, y, radius, fill='', edge='', width=1):
    at = {'x': round(float(x), 3), 'y': round(float(y), 3), 'radius': float(radius)}
    return {'kind': 'circle', **at, 'fill': fill, 'edge': edge, 'width': width}


def text(x, y, words, size, fill='#1d2433'):
    """words, centred at x, y; size: their height in units of the data set"""
    return {'kind': 'text', 'x': float(x), 'y': float(y), 'text': words, 'size': size, 'fill': fill}


def image(pixels, width, height):
    """pixels (h, w, 3) uint8, as large as fits into 0, 0 to width, height; they are sent as JPEG, 480 a side at most"""
    h, w = pixels.shape[:2]
    picture = Image.fromarray(pixels)
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    picture.save(file, 'jpeg', quality=90, subsampling=0)
    scale = min(width / w, height / h)
    x, y = (width - scale * w) / 2, (height - scale * h) / 2
    data = 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()
    return {'kind': 'image', 'x': x, 'y': y, 'width': scale * w, 'height': scale * h, 'data': data}


def reached(names, bd, path):
    """what a descriptor of these names is so far, beside what was asked for -> [[name, value], ..], for `progress`"""
    rows = []
    for k, name in enumerate(names):
        value = f'{path[-1][k]:.4g}'
        if bd is not None:
            value += f', asked for {bd[k]:.4g}, {bd[k] - path[-1][k]:.4g} to go'
        rows.append([name, value])
    return rows


def as_lists(points):
    return [[round(float(x), 3), round(float(y), 3)] for x, y in points]


def cart_and_pole(x, tip_x, tip_y, track):
    """a cart at x on a track from -track to track, and the tip of its pole: of metres"""
    rail = line([[-track, 0], [track, 0]], '#4a5264', 3)
    ends = [line([[end, -0.1], [end, 0.1]], '#4a5264', 3) for end in (-track, track)]
    cart = box(x - 0.25, -0.12, x + 0.25, 0.12, fill='#7fb0da', edge='#1d2433')
    pole = line([[x, 0], [tip_x, tip_y]], '#d8175f', 7)
    return [rail, *ends, cart, pole, circle(x, 0, 0.05, fill='#1d2433')]


class Page:
    """Of one environment's kwargs. env: a vector environment of one, as `environment` makes it."""

    view = (0, 0, 1, 1)  # what the picture shows: x and y at its lower left, x and y at its upper right
    examples = ()  # prompts to try
    seeds = (0, 2**31)  # of `another start`: from the first on, below the second
    speed = 1  # at first, one of 0.25, 1, 2, 4, 8; 1: 25 steps a second
    bd_is_point = False  # is bd a point of the picture? Then a click asks for it, and the path is drawn
    can_put = False  # can an episode begin in any state, as `put` does?
    can_push = False
    can_dream = False  # does `shapes` need observations alone? Then it draws what a model makes up, where it does
    bd_names = ()  # of the descriptor, for its readings

    def __init__(self, kwargs):
        self.kwargs = kwargs

    def environment(self, make):
        """-> a vector environment of one. make(n): the data set's own of n"""
        return make(1)

    def background(self):
        """shapes that stay as they are"""
        return []

    def shapes(self, env, obs):
        """.. of its state now, at which it shows obs (n_obs,). env: None in a dream"""
        return []

    def suggestions(self, env):
        """prompts that go with where this episode began"""
        return []

    def request(self, prompt, bd):
        """
        what a request means -> {'goals': what is to be done in this order, strings; 'avoid': what is not to be done;
        'notes': lines for a person; 'shapes'}
        """
        return {'goals': [], 'avoid': [], 'notes': [], 'shapes': []}

    def progress(self, env, prompt, bd, path):
        """
        how far an episode has come, with path (t + 1, n_bd) -> {'steps': when each goal was reached, None where it was
        not; 'entered': for each of 'avoid', was it done?; 'ok': were this the end, is the request carried out? None:
        nobody knows; 'readings': [[name, value], ..] for a person, strings}
        """
        return {'steps': [], 'entered': [], 'ok': None, 'readings': reached(self.bd_names, bd, path)}

    def state(self, env):
        """-> numbers with which `put` begins where env is now"""
        return []

    def put(self, env, state):
        """
        begin an episode in this state, all of its numbers or the first two, a point of the picture -> observations
        (1, n_obs), bd (1, n_bd). ValueError where that cannot be
        """
        raise ValueError('an episode cannot begin anywhere here')

    def push(self, env, x, y):
        """something else pushes towards a point of the picture, in mid-episode"""
        raise ValueError('nothing can be pushed here')


class Bars(Page):
    """
    The observations, a bar each, where a data set draws nothing: how far each is from its mean in training, in standard
    deviations, to 3 on both sides. spec: the data set's; columns, mean, std: of what was trained on
    """

    can_dream = True

    def __init__(self, kwargs, spec, columns, mean, std):
        super().__init__(kwargs)
        self.columns, self.mean, self.std = columns[:MOST_BARS], mean, std
        self.names = [spec['obs_names'][column] for column in self.columns]
        self.bd_names = spec['bd_names']
        self.n = len(self.names)
        self.wide = max(self.n / 8, 1)  # a deviation, in heights of a bar: no picture is much higher than wide
        self.view = (-6 * self.wide, -1.5, 5 * self.wide, max(self.n, 5))

    def background(self):
        w, shapes = self.wide, [box(*self.view, fill='#ffffff')]
        for x in range(-3, 4):
            shapes.append(line([[w * x, -0.3], [w * x, self.n]], '#d5d9e0', dashed=x != 0))
            shapes.append(text(w * x, -0.6, f'{x:+d}' if x else 'mean', 0.3))
        shapes.append(text(0, -1.1, 'standard deviations in training', 0.3))
        return shapes + [text(-4.5 * w, self.n - k - 0.5, name[:24], 0.3) for k, name in enumerate(self.names)]

    def shapes(self, env, obs):
        shapes, w = [], self.wide
        for k, x in enumerate(obs[self.columns]):
            y = self.n - k - 0.5
            length = w * np.clip((x - self.mean[k]) / max(self.std[k], 1e-9), -3, 3)
            shapes.append(box(min(length, 0), y - 0.3, max(length, 0), y + 0.3, fill='#7fb0da', edge='#3d3fa8'))
            shapes.append(text(4 * w, y, f'{x:.3g}', 0.3))
        return shapes


class Frames(Page):
    """What an environment draws of itself. frame: (h, w, 3) uint8, one of its pictures; bd_names: of the descriptor"""

    def __init__(self, kwargs, frame, bd_names):
        super().__init__(kwargs)
        self.bd_names = bd_names
        self.view = (0, 0, frame.shape[1], frame.shape[0])

    def frame(self, env):
        """-> (h, w, 3) uint8"""
        return env.envs[0].render()

    def shapes(self, env, obs):
        return [image(self.frame(env), *self.view[2:])]
