"""
Samples of a stream, in memory that does not grow with it.
"""

from hashlib import blake2b

import numpy as np

MOST = 2**16  # different contents that are counted exactly


class Reservoir:
    """At most k of the items that were added, each with the same chance: those of the smallest random keys."""

    def __init__(self, k, rng):
        self.k, self.rng = k, rng
        self.keys, self.items = np.zeros(0), []
        self.highest = np.inf  # a key below it is among the smallest

    def add(self, items):
        keys = self.rng.random(len(items))
        for i in np.flatnonzero(keys < self.highest):
            self.keys = np.append(self.keys, keys[i])
            self.items.append(items[i])
        if len(self.items) > 2 * self.k:
            self.shrink()

    def shrink(self):
        kept = np.sort(np.argsort(self.keys)[: self.k])
        self.keys = self.keys[kept]
        self.items = [self.items[i] for i in kept]
        if len(kept) == self.k:
            self.highest = self.keys.max()

    def sample(self):
        self.shrink()
        return self.items


class Contents:
    """
    What is known of each different content, at most `most` of them: of all, or of those whose hash is a multiple of
    `every`, which are a sample of the different ones (Gibbons, 2001, Distinct sampling).
    """

    def __init__(self, new, most=MOST):
        """new: makes what is known of a content at first"""
        self.new, self.most = new, most
        self.every, self.entries = 1, {}

    def of(self, content):
        """bytes -> what is known of it, to be changed; of one that is not in the sample a new one"""
        key = int.from_bytes(blake2b(content, digest_size=8).digest(), 'little')
        if key % self.every:
            return self.new()
        value = self.entries.setdefault(key, self.new())
        while len(self.entries) > self.most:
            self.every *= 2
            self.entries = {k: v for k, v in self.entries.items() if k % self.every == 0}
        return value

    def __len__(self):
        return self.every * len(self.entries)

    def values(self):
        return self.entries.values()

    def count(self, of):
        """sum of of(value) over all contents, estimated where they are a sample"""
        return self.every * sum(map(of, self.entries.values()))

    def estimate_note(self):
        return '' if self.every == 1 else f' (estimated from one in {self.every})'
