"""Groups of callers that are no virtual node: create, update, start, stop, restart and delete, with their operations."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from tests.instances.door import (
    FrontDoor,
    Group,
    RoomProcess,
    container,
    events_of,
    group,
    is_running,
    shell,
    state_of,
)

LOCATION = "/providers/Microsoft.ContainerInstance/locations/eastus"
#: Says on every start which word it was given, and whether the file of an earlier start is in its volume.
SCRIPT = "echo $WORD; ls /v; echo x >> /v/earlier; exec sleep 1000"


def plain(*containers: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """A group as az sends it."""
    body = group(*containers, terminationGracePeriodSeconds=0, **properties)
    del body["properties"]["pod"]
    return body


def said(word: str, **properties: Any) -> dict[str, Any]:
    """A group that says a word, and keeps a file in an empty folder."""
    words = [{"name": "WORD", "value": word}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    one = shell(SCRIPT, environmentVariables=words, volumeMounts=mounts)
    return plain(one, volumes=[{"name": "v", "emptyDir": {}}], **properties)


async def log(door: FrontDoor, name: str) -> list[str]:
    content: str = (await door.call("GET", f"{name}/containers/web/logs"))["content"]
    return content.split()


async def usage(door: FrontDoor, name: str) -> list[dict[str, Any]]:
    listed = await door.call("GET", f"{door.subscription}{LOCATION}/usageDetails")
    return [item["properties"] for item in listed["value"] if item["properties"]["name"] == name]


def address(found: Group) -> str | None:
    ip: str | None = found["properties"]["ipAddress"].get("ip")
    return ip


async def test_a_group_is_stopped_started_restarted_and_updated_in_place(door: FrontDoor) -> None:
    created = await door.operate("PUT", "life", said("one"), status=201)
    assert (created["status"], created["name"]) == ("Succeeded", created["id"].rsplit("/", 1)[-1])
    before = await door.call("GET", "life")
    assert await log(door, "life") == ["one"]
    # Restart: the same address, the same volumes, and one row of the bill.
    assert (await door.operate("POST", "life/restart", status=204))["status"] == "Succeeded"
    assert await log(door, "life") == ["one", "earlier"]
    # Update: new containers with the new environment, at the same address.
    assert (await door.operate("PUT", "life", said("two"), status=200))["status"] == "Succeeded"
    updated = await door.call("GET", "life")
    assert await log(door, "life") == ["two", "earlier"]
    assert address(updated) == address(before)
    assert [row["state"] for row in await usage(door, "life")] == ["running"]
    # The same again restarts nothing, and tags alone neither.
    start = state_of(updated)["startTime"]
    answer = await door.call("PUT", "life", {**said("two"), "tags": {"a": "b"}}, status=200)
    assert (answer["tags"], state_of(answer)["startTime"]) == ({"a": "b"}, start)
    # Stop: no address, no bill, and volumes are gone.
    await door.call("POST", "life/stop", status=204)
    stopped = await door.call("GET", "life")
    assert stopped["properties"]["instanceView"]["state"] == "Stopped"
    assert (state_of(stopped)["state"], address(stopped)) == ("Terminated", None)
    assert [row["state"] for row in await usage(door, "life")] == ["stopped"]
    await door.call("POST", "life/stop", status=204)
    assert (await door.operate("POST", "life/start", status=202))["status"] == "Succeeded"
    assert await log(door, "life") == ["two"]
    assert [row["state"] for row in await usage(door, "life")] == ["stopped", "running"]
    await door.call("POST", "life/start", status=204)
    assert (await door.operate("DELETE", "life", status=202))["status"] == "Succeeded"
    await door.call("DELETE", "life", status=204)
    await door.call("GET", f"{door.subscription}{LOCATION}/operations/none", status=404)


async def test_what_an_update_cannot_change_is_refused_in_azures_words(door: FrontDoor) -> None:
    await door.operate("PUT", "kept", said("one"), status=201)
    start = state_of(await door.call("GET", "kept"))["startTime"]
    more = said("one")
    more["properties"]["containers"][0]["properties"]["resources"]["requests"]["cpu"] = 1
    for changed in (said("one", restartPolicy="Never"), more, {**said("one"), "zones": ["1"]}):
        answer = await door.call("PUT", "kept", changed, status=400)
        assert answer["error"] == {
            "code": "InvalidContainerGroupUpdate",
            "message": "The updates on container group 'kept' are invalid. If you are going to update the os type, restart policy, "
            "network profile, CPU, memory or GPU resources for a container group, you must delete it first and then create a "
            "new one.",
        }
    assert state_of(await door.call("GET", "kept"))["startTime"] == start
    await door.call("POST", "kept/stop")
    # A group that has ended is deployed as new.
    assert (await door.operate("PUT", "kept", more, status=200))["status"] == "Succeeded"
    await door.call("DELETE", "kept")


async def test_an_image_that_cannot_be_pulled_is_refused_at_once(door: FrontDoor) -> None:
    for body in (plain(container(image="absent:v1")), plain(container(), password="wrong")):
        answer = await door.call("PUT", "absent", body, status=400)
        assert answer["error"]["code"] == "InaccessibleImage"
        image = body["properties"]["containers"][0]["properties"]["image"]
        assert answer["error"]["message"].startswith(
            f"The image '{image}' in container group 'absent' is not accessible. Please check the image and registry credential."
        )
        await door.call("GET", "absent", status=404)


async def test_a_command_that_cannot_start_ends_the_operation(door: FrontDoor) -> None:
    operation = await door.operate("PUT", "unable", plain(container(command=["/nope"])), status=201)
    assert (operation["status"], operation["error"]["code"]) == ("Failed", "ContainerStartFailed")
    assert "/nope" in operation["error"]["message"]
    found = await door.until("unable", lambda found: state_of(found).get("detailStatus") == "CrashLoopBackOff")
    assert found["properties"]["provisioningState"] == "Failed"
    await door.call("DELETE", "unable")
    once = plain(container(command=["/nope"]), restartPolicy="Never")
    assert (await door.operate("PUT", "unable", once, status=201))["status"] == "Failed"
    assert (await door.call("GET", "unable"))["properties"]["instanceView"]["state"] == "Failed"
    await door.call("DELETE", "unable")


async def test_defaults_are_written_and_an_address_is_shown_to_who_asked(door: FrontDoor) -> None:
    body = plain(shell("sleep 1000"))
    for name in ("osType", "restartPolicy", "ipAddress"):
        del body["properties"][name]
    await door.operate("PUT", "sparse", body, status=201)
    found = (await door.call("GET", "sparse"))["properties"]
    assert "ipAddress" not in found
    assert {name: found[name] for name in ("osType", "restartPolicy", "sku", "priority", "initContainers", "volumes")} == {
        "osType": "Linux", "restartPolicy": "Always", "sku": "Standard", "priority": "Regular", "initContainers": [],
        "volumes": [],
    }  # fmt: skip
    shown = found["containers"][0]["properties"]
    assert [shown[name] for name in ("ports", "environmentVariables", "volumeMounts")] == [[], [], []]
    await door.call("DELETE", "sparse")


async def test_a_name_label_is_one_group_s(door: FrontDoor) -> None:
    public = {"type": "Public", "ports": [{"port": 80}], "dnsNameLabel": "my-label"}
    body = {**plain(shell("sleep 1000"), ipAddress=public), "zones": ["1"]}
    await door.operate("PUT", "named", body, status=201)
    found = await door.call("GET", "named")
    assert found["properties"]["ipAddress"]["fqdn"] == "my-label.eastus.azurecontainer.io"
    assert found["zones"] == ["1"]
    answer = await door.call("PUT", "named-too", plain(shell("sleep 1000"), ipAddress=public), status=400)
    assert answer["error"]["message"] == (
        "The DNS name label 'my-label' in container group 'named-too' not available. Try using a different label."
    )
    # Elsewhere the label is free, and an empty configuration is none, as az sends them.
    scoped = {**public, "autoGeneratedDomainNameLabelScope": "ResourceGroupReuse"}
    body = plain(shell("sleep 1000", configMap={"keyValuePairs": {}}), ipAddress=scoped)
    await door.operate("PUT", "named-too", body, status=201)
    fqdn = (await door.call("GET", "named-too"))["properties"]["ipAddress"]["fqdn"]
    assert re.fullmatch(r"my-label\.[0-9a-f]{15}\.eastus\.azurecontainer\.io", fqdn)
    for name in ("named", "named-too"):
        await door.call("DELETE", name)


async def test_what_a_location_has_is_listed(door: FrontDoor) -> None:
    usages = await door.call("GET", f"{door.subscription}{LOCATION}/usages")
    assert [item["name"]["value"] for item in usages["value"]] == [
        "ContainerGroups",
        "StandardCores",
        "StandardSpotCores",
    ]
    (public, _) = (await door.call("GET", f"{door.subscription}{LOCATION}/capabilities"))["value"]
    assert public["capabilities"] == {"maxMemoryInGB": 16, "maxCpu": 4, "maxGpuCount": 0}


async def test_a_pod_waits_for_its_image(door: FrontDoor) -> None:
    """A virtual node's pull is repeated, and its groups are updated while they run."""
    await door.call("PUT", "pod", group(shell("sleep 1000")), status=201)
    found = await door.until("pod", is_running)
    again = {**group(shell("sleep 1000")), "tags": {"a": "b"}}
    assert state_of(await door.call("PUT", "pod", again, status=200)) == state_of(found)
    await door.call("DELETE", "pod?gracePeriodSeconds=0")


