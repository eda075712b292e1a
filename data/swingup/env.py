"""
The carts as Gymnasium environments: one, and many at once.
"""

import numpy as np
from gymnasium.spaces import Box

from data.swingup import physics
from data.swingup.physics import RANGES, STEPS, TRACK
from data.vector_env import SingleEnv, VectorEnvBase

OBSERVATIONS = Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = Box(-1, 1, (1,), np.float32)  # the force, as a share of physics.FORCE


def env_kwargs(start='anywhere', **ranges):
    """start: 'anywhere' or 'hanging'; cart, pole, half: [low, high] of their masses and half length"""
    unknown = sorted(set(ranges) - set(RANGES))
    if unknown or start not in ('anywhere', 'hanging'):
        known = f"start is 'anywhere' or 'hanging', the ranges are {', '.join(RANGES)}"
        raise TypeError(f'there is no {unknown or start!r}: {known}')
    return {'start': start, **{k: [float(x) for x in ranges.get(k, RANGES[k])] for k in RANGES}}


class SwingUpVec(VectorEnvBase):
    """
    n carts. Observations x, x_dot, theta (0 is up, within pi), theta_dot; the action is a share of FORCE. An
    episode is over after STEPS steps, or when the cart runs off the track. Rewards are cos(theta). info['system']
    (n, 3) is not for the policy: masses and half length.
    """

    def __init__(self, num_envs, start='anywhere', **ranges):
        super().__init__(num_envs, OBSERVATIONS, ACTIONS, STEPS)
        self.ranges = env_kwargs(start, **ranges)
        self.start = self.ranges.pop('start')
        self.state = np.zeros((num_envs, 4))
        self.system = np.ones((num_envs, 3))

    def begin(self, rows):
        for i in rows:
            rng = self.generator(i)
            limits = np.array([1, 0.5, np.pi, 1])
            anywhere = rng.uniform(-limits, limits)
            self.state[i] = [0, 0, -np.pi, 0] if self.start == 'hanging' else anywhere
            self.system[i] = physics.draw(rng, 1, self.ranges)[0]

    def move(self, act):
        self.state = physics.advance(self.state, act[:, 0].astype(np.float64), self.system)
        return np.cos(self.state[:, 2]), np.abs(self.state[:, 0]) > TRACK

    def observe(self):
        return self.state.astype(np.float32)

    def where(self):
        return np.zeros((self.num_envs, 0), np.float32)

    def info(self):
        return {**super().info(), 'system': self.system.copy()}


class SwingUp(SingleEnv):
    """one of them"""

    vector_env = SwingUpVec
    observation_space = OBSERVATIONS
    action_space = ACTIONS
