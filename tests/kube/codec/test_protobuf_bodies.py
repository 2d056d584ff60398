"""Protobuf bodies, as Go controllers send them. Each served group accepts them and stores the same object as for JSON."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cumulet.kube.codec import encode_protobuf
from tests.kube.conftest import Server

PROTOBUF = "application/vnd.kubernetes.protobuf"

_CLIENT = {"url": "https://hooks.example:8443/x", "caBundle": ""}
_RULES = [
    {"apiGroups": ["nowhere.example"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothings"]}
]
_WEBHOOK = {
    "name": "w.swagger.example",
    "clientConfig": {"url": "https://hooks.example:8443/x"},
    "rules": _RULES,
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "failurePolicy": "Ignore",
    "matchConditions": [{"name": "m", "expression": "true"}],
}
_SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 0, "maximum": 1.5e3, "default": 0},
                "any": {"x-kubernetes-preserve-unknown-fields": True},
                "names": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "map": {"type": "object", "additionalProperties": {"type": "string", "nullable": True}},
                "kind": {"type": "string", "enum": ["a", "b"], "default": "a"},
            },
            "x-kubernetes-validations": [{"rule": "self.size < 10", "message": "too large"}],
        }
    },
}

OBJECTS: list[tuple[str, dict[str, Any]]] = [
    (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        {"kind": "ValidatingWebhookConfiguration", "webhooks": [_WEBHOOK]},
    ),
    (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        {"kind": "MutatingWebhookConfiguration", "webhooks": [{**_WEBHOOK, "reinvocationPolicy": "IfNeeded"}]},
    ),
    (
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        {
            "kind": "ValidatingAdmissionPolicy",
            "spec": {
                "matchConstraints": {"resourceRules": _RULES},
                "validations": [{"expression": "true", "message": "m"}],
                "variables": [{"name": "v", "expression": "1"}],
            },
        },
    ),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "bolts.protobuf.example"},
            "spec": {
                "group": "protobuf.example",
                "scope": "Namespaced",
                "names": {"plural": "bolts", "singular": "bolt", "kind": "Bolt", "listKind": "BoltList"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": _SCHEMA},
                        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    }
                ],
            },
        },
    ),
    (
        "/apis/apiregistration.k8s.io/v1/apiservices",
        {
            "kind": "APIService",
            "metadata": {"name": "v1.protobuf-remote.example"},
            "spec": {
                "group": "protobuf-remote.example",
                "version": "v1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 15,
                "insecureSkipTLSVerify": True,
                "service": {"name": "s", "namespace": "default", "port": 443},
            },
        },
    ),
    (
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
        {
            "kind": "FlowSchema",
            "spec": {
                "matchingPrecedence": 9000,
                "priorityLevelConfiguration": {"name": "global-default"},
                "rules": [
                    {
                        "subjects": [{"kind": "User", "user": {"name": "ann"}}],
                        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}],
                    }
                ],
            },
        },
    ),
    (
        "/apis/resource.k8s.io/v1/deviceclasses",
        {"kind": "DeviceClass", "spec": {"selectors": [{"cel": {"expression": "true"}}]}},
    ),
    (
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        {
            "kind": "Lease",
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "acquireTime": "2026-01-02T03:04:05.000006Z"},
        },
    ),
]


def _of(path: str, obj: dict[str, Any], name: str) -> dict[str, Any]:
    group_version = path.removeprefix("/apis/").split("/namespaces/")[0].rpartition("/")[0]
    if "/namespaces/" in path:
        group_version = path.removeprefix("/apis/").split("/namespaces/")[0]
    return {"apiVersion": group_version, "metadata": {"name": name}, **obj}


def _without_life(obj: dict[str, Any]) -> dict[str, Any]:
    own = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "name")
    metadata = {key: value for key, value in obj["metadata"].items() if key not in own}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


@pytest.mark.parametrize(("path", "obj"), OBJECTS, ids=[str(obj["kind"]) for _, obj in OBJECTS])
def test_the_same_as_in_json(server: Server, path: str, obj: dict[str, Any]) -> None:
    stored = []
    for body, media in (
        (_of(path, obj, "same"), "application/json"),
        (encode_protobuf(_of(path, obj, "same")), PROTOBUF),
    ):
        answer = server.call("POST", path, body, content_type=media)
        assert answer.status == 201, answer.body
        name = answer.body["metadata"]["name"]
        stored.append(_without_life(server.call("GET", f"{path}/{name}").body))
        shown = server.call("GET", f"{path}/{name}", accept=PROTOBUF)
        assert (shown.status, shown.headers["Content-Type"]) == (200, PROTOBUF)
        assert server.call("DELETE", f"{path}/{name}").status == 200
    assert stored[0] == stored[1]


def test_every_served_kind_is_available_in_protobuf(server: Server) -> None:
    found = server.call("GET", "/apis").body["groups"]
    # Custom kinds, which other tests can leave behind, have JSON and YAML only.
    definitions = server.call("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions").body["items"]
    custom = {item["spec"]["group"] for item in definitions}
    versions = [item["groupVersion"] for group in found if group["name"] not in custom for item in group["versions"]]
    paths = ["/api/v1", *(f"/apis/{version}" for version in versions if not version.endswith("example/v1"))]
    lists = 0
    for path in paths:
        for resource in server.call("GET", path).body["resources"]:
            if "list" in resource["verbs"] and "metrics.k8s.io" not in path:
                answer = server.call("GET", f"{path}/{resource['name']}", accept=PROTOBUF)
                assert (answer.status, answer.headers["Content-Type"]) == (200, PROTOBUF), resource
                lists += 1
    assert lists > 40


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | 2, len(value))) + value


def test_the_zero_time_of_go_is_absent(server: Server) -> None:
    """A lease as client-go writes it before it is held: times are in the year 1, numbers and texts are empty."""
    zero = b"\x08" + _varint(-62135596800) + b"\x10\x00"
    spec = _field(1, b"") + b"\x10\x0f" + _field(3, zero) + _field(4, zero) + b"\x28\x00"
    body = _field(1, _field(1, b"zero") + _field(3, b"default")) + _field(2, spec)
    about = _field(1, b"coordination.k8s.io/v1") + _field(2, b"Lease")
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    answer = server.call("POST", path, b"k8s\0" + _field(1, about) + _field(2, body), content_type=PROTOBUF)
    assert answer.status == 201, answer.body
    assert answer.body["spec"] == {"holderIdentity": "", "leaseDurationSeconds": 15, "leaseTransitions": 0}
    assert server.call("DELETE", f"{path}/zero").status == 200


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes((value,))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("0001-01-01T00:00:00.000000Z", None),
        ("0001-01-02T00:00:00.000000Z", "0001-01-02T00:00:00.000000Z"),
        ("2026-05-06T07:08:09.123456+02:00", "2026-05-06T05:08:09.123456Z"),
    ],
)
def test_times_in_json(server: Server, given: str, kept: str | None) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    made = server.make(path, {"metadata": {"name": "times"}, "spec": {"leaseDurationSeconds": 1, "renewTime": given}})
    assert made["spec"].get("renewTime") == kept
    assert server.call("DELETE", f"{path}/times").status == 200


@pytest.mark.parametrize(
    "given", ["2026-05-06T07:08:09Z", "2026-05-06", "0000-01-01T00:00:00.000000Z", "٢٠٢٦-05-06T07:08:09.123456Z"]
)
def test_invalid_times(server: Server, given: str) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    answer = server.call("POST", path, {"metadata": {"name": "times"}, "spec": {"renewTime": given}})
    assert answer.status == 400
    assert f'parsing time "{given}" as "2006-01-02T15:04:05.000000Z07:00"' in answer.body["message"]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_json_lacks_is_rejected(server: Server, number: float) -> None:
    schema = b"\x49" + struct.pack("<d", number)  # maximum
    version = _field(1, b"v1") + _field(4, _field(1, schema))
    body = _field(1, _field(1, b"odds.protobuf.example")) + _field(2, _field(7, version))
    about = _field(1, b"apiextensions.k8s.io/v1") + _field(2, b"CustomResourceDefinition")
    raw = b"k8s\0" + _field(1, about) + _field(2, body)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    answer = server.call("POST", path, raw, content_type=PROTOBUF)
    assert (answer.status, "not finite" in answer.body["message"]) == (400, True)
