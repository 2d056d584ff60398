"""A chart with hooks, a custom resource and its definition: install to uninstall, with every Helm on the path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Program, programs

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 0.1.0\nappVersion: '1'\n",
    "values.yaml": "replicas: 1\nimage: example/web:1\n",
    "crds/sites.yaml": """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sites.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: sites, kind: Site}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {host: {type: string}}}}}
""",
    "templates/site.yaml": """
apiVersion: example.org/v1
kind: Site
metadata: {name: {{ .Release.Name }}}
spec: {host: a.example}
""",
    "templates/hook.yaml": """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-before
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
data: {revision: "{{ .Release.Revision }}"}
""",
    "templates/deployment.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec: {containers: [{name: web, image: "{{ .Values.image }}"}]}
""",
}


@pytest.mark.parametrize("path", programs("helm"))
def test_the_life_of_a_release(path: str, cluster: Cloud, kubectl: Program, tmp_path: Path) -> None:
    for name, text in CHART.items():
        file = tmp_path / "web" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    helm = Program(path, cluster.config.kubeconfig_file("admin"), kubectl.namespace, tmp_path)
    chart = str(tmp_path / "web")
    assert "STATUS: deployed" in helm("install", "shop", chart)
    assert kubectl("get", "site", "shop", "-o", "jsonpath={.spec.host}") == "a.example"
    helm("upgrade", "shop", chart, "--set", "replicas=3")
    assert kubectl("get", "deploy", "shop", "-o", "jsonpath={.spec.replicas}") == "3"
    assert kubectl("get", "cm", "shop-before", "-o", "jsonpath={.data.revision}") == "2"
    helm("rollback", "shop", "1")
    assert kubectl("get", "deploy", "shop", "-o", "jsonpath={.spec.replicas}") == "1"
    assert [item["status"] for item in json.loads(helm("history", "shop", "-o", "json"))] == [
        "superseded",
        "superseded",
        "deployed",
    ]
    assert [item["name"] for item in json.loads(helm("list", "-o", "json"))] == ["shop"]
    helm("uninstall", "shop", "--wait")
    assert kubectl("get", "deploy,site,secret", "-o", "name") == ""
