"""
toy_nav in pictures: the room, what was requested of a robot and what it did, what an archive covers. Figures are made
without pyplot: they need no display and leave no state behind. Everything in them is placed in room units.
"""

from functools import lru_cache
from itertools import zip_longest
from textwrap import wrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.patches import Circle, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from data.pictures import save
from data.toy_nav.icons import TILES, icon

PANEL = 4.6  # inches: two panels side by side keep 8 point type legible on a page 800 pixels wide
LINE = 9.5  # room units a line of text
FRAME = 400  # pixels a side of a rendered frame
INK, WALL = '#1d2433', '#4a5264'
REQUESTED, UNREACHED = '#3d3fa8', '#ffb9b9'
GOOD, BAD = '#1d8a4b', '#c4232f'
START, ON_WAY, END = '#2f7de1', '#7a3fb5', '#d8175f'
TIME = LinearSegmentedColormap.from_list('time', [START, ON_WAY, END])
BOLD = findfont('DejaVu Sans:bold')  # for PIL


def room(ax, world):
    """the furnished room on a matplotlib axes: tiles, walls, objects with their names"""
    t = world.tile_size
    for k, name in enumerate(np.ravel(world.tile_names)):
        x, y = world.border + k % 3 * t, world.border + (2 - k // 3) * t
        ax.add_patch(Rectangle((x, y), t, t, facecolor=TILES.get(name, '#ededf0'), edgecolor='white', lw=0.8, zorder=0))
        ax.text(x + 2.5, y + t - 3.3, name, size=6.5, style='italic', color='#757b8a', va='top', zorder=0.5)
    for x0, y0, x1, y1 in world.walls:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=WALL, lw=0, zorder=2))
    for name, (x, y) in world.objects.items():
        for patch in icon(name, x, y):
            ax.add_patch(patch).set(edgecolor=INK, lw=0.6, zorder=3)
        label = ax.text(x, y - 6.6, name, size=7.5, color=INK, ha='center', va='top', zorder=5, parse_math=False)
        label.set_path_effects([withStroke(linewidth=2.2, foreground='white')])
    ax.set(xlim=(0, world.size), ylim=(0, world.size), aspect='equal')
    ax.axis('off')


def draw_path(ax, world, path, pose=None):
    """a path (T + 1, 2), coloured by time, and the robot at its end, with its heading where pose (4,) is given"""
    path = np.asarray(path, dtype=float)
    colours = [TIME(u) for u in np.linspace(0, 1, len(path))]
    ax.plot(*path.T, color='white', lw=4.4, solid_capstyle='round', zorder=4)  # lifts it off the floor
    segments = np.stack([path[:-1], path[1:]], 1)  # (T, 2, 2)
    ax.add_collection(LineCollection(segments, colors=colours, lw=2.4, capstyle='round', zorder=4.1))
    length = np.r_[0, np.hypot(*np.diff(path, axis=0).T).cumsum()]  # (T + 1,) up to each step
    heads = np.arange(18, length[-1] - 8, 30)  # an arrow head every 30 units, none at the end
    for k in np.searchsorted(length, heads):
        u = path[k] - path[k - 1]  # it moves here, or the length would not have reached the mark
        u /= np.hypot(*u)
        head = path[k] + np.outer((2.6, -2.2, -2.2), u) + np.outer((0, 2.7, -2.7), (-u[1], u[0]))
        ax.add_patch(Polygon(head, facecolor=colours[k], edgecolor='white', lw=0.8, zorder=4.2))
    ax.add_patch(Circle(path[0], 2.4, facecolor='white', edgecolor=colours[0], lw=2, zorder=4.3))
    ax.add_patch(Circle(path[-1], world.radius, facecolor=colours[-1], edgecolor='white', lw=1.2, zorder=6))
    if pose is not None:
        front = pose[:2] + world.radius * np.asarray(pose[2:])
        ax.plot(*np.stack([pose[:2], front], 1), color='white', lw=1.8, zorder=6.1)


def badge(ax, xy, number, passed=True):
    """a numbered disc: full where a place was passed, hollow where it is only requested"""
    face, edge, ink = INK, 'white', 'white'
    if not passed:
        face, edge, ink = 'white', REQUESTED, REQUESTED
    ax.add_patch(Circle(xy, 4.4, facecolor=face, edgecolor=edge, lw=1.1, zorder=7))
    ax.text(*xy, str(number), size=8, weight='bold', color=ink, ha='center', va='center_baseline', zorder=7.1)


