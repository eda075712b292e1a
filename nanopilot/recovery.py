"""A quality-diversity archive, recovered: in how many of its cells does the one policy end that was trained on it?"""

import numpy as np

from data import metrics
from data.contract import part
from data.metrics import interval
from data.prepared import SPLITS, Prepared
from nanopilot.conditions import Condition, its_prompt, one_of, readable_episodes
from nanopilot.rollout import dataset_of
from nanopilot.scoring import score


def recover(policy, folder, pictures, **sampling):
    """
    How much of a quality-diversity archive the one policy has become: an elite of every cell is asked for, by
    prompt and bd. Most were trained on: this measures what is kept, not what generalises.

    -> {'recovered': share of the cells in which it ends, or right beside them; 'held_out': of those cells in which
    no elite ends that was trained on; and the scores of `score`}
    """
    dataset, kwargs = dataset_of(policy), policy.data_spec['env_kwargs']
    rng = np.random.default_rng(sampling['seed'])
    elites = []
    for name in SPLITS:
        episodes = readable_episodes(Prepared(folder, name), policy)
        elites += [{**e, 'split': name} for e in episodes if e['source'] == getattr(dataset, 'QD_SOURCE', None)]
    if not elites:
        raise ValueError(f'{folder} holds no quality-diversity archive. Evaluate another split: --eval=test')
    cells = part(dataset, 'cells')(np.array([e['bd'] for e in elites]), kwargs)
    trained = {tuple(cell) for cell, e in zip(cells, elites) if e['split'] == 'train'}
    one_a_cell = {tuple(cells[i]): i for i in rng.permutation(len(elites))}.values()
    elites = [elites[i] for i in one_a_cell]
    for e in elites:
        e['prompt'] = one_of(e['text'], rng) if e['text'] else None
    scores, _, driven = score(policy, Condition('archive', elites, its_prompt, True), **sampling)

    targets = np.array([e['bd'] for e in elites])
    reached = np.array([samples[0]['path'][-1] for samples in driven])
    target_cells = dataset.cells(targets, kwargs)
    close = (np.abs(dataset.cells(reached, kwargs) - target_cells) <= 1).all(1)
    held_out = np.array([tuple(cell) not in trained for cell in target_cells])
    scores['recovered'] = metrics.proportion(close)
    scores['held_out'] = metrics.proportion(close[held_out])
    for name, what in (
        ('recovered', 'cells of the archive recovered, within one cell'),
        ('held_out', 'of those in which no elite ends that was trained on'),
    ):
        mean, limits = interval(scores[name]).split(' ', 1)
        print(f'{what}: {mean}% {limits} of {scores[name]["n"]}')
    error, median = 100 * scores['bd_error']['mean'], 100 * scores['bd_error_median']['mean']
    print(f'bd error {error:.1f}% of the diagonal, median {median:.1f}%')
    part(dataset, 'draw_recovery')(f'{pictures}.png', targets, reached, close, kwargs)
    print(f'picture: {pictures}.png')
    return scores
