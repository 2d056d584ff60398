"""Daemon sets: a pod on each node that is chosen, and a new one for each where the template changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.controllers.conftest import Kubectl, workload
from tests.controllers.node import StandInNode
from tests.kube.conftest import Server


@pytest.fixture(scope="module")
def nodes(server: Server) -> Iterator[list[str]]:
    """Three nodes of a kind, of which one refuses pods."""
    taint = {"key": "kept", "value": "for-others", "effect": "NoSchedule"}
    made = [
        StandInNode(server, f"daemon-{number}", labels={"kind": "daemon"}, taints=[taint] if number == 2 else [])
        for number in range(3)
    ]
    yield [node.name for node in made]
    for node in made:
        node.close()


def _daemonset(**more: Any) -> dict[str, Any]:
    made = workload("DaemonSet", "agent", **more)
    made["spec"]["template"]["spec"]["nodeSelector"] = {"kind": "daemon"}
    return made


def _nodes(kubectl: Kubectl) -> list[str]:
    return sorted(kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}").split())


def test_a_pod_on_each_chosen_node(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl.apply(_daemonset())
    kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    assert _nodes(kubectl) == nodes[:2]
    kubectl("taint", "node", nodes[2], "kept-")
    kubectl.wait_for("daemonset/agent", ".status.numberReady", 3)
    kubectl("label", "node", nodes[0], "kind=other", "--overwrite")
    kubectl.wait_for("daemonset/agent", ".status.desiredNumberScheduled", 2)
    kubectl.wait_for("daemonset/agent", ".status.numberMisscheduled", 0)
    assert _nodes(kubectl) == nodes[1:]
    kubectl("label", "node", nodes[0], "kind=daemon", "--overwrite")
    kubectl.wait_for("daemonset/agent", ".status.numberReady", 3)
    kubectl("taint", "node", nodes[2], "kept=for-others:NoExecute")
    kubectl.wait_for("daemonset/agent", ".status.currentNumberScheduled", 2)
    kubectl("taint", "node", nodes[2], "kept-")


def test_rolling_and_undoing(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl.apply(_daemonset())
    kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    kubectl("set", "image", "daemonset/agent", "c=x:2")
    kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    assert set(kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}").split()) == {"x:2"}
    kubectl("rollout", "undo", "daemonset/agent")
    kubectl.wait_for("daemonset/agent", ".status.observedGeneration", 3)
    kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    assert set(kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}").split()) == {"x:1"}


def test_what_cannot_become_ready_holds_the_update(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl.apply(_daemonset())
    kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    bad = {"spec": {"template": {"metadata": {"annotations": {"life": "unready"}}}}}
    kubectl("patch", "daemonset", "agent", "-p", json.dumps(bad))
    kubectl.wait_for("daemonset/agent", ".status.updatedNumberScheduled", 1)
    kubectl.wait_for("daemonset/agent", ".status.numberUnavailable", 1)
    assert kubectl.value("daemonset/agent", ".status.numberReady") == "2"


def test_on_delete(kubectl: Kubectl, nodes: list[str]) -> None:
    kubectl.apply(_daemonset(updateStrategy={"type": "OnDelete"}))
    kubectl.wait_for("daemonset/agent", ".status.numberReady", 3)
    kubectl("set", "image", "daemonset/agent", "c=x:2")
    kubectl.wait_for("daemonset/agent", ".status.observedGeneration", 2)
    assert "x:2" not in kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}")
    kubectl("delete", "pods", "--all")
    kubectl.wait_for("daemonset/agent", ".status.updatedNumberScheduled", 3)
