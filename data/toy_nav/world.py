"""
toy_nav's physics: a round robot with two wheels in a furnished room, for one robot or for thousands at once.

Everything is elementwise arithmetic on numpy arrays, so that robot i of a batch moves exactly as it would alone. Only
+ - * / and sqrt are used, which IEEE 754 rounds the same way on every machine (sin and cos it does not): an archive
made here replays bit for bit elsewhere. Units: the room is 200 x 200, x east, y north, one step of time.
"""

import json
import os
from pathlib import Path

import numpy as np

SCENE = Path(__file__).parent / 'scene.json'
STILL = 0.1  # both wheels slower than this share of their maximum: the robot stands
STAND = 16  # steps it stands in a row until it has stopped for good and the episode ends
OBS_NAMES = ['laser_left', 'laser_ahead', 'laser_right', 'bumper_left', 'bumper_right', 'x', 'y', 'cos', 'sin']
ACT_NAMES = ['wheel_left', 'wheel_right']
BD_NAMES = ['x', 'y']
COMPASS = ['north', 'north-east', 'east', 'south-east', 'south', 'south-west', 'west', 'north-west']


def opposite(side):
    """'north' -> 'south'"""
    return COMPASS[(COMPASS.index(side) + len(COMPASS) // 2) % len(COMPASS)]


class World:
    """The room of a scene file. A pose is (x, y, cos, sin); n robots are an array (n, 4), float64."""

    def __init__(self, scene=''):
        """scene: path of a scene.json, or its contents; '' is the room that comes with toy_nav"""
        if isinstance(scene, (str, os.PathLike)):
            scene = read_scene(Path(scene or SCENE))
        try:
            robot = scene['robot']
            self.size = float(scene['room'][0])
            self.walls = np.array(scene['walls'], dtype=np.float64).reshape(-1, 4)  # x_min y_min x_max y_max
            self.objects = {name: np.array(xy, dtype=np.float64).reshape(2) for name, xy in scene['objects'].items()}
            self.tile_names = scene['tiles']['rows_north_to_south']  # 3 rows of 3
            self.radius = float(robot['radius'])
            self.max_speed = float(robot['max_wheel_speed'])
            self.max_steps = int(robot['episode_steps'])
            self.laser_range = float(robot['laser_range'])
            laser = np.radians(robot['lasers_degrees'])
            heading = np.radians(robot['heading_degrees'])
            start = [*robot['start'], np.cos(heading), np.sin(heading)]
        except (KeyError, TypeError, IndexError, ValueError) as e:
            raise ValueError(f'the scene lacks or misspells {e}. Compare it with {SCENE}') from None
        # 12 digits are far above what matters and below where two machines' cosines may differ
        self.start_pose = np.round(np.array(start, dtype=np.float64), 12)
        self.laser_cos, self.laser_sin = np.float32(np.round([np.cos(laser), np.sin(laser)], 12))
        self.scene = scene
        if wrong := self.unsound_because():
            raise ValueError(f'the scene is not valid: {wrong}. Compare it with {SCENE}')
        self.border = self.outer_wall_width()
        self.tile_size = (self.size - 2 * self.border) / 3
        if self.clearance(*self.start_pose[:2].reshape(2, 1))[0] < self.radius:
            raise ValueError(f"the scene's start {robot['start']} is inside a wall. Move it")

    def unsound_because(self):
        """what is wrong with the scene, in a few words; None where nothing is"""
        room, n, start = self.scene['room'], self.size, self.start_pose[:2]
        if len(room) != 2 or room[0] != room[1] or n != int(n) or n < 40:
            return 'room must be square, [200, 200]'
        if len(self.laser_cos) != 3:
            return 'lasers_degrees must be three'
        if [len(row) for row in self.tile_names] != [3, 3, 3]:
            return 'tiles must be 3 rows of 3'
        if not self.objects:
            return 'there must be an object'
        for name, (x, y) in self.objects.items():
            if not (0 < x < n and 0 < y < n):
                return f'{name} is outside the room'
        if not (0 < self.max_speed < self.radius and self.laser_range > 0 and self.max_steps > 0):
            return (
                'radius, max_wheel_speed, laser_range and episode_steps must be above 0, and the speed below the radius'
            )
        if not ((start > 0) & (start < n)).all():
            return 'the start is outside the room'
        if not self.is_closed():
            return 'walls must close the room on its four sides'
        return None

    def is_closed(self):
        """is there a wall along all of each side of the room?"""
        middles = np.arange(self.size) + 0.5  # of the cells of a side
        x0, y0, x1, y1 = self.walls.T[..., None]  # (W, 1) each
        across = (x0 <= middles) & (middles <= x1)  # (W, cells)
        along = (y0 <= middles) & (middles <= y1)
        end = self.size
        sides = along & (x0 <= 0), along & (x1 >= end), across & (y0 <= 0), across & (y1 >= end)
        return all(side.any(0).all() for side in sides)

    def outer_wall_width(self):
        """of the walls that are as long as the room: tiles are the three equal parts of what lies inside of them"""
        extent = self.walls[:, 2:] - self.walls[:, :2]  # (W, 2): along x, along y
        outer = extent[(extent >= self.size).any(1)]
        return float(outer.min(1).max(initial=0.0))

    def clearance(self, x, y):
        """x, y (n,) -> distance to the nearest wall (n,)"""
        dx = x - np.minimum(np.maximum(x, self.walls[:, 0, None]), self.walls[:, 2, None])  # (W, n): long rows are fast
        dy = y - np.minimum(np.maximum(y, self.walls[:, 1, None]), self.walls[:, 3, None])
        return np.sqrt((dx * dx + dy * dy).min(0))

    def nearest_wall(self, x, y):
        """x, y (n,) -> the point of a wall that is nearest (n,), (n,)"""
        wx = np.minimum(np.maximum(x, self.walls[:, 0, None]), self.walls[:, 2, None])
        wy = np.minimum(np.maximum(y, self.walls[:, 1, None]), self.walls[:, 3, None])
        i = ((x - wx) ** 2 + (y - wy) ** 2).argmin(0), np.arange(len(x))
        return wx[i], wy[i]

    def lasers(self, pose):
        """pose (n, 4) -> free way along each laser as a share of its range (n, n_lasers), float32"""
        n = len(pose)
        x, y, c, s = np.ascontiguousarray(pose.T, dtype=np.float32)
        dx = (c * self.laser_cos[:, None] - s * self.laser_sin[:, None]).reshape(-1)  # (L * n,)
        dy = (s * self.laser_cos[:, None] + c * self.laser_sin[:, None]).reshape(-1)
        ix = 1 / np.copysign(np.maximum(np.abs(dx), 1e-6), dx)  # a ray along a wall never divides by zero
        iy = 1 / np.copysign(np.maximum(np.abs(dy), 1e-6), dy)
        x, y = np.tile(x, len(self.laser_cos)), np.tile(y, len(self.laser_cos))
        # the slab method: where a ray crosses the sides of each wall
        x0, y0, x1, y1 = self.walls.astype(np.float32).T[:, :, None]  # (W, 1) each
        ax, bx, ay, by = (x0 - x) * ix, (x1 - x) * ix, (y0 - y) * iy, (y1 - y) * iy  # (W, L * n)
        near = np.maximum(np.minimum(ax, bx), np.minimum(ay, by))
        hits = np.minimum(near, np.minimum(np.maximum(ax, bx), np.maximum(ay, by)) - near)  # negative where it misses
        near += (np.abs(hits) - hits) * np.float32(1e20)  # far away where it misses: np.where, five times as fast
        return np.minimum(near.min(0) / np.float32(self.laser_range), 1).reshape(-1, n).T

    def observe(self, pose, bumpers):
        """pose (n, 4), bumpers (n, 2) -> obs (n, 9) float32, named by OBS_NAMES"""
        return np.concatenate([self.lasers(pose), bumpers, pose], axis=1).astype(np.float32)

    def step(self, pose, act):
        """pose (n, 4), act (n, 2) wheel speeds in [-1, 1] -> next pose (n, 4), bumpers (n, 2) in {0, 1}.

        Differential drive (Siegwart & Nourbakhsh, Autonomous Mobile Robots, 3.2): the wheels sit one diameter apart.
        A robot that meets a wall slides along it, or stays where it is when a second wall is in the way."""
        x, y, c, s = pose.T
        left, right = (self.max_speed * np.minimum(np.maximum(act.astype(np.float64), -1), 1)).T
        h = (right - left) / (4 * self.radius)  # half of this step's turn, at most 0.2 radians
        h2 = h * h  # the series of cos and sin: exact to 1e-10 here, and the same on every machine
        cos_h = 1 - h2 / 2 * (1 - h2 / 12 * (1 - h2 / 30))
        sin_h = h * (1 - h2 / 6 * (1 - h2 / 20 * (1 - h2 / 42)))
        c, s = rotate(c, s, cos_h, sin_h)  # half the turn, then the way, then the other half
        v = (left + right) / 2
        new_x, new_y = x + v * c, y + v * s
        c, s = rotate(c, s, cos_h, sin_h)
        norm = np.sqrt(c * c + s * s)
        new_pose = np.stack([new_x, new_y, c / norm, s / norm], 1)
        return new_pose, self.collide(pose, new_pose)

    def collide(self, pose, new_pose):
        """pose, new_pose (n, 4): moves those of new_pose that are in a wall out of it, in place -> bumpers (n, 2)"""
        bumpers = np.zeros((len(pose), 2))
        d = self.clearance(new_pose[:, 0], new_pose[:, 1])
        hit = np.flatnonzero(d < self.radius)
        if not len(hit):
            return bumpers
        x, y, c, s = new_pose[hit].T
        d = d[hit]
        wall_x, wall_y = self.nearest_wall(x, y)
        away_x, away_y = (x - wall_x) / d, (y - wall_y) / d
        # where it touched, in the robot's frame
        ahead = -(away_x * c + away_y * s)
        left = -(away_y * c - away_x * s)
        bumpers[hit, 0] = (ahead > 0) & (left > -0.26)  # straight ahead, +-15 degrees, presses both
        bumpers[hit, 1] = (ahead > 0) & (left < 0.26)
        new_pose[hit, 0] += away_x * (self.radius - d)
        new_pose[hit, 1] += away_y * (self.radius - d)
        stuck = hit[self.clearance(new_pose[hit, 0], new_pose[hit, 1]) < self.radius - 1e-9]
        new_pose[stuck, :2] = pose[stuck, :2]
        return bumpers

    def advance(self, pose, act):
        """pose (n, 4), act (n, 2) -> next pose (n, 4), obs (n, 9): step and observe"""
        new_pose, bumpers = self.step(pose, act)
        return new_pose, self.observe(new_pose, bumpers)

    def random_poses(self, rng, n):
        """n poses anywhere the robot fits -> (n, 4)"""
        poses = np.empty((0, 4))
        while len(poses) < n:
            xy = rng.uniform(self.border, self.size - self.border, (2 * n, 2))
            turn = rng.normal(size=(2 * n, 2))  # a random direction without sin or cos
            turn /= np.sqrt((turn**2).sum(1, keepdims=True))
            fits = self.clearance(*xy.T) >= self.radius
            poses = np.concatenate([poses, np.concatenate([xy, turn], 1)[fits]])
        return poses[:n]


def read_scene(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f'no scene file {path}. Copy {SCENE} and edit the copy') from None
    except json.JSONDecodeError as e:
        raise ValueError(f'{path} is not JSON ({e}). Compare it with {SCENE}') from None


def rotate(c, s, cos_h, sin_h):
    """the cos and sin of a heading, turned by the angle h"""
    return c * cos_h - s * sin_h, s * cos_h + c * sin_h
