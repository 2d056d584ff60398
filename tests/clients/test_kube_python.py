"""Python clients in a separate virtual environment (`scripts/setup clients`): the official one, lightkube and kr8s."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud import Cloud
from tests.kube.conftest import Program, cluster, kubectl

__all__ = ["cluster", "kubectl"]

pytestmark = pytest.mark.clients

_OFFICIAL = """
import sys
from kubernetes import client, config, dynamic, utils, watch

config.load_kube_config(sys.argv[1])
namespace = sys.argv[2]
core, apps = client.CoreV1Api(), client.AppsV1Api()
made = core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "b"}})
assert made.metadata.uid and made.data == {"a": "b"}
try:
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}})
except client.ApiException as error:
    assert (error.status, error.reason) == (409, "Conflict"), error
made.data["a"] = "c"
core.replace_namespaced_config_map("c", namespace, made)
try:
    core.replace_namespaced_config_map("c", namespace, made)
except client.ApiException as error:
    assert error.status == 409, error
core.patch_namespaced_config_map("c", namespace, {"data": {"d": "e"}})
assert core.read_namespaced_config_map("c", namespace).data == {"a": "c", "d": "e"}
spec = {
    "replicas": 1,
    "selector": {"matchLabels": {"app": "web"}},
    "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "example/web:1"}]},
    },
}
apps.create_namespaced_deployment(namespace, {"metadata": {"name": "web"}, "spec": spec})
apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 2}})
seen = 0
for event in watch.Watch().stream(core.list_namespaced_pod, namespace, label_selector="app=web", timeout_seconds=20):
    seen += event["type"] == "ADDED"
    if seen == 2:
        break
assert seen == 2
first = core.list_namespaced_pod(namespace, limit=1)
rest = core.list_namespaced_pod(namespace, limit=1, _continue=first.metadata._continue)
assert {first.items[0].metadata.name} != {rest.items[0].metadata.name}
dynamic_client = dynamic.DynamicClient(client.ApiClient())
deployments = dynamic_client.resources.get(api_version="apps/v1", kind="Deployment")
assert deployments.get(name="web", namespace=namespace).spec.replicas == 2
body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"minReadySeconds": 3}}
applied = deployments.server_side_apply(body=body, name="web", namespace=namespace, field_manager="official")
assert applied.spec.minReadySeconds == 3
utils.create_from_dict(client.ApiClient(), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}, namespace=namespace)
review = client.AuthorizationV1Api().create_self_subject_access_review(
    {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": namespace}}}
)
assert review.status.allowed
core.create_namespaced_service_account(namespace, {"metadata": {"name": "runner"}})
token = core.create_namespaced_service_account_token("runner", namespace, {"spec": {"audiences": [], "expirationSeconds": 3600}})
assert token.status.token.count(".") == 2
assert client.VersionApi().get_code().major == "1"
apps.delete_namespaced_deployment("web", namespace, propagation_policy="Foreground")
core.delete_collection_namespaced_config_map(namespace)
print("done")
"""

_LIGHTKUBE = """
import sys
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import CascadeType, PatchType

namespace = sys.argv[2]
client = Client(config=KubeConfig.from_file(sys.argv[1]), namespace=namespace, field_manager="lightkube")
client.create(ConfigMap(metadata=ObjectMeta(name="c"), data={"a": "b"}))
try:
    client.create(ConfigMap(metadata=ObjectMeta(name="c")))
except ApiError as error:
    assert error.status.reason == "AlreadyExists", error.status
client.patch(ConfigMap, "c", {"data": {"d": "e"}}, patch_type=PatchType.MERGE)
assert client.get(ConfigMap, "c").data == {"a": "b", "d": "e"}
template = PodTemplateSpec(
    metadata=ObjectMeta(labels={"app": "web"}), spec=PodSpec(containers=[Container(name="web", image="example/web:1")])
)
deployment = Deployment(
    metadata=ObjectMeta(name="web"),
    spec=DeploymentSpec(replicas=2, selector=LabelSelector(matchLabels={"app": "web"}), template=template),
)
assert client.apply(deployment).spec.replicas == 2
assert client.get(Deployment.Scale, "web").spec.replicas == 2
client.patch(Deployment.Scale, "web", {"spec": {"replicas": 3}}, patch_type=PatchType.MERGE)
seen = set()
for change, pod in client.watch(Pod, labels={"app": "web"}):
    seen.add(pod.metadata.name)
    if len(seen) == 3:
        break
assert len(list(client.list(Pod, labels={"app": "web"}, chunk_size=1))) == 3
client.wait(Deployment, "web", for_conditions=["Progressing"])
client.delete(Deployment, "web", cascade=CascadeType.FOREGROUND)
client.deletecollection(ConfigMap)
print("done")
"""

_KR8S = """
import sys
import kr8s
from kr8s.objects import ConfigMap, Deployment, Pod

namespace = sys.argv[2]
api = kr8s.api(kubeconfig=sys.argv[1], namespace=namespace)
config = ConfigMap({"metadata": {"name": "c", "namespace": namespace}, "data": {"a": "b"}}, api=api)
config.create()
assert config.exists()
config.patch({"data": {"d": "e"}})
config.label({"x": "y"})
assert ConfigMap.get("c", namespace=namespace, api=api).data == {"a": "b", "d": "e"}
assert [item.name for item in api.get("configmaps", label_selector="x=y")] == ["c"]
spec = {
    "replicas": 1,
    "selector": {"matchLabels": {"app": "web"}},
    "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "example/web:1"}]},
    },
}
web = Deployment({"metadata": {"name": "web", "namespace": namespace}, "spec": spec}, api=api)
web.create()
web.scale(2)
web.wait("condition=Progressing", timeout=20)
seen = set()
for _, pod in api.watch("pods", label_selector="app=web"):
    seen.add(pod.name)
    if len(seen) == 2:
        break
web.delete()
assert api.version()["major"] == "1"
assert any(item["name"] == "deployments" for item in api.api_resources())
print("done")
"""


@pytest.mark.parametrize("script", [_OFFICIAL, _LIGHTKUBE, _KR8S], ids=["kubernetes", "lightkube", "kr8s"])
def test_a_client_in_python(script: str, cluster: Cloud, kubectl: Program, tmp_path: Path) -> None:
    python = Path(sys.prefix) / "clients" / "python" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", script, str(cluster.config.kubeconfig_file("admin")), kubectl.namespace],
        capture_output=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
