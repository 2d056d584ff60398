"""The usage records: from the start of a group's first pull to its stop, by the second, by the requested resources.

A row is written at the start and at the stop. In between, a heartbeat updates it, so that a crash is billed up to the last
heartbeat. A group that resumes continues its row.
"""

from __future__ import annotations

import asyncio
import math
from typing import Literal

import msgspec

from cumulet.common import clock
from cumulet.instances.model.amounts import billed
from cumulet.instances.model.regions import sheet
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.store.store import Store

_HEARTBEAT = 10.0


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


class Meter:
    """Writes and reads the usage records."""

    def __init__(self, store: Store, region: str) -> None:
        self._database = store.database
        self._currency = sheet().currency
        self._region = sheet().region(region)
        self._running: set[str] = set()

    async def start(self, group: GroupRecord) -> None:
        """Start a group's record, or continue it."""
        self._running.add(group.uid)
        cpu, memory = billed(group.properties)
        now = clock.rfc3339_micro()
        parts = group.id.split("/")
        await self._database.execute(
            "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (uid) DO UPDATE SET heard = excluded.heard",
            (
                group.uid,
                parts[-1],
                parts[4],
                msgspec.json.encode(group.tags),
                cpu,
                memory,
                group.properties.priority == "Spot",
                now,
                now,
            ),
        )

    async def stop(self, uid: str) -> None:
        """Record the stop of a group; a second call has no effect."""
        self._running.discard(uid)
        now = clock.rfc3339_micro()
        await self._database.execute("UPDATE usage SET stopped = ? WHERE uid = ? AND stopped IS NULL", (now, uid))

    async def run(self) -> None:
        """Write heartbeats until cancelled."""
        while True:
            await asyncio.sleep(_HEARTBEAT)
            for uid in [*self._running]:
                await self._database.execute(
                    "UPDATE usage SET heard = ? WHERE uid = ? AND stopped IS NULL", (clock.rfc3339_micro(), uid)
                )

    def rows(self) -> list[UsageRow]:
        """Return a row for every group that was ever billed, the oldest first."""
        return [self._row(*row) for row in self._database.read("SELECT * FROM usage ORDER BY started")]

    def _row(
        self,
        uid: str,
        name: str,
        resource_group: str,
        tags: bytes,
        vcpu: float,
        gb: float,
        spot: int,
        started: str,
        heartbeat: str,
        stopped: str | None,
    ) -> UsageRow:
        end = stopped or (clock.rfc3339_micro() if uid in self._running else heartbeat)
        seconds = max(1, math.ceil((clock.parse(end) - clock.parse(started)).total_seconds()))
        price = self._region.spot if spot else self._region.regular
        cost = seconds / 3600 * (vcpu * price.vcpu_hour + gb * price.gb_hour)
        return UsageRow(
            name=name,
            seconds=seconds,
            vcpu_seconds=round(seconds * vcpu, 2),
            gb_seconds=round(seconds * gb, 2),
            cost=f"{cost:.6f}",
            currency=self._currency,
            state="stopped" if stopped else "running" if uid in self._running else "interrupted",
            start=clock.rfc3339(clock.parse(started)),
            end=clock.rfc3339(clock.parse(end)),
            resource_group=resource_group,
            tags=msgspec.json.decode(tags),
        )
