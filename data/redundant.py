"""
Are the words redundant? Where the text of an episode can be told from its first observation alone, imitation gains
nothing by reading it, and a policy learns to ignore it: a shortcut (Geirhos et al., 2020, Shortcut learning in deep
neural networks). Measured by small classifiers on episodes they were not fitted to, beside guessing without looking.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from data import metrics
from data.text import words

FOLDS = 5
SHARED = 5  # episodes with the same text, or it is no class of its own
N_WORDS = 20
FREQUENT = (0.05, 0.95)  # share of the texts that a word is in, for it to be asked for
FEWEST = 20  # episodes
TELLS = 0.1  # squared correlation of an observation with a text or a word, to be named


@dataclass
class Redundancy:
    """How well the first observation tells the text. Scores are those of data/metrics.py."""

    kind: str  # 'texts': which of a few it is; 'words': which of the frequent words it has; '': it was not measured
    why: str = ''  # .. not, or need not be
    n: int = 0  # episodes
    n_classes: int = 0  # texts, or words
    accuracy: dict = field(default_factory=dict)
    chance: dict = field(default_factory=dict)
    skill: tuple = (0, 0, 0)  # low, mean, high: what is told of that which guessing leaves open, 0 to 1
    columns: list = field(default_factory=list)  # observations that tell most of it, as numbers
    words: list = field(default_factory=list)  # (word, accuracy, chance) of those that are told

    @property
    def verdict(self):
        low, mean, high = self.skill
        if not self.kind:
            return 'not measured'
        if low >= 0.5:
            return 'redundant'
        if self.words or (low > 0 and mean >= 0.1):
            return 'partly redundant'
        return 'unclear' if high > 0.5 else 'needed'


def measure(obs, texts, seed=0):
    """obs (n, n_obs), the first of each episode, all of them finite; texts: n strings -> Redundancy"""
    obs, texts = np.asarray(obs, np.float32), list(texts)
    if not texts:
        return Redundancy('', 'there are no texts')
    if len(set(texts)) == 1:
        return Redundancy('', 'they say nothing: all texts are the same')
    if len(texts) < FEWEST:
        return Redundancy('', f'not measured: {len(texts)} episodes are too few')
    varies = obs.min(0) != obs.max(0)
    if not varies.any():
        return Redundancy('', 'needed: all episodes begin with the same observation')
    target = of_texts(texts) or of_words(texts)
    if target is None:
        return Redundancy('', 'not measured: nearly all texts differ, and they share no words')
    x = standardised(obs[target.rows][:, varies])
    if len(x) < FEWEST:
        return Redundancy('', f'not measured: {len(x)} episodes with texts that others have are too few')
    redundancy = held_out(x, target, np.random.default_rng(seed))
    strength = tells(x, target.y)
    columns = [k for k in np.argsort(-strength)[:3] if strength[k] > TELLS]
    redundancy.columns = np.flatnonzero(varies)[columns].tolist()
    return redundancy


def standardised(x):
    x = x - x.mean(0)
    return x / np.maximum(x.std(0), 1e-9)


def tells(x, y):
    """x (n, d), y (n, n_classes) -> (d,) the highest squared correlation of each number with a class"""
    correlation = standardised(y).T @ standardised(x) / len(x)  # (n_classes, d)
    return (correlation**2).max(0)


# ------------------------------------------------------------------------------
# what is to be told


class TextTarget:
    """Which of a few texts it is."""

    kind = 'texts'
    score = staticmethod(metrics.proportion)

    def __init__(self, rows, labels):
        """rows: of the episodes that are asked; labels: of each, which text it is"""
        self.rows = rows
        self.names = sorted(set(labels))
        self.y = np.array([[label == name for name in self.names] for label in labels], float)  # (n, n_classes)

    def right(self, scores, y):
        """scores, y (n, n_classes) -> (n,) is the text with the highest score the right one?"""
        return scores.argmax(1) == y.argmax(1)

    def told_words(self, hits, guessed):
        return []


class WordTarget:
    """Which of the frequent words it has."""

    kind = 'words'
    score = staticmethod(metrics.bootstrap)

    def __init__(self, rows, names, y):
        self.rows, self.names, self.y = rows, names, y

    def right(self, scores, y):
        """-> (n, n_words) is it right that the text has this word, or has not?"""
        return (scores > 0.5) == (y > 0.5)

    def told_words(self, hits, guessed):
        """words of which half and more of what guessing leaves open is told -> [(word, accuracy, chance)]"""
        rows = []
        for name, hit, guess in zip(self.names, hits.T, guessed.mean(0)):
            score = metrics.proportion(hit)
            if score['low'] > guess and score['mean'] - guess >= 0.5 * (1 - guess):
                rows.append((name, score['mean'], float(guess)))
        return rows


def of_texts(texts):
    """-> TextTarget, None where most texts are shared by few episodes"""
    labels = [' '.join(words(text)) for text in texts]
    counts = Counter(labels)
    rows = [i for i, label in enumerate(labels) if counts[label] >= SHARED]
    shared = [labels[i] for i in rows]
    if len(set(shared)) < 2 or len(rows) < len(texts) / 2:
        return None
    return TextTarget(rows, shared)


def of_words(texts):
    """-> WordTarget, of the words that are nearest to being in half of the texts; None where no word is frequent"""
    sets = [set(words(text)) for text in texts]
    counts = Counter(word for text_words in sets for word in text_words)
    low, high = (share * len(texts) for share in FREQUENT)
    frequent = sorted((abs(n - len(texts) / 2), word) for word, n in counts.items() if low <= n <= high)
    names = [word for _, word in frequent[:N_WORDS]]
    if not names:
        return None
    y = np.array([[word in text_words for word in names] for text_words in sets], float)
    return WordTarget(list(range(len(texts))), names, y)


# ------------------------------------------------------------------------------
# classifiers: x (n, d), y (n, n_classes) to learn from, new (m, d) -> scores (m, n_classes)


def nearest(x, y, new, k):
    k = min(k, len(x))
    distance = (new**2).sum(1)[:, None] + (x**2).sum(1) - 2 * new @ x.T  # (m, n), squared
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    return y[near].mean(1)


def nearest_in_what_tells(x, y, new, k):
    """the same, in which a number counts as much as it tells: most of an observation may be beside the point"""
    weight = tells(x, y)
    return nearest(x * weight, y, new * weight, k)


def ridge(x, y, new):
    """least squares with a penalty, in its dual form: as good for more numbers than episodes"""
    d = x.shape[1]
    mean = y.mean(0)
    weight = np.linalg.solve(x @ x.T / d + 0.1 * np.eye(len(x)), y - mean)
    return mean + new @ x.T / d @ weight


CLASSIFIERS = [ridge, partial(nearest, k=5), *(partial(nearest_in_what_tells, k=k) for k in (1, 5, 25))]


def held_out(x, target, rng):
    """
    -> Redundancy, by cross-validation: each episode is told by the best classifier on others, chosen on others, too
    """
    y = target.y
    fold = rng.permutation(len(x)) % FOLDS
    hits = np.zeros_like(target.right(y, y), float)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        classifier = chosen(x[train], y[train], target)
        hits[test] = target.right(classifier(x[train], y[train], x[test]), y[test])
    most_common = np.broadcast_to(y.mean(0), y.shape)
    guessed = target.right(most_common, y).astype(float)
    redundancy = Redundancy(target.kind, n=len(x), n_classes=len(target.names), words=target.told_words(hits, guessed))
    hits, guessed = (right.reshape(len(x), -1).mean(1) for right in (hits, guessed))
    redundancy.accuracy, redundancy.chance = target.score(hits), target.score(guessed)
    gain = metrics.bootstrap(hits - guessed)
    left_open = max(1 - redundancy.chance['mean'], 1e-9)
    redundancy.skill = tuple(gain[key] / left_open for key in ('low', 'mean', 'high'))
    return redundancy


def chosen(x, y, target):
    """the classifier that is right most often on every fourth of these episodes, fitted to the others"""
    fourth = np.arange(len(x)) % 4 == 0
    scores = [target.right(c(x[~fourth], y[~fourth], x[fourth]), y[fourth]).mean() for c in CLASSIFIERS]
    return CLASSIFIERS[int(np.argmax(scores))]
