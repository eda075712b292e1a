"""
Work that is done block by block, by the processes of this machine or of a cluster: joblib, with loky, Dask or Ray.

    with use(2):
        for block, result in in_order(f, blocks): ..

Results come in the order of their blocks. What f makes of a block must depend on nothing but the block: then it is the
same for any number of processes, on any engine. Outside of `use`, and where there is one block, this process does it.
"""

import os
import warnings
from collections import deque
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

from tqdm import tqdm

from data.archive import batched

DIED = 'a worker process has died: killed, or out of memory. Run again; fewer --workers take less memory'
AHEAD = 2  # blocks a process in a batch; while one batch is worked on, the next one waits. More would take more memory
settings = None  # inside of `use`: joblib's, for a batch


@contextmanager
def use(workers=0, engine='loky', scheduler=''):
    """
    in_order() is done by this many processes, of one thread each; 0: as many as there are cores, or all of a cluster.

    engine: of ENGINES; scheduler: the address of a cluster of Dask or Ray, '': one of this machine, for this call.
    Raises OSError where a process dies, or the cluster cannot be reached.
    """
    global settings
    if scheduler and engine == 'loky':
        raise ValueError(f'scheduler={scheduler!r} is of a cluster. Set --engine=dask or --engine=ray, or leave it out')
    if workers == 1 and not scheduler:
        yield
        return
    import joblib

    # after an error: that there are results nobody asks for; that blocks are large
    warnings.filterwarnings('ignore', module='joblib|distributed')
    with ENGINES[engine](workers or joblib.cpu_count(), scheduler) as settings:
        try:
            yield
        finally:
            settings = None


@contextmanager
def loky(n, _):
    # of a process that was killed, another one says which files it left, after our line
    os.environ.setdefault('PYTHONWARNINGS', 'ignore::UserWarning:joblib.externals.loky.backend.resource_tracker')
    try:
        yield {'backend': 'loky', 'n_jobs': n, 'inner_max_num_threads': 1}
    except BrokenExecutor:
        raise OSError(DIED) from None


@contextmanager
def dask(n, scheduler):
    from distributed import Client
    from distributed.scheduler import KilledWorker

    local = {'n_workers': n, 'threads_per_worker': 1, 'dashboard_address': None, 'silence_logs': 50}
    client = Client(scheduler, timeout=10) if scheduler else Client(**local)
    try:
        with client:
            yield {'backend': 'dask', 'n_jobs': sum(client.ncores().values()), 'client': client}
    except KilledWorker:
        raise OSError(DIED) from None


@contextmanager
def ray(n, scheduler):
    import ray
    from ray.util.joblib import register_ray

    cluster = {'address': scheduler} if scheduler else {'num_cpus': n, 'include_dashboard': False}
    ray.init(**cluster, log_to_driver=False)
    register_ray()
    try:
        yield {'backend': 'ray', 'n_jobs': int(ray.cluster_resources()['CPU'])}
    except ray.exceptions.RayError:
        raise OSError(DIED) from None
    finally:
        ray.shutdown()


ENGINES = {'loky': loky, 'dask': dask, 'ray': ray}


def in_order(f, blocks):
    """
    yields (block, f(block)), in order; memory does not grow with the number of blocks. f and what it is given and
    returns are pickled: a function of a module, or a functools.partial of one
    """
    at_once = AHEAD * settings['n_jobs'] if settings else 1
    begun = deque()  # (blocks, their results)
    for batch in batched(blocks, at_once):
        begun.append((batch, results(f, batch)))
        if len(begun) == 2 or at_once == 1:
            yield from with_results(*begun.popleft())
    while begun:
        yield from with_results(*begun.popleft())


def with_results(blocks, results):
    """yields (block, its result), and uses up the results: joblib kills all workers where a generator is dropped"""
    for result, block in zip(results, blocks, strict=True):
        yield block, result


def ranges_in_order(f, total, size, desc):
    """
    yields (numbers, f(numbers)) for 0 .. total - 1, ranges of `size` numbers of episodes, the last one shorter; a bar
    counts them
    """
    ranges = (range(first, min(total, first + size)) for first in range(0, total, size))
    bar = tqdm(total=total, desc=desc, unit='ep', mininterval=1, disable=None)
    for numbers, result in in_order(f, ranges):
        yield numbers, result
        bar.update(len(numbers))
    bar.close()


def results(f, blocks):
    if len(blocks) == 1:
        return map(f, blocks)
    import joblib

    with joblib.parallel_config(**settings):  # a backend for each batch: the next one begins before this one is done
        return_as = 'list' if settings['backend'] == 'ray' else 'generator'  # Ray's has no generators
        work = joblib.Parallel(return_as=return_as, batch_size=1)
    return work(joblib.delayed(call)(f, block) for block in blocks)


def call(f, block):
    """joblib's Dask wants a function that has a hash; a partial of dicts has none"""
    return f(block)
