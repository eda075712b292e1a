"""
A pole on a cart, swung up and balanced: physics and teacher, for many systems at once.

theta is 0 upright, counter-clockwise, wrapped to [-pi, pi). The equations are those of Florian (2007), "Correct equations for the
dynamics of the cart-pole system", without friction: a uniform pole of half length l. SI units; DT seconds a step.
"""

import numpy as np
from scipy.linalg import solve_continuous_are

G, DT, SUBSTEPS = 9.81, 0.02, 2
FORCE, TRACK, STEPS = 10.0, 4.0, 500  # newtons at most, metres to either side, steps an episode
RANGES = {'cart': (0.7, 1.5), 'pole': (0.05, 0.25), 'half': (0.35, 0.65)}  # kg, kg, m: drawn per episode
UPRIGHT, SLOW = 0.2, 1.0  # radians, radians a second: this near to it counts as upright
CATCH, LOSE = 0.35, 0.7  # radians: the teacher begins to balance, and gives it up
Q, R = (
    np.diag([1.0, 1.0, 10.0, 1.0]),
    np.array([[0.1]]),
)  # of the balance: errors in x, x_dot, theta, theta_dot, and force


def draw(rng, n, ranges=RANGES):
    """parameters of n systems (n, 3): cart, pole, half length"""
    return np.stack([rng.uniform(low, high, n) for low, high in ranges.values()], 1)


def wrap(theta):
    return (theta + np.pi) % (2 * np.pi) - np.pi


def accelerations(state, force, system):
    """state (n, 4), force (n,), system (n, 3) -> of the cart, of the pole (n,)"""
    M, m, l = system.T
    s, c, w = np.sin(state[:, 2]), np.cos(state[:, 2]), state[:, 3]
    pole = (G * s + c * (-force - m * l * w * w * s) / (M + m)) / (l * (4 / 3 - m * c * c / (M + m)))
    return (force + m * l * (w * w * s - pole * c)) / (M + m), pole


def advance(state, act, system):
    """act (n,), share of FORCE -> the state a step later; semi-implicit Euler, which keeps the energy well"""
    state, force = state.copy(), np.clip(act, -1, 1) * FORCE
    for _ in range(SUBSTEPS):
        cart, pole = accelerations(state, force, system)
        state[:, 1] += cart * DT / SUBSTEPS
        state[:, 3] += pole * DT / SUBSTEPS
        state[:, 0] += state[:, 1] * DT / SUBSTEPS
        state[:, 2] = wrap(state[:, 2] + state[:, 3] * DT / SUBSTEPS)
    return state


def upright(state):
    return (np.abs(state[..., 2]) < UPRIGHT) & (np.abs(state[..., 3]) < SLOW)


class Teacher:
    """Pumps energy until the pole is nearly up (Astrom & Furuta, 2000), then balances it by LQR; it knows its systems (n, 3)."""

    def __init__(self, system):
        self.system, self.balancing = system, np.zeros(len(system), bool)
        self.gain = np.stack([self.lqr(*p) for p in system])

    @staticmethod
    def lqr(M, m, l):
        """the gain (4,) of the linearised system"""
        D = l * (4 / 3 - m / (M + m))
        A, B = np.zeros((4, 4)), np.zeros((4, 1))
        A[0, 1] = A[2, 3] = 1
        A[3, 2], B[3, 0] = G / D, -1 / ((M + m) * D)
        A[1, 2], B[1, 0] = -m * l * A[3, 2] / (M + m), (1 - m * l * B[3, 0]) / (M + m)
        return (np.linalg.solve(R, B.T) @ solve_continuous_are(A, B, Q, R))[0]

    def act(self, state, middle=0.0):
        """state (n, 4), and where on the track to stand, (n,) metres -> share of FORCE (n,)"""
        state = state - np.stack(np.broadcast_arrays(middle, 0.0, 0.0, np.zeros(len(state))), 1)
        M, m, l = self.system.T
        x, v, theta, w = state.T
        self.balancing = np.where(self.balancing, np.abs(theta) < LOSE, (np.abs(theta) < CATCH) & (np.abs(w) < 4))
        balance = -(self.gain * state).sum(1)
        s, c = np.sin(theta), np.cos(theta)
        energy = (2 / 3) * l * w * w / G + c - 1  # over m g l; 0 upright and at rest
        a = np.clip(8 * energy * np.sign(w * c), -6, 6) - 1.0 * x - 1.0 * v  # m / s^2, of the cart
        pole = (G * s - a * c) / (4 / 3 * l)
        pump = (M + m) * a - m * l * (w * w * s - pole * c)
        return np.clip(np.where(self.balancing, balance, pump) / FORCE, -1, 1)
