"""
What a policy is asked to do: a prompt, a descriptor to reach, or both, from a command line or a file, checked.
"""

import json
import sys

from data.nearest_words import INSTALL


def read_requests(file):
    """a file of one prompt a line, or JSON lines with prompt and bd -> list of (prompt or None, bd or None)"""
    with open(file, encoding='utf-8') as lines:
        requests = [read_line(f'{file}, line {i}', line.strip()) for i, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise ValueError(f'{file} holds no prompt. Write one a line')
    return requests


def read_line(place, line):
    if not line.startswith('{'):
        return line, None
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise ValueError(f'{place}: not JSON ({e})') from None
    prompt, bd = row.get('prompt'), row.get('bd')
    if not isinstance(prompt, str | None):
        raise ValueError(f'{place}: the prompt must be a string, got {prompt!r}')
    return prompt, None if bd is None else numbers(bd)


def numbers(text):
    """'150,40' -> [150.0, 40.0]"""
    try:
        return [float(x) for x in str(text).strip('[]() ').split(',')]
    except ValueError:
        raise ValueError(f'bd={text!r} is not numbers separated by commas, such as 150,40') from None


def check_request(policy, prompt, bd):
    """refuse what a policy cannot be asked, warn of what training did not show -> the prompt as the policy reads it"""
    if not prompt and bd is None and (policy.config.text_len or policy.config.n_bd):  # else nothing can be asked
        raise ValueError('nothing is asked. Give --prompt "go north of the fridge", --bd=150,40, or --prompts=FILE')
    unknown = policy.check(prompt, bd)
    if bd is not None and not policy.within(bd):
        (low,), (high,) = policy.data_spec['bd_low'], policy.data_spec['bd_high']
        warn(f'{bd[0]:g} is out of the range of returns: {low:g} to {high:g}')
    for word, known in unknown.items():
        warn(f'{word} was never seen in training, it is ' + (f'read as {known}' if known else 'not understood'))
    if policy.reader and policy.reader.lacks_tables(unknown):
        warn(f'words never seen are read as known ones of like meaning after {INSTALL}')
    return policy.as_read(prompt) if prompt else None


def warn(text):
    print(f'warning: {text}', file=sys.stderr)
