"""An API server and a balancer, and stand-in servers for the pods behind Services."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import PEERS, Cloud
from tests.controllers.space import WAIT, Object, Space
from tests.kube.conftest import Program, Server, programs


class Endpoint:
    """A server that sends its name on each connection, at an address that the balancer may connect to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.create_server((PEERS, 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the socket was closed
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.sendall(self.name.encode())

    def close(self) -> None:
        """Stop the server."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


class Balanced:
    """Services of a namespace, and connections through the balancer."""

    def __init__(self, space: Space) -> None:
        self.space = space

    def service(self, name: str, ports: list[Object], **spec: object) -> Object:
        """Create a Service of type LoadBalancer without a selector."""
        body = {"metadata": {"name": name}, "spec": {"type": "LoadBalancer", "ports": ports, **spec}}
        return self.space.make("services", body)

    def slice(self, service: str, port: int, ready: bool = True, name: str = "", suffix: str = "a") -> None:
        """Create an EndpointSlice with one endpoint."""
        body = {
            "metadata": {"name": f"{service}-{suffix}", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [PEERS], "conditions": {"ready": ready}}],
            "ports": [{"name": name, "port": port, "protocol": "TCP"}],
        }
        self.space.make("endpointslices", body)

    def address(self, name: str) -> str:
        """Wait for the EXTERNAL-IP of a Service."""
        found = self.space.wait("services", name, lambda service: ingress(service))
        return str(ingress(found)[0]["ip"])

    def connect(self, host: str, port: int) -> str | None:
        """Return the name that the endpoint behind an address sends, or `None` if the connection is refused."""
        try:
            with socket.create_connection((host, port), timeout=WAIT) as connection:
                return connection.makefile().read()
        except (ConnectionRefusedError, ConnectionResetError):
            return None

    def wait(self, host: str, port: int, *expected: str | None) -> str | None:
        """Connect until the result is one of `expected`, and return it. Each round makes a request of the API server."""
        until = time.monotonic() + WAIT
        while (found := self.connect(host, port)) not in expected:
            assert time.monotonic() < until, f"{host}:{port} returned {found}, expected {expected}"
            self.space.names("services")
        return found


def ingress(service: Object) -> list[Object]:
    """Return the addresses in the status of a Service."""
    found: list[Object] = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return found


@pytest.fixture(scope="module")
def balancing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, with a small range of EXTERNAL-IPs."""
    # Every address in 127.0.0.0/8 is local, so that other installations can use other ranges.
    external = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.0/28"
    made = Cloud(
        tmp_path_factory.mktemp("balancer") / "data",
        "kube",
        "balancer",
        external_cidr=external,
        user_space_proxy=True,
    )
    yield made
    made.close()


@pytest.fixture
def balanced(balancing: Cloud, tmp_path: Path) -> Iterator[Balanced]:
    """A new namespace. Its Services are deleted at the end, which releases their addresses."""
    server = Server(balancing)
    name = f"t{uuid.uuid4().hex[:10]}"
    space = Space(server, Program(programs("kubectl")[0], balancing.config.kubeconfig_file("admin"), name, tmp_path))
    space.make("namespaces", {"metadata": {"name": name}})
    yield Balanced(space)
    for service in space.names("services"):
        space.delete("services", service)


@pytest.fixture
def endpoints() -> Iterator[tuple[Endpoint, Endpoint]]:
    """Two servers, `one` and `two`."""
    made = Endpoint("one"), Endpoint("two")
    yield made
    for endpoint in made:
        endpoint.close()
