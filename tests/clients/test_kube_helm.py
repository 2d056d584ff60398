"""Helm 3 and 4; `scripts/setup clients` installs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Program, cluster, kubectl
from tests.kube.test_helm import CHART

__all__ = ["cluster", "kubectl"]

_LINES = ("v3", "v4")

#: Chart files that the fast suite does not have: post-install hooks, a test, notes and lookups.
_MORE = {
    "templates/after.yaml": """
apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}-after
  annotations: {helm.sh/hook: "post-install,post-upgrade,post-rollback", helm.sh/hook-weight: "5"}
stringData: {namespace: "{{ (lookup "v1" "Namespace" "" .Release.Namespace).metadata.name }}"}
""",
    "templates/gone.yaml": """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-gone
  annotations: {helm.sh/hook: pre-delete, helm.sh/hook-delete-policy: hook-succeeded}
data: {a: b}
""",
    "templates/NOTES.txt": 'Served by {{ .Capabilities.KubeVersion }}; {{ .Capabilities.APIVersions.Has "apps/v1/Deployment" }}\n',
}

pytestmark = [pytest.mark.clients, pytest.mark.parametrize("line", _LINES)]


@pytest.fixture
def helm(line: str, cluster: Cloud, kubectl: Program, tmp_path: Path) -> Program:
    """Helm, in a folder with a chart in `web`."""
    for name, text in {**CHART, **_MORE}.items():
        file = tmp_path / "web" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    path = Path(sys.prefix) / "clients" / f"helm-{line}"
    return Program(str(path), cluster.config.kubeconfig_file("admin"), kubectl.namespace, tmp_path)


def test_the_life_of_a_release(helm: Program, kubectl: Program) -> None:
    chart = str(helm.home / "web")
    installed = helm("install", "shop", chart)
    assert "STATUS: deployed" in installed
    assert "Served by v1.36" in installed
    assert "true" in installed
    assert kubectl("get", "site", "shop", "-o", "jsonpath={.spec.host}") == "a.example"
    assert kubectl("get", "secret", "shop-after", "-o", "jsonpath={.data.namespace}") != ""
    assert "already exists" in kubectl("create", "deployment", "shop", "--image=x", code=1)
    assert "a name that is still in use" in helm("install", "shop", chart, code=1)
    helm("upgrade", "shop", chart, "--set", "replicas=3", "--reuse-values")
    assert kubectl("get", "deploy", "shop", "-o", "jsonpath={.spec.replicas}") == "3"
    assert "replicas: 3" in helm("get", "values", "shop")
    assert "kind: Deployment" in helm("get", "manifest", "shop")
    assert "shop-before" in helm("get", "hooks", "shop")
    helm("rollback", "shop", "1")
    assert kubectl("get", "deploy", "shop", "-o", "jsonpath={.spec.replicas}") == "1"
    assert len(helm.json("history", "shop")) == 3
    assert helm.json("status", "shop")["info"]["status"] == "deployed"
    assert "STATUS: deployed" in helm("upgrade", "--install", "other", chart, "--set", "image=example/web:2")
    assert {item["name"] for item in helm.json("list")} == {"shop", "other"}
    helm("uninstall", "shop", "--wait", "--timeout=30s")
    helm("uninstall", "other", "--keep-history")
    assert kubectl("get", "deploy,site", "-o", "name") == ""
    assert "shop-gone" not in kubectl("get", "configmaps", "-o", "name")


def test_an_upgrade_that_fails_is_rolled_back(helm: Program, kubectl: Program) -> None:
    chart = str(helm.home / "web")
    helm("install", "shop", chart)
    refused = helm("upgrade", "shop", chart, "--set", "image=", code=1)
    assert "spec.template.spec.containers[0].image" in refused
    helm("rollback", "shop", "1")
    assert kubectl("get", "deploy", "shop", "-o", "jsonpath={..image}") == "example/web:1"


def test_dry_runs(helm: Program, kubectl: Program) -> None:
    chart = str(helm.home / "web")
    assert "kind: Deployment" in helm("install", "shop", chart, "--dry-run=server")
    assert "kind: Deployment" in helm("template", "shop", chart, "--dry-run=server")
    assert kubectl("get", "deploy", "-o", "name") == ""
