"""
What is reached on other people's benchmarks, beside what is published there: bench/benchmarks.md.

$ python sample_policy.py --out_dir=out-babyai --eval=test --drawn_at=1     # scores a run; from the root, then
$ python -m bench.benchmarks --keep=out-babyai/eval_test.json --name=go_to_local --benchmark=BabyAI \
    --trained_by=config/babyai.py --data="10,000 missions" --minutes=10 --machine="one core"
$ python -m bench.benchmarks                                                # makes the page anew

A run that is kept is a small file in bench/benchmarks/; published.json there holds the numbers of others.
"""

import sys

if __name__ == '__main__' and not __package__:
    sys.exit("run it from the checkout's root: python -m bench.benchmarks")

import config as settings  # first: it turns mistakes into one line

import json
import re
from pathlib import Path

from data.metrics import interval, proportion
from data.pictures import save_text
from nanopilot.card import table
from nanopilot.conditions import DRAWN

# ------------------------------------------------------------------------------
keep = ''  # what sample_policy.py --eval wrote, eval_test.json: keep its success first, under ..
name = ''  # .. this name in bench/benchmarks/
benchmark = 'BabyAI'  # of which it is: 'BabyAI', 'Meta-World'
task = ''  # what the page calls it; '': as the source of its episodes is called
trained_by = ''  # the config file, and what differs from it: 'config/babyai.py --dropout=0.1'
data = ''  # what it was trained on, in words: '1,000 demonstrations; cut at 556 steps'
minutes = 0.0  # that its training took
machine = ''  # on what: 'one core'
# ------------------------------------------------------------------------------
FOLDER = Path(__file__).parent / 'benchmarks'
PAGE = Path(__file__).parent / 'benchmarks.md'
PUBLISHED = 'published.json'
CONDITIONS = {
    'prompt': 'its prompt',
    'swapped prompt': "another's",
    'no prompt': 'none',
    'held-out phrasing': 'held-out phrasing',
    'trained combination': 'trained pairs',
    'held-out combination': 'held-out pairs',
}  # rows of --eval, and their column heads
FEW = 3  # tasks of one policy that have rows of their own; more of them are pooled
INTRO = """# Benchmarks of other people

Made by `python -m bench.benchmarks` from the files in `bench/benchmarks/`; its first lines say how a run is added.
Success on unseen levels or goals in % with 95% intervals. Success is not obedience: with another episode's prompt a
policy may succeed as often as with its own. So both stand side by side, and the gap, in points, is what the words are
worth. "Greedy" takes the most probable action, "drawn" draws one; neither is left out. Where a policy was trained from
several seeds, figures are their mean with the interval of one of them, for all act in the same n levels; beside it is
the lowest and the highest of the seeds.
No number of others is comparable as it stands: beside each is how it differs.
"""


def kept(file):
    """a JSON file of sample_policy.py --eval -> what is kept of it, a dict; ValueError where it has no success"""
    scores = json.loads(Path(file).read_text())
    rows = [{'name': called(row['name']), 'success': row['success']} for row in scores['rows'] if 'success' in row]
    if not rows:
        raise ValueError(f'{file} says nothing of success. Score rows that do: sample_policy.py --eval=test')
    env_kwargs = scores['env_kwargs']
    about = {'benchmark': benchmark, 'config': trained_by, 'data': data, 'minutes': minutes, 'machine': machine}
    found = {
        'step': scores['step'],
        'seed': scores['trained']['seed'],
        'temperature': scores['settings']['temperature'],
    }
    return {**about, **found, 'env_kwargs': env_kwargs, 'rows': rows}


def called(name):
    """a row's name, 'scripted: prompt' -> 'MT10: prompt'"""
    source, colon, condition = name.partition(': ')
    return f'{task or source}: {condition}' if colon else name


def runs_of(folder):
    """-> the runs that are kept, dicts, in the order of their files' names"""
    files = sorted(file for file in folder.glob('*.json') if file.name != PUBLISHED)
    return [json.loads(file.read_text()) for file in files]


def pooled(scores):
    """the success of several tasks -> that of all their episodes"""
    if len(scores) == 1:
        return scores[0]
    hits = sum(round(score['mean'] * score['n']) for score in scores)
    n = sum(score['n'] for score in scores)
    return proportion([True] * hits + [False] * (n - hits))


def tasks_of(run):
    """-> {task, or how many there are: names of its sources}"""
    sources = list(dict.fromkeys(row['name'].partition(': ')[0] for row in run['rows'] if ': ' in row['name']))
    if len(sources) > FEW:
        return {f'{len(sources)} tasks': sources}
    return {source: [source] for source in sources}


def endings(run):
    """-> {how actions are chosen: what the names of its rows end in}"""
    temperature = run['temperature']
    found = {f'drawn at {temperature:g}' if temperature else 'greedy': ''}
    pattern = re.escape(DRAWN).replace(r'\{:g\}', '(.+)') + '$'
    for row in run['rows']:
        drawn = re.search(pattern, row['name'])
        if drawn:
            found[drawn[0].removeprefix(', ')] = drawn[0]
    return found


