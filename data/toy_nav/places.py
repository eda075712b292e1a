"""
toy_nav's landmarks: what "north of the fridge", "the purple tile" or "between the stove and the chair" mean on the floor.

A place is a set of floor cells of 1 x 1, and a point in it to aim at. Whatever names places (descriptions), drives to
them (demonstrations) or judges a path (scores) asks this file, so they cannot disagree.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from data.toy_nav.world import COMPASS, World

REACH = 20.0  # a robot is near an object within this distance, if no wall stands between
CLOSE = 10.0  # ... and at it within this one
GAP = 50.0  # two objects further apart than this have no "between"
MIN_CELLS = 40  # a place with less floor than this is not worth naming
ARCHIVE = 40  # an archive has so many cells to a side: 5 x 5 units in a room of 200


@dataclass(frozen=True)
class Place:
    """kind 'side' (north of the fridge), 'at' (the fridge), 'between' (two objects) or 'tile' (the purple tile).
    tile narrows the first three to one colour: north of the fridge, on the pink tile."""

    kind: str
    name: str
    side: str = ''
    other: str = ''
    tile: str = ''

    def __str__(self):
        said = {
            'side': f'{self.side} of the {self.name}',
            'at': f'the {self.name}',
            'tile': f'the {self.name} tile',
            'between': f'between the {self.name} and the {self.other}',
        }[self.kind]
        return f'{said} on the {self.tile} tile' if self.tile else said

    def names(self):
        """what it names, without sides: the fridge and the stove, or a tile"""
        return {f'{self.name} tile'} if self.kind == 'tile' else {self.name, self.other} - {''}


class Places:
    """Every place of a room. `all` lists those with enough floor; `mask(place)` (size, size) bool is indexed [y, x]."""

    def __init__(self, world=None):
        self.world = world or World()
        n = self.size = int(self.world.size)
        self.x, self.y = np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5)
        self.clearance = self.world.clearance(self.x.ravel(), self.y.ravel()).reshape(n, n)
        self.reachable = self.flood(self.clearance >= self.world.radius)
        column = np.clip((self.x - self.world.border) // self.world.tile_size, 0, 2).astype(int)
        row = 2 - np.clip((self.y - self.world.border) // self.world.tile_size, 0, 2).astype(int)
        self.tile_index = row * 3 + column  # 0 is the north-west tile
        self.tiles = [name for names in self.world.tile_names for name in names]
        self.objects = list(self.world.objects)

        # distance to every object, infinite where it is out of reach or behind a wall
        self.distance = np.stack([self.visible_distance(xy) for xy in self.world.objects.values()])
        self.nearest = np.where(self.distance.min(0) <= REACH, self.distance.argmin(0), -1)
        self._masks = {}
        sides = [Place('side', name, side) for name in self.objects for side in COMPASS]
        at = [Place('at', name) for name in self.objects]
        tiles = [Place('tile', name) for name in self.tiles]
        between = [Place('between', a, other=b) for i, a in enumerate(self.objects) for b in self.objects[i + 1 :]]
        self.all = [p for p in sides + at + tiles + between if self.mask(p).sum() >= MIN_CELLS]

    def flood(self, free):
        """cells of free (size, size) that the robot can get to from its start"""
        seen = np.zeros_like(free)
        first = self.cell(self.world.start_pose[:2])
        queue = deque([first])
        seen[first] = True
        while queue:
            i, j = queue.popleft()
            for a, b in (i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1):
                if free[a, b] and not seen[a, b]:
                    seen[a, b] = True
                    queue.append((a, b))
        return seen

    def cell(self, xy):
        """xy (..., 2) -> indices into a mask, [y], [x]"""
        ij = np.minimum(np.maximum(np.floor(xy), 0), self.size - 1).astype(int)
        return ij[..., 1], ij[..., 0]

    def archive_cell(self, xy):
        """xy (..., 2) -> the cell of an archive it lies in, (..., 2) int: column, row"""
        return np.clip(np.floor(np.asarray(xy) * (ARCHIVE / self.size)), 0, ARCHIVE - 1).astype(int)

    def archive_floor(self):
        """the cells of an archive (ARCHIVE, ARCHIVE) bool [row, column] of which the robot gets into a fifth at least"""
        column, row = np.moveaxis(self.archive_cell(np.stack([self.x, self.y], -1)), -1, 0)
        share = np.zeros((2, ARCHIVE, ARCHIVE))
        np.add.at(share, (slice(None), row, column), np.stack([self.reachable, np.ones_like(self.reachable)]))
        return share[0] >= 0.2 * share[1].clip(min=1)

    def sees(self, a, b):
        """a, b (..., 2) -> does the straight line between them miss every wall?"""
        along = np.linspace(0, 1, 41).reshape(-1, *[1] * np.ndim(b))
        return (self.clearance[self.cell(a + (b - a) * along)] > 0.75).all(0)

    def visible_distance(self, xy):
        """distance (size, size) of each cell to xy; infinite beyond REACH and where a wall hides it"""
        d = np.hypot(self.x - xy[0], self.y - xy[1])
        near = d <= REACH
        d[~near] = np.inf
        d[near] = np.where(self.sees(xy, np.stack([self.x[near], self.y[near]], -1)), d[near], np.inf)
        return d

    def mask(self, place):
        """the cells (size, size) of a place, within what the robot can reach"""
        if place not in self._masks:
            self._masks[place] = self._mask(place) & self.reachable
        return self._masks[place]

    def _mask(self, place):
        if place.tile:
            return self._mask(Place(place.kind, place.name, place.side, place.other)) & (
                self.tile_index == self.tiles.index(place.tile)
            )
        if place.kind == 'tile':
            return self.tile_index == self.tiles.index(place.name)
        d = self.distance[self.objects.index(place.name)]
        if place.kind == 'at':
            return d <= CLOSE
        xy = self.world.objects[place.name]
        if place.kind == 'side':  # north: further north than east or west. North-east: both north and east of it
            east, north = self.x - xy[0], self.y - xy[1]
            along = {'north': north, 'south': -north, 'east': east, 'west': -east}
            if '-' in place.side:
                a, b = place.side.split('-')
                return (d <= REACH) & (along[a] > 0) & (along[b] > 0)
            across = east if place.side in ('north', 'south') else north
            return (d <= REACH) & (along[place.side] > np.abs(across))
        other = self.world.objects[
            place.other
        ]  # between: around the middle of the line, on either side of a wall there
        length = np.hypot(*(other - xy))
        if length > GAP:
            return np.zeros_like(self.reachable)
        u = (other - xy) / length
        along = (self.x - xy[0]) * u[0] + (self.y - xy[1]) * u[1]
        across = (self.y - xy[1]) * u[0] - (self.x - xy[0]) * u[1]
        return (np.abs(along / length - 0.5) <= 0.25) & (np.abs(across) <= CLOSE)

    def anchor(self, place):
        """the point (2,) to aim at: deepest inside the place, for an object the nearest the robot can get to it"""
        mask = self.mask(place)
        depth = -self.distance[self.objects.index(place.name)] if place.kind == 'at' else distance_transform_edt(mask)
        i, j = np.unravel_index(np.where(mask, depth, -np.inf).argmax(), mask.shape)
        return np.array([j + 0.5, i + 0.5])

    def side_of(self, name, xy):
        """which of the eight compass directions xy (2,) lies in, seen from an object"""
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
        Annotate a path (T + 1, 2) -> the events along it, coarse: one for each stay near an object or near nothing.

        Each is {'step', 'place', 'side', 'tile', 'distance'}: taken where it came nearest, the last where it ended;
        place is '' where nothing is near. Passing by for less than 3 steps is not a visit.
        """
        near = self.nearest[self.cell(path)]
        starts = np.flatnonzero(np.diff(near, prepend=-2))
        events = []
        for a, b in zip(starts, [*starts[1:], len(path)]):
            last = b == len(path)
            if near[a] < 0:
                k = b - 1 if last else (a + b) // 2
                name, side, d = '', '', 0.0
            else:
                name = self.objects[near[a]]
                ways = np.hypot(*(path[a:b] - self.world.objects[name]).T)
                k = b - 1 if last else a + int(ways.argmin())
                side, d = self.side_of(name, path[k]), float(ways[k - a])
            if b - a < 3 and not last or events and not last and events[-1]['place'] == name:
                continue
            events.append(
                {'step': int(k), 'place': name, 'side': side, 'tile': self.tile_at(path[k]), 'distance': round(d, 2)}
            )
        return events
