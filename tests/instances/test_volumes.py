"""Volumes of a group: modes and sizes, the order of mounts, content that changes while containers run, the group's address."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from cumulet.instances.model.properties import Container, ContainerProperties, GroupProperties, Mount, Volume
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.mounts import unmount_beneath
from cumulet.instances.sandbox.ownership import give_tree
from cumulet.instances.sandbox.volumes import Volumes
from tests.instances.door import FrontDoor, container, events_of, group, is_over, is_running, shell


def secret(name: str, files: dict[str, str], **properties: Any) -> dict[str, Any]:
    """A volume with these files."""
    content = {path: base64.b64encode(text.encode()).decode() for path, text in files.items()}
    return {"name": name, "secret": content, **properties}


def mounts(**paths: str) -> list[dict[str, str]]:
    """The mounts of volumes, by name."""
    return [{"name": name, "mountPath": path} for name, path in paths.items()]


async def output(door: FrontDoor, name: str, of: str = "web") -> list[str]:
    """The lines that a container has written."""
    text: str = (await door.call("GET", f"{name}/containers/{of}/logs"))["content"]
    return text.splitlines()


async def test_files_have_their_modes_and_memory_its_size(door: FrontDoor) -> None:
    run = secret("run", {"go": "#!/bin/sh\necho it ran\n", "key": "k", "left": "out"}, defaultMode=0o640)
    run["items"] = [{"key": "go", "path": "bin/go", "mode": 0o755}, {"key": "key", "path": "key"}]
    script = """
    /run/bin/go; ls -L /run; stat -L -c %a /run/bin/go /run/key; stat -c %a /memory /disk
    cd /memory; dd if=/dev/zero of=full bs=1024 count=2048 2>/dev/null; stat -c %s full
    """
    memory = {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    disk = {"name": "disk", "emptyDir": {"sizeLimit": "1Gi"}}
    web = shell(script, volumeMounts=mounts(run="/run", memory="/memory", disk="/disk"))
    await door.call("PUT", "modes", group(web, volumes=[run, memory, disk], restartPolicy="Never"))
    shown = await door.until("modes", is_over)
    assert await output(door, "modes") == ["it ran", "bin", "key", "755", "640", "1777", "777", str(2**20)]
    assert shown["properties"]["volumes"][1:] == [memory, disk]
    assert shown["properties"]["volumes"][0]["items"] == run["items"]
    await door.call("DELETE", "modes")


async def test_no_mount_hides_another(door: FrontDoor) -> None:
    listed = mounts(inner="/a/b/c", middle="/a/b", outer="/a")
    listed.append({"name": "outer", "mountPath": "/a/hosts", "subPath": "file"})
    listed.append({"name": "inner", "mountPath": "/etc/hosts", "subPath": "it"})
    volumes = [secret(name, {"it": f"{name}\n", "file": "a file\n"}) for name in ("inner", "middle", "outer")]
    web = shell("cat /a/it /a/b/it /a/b/c/it /a/hosts /etc/hosts", volumeMounts=listed)
    # A read-only folder cannot get the folders where others are mounted.
    volumes[1:] = [{"name": name, "emptyDir": {}} for name in ("middle", "outer")]
    fill = shell(
        "echo outer >/o/it; echo a file >/o/file; echo middle >/m/it",
        "fill",
        volumeMounts=mounts(outer="/o", middle="/m"),
    )
    await door.call("PUT", "order", group(web, initContainers=[fill], volumes=volumes, restartPolicy="Never"))
    await door.until("order", is_over)
    assert await output(door, "order") == ["outer", "middle", "inner", "a file", "inner"]
    await door.call("DELETE", "order")


async def test_content_changes_while_the_container_runs(door: FrontDoor) -> None:
    script = """
    cat /v/k /one; exec 3</v/k
    while [ ! -e /v/new/k ]; do sleep 0.05; done
    cat /v/new/k /one <&3; ls /v; ls -A /v | grep -c '^\\.\\.2'; stat -L -c %a /v/new/k
    """
    one = {"name": "v", "mountPath": "/one", "subPath": "k"}
    web = shell(script, volumeMounts=[*mounts(v="/v"), one])
    body = group(web, volumes=[secret("v", {"k": "old\n"}), secret("other", {"o": "o"})], restartPolicy="Never")
    body["tags"] = {"kept": "yes"}
    await door.call("PUT", "live", body)
    await door.until("live", is_running)
    changed = secret("v", {"new/k": "new\n"}, defaultMode=0o600)
    answer = await door.call("PATCH", "live", {"properties": {"volumes": [changed]}})
    assert answer["tags"] == {"kept": "yes"}
    found = await door.until("live", is_over)
    # What is mounted by its subPath stays, as with a kubelet.
    assert await output(door, "live") == ["old", "old", "new", "old", "new", "1", "600"]
    assert [volume["name"] for volume in found["properties"]["volumes"]] == ["v", "other"]
    assert found["properties"]["volumes"][0]["secret"] == {"new/k": ""}
    await door.call("DELETE", "live")


@pytest.mark.parametrize(
    ("properties", "target"),
    [
        ({"restartPolicy": "Never"}, "properties"),
        ({"containers": [{"name": "absent", "properties": {}}]}, "properties.containers[0].name"),
        ({"initContainers": [{"name": "web", "properties": {}}]}, "properties.initContainers[0].name"),
        ({"containers": [{"name": "web", "properties": {"image": "x"}}]}, "properties.containers[0].properties"),
        ({"containers": [{"name": "web", "properties": {"command": ["\0"]}}]}, "properties.containers[0].properties"),
        ({"volumes": [secret("absent", {"k": "v"})]}, "properties.volumes[0]"),
        ({"volumes": [secret("empty", {"k": "v"})]}, "properties.volumes[0]"),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, "properties.volumes[0]"),
        ({"volumes": [secret("v", {"k": "v"}), secret("v", {"k": "v"})]}, "properties.volumes[1].name"),
        ({"volumes": [secret("v", {"..data/k": "v"})]}, "properties.volumes[0].secret"),
        (
            {"volumes": [secret("v", {"k": "v"}, items=[{"key": "x", "path": "x"}])]},
            "properties.volumes[0].items[0].key",
        ),
        (
            {"volumes": [secret("v", {"k": "v"}, items=[{"key": "k", "path": "a"}, {"key": "k", "path": "a/b"}])]},
            "properties.volumes[0].items",
        ),
    ],
)
async def test_nothing_else_changes_in_place(door: FrontDoor, properties: dict[str, Any], target: str) -> None:
    body = group(shell("sleep 100"), volumes=[secret("v", {"k": "v"}), {"name": "empty", "emptyDir": {}}])
    await door.call("PUT", "fixed", body)
    refused = await door.call("PATCH", "fixed", {"properties": properties}, status=400)
    assert refused["error"]["target"] == target


async def test_the_address_is_put_in_and_nothing_else(door: FrontDoor) -> None:
    def expanding(name: str, expand: bool) -> dict[str, Any]:
        variables = [
            {"name": "ADDRESS", "value": "$(status.podIP)"},
            {"name": "SECURE", "secureValue": "$$(status.podIP) $(status.podIPs) $(OTHER) $$$$"},
        ]
        script = 'echo "$ADDRESS|$SECURE|$0|$1"; ls /v'
        return container(
            name,
            command=["/bin/sh", "-c", script, "--a=$(status.podIP)"],
            args=["$$HOME"],
            environmentVariables=variables,
            volumeMounts=[{"name": "e", "mountPath": "/v"}, {"name": "e", "mountPath": "/own", "subPath": "$(status.podIP)"}],
            expandFields=expand,
        )  # fmt: skip

    body = group(
        expanding("web", False),
        initContainers=[expanding("first", True)],
        volumes=[{"name": "e", "emptyDir": {}}],
        restartPolicy="Never",
    )
    await door.call("PUT", "address", body)
    found = await door.until("address", is_over)
    address = found["properties"]["ipAddress"]["ip"]
    assert await output(door, "address", "first") == [
        f"{address}|$(status.podIP) {address} $(OTHER) $$|--a={address}|$HOME",
        address,
    ]
    plain = "$(status.podIP)"
    assert (await output(door, "address"))[0] == (
        f"{plain}|$$(status.podIP) $(status.podIPs) $(OTHER) $$$$|--a={plain}|$$HOME"
    )
    assert events_of(found).count("Created") == 1
    await door.call("DELETE", "address")


def test_a_clone_is_given_to_a_group_and_no_link_is_followed(tmp_path: Path) -> None:
    outside, clone = tmp_path / "outside", tmp_path / "clone"
    outside.mkdir(mode=0o700)
    (clone / "folder").mkdir(parents=True)
    (clone / "folder" / "file").write_text("text")
    (clone / "link").symlink_to(outside)
    for path in (clone, clone / "folder"):
        path.chmod(0o755)
    (clone / "folder" / "file").chmod(0o640)
    give_tree(clone, 2000)
    found = {
        path: (path.lstat().st_gid, path.lstat().st_mode & 0o7777) for path in (clone, *clone.rglob("*"), outside)
    }
    assert found[clone] == found[clone / "folder"] == (2000, 0o2775)
    assert found[clone / "folder" / "file"] == (2000, 0o660)
    assert found[clone / "link"][0] == 2000
    assert found[outside] == (os.getegid(), 0o700)


def test_a_file_can_be_mounted_whenever_its_volume_changes(tmp_path: Path) -> None:
    def volume(number: int) -> Volume:
        return Volume(name="v", secret={"k": base64.b64encode(str(number).encode()).decode()})

    mount = Mount(name="v", mount_path="/k", sub_path="k")
    web = Container(name="web", properties=ContainerProperties(image="web", volume_mounts=[mount]))
    asked = GroupProperties(containers=[web], volumes=[volume(0)])
    volumes = Volumes(tmp_path / "group", asked, tmp_path / "before", FileShares(()), DiskFolders(tmp_path / "disks"))
    volumes.make()
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            volumes.replace([volume(number)])

    changing = threading.Thread(target=change)
    changing.start()
    try:
        found = []
        for number in range(100):
            target = tmp_path / f"mounts-{number}"
            ((source, *_),) = volumes.mount(web, target)
            found.append(int(source.read_text()))
            unmount_beneath(target)
        assert found == sorted(found)
        assert found[-1] > found[0]
    finally:
        over.set()
        changing.join()
        unmount_beneath(tmp_path / "group")
