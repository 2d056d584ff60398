"""Bodies that are within the limit and made to take long: each is answered soon, and others are answered meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import threading
import uuid
from collections.abc import Iterator

import pytest

from cumulet.common import tls
from tests.cloud import Cloud
from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

_YAML = {"Content-Type": "application/yaml"}
#: Python's hashes of whole numbers are their remainders of this (`sys.hash_info.modulus`).
_MODULUS = (1 << 61) - 1
#: Seconds of the processor that a body may cost. Those that follow took minutes.
_COST = 30.0


@pytest.fixture(scope="module")
def space(server: Server) -> str:
    """The path of a namespace."""
    return server.namespace(f"b{uuid.uuid4().hex[:8]}")


@pytest.fixture
def cheap(cloud: Cloud) -> Iterator[None]:
    """The API server works for a bounded time, however busy the machine is."""
    before = cloud.processor_time("kube")
    yield
    assert cloud.processor_time("kube") - before < _COST


@contextlib.contextmanager
def answering(cloud: Cloud) -> Iterator[list[int]]:
    """What the API server answers meanwhile to somebody who asks again and again on one connection."""
    address, over, answered = cloud.config.addresses["kube"], threading.Event(), []

    def ask() -> None:
        connection = http.client.HTTPSConnection(
            address.host, address.port, context=tls.client_context(cloud.config.ca_file), timeout=120
        )
        with contextlib.closing(connection):
            while not over.is_set():
                connection.request("GET", "/healthz")
                with connection.getresponse() as response:
                    response.read()
                    answered.append(response.status)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answered
    finally:
        over.set()
        asking.join()


def _body(kind: str) -> str:
    match kind:
        case "base 60":
            return "data:\n  a: 1" + ":1" * 1_500_000
        case "base 60, tagged":
            return "data:\n  a: !!int 1" + ":1" * 1_500_000
        case "keys of one hash":
            return "data:\n" + "".join(f"  {_MODULUS * number}: a\n" for number in range(1, 60_000))
        case "keys of one hash in braces":
            return "{data: {" + ", ".join(f"{_MODULUS * number}: a" for number in range(1, 60_000)) + "}}"
        case "parts":
            return "data:\n" + "- \n" * 900_000
    raise AssertionError(kind)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    "kind", ["base 60", "base 60, tagged", "keys of one hash", "keys of one hash in braces", "parts"]
)
def test_yaml_takes_time_in_proportion(server: Server, space: str, kind: str) -> None:
    assert server.call("POST", f"{space}/configmaps", _body(kind), **_YAML).status in (400, 422)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_yaml_in_braces_is_not_read_on_the_loop(cloud: Cloud, server: Server, space: str, method: str) -> None:
    """Others are answered while it is read, many times over."""
    paths = {"POST": "configmaps", "DELETE": "configmaps/none", "PUT": "replicationcontrollers/rc/scale"}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    controller = {"metadata": {"name": "rc"}, "spec": {"replicas": 0, "selector": {"a": "b"}, "template": template}}
    server.call("POST", f"{space}/replicationcontrollers", controller)
    body = "{data: {" + ", ".join(f"k{number}: a" for number in range(60_000)) + "}}"
    with answering(cloud) as answered:
        server.call(method, f"{space}/{paths[method]}", body, **_YAML)
    assert len(answered) > 10
    assert set(answered) == {200}


def test_numbers_are_what_they_are_upstream(server: Server, space: str) -> None:
    text = "metadata: {name: numbers, annotations: {1: a, 0x10: b}}\ndata: {time: 12:30:45, day: 2020-01-01}"
    found = server.call("POST", f"{space}/configmaps", text, **_YAML)
    assert found.status == 201, found.body
    assert found.body["data"] == {"time": "12:30:45", "day": "2020-01-01"}
    assert found.body["metadata"]["annotations"] == {"1": "a", "16": "b"}
