"""Why a pod has no node, in upstream's words (recorded from a real control plane, or as its sources write them)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controllers.space import Object, Space, condition
from tests.scheduler.conftest import MakeNode, place, pod

HELPLESS = (
    "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)


def why(space: Space, name: str) -> str:
    """The message of the event, which is also that of the condition."""
    message = space.wait_event(name, "FailedScheduling")
    told = space.wait("pods", name, lambda item: condition(item, "PodScheduled").get("message") == message)
    assert condition(told, "PodScheduled")["reason"] == "Unschedulable"
    return message


def test_no_node_at_all(space: Space, node: MakeNode) -> None:
    space.make("pods", pod("p"))
    assert why(space, "p") == "no nodes available to schedule pods"
    node()
    assert place(space, "p") == "n1"
    assert space.wait_event("p", "Scheduled") == f"Successfully assigned {space.name}/p to n1"


def _term(key: str, value: str) -> Object:
    return {"labelSelector": {"matchLabels": {key: value}}, "topologyKey": "kubernetes.io/hostname"}


REFUSALS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}, {}, "1 node(s) had untolerated taint(s)"),
    ({"spec": {"unschedulable": True}}, {}, "1 node(s) were unschedulable"),
    ({}, {"nodeSelector": {"disk": "ssd"}}, "1 node(s) didn't match Pod's node affinity/selector"),
    ({}, {"cpu": "5"}, "1 Insufficient cpu"),
    ({"cpu": "1", "memory": "1Mi"}, {"cpu": "2", "overhead": None}, "1 Insufficient cpu"),
    (
        {},
        {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_term("app", "nobody")]}}},
        "1 node(s) didn't match pod affinity rules",
    ),
    (
        {},
        {
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
            ]
        },
        "1 node(s) didn't match pod topology spread constraints (missing required label)",
    ),
]


@pytest.mark.parametrize(("of_node", "of_pod", "reason"), REFUSALS)
def test_no_node_that_could_ever(
    space: Space, node: MakeNode, of_node: dict[str, Any], of_pod: dict[str, Any], reason: str
) -> None:
    node(**of_node)
    space.make("pods", pod("p", **of_pod))
    assert why(space, "p") == f"0/1 nodes are available: {reason}. {HELPLESS}"


def test_several_nodes_for_several_reasons(space: Space, node: MakeNode) -> None:
    node("n1", cpu="1")
    node("n2", cpu="1", memory="1Mi")
    node("n3", spec={"taints": [{"key": "a", "effect": "NoExecute"}]})
    asked = pod("p")
    asked["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "2", "memory": "2Mi"}}
    space.make("pods", asked)
    assert why(space, "p") == (
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 2 Insufficient cpu. "
        "no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )


def test_nobody_less_important_to_evict(space: Space, node: MakeNode) -> None:
    node(cpu="2")
    space.make("pods", pod("first", cpu="2"))
    place(space, "first")
    space.make("pods", pod("second", cpu="1", hostNetwork=True))
    assert why(space, "second") == (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )
    space.delete("pods", "first", gracePeriodSeconds=0)
    assert place(space, "second") == "n1"


def test_ports_and_neighbours(space: Space, node: MakeNode) -> None:
    node()
    taken = pod("taken", {"app": "a"})
    taken["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_term("app", "b")]}}
    taken["spec"]["affinity"] = apart
    space.make("pods", taken)
    place(space, "taken")
    second = pod("second")
    second["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}]
    refused = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [_term("app", "a")]}}
    space.make("pods", second, pod("third", {"app": "b"}), pod("fourth", affinity=refused))
    after = (
        "no new claims to deallocate, preemption: 0/1 nodes are available: "
        "1 No preemption victims found for incoming pod."
    )
    reasons = {
        "second": "1 node(s) didn't have free ports for the requested pod ports",
        "third": "1 node(s) didn't satisfy existing pods anti-affinity rules",
        "fourth": "1 node(s) didn't match pod anti-affinity rules",
    }
    for name, reason in reasons.items():
        assert why(space, name) == f"0/1 nodes are available: {reason}. {after}"
    space.delete("pods", "taken", gracePeriodSeconds=0)
    assert {place(space, name) for name in reasons} == {"n1"}


def test_claims(space: Space, node: MakeNode) -> None:
    node()
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    space.make("pods", pod("p", volumes=volumes))
    assert why(space, "p") == '0/1 nodes are available: persistentvolumeclaim "data" not found. not found'
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
    }
    space.make("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": claim})
    unbound = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
    space.wait("pods", "p", lambda item: condition(item, "PodScheduled")["message"] == unbound)
    elsewhere = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/data"},
        "nodeAffinity": {"required": elsewhere},
    }
    space.make("persistentvolumes", {"metadata": {"name": f"v-{space.name}"}, "spec": volume})
    named = {"spec": {"volumeName": f"v-{space.name}"}}
    space.patch("persistentvolumeclaims", "data", named, kind="merge")
    # Only now is it bound: the binder of volumes says so.
    completed = {"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}}
    space.patch("persistentvolumeclaims", "data", completed, kind="merge")
    conflict = f"0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity. {HELPLESS}"
    space.wait("pods", "p", lambda item: condition(item, "PodScheduled")["message"] == conflict)
    space.patch("nodes", "n1", {"metadata": {"labels": {"zone": "1"}}})
    assert place(space, "p") == "n1"
    space.delete("persistentvolumes", f"v-{space.name}")


def test_gates(space: Space, node: MakeNode) -> None:
    node()
    space.make("pods", pod("p", schedulingGates=[{"name": "example.com/wait"}]), pod("other"))
    place(space, "other")
    held = space.wait("pods", "p", lambda item: condition(item, "PodScheduled"))
    assert condition(held, "PodScheduled")["reason"] == "SchedulingGated"
    assert condition(held, "PodScheduled")["message"] == "Scheduling is blocked due to non-empty scheduling gates"
    space.patch("pods", "p", {"spec": {"schedulingGates": None}}, kind="merge")
    assert place(space, "p") == "n1"
