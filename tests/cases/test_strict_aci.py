"""A virtual node with `--strict-aci`: what Azure's takes runs, and what it refuses is refused in its words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cases.path import ThePath, pod

NODE = "strict"


@pytest.fixture(scope="module")
def strict(path: ThePath) -> Iterator[ThePath]:
    """The path with a second virtual node, which is strict."""
    environment = path.installation.environment
    command = (
        "cumulet",
        "node",
        "--name",
        NODE,
        "--strict-aci",
        "--port",
        "0",
        "--kubeconfig",
        environment["KUBECONFIG"],
    )
    node = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        path.until(lambda: path.kubectl("get", "nodes", NODE, "--ignore-not-found"), f"node {NODE}")
        yield path
    finally:
        path.kubectl("delete", "pods", "--field-selector", f"spec.nodeName={NODE}")
        node.terminate()
        node.wait(60)
        path.kubectl("delete", "node", NODE, "--ignore-not-found")


def test_pods_get_what_azures_virtual_node_gives(strict: ThePath) -> None:
    def bound(name: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
        made = pod(name, [{"name": "main", **container}], nodeName=NODE, restartPolicy="Never", **spec)
        made["spec"].pop("nodeSelector")
        return made

    shared = {
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        "env": [{"name": "NONE", "value": ""}, {"name": "SOME", "value": "x"}],
    }
    strict.apply(
        bound(
            "strict-runs",
            {
                **shared,
                "command": ["sh", "-c"],
                "args": ['[ "$(cat /shared/word) ${NONE-absent} $SOME $(id -u)" = "it ran absent x 1001" ]'],
                "securityContext": {"runAsUser": 1001},
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            },
            volumes=[{"name": "shared", "emptyDir": {}}],
            initContainers=[
                {"name": "init", "image": "acrdemo2ss.azurecr.io/bb:1", "command": ["sh", "-c", "echo it ran > /shared/word"], **shared}
            ],
        ),
        bound(
            "strict-refused",
            {"args": ["x"], "lifecycle": {"preStop": {"exec": {"command": ["true"]}}}, "workingDir": "/srv"},
            hostNetwork=True,
        ),
        bound("strict-property", {"workingDir": "/srv"}),
    )  # fmt: skip
    strict.wait_phase("strict-runs", "Succeeded")  # the API server reads no logs of another node on this machine
    assert strict.get("strict-runs")["status"]["podIP"]  # a group in a subnet has an address
    told = strict.events("strict-refused", "ProviderCreateFailed")
    assert "ACI does not support providing args without specifying the command." in told
    assert "spec.containers[0].lifecycle: ACI does not support lifecycle hooks" in told
    assert "spec.hostNetwork is not supported" in told
    told = strict.events("strict-property", "ProviderCreateFailed")
    assert (
        told
        == "spec.containers[0].workingDir: Azure Container Instances has no such property; remove it from the pod"
    )
