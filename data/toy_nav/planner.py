"""
Paths of toy_nav, and the itineraries that can be driven along them: the shortest ways over the floor that keep off the
walls (Dijkstra on cells of 1 x 1), around what an itinerary avoids.
"""

from collections import Counter
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from data.toy_nav.itinerary import AVOIDABLE, Itinerary

COMFORT = 5.0  # units from a wall below which a path gets dearer
BERTH = 7.0  # units that a path keeps from what is to be avoided; up to twice as many where there is room
SAME = 60  # times an itinerary is driven at most: there are few with one place, and each time it is driven otherwise
N_PLACES = [0.245, 0.295, 0.245, 0.195, 0.02]  # share of itineraries with 1 .. 5 places; 5 are more than is trained on
AVOIDING = 0.4  # share of itineraries with something to avoid
ON_THE_WAY = 0.5  # share of those in which it lies on the shortest path, where there is another
STEPS = [(0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1)]  # from cell to cell, and back


@dataclass(frozen=True)
class Point:
    """a point of the floor, in units: a target that no words name, in an itinerary of its own"""

    x: float
    y: float


class PathPlanner:
    """
    Shortest paths to places. Cells are numbered y * size + x, targets as they come, by `number`. For target k

        targets[k]  (2,) the point to drive to          cost[k]  (cells,) length of the path from each cell
        depth[k]    how deep inside its place that is   next[k]  (cells,) the next cell on it
    """

    def __init__(self, places):
        self.places = places
        self.size = places.size
        floor = places.reachable & (places.clearance >= places.world.radius + 0.5)
        # a robot pressed to a wall starts from the nearest cell of the floor
        i, j = distance_transform_edt(~floor, return_distances=False, return_indices=True)
        self.onto_floor = (i * self.size + j).ravel()
        self.cells = np.flatnonzero(floor)
        self.graph = self.floor_graph(floor)
        self.numbers = {}  # (place, what to avoid) -> k
        self.ends = {}  # place, or Point -> the point to drive to, and how deep inside the place it is
        self.targets = []
        self.depth = []
        self.cost = []
        self.next = np.empty((256, self.size**2), np.int32)  # with room for more
        self.detours = {}  # what to avoid -> graph_around it

    def floor_graph(self, floor):
        """floor (size, size) bool -> sparse matrix of the costs of steps between its cells"""
        near_wall = (self.places.world.radius + COMFORT - self.places.clearance) / COMFORT
        dear = 1 + 2 * np.clip(near_wall, 0, 1)
        rows, columns, costs = [], [], []
        for di, dj in STEPS:
            i, j = np.nonzero(floor)
            ok = (i + di < self.size) & (j + dj < self.size) & (j + dj >= 0)
            ok[ok] = floor[i[ok] + di, j[ok] + dj]
            i, j = i[ok], j[ok]
            rows.append(i * self.size + j)
            columns.append((i + di) * self.size + j + dj)
            costs.append(np.hypot(di, dj) * (dear[i, j] + dear[i + di, j + dj]) / 2)
        entries = np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))
        there = coo_matrix(entries, shape=(self.size**2, self.size**2)).tocsr()
        return there + there.T  # and back: a search in both directions of one would turn it around each time

    def near(self, avoid, berth):
        """the cells (size ** 2,) bool within berth of places to avoid"""
        return self.distance_to(avoid) <= berth

    def distance_to(self, avoid):
        """how far each cell (size ** 2,) is from places to avoid"""
        if not avoid:
            return np.full(self.size**2, np.inf)
        inside = np.any([self.places.mask(place) for place in avoid], axis=0)
        return distance_transform_edt(~inside).ravel()

    def graph_around(self, avoid):
        """
        -> the graph in which steps near places to avoid cost a hundred times as much, and those less near up to three
        times; and labels of the cells: between cells of different labels there is no path without steps that are near
        """
        if avoid not in self.detours:
            cut = self.graph.copy()
            distance = self.distance_to(avoid)
            distance = np.minimum(np.repeat(distance, np.diff(cut.indptr)), distance[cut.indices])  # of each step
            cost = self.graph.data * (1 + 2 * np.clip(2 - distance / BERTH, 0, 1))
            cost[distance <= BERTH] *= 100
            graph = csr_matrix((cost, self.graph.indices, self.graph.indptr), self.graph.shape)
            cut.data[distance <= BERTH] = 0
            cut.eliminate_zeros()
            self.detours[avoid] = graph, connected_components(cut, directed=False)[1]
        return self.detours[avoid]

    def number(self, place, avoid=()):
        """the number of a place as a target, with paths around what to avoid; they are computed at the first call"""
        if (place, avoid) not in self.numbers:
            k = len(self.targets)
            if k == len(self.next):
                self.next = np.concatenate([self.next, np.empty_like(self.next[:256])])
            xy, depth = self.end(place)
            end = self.cell(xy)
            graph, _ = self.graph_around(avoid)
            cost, previous = dijkstra(graph, indices=end, return_predecessors=True)
            previous[previous < 0] = end
            self.next[k] = previous  # the cell before, on the way from the target, is the next one on the way to it
            self.targets.append(xy)
            self.depth.append(depth)
            self.cost.append(cost.astype(np.float32))
            self.numbers[place, avoid] = k
        return self.numbers[place, avoid]

    def end(self, place):
        """-> the point (2,) to drive to, and how deep inside the place it is; computed once"""
        if place not in self.ends:
            xy = self.places.anchor(place)
            self.ends[place] = xy, distance_transform_edt(self.places.mask(place))[self.places.cell(xy)]
        return self.ends[place]

    def forget(self):
        """drops the paths around something, and points, of which there are too many to keep"""
        self.ends = {place: end for place, end in self.ends.items() if not isinstance(place, Point)}
        kept = {(place, avoid): k for (place, avoid), k in self.numbers.items() if place in self.ends and not avoid}
        old = list(kept.values())
        self.numbers = {key: k for k, key in enumerate(kept)}
        self.targets = [self.targets[k] for k in old]
        self.depth = [self.depth[k] for k in old]
        self.cost = [self.cost[k] for k in old]
        for k, at in enumerate(old):  # a copy of the whole array would take longer than a path
            if k != at:
                self.next[k] = self.next[at]

    def cell(self, xy):
        """the number of the floor's cell at, or nearest to, xy (2,)"""
        return self.onto_floor[int(xy[1]) * self.size + int(xy[0])]

    def point(self, cell):
        """the Point in the middle of a cell, as a target"""
        y, x = divmod(int(cell), self.size)
        point = Point(x + 0.5, y + 0.5)
        self.ends[point] = np.array([point.x, point.y]), 0.0
        return point

    def length(self, xy, place, avoid=()):
        return float(self.cost[self.number(place, avoid)][self.cell(xy)])

    def route_length(self, xy, itinerary):
        """length of the path from xy (2,) through all places of an itinerary"""
        first = self.length(xy, itinerary.places[0], itinerary.avoid)
        return first + sum(self.legs(itinerary))

    def legs(self, itinerary):
        """lengths of the paths from each place of an itinerary to the next one, a list"""
        ends = [self.end(place)[0] for place in itinerary.places]
        return [self.length(xy, place, itinerary.avoid) for xy, place in zip(ends, itinerary.places[1:])]

    def route_cells(self, xy, places):
        """the cells of the shortest path from xy (2,) through places"""
        cells = []
        for place in places:
            k = self.number(place)
            cell, end = self.cell(xy), self.cell(self.targets[k])
            while cell != end:
                cells.append(cell)
                cell = self.next[k, cell]
            xy = self.targets[k]
        return np.array(cells)


