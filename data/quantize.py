"""
Continuous values in a finite vocabulary: clusters of actions for the kmeans head, with what can be known of them
before anything is trained, and bins of observations for fuse='bins'.
"""

import numpy as np

KS = (4, 8, 16, 32, 64, 128, 256)  # numbers of clusters that suggest_clusters compares
ENOUGH = 0.05  # of the variance may be left within the clusters


def sample_actions(split, chunk, seed, n=65536):
    """chunks of a Prepared split, drawn evenly, all to be imitated -> normalised actions (<= n, chunk, n_act)"""
    if not split.meta['continuous']:
        raise ValueError(
            f'the actions of {split.meta["dataset"]} are discrete: there is nothing to cluster. Use --head=ce'
        )
    norm = split.meta['normaliser']['act']
    first = np.random.default_rng(seed).integers(len(split.act), size=n)  # (n,) steps
    last = split.start[np.searchsorted(split.start, first, 'right')] - 1  # (n,) of its episode
    steps = np.minimum(first[:, None] + np.arange(chunk), last[:, None])  # (n, chunk), the last one repeated
    steps = steps[split.taught[steps].all(1)]  # without those that are not to be imitated
    return ((split.act[steps] - np.array(norm['mean'])) / np.array(norm['std'])).astype(np.float32)


def group_dims(actions, n_groups):
    """(n, chunk, n_act) -> (n_groups, n, chunk * n_act / n_groups), neighbouring dimensions together"""
    n, chunk, n_act = actions.shape
    actions = actions.reshape(n, chunk, n_groups, -1)  # (n, chunk, n_groups, n_act / n_groups)
    return actions.transpose(2, 0, 1, 3).reshape(n_groups, n, -1)


def fit_clusters(actions, k, joint, seed):
    """
    normalised actions (n, chunk, n_act) -> k centers of whole actions (1, k, chunk * n_act), or, not joint, of each
    dimension (n_act, k, chunk), float32. MiniBatchKMeans of scikit-learn (Sculley, 2010)
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(actions) < k:
        raise ValueError(f'n_clusters={k} is more than the {len(actions)} actions there are to cluster. Lower it')
    centers = []
    for group in group_dims(actions, 1 if joint else actions.shape[2]):
        kmeans = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=4096)
        centers.append(kmeans.fit(group).cluster_centers_)
    return np.stack(centers).astype(np.float32)


def diagnose_clusters(actions, centers):
    """
    normalised actions (n, chunk, n_act) and centers of fit_clusters -> {'k': clusters, 'floor': the error that is left
    if every action is its center, as a share of their variance, 'dead': centers that are nearest to no action,
    'perplexity': of their use, k where all are used equally often}; of several groups the mean
    """
    floor = []
    dead = []
    perplexity = []
    for group, c in zip(group_dims(actions, len(centers)), centers):
        squares = (group**2).sum(1)[:, None] - 2 * group @ c.T + (c**2).sum(1)  # (n, k) squared distances
        squares = np.maximum(squares, 0)
        use = np.bincount(squares.argmin(1), minlength=len(c)) / len(group)  # (k,)
        variance = ((group - group.mean(0)) ** 2).sum(1).mean()
        floor.append(squares.min(1).mean() / variance)
        dead.append((use == 0).sum())
        use = use[use > 0]
        perplexity.append(np.exp(-(use * np.log(use)).sum()))
    return {
        'k': centers.shape[1],
        'floor': float(np.mean(floor)),
        'dead': float(np.mean(dead)),
        'perplexity': float(np.mean(perplexity)),
    }


def describe_clusters(diagnosis):
    """what diagnose_clusters returns -> a line to print"""
    k, dead, perplexity, floor = (diagnosis[key] for key in ('k', 'dead', 'perplexity', 'floor'))
    use = f'{dead:g} of them dead, used like {perplexity:.0f}'
    return f"clusters: {k}, {use}; {floor:.1%} of the actions' variance is within them"


def suggest_clusters(split, chunk, seed, ks=KS):
    """print a table of k against the variance left within clusters, and the smallest k that leaves less than ENOUGH"""
    kinds = {'joint': True, 'per dimension': False}
    actions = sample_actions(split, chunk, seed)
    fitted, judged = actions[::2], actions[1::2]  # judged by other actions than they were fitted to
    heads = ' | '.join(f'{kind}: left within | dead | used like' for kind in kinds)
    print(f'| k, chunk {chunk} | {heads} |')
    print('|---' * (1 + 3 * len(kinds)) + '|')
    smallest = {}  # kind: k
    for k in ks:
        cells = []
        for kind, joint in kinds.items():
            d = diagnose_clusters(judged, fit_clusters(fitted, k, joint, seed))
            cells.append(f'{d["floor"]:.1%} | {d["dead"]:g} | {d["perplexity"]:.0f}')
            if d['floor'] < ENOUGH:
                smallest.setdefault(kind, k)
        print(f'| {k} | {" | ".join(cells)} |', flush=True)
    suggested = [
        f'n_clusters={smallest[kind]} {kind}' if kind in smallest else f'more than {ks[-1]} {kind}' for kind in kinds
    ]
    print('suggested: ' + '; '.join(suggested))


def fit_bins(split, n_bins, columns, seed, most=200_000):
    """
    Quantiles of observations of a Prepared split -> edges (len(columns), n_bins + 1) float32, rising, from the least
    value to the largest; ValueError where two edges are equal

    most: steps that are read
    """
    rows = np.random.default_rng(seed).permutation(len(split.obs))[:most]
    obs = np.asarray(split.obs[np.sort(rows)][:, columns], np.float64)
    edges = np.quantile(obs, np.linspace(0, 1, n_bins + 1), axis=0).T.astype(np.float32)
    for i, e in zip(columns, edges):
        if len(np.unique(e)) < len(e):
            raise ValueError(
                f'n_bins={n_bins} cannot tell {split.meta["obs_names"][i]} apart: too many of its values are equal. '
                'Lower it, or leave it out of obs_names'
            )
    return edges
