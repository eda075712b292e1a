"""
A cache on disk of what is slow or costly to compute: keys and bytes in one SQLite file. Runs without torch.
"""

import hashlib
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path

SUM = 8  # bytes of a value's SHA-256 that are stored before it: SQLite itself does not notice a flipped bit


class DiskCache:
    """
    get(key) -> bytes or None; put(key, value) is on the disk when it returns. For many threads, and many processes, at
    once. Raises ValueError where the file is damaged, OSError where it cannot be used.
    """

    def __init__(self, file):
        self.file = Path(file)
        self.lock = threading.Lock()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.access():
            # isolation_level=None: every put is a transaction of its own
            self.db = sqlite3.connect(self.file, timeout=60, check_same_thread=False, isolation_level=None)
            if {name for (name,) in self.db.execute('select name from sqlite_master')} - {'kept'}:
                raise sqlite3.DatabaseError('it holds something else')
            self.db.execute('create table if not exists kept (key text primary key, value blob) without rowid')

    @contextmanager
    def access(self):
        """one thread at a time; errors of SQLite as one line that ends in the cure"""
        try:
            with self.lock:
                yield
        except sqlite3.OperationalError as e:  # full, read-only, held by another: the file itself is intact
            raise OSError(f'{self.file} cannot be used ({e}). Make room, or choose another directory') from None
        except sqlite3.DatabaseError as e:
            raise ValueError(
                f'{self.file} is damaged, or no cache ({e}). Delete it, or choose another directory'
            ) from None

    def get(self, key):
        with self.access():
            row = self.db.execute('select value from kept where key = ?', (key,)).fetchone()
            if row is None:
                return None
            (value,) = row
            if not isinstance(value, bytes) or checksum(value[SUM:]) != value[:SUM]:
                raise sqlite3.DatabaseError('a value is not what was written')
        return value[SUM:]

    def put(self, key, value):
        self.put_all([(key, value)])

    def put_all(self, pairs):
        """many keys and values, all of them or none"""
        rows = ((key, checksum(value) + value) for key, value in pairs)
        with self.access(), self.db:
            self.db.execute('begin')
            self.db.executemany('insert or replace into kept values (?, ?)', rows)

    def close(self):
        self.db.close()


def checksum(value):
    return hashlib.sha256(value).digest()[:SUM]
