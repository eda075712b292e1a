"""Settings: what is changed, what is refused, and what --help says."""

import config as settings
from config import override

import os
import re
import select
import subprocess
import sys

import pytest
from conftest import ROOT, refused, run

DEFAULTS = {
    'batch_size': 64,
    'learning_rate': 1e-3,
    'dataset': 'toy_nav',
    'compile': False,
    'prompt': '',
    '_hidden': 1,
    'np': re,
}


def written(tmp_path, text):
    file = tmp_path / 'mine.py'
    file.write_text(text)
    return str(file)


def test_later_settings_win(tmp_path):
    config = override(
        DEFAULTS, ['--batch_size=1', written(tmp_path, 'batch_size = 2\nlearning_rate = 0.5'), '--batch_size=3']
    )
    assert config == {'batch_size': 3, 'learning_rate': 0.5, 'dataset': 'toy_nav', 'compile': False, 'prompt': ''}


def test_unknown_key_on_the_command_line_names_the_closest():
    with pytest.raises(ValueError, match="no setting 'learnig_rate'. Did you mean 'learning_rate'"):
        override(DEFAULTS, ['--learnig_rate=1'])


def test_unknown_key_in_a_file_names_file_and_closest(tmp_path):
    file = written(tmp_path, 'batchsize = 2')
    with pytest.raises(ValueError, match="mine.py.*no setting 'batchsize'. Did you mean 'batch_size'"):
        override(DEFAULTS, [file])


def test_unknown_key_like_no_other_points_to_help():
    with pytest.raises(ValueError, match='--help'):
        override(DEFAULTS, ['--zzzz=1'])


def test_helper_variables_of_a_file_start_with_an_underscore(tmp_path):
    assert override(DEFAULTS, [written(tmp_path, '_n = 2\nimport math\nbatch_size = _n * 4')])['batch_size'] == 8


def test_an_int_will_do_for_a_float():
    rate = override(DEFAULTS, ['--learning_rate=1'])['learning_rate']
    assert rate == 1.0 and type(rate) is float


@pytest.mark.parametrize(
    'arg',
    [
        '--batch_size=2.5',
        '--batch_size=two',
        '--batch_size=True',
        '--compile=1',
        '--compile=yes',
        '--learning_rate=fast',
        '--batch_size=',
        '--batch_size={[]:1}',
    ],
)
def test_wrong_type_is_refused(arg):
    with pytest.raises(ValueError, match=f'{arg[2:].partition("=")[0]} wants'):
        override(DEFAULTS, [arg])


@pytest.mark.parametrize('line', ["batch_size = '64'", 'batch_size = [64]', 'learning_rate = None'])
def test_wrong_type_in_a_file_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match='wants'):
        override(DEFAULTS, [written(tmp_path, line)])


def test_a_value_may_hold_an_equals_sign():
    assert override(DEFAULTS, ['--prompt=a=b==c'])['prompt'] == 'a=b==c'


def test_strings_stay_strings():
    config = override(DEFAULTS, ['--dataset=123', '--prompt=None'])
    assert config['dataset'] == '123' and config['prompt'] == 'None'


def test_key_and_value_may_be_two_words():
    config = override(DEFAULTS, ['--prompt', 'go north of the fridge', '--batch_size', '8'])
    assert config['prompt'] == 'go north of the fridge' and config['batch_size'] == 8


def test_a_flag_alone_is_true_and_can_be_given_a_value():
    assert override(DEFAULTS, ['--compile'])['compile'] is True
    assert override(DEFAULTS, ['--compile', '--batch_size=2'])['compile'] is True
    assert override({**DEFAULTS, 'compile': True}, ['--compile=False'])['compile'] is False
    assert override({**DEFAULTS, 'compile': True}, ['--compile', 'False'])['compile'] is False


def test_a_setting_without_its_value_is_refused():
    with pytest.raises(ValueError, match='needs a value'):
        override(DEFAULTS, ['--batch_size'])


def test_a_missing_file_is_refused():
    with pytest.raises(FileNotFoundError, match='no config file nowhere.py'):
        override(DEFAULTS, ['nowhere.py'])


def test_a_file_of_data_is_not_run(tmp_path):
    """a shell makes two arguments of --archive *.csv"""
    (tmp_path / 'b.csv').write_text('raise SystemExit')
    with pytest.raises(ValueError, match='b.csv is no config file.*--key=a,b'):
        override(DEFAULTS, [str(tmp_path / 'b.csv')])


@pytest.mark.parametrize('text', ['1 / 0', 'batch_size = (', 'import nothing_of_that_name'])
def test_a_file_that_raises_gives_one_line(tmp_path, text):
    with pytest.raises(ValueError, match='mine.py failed: .*Error') as e:
        override(DEFAULTS, [written(tmp_path, text)])
    assert '\n' not in str(e.value)


# ------------------------------------------------------------------------------
# read: what a script asks for


