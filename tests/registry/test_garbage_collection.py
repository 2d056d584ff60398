"""Garbage collection during pushes: garbage is removed, and blobs that a running push depends on stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from cumulet.common import clock
from cumulet.common.digests import Digest
from cumulet.common.limits import RegistryLimits
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.locks import AttributeChanges
from cumulet.registry.catalog.records import Manifest, MissingPartsError, Parts, Policy, Registry, Resource
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.filesystem import FileContent
from cumulet.registry.content.store import Part
from cumulet.registry.distribution.upload_sessions import Sessions
from cumulet.registry.garbage_collection import Collector, Report
from tests.registry.client import IMAGE, digest_of

T = TypeVar("T")

GRACE = 100.0
PLACE = ("r", "repo")


class World:
    """The catalog, content and collector of a registry, with a clock that the test sets."""

    def __init__(self, root: Path, **resource: Any) -> None:
        self.root = root
        self.now = 0.0
        self.catalog = Catalog(root / "registry.db")
        self.catalog.open()
        self.registry = Registry("r", "/r", "r", Resource(location="here", **resource), clock.rfc3339_micro())
        self.start()

    def start(self) -> None:
        """Create the state of a new process."""
        self.content = FileContent(self.root)
        self.pushes = RunningPushes(GRACE, lambda: self.now)
        self.links = Links(self.catalog, self.content, self.pushes)
        self.sessions = Sessions(self.catalog, self.content)
        self.collector = Collector(self.catalog, self.links, self.sessions, self.pushes, RegistryLimits())

    def age(self, graces: float = 2) -> None:
        """Advance the clock."""
        self.now += graces * GRACE

    async def push_blob(self, name: str) -> Digest:
        digest = digest_of(name.encode())
        session = await self.content.start()

        async def body() -> AsyncIterator[bytes]:
            yield name.encode()

        await self.content.append(session, Part(body()), "sha256")
        await self.links.commit(session, *PLACE, digest)
        return digest

    async def push_manifest(self, name: str, parts: list[Digest], *tags: str, subject: str | None = None) -> Digest:
        digest = digest_of(f"manifest {name}".encode())
        await self.pushes.claim(PLACE, digest)
        manifest = Manifest(digest, IMAGE, name.encode(), subject, None, None, clock.rfc3339_micro())
        await self.catalog.put_manifest(*PLACE, manifest, Parts(tuple(parts), tuple(parts)), tags)
        return digest

    async def backdate(self, days: int) -> None:
        """Move the times of all untagged and soft-deleted manifests into the past."""
        for column in ("untagged", "deleted"):
            rows = self.catalog.database.read(f"SELECT {column}, digest FROM manifest WHERE {column} IS NOT NULL")
            for moment, digest in rows:
                earlier = clock.rfc3339_micro(clock.parse(moment) - timedelta(days=days))
                await self.catalog.database.execute(
                    f"UPDATE manifest SET {column} = ? WHERE digest = ?", (earlier, digest)
                )

    def has(self, digest: Digest) -> bool:
        """Whether the repository has a blob with its bytes."""
        linked = self.catalog.blob(*PLACE, digest) is not None
        assert linked == self.content.path(digest).exists()
        return linked

    def manifests(self) -> set[str]:
        return {manifest.digest for manifest in self.catalog.manifests(*PLACE)}


@contextlib.asynccontextmanager
async def world(root: Path, **resource: Any) -> AsyncIterator[World]:
    made = World(root, **resource)
    await made.catalog.put_registry(made.registry)
    try:
        yield made
    finally:
        made.catalog.close()


async def test_an_unreferenced_blob_is_removed(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        lone, used = await here.push_blob("lone"), await here.push_blob("used")
        await here.push_manifest("m", [used], "v1")
        report = await here.collector.collect()
        assert (report.blobs, report.recent_blobs) == (0, 1)
        here.age()
        foreseen = await here.collector.collect(dry_run=True)
        assert here.has(lone)
        report = await here.collector.collect()
        assert report == Report(False, blobs=1, bytes=4)
        assert foreseen == Report(True, blobs=1, bytes=4)
        assert not here.has(lone)
        assert here.has(used)


async def test_a_shared_blob_is_removed_with_its_last_link(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        blob = await here.push_blob("shared")
        assert await here.links.mount("r", "repo", "other", blob)
        here.age()
        assert (await here.collector.collect(dry_run=True)).blobs == 1
        await here.links.unlink("r", "other", blob)
        assert here.has(blob)
        assert (await here.collector.collect()).blobs == 1
        assert not here.has(blob)
        assert here.catalog.all_repositories("r") == []


async def test_a_collection_without_garbage_writes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, retention=Policy(True, 7)) as here:
        await here.push_manifest("m", [await here.push_blob("used")], "v1")
        here.age()
        before = here.catalog.database.commits
        assert await here.collector.collect() == Report(False)
        assert here.catalog.database.commits == before


async def test_bytes_without_a_link_are_removed(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        used = await here.push_blob("used")
        await here.push_manifest("m", [used], "v1")
        orphan = here.content.path(digest_of(b"orphan"))
        orphan.write_bytes(b"orphan")
        assert (await here.collector.collect(dry_run=True)).blobs == 1
        assert orphan.exists()
        assert (await here.collector.collect()).bytes == 6
        assert not orphan.exists()
        assert here.has(used)


async def test_an_idle_upload_is_removed(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        idle, busy, recent = [(await here.sessions.begin(*PLACE, "me", "sha256")).session for _ in range(3)]
        for session in (idle, busy):
            os.utime(here.root / "uploads" / session, (0, 0))
        async with here.sessions.lock(busy):
            assert (await here.collector.collect(dry_run=True)).uploads == 1
            assert here.catalog.upload(idle) is not None
            assert (await here.collector.collect()).uploads == 1
        assert {s async for s, _ in here.content.uploads()} == {busy, recent}
        assert here.catalog.upload(idle) is None


async def test_a_long_push_keeps_the_blobs_reported_at_its_start(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        base = await here.push_blob("base")
        here.age()
        with here.pushes.request(PLACE, "me"):
            assert here.links.find(*PLACE, base) is not None
        for _ in range(5):
            here.age(0.9)
            with here.pushes.request(PLACE, "me"):
                await here.collector.collect()
            assert here.has(base)
        with here.pushes.request(PLACE, "me"):  # a single long request
            here.age(7)
            await here.collector.collect()
            assert here.has(base)
        await here.push_manifest("m", [base], "v1")
        here.age(9)
        await here.collector.collect()
        assert here.has(base)


async def test_a_silent_push_keeps_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.age()
        with here.pushes.request(PLACE, "me"):
            base = await here.push_blob("base")
        here.age(1.1)
        with here.pushes.request(PLACE, "somebody else"):
            await here.collector.collect()
        assert not here.has(base)


async def test_a_push_continues_over_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.age()
        with here.pushes.request(PLACE, "me"):
            base = await here.push_blob("base")
        here.start()
        for _ in range(5):
            here.age(0.9)
            with here.pushes.request(PLACE, "me"):
                await here.collector.collect()
            assert here.has(base)


# Manifests.


async def test_retention_removes_only_unreachable_manifests(tmp_path: Path) -> None:
    async with world(tmp_path, retention=Policy(True, 7)) as here:
        blob = await here.push_blob("blob")
        kept = {
            "tagged": await here.push_manifest("tagged", [blob], "v1"),
            "child": (child := await here.push_manifest("child", [blob])),
            "inner": (inner := await here.push_manifest("inner", [child])),
            "outer": await here.push_manifest("outer", [inner], "index"),
            "signature": (signature := await here.push_manifest("signature", [], subject=child)),
            "countersignature": await here.push_manifest("countersignature", [], subject=signature),
            "locked": await here.push_manifest("locked", [blob]),
        }
        await here.catalog.change_attributes(*PLACE, kept["locked"], AttributeChanges(delete_enabled=False))
        gone_index = await here.push_manifest("gone index", [await here.push_manifest("gone child", [blob])])
        await here.push_manifest("gone signature", [], subject=gone_index)
        await here.push_manifest("subject that never was", [], subject=digest_of(b"?"))
        here.age()
        assert (await here.collector.collect()).untagged_manifests == 0  # too recent
        await here.backdate(8)
        kept["recent"] = await here.push_manifest("recent", [blob])
        assert (await here.collector.collect(dry_run=True)).untagged_manifests == 4
        assert (await here.collector.collect()).untagged_manifests == 4
        assert here.manifests() == set(kept.values())
        await here.catalog.remove_tag(*PLACE, "index")
        await here.backdate(8)
        assert (await here.collector.collect()).untagged_manifests == 5
        assert here.manifests() == {kept["tagged"], kept["locked"], kept["recent"]}


async def test_retention_keeps_manifests_reported_to_a_push(tmp_path: Path) -> None:
    async with world(tmp_path, retention=Policy(True, 0)) as here:
        here.age()
        with here.pushes.request(PLACE, "me"):
            child = await here.push_manifest("child", [])
        await here.collector.collect()
        assert here.manifests() == {child}
        index = await here.push_manifest("index", [child], "v1")
        here.age()
        await here.collector.collect()
        assert here.manifests() == {child, index}


async def test_a_soft_deleted_manifest_keeps_its_blobs_until_it_is_purged(tmp_path: Path) -> None:
    async with world(tmp_path, soft_delete=Policy(True, 7)) as here:
        blob = await here.push_blob("blob")
        digest = await here.push_manifest("m", [blob], "v1")
        assert await here.catalog.remove_manifest(*PLACE, digest)
        here.age()
        assert await here.collector.collect() == Report(False)
        assert await here.catalog.restore_manifest(*PLACE, digest)
        assert here.catalog.manifest(*PLACE, "v1") is not None
        assert here.has(blob)
        await here.catalog.remove_manifest(*PLACE, digest)
        await here.backdate(8)
        assert await here.collector.collect() == Report(False, deleted_manifests=1, blobs=1, bytes=4)
        assert not await here.catalog.restore_manifest(*PLACE, digest)
        assert here.catalog.all_repositories("r") == []
        assert here.catalog.usage("r") == 0


async def test_blobs_reported_during_a_collection_stay(tmp_path: Path) -> None:
    """Clients check blobs, upload missing ones and push, while the same blobs are collected repeatedly."""
    async with world(tmp_path) as here:
        done = asyncio.Event()

        async def client(number: int) -> None:
            digest = digest_of(b"contended")
            for turn in range(30):
                with here.pushes.request(PLACE, f"client {number}"):
                    if here.links.find(*PLACE, digest) is None:
                        await here.push_blob("contended")
                    await asyncio.sleep(0)
                    manifest = await here.push_manifest(f"{number} {turn}", [digest])
                await here.catalog.remove_manifest(*PLACE, manifest)

        async def collect() -> int:
            removed = 0
            while not done.is_set():
                here.age(1.1)  # no client is silent during a request
                removed += (await here.collector.collect()).blobs
            return removed

        collecting = asyncio.create_task(collect())
        await asyncio.gather(*(client(number) for number in range(3)))
        done.set()
        assert await collecting >= 0


class PushesAndCollections(RuleBasedStateMachine):
    """Clients that push step by step, with collections, pauses and restarts at any point."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.here = World(Path(mkdtemp(prefix="collection-")))
        self.run(self.here.catalog.put_registry(self.here.registry))
        self.clients: dict[str, tuple[list[Digest], float]] = {}
        self.pushed = 0
        self.manifests: list[str] = []

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(who=st.sampled_from("abc"), blob=st.sampled_from("xyz"))
    def ask_for_a_blob_and_push_it_where_it_is_missing(self, who: str, blob: str) -> None:
        digest = digest_of(blob.encode())
        with self.here.pushes.request(PLACE, who):
            if self.here.links.find(*PLACE, digest) is None:
                self.run(self.here.push_blob(blob))
        reported, last = self.clients.get(who, ([], self.here.now))
        if self.here.now - last > GRACE:  # which is another push
            reported = []
        self.clients[who] = ([*reported, digest], self.here.now)

    @rule(who=st.sampled_from("abc"))
    def push_the_manifest(self, who: str) -> None:
        reported, last = self.clients.pop(who, ([], self.here.now))
        self.pushed += 1
        with self.here.pushes.request(PLACE, who):
            try:
                self.manifests.append(self.run(self.here.push_manifest(str(self.pushed), reported)))
            except MissingPartsError:
                assert self.here.now - last > GRACE, "a push lost a blob that was reported to it"

    @rule()
    def delete_a_manifest(self) -> None:
        if self.manifests:
            self.run(self.here.catalog.remove_manifest(*PLACE, self.manifests.pop()))

    @rule(graces=st.sampled_from([0.3, 0.9, 1.5]))
    def wait(self, graces: float) -> None:
        self.here.age(graces)

    @rule(dry_run=st.booleans())
    def collect(self, dry_run: bool) -> None:
        self.run(self.here.collector.collect(dry_run=dry_run))

    @rule()
    def restart(self) -> None:
        self.here.start()

    def teardown(self) -> None:
        if not hasattr(self, "here"):
            return
        self.here.age(50)
        for manifest in self.manifests:
            self.run(self.here.catalog.remove_manifest(*PLACE, manifest))
        self.run(self.here.collector.collect())
        assert [d for d in "xyz" if self.here.has(digest_of(d.encode()))] == []
        self.here.catalog.close()
        self.loop.close()


PushesAndCollections.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
test_pushes_and_collections = PushesAndCollections.TestCase
