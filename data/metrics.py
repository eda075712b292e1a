"""
Scores with their uncertainty: every figure is over all episodes, with a 95% interval and n.
"""

import numpy as np

Z = 1.959964  # of a 95% interval


def proportion(hits):
    """hits: bools -> {'mean', 'low', 'high', 'n'}, Wilson's interval (1927): sound near 0 and 1 too"""
    hits = np.asarray(hits, dtype=bool)
    n = len(hits)
    if n == 0:
        return {'mean': float('nan'), 'low': 0.0, 'high': 1.0, 'n': 0}
    p = hits.mean()
    middle, half = p + Z**2 / (2 * n), Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return {
        'mean': float(p),
        'low': float(np.clip((middle - half) / scale, 0, p)),
        'high': float(np.clip((middle + half) / scale, p, 1)),
        'n': n,
    }  # rounding stays inside


def bootstrap(values, statistic=np.mean, seed=0, draws=1000):
    """values -> {'mean', 'low', 'high', 'n'} of a statistic, by the percentile bootstrap (Efron 1979)"""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return {'mean': float('nan'), 'low': float('nan'), 'high': float('nan'), 'n': 0}
    again = statistic(values[np.random.default_rng(seed).integers(n, size=(draws, n))], axis=1)
    return {
        'mean': float(statistic(values)),
        'low': float(np.quantile(again, 0.025)),
        'high': float(np.quantile(again, 0.975)),
        'n': n,
    }


def bd_error(reached, asked, low, high):
    """distance of reached (n, n_bd) from asked, as a share of the diagonal of the space from low to high -> (n,)"""
    return np.linalg.norm(np.asarray(reached) - np.asarray(asked), axis=-1) / np.linalg.norm(np.subtract(high, low))


def to_go(bd, so_far, step, discount):
    """what is left of returns bd (..., 1) after `step` steps that gave so_far (..., 1), in the value of that step"""
    return ((bd - so_far) / discount**step).astype(np.float32)


def lcs_f1(asked, found):
    """two sequences -> F1 of their longest common subsequence: what was asked for and found in order, against all of either"""
    if not len(asked) or not len(found):
        return float(len(asked) == len(found))
    row = [0] * (len(found) + 1)
    for a in asked:
        before, row = row, [0]
        for j, b in enumerate(found):
            row.append(before[j] + 1 if a == b else max(before[j + 1], row[j]))
    return 2 * row[-1] / (len(asked) + len(found))  # 2 P R / (P + R), P = common / found, R = common / asked


def derange(groups, seed=0):
    """for each episode another one to take the prompt of, from another group -> indices (n,)"""
    rng, groups = np.random.default_rng(seed), np.asarray(groups)
    if len(set(groups.tolist())) < 2:
        raise ValueError('all episodes ask for the same: there is no other prompt to swap in')
    other = rng.permutation(len(groups))
    for i in np.flatnonzero(groups[other] == groups):
        other[i] = rng.choice(np.flatnonzero(groups != groups[i]))
    return other


def interval(score, percent=True, digits=1):
    """a score of this file -> '83.5 [77.7, 88.0]': its mean and its 95% interval, in % or as they are"""
    scale = 100 if percent else 1
    mean, low, high = (f'{scale * score[k]:.{digits}f}' for k in ('mean', 'low', 'high'))
    return f'{mean} [{low}, {high}]'
