"""A policy that says a prompt in plain words and acts on them: nanopilot/saying.py, and the plain words of toy_nav."""

import copy
import dataclasses
import re
from functools import partial

import numpy as np
import pytest
import torch
from conftest import PREPARE, TINY, run
from torch.nn import functional as F

from data.batches import Batches
from data.blocks import Splits
from data.prepared import Prepared
from data.text import END, NOT_GIVEN, PAD
from data.toy_nav import plain
from data.toy_nav.itinerary import Itinerary, any_itinerary, parse
from data.toy_nav.places import Place
from model import GPT, GPTConfig
from nanopilot.kv_cache import act_uncached
from nanopilot.onnx_export import export
from nanopilot.onnx_policy import OnnxPolicy
from nanopilot.page.drives import Drive, Drives
from nanopilot.page.sessions import Session
from nanopilot.policy import Policy
from nanopilot.saying import likeliest, probability, say, up_to_end

SAY = ['--say_len=64', '--more_texts=4']
FAST = ['--max_iters=40', '--learning_rate=1e-2', '--warmup_iters=5', '--ema_decay=0']
PROMPTS = ['go to the bed', 'the fridge, then north of the stove', 'not the red tile, just the fan please']


@pytest.fixture(scope='module')
def gpt():
    torch.manual_seed(0)
    config = GPTConfig(text_len=12, say_len=8, block_size=20, vocab_size=30, n_layer=3, n_embd=16, n_head=2, n_obs=3)
    return GPT(dataclasses.replace(config, max_steps=8)).eval()


