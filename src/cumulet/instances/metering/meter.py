"""The usage records: from the start of a group's first pull to its stop, by the second, by the requested resources.

A row is a period in which a group had its resources: it starts with a pull and ends with the group's stop. A group that is
stopped and started again gets another row, and so does one whose requests change. A restart of the containers or of the
room continues the row. A heartbeat updates open rows, so that a crash of the machine is billed up to the last one.
`cumulet down` records when it ended the containers. Rows are deleted 400 days after their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from cumulet.common import clock
from cumulet.instances.metering.ending import ended_file
from cumulet.instances.model.amounts import billed
from cumulet.instances.model.regions import Region, sheet
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.store.store import Store

_HEARTBEAT = 10.0
#: How long rows are kept after their end, so that a year can be compared with the one before, and the most rows.
_KEPT = timedelta(days=400)
_MOST = 1_000_000
#: Seconds between two deletions of old rows.
_PRUNING = 3600.0
_COLUMNS = "uid, name, resource_group, tags, labels, vcpu, gb, spot, started, heard, stopped"


class UsageRow(msgspec.Struct, frozen=True, rename="camel"):
    """The usage of a group. `cost` is decimal, in `currency`; `start` and `end` are RFC 3339 times."""

    name: str
    seconds: int
    vcpu_seconds: float
    gb_seconds: float
    cost: str
    currency: str
    state: Literal["running", "stopped", "interrupted"]
    start: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    resource_group: str
    tags: dict[str, str]
    labels: dict[str, str]


class Period(NamedTuple):
    """The part of the usage that is asked for, without ends if they are `None`; `daily` splits rows at midnight, UTC."""

    since: datetime | None = None
    until: datetime | None = None
    daily: bool = False

    def parts(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield the parts of a row, in order, as start and end."""
        at, last = max(start, self.since or start), min(end, self.until or end)
        while at < last:
            midnight = datetime.combine(at.astimezone(UTC) + timedelta(days=1), datetime.min.time(), UTC)
            until = min(midnight, last) if self.daily else last
            yield at, until
            at = until


