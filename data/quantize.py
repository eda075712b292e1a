"""
Clusters of actions for the kmeans head, what can be known of them before anything is trained, and bins of observations.
"""

import numpy as np


def sample_actions(split, chunk, seed, n=65536):
    """n decisions of a Prepared split, drawn evenly -> normalised actions (n, chunk, n_act)"""
    if not split.meta['continuous']:
        raise ValueError(
            f'the actions of {split.meta["dataset"]} are discrete: there is nothing to cluster. Use --head=ce'
        )
    norm, first = split.meta['normaliser']['act'], np.random.default_rng(seed).integers(len(split.act), size=n)
    last = split.start[np.searchsorted(split.start, first, 'right')] - 1  # of its episode
    rows = np.minimum(first[:, None] + np.arange(chunk), last[:, None])
    whole = split.taught[rows].all(1)  # none of it disturbed
    return ((split.act[rows[whole]] - np.array(norm['mean'])) / np.array(norm['std'])).astype(np.float32)


def grouped(actions, n_groups):
    """(n, chunk, n_act) -> (n_groups, n, chunk * n_act / n_groups), neighbouring dimensions together"""
    n, chunk, n_act = actions.shape
    return actions.reshape(n, chunk, n_groups, -1).transpose(2, 0, 1, 3).reshape(n_groups, n, -1)


def fit_clusters(actions, k, joint_clusters, seed):
    """normalised actions (n, chunk, n_act) -> k centers of whole actions (1, k, chunk * n_act), or not joint_clusters of each dimension (n_act, k, chunk)"""
    from sklearn.cluster import MiniBatchKMeans

    if len(actions) < k:
        raise ValueError(f'n_clusters={k} is more than the {len(actions)} actions there are to cluster. Lower it')
    return np.stack(
        [
            MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=4096).fit(a).cluster_centers_
            for a in grouped(actions, 1 if joint_clusters else actions.shape[2])
        ]
    ).astype(np.float32)


def diagnose(actions, centers):
    """
    -> {'k', 'floor': the error that is left if every action is its center, as a share of their variance, 'dead': centers nearest
    to no action, 'perplexity': of their use, k where all are used alike}; of several groups the mean
    """
    floor, dead, perplexity = [], [], []
    for a, c in zip(grouped(actions, len(centers)), centers):
        squares = np.maximum((a**2).sum(1)[:, None] - 2 * a @ c.T + (c**2).sum(1), 0)
        used = np.bincount(squares.argmin(1), minlength=len(c)) / len(a)
        floor.append(squares.min(1).mean() / ((a - a.mean(0)) ** 2).sum(1).mean())
        dead.append((used == 0).sum())
        perplexity.append(np.exp(-(used[used > 0] * np.log(used[used > 0])).sum()))
    return {
        'k': centers.shape[1],
        'floor': float(np.mean(floor)),
        'dead': float(np.mean(dead)),
        'perplexity': float(np.mean(perplexity)),
    }


def said(found):
    return f"clusters: {found['k']}, {found['dead']:g} of them dead, used like {found['perplexity']:.0f}; {found['floor']:.1%} of the actions' variance is within them"


def suggest_clusters(split, chunk, seed, ks=(4, 8, 16, 32, 64, 128, 256)):
    """a table of k against what is left within the clusters, joint_clusters and per dimension; the smallest k that leaves less than 5%"""
    actions = sample_actions(split, chunk, seed)
    kept, rest = actions[::2], actions[1::2]  # judged on others than they were fitted to
    print(
        f'| k, chunk {chunk} | joint_clusters: left within | dead | used like | per dimension: left within | dead | used like |\n|---|---|---|---|---|---|---|'
    )
    enough = {}
    for k in ks:
        found = [diagnose(rest, fit_clusters(kept, k, joint_clusters, seed)) for joint_clusters in (True, False)]
        print(
            f'| {k} | ' + ' | '.join(f'{f["floor"]:.1%} | {f["dead"]:g} | {f["perplexity"]:.0f}' for f in found) + ' |',
            flush=True,
        )
        for joint_clusters, f in zip(('joint_clusters', 'per dimension'), found):
            if f['floor'] < 0.05:
                enough.setdefault(joint_clusters, k)
    print(
        'suggested: '
        + '; '.join(
            f'n_clusters={enough[j]} {j}' if j in enough else f'more than {ks[-1]} {j}'
            for j in ('joint_clusters', 'per dimension')
        )
    )


def fit_bins(split, n_bins, columns, seed, most=200_000):
    """a Prepared split -> edges of the bins (len(columns), n_bins + 1) float32, rising, from the least to the most there was"""
    rows = np.random.default_rng(seed).permutation(len(split.obs))[:most]
    edges = np.quantile(
        np.asarray(split.obs[np.sort(rows)][:, columns], np.float64), np.linspace(0, 1, n_bins + 1), axis=0
    ).T.astype(np.float32)
    for i, e in zip(columns, edges):
        if len(np.unique(e)) < len(e):
            raise ValueError(
                f'n_bins={n_bins} cannot tell {split.meta["obs_names"][i]} apart: too many of it are the same. Lower it, or leave it out of obs_names'
            )
    return edges
