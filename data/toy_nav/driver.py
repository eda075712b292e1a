"""
A scripted driver that carries out itineraries: the demonstrations of toy_nav, and the teacher of whoever wants one.

It follows the shortest way that keeps off the walls (Dijkstra on the floor's cells) by pure pursuit: steer for the point
some way ahead on it (Coulter, CMU-RI-TR-92-01, 1992). It slows down at every place and stops at the last.
"""

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from data.toy_nav.itinerary import Itinerary
from data.toy_nav.places import MIN_CELLS, Place
from data.toy_nav.world import STAND, STILL

LOOKAHEAD = 9  # cells ahead on the way to steer for
COMFORT = 5.0  # units from a wall below which the way gets dearer
PASSED = 1.5  # this near to its anchor a place has been passed, or is where to stop: who imitates this less exactly still is inside
MISSED = 4.0  # ... or so near, and INSIDE by so much, when it gets no nearer: nobody turns back for the rest
INSIDE = 0.7  # a cell's half diagonal
DISTURBED = (
    0.9  # share of demonstrations in which something else moves the wheels now and then, and the driver recovers
)
SWERVES = 8  # at most so many times an episode
HELD = 0.1  # share of swerves that hold the robot still, so that standing does not come to mean having arrived
PUSHED = 0.5  # share of disturbed demonstrations in which it is pushed away once more after it has arrived
STRAYING = 0.3  # share of disturbed demonstrations that for a while go somewhere else
OFTEN = 10  # the same itinerary is driven so often at most: there are few with one place, and each swerves elsewhere
N_PLACES = [
    0.15,
    0.34,
    0.3,
    0.19,
    0.02,
]  # share of itineraries with 1, 2 .. 5 places; the last are longer than what is trained on
AVOIDING = 0.2  # share of itineraries whose shortest way is forbidden, where there is another
BERTH = 7.0  # units by which the driver keeps clear of what it must avoid; nothing pushes it within half as much again


