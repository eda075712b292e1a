"""
Settings: the plain variables at the top of a script, changed by config files and --key=value, left to right.

    config = settings.read(globals(), __file__); globals().update(config)
"""

import os
import re
import runpy
import sys
from ast import literal_eval
from difflib import get_close_matches

SETTABLE = (bool, int, float, str)


def one_line(kind, error, trace):
    """what went wrong and its cure, in place of a traceback, for what a user can mend; NANOPILOT_DEBUG=1 shows all"""
    ours = issubclass(kind, (ValueError, OSError, ImportError)) and not os.environ.get('NANOPILOT_DEBUG')
    if issubclass(kind, KeyboardInterrupt):
        print('\ninterrupted', file=sys.stderr)
    elif issubclass(kind, ImportError) and ours:
        print(f"{script()}: {error}. Install what is missing: make venv, or pip install '.[all]'", file=sys.stderr)
    elif ours:
        print(f'{script()}: {error}', file=sys.stderr)
    elif issubclass(kind, MemoryError):
        print(f'{script()}: out of memory ({error}). Close other programs, or ask for less at a time', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def script():
    return os.path.basename(sys.argv[0])


sys.excepthook = one_line  # scripts import this file first, so that a missing package gets its line too


def variables(names):
    return {k: v for k, v in names.items() if not k.startswith('_') and isinstance(v, SETTABLE)}


def override(defaults, args):
    """defaults: a script's variables. args: config files, --key=value, --key value, --flag -> {name: value}"""
    config, args = variables(defaults), list(args)
    while args:
        given = args.pop(0)
        arg = given if given.isprintable() else repr(given)  # errors are one line
        if given.startswith('--'):
            key, equals, text = given[2:].partition('=')  # partition: a value may itself hold an '='
            if not equals:
                if type(config.get(key)) is bool and not (args and args[0] in ('True', 'False')):
                    text = 'True'  # --gif alone switches it on
                elif args and key in config:
                    text = args.pop(0)
                elif key in config:
                    raise ValueError(f'{arg} needs a value: --{key}=...')
            changes = {key: text if type(config.get(key)) is str else literal(text)}
        else:
            if not os.path.isfile(given):
                raise FileNotFoundError(f'no config file {arg}. Settings are given as --key=value')
            try:
                changes = {
                    k: v
                    for k, v in runpy.run_path(given).items()
                    if not k.startswith('_') and (isinstance(v, SETTABLE) or k in config)
                }
            except Exception as e:  # the user's own code: say what it did
                raise ValueError(f'{arg} failed: {type(e).__name__}: {e}') from None
        for key, value in changes.items():
            if key not in config:
                close = get_close_matches(key, config, 1, 0.5)
                raise ValueError(
                    f'{arg}: there is no setting {key!r}. '
                    + (f"Did you mean '{close[0]}'?" if close else '--help lists them all')
                )
            want = type(config[key])
            if want is float and type(value) is int and abs(value) < 1e300:
                value = float(value)  # --dropout=0 is fine
            if want is str and type(value) in (int, float):
                value = str(value)  # drop_bd = 0.5 in a file is, too
            if type(value) is not want:
                raise ValueError(f'{arg}: {key} wants {want.__name__} like {config[key]!r}, got {value!r}')
            config[key] = value
    return config


def literal(text):
    try:
        return literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return text


def read(names, file):
    """a script's settings from its variables and sys.argv; answers --help, ends with one line on a mistake"""
    defaults = {k: v for k, v in variables(names).items() if k.islower()}
    if '--help' in sys.argv or '-h' in sys.argv:
        source = open(file).read()
        print((names.get('__doc__') or '').strip() + '\n\nsettings:')
        for key, value in defaults.items():
            comment = re.search(rf'^{key} = .*?# (.*)$', source, re.M)
            print(f'  --{key}={value!r}'.ljust(36) + (comment.group(1) if comment else ''))
        sys.exit()
    return override(defaults, sys.argv[1:])
