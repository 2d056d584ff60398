"""The SQLite file: durable writes, isolated failures, migrations."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from cumulet.common.database import Database, DatabaseError

SCHEMA = ["CREATE TABLE item (name TEXT PRIMARY KEY, size INTEGER NOT NULL)"]


def insert(name: str, size: int) -> tuple[str, tuple[str, int]]:
    return "INSERT INTO item VALUES (?, ?)", (name, size)


async def test_an_acknowledged_write_is_read_by_another_process(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    database.open()
    assert await database.execute(*insert("blob", 7)) == 1
    with sqlite3.connect(tmp_path / "a.db") as other:
        assert other.execute("SELECT * FROM item").fetchall() == [("blob", 7)]
    other.close()
    database.close()


async def test_of_many_writes_at_once_the_one_that_fails_undoes_only_itself(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    database.open()

    def half_then_fail(connection: sqlite3.Connection) -> None:
        connection.execute(*insert("half", 1))
        raise LookupError("no")

    jobs = [database.execute(*insert(f"n{n}", n)) for n in range(100)]
    results = await asyncio.gather(*jobs, database.write(half_then_fail), return_exceptions=True)
    assert results[:100] == [1] * 100
    assert isinstance(results[100], LookupError)
    assert database.read("SELECT count(*), max(name = 'half') FROM item") == [(100, 0)]
    database.close()


async def test_closing_lets_waiting_writes_through(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db", SCHEMA)
    database.open()
    waiting = [asyncio.ensure_future(database.execute(*insert(f"n{n}", n))) for n in range(50)]
    await asyncio.gather(*waiting[:1])
    database.close()
    assert await asyncio.gather(*waiting) == [1] * 50


def test_a_schema_is_brought_up_to_date_once(tmp_path: Path) -> None:
    for history in (SCHEMA, [*SCHEMA, "ALTER TABLE item ADD COLUMN kind TEXT"]):
        for _ in range(2):
            database = Database(tmp_path / "a.db", history)
            database.open()
            database.close()
    with sqlite3.connect(tmp_path / "a.db") as other:
        assert [row[1] for row in other.execute("PRAGMA table_info(item)")] == ["name", "size", "kind"]
    other.close()


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    newer = Database(tmp_path / "a.db", [*SCHEMA, "ALTER TABLE item ADD COLUMN kind TEXT"])
    newer.open()
    newer.close()
    older = Database(tmp_path / "a.db", SCHEMA)
    with pytest.raises(DatabaseError, match="newer version"):
        older.open()