@pytest.fixture
def read(monkeypatch):
    """read('--key=value', choices=..) -> the settings that a script with the DEFAULTS would have"""

    def call(*args, **how):
        monkeypatch.setattr('sys.argv', ['script.py', *args])
        return settings.read({**DEFAULTS, 'runs': ()}, __file__, **how)

    return call


def test_a_choice_is_one_of_those_there_are(read):
    choices = {'dataset': ('toy_nav', 'cartpole')}
    assert read('--dataset=cartpole', choices=choices)['dataset'] == 'cartpole'
    with pytest.raises(ValueError, match="^dataset='mars' is not known. Set it to 'toy_nav' or 'cartpole'$"):
        read('--dataset=mars', choices=choices)


@pytest.mark.parametrize('value', ['0', '-3'])
def test_a_number_is_no_smaller_than_it_may_be(read, value):
    assert read('--batch_size=1', at_least={'batch_size': 1})['batch_size'] == 1
    with pytest.raises(ValueError, match=f'^batch_size={value} is too small. Set it to 1 or more$'):
        read(f'--batch_size={value}', at_least={'batch_size': 1})


def test_nan_is_not_large_enough():
    with pytest.raises(ValueError, match='learning_rate=nan is too small'):
        settings.check({'learning_rate': float('nan')}, {}, {'learning_rate': 0})


def test_a_setting_may_have_another_name_on_the_command_line(read):
    aliases = {'words': 'prompt'}
    assert read('--words=go', aliases=aliases)['prompt'] == read('--words', 'go', aliases=aliases)['prompt'] == 'go'
    assert read('--prompt=go', aliases=aliases)['prompt'] == 'go'
    with pytest.raises(ValueError, match='--words needs a value'):
        read('--words', aliases=aliases)


def test_arguments_that_are_no_options_may_be_gathered(read):
    config = read('out-a', '--prompt', 'go', 'out-b', '--compile', 'out-c', positional='runs')
    assert config['runs'] == ('out-a', 'out-b', 'out-c') and config['prompt'] == 'go' and config['compile'] is True
    assert read(positional='runs')['runs'] == ()


# ------------------------------------------------------------------------------
# scripts


@pytest.mark.parametrize('script', ['train.py', 'prepare.py', 'sample_policy.py'])
def test_help_lists_every_setting_with_its_comment(script, tmp_path):
    process = run(script, '--help', cwd=tmp_path)
    assert process.returncode == 0 and process.stderr == ''
    head = (ROOT / script).read_text().split('settings.read(')[0]
    found = re.findall(r'^([a-z]\w*) = (\S.*?)(?:\s+# (.*))?$', head, re.M)
    assert len(found) > 12
    for key, _, comment in found:
        if key == 'config':
            continue
        line = next((line for line in process.stdout.splitlines() if line.strip().startswith(f'--{key}=')), None)
        assert line and comment in line, (key, line)


def test_a_mistake_in_a_script_is_one_line(tmp_path):
    process = run('train.py', '--batchsize=2', cwd=tmp_path)
    assert len(process.stderr.strip().splitlines()) == 1
    refused(process, 'train.py: ', "no setting 'batchsize'", "'batch_size'")


def test_a_config_file_that_raises_is_one_line_in_a_script(tmp_path):
    refused(run('prepare.py', written(tmp_path, 'size = 1 / 0'), cwd=tmp_path), 'mine.py failed: ZeroDivisionError')


def test_an_error_of_the_system_names_the_place(tmp_path, capsys):
    try:
        (tmp_path / 'nowhere' / 'x').write_text('')
    except OSError:
        settings.one_line(*sys.exc_info())
    assert f'{tmp_path}/nowhere/x: No such file or directory. Mend' in capsys.readouterr().err


def test_an_error_in_the_middle_of_an_interrupt_is_an_interrupt(capsys):
    """a library cleans up after ^C, and fails"""
    try:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError('cannot join thread before it is started')
    except RuntimeError:
        settings.one_line(*sys.exc_info())
    assert capsys.readouterr().err == '\ninterrupted\n'


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_work_goes_on_when_nobody_reads_what_is_printed(tmp_path, stream):
    """as after `| head -1`"""
    code = f"import config, sys\nprint('x' * 10**6, file=sys.{stream})\nopen('written', 'w').close()"
    unread, writing = os.pipe()
    os.close(unread)
    streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, stream: writing}
    process = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}, **streams)
    os.close(writing)
    assert process.returncode == 0 and not process.stdout and not process.stderr
    assert (tmp_path / 'written').exists()


def test_python_u_still_writes_at_once():
    code = "import config, sys; print('begun', end=''); sys.stdin.read()"
    command = [sys.executable, '-u', '-c', code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert select.select([process.stdout], [], [], 60)[0] and os.read(process.stdout.fileno(), 99) == b'begun'
        process.stdin.close()
