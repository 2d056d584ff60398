"""Kubernetes' scheduler on Cumulet's API server, Cumulet's on Kubernetes', and Kubernetes alone as reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cumulet.common.config import RoomName
from tests.clients.control_plane import PROGRAMS, ControlPlane, needed
from tests.scheduler import test_messages, test_placing
from tests.scheduler.conftest import node, space

__all__ = ["node", "space"]

pytestmark = pytest.mark.clients

_COMBINATIONS: dict[str, frozenset[RoomName]] = {
    "their-scheduler": frozenset({"scheduler"}),
    "their-api-server": frozenset({"kube"}),
    "theirs-alone": frozenset({"kube", "scheduler"}),
}

for _module in (test_messages, test_placing):
    globals().update({name: value for name, value in vars(_module).items() if name.startswith("test_")})
# Kubernetes' scheduler has a new identity after each start.
del globals()["test_a_successor_goes_on_with_the_lease"]


@pytest.fixture(scope="session", params=_COMBINATIONS.values(), ids=list(_COMBINATIONS))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server and scheduler."""
    theirs: frozenset[RoomName] = request.param
    needed(*(PROGRAMS[name] for name in theirs), *(["etcd"] if "kube" in theirs else []))
    made = ControlPlane(tmp_path_factory.mktemp("plane") / "data", "kube", "scheduler", theirs=theirs)
    yield made
    made.close()
