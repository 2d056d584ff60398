"""Stateful sets: order, names, claims, updates by partition, history."""

from __future__ import annotations

from tests.controllers.space import Space, image, images, workload

SETS = "statefulsets"


def test_pods_come_one_after_the_other(space: Space) -> None:
    space.make(SETS, workload("web", "unready", serviceName="web", replicas=3))
    for number in range(3):
        space.wait("pods", f"web-{number}", lambda pod: pod["status"].get("phase") == "Running")
        assert space.names("pods") == [f"web-{earlier}" for earlier in range(number + 1)]
        space.patch("pods", f"web-{number}", {"metadata": {"annotations": {"life": "runs"}}})
    space.wait_status(SETS, "web", availableReplicas=3, readyReplicas=3, currentReplicas=3)
    pod = space.get("pods", "web-1")
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("web-1", "web")
    assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert "SuccessfulCreate: Create Pod web-0 in StatefulSet web successful" in space.events("web")


def test_scaling_down_takes_the_last_first(space: Space) -> None:
    space.make(SETS, workload("web", serviceName="web", replicas=3, podManagementPolicy="Parallel"))
    space.wait_status(SETS, "web", readyReplicas=3)
    space.patch(SETS, "web", {"spec": {"podManagementPolicy": "Parallel", "replicas": 1}})
    space.wait_status(SETS, "web", replicas=1)
    assert [pod["metadata"]["name"] for pod in space.living()] == ["web-0"]
    space.patch(SETS, "web", {"spec": {"replicas": 0}})
    space.wait_gone("pods", "web-0")
    deleted = [text for text in space.events("web") if "Delete Pod" in text]
    assert deleted[:2] == [f"SuccessfulDelete: Delete Pod web-{n} in StatefulSet web successful" for n in (2, 1)]


def test_a_partition_holds_the_update_and_undo_takes_it_back(space: Space) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    space.make(SETS, workload("web", serviceName="web", replicas=2, updateStrategy=strategy))
    space.wait_status(SETS, "web", readyReplicas=2)
    space.patch(SETS, "web", image("2"))
    space.kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    assert [pod["spec"]["containers"][0]["image"] for pod in space.living()] == ["x:1", "x:2"]
    space.patch(SETS, "web", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    moved = space.wait(SETS, "web", lambda obj: obj["status"]["currentRevision"] == obj["status"]["updateRevision"])
    assert images(space.living()) == {"x:2"}
    assert len(space.names("controllerrevisions")) == 2
    space.kubectl("rollout", "undo", "statefulset/web")
    space.kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    assert images(space.living()) == {"x:1"}
    assert len(space.names("controllerrevisions")) == 2
    assert space.get(SETS, "web")["status"]["currentRevision"] != moved["status"]["currentRevision"]


def test_on_delete_waits_for_the_user(space: Space) -> None:
    space.make(SETS, workload("web", serviceName="web", replicas=1, updateStrategy={"type": "OnDelete"}))
    space.wait_status(SETS, "web", readyReplicas=1)
    space.patch(SETS, "web", image("2"))
    space.wait_status(SETS, "web", observedGeneration=2)
    assert images(space.living()) == {"x:1"}
    # One that fails is made anew, and of the new template.
    space.status("pods", "web-0", phase="Failed")
    space.wait("pods", "web-0", lambda pod: images([pod]) == {"x:2"})
    assert space.wait_event("web", "SuccessfulDelete") == "Delete Pod web-0 in StatefulSet web successful"


def test_claims_are_made_and_kept(space: Space) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = [{"metadata": {"name": "data"}, "spec": spec}]
    space.make(SETS, workload("web", serviceName="web", replicas=1, volumeClaimTemplates=claims))
    pod = space.wait("pods", "web-0")
    assert space.names("persistentvolumeclaims") == ["data-web-0"]
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "data-web-0"
    told = "Create Claim data-web-0 Pod web-0 in StatefulSet web success"
    assert space.wait_event("web", "SuccessfulCreate", "Create Claim") == told
    space.delete(SETS, "web", propagationPolicy="Foreground")
    space.wait_gone(SETS, "web")
    assert space.names("pods") == []
    assert space.names("persistentvolumeclaims") == ["data-web-0"]
