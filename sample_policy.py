"""
Drive a trained policy by words, by a behaviour descriptor, or both; draw and judge what it did.

$ python sample_policy.py --prompt "go north of the fridge"
$ python sample_policy.py --bd=150,40 --prompt "pass by the stove, then stop near the bed" --gif
$ python sample_policy.py --prompts=wishes.txt --json=done.json   # one prompt a line, or JSON lines with prompt and bd
$ python sample_policy.py --eval=test                             # score the test split
"""
import config as settings # first: it turns mistakes into one line

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import metrics
from data.prepared import Prepared
from policy import Policy

# ------------------------------------------------------------------------------
out_dir = 'out-toy-nav-cpu' # of the training run; pictures go there too
checkpoint = 'best' # 'best' by validation loss, 'latest', or the name of a directory in out_dir
prompt = '' # what to do, in words
bd = '' # where to end up, numbers separated by commas: 150,40
prompts = '' # a file of many: one prompt a line, or JSON lines with prompt and bd
num_samples = 1 # episodes a prompt
temperature = 0.0 # 0: the most probable action; above: draw (kmeans and ce heads)
top_p = 1.0 # draw from the fewest options that hold so much probability
gif = False # also an animation of each episode
json_file = '' # also write prompt, bd, path, actions, visits and verdict there (--json=FILE)
eval = '' # 'test' or 'val': score this split instead
eval_episodes = 400 # of each source, at most; 0: all
data_dir = '' # for --eval; '': data/<dataset>/prepared
batch_size = 256 # episodes driven at once
device = 'cpu'
threads = 0 # of the CPU; 0: torch's own choice
seed = 1337
sys.argv = [a.replace('--json=', '--json_file=') if a.startswith('--json=') else '--json_file' if a == '--json' else a for a in sys.argv]
config = settings.read(globals(), __file__)
globals().update(config)
# ------------------------------------------------------------------------------


def world_of(policy):
    """ the data set that the policy was trained on: its environment, its words, its scores """
    return importlib.import_module(f"data.{policy.info['dataset']}")


def drive(policy, texts, bds, seeds, desc='drive'):
    """
    Drive one episode for each of n requests; every one runs to its own end. Row r drives the requests r, r + rows, ..: which
    row an episode gets does not depend on how long others take, so none is favoured for being short.

    texts: str or None each; bds: numbers or None each; seeds: of the environments
    -> list of {'act' (T, ...), 'path' (T + 1, n_bd)}
    """
    total, n, chunk = len(texts), min(batch_size, len(texts)), policy.config.chunk
    env = world_of(policy).make_vec(n, **policy.about['env_kwargs'])
    seen, info = env.reset(seed=[int(s) for s in seeds[:n]])
    policy.reset(texts[:n], bds[:n])
    which, going, clock = np.arange(n), np.ones(n, bool), 0
    acts, paths = [[] for _ in texts], [[] for _ in texts]
    for i in range(n):
        paths[i].append(info['bd'][i])
    generator = torch.Generator(device).manual_seed(seed)
    bar = tqdm(total=total, desc=desc, unit='ep', disable=None if total > batch_size else True)
    while True:
        now = policy.act(seen, skip=~going, temperature=temperature, top_p=top_p, generator=generator)
        seen, _, terminated, truncated, info = env.step(now)
        for row in np.flatnonzero(going):
            acts[which[row]].append(now[row])
            paths[which[row]].append(info['bd'][row])
        bar.update(int((going & (terminated | truncated)).sum()))
        going &= ~(terminated | truncated)
        clock += 1
        waiting = ~going & (which + n < total)
        if waiting.any() and (clock % chunk == 0 or not going.any()): # together with the others' decisions
            which[waiting] += n
            mine = which[waiting]
            fresh, info = env.reset(seed=[int(i) for i in np.asarray(seeds)[which]], options={'reset_mask': waiting})
            seen = np.where(waiting[:, None], fresh, seen)
            policy.reset_rows(waiting, [texts[i] for i in mine], [bds[i] for i in mine])
            for i, end in zip(mine, info['bd'][waiting]):
                paths[i].append(end)
            going |= waiting
        if not going.any():
            break
    bar.close()
    return [{'act': np.array(a), 'path': np.array(p)} for a, p in zip(acts, paths)]


def requests():
    """ what is asked on the command line or in a file -> list of (prompt or None, bd or None) """
    def numbers(text):
        try:
            return [float(x) for x in str(text).strip('[]() ').split(',')]
        except ValueError:
            raise ValueError(f"bd={text!r} is not numbers separated by commas, such as 150,40") from None
    if not prompts:
        return [(prompt.strip() or None, numbers(bd) if bd else None)]
    asked = []
    for number, line in enumerate(open(prompts, encoding='utf-8'), 1):
        if line.strip().startswith('{'):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise ValueError(f"{prompts}, line {number}: not JSON ({e})") from None
            if not isinstance(row.get('prompt'), (str, type(None))):
                raise ValueError(f"{prompts}, line {number}: the prompt must be a string, got {row['prompt']!r}")
            asked.append((row.get('prompt'), numbers(row['bd']) if row.get('bd') is not None else None))
        elif line.strip():
            asked.append((line.strip(), None))
    if not asked:
        raise ValueError(f"{prompts} holds no prompt. Write one a line")
    return asked


