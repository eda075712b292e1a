"""
Drive a trained policy by words, by a behaviour descriptor, or both; draw and judge what it did.

$ python sample_policy.py --prompt "go north of the fridge"
$ python sample_policy.py --bd=150,40 --prompt "pass by the stove, then stop near the bed" --gif
$ python sample_policy.py --prompts=prompts.txt --json=done.json  # one prompt a line, or JSON lines with prompt and bd
$ python sample_policy.py --out_dir=out-cartpole-bins --dream=100 # episodes that a model of every number makes up
$ python sample_policy.py --eval=test                             # score the test split, on all cores: --workers
$ python sample_policy.py --eval=test --rows=offline              # .. without rollouts: its errors; does it listen?
$ python sample_policy.py --out_dir=out-gym --env=my.module:make  # act in an environment of your own (data/gym/)
$ python sample_policy.py --eval=archive                          # how much of a quality-diversity archive it recovers
$ python sample_policy.py --eval=test --judge=gpt-4o-mini --human # .. by a language model, and by you (judge.py)
$ python sample_policy.py --export=policy.onnx                    # for a robot without torch (nanopilot/onnx_policy.py)
$ python sample_policy.py --serve                                 # a page in the browser: type, watch, type again
$ python sample_policy.py --export_space=space                    # that page as a folder for a container, or the hub
$ python sample_policy.py --out_dir=out-mine --export=mine        # the weights alone in half precision
"""

import config as settings  # first: it turns mistakes into one line

# isort: split
import json
import time
from pathlib import Path

import numpy as np
import torch

from data.contract import has_environment, part
from data.pictures import save_text
from data.prepared import Prepared, load_meta
from data.workers import use
from nanopilot import checkpoint as checkpoints
from nanopilot import dreams, onnx_export
from nanopilot import evaluate as evaluation
from nanopilot import judge as judging
from nanopilot.offline import check_names
from nanopilot.page import space
from nanopilot.policy import Policy
from nanopilot.recovery import recover
from nanopilot.requests import check_request, drivable, numbers, read_requests, understood, warn
from nanopilot.rollout import BATCH_SIZE, annotated, dataset_of, draw, for_json, rollout

# ------------------------------------------------------------------------------
out_dir = ''  # of the training run; pictures go there too. '': the policy that comes with nanoPilot, and out-brought
checkpoint = 'best'  # 'best': of the lowest validation loss; 'latest'; or a directory in out_dir
prompt = ''  # what to do, in words
bd = ''  # where to end up, numbers separated by commas: 150,40
prompts = ''  # a file of many: one prompt a line, or JSON lines with prompt and bd
num_samples = 1  # episodes a prompt
temperature = 0.0  # 0: the most probable action; above: draw (all heads but mse)
drawn_at = 0.0  # --eval: beside each row also one whose actions are drawn at this temperature
top_p = 1.0  # nucleus sampling: the smallest set with this total probability
gif = False  # also an animation of each episode
json_file = ''  # also write prompt, bd, path, actions, visits and verdict there (--json=FILE)
dream = 0  # episodes to make up, drawn at a temperature of 1 unless another is given (fuse='bins')
env = ''  # of a policy of --dataset=gym: act in this one, an id of Gymnasium, or module:function of yours
eval = ''  # 'test' or 'val': score this split instead; 'archive': an episode for every cell of the QD archive
eval_episodes = 400  # of each source, at most; 0: all
rows = ''  # of the tables of --eval, separated by commas: 'prompt,prompt and bd'; '': all
judge = ''  # also a language model of this name scores rollouts of --eval; where it is: OPENAI_BASE_URL, OPENAI_API_KEY
judge_episodes = 50  # that it scores, or a person
export = ''  # write the policy instead: as ONNX to a file (policy.onnx) and beside it, or what acts of it to a folder
mean_with = ''  # .. the mean of its weights and those of this folder's policy, from which it was fine-tuned
serve = False  # a page to steer it by words while it drives, until Ctrl-C (nanopilot/page/)
host = '127.0.0.1'  # of that page. '0.0.0.0': whoever reaches this machine may use it
port = 8000
sessions = 32  # browsers at once; as many more may wait
export_space = ''  # write a folder instead that is the page with this policy: a Space of the Hugging Face hub
human = False  # also a page for a person to score them, blind: human.html
data_dir = ''  # for --eval and --dream; '': what it was trained on, or data/<dataset>/prepared
batch_size = BATCH_SIZE  # episodes at once, at most, in each process
bert_model = ''  # where the frozen encoder is that the prompts were prepared with, if one was; '': where it was then
device = 'cpu'
threads = 0  # of the CPU; 0: torch's own choice. --eval has one in each process
workers = 0  # processes that share --eval, one thread each; the figures are the same for any number. 0: all cores
seed = 1337
CHOICES = {'eval': ('', 'test', 'val', 'archive')}
AT_LEAST = {'dream': 0, 'num_samples': 1, 'temperature': 0, 'batch_size': 1, 'eval_episodes': 0, 'threads': 0}
AT_LEAST |= {'drawn_at': 0, 'workers': 0, 'port': 0, 'sessions': 1, 'seed': 0}
config = settings.read(globals(), __file__, CHOICES, AT_LEAST, {'json': 'json_file'})
globals().update(config)
only = [name.strip() for name in rows.split(',') if name.strip()]
sampling = {'batch_size': batch_size, 'temperature': temperature, 'top_p': top_p, 'seed': seed}
source = out_dir or Path(__file__).parent / 'data' / 'toy_nav' / 'policy'
out = Path(out_dir or 'out-brought')
# ------------------------------------------------------------------------------


