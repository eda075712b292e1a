"""The command that prepare.py ends with."""

import pytest

from data.to_train import to_train

META = {'dataset': 'toy_nav', 'text_len': 64, 'sources': ['demonstrations', 'elites']}
OWN = {'dataset': 'gym', 'text_len': 0, 'sources': ['mine']}


@pytest.mark.parametrize(
    'meta, file, command',
    [
        (META, 'config/toy_nav.py', 'config/toy_nav.py'),
        (META | {'sources': ['mine']}, 'config/toy_nav.py', 'config/toy_nav.py --source_weights= --drop_bd=0.5'),
        (OWN, 'config/gym.py', 'config/gym.py'),
        (OWN | {'text_len': 48}, 'config/gym.py', 'config/gym.py --text_len=48 --block_size=108'),
        (OWN | {'dataset': 'mine'}, 'config/mine.py', '--dataset=mine --text_len=0 --source_weights= --drop_bd=0.5'),
    ],
)
def test_it_says_what_the_config_does_not_fit(meta, file, command):
    assert to_train(meta, file) == f'python train.py {command}'


def test_it_names_another_folder():
    assert to_train(META, 'config/toy_nav.py', 'my data').endswith("'--data_dir=my data'")
