"""Where pods go, who has to make room for them, and what survives."""

from __future__ import annotations

import signal
from collections import Counter

from tests.cloud import Cloud
from tests.controllers.space import Object, Space, condition
from tests.scheduler.conftest import MakeNode, place, pod

HOST = "kubernetes.io/hostname"


def test_pods_are_spread_by_what_is_left(space: Space, node: MakeNode) -> None:
    for name in ("n1", "n2", "n3"):
        node(name)
    space.make("pods", *(pod(f"p{number}", cpu="500m") for number in range(6)))
    assert Counter(place(space, f"p{number}") for number in range(6)) == {"n1": 2, "n2": 2, "n3": 2}


def test_wishes(space: Space, node: MakeNode) -> None:
    node("n1", spec={"taints": [{"key": "rather", "value": "not", "effect": "PreferNoSchedule"}]})
    node("n2", labels={"disk": "ssd"})
    node("n3")
    ssd = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    wish = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": ssd}]}
    space.make("pods", *(pod(f"p{number}", affinity={"nodeAffinity": wish}) for number in range(2)))
    assert [place(space, f"p{number}") for number in range(2)] == ["n2", "n2"]
    space.make("pods", *(pod(f"q{number}") for number in range(2)))
    assert "n1" not in [place(space, f"q{number}") for number in range(2)]


def test_neighbours(space: Space, node: MakeNode) -> None:
    node("n1", labels={"zone": "a"})
    node("n2", labels={"zone": "a"})
    node("n3", labels={"zone": "b"})
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone"}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    space.make("pods", pod("db", {"app": "db"}, nodeSelector={HOST: "n3"}))
    assert place(space, "db") == "n3"
    space.make("pods", pod("near", affinity={"podAffinity": required}))
    space.make("pods", pod("away", affinity={"podAntiAffinity": required}))
    assert place(space, "near") == "n3"
    assert place(space, "away") in ("n1", "n2")


def test_even_zones(space: Space, node: MakeNode) -> None:
    node("n1", labels={"zone": "a"})
    node("n2", labels={"zone": "b"}, cpu="1")
    even = [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}},
        }
    ]
    space.make(
        "pods", *(pod(f"p{number}", {"app": "web"}, "400m", topologySpreadConstraints=even) for number in range(5))
    )
    assert Counter(place(space, f"p{number}") for number in range(5)) == {"n1": 3, "n2": 2}
    space.make("pods", pod("more", {"app": "web"}, "400m", topologySpreadConstraints=even))
    message = space.wait_event("more", "FailedScheduling")
    assert message.startswith(
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints. "
    )


def test_init_containers_sidecars_and_overhead(space: Space, node: MakeNode) -> None:
    node(cpu="3")

    def container(name: str, cpu: str, **more: object) -> Object:
        return {"name": name, "image": "x", "resources": {"requests": {"cpu": cpu}}, **more}

    sidecar = container("side", "1", restartPolicy="Always")
    fits = pod("fits", cpu="1", initContainers=[sidecar, container("init", "2")])
    space.make("pods", fits)
    assert place(space, "fits") == "n1"
    space.delete("pods", "fits", gracePeriodSeconds=0)
    space.make("pods", pod("not", cpu="1", initContainers=[sidecar, container("init", "2500m")]))
    assert "1 Insufficient cpu" in space.wait_event("not", "FailedScheduling")


