"""Daemon sets: a pod on each node that is chosen, and a new one for each where the template changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.controllers.node import StandInNode
from tests.controllers.space import Object, Space, image, images, template, workload
from tests.kube.conftest import Server

SETS = "daemonsets"
TAINT = {"key": "kept", "value": "for-others", "effect": "NoSchedule"}


@pytest.fixture(scope="module")
def nodes(server: Server) -> Iterator[list[str]]:
    """Three nodes of a kind."""
    made = [StandInNode(server, f"daemon-{number}", labels={"kind": "daemon"}) for number in range(3)]
    yield [node.name for node in made]
    for node in made:
        node.close()


def _daemonset(life: str = "runs", **spec: Any) -> Object:
    return workload("agent", **template("agent", life, nodeSelector={"kind": "daemon"}), **spec)


def test_a_pod_on_each_chosen_node(space: Space, nodes: list[str]) -> None:
    space.patch("nodes", nodes[2], {"spec": {"taints": [TAINT]}}, kind="merge")
    space.make(SETS, _daemonset())
    space.wait_status(SETS, "agent", numberReady=2, desiredNumberScheduled=2)
    assert sorted(pod["spec"]["nodeName"] for pod in space.living()) == nodes[:2]
    space.patch("nodes", nodes[2], {"spec": {"taints": None}}, kind="merge")
    space.wait_status(SETS, "agent", numberReady=3)
    space.patch("nodes", nodes[0], {"metadata": {"labels": {"kind": "other"}}})
    space.wait_status(SETS, "agent", desiredNumberScheduled=2, numberMisscheduled=0)
    assert sorted(pod["spec"]["nodeName"] for pod in space.living()) == nodes[1:]
    space.patch("nodes", nodes[0], {"metadata": {"labels": {"kind": "daemon"}}})
    space.patch("nodes", nodes[2], {"spec": {"taints": [TAINT | {"effect": "NoExecute"}]}}, kind="merge")
    space.wait_status(SETS, "agent", numberReady=2, desiredNumberScheduled=2)
    space.wait_any("pods", lambda pod: pod["spec"].get("nodeName") == nodes[0])
    space.patch("nodes", nodes[2], {"spec": {"taints": None}}, kind="merge")


def test_rolling_and_undoing(space: Space, nodes: list[str]) -> None:
    space.make(SETS, _daemonset())
    space.wait_status(SETS, "agent", numberReady=3)
    space.patch(SETS, "agent", image("2"))
    space.wait_status(SETS, "agent", updatedNumberScheduled=3, numberReady=3, observedGeneration=2)
    assert images(space.living()) == {"x:2"}
    space.kubectl("rollout", "undo", "daemonset/agent")
    space.kubectl("rollout", "status", "daemonset/agent", "--timeout=30s")
    assert images(space.living()) == {"x:1"}
    # One that cannot become ready holds the update.
    space.patch(SETS, "agent", {"spec": {"template": {"metadata": {"annotations": {"life": "unready"}}}}})
    space.wait_status(SETS, "agent", updatedNumberScheduled=1, numberUnavailable=1, numberReady=2)


def test_more_for_a_while(space: Space, nodes: list[str]) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    space.make(SETS, _daemonset(updateStrategy=rolling))
    space.wait_status(SETS, "agent", numberReady=3)
    space.patch(SETS, "agent", {"spec": {"template": {"metadata": {"annotations": {"life": "unready"}}}}})
    fresh = space.wait_any("pods", lambda pod: pod["metadata"]["annotations"]["life"] == "unready")
    # Of two on a node the older one is told of.
    space.wait_status(SETS, "agent", updatedNumberScheduled=0, numberReady=3, observedGeneration=2)
    assert len(space.living()) == 4
    space.patch("pods", fresh["metadata"]["name"], {"metadata": {"annotations": {"life": "runs"}}})
    space.wait_status(SETS, "agent", updatedNumberScheduled=1, numberReady=3)


def test_on_delete(space: Space, nodes: list[str]) -> None:
    space.make(SETS, _daemonset(updateStrategy={"type": "OnDelete"}))
    space.wait_status(SETS, "agent", numberReady=3)
    space.patch(SETS, "agent", image("2"))
    space.wait_status(SETS, "agent", observedGeneration=2)
    assert images(space.living()) == {"x:1"}
    pod = space.living()[0]
    space.delete("pods", pod["metadata"]["name"])
    space.wait_status(SETS, "agent", updatedNumberScheduled=1, numberReady=3)
    assert images(space.living()) == {"x:1", "x:2"}
