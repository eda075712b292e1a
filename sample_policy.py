"""
Drive a trained policy by words, by a behaviour descriptor, or both; draw and judge what it did.

$ python sample_policy.py --prompt "go north of the fridge"
$ python sample_policy.py --bd=150,40 --prompt "pass by the stove, then stop near the bed" --gif
$ python sample_policy.py --prompts=wishes.txt --json=done.json   # one prompt a line, or JSON lines with prompt and bd
$ python sample_policy.py --out_dir=out-cartpole-bins --dream=100 # episodes that a model of every number makes up, beside real ones
$ python sample_policy.py --eval=test                             # score the test split; --eval=archive: how much of a QD archive it recovers
$ python sample_policy.py --eval=test --judge=gpt-4o-mini --human # .. by a language model, and by you (judge.py)
"""

import config as settings  # first: it turns mistakes into one line

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from nanopilot import dreams
from nanopilot import evaluate as evaluation
from data.disk_cache import DiskCache
from data.llm import LLM
from data.pictures import save
from data.prepared import Prepared, load_meta
from nanopilot.judge import agreement, judged_by, read_scores, write_page
from nanopilot.policy import Policy

# ------------------------------------------------------------------------------
out_dir = 'out-toy-nav-cpu'  # of the training run; pictures go there too
checkpoint = 'best'  # 'best' by its rollouts (by validation loss where there were none), 'best_loss', 'latest', or the name of a directory in out_dir
prompt = ''  # what to do, in words
bd = ''  # where to end up, numbers separated by commas: 150,40
prompts = ''  # a file of many: one prompt a line, or JSON lines with prompt and bd
num_samples = 1  # episodes a prompt
temperature = 0.0  # 0: the most probable action; above: draw (kmeans and ce heads)
top_p = 1.0  # draw from the fewest options that hold so much probability
guidance = 1.0  # how much words and bd count: 0: not at all; 1: as trained; above: more than that
gif = False  # also an animation of each episode
json_file = ''  # also write prompt, bd, path, actions, visits and verdict there (--json=FILE)
dream = 0  # episodes to make up, drawn at a temperature of 1 unless another is given (fuse='bins')
eval = ''  # 'test' or 'val': score this split instead; 'archive': an episode for every cell of the QD archive
eval_episodes = 400  # of each source, at most; 0: all
rows = ''  # of the tables of --eval, separated by commas: 'prompt,prompt and bd'; '': all
judge = ''  # also a language model scores rollouts of --eval: its name; where it is and its key: OPENAI_BASE_URL, OPENAI_API_KEY
judge_episodes = 50  # that it scores, or a person
human = False  # also a page for a person to score them, blind: human.html
data_dir = ''  # for --eval and --dream; '': data/<dataset>/prepared
batch_size = 256  # episodes driven at once
bert_model = ''  # where the frozen encoder is that the prompts were prepared with, if one was; '': where it was then
device = 'cpu'
threads = 0  # of the CPU; 0: torch's own choice
seed = 1337
sys.argv = [
    a.replace('--json=', '--json_file=') if a.startswith('--json=') else '--json_file' if a == '--json' else a
    for a in sys.argv
]
config = settings.read(globals(), __file__)
globals().update(config)
how = dict(batch_size=batch_size, temperature=temperature, top_p=top_p, seed=seed)
# ------------------------------------------------------------------------------


def requests():
    """what is asked on the command line or in a file -> list of (prompt or None, bd or None)"""

    def numbers(text):
        try:
            return [float(x) for x in str(text).strip('[]() ').split(',')]
        except ValueError:
            raise ValueError(f'bd={text!r} is not numbers separated by commas, such as 150,40') from None

    if not prompts:
        return [(prompt.strip() or None, numbers(bd) if bd else None)]
    asked = []
    for number, line in enumerate(open(prompts, encoding='utf-8'), 1):
        if line.strip().startswith('{'):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise ValueError(f'{prompts}, line {number}: not JSON ({e})') from None
            if not isinstance(row.get('prompt'), (str, type(None))):
                raise ValueError(f'{prompts}, line {number}: the prompt must be a string, got {row["prompt"]!r}')
            asked.append((row.get('prompt'), numbers(row['bd']) if row.get('bd') is not None else None))
        elif line.strip():
            asked.append((line.strip(), None))
    if not asked:
        raise ValueError(f'{prompts} holds no prompt. Write one a line')
    return asked


