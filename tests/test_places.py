"""What the landmarks' names mean on the floor."""

import numpy as np
import pytest

from data.toy_nav.places import CLOSE, MIN_CELLS, REACH, Place

CENTRES = {
    'red': (40, 160),
    'green': (100, 160),
    'blue': (160, 160),
    'yellow': (40, 100),
    'orange': (100, 100),
    'purple': (160, 100),
    'pink': (40, 40),
    'gray': (100, 40),
    'white': (160, 40),
}


def holds(places, place, *xy):
    return bool(places.mask(place)[places.cell(xy)])


def test_north_of_the_fridge(places):  # the fridge stands at (22, 28)
    north, north_east, east, at = (
        Place('side', 'fridge', 'north'),
        Place('side', 'fridge', 'north-east'),
        Place('side', 'fridge', 'east'),
        Place('at', 'fridge'),
    )
    assert holds(places, north, 22.5, 38.5) and holds(places, north, 30.5, 40.5) and holds(places, north, 22.5, 47.5)
    assert not holds(places, north, 22.5, 48.5)  # out of reach
    assert not holds(places, north, 34.5, 38.5) and holds(places, east, 34.5, 38.5)  # further east than north
    assert not holds(places, north, 22.5, 20.5)  # south
    assert (
        holds(places, north_east, 30.5, 40.5)
        and holds(places, north_east, 34.5, 38.5)
        and not holds(places, north_east, 20.5, 40.5)
    )
    assert holds(places, at, 22.5, 37.5) and not holds(places, at, 22.5, 38.5)


def test_a_side_is_what_side_of_says(places):
    for name in places.objects:
        for side in 'north', 'east', 'south', 'west':
            for y, x in np.argwhere(places.mask(Place('side', name, side)))[::7]:
                assert side in places.side_of(name, (x + 0.5, y + 0.5)), (name, side, x, y)


@pytest.mark.parametrize('colour', CENTRES)
def test_each_tile_has_its_colour_at_its_centre_and_in_its_corners(places, colour):
    x, y = CENTRES[colour]
    for dx, dy in (0, 0), (-29, -29), (29, -29), (-29, 29), (29, 29):
        assert places.tile_at((x + dx, y + dy)) == colour


def test_tiles_share_the_floor_out(places):
    count = sum(places.mask(Place('tile', c)).astype(int) for c in CENTRES)
    assert (count == places.reachable).all()


def test_between_two_objects_and_not_beyond(places):  # the chair (98, 25) and the table (123, 25)
    between = Place('between', 'chair', other='table')
    assert holds(places, between, 110.5, 25.5) and holds(places, between, 105.5, 33.5)
    assert (
        not holds(places, between, 98.5, 25.5)
        and not holds(places, between, 130.5, 25.5)
        and not holds(places, between, 110.5, 37.5)
    )
    assert not places.mask(Place('between', 'cactus', other='cabinet')).any()  # across the whole room


def test_a_tile_narrows_a_place(places):
    wide, narrow = (
        places.mask(Place('side', 'fridge', 'north')),
        places.mask(Place('side', 'fridge', 'north', tile='pink')),
    )
    assert (narrow == wide & places.mask(Place('tile', 'pink'))).all() and narrow.any()
    assert not places.mask(Place('side', 'fridge', 'north', tile='blue')).any()


def test_no_place_is_seen_through_a_wall(places):
    """walk from every cell of a place to its object in small steps, without entering a wall"""
    along = np.linspace(0, 1, 200)[:, None]
    for name, xy in places.world.objects.items():
        near = places.mask(Place('at', name)).copy()
        for side in 'north', 'east', 'south', 'west', 'north-east', 'north-west', 'south-east', 'south-west':
            near |= places.mask(Place('side', name, side))
        y, x = np.nonzero(near)
        assert len(x) > 100, name
        x, y = x + 0.5, y + 0.5
        assert np.hypot(x - xy[0], y - xy[1]).max() <= REACH
        px, py = xy[0] + (x - xy[0]) * along, xy[1] + (y - xy[1]) * along
        for x0, y0, x1, y1 in places.world.walls:
            assert not ((px > x0) & (px < x1) & (py > y0) & (py < y1)).any(), (name, (x0, y0))


def test_a_wall_hides_what_is_behind_it(places):  # the stove (64, 25), a wall at x = 77 .. 82
    assert (
        not places.mask(Place('side', 'stove', 'east'))[:, 83:].any()
        and places.mask(Place('side', 'stove', 'east'))[:, :77].any()
    )


def test_named_places_can_be_reached_and_aimed_at(places):
    assert len(places.all) > 80
    for place in places.all:
        mask, anchor = places.mask(place), places.anchor(place)
        assert mask.sum() >= MIN_CELLS and mask[places.cell(anchor)] and not (mask & ~places.reachable).any()
        assert places.world.clearance(*anchor.reshape(2, 1))[0] >= places.world.radius
    assert {p.name for p in places.all if p.kind == 'at'} == set(places.objects)
    assert {p.name for p in places.all if p.kind == 'tile'} == set(CENTRES)
    assert CLOSE < REACH


def test_what_a_place_says_and_names():
    assert str(Place('side', 'fridge', 'north', tile='pink')) == 'north of the fridge on the pink tile'
    assert str(Place('between', 'chair', other='table')) == 'between the chair and the table'
    assert Place('between', 'chair', other='table').names() == {'chair', 'table'} and Place('tile', 'red').names() == {
        'red tile'
    }


# ------------------------------------------------------------------------------
# hand-drawn paths


def test_a_path_to_the_fridge(places):
    path = np.stack([np.full(28, 22.5), np.arange(65.5, 37, -1)[:28]], 1)  # from far to (22.5, 38.5)
    events = places.visits(path)
    assert [e['place'] for e in events] == ['', 'fridge']
    end = events[-1]
    assert (end['step'], end['side'], end['tile'], end['distance']) == (
        27,
        'north',
        'pink',
        pytest.approx(np.hypot(0.5, 10.5), abs=0.01),
    )


def test_a_path_past_the_chair_that_ends_at_the_table(places):  # chair (98, 25), table (123, 25)
    path = np.stack([np.arange(85.0, 136), np.full(51, 32.0)], 1)
    chair, table = places.visits(path)
    assert (chair['place'], chair['step'], chair['side'], chair['distance'], chair['tile']) == (
        'chair',
        13,
        'north',
        7.0,
        'gray',
    )
    # the last one is where it ends, not where it came nearest: 12 east and 7 north of it, 59.7 degrees from north
    assert (table['place'], table['step'], table['side'], table['tile']) == ('table', 50, 'north-east', 'white')
    assert table['distance'] == pytest.approx(np.hypot(12, 7), abs=0.01)


def test_passing_for_two_steps_is_no_visit(places):
    away, near = [100.0, 65.0], [98.0, 33.0]
    assert {e['place'] for e in places.visits(np.array([away] * 5 + [near] * 2 + [away] * 5))} == {''}
    assert [e['place'] for e in places.visits(np.array([away] * 5 + [near] * 3 + [away] * 5))] == ['', 'chair', '']


def test_a_path_of_one_point_has_one_event(places):
    events = places.visits(np.array([[98.0, 33.0]]))
    assert len(events) == 1 and events[0]['place'] == 'chair' and events[0]['step'] == 0


def test_colours_are_the_tiles_crossed_in_order(places):
    path = np.array([CENTRES[name] for name in ('red', 'red', 'green', 'orange', 'green')], dtype=float)
    assert places.colours(path) == ['red', 'green', 'orange', 'green']
