"""Clients in a pod reach the API server with what a pod has: variables, a token and an authority."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cumulet.common import router
from cumulet.common.config import load
from tests.cases.path import ThePath, pod
from tests.instances.images import busybox_layer, entry, layer

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def kubectl(path: ThePath) -> str:
    """An image with kubectl, whose client is client-go, and a service account that may read pods."""
    binary = shutil.which("kubectl")
    assert binary is not None
    path.kubectl("create", "serviceaccount", "reader")
    path.kubectl("create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount=default:reader")
    return path.push(
        "kubectl:1", [busybox_layer(), layer(entry("bin/kubectl", Path(binary).read_bytes(), mode=0o755))]
    )


def client(name: str, image: str, script: str, **env: str) -> dict[str, Any]:
    """A pod that runs a script as the account `reader`."""
    variables = [{"name": key, "value": value} for key, value in env.items()]
    main = {"name": "main", "image": image, "command": ["sh", "-c", script], "env": variables}
    return pod(name, [main], restartPolicy="Never", serviceAccountName="reader")


@pytest.mark.parametrize("host", ["", "door"], ids=["by its cluster IP", "by its door"])
def test_kubectl_in_a_pod_works_with_what_it_finds(path: ThePath, kubectl: str, host: str) -> None:
    gateway = str(router.gateway(load(path.installation.data_dir)))
    door = {"KUBERNETES_SERVICE_HOST": gateway, "KUBERNETES_SERVICE_PORT": str(router.API_PORT)} if host else {}
    name = f"kubectl-{host or 'service'}"
    script = "kubectl get pods -o name && kubectl auth whoami -o 'jsonpath={.status.userInfo.username}'; kubectl get secrets"
    path.apply(client(name, kubectl, f"({script}) 2>&1; true", **door))
    lines = path.output(name).splitlines()
    assert f"pod/{name}" in lines
    assert any(line.startswith("system:serviceaccount:default:reader") for line in lines)
    assert "secrets is forbidden" in lines[-1]


def test_the_service_of_the_api_server_leads_to_the_door(path: ThePath) -> None:
    gateway = str(router.gateway(load(path.installation.data_dir)))
    (endpoint,) = path.get("kubernetes", "endpointslice")["endpoints"]
    assert endpoint["addresses"] == [gateway]
    (subset,) = path.get("kubernetes", "endpoints")["subsets"]
    assert [item["ip"] for item in subset["addresses"]] == [gateway]
    assert [item["port"] for item in subset["ports"]] == [router.API_PORT]


def test_a_pod_has_the_address_of_the_api_server_in_its_environment(path: ThePath) -> None:
    path.run(
        "api-variables", "sh", "-c", f"env; cat {_ACCOUNT}/ca.crt {_ACCOUNT}/namespace; test -s {_ACCOUNT}/token"
    )
    lines = path.output("api-variables").splitlines()
    assert f"KUBERNETES_SERVICE_HOST={path.get('kubernetes', 'service')['spec']['clusterIP']}" in lines
    assert "KUBERNETES_SERVICE_PORT=443" in lines
    assert "-----BEGIN CERTIFICATE-----" in lines
    assert lines[-1] == "default"
