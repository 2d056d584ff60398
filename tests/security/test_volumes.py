"""A group's volumes are its own folders: no name, no path and no link of a group reaches another folder of the host."""

# ruff: noqa: F811  (fixtures of another folder are imported by the names under which they are used)

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.instances.conftest import door, machine, registry, room, shared_config  # noqa: F401
from tests.instances.door import FrontDoor, Group, events_of, group, is_over, shell, state_of


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
