"""Python clients with in-cluster configuration, in the network of a pod: the official one, and an operator of kopf.

They run with what the pod has: its network, the address in its environment, and the files of its service account.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common import router
from cumulet.common.config import load
from cumulet.common.namespaces import NAMESPACES
from tests.cases.conftest import path
from tests.cases.path import ThePath, pod

__all__ = ["path"]

pytestmark = pytest.mark.clients

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_OFFICIAL = """
from kubernetes import client, config
config.load_incluster_config()
core = client.CoreV1Api()
print(core.read_namespaced_pod("operator", "default").metadata.name, core.api_client.configuration.host)
"""
_OPERATOR = """
import kopf

@kopf.on.create("configmaps", labels={"kind": "order"})
def handle(spec, name, patch, **_):
    patch.metadata.annotations["handled-by"] = "kopf"
"""


class InPod:
    """Programs of this machine in a pod's network, with the files and variables of its container."""

    def __init__(self, path: ThePath, name: str, folder: Path) -> None:
        self._folder = folder
        address = path.get(name)["status"]["podIP"]
        for file in ("token", "ca.crt", "namespace"):
            (folder / file).write_text(path.kubectl("exec", name, "--", "cat", f"{_ACCOUNT}/{file}"))
        listed = path.kubectl("exec", name, "--", "env").splitlines()
        self._environment = dict(line.split("=", 1) for line in listed if line.startswith("KUBERNETES_"))
        prefix = router.namespace_name(load(path.installation.data_dir))
        (self._namespace,) = [item.name for item in NAMESPACES.glob(f"{prefix}-*") if _has(item.name, address)]

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a program of the clients' virtual environment. `ip netns exec` gives it mounts of its own."""
        script = 'mount -t tmpfs tmpfs /run && mkdir -p "$1" && cp "$2"/* "$1" && shift 2 && exec "$@"'
        programs = Path(sys.prefix) / "clients" / "python" / "bin"
        command = ["sh", "-ec", script, "sh", _ACCOUNT, str(self._folder), str(programs / words[0]), *words[1:]]
        return subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self._folder), **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _has(namespace: str, address: str) -> bool:
    shown = subprocess.run(["ip", "-n", namespace, "-4", "addr"], capture_output=True, text=True, check=True).stdout
    return f" {address}/" in shown


@pytest.fixture(scope="module")
def inside(path: ThePath, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InPod]:
    """A pod that may do what an operator does."""
    path.kubectl("create", "serviceaccount", "operator")
    path.kubectl("create", "rolebinding", "operator", "--clusterrole=admin", "--serviceaccount=default:operator")
    main = {"name": "main", "command": ["sleep", "3600"]}
    path.apply(pod("operator", [main], serviceAccountName="operator"))
    path.wait_phase("operator", "Running")
    yield InPod(path, "operator", tmp_path_factory.mktemp("pod"))
    path.kubectl("delete", "pod", "operator", "--grace-period=0", "--force")


def test_the_official_client_finds_the_api_server(path: ThePath, inside: InPod) -> None:
    done = inside.start("python", "-c", _OFFICIAL)
    output, _ = done.communicate(timeout=100)
    cluster_ip = path.get("kubernetes", "service")["spec"]["clusterIP"]
    assert output == f"operator https://{cluster_ip}:443\n"


def test_an_operator_of_kopf_handles_an_object(path: ThePath, inside: InPod, tmp_path: Path) -> None:
    (tmp_path / "operator.py").write_text(_OPERATOR)
    operator = inside.start("kopf", "run", "--standalone", "--namespace", "default", str(tmp_path / "operator.py"))
    try:
        path.kubectl("create", "configmap", "order")
        path.kubectl("label", "configmap", "order", "kind=order")
        path.wait("configmap/order", "jsonpath={.metadata.annotations.handled-by}=kopf")
    finally:
        operator.terminate()
        output, _ = operator.communicate(timeout=60)
    assert "Handler 'handle' succeeded" in output
