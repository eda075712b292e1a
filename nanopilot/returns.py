"""Returns, asked for and achieved: rollouts for each of some targets, a table and a picture of them."""

import numpy as np

from data import metrics
from data.metrics import interval
from data.pictures import save_figure
from nanopilot.rollout import dataset_of, rollout


def returns(policy, n, pictures, **sampling):
    """
    ask for the returns TARGETS of a data set, n episodes each -> rows with the 'return' that was achieved; a table
    and a picture of them
    """
    rows, wanted, achieved = [], [], []
    seeds = sampling['seed'] + np.arange(n)
    evenly = np.linspace(policy.data_spec['bd_low'][0], policy.data_spec['bd_high'][0], 6)
    targets = getattr(dataset_of(policy), 'TARGETS', evenly)
    print('| return asked for | n | achieved | least |\n|---|---|---|---|')
    for target in targets:
        episodes = rollout(policy, [None] * n, [[target]] * n, seeds, desc=f'return {target:g}', **sampling)
        got = [e['path'][-1, 0] for e in episodes]
        score = metrics.bootstrap(got)
        rows.append({'name': f'return {target:g}', 'return': score})
        print(f'| {target:g} | {score["n"]} | {interval(score, percent=False)} | {min(got):.0f} |')
        wanted += [float(target)] * n
        achieved += got
    correlation = metrics.spearman(wanted, achieved)
    print(f"Spearman's rank correlation of asked and achieved, over {len(wanted)} episodes: {correlation:.3f}\n")
    draw_returns(f'{pictures}_returns.png', np.array(targets), rows, n)
    return rows


def draw_returns(picture, targets, rows, n):
    """a PNG: the returns that were asked for, and those that were achieved"""
    from matplotlib.figure import Figure

    mean, low, high = (np.array([row['return'][k] for row in rows]) for k in ('mean', 'low', 'high'))
    figure = Figure(figsize=(4.5, 4), layout='constrained')
    ax = figure.subplots()
    ax.plot(targets, targets, color='0.7', label='as asked')
    ax.errorbar(targets, mean, [mean - low, high - mean], fmt='o-', capsize=3, label=f'achieved, mean of {n}')
    ax.set(xlabel='return asked for', ylabel='return')
    ax.legend()
    save_figure(picture, figure)
    print(f'picture: {picture}\n')
