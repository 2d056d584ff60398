"""Addresses that somebody wrote into a service's status: the balancer listens at those of its range only."""

from __future__ import annotations

import random
import socket
import uuid
from collections.abc import Iterator

import pytest

from cumulet.common.config import Address
from tests.cloud import Cloud
from tests.kube.conftest import Server


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cluster with a balancer."""
    external = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.0/24"
    made = Cloud(
        tmp_path_factory.mktemp("balancer") / "data",
        "kube",
        "balancer",
        external_cidr=external,
        user_space_proxy=True,
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> Server:
    """The API server."""
    return Server(cloud)


def _service(server: Server, port: int) -> str:
    """A service of the type LoadBalancer with an end point that is ready; its path."""
    name = f"b{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    spec = {"type": "LoadBalancer", "ports": [{"port": port}], "allocateLoadBalancerNodePorts": False}
    server.make(f"{space}/services", {"metadata": {"name": "s"}, "spec": spec})
    slice_ = {
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.241.9.9"]}],
        "ports": [{"port": 80}],
    }
    server.make(f"/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices", slice_)
    return f"{space}/services/s"


def _address(server: Server, service: str, other_than: str = "") -> str:
    """The address that a service has, or gets."""
    while True:
        ingress = server.call("GET", service).body["status"]["loadBalancer"].get("ingress") or [{}]
        if (address := ingress[0].get("ip", other_than)) != other_than:
            return str(address)


def _write(server: Server, service: str, address: str) -> None:
    status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
    answer = server.call("PATCH", f"{service}/status", status, **{"Content-Type": "application/merge-patch+json"})
    assert answer.status == 200, answer.body


def _listens(address: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_an_address_that_is_not_of_the_range_is_not_listened_at(cloud: Cloud, server: Server, address: str) -> None:
    port = Address("127.0.0.1", 0).free().port
    service = _service(server, port)
    own = _address(server, service)
    # The balancer takes up what it gave out before when it starts.
    cloud.stop("balancer")
    _write(server, service, address)
    cloud.start("balancer")
    given = _address(server, service, other_than=address)
    while not _listens(given, port):
        pass
    assert not _listens("127.0.0.1", port)
    assert given.rpartition(".")[0] == own.rpartition(".")[0]


def test_an_address_of_another_service_stays_that_services(cloud: Cloud, server: Server) -> None:
    ports = [Address("127.0.0.1", 0).free().port for _ in range(2)]
    first, second = (_service(server, port) for port in ports)
    taken = _address(server, first)
    own = _address(server, second)
    assert own != taken
    cloud.stop("balancer")
    _write(server, second, taken)
    cloud.start("balancer")
    assert _address(server, second, other_than=taken) != taken
    assert _address(server, first) == taken
