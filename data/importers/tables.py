"""
Tables: Parquet and Arrow files with one row an episode (columns of lists) or one row a step, and csv with one row a
step. Columns obs_0, obs_1, .. are one observation each. Read a block of rows at a time.
"""

import csv
import re
from itertools import islice

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from data.importers.columns import SPELLINGS

ROWS = 1 << 15  # of a block
LFS = b'version https://git-lfs'  # so begins what Git keeps in place of a large file
LFS_CURE = 'a Git LFS pointer, not the file itself. Run: git lfs pull'
EPISODES = 256  # of a block, where a row is one
BUFFER = 1 << 16  # bytes of a column that are read at a time


def array_of(column):
    """an Arrow column -> array (rows, ..), or a list of strings; None where it is neither; ValueError: rows differ"""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [text or '' for text in column.to_pylist()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if column.null_count:
            raise ValueError('a row of it is null')
        lengths = column.value_lengths().unique().to_pylist() if len(column) else [0]
        if len(lengths) > 1:
            raise ValueError(f'rows of {lengths[0]} and of {lengths[1]} numbers')
        inside = array_of(column.flatten())
        if inside is None or isinstance(inside, list):
            return None
        return inside.reshape(len(column), lengths[0], *inside.shape[1:])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    if column.null_count and not pa.types.is_floating(kind):
        raise ValueError('a value of it is missing')
    return column.to_numpy(zero_copy_only=False)


def is_list(kind):
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


class Table:
    """A file of rows. Subclasses have `schema` and `batches(n)`, which yields record batches of up to n rows."""

    def __init__(self, path):
        self.file = path
        self.notes = []
        self.unread = {}
        try:
            self.schema = self.read_schema()
        except UnicodeDecodeError as e:
            raise ValueError(f'{path} is not in UTF-8: byte {e.object[e.start]:#x}. Save it as UTF-8') from None
        except (pa.ArrowException, csv.Error, OSError) as e:
            raise ValueError(
                f'{path} is not a whole {self.kind} file ({first_line(e)}). Make or copy it again'
            ) from None
        except ValueError as e:  # of its first lines, with the cure
            raise ValueError(f'{path}: {first_line(e)}') from None
        self.names = self.schema.names
        self.kind = f'{self.kind}, one row a step'
        self.layout = 'steps'
        if self.has_episodes():
            self.kind = self.kind.replace('a step', 'an episode')
            self.layout = 'elements'

    def has_episodes(self):
        """are actions lists, and observations lists of lists, or rewards lists, too?"""
        kinds = {field.name: field.type for field in self.schema}
        lists = [name for what in ('obs', 'act', 'reward', 'to_go') for name in SPELLINGS[what] if name in kinds]
        lists = [name for name in lists if is_list(kinds[name])]
        nested = [name for name in lists if is_list(kinds[name].value_type)]
        rewards = [name for name in lists if name in SPELLINGS['reward'] + SPELLINGS['to_go']]
        return bool(nested or rewards)

    def pieces(self):
        done = 0
        try:
            for batch in self.batches(EPISODES if self.layout == 'elements' else ROWS):
                if self.layout == 'steps':
                    yield columns_of(batch, f'{self.file}, rows from {done}', self.unread)
                else:
                    for i in range(len(batch)):
                        yield columns_of(batch.slice(i, 1), f'{self.file}, episode {done + i}', self.unread, row=True)
                done += len(batch)
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f'{self.file} is damaged behind row {done} ({first_line(e)}). Copy it again') from None


def columns_of(batch, where, unread, row=False):
    """
    A table, a record batch, or one row of it which is an episode -> {column: array or list of strings}

    where: for messages; unread: {column: [0, why]}, to which columns are added that hold something else
    """
    piece = {}
    for name, column in zip(batch.schema.names, batch.columns):
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if row and is_list(column.type):
            column = column.flatten()
        for key, part in leaves(name, column):
            try:
                values = array_of(part)
            except ValueError as e:
                raise ValueError(f'{where}, {key}: {e}. Save the same for all steps') from None
            if values is None:
                unread.setdefault(key, [0, f'it holds {part.type}, where numbers should be'])
            else:
                piece[key] = values
    return piece


