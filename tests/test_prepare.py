"""prepare.py: what it keeps, what it drops and says so, and that no split knows of another."""

import json
import re
import shutil
import sys
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
from conftest import PREPARE, ROOT, hashes, refused, run

from data import cartpole, contract, toy_nav, verify
from data.archive import Archive, save
from data.blocks import Splits, split_by_count
from data.nearest_words import neighbours
from data.prepared import SPLITS, Prepared
from data.text import MARKS, Tokenizer, words
from data.toy_nav.itinerary import MAX_PLACES


@pytest.fixture(scope='module')
def splits(prepared):
    return {s: Prepared(prepared, s) for s in SPLITS}


@pytest.fixture(scope='module')
def rows(splits):
    return {s: splits[s].episodes() for s in SPLITS}


# ------------------------------------------------------------------------------
# what is kept


def test_every_stored_episode_replays(preparing, demos):
    output = preparing[0].stdout
    assert f'verified: {len(demos)} of {len(demos)} episodes are kept' in output and 'dropped' not in output


def test_arrays_hold_the_episodes(splits, rows, demos):
    by_seed = {e['seed']: e for e in demos}
    for s, data in splits.items():
        for i, row in enumerate(rows[s]):
            e, here = by_seed.pop(row['seed']), slice(data.start[i], data.start[i + 1])
            assert row['asked'] == e['asked'] and np.array_equal(data.act[here], e['act'])
            assert np.array_equal(data.obs[here], e['obs']) and np.array_equal(data.bd[i], e['bd'])
            assert np.array_equal(data.path[here], e['path'][1:]) and np.array_equal(data.taught[here], e['taught'])
    assert not by_seed


def test_the_normaliser_is_of_the_training_split(splits):
    norm, train = splits['train'].meta['normaliser'], splits['train']
    for name, values in ('obs', train.obs), ('act', train.act), ('bd', train.bd):
        values = np.array(values, dtype=np.float64)
        std = values.std(0)
        assert np.allclose(norm[name]['mean'], values.mean(0)) and np.allclose(
            norm[name]['std'], np.where(std < 1e-6, 1, std), rtol=1e-4
        )


def test_meta_counts_what_is_there(preparing, splits, rows):
    meta, output = splits['train'].meta, preparing[0].stdout
    for s in SPLITS:
        assert meta['counts'][s] == {
            'episodes': len(rows[s]),
            'steps': len(splits[s].obs),
            'demonstrations': len(rows[s]),
        }
        assert re.search(rf'{s}: +{len(rows[s])} episodes, +{len(splits[s].obs)} steps', output)
    assert meta['longest'] == max(data.length.max() for data in splits.values())
    assert meta['archives'][0]['file'] == 'demos.parquet' and len(meta['archives'][0]['sha256']) == 64


# ------------------------------------------------------------------------------
# the splits


def test_splits_share_no_itinerary_no_description_and_no_end(splits, rows):
    for a, b in ('train', 'val'), ('train', 'test'), ('val', 'test'):
        for what in (
            lambda s: {r['asked'] for r in rows[s]},
            lambda s: {r['group'] for r in rows[s]},
            lambda s: {t for r in rows[s] for t in r['text']},
            lambda s: {row.tobytes() for row in np.array(splits[s].bd)},
        ):
            assert what(a) and not what(a) & what(b), (a, b)


def pairs(row):
    names = sorted(
        {
            p[k] if p['kind'] != 'tile' else p[k] + ' tile'
            for p in json.loads(row['asked'])
            for k in ('name', 'other')
            if p.get(k)
        }
    )
    return {(a, b) for i, a in enumerate(names) for b in names[i + 1 :]}


def test_held_out_combinations_are_in_the_test_split_only(rows):
    trained = set().union(*(pairs(r) for s in ('train', 'val') for r in rows[s]))
    combined = [r for r in rows['test'] if r['novel'] == 'combination']
    assert len(combined) > 3 and not any(r['novel'] for s in ('train', 'val') for r in rows[s])
    for r in combined:  # some pair of its landmarks is never together in training
        assert pairs(r) - trained, r['asked']


