"""
Where the bins of observations lie, each holding as many of all sources' as the next: as fine as the data is dense.
"""
import numpy as np


def fit(split, n_bins, columns, seed, most=200_000):
    """ a Prepared split -> edges of the bins (len(columns), n_bins + 1) float32, rising, from the least to the most there was """
    rows = np.random.default_rng(seed).permutation(len(split.obs))[:most]
    edges = np.quantile(np.asarray(split.obs[np.sort(rows)][:, columns], np.float64), np.linspace(0, 1, n_bins + 1), axis=0).T.astype(np.float32)
    for i, e in zip(columns, edges):
        if len(np.unique(e)) < len(e):
            raise ValueError(f"n_bins={n_bins} cannot tell {split.meta['obs_names'][i]} apart: too many of it are the same. Lower it, or leave it out of obs_names")
    return edges
