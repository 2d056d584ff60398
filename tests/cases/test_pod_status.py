"""The status and the events of pods that run: gates, admission, a group that is gone, restarts of the rooms."""

from __future__ import annotations

import json
import os
import signal
import ssl
import urllib.parse
import urllib.request
from typing import Any

import pytest

from cumulet.common import config as settings
from cumulet.common.entra import ARM_AUDIENCE, read_credential
from tests.cases.path import IMAGE, ThePath, pod

FOREVER = ["sleep", "600"]
GATE = "example.com/open"


def _bound(name: str, path: ThePath, **spec: Any) -> dict[str, Any]:
    """A pod that is bound to the node without the scheduler."""
    config = settings.load(path.installation.data_dir)
    return pod(name, [{"name": "main", "command": FOREVER}], nodeName=config.node_name, **spec)


def test_a_pod_that_the_node_does_not_admit_fails_with_the_reason_of_the_kubelet(path: ThePath) -> None:
    requests = {"resources": {"requests": {"cpu": "20000"}}}
    large = _bound("large", path)
    large["spec"]["containers"][0] |= requests
    path.apply(large, _bound("elsewhere", path, nodeSelector={"type": "other"}))
    for name, reason, message in (
        ("large", "OutOfcpu", "Node didn't have enough resource: cpu, requested: 20000000, used: "),
        (
            "elsewhere",
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
    ):
        path.wait_phase(name, "Failed")
        status = path.get(name)["status"]
        assert status["reason"] == reason
        assert status["message"].startswith(f"Pod was rejected: {message}")
        assert path.events(name, reason).startswith(message)


@pytest.fixture(scope="module")
def running(path: ThePath) -> ThePath:
    """Pods that run: `gated` waits for a condition of someone else."""
    path.apply(
        pod("gated", [{"name": "main", "command": FOREVER}], readinessGates=[{"conditionType": GATE}]),
        pod("steady", [{"name": "main", "command": FOREVER}]),
        pod("lost", [{"name": "main", "command": FOREVER}]),
    )
    for name in ("gated", "steady", "lost"):
        path.wait_phase(name, "Running")
    return path


def _conditions(path: ThePath, name: str) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in path.get(name)["status"]["conditions"]}


def test_a_pod_is_ready_when_its_gates_are_open(running: ThePath) -> None:
    ready = _conditions(running, "gated")["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ReadinessGatesNotReady")
    assert ready["message"] == f'corresponding condition of pod readiness gate "{GATE}" does not exist.'
    opened = {"status": {"conditions": [{"type": GATE, "status": "True", "reason": "Opened"}]}}
    running.kubectl("patch", "pod", "gated", "--subresource=status", "-p", json.dumps(opened))
    running.wait("pod/gated", "condition=Ready")
    conditions = _conditions(running, "gated")
    assert conditions[GATE]["reason"] == "Opened"
    assert "reason" not in conditions["Ready"]
    found = running.get("gated")
    assert found["status"]["observedGeneration"] == conditions["Ready"]["observedGeneration"]
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]


def test_events_are_the_kubelets(running: ThePath) -> None:
    read = ("get", "events", "--field-selector", "involvedObject.name=steady", "-o", "json")

    def told() -> dict[str, dict[str, Any]]:
        found = {item["reason"]: item for item in json.loads(running.kubectl(*read))["items"]}
        return found if "Started" in found else {}

    events = running.until(told, "event Started")
    for reason, message in (("Pulled", IMAGE), ("Created", "Container created"), ("Started", "Container started")):
        event = events[reason]
        assert message in event["message"]
        assert event["type"] == "Normal"
        assert event["count"] == 1
        assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
        assert event["source"]["component"] == event["reportingComponent"] == "kubelet"
    scheduled = events["Scheduled"]
    assert "fieldPath" not in scheduled["involvedObject"]
    assert scheduled["message"].startswith("Successfully assigned default/steady to ")


def test_a_restart_of_the_rooms_changes_no_status(running: ThePath) -> None:
    before = running.get("steady")
    node = settings.load(running.installation.data_dir).node_name
    other = {"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock"}
    running.kubectl(
        "patch", "node", node, "--subresource=status", "-p", json.dumps({"status": {"conditions": [other]}})
    )
    pids = running.installation.pids()
    for room in ("instances", "node"):
        os.kill(pids[room], signal.SIGKILL)
    # What is applied after the restart has gone through both rooms.
    running.run("after-restart", "echo", "it ran")
    assert running.output("after-restart") == "it ran\n"
    after = running.get("steady")
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    # The node has registered again: conditions of others stay, and its lease goes with it.
    registered = running.get(node, "node")
    conditions = {item["type"]: item for item in registered["status"]["conditions"]}
    assert conditions["KernelDeadlock"]["reason"] == "KernelHasNoDeadlock"
    assert conditions["Ready"]["status"] == "True"
    lease = json.loads(running.kubectl("get", "lease", node, "-n", "kube-node-lease", "-o", "json"))
    assert [item["uid"] for item in lease["metadata"]["ownerReferences"]] == [registered["metadata"]["uid"]]


def test_a_pod_whose_group_is_deleted_by_another_fails(running: ThePath) -> None:
    uid = running.get("lost")["metadata"]["uid"]
    _arm(
        running, "DELETE", next(group["id"] for group in _arm(running, "GET")["value"] if group["tags"]["UID"] == uid)
    )
    running.wait_phase("lost", "Failed")
    status = running.get("lost")["status"]
    assert status["reason"] == "NotFound"
    # Of its own end if the node has seen it, and otherwise because nobody has.
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137
    assert {item["type"]: item["status"] for item in status["conditions"]}["Ready"] == "False"


def _arm(path: ThePath, method: str, resource: str = "") -> Any:
    """Call Azure Resource Manager as the owner: about one resource, or all groups of the node."""
    config = settings.load(path.installation.data_dir)
    context = ssl.create_default_context(cafile=str(config.pki_dir / "ca.crt"))
    who = read_credential(config.credential_file("owner"))
    form = {
        "grant_type": "client_credentials",
        "client_id": who.client_id,
        "client_secret": who.client_secret,
        "scope": f"{ARM_AUDIENCE}/.default",
    }
    token_url = f"{config.url('identity')}/{config.tenant_id}/oauth2/v2.0/token"
    with urllib.request.urlopen(token_url, urllib.parse.urlencode(form).encode(), context=context) as answer:
        token = json.load(answer)["access_token"]
    groups = (
        f"/subscriptions/{config.subscription_id}/resourceGroups/{config.node_resource_group}"
        "/providers/Microsoft.ContainerInstance/containerGroups"
    )
    request = urllib.request.Request(
        f"{config.url('arm')}{resource or groups}?api-version=2023-05-01",
        method=method,
        headers={"Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(request, context=context) as answer:
        return json.loads(answer.read() or b"null")
