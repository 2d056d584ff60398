"""An API server, and a name server that watches it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from cumulet.common import router
from cumulet.network.dns import clients, forwarder
from tests.cloud import Cloud
from tests.controllers.space import Space
from tests.kube.conftest import Program, Server, programs
from tests.network.name_servers import Peer, Served
from tests.network.pods import Client, Pod
from tests.network.services import Services, ranges


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
    made = Served(control_plane.config, hosts, groups.address)
    yield made
    made.close()
    groups.close()


@pytest.fixture(scope="module")
def networked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms kube, network and balancer."""
    made = Cloud(tmp_path_factory.mktemp("network") / "data", "kube", "network", "balancer", **ranges())
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def pods(networked: Cloud) -> Iterator[dict[str, Pod]]:
    """Three pods, which serve TCP at 8080 and 9090, and a client that serves nothing."""
    router.ensure(networked.config)
    made = {
        name: Pod(networked.config, name, number) for number, name in enumerate(("one", "two", "three", "client"), 10)
    }
    for pod in made.values():
        if pod.name != "client":
            pod.serve(8080)
            pod.serve(9090)
    yield made
    for pod in made.values():
        pod.close()


@pytest.fixture
def services(networked: Cloud, tmp_path: Path) -> Iterator[Services]:
    """A new namespace. Its Services are deleted at the end."""
    server = Server(networked)
    name = f"t{uuid.uuid4().hex[:10]}"
    space = Space(server, Program(programs("kubectl")[0], networked.config.kubeconfig_file("admin"), name, tmp_path))
    space.make("namespaces", {"metadata": {"name": name}})
    yield Services(space, networked)
    for service in space.names("services"):
        space.delete("services", service)


@pytest.fixture(scope="session")
def machine() -> Client:
    """A client on the machine."""
    return Client(None)


@pytest.fixture
def client(pods: dict[str, Pod]) -> Client:
    """A client in a pod that serves nothing."""
    return Client(pods["client"].namespace)
