"""
What a policy is asked to do: a prompt, a descriptor to reach, or both, from a command line or a file, checked.
"""

import json
import sys

import numpy as np

from data.contract import load
from data.nearest_words import INSTALL

WRITTEN = 'understood', 'sure', 'path', 'actions', 'visits', 'verdict'  # what --json adds to a request
UNSURE = 0.5  # a probability: below it one in eleven of people's sentences is understood rightly, above it 88%


class NotUnderstood(ValueError):
    """A prompt says nothing that a policy knows."""


def read_requests(file):
    """
    a file of one prompt a line, of JSON lines with prompt and bd, or a JSON list of either -> list of (where it stands,
    prompt or None, bd or None)
    """
    try:
        with open(file, encoding='utf-8-sig') as f:
            text = f.read()
    except UnicodeDecodeError as e:
        raise ValueError(
            f'{file} is not in UTF-8: byte {e.object[e.start]:#x} at {e.start}. Save it as UTF-8'
        ) from None
    if text.lstrip().startswith('['):
        rows = parsed(file, text)
        requests = [of_row(f'{file}, prompt {i}', row) for i, row in enumerate(rows, 1)]
    else:
        lines = enumerate(text.splitlines(), 1)
        requests = [read_line(f'{file}, line {i}', line.strip()) for i, line in lines if line.strip()]
    if not requests:
        raise ValueError(f'{file} holds no prompt. Write one a line')
    return requests


def read_line(place, line):
    return of_row(place, parsed(place, line) if line.startswith('{') else line)


def parsed(place, text):
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        raise ValueError(f'{place}: not JSON ({e}). Mend it, or write one prompt a line') from None


def of_row(place, row):
    """a prompt, or a dict with prompt and bd -> (place, prompt or None, bd or None)"""
    if isinstance(row, str):
        return place, row.strip() or None, None
    if not isinstance(row, dict):
        raise ValueError(f'{place}: it is {row!r}. Give a prompt in quotes, or {{"prompt": .., "bd": ..}}')
    prompt, bd = row.get('prompt'), row.get('bd')
    if not isinstance(prompt, str | None):
        raise ValueError(f'{place}: the prompt must be a string, got {prompt!r}')
    unknown = sorted(row.keys() - {'prompt', 'bd', *WRITTEN})
    if unknown:
        raise ValueError(f'{place}: {unknown[0]!r} is not known. Give "prompt", "bd" or both')
    return place, prompt, None if bd is None else numbers(bd, f'{place}: ')


def numbers(text, place=''):
    """'150,40' -> [150.0, 40.0]; place: what an error begins with"""
    try:
        return [float(x) for x in str(text).strip('[]() ').split(',')]
    except ValueError:
        raise ValueError(f'{place}bd={text!r} is not numbers separated by commas, such as 150,40') from None


def check_request(policy, prompt, bd):
    """refuse what a policy cannot be asked, warn of what training did not show -> the prompt as the policy reads it"""
    if not prompt and bd is None and (policy.config.text_len or policy.config.n_bd):  # else nothing can be asked
        raise ValueError('nothing is asked. Give --prompt "go north of the fridge", --bd=150,40, or --prompts=FILE')
    check_one(policy, prompt, bd)
    if not prompt:
        return None
    refuse_contradiction(policy, prompt)
    for line in doubts(policy, prompt):
        warn(f'{prompt!r}: {line}. Say it in other words if that is not what you mean')
    return policy.as_read(prompt)


def doubts(policy, prompt):
    """-> lines: what of a prompt no policy of its data set can understand as it is meant, or this one has not"""
    dataset = load(policy.info['dataset'])
    if not hasattr(dataset, 'doubts'):
        return []
    said = policy.understood(prompt) if policy.config.say_len else ''
    return dataset.doubts(prompt, said, policy.data_spec['env_kwargs'])


def refuse_contradiction(policy, prompt):
    """a ValueError where a policy that says what it reads would go to what the prompt forbids"""
    if not policy.config.say_len:
        return
    dataset = load(policy.info['dataset'])
    if hasattr(dataset, 'forbidden'):
        meaning = policy.understood(prompt)
        places = dataset.forbidden(prompt, meaning, policy.data_spec['env_kwargs'])
        if places:
            raise ValueError(
                f'{prompt!r} is read as "{meaning}", but forbids {", ".join(places)}. Say where to go, too'
            )


