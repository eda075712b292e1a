"""
What n agents of minigrid see, all at once, in numpy: the 7 x 7 cells before each, each cell one of KINDS.

The same cells as minigrid's gen_obs() to the last one (tests/test_babyai.py), at a twentieth of its time: cells are
gathered by the direction of the agent, and what walls hide is looked up, a row of the view at a time.
"""

import numpy as np

SIZE = 7  # cells of a view, across and ahead; the agent is in the middle of the nearest row
COLOURS = ['red', 'green', 'blue', 'purple', 'yellow', 'grey']  # in minigrid's order, as are the numbers of types
DOOR, KEY, BALL, BOX = 4, 5, 6, 7
DOORS = [(DOOR, colour, state) for colour in range(6) for state in range(3)]  # open, closed, locked
THINGS = [(thing, colour, 0) for thing in (KEY, BALL, BOX) for colour in range(6)]
TRIPLES = np.array([(0, 0, 0), (1, 0, 0), (2, 5, 0), *DOORS, *THINGS], np.uint8)  # of minigrid: type, colour, state
UNSEEN, EMPTY, WALL = 0, 1, 2  # kinds, which are rows of TRIPLES
KINDS = len(TRIPLES)
PARTS = [[0], [1], [2]]  # of each kind: what it is, and the parts that others have, too
PARTS += [[3, 7 + colour, 13 + state] for _, colour, state in DOORS]
PARTS += [[thing - 1, 7 + colour] for thing, colour, _ in THINGS]
KIND_OF = {tuple(map(int, triple)): kind for kind, triple in enumerate(TRIPLES)}
HIDES = np.array([triple[0] == 2 or triple[0] == DOOR and triple[2] > 0 for triple in TRIPLES])  # what is behind it
MARGIN = SIZE - 1  # cells of wall around a grid, so that every view is within
AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # (x, y) of each direction
RIGHT = np.array([(0, 1), (-1, 0), (0, -1), (1, 0)])
BITS = 1 << np.arange(SIZE)
AGENT = SIZE // 2 * SIZE + SIZE - 1  # its own cell among those of a view
MIRRORED = np.arange(SIZE**2).reshape(SIZE, SIZE)[::-1].ravel()  # which cell of a view is where, in a mirror


def kind_of(thing):
    """one of minigrid's objects, or None -> its kind; ValueError for one that no level of BabyAI has"""
    if thing is None:
        return EMPTY
    triple = thing.encode()
    if triple not in KIND_OF:
        raise ValueError(f'there is a {thing.type} in the level, which BabyAI does not have. Name another level')
    return KIND_OF[triple]


def cells_of(grid):
    """minigrid's Grid -> the kinds of its cells (height, width) uint8"""
    kinds = [EMPTY if thing is None else kind_of(thing) for thing in grid.grid]
    return np.array(kinds, np.uint8).reshape(grid.height, grid.width)


def offsets(width):
    """of the cells of a view from the agent's own, in a flat grid that is `width` wide, by its direction (4, 49)"""
    right, ahead = np.arange(SIZE) - SIZE // 2, SIZE - 1 - np.arange(SIZE)
    xy = right[:, None, None] * RIGHT[:, None, None] + ahead[:, None] * AHEAD[:, None, None]  # (4, 7, 7, 2)
    return (xy[..., 1] * width + xy[..., 0]).reshape(4, -1)


def spread(seen, clear):
    """
    What minigrid's process_vis does in one row of a view: from bits of its cells, seen from the row before and such
    that hide nothing -> bits of those that are seen, and of those of the next row
    """
    ahead = 0
    for cells, side in (range(SIZE - 1), 1), (range(SIZE - 1, 0, -1), -1):
        for i in cells:
            if seen >> i & 1 and clear >> i & 1:
                seen |= 1 << i + side
                ahead |= 1 << i + side | 1 << i
    return seen, ahead


SPREAD = np.array([[spread(seen, clear) for clear in range(1 << SIZE)] for seen in range(1 << SIZE)], np.uint8)


def visible(kinds):
    """kinds (n, 7, 7) of the cells of views -> (n, 7, 7) bool: which are seen"""
    clear = (~HIDES[kinds] * BITS[:, None]).sum(1)  # (n, rows) bits
    seen = np.empty(clear.shape, int)
    row = np.full(len(kinds), 1 << SIZE // 2)
    for j in reversed(range(SIZE)):
        seen[:, j], row = SPREAD[row, clear[:, j]].T
    return (seen[:, None] & BITS[:, None]) > 0


class Views:
    """The grids of n environments, with a margin of wall, and what their agents see."""

    def __init__(self, n, height, width):
        """height, width: of the largest grid"""
        self.width = width + 2 * MARGIN
        self.grids = np.full((n, height + 2 * MARGIN, self.width), WALL, np.uint8)
        self.offsets = offsets(self.width)
        self.place = np.zeros(n, int)  # of each agent in its flat grid
        self.direction = np.zeros(n, int)
        self.carried = np.full(n, EMPTY, np.uint8)

    def begin(self, row, env):
        """a level of minigrid that has just been reset"""
        cells = cells_of(env.grid)
        height, width = cells.shape
        self.grids[row] = WALL
        self.grids[row, MARGIN : MARGIN + height, MARGIN : MARGIN + width] = cells
        self.carried[row] = kind_of(env.carrying)
        self.move(row, env)

    def move(self, row, env):
        """the agent is elsewhere"""
        x, y = env.agent_pos
        self.place[row] = (y + MARGIN) * self.width + x + MARGIN
        self.direction[row] = env.agent_dir

    def change(self, row, env):
        """the agent did something to the cell before it"""
        x, y = env.front_pos
        self.grids[row, y + MARGIN, x + MARGIN] = kind_of(env.grid.get(x, y))
        self.carried[row] = kind_of(env.carrying)

    def see(self):
        """-> kinds (n, 49) uint8, column by column from the left, each from the furthest cell to the nearest"""
        n = len(self.grids)
        places = self.place[:, None] + self.offsets[self.direction]  # (n, 49)
        kinds = np.take_along_axis(self.grids.reshape(n, -1), places, 1)
        seen = visible(kinds.reshape(n, SIZE, SIZE)).reshape(n, -1)
        kinds = np.where(seen, kinds, np.uint8(UNSEEN))
        kinds[:, AGENT] = self.carried
        return kinds
