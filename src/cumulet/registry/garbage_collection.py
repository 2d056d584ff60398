"""Garbage collection beside running pushes: expired uploads and manifests, and the blobs that nothing names any more.

Repository by repository: what is garbage is found in a transaction that is rolled back; what running pushes count on
(`running_pushes`) is left out; and the rest is condemned, so that nobody is told any more that it is there, and removed in a
second transaction that looks again. What a push does in between either comes before that transaction, which then sees
a manifest that names the blob and keeps it, or after it, and is told that the blob is missing, and uploads it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from datetime import timedelta

import msgspec

from cumulet.common import clock
from cumulet.common.config import RegistryLimits
from cumulet.common.digests import Digest
from cumulet.common.tasks import wait_for
from cumulet.registry.catalog import garbage
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.garbage import Garbage
from cumulet.registry.catalog.running_pushes import Place, RunningPushes
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.distribution.upload_sessions import Sessions

log = logging.getLogger(__name__)


class Report(msgspec.Struct, rename="camel"):
    """What a collection removed, or without `dry_run` would have.

    `untagged_manifests` went by the retention policy, `deleted_manifests` had been soft-deleted, and `recent_blobs` are
    garbage that is left for now, since a push may count on it.
    """

    dry_run: bool
    uploads: int = 0
    untagged_manifests: int = 0
    deleted_manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    recent_blobs: int = 0


class Collector:
    """Collects now and then, and when asked; one collection at a time."""

    def __init__(
        self, catalog: Catalog, links: Links, sessions: Sessions, pushes: RunningPushes, limits: RegistryLimits
    ) -> None:
        self._catalog = catalog
        self._links = links
        self._sessions = sessions
        self._pushes = pushes
        self._limits = limits
        self._turn = asyncio.Lock()
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Let a collection begin soon."""
        self._asked.set()

    async def run(self) -> None:
        """Collect at intervals, and when asked, until cancelled."""
        while True:
            await wait_for(self._asked, self._limits.collection_interval)
            self._asked.clear()
            report = await self.collect()
            log.info("collected", extra=msgspec.structs.asdict(report))

    async def collect(self, registry: Registry | None = None, *, dry_run: bool = False) -> Report:
        """Collect in one registry or in all, or only see what there is to collect."""
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
        found = await self._find(place, policies, self._pushes.counted_on(place))
        # From here to the block no other code runs, so what is chosen is what no push counts on by then.
        counted_on = self._pushes.counted_on(place)
        blobs = {digest for digest in found.blobs if self._pushes.may_go(place, digest)}
        chosen = found._replace(blobs=blobs, untagged=set() if counted_on is None else found.untagged - counted_on)
        report.recent_blobs += len(found.blobs) - len(blobs)
        if not report.dry_run:
            with self._pushes.condemned((place, digest) for digest in (*chosen.untagged, *chosen.blobs)):
                chosen = await self._catalog.database.write(
                    lambda c: garbage.remove(c, place, policies, counted_on, chosen)
                )
        report.untagged_manifests += len(chosen.untagged)
        report.deleted_manifests += len(chosen.deleted)
        return Counter(chosen.blobs)

    async def _find(self, place: Place, policies: garbage.Policies, counted_on: set[str] | None) -> Garbage:
        def job(connection: sqlite3.Connection) -> None:
            raise _Found(garbage.sweep(connection, place, policies, counted_on))

        try:
            await self._catalog.database.write(job)
        except _Found as found:
            return found.garbage
        raise AssertionError("a search was not undone")

    async def _collect_blobs(self, unlinked: Counter[Digest], report: Report, *, orphans: bool) -> None:
        if not report.dry_run:
            digests = set(unlinked)
            if orphans:
                digests |= set(await self._links.orphans())
            report.blobs, report.bytes = await self._links.remove_unlinked(digests)
            return
        gone = {digest for digest, count in unlinked.items() if self._catalog.link_count(digest) == count}
        if orphans:
            gone |= set(await self._links.orphans())
        report.blobs, report.bytes = len(gone), await self._links.stored_size(gone)


class _Found(Exception):  # noqa: N818  (it undoes the transaction of a search and carries out what was found)
    def __init__(self, found: Garbage) -> None:
        super().__init__()
        self.garbage = found


def _days_ago(days: int) -> str:
    return clock.rfc3339_micro(clock.now() - timedelta(days=days))
