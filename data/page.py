"""
What a data set shows on the page of `sample_policy.py --serve`, and what may be done there: a subclass of Page.

A picture is a list of shapes from back to front, dicts that become JSON, in units of the data set, y up. Colours are as
in CSS: '#1d2433'.
"""


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
    """Of one environment's kwargs. env: a vector environment of one, as make_vec(1) returns it."""

    view = (0, 0, 1, 1)  # what the picture shows: x and y at its lower left, x and y at its upper right
    examples = ()  # prompts to try
    seeds = (0, 2**31)  # of `another start`: from the first on, below the second
    bd_is_point = False  # is bd a point of the picture? Then a click asks for it, and the path is drawn
    can_put = False  # can an episode begin in any state, as `put` does?
    can_push = False

    def __init__(self, kwargs):
        self.kwargs = kwargs

    def background(self):
        """shapes that stay as they are"""
        return []

    def shapes(self, env):
        """.. of its state now"""
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
        return {'steps': [], 'entered': [], 'ok': None, 'readings': []}

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
