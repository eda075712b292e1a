"""What is compared runs in turn in one process, A B A B ..: a row of the table is the median over the pairs."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm


def seconds(f):
    """the time that a call of f takes"""
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def skipped(name, why):
    """the row of what cannot run here"""
    return {'name': name, 'skipped': why}


def ratio_row(name, slow, fast, goal):
    """slow, fast: lists of seconds of what ran in turn -> a row with the ratio, how many times as fast the second is"""
    ratios = np.array(slow) / np.array(fast)
    return {
        'name': name,
        'ratio': float(np.median(ratios)),
        'low': float(min(ratios)),
        'high': float(max(ratios)),
        'goal': goal,
        'ms': 1e3 * float(np.median(fast)),
    }


def value_row(name, values, unit, goal):
    """values: of each run -> a row with a figure that has nothing to be compared with"""
    return {
        'name': name,
        'value': float(np.median(values)),
        'low': float(min(values)),
        'high': float(max(values)),
        'unit': unit,
        'goal': goal,
    }


@dataclass
class Bench:
    """What every part needs: how often to run, and in which sizes."""

    folder: Path  # temporary, removed at the end
    pairs: int = 7
    seed: int = 1337
    tiny: bool = False  # the smallest sizes
    nanogpt: str = ''  # a checkout of nanoGPT to train beside

    def size(self, full, tiny):
        return tiny if self.tiny else full

    def compare(self, name, slow, fast, goal, n_slow=1, n_fast=1):
        """slow(), which does n_slow of something, against fast(), which does n_fast -> a row"""
        slow()  # warm up
        fast()
        times_slow = []
        times_fast = []
        for _ in tqdm(range(self.pairs), desc=name, disable=None):
            times_slow.append(seconds(slow) / n_slow)
            times_fast.append(seconds(fast) / n_fast)
        return ratio_row(name, times_slow, times_fast, goal)

    def per_second(self, name, f, amount, unit, goal):
        """f() does `amount` of something: how much a second? -> a row"""
        times = [seconds(f) for _ in tqdm(range(self.pairs), desc=name, disable=None)]
        return value_row(name, [amount / t for t in times], unit, goal)

    def duration(self, name, f, unit, goal, scale=1.0):
        """how long does f() take, times `scale`? -> a row"""
        times = [seconds(f) for _ in tqdm(range(self.pairs), desc=name, disable=None)]
        return value_row(name, [scale * t for t in times], unit, goal)