def leaves(name, column):
    """a struct's fields as 'name/field', anything else as it is"""
    if not pa.types.is_struct(column.type):
        return [(name, column)]
    return [leaf for f, c in zip(column.type, column.flatten()) for leaf in leaves(f'{name}/{f.name}', c)]


def parquet(file):
    """a Parquet file of which row groups, however large, are not in memory at once"""
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)


class Parquet(Table):
    kind = 'Parquet'

    def read_schema(self):
        return pq.read_schema(self.file)

    def batches(self, n):
        with parquet(self.file) as file:
            yield from file.iter_batches(n)


class Arrow(Table):
    kind = 'Arrow'
    opened = staticmethod(pa.ipc.open_file)

    def read_schema(self):
        with pa.memory_map(str(self.file)) as source:
            return self.opened(source).schema

    def batches(self, n):
        with pa.memory_map(str(self.file)) as source:
            for batch in self.record_batches(self.opened(source)):
                for a in range(0, len(batch), n):
                    yield batch.slice(a, n)

    def record_batches(self, file):
        return map(file.get_batch, range(file.num_record_batches))


class ArrowStream(Arrow):
    """as datasets.save_to_disk writes it"""

    kind = 'Arrow, a stream'
    opened = staticmethod(pa.ipc.open_stream)

    def record_batches(self, stream):
        return stream


class Csv(Table):
    kind = 'csv'

    def read_schema(self):
        with open(self.file, newline='', encoding='utf-8-sig') as f:
            head = f.readline()
            self.delimiter = max(',;\t', key=head.count)
            names = next(csv.reader([head], delimiter=self.delimiter))
            self.decimal_point = self.find_decimal_point(names, islice(f, 100))
        if len(names) < 2 or all(is_number(name) for name in names):
            raise ValueError('read as csv, its first line names no columns: write a header')
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise ValueError(f'its first line names {twice[0]!r} twice: give each column a name of its own')
        if self.decimal_point == ',':
            self.notes.append('its numbers have decimal commas: 1,5 is read as 1.5')
        self.types = {}
        schema = self.reader().schema
        # whole numbers at first may have a comma later
        self.types = {f.name: pa.float64() for f in schema if pa.types.is_integer(f.type)}
        return schema

    def find_decimal_point(self, names, lines):
        """
        A point, or a comma where some lines have numbers with one and other signs separate the columns. ValueError
        where columns differ in that
        """
        if self.delimiter == ',':
            return '.'
        rows = [row for row in csv.reader(lines, delimiter=self.delimiter) if len(row) == len(names)]
        columns = list(zip(names, zip(*rows)))
        commas = [name for name, column in columns if are_numbers(column, ',')]
        points = [name for name, column in columns if are_numbers(column, '.')]
        if commas and points:
            raise ValueError(f'{points[0]} has decimal points and {commas[0]} decimal commas: write the same in all')
        return ',' if commas else '.'

    def reader(self):
        return pa.csv.open_csv(
            self.file,
            parse_options=pa.csv.ParseOptions(delimiter=self.delimiter),
            convert_options=pa.csv.ConvertOptions(column_types=self.types, decimal_point=self.decimal_point),
        )

    def batches(self, n):
        for batch in self.reader():
            for a in range(0, len(batch), n):
                yield batch.slice(a, n)


def are_numbers(fields, point):
    """are all fields of a column numbers, whole ones or with this decimal point, and some with it?"""
    number = re.compile(rf'[-+]?(?:\d+|\d*{re.escape(point)}\d+)(?:[eE][-+]?\d+)?')
    said = [field.strip() for field in fields if field.strip()]
    return any(point in field for field in said) and all(number.fullmatch(field) for field in said)


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse_pointers(files):
    """ValueError where one is Git LFS's pointer to it"""
    for file in files:
        with open(file, 'rb') as f:
            if f.read(len(LFS)) == LFS:
                raise ValueError(f'{file} is {LFS_CURE}')


def first_line(error):
    return str(error).strip().split('\n')[0] or type(error).__name__
