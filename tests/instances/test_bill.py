"""The bill of a group across restarts and crashes of the room, and while nothing runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from cumulet.common import clock
from cumulet.instances.cleanup import cleanup
from cumulet.instances.metering.meter import Meter, Period
from cumulet.instances.model.amounts import billed, total
from cumulet.instances.model.properties import (
    Amount,
    Container,
    ContainerProperties,
    GroupProperties,
    Resources,
)
from cumulet.instances.store.store import Store
from tests.instances.door import FrontDoor, RoomProcess, group, is_running, shell, state_of

DETAILS = "/providers/Microsoft.ContainerInstance/locations/eastus/usageDetails"


async def rows(door: FrontDoor, query: str = "") -> list[dict[str, Any]]:
    listed = await door.call("GET", f"{door.subscription}{DETAILS}{query}")
    return [item["properties"] for item in listed["value"] if item["properties"]["name"] == "billed"]


def length(row: dict[str, Any]) -> float:
    return (clock.parse(row["to"]) - clock.parse(row["from"])).total_seconds()


async def test_the_time_in_which_nothing_runs_is_not_billed(room: RoomProcess, door: FrontDoor) -> None:
    await door.call("PUT", "billed", group(shell("sleep 1000")))
    await door.until("billed", is_running)
    # A room that is killed bills on: its containers run.
    room.stop(kill=True)
    room.start()
    (row,) = await rows(door)
    assert row["state"] == "running"
    room.stop()
    cleanup(room.config)
    ended = clock.now()
    room.start()
    # The state of before is shown until the group is started again.
    await door.until("billed", lambda item: is_running(item) and clock.parse(state_of(item)["startTime"]) > ended)
    again = clock.now()
    first, second = await rows(door)
    assert (first["state"], second["state"]) == ("stopped", "running")
    assert 0 <= (ended - clock.parse(first["to"])).total_seconds() < 3
    assert clock.parse(first["to"]) < clock.parse(second["from"]) <= again
    assert abs(first["seconds"] - length(first)) <= 1
    # A period has a part of the bill.
    (part,) = await rows(door, f"?until={second['from']}&since={first['from']}")
    assert part["seconds"] == first["seconds"]
    assert [row["name"] for row in await rows(door, "?granularity=Daily")][:2] == ["billed"] * 2
    await door.call("GET", f"{door.subscription}{DETAILS}?since=yesterday", status=400)
    await door.call("DELETE", "billed?gracePeriodSeconds=0")
    assert [row["state"] for row in await rows(door)] == ["stopped", "stopped"]


def _container(name: str, cpu: float | None = None, **more: Any) -> Container:
    resources = Resources(requests=Amount(cpu=cpu, memory_in_gb=cpu))
    return Container(name=name, properties=ContainerProperties(image="x", resources=resources, **more))


def test_a_sidecar_is_billed_for_what_it_requests() -> None:
    inits = [
        _container("sidecar", 0.5, restart_policy="Always"),
        _container("modest", restart_policy="Always"),
        _container("first", 3.0),
    ]
    made = GroupProperties(containers=[_container("web", 1.0)], init_containers=inits)
    assert total(made) == (1.5, 1.5)
    assert billed(made) == (1.5, 1.5)


async def test_old_rows_are_deleted_and_their_number_is_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    try:
        meter = Meter(store, tmp_path, "eastus")
        insert = "INSERT INTO usage VALUES (?, ?, 'g', x'7b7d', x'7b7d', 1, 1, 0, ?, ?, ?)"
        for name, days in (("old", 500), ("month", 30), ("week", 7), ("now", None)):
            began = clock.rfc3339_micro(clock.now() - timedelta(days=600))
            ended = clock.rfc3339_micro(clock.now() - timedelta(days=days)) if days is not None else None
            await store.database.execute(insert, (name, name, began, began, ended))
        await meter.prune()
        assert {row.name for row in meter.rows(Period())} == {"month", "week", "now"}
        await meter.prune(most=1)
        assert {row.name for row in meter.rows(Period())} == {"now"}
    finally:
        store.close()