def outline(ax, mask, colour, **fill):
    """the outline of mask (size, size) [y, x], filled as `contourf` fills"""
    cells = np.arange(len(mask)) + 0.5
    ax.contourf(cells, cells, mask, levels=[0.5, 2], zorder=1, **fill)
    ax.contour(cells, cells, mask, levels=[0.5], colors=[colour], linewidths=1.1, linestyles='dashed', zorder=2.5)


def draw_request(ax, world, episode):
    """outlines the requested places, numbers the missed ones -> [(number, xy, step)] of those that were passed"""
    path = np.asarray(episode['path'], dtype=float)
    for mask in episode.get('avoid', ()):
        outline(ax, mask, BAD, colors='none', hatches=['///'])
    taken = [path[-1]]  # a number there would hide it
    if episode.get('bd') is not None:
        taken.append(episode['bd'])
    passed = []
    steps = [step for _, step in episode.get('steps', ())]
    for number, (step, mask) in enumerate(zip_longest(steps, episode.get('regions', ())), 1):
        outlined = mask is not None and mask.any()
        if outlined:
            outline(ax, mask, REQUESTED, colors=[REQUESTED], alpha=0.17)
        if step is not None:
            xy = beside(path[step].copy(), taken, world)
            passed.append((number, xy, step))
        elif outlined:
            y, x = np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)  # deepest inside
            xy = beside(np.array([x + 0.5, y + 0.5]), taken, world)
            badge(ax, xy, number, passed=False)
    return passed


def beside(xy, taken, world):
    """xy, moved east or west until it is 8 units from all that is taken, and then taken as well"""
    step = np.copysign(1, world.size / 2 - xy[0])
    while any(np.hypot(*(xy - other)) < 8 for other in taken):
        xy[0] += step
    taken.append(xy)
    return xy


