"""A deleted pod ends as Succeeded or Failed, by its exit codes, before it goes; a finalizer holds it until then."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cases.path import LOGIN_SERVER, PULL_SECRET, ThePath, pod

FINALIZER = "example.com/held"
#: Ends with code 0, or 7, when it is told to.
ENDS_WELL = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
ENDS_BADLY = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"]
FOREVER = ["sleep", "600"]


def job(name: str, **spec: Any) -> dict[str, Any]:
    template = pod(name, [{"name": "main", "command": FOREVER}], restartPolicy="Never")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 3, "template": {"metadata": {}, "spec": template["spec"]}, **spec},
    }


JOBS: dict[str, dict[str, Any]] = {
    "failure-policy": {
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    },
    "replaced-when-failed": {"podReplacementPolicy": "Failed"},
    "plain": {},
}


def test_the_deleted_pod_of_a_job_is_replaced(path: ThePath) -> None:
    path.apply(*(job(name, **spec) for name, spec in JOBS.items()))
    first = {name: _running(path, name) for name in JOBS}
    path.kubectl("delete", "pod", "-l", "batch.kubernetes.io/job-name", "--wait=false")
    for name in JOBS:
        path.kubectl("wait", f"pod/{first[name]}", "--for=delete", "--timeout=60s")
        assert _running(path, name) != first[name]
    counted = path.get("failure-policy", "job")["status"]
    assert counted["failed"] == 1  # nobody disrupted it
    path.kubectl("delete", "jobs", *JOBS, "--wait=false")


def _running(path: ThePath, name: str) -> str:
    """Return the name of a job's running pod, once there is one."""

    def read() -> list[str]:
        found = json.loads(path.kubectl("get", "pods", "-l", f"job-name={name}", "-o", "json"))["items"]
        return [
            item["metadata"]["name"]
            for item in found
            if not item["metadata"].get("deletionTimestamp") and item["status"]["phase"] == "Running"
        ]

    return path.until(read, f"running pod of {name}")[0]


def _held(name: str, containers: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    made = pod(name, containers, **spec)
    made["metadata"]["finalizers"] = [FINALIZER]
    return made


HELD: dict[str, tuple[dict[str, Any], str, str, list[int]]] = {
    # name: the pod, what to wait for before it is deleted, its last phase and exit codes
    "ends-well": (
        _held("ends-well", [{"name": "main", "command": ENDS_WELL}], terminationGracePeriodSeconds=20),
        "{.status.phase}=Running",
        "Succeeded",
        [0],
    ),
    "ends-badly": (
        _held(
            "ends-badly",
            [{"name": "main", "command": ENDS_BADLY}, {"name": "other", "command": ENDS_WELL}],
            terminationGracePeriodSeconds=20,
            restartPolicy="OnFailure",
        ),
        "{.status.phase}=Running",
        "Failed",
        [7, 0],
    ),
    "killed": (
        _held("killed", [{"name": "main", "command": FOREVER}]),
        "{.status.phase}=Running",
        "Failed",
        [137],
    ),
    "pulling": (
        _held("pulling", [{"name": "main", "image": f"{LOGIN_SERVER}/absent:2"}]),
        "{.status.containerStatuses[0].state.waiting.message}",
        "Failed",
        [137],
    ),
    "initializing": (
        _held(
            "initializing",
            [{"name": "main"}],
            initContainers=[{"name": "init", "image": f"{LOGIN_SERVER}/bb:1", "command": FOREVER}],
        ),
        "{.status.initContainerStatuses[0].state.running.startedAt}",
        "Failed",
        [],
    ),
    "refused": (
        _held("refused", [{"name": "main"}], hostNetwork=True),
        "{.status.reason}=ProviderFailed",
        "Failed",
        [137],
    ),
}


@pytest.fixture(scope="module")
def held(path: ThePath) -> dict[str, dict[str, Any]]:
    """The pods after their deletion, each held by its finalizer."""
    path.apply(*(made for made, _, _, _ in HELD.values()))
    for name, (_, condition, _, _) in HELD.items():
        path.wait(f"pod/{name}", f"jsonpath={condition}")
    path.kubectl("delete", "pods", *HELD, "--wait=false")
    found = {}
    for name, (_, _, phase, _) in HELD.items():
        path.wait_phase(name, phase)
        found[name] = path.get(name)
        path.kubectl("patch", "pod", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    for name in HELD:
        path.kubectl("wait", f"pod/{name}", "--for=delete", "--timeout=60s")
    return found


@pytest.mark.parametrize("name", HELD)
def test_a_held_pod_has_ended_by_its_exit_codes(held: dict[str, dict[str, Any]], name: str) -> None:
    _, _, phase, codes = HELD[name]
    status = held[name]["status"]
    states = [item["state"] for item in status["containerStatuses"]]
    assert [state["terminated"]["exitCode"] for state in states if "terminated" in state] == codes
    conditions = {item["type"]: item for item in status["conditions"]}
    reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", reason)
    assert conditions["PodReadyToStartContainers"]["status"] == "False"
    if name == "initializing":
        assert states == [{"waiting": {"reason": "PodInitializing"}}]
        assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


def test_an_evicted_pod_keeps_the_condition_that_says_so(path: ThePath) -> None:
    path.apply(_held("evicted", [{"name": "main", "command": FOREVER}]))
    path.wait_phase("evicted", "Running")
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": "default"}}
    path.kubectl(
        "create", "--raw", "/api/v1/namespaces/default/pods/evicted/eviction", "-f", "-", stdin=json.dumps(body)
    )
    path.wait_phase("evicted", "Failed")
    conditions = {item["type"]: item for item in path.get("evicted")["status"]["conditions"]}
    assert conditions["DisruptionTarget"]["reason"] == "EvictionByEvictionAPI"
    assert conditions["DisruptionTarget"]["status"] == "True"
    path.kubectl("patch", "pod", "evicted", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    path.kubectl("wait", "pod/evicted", "--for=delete", "--timeout=60s")


def test_a_namespace_with_the_running_pod_of_a_job_goes(path: ThePath) -> None:
    path.kubectl("create", "namespace", "short")
    secret = path.get(PULL_SECRET, "secret")
    copy = {"metadata": {"name": PULL_SECRET, "namespace": "short"}, "kind": "Secret", "apiVersion": "v1"}
    made = job("held", podReplacementPolicy="Failed")
    made["metadata"]["namespace"] = "short"
    path.apply({**copy, "type": secret["type"], "data": secret["data"]}, made)
    read = ("get", "pods", "-n", "short", "-o", "jsonpath={.items[*].status.phase}")
    path.until(lambda: path.kubectl(*read) == "Running", "running pod")
    path.kubectl("delete", "namespace", "short", "--timeout=60s")
