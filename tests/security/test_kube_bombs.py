"""Bodies that are small when they are sent and large when they are read: refused, or read in bounded memory."""

from __future__ import annotations

import gzip
import json
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

_MIB = 2**20
_JSON, _YAML, _PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
_PATCH, _MERGE, _APPLY = (
    f"application/{name}" for name in ("json-patch+json", "merge-patch+json", "apply-patch+yaml")
)
#: Bytes that one request may take at its peak, beside what is there already: some hundred times its own three MiB would be
#: a bomb.
_MOST = 300 * _MIB


def peak(cloud: Cloud) -> int:
    """The most memory that the server has had since it was last asked, in bytes."""
    process = Path("/proc") / str(cloud._running["kube"])
    lines = (process / "status").read_text().splitlines()
    found = next(line for line in lines if line.startswith("VmHWM:"))
    (process / "clear_refs").write_text("5")
    return int(found.split()[1]) * 1024


def laughs() -> bytes:
    """A billion of them."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{number}: &a{number} [{','.join([f'*a{number - 1}'] * 10)}]" for number in range(1, 10)]
    return "\n".join(lines).encode()


def merges() -> bytes:
    """Maps that each double the one before."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{number}: &a{number} {{<<: [*a{number - 1}, *a{number - 1}]}}" for number in range(1, 100)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("media", "make", "headers"),
    [
        pytest.param(_JSON, lambda: b"[" * (3 * _MIB), {}, id="nested lists"),
        pytest.param(_JSON, lambda: b'{"a":' * (_MIB // 2), {}, id="nested objects"),
        pytest.param(
            _JSON, lambda: b'{"metadata":{"name":"x"},"data":[' + b"0," * (_MIB + 1) + b"0]}", {}, id="a long list"
        ),
        pytest.param(
            _JSON,
            lambda: b'{"metadata":{"name":"x","generation":' + b"9" * (2 * _MIB) + b"}}",
            {},
            id="a long integer",
        ),
        pytest.param(
            _JSON,
            lambda: b'{"metadata":{"name":"x","generation":0.' + b"9" * (2 * _MIB) + b"}}",
            {},
            id="a long fraction",
        ),
        pytest.param(
            _JSON,
            lambda: gzip.compress(b'{"a":"' + b"0" * (200 * _MIB) + b'"}'),
            {"content_encoding": "gzip"},
            id="gzip of 200 MiB",
        ),
        pytest.param(
            _JSON,
            lambda: zlib.compress(b"0" * (200 * _MIB)),
            {"content_encoding": "deflate"},
            id="deflate of 200 MiB",
        ),
        pytest.param(
            _JSON, lambda: gzip.compress(b'{"metadata":{"name":"x"}}'), {"content_encoding": "gzip"}, id="small gzip"
        ),
        pytest.param(_YAML, lambda: b"[" * (3 * _MIB), {}, id="YAML of nested lists"),
        pytest.param(_YAML, laughs, {}, id="aliases"),
        pytest.param(_YAML, merges, {}, id="merge keys"),
        pytest.param(_YAML, lambda: b"a: &a [*a]", {}, id="an alias of its own list"),
        pytest.param(
            _YAML, lambda: b"metadata: {name: x}\nz: [" + b"a," * (_MIB // 2) + b"a]: b", {}, id="a list as a key"
        ),
        pytest.param(
            _YAML, lambda: "\n".join(f"{' ' * depth}a:" for depth in range(1500)).encode(), {}, id="nested mappings"
        ),
        pytest.param(_PROTOBUF, lambda: b"k8s\x00\x12\xff\xff\xff\xff\x0f", {}, id="a length of 32 bits"),
        pytest.param(
            _PROTOBUF, lambda: b"k8s\x00\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", {}, id="a length of 64 bits"
        ),
        pytest.param(_PROTOBUF, lambda: b"k8s\x00" + b"\x12\x80\x80\x80\x01" * 200_000, {}, id="many lengths"),
        pytest.param(_PROTOBUF, lambda: b"k8s\x00" + b"\x0b" * (2 * _MIB), {}, id="nested groups"),
        pytest.param(_JSON, lambda: b"a" * (3 * _MIB + 1), {}, id="more than the limit"),
    ],
)
def test_bodies(cloud: Cloud, server: Server, media: str, make: Callable[[], bytes], headers: dict[str, str]) -> None:
    body, before = make(), peak(cloud)
    answer = server.call("POST", "/api/v1/namespaces/default/configmaps", body, content_type=media, **headers)
    assert 400 <= answer.status < 500, answer.status
    assert answer.body["kind"] == "Status"
    assert peak(cloud) < before + _MOST


@pytest.mark.parametrize(
    ("media", "patch", "status"),
    [
        (_PATCH, [{"op": "add", "path": "/z", "value": ["x" * 1000]}, *([{"op": "copy", "from": "/z", "path": "/z/-"}] * 60)], 422),
        (_PATCH, [{"op": "copy", "from": "", "path": "/data"}] * 60, 422),
        (_PATCH, [{"op": "test", "path": "/data/a", "value": "1"}] * 10_001, 422),
        (_PATCH, [{"op": "add", "path": "/a" * 100_000, "value": 1}], 422),
        (_MERGE, b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
        (_APPLY, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "t"}, "data": {f"k{n}": "" for n in range(50_000)}}, 200),
    ],
    ids=["doubling", "whole", "many", "deep path", "deep", "wide"],
)  # fmt: skip
def test_patches(cloud: Cloud, server: Server, media: str, patch: Any, status: int) -> None:
    space = server.namespace(f"b{uuid.uuid4().hex[:8]}")
    server.make(f"{space}/configmaps", {"metadata": {"name": "t"}, "data": {"a": "1"}})
    before = peak(cloud)
    body = patch if isinstance(patch, bytes) else json.dumps(patch)
    answer = server.call("PATCH", f"{space}/configmaps/t?fieldManager=m", body, content_type=media)
    assert answer.status == status, answer.body
    assert peak(cloud) < before + _MOST


@pytest.mark.parametrize("size", [1000, 7000])
def test_selectors_of_many_terms(server: Server, size: int) -> None:
    for text in (",".join(f"a{number}" for number in range(size // 5)), f"a in ({','.join('b' * (size // 2))})"):
        query = text.replace(" ", "+")[:8000]
        answer = server.call("GET", f"/api/v1/namespaces/default/configmaps?labelSelector={query}")
        assert answer.status in (200, 400)


def test_a_schema_of_many_fields_and_rules(cloud: Cloud, server: Server) -> None:
    group = f"g{uuid.uuid4().hex[:8]}.example.com"
    rule = [{"rule": "self.size() < 5 && self.startsWith('a')"}]
    field = {"type": "string", "maxLength": 100, "x-kubernetes-validations": rule}
    spec = {"type": "object", "properties": {f"p{number}": field for number in range(2000)}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    body = {
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    before = peak(cloud)
    server.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    made = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "a"}}
    path = f"/apis/{group}/v1/namespaces/default/things"
    server.make(path, {**made, "spec": {f"p{number}": "a" for number in range(2000)}})
    answer = server.call("POST", path, {**made, "metadata": {"name": "b"}, "spec": {"p7": "b"}})
    assert answer.status == 422
    assert peak(cloud) < before + _MOST
    server.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}")
