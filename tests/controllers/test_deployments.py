"""Deployments and replica sets: rolling, recreating, pausing, undoing, scaling, deadlines, history."""

from __future__ import annotations

from tests.controllers.space import Object, Space, condition, image, images, workload

DEPLOYMENTS = "deployments"


def _sets(space: Space) -> dict[str, Object]:
    """Replica sets by the image that they are for."""
    found = space.all("replicasets")
    return {next(iter(images([{"spec": item["spec"]["template"]["spec"]}]))): item for item in found}


def _done(obj: Object) -> bool:
    return condition(obj, "Progressing").get("reason") == "NewReplicaSetAvailable"


def test_a_rollout_and_its_undoing(space: Space) -> None:
    space.make(DEPLOYMENTS, workload("web", replicas=3))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    space.patch(DEPLOYMENTS, "web", image("2"))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    assert images(space.living()) == {"x:2"}
    history = space.kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    space.kubectl("rollout", "undo", "deployment/web")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    assert images(space.living()) == {"x:1"}
    first = _sets(space)["x:1"]["metadata"]
    assert first["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert first["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    told = space.events("web")
    assert told[0] == f"ScalingReplicaSet: Scaled up replica set {first['name']} from 0 to 3"
    assert [text for text in told if not text.startswith("ScalingReplicaSet: Scaled ")] == []


def test_never_fewer_nor_more_than_allowed(space: Space) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    space.make(DEPLOYMENTS, workload("web", replicas=3, strategy=rolling))
    space.wait_status(DEPLOYMENTS, "web", availableReplicas=3)
    space.patch(
        DEPLOYMENTS, "web", image("2") | {"spec": {"template": {"metadata": {"annotations": {"life": "unready"}}}}}
    )
    stuck = space.wait_status(DEPLOYMENTS, "web", updatedReplicas=1, replicas=4, availableReplicas=3)
    assert condition(stuck, "Available")["status"] == "True"
    assert condition(stuck, "Progressing")["reason"] in ("ReplicaSetUpdated", "NewReplicaSetCreated")
    # More of it is shared between both sets, by their sizes.
    space.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 7}})
    space.wait_status(DEPLOYMENTS, "web", replicas=8)
    assert sorted(item["spec"]["replicas"] for item in space.all("replicasets")) == [2, 6]


def test_recreating(space: Space) -> None:
    space.make(DEPLOYMENTS, workload("web", "lingers", replicas=2, strategy={"type": "Recreate"}))
    space.wait_status(DEPLOYMENTS, "web", availableReplicas=2)
    space.patch(DEPLOYMENTS, "web", image("2"))
    space.wait_status(DEPLOYMENTS, "web", observedGeneration=2, terminatingReplicas=2)
    old = space.names("pods")
    assert images(space.all("pods")) == {"x:1"}
    for name in old:
        assert images(space.all("pods")) == {"x:1"}
        space.delete("pods", name, gracePeriodSeconds=0)
    space.wait_status(DEPLOYMENTS, "web", updatedReplicas=2, availableReplicas=2)
    assert images(space.all("pods")) == {"x:2"}


def test_paused_it_follows_its_size_only(space: Space) -> None:
    space.make(DEPLOYMENTS, workload("web", replicas=1))
    space.wait_status(DEPLOYMENTS, "web", availableReplicas=1)
    space.kubectl("rollout", "pause", "deployment/web")
    space.patch(DEPLOYMENTS, "web", image("2"))
    space.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 2}})
    paused = space.wait_status(DEPLOYMENTS, "web", availableReplicas=2)
    assert condition(paused, "Progressing")["reason"] == "DeploymentPaused"
    assert images(space.living()) == {"x:1"}
    space.kubectl("rollout", "resume", "deployment/web")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    assert images(space.living()) == {"x:2"}


