"""Custom resources: costs that must not grow with the number of definitions (`benchmarks.kube --only custom`).

Definitions have the size of those that public projects publish. The processor time of an apply is that of the server. Two
servers, one with 5 definitions and one with 250, are measured in turns, as other work on the machine adds to both. Deletions are complete when a watch reports the last definition as deleted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from typing import Protocol

import msgspec

APPLY, DELETE, MEMORY = "apply with 250 CRDs to one with 5", "250 CRDs deleted", "memory with 225 CRDs"
_FEW, _MANY, _MOST = 5, 225, 250
_GROUP = "bench.example.com"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_OBJECTS = f"/apis/{_GROUP}/v1/namespaces/bench/kind0s"
_APPLIES, _ROUNDS, _CONNECTIONS = 200, 5, 8
#: The server counts as idle below this share of a processor.
_IDLE = 0.05
#: Parts of a schema, fields in each, and characters of a field's description: some 30 kB of JSON.
_PARTS, _FIELDS, _DESCRIPTION = 12, 12, 120


class Server(Protocol):
    """The server to measure."""

    def megabytes(self) -> float:
        """Resident memory."""

    def spent(self) -> float:
        """Processor seconds so far."""

    def connection(self) -> http.client.HTTPSConnection:
        """A new connection."""

    def call(self, method: str, path: str, body: object = None) -> object:
        """Send one request. Raises `OSError` without success."""

    def load(self, name: str, count: int, *, connections: int, **job: str | int) -> dict[str, float]:
        """Send `count` requests, numbered from `first`. Print and return the times."""


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str


class _List(msgspec.Struct):
    metadata: _Metadata


class _Event(msgspec.Struct):
    type: str


def measure(server: Server, small: Server) -> dict[str, float]:
    """Return the figures of two servers with the namespace `bench` and without custom resources."""
    size = len(json.dumps(_definition()))
    _define(small, 0, _FEW)
    _define(server, 0, _MANY)
    _use(server)
    memory = server.megabytes()
    print(f"  {_MANY} definitions of {size / 1e3:.0f} kB: {memory:.0f} MB")
    _define(server, _MANY, _MOST)
    few, many = zip(*((_apply(small, turn), _apply(server, turn)) for turn in range(_ROUNDS + 1)), strict=True)
    # The first round fills caches.
    return {APPLY: min(many[1:]) / min(few[1:]), MEMORY: memory, DELETE: _delete(server)}


def _define(server: Server, first: int, end: int) -> None:
    body = json.dumps(_definition())
    server.load(
        f"definitions {first} to {end}",
        end - first,
        connections=1,
        first=first,
        method="POST",
        path=_DEFINITIONS,
        body=body,
    )
    _wait_until_idle(server)


def _use(server: Server) -> None:
    """Create an object of each kind and read the OpenAPI documents, so that the server has loaded every definition."""
    body = json.dumps({"apiVersion": f"{_GROUP}/v1", "kind": "Kind%d", "metadata": {"name": "used"}})
    path = f"/apis/{_GROUP}/v1/namespaces/bench/kind%ds"
    server.load("objects", _MANY, connections=1, first=0, method="POST", path=path, body=body)
    for path in ("/openapi/v2", f"/openapi/v3/apis/{_GROUP}/v1"):
        server.load(path, 2, connections=1, first=0, method="GET", path=path)
    _wait_until_idle(server)


def _wait_until_idle(server: Server) -> None:
    """Wait until the server has finished the work that the last requests caused."""
    used = 1.0
    while used > _IDLE:
        before = server.spent()
        time.sleep(1)
        used = server.spent() - before


def _apply(server: Server, turn: int) -> float:
    """Return the processor milliseconds of an apply that changes one object."""
    body = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "Kind0",
        "metadata": {"name": "a"},
        "spec": {"part0": {"field0": "%d", "field1": "b"}, "part1": {"field2": "c"}},
    }
    before = server.spent()
    server.load(
        "applies",
        _APPLIES,
        connections=1,
        first=turn * _APPLIES,
        method="PATCH",
        path=f"{_OBJECTS}/a?fieldManager=bench&force=true",
        body=json.dumps(body),
        media="application/apply-patch+yaml",
    )
    return (server.spent() - before) / _APPLIES * 1e3


def _delete(server: Server) -> float:
    """Return the seconds from the first deletion until the last definition is gone."""
    with _watch(server) as events:
        began = time.perf_counter()
        server.load(
            "deletions",
            _MOST,
            connections=_CONNECTIONS,
            first=0,
            method="DELETE",
            path=f"{_DEFINITIONS}/kind%ds.{_GROUP}",
        )
        left = _MOST
        while left:
            line = events.readline()
            if not line:
                raise OSError(f"the watch ended before {left} deletions")
            left -= msgspec.json.decode(line, type=_Event).type == "DELETED"
        return time.perf_counter() - began


@contextlib.contextmanager
def _watch(server: Server) -> Iterator[http.client.HTTPResponse]:
    connection = server.connection()
    try:
        connection.request("GET", f"{_DEFINITIONS}?limit=1")
        version = msgspec.json.decode(connection.getresponse().read(), type=_List).metadata.resource_version
        # The server sends metadata alone, so that the events fit into the buffers of the connection.
        accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        path = f"{_DEFINITIONS}?watch=true&resourceVersion={version}"
        connection.request("GET", path, headers={"Accept": accept})
        yield connection.getresponse()
    finally:
        connection.close()


def _definition() -> dict[str, object]:
    """Return a definition with a large schema. `%d` is its number."""
    description = ("Describes what the field configures and which values it accepts. " * 3)[:_DESCRIPTION]
    fields = {f"field{index}": {"type": "string", "description": description} for index in range(_FIELDS)}
    part = {"type": "object", "description": description, "properties": fields}
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {"type": "object", "properties": {f"part{index}": part for index in range(_PARTS)}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "First", "type": "string", "jsonPath": ".spec.part0.field0"}],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"kind%ds.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced",
            "names": {"plural": "kind%ds", "singular": "kind%d", "kind": "Kind%d"},
            "versions": [version],
        },
    }
