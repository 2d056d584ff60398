"""A group's volumes are its own folders: no name, no path and no link of a group reaches another folder of the host."""

# ruff: noqa: F811  (fixtures of another folder are imported by the names under which they are used)

from __future__ import annotations

import asyncio
import base64
import ctypes
import os
import stat
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from cumulet.instances.model.properties import (
    Container,
    ContainerProperties,
    EmptyDir,
    GroupProperties,
    Mount,
    Volume,
)
from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.id_ranges import IDS
from cumulet.instances.sandbox.idmap import shift_owners
from cumulet.instances.sandbox.mounts import unmount_beneath
from cumulet.instances.sandbox.volumes import Volumes
from cumulet.instances.store.records import ContainerStatus, GroupRecord, GroupStatus, State
from cumulet.instances.store.store import Store
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
    shell,
    state_of,
)


@pytest.fixture
def host_folder(tmp_path: Path) -> Path:
    """A folder of the host that no container may reach, with a secret in it."""
    folder = tmp_path / "host"
    folder.mkdir(mode=0o700)
    (folder / "secret").write_text("of the host")
    return folder


def untouched(folder: Path) -> bool:
    """Whether a folder is as `host_folder` made it."""
    return stat.S_IMODE(folder.stat().st_mode) == 0o700 and [item.name for item in folder.iterdir()] == ["secret"]


def mounting(script: str, name: str = "web", *, volume: str = "v", **mount: Any) -> dict[str, Any]:
    """A container with a volume at `/v`."""
    return shell(script, name, volumeMounts=[{"name": volume, "mountPath": "/v", **mount}])


VOLUME = {"name": "v", "emptyDir": {}}

#: Makes a symbolic link `way` in the volume.
LINK = "/bin/busybox ln -s {} /v/way"


@pytest.mark.parametrize("form", ["{}", "../../../../../../../../../..{}", "x/../../../../../../../../../..{}"])
async def test_a_volume_name_is_no_path(door: FrontDoor, host_folder: Path, form: str) -> None:
    name = form.format(host_folder)
    body = group(mounting("cat /v/secret; echo >/v/made", volume=name), volumes=[{"name": name, "emptyDir": {}}])
    refused = await door.call("PUT", "named", body, status=400)
    assert refused["error"]["code"] == "InvalidRequestContent"
    assert refused["error"]["target"] == "properties.volumes[0].name"
    await door.call("GET", "named", status=404)
    assert untouched(host_folder)


async def test_a_sub_path_makes_no_folder_behind_a_link(door: FrontDoor, host_folder: Path) -> None:
    body = group(
        mounting("true", subPath="way/made"),
        initContainers=[mounting(LINK.format(host_folder), "first")],
        volumes=[VOLUME],
        restartPolicy="Never",
    )
    await door.call("PUT", "link", body)
    found = await door.until("link", is_over)
    assert state_of(found)["detailStatus"] == "StartError"
    assert "Failed" in events_of(found)
    assert untouched(host_folder)
    await door.call("DELETE", "link")


#: Has a link and a folder take turns at one name, for ever.
SWAP = """
cd /v
while true; do
  /bin/busybox rm -rf sub; /bin/busybox ln -s {} sub
  /bin/busybox rm -rf sub; /bin/busybox mkdir sub
done
"""


async def test_a_sub_path_that_is_swapped_for_a_link_leads_nowhere(door: FrontDoor, host_folder: Path) -> None:
    look = "cat /w/secret; echo made >/w/made; exit 1"
    numbers = range(1, 31)
    tries = [
        shell(
            look,
            f"try-{number}",
            volumeMounts=[{"name": "v", "mountPath": "/w", "subPath": "sub"}],
            resources={"requests": {"cpu": 0.01, "memoryInGB": 0.1}},
        )
        for number in numbers
    ]
    body = group(mounting(SWAP.format(host_folder), "swapping"), *tries, volumes=[VOLUME])

    def all_tried_again(found: Group) -> bool:
        """Whether each began a second time, when the swapping was under way."""
        views = [found["properties"]["containers"][number]["properties"].get("instanceView") for number in numbers]
        return all(view and view["restartCount"] and view["currentState"]["state"] != "Running" for view in views)

    await door.call("PUT", "race", body)
    await door.until("race", all_tried_again)
    logs = [(await door.call("GET", f"race/containers/try-{number}/logs"))["content"] for number in numbers]
    await door.call("DELETE", "race?gracePeriodSeconds=0")
    assert not [log for log in logs if "of the host" in log]
    assert untouched(host_folder)


