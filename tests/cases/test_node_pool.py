"""Ordinary nodes beside the virtual one: where pods go, and whose right it is that pulls their images."""

from __future__ import annotations

import json
from typing import Any

from tests.cases.path import IMAGE, ThePath, pod

#: What a pod for the virtual node has and an ordinary one lacks.
_NO_SECRET: dict[str, Any] = {"imagePullSecrets": []}
_ORDINARY: dict[str, Any] = {**_NO_SECRET, "nodeSelector": {}, "tolerations": []}


def _node_of(path: ThePath, name: str) -> str:
    return str(path.get(name)["spec"]["nodeName"])


def test_an_attached_registry_needs_a_secret_on_the_virtual_node_only(path: ThePath) -> None:
    # An image of its own: the shared one may be cached with the right of another pod.
    path.push_busybox("attached:1")
    image = {"image": IMAGE.replace("bb:1", "attached:1"), "command": ["sh", "-c", "echo $HOST; env; sleep 1000"]}
    address = {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    containers = [{"name": "main", **image, "env": [address]}]
    path.apply(pod("too-early", containers, **_ORDINARY))
    denied = path.events("too-early", "Failed")
    assert "has no role on registry 'acrdemo2ss'" in denied, denied
    path.installation.cumulet("registry", "attach", "acrdemo2ss")
    assert path.installation.cumulet("registry", "attach", "acrdemo2ss"), "to attach it again changes nothing"
    try:
        path.apply(pod("on-vm", containers, **_ORDINARY), pod("on-aci", containers, **_NO_SECRET))
        path.wait("pod/on-vm", "condition=Ready")
    finally:
        path.installation.run("cumulet", "registry", "detach", "acrdemo2ss")

    assert "-vmss" in _node_of(path, "on-vm"), "a pod without toleration does not go to the virtual node"
    log = path.kubectl("logs", "on-vm")
    assert _node_of(path, "on-vm") in log
    assert "IDENTITY_" not in log, "the identity is the kubelet's and not the pod's"
    assert _node_of(path, "on-aci") == "virtual-node-aci-linux"
    message = path.events("on-aci", "Failed")
    assert "unauthorized" in message
    assert "virtual nodes need one even if the registry is attached to the cluster" in message
    token = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/"
    ask = f"wget -qO- --header 'Metadata: true' '{token}' 2>&1 || true"
    assert "400 Bad Request" in path.kubectl("exec", "on-vm", "--", "sh", "-c", ask), "nor has the pod its tokens"
    path.kubectl("delete", "pod", "too-early", "on-vm", "on-aci", "--wait=false")


def test_a_daemon_set_has_a_place_on_ordinary_nodes_only(path: ThePath) -> None:
    labels = {"app": "daemon"}
    made = pod("daemon", [{"name": "main", "command": ["sleep", "1000"]}], nodeSelector={}, tolerations=[])
    template = {"metadata": {"labels": labels}, "spec": made["spec"]}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    path.apply({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon"}, "spec": spec})
    path.kubectl("rollout", "status", "daemonset/daemon", "--timeout=60s")
    found = json.loads(path.kubectl("get", "pods", "-l", "app=daemon", "-o", "json"))["items"]
    assert [item["spec"]["nodeName"].rpartition("-")[2] for item in found] == ["vmss000000"]
    path.kubectl("delete", "daemonset", "daemon")


def test_an_ordinary_node_has_what_aks_gives_its_nodes(path: ThePath) -> None:
    nodes = json.loads(path.kubectl("get", "nodes", "-l", "agentpool=nodepool1", "-o", "json"))["items"]
    (node,) = nodes
    labels, spec = node["metadata"]["labels"], node["spec"]
    assert labels["kubernetes.azure.com/cluster"] == "MC_aks-rg2_aksdemo2_eastus"
    assert labels["node.kubernetes.io/instance-type"] == "Standard_DS2_v2"
    assert spec["providerID"].startswith("azure:///subscriptions/")
    assert not spec.get("taints")
    assert {item["type"]: item["status"] for item in node["status"]["conditions"]} == {
        "Ready": "True",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
    }


def test_pods_of_ordinary_nodes_are_not_on_the_bill_of_container_instances(path: ThePath) -> None:
    path.run("unbilled", "true", nodeSelector={}, tolerations=[])
    path.run("billed", "true")
    for name in ("unbilled", "billed"):
        path.wait_phase(name, "Succeeded")
    table = path.installation.run("cumulet", "cost")
    assert "default-billed-" in table
    assert "default-unbilled-" not in table