class Driven:
    """
    How often itineraries are driven in a block of n_blocks. One place is driven SAME times in all blocks together: each
    has its part of them. Of more places there are so many itineraries that it is SAME times in each block.
    """

    def __init__(self, block=0, n_blocks=1):
        self.block = block
        self.n_blocks = n_blocks
        self.times = Counter()
        self.used_up = set()  # numbers of places of which no itinerary was found that may still be driven

    def may(self, itinerary):
        return self.times[itinerary] < self.most(itinerary)

    def most(self, itinerary):
        if len(itinerary.places) > 1:
            return SAME
        first = crc32(str(itinerary).encode()) % self.n_blocks  # the block in which its turns begin
        more = (self.block - first) % self.n_blocks < SAME % self.n_blocks
        return SAME // self.n_blocks + more


def sample_itinerary(rng, planner, start, driven):
    """
    An itinerary of 1 to 5 places, some with another to avoid, that can be driven from start (2,) within an episode.

    driven: the block's Driven, which this call adds to. Raises ValueError where the room has none.
    """
    world = planner.places.world
    n = 1 + int(rng.choice(len(N_PLACES), p=N_PLACES))
    avoids = rng.random() < AVOIDING
    on_the_way = rng.random() < ON_THE_WAY
    bans = 0  # itineraries for which something to avoid was looked for
    while n in driven.used_up:
        n += 1
    for attempt in range(10000):
        places, length = sample_places(rng, planner, start, n)
        if n == 1:  # the nearer of two: near places are asked for most
            places, length = min((places, length), sample_places(rng, planner, start, n), key=lambda found: found[1])
        itinerary = Itinerary(places)
        fits = len(places) == n and in_time(length, world) and driven.may(itinerary)
        if fits and avoids and bans < 20:
            bans += 1
            itinerary = forbid(itinerary, rng, planner, start, on_the_way)
            fits = bool(itinerary.avoid)
        if fits:
            driven.times[itinerary] += 1
            return itinerary
        if attempt % 1000 == 999 and n < len(N_PLACES):
            driven.used_up.add(n)
            n += 1
    raise ValueError(
        'found no itinerary that can be driven in this room. Is the start closed in, or are there too few objects?'
    )