def drive_requests(policy):
    asked = [a for a in requests() for _ in range(num_samples)]
    for text, target in asked:
        if not text and target is None:
            raise ValueError('nothing is asked. Give --prompt "go north of the fridge", --bd=150,40, or --prompts=FILE')
        unknown = policy.check(text, target)
        if unknown:
            print(f"warning: never seen in training: {', '.join(unknown)}", file=sys.stderr)
    t = time.time()
    seeds = seed + np.arange(len(asked))
    episodes = drive(policy, [a for a, _ in asked], [b for _, b in asked], seeds)
    t, world, kwargs = time.time() - t, world_of(policy), policy.about['env_kwargs']
    for e, (text, target) in zip(episodes, asked):
        e.update(prompt=text, bd=target, **world.judge(text, target, e['path'], kwargs))
        print(e['said'] + '\n')
    print(f"{len(episodes)} episodes, {sum(len(e['act']) for e in episodes)} steps in {t:.1f} s")
    picture = Path(out_dir) / 'drive.png'
    world.draw_episodes(picture, episodes[:12], kwargs)
    print(f"picture: {picture}" + (" (the first 12)" if len(episodes) > 12 else ''))
    for i, e in enumerate(episodes if gif else []):
        file = Path(out_dir) / f'drive_{i}.gif'
        world.animate(file, e, kwargs)
        print(f"animation: {file}")
    if json_file:
        write_json(json_file, [{'prompt': e['prompt'], 'bd': e['bd'], 'path': e['path'].tolist(), 'actions': e['act'].tolist(),
                                'visits': e['visits'], 'verdict': e['verdict']} for e in episodes])
        print(f"written: {json_file}")


# ------------------------------------------------------------------------------
# evaluation


