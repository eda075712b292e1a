"""
toy_nav in pictures: the room, what a robot was asked and what it did, what an archive covers. Figures are made without
pyplot: they need no display and leave no state behind. Everything in them is placed in room units.
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

PANEL = 4.6  # inches: two panels side by side keep 8 point type legible on a page 800 pixels wide
LINE = 9.5  # room units a line of text
FRAME = 400  # pixels a side of a rendered frame
INK, WALL, ASKED, UNREACHED, GOOD, BAD = '#1d2433', '#4a5264', '#3d3fa8', '#ffb9b9', '#1d8a4b', '#c4232f'
START, ON_WAY, END = '#2f7de1', '#7a3fb5', '#d8175f'
TIME = LinearSegmentedColormap.from_list('time', [START, ON_WAY, END])
BOLD = findfont('DejaVu Sans:bold')  # for PIL
TILES = {
    'red': '#f6c3c1',
    'green': '#c9e6c8',
    'blue': '#c2d9f4',
    'yellow': '#faefb4',
    'orange': '#fbd7ae',
    'purple': '#dccbee',
    'pink': '#fbd6e8',
    'gray': '#d9dce1',
    'white': '#fafaf7',
}
W, M, S, K, B, G, O, L, D = (
    '#fdfdfd',
    '#dde4ec',
    '#7c8798',
    '#4a5264',
    '#7fb0da',
    '#4e9a57',
    '#ef9a76',
    '#d3a775',
    '#a9794c',
)  # white to wood
ICONS = {  # parts from back to front, around the object: 3 numbers are a disc, 4 a box, more a polygon
    'cactus': [
        (G, -1.4, -3, 1.4, 6),
        (G, -4.4, 0, -1, 1.6),
        (G, -4.4, 0, -2.8, 4),
        (G, 1, -1, 4.4, 0.6),
        (G, 2.8, -1, 4.4, 3),
        (D, -3, -6, 3, -2.6),
    ],
    'fan': [
        (S, -0.5, -5.5, 0.5, 0),
        (S, -3, -6, 3, -5),
        (W, 0, 1.6, 4.6),
        (B, 0, 3.8, 1.6),
        (B, -1.9, 0.5, 1.6),
        (B, 1.9, 0.5, 1.6),
        (S, 0, 1.6, 0.9),
    ],
    'sofa': [(S, -6, -1, 6, 4.6), (B, -5, -3.4, 5, 0.8), (S, -7.2, -4, -4.6, 1.8), (S, 4.6, -4, 7.2, 1.8)],
    'bed': [(D, -4.6, -6, 4.6, 6.4), (W, -3.8, -5.4, 3.8, 5.4), (M, -2.8, 2.2, 2.8, 4.8), (O, -3.8, -5.4, 3.8, 1)],
    'fridge': [(M, -3.8, -6, 3.8, 6), (K, -3.8, 1.5, 3.8, 1.8), (K, -2.7, 2.7, -2, 4.8), (K, -2.7, -2.4, -2, 0.6)],
    'cabinet': [
        (D, -6, -5, 6, 5),
        (L, -5.3, -4.3, -0.4, 4.3),
        (L, 0.4, -4.3, 5.3, 4.3),
        (K, -1.3, 0, 0.5),
        (K, 1.3, 0, 0.5),
    ],
    'chair': [(D, -3.4, -6, -2.2, 6), (D, 2.2, -6, 3.4, -0.6), (L, -3.4, -1.2, 3.6, 0.4), (L, -3.6, 2.4, -2, 6)],
    'statue': [(M, -2.6, -3.8, 2.6, -3.8, 1.3, 1.8, -1.3, 1.8), (M, 0, 3.7, 2.1), (S, -3.8, -6, 3.8, -3.6)],
    'file cabinet': [(S, -4, -6, 4, 6)]
    + [p for y in (-5.4, -1.7, 2) for p in ((M, -3.3, y, 3.3, y + 3.3), (K, -1.1, y + 1.4, 1.1, y + 2))],
    'bathtub': [
        (S, -4, -4.8, 1),
        (S, 4, -4.8, 1),
        (W, -6, 1, 6, 1, 4.8, -4.4, -4.8, -4.4),
        (B, -7, 0.8, 7, 2.4),
        (S, 4.4, 2.4, 5.4, 5),
    ],
    'table': [(D, -5.4, -5, -4.2, 2), (D, 4.2, -5, 5.4, 2), (L, -7, 1.4, 7, 3.4)],
    'stove': [
        (M, -5, -6, 5, 5),
        (K, -5.4, 4.4, 5.4, 5.6),
        (S, -3.8, -4.8, 3.8, 0.8),
        (O, -2.6, -3.6, 2.6, -2),
        (K, -2.6, 2.6, 0.8),
        (K, 0, 2.6, 0.8),
        (K, 2.6, 2.6, 0.8),
    ],
}
UNKNOWN = [(L, 0, -5.5, 5.5, 0, 0, 5.5, -5.5, 0), (W, 0, 0, 1.8)]  # any other object of a scene


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
        for colour, *part in ICONS.get(name, UNKNOWN):
            if len(part) == 4:
                part = [part[k] for k in (0, 1, 2, 1, 2, 3, 0, 3)]
            disc = len(part) == 3
            patch = (
                Circle((x + part[0], y + part[1]), part[2])
                if disc
                else Polygon(np.reshape(part, (-1, 2)) + (x, y), joinstyle='round')
            )
            ax.add_patch(patch).set(facecolor=colour, edgecolor=INK, lw=0.6, zorder=3)
        ax.text(
            x,
            y - 6.6,
            name,
            size=7.5,
            color=INK,
            ha='center',
            va='top',
            zorder=5,
            parse_math=False,
            path_effects=[withStroke(linewidth=2.2, foreground='white')],
        )
    ax.set(xlim=(0, world.size), ylim=(0, world.size), aspect='equal')
    ax.axis('off')


def path(ax, world, path, colour=None, label=None, pose=None):
    """a driven path (T + 1, 2), coloured by time where no colour is given, and the robot at its end, its heading that of pose (4,)"""
    path = np.asarray(path, dtype=float)
    colours = [colour or TIME(u) for u in np.linspace(0, 1, len(path))]
    ax.plot(*path.T, color='white', lw=4.4, solid_capstyle='round', zorder=4)  # lifts it off the floor
    ax.add_collection(
        LineCollection(
            np.stack([path[:-1], path[1:]], 1), colors=colours, lw=2.4, capstyle='round', label=label, zorder=4.1
        )
    )
    way = np.r_[0, np.hypot(*np.diff(path, axis=0).T).cumsum()]
    for k in np.searchsorted(way, np.arange(18, way[-1] - 8, 30)):  # an arrow head every 30 units, none where it ends
        u = path[k] - path[k - 1]  # it moves here, or the way would not have reached the mark
        u /= np.hypot(*u)
        head = path[k] + np.outer((2.6, -2.2, -2.2), u) + np.outer((0, 2.7, -2.7), (-u[1], u[0]))
        ax.add_patch(Polygon(head, facecolor=colours[k], edgecolor='white', lw=0.8, zorder=4.2))
    ax.add_patch(Circle(path[0], 2.4, facecolor='white', edgecolor=colours[0], lw=2, zorder=4.3))
    ax.add_patch(Circle(path[-1], world.radius, facecolor=colours[-1], edgecolor='white', lw=1.2, zorder=6))
    if pose is not None:
        ax.plot(
            *np.stack([pose[:2], pose[:2] + world.radius * np.asarray(pose[2:])], 1), color='white', lw=1.8, zorder=6.1
        )


def badge(ax, xy, number, passed=True):
    """a numbered disc: full where a place was passed, hollow where it is only asked for"""
    ax.add_patch(
        Circle(xy, 4.4, facecolor=INK if passed else 'white', edgecolor='white' if passed else ASKED, lw=1.1, zorder=7)
    )
    ax.text(
        *xy,
        str(number),
        size=8,
        weight='bold',
        color='white' if passed else ASKED,
        ha='center',
        va='center_baseline',
        zorder=7.1,
    )


def asked(ax, world, episode):
    """outlines the places asked for and numbers those that were missed -> [(number, xy, step)] for the others: where they were passed"""
    path, found = np.asarray(episode['path'], dtype=float), []
    for mask in episode.get('avoid', ()):
        cells = np.arange(len(mask)) + 0.5
        ax.contourf(cells, cells, mask, levels=[0.5, 2], colors='none', hatches=['///'], zorder=1)
        ax.contour(cells, cells, mask, levels=[0.5], colors=[BAD], linewidths=1.1, linestyles='dashed', zorder=2.5)
    taken = [path[-1]] + [xy for xy in [episode.get('bd')] if xy is not None]  # a number there would hide it
    steps = [step for _, step in episode.get('steps', ())]
    for number, (step, mask) in enumerate(zip_longest(steps, episode.get('regions', ())), 1):
        outlined = mask is not None and mask.any()
        if outlined:
            cells = np.arange(len(mask)) + 0.5
            ax.contourf(cells, cells, mask, levels=[0.5, 2], colors=[ASKED], alpha=0.17, zorder=1)
            ax.contour(
                cells, cells, mask, levels=[0.5], colors=[ASKED], linewidths=1.1, linestyles='dashed', zorder=2.5
            )
        if step is not None or outlined:
            if step is None:
                y, x = np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)  # deepest inside
            xy = np.array([x + 0.5, y + 0.5]) if step is None else path[step].copy()
            aside = 1 if xy[0] < world.size / 2 else -1
            while any(np.hypot(*(xy - other)) < 8 for other in taken):
                xy[0] += aside
            taken.append(xy)
            if step is None:
                badge(ax, xy, number, passed=False)
            else:
                found.append((number, xy, step))
    return found


def picture(file, world, episodes, columns=2):
    """
    A PNG with a panel for each episode: what was asked, what the robot did, in which order it passed the places.

    An episode has 'title' and 'path' (T + 1, 2), and may have 'pose' (4,) where it ended, 'steps' [(place, step or None)],
    'regions' and 'avoid' masks (size, size) [y, x] of the places, 'bd' (2,) a target, 'reference' another path, 'ok' was it
    carried out, 'kind' of failure?
    """
    columns, size = min(columns, len(episodes)), world.size
    rows = -(-len(episodes) // columns)
    above = (
        LINE * (max(len(wrap(e['title'], 50)) for e in episodes) + any(e.get('ok') is not None for e in episodes)) + 3
    )
    below = (
        LINE
        * max(len(e.get('steps', ())) + any(e.get(key) is not None for key in ('bd', 'reference')) for e in episodes)
        + 7
    )
    height = above + size + below
    fig = Figure(figsize=(PANEL * columns, PANEL * rows * height / size), dpi=150)
    for k, e in enumerate(episodes):
        ax = fig.add_axes(((k % columns + 0.02) / columns, 1 - (k // columns + 1) / rows, 0.96 / columns, 1 / rows))
        room(ax, world)
        if e.get('reference') is not None:
            ax.plot(*np.transpose(e['reference']), color='#6b7280', lw=1.4, zorder=3.9)
        path(ax, world, e['path'], pose=e.get('pose'))
        for number, xy, _ in asked(ax, world, e):
            badge(ax, xy, number)
        if e.get('bd') is not None:
            ax.plot(*e['bd'], 'X', ms=9, mfc='#111111', mec='white', zorder=7.5)
        y = size + 3.5
        if e.get('ok') is not None:
            ax.text(
                0,
                y,
                '✔ carried out' if e['ok'] else '✘ ' + (e.get('kind') or 'not carried out'),
                size=10.5,
                color=GOOD if e['ok'] else BAD,
            )
            y += LINE
        ax.text(0, y, '\n'.join(wrap(e['title'], 50)), size=11, weight='bold', color=INK, parse_math=False)
        for number, (name, step) in enumerate(e.get('steps', ()), 1):
            y = 3 - LINE * number
            badge(ax, (4.8, y), number, step is not None)
            ax.text(12, y, name, size=9.5, color=INK, va='center', parse_math=False)
            said, colour = ('missed', BAD) if step is None else (f'step {step}', INK)
            ax.text(size, y, said, size=9.5, color=colour, ha='right', va='center')
        said = ['✖ target'] * (e.get('bd') is not None) + ['grey: reference'] * (e.get('reference') is not None)
        ax.text(0, 3 - LINE * (len(e.get('steps', ())) + 1), '     '.join(said), size=9, color='#59606e', va='center')
        ax.set(xlim=(0, size), ylim=(-below, size + above))
    save(file, lambda f: fig.savefig(f, format='png', facecolor='white'))


# ------------------------------------------------------------------------------
# moving pictures: matplotlib draws the room once, PIL the robot and its path upon it


def floor(world, episode=None):
    """-> the room as an image, twice the size of a frame (halving it smooths what PIL draws), and what `asked` finds"""
    fig = Figure(figsize=(4, 4), dpi=FRAME / 2)
    canvas, ax = FigureCanvasAgg(fig), fig.add_axes((0, 0, 1, 1))
    room(ax, world)
    passed = asked(ax, world, episode) if episode else []
    for number, xy, _ in passed:  # hollow until the robot comes by
        badge(ax, xy, number, passed=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]), passed


empty_floor = lru_cache(maxsize=4)(floor)  # an environment renders one world again and again


def robot(image, world, path, pose, passed=()):
    """a floor with path, robot and places passed so far -> image of half its size"""
    image, k = image.copy(), image.width / world.size
    pen = ImageDraw.Draw(image)

    def at(xy, r=0):
        x, y = xy[0] * k, (world.size - xy[1]) * k
        return (x - r * k, y - r * k, x + r * k, y + r * k) if r else (x, y)

    for colour, width in ('white', 11), (ON_WAY, 6):
        pen.line([at(xy) for xy in path], fill=colour, width=width, joint='curve')
    pen.ellipse(at(path[0], 2.4), fill='white', outline=START, width=4)
    for number, xy, _ in passed:
        pen.ellipse(at(xy, 4.6), fill=INK, outline='white', width=3)
        pen.text(at(xy), str(number), fill='white', anchor='mm', font=ImageFont.truetype(BOLD, 24))
    pen.ellipse(at(pose, world.radius), fill=END, outline='white', width=3)
    pen.line([at(pose), at(pose[:2] + world.radius * np.asarray(pose[2:]))], fill='white', width=5)
    return image.reduce(2)


def frame(world, path, pose):
    """the path so far (t + 1, 2) and a pose (4,) -> (400, 400, 3) uint8"""
    return np.array(robot(empty_floor(world)[0], world, path, pose))


def animation(file, world, episode, every=4):
    """a looping GIF of an episode as `picture` takes it; it shows the heading where 'pose' holds every step (T + 1, 4)"""
    path, pose = np.asarray(episode['path'], dtype=float), np.asarray(episode.get('pose', ()))
    if pose.shape != (len(path), 4):
        pose = np.concatenate([path, np.zeros_like(path)], 1)  # a heading of (0, 0) is not seen
    image, passed = floor(world, episode)
    text, ok, frames = '\n'.join(wrap(episode['title'], 52)), episode.get('ok'), []
    head = 18 * (text.count('\n') + 1 + (ok is not None)) + 10
    for t in [*range(0, len(path) - 1, every), len(path) - 1]:
        whole = Image.new('RGB', (FRAME, FRAME + head), 'white')
        whole.paste(robot(image, world, path[: t + 1], pose[t], [p for p in passed if p[2] <= t]), (0, head))
        pen = ImageDraw.Draw(whole)
        pen.text((4, 5), text, fill=INK, font=ImageFont.truetype(BOLD, 13))
        if ok is not None and t == len(path) - 1:
            said, colour = ('✔ carried out', GOOD) if ok else ('✘ not carried out', BAD)
            pen.text((4, head - 6), said, fill=colour, font=ImageFont.truetype(BOLD, 13), anchor='ls')
        frames.append(whole)
    palette = frames[-1].quantize(255, dither=Image.Dither.NONE)  # one for all: no flicker, a third of the bytes
    frames = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    held = [60] * (len(frames) - 1) + [1500]
    save(
        file, lambda f: frames[0].save(f, format='GIF', save_all=True, append_images=frames[1:], duration=held, loop=0)
    )


# ------------------------------------------------------------------------------
# an archive from above


def cell_maps(file, places, maps, note):
    """pictures of the room in an archive's cells, side by side. maps: (values (n, n) [row, column], nan where there are none; title; norm; colours) each"""
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
    final, spread, floor = np.asarray(final).reshape(-1, 2), np.asarray(spread), places.archive_floor()
    column, row = places.archive_cell(final).T
    count, lowest = np.zeros(floor.shape), np.full(floor.shape, np.inf)
    np.add.at(count, (row, column), 1)
    np.minimum.at(lowest, (row, column), spread)
    reached = int((floor & (count > 0)).sum())
    share = f'{len(final):,} elites end in {reached:,} of {floor.sum():,} cells ({reached / floor.sum():.0%})'
    middle = f'lowest spread in each cell, median {np.median(lowest[count > 0]):.2g}' if len(final) else 'no elites'
    most = LogNorm(1, max(count.max(), 10))
    count[count == 0] = np.nan
    cell_maps(
        file,
        places,
        [(count, share, most, 'viridis'), (lowest, middle, None, 'viridis_r')],
        'within reach, but no elite ends there',
    )


def recovery(file, places, asked, reached, close):
    """an archive's cells, asked (n, 2), beside those in which one policy ended, reached (n, 2): close (n,) bool, and how far off"""
    there = np.full(places.archive_floor().shape, np.nan)
    column, row = places.archive_cell(asked).T
    off = there.copy()
    there[row, column], off[row, column] = close, np.hypot(*(reached - asked).T)
    maps = [
        (
            there,
            f'{close.sum():,} of {len(close):,} cells recovered, within one cell ({close.mean():.0%})',
            None,
            ListedColormap([BAD, GOOD]),
        ),
        (off, f'units off, median {np.nanmedian(off):.2g}', LogNorm(1, 100), 'viridis_r'),
    ]
    cell_maps(file, places, maps, 'within reach, but not in the archive')
