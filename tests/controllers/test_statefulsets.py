"""Stateful sets: order, names, claims, updates by partition, history."""

from __future__ import annotations

from tests.controllers.conftest import Kubectl, workload


def _claims() -> list[dict[str, object]]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return [{"metadata": {"name": "data"}, "spec": spec}]


def test_pods_come_one_after_the_other(kubectl: Kubectl) -> None:
    kubectl.apply(workload("StatefulSet", "web", serviceName="web", replicas=3, life="unready"))
    kubectl.wait("pod/web-0", "create", "jsonpath={.status.phase}=Running")
    assert kubectl.names("pods") == ["web-0"]
    for number in range(3):
        kubectl.wait(f"pod/web-{number}", "create", "jsonpath={.status.phase}=Running")
        kubectl("annotate", "--overwrite", "pod", f"web-{number}", "life=runs")
    kubectl.wait_for("statefulset/web", ".status.availableReplicas", 3)
    assert "create Pod web-2 in StatefulSet web successful" in "\n".join(kubectl.events("web"))
    spec = kubectl.json("get", "pod", "web-1")
    assert (spec["spec"]["hostname"], spec["spec"]["subdomain"]) == ("web-1", "web")
    assert spec["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"


def test_scaling_down_takes_the_last_first(kubectl: Kubectl) -> None:
    kubectl.apply(workload("StatefulSet", "web", serviceName="web", replicas=3, podManagementPolicy="Parallel"))
    kubectl.wait_for("statefulset/web", ".status.readyReplicas", 3)
    kubectl("scale", "statefulset", "web", "--replicas=1")
    kubectl.wait("pod/web-1", "delete")
    assert kubectl.names("pods") == ["web-0"]
    deleted = [text for text in kubectl.events("web") if "delete Pod" in text]
    assert deleted == [f"SuccessfulDelete: delete Pod web-{n} in StatefulSet web successful" for n in (2, 1)]


def test_a_partition_holds_the_update_and_undo_takes_it_back(kubectl: Kubectl) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    kubectl.apply(workload("StatefulSet", "web", serviceName="web", replicas=2, updateStrategy=strategy))
    kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    kubectl("set", "image", "statefulset/web", "c=x:2")
    assert "partitioned roll out complete" in kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    assert kubectl.value("pod/web-0", ".spec.containers[0].image") == "x:1"
    assert kubectl.value("pod/web-1", ".spec.containers[0].image") == "x:2"
    kubectl("patch", "statefulset", "web", "-p", '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}')
    kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    assert kubectl.value("pod/web-0", ".spec.containers[0].image") == "x:2"
    assert len(kubectl.names("controllerrevisions")) == 2
    kubectl("rollout", "undo", "statefulset/web")
    kubectl.wait("statefulset/web", "jsonpath={.status.observedGeneration}=4")
    kubectl("rollout", "status", "statefulset/web", "--timeout=30s")
    assert kubectl.value("pod/web-0", ".spec.containers[0].image") == "x:1"
    assert len(kubectl.names("controllerrevisions")) == 2


def test_on_delete_waits_for_the_user(kubectl: Kubectl) -> None:
    kubectl.apply(workload("StatefulSet", "web", serviceName="web", replicas=1, updateStrategy={"type": "OnDelete"}))
    kubectl.wait_for("statefulset/web", ".status.readyReplicas", 1)
    kubectl("set", "image", "statefulset/web", "c=x:2")
    kubectl.wait_for("statefulset/web", ".status.observedGeneration", 2)
    assert kubectl.value("pod/web-0", ".spec.containers[0].image") == "x:1"
    kubectl("delete", "pod", "web-0")
    kubectl.wait("pod/web-0", "create", "jsonpath={.spec.containers[0].image}=x:2")


def test_claims_are_made_and_kept(kubectl: Kubectl) -> None:
    kubectl.apply(workload("StatefulSet", "web", serviceName="web", replicas=1, volumeClaimTemplates=_claims()))
    kubectl.wait("pod/web-0", "create")
    assert kubectl.names("pvc") == ["data-web-0"]
    assert kubectl.value("pod/web-0", ".spec.volumes[0].persistentVolumeClaim.claimName") == "data-web-0"
    assert "create Claim data-web-0 Pod web-0 in StatefulSet web success" in "\n".join(kubectl.events("web"))
    kubectl("delete", "statefulset", "web", "--cascade=foreground")
    assert kubectl.names("pods") == []
    assert kubectl.names("pvc") == ["data-web-0"]


def test_a_failed_pod_is_made_anew(kubectl: Kubectl) -> None:
    kubectl.apply(workload("StatefulSet", "web", serviceName="web", replicas=1, updateStrategy={"type": "OnDelete"}))
    kubectl.wait_for("statefulset/web", ".status.readyReplicas", 1)
    kubectl("set", "image", "statefulset/web", "c=x:2")
    kubectl.wait_for("statefulset/web", ".status.observedGeneration", 2)
    kubectl("patch", "pod", "web-0", "--subresource=status", "-p", '{"status":{"phase":"Failed"}}')
    kubectl.wait("pod/web-0", "create", "jsonpath={.spec.containers[0].image}=x:2")
    assert any(text.startswith("RecreatingFailedPod") for text in kubectl.events("web"))
