"""Groups that come and go leave nothing in the kernel, on disk and in the room."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.instances.door import FrontDoor, RoomProcess, group, is_over, is_running, shell
from tests.instances.remains import remains

VOLUMES: list[dict[str, Any]] = [
    {"name": "disk", "emptyDir": {}},
    {"name": "memory", "emptyDir": {"medium": "Memory"}},
    {"name": "secret", "secret": {"key": "eA=="}},
]
MOUNTS = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in VOLUMES]


async def come_and_go(door: FrontDoor, round_: int, number: int) -> None:
    """Make groups of each kind, wait for what becomes of them, and delete them."""
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    kinds: dict[str, dict[str, Any]] = {
        "runs": group(shell("sleep 1000 & wait", livenessProbe=probe, volumeMounts=MOUNTS), volumes=VOLUMES),
        "ends": group(shell("exit 1", volumeMounts=MOUNTS), restartPolicy="Never", volumes=VOLUMES),
        "shares": group(shell("sleep 1000 & wait"), shell("sleep 1000 & wait", "b"), shareProcessNamespace=True),
        "at once": group(shell("sleep 1000 & wait")),
    }
    expected = {"runs": is_running, "ends": is_over, "shares": is_running}

    async def one(kind: str, index: int) -> None:
        name = f"{kind.replace(' ', '-')}-{round_}-{index}"
        await door.call("PUT", name, kinds[kind])
        if kind in expected:
            await door.until(name, expected[kind])
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")

    await asyncio.gather(*(one([*kinds][index % len(kinds)], index) for index in range(number)))


async def test_groups_that_come_and_go_leave_nothing(door: FrontDoor, room: RoomProcess) -> None:
    await come_and_go(door, 0, 4)  # what the room makes once, such as the layers of the image
    before = remains(room.config, room.pid())
    await come_and_go(door, 1, 8)
    after = remains(room.config, room.pid())
    # The client's connections and the children's pipes come and go with the number of requests at a time.
    for what in ("socket", "pipe"):
        del before["descriptors"][what], after["descriptors"][what]
    left = {kind: more for kind, found in after.items() if (more := found - before[kind])}
    assert not left
