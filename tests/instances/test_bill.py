"""The bill of a group across restarts and crashes of the room, and while nothing runs."""

from __future__ import annotations

from typing import Any

from cumulet.common import clock
from cumulet.instances.cleanup import cleanup
from tests.instances.door import FrontDoor, RoomProcess, group, is_running, shell

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
    await door.until("billed", is_running)
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
