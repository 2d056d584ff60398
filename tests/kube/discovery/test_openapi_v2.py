"""OpenAPI v2, as kubectl reads it: in protobuf, for lists, for `kubectl explain`, and for kinds unknown to kubectl."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.conftest import Program, Server

_PATHS = [str(Path(sys.prefix) / "clients" / f"kubectl-v{minor}") for minor in (30, 37)]
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_DEPRECATED = _PROTOBUF.replace("v2.v1", "v2@v1")

both_ends = pytest.mark.parametrize("kubectl", _PATHS, indirect=True, ids=["1.30", "1.37"])


def definition(plural: str, properties: dict[str, Any]) -> dict[str, Any]:
    """A custom resource whose spec has these properties."""
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.swagger.example"},
        "spec": {
            "group": "swagger.example",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": plural[:-1].title(), "singular": plural[:-1]},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


PROPERTIES = {
    "size": {"type": "integer", "minimum": 1, "description": "How large it is."},
    "any": {"x-kubernetes-preserve-unknown-fields": True, "type": "object", "properties": {"a": {"type": "string"}}},
    "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    "maybe": {"type": "string", "nullable": True},
    "loose": {"type": "array", "x-kubernetes-preserve-unknown-fields": True, "items": {"type": "string"}},
    "most": {"type": "number", "maximum": 1e300, "enum": [1.5, 2], "default": 2},
}


@pytest.fixture
def gadgets(kubectl: Program) -> Iterator[None]:
    """A custom resource, until the end of the test."""
    kubectl("create", "-f", "-", stdin=json.dumps(definition("gadgets", PROPERTIES)))
    kubectl("wait", "--for=condition=established", "crd/gadgets.swagger.example", "--timeout=10s")
    yield
    kubectl("delete", "crd", "gadgets.swagger.example")


@both_ends
def test_a_backup_is_applied(kubectl: Program) -> None:
    for name in ("first", "second"):
        kubectl("create", "configmap", name, f"--from-literal=is={name}")
    backup = kubectl("get", "configmaps", "first", "second", "-o", "yaml")
    assert "kind: List" in backup
    kubectl("delete", "configmap", "first")
    applied = kubectl("apply", "-f", "-", stdin=backup.replace("is: second", "is: changed"))
    assert "configmap/first created" in applied
    assert "configmap/second configured" in applied
    assert kubectl("get", "cm", "second", "-o", "jsonpath={.data.is}") == "changed"


@both_ends
@pytest.mark.usefixtures("gadgets")
def test_items_of_a_list_are_validated(kubectl: Program) -> None:
    wrong = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dato": {}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"ports": [{"port": "http"}]}},
        {"apiVersion": "swagger.example/v1", "kind": "Gadget", "metadata": {"name": "c"}, "spec": {"sise": 1}},
    ]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": wrong})
    refused = kubectl("apply", "-f", "-", stdin=manifest, code=1)
    assert 'unknown field "dato" in io.k8s.api.core.v1.ConfigMap' in refused
    assert "io.k8s.api.core.v1.ServicePort.port: got" in refused
    assert 'unknown field "sise" in example.swagger.v1.Gadget.spec' in refused


@both_ends
@pytest.mark.usefixtures("gadgets")
def test_keywords_that_v2_lacks_are_not_checked(kubectl: Program) -> None:
    spec = {"any": {"a": 1, "b": {"c": [1]}}, "port": "http", "maybe": None, "loose": ["a"]}
    gadget = {"apiVersion": "swagger.example/v1", "kind": "Gadget", "metadata": {"name": "free"}, "spec": spec}
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": [gadget]})
    # The server has the whole schema and validates the rest.
    answered = kubectl("apply", "-f", "-", stdin=manifest, code=1)
    assert "error validating data" not in answered
    assert "spec.any.a: Invalid value" in answered


@both_ends
def test_an_unknown_kind_stops_only_itself(kubectl: Program) -> None:
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "before"}},
        {"apiVersion": "nowhere.example/v1", "kind": "Nothing", "metadata": {"name": "nothing"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "behind"}},
    ]
    answered = kubectl("apply", "-f", "-", stdin="".join(f"---\n{json.dumps(one)}\n" for one in documents), code=1)
    assert "configmap/before created" in answered
    assert "configmap/behind created" in answered
    assert 'no matches for kind "Nothing" in version "nowhere.example/v1"' in answered


@both_ends
@pytest.mark.usefixtures("gadgets")
def test_plain_explanations(kubectl: Program) -> None:
    form = ("--output", "plaintext-openapiv2")
    assert "List of containers belonging to the pod" in kubectl("explain", "pod.spec.containers", *form)
    assert "How large it is." in kubectl("explain", "gadget.spec.size", *form)


def test_custom_resources_come_and_go(server: Server) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    server.make(path, definition("widgets", {"size": {"type": "integer"}}))
    name = "example.swagger.v1.Widget"
    published = server.call("GET", "/openapi/v2").body["definitions"]
    assert published[name]["properties"]["spec"]["properties"] == {"size": {"type": "integer"}}
    changed = definition("widgets", {"weight": {"type": "number"}})
    answer = server.call(
        "PATCH", f"{path}/widgets.swagger.example", changed, content_type="application/merge-patch+json"
    )
    assert answer.status == 200
    published = server.call("GET", "/openapi/v2").body["definitions"]
    assert published[name]["properties"]["spec"]["properties"] == {"weight": {"type": "number"}}
    server.remove(path, "widgets.swagger.example")
    document = server.call("GET", "/openapi/v2").body
    assert name not in document["definitions"]
    assert not [path for path in document["paths"] if "swagger.example" in path]


def test_every_reference_leads_somewhere(server: Server) -> None:
    document = server.call("GET", "/openapi/v2").body
    assert document["swagger"] == "2.0"

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for below in node.values():
                yield from references(below)
        elif isinstance(node, list):
            for below in node:
                yield from references(below)

    found = set(references(document))
    assert "#/definitions/io.k8s.api.core.v1.PodSpec" in found
    assert {name.removeprefix("#/definitions/") for name in found} <= set(document["definitions"])


def test_the_same_paths_as_v3(server: Server) -> None:
    found: dict[str, set[str]] = {}
    for entry in server.call("GET", "/openapi/v3").body["paths"].values():
        for path, item in server.call("GET", entry["serverRelativeURL"]).body["paths"].items():
            found[path] = set(item)
    paths = server.call("GET", "/openapi/v2").body["paths"]
    assert {path: set(item) - {"parameters"} for path, item in paths.items()} == found


@pytest.mark.parametrize("accept", ["application/json", _PROTOBUF, _DEPRECATED, "*/*"])
def test_a_client_does_not_get_an_unchanged_document(server: Server, accept: str) -> None:
    first = server.call("GET", "/openapi/v2", accept=accept)
    assert first.status == 200
    assert first.headers["Content-Type"] == {"*/*": "application/json", _DEPRECATED: _PROTOBUF}.get(accept, accept)
    etag = first.headers["ETag"]
    again = server.call("GET", "/openapi/v2", accept=accept, if_none_match=etag)
    assert (again.status, again.body) == (304, b"")
    other = server.call("GET", "/openapi/v2", accept=accept, if_none_match='"0"')
    assert (other.status, other.headers["ETag"]) == (200, etag)


def test_an_unknown_media_type(server: Server) -> None:
    answer = server.call("GET", "/openapi/v2", accept="text/html")
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")
