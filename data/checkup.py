"""
A check-up of a file before it is prepared or trained on: one page, and the same as a picture. Nothing else is written.

$ python prepare.py --check --dataset=gym --archive=my_robot/
$ python prepare.py --check --archive=mine.parquet

It reads what `prepare.py --archive` reads, and replays nothing. Memory does not grow with the file: pictures, and
whether words are redundant (data/redundant.py), are of a sample, each episode or step with the same chance; what is
counted by its content is exact up to so many different ones (data/samples.py), then estimated, which is said.
"""

from collections import Counter

import numpy as np
from tqdm import tqdm

from data import checkup_picture, metrics, redundant
from data.archive import Archive
from data.blocks import FEW, split_by_count
from data.contract import archive_meta, has_environment
from data.importers.archives import opened_sources, survey_of, with_ends
from data.importers.checks import ROUNDING
from data.prepared import SPLITS
from data.samples import Contents, Reservoir
from data.text import has_words, words
from data.verify import check_shapes, digest, verify

STARTS = 1000  # episodes that the classifiers learn from
STEPS = 4000  # drawn
NUMBERS = 4_000_000  # in a sample, at most: fewer rows where an observation is long
TEXTS = 16  # different ones that are counted from one first observation, or for one episode
AT_BOUND, UNUSED, ONE_LABEL = 0.4, 0.05, 0.95  # shares from which on it is a finding


def check_up(names, picture, data, reader, options, text_len):
    """
    Print a page about the files of --archive, and draw it. ValueError where a file is none that prepare.py reads.

    names: as in --archive; picture: the PNG; data: the data set's module; reader: a Reader (data/blocks.py), which says
    texts and splits; options: an Options (data/importers); text_len: longer texts would be left out
    """
    meta = archive_meta(data, reader.kwargs)
    checkup = Checkup(meta, np.random.default_rng(reader.seed), reader.splits)
    bar = tqdm(desc='check', unit='ep', mininterval=1, disable=None)
    for number, (episode, split) in enumerate(episodes_of(names, data, reader.kwargs, meta, options), 1):
        checkup.exported = checkup.exported or split is not None
        checkup.add(episode, number, lambda e=episode, n=number, s=split: reader.notes(data, e, n, s, names))
        bar.update()
    bar.close()
    if not checkup.steps:
        why, first = next(iter(checkup.first_dropped.items()))
        raise ValueError(f'{names}: no episode could be used (first {first}): {CURES[why]}')
    redundancy = redundant.measure(*checkup.first_observations(), reader.seed)
    lines, findings = page(checkup, redundancy), findings_of(checkup, redundancy, text_len)
    title = f'check-up of {names} for {meta["dataset"]}'
    print(title)
    for label, line in lines:
        print(f'{label:>18}  {line}')
    for line in findings:
        print(f'! {line}')
    print(summary(findings))
    picture.parent.mkdir(parents=True, exist_ok=True)
    checkup_picture.draw(picture, title, checkup, redundancy, lines, findings, summary(findings))
    print(f'picture of it: {picture}')


def episodes_of(names, data, kwargs, meta, options):
    """yields (episode, the split that its file says, or None), as prepare.py reads them, those beyond bounds too"""
    if meta['continuous'] and not options.clip_actions:
        n = meta['n_act']
        meta = {**meta, 'act_low': [-np.inf] * n, 'act_high': [np.inf] * n}
    for path, source in opened_sources(names, options.rollout):
        if source is None:
            archive = Archive(path)
            archive.check(archive_meta(data, kwargs))
            for group in archive.groups(256):
                if 'path' not in archive.names and has_environment(data, kwargs):
                    verify(data, group, kwargs, meta, archive.meta.get('replay', True))  # adds it
                yield from ((episode, archive.meta.get('split')) for episode in group)
            continue
        survey = survey_of(source, data, meta, options)
        print('\n  '.join(survey.report()))
        yield from ((episode, None) for episode in with_ends(survey, data, kwargs, meta, path.name))


# ------------------------------------------------------------------------------
# one pass over the episodes


