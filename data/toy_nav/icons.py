"""
Colours of toy_nav's tiles, and icons of its objects.

An icon is a list of parts from back to front: a colour, and numbers in room units around the object. 3 numbers are a
disc (x, y, radius), 4 a box (x_min, y_min, x_max, y_max), more are the corners of a polygon.
"""

from matplotlib.patches import Circle, Polygon

TILES = {
    'red': '#f6c3c1',
    'green': '#c9e6c8',
    'blue': '#c2d9f4',
    'yellow': '#faefb4',
    'orange': '#fbd7ae',
    'purple': '#dccbee',
    'pink': '#fbd6e8',
    'gray': '#d9dce1',
    'white': '#fafaf7',
}
W, M, S, K = '#fdfdfd', '#dde4ec', '#7c8798', '#4a5264'  # white to dark grey
B, G, R = '#7fb0da', '#4e9a57', '#ef9a76'  # blue, green, red
L, D = '#d3a775', '#a9794c'  # light and dark wood
ICONS = {
    'cactus': [
        (G, -1.4, -3, 1.4, 6),
        (G, -4.4, 0, -1, 1.6),
        (G, -4.4, 0, -2.8, 4),
        (G, 1, -1, 4.4, 0.6),
        (G, 2.8, -1, 4.4, 3),
        (D, -3, -6, 3, -2.6),
    ],
    'fan': [
        (S, -0.5, -5.5, 0.5, 0),
        (S, -3, -6, 3, -5),
        (W, 0, 1.6, 4.6),
        (B, 0, 3.8, 1.6),
        (B, -1.9, 0.5, 1.6),
        (B, 1.9, 0.5, 1.6),
        (S, 0, 1.6, 0.9),
    ],
    'sofa': [(S, -6, -1, 6, 4.6), (B, -5, -3.4, 5, 0.8), (S, -7.2, -4, -4.6, 1.8), (S, 4.6, -4, 7.2, 1.8)],
    'bed': [(D, -4.6, -6, 4.6, 6.4), (W, -3.8, -5.4, 3.8, 5.4), (M, -2.8, 2.2, 2.8, 4.8), (R, -3.8, -5.4, 3.8, 1)],
    'fridge': [(M, -3.8, -6, 3.8, 6), (K, -3.8, 1.5, 3.8, 1.8), (K, -2.7, 2.7, -2, 4.8), (K, -2.7, -2.4, -2, 0.6)],
    'cabinet': [
        (D, -6, -5, 6, 5),
        (L, -5.3, -4.3, -0.4, 4.3),
        (L, 0.4, -4.3, 5.3, 4.3),
        (K, -1.3, 0, 0.5),
        (K, 1.3, 0, 0.5),
    ],
    'chair': [(D, -3.4, -6, -2.2, 6), (D, 2.2, -6, 3.4, -0.6), (L, -3.4, -1.2, 3.6, 0.4), (L, -3.6, 2.4, -2, 6)],
    'statue': [(M, -2.6, -3.8, 2.6, -3.8, 1.3, 1.8, -1.3, 1.8), (M, 0, 3.7, 2.1), (S, -3.8, -6, 3.8, -3.6)],
    'file cabinet': [
        (S, -4, -6, 4, 6),
        (M, -3.3, -5.4, 3.3, -2.1),
        (K, -1.1, -4, 1.1, -3.4),
        (M, -3.3, -1.7, 3.3, 1.6),
        (K, -1.1, -0.3, 1.1, 0.3),
        (M, -3.3, 2, 3.3, 5.3),
        (K, -1.1, 3.4, 1.1, 4),
    ],
    'bathtub': [
        (S, -4, -4.8, 1),
        (S, 4, -4.8, 1),
        (W, -6, 1, 6, 1, 4.8, -4.4, -4.8, -4.4),
        (B, -7, 0.8, 7, 2.4),
        (S, 4.4, 2.4, 5.4, 5),
    ],
    'table': [(D, -5.4, -5, -4.2, 2), (D, 4.2, -5, 5.4, 2), (L, -7, 1.4, 7, 3.4)],
    'stove': [
        (M, -5, -6, 5, 5),
        (K, -5.4, 4.4, 5.4, 5.6),
        (S, -3.8, -4.8, 3.8, 0.8),
        (R, -2.6, -3.6, 2.6, -2),
        (K, -2.6, 2.6, 0.8),
        (K, 0, 2.6, 0.8),
        (K, 2.6, 2.6, 0.8),
    ],
}
UNKNOWN = [(L, 0, -5.5, 5.5, 0, 0, 5.5, -5.5, 0), (W, 0, 0, 1.8)]  # any other object of a scene


def icon(name, x, y):
    """the patches of an object at x, y, without their edges' colour and width"""
    patches = []
    for colour, *numbers in ICONS.get(name, UNKNOWN):
        if len(numbers) == 4:
            x0, y0, x1, y1 = numbers
            numbers = x0, y0, x1, y0, x1, y1, x0, y1
        if len(numbers) == 3:
            patch = Circle((x + numbers[0], y + numbers[1]), numbers[2])
        else:
            patch = Polygon([(x + dx, y + dy) for dx, dy in zip(numbers[::2], numbers[1::2])], joinstyle='round')
        patch.set(facecolor=colour)
        patches.append(patch)
    return patches
