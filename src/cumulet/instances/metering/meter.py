"""The bill: from the start of a group's first pull to its stop, by the second, on what the group asked for.

A row is written when that begins and when it ends. In between the time is noted now and then, so that a crash is
billed to the last time that the group was seen, and a group that is seen again goes on in the row that it had.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec

from cumulet.common import clock
from cumulet.instances.model.amounts import billed
from cumulet.instances.model.regions import sheet
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.store.store import Store

_HEARTBEAT = 10.0


class Meter:
    """Writes and reads the ledger."""

    def __init__(self, store: Store, region: str) -> None:
        self._database = store.database
        self._currency = sheet().currency
        self._region = sheet().region(region)
        self._running: set[str] = set()

    async def start(self, group: GroupRecord) -> None:
        """The first pull of a group begins; one that is billed already goes on."""
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
        """A group has stopped; a second word of it changes nothing."""
        self._running.discard(uid)
        now = clock.rfc3339_micro()
        await self._database.execute("UPDATE usage SET stopped = ? WHERE uid = ? AND stopped IS NULL", (now, uid))

    async def run(self) -> None:
        """Note the time, until cancelled."""
        while True:
            await asyncio.sleep(_HEARTBEAT)
            for uid in [*self._running]:
                await self._database.execute(
                    "UPDATE usage SET heard = ? WHERE uid = ? AND stopped IS NULL", (clock.rfc3339_micro(), uid)
                )

    def rows(self) -> list[dict[str, Any]]:
        """Every group that was ever billed, the oldest first."""
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
        heard: str,
        stopped: str | None,
    ) -> dict[str, Any]:
        end = stopped or (clock.rfc3339_micro() if uid in self._running else heard)
        seconds = max(1, math.ceil((clock.parse(end) - clock.parse(started)).total_seconds()))
        price = self._region.spot if spot else self._region.regular
        cost = seconds / 3600 * (vcpu * price.vcpu_hour + gb * price.gb_hour)
        return {
            "name": name,
            "seconds": seconds,
            "vcpuSeconds": round(seconds * vcpu, 2),
            "gbSeconds": round(seconds * gb, 2),
            "cost": f"{cost:.6f}",
            "currency": self._currency,
            "state": "stopped" if stopped else "running" if uid in self._running else "interrupted",
            "from": clock.rfc3339(clock.parse(started)),
            "to": clock.rfc3339(clock.parse(end)),
            "resourceGroup": resource_group,
            "tags": msgspec.json.decode(tags),
        }