def scored(run):
    """yields (task, how actions are chosen, {condition: its success}) of a run"""
    success = {row['name']: row['success'] for row in run['rows']}
    for task, sources in tasks_of(run).items():
        for chosen, ending in endings(run).items():
            found = {}
            for condition in CONDITIONS:
                scores = [success[key] for s in sources if (key := f'{s}: {condition}{ending}') in success]
                if scores:
                    found[condition] = pooled(scores)
            yield task, chosen, found


def by_seed(runs):
    """runs -> lists of those that differ in their seed alone, in the order of the first of each"""
    groups = {}
    for run in runs:
        what = json.dumps([run[key] for key in ('config', 'data', 'env_kwargs', 'temperature')])
        groups.setdefault(what, []).append(run)
    return [sorted(group, key=lambda run: run['seed']) for group in groups.values()]


def mean_of_seeds(scores):
    """a row's success of each seed -> their mean, with the interval that one of them has"""
    n = scores[0]['n']
    hits = round(n * sum(score['mean'] for score in scores) / len(scores))
    return proportion([True] * hits + [False] * (n - hits))


def spread(values):
    """what each seed gives, in % or points -> what a cell ends in: '; 74.1 to 78.2', '' for one seed"""
    return f'; {min(values):.1f} to {max(values):.1f}' if len(values) > 1 else ''


def cell(founds, condition):
    """what each seed's run found -> a cell: the success under a condition, and its spread"""
    if not all(condition in found for found in founds):
        return '-'
    scores = [found[condition] for found in founds]
    return interval(mean_of_seeds(scores)) + spread([100 * score['mean'] for score in scores])


def gap(founds):
    """what each seed's run found -> a cell: how many points the prompt is worth, and its spread"""
    if not all({'prompt', 'swapped prompt'} <= set(found) for found in founds):
        return '-'
    gaps = [100 * (found['prompt']['mean'] - found['swapped prompt']['mean']) for found in founds]
    return f'{sum(gaps) / len(gaps):.1f}{spread(gaps)}'


def trained(runs):
    """runs of several seeds -> two cells: by what they were trained, and in how many minutes on what"""
    seeds = ', '.join(str(run['seed']) for run in runs)
    steps = ', '.join(dict.fromkeys(str(run['step']) for run in runs))
    minutes = ', '.join(dict.fromkeys(f'{run["minutes"]:g}' for run in runs))
    machines = '; '.join(dict.fromkeys(run['machine'] for run in runs))
    several = 's' * (len(runs) > 1)
    return [f'{runs[0]["config"]}, seed{several} {seeds}, step {steps}', f'{minutes}, {machines}']


def ours(runs):
    """a table of what is reached, Markdown"""
    conditions = [name for name in CONDITIONS if any(name in found for run in runs for *_, found in scored(run))]
    asked = [CONDITIONS[name] for name in conditions]
    heads = ['task', 'data', 'n', 'actions', *asked, 'gap', 'trained by', 'minutes, on']
    lines = []
    for group in by_seed(runs):
        for same in zip(*(scored(run) for run in group), strict=True):  # a task and a way to act, of each seed
            task, chosen, first = same[0]
            founds = [found for *_, found in same]
            n = first['prompt']['n'] if 'prompt' in first else '-'
            cells = [cell(founds, name) for name in conditions]
            lines.append([task, group[0]['data'], n, chosen, *cells, gap(founds), *trained(group)])
    return table(heads, lines)


def theirs(published):
    """a table of what others have published, Markdown"""
    heads = ['task', 'who', 'data', 'success', 'how it differs', 'source']
    return table(heads, [[row[head] for head in heads] for row in published])


def page(folder):
    """-> the page, Markdown"""
    runs, published = runs_of(folder), json.loads((folder / PUBLISHED).read_text())
    parts = [INTRO]
    for title, rows in published.items():
        mine = [run for run in runs if run['benchmark'] == title]
        here = ours(mine) if mine else 'Nothing of ours yet.'
        parts.append('\n'.join([f'## {title}', '', here, '', 'Published:', '', theirs(rows), '']))
    return '\n'.join(parts)


def main():
    config = settings.read(globals(), __file__, {'benchmark': tuple(json.loads((FOLDER / PUBLISHED).read_text()))})
    globals().update(config)
    if keep:
        lacking = [key for key in ('name', 'trained_by', 'data', 'minutes', 'machine') if not config[key]]
        if lacking:
            raise ValueError(f'{keep} is kept with what made it. Say it: --{lacking[0]}=..')
        text = json.dumps(kept(keep), indent=1) + '\n'
        save_text(FOLDER / f'{name}.json', text)
    text = page(FOLDER)
    save_text(PAGE, text)
    print(f'written: {PAGE}')


if __name__ == '__main__':
    main()