@pytest.mark.parametrize("path", ["way", "way/secret", "kept/way/secret", "way/../kept"])
async def test_a_sub_path_follows_no_link(door: FrontDoor, host_folder: Path, path: str) -> None:
    body = group(
        mounting("cat /v/secret /v; echo made >/v/made", subPath=path),
        initContainers=[mounting(f"/bin/busybox mkdir /v/kept; {LINK.format(host_folder)}; cd /v/kept; "
                                 f"/bin/busybox ln -s {host_folder} way", "first")],
        volumes=[VOLUME],
        restartPolicy="Never",
    )  # fmt: skip
    if ".." in path:
        await door.call("PUT", "follow", body, status=400)
        return
    await door.call("PUT", "follow", body)
    found = await door.until("follow", is_over)
    assert state_of(found)["detailStatus"] == "StartError"
    assert untouched(host_folder)
    await door.call("DELETE", "follow")


async def test_a_sub_path_is_a_folder_or_file_of_its_volume(door: FrontDoor) -> None:
    mounts = [
        {"name": "v", "mountPath": "/made", "subPath": "new/folder"},
        {"name": "v", "mountPath": "/a-file", "subPath": "kept/file"},
        {"name": "s", "mountPath": "/secret-file", "subPath": "deep/key"},
    ]
    body = group(
        shell("echo in >/made/it; cat /a-file /secret-file; ls /whole/new/folder; id -u",
              volumeMounts=[*mounts, {"name": "v", "mountPath": "/whole"}], securityContext={"runAsUser": 1001}),
        initContainers=[mounting("/bin/busybox mkdir /v/kept; echo kept >/v/kept/file", "first")],
        volumes=[VOLUME, {"name": "s", "secret": {"deep/key": base64.b64encode(b"key\n").decode()}}],
        restartPolicy="Never",
    )  # fmt: skip
    await door.call("PUT", "inside", body)
    await door.until("inside", is_over)
    assert (await door.call("GET", "inside/containers/web/logs"))["content"].split() == ["kept", "key", "it", "1001"]
    await door.call("DELETE", "inside")


async def test_a_sub_path_that_is_a_pipe_is_refused(door: FrontDoor) -> None:
    body = group(
        mounting("true", subPath="pipe"),
        initContainers=[mounting("/bin/busybox mkfifo /v/pipe", "first")],
        volumes=[VOLUME],
        restartPolicy="Never",
    )
    await door.call("PUT", "pipe", body)
    found = await door.until("pipe", is_over)
    assert state_of(found)["detailStatus"] == "StartError"
    await door.call("DELETE", "pipe")


_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _EXCHANGE = -100, 2


def exchange(first: Path, second: Path) -> None:
    """Have two names take each other's place at once (renameat2(2))."""
    assert _LIBC.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _EXCHANGE) == 0


def test_hundreds_of_swaps_lead_nowhere(tmp_path: Path, host_folder: Path) -> None:
    """What is mounted is never the host's folder, whenever the link takes the place of the volume's."""
    mount = Mount(name="v", mount_path="/v", sub_path="a/b/new")
    properties = ContainerProperties(image="web", volume_mounts=[mount])
    web = Container(name="web", properties=properties)
    asked = GroupProperties(containers=[web], volumes=[Volume(name="v", empty_dir=EmptyDir())])
    volumes = Volumes(tmp_path / "group", asked, tmp_path / "before", FileShares([]), DiskFolders(tmp_path / "disks"))
    volumes.make()
    inside = tmp_path / "group" / "volumes" / "0" / "a"
    (inside / "b").mkdir(parents=True)
    (inside / "way").symlink_to(host_folder)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            exchange(inside / "b", inside / "way")

    swapping = threading.Thread(target=swap)
    swapping.start()
    refused = 0
    try:
        for number in range(400):
            target = tmp_path / f"mounts-{number}"
            try:
                ((source, *_),) = volumes.mount(web, target)
                (source / "made").touch()
                assert not (source / "secret").exists()
            except SandboxError:
                refused += 1
            finally:
                unmount_beneath(target)
    finally:
        over.set()
        swapping.join()
    assert 0 < refused < 400, "both were seen"
    assert untouched(host_folder)


