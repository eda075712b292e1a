"""The command that prepare.py ends with, which train.py must take."""

import shlex

import pytest

from data.to_train import to_train, train_settings

TOY_NAV = {
    'dataset': 'toy_nav',
    'continuous': True,
    'text_len': 64,
    'longest_text': 64,
    'longest_said': 40,
    'sources': ['demonstrations', 'elites'],
}
GYM = {'dataset': 'gym', 'continuous': True, 'text_len': 0, 'longest_text': 0, 'sources': ['mine']}
RELABELLED = '--source_weights=demonstrations=0.75,elites=0.25,relabelled=0.5'


@pytest.mark.parametrize(
    'meta, file, command',
    [
        (TOY_NAV, 'config/toy_nav.py', ''),
        (TOY_NAV | {'longest_said': 0}, 'config/toy_nav.py', '--say_len=0 --more_texts=0'),
        (TOY_NAV | {'longest_text': 90, 'text_len': 96}, 'config/toy_nav_cpu.py', '--text_len=96'),
        (TOY_NAV | {'sources': ['mine']}, 'config/toy_nav.py', '--source_weights=mine=0.5 --drop_bd=mine=0.55'),
        (
            TOY_NAV | {'sources': ['demonstrations', 'elites', 'relabelled']},
            'config/toy_nav.py',
            f'{RELABELLED} --drop_bd=demonstrations=0.8,elites=0.3,relabelled=0.55',
        ),
        (GYM, 'config/gym.py', ''),
        (GYM | {'text_len': 48, 'longest_text': 12}, 'config/gym.py', '--text_len=48 --block_size=108'),
        (GYM | {'dataset': 'babyai', 'continuous': False}, 'config/babyai.py', 'n_cross_head=0'),
        (GYM | {'continuous': False}, 'config/none.py', '--head=ce --text_len=0'),
    ],
)
def test_it_says_what_the_config_does_not_go_with(meta, file, command):
    assert command in to_train(meta, file) and bool(command) == ('--' in to_train(meta, file))


def test_it_names_another_folder():
    assert shlex.split(to_train(TOY_NAV, 'config/toy_nav.py', 'my data'))[-1] == '--data_dir=my data'


def test_it_fine_tunes_the_policy_whose_vocabulary_it_has():
    file = 'config/finetune_toy_nav.py'
    model = {'n_layer': 5, 'n_embd': 224, 'n_obs': 9}
    assert to_train(TOY_NAV, file, '', 'data/toy_nav/policy', model) == f'python train.py {file}'
    smaller = to_train(TOY_NAV, file, '', 'mine', model | {'n_layer': 4})
    assert smaller == f'python train.py {file} --n_layer=4 --init_from=mine'


def test_settings_of_a_config_are_over_those_of_the_script():
    assert train_settings(None)['text_len'] == 64
