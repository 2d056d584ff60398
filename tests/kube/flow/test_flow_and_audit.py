"""Priority and fairness, and the audit log."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cloud import Answer, Cloud
from tests.kube.conftest import Server
from tests.kube.hooks import Webhook

FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
CONFIG_MAP = {"metadata": {"generateName": "m"}}


def as_user(server: Server, user: str, method: str, path: str, body: Any = None) -> Answer:
    return server.call(method, path, body, impersonate_user=user, impersonate_group="writers")


@pytest.fixture
def held(cloud: Cloud, server: Server) -> Iterator[tuple[str, threading.Semaphore, threading.Event]]:
    """A namespace in which every write waits for the event; the semaphore counts waiting writes."""
    name = f"f{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "writers"}
    binding = {"metadata": {"name": "writers"}, "roleRef": role, "subjects": [subject]}
    server.make(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings", binding)
    waits, go = threading.Semaphore(0), threading.Event()

    def hold(request: dict[str, Any]) -> dict[str, Any]:
        waits.release()
        go.wait()
        return {"allowed": True}

    hook = Webhook(cloud.config)
    hook.answer = hold
    rule = hook.rule("hold.example.com", "configmaps", name)
    server.make(HOOKS, {"metadata": {"name": name}, "webhooks": [{**rule, "timeoutSeconds": 30}]})
    yield space, waits, go
    go.set()
    server.call("DELETE", f"{HOOKS}/{name}")
    hook.close()


@pytest.fixture
def level(server: Server) -> Iterator[str]:
    """A level with one seat for the user `storm`, and no queue."""
    name = f"l{uuid.uuid4().hex[:8]}"
    limited = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}
    spec: dict[str, Any] = {"type": "Limited", "limited": limited}
    server.make(f"{FLOW}/prioritylevelconfigurations", {"metadata": {"name": name}, "spec": spec})
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    rules = [{"subjects": [{"kind": "User", "user": {"name": "storm"}}], "resourceRules": [rule]}]
    spec = {"priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 10, "rules": rules}
    server.make(f"{FLOW}/flowschemas", {"metadata": {"name": name}, "spec": spec})
    yield name
    server.call("DELETE", f"{FLOW}/flowschemas/{name}")
    server.call("DELETE", f"{FLOW}/prioritylevelconfigurations/{name}")


def test_a_storm_takes_the_seats_of_its_level_alone(
    server: Server, held: tuple[str, threading.Semaphore, threading.Event], level: str
) -> None:
    space, waits, go = held
    with ThreadPoolExecutor() as pool:
        # 256 seats for 246 shares: one share gets two seats.
        first = [pool.submit(as_user, server, "storm", "POST", f"{space}/configmaps", CONFIG_MAP) for _ in range(2)]
        waits.acquire()
        waits.acquire()
        answers = [as_user(server, "storm", "GET", f"{space}/configmaps") for _ in range(20)]
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].body["message"] == "Too many requests, please try again later."
        assert refused[0].body["reason"] == "TooManyRequests"
        assert as_user(server, "quiet", "GET", f"{space}/configmaps").status == 200
        go.set()
        assert [found.result().status for found in first] == [201, 201]
    assert as_user(server, "storm", "GET", f"{space}/configmaps").status == 200


def test_waiting_requests_get_their_turn(
    server: Server, held: tuple[str, threading.Semaphore, threading.Event]
) -> None:
    space, waits, go = held
    levels = [
        item["metadata"]["name"] for item in server.call("GET", f"{FLOW}/prioritylevelconfigurations").body["items"]
    ]
    assert {"exempt", "system", "node-high", "leader-election", "workload-low", "global-default"} <= set(levels)
    with ThreadPoolExecutor(40) as pool:
        found = [pool.submit(as_user, server, "crowd", "POST", f"{space}/configmaps", CONFIG_MAP) for _ in range(40)]
        waits.acquire()
        go.set()
        assert {item.result().status for item in found} == {201}


def audited(cloud: Cloud, name: str) -> list[dict[str, Any]]:
    lines = (cloud.config.room_dir("kube") / "audit.log").read_text().splitlines()
    return [event for line in lines if name in line for event in [json.loads(line)]]


def test_invalid_credentials_are_audited(cloud: Cloud, server: Server) -> None:
    name = f"a{uuid.uuid4().hex[:8]}"
    path = f"/api/v1/namespaces/{name}/secrets/s"
    assert server.call("GET", path, authorization="Bearer not-a-token").status == 401
    (event,) = audited(cloud, name)
    assert (event["verb"], event["objectRef"]["resource"], event["user"]) == ("get", "secrets", {})
    assert event["responseStatus"]["code"] == 401
    assert "not-a-token" not in json.dumps(event)


def test_writes_and_refusals_are_audited(cloud: Cloud, server: Server) -> None:
    name = f"a{uuid.uuid4().hex[:8]}"
    space = server.namespace(name)
    server.make(f"{space}/secrets", {"metadata": {"name": "s"}, "stringData": {"password": "hunter2-secret"}})
    server.call("GET", f"{space}/secrets/s")
    server.call("GET", f"{space}/configmaps")
    as_user(server, "stranger", "GET", f"{space}/pods")
    events = audited(cloud, name)
    seen = [
        (event["verb"], event["objectRef"]["resource"], event["responseStatus"]["code"], event["user"]["username"])
        for event in events
    ]
    assert ("create", "secrets", 201, "kubernetes-admin") in seen
    assert ("get", "secrets", 200, "kubernetes-admin") in seen
    assert ("list", "pods", 403, "kubernetes-admin") in seen
    assert not [item for item in seen if item[1] == "configmaps"]
    assert [event for event in events if event.get("impersonatedUser", {}).get("username") == "stranger"]
    assert "hunter2" not in json.dumps(events)
    assert events[0]["apiVersion"] == "audit.k8s.io/v1"
    assert events[0]["requestReceivedTimestamp"] <= events[0]["stageTimestamp"]
    assert (cloud.config.room_dir("kube") / "audit.log").stat().st_mode & 0o777 == 0o600