def test_a_deadline_and_what_is_kept(space: Space) -> None:
    space.make(DEPLOYMENTS, workload("web", replicas=1, progressDeadlineSeconds=1, revisionHistoryLimit=1))
    space.wait(DEPLOYMENTS, "web", _done)
    for generation in (2, 3):
        space.patch(DEPLOYMENTS, "web", image(str(generation)))
        space.wait_status(DEPLOYMENTS, "web", observedGeneration=generation, updatedReplicas=1, replicas=1)
        space.wait(DEPLOYMENTS, "web", _done)
    space.wait_any("replicasets", lambda item: images([item["spec"]["template"]]) == {"x:3"})
    for name in [item["metadata"]["name"] for key, item in _sets(space).items() if key == "x:1"]:
        space.wait_gone("replicasets", name)
    assert set(_sets(space)) == {"x:2", "x:3"}
    space.patch(DEPLOYMENTS, "web", {"spec": {"template": {"metadata": {"annotations": {"life": "unready"}}}}})
    late = space.wait(DEPLOYMENTS, "web", lambda obj: condition(obj, "Progressing")["status"] == "False")
    assert condition(late, "Progressing")["reason"] == "ProgressDeadlineExceeded"
    assert "exceeded its progress deadline" in space.kubectl("rollout", "status", "deployment/web", code=1)


def test_a_name_that_is_taken_by_another_template(space: Space) -> None:
    space.make(DEPLOYMENTS, workload("web", replicas=1))
    space.wait_status(DEPLOYMENTS, "web", availableReplicas=1)
    (taken,) = space.all("replicasets")
    other = workload("web", replicas=0)
    other["metadata"]["name"] = taken["metadata"]["name"]
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "x:9"
    space.delete(DEPLOYMENTS, "web", propagationPolicy="Foreground")
    space.wait_gone(DEPLOYMENTS, "web")
    other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    space.make("replicasets", other)
    space.make(DEPLOYMENTS, workload("web", replicas=1))
    made = space.wait_status(DEPLOYMENTS, "web", availableReplicas=1)
    assert made["status"]["collisionCount"] == 1


def test_adopting_and_letting_go(space: Space) -> None:
    stray = {
        "metadata": {"name": "stray", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    space.make("pods", stray)
    space.make("replicasets", workload("web", replicas=1))
    owned = space.wait("pods", "stray", lambda pod: pod["metadata"].get("ownerReferences"))
    assert owned["metadata"]["ownerReferences"][0]["name"] == "web"
    space.patch("pods", "stray", {"metadata": {"labels": {"app": "other"}}})
    space.wait("pods", "stray", lambda pod: not pod["metadata"].get("ownerReferences"))
    space.wait_any("pods", lambda pod: pod["metadata"]["name"].startswith("web-"))
    space.make(
        "replicationcontrollers",
        {"metadata": {"name": "old"}, "spec": workload("old", replicas=2)["spec"] | {"selector": {"app": "old"}}},
    )
    space.wait_status("replicationcontrollers", "old", readyReplicas=2)


def test_the_cheapest_pods_go_first(space: Space) -> None:
    space.make("replicasets", workload("web", replicas=3))
    space.wait_status("replicasets", "web", readyReplicas=3)
    names = space.names("pods")
    cost = {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-10"}}}
    space.patch("pods", names[1], cost)
    space.patch("replicasets", "web", {"spec": {"replicas": 2}})
    space.wait_gone("pods", names[1])
    assert [pod["metadata"]["name"] for pod in space.living()] == [names[0], names[2]]


def test_what_is_refused_is_told(space: Space) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    space.make("resourcequotas", quota)
    space.make(DEPLOYMENTS, workload("web", replicas=2))
    failed = space.wait(DEPLOYMENTS, "web", lambda obj: condition(obj, "ReplicaFailure"))
    assert condition(failed, "ReplicaFailure")["reason"] == "FailedCreate"
    assert "exceeded quota: none" in condition(failed, "ReplicaFailure")["message"]
    (name,) = space.names("replicasets")
    assert "exceeded quota" in space.wait_event(name, "FailedCreate")
    space.delete("resourcequotas", "none")
    space.wait_status(DEPLOYMENTS, "web", availableReplicas=2)
