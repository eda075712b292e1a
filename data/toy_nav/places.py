"""
toy_nav's landmarks: what "north of the fridge" or "between the stove and the chair" means on the floor.

A place is a set of floor cells of 1 x 1, and a point in it to drive to. Descriptions, demonstrations and scores all use
this file, so they cannot disagree.
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from data.toy_nav.world import COMPASS, World

REACH = 20.0  # a robot is near an object within this distance, if no wall stands between
CLOSE = 10.0  # ... and at it within this one
GAP = 50.0  # two objects further apart than this have no "between"
MIN_CELLS = 40  # a place with less floor than this is not worth naming
NARROWED = 0.2  # share of places that are drawn on one tile
ARCHIVE = 40  # cells to a side of a quality-diversity archive: each is 5 x 5 units in a room of 200


@dataclass(frozen=True)
class Place:
    """
    kind is 'side' (north of the fridge), 'at' (the fridge), 'between' (two objects) or 'tile' (the purple tile).
    tile narrows the first three to one colour: north of the fridge on the pink tile.
    """

    kind: str
    name: str
    side: str = ''
    other: str = ''
    tile: str = ''

    def __str__(self):
        text = {
            'side': f'{self.side} of the {self.name}',
            'at': f'the {self.name}',
            'tile': f'the {self.name} tile',
            'between': f'between the {self.name} and the {self.other}',
        }[self.kind]
        if self.tile:
            text += f' on the {self.tile} tile'
        return text

    def names(self):
        """its landmarks, without sides: {'fridge', 'stove'} or {'purple tile'}"""
        if self.kind == 'tile':
            return {f'{self.name} tile'}
        return {self.name, self.other} - {''}


class Places:
    """Every place of a room. `all` lists those with enough floor; `mask(place)` (size, size) bool is indexed [y, x]."""

    def __init__(self, world=None):
        self.world = world or World()
        n = int(self.world.size)
        self.size = n
        self.x, self.y = np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5)  # (n, n) each, the cells' centres
        self.clearance = self.world.clearance(self.x.ravel(), self.y.ravel()).reshape(n, n)
        self.reachable = self.flood(self.clearance >= self.world.radius)
        column = np.clip((self.x - self.world.border) // self.world.tile_size, 0, 2).astype(int)
        row = 2 - np.clip((self.y - self.world.border) // self.world.tile_size, 0, 2).astype(int)
        self.tile_index = row * 3 + column  # 0 is the north-west tile
        self.tiles = [name for names in self.world.tile_names for name in names]
        self.objects = list(self.world.objects)

        # (n_objects, n, n) distance to every object, infinite where it is out of reach or behind a wall
        self.distance = np.stack([self.visible_distance(xy) for xy in self.world.objects.values()])
        # (n, n) index of the nearest object, -1 where none is near
        self.nearest = np.where(self.distance.min(0) <= REACH, self.distance.argmin(0), -1)
        self._masks = {}  # of every place that was used
        sides = [Place('side', name, side) for name in self.objects for side in COMPASS]
        at = [Place('at', name) for name in self.objects]
        tiles = [Place('tile', name) for name in self.tiles]
        between = [Place('between', a, other=b) for i, a in enumerate(self.objects) for b in self.objects[i + 1 :]]
        self.all = [p for p in sides + at + tiles + between if self.mask(p).sum() >= MIN_CELLS]
        self.tiles_of = {place: self.tile_shares(place) for place in self.all}

    def made_of(self):
        """what places are named by, for a message"""
        return f'Places are made of: {", ".join(self.objects)}; tiles: {", ".join(self.tiles)}'

    def flood(self, free):
        """cells of free (size, size) that the robot can get to from its start"""
        reached = np.zeros_like(free)
        start = self.cell(self.world.start_pose[:2])
        queue = deque([start])
        reached[start] = True
        while queue:
            i, j = queue.popleft()
            for neighbour in (i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1):
                if free[neighbour] and not reached[neighbour]:
                    reached[neighbour] = True
                    queue.append(neighbour)
        return reached

    def cell(self, xy):
        """xy (..., 2) -> indices into a mask, [y], [x]"""
        ij = np.minimum(np.maximum(np.floor(xy), 0), self.size - 1).astype(int)
        return ij[..., 1], ij[..., 0]

    def archive_cell(self, xy):
        """xy (..., 2) -> the cell of an archive it lies in, (..., 2) int: column, row"""
        return np.clip(np.floor(np.asarray(xy) * (ARCHIVE / self.size)), 0, ARCHIVE - 1).astype(int)

    def archive_floor(self):
        """an archive's cells (ARCHIVE, ARCHIVE) bool [row, column] of which the robot can enter a fifth at least"""
        column, row = np.moveaxis(self.archive_cell(np.stack([self.x, self.y], -1)), -1, 0)
        reachable = np.zeros((ARCHIVE, ARCHIVE))
        total = np.zeros((ARCHIVE, ARCHIVE))
        np.add.at(reachable, (row, column), self.reachable)
        np.add.at(total, (row, column), 1)
        return reachable >= 0.2 * total.clip(min=1)

    def in_sight(self, a, b):
        """a, b (..., 2) -> does the straight line between them miss every wall?"""
        along = np.linspace(0, 1, 41).reshape(-1, *[1] * np.ndim(b))
        return (self.clearance[self.cell(a + (b - a) * along)] > 0.75).all(0)

    def visible_distance(self, xy):
        """distance (size, size) of each cell to xy; infinite beyond REACH and where a wall hides it"""
        d = np.hypot(self.x - xy[0], self.y - xy[1])
        near = d <= REACH
        d[~near] = np.inf
        d[near] = np.where(self.in_sight(xy, np.stack([self.x[near], self.y[near]], -1)), d[near], np.inf)
        return d

    def mask(self, place):
        """the cells (size, size) of a place, within what the robot can reach"""
        if place not in self._masks:
            mask = self.mask_of[place.kind](self, place) & self.reachable
            if place.tile:
                mask &= self.tile_index == self.tiles.index(place.tile)
            self._masks[place] = mask
        return self._masks[place]

    def tile_shares(self, place):
        """the tiles that hold enough of a place to narrow it to -> {colour: share of its floor}"""
        if place.kind == 'tile':
            return {}
        cells = np.bincount(self.tile_index[self.mask(place)], minlength=9)
        return {colour: n / cells.sum() for colour, n in zip(self.tiles, cells) if n >= 2 * MIN_CELLS}

    def draw(self, rng):
        """any place, a fifth of them narrowed to a tile"""
        place = self.all[int(rng.integers(len(self.all)))]
        shares = self.tiles_of[place]
        if not shares or rng.random() >= NARROWED:
            return place
        p = np.array(list(shares.values())) / sum(shares.values())
        return replace(place, tile=str(rng.choice(list(shares), p=p)))

    def tile_mask(self, place):
        return self.tile_index == self.tiles.index(place.name)

    def at_mask(self, place):
        return self.distance[self.objects.index(place.name)] <= CLOSE

    def side_mask(self, place):
        """north: further north than east or west. North-east: both north and east of it"""
        x, y = self.world.objects[place.name]
        near = self.distance[self.objects.index(place.name)] <= REACH
        east, north = self.x - x, self.y - y
        along = {'north': north, 'south': -north, 'east': east, 'west': -east}
        if '-' in place.side:
            a, b = place.side.split('-')
            return near & (along[a] > 0) & (along[b] > 0)
        across = {'north': east, 'south': east, 'east': north, 'west': north}
        return near & (along[place.side] > np.abs(across[place.side]))

    def between_mask(self, place):
        """around the middle of the line between two objects, on either side of a wall there"""
        xy = self.world.objects[place.name]
        to_other = self.world.objects[place.other] - xy
        length = np.hypot(*to_other)
        if length > GAP:
            return np.zeros_like(self.reachable)
        u = to_other / length
        along = (self.x - xy[0]) * u[0] + (self.y - xy[1]) * u[1]
        across = (self.y - xy[1]) * u[0] - (self.x - xy[0]) * u[1]
        return (np.abs(along / length - 0.5) <= 0.25) & (np.abs(across) <= CLOSE)

    mask_of = {'tile': tile_mask, 'at': at_mask, 'side': side_mask, 'between': between_mask}

    def anchor(self, place):
        """the point (2,) to drive to: deepest inside the place, for an object the nearest the robot can get to it"""
        mask = self.mask(place)
        if place.kind == 'at':
            depth = -self.distance[self.objects.index(place.name)]
        else:
            depth = distance_transform_edt(mask)
        i, j = np.unravel_index(np.where(mask, depth, -np.inf).argmax(), mask.shape)
        return np.array([j + 0.5, i + 0.5])

    def side_of(self, name, xy):
        """the one of the eight compass directions in which xy (2,) lies from an object"""
        east, north = np.asarray(xy) - self.world.objects[name]
        return COMPASS[int(np.round(np.degrees(np.arctan2(east, north)) / 45)) % 8]

    def tile_at(self, xy):
        return self.tiles[self.tile_index[self.cell(xy)]]

    def colours(self, path):
        """the tiles that a path (T, 2) crosses, in order"""
        tiles = self.tile_index[self.cell(path)]
        return [self.tiles[i] for i in tiles[np.flatnonzero(np.diff(tiles, prepend=-1))]]

    def visits(self, path):
        """
        Annotate a path (T + 1, 2) -> list of events, one for each stay near an object or near nothing.

        An event {'step', 'place', 'side', 'tile', 'distance'} is where the path came nearest to the object, the last
        event is where it ended. place is '' where nothing is near. Passing by for less than 3 steps is not a visit.
        """
        near = self.nearest[self.cell(path)]  # (T + 1,)
        starts = np.flatnonzero(np.diff(near, prepend=-2))
        *stays, (a, b) = zip(starts, [*starts[1:], len(path)])
        events = []
        for start, end in stays:
            if end - start < 3:
                continue
            event = self.nearest_event(path, start, end, near[start])
            if not events or events[-1]['place'] != event['place']:
                events.append(event)
        return [*events, self.event(path, b - 1, near[a])]

    def nearest_event(self, path, start, end, i):
        """the event of path[start:end], all of it near object number i, or near nothing, -1"""
        step = (start + end) // 2
        if i >= 0:
            step = start + int(self.distances(path[start:end], i).argmin())
        return self.event(path, step, i)

    def event(self, path, step, i):
        event = {'step': int(step), 'place': '', 'side': '', 'tile': self.tile_at(path[step]), 'distance': 0.0}
        if i >= 0:
            event['place'] = self.objects[i]
            event['side'] = self.side_of(event['place'], path[step])
            event['distance'] = round(float(self.distances(path[step], i)), 2)
        return event

    def distances(self, xy, i):
        """xy (..., 2) -> distance to object number i (...)"""
        way = xy - self.world.objects[self.objects[i]]
        return np.hypot(way[..., 0], way[..., 1])
