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
SHORT = "short-lived"


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
def applied(path: ThePath) -> ThePath:
    """Everything of this module is applied at once: jobs, held pods, a pod to evict, and a namespace with a job."""
    path.kubectl("create", "namespace", SHORT)
    secret = path.get(PULL_SECRET, "secret")
    copy = {"metadata": {"name": PULL_SECRET, "namespace": SHORT}, "kind": "Secret", "apiVersion": "v1"}
    inside = job("inside", podReplacementPolicy="Failed")
    inside["metadata"]["namespace"] = SHORT
    path.apply(
        {**copy, "type": secret["type"], "data": secret["data"]},
        inside,
        *(job(name, **spec) for name, spec in JOBS.items()),
        *(made for made, _, _, _ in HELD.values()),
        _held("evicted", [{"name": "main", "command": FOREVER}]),
    )
    return path


@pytest.fixture(scope="module")
def held(applied: ThePath) -> dict[str, dict[str, Any]]:
    """The pods after their deletion, each held by its finalizer until then."""
    for name, (_, condition, _, _) in HELD.items():
        applied.wait(f"pod/{name}", f"jsonpath={condition}")
    applied.kubectl("delete", "pods", *HELD, "--wait=false")
    found = {}
    for name, (_, _, phase, _) in HELD.items():
        applied.wait_phase(name, phase)
        found[name] = applied.get(name)
        _release(applied, name)
    applied.kubectl("wait", *(f"pod/{name}" for name in HELD), "--for=delete", "--timeout=60s")
    return found


def _release(path: ThePath, name: str) -> None:
    path.kubectl("patch", "pod", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


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


def test_the_deleted_pod_of_a_job_is_replaced(applied: ThePath) -> None:
    first = {name: _running(applied, name) for name in JOBS}
    applied.kubectl("delete", "pods", *first.values())
    for name in JOBS:
        assert _running(applied, name) != first[name]
    counted = applied.get("failure-policy", "job")["status"]
    assert counted["failed"] == 1  # nobody disrupted it
    applied.kubectl("delete", "jobs", *JOBS, "--wait=false")


def test_an_evicted_pod_keeps_the_condition_that_says_so(applied: ThePath) -> None:
    applied.wait_phase("evicted", "Running")
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": "default"}}
    evict = ("create", "--raw", "/api/v1/namespaces/default/pods/evicted/eviction", "-f", "-")
    applied.kubectl(*evict, stdin=json.dumps(body))
    applied.wait_phase("evicted", "Failed")
    conditions = {item["type"]: item for item in applied.get("evicted")["status"]["conditions"]}
    assert conditions["DisruptionTarget"]["reason"] == "EvictionByEvictionAPI"
    assert conditions["DisruptionTarget"]["status"] == "True"
    _release(applied, "evicted")


def test_a_namespace_with_the_running_pod_of_a_job_goes(applied: ThePath) -> None:
    read = ("get", "pods", "-n", SHORT, "-o", "jsonpath={.items[*].status.phase}")
    applied.until(lambda: applied.kubectl(*read) == "Running", "running pod")
    applied.kubectl("delete", "namespace", SHORT, "--timeout=60s")
