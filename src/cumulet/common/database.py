"""A SQLite file in WAL mode with group commit: every acknowledged write is on disk, and many share one fsync.

Reads run immediately on the caller's thread, on a read-only connection, and see the last commit. Writes are functions of
a connection. One thread runs all waiting writes, each in its own savepoint, commits once, and only then returns their
results. A write that fails undoes only itself.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cumulet.common.private_files import private_folder

T = TypeVar("T")

_BATCH = 512

_Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


class DatabaseError(Exception):
    """This version cannot use the file; the message has the reason."""


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{path}?mode=ro" if read_only else path,
        uri=read_only,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


class Database:
    """One SQLite file, opened by one process.

    `migrations` is the history of the schema. Each script is applied once, in order, in a transaction that also sets the
    new version (`PRAGMA user_version`). Only append to it.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self._path = path
        self._migrations = migrations
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._reader: sqlite3.Connection | None = None
        #: The number of commits of this process. While it is the same, reads return the same.
        self.commits = 0

    def open(self) -> None:
        """Open the file, migrate its schema and start the writer. Raises `DatabaseError`."""
        private_folder(self._path.parent)
        writer = _connect(self._path)
        self._path.chmod(0o600)
        writer.execute("PRAGMA journal_mode = WAL")
        # FULL: a commit is on disk before it is acknowledged, so it survives a power failure.
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute("PRAGMA journal_size_limit = 16777216")
        self._migrate(writer)
        self._reader = _connect(self._path, read_only=True)
        self._thread = threading.Thread(target=self._run, args=(writer,), name=f"sql-{self._path.stem}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Complete the waiting writes, then close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def read(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """Return all rows of a query, as tuples. It blocks the caller's thread, so use it for indexed look-ups only."""
        assert self._reader is not None, "the database is not open"
        return self._reader.execute(sql, parameters).fetchall()

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` in a transaction, and return its result when the transaction is durable.

        An exception of `job` undoes its changes and is raised here. `job` runs on another thread, so it must not use the
        state of the event loop's thread.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future))
        return await future

    async def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Run one statement durably, and return the number of rows that it changed."""
        return await self.write(lambda connection: connection.execute(sql, parameters).rowcount)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise DatabaseError(
                f"{self._path} was written by a newer version of cumulet (schema {version}, this version supports "
                f"{len(self._migrations)}): use that version, or another --data-dir"
            )
        for number, script in enumerate(self._migrations[version:], start=version + 1):
            connection.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT")

    def _run(self, connection: sqlite3.Connection) -> None:
        running = True
        while running:
            batch: list[_Job] = []
            item = self._jobs.get()
            while True:
                if item is None:
                    running = False
                    break
                batch.append(item)
                if len(batch) >= _BATCH:
                    break
                try:
                    item = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if batch:
                outcomes = _commit(connection, batch)
                self.commits += 1
                _deliver(outcomes)
        connection.close()


_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


def _commit(connection: sqlite3.Connection, batch: list[_Job]) -> list[_Outcome]:
    """Run a batch in one transaction. If the commit fails, every job in it fails."""
    outcomes: list[_Outcome] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job, future in batch:
            connection.execute("SAVEPOINT job")
            try:
                result = job(connection)
            except Exception as error:
                connection.execute("ROLLBACK TO job")
                outcomes.append((future, None, error))
            else:
                outcomes.append((future, result, None))
            connection.execute("RELEASE job")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [(future, None, error) for _, future in batch]
    return outcomes


def _deliver(outcomes: list[_Outcome]) -> None:
    """Pass the results to their event loops, with one wake-up for each loop."""
    for loop in {future.get_loop() for future, _, _ in outcomes}:
        mine = [outcome for outcome in outcomes if outcome[0].get_loop() is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():  # its caller was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
