"""What decides between nodes that all have room: taints, images, balance, neighbours, zones, and who is evicted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controllers.space import Object, Space
from tests.scheduler.conftest import MakeNode, place, pod

HOST = "kubernetes.io/hostname"
DEDICATED = {"key": "dedicated", "value": "batch"}


def on(node: str) -> Object:
    """The selector of one node."""
    return {HOST: node}


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        ({**DEDICATED, "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "value": "web", "effect": "NoSchedule"}, False),
        ({**DEDICATED, "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_taint_needs_its_toleration(
    space: Space, node: MakeNode, toleration: dict[str, str], tolerates: bool
) -> None:
    node("n1", spec={"taints": [{**DEDICATED, "effect": "NoSchedule"}]})
    space.make("pods", pod("p", tolerations=[toleration]))
    if tolerates:
        assert place(space, "p") == "n1"
    else:
        assert "1 node(s) had untolerated taint(s)" in space.wait_event("p", "FailedScheduling")


@pytest.mark.parametrize("image", ["big", "big:latest", "host:5000/big", "big@sha256:" + "0" * 64])
def test_a_node_that_has_the_image_is_preferred(space: Space, node: MakeNode, image: str) -> None:
    for name in ("n1", "n2", "n3"):
        node(name)
    named = image if "@" in image or image.endswith(":latest") else f"{image}:latest"
    space.status("nodes", "n2", images=[{"names": [named], "sizeBytes": 900 * 2**20}])
    # A node of an image that is only similar.
    space.status("nodes", "n3", images=[{"names": [f"{named}-not"], "sizeBytes": 900 * 2**20}, {"names": []}])
    wanting = pod("p")
    wanting["spec"]["containers"][0]["image"] = image
    space.make("pods", wanting)
    assert place(space, "p") == "n2"


def test_cpu_and_memory_are_used_to_the_same_degree(space: Space, node: MakeNode) -> None:
    node("n1")
    node("n2")
    memory = pod("memory", nodeSelector=on("n2"))
    memory["spec"]["containers"][0]["resources"] = {"requests": {"memory": "4Gi"}}
    space.make("pods", pod("cpu", cpu="2", nodeSelector=on("n1")), memory)
    for name in ("cpu", "memory"):
        place(space, name)
    # Both have as much room left; n1 would have nearly all of its memory idle.
    space.make("pods", pod("p", cpu="1"))
    assert place(space, "p") == "n2"


def _apart(app: str, key: str = "zone") -> Object:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _beside(app: str, key: str = "zone") -> Object:
    return {"podAffinity": _apart(app, key)["podAntiAffinity"]}


def test_a_pod_keeps_only_those_away_that_it_names(space: Space, node: MakeNode) -> None:
    node("n1", labels={"zone": "a"})
    space.make("pods", pod("lonely", affinity=_apart("db")))
    assert place(space, "lonely") == "n1"
    space.make("pods", pod("web", {"app": "web"}), pod("db", {"app": "db"}))
    assert place(space, "web") == "n1"
    assert "node(s) didn't satisfy existing pods anti-affinity rules" in space.wait_event("db", "FailedScheduling")


def test_the_first_of_a_group_goes_anywhere_and_the_others_follow(space: Space, node: MakeNode) -> None:
    node("n1", labels={"zone": "a"}, cpu="1")
    node("n2", labels={"zone": "b"})
    node("n3")
    space.make("pods", pod("first", {"app": "ring"}, affinity=_beside("ring"), nodeSelector=on("n2")))
    assert place(space, "first") == "n2"
    space.make("pods", *(pod(f"p{number}", {"app": "ring"}, affinity=_beside("ring")) for number in range(3)))
    assert {place(space, f"p{number}") for number in range(3)} == {"n2"}
    # A pod that names others, of which there are none, has no place; neither has one on a node without the key.
    space.make("pods", pod("alone", {"app": "other"}, affinity=_beside("nobody")))
    assert "3 node(s) didn't match pod affinity rules" in space.wait_event("alone", "FailedScheduling")
    space.make("pods", pod("keyless", {"app": "ring"}, affinity=_beside("ring"), nodeSelector=on("n3")))
    assert "1 node(s) didn't match pod affinity rules" in space.wait_event("keyless", "FailedScheduling")


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"app": "web"}},
        {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
    ],
)
def test_a_new_revision_is_spread_on_its_own(space: Space, node: MakeNode, selector: Object) -> None:
    node("n1", labels={"zone": "a"})
    node("n2", labels={"zone": "b"}, cpu="10m")
    even: dict[str, Any] = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": selector,
    }
    old = {"app": "web", "revision": "1"}
    space.make("pods", *(pod(f"old{number}", old, nodeSelector=on("n1")) for number in range(2)))
    # Of another application, so that it must not count.
    space.make("pods", pod("other", {"app": "api", "revision": "2"}, nodeSelector=on("n1")))
    for name in ("old0", "old1", "other"):
        place(space, name)
    new = {"app": "web", "revision": "2"}
    keyed = [{**even, "matchLabelKeys": ["revision"]}]
    space.make("pods", pod("counted", new, "1", topologySpreadConstraints=[even]))
    assert "node(s) didn't match pod topology spread constraints" in space.wait_event("counted", "FailedScheduling")
    space.make("pods", pod("new", new, "1", topologySpreadConstraints=keyed))
    assert place(space, "new") == "n1"


def _priorities(space: Space, **values: int) -> None:
    for name, value in values.items():
        answer = space.server.call(
            "POST", space.path("priorityclasses"), {"metadata": {"name": f"{space.name}-{name}"}, "value": value}
        )
        assert answer.status == 201, answer.body


def _victim(space: Space, name: str, node: str, priority: str, cpu: str = "2", **labels: str) -> None:
    """A pod that fills a node, or a part of it, and can be evicted."""
    space.make("pods", pod(name, labels, cpu, priorityClassName=f"{space.name}-{priority}", nodeSelector=on(node)))
    assert place(space, name) == node


def _evicting(space: Space) -> str:
    """The node that an important pod is to get."""
    space.make("pods", pod("urgent", cpu="2", priorityClassName=f"{space.name}-high"))
    waiting = space.wait("pods", "urgent", lambda item: item["status"].get("nominatedNodeName"))
    node: str = waiting["status"]["nominatedNodeName"]
    return node


def test_the_least_important_are_evicted(space: Space, node: MakeNode) -> None:
    _priorities(space, low=10, middle=20, high=1000)
    for name in ("n1", "n2"):
        node(name, cpu="2")
    _victim(space, "a", "n1", "middle")
    _victim(space, "b", "n2", "low")
    assert _evicting(space) == "n2"


def test_the_fewest_are_evicted(space: Space, node: MakeNode) -> None:
    _priorities(space, low=10, high=1000)
    for name in ("n1", "n2"):
        node(name, cpu="2")
    _victim(space, "a", "n1", "low", "1")
    _victim(space, "b", "n1", "low", "1")
    _victim(space, "c", "n2", "low")
    assert _evicting(space) == "n2"


@pytest.mark.parametrize(
    ("status", "node_name"),
    [
        ({"disruptionsAllowed": 0}, "n2"),
        ({"disruptionsAllowed": 1}, "n1"),
        ({"disruptionsAllowed": 0, "disruptedPods": {"a": "2026-01-01T00:00:00Z"}}, "n1"),
    ],
)
def test_a_budget_protects_as_many_as_it_has_left(
    space: Space, node: MakeNode, status: dict[str, Any], node_name: str
) -> None:
    _priorities(space, low=10, middle=20, high=1000)
    for name in ("n1", "n2"):
        node(name, cpu="2")
    budget = {"metadata": {"name": "kept"}, "spec": {"selector": {"matchLabels": {"app": "kept"}}}}
    space.make("poddisruptionbudgets", budget)
    counts = {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "observedGeneration": 1}
    space.status("poddisruptionbudgets", "kept", **counts, **status)
    _victim(space, "a", "n1", "low", app="kept")
    _victim(space, "b", "n2", "middle")
    assert _evicting(space) == node_name
