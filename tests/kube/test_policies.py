"""Validating admission policies."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kube.conftest import Server

BASE = "/apis/admissionregistration.k8s.io/v1"
Policy = Callable[..., str]


@pytest.fixture
def space(server: Server) -> str:
    """A namespace's path."""
    return server.namespace(f"v{uuid.uuid4().hex[:8]}")


@pytest.fixture
def policy(server: Server, space: str) -> Iterator[Policy]:
    """Makes a policy about config maps of the namespace, with its binding of the same name."""
    made: list[str] = []

    def make(*validations: dict[str, str], binding: dict[str, Any] | None = None, **spec: Any) -> str:
        name = f"p{uuid.uuid4().hex[:8]}"
        rule = {
            "operations": ["CREATE", "UPDATE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["configmaps"],
        }
        selector = {"matchLabels": {"kubernetes.io/metadata.name": space.rpartition("/")[2]}}
        match = {"resourceRules": [rule], "namespaceSelector": selector}
        body = {
            "metadata": {"name": name},
            "spec": {"matchConstraints": match, "validations": list(validations), **spec},
        }
        server.make(f"{BASE}/validatingadmissionpolicies", body)
        bound = {"policyName": name, "validationActions": ["Deny"], **(binding or {})}
        server.make(f"{BASE}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": bound})
        made.append(name)
        return name

    yield make
    for name in made:
        server.call("DELETE", f"{BASE}/validatingadmissionpolicybindings/{name}")
        server.call("DELETE", f"{BASE}/validatingadmissionpolicies/{name}")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def test_what_is_denied(server: Server, space: str, policy: Policy) -> None:
    name = policy(
        {
            "expression": "size(object.data) <= variables.most",
            "messageExpression": "'at most ' + string(variables.most)",
        },
        {"expression": "!object.metadata.name.startsWith('x')", "reason": "Forbidden"},
        variables=[{"name": "most", "expression": "2"}],
    )
    assert server.call("POST", f"{space}/configmaps", config_map("a", a="1")).status == 201
    answer = server.call("PUT", f"{space}/configmaps/a", config_map("a", a="1", b="2", c="3"))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    said = f"ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: at most 2"
    assert answer.body["message"] == f'configmaps "a" is forbidden: {said}'
    assert answer.body["details"]["causes"] == [{"message": said}]
    answer = server.call("POST", f"{space}/configmaps", config_map("x", a="1"))
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert "failed expression: !object.metadata.name.startsWith('x')" in answer.body["message"]
    assert server.call("POST", f"{space}/secrets", {"metadata": {"name": "x"}}).status == 201


def test_warnings_and_conditions(server: Server, space: str, policy: Policy) -> None:
    name = policy(
        {"expression": "has(object.data.owner)", "message": "say whose it is"},
        binding={"validationActions": ["Warn"]},
        matchConditions=[{"name": "not-b", "expression": "object.metadata.name != 'b'"}],
    )
    answer = server.call("POST", f"{space}/configmaps", config_map("a", a="1"))
    assert answer.status == 201
    said = f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{name}': say whose it is"
    assert answer.headers["Warning"] == f'299 - "{said}"'
    assert "Warning" not in server.call("POST", f"{space}/configmaps", config_map("b", a="1")).headers


def test_parameters(server: Server, space: str, policy: Policy) -> None:
    other = server.namespace(f"v{uuid.uuid4().hex[:8]}")
    reference = {"name": "limits", "namespace": other.rpartition("/")[2], "parameterNotFoundAction": "Deny"}
    policy(
        {"expression": "size(object.data) <= int(params.data.most)"},
        binding={"paramRef": reference},
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
    )
    answer = server.call("POST", f"{space}/configmaps", config_map("a", a="1"))
    assert answer.status == 422
    assert "no params found for policy binding" in answer.body["message"]
    server.make(f"{other}/configmaps", config_map("limits", most="1"))
    assert server.call("POST", f"{space}/configmaps", config_map("a", a="1")).status == 201
    assert server.call("POST", f"{space}/configmaps", config_map("b", a="1", b="2")).status == 422


def test_failing_expressions(server: Server, space: str, policy: Policy) -> None:
    policy({"expression": "object.data.none == 'x'"}, failurePolicy="Ignore")
    assert server.call("POST", f"{space}/configmaps", config_map("a", a="1")).status == 201
    policy({"expression": "object.data.none == 'x'"})
    answer = server.call("POST", f"{space}/configmaps", config_map("b", a="1"))
    assert "resulted in error: no such key: none" in answer.body["message"]


def test_policies_that_cannot_be(server: Server) -> None:
    spec = {
        "matchConstraints": {"resourceRules": []},
        "validations": [{"expression": "1 +"}],
        "failurePolicy": "Maybe",
    }
    answer = server.call("POST", f"{BASE}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    assert answer.status == 422
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [
        "spec.matchConstraints.resourceRules",
        "spec.failurePolicy",
        "spec.validations[0].expression",
    ]
    body = {"metadata": {"name": "b"}, "spec": {"policyName": "", "validationActions": ["Deny", "Warn"]}}
    assert server.call("POST", f"{BASE}/validatingadmissionpolicybindings", body).status == 422