def test_a_file_that_is_swapped_for_a_link_gives_the_host_no_mode(tmp_path: Path) -> None:
    """Where files cannot be mounted with mapped owners they are given away, while containers of the group write there."""
    volume, victim = tmp_path / "volume", tmp_path / "victim"
    volume.mkdir()
    victim.touch()
    victim.chmod(0o600)
    (volume / "file").touch()
    (volume / "file").chmod(0o6777)
    (volume / "way").symlink_to(victim)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            exchange(volume / "file", volume / "way")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(4000):
            shift_owners(volume, 1 << 20, IDS)
    finally:
        over.set()
        swapping.join()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert victim.stat().st_uid == 0
    file, way = sorted((item.lstat() for item in volume.iterdir()), key=lambda found: stat.S_ISLNK(found.st_mode))
    assert (file.st_uid, way.st_uid, stat.S_IMODE(file.st_mode)) == (1 << 20, 1 << 20, 0o6777)


def test_a_file_is_written_beneath_its_folder_only(tmp_path: Path, host_folder: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "way").symlink_to(host_folder)
    (folder / "key").symlink_to(host_folder / "secret")
    descriptor = beneath.open_folder(folder)
    try:
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            beneath.write_file(descriptor, ["way", "secret"], b"over", 0o644)
        beneath.write_file(descriptor, ["key"], b"new", 0o600)
    finally:
        os.close(descriptor)
    assert (host_folder / "secret").read_text() == "of the host"
    assert (folder / "key").read_text() == "new"


# What a group has on disk.


async def test_names_of_containers_and_volumes_meet_nowhere(door: FrontDoor) -> None:
    """Folders by names would be each other's: a container's bundle in another's volume."""
    names = ("volumes", "files", "containers", "0", "1")
    volumes = [{"name": name, "emptyDir": {}} for name in names]
    mounts = [{"name": name, "mountPath": f"/{name}x"} for name in names]
    containers = [shell("ls /volumesx /filesx /containersx /0x /1x", name, volumeMounts=mounts) for name in names[:3]]
    small = {"requests": {"cpu": 0.1, "memoryInGB": 0.1}}
    for item in containers:
        item["properties"]["resources"] = small
    await door.call("PUT", "names", group(*containers, volumes=volumes, restartPolicy="Never"))
    found = await door.until("names", is_over)
    assert found["properties"]["instanceView"]["state"] == "Succeeded"
    for name in names[:3]:
        log = (await door.call("GET", f"names/containers/{name}/logs"))["content"]
        assert [line for line in log.split() if not line.endswith(":")] == []
    await door.call("DELETE", "names")


async def test_a_deep_folder_is_removed(door: FrontDoor, room: RoomProcess) -> None:
    deep = "cd /v; i=0; while [ $i -lt 1500 ]; do /bin/busybox mkdir d; cd d; i=$((i+1)); done; echo deep"
    before = folders(room)
    await door.call("PUT", "deep", group(mounting(deep), volumes=[VOLUME], restartPolicy="Never"))
    await door.until("deep", is_over)
    assert (await door.call("GET", "deep/containers/web/logs"))["content"] == "deep\n"
    await door.call("DELETE", "deep")
    assert folders(room) == before


def folders(room: RoomProcess) -> set[str]:
    """The folders of groups."""
    return {path.name for path in (room.config.room_dir("instances") / "sandboxes").glob("*")}