def drive(policy):
    """episodes for the requests: said, drawn and written"""
    dataset = dataset_of(policy)
    if gif and not hasattr(dataset, 'animate'):
        raise ValueError(f'{policy.info["dataset"]} has no animations. Leave out --gif')
    refused = 0
    if prompts:
        requests, refused = drivable(policy, read_requests(prompts))
    else:
        target = numbers(bd) if bd else None
        requests = [(check_request(policy, prompt.strip() or None, target), target)]
    meanings = {}
    if policy.config.say_len:
        meanings = {text: understood(policy, text) for text, _ in requests if text}
    requests = [request for request in requests for _ in range(num_samples)]
    started = time.time()
    episodes = rollout(policy, *zip(*requests), seed + np.arange(len(requests)), **sampling)
    seconds = time.time() - started
    for e, (text, target) in zip(episodes, requests):
        meaning, sure = meanings.get(text, (None, None))
        e |= {'prompt': text, 'understood': meaning, 'sure': sure, 'bd': target}
    episodes = annotated(policy, episodes)
    for e in episodes:
        if e['understood']:
            print(f'"{e["prompt"]}" is understood as ({e["sure"]:.0%} sure)')
        print(e['summary'] + '\n')
    print(f'{len(episodes)} episodes, {sum(len(e["act"]) for e in episodes)} steps in {seconds:.1f} s')
    draw(policy, out / 'drive.png', episodes)
    for i, e in enumerate(episodes if gif else []):
        dataset.animate(out / f'drive_{i}.gif', e, policy.data_spec['env_kwargs'])
        print(f'animation: {out}/drive_{i}.gif')
    if json_file:
        write_json(json_file, [for_json(e) for e in episodes])
        print(f'written: {json_file}')
    if refused:
        raise ValueError(f'{refused} of the prompts in {prompts} could not be driven: see the warnings. The others are')


def write_json(file, content):
    save_text(file, json.dumps(content))


def prepared_dir(policy):
    """what --data_dir names, else what the policy was trained on, where that is still there, else the usual place"""
    trained_on = policy.info['settings'].get('data_dir')
    is_there = trained_on and Path(trained_on, 'meta.json').is_file()
    if not data_dir and is_there and same_split(policy, load_meta(trained_on)):
        print(f'data: {trained_on}, which it was trained on')
        return trained_on
    return data_dir or Path(__file__).parent / 'data' / policy.info['dataset'] / 'prepared'


