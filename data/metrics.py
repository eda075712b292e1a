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
    middle = p + Z**2 / (2 * n)
    half = Z * np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    low = np.clip((middle - half) / scale, 0, p)  # rounding could put the mean outside
    high = np.clip((middle + half) / scale, p, 1)
    return {'mean': float(p), 'low': float(low), 'high': float(high), 'n': n}


def bootstrap(values, statistic=np.mean, seed=0, draws=1000):
    """values -> {'mean', 'low', 'high', 'n'} of a statistic, by the percentile bootstrap (Efron 1979)"""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return {'mean': float('nan'), 'low': float('nan'), 'high': float('nan'), 'n': 0}
    samples = values[np.random.default_rng(seed).integers(n, size=(draws, n))]  # (draws, n)
    low, high = np.quantile(statistic(samples, axis=1), [0.025, 0.975])
    return {'mean': float(statistic(values)), 'low': float(low), 'high': float(high), 'n': n}


def bd_error(reached, target, low, high):
    """distance of reached (n, n_bd) from target, as a share of the diagonal of the space from low to high -> (n,)"""
    return np.linalg.norm(np.asarray(reached) - np.asarray(target), axis=-1) / np.linalg.norm(np.subtract(high, low))


def to_go(bd, so_far, step, discount):
    """what is left of returns bd (..., 1) after `step` steps that gave so_far (..., 1), in the value of that step"""
    return ((bd - so_far) / discount**step).astype(np.float32)


def lcs_f1(reference, candidate):
    """two sequences -> F1 of their longest common subsequence: what both have in order, against all of either"""
    if not len(reference) or not len(candidate):
        return float(len(reference) == len(candidate))
    row = [0] * (len(candidate) + 1)  # longest common subsequence of reference so far and candidate[:j]
    for a in reference:
        before = row
        row = [0]
        for j, b in enumerate(candidate):
            if a == b:
                row.append(before[j] + 1)
            else:
                row.append(max(before[j + 1], row[j]))
    return 2 * row[-1] / (len(reference) + len(candidate))  # 2 P R / (P + R), the common share of either


def derange(groups, seed=0, requests=None):
    """
    for each episode another one to take the prompt of, from another group and with another request (None: a group's
    own) -> indices (n,)
    """
    rng = np.random.default_rng(seed)
    groups = np.asarray(groups)
    requests = groups if requests is None else np.asarray(requests)
    if min(len(set(groups.tolist())), len(set(requests.tolist()))) < 2:
        raise ValueError('all episodes ask for the same: there is no other prompt to swap in')
    other = rng.permutation(len(groups))
    for i in np.flatnonzero((groups[other] == groups) | (requests[other] == requests)):
        other[i] = rng.choice(np.flatnonzero((groups != groups[i]) & (requests != requests[i])))
    return other


def spearman(a, b):
    """Spearman's rank correlation of two scores of the same, nan where one of them never changes"""
    from scipy.stats import spearmanr

    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return np.nan
    return float(spearmanr(a, b).statistic)


def interval(score, percent=True, digits=1):
    """a score of this file -> '83.5 [77.7, 88.0]': its mean and its 95% interval, in % or as they are"""
    scale = 100 if percent else 1
    mean, low, high = (f'{scale * score[key]:.{digits}f}' for key in ('mean', 'low', 'high'))
    return f'{mean} [{low}, {high}]'
