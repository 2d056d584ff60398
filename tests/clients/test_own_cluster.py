"""The whole path in a cluster with Kubernetes' API server, with rooms started as in docs/own-cluster.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common.config import RoomName
from tests.clients.control_plane import PROGRAMS, ControlPlane, needed
from tests.end_to_end import test_path
from tests.end_to_end.conftest import cluster
from tests.installation import Installation

__all__ = ["cluster"]

pytestmark = pytest.mark.clients

#: The components of the control plane that are Kubernetes'. The others are Cumulet's rooms, started one by one.
_THEIRS: dict[str, frozenset[RoomName]] = {
    "our-scheduler-and-controllers": frozenset({"kube"}),
    "their-control-plane": frozenset({"kube", "scheduler", "controllers"}),
}
#: Steps that test an installation's own control plane.
_OWN = ("test_every_room_is_ready", "test_a_room_that_is_killed_is_started_again", "test_what_it_uses")

globals().update(
    {name: value for name, value in vars(test_path).items() if name.startswith("test_") and name not in _OWN}
)


class Guest(Installation):
    """An installation in another cluster."""

    def __init__(self, data_dir: Path, plane: ControlPlane) -> None:
        super().__init__(data_dir)
        self.plane = plane

    def up(self, *options: str) -> str:
        """Start the installation as the service account of examples/own-cluster/roles.yaml."""
        output = super().up(*options, "--kubeconfig", str(self._kubeconfig()), *self._authority())
        # The user is an administrator.
        self.environment["KUBECONFIG"] = str(self.plane.config.kubeconfig_file("admin"))
        return output

    def _authority(self) -> tuple[str, str]:
        """Return the option for the CA of the API server's client certificate for kubelets."""
        return "--client-ca", str(self.plane.config.authority_file("kubelet-client"))

    def _kubeconfig(self) -> Path:
        admin = self.plane.config.kubeconfig_file("admin")
        kubectl = ("kubectl", "--kubeconfig", str(admin))
        token = self.run(*kubectl, "--namespace=kube-system", "create", "token", "cumulet").strip()
        # The kubeconfig has both users. The rooms use the current context.
        document = json.loads(self.run(*kubectl, "config", "view", "--raw", "-o", "json"))
        document["users"] = [{"name": document["users"][0]["name"], "user": {"token": token}}]
        path = self.data_dir.with_name("cumulet.kubeconfig")
        path.write_text(json.dumps(document))
        return path


@pytest.fixture(scope="module", params=_THEIRS.values(), ids=list(_THEIRS))
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The rooms with another control plane."""
    theirs: frozenset[RoomName] = request.param
    needed(*(PROGRAMS[name] for name in theirs), "etcd")
    folder = tmp_path_factory.mktemp("own-cluster")
    plane = ControlPlane(
        folder / "plane", *(room for room in PROGRAMS if room in theirs), theirs=theirs, knows_nodes=False
    )
    made = Guest(folder / "data", plane)
    ours = [_start(made, room, folder) for room in ("scheduler", "controllers") if room not in theirs]
    try:
        made.up()
        yield made
    finally:
        made.down()
        for process in ours:
            process.terminate()
            process.wait()
        plane.close()


def _start(installation: Guest, room: str, folder: Path) -> subprocess.Popen[bytes]:
    """Run one room with the kubeconfig of its Kubernetes user."""
    kubeconfig = installation.plane.config.kubeconfig_file("scheduler" if room == "scheduler" else "controllers")
    command = ["cumulet", "--data-dir", str(folder / room), room, "--kubeconfig", str(kubeconfig), "--port", "0"]
    with (folder / f"{room}.log").open("wb") as log:
        return subprocess.Popen(command, env=installation.environment, stdout=log, stderr=log)
