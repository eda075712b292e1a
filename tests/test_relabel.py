"""prepare.py --relabel: a policy drives, and the data set's driver takes over."""

import sys
from types import ModuleType

import numpy as np
import pytest
from conftest import PREPARE, hashes

from data import contract, toy_nav
from data.archive import Archive
from data.prepared import SPLITS, Prepared


@pytest.fixture
def relabel(demo_archive, trained, script):
    def call(out):
        args = [f'--archive={demo_archive}', f'--relabel={trained}', '--relabel_episodes=30', *PREPARE]
        script('prepare.py', *args, f'--out_dir={out}', f'--archive_dir={out}_archives')

    return call


def test_what_a_policy_began_is_one_more_source(relabel, tmp_path, prepared, kwargs):
    relabel('p')
    splits = {name: Prepared(tmp_path / 'p', name) for name in SPLITS}
    train = splits['train']
    assert train.meta['sources'] == ['demonstrations', 'relabelled']
    assert 25 <= train.meta['counts']['train']['relabelled'] <= 30
    assert all(train.meta['counts'][name]['relabelled'] == 0 for name in ('val', 'test'))
    plain = Prepared(prepared, 'train')
    asked = {row['asked'] for row in plain.episodes()}
    for i in np.flatnonzero(train.source == 1):
        taught = train.taught[train.start[i] : train.start[i + 1]]
        first = taught.argmax()
        assert first > 0 and not taught[:first].any() and taught[first:].all()
    rows = [row for row in train.episodes() if row['source'] == 'relabelled']
    assert {row['asked'] for row in rows} <= asked and all(row['text'] for row in rows)
    relabel('again')
    assert hashes(tmp_path / 'again') == hashes(tmp_path / 'p')
    episodes = next(Archive(tmp_path / 'p_archives/relabelled.parquet').groups())
    assert {e['seed'] for e in episodes} <= {row['seed'] for row in plain.episodes()}


def test_a_policy_of_other_data_is_refused(trained, refuses, monkeypatch, tmp_path):
    mine = ModuleType('data.mine')
    for name in (*contract.REQUIRED, 'relabel'):
        setattr(mine, name, getattr(toy_nav, name))
    monkeypatch.setitem(sys.modules, 'data.mine', mine)
    to = ['--out_dir=p', '--archive_dir=a', f'--relabel={trained}']
    refuses('prepare.py', *to, '--dataset=mine', words=['was trained on toy_nav, not on mine'])
    refuses('prepare.py', *to, '--dataset=cartpole', words=['data/cartpole has no relabel(', 'Leave out --relabel'])
    refuses('prepare.py', *to, '--env_kwargs={"start_anywhere": true}', words=['another environment', '--env_kwargs'])
    refuses('prepare.py', *to[:2], '--relabel=nowhere', words=['no checkpoint in nowhere'])
    assert list(tmp_path.iterdir()) == []
