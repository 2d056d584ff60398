"""An installation, a peer registry and a running room, that the tests share."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from cumulet.common.config import DEFAULT_PORTS, Config, FileShare, save
from cumulet.common.egress import Exempt
from cumulet.up.install import install
from tests.cloud import PEERS
from tests.installation import free_pod_cidr
from tests.instances.door import SHARE_KEY, FrontDoor, RoomProcess, front_door, running_room
from tests.instances.images import Registry, busybox_layer, page_layer, peer_registry


@pytest.fixture(scope="session", autouse=True)
def machine() -> None:
    """What these tests need of the machine; without it they fail rather than say nothing."""
    assert os.geteuid() == 0, "these tests run containers: they need root"
    for program in ("runc", "conmon", "ip", "skopeo", "docker-registry", "busybox"):
        assert shutil.which(program), f"these tests need {program}"


@pytest.fixture(scope="session")
def shared_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An installation that the tests share, with the file share `data` of the account `storage`."""
    folder = tmp_path_factory.mktemp("shared")
    installed = install(
        folder / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=free_pod_cidr(), allow_egress=[Exempt(PEERS)]
    )
    (folder / "share").mkdir(mode=0o700)
    share = FileShare(account="storage", name="data", folder=folder / "share", key=SHARE_KEY)
    config = msgspec.structs.replace(installed, file_shares=[share])
    save(config)
    return config


@pytest.fixture(scope="session")
def registry(shared_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with `web:v1`, an image of a web server."""
    with peer_registry(shared_config, tmp_path_factory.mktemp("peer") / "registry") as peer:
        peer.push(
            "web:v1",
            [busybox_layer(), page_layer()],
            Entrypoint=["/bin/httpd", "-f", "-v", "-h", "/www", "-p"],
            Cmd=["80"],
            WorkingDir="/www",
        )
        yield peer


@pytest.fixture(scope="session")
def room(shared_config: Config, registry: Registry) -> Iterator[RoomProcess]:
    """A running room whose registry is the peer."""
    with running_room(shared_config) as running:
        yield running


@pytest.fixture
async def door(room: RoomProcess) -> AsyncIterator[FrontDoor]:
    """The front door of the shared room."""
    async with front_door(room.config) as client:
        yield client