def drive_requests(policy):
    asked = []
    for text, target in requests():
        if (
            not text and target is None and (policy.config.text_len or policy.config.n_bd)
        ):  # there is nothing to ask of others
            raise ValueError('nothing is asked. Give --prompt "go north of the fridge", --bd=150,40, or --prompts=FILE')
        unknown = policy.check(text, target)
        if target is not None and not policy.within(target):
            print(
                f'warning: {target[0]:g} is out of the range of returns: {policy.data_spec["bd_low"][0]:g} to {policy.data_spec["bd_high"][0]:g}',
                file=sys.stderr,
            )
        for word, known in unknown.items():
            print(
                f'warning: {word} was never seen in training' + (f', it is read as {known}' if known else ''),
                file=sys.stderr,
            )
        asked += [(policy.tokenizer.fix_typos(text) if text else None, target)] * num_samples
    t = time.time()
    seeds = seed + np.arange(len(asked))
    episodes = evaluation.rollout(policy, [a for a, _ in asked], [b for _, b in asked], seeds, **how)
    t, world = time.time() - t, evaluation.world_of(policy)
    episodes = evaluation.annotated(
        policy, [{**e, 'prompt': text, 'bd': target} for e, (text, target) in zip(episodes, asked)]
    )
    for e in episodes:
        print(e['said'] + '\n')
    print(f'{len(episodes)} episodes, {sum(len(e["act"]) for e in episodes)} steps in {t:.1f} s')
    evaluation.draw(policy, Path(out_dir) / 'drive.png', episodes)
    if gif and not hasattr(world, 'animate'):
        raise ValueError(f'{policy.info["dataset"]} has no animations. Leave out --gif')
    for i, e in enumerate(episodes if gif else []):
        file = Path(out_dir) / f'drive_{i}.gif'
        world.animate(file, e, policy.data_spec['env_kwargs'])
        print(f'animation: {file}')
    if json_file:
        write_json(
            json_file,
            [
                {
                    'prompt': e['prompt'],
                    'bd': e['bd'],
                    'path': e['path'].tolist(),
                    'actions': e['act'].tolist(),
                    'visits': e['visits'],
                    'verdict': e['verdict'],
                }
                for e in episodes
            ],
        )
        print(f'written: {json_file}')


def evaluate(policy):
    """score a split, or the archive: does it do what the words ask, does it end where the descriptor says, does it listen at all?"""
    folder, t = data_dir or Path(__file__).parent / 'data' / policy.info['dataset'] / 'prepared', time.time()
    trained_on, meta = {a['sha256'] for a in policy.data_spec['archives']}, load_meta(folder)
    if {a['sha256'] for a in meta['archives']} != trained_on:
        print(
            f'warning: {folder} was prepared from other archives than {out_dir} was trained on: its test episodes may have been trained on',
            file=sys.stderr,
        )
    pictures, person = (
        Path(out_dir) / f'eval_{eval}',
        read_scores(Path(out_dir) / 'human.json') if judge or human else None,
    )
    llm = LLM(judge, DiskCache(Path(out_dir) / 'llm.sqlite')) if judge else None
    if eval == 'archive':
        found = evaluation.recover(policy, folder, pictures, **how)
    else:
        found = evaluation.evaluate(
            policy,
            Prepared(folder, eval),
            pictures,
            eval_episodes,
            num_samples,
            [r.strip() for r in rows.split(',') if r.strip()],
            **how,
        )
        if policy.model.next_obs is not None:
            found['predictions'] = predict(policy, Prepared(folder, eval))
    rollouts, file = found.pop('drawn', []), f'{pictures}.json'
    found = {
        'split': eval,
        'checkpoint': str(checkpoint),
        'step': policy.info['step'],
        'settings': config,
        'trained': policy.info['settings'],
        **found,
    }
    write_json(file, found)
    if llm or human:  # a server that fails now costs no score
        some = [e for e in rollouts if e['source'] == rollouts[0]['source']][:judge_episodes]
        write_json(file, {**found, **opinions(policy, some, llm, person)})
    print(f'\nwritten: {file} ({time.time() - t:.0f} s)')


