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
from data.text import NOT_GIVEN, Tokenizer, words
from model import GPT, PAD, read_file

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


class Runner:
    """A checkpoint in its world: turns prompts into tokens and drives many episodes in lockstep."""

    def __init__(self, folder):
        self.model, self.info = GPT.from_checkpoint(folder, device)
        self.about, self.config = self.info['data'], self.model.config
        self.world = importlib.import_module(f"data.{self.info['dataset']}")
        self.tokenizer = Tokenizer(read_file(folder, 'tokenizer.model', self.info), self.about['words']) if self.config.text_len else None
        if temperature and self.config.head == 'mse':
            raise ValueError(f"temperature={temperature}, but the mse head of {folder} has nothing to draw from. Leave it out")

    def tokens(self, text):
        """ a prompt, None where there is none -> ids (N,) """
        if not self.config.text_len:
            return []
        ids = self.tokenizer.encode(text) if text else [NOT_GIVEN]
        if len(ids) > self.config.text_len:
            raise ValueError(f"the prompt has {len(ids)} tokens, the model reads {self.config.text_len}. Shorten it: {text[:60]!r}..")
        return ids

    def fits(self, text):
        return len(self.tokenizer.encode(text)) <= self.config.text_len

    def check(self, text, bd):
        """ refuse what cannot be asked of this model, warn of words it has never seen """
        if not text and bd is None:
            raise ValueError('nothing is asked. Give --prompt "go north of the fridge", --bd=150,40, or --prompts=FILE')
        if bd is not None:
            low, high = self.about['bd_low'], self.about['bd_high']
            if len(bd) != len(low) or not all(a <= x <= b for a, x, b in zip(low, bd, high)):
                raise ValueError(f"bd={bd} is not within {low} to {high}. Give {len(low)} numbers within: {', '.join(self.about['bd_names'])}")
        if text:
            if not self.config.text_len:
                raise ValueError(f"{out_dir} was trained without language: it cannot read a prompt. Give --bd")
            self.tokens(text)
            unknown = self.tokenizer.unknown(text)
            if not words(text) - set(unknown):
                raise ValueError(f"the policy knows no word of {text!r}. It knows: {', '.join(self.about['words'])}")
            if unknown:
                print(f"warning: never seen in training: {', '.join(unknown)}", file=sys.stderr)

    def drive(self, texts, bds, seeds, desc='drive'):
        """
        Drive one episode for each of n requests; every one runs to its own end.

        texts: str or None each; bds: numbers or None each; seeds: of the environments
        -> list of {'act' (T, ...), 'path' (T + 1, n_bd)}
        """
        episodes = []
        for first in tqdm(range(0, len(texts), batch_size), desc=desc, unit='batch', disable=None if len(texts) > batch_size else True):
            rows = slice(first, first + batch_size)
            episodes += self.drive_batch(texts[rows], bds[rows], seeds[rows], first)
        return episodes

    def drive_batch(self, texts, bds, seeds, salt):
        n, c = len(texts), self.config
        ids = [self.tokens(t) for t in texts]
        text = torch.full((n, max(map(len, ids))), PAD)
        for row, i in zip(text, ids):
            row[:len(i)] = torch.tensor(i, dtype=torch.long)
        target = torch.tensor([[np.nan] * c.n_bd if b is None else list(b) for b in bds], dtype=torch.float32)[:, None]
        env = self.world.make_vec(n, **self.about['env_kwargs'])
        seen, info = env.reset(seed=[int(s) for s in seeds])
        seen = seen[:, self.info['obs_columns']]
        recent = np.repeat(seen[:, None], c.chunk, 1) # the last `chunk` observations
        obs = torch.empty(n, 0, c.chunk, c.n_obs)
        act = torch.empty(n, 0, c.chunk, c.n_act) if c.head != 'ce' else torch.empty(n, 0, c.chunk, dtype=torch.long)
        paths, acts, going = [[b] for b in info['bd']], [[] for _ in range(n)], np.ones(n, bool)
        generator = torch.Generator(device).manual_seed(seed + salt)
        while going.any():
            # episodes that are over are left out; the others are all at the same step
            i = np.flatnonzero(going)
            obs = torch.cat([obs, torch.from_numpy(recent)[:, None]], 1)
            act = torch.cat([act, act.new_zeros(n, 1, *act.shape[2:])], 1)
            batch = [a[i].to(device) for a in (text, obs, act, target)]
            chosen = self.model.act(*batch, temperature=temperature, top_p=top_p, generator=generator).cpu()
            act[i, -1] = chosen
            for k in range(c.chunk):
                now = act[:, -1, k].numpy()
                seen, _, terminated, truncated, info = env.step(now)
                recent = np.concatenate([recent[:, 1:], seen[:, None, self.info['obs_columns']]], 1)
                for j in np.flatnonzero(going):
                    acts[j].append(now[j].copy())
                    paths[j].append(info['bd'][j])
                going &= ~(terminated | truncated)
                if not going.any():
                    break
        return [{'act': np.array(a), 'path': np.array(p)} for a, p in zip(acts, paths)]


