"""Admission webhooks: changes and refusals by servers that are called over TLS."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Server
from tests.kube.hooks import Webhook, patch

Object = dict[str, Any]

BASE = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def hook(cloud: Cloud) -> Iterator[Webhook]:
    """A webhook."""
    made = Webhook(cloud.config)
    yield made
    made.close()


@pytest.fixture
def space(server: Server) -> str:
    """The path of a namespace."""
    return server.namespace(f"h{uuid.uuid4().hex[:8]}")


@pytest.fixture
def configure(server: Server) -> Iterator[Any]:
    """Creates configurations, and removes them after the test."""
    made: list[str] = []

    def make(kind: str, *webhooks: Object) -> Object:
        name = f"c{uuid.uuid4().hex[:8]}"
        path = f"{BASE}/{kind.lower()}webhookconfigurations"
        found: Object = server.make(path, {"metadata": {"name": name}, "webhooks": list(webhooks)})
        made.append(f"{path}/{name}")
        return found

    yield make
    for path in made:
        assert server.call("DELETE", path).status == 200


def config_map(name: str = "m", **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def test_defaults_of_a_configuration(hook: Webhook, configure: Any, space: str) -> None:
    webhook = configure("Mutating", hook.rule("a.example.com", "configmaps", "nowhere"))["webhooks"][0]
    assert (webhook["failurePolicy"], webhook["matchPolicy"], webhook["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
    assert webhook["reinvocationPolicy"] == "Never"
    assert webhook["rules"][0]["scope"] == "*"


def test_an_object_is_changed(server: Server, hook: Webhook, configure: Any, space: str) -> None:
    hook.answer = lambda request: {
        **patch({"op": "add", "path": "/data/b", "value": "2"}, {"op": "add", "path": "/nonsense", "value": 1}),
        "warnings": ["mind the gap"],
    }
    configure("Mutating", hook.rule("a.example.com", "configmaps", space.rpartition("/")[2]))
    answer = server.call("POST", f"{space}/configmaps", config_map())
    assert answer.status == 201
    assert answer.body["data"] == {"a": "1", "b": "2"}
    assert "nonsense" not in answer.body
    assert answer.headers["Warning"] == '299 - "mind the gap"'
    review = hook.requests[-1]
    assert review["operation"] == "CREATE"
    assert review["object"]["kind"] == "ConfigMap"
    assert review["oldObject"] is None
    assert review["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert review["userInfo"]["username"] == "kubernetes-admin"
    assert review["dryRun"] is False
    server.call("DELETE", f"{space}/configmaps/m")
    assert [request["operation"] for request in hook.requests] == ["CREATE"], "those that change do not see deletions"


def test_an_object_is_refused(server: Server, hook: Webhook, configure: Any, space: str) -> None:
    status = {"code": 403, "reason": "Forbidden", "message": "not on a Friday"}
    configure("Validating", hook.rule("no.example.com", "configmaps", space.rpartition("/")[2]))
    assert server.call("POST", f"{space}/configmaps", config_map()).status == 201
    hook.answer = lambda request: {"allowed": False, "status": status}
    for method, path, body in (
        ("POST", f"{space}/configmaps", config_map("other")),
        ("PUT", f"{space}/configmaps/m", config_map()),
        ("DELETE", f"{space}/configmaps/m", None),
    ):
        answer = server.call(method, path, body)
        assert answer.status == 403
        assert answer.body["message"] == 'admission webhook "no.example.com" denied the request: not on a Friday'
    hook.answer = lambda request: {"allowed": False}
    answer = server.call("POST", f"{space}/configmaps", config_map("other"))
    assert answer.status == 400
    assert answer.body["message"] == 'admission webhook "no.example.com" denied the request without explanation'


@pytest.mark.parametrize(
    "answer",
    [
        {"allowed": True, "warnings": 5},
        {"allowed": True, "warnings": {"a": 1}},
        {"allowed": False, "status": "no"},
        {"allowed": False, "status": {"code": "x", "message": 5, "reason": {}, "details": 5}},
        {"allowed": False, "status": {"code": 429, "details": {"retryAfterSeconds": "a\r\nb"}}},
        patch({"op": "replace", "path": "", "value": 5}),
        patch({"op": "remove", "path": "/metadata"}),
        patch({"op": "add", "path": "/spec", "value": 5}),
        patch({"op": "add", "path": "/spec/maxReplicas", "value": "x"}),
        patch({"op": "add", "path": "/spec/metrics", "value": 5}),
        patch({"op": "add", "path": "/metadata/annotations", "value": "x"}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_answers_that_make_no_sense(
    server: Server, hook: Webhook, configure: Any, space: str, version: str, answer: Object
) -> None:
    rule = hook.rule("a.example.com", "horizontalpodautoscalers", space.rpartition("/")[2], matchPolicy="Exact")
    rule["rules"][0]["apiVersions"] = ["*"]
    configure("Mutating", rule)
    hook.answer = lambda request: answer
    path = f"/apis/autoscaling/{version}/namespaces/{space.rpartition('/')[2]}/horizontalpodautoscalers"
    spec = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    found = server.call("POST", path, {"metadata": {"name": "h"}, "spec": spec})
    assert hook.requests
    assert found.status < 500 or "failed calling webhook" in found.body["message"]


def test_which_webhooks_are_called(server: Server, hook: Webhook, configure: Any, space: str) -> None:
    selector = {"matchLabels": {"look": "yes"}}
    condition = {"name": "not-b", "expression": "object.metadata.name != 'b' && request.operation == 'CREATE'"}
    rule = hook.rule("a.example.com", "configmaps", space.rpartition("/")[2])
    configure("Validating", {**rule, "objectSelector": selector, "matchConditions": [condition]})
    for name, labels in (("a", {"look": "yes"}), ("b", {"look": "yes"}), ("c", {"look": "no"})):
        server.make(f"{space}/configmaps", config_map(name, **labels))
    server.make(f"{space}/secrets", {"metadata": {"name": "s", "labels": {"look": "yes"}}})
    assert [request["name"] for request in hook.requests] == ["a"]


def test_dry_run(server: Server, hook: Webhook, configure: Any, space: str) -> None:
    rule = hook.rule("a.example.com", "configmaps", space.rpartition("/")[2])
    configure("Validating", rule)
    assert server.call("POST", f"{space}/configmaps?dryRun=All", config_map()).status == 201
    assert hook.requests[-1]["dryRun"] is True
    configure("Validating", {**rule, "name": "effects.example.com", "sideEffects": "NoneOnDryRun"})
    assert server.call("POST", f"{space}/configmaps?dryRun=All", config_map()).status == 201


@pytest.mark.parametrize(("policy", "code"), [("Fail", 500), ("Ignore", 201)])
def test_a_webhook_that_does_not_answer(
    server: Server, hook: Webhook, configure: Any, space: str, policy: str, code: int
) -> None:
    held = threading.Event()

    def hold(request: Object) -> Object:
        held.wait()
        return {"allowed": True}

    hook.answer = hold
    rule = hook.rule("slow.example.com", "configmaps", space.rpartition("/")[2])
    configure("Validating", {**rule, "timeoutSeconds": 1, "failurePolicy": policy})
    answer = server.call("POST", f"{space}/configmaps", config_map())
    held.set()
    assert answer.status == code
    if code == 500:
        text = 'Internal error occurred: failed calling webhook "slow.example.com": failed to call webhook: Post '
        assert answer.body["message"].startswith(text)
        assert answer.body["message"].endswith("context deadline exceeded")


def test_a_service_is_called_at_its_endpoints(server: Server, configure: Any, space: str) -> None:
    service = {"namespace": space.rpartition("/")[2], "name": "hooks", "path": "/x"}
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    webhook = {
        "name": "svc.example.com",
        "clientConfig": {"service": service},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.rpartition("/")[2]}},
    }
    configure("Validating", webhook)
    answer = server.call("POST", f"{space}/configmaps", config_map())
    assert answer.status == 500
    assert 'services "hooks" not found' in answer.body["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "short"}, "webhooks[0].name"),
        ({"sideEffects": "Some"}, "webhooks[0].sideEffects"),
        ({"admissionReviewVersions": []}, "webhooks[0].admissionReviewVersions"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds"),
        ({"failurePolicy": "Perhaps"}, "webhooks[0].failurePolicy"),
        ({"clientConfig": {}}, "webhooks[0].clientConfig"),
        ({"clientConfig": {"url": "http://127.0.0.1/"}}, "webhooks[0].clientConfig.url"),
        ({"matchConditions": [{"name": "a", "expression": "1 +"}]}, "webhooks[0].matchConditions[0].expression"),
    ],
)
def test_bad_configurations(server: Server, hook: Webhook, change: Object, field: str) -> None:
    webhook = {**hook.rule("a.example.com", "configmaps", "x"), **change}
    body = {"metadata": {"name": "bad"}, "webhooks": [webhook]}
    answer = server.call("POST", f"{BASE}/validatingwebhookconfigurations", body)
    assert answer.status == 422
    assert field in [cause["field"] for cause in answer.body["details"]["causes"]]
