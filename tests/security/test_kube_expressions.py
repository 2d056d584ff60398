"""Expressions that cost too much are refused when they are written, and end when they are evaluated."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from cumulet.kube.cel import PER_REQUEST, Budget, Environment, types
from cumulet.kube.cel.patience import within
from tests.cloud import Answer
from tests.kube.conftest import Server, cloud, server

__all__ = ["cloud", "server"]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
ADVICE = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared)"
)
_WHERE = "spec.validation.openAPIV3Schema"
SLOW = "lists.range(200).all(a, lists.range(200).all(b, a + b >= 0))"


def definition(schema: dict[str, Any], group: str = "") -> dict[str, Any]:
    group = group or f"g{uuid.uuid4().hex[:8]}.example.com"
    return {
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    }


def spec_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


def causes(answer: Answer) -> list[tuple[str, str]]:
    return [(cause["field"], cause["message"]) for cause in answer.body["details"]["causes"]]


_TEXTS = {"type": "array", "items": {"type": "string"}}


def ruled(schema: dict[str, Any], *rules: str, **more: Any) -> dict[str, Any]:
    return {**schema, "x-kubernetes-validations": [{"rule": rule, **more} for rule in rules]}


@pytest.mark.parametrize(
    ("schema", "factor"),
    [
        (ruled(_TEXTS, "self.all(a, self.all(b, a == b))"), "more than 100x"),
        (ruled(_TEXTS, "self.all(a, a.matches('^[a-z]+$'))"), "more than 100x"),
        (ruled({"type": "string"}, "self.contains(self)"), "more than 100x"),
        (ruled(_TEXTS | {"maxItems": 20}, "self.all(a, a.size() > 0 && a.lowerAscii() == a)"), "1.258308x"),
        (ruled(_TEXTS | {"maxItems": 100}, "self.all(a, a.lowerAscii() == a)"), "6.3x"),
    ],
)
def test_what_a_rule_can_cost(server: Server, schema: dict[str, Any], factor: str) -> None:
    answer = server.call("POST", DEFINITIONS, definition(spec_of(field=schema)))
    assert answer.status == 422, answer.body
    where = f"{_WHERE}.properties[spec].properties[field].x-kubernetes-validations[0].rule"
    said = f"Forbidden: estimated rule cost exceeds budget by factor of {factor} {ADVICE}"
    assert causes(answer)[0] == (where, said)


def test_bounds_make_rules_cheap(server: Server) -> None:
    items = {"type": "string", "maxLength": 20}
    bounded = ruled({"type": "array", "items": items, "maxItems": 20}, "self.all(a, self.exists(b, a == b))")
    server.make(DEFINITIONS, definition(spec_of(field=bounded)))
    # A rule within lists counts as often as there can be elements.
    rule = ruled({"type": "string", "maxLength": 1000}, "self.contains('some text of twenty')")
    for most, status in (({"maxItems": 10}, 201), ({}, 422)):
        schema = spec_of(field={"type": "array", "items": {"type": "array", "items": rule, **most}, **most})
        assert server.call("POST", DEFINITIONS, definition(schema)).status == status


def test_what_a_definition_can_cost(server: Server) -> None:
    rules = ["self.all(a, a.startsWith('abc') || a.endsWith('abc'))"] * 20
    answer = server.call("POST", DEFINITIONS, definition(spec_of(field=ruled(_TEXTS, *rules))))
    assert answer.status == 422
    what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
    found = causes(answer)
    assert found[-1][0] == _WHERE
    assert found[-1][1].startswith(f"Forbidden: {what} exceeds budget by factor of 1.")
    contributed = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    assert [message for _, message in found[:-1]] == [f"Forbidden: {contributed}"] * 4


def test_messages_cost_too(server: Server) -> None:
    schema = ruled({"type": "integer"}, "self > 1", messageExpression="'more than ' + string(self)")
    answer = server.call("POST", DEFINITIONS, definition(spec_of(field=schema)))
    assert answer.status == 422
    assert "estimated messageExpression cost exceeds budget" in answer.body["message"]


@pytest.fixture
def things(server: Server) -> Iterator[Any]:
    """Makes a kind with a schema, and gives the path of such objects."""
    names: list[str] = []

    def make(schema: dict[str, Any]) -> tuple[str, str]:
        body = definition(schema)
        server.make(DEFINITIONS, body)
        names.append(body["metadata"]["name"])
        space = server.namespace(f"x{uuid.uuid4().hex[:8]}").rpartition("/")[2]
        return f"/apis/{body['spec']['group']}/v1/namespaces/{space}/things", f"{body['spec']['group']}/v1"

    yield make
    for name in names:
        server.call("DELETE", f"{DEFINITIONS}/{name}")


def test_one_evaluation_has_a_limit(server: Server, things: Any) -> None:
    rule = "lists.range(self).all(a, a >= 0)"
    # The limit of an estimate is ten times that of an evaluation.
    path, version = things(
        spec_of(count=ruled({"type": "integer"}, f"self < 10 || {rule.replace('self', '300000')}"))
    )
    body = {"apiVersion": version, "kind": "Thing", "metadata": {"name": "a"}, "spec": {"count": 5}}
    server.make(path, body)
    answer = server.call("POST", path, {**body, "metadata": {"name": "b"}, "spec": {"count": 10}})
    assert answer.status == 422
    cancelled = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run"
    assert f"{cancelled} due to call cost exceeds limit for rule: self < 10" in answer.body["message"]


def test_all_rules_of_an_object_share_a_budget(server: Server, things: Any) -> None:
    rules = [f"lists.range(90000).all(a, a >= {-number})" for number in range(1, 31)]
    path, version = things(spec_of(count=ruled({"type": "integer"}, *rules)))
    answer = server.call(
        "POST", path, {"apiVersion": version, "kind": "Thing", "metadata": {"name": "a"}, "spec": {"count": 5}}
    )
    assert answer.status == 422
    why = "validation failed due to running out of cost budget, no further validation rules will be run"
    assert causes(answer) == [("spec.count", f'Invalid value: "integer": {why}')]


@pytest.fixture
def policy(server: Server) -> Iterator[Any]:
    """Makes a policy about config maps of a namespace."""
    names: list[str] = []

    def make(spec: dict[str, Any], namespace: str) -> Answer:
        name = f"p{uuid.uuid4().hex[:8]}"
        rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        constraints = {"resourceRules": [rule], "namespaceSelector": selector}
        answer = server.call(
            "POST",
            f"{ADMISSION}/validatingadmissionpolicies",
            {"metadata": {"name": name}, "spec": {"matchConstraints": constraints, **spec}},
        )
        if answer.status == 201:
            binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
            server.make(f"{ADMISSION}/validatingadmissionpolicybindings", binding)
            names.append(name)
        return answer

    yield make
    for name in names:
        server.call("DELETE", f"{ADMISSION}/validatingadmissionpolicybindings/{name}")
        server.call("DELETE", f"{ADMISSION}/validatingadmissionpolicies/{name}")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"validations": [{"expression": SLOW.replace("200", "1000")}]},
            f"expression '{SLOW.replace('200', '1000')}' resulted in error: operation cancelled: actual cost limit exceeded",
        ),
        (
            {"validations": [{"expression": f"{SLOW} && {number} > 0"} for number in range(1, 50)]},
            "validation failed due to running out of cost budget, no further validation rules will be run",
        ),
        (
            {
                "matchConditions": [
                    {"name": f"c{number}", "expression": f"{SLOW} && {number} > 0"} for number in range(1, 12)
                ],
                "validations": [{"expression": "true"}],
            },
            "validation failed due to running out of cost budget, no further validation rules will be run",
        ),
        (
            {
                "variables": [{"name": "slow", "expression": SLOW.replace("200", "1000")}],
                "validations": [{"expression": "variables.slow"}],
            },
            "operation cancelled: actual cost limit exceeded",
        ),
    ],
)
def test_policies_have_budgets(server: Server, policy: Any, spec: dict[str, Any], said: str) -> None:
    space = server.namespace(f"b{uuid.uuid4().hex[:8]}")
    assert policy(spec, space.rpartition("/")[2]).status == 201
    answer = server.call("POST", f"{space}/configmaps", {"metadata": {"name": "a"}})
    assert answer.status == 422, answer.body
    assert said in answer.body["message"]


def test_authorisation_is_asked_also_from_a_thread(server: Server, policy: Any) -> None:
    space = server.namespace(f"b{uuid.uuid4().hex[:8]}")
    asked = "authorizer.group('').resource('secrets').check('get').allowed()"
    slow = f"lists.range(60000).all(a, a >= 0) && {asked}"
    assert policy({"validations": [{"expression": slow}]}, space.rpartition("/")[2]).status == 201
    server.make(f"{space}/configmaps", {"metadata": {"name": "a"}})


def test_a_variable_that_nobody_uses_costs_nothing(server: Server, policy: Any) -> None:
    space = server.namespace(f"b{uuid.uuid4().hex[:8]}")
    spec = {
        "variables": [{"name": "slow", "expression": SLOW.replace("200", "1000")}],
        "validations": [{"expression": "true || variables.slow"}],
    }
    assert policy(spec, space.rpartition("/")[2]).status == 201
    server.make(f"{space}/configmaps", {"metadata": {"name": "a"}})


async def test_what_takes_long_leaves_the_loop() -> None:
    program = Environment({"self": types.DYN}).compile(SLOW)
    threads: list[int] = []

    def work(budget: Budget) -> Any:
        threads.append(threading.get_ident())
        return program.evaluate({"self": 1}, budget)

    assert await within(PER_REQUEST, work) is True
    # Begun in the loop's own thread, it was done in another.
    assert threads[0] == threading.get_ident() != threads[1]
    quick = Environment({"self": types.DYN}).compile("self == 1")
    assert await within(PER_REQUEST, lambda budget: quick.evaluate({"self": 1}, budget)) is True
    await asyncio.sleep(0)
