"""Archives: what is written is read, and what is broken is named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import hashes

from data.archive import ROW_GROUP, VERSION, Archive, save

META = {'dataset': 'toy', 'env_kwargs': {}, 'n_obs': 3, 'n_act': 2, 'n_bd': 2}


def episode(i, T=4):
    rng = np.random.default_rng(i)
    return {
        'obs': rng.normal(size=(T, 3)).astype(np.float32),
        'act': rng.normal(size=(T, 2)).astype(np.float32),
        'bd': np.float32([i, -i]),
        'path': rng.normal(size=(T + 1, 2)).astype(np.float32),
        'text': [f'episode {i}', 'ünïcode'],
        'seed': i,
        'source': 'made',
        'asked': '[]',
    }


def test_round_trip(tmp_path):
    given = [episode(i, T=1 + i % 5) for i in range(7)]
    save(tmp_path / 'a.parquet', given, META)
    archive = Archive(tmp_path / 'a.parquet')
    got = [e for group in archive.groups() for e in group]
    assert len(archive) == len(got) == 7 and archive.meta == {'version': VERSION, **META}
    for a, b in zip(given, got):
        assert set(a) == set(b)
        for k in 'obs', 'act', 'bd', 'path':
            assert b[k].dtype == np.float32 and b[k].shape == a[k].shape and np.array_equal(a[k], b[k])
        assert (b['text'], b['seed'], b['source']) == (a['text'], a['seed'], 'made')


def test_it_is_read_in_groups(tmp_path):
    save(tmp_path / 'a.parquet', (episode(i) for i in range(ROW_GROUP + 3)), META)
    groups = list(Archive(tmp_path / 'a.parquet').groups())
    assert [len(g) for g in groups] == [ROW_GROUP, 3] and groups[1][2]['seed'] == ROW_GROUP + 2


def test_others_can_read_it(tmp_path):
    save(tmp_path / 'a.parquet', [episode(1)], META)
    table = pq.read_table(tmp_path / 'a.parquet').to_pandas()
    assert table['source'][0] == 'made' and len(table['obs'][0]) == 12
    assert json.loads(pq.read_schema(tmp_path / 'a.parquet').metadata[b'nanopilot'])['n_obs'] == 3


def test_same_content_same_bytes(tmp_path):
    for name in 'a', 'b':
        save(tmp_path / name / 'x.parquet', [episode(i) for i in range(5)], META)
    assert hashes(tmp_path / 'a') == hashes(tmp_path / 'b')


def test_an_interrupted_writing_leaves_the_old_file(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], META)
    before = hashes(tmp_path)

    def breaks():
        for i in range(ROW_GROUP + 1):
            yield episode(i)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(file, breaks(), META)
    assert hashes(tmp_path) == before  # and nothing beside it


def test_no_episodes_are_refused(tmp_path):
    with pytest.raises(ValueError, match='no episodes'):
        save(tmp_path / 'a.parquet', [], META)
    assert not any(tmp_path.iterdir())


def one_line(file, *words):
    with pytest.raises((ValueError, OSError)) as e:
        list(Archive(file).groups())
    message = str(e.value)
    assert '\n' not in message and str(file.name) in message, message
    for word in words:
        assert word in message, message


def test_a_missing_file_names_the_cure(tmp_path):
    one_line(tmp_path / 'none.parquet', 'python prepare.py')


def test_a_truncated_file_names_the_cure(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], META)
    file.write_bytes(file.read_bytes()[:-20])
    one_line(file, 'not a whole Parquet file', 'again')


@pytest.mark.parametrize('content', [b'', b'hello', b'PAR1' + bytes(100) + b'PAR1'])
def test_a_file_of_another_kind_names_the_cure(tmp_path, content):
    file = tmp_path / 'a.parquet'
    file.write_bytes(content)
    one_line(file, 'not a whole Parquet file', 'again')


def test_another_version_names_the_cure(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], {**META, 'version': VERSION + 1})
    one_line(file, f'version {VERSION + 1}', 'data/README.md')


def test_a_parquet_file_that_is_no_archive_names_what_it_lacks(tmp_path):
    file = tmp_path / 'a.parquet'
    pq.write_table(pa.table({'x': [1]}), file)
    one_line(file, "'obs'", 'data/README.md')
    save(file, [{k: v for k, v in episode(1).items() if k != 'bd'}], META)
    one_line(file, "'bd'", 'data/README.md')


def test_metadata_without_a_width_is_named(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], {k: v for k, v in META.items() if k != 'n_obs'})
    one_line(file, 'n_obs')


def test_metadata_that_are_a_list_are_named(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], META)
    pq.write_table(pq.read_table(file).replace_schema_metadata({'nanopilot': '[1, 2]'}), file)
    one_line(file, 'no JSON object', 'data/README.md')


@pytest.mark.parametrize(
    'name, array, words',
    [
        ('obs', np.zeros(11), 'episode 3: obs has 11 numbers, and n_obs=3. Save so many a row'),
        ('path', np.zeros(9), 'episode 3: path has 9 numbers, and n_bd=2. Save so many a row'),
        ('bd', np.zeros(1), 'episode 3: bd has 1 numbers, and n_bd=2. Save as many'),
    ],
)
def test_an_array_without_whole_rows_is_named(name, array, words, tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [{**episode(i), **({name: array} if i == 3 else {})} for i in range(5)], META)
    one_line(file, words)


def test_a_column_that_holds_no_lists_is_named(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], META)
    table = pq.read_table(file)
    pq.write_table(table.set_column(0, 'obs', pa.array([0.5])).replace_schema_metadata(table.schema.metadata), file)
    one_line(file, 'obs is double. Save a flat list')


def test_a_damaged_middle_is_named(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(i, T=200) for i in range(20)], META)
    data = bytearray(file.read_bytes())
    data[1000:1400] = bytes(400)
    file.write_bytes(bytes(data))
    one_line(file, 'damaged', 'again')


def test_an_archive_of_something_else_names_it(tmp_path):
    file = tmp_path / 'a.parquet'
    save(file, [episode(1)], META)
    archive = Archive(file)
    archive.check(META)
    for changes, words in (
        ({'dataset': 'cartpole'}, ['is of toy', '--dataset=toy']),
        ({'env_kwargs': {'scene': 'x'}}, ['another environment', '--env_kwargs']),
        ({'n_obs': 4}, ['n_obs=3', 'toy has 4']),
        ({'n_obs': '3'}, ['n_obs=3', "toy has '3'"]),
    ):
        with pytest.raises(ValueError) as e:
            archive.check({**META, **changes})
        assert all(word in str(e.value) for word in ['a.parquet', *words]), str(e.value)


def test_episodes_of_different_columns_are_refused(tmp_path):
    bare = {k: v for k, v in episode(2).items() if k != 'path'}
    with pytest.raises(ValueError, match="some episodes have 'path'"):
        save(tmp_path / 'a.parquet', [episode(1), bare], META)
    assert not any(tmp_path.iterdir())
