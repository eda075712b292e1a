"""
A pole on a cart, swung up and balanced: physics and teacher, for many systems at once.

theta is 0 upright, counter-clockwise, wrapped to [-pi, pi). The equations are those of Florian (2007), "Correct
equations for the dynamics of the cart-pole system", without friction: a uniform pole of half length `half`. SI
units; DT seconds a step.
"""

import numpy as np
from scipy.linalg import solve_continuous_are

G, DT, SUBSTEPS = 9.81, 0.02, 2
FORCE = 10.0  # newtons at most
TRACK = 4.0  # metres to either side
STEPS = 500  # an episode
RANGES = {'cart': (0.7, 1.5), 'pole': (0.05, 0.25), 'half': (0.35, 0.65)}  # kg, kg, m: drawn per episode
UPRIGHT, SLOW = 0.2, 1.0  # radians, radians a second: below both it counts as upright
CATCH, LOSE = 0.35, 0.7  # radians: the teacher begins to balance, and gives it up
Q = np.diag([1.0, 1.0, 10.0, 1.0])  # costs of the balance: errors in x, x_dot, theta, theta_dot ...
R = np.array([[0.1]])  # ... and force


def draw(rng, n, ranges=RANGES):
    """parameters of n systems (n, 3): cart, pole, half length"""
    return np.stack([rng.uniform(low, high, n) for low, high in ranges.values()], 1)


def wrap(theta):
    return (theta + np.pi) % (2 * np.pi) - np.pi


def accelerations(state, force, system):
    """state (n, 4), force (n,), system (n, 3) -> of the cart, of the pole (n,)"""
    M, m, half = system.T
    s, c, w = np.sin(state[:, 2]), np.cos(state[:, 2]), state[:, 3]
    pole = (G * s + c * (-force - m * half * w * w * s) / (M + m)) / (half * (4 / 3 - m * c * c / (M + m)))
    return (force + m * half * (w * w * s - pole * c)) / (M + m), pole


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
    """
    Pumps energy until the pole is nearly up (Astrom & Furuta, 2000), then balances it by LQR. It knows its systems
    (n, 3).
    """

    def __init__(self, system):
        self.system = system
        self.balancing = np.zeros(len(system), bool)
        self.gain = np.stack([self.lqr(*p) for p in system])

    @staticmethod
    def lqr(M, m, half):
        """the gain (4,) of the linearised system"""
        D = half * (4 / 3 - m / (M + m))
        A = np.zeros((4, 4))  # state_dot = A state + B force
        B = np.zeros((4, 1))
        A[0, 1] = 1
        A[2, 3] = 1
        A[3, 2] = G / D
        B[3, 0] = -1 / ((M + m) * D)
        A[1, 2] = -m * half * A[3, 2] / (M + m)
        B[1, 0] = (1 - m * half * B[3, 0]) / (M + m)
        return (np.linalg.solve(R, B.T) @ solve_continuous_are(A, B, Q, R))[0]

    def act(self, state, middle=0.0):
        """state (n, 4), and where on the track to stand, (n,) metres -> share of FORCE (n,)"""
        state = state - np.stack(np.broadcast_arrays(middle, 0.0, 0.0, np.zeros(len(state))), 1)
        M, m, half = self.system.T
        x, v, theta, w = state.T
        catches = (np.abs(theta) < CATCH) & (np.abs(w) < 4)
        self.balancing = np.where(self.balancing, np.abs(theta) < LOSE, catches)
        balance = -(self.gain * state).sum(1)
        s, c = np.sin(theta), np.cos(theta)
        energy = (2 / 3) * half * w * w / G + c - 1  # over m g half length; 0 upright and at rest
        a = np.clip(8 * energy * np.sign(w * c), -6, 6) - 1.0 * x - 1.0 * v  # m / s^2, of the cart
        pole = (G * s - a * c) / (4 / 3 * half)
        pump = (M + m) * a - m * half * (w * w * s - pole * c)
        return np.clip(np.where(self.balancing, balance, pump) / FORCE, -1, 1)
