"""Pictures: they are written whole, without a display, and show what they should."""

import numpy as np
import pytest
from PIL import Image

from data.toy_nav import draw
from data.toy_nav.places import Place


@pytest.fixture
def episode(places):
    path = np.stack([np.linspace(20, 60, 80), np.linspace(50, 60, 80)], 1)
    return {
        'title': 'go to the $fridge$ & <stop>',
        'path': path,
        'steps': [('the fridge', 12), ('the stove', None)],
        'bd': (60, 60),
        'ok': False,
        'regions': [places.mask(Place('at', 'fridge')), places.mask(Place('at', 'stove'))],
    }


def test_a_picture_of_one_and_of_many(tmp_path, places, episode):
    draw.picture(tmp_path / 'one.png', places.world, [episode])
    draw.picture(
        tmp_path / 'many.png',
        places.world,
        [episode, {'title': 'stand', 'path': episode['path'][:1]}, {**episode, 'ok': True}],
    )
    one, many = Image.open(tmp_path / 'one.png'), Image.open(tmp_path / 'many.png')
    assert many.size[0] > 1.5 * one.size[0] and many.size[1] > 1.5 * one.size[1]
    assert sorted(f.name for f in tmp_path.iterdir()) == ['many.png', 'one.png']  # nothing half-written


def test_an_animation_moves(tmp_path, places, episode):
    draw.animation(tmp_path / 'a.gif', places.world, episode, every=16)
    gif = Image.open(tmp_path / 'a.gif')
    frames = []
    for k in range(gif.n_frames):
        gif.seek(k)
        frames.append(np.array(gif.convert('RGB')))
    assert len(frames) == 6 and all((a != b).any() for a, b in zip(frames, frames[1:]))
    assert len(Image.open(tmp_path / 'a.gif').getpalette()) > 0


def test_a_heat_map_of_an_archive_and_of_none(tmp_path, places):
    rng = np.random.default_rng(0)
    draw.heat_map(tmp_path / 'map.png', places, rng.uniform(12, 188, (300, 2)), rng.uniform(0, 20, 300))
    draw.heat_map(tmp_path / 'none.png', places, np.zeros((0, 2)), np.zeros(0))
    assert all(Image.open(tmp_path / f).size[0] > 800 for f in ('map.png', 'none.png'))


def test_north_is_up_in_a_frame(places):
    high = draw.frame(places.world, np.array([[100.0, 180.0]]), np.array([100.0, 180.0, 1, 0])).astype(int)
    low = draw.frame(places.world, np.array([[100.0, 65.0]]), np.array([100.0, 65.0, 1, 0])).astype(int)
    rows = np.abs(high - low).sum((1, 2)).nonzero()[0]
    y = [r for r in rows if np.abs(high[r] - low[r]).sum() > 0]
    assert min(y) < 60 and max(y) > 250  # 180 of 200 is near the upper edge of 400 pixels
    assert (high[30:50, 195:206] != low[30:50, 195:206]).any() and (
        high[262:278, 195:206] != low[262:278, 195:206]
    ).any()