def test_longer_itineraries_are_in_the_test_split_only(rows):
    longer = {
        s: [
            r['novel'] == 'longer'
            for r in rows[s]
            if len(json.loads(r['asked'])) - ('"avoid"' in r['asked']) > MAX_PLACES
        ]
        for s in SPLITS
    }
    assert longer['test'] and all(longer['test']) and not longer['train'] and not longer['val']


def test_held_out_phrasings_are_in_the_test_split_only(rows):
    assert all(len(r['held_out']) == 4 for r in rows['test'])
    assert not any(len(r['held_out']) for s in ('train', 'val') for r in rows[s])
    trained = {t for r in rows['train'] for t in r['text'] + r['loose']}
    assert not {t for r in rows['test'] for t in r['held_out']} & trained


def test_the_tokenizer_saw_training_texts_alone(splits, rows):
    texts, meta = [t for r in rows['train'] for t in r['text'] + r['loose']], splits['train'].meta
    assert set(meta['words']) - set(MARKS) == set().union(*map(words, texts))
    assert {',', ':'} <= set(meta['words'])
    assert meta['neighbours'] == neighbours(texts) == splits['train'].data_spec()['neighbours']
    assert splits['train'].tokenizer().model == Tokenizer.train(texts, meta['settings']['vocab_size']).model


def test_training_texts_are_read_rougher_than_they_are_kept(splits, rows):
    """.. and no others: what is scored is what was said"""
    share = {}
    for split in 'train', 'val', 'test':
        data, tokenizer = splits[split], splits[split].tokenizer()
        kept = [tokenizer.encode(text) for r in rows[split] for text in r['text'] + r['loose']]
        kept = [ids for ids in kept if len(ids) <= data.meta['settings']['text_len']]
        read = [data.prompt(k).tolist() for k in range(len(data.text_start) - 1)]
        if split != 'train':
            assert read == kept
        share[split] = np.mean([ids in kept for ids in read])
    assert 0.4 < share['train'] < 0.7


def test_texts_describe_what_was_asked(rows, places):
    from data.toy_nav.itinerary import Itinerary, parse

    n, misread = 0, []
    for r in rows['test'] + rows['train'][:20]:
        asked = Itinerary.from_json(r['asked'])
        assert len(set(r['text'])) == 8
        assert all(parse(t, places) == asked.destination() for t in r['loose'])
        said = [*r['text'], *r['held_out']]
        misread += [text for text in said if parse(text, places) != asked]
        n += len(said)
    assert n > 200 and len(misread) <= 0.01 * n, misread


# ------------------------------------------------------------------------------
# what is dropped


def changed(e, **arrays):
    return {**e, **{k: np.array(v, dtype=e[k].dtype) for k, v in arrays.items()}}


def put(array, where, value):
    array = np.array(array)
    array[where] = value
    return array


