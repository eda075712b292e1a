"""
A Python that has loaded the packages, and forks for each script that it is asked to run: most of what a small run takes
is their import. The project's own modules are loaded anew by each script, as are its settings.

It reads lines of JSON: {args, cwd, env, stdout, stderr, seconds, ranks}, and answers each with an exit status. ranks:
for each process further variables of its environment; of several the worst status is the answer.
"""

import atexit
import gc
import importlib
import io
import json
import os
import runpy
import signal
import sys
import threading
import types

PACKAGES = [
    'torch',
    'torch._dynamo',
    'numpy',
    'pyarrow.parquet',
    'matplotlib.figure',
    'ribs.archives',
    'sklearn.cluster',
    'scipy.ndimage',
    'scipy.sparse.csgraph',
    'gymnasium',
    'joblib',
    'safetensors.torch',
    'sentencepiece',
    'tqdm',
]


def use_once():
    """what packages do when they are first used: find fonts, read the grammar of formulas, compile loops"""
    import numpy as np
    from matplotlib.figure import Figure
    from ribs.archives import GridArchive

    figure = Figure(layout='constrained')
    ax = figure.subplots()
    ax.semilogy([1, 100], label='a')
    ax.legend()
    figure.savefig(io.BytesIO(), format='png')
    archive = GridArchive(solution_dim=1, dims=[2, 2], ranges=[(0, 1), (0, 1)])
    archive.add(np.zeros((2, 1)), np.zeros(2), np.zeros((2, 2)))


def become(args, cwd, env, stdout, stderr, seconds):
    """this process is now a new one of `python *args`, as far as a script can tell; it ends after so many seconds"""
    for number, file, mode in (0, os.devnull, os.O_RDONLY), (1, stdout, os.O_WRONLY), (2, stderr, os.O_WRONLY):
        os.dup2(os.open(file, mode | os.O_APPEND), number)  # ranks write to one
    signal.alarm(seconds)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    first = os.path.dirname(args[0]) if args[0].endswith('.py') else cwd
    sys.path[0] = os.path.abspath(os.path.join(cwd, first))
    sys.path[1:1] = filter(None, env.get('PYTHONPATH', '').split(os.pathsep))


def execute(args):
    if args[0] == '-m':
        sys.argv = args[1:]
        runpy.run_module(args[1], run_name='__main__', alter_sys=True)
        return
    main = sys.modules['__main__'] = types.ModuleType('__main__')
    if args[0] == '-c':
        sys.argv = ['-c', *args[2:]]
        text, name = args[1], '<string>'
    else:
        sys.argv = args
        main.__file__ = name = os.path.abspath(args[0])
        with open(name) as f:
            text = f.read()
    exec(compile(text, name, 'exec'), vars(main))


def end(status):
    """
    end this process as Python does with what sys.exit was given, but for the taking down of its packages: in a fork
    that copies all their memory, and took two thirds of a small run's time
    """
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__:
        stream.flush()
    os._exit(status or 0)


def next_job():
    """-> what to become, in a process of its own; None at the end, in the one that was asked"""
    for line in sys.stdin:
        job = json.loads(line)
        started = []
        for variables in job.pop('ranks'):
            pid = os.fork()
            if not pid:
                return {**job, 'env': {**job['env'], **variables}}
            started.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]
        print(max(codes, key=abs), flush=True)
    return None


for package in PACKAGES:
    importlib.import_module(package)
use_once()
gc.freeze()  # a collection in a fork would copy what it looks at
job = next_job()
if job:
    become(**job)
    status = 0
    try:
        execute(job['args'])
    except SystemExit as e:
        status = e.code
    end(status)
