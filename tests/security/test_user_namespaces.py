"""The users of a container are nobody on the machine, and nobody to other groups, for all that a group's life brings."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.instances.cleanup import cleanup
from cumulet.instances.sandbox.id_ranges import IDS
from cumulet.instances.sandbox.names import run_dir
from cumulet.instances.sandbox.user_namespaces import support_file
from cumulet.up.install import install
from tests.installation import free_pod_cidr
from tests.instances.conftest import door, machine, registry, room, shared_config  # noqa: F401
from tests.instances.door import (
    FrontDoor,
    Group,
    RoomProcess,
    container,
    events_of,
    front_door,
    group,
    is_over,
    is_running,
    shell,
    state_of,
)
from tests.instances.images import Registry, busybox_layer, entry, layer, peer_registry


def processes(mark: str) -> list[int]:
    """The processes of this machine that have a word among their arguments."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                command = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            if mark.encode() in command:
                found.append(int(path.name))
    return found


def owner(pid: int) -> int:
    """As whom a process runs, to the machine."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:"))


def mapping(pid: int) -> tuple[int, int, int]:
    """The one line of a process's uid_map, which is that of its gid_map."""
    lines = Path(f"/proc/{pid}/uid_map").read_text()
    assert lines == Path(f"/proc/{pid}/gid_map").read_text()
    inside, outside, count = lines.split()
    return int(inside), int(outside), int(count)


async def run(door: FrontDoor, name: str, script: str, *, image: str = "web:v1", **properties: Any) -> str:  # noqa: F811
    """What a script writes in a group of its own, that then goes away."""
    volumes = properties.pop("volumes", [])
    asked = container(image=image, command=["/bin/sh", "-c", script], **properties)
    await door.call("PUT", name, group(asked, restartPolicy="Never", volumes=volumes))
    found = await door.until(name, is_over)
    text: str = (await door.call("GET", f"{name}/containers/web/logs"))["content"]
    await door.call("DELETE", f"{name}?gracePeriodSeconds=0")
    assert text, found
    return text


async def execute(door: FrontDoor, name: str, *command: str) -> str:  # noqa: F811
    """What a command writes that is run in a running container, without a terminal."""
    body = {"command": list(command), "protocol": "v5.channel.k8s.io"}
    offer = await door.call("POST", f"{name}/containers/web/exec", body)
    output = b""
    async with door.session.ws_connect(offer["webSocketUri"]) as socket:
        await socket.send_str(offer["password"])
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY and message.data[:1] in (b"\1", b"\2"):
                output += message.data[1:]
    return output.decode()


async def test_the_root_of_a_container_is_nobody_on_the_machine(door: FrontDoor) -> None:  # noqa: F811
    await door.call("PUT", "first", group(shell("id; sleep 811001 & wait")))
    await door.call("PUT", "second", group(shell("sleep 811002 & wait", securityContext={"runAsUser": 1001})))
    await door.until("first", is_running)
    await door.until("second", is_running)
    [one], [two] = await appeared("811001"), await appeared("811002")
    (zero, first, count), (_, second, _) = mapping(one), mapping(two)
    assert (zero, count) == (0, IDS)
    assert min(first, second) >= 2**30, "above every user of the machine"
    assert abs(first - second) >= IDS, "no two groups share an id"
    assert (owner(one), owner(two)) == (first, second + 1001)
    assert (await door.call("GET", "first/containers/web/logs"))[
        "content"
    ] == "uid=0(root) gid=0(root) groups=0(root)\n"
    for name in ("first", "second"):
        await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


async def appeared(mark: str) -> list[int]:
    """The processes with a word among their arguments, once there are any."""
    async with asyncio.timeout(20):
        while not (found := processes(mark)):  # noqa: ASYNC110  (the kernel tells nobody)
            await asyncio.sleep(0)
    return found


async def test_an_administrator_of_a_container_administers_nothing(door: FrontDoor) -> None:  # noqa: F811
    script = (
        "echo x >/proc/sys/kernel/core_pattern; echo x >/proc/sys/net/ipv4/ip_forward; echo 1 >/sys/kernel/mm/ksm/run; "
        "echo b >/proc/sysrq-trigger; echo done"
    )
    text = await run(door, "admin", f"({script}) 2>&1")
    assert text.splitlines()[-1] == "done"
    assert len(text.splitlines()) == 5, text


