"""
Episodes as seen in a mirror that stands north to south: east is west, and left is right. They are episodes of BabyAI,
too, in a level that is the other way round (tests/test_babyai.py).
"""

import re

import numpy as np

from data.babyai.views import MIRRORED

DIRECTION = np.array([2, 1, 0, 3], np.uint8)  # east, south, west, north
ACTION = np.array([1, 0, 2, 3, 4, 5, 6])  # left, right, the others
SIDES = {'left': 'right', 'right': 'left'}


def mirrored_text(text):
    return re.sub(r'\b(left|right)\b', lambda side: SIDES[side[0]], text)


def mirrored_obs(obs):
    """obs (T, 50), cells and direction"""
    return np.concatenate([obs[:, MIRRORED], DIRECTION[obs[:, -1:]]], 1)


def mirrored(episode, notes):
    """-> both as seen in the mirror"""
    act = ACTION[episode['act'].astype(int)].astype(episode['act'].dtype)
    notes = {
        **notes,
        'text': [mirrored_text(text) for text in notes['text']],
        'asked': mirrored_text(notes['asked']),
        'parts': [[mirrored_text(text), *steps] for text, *steps in notes['parts']],
    }
    return {**episode, 'obs': mirrored_obs(episode['obs']), 'act': act}, notes
