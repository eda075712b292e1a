"""Prepared data: what is opened, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from data.prepared import ARRAYS, SPLITS, NpyWriter, Prepared


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / 'copy')


def test_arrays_are_memory_maps(prepared):
    for split in SPLITS:
        data = Prepared(prepared, split)
        assert all(isinstance(getattr(data, name), np.memmap) for name in ARRAYS)
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
            assert data.prompt(k).tolist() == tokenizer.encode(text)
            k += 1
    assert k == len(data.text_start) - 1


def test_a_growing_file_is_a_plain_npy(tmp_path):
    writer = NpyWriter(tmp_path / 'x.npy', (2,), np.float32)
    for n in 0, 1, 1200:
        writer.append(np.full((n, 2), n))
    writer.close()
    got = np.load(tmp_path / 'x.npy')
    assert got.shape == (1201, 2) and got.dtype == np.float32 and got[0, 0] == 1 and got[-1, 1] == 1200


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