async def test_files_have_the_owners_that_they_had_in_the_image(door: FrontDoor, registry: Registry) -> None:  # noqa: F811
    files = layer(
        entry("data", type=b"5", mode=0o755, uid=1001, gid=1002),
        entry("data/own", b"x", uid=1001, gid=1002, mode=0o600),
        entry("data/far", b"x", uid=70_000, gid=70_000, mode=0o644),
        entry("data/set", b"x", uid=0, gid=0, mode=0o4755),
        entry("bin/stat", type=b"2", linkname="busybox"),
        entry("bin/touch", type=b"2", linkname="busybox"),
        entry("bin/chown", type=b"2", linkname="busybox"),
    )
    registry.push("owners:v1", [busybox_layer(), files])
    script = (
        "stat -c '%n %u:%g %a' / /bin/busybox /data /data/* /etc/hosts; touch /new; chown 5:6 /data/own /new; "
        "stat -c '%n %u:%g' /new /data/own"
    )
    assert (await run(door, "owners", script, image="owners:v1")).splitlines() == [
        "/ 0:0 755",
        "/bin/busybox 0:0 755",
        "/data 1001:1002 755",
        "/data/far 65534:65534 644",  # no id of the group: the kernel says nobody
        "/data/own 1001:1002 600",
        "/data/set 0:0 4755",
        "/etc/hosts 0:0 644",
        "/new 5:6",
        "/data/own 5:6",
    ]


def capable() -> tuple[tarfile.TarInfo, bytes]:
    """`/capable/cat`, with the capability NET_BIND_SERVICE (capabilities(7), "File capabilities", version 2)."""
    value = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("utf-8", "surrogateescape")
    content = Path(shutil.which("busybox") or "").read_bytes()
    return entry("capable/cat", content, mode=0o755, pax_headers={"SCHILY.xattr.security.capability": value})


async def test_capabilities_of_files_are_those_of_the_group(door: FrontDoor, registry: Registry) -> None:  # noqa: F811
    registry.push("capable:v1", [busybox_layer(), layer(capable())])
    script = "/capable/cat /proc/self/status"
    text = await run(door, "capable", script, image="capable:v1", securityContext={"runAsUser": 1001})
    assert f"CapEff:\t{1 << 10:016x}" in text.splitlines()


@pytest.mark.parametrize("medium", ["", "Memory"])
async def test_volumes_belong_to_the_group(door: FrontDoor, medium: str) -> None:  # noqa: F811
    name = f"volumes-{medium.lower() or 'disk'}"
    volumes = [
        {"name": "empty", "emptyDir": {"medium": medium} if medium else {}},
        {"name": "secret", "secret": {"key": base64.b64encode(b"hidden\n").decode()}, "defaultMode": 0o400},
    ]
    mounts = [
        {"name": "empty", "mountPath": "/empty"},
        {"name": "empty", "mountPath": "/part", "subPath": "a/b"},
        {"name": "secret", "mountPath": "/secret", "readOnly": True},
    ]
    first = shell(
        "echo of-a-user >/empty/file; ls -ln /empty/file",
        "first",
        volumeMounts=mounts,
        securityContext={"runAsUser": 1001},
    )
    script = (
        "ls -lnLd /empty/file /secret/key /part; cat /secret/key /empty/file; echo more >/part/new; ls -ln /part/new; "
        "echo no >/secret/key"
    )
    body = group(
        shell(f"({script}) 2>&1", volumeMounts=mounts), initContainers=[first], volumes=volumes, restartPolicy="Never"
    )
    await door.call("PUT", name, body)
    found = await door.until(name, is_over)
    lines = (await door.call("GET", f"{name}/containers/web/logs"))["content"].splitlines()
    owners = {line.split()[-1]: tuple(line.split()[2:4]) for line in lines if "/" in line and line[0] in "-d"}
    assert owners == {
        "/empty/file": ("1001", "1002"),
        "/secret/key": ("0", "0"),
        "/part": ("0", "0"),
        "/part/new": ("0", "0"),
    }, (lines, found)
    assert "hidden" in lines
    assert "of-a-user" in lines
    assert "Read-only file system" in lines[-1]
    await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