class Meter:
    """Writes and reads the usage records; `folder` is the room's."""

    def __init__(self, store: Store, folder: Path, region: str) -> None:
        self._database = store.database
        self._ended = ended_file(folder)
        self._currency = sheet().currency
        self._region = sheet().region(region)
        self._running: set[str] = set()

    async def open(self, groups: set[str]) -> None:
        """End the rows that `cumulet down` or a crash interrupted: all but those of `groups`, whose sandboxes are there."""
        ended = self._ended.read_text() if self._ended.exists() else ""

        def close_rows(connection: sqlite3.Connection) -> None:
            for uid, heard in connection.execute("SELECT uid, heard FROM usage WHERE stopped IS NULL").fetchall():
                if uid not in groups:
                    values = (max(heard, ended), uid)
                    connection.execute("UPDATE usage SET stopped = ? WHERE uid = ? AND stopped IS NULL", values)

        await self._database.write(close_rows)
        self._ended.unlink(missing_ok=True)

    async def close(self) -> None:
        """Write a last heartbeat, because this process ends."""
        await self._beat()

    async def start(self, group: GroupRecord) -> None:
        """Start a row for a group, or continue the one that is open if the group's requests are the same.

        A group on a virtual machine has none: the machine is billed.
        """
        if group.properties.virtual_machine is not None:
            return
        cpu, memory = billed(group.properties)
        parts = group.id.split("/")
        key = (cpu, memory, group.properties.priority == "Spot")
        tags, labels = msgspec.json.encode(group.tags), msgspec.json.encode(group.properties.labels)
        now = clock.rfc3339_micro()

        def begin(connection: sqlite3.Connection) -> None:
            found = connection.execute(
                "SELECT vcpu, gb, spot FROM usage WHERE uid = ? AND stopped IS NULL", (group.uid,)
            ).fetchone()
            if found == key:
                connection.execute("UPDATE usage SET heard = ? WHERE uid = ? AND stopped IS NULL", (now, group.uid))
                return
            if found is not None:
                connection.execute("UPDATE usage SET stopped = ? WHERE uid = ? AND stopped IS NULL", (now, group.uid))
            connection.execute(
                f"INSERT INTO usage ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",  # noqa: S608  (fixed text)
                (group.uid, parts[-1], parts[4], tags, labels, *key, now, now),
            )

        self._running.add(group.uid)
        await self._database.write(begin)

    async def stop(self, uid: str, at: str | None = None) -> None:
        """End a group's row, by default now; without an open row it has no effect."""
        self._running.discard(uid)
        await self._database.execute(
            "UPDATE usage SET stopped = max(started, ?) WHERE uid = ? AND stopped IS NULL",
            (at or clock.rfc3339_micro(), uid),
        )

    async def run(self) -> None:
        """Write heartbeats, and delete old rows, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # A full disk ends no heartbeat: the next one covers the time since.
            with contextlib.suppress(sqlite3.OperationalError):
                if loop.time() >= due:
                    due = loop.time() + _PRUNING
                    await self.prune()
                await asyncio.sleep(_HEARTBEAT)
                await self._beat()

    async def prune(self, most: int = _MOST) -> None:
        """Delete the rows that ended 400 days ago, and the oldest of those that ended where there are more than `most`."""
        before = clock.rfc3339_micro(clock.now() - _KEPT)

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM usage WHERE stopped < ?", (before,))
            (count,) = connection.execute("SELECT count(*) FROM usage").fetchone()
            if count > most:
                oldest = "SELECT uid, started FROM usage WHERE stopped IS NOT NULL ORDER BY stopped LIMIT ?"
                connection.execute(f"DELETE FROM usage WHERE (uid, started) IN ({oldest})", (count - most,))  # noqa: S608

        await self._database.write(delete)

    async def _beat(self) -> None:
        now, running = clock.rfc3339_micro(), [*self._running]

        def beat(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE usage SET heard = ? WHERE uid = ? AND stopped IS NULL", [(now, uid) for uid in running]
            )

        await self._database.write(beat)

    def rows(self, period: Period) -> list[UsageRow]:
        """Return the usage in a period, the oldest first."""
        since = clock.rfc3339_micro(period.since) if period.since else ""
        until = clock.rfc3339_micro(period.until) if period.until else "~"
        found = self._database.read(
            f"SELECT {_COLUMNS} FROM usage WHERE (stopped IS NULL OR stopped >= ?) AND started < ? ORDER BY started",  # noqa: S608
            (since, until),
        )
        return [part for row in found for part in self._parts(period, _Row(*row))]

    def _parts(self, period: Period, row: _Row) -> Iterator[UsageRow]:
        running = row.stopped is None and row.uid in self._running
        start = clock.parse(row.started)
        end = clock.now() if running else clock.parse(row.stopped or row.heard)
        # A row has at least a second. Parts of a row are rounded so that their sum is that of the row.
        end = max(end, start + timedelta(microseconds=1))
        for since, until in period.parts(start, end):
            seconds = math.ceil((until - start).total_seconds()) - math.ceil((since - start).total_seconds())
            yield UsageRow(
                name=row.name,
                seconds=seconds,
                vcpu_seconds=round(seconds * row.vcpu, 2),
                gb_seconds=round(seconds * row.gb, 2),
                cost=f"{_cost(self._region, seconds, row):.6f}",
                currency=self._currency,
                state="stopped" if row.stopped else "running" if running else "interrupted",
                start=clock.rfc3339(since),
                end=clock.rfc3339(until),
                resource_group=row.resource_group,
                tags=msgspec.json.decode(row.tags),
                labels=msgspec.json.decode(row.labels),
            )


class _Row(NamedTuple):
    """A row of the table; times are RFC 3339 in microseconds, so that their order as texts is their order in time."""

    uid: str
    name: str
    resource_group: str
    tags: bytes
    labels: bytes
    vcpu: float
    gb: float
    spot: int
    started: str
    heard: str
    stopped: str | None


def _cost(region: Region, seconds: int, row: _Row) -> float:
    price = region.spot if row.spot else region.regular
    return seconds / 3600 * (row.vcpu * price.vcpu_hour + row.gb * price.gb_hour)
