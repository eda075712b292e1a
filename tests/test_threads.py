"""data.threads: how threads wait is set before torch is loaded, and never against the user."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from data.threads import BRIEFLY, BY_USER

PRINT = f"import os, sys; print('torch' in sys.modules, {{k: os.environ.get(k) for k in {tuple(BRIEFLY)}}})"


def printed(code, **given):
    environment = {k: v for k, v in os.environ.items() if k not in BY_USER} | given
    process = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


@pytest.mark.parametrize(
    'first', ['import config', 'import nanopilot', 'from data.threads import wait_briefly as w; w()']
)
def test_it_is_set_before_torch_is_loaded(first):
    assert printed(f'{first}; {PRINT}') == f'False {BRIEFLY}'


@pytest.mark.parametrize('name', BY_USER)
def test_what_the_user_set_stays(name):
    kept = dict.fromkeys(BRIEFLY) | ({name: 'ACTIVE'} if name in BRIEFLY else {})
    assert printed(f'import config; {PRINT}', **{name: 'ACTIVE'}) == f'False {kept}'


def test_too_late_nothing_is_set():
    assert printed(f'import torch, nanopilot; {PRINT}') == f'True {dict.fromkeys(BRIEFLY)}'


@pytest.mark.parametrize('script', ['train.py', 'sample_policy.py', 'prepare.py'])
def test_help_says_it(script):
    process = subprocess.run([sys.executable, script, '--help'], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1].startswith('environment: GOMP_SPINCOUNT=2000 OMP_WAIT_POLICY=PASSIVE')
