"""The contract of the store: what is acknowledged is on disk, one order of all changes, a bounded history and file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cumulet.kube.store import ConflictError, Event, GoneError, Store


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


async def test_the_past_is_kept_for_a_while(store: Store) -> None:
    made = await store.create("configmaps", "n", "a", obj("a"))
    then = store.revision
    for number in range(5000):
        made = await store.update("configmaps", made, obj("a", data={"x": str(number)}))
        if number == 100:
            (past,) = store.list_at("configmaps", "n", then)
            assert "data" not in past.load()
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
    # The files as they are at this moment, with nothing closed: what a kill would leave.
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


async def test_the_file_does_not_grow_with_the_number_of_changes(store: Store, tmp_path: Path) -> None:
    made = [await store.create("configmaps", "n", f"a{number}", obj(f"a{number}")) for number in range(10)]

    async def change(index: int) -> None:
        for number in range(500):
            made[index] = await store.update(
                "configmaps", made[index], obj(f"a{index}", data={"x": "y" * 1000, "n": str(number)})
            )

    await asyncio.gather(*(change(index) for index in range(10)))
    assert sum(file.stat().st_size for file in tmp_path.glob("kube.db*")) < 24 * 2**20


async def test_secrets_are_sealed_on_disk(store: Store, tmp_path: Path) -> None:
    await store.create("secrets", "n", "s", obj("s", data={"password": "aHVudGVyMg=="}))
    await store.create("configmaps", "n", "c", obj("c", data={"seen": "in-the-open"}))
    raw = b"".join(file.read_bytes() for file in tmp_path.glob("kube.db*"))
    assert b"in-the-open" in raw
    assert b"aHVudGVyMg" not in raw
    assert b"password" not in raw
    assert (tmp_path / "secrets.key").stat().st_mode & 0o077 == 0
