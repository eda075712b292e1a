"""The policy that comes with nanoPilot, data/toy_nav/policy: it is there, small, and does what it is told."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, run

from data import toy_nav
from data.text import END
from data.toy_nav import phrases
from data.toy_nav.itinerary import Itinerary, parse
from model import GPTConfig
from nanopilot import Policy
from nanopilot.checkpoint import find_checkpoint, read_checkpoint, steps_of
from nanopilot.requests import check_request
from nanopilot.resuming import check_model
from nanopilot.rollout import rollout

FOLDER = ROOT / 'data' / 'toy_nav' / 'policy'
LEAST = 16  # of these, written before it was trained: it carries out 17
PROMPTS = [
    'go north of the fridge',
    'drive to the bed',
    'stop on the purple tile',
    'fan, then bed',
    'pass by the stove, then stop near the bed',
    'could you please go to the cactus and finally to the sofa?',
    'first the fan, after that the fridge',
    'go to the fridge after the fan',
    'head for the cabinet, but keep off the red tile',
    'south of the stove',
    'please visit the statue and the cactus, in that order',
    'move between the bed and the sofa',
    'robot, park west of the sofa',
    'visit the stove before the fridge',
    'end up at the cactus',
    'go east of the fan, then south of the bed, then stop at the fridge',
    'the pink tile please',
    'without touching the blue tile go to the stove',
    'swing by the bed, then wait at the chair',
    'start at the fridge and finish north of the cactus',
]


@pytest.fixture(scope='module')
def policy():
    return Policy.load(FOLDER)


def test_it_does_what_20_prompts_say(policy):
    room = toy_nav.places(policy.data_spec['env_kwargs'])
    done = rollout(policy, PROMPTS, [None] * len(PROMPTS), np.arange(len(PROMPTS)))
    missed = [
        prompt
        for prompt, episode in zip(PROMPTS, done)
        if not parse(prompt, room).match(episode['path'], room)['carried_out']
    ]
    assert len(PROMPTS) - len(missed) >= LEAST, missed


def test_a_model_of_today_goes_on_from_it(policy):
    """settings that are newer than a checkpoint are at their defaults"""
    info = read_checkpoint(find_checkpoint(FOLDER))
    info['model'] = {name: value for name, value in info['model'].items() if name != 'freq_decay'}
    today = asdict(GPTConfig(**info['model']))
    check_model(FOLDER, info, policy.model, today, None, '')
    with pytest.raises(ValueError, match='has freq_decay=1.0, this run 0.5. Cure'):
        check_model(FOLDER, info, policy.model, today | {'freq_decay': 0.5}, None, 'Cure')


def test_of_what_names_no_place_it_says_nothing(policy):
    """of most texts that it was not trained on; of a prompt it always says something"""
    nothing = phrases.read('nothing')
    said = policy.asked(nothing['test'])
    assert said.count([END]) >= 0.9 * len(said)
    assert [END] not in policy.asked(PROMPTS)
    with pytest.raises(ValueError, match="'turn left' asks for nothing"):
        policy.reset(['turn left'])


ONLY_FORBIDS = [
    "don't go to the bed",
    'never enter the orange tile',
    'keep out of the bed',
    'stay away from the stove',
    'as far away from the fridge as possible',
    'anywhere but the bed',
]


@pytest.mark.parametrize('prompt', ONLY_FORBIDS)
def test_it_does_not_go_to_what_is_only_forbidden(policy, prompt):
    with pytest.raises(ValueError, match='where it only forbids, say where to go|but forbids the .*Say where to go'):
        check_request(policy, prompt, None)
    check_request(policy, 'go to the cactus, but not over the pink tile', None)


def test_it_does_not_go_to_what_a_list_forbids(policy):
    said, _ = policy.how_sure("don't go near the bed or the stove, go to the fridge")
    assert said == 'go to the fridge but avoid the bed'  # and not the stove: of that it says nothing


def not_meant(kind):
    """sentences that people typed, which no training showed, and what they ask for: of a kind, of nothing or no more"""
    lines = (ROOT / 'data/toy_nav/not_meant.jsonl').read_text().splitlines()
    return [sentence for sentence in map(json.loads, lines) if sentence['kind'] == kind]


def test_most_of_what_only_forbids_is_refused(policy):
    sentences = not_meant('forbids')
    refused = 0
    for sentence in sentences:
        try:
            check_request(policy, sentence['text'], None)
        except ValueError:
            refused += 1
    assert len(sentences) == 102 and refused >= 60


def test_some_places_that_are_not_meant_are_left_out(policy, places):
    """not the fan, the bathtub"""
    sentences = not_meant('instead')
    right = 0
    for sentence in sentences:
        meant = Itinerary.from_json(json.dumps(sentence['asked']))
        right += parse(policy.understood(sentence['text']), places) == meant
    assert len(sentences) == 60 and right >= 20


def test_it_does_not_go_to_places_of_a_list_to_avoid(policy):
    """by commas alone, too"""
    for prompt in (
        'avoid the stove, the sofa and the fridge and go to the fan',
        'go to the statue; stay clear of the green tile, the sofa, the cabinet',
    ):
        with pytest.raises(ValueError, match='but forbids the'):
            check_request(policy, prompt, None)


def test_what_it_cannot_follow_is_warned_of(policy, capsys):
    check_request(policy, 'go to the bed, not by way of the piano', None)
    check_request(policy, 'go to the bed or the fridge', None)
    check_request(policy, 'go between the fridge and the sofa', None)
    check_request(policy, 'go to the fan from the sofa', None)
    said = capsys.readouterr().err
    assert 'the room has no piano' in said and '"or" between places' in said
    assert 'the room has no place between the sofa and the fridge' in said
    assert '"the fan" is left out of what is understood' in said
    check_request(policy, 'go to the bed', None)
    assert capsys.readouterr().err == ''


def test_it_is_small_and_has_a_card():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8e6
    assert 'python train.py config/toy_nav.py' in (FOLDER / 'README.md').read_text()


def test_it_is_what_sample_policy_drives_where_no_other_is_named(tmp_path):
    process = run('sample_policy.py', '--prompt=go to the bed', cwd=tmp_path)
    assert process.returncode == 0 and 'stopped at' in process.stdout
    assert (tmp_path / 'out-brought' / 'drive.png').is_file()


def test_it_is_loaded_without_what_compiles(tmp_path):
    """torch._dynamo takes longer to import than the policy to load"""
    code = (
        f'import sys; from nanopilot import Policy; Policy.load({str(FOLDER)!r}); print("torch._dynamo" in sys.modules)'
    )
    process = run('-c', code, cwd=tmp_path)
    assert process.stdout.strip() == 'False', process.stderr


def test_an_export_acts_alike_in_half_the_bytes(trained, prepared, script, refuses, tmp_path):
    to = f'--export={tmp_path}/mine'
    script('sample_policy.py', f'--out_dir={trained}', to)
    refuses('sample_policy.py', f'--out_dir={trained}', to, words=('mine is there already',))
    whole, half = Policy.load(trained), Policy.load(tmp_path / 'mine')
    for name, tensor in whole.model.state_dict().items():
        assert torch.allclose(tensor, half.model.state_dict()[name], atol=1e-3, rtol=1e-3), name
    assert torch.equal(whole.model.steps.obs_norm.mean, half.model.steps.obs_norm.mean)
    sizes = [folder / 'model.safetensors' for folder in (find_checkpoint(trained), tmp_path / 'mine')]
    assert sizes[1].stat().st_size < 0.6 * sizes[0].stat().st_size
    command = ['train.py', *TINY, f'--data_dir={prepared}', f'--out_dir={tmp_path}/mine', '--init_from=resume']
    refuses(*command, words=('no intact checkpoint',))


def test_an_export_may_be_the_mean_of_two(trained, script, refuses, tmp_path):
    last, before = steps_of(trained)[:2]
    args = 'sample_policy.py', f'--out_dir={last}', f'--export={tmp_path}/mean'
    script(*args, f'--mean_with={before}')
    mean, *both = (Policy.load(folder).model.state_dict() for folder in (tmp_path / 'mean', last, before))
    for name, tensor in mean.items():
        assert torch.allclose(tensor, (both[0][name] + both[1][name]) / 2, atol=1e-3, rtol=1e-3), name
    assert any(not torch.equal(both[0][name], both[1][name]) for name in mean)
    refuses(*args[:2], f'--export={tmp_path}/other', f'--mean_with={FOLDER}', words=('another model',))
    refuses(*args[:2], f'--mean_with={before}', words=('mean_with=', '--export=FOLDER'))
