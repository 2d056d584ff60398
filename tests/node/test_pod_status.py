"""The status of a pod from its group: phases, ends and conditions, as the kubelet's."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.common.kubernetes.objects import Pod
from cumulet.node.resource import ContainerGroup
from cumulet.node.status import ended_status, lost_status, pod_status
from cumulet.node.status_fields import CONDITION, CONTAINER_STATUS, POD_STATUS
from cumulet.node.status_writes import StatusWrites, status_patch

_START, _END = "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01.5Z"
RUNS = {"state": "Running", "startTime": _START}
WAITS = {"state": "Waiting"}


def ended(code: int) -> dict[str, Any]:
    return {"state": "Terminated", "startTime": _START, "finishTime": _END, "exitCode": code, "detailStatus": "Error"}


def pod(policy: str = "Always", inits: Any = (), status: Any = None, **spec: Any) -> Pod:
    made: Any = {
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "generation": 3},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{"image": "i", **item} for item in inits],
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
            **spec,
        },
        "status": status or {},
    }
    answer: Pod = made
    return answer


def group(*containers: Any, inits: Any = (), state: str = "Running", previous: Any = None) -> ContainerGroup:
    def named(names: str, states: Any) -> list[Any]:
        return [
            {
                "name": name,
                "properties": {"instanceView": {"currentState": item, "attempt": 1, "previousState": previous}},
            }
            for name, item in zip(names, states, strict=False)
        ]

    made: Any = {
        "properties": {
            "containers": named("ab", containers),
            "initContainers": named("xy", inits),
            "instanceView": {"state": state},
            "ipAddress": {"ip": "10.0.0.2"},
        }
    }
    answer: ContainerGroup = made
    return answer


SIDECAR = {"name": "x", "restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("phase", "policy", "inits", "made"),
    [
        ("Pending", "Always", (), group(WAITS, RUNS)),
        ("Running", "Always", (), group(RUNS, RUNS)),
        ("Running", "Always", (), group(ended(0), ended(1))),
        ("Running", "OnFailure", (), group(ended(0), ended(1))),
        ("Running", "Never", (), group(RUNS, ended(1))),
        ("Succeeded", "OnFailure", (), group(ended(0), ended(0))),
        ("Succeeded", "Never", (), group(ended(0), ended(0))),
        ("Failed", "Never", (), group(ended(0), ended(2))),
        ("Running", "Always", (), group(WAITS, WAITS, previous=ended(1))),  # backs off
        ("Pending", "Always", [{"name": "x"}], group(WAITS, WAITS, inits=[RUNS])),
        ("Pending", "Always", [{"name": "x"}], group(WAITS, WAITS, inits=[ended(1)])),
        ("Failed", "Never", [{"name": "x"}], group(WAITS, WAITS, inits=[ended(1)])),
        ("Running", "Never", [SIDECAR], group(RUNS, RUNS, inits=[RUNS])),
        ("Succeeded", "Never", [SIDECAR], group(ended(0), ended(0), inits=[ended(137)])),
        ("Pending", "Never", [SIDECAR], group(WAITS, WAITS, inits=[WAITS])),
        ("Running", "Never", [SIDECAR], group(ended(0), ended(0), inits=[RUNS])),  # the sidecar is still ending
        ("Failed", "Always", (), group(ended(0), ended(1), state="Stopped")),
        ("Succeeded", "Always", (), group(ended(0), ended(0), state="Stopped")),
    ],
)
def test_the_phase_is_that_of_the_containers(phase: str, policy: str, inits: Any, made: ContainerGroup) -> None:
    assert pod_status(pod(policy, inits), made, "10.1.1.1")["phase"] == phase


def test_a_pod_that_has_ended_keeps_its_phase_and_its_reason() -> None:
    old = {"phase": "Failed", "reason": "Evicted", "message": "why", "podIP": "10.0.0.9"}
    status = pod_status(pod(status=old), group(RUNS, RUNS), "10.1.1.1")
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "Evicted", "why")


@pytest.mark.parametrize(
    ("phase", "codes", "made"),
    [
        ("Succeeded", [0, 0], group(ended(0), ended(0))),
        ("Failed", [0, 143], group(ended(0), ended(143))),
        ("Failed", [137, 0], group(RUNS, ended(0))),  # nobody has seen its end
        ("Failed", [137, 137], group(WAITS, WAITS)),
        ("Failed", [1, 1], group(WAITS, WAITS, previous=ended(1))),
    ],
)
def test_a_deleted_pod_ends_by_its_exit_codes(phase: str, codes: list[int], made: ContainerGroup) -> None:
    for policy in ("Always", "OnFailure", "Never"):
        status = ended_status(pod(policy), made["properties"], "10.1.1.1")
        assert status["phase"] == phase
        assert [item["state"]["terminated"]["exitCode"] for item in status["containerStatuses"]] == codes
        assert not any(item["ready"] or item["started"] for item in status["containerStatuses"])


def test_a_pod_that_is_deleted_before_its_turn_fails() -> None:
    for properties in (None, group(WAITS, WAITS, inits=[RUNS])["properties"]):
        status = ended_status(pod(inits=[{"name": "x"}]), properties, "10.1.1.1")
        assert status["phase"] == "Failed"
        assert [item["state"] for item in status["containerStatuses"]] == [
            {"waiting": {"reason": "PodInitializing"}}
        ] * 2
    (init,) = status["initContainerStatuses"]
    assert init["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_each_state_names_its_attempt() -> None:
    backs_off = group(WAITS, RUNS, previous=ended(1))
    for item in backs_off["properties"]["containers"]:
        item["properties"]["instanceView"]["attempt"] = 3
    waits, runs = pod_status(pod(), backs_off, "h")["containerStatuses"]
    assert waits["lastState"]["terminated"]["containerID"] == waits["containerID"] == "aci://u/a/3"
    assert runs["lastState"]["terminated"]["containerID"] == "aci://u/b/2"
    assert runs["containerID"] == "aci://u/b/3"


def test_a_pod_whose_group_is_gone_has_failed() -> None:
    before = pod_status(pod(), group(RUNS, RUNS), "10.1.1.1")
    status = lost_status(pod(status=before), "10.1.1.1")
    assert (status["phase"], status["reason"]) == ("Failed", "NotFound")
    assert [item["state"]["terminated"]["exitCode"] for item in status["containerStatuses"]] == [137, 137]
    assert status["startTime"] == before["startTime"]
    assert status["podIP"] == "10.0.0.2"


def told(status: Any) -> dict[str, tuple[str, str, str]]:
    return {
        item["type"]: (item["status"], item.get("reason", ""), item.get("message", ""))
        for item in status["conditions"]
    }


def test_conditions_are_in_the_words_of_the_kubelet() -> None:
    gates: Any = {"readinessGates": [{"conditionType": "a/b"}]}
    yes = ("True", "", "")
    found = told(pod_status(pod(**gates), group(RUNS, RUNS), "h"))
    assert found["ContainersReady"] == found["Initialized"] == found["PodReadyToStartContainers"] == yes
    missing = 'corresponding condition of pod readiness gate "a/b" does not exist.'
    assert found["Ready"] == ("False", "ReadinessGatesNotReady", missing)
    no = {"conditions": [{"type": "a/b", "status": "False"}]}
    found = told(pod_status(pod(status=no, **gates), group(RUNS, RUNS), "h"))
    assert found["Ready"][2] == 'the status of pod readiness gate "a/b" is not "True", but False'
    good = {"conditions": [{"type": "a/b", "status": "True"}]}
    assert told(pod_status(pod(status=good, **gates), group(RUNS, RUNS), "h"))["Ready"] == yes
    found = told(pod_status(pod(inits=[{"name": "x"}]), group(WAITS, WAITS, inits=[RUNS]), "h"))
    assert found["Initialized"] == ("False", "ContainersNotInitialized", "containers with incomplete status: [x]")
    assert found["Ready"] == ("False", "ContainersNotReady", "containers with unready status: [a b]")
    found = told(pod_status(pod("Never"), group(ended(0), ended(0)), "h"))
    assert found["Ready"] == found["ContainersReady"] == ("False", "PodCompleted", "")
    assert found["Initialized"] == ("True", "PodCompleted", "") == found["Initialized"]
    assert told(pod_status(pod("Never"), group(ended(0), ended(1)), "h"))["Ready"] == ("False", "PodFailed", "")


def test_a_patch_has_what_has_changed_and_leaves_the_conditions_of_others() -> None:
    before = pod_status(pod(), group(WAITS, WAITS), "h")
    before["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"})
    before["reason"] = "ProviderFailed"
    same = pod_status(pod(status=before), group(WAITS, WAITS), "h")
    assert status_patch(before, same) == {"reason": None}
    for condition in before["conditions"]:
        condition["lastTransitionTime"] = _START
    patch = status_patch(before, pod_status(pod(status=before), group(RUNS, RUNS), "h"))
    assert patch.keys() == {"reason", "phase", "containerStatuses", "conditions"}
    ready, contained = patch["conditions"]
    assert ready.pop("lastTransitionTime") > _START
    gone = {"reason": None, "message": None}
    assert ready == {"type": "Ready", "status": "True", "lastProbeTime": None, "observedGeneration": 3, **gone}
    assert contained["type"] == "ContainersReady"


def test_the_last_messages_of_a_pod_have_a_limit_together() -> None:
    said = ended(1) | {"message": "x" * 4095 + "\u00e9"}
    four = pod("Never", inits=[{"name": "x"}, {"name": "y"}])
    status = pod_status(four, group(said, said, inits=[said, said], state="Failed"), "127.0.0.1")
    for item in [*status["containerStatuses"], *status["initContainerStatuses"]]:
        assert item["state"]["terminated"]["message"] == "x" * 3072


def test_a_deadline_is_the_reason_of_a_failed_pod_whatever_its_restart_policy() -> None:
    overdue = group(ended(137), WAITS, state="Failed")
    overdue["properties"]["instanceView"] |= {"reason": "DeadlineExceeded", "message": "it was too long"}
    status = pod_status(pod("Always"), overdue, "127.0.0.1")
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "it was too long")


class _Server:
    """Takes patches of a pod, and counts its versions."""

    def __init__(self) -> None:
        self.patches: list[Any] = []

    async def patch_pod_status(self, _: Pod, status: Any) -> Pod:
        self.patches.append(status)
        answer = pod(status={**status})
        answer["metadata"]["resourceVersion"] = str(10 + len(self.patches))
        return answer


async def test_what_follows_from_an_old_pod_undoes_nothing() -> None:
    server: Any = _Server()
    writes = StatusWrites(server)
    seen = pod()
    seen["metadata"]["resourceVersion"] = "9"
    await writes.write(seen, {"phase": "Running", "startTime": _START})
    # The informer still has the pod from before.
    newest = writes.newest(seen)
    assert newest["status"]["startTime"] == _START
    await writes.write(seen, {"phase": "Running", "startTime": _START})
    assert len(server.patches) == 1
    await writes.write(newest, {"phase": "Failed", "startTime": _START})
    await writes.write(seen, {"phase": "Running", "startTime": _START})
    assert [patch["phase"] for patch in server.patches] == ["Running", "Failed"]
    seen["metadata"]["resourceVersion"] = "12"
    assert writes.newest(seen) is seen


def test_the_table_knows_every_field_that_is_written() -> None:
    mounts = [{"name": "v", "mountPath": "/v", "readOnly": True}]
    container: Any = {"name": "a", "image": "i", "volumeMounts": mounts, "resources": {"requests": {"cpu": "1"}}}
    made = group(RUNS, RUNS, inits=[ended(0)], previous=ended(1))
    status = pod_status(pod(inits=[{"name": "x"}], containers=[container]), made, "h")
    written = {name for name, entry in POD_STATUS.fields.items() if entry.column == "honoured"}
    assert status.keys() - {"qosClass"} <= written
    for item in [*status["containerStatuses"], *status["initContainerStatuses"]]:
        assert all(CONTAINER_STATUS.fields[name].column == "honoured" for name in item)
    for condition in status["conditions"]:
        assert all(CONDITION.fields[name].column == "honoured" for name in condition)
