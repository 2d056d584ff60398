"""Garbage collection during running pushes: expired uploads and manifests, and unreferenced blobs.

Each repository is collected in three steps:

1. Find the garbage in a transaction that is rolled back.
2. Leave out everything that running pushes depend on (`running_pushes`), and mark the rest as terminating, so that no
   client is told that it exists.
3. Check again and remove it in a second transaction.

A push that commits its manifest before the second transaction keeps the blobs of that manifest. A push that comes later
gets the answer that the blob is missing, and uploads it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from datetime import timedelta

import msgspec

from cumulet.common import clock
from cumulet.common.digests import Digest
from cumulet.common.limits import RegistryLimits
from cumulet.common.tasks import wait_for
from cumulet.registry.catalog import garbage
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.garbage import Garbage
from cumulet.registry.catalog.running_pushes import Place, RunningPushes
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.distribution.upload_sessions import Sessions

log = logging.getLogger(__name__)


class Report(msgspec.Struct, rename="camel"):
    """The counts of what a collection removed, or with `dry_run` would remove.

    `untagged_manifests` expired by the retention policy, and `deleted_manifests` were soft-deleted before. `recent_blobs`
    are garbage that is kept for now, because a push may depend on it. `bytes` is the size of the removed blobs.
    """

    dry_run: bool
    uploads: int = 0
    untagged_manifests: int = 0
    deleted_manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    recent_blobs: int = 0


class Collector:
    """Collects at intervals and on request, one collection at a time."""

    def __init__(
        self, catalog: Catalog, links: Links, sessions: Sessions, pushes: RunningPushes, limits: RegistryLimits
    ) -> None:
        self._catalog = catalog
        self._links = links
        self._sessions = sessions
        self._pushes = pushes
        self._limits = limits
        self._turn = asyncio.Lock()
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Start a collection soon."""
        self._requested.set()

    async def run(self) -> None:
        """Collect at intervals and on request, until cancelled."""
        while True:
            await wait_for(self._requested, self._limits.collection_interval)
            self._requested.clear()
            report = await self.collect()
            log.info("collected", extra=msgspec.structs.asdict(report))

    async def collect(self, registry: Registry | None = None, *, dry_run: bool = False) -> Report:
        """Collect in one registry, or in all without one. With `dry_run` only count the garbage."""
        async with self._turn:
            report = Report(dry_run)
            unlinked: Counter[Digest] = Counter()
            for each in [registry] if registry is not None else self._catalog.registries():
                for repository in self._catalog.all_repositories(each.key):
                    unlinked += await self._collect_repository(each, repository, report)
            if registry is None:
                report.uploads = await self._sessions.expire(self._limits.upload_idle, dry_run=dry_run)
            await self._collect_blobs(unlinked, report, orphans=registry is None)
            self._pushes.forget()
            return report

    async def _collect_repository(self, registry: Registry, repository: str, report: Report) -> Counter[Digest]:
        place: Place = (registry.key, repository)
        retention, soft_delete = registry.resource.retention, registry.resource.soft_delete
        policies = garbage.Policies(
            untagged_before=_days_ago(retention.days) if retention.enabled else "",
            deleted_before=_days_ago(soft_delete.days),
        )
        await asyncio.sleep(0)
        values = {"registry": place[0], "repository": place[1], **msgspec.structs.asdict(policies)}
        if self._catalog.database.read(garbage.MAYBE, values) == [(0,)]:
            return Counter()
        candidates = await self._find(place, policies, self._pushes.in_use(place))
        # No other code runs from here until the blobs are marked, so no push can start to depend on a chosen blob.
        in_use = self._pushes.in_use(place)
        blobs = {digest for digest in candidates.blobs if self._pushes.is_removable(place, digest)}
        chosen = candidates._replace(blobs=blobs, untagged=set() if in_use is None else candidates.untagged - in_use)
        report.recent_blobs += len(candidates.blobs) - len(blobs)
        if not report.dry_run:
            with self._pushes.terminating((place, digest) for digest in (*chosen.untagged, *chosen.blobs)):
                chosen = await self._catalog.database.write(
                    lambda c: garbage.remove(c, place, policies, in_use, chosen)
                )
        report.untagged_manifests += len(chosen.untagged)
        report.deleted_manifests += len(chosen.deleted)
        return Counter(chosen.blobs)

    async def _find(self, place: Place, policies: garbage.Policies, in_use: set[str] | None) -> Garbage:
        def job(connection: sqlite3.Connection) -> None:
            raise _RollBack(garbage.sweep(connection, place, policies, in_use))

        try:
            await self._catalog.database.write(job)
        except _RollBack as result:
            return result.garbage
        raise AssertionError("the transaction of a search was not rolled back")

    async def _collect_blobs(self, unlinked: Counter[Digest], report: Report, *, orphans: bool) -> None:
        if not report.dry_run:
            digests = set(unlinked)
            if orphans:
                digests |= set(await self._links.orphans())
            report.blobs, report.bytes = await self._links.remove_unlinked(digests)
            return
        removable = {digest for digest, count in unlinked.items() if self._catalog.link_count(digest) == count}
        if orphans:
            removable |= set(await self._links.orphans())
        report.blobs, report.bytes = len(removable), await self._links.stored_size(removable)


class _RollBack(Exception):  # noqa: N818  (not an error: it rolls a search back and carries its result out)
    def __init__(self, garbage: Garbage) -> None:
        super().__init__()
        self.garbage = garbage


def _days_ago(days: int) -> str:
    return clock.rfc3339_micro(clock.now() - timedelta(days=days))
