"""
How does the project read? Counts of its own source, to hold beside nanoGPT's.

$ python -m bench.house                  # this tree
$ python -m bench.house ../nanoGPT       # another checkout that has a model.py and a train.py
"""

import sys

if __name__ == '__main__' and not __package__:
    sys.exit("run it from the checkout's root: python -m bench.house")

import ast
import io
import tokenize
from functools import cache
from pathlib import Path

WIDTH = 120  # characters of a line
READ_WITH_MODEL = (
    'attention',
    'auxiliary',
    'bins',
    'kv_cache',
    'layers',
    'ring',
)  # in nanopilot/: model.py is half a story without
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


# ------------------------------------------------------------------------------
# files


def python_files(tree):
    """the Python files of a checkout, without what is hidden, and without what the scripts write"""

    def ours(file):
        return not any(part.startswith(('.', '__pycache__', 'out', 'wandb')) for part in file.relative_to(tree).parts)

    return sorted(file for file in Path(tree).rglob('*.py') if ours(file))


@cache
def parsed(file):
    return ast.parse(Path(file).read_text())


@cache
def n_lines(file):
    return len(Path(file).read_text().splitlines())


def long_lines(file):
    """-> numbers of the lines that are wider than WIDTH"""
    return [i for i, line in enumerate(Path(file).read_text().splitlines(), 1) if len(line) > WIDTH]


def code_lines(file):
    """-> the lines that hold code, docstrings and comments left out"""
    text = Path(file).read_text()
    prose = set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, node.end_lineno + 1))
    held = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            held |= set(range(token.start[0], token.end[0] + 1))
    return [line for i, line in enumerate(text.splitlines(), 1) if i in held - prose]


def mean_code_line(files):
    widths = [len(line) for file in files for line in code_lines(file)]
    return sum(widths) / max(len(widths), 1)


def per_100_lines(n, file):
    return 100 * n / max(sum(bool(line.strip()) for line in Path(file).read_text().splitlines()), 1)


def n_comments(file):
    tokens = tokenize.generate_tokens(io.StringIO(Path(file).read_text()).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


# ------------------------------------------------------------------------------
# statements


def n_of(node, kinds):
    return sum(isinstance(n, kinds) for n in ast.walk(node))


def n_ifs(node):
    """if statements and conditional expressions"""
    return n_of(node, (ast.If, ast.IfExp))


def n_parameters(function):
    args = function.args
    names = [a.arg for a in args.posonlyargs + args.args + args.kwonlyargs + [args.vararg, args.kwarg] if a]
    return len([name for name in names if name not in ('self', 'cls')])


def span(function):
    """-> its lines, from def to the end"""
    return function.end_lineno - function.lineno + 1


def functions(file):
    """-> [(name, node)] of all functions of a file, methods as Class.name"""
    found = []

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, FUNCTIONS + (ast.ClassDef,)):
                name = f'{prefix}{child.name}.'
            if isinstance(child, FUNCTIONS):
                found.append((name[:-1], child))
            visit(child, name)

    visit(parsed(file), '')
    return found


def function(file, name):
    """-> the node of 'Class.name', None where there is no such file or function"""
    return dict(functions(file)).get(name) if Path(file).is_file() else None


def n_settings(file):
    """the plain lower-case variables at the top of a script, before it reads its command line"""
    names = set()
    for node in parsed(file).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.startswith('config'):
                break
            if name.islower() and plain(node.value):
                names.add(name)
    return len(names)


def plain(value):
    """is it a literal, or arithmetic of literals?"""
    return not any(isinstance(n, (ast.Name, ast.Call, ast.Dict, ast.List, ast.Tuple)) for n in ast.walk(value))


# ------------------------------------------------------------------------------
# imports


def module_file(tree, module):
    """'nanopilot.attention' -> its file in the tree, or None"""
    base = Path(tree, *module.split('.'))
    candidates = [base.with_suffix('.py'), base / '__init__.py']
    return next((file for file in candidates if file.is_file()), None)


