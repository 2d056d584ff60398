"""Managed disks: what is on one outlives its groups, one machine attaches it at a time, and it belongs to the pod's group."""

from __future__ import annotations

from typing import Any

import pytest

from tests.instances.door import FrontDoor, group, is_over, is_running, shell


def disk_path(door: FrontDoor, name: str) -> str:
    """The path of a disk."""
    return f"{door.subscription}/resourceGroups/rg1/providers/Microsoft.Compute/disks/{name}"


def body(gigabytes: Any = 4, **properties: Any) -> dict[str, Any]:
    """A new disk."""
    known = {"creationData": {"createOption": "Empty"}, "diskSizeGB": gigabytes}
    return {"location": "eastus", "sku": {"name": "StandardSSD_LRS"}, "properties": known | properties}


def with_disk(disk: str, script: str, machine: str | None = "vm-1", **more: Any) -> dict[str, Any]:
    """A group on a machine, with a disk at `/data`."""
    mounts = [{"name": "data", "mountPath": "/data"}]
    # Ready is what has written its link.
    probe = {"exec": {"command": ["sh", "-c", "test -L /data/link"]}, "periodSeconds": 1}
    made = group(shell(script, volumeMounts=mounts, readinessProbe=probe), restartPolicy="Never", **more)
    made["properties"]["volumes"] = [{"name": "data", "azureDisk": {"diskURI": disk}}]
    if machine is not None:
        made["properties"]["virtualMachine"] = machine
    return made


def _is_ready(found: dict[str, Any]) -> bool:
    return bool(found["properties"]["containers"][0]["properties"]["instanceView"].get("ready"))


async def test_what_is_on_a_disk_outlives_its_groups(door: FrontDoor) -> None:
    disk = disk_path(door, "pvc-1")
    made = await door.call("PUT", disk, body(), status=201)
    assert made["properties"]["diskState"] == "Unattached"
    write = "id; echo kept > /data/file && chmod 600 /data/file && ln -s /etc/passwd /data/link; sleep 1000"
    await door.call("PUT", "first", with_disk(disk.upper(), write), status=201)
    await door.until("first", lambda found: is_running(found) and _is_ready(found))
    shown = await door.call("GET", disk)
    assert (shown["managedBy"], shown["properties"]["diskState"]) == ("vm-1", "Attached")
    refused = await door.call("DELETE", disk, status=409)
    assert refused["error"]["message"] == "Disk pvc-1 is attached to VM vm-1."
    refused = await door.call("PUT", "other", with_disk(disk, "true", "vm-2"), status=409)
    assert refused["error"]["code"] == "ConflictingUserInput"
    await door.call("DELETE", "first?gracePeriodSeconds=0")

    read = "cat /data/file; stat -c '%g %a' /data /data/file; cat /data/link; touch /data/mine"
    security = {"securityContext": {"fsGroup": 2000}}
    await door.call("PUT", "second", with_disk(disk, read, "vm-2", **security), status=201)
    found = await door.until("second", is_over)
    log = (await door.call("GET", "second/containers/web/logs"))["content"]
    assert found["properties"]["instanceView"]["state"] == "Succeeded", log
    assert log.startswith("kept\n2000 2775\n2000 660\n"), log
    await door.call("DELETE", "second?gracePeriodSeconds=0")
    await door.call("DELETE", disk, status=200)
    await door.call("GET", disk, status=404)
    await door.call("PUT", "third", with_disk(disk, "true"), status=404)


async def test_a_disk_grows_and_never_shrinks(door: FrontDoor) -> None:
    disk = disk_path(door, "grows")
    await door.call("PUT", disk, body(4), status=201)
    assert (await door.call("PATCH", disk, {"properties": {"diskSizeGB": 8}}))["properties"]["diskSizeGB"] == 8
    refused = await door.call("PATCH", disk, {"properties": {"diskSizeGB": 4}}, status=409)
    assert "cannot be shrunk" in refused["error"]["message"]
    listed = await door.call("GET", disk.rpartition("/")[0])
    assert [item["name"] for item in listed["value"]] == ["grows"]
    await door.call("DELETE", disk, status=200)


@pytest.mark.parametrize(
    "wrong",
    [
        body(0),
        body("4"),
        body(creationData={"createOption": "Copy"}),
        body(encryption={"type": "x"}),
        {"location": "eastus", "properties": {}},
    ],
)
async def test_a_disk_that_is_not_an_empty_one_is_refused(door: FrontDoor, wrong: Any) -> None:
    await door.call("PUT", disk_path(door, "wrong"), wrong, status=400)


async def test_container_instances_attach_no_disk(door: FrontDoor) -> None:
    disk = disk_path(door, "absent")
    refused = await door.call("PUT", "g", with_disk(disk, "true", None), status=400)
    assert "container instances do not attach" in refused["error"]["message"]
    other = with_disk(door.subscription, "true")
    await door.call("PUT", "g", other, status=400)