class PathPlanner:
    """Shortest ways over the floor to each of a list of targets. Cells are numbered y * size + x."""

    def __init__(self, places):
        self.places, self.size = places, places.size
        floor = places.reachable & (places.clearance >= places.world.radius + 0.5)
        # a robot pressed to a wall starts from the nearest cell of the floor
        i, j = distance_transform_edt(~floor, return_distances=False, return_indices=True)
        self.onto_floor = (i * self.size + j).ravel()
        dear = 1 + 2 * np.clip((places.world.radius + COMFORT - places.clearance) / COMFORT, 0, 1)
        rows, columns, costs = [], [], []
        for di, dj in (0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1):
            i, j = np.nonzero(floor)
            ok = (i + di < self.size) & (j + dj < self.size) & (j + dj >= 0)
            ok[ok] = floor[i[ok] + di, j[ok] + dj]
            i, j = i[ok], j[ok]
            rows.append(i * self.size + j)
            columns.append((i + di) * self.size + j + dj)
            costs.append(np.hypot(di, dj) * (dear[i, j] + dear[i + di, j + dj]) / 2)
        rows, columns, costs = map(np.concatenate, (rows, columns, costs))
        self.graph = coo_matrix((costs, (rows, columns)), shape=(self.size**2,) * 2).tocsr()
        self.known, self.targets, self.depth, self.cost, self.next = (
            {},
            [],
            [],
            [],
            np.empty((256, self.size**2), np.int32),
        )  # next has room for more
        self.around = {}
        self.narrower = {p: self.tile_shares(p) for p in places.all}

    def tile_shares(self, place):
        """the tiles that hold enough of a place to narrow it to -> {colour: share of its floor}"""
        cells = np.bincount(self.places.tile_index[self.places.mask(place)], minlength=9)
        return (
            {}
            if place.kind == 'tile'
            else {c: n / cells.sum() for c, n in zip(self.places.tiles, cells) if n >= 2 * MIN_CELLS}
        )

    def near(self, avoid, berth):
        """the cells (size ** 2,) bool within berth of places to avoid"""
        if not avoid:
            return np.zeros(self.size**2, bool)
        return (distance_transform_edt(~np.any([self.places.mask(p) for p in avoid], axis=0)) <= berth).ravel()

    def graph_around(self, avoid):
        """-> the graph in which steps near places to avoid cost a hundred, and labels of the cells: another one's cannot be reached without such"""
        if avoid not in self.around:
            dear, cut, near = self.graph.copy(), self.graph.copy(), self.near(avoid, BERTH)
            steps = np.repeat(near, np.diff(cut.indptr)) | near[cut.indices]
            dear.data[steps] *= 100
            cut.data[steps] = 0
            cut.eliminate_zeros()
            self.around[avoid] = dear, connected_components(cut, directed=False)[1]
        return self.around[avoid]

    def number(self, place, avoid=()):
        """the number of a place among the targets; its shortest ways, around what is to be avoided, are found when it is first asked for"""
        if (place, avoid) not in self.known:
            xy = self.places.anchor(place)
            end, k = self.cell(xy), len(self.targets)
            cost, previous = dijkstra(
                self.graph_around(avoid)[0], directed=False, indices=end, return_predecessors=True
            )
            previous[previous < 0] = end
            if k == len(self.next):
                self.next = np.concatenate([self.next, np.empty_like(self.next[:256])])
            self.next[k] = previous  # the previous one seen from the end is the next one on the way
            self.known[place, avoid] = k
            self.targets.append(xy)
            self.depth.append(distance_transform_edt(self.places.mask(place))[self.places.cell(xy)])
            self.cost.append(cost.astype(np.float32))
        return self.known[place, avoid]

    def forget(self):
        """the ways around things, of which there are too many to keep"""
        kept = {key: k for key, k in self.known.items() if not key[1]}
        self.known, old = {key: i for i, key in enumerate(kept)}, list(kept.values())
        self.targets, self.depth, self.cost = ([kept[k] for k in old] for kept in (self.targets, self.depth, self.cost))
        self.next = self.next[old]

    def cell(self, xy):
        """the number of the floor's cell at, or nearest to, xy (2,)"""
        return self.onto_floor[int(xy[1]) * self.size + int(xy[0])]

    def length(self, xy, place, avoid=()):
        return float(self.cost[self.number(place, avoid)][self.cell(xy)])

    def on_the_way(self, xy, chosen):
        """the cells that the shortest way from xy through places passes"""
        cells = []
        for place in chosen:
            k, cell = self.number(place), self.cell(xy)
            end = self.cell(self.targets[k])
            while cell != end:
                cells.append(cell)
                cell = self.next[k, cell]
            xy = self.targets[k]
        return np.array(cells)


def sample_itinerary(rng, ways, start, times):
    """an itinerary of 1 to 5 places, some with another to avoid, that can be driven from start (x, y) in the time of an episode; times counts each"""
    places, world = ways.places, ways.places.world
    n = 1 + int(rng.choice(len(N_PLACES), p=N_PLACES))
    for attempt in range(10000):
        chosen, xy, length = [], start, 0.0
        for _ in range(n):
            place = places.all[int(rng.integers(len(places.all)))]
            colours = ways.narrower[place]
            if colours and rng.random() < 0.2:  # say on which tile
                colour = rng.choice(list(colours), p=np.array(list(colours.values())) / sum(colours.values()))
                place = Place(place.kind, place.name, place.side, place.other, str(colour))
            leg = ways.length(xy, place)
            if not 5 < leg < np.inf:
                break
            chosen.append(place)
            xy, length = ways.targets[ways.number(place)], length + leg
        itinerary = Itinerary(tuple(chosen))
        if len(chosen) == n and in_time(length, world) and times[itinerary] < OFTEN:
            if rng.random() < AVOIDING:
                itinerary = forbid(itinerary, rng, ways, start)
            times[itinerary] += 1
            return itinerary
        n = n + 1 if attempt % 1000 == 999 and n < len(N_PLACES) else n  # all the short ones are taken
    raise ValueError(
        'found no itinerary that can be driven in this room. Is the start closed in, or are there too few objects?'
    )


