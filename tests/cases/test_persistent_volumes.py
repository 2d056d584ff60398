"""Persistent volumes: on ordinary nodes they outlive their pods; the virtual node has none, and says so."""

from __future__ import annotations

from typing import Any

from tests.cases.path import ThePath, pod

ORDINARY: dict[str, Any] = {"nodeSelector": {}, "tolerations": []}


def claim(name: str, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    """A claim of the default class."""
    requests = {"requests": {"storage": size}}
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": requests} | spec
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": wanted}


def mounting(name: str, script: str, claim_name: str, **spec: Any) -> dict[str, Any]:
    """A pod that runs a script with a claim at `/data`."""
    mounts = [{"name": "data", "mountPath": "/data"}]
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}]
    main = {"name": "main", "command": ["sh", "-c", script], "volumeMounts": mounts}
    return pod(name, [main], volumes=volumes, **spec)


def test_the_volume_of_a_stateful_set_outlives_its_pod_and_grows(path: ThePath) -> None:
    labels = {"app": "store"}
    template = pod("store", [], **ORDINARY, securityContext={"runAsUser": 1001, "fsGroup": 2000})
    script = "echo started >> /data/log; stat -c %g /data/log; cat /data/log; exec sleep 1000"
    mounts = [{"name": "data", "mountPath": "/data"}]
    ready = {"exec": {"command": ["sh", "-c", "test -s /data/log"]}, "periodSeconds": 1}
    template["spec"]["containers"] = [
        {
            "name": "main",
            "image": "acrdemo2ss.azurecr.io/bb:1",
            "command": ["sh", "-c", script],
            "volumeMounts": mounts,
            "readinessProbe": ready,
        }
    ]
    spec = {
        "serviceName": "store",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim("")["spec"]}],
    }
    path.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "store"}, "spec": spec})
    path.kubectl("rollout", "status", "statefulset/store", "--timeout=60s")
    assert path.kubectl("logs", "store-0").split() == ["2000", "started"]
    bound = path.get("data-store-0", "pvc")
    assert (bound["status"]["phase"], bound["status"]["capacity"]) == ("Bound", {"storage": "1Gi"})
    assert bound["spec"]["storageClassName"] == "default"
    volume = path.get(bound["spec"]["volumeName"], "pv")
    assert volume["spec"]["csi"]["driver"] == "disk.csi.azure.com"

    path.kubectl("delete", "pod", "store-0")
    path.kubectl("rollout", "status", "statefulset/store", "--timeout=60s")
    assert path.kubectl("logs", "store-0").split() == ["2000", "started", "started"]

    path.kubectl("patch", "pvc", "data-store-0", "-p", '{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}')
    path.kubectl("wait", "pvc/data-store-0", "--for=jsonpath={.status.capacity.storage}=3Gi", "--timeout=60s")

    path.kubectl("delete", "statefulset", "store")
    assert path.get("data-store-0", "pvc")["status"]["phase"] == "Bound", "the claim stays"
    path.kubectl("wait", "pod/store-0", "--for=delete", "--timeout=60s")
    path.kubectl("delete", "pvc", "data-store-0")
    path.kubectl("wait", f"pv/{bound['spec']['volumeName']}", "--for=delete", "--timeout=60s")


def test_the_virtual_node_says_that_it_has_no_persistent_volumes(path: ThePath) -> None:
    path.apply(claim("for-aci"), mounting("on-aci-with-claim", "true", "for-aci"))
    message = path.events("on-aci-with-claim", "ProviderCreateFailed")
    assert "spec.volumes[0].persistentVolumeClaim" in message
    assert "virtual node does not support persistent volumes" in message
    assert "virtual node does not support persistent volumes" in path.events("for-aci", "ProvisioningFailed")
    path.kubectl("delete", "pod/on-aci-with-claim", "pvc/for-aci")


def test_a_disk_has_one_node_at_a_time(path: ThePath) -> None:
    path.apply(claim("shared", accessModes=["ReadWriteMany"]), mounting("many-nodes", "true", "shared", **ORDINARY))
    assert "access mode ReadWriteMany" in path.events("shared", "ProvisioningFailed")
    assert "PVC default/shared is not bound" in path.events("many-nodes", "FailedMount")
    path.kubectl("delete", "pod/many-nodes", "pvc/shared")


def test_an_ephemeral_volume_goes_with_its_pod(path: ThePath) -> None:
    template = {"volumeClaimTemplate": {"spec": claim("", "1500Mi")["spec"]}}
    main = {"name": "main", "command": ["sh", "-c", "echo hello > /data/f && cat /data/f"]}
    mounts = [{"name": "data", "mountPath": "/data", "subPath": "below"}]
    volumes = [{"name": "data", "ephemeral": template}]
    made = pod("scratch", [main | {"volumeMounts": mounts}], volumes=volumes, restartPolicy="Never", **ORDINARY)
    path.apply(made)
    assert path.output("scratch") == "hello\n"
    found = path.get("scratch-data", "pvc")
    assert found["status"]["capacity"] == {"storage": "2Gi"}, "disks have whole GiB"
    path.kubectl("delete", "pod", "scratch")
    path.kubectl("wait", f"pv/{found['spec']['volumeName']}", "--for=delete", "--timeout=60s")