async def test_output_can_be_opened_again_by_its_name(door: FrontDoor) -> None:  # noqa: F811
    """As web servers do whose log is a link to /dev/stdout."""
    for number, context in enumerate(({}, {"runAsUser": 1001})):
        script = "echo out >/dev/stdout; echo err >/dev/stderr"
        assert (await run(door, f"out-{number}", script, securityContext=context)).split() == ["out", "err"]


async def test_exec_joins_the_namespaces_of_the_container_also_after_the_room_was_killed(
    door: FrontDoor,  # noqa: F811
    room: RoomProcess,  # noqa: F811
) -> None:
    await door.call("PUT", "joined", group(shell("echo to-read >/tmp/own; sleep 811003 & wait")))
    await door.until("joined", is_running)
    [pid] = await appeared("811003")
    script = "for kind in user net pid ipc uts mnt cgroup; do ls -l /proc/self/ns/$kind /proc/1/ns/$kind; done"

    async def look() -> None:
        rows = [line.split()[-1] for line in (await execute(door, "joined", "/bin/sh", "-c", script)).splitlines()]
        assert len(rows) == 14
        assert rows[::2] == rows[1::2]
        assert str(Path(f"/proc/{pid}/ns/user").readlink()) == rows[0] != str(Path("/proc/self/ns/user").readlink())
        status = await execute(
            door, "joined", "/bin/cat", "/proc/self/status", "/proc/self/oom_score_adj", "/tmp/own"
        )
        assert "Seccomp:\t2\n" in status
        assert status.splitlines()[-2:] == [Path(f"/proc/{pid}/oom_score_adj").read_text().strip(), "to-read"]

    await look()
    room.stop(kill=True)
    room.start()
    await door.until("joined", is_running)
    assert await appeared("811003") == [pid]
    await look()
    await door.call("DELETE", "joined?gracePeriodSeconds=0")
    assert not processes("811003")


def restarts(found: Group) -> int:
    """How often the container of a group was started again."""
    count: int = found["properties"]["containers"][0]["properties"]["instanceView"]["restartCount"]
    return count


async def test_a_container_that_is_started_again_has_the_same_range(door: FrontDoor) -> None:  # noqa: F811
    script = "cat /proc/self/uid_map; if [ -e /kept/file ]; then sleep 1000; fi; echo x >/kept/file; exit 1"
    asked = shell(script, volumeMounts=[{"name": "kept", "mountPath": "/kept"}])
    await door.call("PUT", "twice", group(asked, volumes=[{"name": "kept", "emptyDir": {}}]))
    await door.until("twice", lambda found: restarts(found) == 1 and is_running(found))
    before = (await door.call("GET", "twice/containers/web/logs?previous=true"))["content"]
    assert before
    assert (await door.call("GET", "twice/containers/web/logs"))["content"] == before
    await door.call("DELETE", "twice?gracePeriodSeconds=0")


async def test_a_container_sees_its_own_control_group_and_has_bounds(door: FrontDoor) -> None:  # noqa: F811
    text = await run(
        door,
        "bounds",
        "cat /proc/self/cgroup; echo; ulimit -n; ulimit -Hn; ulimit -c; ulimit -u; cat /proc/self/oom_score_adj; "
        "ls /dev | wc -l",
    )
    groups, _, rest = text.partition("\n\n")
    assert {line.rpartition(":")[2] for line in groups.splitlines()} == {"/"}
    soft, hard, core, most, score, _ = rest.split()
    assert 1024 <= int(soft) <= int(hard) <= 1_048_576
    assert core == "0"
    assert int(most) <= 32_768
    room_score = int(Path("/proc/self/oom_score_adj").read_text())
    assert max(3, room_score) <= int(score) <= 999, "not guaranteed: it goes before the rooms"