class Columns:
    """What the numbers of obs or act are like over all steps: constant, equal to another; and a sample of rows."""

    def __init__(self, names, rng):
        self.names, self.rng = np.array(names), rng
        self.low, self.high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
        self.hash = np.zeros(len(names), np.uint64)  # of all that a column holds: equal columns have equal ones
        self.rows = Reservoir(max(1, min(STEPS, NUMBERS // len(names))), rng)

    def add(self, rows):
        """(T, n), finite"""
        rows = np.array(rows, np.float32)
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        bits = np.ascontiguousarray(rows + np.float32(0)).view(np.uint32)  # -0 is 0
        factors = self.rng.integers(2**63, size=(len(rows), 1), dtype=np.uint64)
        self.hash += (bits * factors).sum(0, dtype=np.uint64)  # wraps around
        self.rows.add(rows)

    def constant(self):
        """(n,) bool"""
        return self.low == self.high

    def equal(self):
        """-> lists of names of columns that are the same at every step, but for constant ones"""
        same = {}
        for k in np.flatnonzero(~self.constant()):
            same.setdefault(int(self.hash[k]), []).append(str(self.names[k]))
        return [group for group in same.values() if len(group) > 1]


class Checkup:
    """What is found out, an episode at a time."""

    def __init__(self, meta, rng, rule):
        """meta: of the data set's archives (data/contract.py); rule: a Splits (data/blocks.py)"""
        self.meta, self.rule = meta, rule
        self.continuous = meta['continuous']
        act_names = meta['act_names'] if self.continuous else ['action']
        self.obs, self.act = Columns(meta['obs_names'], rng), Columns(act_names, rng)
        self.low, self.high = np.array(meta['act_low'], float), np.array(meta['act_high'], float)
        self.slack = ROUNDING * np.maximum(1, np.maximum(abs(self.low), abs(self.high)))
        self.at_bound = np.zeros(len(act_names), int)  # steps
        self.labels = Counter()  # of discrete actions: steps
        self.n = self.steps = self.no_text = self.texts_not_used = self.wordless = 0
        self.dropped = Counter()  # why: episodes
        self.first_dropped = {}  # .. and the first of them
        self.lengths, self.text_lengths, self.splits = Counter(), Counter(), Counter()
        self.groups = {}  # number of an episode that may be in any split: its group; of the first ones
        self.exported = False  # does a file say in which split its episodes are?
        self.copies = Contents(lambda: {'splits': Counter(), 'texts': set()})
        self.ends = Contents(set)  # splits of the episodes that end there
        self.starts = Contents(lambda: {'episodes': 0, 'texts': set()})
        self.texts = Contents(lambda: {'text': '', 'splits': Counter()})
        self.sample = Reservoir(max(redundant.FEWEST, min(STARTS, NUMBERS // len(meta['obs_names']))), rng)
        self.returns = Reservoir(STEPS, rng)
        self.return_low, self.return_high = np.inf, -np.inf

    def add(self, episode, number, notes):
        """number: from 1, as prepare.py counts; notes(): its words and its split, asked for if it is whole"""
        self.n += 1
        why, where = self.wrong(episode)
        if why:
            self.dropped[why] += 1
            self.first_dropped.setdefault(why, f'episode {number - 1}{where}')
        if why in ('shape', 'parts', 'not finite'):
            return
        self.steps += len(episode['act'])
        self.lengths[len(episode['act'])] += 1
        self.obs.add(episode['obs'])
        self.act.add(episode['act'])
        self.add_actions(episode['act'])
        if 'reward' in episode:
            self.add_return(float(np.sum(episode['reward'])))
        if why is None:
            self.add_words(episode, notes())

    def wrong(self, episode):
        """-> why prepare.py would leave it out, None; and where, ''"""
        misfit = check_shapes(episode)
        if misfit:
            return misfit, ''
        for name in 'obs', 'act', 'bd', 'reward':
            values = np.asarray(episode.get(name, 0))
            if np.isfinite(values).all():
                continue
            place = np.argwhere(~np.isfinite(values))[0]
            names = {'obs': self.obs.names, 'act': self.act.names}.get(name)
            which = name if names is None else names[place[1]]
            return 'not finite', f', step {place[0]}, {which}'
        act = episode['act']
        over = np.maximum(act - self.high, self.low - act) - self.slack
        if (over > 0).any():
            t, k = np.unravel_index(over.argmax(), over.shape)
            bounds = f'[{self.low[k]:g}, {self.high[k]:g}]'
            return 'out of range', f', step {t}: {self.act.names[k]} is {act[t, k]:.7g}, its bounds {bounds}'
        return None, ''

    def add_actions(self, act):
        if not self.continuous:
            labels, counts = np.unique(act.astype(int), return_counts=True)
            self.labels.update(dict(zip(labels.tolist(), counts.tolist())))
            return
        self.at_bound += ((act <= self.low + self.slack) | (act >= self.high - self.slack)).sum(0)

    def add_return(self, value):
        self.return_low, self.return_high = min(self.return_low, value), max(self.return_high, value)
        self.returns.add([value])

    def add_words(self, episode, notes):
        """texts, splits, and what is there twice"""
        split = notes['split']
        texts = notes['text'] or list(episode.get('text') or [])
        self.texts_not_used += bool(texts and not notes['text'])
        self.wordless += sum(not has_words(text) for text in texts)
        texts = [text for text in texts if has_words(text)]
        self.no_text += not texts
        self.splits[split] += 1
        for text in texts:
            self.text_lengths[len(words(text))] += 1
            entry = self.texts.of(text.encode())
            entry['text'] = text
            entry['splits'][split] += 1
        if len(episode['bd']):
            self.ends.of(np.asarray(episode['bd'], np.float32).tobytes()).add(split)
        first = np.array(episode['obs'][0], np.float32)
        start, copy = self.starts.of(first.tobytes()), self.copies.of(digest(episode))
        start['episodes'] += 1
        if len(start['texts']) < TEXTS:
            start['texts'].update(texts[:1])
        if len(copy['texts']) < TEXTS:
            copy['texts'].update(list(episode.get('text') or [])[:1])  # those of the file: the copy's would be lost
        copy['splits'][split] += 1
        if copy['splits'].total() == 1 and not notes['novel'] and len(self.groups) <= FEW:
            self.groups[notes['number']] = notes['group']
        if texts and copy['splits'].total() == 1:  # a copy would tell its own text
            self.sample.add([(first, texts[0])])

    def made_splits(self):
        """-> Counter of the episodes of each split that prepare.py makes, and how: few are split by count if need be"""
        empty = not all(self.splits[name] for name in SPLITS)
        if not empty or self.exported or not 1 < len(self.groups) <= FEW:
            return self.splits, ''
        rule = self.rule
        by_count = split_by_count(self.groups, rule.val_share, rule.test_share, rule.seed)
        made = Counter(name for names in by_count.values() for name in names)
        made['test'] += self.splits.total() - len(by_count) - copies(self)
        return made, ', by count as there are few'

    def first_observations(self):
        """-> of a sample of episodes with texts, no two the same: obs (n, n_obs), list of n texts"""
        sample = self.sample.sample()
        return np.array([first for first, _ in sample]), [text for _, text in sample]


# ------------------------------------------------------------------------------
# the page


def page(checkup, redundancy):
    """-> list of (label, line)"""
    low, high = min(checkup.lengths), max(checkup.lengths)
    middle = median(checkup.lengths)
    texts, crossing = checkup.text_lengths, in_two_splits(checkup.copies)
    made, how = checkup.made_splits()
    lines = [
        ('episodes', f'{checkup.n}, {low} to {high} steps, median {middle}; {checkup.steps} steps in all'),
        ('observations', f'{len(checkup.obs.names)} a step; constant: {listed(constant(checkup.obs))}'),
        ('actions', actions_line(checkup)),
        ('splits', ', '.join(f'{made[name]} {name}' for name in SPLITS) + how),
        ('copies', f'{copies(checkup)}; in two splits: {crossing}{checkup.copies.estimate_note()}'),
        ('first observations', starts_line(checkup)),
    ]
    if checkup.returns.items:
        returns = np.array(checkup.returns.sample())
        low, high = checkup.return_low, checkup.return_high
        lines.append(('returns', f'{low:.4g} to {high:.4g}, median {np.median(returns):.4g}'))
    if texts:
        words_each = f'{min(texts)} to {max(texts)} words, median {median(texts)}'
        different = f'{len(checkup.texts)} different{checkup.texts.estimate_note()}'
        lines.append(('texts', f'{different}; {words_each}; {new_in_test(checkup)}'))
    lines.append(('words', redundancy_line(redundancy)))
    return lines


def median(counts):
    """of a Counter of numbers"""
    values = sorted(counts)
    so_far = np.cumsum([counts[value] for value in values])
    return values[int(np.searchsorted(so_far, so_far[-1] / 2))]


def listed(names, most=6):
    """names for a line"""
    names = [str(name) for name in names]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more or 'none'


def constant(columns):
    return columns.names[columns.constant()]


def actions_line(checkup):
    if not checkup.continuous:
        steps = max(checkup.labels.total(), 1)
        names = checkup.meta['act_names']
        low = int(checkup.low[0])
        return listed([f'{name} {checkup.labels[k] / steps:.0%}' for k, name in enumerate(names, low)], 12)
    share = checkup.at_bound / checkup.steps
    worst = int(share.argmax())
    bounds = f'[{checkup.low.min():.4g}, {checkup.high.max():.4g}]'
    seen = f'{checkup.act.low.min():.4g} to {checkup.act.high.max():.4g}'
    n, name = len(share), checkup.act.names[worst]
    return f'{n} a step in {bounds}, seen {seen}; at a bound in up to {share[worst]:.0%} of steps ({name})'


def copies(checkup):
    """episodes that are there already"""
    return checkup.copies.count(lambda copy: max(copy['splits'].total() - 1, 0))


def in_two_splits(contents):
    return contents.count(lambda entry: len(entry['splits']) > 1)


def starts_line(checkup):
    shared = [start for start in checkup.starts.values() if start['episodes'] > 1]
    line = f'{len(checkup.starts)} different'
    if shared:
        n = sorted(len(start['texts']) for start in shared)
        most = f'{n[-1]} or more' if n[-1] == TEXTS else f'at most {n[-1]}'
        line += f'; begin several episodes: {checkup.starts.every * len(shared)}, each with {most} different texts'
    return line + checkup.starts.estimate_note()


def new_in_test(checkup):
    tested = [entry['splits'] for entry in checkup.texts.values() if entry['splits']['test']]
    new = sum(not splits['train'] for splits in tested)
    return f'of {len(tested)} in the test split {new} are in no training episode'


def redundancy_line(redundancy):
    if not redundancy.kind:
        return redundancy.why
    what = f'which of {redundancy.n_classes} texts it is'
    if redundancy.kind == 'words':
        what = f'which of {redundancy.n_classes} frequent words the text has'
    return (
        f'{redundancy.verdict}. The first observation tells {what}: {metrics.interval(redundancy.accuracy)}% right, '
        f'guessing {100 * redundancy.chance["mean"]:.1f}%, n={redundancy.n}'
    )


# ------------------------------------------------------------------------------
# findings: what will hurt, and what to do about it


def findings_of(checkup, redundancy, text_len):
    """-> lines"""
    return [
        *of_episodes(checkup),
        *of_columns(checkup),
        *(of_actions(checkup) if checkup.continuous else of_labels(checkup)),
        *of_returns(checkup),
        *of_texts(checkup, text_len),
        *of_redundancy(checkup, redundancy),
    ]


CURES = {
    'shape': 'obs, act and path differ in length. Save one row a step',
    'parts': 'parts is not JSON [[sentence, first step, the one after the last], ..]. Mend it, or leave parts out',
    'not finite': 'nan or inf. Repair them, or they are lost (beyond 3.4e38, the most of a float32, is inf)',
    'out of range': 'actions beyond their bounds. Scale them, name another --env, or pass --clip_actions',
}


def of_episodes(checkup):
    for why, n in checkup.dropped.items():
        yield f'{n} of {checkup.n} episodes would be left out (first {checkup.first_dropped[why]}): {CURES[why]}'
    made, _ = checkup.made_splits()
    empty = [name for name in SPLITS if not made[name]]
    if empty:
        yield f'no episode for {listed(empty)}: prepare.py refuses. Record more, or raise --val_share and --test_share'
    if max(checkup.lengths) == 1:
        yield 'every episode is one step long. Flag where episodes end: terminals, or a number of each'
    n = copies(checkup)
    if n:
        other = checkup.copies.count(lambda copy: len(copy['texts']) > 1)
        texts = f'; {other} have other texts, which are lost with them' if other else ''
        what = f'{n} of {checkup.n} episodes are the same as another'
        yield f'{what}: only the first is kept{texts}. Look for what doubled them'
    crossing = checkup.ends.count(lambda splits: len(splits) > 1)
    if crossing and 'discount' not in checkup.meta:
        yield f'{crossing} ends are reached by episodes of two splits: only the first split keeps them. Vary the starts'


def of_columns(checkup):
    names = constant(checkup.obs)
    if len(names):
        yield (
            f'observations that never change: {listed(names)}. They teach nothing, and another value of them is one '
            'never seen. Leave them out when saving'
        )
    names = constant(checkup.act)
    if len(names) and checkup.continuous:
        yield (
            f'actions that never change: {listed(names)}. A policy will always do the same. Leave them out when saving'
        )
    for what, columns in ('observations', checkup.obs), ('actions', checkup.act):
        for group in columns.equal():
            yield f'{what} that are the same at every step: {listed(group)}. Was a column saved twice? Keep one'


def of_actions(checkup):
    share = checkup.at_bound / checkup.steps
    moves = ~checkup.act.constant()
    saturated = checkup.act.names[moves & (share >= AT_BOUND)]
    if len(saturated):
        yield (
            f'actions at a bound in up to {share[moves].max():.0%} of steps: {listed(saturated)}. Were they clipped? '
            'Then widen the bounds; if they switch between the two, train with --head=kmeans'
        )
    used = (checkup.act.high - checkup.act.low) / np.maximum(checkup.high - checkup.low, 1e-30)
    small = checkup.act.names[moves & (used < UNUSED)]
    if len(small):
        yield f'actions that use less than {UNUSED:.0%} of their range: {listed(small)}. Scale them to its units'


def of_labels(checkup):
    (label, steps), *_ = checkup.labels.most_common(1)
    share = steps / checkup.labels.total()
    if share >= ONE_LABEL:
        name = checkup.meta['act_names'][label - int(checkup.low[0])]
        yield f'{share:.1%} of the actions are {name}: always doing that is nearly right. Record more of the others'


def of_returns(checkup):
    if checkup.returns.items and checkup.return_low == checkup.return_high:
        yield f'all returns are {checkup.return_low:g}: asking for one says nothing. Record worse and better episodes'


def of_texts(checkup, text_len):
    if checkup.wordless:
        yield f'{checkup.wordless} texts hold no word: they are left out. Say in words what each episode is to do'
    if not checkup.text_lengths:
        return
    whole = checkup.splits.total()
    if checkup.no_text:
        yield f'{checkup.no_text} of {whole} episodes have no text: they are trained on without one. Describe them, too'
    if checkup.texts_not_used:
        n = checkup.texts_not_used
        yield f"{n} episodes have texts that the data set's own replace. Keep them: --describe=keep"
    if len(checkup.texts) == 1:
        yield 'all texts are the same: they say nothing. Record more than one task, or steer by bd alone'
    long = sum(n for length, n in checkup.text_lengths.items() if length > text_len)
    if long:
        yield (
            f'{long} of {checkup.text_lengths.total()} texts are longer than text_len={text_len} and would be left '
            f'out. Set --text_len={2 * max(checkup.text_lengths)}'
        )


def of_redundancy(checkup, redundancy):
    if not redundancy.kind or redundancy.verdict in ('needed', 'unclear'):
        return
    tells = f': {listed(checkup.obs.names[redundancy.columns])}' if redundancy.columns else ''
    which = ''
    if redundancy.words:
        which = f' (above all {listed(word for word, _, _ in redundancy.words)})'
    yield (
        f'words are {redundancy.verdict}{which}: the first observation tells the text, '
        f'{100 * redundancy.accuracy["mean"]:.0f}% right where guessing is {100 * redundancy.chance["mean"]:.0f}%. '
        'A policy will learn to ignore them. Record '
        f'different texts from like starts, or leave out what tells them{tells}'
    )


def summary(findings):
    if not findings:
        return 'nothing was found that will hurt'
    return f'to mend: {len(findings)}'
