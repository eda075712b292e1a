"""A policy that was exported does what Policy does, without torch; what cannot be exported or read is one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import flip, hashes, run
from test_model import make
from without_torch import drive

from data.text import Tokenizer
from nanopilot import onnx_export
from nanopilot.onnx_policy import OnnxPolicy, names
from nanopilot.policy import Policy

for package in 'onnxruntime', 'onnxscript':
    pytest.importorskip(package, reason=f"{package} is not installed: pip install '.[onnx]'")
export = onnx_export.export

TEXTS = ['go to the bed, then stop', 'pass the stove', 'go north of the sofa'] * 3
CASES = {  # 5 steps are in view, or 20: then room is made for more on the way
    'interleave': {'n_layer': 2, 'block_size': 20 + 3 * 5},
    'interleave, chunk 1, no words': {'chunk': 1, 'text_len': 0, 'block_size': 3 * 20, 'obs_stack': 1},
    'interleave, no past actions, ce': {'head': 'ce', 'past_actions': False, 'block_size': 20 + 2 * 5},
    'interleave, kmeans of each dimension, hidden': {
        'head': 'kmeans',
        'joint_clusters': False,
        'n_hidden': 3,
        'block_size': 20 + 3 * 5,
    },
    'sum, kmeans, estimate and hidden': {
        'head': 'kmeans',
        'fuse': 'sum',
        'n_privileged': 2,
        'n_hidden': 3,
        'block_size': 20 + 5,
    },
    'sum, chunk 1, no past actions, no words': {
        'fuse': 'sum',
        'past_actions': False,
        'chunk': 1,
        'text_len': 0,
        'block_size': 20,
    },
    'bins': {'n_layer': 2, 'fuse': 'bins', 'head': 'tokens', 'chunk': 1, 'block_size': 20 + 4 * 20},
    'sum, no bd, no words': {'n_bd': 0, 'text_len': 0, 'fuse': 'sum', 'block_size': 5},
}


def made(**changes):
    """a Policy with a small model and a tokenizer"""
    tokenizer = Tokenizer.train(TEXTS, 60)
    model = make(**{'text_len': 20, 'vocab_size': tokenizer.vocab_size, 'n_embd': 16, 'n_layer': 1, **changes})
    c = model.config
    model.head.act_norm.low.fill_(-1.0)
    model.head.act_norm.std.fill_(0.5)
    model.steps.obs_norm.mean.fill_(0.1)
    data = {'words': tokenizer.known, 'obs_names': ['a', 'unused', 'b', 'c']}
    data |= {'bd_low': [-9.0] * c.n_bd, 'bd_high': [9.0] * c.n_bd, 'bd_names': ['x', 'y'][: c.n_bd]}
    info = {'dataset': 'toy_nav', 'data': data, 'obs_columns': [0, 2, 3]}
    return Policy(model, info, tokenizer if c.text_len else None)


def how(T=44):
    """observations, what to reach, and which rows wait when"""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(T, 3, 4)).astype(np.float32)
    return {'obs': obs, 'bd': rng.normal(size=(3, 2)).astype(np.float32), 'skip': rng.random((T, 3)) < 0.2}


def with_bd(policy, driven):
    return {**driven, 'bd': driven['bd'][:, : policy.config.n_bd]}


@pytest.fixture(scope='module')
def driven(tmp_path_factory):
    """every case exported, and driven by one process without torch -> that process, {case: the actions of both}"""
    folder = tmp_path_factory.mktemp('exported')
    expected = {}
    for case, changes in CASES.items():
        policy = made(**changes)
        (folder / case).mkdir()
        export(policy, folder / case / 'policy.onnx')
        given = with_bd(policy, how())
        np.savez(folder / case / 'how.npz', **given)
        expected[case] = drive(policy, given)
    script = str(Path(__file__).with_name('without_torch.py'))
    process = subprocess.run([sys.executable, script, str(folder)], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process, {case: (np.load(folder / case / 'acts.npy'), act) for case, act in expected.items()}


@pytest.mark.parametrize('case', CASES)
def test_it_acts_as_policy_does(driven, case):
    """over whole episodes, rows at their own times, and after change_prompts"""
    got, expected = driven[1][case]
    assert got.dtype == expected.dtype and got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-5
    assert len(np.unique(expected.reshape(len(expected), -1), axis=0)) > 5, 'it does the same all the time'


def test_numpy_sentencepiece_and_onnxruntime_are_enough(driven):
    """without_torch.py prints what else was imported, all but the standard library"""
    assert set(driven[0].stdout.split()) <= {'torch', '__main__', '_distutils_hack'}  # torch: the bar to it


def test_nothing_of_keys_and_values_is_copied(driven):
    """onnxruntime would warn of it"""
    assert driven[0].stderr == ''


# ------------------------------------------------------------------------------
# files


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """a policy, exported"""
    file = tmp_path_factory.mktemp('exported') / 'policy.onnx'
    export(made(), file)
    return file


@pytest.fixture
def file(exported, tmp_path):
    """.. a copy of it"""
    return shutil.copytree(exported.parent, tmp_path / 'copy') / exported.name


def test_the_script_exports_what_policy_loads(trained, tmp_path):
    """and a policy of one's own loop goes on with it: --export is documented"""
    process = run('sample_policy.py', f'--out_dir={trained}', '--export=policy.onnx', cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert 'policy.onnx, policy_prompt.onnx, policy.json' in process.stdout and process.stderr == ''
    assert sorted(f.name for f in tmp_path.iterdir()) == ['policy.json', 'policy.onnx', 'policy_prompt.onnx']
    policies = Policy.load(trained), OnnxPolicy.load(tmp_path / 'policy.onnx')
    obs = (np.random.default_rng(0).normal(0.5, 0.25, (20, 1, 9)) * [1, 1, 1, 1, 1, 200, 200, 1, 1]).astype(np.float32)
    acts = []
    for policy in policies:
        policy.reset(['go north of the frigde'], [[150, 40]])
        acts.append([policy.act(now) for now in obs])
    assert np.abs(np.array(acts[0]) - acts[1]).max() < 1e-5
    assert policies[0].check('go to the sofa and fly', [150, 40]) == policies[1].check(
        'go to the sofa and fly', [150, 40]
    )
    assert policies[0].tokens('go to the refrigerator') == policies[1].tokens('go to the refrigerator')
    assert policies[0].data_spec['neighbours'] == policies[1].data_spec['neighbours']


def test_what_cannot_be_asked_is_refused(file):
    policy = OnnxPolicy.load(file)
    obs = np.zeros((1, 4), np.float32)
    with pytest.raises(ValueError, match='Call reset'):
        policy.act(obs)
    policy.reset(['go to the bed'])
    with pytest.raises(ValueError, match='a is nan in row 0'):
        policy.act(obs * np.nan)
    with pytest.raises(ValueError, match='has shape'):
        policy.act(obs[:, :3])
    with pytest.raises(ValueError, match='temperature=0.5, but .* Leave it out'):
        policy.act(obs, temperature=0.5)
    with pytest.raises(ValueError, match='knows no word'):
        policy.check('xylophone', None)
    with pytest.raises(ValueError, match='Shorten it'):
        policy.check('go to the bed ' * 9, None)
    assert policy.act(obs).shape == (1, 2)  # what was refused has changed nothing
    policy.reset([None])
    with pytest.raises(ValueError, match='has reached step 50, .* Reset it'):
        for _ in range(2 * 50 + 1):
            policy.act(obs)


@pytest.mark.parametrize('where', [0.0, 0.5, 0.9])
@pytest.mark.parametrize('which', range(3))
def test_a_damaged_file_is_refused_by_name(file, which, where):
    name = names(file)[which]
    flip(name, where)
    with pytest.raises(ValueError, match=f'{name.name} is damaged.*--export'):
        OnnxPolicy.load(file)
    name.unlink()
    with pytest.raises(FileNotFoundError, match=f'{name.name}.*--export'):
        OnnxPolicy.load(file)


def test_files_of_two_exports_are_not_mixed(file, tmp_path):
    other = tmp_path / 'policy.onnx'
    export(made(fuse='sum', text_len=0, block_size=5), other)
    names(file)[2].write_bytes(names(other)[2].read_bytes())
    with pytest.raises(ValueError, match='policy.onnx is damaged, or of another export'):
        OnnxPolicy.load(file)


def test_another_format_is_refused(file):
    info = json.loads(names(file)[2].read_text())
    names(file)[2].write_text(json.dumps({**info, 'format': 0}))
    with pytest.raises(ValueError, match='not of format'):
        OnnxPolicy.load(file)


def test_an_export_that_fails_leaves_the_one_before(file, monkeypatch):
    before = hashes(file.parent)

    def fails(policy):
        raise OSError('no space')

    monkeypatch.setattr(onnx_export, 'prompt_graph', fails)
    with pytest.raises(OSError):
        export(made(fuse='sum'), file)
    assert hashes(file.parent) == before


def test_what_cannot_be_exported_is_refused(refuses, trained, tmp_path):
    with pytest.raises(ValueError, match='frozen BERT'):
        export(made(text_width=4), tmp_path / 'policy.onnx')
    out = f'--out_dir={trained}'
    refuses('sample_policy.py', out, '--export=policy.json', words=('policy.json', '.onnx'))
    refuses('sample_policy.py', out, '--export=policy.onnx', '--eval=test', words=('--export', '--eval'))
    assert list(tmp_path.iterdir()) == []
