"""What a container is given, how it ends, and what is done then."""

from __future__ import annotations

import asyncio
import base64

import aiohttp
import pytest

from tests.instances.door import (
    FrontDoor,
    RoomProcess,
    container,
    events_of,
    group,
    is_over,
    is_running,
    shell,
    state_of,
)


async def log_of(door: FrontDoor, name: str, of: str = "web") -> str:
    """What a container wrote."""
    found: str = (await door.call("GET", f"{name}/containers/{of}/logs"))["content"]
    return found


async def test_environment_user_and_folder_are_as_asked_for(door: FrontDoor) -> None:
    asked = shell(
        'echo "$OPEN $SECRET $HOSTNAME"; id; echo "$PWD"',
        environmentVariables=[{"name": "OPEN", "value": "a b"}, {"name": "SECRET", "secureValue": "hidden"}],
        securityContext={"runAsUser": 1001},
        workingDir="/www",
    )
    await door.call("PUT", "given", group(asked, restartPolicy="Never", hostname="pod-1"))
    found = await door.until("given", is_over)
    assert await log_of(door, "given") == (
        "a b hidden pod-1\nuid=1001(web) gid=1002(web) groups=1002(web),1003(extra)\n/www\n"
    )
    assert "hidden" not in str(found)
    await door.call("DELETE", "given")


async def test_an_exit_code_is_kept_where_nothing_is_restarted(door: FrontDoor) -> None:
    await door.call("PUT", "never", group(shell("exit 3"), restartPolicy="Never"))
    found = await door.until("never", is_over)
    assert found["properties"]["instanceView"]["state"] == "Failed"
    assert (state_of(found)["exitCode"], state_of(found)["detailStatus"]) == (3, "Error")
    await door.call("DELETE", "never")


async def test_what_fails_is_restarted_after_a_back_off(door: FrontDoor) -> None:
    await door.call("PUT", "again", group(shell("echo attempt; exit 1"), restartPolicy="OnFailure"))
    found = await door.until("again", lambda group: state_of(group).get("detailStatus") == "CrashLoopBackOff")
    assert "BackOff" in events_of(found)
    view = found["properties"]["containers"][0]["properties"]["instanceView"]
    assert view["previousState"]["exitCode"] == 1
    await door.call("DELETE", "again?gracePeriodSeconds=0")


async def test_init_containers_run_one_after_the_other_before_the_rest(door: FrontDoor) -> None:
    volumes = [{"name": "shared", "emptyDir": {}}]
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    first = shell("echo first >/shared/order", "first", volumeMounts=mounts)
    second = shell("echo second >>/shared/order", "second", volumeMounts=mounts)
    body = group(
        shell("cat /shared/order", volumeMounts=mounts),
        initContainers=[first, second],
        volumes=volumes,
        restartPolicy="Never",
    )
    await door.call("PUT", "init", body)
    await door.until("init", is_over)
    assert await log_of(door, "init") == "first\nsecond\n"
    await door.call("DELETE", "init")


async def test_a_group_whose_init_container_fails_does_not_start(door: FrontDoor) -> None:
    body = group(container(), initContainers=[shell("false", "first")], restartPolicy="Never")
    await door.call("PUT", "stuck", body)
    found = await door.until("stuck", is_over)
    assert found["properties"]["instanceView"]["state"] == "Failed"
    assert events_of(found) == []
    await door.call("DELETE", "stuck")


async def test_secret_volumes_are_files_and_not_shown(door: FrontDoor) -> None:
    content = base64.b64encode(b"from a volume").decode()
    body = group(
        shell(
            "cat /secret/key; echo over >/secret/key",
            volumeMounts=[{"name": "s", "mountPath": "/secret", "readOnly": True}],
        ),
        volumes=[{"name": "s", "secret": {"key": content}}],
        restartPolicy="Never",
    )
    created = await door.call("PUT", "secret", body)
    assert content not in str(created)
    found = await door.until("secret", is_over)
    assert (await log_of(door, "secret")).startswith("from a volume")
    assert state_of(found)["exitCode"] != 0, "a read-only volume was written to"
    await door.call("DELETE", "secret")


async def test_containers_of_a_group_share_their_network(door: FrontDoor) -> None:
    asking = shell("until wget -q -O - http://127.0.0.1/; do sleep 0.1; done; sleep 100", "asking")
    await door.call("PUT", "pair", group(container(), asking))
    await door.until("pair", lambda group: all(state_of(group, index).get("state") == "Running" for index in (0, 1)))
    stream = await door.call("GET", "pair/containers/asking/logs")
    while "container group" not in stream["content"]:
        stream = await door.call("GET", "pair/containers/asking/logs")
    await door.call("DELETE", "pair?gracePeriodSeconds=0")


async def test_what_takes_too_much_memory_is_killed(door: FrontDoor) -> None:
    limits = {"requests": {"cpu": 0.5, "memoryInGB": 0.05}, "limits": {"cpu": 0.5, "memoryInGB": 0.05}}
    asked = shell("dd if=/dev/zero of=/dev/null bs=200M count=1", resources=limits)
    await door.call("PUT", "hungry", group(asked, restartPolicy="Never"))
    found = await door.until("hungry", is_over)
    assert (state_of(found)["exitCode"], state_of(found)["detailStatus"]) == (137, "OOMKilled")
    await door.call("DELETE", "hungry")


async def test_a_container_whose_liveness_probe_fails_is_stopped(door: FrontDoor) -> None:
    probe = {
        "exec": {"command": ["/bin/cat", "/tmp/well"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        "initialDelaySeconds": 1,
    }
    asked = shell("sleep 100", livenessProbe=probe)
    await door.call("PUT", "sick", group(asked, terminationGracePeriodSeconds=1))
    found = await door.until("sick", lambda group: "Killing" in events_of(group))
    assert "Unhealthy" in events_of(found)
    await door.call("DELETE", "sick?gracePeriodSeconds=0")


async def test_a_deletion_is_carried_on_by_a_room_that_was_killed_meanwhile(
    door: FrontDoor, room: RoomProcess
) -> None:
    await door.call("PUT", "leaving", group(shell("trap 'echo asked' TERM; while true; do sleep 0.1; done")))
    await door.until("leaving", is_running)
    asked = asyncio.create_task(door.call("DELETE", "leaving?gracePeriodSeconds=2"))
    await door.until("leaving", lambda group: "Killing" in events_of(group))
    room.stop(kill=True)
    with pytest.raises(aiohttp.ClientError):
        await asked
    room.start()
    await door.until_gone("leaving")


async def test_a_room_that_is_killed_takes_up_its_containers_again(door: FrontDoor, room: RoomProcess) -> None:
    await door.call("PUT", "kept", group(shell("echo $$; sleep 1000")))
    before = await door.until("kept", is_running)
    room.stop(kill=True)
    room.start()
    after = await door.until("kept", is_running)
    assert state_of(after) == state_of(before)
    assert after["properties"]["ipAddress"]["ip"] == before["properties"]["ipAddress"]["ip"]
    assert events_of(after) == events_of(before)
    await door.call("DELETE", "kept?gracePeriodSeconds=0")