def same_split(policy, meta):
    """
    Are data, by their meta.json, split as those that a policy was trained on, as far as both say? Of some of its
    archives they are, if seed and shares are the same; of all of them the means of what is trained on show it.
    """
    trained_on = {archive['sha256'] for archive in policy.data_spec['archives']}
    these = {archive['sha256'] for archive in meta['archives']}
    if these != trained_on:
        return these < trained_on
    before, now = policy.data_spec['normaliser']['obs']['mean'], meta['normaliser']['obs']['mean']
    return np.allclose(before, now, rtol=1e-6)


def evaluate(policy):
    """score a split, or the archive: does it do what is asked, does it end where it should, does it listen at all?"""
    folder, pictures, started = prepared_dir(policy), out / f'eval_{eval}', time.time()
    meta = load_meta(folder)
    check_names(policy, meta, folder)
    if not same_split(policy, meta):
        warn(
            f'{folder} was prepared from other archives than {source}, or split otherwise: '
            'its test episodes may have been trained on'
        )
    opinions = judging.Opinions(out, judge, human, seed) if judge or human else None
    if eval == 'archive':
        scores, rollouts = recover(policy, folder, pictures, **sampling), []
    else:
        split = Prepared(folder, eval)
        scores = evaluation.evaluate(policy, split, pictures, eval_episodes, num_samples, only, drawn_at, **sampling)
        rollouts = scores.pop('rollouts')
        if 'next_obs' in policy.model.aux:
            scores['predictions'] = dreams.print_predictions(policy, split, seed=seed)
    file = f'{pictures}.json'
    trained = {'step': policy.info['step'], 'trained': policy.info['settings']}
    trained |= {'env_kwargs': policy.data_spec['env_kwargs'], 'counts': meta['counts']['train']}
    scores = {'split': eval, 'data_dir': str(folder), 'checkpoint': checkpoint, 'settings': config, **trained, **scores}
    write_json(file, scores)
    if opinions:  # a server that fails now costs no score
        judged_rollouts = [e for e in rollouts if e['source'] == rollouts[0]['source']][:judge_episodes]
        write_json(file, {**scores, **opinions.of(policy, judged_rollouts)})
    print(f'\nwritten: {file} ({time.time() - started:.0f} s)')


def name_environment(policy):
    """the policy acts in the one that the command names"""
    cure = f'--env is for policies of --dataset=gym, {source} is of {policy.info["dataset"]}. Leave it out'
    in_environment = part(dataset_of(policy), 'in_environment', cure)
    policy.data_spec['env_kwargs'] = in_environment(env, policy.data_spec['env_kwargs'])


