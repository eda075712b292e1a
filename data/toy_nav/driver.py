"""
A scripted driver that carries out itineraries: it makes the demonstrations of toy_nav.

It follows the shortest path (planner.py) by pure pursuit: it steers for the point some way ahead on the path (Coulter,
CMU-RI-TR-92-01, 1992). It slows down at every place and stops at the last.
"""

import numpy as np

from data.toy_nav.planner import BERTH, spare_steps
from data.toy_nav.world import STAND, STILL

LOOKAHEAD = 9  # cells ahead on the path to steer for
PASSED = 1.5  # so near to its target a place is passed: who imitates this less exactly still gets inside
# ... or so near, and inside the place by INSIDE, where it gets no nearer: it does not turn back for the rest
MISSED = 4.0
INSIDE = 0.7  # a cell's half diagonal
DISTURBED = 0.9  # share of demonstrations in which something else moves the wheels at times, and the driver recovers
SWERVES = 8  # at most in an episode
HELD = 0.1  # share of swerves that hold the robot still, so that standing does not come to mean having arrived
PUSHED = 0.5  # share of disturbed demonstrations in which it is pushed away once more after it has arrived
STRAYING = 0.3  # share of disturbed demonstrations that go to some other place for a while
BUSY = 0.4  # .. share of these that do so from the start, and for longer: as if asked on the way to something else
ASTRAY = 30.0  # units further from the end of its itinerary than it was: then the driver takes over from a policy
STANDS = 8  # .. or where it has stood for so many steps


