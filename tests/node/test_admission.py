"""What the node admits of pods that are bound to it, in the words of the kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.common.kubernetes.objects import Node, Pod
from cumulet.node.admission import Admission
from cumulet.node.errors import RejectedError

LABELS = {"type": "virtual-kubelet"}


def pod(uid: str, cpu: str = "1", **spec: Any) -> Pod:
    made: Any = {
        "metadata": {"name": uid, "namespace": "default", "uid": uid},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}], **spec},
    }
    answer: Pod = made
    return answer


class _Reads:
    """The node's object, with the labels and taints of the moment."""

    def __init__(self) -> None:
        self.labels = dict(LABELS)
        self.taints: list[Any] = []

    async def __call__(self) -> Node:
        return {"metadata": {"name": "node", "labels": dict(self.labels)}, "spec": {"taints": list(self.taints)}}


@pytest.fixture
def reads() -> _Reads:
    return _Reads()


@pytest.fixture
def admission(reads: _Reads) -> Admission:
    return Admission({"cpu": "4", "memory": "8Gi", "pods": "3"}, reads)


async def _reason(admission: Admission, rejected: Pod) -> tuple[str, str]:
    with pytest.raises(RejectedError) as caught:
        await admission.admit(rejected)
    return caught.value.reason, str(caught.value)


async def test_pods_that_have_ended_make_room(admission: Admission) -> None:
    await admission.admit(pod("a", "3"))
    await admission.admit(pod("a", "3"))  # counted once
    assert await _reason(admission, pod("b", "1500m")) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 1500, used: 3000, capacity: 4000",
    )
    admission.release("a")
    await admission.admit(pod("b", "1500m"))
    for uid in ("c", "d"):
        await admission.admit(pod(uid, "0"))
    assert await _reason(admission, pod("e", "0")) == (
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
    )


async def test_labels_are_read_again_before_a_pod_is_rejected(admission: Admission, reads: _Reads) -> None:
    wants: Any = {"nodeSelector": {"disk": "fast"}}
    assert (await _reason(admission, pod("a", **wants)))[0] == "NodeAffinity"
    reads.labels["disk"] = "fast"
    await admission.admit(pod("a", **wants))


async def test_a_taint_that_evicts_rejects(admission: Admission, reads: _Reads) -> None:
    reads.taints = [{"key": "k", "effect": "NoExecute"}, {"key": "other", "effect": "NoSchedule"}]
    assert (await _reason(admission, pod("a")))[0] == "TaintToleration"
    await admission.admit(pod("b", tolerations=[{"key": "k", "operator": "Exists"}]))


async def test_another_system_is_rejected(admission: Admission) -> None:
    windows: Any = {"os": {"name": "windows"}}
    assert (await _reason(admission, pod("a", **windows)))[0] == "PodOSNotSupported"
    labelled = pod("b")
    labelled["metadata"]["labels"] = {"kubernetes.io/os": "windows"}
    assert (await _reason(admission, labelled))[0] == "PodOSSelectorNodeLabelDoesNotMatch"