@pytest.mark.parametrize(
    ("image", "context", "why"),
    [
        ("web:v1", {}, "container has runAsNonRoot and image will run as root"),
        ("root:v1", {}, "container has runAsNonRoot and image will run as root"),
        (
            "named:v1",
            {},
            "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root",
        ),
        ("web:v1", {"runAsUser": 0}, "container's runAsUser breaks non-root policy"),
        ("number:v1", {}, None),
        ("named:v1", {"runAsUser": 1001}, None),
    ],
)
async def test_who_must_not_be_root_is_not(
    door: FrontDoor,  # noqa: F811
    registry: Registry,  # noqa: F811
    image: str,
    context: dict[str, Any],
    why: str | None,
) -> None:
    users = {"root:v1": "00:0", "named:v1": "web", "number:v1": "1001:1002"}
    if image in users:
        registry.push(image, [busybox_layer()], User=users[image])
    name = f"nonroot-{image[:3]}-{len(context)}"
    asked = container(image=image, command=["/bin/id"], securityContext={"runAsNonRoot": True, **context})
    body = group(asked, restartPolicy="Never")
    body["tags"] = {"PodName": "web", "Namespace": "default", "UID": "1-2"}
    await door.call("PUT", name, body)
    if why is None:
        await door.until(name, is_over)
        assert (await door.call("GET", f"{name}/containers/web/logs"))["content"].startswith("uid=1001(web)")
    else:
        found = await door.until(name, lambda item: "Failed" in events_of(item))
        assert state_of(found) == {"state": "Waiting", "detailStatus": "CreateContainerConfigError"}
        events = found["properties"]["containers"][0]["properties"]["instanceView"]["events"]
        assert f'Error: {why} (pod: "web_default(1-2)", container: web)' in [event["message"] for event in events]
    await door.call("DELETE", f"{name}?gracePeriodSeconds=0")


async def test_a_user_without_a_place_in_the_range_is_refused_by_name(door: FrontDoor) -> None:  # noqa: F811
    await door.call("PUT", "far", group(shell("id", securityContext={"runAsUser": 70_000}), restartPolicy="Never"))
    found = await door.until("far", is_over)
    events = found["properties"]["containers"][0]["properties"]["instanceView"]["events"]
    assert "ids from 0 to 65535 only" in events[-1]["message"]
    await door.call("DELETE", "far")


async def test_the_namespace_of_the_machine_is_not_to_be_had(door: FrontDoor) -> None:  # noqa: F811
    answer = await door.call("PUT", "host", group(container(), hostUsers=True), status=400)
    assert answer["error"]["target"] == "properties.hostUsers"
    await door.call("PUT", "own", group(container(), hostUsers=False), status=201)
    await door.call("DELETE", "own?gracePeriodSeconds=0")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Config]:
    """An installation of its own, of which at the end nothing is left."""
    config = install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=free_pod_cidr())
    yield config
    cleanup(config)
    assert not run_dir(config).exists()


async def test_groups_of_before_run_on_and_new_ones_have_a_namespace(
    alone: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where user namespaces cannot be had groups run without, which is said; they run on when that has changed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("runc", "conmon", "ip", "sh", "nft"):
        if path := shutil.which(program):
            (programs / program).symlink_to(path)
    running = RoomProcess(alone)
    with peer_registry(alone, tmp_path / "peer") as peer:
        peer.push("web:v1", [busybox_layer()])
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(programs))
            running.start()
        try:
            async with front_door(alone) as client:
                assert support_file(alone).read_text().startswith("off: unshare is not on PATH")
                refused = await client.call("PUT", "own", group(shell("id"), hostUsers=False), status=400)
                assert refused["error"]["code"] == "UserNamespacesNotSupported"
                await client.call("PUT", "old", group(shell("cat /proc/self/uid_map; sleep 811004 & wait; exit 1")))
                await client.until("old", is_running)
                [pid] = await appeared("811004")
                assert mapping(pid) == (0, 0, 2**32 - 1)
                running.stop(kill=True)
                running.start()
                assert support_file(alone).read_text() == "on (idmapped mounts)\n"
                await client.until("old", is_running)
                assert await appeared("811004") == [pid]
                os.kill(pid, 9)
                await client.until("old", lambda found: restarts(found) == 1 and is_running(found))
                assert mapping((await appeared("811004"))[0]) == (0, 0, 2**32 - 1)
                await client.call("PUT", "new", group(shell("sleep 811005 & wait")))
                await client.until("new", is_running)
                assert mapping((await appeared("811005"))[0])[2] == IDS
        finally:
            running.stop()
            cleanup(alone)