async def test_a_change_is_resumed_after_a_crash_of_the_room(room: RoomProcess, door: FrontDoor) -> None:
    """The room is killed while containers of a stop, an update and a deletion have their grace."""
    names = ("stopped", "updated", "deleted")
    slow = "trap 'exit 0' HUP; echo $WORD; while true; do sleep 1; done"

    def body(word: str) -> dict[str, Any]:
        made = plain(shell(slow, environmentVariables=[{"name": "WORD", "value": word}]))
        made["properties"]["terminationGracePeriodSeconds"] = 2
        return made

    for name in names:
        await door.call("PUT", name, body("one"), status=201)
    for name in names:
        await door.until(name, is_running)
    for name in names:
        await door.until(name, lambda found: found["properties"]["provisioningState"] == "Succeeded")
    stop = asyncio.create_task(door.call("POST", "stopped/stop"))
    updating = await door.begin("PUT", "updated", body("two"), status=200)
    deleting = await door.begin("DELETE", "deleted", status=202)
    await door.until("stopped", lambda found: "Killing" in events_of(found))
    room.stop(kill=True)
    await asyncio.gather(stop, return_exceptions=True)
    room.start()
    assert (await door.ended(updating))["status"] == "Succeeded"
    assert (await door.ended(deleting))["status"] == "Succeeded"
    assert await log(door, "updated") == ["two"]
    await door.call("GET", "deleted", status=404)
    await door.until("stopped", lambda found: found["properties"]["instanceView"]["state"] == "Stopped")
    assert [row["state"] for row in await usage(door, "updated")] == ["running"]
    assert [row["state"] for row in await usage(door, "stopped")] == ["stopped"]
    for name in ("stopped", "updated"):
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


async def test_a_group_that_does_not_start_is_stopped_and_deleted(door: FrontDoor) -> None:
    body = plain(shell("sleep 1000"), initContainers=[slow_init()])
    creating = await door.begin("PUT", "slow", body, status=201)
    answer = await door.call("PUT", "slow", body, status=409)
    assert answer["error"]["code"] == "ContainerGroupTransitioning"
    await door.call("POST", "slow/stop", status=204)
    assert (await door.ended(creating))["status"] == "Canceled"
    assert (await door.call("GET", "slow"))["properties"]["instanceView"]["state"] == "Stopped"
    starting = await door.begin("POST", "slow/start", status=202)
    assert (await door.operate("DELETE", "slow", status=202))["status"] == "Succeeded"
    assert (await door.ended(starting))["status"] == "Canceled"
    assert {row["state"] for row in await usage(door, "slow")} == {"stopped"}
    private = plain(container(), ipAddress={"type": "Private", "ports": [{"port": 80}]})
    answer = await door.call("PUT", "slow", private, status=400)
    assert answer["error"]["target"] == "properties.ipAddress.type"


def slow_init() -> dict[str, Any]:
    """An init container that takes its time."""
    init = shell("sleep 1000", "init")
    del init["properties"]["resources"]
    return init
