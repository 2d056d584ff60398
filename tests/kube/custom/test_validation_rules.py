"""CEL rules of custom resources, selectable fields, and conversions."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube.conftest import Server

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SPEC: dict[str, Any] = {
    "type": "object",
    "x-kubernetes-validations": [
        {"rule": "self.low <= self.high", "message": "low is above high"},
        {"rule": "self.high <= 100", "messageExpression": "'no more than 100, not %d'.format([self.high])"},
    ],
    "properties": {
        "low": {"type": "integer"},
        "high": {"type": "integer", "default": 10},
        "colour": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "reason": "FieldValueForbidden"}],
        },
        "a-b": {"type": "string", "x-kubernetes-validations": [{"rule": "self.matches('^[a-z]*$')"}]},
        "memory": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "quantity(self).isLessThan(quantity('1Gi'))"}],
        },
        "hosts": {
            "type": "array",
            "items": {"type": "string"},
            "x-kubernetes-validations": [{"rule": "self.all(h, h.endsWith('.example.com'))"}],
        },
    },
}


def definition(group: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"ranges.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "ranges", "kind": "Range"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "selectableFields": [{"jsonPath": ".spec.colour"}, {"jsonPath": ".spec.low"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": SPEC}}},
                }
            ],
        },
    }


@pytest.fixture(scope="module")
def group(server: Server) -> Iterator[str]:
    """The group of a kind with rules."""
    name = f"g{uuid.uuid4().hex[:8]}.example.com"
    server.make(DEFINITIONS, definition(name))
    yield name
    server.call("DELETE", f"{DEFINITIONS}/ranges.{name}")


@pytest.fixture
def ranges(server: Server, group: str) -> str:
    """The path of its objects in a namespace."""
    name = f"r{uuid.uuid4().hex[:8]}"
    server.namespace(name)
    return f"/apis/{group}/v1/namespaces/{name}/ranges"


def made(group_version: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": group_version, "kind": "Range", "metadata": {"name": "r"}, "spec": spec}


def test_rules(server: Server, group: str, ranges: str) -> None:
    version = f"{group}/v1"
    for spec, field, message in (
        ({"low": 11}, "spec", 'Invalid value: "object": low is above high'),
        ({"low": 1, "high": 101}, "spec", 'Invalid value: "object": no more than 100, not 101'),
        ({"low": 1, "a-b": "B"}, "spec.a-b", "Invalid value: \"string\": failed rule: self.matches('^[a-z]*$')"),
        (
            {"low": 1, "hosts": ["x"]},
            "spec.hosts",
            "Invalid value: \"array\": failed rule: self.all(h, h.endsWith('.example.com'))",
        ),
        ({"low": 1, "memory": "2Gi"}, "spec.memory", None),
        ({"low": 1, "memory": "much"}, "spec.memory", None),
        ({}, "spec", 'Invalid value: "object": no such key: low evaluating rule: low is above high'),
    ):
        answer = server.call("POST", ranges, made(version, **spec))
        assert answer.status == 422, spec
        (cause, *_) = answer.body["details"]["causes"]
        assert cause["field"] == field
        assert message in (None, cause["message"])
    server.make(ranges, made(version, low=1, colour="red", memory="512Mi", hosts=["a.example.com"], **{"a-b": "b"}))


def test_rules_of_updates(server: Server, group: str, ranges: str) -> None:
    version = f"{group}/v1"
    server.make(ranges, made(version, low=1, colour="red"))
    assert server.call("PUT", f"{ranges}/r", made(version, low=2, colour="red")).status == 200
    answer = server.call("PUT", f"{ranges}/r", made(version, low=2, colour="blue"))
    assert answer.status == 422
    assert answer.body["details"]["causes"] == [
        {
            "reason": "FieldValueForbidden",
            "message": "Forbidden: failed rule: self == oldSelf",
            "field": "spec.colour",
        }
    ]


def test_selectable_fields(server: Server, group: str, ranges: str) -> None:
    for name, low, colour in (("a", 1, "red"), ("b", 2, "red"), ("c", 2, "blue")):
        server.make(ranges, {**made(f"{group}/v1", low=low, colour=colour), "metadata": {"name": name}})
    for selector, names in (("spec.colour=red", "ab"), ("spec.low=2", "bc"), ("spec.low=2,spec.colour!=red", "c")):
        items = server.call("GET", f"{ranges}?fieldSelector={selector}").body["items"]
        assert "".join(item["metadata"]["name"] for item in items) == names
    answer = server.call("GET", f"{ranges}?fieldSelector=spec.high=1")
    assert (answer.status, answer.body["message"]) == (400, "field label not supported: spec.high")


def test_invalid_rules(server: Server) -> None:
    body = definition("bad.example.com")
    spec = copy.deepcopy(SPEC)
    spec["x-kubernetes-validations"] = [{"rule": "self.low <="}, {"rule": ""}]
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec
    answer = server.call("POST", DEFINITIONS, body)
    assert answer.status == 422
    where = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations"
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [f"{where}[1].rule"]
    spec["x-kubernetes-validations"] = [{"rule": "self.low <="}, {"rule": "self.lower > 1"}]
    answer = server.call("POST", DEFINITIONS, body)
    assert answer.status == 422
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [f"{where}[0].rule", f"{where}[1].rule"]
    assert "undefined field 'lower'" in answer.body["message"]
