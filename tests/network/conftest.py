"""An API server, and a name server that watches it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from cumulet.network.dns import clients, forwarder
from tests.cloud import Cloud
from tests.controllers.space import Space
from tests.kube.conftest import Program, Server, programs
from tests.network.name_servers import Peer, Served


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The API server."""
    made = Cloud(tmp_path_factory.mktemp("network") / "data", "kube")
    yield made
    made.close()


@pytest.fixture
def space(control_plane: Cloud, tmp_path: Path) -> Space:
    """A namespace of the test's own."""
    server = Server(control_plane)
    name = f"t{uuid.uuid4().hex[:10]}"
    server.namespace(name)
    kubeconfig = control_plane.config.kubeconfig_file("admin")
    return Space(server, Program(programs("kubectl")[0], kubeconfig, name, tmp_path))


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for /etc/hosts of the machine."""
    file = tmp_path_factory.mktemp("etc") / "hosts"
    file.write_text("127.44.1.2 acrdemo.azurecr.io alias.example # a comment\nnonsense\n::1 six.example\n")
    return file


def of_groups(query: dns.message.Message) -> dns.message.Message:
    """Answer as the name server of the zone of container groups."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    response.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "10.241.0.77"))
    return response


@pytest.fixture(scope="session")
def served(control_plane: Cloud, hosts: Path) -> Iterator[Served]:
    """The name server. It waits less for others than usual."""
    forwarder.TRY, forwarder.LIMIT, clients.PATIENCE = 1.0, 1.5, 2.0
    groups = Peer(of_groups)
    made = Served(control_plane, hosts, groups.address)
    yield made
    made.close()
    groups.close()
