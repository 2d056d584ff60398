"""Responses in the form that a client accepts: protobuf where it takes nothing else, YAML, gzip."""

from __future__ import annotations

import json
import struct
import uuid
from typing import Any

import pytest
import yaml

from cumulet.kube.codec.protobuf import decode_protobuf
from tests.kube.conftest import Server

PROTOBUF = "application/vnd.kubernetes.protobuf"
DEPLOYMENT: dict[str, Any] = {
    "metadata": {"name": "d", "labels": {"a": "b"}, "annotations": {"c": "d"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"a": "b"}},
        "strategy": {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 1}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "containers": [
                    {
                        "name": "c",
                        "image": "x",
                        "ports": [{"containerPort": 80}],
                        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                        "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                        "livenessProbe": {"httpGet": {"port": "http", "path": "/"}},
                    }
                ],
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            },
        },
    },
}


@pytest.fixture
def space(server: Server) -> str:
    """A namespace."""
    name = f"m{uuid.uuid4().hex[:8]}"
    server.namespace(name)
    return name


def plain(document: Any) -> Any:
    """Return a document without the values that protobuf cannot tell from absent ones."""
    if isinstance(document, dict):
        found = {key: plain(value) for key, value in document.items()}
        return {key: value for key, value in found.items() if value not in (None, "", {}, [], False, 0)}
    return [plain(item) for item in document] if isinstance(document, list) else document


def test_objects_in_protobuf(server: Server, space: str) -> None:
    """The decoded object equals the JSON; the decoder is the one for client-go's requests."""
    server.make(f"/apis/apps/v1/namespaces/{space}/deployments", DEPLOYMENT)
    server.make(f"/api/v1/namespaces/{space}/secrets", {"metadata": {"name": "s"}, "stringData": {"k": "value"}})
    for path in (
        f"/apis/apps/v1/namespaces/{space}/deployments/d",
        f"/apis/apps/v1/namespaces/{space}/deployments",
        f"/api/v1/namespaces/{space}/secrets/s",
        f"/api/v1/namespaces/{space}",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/view",
        "/api/v1/namespaces/default/services/kubernetes",
        f"/api/v1/namespaces/{space}/secrets/none",
    ):
        answer = server.call("GET", path, accept=PROTOBUF)
        assert answer.headers["Content-Type"] == PROTOBUF, path
        assert answer.body.startswith(b"k8s\0")
        assert plain(decode_protobuf(answer.body)) == plain(server.call("GET", path).body), path


def test_a_client_that_takes_json_too_gets_json(server: Server, space: str) -> None:
    answer = server.call("GET", f"/api/v1/namespaces/{space}", accept=f"{PROTOBUF},application/json")
    assert answer.headers["Content-Type"].startswith("application/json")


def test_an_empty_text_that_means_something_comes_back_in_protobuf(server: Server, space: str) -> None:
    """Controllers write a claim without a class like this, and it must stay unchanged."""
    claims = f"/api/v1/namespaces/{space}/persistentvolumeclaims"
    claim_spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
    }
    server.make(claims, {"metadata": {"name": "c"}, "spec": claim_spec})
    written = server.call("GET", f"{claims}/c", accept=PROTOBUF).body
    answer = server.call("PUT", f"{claims}/c", written, content_type=PROTOBUF)
    assert answer.status == 200, answer.body
    assert server.call("GET", f"{claims}/c").body["spec"]["storageClassName"] == ""


def test_a_watch_in_protobuf(server: Server, space: str) -> None:
    server.make(f"/api/v1/namespaces/{space}/configmaps", {"metadata": {"name": "m"}, "data": {"a": "b"}})
    path = f"/api/v1/namespaces/{space}/configmaps?watch=1&timeoutSeconds=1&sendInitialEvents=1&allowWatchBookmarks=1"
    answer = server.call("GET", f"{path}&resourceVersionMatch=NotOlderThan", accept=PROTOBUF)
    assert answer.headers["Content-Type"] == f"{PROTOBUF};stream=watch"
    raw, kinds = answer.body, []
    while raw:
        (length,) = struct.unpack_from(">I", raw)
        event, raw = raw[4 : 4 + length], raw[4 + length :]
        kind_length = event[1]
        kinds.append(event[2 : 2 + kind_length].decode())
        inner = event[event.index(b"k8s\0") :]
        assert decode_protobuf(inner)["kind"] == "ConfigMap"
    assert kinds == ["ADDED", "BOOKMARK"]


def test_yaml(server: Server, space: str) -> None:
    answer = server.call("GET", f"/api/v1/namespaces/{space}", accept="application/yaml")
    assert answer.headers["Content-Type"] == "application/yaml"
    assert yaml.safe_load(answer.body) == server.call("GET", f"/api/v1/namespaces/{space}").body


def test_unknown_media_types(server: Server, space: str) -> None:
    answer = server.call("GET", f"/api/v1/namespaces/{space}", accept="text/html")
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")
    assert answer.body["message"].startswith("only the following media types are accepted: application/json")


def test_gzip(server: Server, space: str) -> None:
    for index in range(3):
        body = {"metadata": {"name": f"m{index}"}, "data": {"a": "x" * 60_000}}
        server.make(f"/api/v1/namespaces/{space}/configmaps", body)
    path = f"/api/v1/namespaces/{space}/configmaps"
    answer = server.call("GET", path, accept_encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.dumps(answer.body) == json.dumps(server.call("GET", path).body)
    assert "Content-Encoding" not in server.call("GET", f"{path}/m0", accept_encoding="gzip").headers
