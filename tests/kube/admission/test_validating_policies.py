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
    """The path of a namespace."""
    return server.namespace(f"v{uuid.uuid4().hex[:8]}")


@pytest.fixture
def policy(server: Server, space: str) -> Iterator[Policy]:
    """Creates a policy for config maps of the namespace, with its binding of the same name."""
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


def test_denials(server: Server, space: str, policy: Policy) -> None:
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


def test_invalid_policies(server: Server) -> None:
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


@pytest.mark.parametrize(
    "expression",
    [
        "isIP('10.0.0.1') && !isIP('10.0.0.256') && !isIP('::ffff:1.2.3.4') && ip('::1').isLoopback()",
        "ip('10.0.0.1').family() == 4 && ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::abcd')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.1.2.3/8').ip() == ip('10.1.2.3')",
        "!isCIDR('10.0.0.0') && cidr('fd00::/8').prefixLength() == 8",
        "url('https://h.example.com:80/a%20b?x=1&x=2').getHost() == 'h.example.com:80' && isURL('/path') && !isURL('a')",
        "url('https://[::1]:80/p?x=1').getHostname() == '::1' && url('https://h/?x=1').getQuery() == {'x': ['1']}",
        "'%s is %d of %.1f, %x'.format(['a', 1, 2.5, 255]) == 'a is 1 of 2.5, ff'",
        "sets.contains([1, 2, 3], [2]) && sets.intersects([1], [1, 2]) && !sets.equivalent([1], [2])",
        "quantity('1Gi').isGreaterThan(quantity('1000Mi')) && sign(quantity('-1')) == -1",
        "['10.0.0.1'].all(ip, isIP(ip)) && 'abc'.contains('b') && 'a,b'.split(',') == ['a', 'b']",
        "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()",
        "!authorizer.serviceAccount('default', 'default').group('').resource('secrets').check('get').allowed()",
        "authorizer.path('/healthz').check('get').allowed() && authorizer.requestResource.check('delete').allowed()",
    ],
)
def test_libraries(server: Server, space: str, policy: Policy, expression: str) -> None:
    policy({"expression": expression})
    answer = server.call("POST", f"{space}/configmaps", config_map("m"))
    assert answer.status == 201, answer.body


def test_texts_of_any_length_are_not_made(server: Server, space: str, policy: Policy) -> None:
    policy({"expression": "'%.999999999f'.format([1.0]) != ''"})
    answer = server.call("POST", f"{space}/configmaps", config_map("m"))
    assert answer.status == 422
    assert "resulted in error" in answer.body["message"]


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("object.data.foo(1)", "foo"),
        ("cel.bind(x, 1, x == 1)", "cel"),
        ("math.greatest(1, 3) == 3", "greatest"),
        ("base64.encode(b'a') == ''", "encode"),
        ("params.a == 1", "params"),
        ("self.a == 1", "self"),
    ],
)
def test_what_is_not_there_is_refused_at_once(server: Server, expression: str, name: str) -> None:
    rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": expression}]}
    answer = server.call("POST", f"{BASE}/validatingadmissionpolicies", {"metadata": {"name": "bad"}, "spec": spec})
    assert answer.status == 422
    assert f"undeclared reference to '{name}'" in answer.body["message"]