async def test_after_everything_was_taken_down_groups_run_again_with_a_range(alone: Config, tmp_path: Path) -> None:
    running = RoomProcess(alone)
    with peer_registry(alone, tmp_path / "peer") as peer:
        peer.push("web:v1", [busybox_layer()])
        running.start()
        try:
            asked = shell(
                "cat /kept/file; echo kept >/kept/file; sleep 811006 & wait",
                volumeMounts=[{"name": "v", "mountPath": "/kept"}],
            )
            async with front_door(alone) as client:
                await client.call("PUT", "again", group(asked, volumes=[{"name": "v", "emptyDir": {}}]))
                await client.until("again", is_running)
                await appeared("811006")
                running.stop()
                cleanup(alone)
                assert not processes("811006")
                assert not run_dir(alone).exists()
                running.start()
                await client.until("again", lambda found: is_running(found) and "Started" in events_of(found))
                [pid] = await appeared("811006")
                assert mapping(pid)[2] == IDS
                await client.call("DELETE", "again?gracePeriodSeconds=0")
        finally:
            running.stop()


async def test_without_idmapped_mounts_layers_are_copied(alone: Config, tmp_path: Path) -> None:
    old_kernel = (
        "import cumulet.instances.sandbox.idmap as idmap; idmap._MOUNT_SETATTR = 4095"  # a call that no kernel has
    )
    running = RoomProcess(alone, old_kernel)
    files = layer(
        entry("data", b"x", uid=1001, gid=1002, mode=0o4755),
        entry("bin/stat", type=b"2", linkname="busybox"),
        capable(),
    )
    with peer_registry(alone, tmp_path / "peer") as peer:
        peer.push("web:v1", [busybox_layer(), files])
        running.start()
        try:
            assert support_file(alone).read_text().startswith("on (copied layers")
            script = "cat /proc/self/uid_map /secret/key /kept/file; stat -Lc '%u:%g %a' /data /secret/key /kept; echo x >/data"
            volumes = [
                {"name": "secret", "secret": {"key": base64.b64encode(b"hidden\n").decode()}, "defaultMode": 0o400},
                {"name": "kept", "emptyDir": {}},
            ]
            mounts = [{"name": "secret", "mountPath": "/secret"}, {"name": "kept", "mountPath": "/kept"}]
            before = "echo first >/kept/file; /capable/cat /proc/self/status >/kept/status"
            first = shell(before, "first", volumeMounts=mounts, securityContext={"runAsUser": 1001})
            asked = shell(f"{script}; cat /kept/status", volumeMounts=mounts)
            async with front_door(alone) as client:
                body = group(asked, initContainers=[first], volumes=volumes, restartPolicy="Never")
                await client.call("PUT", "copied", body)
                found = await client.until("copied", is_over)
                said = (await client.call("GET", "copied/containers/web/logs"))["content"].splitlines()
                assert state_of(found)["exitCode"] == 0, said
                assert said[1:6] == ["hidden", "first", "1001:1002 4755", "0:0 400", "0:0 777"]
                assert f"CapEff:\t{1 << 10:016x}" in said
                assert int(said[0].split()[2]) == IDS
                await client.call("DELETE", "copied")
        finally:
            running.stop()


async def test_a_terminal_belongs_to_the_user_of_the_container(door: FrontDoor) -> None:  # noqa: F811
    await door.call("PUT", "terminal", group(shell("sleep 811007 & wait", securityContext={"runAsUser": 1001})))
    await door.until("terminal", is_running)
    await appeared("811007")
    offer = await door.call(
        "POST", "terminal/containers/web/exec", {"command": "/bin/sh -c 'id -u; echo x >/dev/tty'"}
    )
    output = b""
    async with door.session.ws_connect(offer["webSocketUri"]) as socket:
        await socket.send_str(offer["password"])
        async for message in socket:
            output += message.data
    assert output.split() == [b"1001", b"x"]
    await door.call("DELETE", "terminal?gracePeriodSeconds=0")