def picture(file, world, episodes, columns=2):
    """
    A PNG with a panel for each episode: the request, what the robot did, in which order it passed the places.

    An episode is a dict of `title` and `path` (T + 1, 2), and optional

        steps    [(name of a place, step or None)]      regions, avoid  masks (size, size) [y, x] of the places
        bd       (2,) a target                          reference       another path
        pose     (4,) where it ended                    ok, kind        was it carried out? The kind of failure
    """
    columns = min(columns, len(episodes))
    rows = -(-len(episodes) // columns)
    above, below = margins(episodes)
    height = above + world.size + below
    fig = Figure(figsize=(PANEL * columns, PANEL * rows * height / world.size), dpi=150)
    for k, episode in enumerate(episodes):
        ax = fig.add_axes(((k % columns + 0.02) / columns, 1 - (k // columns + 1) / rows, 0.96 / columns, 1 / rows))
        draw_episode(ax, world, episode)
        draw_title(ax, world, episode)
        draw_steps(ax, world, episode)
        ax.set(xlim=(0, world.size), ylim=(-below, world.size + above))
    save(file, lambda f: fig.savefig(f, format='png', facecolor='white'))


def margins(episodes):
    """room units for the text above the room, and below"""
    has_verdict = any(e.get('ok') is not None for e in episodes)
    above = max(len(in_lines(e['title'])) for e in episodes) + has_verdict
    below = max(len(e.get('steps', ())) + bool(legend(e)) for e in episodes)
    return LINE * above + 3, LINE * below + 7


def in_lines(title):
    """as wide as the room; capitals are wider"""
    return wrap(title, 38 if title.isupper() else 50)


def legend(episode):
    """what else than a path is to be seen"""
    entries = []
    if episode.get('bd') is not None:
        entries.append('✖ target')
    if episode.get('reference') is not None:
        entries.append('grey: reference')
    return '     '.join(entries)


def draw_episode(ax, world, episode):
    room(ax, world)
    if episode.get('reference') is not None:
        ax.plot(*np.transpose(episode['reference']), color='#6b7280', lw=1.4, zorder=3.9)
    draw_path(ax, world, episode['path'], episode.get('pose'))
    for number, xy, _ in draw_request(ax, world, episode):
        badge(ax, xy, number)
    if episode.get('bd') is not None:
        ax.plot(*episode['bd'], 'X', ms=9, mfc='#111111', mec='white', zorder=7.5)


def verdict(episode):
    """-> text and colour of whether it was carried out"""
    if episode['ok']:
        return '✔ carried out', GOOD
    return f'✘ {episode.get("kind") or "not carried out"}', BAD


def draw_title(ax, world, episode):
    y = world.size + 3.5
    if episode.get('ok') is not None:
        text, colour = verdict(episode)
        ax.text(0, y, text, size=10.5, color=colour)
        y += LINE
    ax.text(0, y, '\n'.join(in_lines(episode['title'])), size=11, weight='bold', color=INK, parse_math=False)


def draw_steps(ax, world, episode):
    """below the room, a line for each place: when was it passed?"""
    y = 3
    for number, (name, step) in enumerate(episode.get('steps', ()), 1):
        y = 3 - LINE * number
        badge(ax, (4.8, y), number, step is not None)
        ax.text(12, y, name, size=9.5, color=INK, va='center', parse_math=False)
        text, colour = f'step {step}', INK
        if step is None:
            text, colour = 'missed', BAD
        ax.text(world.size, y, text, size=9.5, color=colour, ha='right', va='center')
    ax.text(0, y - LINE, legend(episode), size=9, color='#59606e', va='center')


# ------------------------------------------------------------------------------
# moving pictures: matplotlib draws the room once, PIL the robot and its path upon it


def floor(world, episode=None):
    """-> the room, twice the size of a frame (halving it smooths what PIL draws); the result of draw_request"""
    fig = Figure(figsize=(4, 4), dpi=FRAME / 2)
    canvas = FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    room(ax, world)
    passed = []
    if episode:
        passed = draw_request(ax, world, episode)
    for number, xy, _ in passed:  # hollow until the robot comes by
        badge(ax, xy, number, passed=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), passed


empty_floor = lru_cache(maxsize=4)(floor)  # an environment renders one world again and again


def draw_robot(image, world, path, pose, passed=()):
    """a floor with path, robot and places passed so far -> image of half its size"""
    image = image.copy()
    pen = ImageDraw.Draw(image)
    scale = image.width / world.size  # pixels a room unit

    def pixel(xy):
        return xy[0] * scale, (world.size - xy[1]) * scale

    def disc(xy, radius, **style):
        x, y = pixel(xy)
        r = radius * scale
        pen.ellipse((x - r, y - r, x + r, y + r), **style)

    for colour, width in ('white', 11), (ON_WAY, 6):
        pen.line([pixel(xy) for xy in path], fill=colour, width=width, joint='curve')
    disc(path[0], 2.4, fill='white', outline=START, width=4)
    for number, xy, _ in passed:
        disc(xy, 4.6, fill=INK, outline='white', width=3)
        pen.text(pixel(xy), str(number), fill='white', anchor='mm', font=ImageFont.truetype(BOLD, 24))
    disc(pose, world.radius, fill=END, outline='white', width=3)
    front = pose[:2] + world.radius * np.asarray(pose[2:])
    pen.line([pixel(pose), pixel(front)], fill='white', width=5)
    return image.reduce(2)


def frame(world, path, pose):
    """the path so far (t + 1, 2) and a pose (4,) -> (400, 400, 3) uint8"""
    return np.array(draw_robot(empty_floor(world)[0], world, path, pose))


def animation(file, world, episode, every=4):
    """a looping GIF of an episode as `picture` takes it, with the heading where `pose` is (T + 1, 4), of every step"""
    path = np.asarray(episode['path'], dtype=float)
    pose = np.asarray(episode.get('pose', ()))
    if pose.shape != (len(path), 4):
        pose = np.concatenate([path, np.zeros_like(path)], 1)  # a heading of (0, 0) is invisible
    image, passed = floor(world, episode)
    title = '\n'.join(in_lines(episode['title']))
    has_verdict = episode.get('ok') is not None
    font = ImageFont.truetype(BOLD, 13)
    head = 18 * (title.count('\n') + 1 + has_verdict) + 10  # pixels above the room
    last = len(path) - 1
    frames = []
    for t in [*range(0, last, every), last]:
        whole = Image.new('RGB', (FRAME, FRAME + head), 'white')
        passed_by_now = [place for place in passed if place[2] <= t]
        whole.paste(draw_robot(image, world, path[: t + 1], pose[t], passed_by_now), (0, head))
        pen = ImageDraw.Draw(whole)
        pen.text((4, 5), title, fill=INK, font=font)
        if has_verdict and t == last:
            text, colour = verdict({'ok': episode['ok']})
            pen.text((4, head - 6), text, fill=colour, font=font, anchor='ls')
        frames.append(whole)
    palette = frames[-1].quantize(255, dither=Image.Dither.NONE)  # one for all: no flicker, a third of the bytes
    frames = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    duration = [60] * (len(frames) - 1) + [1500]  # milliseconds
    gif = {'format': 'GIF', 'save_all': True, 'append_images': frames[1:], 'duration': duration, 'loop': 0}
    save(file, lambda f: frames[0].save(f, **gif))


# ------------------------------------------------------------------------------
# an archive from above


def cell_maps(file, places, maps, note):
    """
    Maps of an archive's cells, side by side. maps: tuples of values (ARCHIVE, ARCHIVE) [row, column], nan where
    there are none, title, norm and colours; note: what the cells in UNREACHED are
    """
    floor = places.archive_floor()
    fig = Figure(figsize=(len(maps) * PANEL, PANEL * 0.93), dpi=150, layout='constrained')
    edges = np.linspace(0, places.size, len(floor) + 1)
    for ax, (values, title, norm, cmap) in zip(fig.subplots(1, len(maps)), maps):
        ax.pcolormesh(edges, edges, np.ma.masked_where(~floor, floor), cmap=ListedColormap([UNREACHED]))
        image = ax.pcolormesh(edges, edges, np.ma.masked_invalid(values), norm=norm, cmap=cmap)
        for x0, y0, x1, y1 in places.world.walls:
            ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=WALL, lw=0))
        ax.text(2, -9, note, color=INK, backgroundcolor=UNREACHED, size=9, va='center')
        ax.set(xlim=(0, places.size), ylim=(-14, places.size), aspect='equal')
        ax.axis('off')
        ax.set_title(title, size=10.5, color=INK)
        fig.colorbar(image, ax=ax, shrink=0.8, format='%g')
    save(file, lambda f: fig.savefig(f, format='png', facecolor='white'))


def heat_map(file, places, final, spread):
    """where the elites of an archive end, final (E, 2), and how far they scatter, spread (E,)"""
    final = np.asarray(final).reshape(-1, 2)
    floor = places.archive_floor()
    column, row = places.archive_cell(final).T
    count = np.zeros(floor.shape)
    lowest = np.full(floor.shape, np.inf)
    np.add.at(count, (row, column), 1)
    np.minimum.at(lowest, (row, column), np.asarray(spread))
    reached = int((floor & (count > 0)).sum())
    count_title = f'{len(final):,} elites end in {reached:,} of {floor.sum():,} cells ({reached / floor.sum():.0%})'
    spread_title = 'no elites'
    if len(final):
        spread_title = f'lowest spread in each cell, median {np.median(lowest[count > 0]):.2g}'
    norm = LogNorm(1, max(count.max(), 10))
    count[count == 0] = np.nan
    maps = [(count, count_title, norm, 'viridis'), (lowest, spread_title, None, 'viridis_r')]
    cell_maps(file, places, maps, 'within reach, but no elite ends there')


def recovery(file, places, targets, reached, close):
    """
    How well one policy covers an archive. targets (n, 2): where the elites of n cells end; reached (n, 2): where the
    policy ended instead; close (n,) bool: is that close enough?
    """
    column, row = places.archive_cell(targets).T
    recovered = np.full(places.archive_floor().shape, np.nan)
    recovered[row, column] = close
    off = np.full(recovered.shape, np.nan)
    off[row, column] = np.hypot(*(reached - targets).T)
    title = f'{close.sum():,} of {len(close):,} cells recovered, within one cell ({close.mean():.0%})'
    maps = [
        (recovered, title, None, ListedColormap([BAD, GOOD])),
        (off, f'units off, median {np.nanmedian(off):.2g}', LogNorm(1, 100), 'viridis_r'),
    ]
    cell_maps(file, places, maps, 'within reach, but not in the archive')
