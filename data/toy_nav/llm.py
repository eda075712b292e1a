"""
toy_nav for language models: what one is asked to describe, what is wrong with its answer, and a path in words for one to
judge. What it is asked is in prompts/, a text file a style.
"""

import re
from pathlib import Path

from data.toy_nav.itinerary import parse, stopped

PROMPTS = Path(__file__).parent / 'prompts'
LLM_STYLES = ['request', 'instruction', 'narrative']  # each a file there
LENGTH = 3, 60  # words
DATA = re.compile(
    r'\b(lists?|arrays?|json|coordinates?|itinerar(y|ies)|waypoints?|dictionar(y|ies)|tuples?|strings?|data|python|prompts?)\b',
    re.I,
)
NUMBERS = re.compile(
    r'\d|\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|fifty|hundred)\b', re.I
)
QUOTED = re.compile('^["\'`\u201c\u2018\u00ab]|["`\u201d\u00bb]')
MARKUP = re.compile(r'[*#_{}\[\]<>|\\]|^-')


def enumerated(names):
    return ', '.join(names[:-1]) + ' and ' * (len(names) > 1) + names[-1]


def scene_in_words(places):
    """the room: its tiles, and on which of them each object stands"""
    rows = '; '.join(
        f'in the {where} {enumerated(row)}' for where, row in zip(('north', 'middle', 'south'), places.world.tile_names)
    )
    objects = [f'the {name} on the {places.tile_at(xy)} tile' for name, xy in places.world.objects.items()]
    return f'The floor of the room has three rows of three coloured tiles, each row from west to east: {rows}. In the room are {enumerated(objects)}.'


def llm_prompt(itinerary, style, places):
    """what a language model is asked, to describe an itinerary in one of LLM_STYLES"""
    *passed, last = map(str, itinerary.places)
    known = {
        'scene': scene_in_words(places),
        'places': '\n'.join([*(f'- pass: {p}' for p in passed), f'- stop: {last}']),
        'avoid': f'Say as well, with the word avoid, that it avoids: {", ".join(map(str, itinerary.avoid))}.'
        if itinerary.avoid
        else '',
        'rules': (PROMPTS / 'rules.txt').read_text().strip(),
    }
    file = PROMPTS / f'{style}.txt'
    try:
        return re.sub(
            r'{(\w+)}', lambda m: known[m[1]], file.read_text()
        ).strip()  # in one go: what is put in is not looked at again
    except KeyError as e:
        raise ValueError(
            f'{file} has a placeholder {e} that nothing is known for. There are: {", ".join(known)}'
        ) from None


def invalid_because(text, itinerary, places):
    """what is wrong with a description of an itinerary, said to whoever wrote it; None where it is right"""
    found, (least, most), n = parse(text, places), LENGTH, len(text.split())
    if found is None:
        return 'It names none of the places. Write it again.'
    if found.places != itinerary.places:
        return f'It must name these places in this order, in these words: {", then ".join(map(str, itinerary.places))}. It names: {", then ".join(map(str, found.places))}. Write it again.'
    if found.avoid != itinerary.avoid:
        return f'What it must say to avoid is: {", ".join(map(str, itinerary.avoid)) or "nothing"}; it says to avoid: {", ".join(map(str, found.avoid)) or "nothing"}. Say avoid, and write it again.'
    if word := NUMBERS.search(text) or DATA.search(text):
        return f'It says {word[0]}: no numbers, no coordinates, nothing about data. Write it again.'
    if not text.isprintable() or QUOTED.search(text) or MARKUP.search(text):
        return 'It must be one paragraph of plain words, without quotation marks or markup. Write it again.'
    if not least <= n <= most:
        return f'It has {n} words; it must have {least} to {most}. Write it again.'


def place_name(visit):
    """where a visit was"""
    return f'{visit["side"]} of the {visit["place"]}' if visit['place'] else 'near nothing'


def narrate(path, places):
    """a path (T + 1, 2) in words, an event a line: what it came by, which tiles it crossed, how it ended"""
    *passed, last = places.visits(path)
    lines = [
        f'passed {place_name(v)} on the {v["tile"]} tile' if v['place'] else f'drove over the {v["tile"]} tile'
        for v in passed
    ]
    lines.append(
        f'{"stopped" if stopped(path) else "was still driving at the end,"} {place_name(last)} on the {last["tile"]} tile'
    )
    return '\n'.join(lines + [f'tiles it drove over, in order: {", ".join(places.colours(path))}'])
