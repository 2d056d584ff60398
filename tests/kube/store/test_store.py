"""The contract of the store: acknowledged writes are durable, all changes have one order, history and file are bounded."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cumulet.kube.store import ConflictError, Event, GoneError, Store
from cumulet.kube.store.disk import MIGRATIONS


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A new store."""
    made = Store(tmp_path / "kube.db", tmp_path / "secrets.key")
    made.open()
    yield made
    made.close()


def obj(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n"}, **fields}


async def test_create_get_update_delete(store: Store) -> None:
    made = await store.create("configmaps", "n", "a", obj("a"))
    assert store.get("configmaps", "n", "a") is made
    assert made.load()["metadata"]["resourceVersion"] == str(made.revision) == str(store.revision)
    with pytest.raises(ConflictError):
        await store.create("configmaps", "n", "a", obj("a"))
    newer = await store.update("configmaps", made, obj("a", data={"x": "1"}))
    assert newer.revision > made.revision
    with pytest.raises(ConflictError):
        await store.update("configmaps", made, obj("a"))
    with pytest.raises(ConflictError):
        await store.delete("configmaps", made, obj("a"))
    await store.delete("configmaps", newer, obj("a"))
    assert store.get("configmaps", "n", "a") is None


async def test_of_two_writers_of_one_version_one_succeeds(store: Store) -> None:
    made = await store.create("configmaps", "n", "a", obj("a"))
    attempts = [store.update("configmaps", made, obj("a", data={"x": str(number)})) for number in range(10)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 9
    creations = [store.create("configmaps", "n", "b", obj("b")) for _ in range(10)]
    results = await asyncio.gather(*creations, return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 9


async def test_watchers_see_every_change_in_order(store: Store) -> None:
    first = await store.create("configmaps", "n", "a", obj("a"))
    events: list[Event] = []
    missed = store.watch("configmaps", first.revision - 1, events.append)
    assert [event.stored.name for event in missed] == ["a"]
    await asyncio.gather(*(store.create("configmaps", "n", f"x{number}", obj(f"x{number}")) for number in range(50)))
    revisions = [event.stored.revision for event in events]
    assert len(revisions) == 50
    assert revisions == sorted(revisions)
    store.unwatch("configmaps", events.append)


async def test_a_failing_watcher_holds_up_no_other(store: Store) -> None:
    def fail(*_: object) -> None:
        raise KeyError("x")

    events: list[Event] = []
    store.on_change("configmaps", fail)
    for receiver in (fail, events.append):
        store.watch("configmaps", store.revision, receiver)
    async with asyncio.timeout(10):
        await asyncio.gather(*(store.create("configmaps", "n", name, obj(name)) for name in "abc"))
    assert [event.stored.name for event in events] == ["a", "b", "c"]


async def test_the_past_is_kept_for_a_while(store: Store) -> None:
    made = await store.create("configmaps", "n", "a", obj("a"))
    then = store.revision
    for number in range(10):
        made = await store.update("configmaps", made, obj("a", data={"x": str(number)}))
    (past,) = store.list_at("configmaps", "n", then)
    assert "data" not in past.load()
    await asyncio.gather(
        *(store.create("configmaps", "n", f"x{number}", obj(f"x{number}")) for number in range(5000))
    )
    with pytest.raises(GoneError):
        store.list_at("configmaps", "n", then)
    with pytest.raises(GoneError):
        store.watch("configmaps", then, lambda _: None)


async def test_what_was_acknowledged_is_there_after_a_crash(store: Store, tmp_path: Path) -> None:
    made = [
        await store.create("secrets", "n", f"a{number}", obj(f"a{number}", data={"k": "djE="}))
        for number in range(20)
    ]
    await store.delete("secrets", made[3], obj("a3"))
    # The files at this moment, with nothing closed: the state that a kill would leave.
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob("kube.db*"):
        shutil.copy(file, left / file.name)
    again = Store(left / "kube.db", tmp_path / "secrets.key")
    again.open()
    assert sorted(stored.name for stored in again.list("secrets")) == sorted(
        f"a{number}" for number in range(20) if number != 3
    )
    assert again.revision == store.revision
    assert again.get("secrets", "n", "a0") == made[0]
    again.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from cumulet.kube.store import Store

async def main(folder):
    store = Store(folder / "kube.db", folder / "secrets.key")
    store.open()

    async def write(worker):
        number = 0
        while True:
            name = f"{worker}-{number}"
            made = await store.create("configmaps", "n", name, {"metadata": {"name": name}, "data": {"x": "y" * 2000}})
            print("created", name, flush=True)
            if number % 3 == 1:
                await store.update("configmaps", made, {"metadata": {"name": name}, "data": {"x": "changed"}})
                print("changed", name, flush=True)
            elif number % 3 == 2:
                await store.delete("configmaps", made, {"metadata": {"name": name}})
                print("deleted", name, flush=True)
            number += 1

    await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_kill_in_the_middle_of_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if line.endswith("\n"):
                what, name = line.split()
                acknowledged[name] = what
            if len(acknowledged) == 500:
                writer.kill()
    assert writer.returncode == -signal.SIGKILL
    again = Store(tmp_path / "kube.db", tmp_path / "secrets.key")
    again.open()
    found = {stored.name: stored.load() for stored in again.list("configmaps")}
    again.close()
    for name, what in acknowledged.items():
        number = int(name.partition("-")[2])
        # Changes after the last acknowledged one may be on disk or not.
        if what == "deleted":
            assert name not in found
        elif what == "changed":
            assert found[name]["data"]["x"] == "changed"
        elif number % 3 != 2:
            assert name in found
    revisions = [int(obj["metadata"]["resourceVersion"]) for obj in found.values()]
    assert len(set(revisions)) == len(revisions)


async def test_the_file_is_bounded_by_what_is_live(store: Store, tmp_path: Path) -> None:
    """An hour's writes in short: some objects change all the time, others are created and deleted; 40 MB in all."""
    lasting = [await store.create("configmaps", "n", f"a{number}", obj(f"a{number}")) for number in range(50)]

    async def change(index: int) -> None:
        for number in range(100):
            data = {"x": "y" * 4000, "n": str(number)}
            lasting[index] = await store.update("configmaps", lasting[index], obj(f"a{index}", data=data))
            passing = await store.create("events", "n", f"e{index}-{number}", obj(f"e{index}-{number}", data=data))
            await store.delete("events", passing, passing.load())

    await asyncio.gather(*(change(index) for index in range(50)))
    live = sum(len(stored.body) for stored in store.list("configmaps"))
    assert sum(file.stat().st_size for file in tmp_path.glob("kube.db*")) < 2 * live + 20 * 2**20


async def test_events_of_the_cluster_expire(store: Store) -> None:
    await store.create("events", "n", "old", obj("old"))
    await store.create("configmaps", "n", "c", obj("c"))
    seen: list[Event] = []
    store.watch("events", store.revision, seen.append)
    await store.compact(0)
    assert [stored.name for stored in store.list("events")] == ["old"]
    await store.compact(0, now=time.time() + 3601)
    assert list(store.list("events")) == []
    assert [(event.type, event.stored.name) for event in seen] == [("DELETED", "old")]
    assert store.count("configmaps") == 1


async def test_compaction_forgets_the_past_and_not_the_present(store: Store) -> None:
    made = await store.create("configmaps", "n", "a", obj("a"))
    other = await store.create("secrets", "n", "s", obj("s"))
    newer = await store.update("configmaps", made, obj("a", data={"x": "1"}))
    await store.compact(made.revision)
    assert [event.stored.revision for event in store.missed("configmaps", made.revision)] == [newer.revision]
    with pytest.raises(GoneError):
        store.missed("configmaps", made.revision - 1)
    # No change happened, so none is dropped.
    assert [event.stored for event in store.missed("secrets", made.revision)] == [other]
    assert store.get("configmaps", "n", "a") is newer


async def test_a_start_ends_the_history_also_of_what_is_gone(store: Store, tmp_path: Path) -> None:
    made = await store.create("configmaps", "n", "a", obj("a"))
    await store.delete("configmaps", made, obj("a"))
    store.close()
    again = Store(tmp_path / "kube.db", tmp_path / "secrets.key")
    again.open()
    with pytest.raises(GoneError):
        again.missed("configmaps", made.revision)
    assert list(again.missed("configmaps", again.revision)) == []
    again.close()


async def test_a_name_is_made_and_deleted_again_and_again(store: Store, tmp_path: Path) -> None:
    writes: list[asyncio.Future[object]] = []
    for _ in range(3):
        writes.append(asyncio.ensure_future(store.create("configmaps", "n", "a", obj("a"))))
        await asyncio.sleep(0)
        newest = store.newest("configmaps", "n", "a")
        assert newest is not None
        writes.append(asyncio.ensure_future(store.delete("configmaps", newest, obj("a"))))
        await asyncio.sleep(0)
        assert store.newest("configmaps", "n", "a") is None
    await asyncio.gather(*writes)
    last = await store.create("configmaps", "n", "a", obj("a"))
    store.close()
    again = Store(tmp_path / "kube.db", tmp_path / "secrets.key")
    again.open()
    assert [stored.revision for stored in again.list("configmaps")] == [last.revision]
    again.close()


async def test_lists_are_in_order_and_of_their_namespace(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a", "y"), ("ab", "z"), ("a", "x")):
        await store.create("configmaps", namespace, name, {"metadata": {"name": name, "namespace": namespace}})
    keys = [(stored.namespace, stored.name) for stored in store.list("configmaps")]
    assert keys == [("a", "x"), ("a", "y"), ("ab", "z"), ("b", "x")]
    assert [stored.name for stored in store.list("configmaps", "a")] == ["x", "y"]


async def test_a_file_of_the_first_schema_is_migrated(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "kube.db")) as old:
        old.executescript(MIGRATIONS[0])
        old.execute("INSERT INTO object VALUES ('configmaps', 'n', 'a', 7, ?)", (b'{"metadata":{"name":"a"}}',))
        old.execute("UPDATE revision SET value = 9")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    store = Store(tmp_path / "kube.db", tmp_path / "secrets.key")
    store.open()
    (found,) = store.list("configmaps")
    assert (found.name, found.revision, store.revision) == ("a", 7, 9)
    store.close()


async def test_secrets_are_sealed_on_disk(store: Store, tmp_path: Path) -> None:
    await store.create("secrets", "n", "s", obj("s", data={"password": "aHVudGVyMg=="}))
    await store.create("configmaps", "n", "c", obj("c", data={"seen": "in-the-open"}))
    raw = b"".join(file.read_bytes() for file in tmp_path.glob("kube.db*"))
    assert b"in-the-open" in raw
    assert b"aHVudGVyMg" not in raw
    assert b"password" not in raw
    assert (tmp_path / "secrets.key").stat().st_mode & 0o077 == 0