def in_time(length, world):
    """a fifth more for turns, time to recover and to stop"""
    return length / world.max_speed * 1.2 + 100 < world.max_steps


def forbid(itinerary, rng, ways, start):
    """the itinerary with something to avoid that lies on its shortest way from start, if there is another way; else as it is"""
    places, chosen = ways.places, itinerary.places
    cells = ways.on_the_way(start, chosen)
    kept = np.any([places.mask(p) for p in chosen], axis=0).ravel()
    kept[ways.cell(start)] = True
    on_way = [
        p
        for p in places.all
        if p.kind in ('tile', 'at')
        and places.mask(p).ravel()[cells].any()
        and not (places.mask(p).ravel() & kept).any()
    ]
    for i in rng.permutation(len(on_way)):
        avoid, xy, length = (on_way[i],), start, 0.0
        part = ways.graph_around(avoid)[1]
        if any(part[ways.cell(places.anchor(p))] != part[ways.cell(start)] for p in chosen):
            continue
        for place in chosen:
            length += ways.length(xy, place, avoid)
            xy = ways.targets[ways.number(place)]
        if in_time(length, places.world):
            return Itinerary(chosen, avoid=avoid)
    return itinerary


def drive(pose, target, last, ways):
    """
    The driver's wheel speeds for n robots.

    pose (n, 4), target (n,) numbers of the places they head for, last (n,) bool: do they stop there?
    -> act (n, 2) float32, distance to the target (n,)
    """
    world, goal = ways.places.world, np.array(ways.targets)[target]
    cell = ways.onto_floor[pose[:, 1].astype(int) * ways.size + pose[:, 0].astype(int)]
    for _ in range(LOOKAHEAD):
        cell = ways.next[target, cell]
    ahead = np.stack([cell % ways.size, cell // ways.size], 1) + 0.5
    end = np.hypot(*(ahead - goal).T) < 1.5  # the way ends before the point ahead: steer for the very goal
    to = np.where(end[:, None], goal, ahead) - pose[:, :2]
    c, s = pose[:, 2], pose[:, 3]
    angle = np.arctan2(to[:, 1] * c - to[:, 0] * s, to[:, 0] * c + to[:, 1] * s)
    distance = np.hypot(*(goal - pose[:, :2]).T)
    v = (
        np.clip(np.cos(angle), 0.6, 1) ** 2
    )  # it never turns on the place_name: an imitator that cannot tell left from right would stay there
    v = np.minimum(v, np.clip(distance / 10, np.where(last, 0.3, 0.5), 1))  # slow where it has to be exact
    turn = np.clip(0.3 * angle, -0.25, 0.25) * world.radius / world.max_speed  # radians a step -> wheel speed
    act = np.stack([v - turn, v + turn], 1)
    act /= np.maximum(np.abs(act).max(1, keepdims=True), 1)
    return act.astype(np.float32), distance


def demonstrate(itineraries, pose, ways, rng, disturbed=DISTURBED):
    """
    Drive itineraries from their poses (n, 4), all at once -> list of {'obs' (T, 9), 'act' (T, 2), 'path' (T + 1, 2), 'taught' (T,)}.

    In a share of the episodes something else moves the wheels for 2 to 12 steps, holds them still, pushes the robot away
    after it has arrived, or drives it to some other place for a while, so that one sees the driver recover (DART, Laskey et
    al., arXiv 1703.09327). Without it imitators stop where they are slow, and stay because they stand. taught is 0 at such steps:
    they happened, but are not to be imitated.
    """
    world, n = ways.places.world, len(itineraries)
    number = np.zeros((n, max(len(i.places) for i in itineraries)), int)
    for i, itinerary in enumerate(itineraries):
        number[i, : len(itinerary.places)] = [ways.number(p, itinerary.avoid) for p in itinerary.places]
    final = np.array([len(i.places) - 1 for i in itineraries])
    legs = [
        sum(ways.length(a, p, i.avoid) for a, p in zip([xy, *np.array(ways.targets)[k]], i.places))
        for xy, k, i in zip(pose[:, :2], number, itineraries)
    ]
    forbidden = {avoid: k for k, avoid in enumerate(dict.fromkeys(i.avoid for i in itineraries))}
    near, kind = (
        np.stack([ways.near(avoid, 1.5 * BERTH) for avoid in forbidden]),
        np.array([forbidden[i.avoid] for i in itineraries]),
    )
    leg, stood, still, length = np.zeros(n, int), np.zeros(n, int), np.zeros(n, int), np.full(n, world.max_steps)
    before, enough = np.full(n, np.inf), np.minimum(MISSED, np.array(ways.depth) - INSIDE)[number]  # of the distance
    obs = world.observe(pose, np.zeros((n, 2)))
    seen, done, paths, taught = [], [], [pose[:, :2]], []
    begins = (rng.random((n, SWERVES)) * np.array(legs)[:, None] / world.max_speed).astype(int)
    begins[rng.random((n, SWERVES)) < 0.3] = world.max_steps
    lasts, swerves = rng.integers(2, 13, (n, SWERVES)), rng.uniform(-1, 1, (n, SWERVES, 2)).astype(np.float32)
    swerves[..., 0] = np.copysign(np.maximum(np.abs(swerves[..., 0]), 0.2), swerves[..., 0])
    swerves[rng.random((n, SWERVES)) < HELD] = 0
    pushed, after = rng.random(n) < PUSHED, rng.integers(1, STAND, n)
    begins[pushed, 0], swerves[pushed, 0, 0] = world.max_steps, np.where(rng.random(pushed.sum()) < 0.5, -0.7, 0.7)
    calm = rng.random(n) >= disturbed
    begins[calm], pushed[calm] = world.max_steps, False
    astray = np.array([ways.number(ways.places.all[k]) for k in rng.integers(len(ways.places.all), size=n)])
    leaves = (rng.random(n) * np.array(legs) / world.max_speed).astype(int)
    strays = ~calm & (rng.random(n) < STRAYING) & np.array([not i.avoid for i in itineraries])
    returns = leaves + np.where(strays, rng.integers(15, 50, n), 0)
    for t in range(world.max_steps):
        away = (leaves <= t) & (t < returns)
        act, distance = drive(pose, np.where(away, astray, number[np.arange(n), leg]), ~away & (leg == final), ways)
        there = ~away & ((distance < PASSED) | (distance < enough[np.arange(n), leg]) & (distance > before))
        stood = np.where(~away & ((stood > 0) | there & (leg == final)), stood + 1, 0)
        before = np.where(away | there, np.inf, distance)
        leg += there & (leg < final)
        act[stood > 0] = 0
        begins[pushed & (stood == after), 0] = t
        pushed &= stood != after
        swerving = (begins <= t) & (t < begins + lasts)
        held = (swerves == 0).all(-1)
        swerving &= ~held | (still < STAND - 4)[:, None]  # standing for longer would end the episode
        swerving &= ~near[kind, pose[:, 1].astype(int) * ways.size + pose[:, 0].astype(int)][:, None]
        for k in range(SWERVES):
            act[swerving[:, k]] = swerves[swerving[:, k], k]
        stood[(swerving & ~held).any(1)] = 0
        taught.append(~swerving.any(1) & ~away)
        seen.append(obs)
        done.append(act)
        pose, obs = world.advance(pose, act)
        paths.append(pose[:, :2])
        still = np.where((np.abs(act) < STILL).all(1), still + 1, 0)
        length = np.where((still == STAND) & (length == world.max_steps), t + 1, length)
        if (length <= t + 1).all():
            break
    seen, done, paths, taught = (
        np.stack(seen, 1),
        np.stack(done, 1),
        np.stack(paths, 1).astype(np.float32),
        np.stack(taught, 1),
    )
    return [
        {'obs': seen[i, :m], 'act': done[i, :m], 'path': paths[i, : m + 1], 'taught': taught[i, :m]}
        for i, m in enumerate(length)
    ]
