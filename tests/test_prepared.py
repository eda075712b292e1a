"""Prepared data: what is opened, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from data.prepared import ARRAYS, SPLITS, Prepared, finish, partial_folder
from data.writing import Moments, NpyWriter


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / 'copy')


def test_arrays_are_memory_maps(prepared):
    for split in SPLITS:
        data = Prepared(prepared, split)
        assert all(isinstance(getattr(data, name).base, np.memmap) for name in ARRAYS)
        assert (
            len(data) == data.meta['counts'][split]['episodes'] and data.length.sum() == len(data.obs) == data.start[-1]
        )
        assert len(data.episode_text) == len(data.start) == len(data) + 1 and data.text_start[-1] == len(data.text)


def test_a_prompt_is_the_tokens_of_its_text(prepared):
    data = Prepared(prepared, 'val')
    tokenizer, rows, k = data.tokenizer(), data.episodes(), 0
    for i, row in enumerate(rows):
        assert data.episode_text[i] == k
        for text in row['text'] + row['loose']:
            ids = tokenizer.encode(text)
            if len(ids) <= data.meta['text_len']:  # longer ones are left out
                assert data.prompt(k).tolist() == ids
                k += 1
    assert k == len(data.text_start) - 1


def test_a_growing_file_is_a_plain_npy(tmp_path):
    writer = NpyWriter(tmp_path / 'x.npy', (2,), np.float32)
    for n in 0, 1, 1200:
        writer.append(np.full((n, 2), n))
    writer.close()
    got = np.load(tmp_path / 'x.npy')
    assert got.shape == (1201, 2) and got.dtype == np.float32 and got[0, 0] == 1 and got[-1, 1] == 1200


def test_moments_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    rows = rng.normal(3, [1, 0], (50, 2))  # the second is constant
    moments = Moments((2,))
    moments.add(rows[:20])
    moments.add(rows[20:49])
    moments.add(rows[49])
    norm = moments.normaliser()
    assert np.allclose(norm['mean'], rows.mean(0)) and np.allclose(norm['std'], [rows[:, 0].std(), 1])
    assert moments.constant().tolist() == [False, True]


def test_a_folder_is_all_there_or_not_at_all(tmp_path):
    out = tmp_path / 'out'
    with partial_folder(out) as folder:
        (folder / 'a').write_text('1')
        assert not out.exists()
        finish(folder, out)
    assert [f.name for f in tmp_path.iterdir()] == ['out'] and (out / 'a').read_text() == '1'
    with pytest.raises(ZeroDivisionError), partial_folder(out) as folder:
        (folder / 'a').write_text('2')
        raise ZeroDivisionError
    assert [f.name for f in tmp_path.iterdir()] == ['out'] and (out / 'a').read_text() == '1'


def test_what_began_after_the_move_is_left_alone(tmp_path):
    """the next process has the folder's name as soon as this one has moved its own into place"""
    out = tmp_path / 'out'
    with partial_folder(out) as folder:
        finish(folder, out)
        folder.mkdir()
        (folder / 'theirs').write_text('')
    assert (folder / 'theirs').exists()


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    with (
        partial_folder(tmp_path / 'out') as folder,
        pytest.raises(OSError, match='another process is writing'),
        partial_folder(tmp_path / 'out'),
    ):
        pass
    assert not folder.exists()


def refused(folder, split, *words):
    with pytest.raises((ValueError, OSError)) as e:
        Prepared(folder, split)
    assert '\n' not in str(e.value) and 'python prepare.py' in str(e.value)
    for word in words:
        assert word in str(e.value)


def test_missing_data_names_the_cure(tmp_path, copy):
    refused(tmp_path, 'train', 'no prepared data')
    (copy / 'val' / 'act.npy').unlink()
    refused(copy, 'val', 'act.npy')


@pytest.mark.parametrize('name', ['obs', 'text', 'start'])
def test_a_truncated_array_is_named(copy, name):
    file = copy / 'train' / f'{name}.npy'
    file.write_bytes(file.read_bytes()[:-8])
    refused(copy, 'train', f'{name}.npy')
    file.write_bytes(b'')
    refused(copy, 'train', f'{name}.npy')


@pytest.mark.parametrize('text', ['{"version"', '[]', '{}', '{"version": 1}', '{"version": 99, "dataset": "toy_nav"}'])
def test_a_damaged_meta_is_named(copy, text):
    (copy / 'meta.json').write_text(text)
    refused(copy, 'train', 'meta.json')


def test_arrays_of_another_run_are_refused(copy):
    meta = json.loads((copy / 'meta.json').read_text())
    meta['counts']['train']['steps'] += 1
    (copy / 'meta.json').write_text(json.dumps(meta))
    refused(copy, 'train', 'does not fit')


def test_a_pickle_is_not_opened(copy):
    np.save(copy / 'train' / 'source.npy', np.array([{'a': 1}], dtype=object))
    refused(copy, 'train', 'source.npy')


def test_subgoals_are_there_where_an_archive_has_them(prepared, demos, copy):
    data = Prepared(prepared, 'train')
    assert data.subgoal.shape == data.path.shape and not np.isnan(data.subgoal).any()
    of_demos = {e['act'].tobytes(): e['subgoal'] for e in demos}
    for a, b in zip(data.start[:5], data.start[1:6]):
        assert np.array_equal(data.subgoal[a:b], of_demos[data.act[a:b].tobytes()])
    (copy / 'train' / 'subgoal.npy').unlink()
    refused(copy, 'train', 'subgoal.npy')
    meta = json.loads((copy / 'meta.json').read_text())
    (copy / 'meta.json').write_text(json.dumps({**meta, 'subgoal': False}))
    without = Prepared(copy, 'train')
    view = without.view()
    assert without.subgoal is None and 'subgoal' not in without.model_args(view, 8)
    assert data.model_args(view, 8)['subgoal']
