"""A container group from PUT to DELETE, by the provider's own calls."""

from __future__ import annotations

import re

from tests.instances.door import FrontDoor, container, events_of, group, is_over, is_running, shell, state_of
from tests.instances.images import PAGE


async def test_a_group_is_pulled_runs_serves_and_goes_away(door: FrontDoor) -> None:
    created = await door.call("PUT", "web", group(container()), status=201)
    assert created["properties"]["provisioningState"] in ("Pending", "Creating")
    found = await door.until("web", is_running)
    assert await door.get_page(found) == PAGE
    assert events_of(found) == ["Pulling", "Pulled", "Created", "Started"]
    (pulled,) = [
        event["message"]
        for event in found["properties"]["containers"][0]["properties"]["instanceView"]["events"]
        if event["name"] == "Pulled"
    ]
    assert re.fullmatch(
        r'Successfully pulled image "acrtest.azurecr.io/web:v1" in [\d.]+m?s \([\d.]+m?s including waiting\)\. '
        r"Image size: \d+ bytes\.",
        pulled,
    )
    assert "password" not in found["properties"]["imageRegistryCredentials"][0]
    await door.call("DELETE", "web?gracePeriodSeconds=0")
    await door.call("GET", "web", status=404)


async def test_what_a_container_writes_is_its_log(door: FrontDoor) -> None:
    await door.call("PUT", "logs", group(shell("echo one; echo two; echo three"), restartPolicy="Never"))
    found = await door.until("logs", is_over)
    assert found["properties"]["instanceView"]["state"] == "Succeeded"
    assert state_of(found)["exitCode"] == 0
    assert (await door.call("GET", "logs/containers/web/logs"))["content"].split() == ["one", "two", "three"]
    assert (await door.call("GET", "logs/containers/web/logs?tail=1"))["content"] == "three\n"
    await door.call("DELETE", "logs")


async def test_a_watch_returns_what_changed_and_what_is_gone(door: FrontDoor) -> None:
    watch = f"{door.provider}/containerGroups?watch=true&since="
    for name in ("first", "second"):
        await door.call("PUT", name, group(shell("true"), restartPolicy="Never"))
        await door.until(name, is_over)
    everything = await door.call("GET", f"{watch}0")
    assert {"first", "second"} <= {item["name"] for item in everything["value"]}
    assert "removed" not in everything
    gone = (await door.call("GET", "first"))["id"]
    await door.call("DELETE", "first")
    changed = await door.call("GET", f"{watch}{everything['revision']}")
    assert changed["removed"] == [gone]
    assert "second" not in {item["name"] for item in changed["value"]}
    await door.call("DELETE", "second")
