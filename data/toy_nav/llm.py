"""
toy_nav for language models: the request for a description, what is wrong with an answer, and a path in words for one to
judge. The requests are in prompts/, a text file for each style.
"""

import re
from pathlib import Path

from data.toy_nav.itinerary import parse, stopped
from data.toy_nav.phrases import listed

PROMPTS = Path(__file__).parent / 'prompts'
LLM_STYLES = ['request', 'instruction', 'narrative']  # each a file there
LENGTH = 3, 60  # words
DATA = re.compile(
    r'\b(lists?|arrays?|json|coordinates?|itinerar(y|ies)|waypoints?|dictionar(y|ies)|tuples?|strings?|data|python'
    r'|prompts?)\b',
    re.I,
)
NUMBERS = re.compile(
    r'\d|\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|fifty|hundred)\b', re.I
)
QUOTED = re.compile('^["\'`\u201c\u2018\u00ab]|["`\u201d\u00bb]')
MARKUP = re.compile(r'[*#_{}\[\]<>|\\]|^-')


def or_nothing(places):
    return ', '.join(map(str, places)) or 'nothing'


def scene_in_words(places):
    """the room: its tiles, and on which of them each object stands"""
    north, middle, south = map(listed, places.world.tile_names)
    objects = [f'the {name} on the {places.tile_at(xy)} tile' for name, xy in places.world.objects.items()]
    return (
        'The floor of the room has three rows of three coloured tiles, each row from west to east: '
        f'in the north {north}; in the middle {middle}; in the south {south}. In the room are {listed(objects)}.'
    )


def llm_prompt(itinerary, style, places):
    """the request for a description of an itinerary in one of LLM_STYLES"""
    *passed, last = map(str, itinerary.places)
    avoid = ''
    if itinerary.avoid:
        avoid = f'Say as well, with the word avoid, that it avoids: {or_nothing(itinerary.avoid)}.'
    values = {
        'scene': scene_in_words(places),
        'places': '\n'.join([*(f'- pass: {place}' for place in passed), f'- stop: {last}']),
        'avoid': avoid,
        'rules': (PROMPTS / 'rules.txt').read_text().strip(),
    }
    file = PROMPTS / f'{style}.txt'
    try:
        # in one go: a name of the scene with braces in it is no placeholder
        return re.sub(r'{(\w+)}', lambda m: values[m[1]], file.read_text()).strip()
    except KeyError as e:
        raise ValueError(f'{file} has a placeholder {e} without a value. There are: {", ".join(values)}') from None


def invalid_because(text, itinerary, places):
    """what is wrong with a description of an itinerary, for its writer to read; None where it is right"""
    understood = parse(text, places)
    least, most = LENGTH
    n = len(text.split())
    if understood is None:
        return 'It names none of the places, or leaves open what comes first. Write it again.'
    if understood.places != itinerary.places:
        wanted, named = (', then '.join(map(str, i.places)) for i in (itinerary, understood))
        return f'It must name these places in this order, in these words: {wanted}. It names: {named}. Write it again.'
    if understood.avoid != itinerary.avoid:
        return (
            f'What it must say to avoid is: {or_nothing(itinerary.avoid)}; '
            f'it says to avoid: {or_nothing(understood.avoid)}. Say avoid, and write it again.'
        )
    if word := NUMBERS.search(text) or DATA.search(text):
        return f'It says {word[0]}: no numbers, no coordinates, nothing about data. Write it again.'
    if not text.isprintable() or QUOTED.search(text) or MARKUP.search(text):
        return 'It must be one paragraph of plain words, without quotation marks or markup. Write it again.'
    if not least <= n <= most:
        return f'It has {n} words; it must have {least} to {most}. Write it again.'
    return None


def place_name(visit):
    """where a visit was"""
    if not visit['place']:
        return 'near nothing'
    return f'{visit["side"]} of the {visit["place"]}'


def narrate(path, places):
    """a path (T + 1, 2) in words, an event a line: what it came by, which tiles it crossed, how it ended"""
    *passed, last = places.visits(path)
    lines = []
    for visit in passed:
        if visit['place']:
            lines.append(f'passed {place_name(visit)} on the {visit["tile"]} tile')
        else:
            lines.append(f'drove over the {visit["tile"]} tile')
    end = 'was still driving at the end,'
    if stopped(path):
        end = 'stopped'
    lines.append(f'{end} {place_name(last)} on the {last["tile"]} tile')
    lines.append(f'tiles it drove over, in order: {", ".join(places.colours(path))}')
    return '\n'.join(lines)
