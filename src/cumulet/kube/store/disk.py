"""The SQL file: the current state of every object, written in batches.

The key of a row is a number: the revision that created the object. Memory has the number of each object, so the file
needs no other index, and new objects are written to its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulet.common.database import Database
from cumulet.kube.store.encryption import Sealer
from cumulet.kube.store.stored import Stored, make

MIGRATIONS = [
    """
    CREATE TABLE object (
        resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        revision INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (resource, namespace, name)
    );
    CREATE TABLE revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
    INSERT INTO revision VALUES (1, 1);
    """,
    """
    ALTER TABLE object RENAME TO object_by_name;
    CREATE TABLE object (
        created INTEGER PRIMARY KEY, revision INTEGER NOT NULL, written INTEGER NOT NULL,
        resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL
    );
    INSERT INTO object
        SELECT revision, revision, unixepoch(), resource, namespace, name, body FROM object_by_name ORDER BY revision;
    DROP TABLE object_by_name;
    """,
]

#: The rows of one statement. Each statement releases and takes the interpreter's lock, so fewer are better.
_ROWS = 32
_COLUMNS = 7


class Change(NamedTuple):
    """The next state of an object, or its deletion."""

    resource: str
    stored: Stored
    deleted: bool


class Disk:
    """One file, opened by one process."""

    def __init__(self, path: Path, key_file: Path) -> None:
        self._database = Database(path, MIGRATIONS)
        self._sealer = Sealer(key_file)

    def open(self) -> int:
        """Open the file and return the newest revision in it. Raises `SealError` and `DatabaseError`."""
        self._database.open()
        ((revision,),) = self._database.read("SELECT value FROM revision")
        return int(revision)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def read(self) -> Iterator[tuple[str, Stored]]:
        """Yield every object with its resource. Raises `SealError`."""
        query = "SELECT resource, namespace, name, revision, created, written, body FROM object"
        for resource, namespace, name, revision, created, written, body in self._database.read(query):
            plain = self._sealer.open(resource, namespace, name, body)
            yield (
                resource,
                make(
                    resource,
                    msgspec.json.decode(plain),
                    plain,
                    namespace=namespace,
                    name=name,
                    revision=revision,
                    created=created,
                    written=written,
                ),
            )

    def write(self, changes: Sequence[Change]) -> Awaitable[None]:
        """Write changes to disk, all or none, in the order of the calls."""
        # Of several changes of one object only the last goes to disk.
        last = {change.stored.created: change for change in changes}
        rows = [self._row(change) for change in last.values() if not change.deleted]
        gone = [created for created, change in last.items() if change.deleted]
        revision = changes[-1].stored.revision
        return self._database.write(lambda connection: _write(connection, rows, gone, revision))

    def _row(self, change: Change) -> tuple[object, ...]:
        resource, stored = change.resource, change.stored
        body = self._sealer.seal(resource, stored.namespace, stored.name, stored.body)
        return stored.created, stored.revision, stored.written, resource, stored.namespace, stored.name, body


def _write(
    connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]], gone: Sequence[int], revision: int
) -> None:
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        places = ",".join(["(" + ",".join("?" * _COLUMNS) + ")"] * len(some))
        connection.execute(f"REPLACE INTO object VALUES {places}", [value for row in some for value in row])  # noqa: S608
    for start in range(0, len(gone), _ROWS):
        numbers = gone[start : start + _ROWS]
        connection.execute(f"DELETE FROM object WHERE created IN ({','.join('?' * len(numbers))})", numbers)  # noqa: S608
    connection.execute("UPDATE revision SET value = ?", (revision,))