def opinions(policy, rollouts, llm, person):
    """what a language model thinks of rollouts, a page for a person to score them, and whether the two agree"""
    world, kwargs, found = evaluation.world_of(policy), policy.data_spec['env_kwargs'], {}
    if llm:
        found['judge'] = judged_by(llm, world, rollouts, kwargs, seed)
    if human:
        write_page(Path(out_dir) / 'human.html', world, rollouts, kwargs, seed)
    if person is not None:
        found['agreement'] = agreement(person, rollouts, found['judge']['scores'] if llm else None)
    return found


def predict(policy, split):
    """the errors of predicted observations, a table"""
    found = dreams.predictions(policy, split, seed=seed)
    ahead = list(next(iter(found.values())))
    print(
        '\n| predicted so many steps on, root mean squared error (if nothing changed) | '
        + ' | '.join(map(str, ahead))
        + ' |\n|---|'
        + '---|' * len(ahead)
    )
    for name, errors in found.items():
        print(
            f'| {name} | '
            + ' | '.join(
                '{mean:.2g} [{low:.2g}, {high:.2g}]'.format(**errors[k]['policy'])
                + ' ({mean:.2g})'.format(**errors[k]['stays'])
                for k in ahead
            )
            + ' |'
        )
    return found


def write_json(file, content):
    save(file, lambda f: Path(f).write_text(json.dumps(content)))


def main():
    if threads:
        torch.set_num_threads(threads)
    if eval not in ('', 'test', 'val', 'archive'):
        raise ValueError(f"eval={eval!r} is not known: 'test', 'val' or 'archive'")
    if dream < 0 or num_samples < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f'{dream=} must be 0 or more, {num_samples=} 1 or more, {temperature=} 0 or more, {top_p=} in (0, 1]'
        )
    if (
        batch_size < 1
        or device.split(':')[0] not in ('cpu', 'cuda')
        or device != 'cpu'
        and not torch.cuda.is_available()
    ):
        raise ValueError(f"{batch_size=} must be 1 or more, {device=} 'cpu' or, where there is a GPU, 'cuda'")
    if eval and num_samples > 1 and not temperature:
        raise ValueError(
            f'num_samples={num_samples} episodes of one request are all the same at temperature=0. Raise it, or leave num_samples out'
        )
    if (judge or human) and (
        eval not in ('test', 'val')
        or min(judge_episodes, eval_episodes or 2) < 2
        or rows
        and 'prompt' not in [r.strip() for r in rows.split(',')]
    ):
        raise ValueError(
            f"--judge and --human score what --eval=test or --eval=val drives for its row 'prompt', got {eval=}, {rows=}, and 2 or more of it, "
            f'got {judge_episodes=}, {eval_episodes=}'
        )
    policy = Policy.load(out_dir, checkpoint, device, guidance, bert_model)
    if (judge or human) and not (policy.config.text_len and hasattr(evaluation.world_of(policy), 'narrate')):
        raise ValueError(f'{out_dir} is not asked in words that could be judged. Leave out --judge and --human')
    if temperature and policy.config.head == 'mse':
        raise ValueError(
            f'temperature={temperature}, but the mse head of {out_dir} has nothing to draw from. Leave it out'
        )
    if dream and (eval or prompt or bd or prompts or guidance != 1):
        raise ValueError(
            'a dream is asked nothing: --dream goes without --eval, --prompt, --bd, --prompts and --guidance'
        )
    if dream:
        folder = data_dir or Path(__file__).parent / 'data' / policy.info['dataset'] / 'prepared'
        found = dreams.evaluate(
            policy,
            Prepared(folder, 'test'),
            dream,
            Path(out_dir) / 'dream.png',
            temperature=temperature or 1.0,
            top_p=top_p,
            seed=seed,
        )
        write_json(Path(out_dir) / 'dream.json', found)
    else:
        evaluate(policy) if eval else drive_requests(policy)


if __name__ == '__main__':
    main()
