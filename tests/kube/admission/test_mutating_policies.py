"""Policies that change an object before it is stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kube.conftest import Server

Object = dict[str, Any]
Policy = Callable[..., str]

BASE = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def space(server: Server) -> str:
    """The path of a namespace."""
    return server.namespace(f"m{uuid.uuid4().hex[:8]}")


@pytest.fixture
def policy(server: Server, space: str) -> Iterator[Policy]:
    """Creates a policy for a resource of the namespace, with its binding."""
    made: list[str] = []

    def make(resource: str, *mutations: Object, group: str = "", **spec: Any) -> str:
        name = f"m{len(made)}-{uuid.uuid4().hex[:8]}"
        operations = ["CREATE", "UPDATE"]
        rule = {"operations": operations, "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}
        selector = {"matchLabels": {"kubernetes.io/metadata.name": space.rpartition("/")[2]}}
        spec = {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
            "mutations": list(mutations),
            "reinvocationPolicy": "Never",
            **spec,
        }
        server.make(f"{BASE}/mutatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
        bound = {"policyName": name}
        server.make(f"{BASE}/mutatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": bound})
        made.append(name)
        return name

    yield make
    for name in made:
        server.call("DELETE", f"{BASE}/mutatingadmissionpolicybindings/{name}")
        server.call("DELETE", f"{BASE}/mutatingadmissionpolicies/{name}")


def merging(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patching(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def pod(name: str = "p") -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}}


def test_a_sidecar_is_added(server: Server, space: str, policy: Policy) -> None:
    name = policy(
        "pods",
        merging(
            "Object{metadata: Object.metadata{labels: {'team': variables.team}}, spec: Object.spec{initContainers: ["
            "Object.spec.initContainers{name: 'proxy', image: 'proxy:1', restartPolicy: 'Always', "
            "env: [Object.spec.initContainers.env{name: 'FOR', value: object.metadata.name}]}]}}"
        ),
        variables=[{"name": "team", "expression": "namespaceObject.metadata.name"}],
        matchConditions=[
            {
                "name": "once",
                "expression": "!has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == 'proxy')",
            }
        ],
    )
    made = server.make(f"{space}/pods", pod())
    assert made["metadata"]["labels"] == {"team": space.rpartition("/")[2]}
    (sidecar,) = made["spec"]["initContainers"]
    assert sidecar["env"] == [{"name": "FOR", "value": "p"}]
    assert sidecar["terminationMessagePath"] == "/dev/termination-log"  # defaults are set afterwards
    assert [container["name"] for container in made["spec"]["containers"]] == ["c"]
    # No manager owns the fields that a policy adds.
    assert "proxy" not in str(made["metadata"]["managedFields"])
    columns = server.call("GET", f"{BASE}/mutatingadmissionpolicies/{name}").body
    assert columns["spec"]["failurePolicy"] == "Fail"


def test_operations(server: Server, space: str, policy: Policy) -> None:
    policy(
        "configmaps",
        patching(
            "[JSONPatch{op: 'test', path: '/data/a', value: '1'}, JSONPatch{op: 'replace', path: '/data/a', value: '2'}]"
        ),
        patching(
            "has(object.data.b) ? [] : [JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('b'), "
            "value: object.data.a + '!'}]"
        ),
    )
    made = server.make(f"{space}/configmaps", {"metadata": {"name": "m"}, "data": {"a": "1"}})
    assert made["data"] == {"a": "2", "b": "2!"}  # each sees the changes of those before it
    # Where a test fails, no operation of that patch is applied; the next patch is.
    made = server.make(f"{space}/configmaps", {"metadata": {"name": "n"}, "data": {"a": "0"}})
    assert made["data"] == {"a": "0", "b": "0!"}
    name = policy("secrets", patching("[JSONPatch{op: 'remove', path: '/data/' + object.type + 'z'}]"))
    answer = server.call("POST", f"{space}/secrets", {"metadata": {"name": "n"}})
    assert (answer.status, answer.body["reason"]) == (403, "Invalid")
    assert answer.body["message"].startswith(f"policy '{name}' with binding '{name}' denied request: JSON Patch: ")


def test_failing_policies_may_be_ignored(server: Server, space: str, policy: Policy) -> None:
    policy("configmaps", merging("Object{data: {'x': object.data.none}}"), failurePolicy="Ignore")
    made = server.make(f"{space}/configmaps", {"metadata": {"name": "m"}, "data": {"a": "1"}})
    assert made["data"] == {"a": "1"}


def test_atomic_values_are_not_merged(server: Server, space: str, policy: Policy) -> None:
    name = policy(
        "pods", merging("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['a']}]}}")
    )
    answer = server.call("POST", f"{space}/pods", pod())
    assert (answer.status, answer.body["reason"]) == (403, "Invalid")
    assert answer.body["message"] == (
        f"policy '{name}' with binding '{name}' denied request: error applying patch: invalid ApplyConfiguration: "
        "may not mutate atomic arrays, maps or structs: .spec.containers[0].args"
    )


def test_policies_are_reinvoked(server: Server, space: str, policy: Policy) -> None:
    count = "string(int(object.data.n) + 1)"
    policy("configmaps", merging("Object{data: {'seen': object.data.n}}"), reinvocationPolicy="IfNeeded")
    policy("configmaps", merging(f"Object{{data: {{'n': {count}}}}}"))
    made = server.make(f"{space}/configmaps", {"metadata": {"name": "m"}, "data": {"n": "0"}})
    assert made["data"] == {"n": "1", "seen": "1"}


def test_scale(server: Server, space: str, policy: Policy) -> None:
    policy("deployments/scale", merging("Object{spec: Object.spec{replicas: 2}}"), group="apps")
    apps = space.replace("/api/v1", "/apis/apps/v1") + "/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    server.make(apps, {"metadata": {"name": "d"}, "spec": spec})
    merge = {"content_type": "application/merge-patch+json"}
    assert server.call("PATCH", f"{apps}/d/scale", {"spec": {"replicas": 9}}, **merge).body["spec"] == {"replicas": 2}


def test_an_older_version_is_changed_in_its_own_words(server: Server, space: str, policy: Policy) -> None:
    add = "JSONPatch{op: 'replace', path: '/spec/targetCPUUtilizationPercentage', "
    expression = f"[{add}value: object.spec.targetCPUUtilizationPercentage + 10}}]"
    policy("horizontalpodautoscalers", patching(expression), group="autoscaling", matchPolicy="Exact")
    path = f"/apis/autoscaling/v1/namespaces/{space.rpartition('/')[2]}/horizontalpodautoscalers"
    spec = {
        "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"kind": "Deployment", "name": "d"},
    }
    made = server.make(path, {"metadata": {"name": "h"}, "spec": spec})
    assert made["spec"]["targetCPUUtilizationPercentage"] == 60


@pytest.mark.parametrize("path", ["", "/metadata", "/spec", "/metadata/labels", "/metadata/name", "/spec/containers"])
@pytest.mark.parametrize("value", ["5", "[5]", "{'name': 5}"])
def test_what_is_no_object_of_the_kind_is_refused(
    server: Server, space: str, policy: Policy, path: str, value: str
) -> None:
    policy("pods", patching(f"[JSONPatch{{op: 'add', path: '{path}', value: {value}}}]"))
    assert 400 <= server.call("POST", f"{space}/pods", pod()).status < 500


@pytest.mark.parametrize(
    ("resource", "path", "value"),
    [
        ("pods/binding", "/target", "5"),
        ("pods/binding", "/target", "{'name': 5}"),
        ("pods/eviction", "/deleteOptions", "{'preconditions': 5}"),
        ("serviceaccounts/token", "/spec", "5"),
        ("serviceaccounts/token", "/spec", "{'expirationSeconds': 'x'}"),
        ("deployments/scale", "/spec", "{'replicas': 'x'}"),
    ],
)
def test_what_is_sent_to_a_sub_resource_stays_of_its_kind(
    server: Server, space: str, policy: Policy, resource: str, path: str, value: str
) -> None:
    apps = f"/apis/apps/v1/namespaces/{space.rpartition('/')[2]}/deployments"
    server.make(f"{space}/pods", pod())
    selector, template = {"matchLabels": {"a": "b"}}, {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    server.make(apps, {"metadata": {"name": "d"}, "spec": {"selector": selector, "template": template}})
    operation = f"[JSONPatch{{op: 'add', path: '{path}', value: {value}}}]"
    policy(resource, patching(operation), group="apps" if "scale" in resource else "")
    answer = {
        "pods/binding": lambda: server.call(
            "POST", f"{space}/pods/p/binding", {"metadata": {"name": "p"}, "target": {"name": "n"}}
        ),
        "pods/eviction": lambda: server.call("POST", f"{space}/pods/p/eviction", {"metadata": {"name": "p"}}),
        "serviceaccounts/token": lambda: server.call("POST", f"{space}/serviceaccounts/default/token", {"spec": {}}),
        "deployments/scale": lambda: server.call(
            "PUT", f"{apps}/d/scale", {"metadata": {"name": "d"}, "spec": {"replicas": 2}}
        ),
    }[resource]()
    assert answer.status == 400
    assert "json: cannot unmarshal" in answer.body["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mutations": []}, "spec.mutations"),
        ({"mutations": [{"patchType": "Magic"}]}, "spec.mutations[0].patchType"),
        ({"mutations": [{"patchType": "JSONPatch"}]}, "spec.mutations[0].jsonPatch"),
        (
            {"mutations": [merging("Object{spec: Object.wrong{a: 1}}")]},
            "spec.mutations[0].applyConfiguration.expression",
        ),
        ({"mutations": [patching("[JSONPatch{operation: 'add'}]")]}, "spec.mutations[0].jsonPatch.expression"),
        ({"reinvocationPolicy": "Often"}, "spec.reinvocationPolicy"),
        ({"matchConstraints": None}, "spec.matchConstraints"),
    ],
)
def test_policies_that_are_refused(server: Server, change: Object, field: str) -> None:
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "mutations": [merging("Object{}")],
        "reinvocationPolicy": "Never",
        **change,
    }
    answer = server.call("POST", f"{BASE}/mutatingadmissionpolicies", {"metadata": {"name": "bad"}, "spec": spec})
    assert answer.status == 422
    assert field in [cause["field"] for cause in answer.body["details"]["causes"]]