def sample_places(rng, planner, xy, n):
    """-> n places, less where one is too near to the one before or out of reach; length of the path from xy (2,)"""
    places = ()
    length = 0.0
    while len(places) < n:
        place = planner.places.draw(rng)
        leg = planner.length(xy, place)
        if not 5 < leg < np.inf:
            break
        places += (place,)
        length += leg
        xy = planner.targets[planner.number(place)]
    return places, length


def sample_point(rng, planner, start):
    """
    a Point anywhere on the floor that can be driven to from start (2,) within an episode. Raises ValueError where there
    is none
    """
    cost = planner.cost[planner.number(planner.point(planner.cell(start)))]  # there and back it is the same
    near = planner.cells[in_time(cost[planner.cells], planner.places.world)]
    if not len(near):
        raise ValueError('nothing can be driven to within an episode in this room. Raise episode_steps of the scene')
    return planner.point(rng.choice(near))


def in_time(length, world):
    """can a path be driven within an episode?"""
    return spare_steps(length, world) > 0


def spare_steps(length, world):
    """steps of an episode that a path leaves: it takes a fifth more for turns, and time to recover and to stop"""
    return world.max_steps - 100 - 1.2 * length / world.max_speed


def forbid(itinerary, rng, planner, start, on_the_way=True):
    """
    The itinerary with something to avoid on its shortest path from start (2,), or elsewhere; as it is where nothing
    can be avoided in time.
    """
    places = planner.places
    route = planner.route_cells(start, itinerary.places)
    needed = np.any([places.mask(place) for place in itinerary.places], axis=0).ravel()
    needed[planner.cell(start)] = True
    candidates = []
    for place in places.all:
        mask = places.mask(place).ravel()
        if place.kind in AVOIDABLE and mask[route].any() == on_the_way and not (mask & needed).any():
            candidates.append(place)
    candidates = [candidates[i] for i in rng.permutation(len(candidates))]
    kinds = list(rng.permutation(AVOIDABLE))
    for place in sorted(candidates, key=lambda place: kinds.index(place.kind)):
        forbidden = Itinerary(itinerary.places, avoid=(place,))
        _, label = planner.graph_around(forbidden.avoid)
        goals = [planner.cell(planner.end(place)[0]) for place in itinerary.places]
        if (label[goals] != label[planner.cell(start)]).any():
            continue
        if in_time_around(forbidden, planner, start):
            return forbidden
    return itinerary


def in_time_around(itinerary, planner, start):
    """
    Can an itinerary be driven from start (2,) in time, around what it avoids? A path around something is looked for,
    which takes long, only while the direct ones, which are no longer, would still be in time.
    """
    begins = [start, *(planner.end(place)[0] for place in itinerary.places)]
    legs = list(zip(begins, itinerary.places))
    lengths = [planner.length(xy, place) for xy, place in legs]
    for i, (xy, place) in enumerate(legs):
        lengths[i] = planner.length(xy, place, itinerary.avoid)
        if not in_time(sum(lengths), planner.places.world):
            return False
    return True
