"""
Settings: the plain variables at the top of a script, changed by config files and --key=value, left to right.

    config = settings.read(globals(), __file__, CHOICES, AT_LEAST)
    globals().update(config)
"""

import io
import os
import re
import runpy
import sys
from ast import literal_eval
from difflib import get_close_matches

from data.threads import BRIEFLY, wait_briefly

SETTABLE = (bool, int, float, str)


def one_line(kind, error, trace):
    """print one line in place of a traceback for what a user can mend; NANOPILOT_DEBUG=1 shows all"""
    script = os.path.basename(sys.argv[0])
    if interrupted(error):
        line = '\ninterrupted'
    elif issubclass(kind, MemoryError):
        line = f'{script}: out of memory ({error}). Close other programs, or ask for less at a time'
    elif os.environ.get('NANOPILOT_DEBUG') or not issubclass(kind, (ValueError, OSError, ImportError)):
        return sys.__excepthook__(kind, error, trace)
    elif issubclass(kind, ImportError):
        line = f"{script}: {error}. Install what is missing: make venv, or pip install '.[all]'"
    elif isinstance(error, OSError) and error.errno and error.filename:  # of the system: a place and what is wrong
        line = f'{script}: {error.filename}: {error.strerror}. Mend that, or name another place'
    else:
        line = f'{script}: {error}'
    return print(line, file=sys.stderr)


def interrupted(error):
    """was it ^C, or an error of a library that ^C came in the middle of?"""
    return error is not None and (isinstance(error, KeyboardInterrupt) or interrupted(error.__context__))


class Unread(io.FileIO):
    """A pipe that outlives its reader, `head` or a `tee` that was stopped: what nobody reads is dropped."""

    def write(self, data):
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def outlive_readers():
    """The work goes on, and its files are written, when nobody reads what is printed any more."""
    for name in 'stdout', 'stderr':
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream is getattr(sys, f'__{name}__'):  # no notebook, no test
            raw = Unread(stream.fileno(), 'w', closefd=False)
            buffer = raw if stream.write_through else io.BufferedWriter(raw)  # python -u writes at once
            how = {key: getattr(stream, key) for key in ('encoding', 'errors', 'line_buffering', 'write_through')}
            setattr(sys, name, io.TextIOWrapper(buffer, **how))


# scripts import this file first: a missing package gets its line too, and torch is not loaded yet
sys.excepthook = one_line
outlive_readers()
wait_briefly()


def read(names, file, choices=(), at_least=(), aliases=(), positional=''):
    """
    A script's settings from its variables and sys.argv -> {name: value}. --help prints them; ValueError on a mistake.

    names: the script's globals(), whose lower-case variables are the settings
    file: the script, whose comments --help shows
    choices: {name: what its value may be}; at_least: {name: the smallest value}
    aliases: {another name on the command line: name}, for a name that the script uses itself
    positional: a setting, a tuple, for the arguments that are no options; without it they are config files
    """
    defaults = {k: v for k, v in settings_of(names).items() if k.islower()}
    if '--help' in sys.argv or '-h' in sys.argv:
        print_help(names.get('__doc__') or '', defaults, file)
        sys.exit()
    others = [] if positional else None
    config = override(defaults, sys.argv[1:], aliases, others)
    if positional:
        config[positional] = (*names[positional], *others)
    check(config, dict(choices), dict(at_least))
    return config


def settings_of(names):
    return {k: v for k, v in names.items() if not k.startswith('_') and isinstance(v, SETTABLE)}


def print_help(doc, defaults, file):
    with open(file) as f:
        source = f.read()
    print(f'{doc.strip()}\n\nsettings:')
    for key, value in defaults.items():
        comment = re.search(rf'^{key} = .*?# (.*)$', source, re.M)
        print(f'  --{key}={value!r}'.ljust(36) + (comment.group(1) if comment else ''))
    briefly = ' '.join(f'{name}={value}' for name, value in BRIEFLY.items())
    print(f'\nenvironment: {briefly}, unless you set one of them: threads soon sleep while they wait')


def override(defaults, args, aliases=(), others=None):
    """
    defaults: a script's variables; args: config files, --key=value, --key value, --flag -> {name: value}
    others: a list that gets the arguments which are no options, instead of reading them as config files
    """
    config = settings_of(defaults)
    aliases = dict(aliases)
    args = list(args)
    while args:
        given = args.pop(0)
        arg = given if given.isprintable() else repr(given)  # errors are one line
        if given.startswith('--'):
            key, equals, text = given[2:].partition('=')  # partition: a value may itself hold an '='
            key = aliases.get(key, key)
            if not equals:
                text = text_of(key, config, args, arg)
            changes = {key: text if type(config.get(key)) is str else literal(text)}
        elif others is None:
            changes = run_file(given, config, arg)
        else:
            others.append(given)
            changes = {}
        for key, value in changes.items():
            config[key] = converted(key, value, config, arg)
    return config


def text_of(key, config, args, arg):
    """the value of --key without an equals sign: the next argument, which is taken from args; a flag alone is True"""
    if type(config.get(key)) is bool and args[:1] not in (['True'], ['False']):
        return 'True'
    if key in config and not args:
        raise ValueError(f'{arg} needs a value: --{key}=...')
    return args.pop(0) if key in config else ''


def run_file(file, config, arg):
    """the settings of a config file, which is Python -> {name: value}"""
    if not file.endswith('.py'):  # a pattern that the shell has replaced by names of files, say: data are not run
        raise ValueError(f'{arg} is no config file, which ends in .py. Settings are given as --key=value, --key=a,b')
    if not os.path.isfile(file):
        raise FileNotFoundError(f'no config file {arg}. Settings are given as --key=value')
    try:
        names = runpy.run_path(file)
    except Exception as e:  # the user's own code: say what it did
        raise ValueError(f'{arg} failed: {type(e).__name__}: {e}') from None
    return {k: v for k, v in names.items() if not k.startswith('_') and (isinstance(v, SETTABLE) or k in config)}


def converted(key, value, config, arg):
    """the value of a setting in the type of its default; refuses another type, and a name that is no setting"""
    if key not in config:
        close = get_close_matches(key, config, 1, 0.5)
        cure = f"Did you mean '{close[0]}'?" if close else '--help lists them all'
        raise ValueError(f'{arg}: there is no setting {key!r}. {cure}')
    kind = type(config[key])
    if kind is float and type(value) is int and abs(value) < 1e300:
        value = float(value)  # --dropout=0 is fine
    if kind is str and type(value) in (int, float):
        value = str(value)  # drop_bd = 0.5 in a file is, too
    if type(value) is not kind:
        raise ValueError(f'{arg}: {key} wants {kind.__name__} like {config[key]!r}, got {value!r}')
    return value


def literal(text):
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return text


def check(config, choices, at_least):
    """refuse a value that is not among its choices, or too small"""
    for name, allowed in choices.items():
        if config[name] not in allowed:
            raise ValueError(f'{name}={config[name]!r} is not known. Set it to {" or ".join(map(repr, allowed))}')
    for name, least in at_least.items():
        if not config[name] >= least:  # nor nan
            raise ValueError(f'{name}={config[name]} is too small. Set it to {least} or more')