@pytest.fixture(scope='module')
def said(prepared, tmp_path_factory):
    """the directory of a run that learned to say for a few steps"""
    cwd = tmp_path_factory.mktemp('said')
    done = run('train.py', *TINY, *SAY, *FAST, f'--data_dir={prepared}', '--out_dir=o', cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / 'o'


# ------------------------------------------------------------------------------
# what is said


def slow(gpt, ids):
    """everything anew for each token"""
    said = []
    while len(said) < gpt.config.say_len and said[-1:] != [END]:
        x = gpt.aux['saying'].read(gpt, torch.tensor([ids + said]))
        said.append(int(gpt.aux['saying'].logits(gpt, x[0, -1]).argmax()))
    return up_to_end(said)


def test_how_sure_it_is_is_the_product_of_the_tokens_probabilities(gpt):
    prompt, said = [7, 8, END], [9, 5, END]
    expected = 1.0
    for i, token in enumerate(said):
        x = gpt.aux['saying'].read(gpt, torch.tensor([prompt + said[:i]]))
        expected *= gpt.aux['saying'].logits(gpt, x[0, -1]).softmax(-1)[token].item()
    assert probability(gpt, prompt, said) == pytest.approx(expected, rel=1e-4)


def test_the_likeliest_things_to_say_are_those_of_all_that_could_be(gpt):
    """all sequences of up to two tokens, one by one; a beam as wide as the vocabulary misses none of them"""
    prompt = [7, 8, END]
    gpt = copy.deepcopy(gpt)
    gpt.aux['saying'].say_len = 2
    tokens = range(gpt.config.vocab_size)
    all_of_them = [[END], *([a, b] for a in tokens if a != END for b in tokens)]
    expected = sorted((probability(gpt, prompt, said), said) for said in all_of_them)[:-4:-1]
    found = likeliest(gpt, prompt, gpt.config.vocab_size)[:3]
    assert [said for said, _ in found] == [said for _, said in expected]
    assert [p for _, p in found] == pytest.approx([p for p, _ in expected], rel=1e-3)


def test_what_is_said_is_what_it_says_when_all_is_computed_anew(gpt):
    rng = np.random.default_rng(0)
    prompts = [[*map(int, rng.integers(4, 30, n)), END] for n in (1, 11, 4, 7, 7)]
    with torch.inference_mode():
        assert say(gpt, prompts) == [slow(gpt, ids) for ids in prompts]
    assert say(gpt, [[NOT_GIVEN]]) == [[NOT_GIVEN]]
    assert all(len(ids) <= 8 and ids[-1] == END for ids in say(gpt, prompts))


def test_a_policy_that_says_acts_when_all_is_computed_anew(gpt):
    c = gpt.config
    text = torch.tensor([[5, 6, END]])
    obs, act, bd = torch.randn(1, 4, c.chunk, c.n_obs), torch.randn(1, 4, c.chunk, c.n_act), torch.randn(1, 1, c.n_bd)
    acted = act_uncached(gpt, text, obs, act, bd)
    assert torch.allclose(acted.flatten(), gpt(text, obs, act, bd)[0]['act'][:, -1].flatten(), atol=1e-6)


def test_no_end_is_said_for_it():
    assert up_to_end([7, END, 9]) == [7, END] and up_to_end([7, 8, 9]) == [7, 8, END]


def test_only_what_is_said_is_learned(gpt):
    """neither the prompt, nor its padding, nor a prompt whose plain words nobody knows"""
    saying = gpt.aux['saying']
    text = torch.tensor([[5, 6, END, 7, 8, END, PAD], [9, END, 5, END, PAD, PAD, PAD], [5, 6, 7, END, PAD, PAD, PAD]])
    x = torch.randn(3, 7, 16)
    logits = saying.logits(gpt, x)
    places = [(0, 2, 7), (0, 3, 8), (0, 4, END), (1, 1, 5), (1, 2, END)]
    expected = np.mean([float(F.cross_entropy(logits[i, t], torch.tensor(token)).detach()) for i, t, token in places])
    assert saying.cross_entropy(gpt, x, text).item() == pytest.approx(expected, rel=1e-5)
    assert saying.cross_entropy(gpt, x[2:], text[2:]) == 0


def test_learning_to_say_compiles_as_one_graph(gpt):
    """as on GPUs, where a break in it would wait for the device; and means the same"""
    saying = gpt.aux['saying']
    text = torch.tensor([[5, 6, END, 7, 8, END, PAD], [9, END, 5, END, PAD, PAD, PAD]])
    compiled = torch.compile(partial(saying, batch={'gpt': gpt, 'more_text': text}), backend='eager', fullgraph=True)
    x = torch.randn(2, 7, 16)
    assert compiled(x).item() == pytest.approx(saying(x, {'gpt': gpt, 'more_text': text}).item(), rel=1e-5)


def test_a_frozen_encoder_says_nothing():
    with pytest.raises(ValueError, match='say_len=8'):
        GPT(GPTConfig(say_len=8, text_width=4))


# ------------------------------------------------------------------------------
# plain words


def test_plain_words_read_back(places):
    fan, bed, red = Place('at', 'fan'), Place('side', 'bed', 'north', tile='white'), Place('tile', 'red')
    asked = Itinerary((fan, bed), avoid=(red, Place('between', 'chair', other='table')))
    said = plain(asked.to_json(), False)
    assert said.startswith('go to the fan, then north of the bed on the white tile, but avoid the red tile and between')
    assert parse(said, places) == asked
    assert plain(asked.to_json(), True) == 'end up at north of the bed on the white tile'
    assert parse(plain(asked.to_json(), True), places) == asked.destination()
    for place in places.all:
        for asked in Itinerary((place,)), Itinerary((fan, place)), Itinerary((fan,), avoid=(place,)):
            assert parse(asked.plain(), places) == asked or place == fan


def test_each_text_has_its_plain_words(prepared):
    for split in 'train', 'test':
        data = Prepared(prepared, split)
        n = 0
        for row, first, end in zip(data.episodes(['text', 'loose', 'asked']), data.episode_text, data.episode_text[1:]):
            if end - first < len(row['text'] + row['loose']):  # some are too long
                continue
            for i, k in enumerate(range(first, end)):
                n += 1
                ids = data.said[slice(*data.said_start[k : k + 2])]
                assert list(ids) == data.tokenizer().encode(plain(row['asked'], i >= len(row['text'])))
                assert list(data.plain(k)) == list(ids)
                assert list(data.prompts([k], read=data.prompt_and_plain)[0]) == [*data.prompt(k), *ids]
        assert n > 100 and data.meta['longest_said'] >= len(ids)


# ------------------------------------------------------------------------------
# requests in words alone


def test_any_itinerary_has_up_to_five_places_and_three_to_avoid(places):
    rng = np.random.default_rng(0)
    drawn = [any_itinerary(rng, places) for _ in range(500)]
    assert {len(asked.places) for asked in drawn} == {1, 2, 3, 4, 5}
    assert {len(asked.avoid) for asked in drawn} == {0, 1, 2, 3}
    for asked in drawn:
        assert len({*asked.places, *asked.avoid}) == len(asked.places + asked.avoid)
        assert parse(asked.plain(), places) == asked


def test_words_without_episodes_are_only_read(tmp_path, places):
    args = ['--size=0.004', '--words_only=60', *PREPARE, '--workers=1', '--out_dir=p', '--archive_dir=a']
    done = run('prepare.py', *args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = Prepared(tmp_path / 'p', 'train')
    n_shown, n = data.episode_text[-1], len(data.text_start) - 1
    assert n > n_shown + 200 and len(data.episode_text) == len(data) + 1
    plain_words = [data.tokenizer().decode(list(data.plain(k))) for k in range(n_shown, n)]
    assert 0 < plain_words.count('') < 60  # of what names no place, or none to go to
    for said in filter(None, plain_words):
        said = parse(said, places)
        asked = Itinerary(said.places)  # a reading of plain words, which are those of an itinerary
        assert said.loose or Splits(0.1, 0.2, 0.05, 1337).fraction('group', str(asked)) >= 0.3
    batches = Batches(data, 0, 1, 8, 2, 8, 1, say_len=64, more_texts=50)
    assert max(batches.any_texts(step).max() for step in range(4)) >= n_shown
    assert max(batches.draw(group)['text'].max() for group in range(4)) < n_shown
    validation = Prepared(tmp_path / 'p', 'val')
    assert len(validation.text_start) - 1 == validation.episode_text[-1]


def test_a_data_set_without_them_is_refused(refuses):
    refuses('prepare.py', '--dataset=cartpole', '--words_only=5', words=['words_only(rng, kwargs, n)', 'Leave out'])


# ------------------------------------------------------------------------------
# a run


def test_a_run_learns_to_say(said, prepared):
    policy = Policy.load(said, 'latest')
    assert policy.config.say_len == policy.config.n_text == 64 and len(policy.model.wpe.weight) == 128
    tokens = policy.asked([*PROMPTS, None])
    assert tokens[3] == [NOT_GIVEN] and all(ids[-1] == END and ids.count(END) == 1 for ids in tokens[:3])
    assert policy.understood(PROMPTS[0]) == policy.tokenizer.decode(tokens[0])
    data = Prepared(prepared, 'train')
    texts = data.prompts(range(64), read=data.prompt_and_plain)
    model, untrained = policy.model, GPT(policy.model.config)
    losses = []
    for gpt in model, untrained:
        with torch.no_grad():
            x = gpt.aux['saying'].read(gpt, torch.from_numpy(texts))
            losses.append(gpt.aux['saying'].cross_entropy(gpt, x, torch.from_numpy(texts)).item())
    assert losses[0] < losses[1] - 0.1


def test_it_acts_on_what_it_said(said):
    """other words said, other actions"""
    policy = Policy.load(said, 'latest')
    obs = np.tile(policy.obs_mean.astype(np.float32), (2, 1))
    policy.begin(PROMPTS[:1] * 2)
    before = policy.act(obs)
    assert (before[0] == before[1]).all()
    policy.say = lambda prompts: [[9, 10 + i, END] for i in range(len(prompts))]
    policy.said.clear()
    policy.begin(PROMPTS[:2])
    after = policy.act(obs)
    assert not np.allclose(after[0], after[1])


def test_the_page_tells_what_it_has_understood(said):
    policy = Policy.load(said, 'latest')
    drives, drive = Drives(policy, 1), Drive(0, None)
    drives.request(drive, PROMPTS[0], None)
    assert drive.understood == drive.read == policy.understood(PROMPTS[0])
    drives.request(drive, None, [100.0, 100.0])
    assert drive.understood == '' and drive.read is None


def test_the_page_suggests_what_else_may_be_meant(said):
    """it was trained for a few steps: it is not sure"""
    session = Session(Drives(Policy.load(said, 'latest'), 1))
    session.ask(PROMPTS[0])
    session.publish()
    (robot,) = session.published['robots']
    assert robot['asked']['sure'] < 0.5 and robot['asked']['unclear']
    assert session.drive.others and session.published['suggestions'] == session.drive.others
    assert robot['asked']['understood'] not in session.drive.others


def says_nothing(policy, prompt):
    """from now on, of this prompt"""
    known, ids = policy.say, policy.tokens(prompt)
    policy.say = lambda prompts: [[END] if tokens == ids else said for tokens, said in zip(prompts, known(prompts))]


def test_what_it_says_nothing_of_is_refused_but_scored(said):
    policy = Policy.load(said, 'latest')
    says_nothing(policy, PROMPTS[1])
    policy.reset(PROMPTS[:1])
    mask = np.ones(1, bool)
    for ask in policy.reset, partial(policy.reset_rows, mask), partial(policy.change_prompts, mask):
        with pytest.raises(ValueError, match='asks for nothing that the policy knows'):
            ask(PROMPTS[1:2])
    assert policy.prompts == PROMPTS[:1]
    policy.begin(PROMPTS[1:2])  # as --eval does
    assert policy.understood(PROMPTS[1]) == ''


def test_the_page_refuses_it_before_anything_is_changed(said):
    policy = Policy.load(said, 'latest')
    says_nothing(policy, PROMPTS[1])
    session = Session(Drives(policy, 2))
    session.ask(PROMPTS[0])
    at = session.drive.path[0]
    refused = pytest.raises(ValueError, match='asks for nothing')
    with refused:
        session.ask(PROMPTS[1], seed=5)
    with refused:
        session.set_beside(True, PROMPTS[1])
    assert session.drive.prompt == PROMPTS[0] and (session.drive.path[0] == at).all()
    assert session.beside is None and session.beside_prompt is None


def test_a_prompt_that_was_read_is_not_read_again(said):
    policy = Policy.load(said, 'latest')
    read, say = [], policy.say
    policy.say = lambda prompts: read.extend(prompts) or say(prompts)
    policy.reset([*PROMPTS, *PROMPTS])
    policy.reset(PROMPTS)
    assert len(read) == len(PROMPTS)


def test_onnx_says_the_same(said, tmp_path):
    pytest.importorskip('onnxruntime')
    policy = Policy.load(said, 'latest')
    names = sorted(file.name for file in export(policy, tmp_path / 'p.onnx'))
    assert names == ['p.json', 'p.onnx', 'p_prompt.onnx', 'p_saying.onnx']
    exported = OnnxPolicy.load(tmp_path / 'p.onnx')
    assert exported.asked([*PROMPTS, None]) == policy.asked([*PROMPTS, None])
    obs = policy.obs_mean[None].astype(np.float32)
    for p in policy, exported:
        p.reset(PROMPTS[:1])
    assert np.allclose(policy.act(obs), exported.act(obs), atol=1e-5)


def test_it_says_what_it_has_understood(said, prepared, tmp_path):
    done = run('sample_policy.py', f'--out_dir={said}', '--checkpoint=latest', '--prompt=go to the bed', cwd=tmp_path)
    assert done.returncode == 0 and re.match(r'"go to the bed" is understood as \(\d+% sure\)\n"', done.stdout)
    assert 'sure of what' in done.stderr  # it was trained for a few steps


def test_a_policy_that_says_nothing_learns_to(trained, prepared, tmp_path):
    args = [*TINY, f'--data_dir={prepared}', '--max_iters=2', f'--init_from={trained}']
    done = run('train.py', *args, *SAY, '--out_dir=o', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = Policy.load(trained, 'latest').model, Policy.load(tmp_path / 'o', 'latest').model
    assert after.wpe.weight.shape[0] == before.wpe.weight.shape[0] + 64


def test_plain_words_that_are_not_there_are_not_said(refuses, prepared):
    args = 'train.py', *TINY, f'--data_dir={prepared}', '--out_dir=o'
    refuses(*args, '--say_len=3', '--more_texts=4', words=['say_len=3', 'Raise it'])
    refuses(*args, '--say_len=64', words=['more_texts=0', 'Set both'])