def evaluate(policy):
    """ score a split: does it do what the words ask, does it end where the descriptor says, does it listen at all? """
    folder = data_dir or Path(__file__).parent / 'data' / policy.info['dataset'] / 'prepared'
    split, world, kwargs, t = Prepared(folder, eval), world_of(policy), policy.about['env_kwargs'], time.time()
    trained_on = {a['sha256'] for a in policy.about['archives']}
    if {a['sha256'] for a in split.meta['archives']} != trained_on:
        print(f"warning: {folder} was prepared from other archives than {out_dir} was trained on: its test episodes may have been trained on", file=sys.stderr)
    episodes = split.episodes()
    for i, e in enumerate(episodes):
        e['bd'], e['path'] = np.array(split.bd[i]), np.array(split.path[split.start[i]:split.start[i + 1]])
    by_source = {s: [e for e in episodes if e['source'] == s] for s in split.meta['sources']}
    rng = np.random.default_rng(seed)
    rows = []

    def row(name, chosen, texts=None, with_bd=False):
        """ one way of asking, or without texts the episodes themselves: what could be reached at most """
        if not chosen:
            return
        if texts is None:
            paths = [[e['path']] for e in chosen]
        else:
            asked = [(text, e['bd'] if with_bd else None, e['seed']) for e, text in zip(chosen, texts) for _ in range(num_samples)]
            driven = drive(policy, *zip(*asked), desc=name)
            paths = [[d['path'] for d in driven[i:i + num_samples]] for i in range(0, len(driven), num_samples)]
        low, high = policy.about['bd_low'], policy.about['bd_high']
        error = np.array([metrics.bd_error([p[-1] for p in some], [e['bd']] * len(some), low, high) for some, e in zip(paths, chosen)]) # (n, samples)
        mean = error.mean(1)
        scores = {'bd_error': metrics.average(mean), 'bd_error_median': metrics.average(mean, np.median), 'within_5': metrics.share(mean <= 0.05),
                  'within_10': metrics.share(mean <= 0.1)}
        if num_samples > 1:
            scores['bd_error_best'] = metrics.average(error.min(1))
        if chosen[0]['asked']:
            judged = [[world.score(e['asked'], p, e['path'], kwargs) for p in some] for some, e in zip(paths, chosen)]
            for k, v in judged[0][0].items():
                if isinstance(v, (bool, float)):
                    values = [np.mean([j[k] for j in some]) for some in judged]
                    scores[k] = metrics.share(values) if isinstance(v, bool) and len(judged[0]) == 1 else metrics.average(values)
        rows.append({'name': name, **scores})

    for source, every in by_source.items():
        some = [every[i] for i in rng.permutation(len(every))]
        if policy.config.text_len:
            some = [{**e, **{k: [t for t in e[k] if policy.fits(t)] for k in ('text', 'loose', 'held_out')}} for e in some]
            too_long = sum(not e['text'] for e in some)
            if too_long:
                print(f"{source}: {too_long} episodes left out, their descriptions are longer than the model's text_len", file=sys.stderr)
            some = [e for e in some if e['text']]
            once = list({e['group']: e for e in some}.values())[:eval_episodes or None] # nothing is asked twice
            said = [e['text'][int(rng.integers(len(e['text'])))] for e in once]
            other = metrics.swapped([e['group'] for e in once], seed)
            row(f'{source}: themselves', once)
            row(f'{source}: prompt', once, said)
            row(f'{source}: no prompt', once, [None] * len(once))
            row(f'{source}: swapped prompt', once, [said[i] for i in other])
            unseen = [e for e in once if e['held_out']]
            row(f'{source}: held-out phrasing', unseen, [e['held_out'][0] for e in unseen])
            new = [(e, s) for e, s in zip(once, said) if e['combination']]
            row(f'{source}: held-out combination', [e for e, _ in new], [s for _, s in new])
            loose = [e for e in once if e['loose']]
            row(f'{source}: destination only', [{**e, 'asked': json.dumps(json.loads(e['asked'])[-1:])} for e in loose], [e['loose'][0] for e in loose])
        some = some[:eval_episodes or None]
        if policy.config.n_bd:
            row(f'{source}: bd', some, [None] * len(some), True)
            if policy.config.text_len:
                row(f'{source}: prompt and bd', some, [e['text'][int(rng.integers(len(e['text'])))] for e in some], True)

    def shown(score, scale=100):
        return f"{scale * score['mean']:5.1f} [{scale * score['low']:4.1f}, {scale * score['high']:4.1f}]"
    print(f"{eval} split, step {policy.info['step']}; mean [95% interval], in %")
    known = {'carried_out': 'carried out', 'in_order': 'places in order', 'at_destination': 'ends there', 'landmark_f1': 'landmark F1', 'colour_f1': 'colour F1'}
    ends = {'bd_error': 'bd error', 'bd_error_median': 'its median', 'within_5': 'within 5%', 'within_10': 'within 10%', 'bd_error_best': f'best of {num_samples}'}
    for title, heads in ('what the words ask', known), ('where it ends, in % of the diagonal', ends):
        heads = {k: head for k, head in heads.items() if any(k in r for r in rows)}
        if heads:
            print(f'\n| {title} | n | ' + ' | '.join(heads.values()) + ' |\n|---|---|' + '---|' * len(heads))
            for r in rows:
                print(f"| {r['name']} | {r['bd_error']['n']} | " + ' | '.join(shown(r[k]) if k in r else '-' for k in heads) + ' |')
    found = {r['name']: r for r in rows}
    for source in by_source:
        right, wrong = found.get(f'{source}: prompt', {}).get('carried_out'), found.get(f'{source}: swapped prompt', {}).get('carried_out')
        if right and right['low'] > wrong['high']:
            print(f"\n{source}: the policy listens: {100 * right['mean']:.0f}% with the right prompt, {100 * wrong['mean']:.0f}% with another's")
        elif right:
            print(f"\n{source}: WARNING: the policy may be ignoring the prompt: right and swapped prompts score within their intervals")
    file = Path(out_dir) / f'eval_{eval}.json'
    write_json(file, {'split': eval, 'checkpoint': str(checkpoint), 'step': policy.info['step'], 'seed': seed, 'rows': rows})
    print(f"\nwritten: {file} ({time.time() - t:.0f} s)")


def write_json(file, content):
    """ all of it or nothing """
    temporary = f'{file}.partial'
    with open(temporary, 'w') as f:
        json.dump(content, f)
    os.replace(temporary, file)


def main():
    if threads:
        torch.set_num_threads(threads)
    if eval not in ('', 'test', 'val'):
        raise ValueError(f"eval={eval!r} is not known: 'test' or 'val'")
    if num_samples < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(f"{num_samples=} must be 1 or more, {temperature=} 0 or more, {top_p=} in (0, 1]")
    if batch_size < 1 or device.split(':')[0] not in ('cpu', 'cuda') or device != 'cpu' and not torch.cuda.is_available():
        raise ValueError(f"{batch_size=} must be 1 or more, {device=} 'cpu' or, where there is a GPU, 'cuda'")
    if eval and num_samples > 1 and not temperature:
        raise ValueError(f"num_samples={num_samples} episodes of one request are all the same at temperature=0. Raise it, or leave num_samples out")
    policy = Policy.load(out_dir, checkpoint, device)
    if temperature and policy.config.head == 'mse':
        raise ValueError(f"temperature={temperature}, but the mse head of {out_dir} has nothing to draw from. Leave it out")
    evaluate(policy) if eval else drive_requests(policy)


if __name__ == '__main__':
    main()