def test_the_important_pod_gets_its_room(space: Space, node: MakeNode) -> None:
    node("n1", cpu="2")
    node("n2", cpu="2")
    for name, value in (("low", 10), ("high", 1000)):
        space.server.call("POST", space.path("priorityclasses"), {"metadata": {"name": name}, "value": value})
    kept = {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}}, "metadata": {"name": "kept"}}
    space.make("poddisruptionbudgets", kept)
    space.make(
        "pods",
        pod("kept", {"app": "kept"}, "2", priorityClassName="low", nodeSelector={HOST: "n1"}),
        pod("loose", {"app": "loose"}, "2", priorityClassName="low", nodeSelector={HOST: "n2"}),
    )
    place(space, "kept")
    place(space, "loose")
    polite = pod("polite", cpu="2", priorityClassName="high", preemptionPolicy="Never")
    del polite["spec"]["preemptionPolicy"]
    space.server.call(
        "POST",
        space.path("priorityclasses"),
        {"metadata": {"name": "polite"}, "value": 500, "preemptionPolicy": "Never"},
    )
    polite["spec"]["priorityClassName"] = "polite"
    space.make("pods", polite)
    assert space.wait_event("polite", "FailedScheduling") == (
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, "
        "preemption: not eligible due to preemptionPolicy=Never."
    )
    space.make("pods", pod("urgent", cpu="2", priorityClassName="high"))
    waiting = space.wait("pods", "urgent", lambda item: item["status"].get("nominatedNodeName"))
    assert waiting["status"]["nominatedNodeName"] == "n2"
    assert space.wait_event("urgent", "FailedScheduling") == "0/2 nodes are available: 2 Insufficient cpu."
    victim = space.wait("pods", "loose", lambda item: item["metadata"].get("deletionTimestamp"))
    assert condition(victim, "DisruptionTarget")["reason"] == "PreemptionByScheduler"
    assert space.wait_event("loose", "Preempted").endswith("on node n2")
    # The room is kept for it: one of the same size does not slip in.
    space.delete("pods", "loose", gracePeriodSeconds=0)
    assert place(space, "urgent") == "n2"
    assert "nodeName" not in space.get("pods", "polite")["spec"]


def test_killed_in_the_middle_of_it(space: Space, node: MakeNode, cluster: Cloud) -> None:
    node("n1", pods="200")
    space.make("pods", *(pod(f"p{number:03}") for number in range(30)))
    space.wait_any("pods", lambda item: item["spec"].get("nodeName"))
    cluster.kill("scheduler")
    space.make("pods", *(pod(f"q{number:03}") for number in range(10)))
    for waiting in space.all("pods"):
        if "nodeName" not in waiting["spec"]:
            place(space, waiting["metadata"]["name"])
    assert {item["spec"]["nodeName"] for item in space.all("pods")} == {"n1"}


def test_a_successor_goes_on_with_the_lease(space: Space, cluster: Cloud) -> None:
    before = space.wait("leases", "kube-scheduler", namespace="kube-system")["spec"]
    cluster.kill("scheduler")
    renewed = space.wait(
        "leases", "kube-scheduler", lambda item: item["spec"]["renewTime"] > before["renewTime"], "kube-system"
    )["spec"]
    assert renewed["holderIdentity"] == before["holderIdentity"]
    assert renewed["leaseTransitions"] == before["leaseTransitions"]


def test_of_two_one_leads(space: Space, node: MakeNode, cluster: Cloud) -> None:
    node("n1")
    with cluster.another("scheduler"):
        space.make("pods", pod("first"))
        place(space, "first")
        leader = space.wait("leases", "kube-scheduler", namespace="kube-system")["spec"]["holderIdentity"]
        cluster.stop("scheduler", signal.SIGKILL)
        try:
            space.make("pods", pod("second"))
            # The rest of the lease of one that is dead, made short.
            path = space.path("leases", "kube-scheduler", namespace="kube-system")
            short = {"spec": {"leaseDurationSeconds": 1}}
            space.server.call("PATCH", path, short, content_type="application/merge-patch+json")
            assert place(space, "second") == "n1"
            taken = space.wait(
                "leases", "kube-scheduler", lambda item: item["spec"]["leaseTransitions"] > 0, "kube-system"
            )
            assert taken["spec"]["holderIdentity"] != leader
        finally:
            cluster.start("scheduler")
    # The second one has given the lease up when it stopped: the first goes on at once.
    space.make("pods", pod("third"))
    assert place(space, "third") == "n1"