def test_tampered_episodes_are_dropped_counted_and_named(demos, archive_meta, tmp_path):
    e = [dict(x) for x in demos]
    still = [i for i, x in enumerate(demos) if (x['act'][-1] == 0).all()]
    e[0] = changed(e[0], act=put(e[0]['act'], (5, 0), e[0]['act'][5, 0] - 0.01))
    e[1] = changed(e[1], obs=put(e[1]['obs'], (7, 5), e[1]['obs'][7, 5] + 1e-4))
    e[2] = changed(e[2], bd=e[2]['bd'] + 0.001)
    e[3] = changed(e[3], path=put(e[3]['path'], (9, 1), 0))
    last = next(i for i in still if i > 10)
    e[last] = changed(e[last], act=put(e[last]['act'], -1, 0.05))  # no observation shows its very last action
    e[4] = changed(e[4], obs=put(e[4]['obs'], (3, 0), np.nan))
    e[5] = changed(e[5], act=put(e[5]['act'], (3, 1), np.inf))
    e[6] = changed(e[6], act=put(e[6]['act'], (3, 1), 1.5))
    e[7] = changed(e[7], obs=e[7]['obs'][:-1])
    e[8] = changed(e[8], path=e[8]['path'][:-1])
    e[9] = {
        **e[9],
        **{k: np.concatenate([e[9][k], e[9][k][-2:]]) for k in ('obs', 'act', 'path', 'taught', 'subgoal')},
    }  # goes on after its end
    e.append(demos[10])
    save(tmp_path / 'a.parquet', e, archive_meta)
    process = run('prepare.py', '--archive=a.parquet', '--out_dir=p', *PREPARE, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    dropped = {why: n for n, why in re.findall(r'dropped (\d+) of demonstrations: (.*)', process.stdout)}
    assert dropped == {
        'goes elsewhere when replayed': '3',
        'other observations when replayed': '1',
        'ends elsewhere when replayed': '1',
        'not finite': '2',
        'action out of range': '1',
        'shape': '2',
        'is over before its end when replayed': '1',
        'the same as another': '1',
    }
    assert f'verified: {len(demos) - 11} of {len(demos) + 1} episodes are kept' in process.stdout
    kept = {
        data.act[data.start[i] : data.start[i + 1]].tobytes()
        for data in (Prepared(tmp_path / 'p', s) for s in SPLITS)
        for i in range(len(data))
    }
    tampered = set(range(10)) | {last}
    assert kept == {np.ascontiguousarray(x['act']).tobytes() for i, x in enumerate(demos) if i not in tampered}


def test_starts_anywhere_replay_from_their_seeds(tmp_path, script, capsys, archive_meta):
    from data import toy_nav

    kwargs = toy_nav.env_kwargs(start_anywhere=True)
    e = list(toy_nav.collect('demonstrations', 24 / toy_nav.SOURCES['demonstrations'], 0, kwargs))
    e[0]['seed'] += 1
    save(tmp_path / 'a.parquet', e, {**archive_meta, 'env_kwargs': kwargs})
    script(
        'prepare.py',
        '--archive=a.parquet',
        '--out_dir=p',
        '--env_kwargs={"start_anywhere": true}',
        '--val_share=0.25',
        '--test_share=0.25',
    )
    output = capsys.readouterr().out
    assert (
        f'verified: {len(e) - 1} of {len(e)} episodes are kept' in output
        and 'dropped 1 of demonstrations: goes elsewhere when replayed' in output
    )


def test_marks_of_another_length_are_dropped(demos, archive_meta, tmp_path, script, capsys):
    e = [dict(x) for x in demos]
    e[0] = changed(e[0], taught=e[0]['taught'][:-3])
    save(tmp_path / 'a.parquet', e, archive_meta)
    script('prepare.py', '--archive=a.parquet', '--out_dir=p', *PREPARE)
    assert 'dropped 1 of demonstrations: shape' in capsys.readouterr().out
    for s in SPLITS:
        data = Prepared(tmp_path / 'p', s)
        assert len(data.taught) == len(data.act)


def test_parts_speak_of_their_steps(demos, archive_meta, tmp_path, script, capsys):
    """and are no prompts to be scored; parts that are none are dropped"""
    parts = [[['go to the bed', 0, 5], ['wait', 3, 9]]] * (len(demos) - 2) + [[['wait', 3, 10**4]], 'nonsense']
    save(tmp_path / 'a', [{**e, 'parts': json.dumps(p)} for e, p in zip(demos, parts)], archive_meta)
    shares = ['--val_share=0.1', '--test_share=0.1']
    script(
        'prepare.py',
        f'--archive={tmp_path / "a"}',
        f'--out_dir={tmp_path / "p"}',
        f'--export={tmp_path / "e"}',
        *shares,
    )
    assert 'dropped 2 of demonstrations: parts' in capsys.readouterr().out
    script('prepare.py', f'--archive={tmp_path / "e"}', f'--out_dir={tmp_path / "again"}', '--describe=keep', *shares)
    split = Prepared(tmp_path / 'p', 'val')
    tokenizer = split.tokenizer()
    for i, row in enumerate(split.episodes()):
        texts = range(*split.episode_text[i : i + 2])
        spoken = {tuple(split.prompt(k)): split.span[k].tolist() for k in texts[-2:]}
        assert spoken == {tuple(tokenizer.encode('go to the bed')): [0, 5], tuple(tokenizer.encode('wait')): [3, 9]}
        assert all(split.span[k, 0] == 0 and split.span[k, 1] > 10**4 for k in texts[:-2])
        assert 'wait' not in row['text'] + row['loose']
    for name in SPLITS:
        assert np.array_equal(Prepared(tmp_path / 'again', name).span, Prepared(tmp_path / 'p', name).span)


def test_an_archive_without_path_and_marks_will_do(demos, archive_meta, tmp_path, script, capsys):
    bare = [
        {k: e[k] for k in ('obs', 'act', 'bd', 'seed', 'source', 'asked')} | {'text': ['do what I mean', 'or not']}
        for e in demos
    ]
    save(tmp_path / 'a.parquet', bare, archive_meta)
    script('prepare.py', '--archive=a.parquet', '--out_dir=p', '--describe=keep', *PREPARE)
    data = Prepared(tmp_path / 'p', 'train')
    assert data.taught.all() and np.array_equal(data.path[data.start[1:] - 1], data.bd)  # replaying fills the path in
    assert data.meta['words'] == ['do', 'i', 'mean', 'not', 'or', 'what']


# ------------------------------------------------------------------------------
# the same again, and mistakes


def test_same_seed_same_files(preparing, demo_archive, tmp_path):
    process = run(
        'prepare.py',
        f'--archive={demo_archive}',
        '--out_dir=again',
        *PREPARE,
        cwd=tmp_path,
        env={'PYTHONHASHSEED': '12'},
    )
    assert process.returncode == 0
    assert hashes(tmp_path / 'again') == hashes(preparing[1])
    assert [f.name for f in tmp_path.iterdir()] == ['again']


def test_another_seed_splits_otherwise(preparing, demo_archive, tmp_path, script):
    script('prepare.py', f'--archive={demo_archive}', '--out_dir=other', '--seed=2', *PREPARE)
    groups = [
        {r['group'] for r in Prepared(folder, 'train').episodes()} for folder in (preparing[1], tmp_path / 'other')
    ]
    assert groups[0] != groups[1]


def test_two_archives_are_one(demos, archive_meta, prepared, tmp_path, script):
    for name, episodes in ('a', demos[:60]), ('b', demos[60:]):
        save(tmp_path / f'{name}.parquet', episodes, archive_meta)
    script('prepare.py', '--archive=a.parquet,b.parquet', '--out_dir=p', *PREPARE)
    ours, theirs = hashes(tmp_path / 'p'), hashes(prepared)
    assert {k: v for k, v in ours.items() if k != 'meta.json'} == {k: v for k, v in theirs.items() if k != 'meta.json'}


def test_longer_descriptions_are_left_out_and_counted(demo_archive, tmp_path, script, capsys):
    script('prepare.py', f'--archive={demo_archive}', '--out_dir=p', '--text_len=24', *PREPARE)
    left_out = int(re.search(r'(\d+) longer than text_len=24 left out', capsys.readouterr().out).group(1))
    data = Prepared(tmp_path / 'p', 'train')
    assert left_out > 20 and np.diff(data.text_start).max() <= 24


@pytest.mark.parametrize('n', [2, 3, 5, 10])
def test_few_episodes_are_split_by_count(n):
    groups = {number: f'asks for {number}' for number in range(1, n + 1)}
    for seed in range(20):
        splits = split_by_count(groups, 0.02, 0.03, seed)
        counts = Counter(name for names in splits.values() for name in names)
        assert counts['val'] == counts['test'] == 1 and counts['train'] == max(1, n - 2)
        assert all(names == ['train'] or 'train' not in names for names in splits.values())
    assert splits == split_by_count(groups, 0.02, 0.03, 19)


def test_what_asks_for_the_same_stays_together_while_it_can():
    groups = {number: 'abc'[number % 3] for number in range(9)}
    splits = split_by_count(groups, 0.1, 0.1, 0)
    assert all(splits[number] == splits[number % 3] for number in range(9))
    alike = split_by_count(dict.fromkeys(range(9), 'a'), 0.1, 0.1, 0)
    assert Counter(name for names in alike.values() for name in names) == {'train': 7, 'val': 1, 'test': 1}


@pytest.mark.parametrize('n', [2, 5])
def test_few_episodes_are_enough(n, demos, archive_meta, tmp_path, script, capsys):
    save(tmp_path / 'few.parquet', demos[:n], archive_meta)
    script('prepare.py', '--archive=few.parquet', '--out_dir=p', '--hold_out=0', '--val_share=0', '--seed=3')
    assert f'would be empty: the {n} episodes are split by count' in capsys.readouterr().out
    assert [len(Prepared(tmp_path / 'p', name)) for name in ('train', 'val', 'test')] == [max(1, n - 2), 1, 1]


@pytest.fixture
def there(prepared, tmp_path):
    """a copy of prepared data at p, that a mistake must leave alone"""
    shutil.copytree(prepared, tmp_path / 'p')
    return hashes(tmp_path / 'p')


def test_the_sources_that_are_named_are_collected(script, tmp_path, capsys):
    script('prepare.py', '--sources=points', '--size=0.003', '--archive_dir=a', '--out_dir=p', '--texts=1')
    assert [file.name for file in (tmp_path / 'a').iterdir()] == ['points.parquet']
    assert Prepared(tmp_path / 'p', 'train').meta['sources'] == ['points']
    assert '--source_weights=points=' in capsys.readouterr().out  # the command to train on it says so


MISTAKES = {
    'missing archive': (['--archive=none.parquet'], ['none.parquet', 'python prepare.py']),
    'truncated archive': (['--archive=cut.parquet'], ['cut.parquet', 'not a whole Parquet file']),
    'another kind of file': (['--archive=text.parquet'], ['text.parquet', 'csv']),
    'unknown data set': (['--dataset=mars'], ['data/mars', 'toy_nav']),
    'unknown source': (['--sources=points,dots'], ['collects no dots', 'demonstrations, elites, points']),
    'sources of files': (['--sources=points', '--archive=whole.parquet'], ['Leave one of them out']),
    'env_kwargs no JSON': (['--env_kwargs={scene'], ['env_kwargs']),
    'env_kwargs unknown': (['--env_kwargs={"gravity": 9.8}'], ['gravity']),
    'env_kwargs a list': (['--env_kwargs=[1]'], ['env_kwargs']),
    'scene missing': (['--env_kwargs={"scene": "none.json"}'], ['none.json']),
    'unknown describe': (['--describe=vlm'], ["'vlm'", 'offline', 'llm']),
    'another environment': (
        ['--env_kwargs={"start_anywhere": true}', '--archive=whole.parquet'],
        ['another environment'],
    ),
    'too few episodes': (['--archive=few.parquet'], ['too few episodes']),
    'vocabulary too small': (['--archive=whole.parquet', '--vocab_size=5', *PREPARE], ['vocab']),
    'damaged middle': (['--archive=holes.parquet', *PREPARE], ['holes.parquet', 'damaged']),
}


@pytest.mark.parametrize('what', MISTAKES)
def test_a_mistake_is_one_line_and_leaves_the_old_data(
    what, there, demo_archive, demos, archive_meta, tmp_path, refuses
):
    data, (args, expected) = demo_archive.read_bytes(), MISTAKES[what]
    (tmp_path / 'whole.parquet').write_bytes(data)
    (tmp_path / 'cut.parquet').write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / 'text.parquet').write_text('hello')
    (tmp_path / 'holes.parquet').write_bytes(data[: len(data) // 3] + bytes(3000) + data[len(data) // 3 + 3000 :])
    save(tmp_path / 'few.parquet', demos[:1], archive_meta)
    before = {f.name for f in tmp_path.iterdir()}
    refuses('prepare.py', '--out_dir=p', *args, words=expected)
    assert hashes(tmp_path / 'p') == there
    assert {f.name for f in tmp_path.iterdir()} == before  # no p.partial either


def test_a_mistake_ends_the_script_with_one_line(there, tmp_path):
    process = run('prepare.py', '--archive=none.parquet', '--out_dir=p', cwd=tmp_path)
    refused(process, 'prepare.py: no archive none.parquet')
    assert len(process.stderr.strip().splitlines()) == 1


def test_the_archive_of_the_fixtures_is_an_archive(demo_archive, demos):
    assert len(Archive(demo_archive)) == len(demos) >= 140


# ------------------------------------------------------------------------------
# a data set of one's own


@pytest.fixture
def mine(monkeypatch):
    """a data set data/mine with the least that is needed: cartpole's, without words"""
    module = ModuleType('data.mine')
    for name in contract.REQUIRED:
        setattr(module, name, getattr(cartpole, name))
    monkeypatch.setitem(sys.modules, 'data.mine', module)
    return module


MINE = ['--dataset=mine', '--size=0.02', '--out_dir=p', '--archive_dir=a', '--val_share=0.2', '--test_share=0.2']


@pytest.mark.parametrize('part', contract.REQUIRED)
def test_what_a_data_set_lacks_is_one_line(part, mine, refuses, tmp_path):
    delattr(mine, part)
    refuses(
        'prepare.py', *MINE, words=[f'data/mine has no {part}(', 'Add it to data/mine/__init__.py', 'data/README.md']
    )
    assert not (tmp_path / 'p').exists() and not (tmp_path / 'p.partial').exists()


class NoDescriptor:
    """environments whose info says nothing"""

    def __init__(self, n, **kwargs):
        self.env = cartpole.make_vec(n, **kwargs)

    def reset(self, **options):
        return self.env.reset(**options)[0], {}


def without(key, episode):
    return {k: v for k, v in episode.items() if k != key}


LACKING = {
    'spec': (lambda kwargs: without('bd_low', cartpole.spec(kwargs)), ['spec(kwargs)', 'bd_low']),
    'collect': (lambda *args: (without('seed', e) for e in cartpole.collect(*args)), ['collect()', 'without seed']),
    'make_vec': (NoDescriptor, ['make_vec', "info['bd']"]),
    'describe': (lambda *args: {'text': 'balance it'}, ['describe()', "'balance it'", 'list of sentences']),
}


@pytest.mark.parametrize('part', LACKING)
def test_what_a_part_lacks_is_one_line(part, mine, refuses, tmp_path):
    value, words = LACKING[part]
    setattr(mine, part, value)
    refuses('prepare.py', *MINE, words=['data/mine', 'see data/README.md', *words])
    assert not (tmp_path / 'p').exists() and not (tmp_path / 'p.partial').exists()


def test_texts_alone_are_words_enough(mine, script, tmp_path):
    mine.describe = lambda episode, rng, kwargs, n: {'text': [f'balance it for {len(episode["act"])} steps']}
    script('prepare.py', *MINE)
    train = Prepared(tmp_path / 'p', 'train')
    assert {'balance', 'it', 'for', 'steps'} <= set(train.meta['words'])
    for i, row in enumerate(train.episodes()):
        assert row['text'] == [f'balance it for {train.length[i]} steps']
        assert (row['loose'], row['held_out'], row['asked'], row['visits']) == ([], [], '', '[]')


def test_a_data_set_that_is_no_data_set_is_named(refuses):
    refuses('prepare.py', '--dataset=metrics', words=['data/metrics has no sources('])
    refuses('prepare.py', '--dataset=no.such', words=['no data set data/no.such', 'toy_nav'])


# ------------------------------------------------------------------------------
# the stages, one by one


def test_shapes_and_values_are_checked(demos, archive_meta):
    e = demos[0]
    assert verify.check_shapes(e) is None and verify.check_values(e, archive_meta) is None
    assert verify.check_shapes({**e, 'act': e['act'][:0]}) == 'shape'
    assert verify.check_shapes({**e, 'path': e['path'][:-1]}) == 'shape'
    assert verify.check_shapes({k: v for k, v in e.items() if k not in ('path', 'taught')}) is None
    assert verify.check_values({**e, 'act': e['act'] * 100}, archive_meta) == 'action out of range'
    assert verify.check_values({**e, 'obs': e['obs'] * np.nan}, archive_meta) == 'not finite'


def test_what_cannot_be_replayed_is_not(demos, kwargs, archive_meta):
    other = [{**e, 'bd': e['bd'] + 1} for e in demos[:3]]
    assert verify.verify(toy_nav, [dict(e) for e in demos[:3]], kwargs, archive_meta) == [None] * 3
    assert verify.verify(toy_nav, other, kwargs, archive_meta) == ['ends elsewhere when replayed'] * 3
    assert verify.verify(toy_nav, other, kwargs, archive_meta, replay=False) == [None] * 3


def test_duplicates_are_of_actions_and_observations(demos):
    duplicates = verify.Duplicates()
    episodes = demos[0], demos[1], {**demos[0], 'seed': -1}, demos[1]
    assert [duplicates.repeats(verify.digest(e)) for e in episodes] == [0, 0, 1, 1]
    assert [duplicates.crosses(demos[0], [split]) for split in ('train', 'test', 'train')] == [0, 1, 0]
    assert not duplicates.crosses({'bd': np.zeros(0)}, ['val']) and not duplicates.crosses(
        {'bd': np.zeros(0)}, ['train']
    )


def test_the_split_is_that_of_the_group():
    assign = Splits(val_share=0.3, test_share=0.3, hold_out=0.1, seed=1337).assign
    notes = {'novel': '', 'names': [], 'group': ''}
    splits = [assign({**notes, 'group': str(i)}, {})[0] for i in range(900)]
    assert splits == [assign({**notes, 'group': str(i)}, {})[0] for i in range(900)]
    assert {s: round(splits.count(s) / 900, 1) for s in SPLITS} == {'train': 0.4, 'val': 0.3, 'test': 0.3}
    assert assign({**notes, 'novel': 'longer'}, {}) == ('test', 'longer')
    pairs = [assign({**notes, 'names': ['the bed', f'the thing {i}'], 'group': '3'}, {}) for i in range(200)]
    assert 8 < sum(pair == ('test', 'combination') for pair in pairs) < 35
    assert assign({**notes, 'novel': 'longer'}, {'novel': 'mine'}, 'val') == ('val', 'mine')  # an export's stays


# ------------------------------------------------------------------------------
# memory


LIMITED = """
import resource, runpy, sys
from data import blocks
import data.toy_nav.places
blocks.blocks_of.__defaults__ = (int(sys.argv[1]),)
used = next(int(line.split()[1]) * 1024 for line in open('/proc/self/status') if line.startswith('VmData'))
resource.setrlimit(resource.RLIMIT_DATA, (used + 250 * 10 ** 6,) * 2)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason="the limit is Linux's")
def test_memory_does_not_grow_with_the_archive(tmp_path):
    """under a limit in which the episodes do not fit at once, they are prepared a few at a time"""
    kwargs, n, rng = toy_nav.env_kwargs(), 2048, np.random.default_rng(0)
    env, seeds = toy_nav.make_vec(n, **kwargs), rng.integers(2**31, size=n).tolist()
    obs, act = np.empty((400, n, 9), np.float32), rng.uniform(0.2, 1, (400, n, 2)).astype(np.float32)
    current, _ = env.reset(seed=seeds)
    for t in range(400):
        obs[t] = current
        current, *_, info = env.step(act[t])
    save(
        tmp_path / 'a.parquet',
        (
            {'obs': obs[:, k], 'act': act[:, k], 'bd': info['bd'][k], 'seed': seeds[k], 'source': 'mine'}
            for k in range(n)
        ),
        {'dataset': 'toy_nav', 'env_kwargs': kwargs, 'n_obs': 9, 'n_act': 2, 'n_bd': 2},
    )

    def prepare(at_once):
        return run(
            '-c',
            LIMITED,
            str(at_once),
            str(ROOT / 'prepare.py'),
            '--archive=a.parquet',
            '--describe=keep',
            '--out_dir=p',
            '--workers=1',
            cwd=tmp_path,
            env={'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        )

    refused(prepare(n), 'out of memory')
    assert not any(tmp_path.glob('p*'))
    process = prepare(64)
    assert process.returncode == 0, process.stderr
    assert Prepared(tmp_path / 'p', 'train').meta['counts']['train']['episodes'] > 0.8 * n


def test_what_is_no_prepared_data_is_not_replaced(refuses, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
    (tmp_path / 'notes').write_text('more')
    for name in 'mine', 'notes':
        refuses('prepare.py', '--dataset=cartpole', f'--out_dir={name}', words=[name, 'no prepared data', '--out_dir'])
    assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'years of work' and (tmp_path / 'notes').is_file()


def test_shares_that_leave_nothing_are_refused(refuses):
    refuses('prepare.py', '--val_share=0.7', '--test_share=0.5', words=['val_share=0.7', 'less than 1'])
    refuses('prepare.py', '--size=0', words=['size=0', 'too small'])
