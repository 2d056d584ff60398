"""kubectl's commands for nodes, and for pods through their node."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Program, programs
from tests.kube.kubelet import StandInKubelet

pytestmark = pytest.mark.parametrize("kubectl", programs("kubectl"), indirect=True)


@pytest.fixture(scope="module")
def kubelet(cluster: Cloud) -> Iterator[StandInKubelet]:
    """A kubelet."""
    made = StandInKubelet(cluster.config)
    yield made
    made.close()


@pytest.fixture
def node(kubectl: Program, kubelet: StandInKubelet) -> Iterator[str]:
    """A node that is ready."""
    name = ready_node(kubectl, kubelet.port)
    yield name
    kubectl("delete", "node", name)


def own_address() -> str:
    """Return an address of this machine that is not loopback."""
    listed = subprocess.run(
        ["ip", "-j", "-4", "address", "show", "up", "scope", "global"], capture_output=True, check=True
    )
    found = [item["local"] for link in json.loads(listed.stdout) for item in link.get("addr_info", ())]
    if not found:
        pytest.skip("this machine has no address but its loopback's")
    return str(found[0])


def ready_node(kubectl: Program, port: int, address: str = "127.0.0.1") -> str:
    """Create a node with a kubelet at that address, and return its name."""
    name = f"n{uuid.uuid4().hex[:8]}"
    made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    kubectl("create", "-f", "-", stdin=json.dumps(made))
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    kubectl("patch", "node", name, "--subresource=status", "-p", json.dumps({"status": status}))
    return name


def pod(node: str, name: str, **labels: str) -> str:
    container = {"name": "c", "image": "x"}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def run(kubectl: Program, node: str, name: str, **labels: str) -> None:
    kubectl("create", "-f", "-", stdin=pod(node, name, **labels))
    kubectl("patch", "pod", name, "--subresource=status", "-p", '{"status":{"phase":"Running"}}')


def test_logs_and_exec(kubectl: Program, node: str, kubelet: StandInKubelet) -> None:
    run(kubectl, node, "p")
    assert kubectl("logs", "p", "--tail=2", "--timestamps") == "one\ntwo\n"
    assert "tailLines=2" in kubelet.paths[-1]
    assert "timestamps=true" in kubelet.paths[-1]
    assert kubectl("exec", "p", "--", "echo", "hello") == "hello\n"
    assert kubectl("exec", "-i", "p", "--", "cat", stdin="to and fro") == "to and fro"
    assert "exit code 3" in kubectl("exec", "p", "--", "sh", "-c", "exit 3", code=3)
    assert "container d is not valid for pod p" in kubectl("logs", "p", "-c", "d", code=1)


def test_copying(kubectl: Program, node: str, tmp_path: Path) -> None:
    run(kubectl, node, "p")
    source, there, back = (tmp_path / name for name in ("source", "there", "back"))
    source.write_text("content\n" * 1000)
    kubectl("cp", str(source), f"p:{there}")
    assert there.read_text() == source.read_text()
    kubectl("cp", f"p:{there}", str(back))
    assert back.read_text() == source.read_text()


def test_cordon_taint_and_drain(kubectl: Program, node: str) -> None:
    run(kubectl, node, "kept", app="kept")
    run(kubectl, node, "loose", app="loose")
    assert kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert "SchedulingDisabled" in kubectl("get", "node", node)
    assert kubectl("taint", "node", node, "a=b:NoSchedule") == f"node/{node} tainted\n"
    assert "declare no controller" in kubectl("drain", node, code=1)
    ready = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    kubectl("patch", "pod", "kept", "--subresource=status", "-p", ready)
    kubectl("create", "pdb", "keep", "--selector=app=kept", "--min-available=1")
    kubectl("wait", "pdb/keep", "--for=jsonpath={.status.currentHealthy}=1", "--timeout=30s")
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "kept"}})
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/kept/eviction"
    refused = kubectl("create", "--raw", path, "-f", "-", stdin=eviction, code=1)
    assert "Cannot evict pod as it would violate the pod's disruption budget." in refused
    kubectl("patch", "pdb", "keep", "--type=merge", "-p", '{"spec":{"minAvailable":0}}')
    kubectl("wait", "pdb/keep", "--for=jsonpath={.status.disruptionsAllowed}=1", "--timeout=30s")
    # A caller without the right to delete the pod uses nothing of the budget.
    stranger = ("--as=system:node:other", "--as-group=system:nodes")
    assert "orbidden" in kubectl("create", "--raw", path, "-f", "-", *stranger, stdin=eviction, code=1)
    assert f"node/{node} drained" in kubectl("drain", node, "--force", "--timeout=10s")
    kubectl("wait", "pdb/keep", "--for=jsonpath={.status.disruptionsAllowed}=0", "--timeout=30s")
    assert kubectl("uncordon", node) == f"node/{node} uncordoned\n"


def test_tokens(kubectl: Program, node: str) -> None:
    run(kubectl, node, "p")
    token = kubectl(
        "create", "token", "default", "--bound-object-kind=Pod", "--bound-object-name=p", "--duration=10m"
    )
    info = kubectl.json("--token", token.strip(), "auth", "whoami")["status"]["userInfo"]
    assert info["username"] == f"system:serviceaccount:{kubectl.namespace}:default"
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert "forbidden" in kubectl("--token", token.strip(), "get", "pods", code=1)
    kubectl("create", "rolebinding", "viewers", "--clusterrole=view", f"--serviceaccount={kubectl.namespace}:default")
    assert "p " in kubectl("--token", token.strip(), "get", "pods")
    assert "less than 10 minutes" in kubectl("create", "token", "default", "--duration=1m", code=1)
    kubectl("delete", "pod", "p", "--force")
    kubectl("--token", token.strip(), "get", "pods", code=1)
    assert "jwks_uri" in kubectl("get", "--raw", "/.well-known/openid-configuration")
    assert json.loads(kubectl("get", "--raw", "/openid/v1/jwks"))["keys"][0]["kty"] == "EC"
