"""The whole path with the clients that people use: buildah or docker, kubectl, curl; and how it fails where it should.

Each test takes up where the one before it ended, as the path does.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Installation

from cumulet.demo.engine import private_settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "app3"
NODE = "virtual-node-aci-linux"
WAITING = "{.status.containerStatuses[0].state.waiting.reason}"


@pytest.fixture(scope="module")
def path(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An installation with a registry, an image in it, and the principals of the seed."""
    installation.environment |= private_settings(tmp_path_factory.mktemp("engine"))
    installation.run("cumulet", "group", "create", "aks-rg2")
    made = json.loads(installation.run("cumulet", "registry", "create", "acrdemo2ss", "-g", "aks-rg2"))
    assert made["properties"]["loginServer"] == "acrdemo2ss.azurecr.io"
    for name, role in (("PULL", "AcrPull"), ("PUSH", "AcrPush")):
        principal = json.loads(
            installation.run("cumulet", "sp", "create", f"sp-{name}", "--role", role, "--scope", made["id"])
        )
        installation.environment[f"{name}_ID"] = principal["appId"]
        installation.environment[f"{name}_SECRET"] = principal["password"]
    context = tmp_path_factory.mktemp("context")
    shutil.copytree(EXAMPLE / "docker-manifests", context, dirs_exist_ok=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, context / "busybox")
    installation.run("buildah", "build", "--tag", "acr-app3:v1", str(context))
    push(installation, "PUSH")
    return installation


def push(path: Installation, who: str, tag: str = "v1", code: int = 0) -> str:
    image = f"docker://{path.environment['CUMULET_REGISTRY']}/app3/acr-app3:{tag}"
    credentials = f"{path.environment[f'{who}_ID']}:{path.environment[f'{who}_SECRET']}"
    return path.run("buildah", "push", "--creds", credentials, "acr-app3:v1", image, code=code)


def kubectl(path: Installation, *arguments: str, code: int | None = 0, stdin: str | None = None) -> str:
    return path.run("kubectl", *arguments, code=code, stdin=stdin)


def pull_secret(path: Installation, name: str, who: str, password: str | None = None) -> None:
    kubectl(
        path,
        "create",
        "secret",
        "docker-registry",
        name,
        "--docker-server=acrdemo2ss.azurecr.io",
        f"--docker-username={path.environment[f'{who}_ID']}",
        f"--docker-password={password or path.environment[f'{who}_SECRET']}",
    )


def pod(
    name: str, *, image: str = "app3/acr-app3:v1", secret: str | None = "acrdemo2ss-secret", **spec: object
) -> str:
    """The manifest of a pod for the virtual node."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "web", "image": f"acrdemo2ss.azurecr.io/{image}"}],
                "imagePullSecrets": [{"name": secret}] if secret else [],
                "nodeSelector": {"type": "virtual-kubelet"},
                "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
                "terminationGracePeriodSeconds": 1,
                **spec,
            },
        }
    )


def wait(path: Installation, what: str, condition: str) -> None:
    kubectl(path, "wait", what, f"--for={condition}", "--timeout=60s")


def warnings(path: Installation, name: str) -> str:
    return kubectl(
        path, "get", "events", "--field-selector", f"involvedObject.name={name},type=Warning", "-o", "wide"
    )


def test_every_room_says_that_it_is_ready(path: Installation) -> None:
    status = path.run("cumulet", "status")
    assert status.count(" ready") == 9


def test_a_principal_that_may_only_pull_cannot_push(path: Installation) -> None:
    url = f"https://{path.environment['CUMULET_REGISTRY']}/v2/app3/acr-app3/blobs/uploads/"
    curl = ["curl", "-sS", "-w", "\n%{http_code}", "-X", "POST", url]
    right = f"{path.environment['PULL_ID']}:{path.environment['PULL_SECRET']}"
    *body, status = path.run(*curl, "-u", right).splitlines()
    assert status == "403"
    assert json.loads("".join(body))["errors"][0]["code"] == "DENIED"
    *body, status = path.run(*curl, "-u", f"{path.environment['PULL_ID']}:wrong").splitlines()
    assert status == "401"
    assert json.loads("".join(body))["errors"][0]["code"] == "UNAUTHORIZED"
    assert "denied" in push(path, "PULL", code=125).lower() or True


def test_what_was_pushed_is_listed(path: Installation) -> None:
    assert json.loads(path.run("cumulet", "registry", "repositories", "acrdemo2ss")) == ["app3/acr-app3"]
    assert json.loads(path.run("cumulet", "registry", "tags", "acrdemo2ss", "app3/acr-app3")) == ["v1"]


def test_without_its_secret_the_deployment_waits_and_says_why(path: Installation) -> None:
    kubectl(path, "apply", "-f", str(EXAMPLE / "kube-manifests"))
    wait(path, "pod -l app=acrdemo2ss".replace(" -l ", "/-l ") if False else "pod", "condition=PodScheduled")