def find_checkpoint():
    """ the directory that out_dir's `best` or `latest` names """
    if not Path(out_dir).is_dir():
        raise FileNotFoundError(f"no checkpoint in {out_dir}. Train one: python train.py config/toy_nav_cpu.py, or set --out_dir")
    pointer = Path(out_dir) / checkpoint
    return Path(out_dir) / pointer.read_text().strip() if pointer.is_file() else pointer


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


def drive_requests(runner):
    asked = [a for a in requests() for _ in range(num_samples)]
    for text, target in asked:
        runner.check(text, target)
    t = time.time()
    seeds = seed + np.arange(len(asked))
    episodes = runner.drive([a for a, _ in asked], [b for _, b in asked], seeds)
    t, world, kwargs = time.time() - t, runner.world, runner.about['env_kwargs']
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


def evaluate(runner):
    """ score a split: does it do what the words ask, does it end where the descriptor says, does it listen at all? """
    folder = data_dir or Path(__file__).parent / 'data' / runner.info['dataset'] / 'prepared'
    split, kwargs, t = Prepared(folder, eval), runner.about['env_kwargs'], time.time()
    trained_on = {a['sha256'] for a in runner.about['archives']}
    if {a['sha256'] for a in split.meta['archives']} != trained_on:
        print(f"warning: {folder} was prepared from other archives than {out_dir} was trained on: its test episodes may have been trained on", file=sys.stderr)
    episodes = split.episodes()
    for e, path_end in zip(episodes, np.array(split.bd)):
        e['bd'] = path_end
    by_source = {s: [e for e in episodes if e['source'] == s] for s in split.meta['sources']}
    rng = np.random.default_rng(seed)
    rows = []

    def row(name, chosen, texts, with_bd=False):
        if not chosen:
            return
        driven = runner.drive(texts, [e['bd'] if with_bd else None for e in chosen], [e['seed'] for e in chosen], name)
        error = metrics.bd_error([d['path'][-1] for d in driven], [e['bd'] for e in chosen], runner.about['bd_low'], runner.about['bd_high'])
        scores = {'bd_error': metrics.average(error), 'bd_error_median': metrics.average(error, np.median)}
        if chosen[0]['asked']:
            judged = [runner.world.score(e['asked'], d['path'], kwargs) for e, d in zip(chosen, driven)]
            scores |= {k: metrics.share([j[k] for j in judged]) for k in ('carried_out', 'at_destination', 'stopped')}
            scores['in_order'] = metrics.average([j['in_order'] for j in judged])
        rows.append({'name': name, **scores})

    for source, every in by_source.items():
        some = [every[i] for i in rng.permutation(len(every))]
        if runner.config.text_len:
            some = [{**e, **{k: [t for t in e[k] if runner.fits(t)] for k in ('text', 'loose', 'held_out')}} for e in some]
            too_long = sum(not e['text'] for e in some)
            if too_long:
                print(f"{source}: {too_long} episodes left out, their descriptions are longer than the model's text_len", file=sys.stderr)
            some = [e for e in some if e['text']]
            once = list({e['group']: e for e in some}.values())[:eval_episodes or None] # nothing is asked twice
            said = [e['text'][int(rng.integers(len(e['text'])))] for e in once]
            other = metrics.swapped([e['group'] for e in once], seed)
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
        if runner.config.n_bd:
            row(f'{source}: bd', some, [None] * len(some), True)
            if runner.config.text_len:
                row(f'{source}: prompt and bd', some, [e['text'][int(rng.integers(len(e['text'])))] for e in some], True)

    def shown(score, scale=100):
        return f"{scale * score['mean']:5.1f} [{scale * score['low']:4.1f}, {scale * score['high']:4.1f}]"
    heads = {'carried_out': 'carried out %', 'at_destination': 'ends there %', 'in_order': 'places in order %',
             'bd_error': 'bd error %', 'bd_error_median': 'its median %'}
    print(f"{eval} split, step {runner.info['step']}; mean [95% interval]; bd error in % of the diagonal\n")
    print('| request | n | ' + ' | '.join(heads.values()) + ' |\n|---|---|' + '---|' * len(heads))
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
    write_json(file, {'split': eval, 'checkpoint': str(checkpoint), 'step': runner.info['step'], 'seed': seed, 'rows': rows})
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
    runner = Runner(find_checkpoint())
    evaluate(runner) if eval else drive_requests(runner)


if __name__ == '__main__':
    main()