def check():
    """refuse settings that do not go together"""
    if not 0 < top_p <= 1:
        raise ValueError(f'top_p={top_p} is a probability. Set it above 0, to 1 at most')
    if device.split(':')[0] not in ('cpu', 'cuda') or device != 'cpu' and not torch.cuda.is_available():
        raise ValueError(f"device={device!r} is not there. Set it to 'cpu' or, where there is a GPU, to 'cuda'")
    if device != 'cpu' and workers > 1:
        raise ValueError(f'{workers=} are processes that share the CPU, got {device=}. Leave out --workers')
    if eval and num_samples > 1 and not temperature:
        raise ValueError(f'{num_samples=} of one request are all the same at temperature=0. Raise it, or leave it out')
    if drawn_at and eval not in ('test', 'val'):
        raise ValueError(f'{drawn_at=} is for further rows of a split, got {eval=}. Add --eval=test, or leave it out')
    if rows and eval not in ('test', 'val'):
        raise ValueError(f'{rows=} is of the tables of a split, got {eval=}. Add --eval=test, or leave it out')
    if eval == 'archive' and num_samples > 1:
        raise ValueError(f'of an archive each cell is asked for once, got {num_samples=}. Leave it out')
    if (gif or json_file) and (dream or serve or export or export_space):
        raise ValueError('--gif and --json are of what --prompt, --bd or --prompts ask. Leave them out')
    if json_file and not Path(json_file).absolute().parent.is_dir():  # before all is driven
        raise ValueError(f'{json_file} cannot be written: there is no such folder. Make it, or set another --json')
    if json_file and Path(json_file).is_dir():
        raise ValueError(f'{json_file} is a folder. Name a file: --json=done.json')
    if prompts and (prompt or bd):
        raise ValueError(f'{prompts=} holds what is asked. Leave out --prompt and --bd, or --prompts')
    if eval and (prompt or bd or prompts or gif or json_file):
        raise ValueError(f'{eval=} asks what its episodes do. Leave out --prompt, --bd, --prompts, --gif and --json')
    if dream and (eval or prompt or bd or prompts):
        raise ValueError('a dream is asked nothing. Leave out --eval, --prompt, --bd and --prompts, or --dream')
    if export and (dream or eval or prompt or bd or prompts or device != 'cpu'):
        raise ValueError('--export drives nothing. Leave out --eval, --dream, --prompt, --bd, --prompts and --device')
    if mean_with and (not export or Path(export).suffix):
        raise ValueError(f'{mean_with=} is for an export to a folder. Add --export=FOLDER, or leave it out')
    if (serve or export_space) and (export or dream or eval or prompt or bd or prompts):
        raise ValueError('the page asks for requests. Leave out --export, --eval, --dream, --prompt, --bd, --prompts')
    if judge or human:
        if eval not in ('test', 'val') or only and 'prompt' not in only:
            raise ValueError(
                f"--judge and --human score the row 'prompt' of a split, got {eval=}, {rows=}. Add --eval=test"
            )
        if min(judge_episodes, eval_episodes or 2) < 2:
            raise ValueError(f'one score says nothing, got {judge_episodes=}, {eval_episodes=}. Set them to 2 or more')


def check_policy(policy):
    """.. or not with what was trained"""
    if (judge or human) and not (policy.config.text_len and hasattr(dataset_of(policy), 'narrate')):
        raise ValueError(f'{source} is not asked in words that could be judged. Leave out --judge and --human')
    if (judge or human) and not has_environment(dataset_of(policy), policy.data_spec['env_kwargs']):
        raise ValueError(f'{source} has no environment, and so no rollouts to judge. Leave out --judge and --human')
    if (temperature or drawn_at) and policy.config.head == 'mse':
        raise ValueError(
            f'{temperature=}, {drawn_at=}, but the mse head of {source} has nothing to draw from. Leave them out'
        )
    if drawn_at and not policy.config.text_len:
        raise ValueError(f'{drawn_at=} is for rows of prompts, and {source} reads none. Set --temperature instead')


def main():
    if threads:
        torch.set_num_threads(threads)
    check()
    policy = Policy.load(source, checkpoint, device, bert_model)
    if env:
        name_environment(policy)
    check_policy(policy)
    if export_space:
        space.export(checkpoints.find_checkpoint(source, checkpoint), export_space, policy.info['dataset'])
        print(f'written: {export_space}. Next: hf upload you/nanopilot {export_space} --repo-type=space')
        return
    if serve:
        from nanopilot.page.server import serve as serve_page  # needs packages that nothing else does

        serve_page(policy, f'{policy.info["dataset"]}, step {policy.info["step"]}', host, port, sessions)
        return
    if not export:
        out.mkdir(exist_ok=True)
    if Path(export).suffix:
        written = onnx_export.export(policy, export)
        print(f'written: {", ".join(map(str, written))}')
    elif export:
        checkpoints.export(checkpoints.find_checkpoint(source, checkpoint), export, mean_with)
        print(f'written: {export}')
    elif dream:
        split = Prepared(prepared_dir(policy), 'test')
        how = {'temperature': temperature or 1.0, 'top_p': top_p, 'seed': seed}
        write_json(out / 'dream.json', dreams.evaluate(policy, split, dream, out / 'dream.png', **how))
    elif eval:
        torch.set_num_threads(1)  # as in every process: numbers of threads may round differently
        with use(workers if device == 'cpu' else 1):
            evaluate(policy)
    else:
        drive(policy)


if __name__ == '__main__':
    main()