async def test_other_volumes_are_another_group(door: FrontDoor) -> None:
    """A volume's number is its place: what is there must stay there."""
    second = {"name": "w", "emptyDir": {"medium": "Memory"}}
    await door.call("PUT", "fixed", group(mounting("sleep 1000"), volumes=[VOLUME, second]))
    for volumes in ([second, VOLUME], [VOLUME], [VOLUME, {"name": "w", "emptyDir": {}}], [second, VOLUME, VOLUME]):
        await door.call("PUT", "fixed", group(mounting("sleep 1000"), volumes=volumes), status=400)
    await door.call("PUT", "fixed", group(mounting("sleep 1000"), volumes=[VOLUME, second]), status=200)
    await door.call("DELETE", "fixed?gracePeriodSeconds=0")


# Groups of an earlier version.


def stored(room: RoomProcess, door: FrontDoor, name: str, body: Group) -> str:
    """Store a group as earlier versions did, while the room is away: its `uid`."""
    properties = {**body["properties"]}
    uid, path = str(uuid.uuid4()), f"{door.provider}/containerGroups/{name}"
    status = GroupStatus(state="Running", provisioning_state="Succeeded", ip="")
    status.containers["web"] = ContainerStatus(current_state=State("Running"), attempt=1)
    store = Store(room.config.room_dir("instances"))
    store.open()
    try:
        record = GroupRecord(uid, path.lower(), path, "eastus", {}, properties, status)  # type: ignore[arg-type]
        asyncio.run(store.put(record))
    finally:
        store.close()
    return uid


def test_an_earlier_groups_volumes_are_kept(room: RoomProcess) -> None:
    asyncio.run(_an_earlier_groups_volumes_are_kept(room))


async def _an_earlier_groups_volumes_are_kept(room: RoomProcess) -> None:
    async with front_door(room.config) as door:
        room.stop()
        body = group(
            shell(
                "cat /v/kept",
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
                securityContext={"procMount": "Default", "runAsUser": 0},
            ),
            volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
            restartPolicy="OnFailure",
        )
        uid = await asyncio.to_thread(stored, room, door, "earlier", body)
        before = room.config.room_dir("instances") / "groups" / uid
        (before / "volumes" / "v").mkdir(parents=True)
        (before / "volumes" / "v" / "kept").write_text("from before\n")
        (before / "web").mkdir()
        (before / "web" / "1.log").write_text("2026-11-30T00:00:00.000000000Z stdout F of the first\n")
        room.start()
        await door.until("earlier", is_over)
        assert (await door.call("GET", "earlier/containers/web/logs"))["content"] == "from before\n"
        log = await door.call("GET", "earlier/containers/web/logs?previous=true")
        assert log["content"] == "of the first\n"
        await door.call("DELETE", "earlier")
        assert not before.exists()


def test_an_earlier_group_that_is_not_valid_ends_and_touches_nothing(room: RoomProcess, host_folder: Path) -> None:
    asyncio.run(_an_earlier_group_that_is_not_valid(room, host_folder))


async def _an_earlier_group_that_is_not_valid(room: RoomProcess, host_folder: Path) -> None:
    mounted = host_folder.parent / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted], check=True)  # noqa: ASYNC221  (at once)
    try:
        async with front_door(room.config) as door:
            room.stop()
            bad = [{"name": str(path), "emptyDir": {}} for path in (host_folder, mounted)]
            mounts = [{"name": item["name"], "mountPath": f"/{number}"} for number, item in enumerate(bad)]
            body = group(container(volumeMounts=mounts), volumes=bad)
            await asyncio.to_thread(stored, room, door, "hostile", body)
            room.start()
            found = await door.until("hostile", is_over)
            (event,) = found["properties"]["instanceView"]["events"]
            assert "was created by an earlier version and is not valid: The volume name" in event["message"]
            assert found["properties"]["provisioningState"] == "Failed"
            await door.call("DELETE", "hostile")
            await door.call("GET", "hostile", status=404)
        assert untouched(host_folder)
        assert mounted.is_mount()
    finally:
        subprocess.run(["umount", mounted], check=True)  # noqa: ASYNC221  (at once)
