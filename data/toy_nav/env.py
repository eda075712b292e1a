"""
toy_nav as Gymnasium environments: ToyNav has one robot, ToyNavVec thousands in numpy; both move bit for bit alike.

    import gymnasium as gym, data.toy_nav
    env = gym.make('nanopilot/ToyNav-v0', pose=True)
    envs = gym.make_vec('nanopilot/ToyNav-v0', num_envs=1000, vectorization_mode='vector_entry_point')
"""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from data.toy_nav.world import OBS_NAMES, STAND, STILL, World
from data.vector_env import VectorEnvBase

ANYWHERE = 2**31  # seeds from here on begin anywhere, whatever start_anywhere says


def spaces(world, pose):
    """-> observation and action space; pose: are the robot's x, y and heading observed?"""
    n = len(OBS_NAMES)
    if not pose:
        n = OBS_NAMES.index('x')  # those after the bumpers are the pose
    low = np.array([0, 0, 0, 0, 0, 0, 0, -1, -1], dtype=np.float32)[:n]
    high = np.array([1, 1, 1, 1, 1, world.size, world.size, 1, 1], dtype=np.float32)[:n]
    return Box(low, high), Box(-1, 1, (2,), np.float32)


def begins_anywhere(seed):
    """does this seed, or None, say that an episode begins anywhere?"""
    return seed is not None and seed >= ANYWHERE


class ToyNav(gym.Env):
    """
    ## Description
    A differential-drive robot in a furnished room of 200 x 200 with nine coloured tiles. Objects and tiles are
    landmarks and no obstacles; walls are. There is no reward: tasks are given and scored in words
    (`data.toy_nav.itinerary`).

    ## Action Space
    `Box(-1, 1, (2,))`: speed of the left and the right wheel, as a share of 1.33 units a step.

    ## Observation Space
    `Box((9,))`: lasers left, ahead, right (free way / 33.3), bumpers left, right (0 or 1), and with `pose=True` the
    odometry x, y (room units), cos, sin of the heading. Without, 5 numbers: the original, partially observed world.

    ## Rewards
    Always 0.

    ## Starting State
    (20, 50), heading north-east; with `start_anywhere=True`, or a seed of 2 ** 31 or more, any pose that fits, drawn
    from the seed.

    ## Episode End
    Terminated when the robot has stood still (both wheels below 0.1) for 16 steps: it has stopped for good.
    Truncated after 400 steps. `info['bd']` is the position: where the robot would end up, were this the end.

    ## Origin
    The maze of Salehi et al., Language-Conditioned Quality-Diversity (arXiv 2308.13278), after libfastsim's.
    """

    metadata = {'render_modes': ['rgb_array'], 'render_fps': 30}

    def __init__(self, scene='', pose=True, start_anywhere=False, render_mode=None):
        self.world = World(scene)
        self.start_anywhere = start_anywhere
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces(self.world, pose)
        self.state = None
        self.seed = None  # the last one that was given

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.seed = seed
        self.state = self.world.start_pose[None].copy()  # (1, 4), a batch of one robot
        if self.start_anywhere or begins_anywhere(self.seed):
            self.state = self.world.random_poses(self.np_random, 1)
        self.t = 0
        self.still = 0  # steps it has stood in a row
        self.path = [self.state[0, :2].copy()]
        obs = self.world.observe(self.state, np.zeros((1, 2)))
        return self.observed(obs), self.info()

    def step(self, action):
        if self.state is None:
            raise gym.error.ResetNeeded('call reset() before step()')
        act = np.asarray(action, dtype=np.float32).reshape(1, 2)
        if not np.isfinite(act).all():
            raise ValueError(f'the action is not finite: {action}')
        self.state, obs = self.world.advance(self.state, act)
        self.t += 1
        self.still += 1
        if np.abs(act).max() >= STILL:
            self.still = 0
        self.path.append(self.state[0, :2].copy())
        terminated = self.still >= STAND
        truncated = self.t >= self.world.max_steps
        return self.observed(obs), 0.0, terminated, truncated, self.info()

    def observed(self, obs):
        """obs (1, 9) of the world -> of this environment (9,), or (5,) without the pose"""
        return obs[0, : self.observation_space.shape[0]]

    def info(self):
        return {'bd': self.state[0, :2].astype(np.float32)}

    def render(self):
        from data.toy_nav.draw import frame  # imports matplotlib, which takes a second

        return frame(self.world, np.array(self.path), self.state[0])


class ToyNavVec(VectorEnvBase):
    """ToyNav for num_envs robots at once: the same spaces, starts and ends of episodes."""

    def __init__(self, num_envs=1, scene='', pose=True, start_anywhere=False, render_mode=None):
        self.world = World(scene)
        self.start_anywhere = start_anywhere
        self.render_mode = render_mode
        super().__init__(num_envs, *spaces(self.world, pose), self.world.max_steps)
        self.state = np.tile(self.world.start_pose, (num_envs, 1))  # (n, 4)
        self.still = np.zeros(num_envs, int)  # steps each has stood in a row
        self.obs = np.zeros((num_envs, len(OBS_NAMES)), np.float32)

    def begin(self, rows):
        self.still[rows] = 0
        self.state[rows] = self.world.start_pose
        for i in rows:
            if self.start_anywhere or begins_anywhere(self.seeds[i]):
                self.state[i] = self.world.random_poses(self.generator(i), 1)[0]
        self.obs = self.obs.copy()  # what was returned before stays as it was
        self.obs[rows] = self.world.observe(self.state[rows], np.zeros((len(rows), 2)))

    def place(self, poses):
        """begin an episode in every row at these poses (n, 4), whatever its seed says"""
        self.restart(np.arange(self.num_envs))
        self.state = poses.copy()
        self.obs = self.world.observe(self.state, np.zeros((self.num_envs, 2)))

    def move(self, act):
        self.state, self.obs = self.world.advance(self.state, act)
        self.still = np.where((np.abs(act) < STILL).all(1), self.still + 1, 0)
        return np.zeros(self.num_envs), self.still >= STAND

    def observe(self):
        return self.obs[:, : self.single_observation_space.shape[0]]

    def where(self):
        return self.state[:, :2].astype(np.float32)
