"""Kubernetes' controller manager on Cumulet's API server, Cumulet's on Kubernetes', and Kubernetes alone as reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cumulet.common.config import RoomName
from cumulet.controllers import endpoints, podgc
from cumulet.controllers import nodes as health
from tests.clients.control_plane import PROGRAMS, ControlPlane, needed
from tests.controllers import space as waiting
from tests.controllers import (
    test_daemonsets,
    test_deployments,
    test_garbage,
    test_housekeeping,
    test_jobs,
    test_statefulsets,
)
from tests.controllers.conftest import node, server, space
from tests.controllers.test_daemonsets import nodes
from tests.controllers.test_garbage import widgets
from tests.controllers.test_housekeeping import other

__all__ = ["node", "nodes", "other", "server", "space", "widgets"]

pytestmark = pytest.mark.clients

_COMBINATIONS: dict[str, frozenset[RoomName]] = {
    "their-controllers": frozenset({"controllers"}),
    "their-api-server": frozenset({"kube"}),
    "theirs-alone": frozenset({"kube", "scheduler", "controllers"}),
}

for _module in (test_daemonsets, test_deployments, test_garbage, test_housekeeping, test_jobs, test_statefulsets):
    globals().update({name: value for name, value in vars(_module).items() if name.startswith("test_")})
# Upstream does not join short slices.
del globals()["test_short_slices_are_joined"]
# Upstream counts nanoseconds in 64 bits, which end after 292 years.
del globals()["test_a_deadline_beyond_all_time_is_none"]
# Upstream removes the trigger time at the next sync, which may precede the test's read.
del globals()["test_end_points_by_their_own_ports"]


@pytest.fixture(scope="session", params=_COMBINATIONS.values(), ids=list(_COMBINATIONS))
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server, scheduler and controllers."""
    theirs: frozenset[RoomName] = request.param
    needed(*(PROGRAMS[name] for name in theirs), *(["etcd"] if "kube" in theirs else []))
    podgc.QUARANTINE = 0.5
    endpoints.PER_SLICE = 4
    health.GRACE = 16.0
    before, waiting.WAIT = waiting.WAIT, 110  # upstream searches for orphans at long intervals
    folder = tmp_path_factory.mktemp("plane") / "data"
    made = ControlPlane(folder, "kube", "scheduler", "controllers", theirs=theirs)
    yield made
    made.close()
    waiting.WAIT = before
