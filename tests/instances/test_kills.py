"""What must not run twice runs once, whenever the room or a supervisor is killed, and after everything was taken down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cumulet.common.config import Config
from cumulet.instances.cleanup import cleanup
from tests.instances.door import FrontDoor, Group, RoomProcess, group, is_over, is_running, shell, state_of

ONCE: dict[str, Any] = {"restartPolicy": "Never", "pod": True}


def runs(config: Config) -> list[int]:
    """How often each group's container has said that it ran, by the logs of all its attempts."""
    sandboxes = config.room_dir("instances") / "sandboxes"
    return [
        sum(log.read_text().count("ran") for log in folder.glob("containers/0/*.log"))
        for folder in sandboxes.iterdir()
    ]


def view_of(found: Group) -> dict[str, Any]:
    """The instance view of the container of a group."""
    view: dict[str, Any] = found["properties"]["containers"][0]["properties"]["instanceView"]
    return view


def first_state(found: Group) -> dict[str, Any]:
    """The current state of the init container of a group."""
    view = found["properties"]["initContainers"][0]["properties"].get("instanceView") or {}
    return dict(view.get("currentState") or {})


def commands() -> dict[int, list[bytes]]:
    """The command lines of all processes."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended in the meantime
                found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
    return found


def supervisors(config: Config) -> list[int]:
    """The supervisors of the containers of an installation."""
    folder = os.fsencode(config.room_dir("instances"))
    return [
        pid
        for pid, words in commands().items()
        if words[0].endswith(b"conmon") and any(folder in word for word in words)
    ]


def sleepers(number: int) -> set[int]:
    """At least that many processes of `sleep 811100`, which shells start after their container is Running."""
    until = time.monotonic() + 20
    while len(found := {pid for pid, words in commands().items() if words[-2:-1] == [b"811100"]}) < number:
        assert time.monotonic() < until, f"{len(found)} of {number} processes run"
    return found


async def test_containers_that_are_never_restarted_run_once_whatever_is_killed(
    door: FrontDoor, room: RoomProcess
) -> None:
    names = [f"once-{number}" for number in range(5)]
    script = "echo ran; exit 7"
    await asyncio.gather(*(door.call("PUT", name, group(shell(script), **ONCE)) for name in names))
    for _ in range(3):
        await asyncio.sleep(random.random() * 0.4)  # any moment of the starts
        room.stop(kill=True)
        room.start()
    for name in names:
        found = await door.until(name, is_over)
        assert (state_of(found)["exitCode"], state_of(found)["detailStatus"]) in (
            (7, "Error"),
            (137, "ContainerStatusUnknown"),
        )
    assert max(runs(room.config)) == 1, "it ran twice, or none ran"
    for name in names:
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


async def test_what_was_not_started_when_the_room_was_killed_is_started(
    door: FrontDoor, room: RoomProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, waiting = tmp_path / "slow", tmp_path / "waiting"
    slow.mkdir()
    program = slow / "unshare"
    program.write_text(f'#!/bin/sh\n[ ! -p {waiting} ] || read _ <{waiting}\nexec {shutil.which("unshare")} "$@"\n')
    program.chmod(0o755)
    room.stop()
    with monkeypatch.context() as machine:
        machine.setenv("PATH", f"{slow}:{os.environ['PATH']}")
        room.start()
    os.mkfifo(waiting)  # from now on, no namespace is made
    await door.call("PUT", "early", group(shell("echo ran; exit 7"), **ONCE))
    await door.until("early", lambda found: view_of(found).get("attempt") == 1)
    room.stop(kill=True)
    with waiting.open("w"):
        waiting.unlink()
    room.start()
    assert state_of(await door.until("early", is_over))["exitCode"] == 7
    assert runs(room.config) == [1]
    await door.call("DELETE", "early?gracePeriodSeconds=0")


async def test_what_its_supervisor_left_ends_and_is_restarted_by_its_policy(
    door: FrontDoor, room: RoomProcess
) -> None:
    script = "echo ran; sleep 811100 & wait"
    await door.call("PUT", "orphan", group(shell(script), **ONCE))
    await door.call("PUT", "again", group(shell(script), pod=True))
    await door.until("orphan", is_running)
    before = state_of(await door.until("again", is_running))
    left = sleepers(2)
    for pid in supervisors(room.config):
        os.kill(pid, signal.SIGKILL)
    found = await door.until("orphan", is_over)
    assert (state_of(found)["exitCode"], state_of(found)["detailStatus"]) == (137, "ContainerStatusUnknown")
    await door.until("again", lambda found: is_running(found) and state_of(found) != before)
    assert not sleepers(1) & left, "a container without a supervisor runs on"
    for name in ("orphan", "again"):
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


async def test_after_everything_was_taken_down_only_what_is_restarted_runs_again(
    door: FrontDoor, room: RoomProcess
) -> None:
    first = shell("echo x >>/v/times", "first", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    asked = shell("cat /v/times; sleep 1000 & wait", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    volumes: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [first]}
    await door.call("PUT", "never", group(asked, **ONCE, **volumes))
    await door.call("PUT", "always", group(asked, pod=True, **volumes))
    long = shell("sleep 1000 & wait", "first")
    await door.call("PUT", "half", group(shell("true"), **ONCE, initContainers=[long]))
    for name in ("never", "always"):
        await door.until(name, is_running)
    await door.until("half", lambda found: first_state(found).get("state") == "Running")
    room.stop()
    cleanup(room.config)
    room.start()
    found = await door.until("never", is_over)
    assert found["properties"]["instanceView"]["state"] == "Failed"
    assert (state_of(found)["exitCode"], state_of(found)["detailStatus"]) == (137, "ContainerStatusUnknown")
    found = await door.until("half", is_over)
    for state in (first_state(found), state_of(found)):  # also that of the container that never ran
        assert (state["exitCode"], state["detailStatus"]) == (137, "ContainerStatusUnknown")
    found = await door.until("always", lambda found: is_running(found) and view_of(found)["restartCount"] == 1)
    assert view_of(found)["previousState"]["detailStatus"] == "ContainerStatusUnknown"
    log: dict[str, str] = {"content": ""}
    while log["content"].count("x") < 2:  # the init container has run again
        log = await door.call("GET", "always/containers/web/logs")
    for name in ("never", "always", "half"):
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")
