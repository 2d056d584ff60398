"""Layers that want out of their root, or are not what they say, are refused and leave nothing behind."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.instances.door import FrontDoor, container, group, is_over, state_of
from tests.instances.images import Registry, busybox_layer, entry, layer


@pytest.mark.parametrize(
    ("name", "bad", "reason"),
    [
        ("dots", layer(entry("../../escaped", b"out")), "a path outside its root"),
        ("through-file", layer(entry("way"), entry("way/escaped", b"out")), "writes through 'way'"),
        ("whiteout", layer(entry("bin/.wh...", b"")), "a whiteout of nothing"),
        (
            "hard-link",
            layer(entry("copy", type=tarfile.LNKTYPE, linkname="../../etc/shadow")),
            "a path outside its root",
        ),
        ("not-tar", b"\x01" * 1024, "the archive is not valid"),
        ("short", layer(entry("big", b"x" * 4096))[:1024], "ends within an entry"),
    ],
)
async def test_a_layer_that_is_not_right_is_refused(
    door: FrontDoor, registry: Registry, name: str, bad: bytes, reason: str
) -> None:
    registry.push(f"{name}:v1", [busybox_layer(), bad], Cmd=["/bin/true"])
    await door.call("PUT", name, group(container(image=f"{name}:v1"), restartPolicy="Never"))
    found = await door.until(name, lambda group: state_of(group).get("detailStatus") == "ImagePullBackOff")
    events = found["properties"]["containers"][0]["properties"]["instanceView"]["events"]
    assert any(reason in event["message"] for event in events), events
    assert not Path("/tmp/escaped").exists()
    await door.call("DELETE", name)


async def test_whiteouts_and_links_between_layers_are_followed(door: FrontDoor, registry: Registry) -> None:
    first = layer(
        entry("data", type=tarfile.DIRTYPE, mode=0o755), entry("data/gone", b"1"), entry("data/kept", b"2"),
        entry("old", type=tarfile.DIRTYPE, mode=0o755), entry("old/hidden", b"3"),
    )  # fmt: skip
    second = layer(
        entry("data/.wh.gone"), entry("old/.wh..wh..opq"), entry("old/new", b"4"),
        entry("data/link", type=tarfile.LNKTYPE, linkname="old/new"),
    )  # fmt: skip
    registry.push("layers:v1", [busybox_layer(), first, second])
    command = ["/bin/sh", "-c", "ls /data /old; cat /data/link"]
    body = group(container(image="layers:v1", command=command), restartPolicy="Never")
    await door.call("PUT", "layers", body)
    await door.until("layers", is_over)
    content = (await door.call("GET", "layers/containers/web/logs"))["content"]
    assert content.split() == ["/data:", "kept", "link", "/old:", "new", "4"]
    await door.call("DELETE", "layers")