def drivable(policy, requests):
    """
    [(where, prompt, bd)] -> those that can be asked of a policy, [(prompt as it reads it, bd)], and how many cannot: of
    each of these it is said where and why. ValueError where none can
    """
    fine, refused = [], []
    for where, prompt, bd in requests:
        try:
            fine.append((check_request(policy, prompt, bd), bd))
        except ValueError as e:
            refused.append(f'{where}: {e}')
    if not fine:
        raise ValueError(refused[0])
    for line in refused:
        warn(line)
    return fine, len(refused)


def check_requests(policy, n, prompts=None, bds=None):
    """
    check_one for n rows of a loop of one's own, each request once. prompts: str or None each; bds: numbers or None
    each; None: as before. Contradictions and doubts are not looked for: that takes the data set's code, which a robot
    may lack; see check_request
    """
    if isinstance(prompts, str):
        raise ValueError(f'prompts is one string. Give a list, a prompt for each row: [{prompts[:60]!r}]')
    for name, given in ('prompts', prompts), ('bd', bds):
        if given is not None and len(given) != n:
            raise ValueError(f'{len(given)} {name} for {n} rows. Give one for each row that begins or is changed')
    texts = [None] * n if prompts is None else list(prompts)
    numbers = [None] * n if bds is None else [bd if bd is None else as_floats(bd) for bd in bds]
    odd = [text for text in texts if not isinstance(text, str | None)]
    if odd:
        raise ValueError(f'a prompt must be a string, or None where there is none, got {odd[0]!r}. Give strings')
    if bds is not None and None in numbers and policy.config.n_bd and not policy.config.text_len:
        bd_names = ', '.join(policy.data_spec['bd_names'])
        raise ValueError(f'nothing is asked of row {numbers.index(None)}. Give a bd for each row: {bd_names}')
    policy.asked(dict.fromkeys(texts))  # many at once, and remembered
    for text, bd in dict.fromkeys(zip(texts, numbers)):  # each once
        check_one(policy, text, bd and list(bd))


def as_floats(bd):
    try:
        return tuple(np.atleast_1d(np.asarray(bd, np.float64)).tolist())
    except (TypeError, ValueError):
        raise ValueError(f'bd={bd!r} is not numbers. Give a list of them for each row: [[150, 40]]') from None


def check_one(policy, prompt, bd):
    """refuse what cannot be asked, and warn of what training did not show"""
    try:
        unknown = policy.check(prompt, bd)
    except NotUnderstood as e:
        dataset = load(policy.info['dataset'])
        if not hasattr(dataset, 'asked_of'):
            raise
        raise ValueError(f'{e}. {dataset.asked_of(policy.data_spec["env_kwargs"])}') from None
    if bd is not None and not policy.within(bd):
        (low,), (high,) = policy.data_spec['bd_low'], policy.data_spec['bd_high']
        warn(f'{bd[0]:g} is out of the range of returns: {low:g} to {high:g}')
    for word, read_as in unknown.items():
        warn(f'{word} was never seen in training, it is ' + (f'read as {read_as}' if read_as else 'not understood'))
    if policy.reader and policy.reader.lacks_tables(unknown):
        warn(f'words never seen are read as known ones of like meaning after {INSTALL}')


def understood(policy, prompt):
    """-> what a policy says of a prompt, and how sure it is; where it is not, warns, and says what else may be meant"""
    meaning, sure = policy.how_sure(prompt)
    if sure < UNSURE:
        others = [f'as "{other}" ({p:.0%})' for other, p in other_meanings(policy, prompt, meaning, sure)]
        cure = ' or '.join(['Say it in other words', *others])
        warn(f'it is only {sure:.0%} sure of what {prompt!r} means. {cure}')
    return meaning, sure


def other_meanings(policy, prompt, meaning, sure):
    """-> [(text, probability), ..]: what may be meant by a prompt beside what a policy says of it, if it is not sure"""
    if sure >= UNSURE:
        return []
    return [(text, p) for text, p in policy.readings(prompt) if text not in ('', meaning)]


def warn(text):
    print(f'warning: {text}', file=sys.stderr)
