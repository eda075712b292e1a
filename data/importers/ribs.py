"""
Archives of pyribs: csv or Parquet of solution_0, .., measures_0, .. (before 0.6 behavior_0 or measure_0), or npz of
archive.data(). Solutions have no trajectories: --rollout=module:function makes them, code that the command names.
"""

import importlib
import re

import numpy as np

SOLUTION = re.compile(r'solution_(\d+)$')


def holds_solutions(columns):
    """is it an archive of pyribs, by the names of its columns?"""
    return 'solution' in columns or any(SOLUTION.match(name) for name in columns)


class Ribs:
    """One piece an elite: what rollout(solution (d,)) returns, {'observations', 'actions'} and what else it has."""

    layout = 'episodes'

    def __init__(self, table, rollout):
        """table: the source of the file's columns; ValueError without a rollout"""
        self.file = table.file
        self.kind = f'{table.kind}, solutions of pyribs'
        self.notes = []
        self.unread = {}
        self.table = table
        if not rollout:
            raise ValueError(
                f'{self.file} holds solutions of pyribs, without trajectories. '
                'Name what makes them, a function of a solution: --rollout=module:function'
            )
        self.rollout = self.function(rollout)

    def function(self, name):
        module, _, function = name.partition(':')
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as e:
            raise ValueError(f'--rollout={name}: {e}. It is module:function, found from this folder') from None

    def pieces(self):
        for block in self.table.pieces():
            for i, solution in enumerate(self.solutions(block)):
                made = self.rollout(solution)
                if not isinstance(made, dict):
                    raise ValueError(f'{self.file}, solution {i}: rollout returns {type(made).__name__}, not a dict')
                yield {name: np.asarray(value) for name, value in made.items()}

    def solutions(self, block):
        """(n, d)"""
        if 'solution' in block:
            return np.asarray(block['solution'])
        names = sorted((name for name in block if SOLUTION.match(name)), key=lambda n: int(SOLUTION.match(n)[1]))
        return np.stack([block[name] for name in names], 1)
