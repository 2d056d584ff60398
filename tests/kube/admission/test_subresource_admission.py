"""Webhooks and policies for sub-resources: scale, binding, eviction, token, and connections to a pod."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube.conftest import Server
from tests.kube.hooks import Webhook, patch

Object = dict[str, Any]

BASE = "/apis/admissionregistration.k8s.io/v1"
MERGE = "application/merge-patch+json"


@pytest.fixture
def space(server: Server) -> str:
    """The path of a namespace."""
    return server.namespace(f"s{uuid.uuid4().hex[:8]}")


@pytest.fixture
def hook(server: Server, space: str) -> Iterator[Webhook]:
    """A webhook for every sub-resource of the namespace, first to change the body and then to refuse it."""
    made = Webhook(server.cloud.config)
    name = space.rpartition("/")[2]
    operations = ["CREATE", "UPDATE", "DELETE", "CONNECT"]
    rules = [{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*", "bindings"]}]
    paths = []
    for kind in ("mutating", "validating"):
        webhook = made.rule(f"{kind}.example.com", "", name, rules=rules)
        path = f"{BASE}/{kind}webhookconfigurations"
        server.make(path, {"metadata": {"name": name}, "webhooks": [webhook]})
        paths.append(f"{path}/{name}")
    yield made
    for path in paths:
        server.call("DELETE", path)
    made.close()


def pod(server: Server, space: str) -> str:
    container = {"name": "c", "image": "x"}
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    return f"{space}/pods/p"


def workload(server: Server, space: str) -> str:
    apps = space.replace("/api/v1", "/apis/apps/v1") + "/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    server.make(apps, {"metadata": {"name": "d"}, "spec": spec})
    return f"{apps}/d"


def test_scale(server: Server, space: str, hook: Webhook) -> None:
    path = workload(server, space)
    hook.requests.clear()
    change = {"spec": {"replicas": 3}}
    assert server.call("PATCH", f"{path}/scale", change, content_type=MERGE).body["spec"] == {"replicas": 3}
    review = hook.requests[0]
    assert (review["operation"], review["subResource"], review["resource"]["resource"]) == (
        "UPDATE",
        "scale",
        "deployments",
    )
    assert review["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    assert (review["object"]["kind"], review["object"]["spec"]["replicas"]) == ("Scale", 3)
    assert review["oldObject"]["spec"]["replicas"] == 1
    hook.answer = lambda request: patch({"op": "replace", "path": "/spec/replicas", "value": 2})
    whole = server.call("GET", f"{path}/scale").body
    whole["spec"]["replicas"] = 9
    assert server.call("PUT", f"{path}/scale", whole).body["spec"] == {"replicas": 2}
    assert server.call("GET", path).body["spec"]["replicas"] == 2
    hook.answer = lambda request: {"allowed": False, "status": {"message": "no"}}
    answer = server.call("PATCH", f"{path}/scale", change, content_type=MERGE)
    assert answer.body["message"] == 'admission webhook "mutating.example.com" denied the request: no'


def test_binding_and_eviction(server: Server, space: str, hook: Webhook) -> None:
    path = pod(server, space)
    for body, name, group, kind in (
        ({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}, "binding", "", "Binding"),
        ({"metadata": {"name": "p"}}, "eviction", "policy", "Eviction"),
    ):
        hook.requests.clear()
        hook.answer = lambda request: {"allowed": False, "status": {"message": "no"}}
        assert server.call("POST", f"{path}/{name}", body).status == 400
        review = hook.requests[0]
        assert (review["operation"], review["subResource"], review["name"]) == ("CREATE", name, "p")
        assert review["kind"] == {"group": group, "version": "v1", "kind": kind}
        assert review["object"]["metadata"]["name"] == "p"
        assert "nodeName" not in server.call("GET", path).body["spec"]
    hook.answer = lambda request: {"allowed": True}
    assert server.call("POST", f"{path}/eviction", {"metadata": {"name": "p"}}).status == 201
    assert server.call("GET", path).status == 404


def test_connecting(server: Server, space: str, hook: Webhook) -> None:
    path = pod(server, space)
    hook.answer = lambda request: {"allowed": False, "status": {"message": "no", "code": 403}}
    for query, name, kind, options in (
        ("exec?command=a&command=b&stdin=true&container=c", "exec", "PodExecOptions", {"command": ["a", "b"]}),
        ("attach?stdin=true&container=c", "attach", "PodAttachOptions", {"stdin": True, "container": "c"}),
        ("portforward?ports=80", "portforward", "PodPortForwardOptions", {"ports": [80]}),
        ("proxy/metrics", "proxy", "PodProxyOptions", {"path": "/metrics"}),
    ):
        hook.requests.clear()
        assert server.call("GET", f"{path}/{query}").status == 403
        review = hook.requests[0]
        assert (review["operation"], review["subResource"], review["options"]) == ("CONNECT", name, None)
        assert (review["kind"]["kind"], review["object"]["kind"]) == (kind, kind)
        assert options.items() <= review["object"].items()


def test_tokens(server: Server, space: str, hook: Webhook) -> None:
    hook.answer = lambda request: {"allowed": False, "status": {"message": "no", "code": 403}}
    assert server.call("POST", f"{space}/serviceaccounts/default/token", {"spec": {}}).status == 403
    assert hook.requests[0]["kind"]["kind"] == "TokenRequest"


def test_policies(server: Server, space: str) -> None:
    path = workload(server, space)
    name = space.rpartition("/")[2]
    rule = {
        "operations": ["UPDATE"],
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "resources": ["deployments/scale"],
    }
    match = {"resourceRules": [rule], "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    validations = [{"expression": "object.spec.replicas < 5 && object.kind == 'Scale'", "message": "too many"}]
    spec = {"matchConstraints": match, "validations": validations}
    server.make(f"{BASE}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
    binding = {"policyName": name, "validationActions": ["Deny"]}
    server.make(f"{BASE}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": binding})
    try:
        for replicas, status in ((5, 422), (4, 200)):
            change = {"spec": {"replicas": replicas}}
            assert server.call("PATCH", f"{path}/scale", change, content_type=MERGE).status == status
    finally:
        server.call("DELETE", f"{BASE}/validatingadmissionpolicybindings/{name}")
        server.call("DELETE", f"{BASE}/validatingadmissionpolicies/{name}")
