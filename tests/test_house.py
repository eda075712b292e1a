"""How the project reads: the goals of `python -m bench.house`, who may import whom, and what stands at the top."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT, run

from bench import house

SCRIPTS = ('train.py', 'sample_policy.py', 'prepare.py')
# a room may import those below it, and itself
LEVELS = [{*SCRIPTS, 'bench'}, {'model.py'}, {'nanopilot'}, {'config'}, {'data'}]
# a user who loads a policy names no model: it is built when a checkpoint is read, and only there
DEFERRED = {('nanopilot/policy.py', 'model.py')}
TOP = {
    'README.md CONTRIBUTING.md LICENSE Makefile pyproject.toml requirements.lock .ci .gitignore',
    'model.py train.py sample_policy.py prepare.py config nanopilot data bench tests',
}


def room(file):
    return file.relative_to(ROOT).parts[0]


def level(file):
    return next(i for i, rooms in enumerate(LEVELS) if room(file) in rooms)


def sources():
    return [file for file in house.python_files(ROOT) if room(file) != 'tests']


# ------------------------------------------------------------------------------
# sizes


def test_the_model_is_one_sitting_long():
    assert house.n_lines(ROOT / 'model.py') <= 450


def test_train_is_one_sitting_long():
    assert house.n_lines(ROOT / 'train.py') <= 350


def test_forward_is_read_at_a_glance():
    forward = house.function(ROOT / 'model.py', 'GPT.forward')
    assert house.span(forward) <= 30
    assert house.n_ifs(forward) <= 4


def test_no_function_is_longer_than_60_lines():
    long = [(str(file.relative_to(ROOT)), name, house.span(f)) for file, name, f in house.all_functions(ROOT)]
    assert [entry for entry in long if entry[2] > 60] == []


def test_no_line_is_wider_than_120_characters():
    wide = {str(file.relative_to(ROOT)): house.long_lines(file) for file in house.python_files(ROOT)}
    assert {name: lines for name, lines in wide.items() if lines} == {}


def test_the_model_branches_little_and_says_why():
    file = ROOT / 'model.py'
    assert house.per_100_lines(house.n_of(house.parsed(file), ast.IfExp), file) <= 3
    assert house.per_100_lines(house.n_comments(file), file) >= 18


def test_code_lines_are_short():
    assert house.mean_code_line([ROOT / 'model.py']) < 58


# ------------------------------------------------------------------------------
# imports


def test_imports_go_down_only():
    up = []
    for file in sources():
        for target in house.imports(ROOT, file):
            if room(target) == room(file):
                continue
            if level(target) <= level(file):
                up.append((str(file.relative_to(ROOT)), str(target.relative_to(ROOT))))
    assert up == []


def test_deferred_imports_go_down_too_but_one():
    up = set()
    for file in sources():
        for target in house.imports(ROOT, file, deferred=True):
            if room(target) != room(file) and level(target) <= level(file):
                up.add((str(file.relative_to(ROOT)), str(target.relative_to(ROOT))))
    assert up == DEFERRED


def test_no_files_import_each_other_in_a_circle():
    assert house.circle(ROOT, but=DEFERRED) == []


def test_data_and_settings_need_no_torch():
    files = [f for f in sources() if room(f) in ('data', 'config') and f.parent.name != 'config']
    modules = [str(f.relative_to(ROOT).with_suffix('')).replace('/', '.').removesuffix('.__init__') for f in files]
    assert 'data.toy_nav' in modules and 'data.batches' in modules
    code = f'import sys, importlib\nfor m in {["config", *modules]}: importlib.import_module(m)\n'
    code += 'assert "torch" not in sys.modules'
    assert run('-c', code, cwd=ROOT).returncode == 0


# ------------------------------------------------------------------------------
# the tree


def test_nothing_else_stands_at_the_top():
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip('no git here')
    assert {name.split('/')[0] for name in listed} == set(' '.join(TOP).split())


def test_installing_brings_no_module(tmp_path):
    """model.py and config/ are files that a user edits in a checkout: they do not belong in site-packages"""
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']
    assert settings == {'packages': [], 'py-modules': []}
    pytest.importorskip('setuptools', reason='setuptools is not installed: what it would install is not looked at')
    project = tmp_path / 'project'
    project.mkdir()
    for name in 'pyproject.toml', 'README.md', 'LICENSE', 'model.py', 'train.py':
        (project / name).write_bytes((ROOT / name).read_bytes())
    (project / 'data').mkdir()
    (project / 'data' / '__init__.py').write_text('')
    build = [sys.executable, '-c', 'from setuptools import setup; setup()', 'build', '--build-base=built']
    done = subprocess.run(build, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [file for file in project.glob('built/**/*') if file.is_file()] == []
    top = subprocess.run([*build[:3], 'egg_info'], cwd=project, capture_output=True, text=True)
    assert top.returncode == 0, top.stderr
    assert (project / 'nanopilot.egg-info/top_level.txt').read_text().strip() == ''
    assert 'torch>=' in (project / 'nanopilot.egg-info/requires.txt').read_text()


def test_a_policy_is_imported_from_a_checkout():
    code = 'import sys, nanopilot; assert "torch" not in sys.modules; from nanopilot import Policy; Policy.load'
    process = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


# ------------------------------------------------------------------------------
# documents


DOCUMENTS = [f for where in ('*', 'bench/*', 'data/*', 'data/*/*', 'data/*/*/*') for f in ROOT.glob(f'{where}.md')]


@pytest.mark.parametrize('file', DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file):
    for name, anchor in re.findall(r'\]\((?!http)([^)#\s]*)#?([^)]*)\)', file.read_text()):
        to = file.parent / name if name else file
        assert to.exists(), name
        if anchor:
            headings = re.findall(r'^#+ (.*)$', to.read_text(), re.M)
            assert anchor in [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings], anchor


# ------------------------------------------------------------------------------
# the counting itself


@pytest.fixture
def small(tmp_path):
    (tmp_path / 'model.py').write_text(
        'class GPT:\n'
        '    def forward(self, idx, targets=None):\n'
        '        """ docstring """\n'
        '        x = idx if targets is None else targets  # why\n'
        '        if x:\n'
        '            return x\n'
    )
    (tmp_path / 'train.py').write_text(
        'import model\nn_layer = 4\nlr = 2 * 1e-3\nconfig = {}\nlate = 1\nraise ValueError\n'
    )
    return tmp_path


def test_the_counts_of_a_small_tree(small):
    rows = dict(house.table(small))
    assert rows['`GPT.forward`: lines / ifs / parameters'] == '5 / 2 / 2'
    assert rows['train file, lines; settings; `raise`'] == '6; 2; 1'
    assert rows['the cached step: lines / ifs / parameters'] == '-'
    assert rows['Python files at the top'] == '2'
    assert house.n_comments(small / 'model.py') == 1
    assert len(house.code_lines(small / 'model.py')) == 5


def test_a_circle_is_found(small):
    assert house.circle(small) == []
    with open(small / 'model.py', 'a') as f:
        f.write('    def late(self):\n        import train\n')
    house.parsed.cache_clear()
    assert house.circle(small) == ['model.py', 'train.py', 'model.py']
    assert house.circle(small, but={('model.py', 'train.py')}) == []


def test_it_prints_a_table_of_any_checkout(small):
    printed = run('bench.house', str(small), cwd=ROOT)
    assert printed.returncode == 0 and '| Python files at the top | 2 |' in printed.stdout
    assert run('bench.house', str(small / 'nowhere'), cwd=ROOT).returncode != 0
