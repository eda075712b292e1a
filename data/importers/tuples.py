"""Tuples, one a step: what their items mean, which their values must say; ValueError where they do not."""

import numpy as np

from data.importers.columns import is_text


class Tuples:
    """A source of 'item 0', 'item 1', .. under the names that their values give away."""

    def __init__(self, source):
        self.source = source
        self.file = source.file
        self.names = self.meaning()
        self.layout = source.layout
        if 'done' in self.names:
            self.layout = 'elements' if source.layout == 'episodes' else 'steps'
        self.kind = f'{source.kind}, tuples of ({", ".join(self.names)})'
        self.notes = []
        self.unread = {}

    def pieces(self):
        for piece in self.source.pieces():
            yield {name: piece[f'item {k}'] for k, name in enumerate(self.names) if f'item {k}' in piece}

    def refuse(self, why):
        raise ValueError(
            f'{self.file}: its tuples cannot be told apart: {why}. '
            'Save one dict an episode: observations, actions, rewards'
        )

    def meaning(self):
        pieces = list(self.source.pieces())
        unread = [f'item {k}: {why}' for k, (_, why) in self.source.unread.items()]
        if unread or any(is_text(column) for piece in pieces for column in piece.values()):
            self.refuse(unread[0] if unread else 'there are strings among them')
        if len(pieces[0]) == 4:
            return self.of_four(pieces)
        shapes = [pieces[0][f'item {k}'].shape[1:] for k in range(len(pieces[0]))]
        scalars = [k for k in range(2, len(shapes)) if shapes[k] in ((), (1,))]
        if shapes[3] == shapes[0] and len(shapes[0]) == 1 and scalars == [2, *range(4, len(shapes))]:
            return ['observations', 'actions', 'rewards', 'next_observations', 'done', 'truncated'][: len(shapes)]
        return self.refuse(f'items of shapes {shapes}')

    def of_four(self, pieces):
        """(state, action, reward, done), or (state, action, return to go, timestep)"""
        last = [np.asarray(piece['item 3']).reshape(-1) for piece in pieces]
        if all(values.dtype == bool for values in last):
            return ['observations', 'actions', 'rewards', 'done']
        if not all((values == np.round(values)).all() for values in last):
            self.refuse(f'the fourth item is neither a flag nor a timestep ({last[0][0]})')
        counts = all(self.counts(values) for values in last)
        flags = all(np.isin(values, (0, 1)).all() for values in last)
        if counts == flags:
            self.refuse(
                'the fourth item may be a flag and a timestep' if counts else 'the fourth item does not count up'
            )
        if flags:
            return ['observations', 'actions', 'rewards', 'done']
        third = np.concatenate([np.asarray(piece['item 2']).reshape(-1) for piece in pieces])
        if len(third) > 2 and (third == third[0]).all():
            self.refuse(f'the third item is {third[0]:g} at all steps, a reward or a return to go')
        return ['observations', 'actions', 'returns_to_go', 'timestep']

    def counts(self, values):
        """do they count up from 0 or 1, again and again where steps of many episodes follow each other?"""
        first = values[0]
        goes_on = np.diff(values) == 1
        restarts = values[1:] == first
        if self.source.layout == 'episodes':
            restarts = np.zeros(len(goes_on), bool)
        return first in (0, 1) and bool((goes_on | restarts).all())
