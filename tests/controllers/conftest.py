"""A cluster of our API server, scheduler and controllers with a stand-in node."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.controllers import endpoints, nodes, podgc
from tests.cloud import Cloud
from tests.controllers.node import StandInNode
from tests.controllers.space import Space
from tests.kube.conftest import Program, Server, programs


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running. Nodes and their pods are not waited for as long as usual; slices are short."""
    podgc.QUARANTINE = 0.5
    nodes.GRACE = 10.0
    endpoints.PER_SLICE = 4
    made = Cloud(tmp_path_factory.mktemp("controllers") / "data", "kube", "scheduler", "controllers")
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(cluster: Cloud) -> Server:
    """The API server, called directly."""
    return Server(cluster)


@pytest.fixture(scope="session")
def node(server: Server) -> Iterator[StandInNode]:
    """A node on which pods run."""
    made = StandInNode(server, "node-1")
    yield made
    made.close()


@pytest.fixture
def space(server: Server, node: StandInNode, tmp_path: Path) -> Space:
    """A namespace of the test's own."""
    return new_space(server, tmp_path)


def new_space(server: Server, folder: Path) -> Space:
    """Return a new namespace. `folder` is that of kubectl's files."""
    name = f"t{uuid.uuid4().hex[:10]}"
    kubeconfig = server.cloud.config.kubeconfig_file("admin")
    made = Space(server, Program(programs("kubectl")[0], kubeconfig, name, folder))
    made.make("namespaces", {"metadata": {"name": name}})
    made.wait("serviceaccounts", "default")
    return made