def imports(tree, file, deferred=False):
    """-> the files of the tree that a file imports; deferred: also within functions"""
    nodes = ast.walk(parsed(file)) if deferred else module_level(parsed(file))
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [module_file(tree, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            whole = [module_file(tree, f'{node.module}.{alias.name}') for alias in node.names]
            found += [part or module_file(tree, node.module) for part in whole]
    return {target for target in found if target and target != file}


def module_level(node):
    """the nodes that run when a file is imported"""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTIONS + (ast.Lambda,)):
            yield child
            yield from module_level(child)


def circle(tree, but=()):
    """
    -> files that import each other in a circle, deferred imports included; [] if there is none.
    but: pairs (file, the file that it imports) that are left out
    """
    tree = Path(tree)
    done = set()

    def visit(file, path):
        if file in path:
            return [*path[path.index(file) :], file]
        if file in done:
            return []
        for target in sorted(imports(tree, file, deferred=True)):
            if (str(file.relative_to(tree)), str(target.relative_to(tree))) in but:
                continue
            found = visit(target, [*path, file])
            if found:
                return found
        done.add(file)
        return []

    for file in python_files(tree):
        found = visit(file, [])
        if found:
            return [str(f.relative_to(tree)) for f in found]
    return []


# ------------------------------------------------------------------------------
# the table


def shape(node):
    """-> 'lines / ifs / parameters' of a function"""
    if node is None:
        return '-'
    return f'{span(node)} / {n_ifs(node)} / {n_parameters(node)}'


def longest(tree):
    """-> (lines, 'file: function', ifs) of the longest function"""
    found = [(span(f), f'{file.relative_to(tree)}: {name}', n_ifs(f)) for file, name, f in all_functions(tree)]
    return max(found, default=(0, '-', 0))


def all_functions(tree):
    return [(file, name, node) for file in python_files(tree) for name, node in functions(file)]


def table(tree):
    """-> [(what is counted, its figure)]"""
    tree = Path(tree)
    rows = []
    model = tree / 'model.py'
    if model.is_file():
        beside = [tree / 'nanopilot' / f'{name}.py' for name in READ_WITH_MODEL]
        whole = sum(n_lines(file) for file in [model, *beside] if file.is_file())
        conditional = per_100_lines(n_of(parsed(model), ast.IfExp), model)
        comments = per_100_lines(n_comments(model), model)
        rows += [
            ('model file, lines (with what it cannot be read without)', f'{n_lines(model)} ({whole})'),
            ('`GPT.forward`: lines / ifs / parameters', shape(function(model, 'GPT.forward'))),
            ('the cached step: lines / ifs / parameters', shape(cached_step(tree))),
            (
                'conditional expressions / comments per 100 non-blank lines of the model',
                f'{conditional:.1f} / {comments:.0f}',
            ),
            ('mean code line of the model, characters', f'{mean_code_line([model]):.1f}'),
        ]
    train = tree / 'train.py'
    if train.is_file():
        figures = n_lines(train), n_settings(train), n_of(parsed(train), ast.Raise)
        rows.append(('train file, lines; settings; `raise`', '; '.join(map(str, figures))))
    lines, name, ifs = longest(tree)
    files = python_files(tree)
    wide = {file: len(long_lines(file)) for file in files}
    rooms = sorted({file.relative_to(tree).parts[0] for file in files if wide[file]})
    per_room = [f'{room} {sum(n for f, n in wide.items() if f.relative_to(tree).parts[0] == room)}' for room in rooms]
    return rows + [
        ('longest function: lines, ifs', f'{name}: {lines}, {ifs}'),
        (f'lines over {WIDTH} characters', ', '.join(per_room) or '0'),
        ('mean code line of all files, characters', f'{mean_code_line(files):.1f}'),
        ('Python files at the top', str(len(list(tree.glob('*.py'))))),
    ]


def cached_step(tree):
    return function(tree / 'nanopilot' / 'kv_cache.py', 'KVCache.step')


def main():
    tree = Path(sys.argv[1] if len(sys.argv) > 1 else '.').resolve()
    if not python_files(tree):
        sys.exit(f'no Python file in {tree}. Give the folder of a checkout')
    print(f'| | {tree.name} |\n|---|---|')
    for row in table(tree):
        print('| ' + ' | '.join(row) + ' |')


if __name__ == '__main__':
    main()