def drive(pose, target, stop, planner):
    """
    The driver's wheel speeds for n robots.

    pose (n, 4), target (n,) numbers of a planner's targets, stop (n,) bool: does the robot stop there?
    -> act (n, 2) float32, distance to the target (n,)
    """
    world = planner.places.world
    goal = np.array(planner.targets)[target]  # (n, 2)
    cell = planner.onto_floor[cell_under(pose, planner)]
    for _ in range(LOOKAHEAD):
        cell = planner.next[target, cell]
    ahead = np.stack([cell % planner.size, cell // planner.size], 1) + 0.5  # (n, 2)
    ends = np.hypot(*(ahead - goal).T) < 1.5  # the path ends before the point ahead: steer for the goal itself
    to_x, to_y = (np.where(ends[:, None], goal, ahead) - pose[:, :2]).T
    c, s = pose[:, 2], pose[:, 3]
    angle = np.arctan2(to_y * c - to_x * s, to_x * c + to_y * s)
    distance = np.hypot(*(goal - pose[:, :2]).T)
    # it never turns on the spot: an imitator that cannot tell left from right would stay there
    v = np.clip(np.cos(angle), 0.6, 1) ** 2
    v = np.minimum(v, np.clip(distance / 10, np.where(stop, 0.3, 0.5), 1))  # slow where it has to be exact
    turn = np.clip(0.3 * angle, -0.25, 0.25) * world.radius / world.max_speed  # radians a step -> wheel speed
    act = np.stack([v - turn, v + turn], 1)
    act /= np.maximum(np.abs(act).max(1, keepdims=True), 1)
    return act.astype(np.float32), distance


def cell_under(pose, planner):
    """pose (n, 4) -> numbers of the cells (n,)"""
    return pose[:, 1].astype(int) * planner.size + pose[:, 0].astype(int)


class Progress:
    """How far n robots are on their itineraries."""

    def __init__(self, itineraries, planner):
        n = len(itineraries)
        self.rows = np.arange(n)
        self.targets = np.zeros((n, max(len(i.places) for i in itineraries)), int)  # (n, P) numbers of targets
        for row, itinerary in zip(self.targets, itineraries):
            row[: len(itinerary.places)] = [planner.number(place, itinerary.avoid) for place in itinerary.places]
        self.last = np.array([len(i.places) - 1 for i in itineraries])
        self.near_enough = np.minimum(MISSED, np.array(planner.depth) - INSIDE)[self.targets]  # (n, P)
        self.leg = np.zeros(n, int)
        self.arrived = np.zeros(n, int)  # steps since it has arrived at the last place, 0: not yet
        self.distance = np.full(n, np.inf)  # to the target, a step ago

    def target(self):
        return self.targets[self.rows, self.leg]

    def on_last_leg(self):
        return self.leg == self.last

    def update(self, distance, away):
        """distance (n,) to the target; away (n,) bool: it is driven elsewhere for now"""
        passes_by = (distance < self.near_enough[self.rows, self.leg]) & (distance > self.distance)
        passed = ~away & ((distance < PASSED) | passes_by)
        there = ~away & ((self.arrived > 0) | passed & self.on_last_leg())
        self.arrived = np.where(there, self.arrived + 1, 0)
        self.distance = np.where(away | passed, np.inf, distance)
        self.leg += passed & (self.leg < self.last)


class Disturbances:
    """
    What moves n robots besides the driver, all of it drawn at the start: swerves (S of them) of 2 to 12 steps, some of
    which hold the robot still; a push after it has arrived; a detour to some other place.
    """

    def __init__(self, itineraries, lengths, planner, rng, share, straying):
        """lengths (n,) of the robots' paths; share that is disturbed, straying: of these that make a detour"""
        n, world = len(itineraries), planner.places.world
        self.planner = planner
        lengths = np.array(lengths)
        self.start = (rng.random((n, SWERVES)) * lengths[:, None] / world.max_speed).astype(int)
        self.start[rng.random((n, SWERVES)) < 0.3] = world.max_steps  # never
        self.steps = rng.integers(2, 13, (n, SWERVES))
        self.act = rng.uniform(-1, 1, (n, SWERVES, 2)).astype(np.float32)
        self.act[..., 0] = np.copysign(np.maximum(np.abs(self.act[..., 0]), 0.2), self.act[..., 0])
        self.act[rng.random((n, SWERVES)) < HELD] = 0
        # a push is the first swerve, and begins when the robot has stood for some steps
        self.push = rng.random(n) < PUSHED
        self.push_after = rng.integers(1, STAND, n)
        self.start[self.push, 0] = world.max_steps
        self.act[self.push, 0, 0] = np.where(rng.random(self.push.sum()) < 0.5, -0.7, 0.7)
        calm = rng.random(n) >= share
        self.start[calm] = world.max_steps
        self.push[calm] = False
        self.holds = (self.act == 0).all(-1)  # (n, S)
        # a detour goes on for 15 to 49 steps, or up to 149 from the start; to nowhere if something is to be avoided
        elsewhere = rng.integers(len(planner.places.all), size=n)
        self.detour = np.array([planner.number(planner.places.all[k]) for k in elsewhere])
        self.leaves = (rng.random(n) * lengths / world.max_speed).astype(int)
        strays = ~calm & (rng.random(n) < straying) & np.array([not i.avoid for i in itineraries])
        self.returns = self.leaves + np.where(strays, rng.integers(15, 50, n), 0)
        most = spare_steps(lengths, world) / 2.2  # there and, with turns, back
        busy = strays & (rng.random(n) < BUSY) & (most >= 50)
        self.leaves[busy] = 0
        self.returns[busy] = np.minimum(rng.integers(50, 150, n), most)[busy]
        # nothing pushes a robot near what it must avoid
        kinds = {avoid: k for k, avoid in enumerate(dict.fromkeys(i.avoid for i in itineraries))}
        self.kind = np.array([kinds[i.avoid] for i in itineraries])  # (n,)
        self.forbidden = np.stack([planner.near(avoid, 1.5 * BERTH) for avoid in kinds])  # (kinds, cells)

    def away(self, t):
        """(n,) bool: is the robot on its detour?"""
        return (self.leaves <= t) & (t < self.returns)

    def disturb(self, act, t, progress, still, pose):
        """changes act (n, 2) in place; still (n,) steps it has stood -> was it changed? (n,) bool"""
        pushed = self.push & (progress.arrived == self.push_after)
        self.start[pushed, 0] = t
        self.push &= ~pushed
        swerves = (self.start <= t) & (t < self.start + self.steps)  # (n, S)
        swerves &= ~self.holds | (still < STAND - 4)[:, None]  # standing for longer would end the episode
        swerves &= ~self.forbidden[self.kind, cell_under(pose, self.planner)][:, None]
        for k in range(SWERVES):
            act[swerves[:, k]] = self.act[swerves[:, k], k]
        progress.arrived[(swerves & ~self.holds).any(1)] = 0
        return swerves.any(1)


class Takeover:
    """
    A policy moves n robots first, as it did in rollouts. The driver takes over at a step that is drawn at the start, or
    before it: where the robot stands, has gone astray, or where there would be no time for the rest. Near what is to be
    avoided paths are so dear that it has gone astray.
    """

    detour = 0  # nobody is on one

    def __init__(self, acts, itineraries, planner, rng):
        """acts: of each rollout (T, 2); itineraries: what was asked of it"""
        n = len(acts)
        self.planner = planner
        self.act = np.zeros((n, max(map(len, acts)), 2), np.float32)
        for row, act in zip(self.act, acts):
            row[: len(act)] = act
        self.until = rng.integers(1, [len(act) for act in acts])  # when the driver takes over at the latest
        self.least = np.full(n, np.inf)  # what was left of the path, when that was least
        legs = [planner.legs(itinerary) for itinerary in itineraries]
        self.later = np.zeros((n, max(map(len, legs)) + 1))  # length of the path from each place to the end
        for row, lengths in zip(self.later, legs):
            row[: len(lengths)] = np.cumsum(lengths[::-1])[::-1]

    def away(self, t):
        return np.zeros(len(self.until), bool)

    def disturb(self, act, t, progress, still, pose):
        """as Disturbances': changes act (n, 2) where the policy drives -> where that is (n,) bool"""
        cells = self.planner.onto_floor[cell_under(pose, self.planner)]
        to_place = [self.planner.cost[k][cell] for k, cell in zip(progress.target(), cells)]
        left = to_place + self.later[progress.rows, progress.leg]
        self.least = np.minimum(self.least, left)
        in_time = spare_steps(left, self.planner.places.world) > t
        fine = in_time & (left < self.least + ASTRAY) & (still < STANDS)
        self.until = np.where(fine, self.until, np.minimum(self.until, t))
        drives = t < self.until
        act[drives] = self.act[drives, min(t, self.act.shape[1] - 1)]
        progress.arrived[drives] = 0
        return drives


def demonstrate(itineraries, pose, planner, rng, disturbed=DISTURBED, straying=STRAYING):
    """
    Drive itineraries from their poses (n, 4), all at once.
    -> list of {'obs' (T, 9), 'act' (T, 2), 'path' (T + 1, 2), 'taught' (T,) bool, 'subgoal' (T, 2)}

    In a share `disturbed` of the episodes something else moves the robot at times, to show how the driver recovers
    (DART, Laskey et al., arXiv 1703.09327), and a share `straying` of these go to some other place for a while. Without
    it imitators stop where they are slow, and stay because they stand.
    taught is 0 at such steps: they happened, but are not to be imitated. subgoal: the point of the place that is next.
    """
    lengths = [planner.route_length(xy, i) for xy, i in zip(pose[:, :2], itineraries)]
    return record(itineraries, pose, planner, Disturbances(itineraries, lengths, planner, rng, disturbed, straying))


def record(itineraries, pose, planner, others):
    """what `demonstrate` returns; others: what moves the robots besides the driver, as Disturbances does"""
    world, n = planner.places.world, len(itineraries)
    progress = Progress(itineraries, planner)
    points = np.array(planner.targets, np.float32)  # (targets, 2)
    still = np.zeros(n, int)  # steps it has stood in a row
    length = np.full(n, world.max_steps)  # of the episodes
    obs = world.observe(pose, np.zeros((n, 2)))
    log = {'obs': [], 'act': [], 'path': [pose[:, :2]], 'taught': [], 'subgoal': []}
    for t in range(world.max_steps):
        away = others.away(t)
        log['subgoal'].append(points[progress.target()])
        target = np.where(away, others.detour, progress.target())
        act, distance = drive(pose, target, ~away & progress.on_last_leg(), planner)
        progress.update(distance, away)
        act[progress.arrived > 0] = 0
        changed = others.disturb(act, t, progress, still, pose)
        log['obs'].append(obs)
        log['act'].append(act)
        log['taught'].append(~changed & ~away)
        pose, obs = world.advance(pose, act)
        log['path'].append(pose[:, :2])
        still = np.where((np.abs(act) < STILL).all(1), still + 1, 0)
        length = np.where((still == STAND) & (length == world.max_steps), t + 1, length)
        if (length <= t + 1).all():
            break
    log = {name: np.stack(rows, 1) for name, rows in log.items()}  # (n, T, ..)
    log['path'] = log['path'].astype(np.float32)
    return [{name: rows[i, : m + (name == 'path')] for name, rows in log.items()} for i, m in enumerate(length)]
