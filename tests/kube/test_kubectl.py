"""Usual workflows with kubectl, in every version on the path."""

from __future__ import annotations

import pytest

from tests.kube.conftest import Program, programs

pytestmark = pytest.mark.parametrize("kubectl", programs("kubectl"), indirect=True)

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:1", ports: [{containerPort: 80}]}
"""


def test_apply_diff_and_apply_again(kubectl: Program) -> None:
    assert kubectl("apply", "-f", "-", stdin=WEB) == "deployment.apps/web created\n"
    assert kubectl("diff", "-f", "-", stdin=WEB) == ""
    newer = WEB.replace("web:1", "web:2")
    difference = kubectl("diff", "-f", "-", stdin=newer, code=1)
    assert "-      - image: example/web:1\n+      - image: example/web:2\n" in difference
    assert kubectl("apply", "-f", "-", stdin=newer) == "deployment.apps/web configured\n"
    assert kubectl("apply", "-f", "-", stdin=newer) == "deployment.apps/web unchanged\n"


def test_apply_on_the_servers_side(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    # The first server-side apply takes the fields over from client-side apply, without a conflict.
    assert kubectl("apply", "--server-side", "-f", "-", stdin=WEB) == "deployment.apps/web serverside-applied\n"
    newer = WEB.replace("web:1", "web:2")
    refused = kubectl("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=newer, code=1)
    path = '.spec.template.spec.containers[name="web"].image'
    assert f'Apply failed with 1 conflict: conflict with "kubectl": {path}' in refused
    assert "+      - image: example/web:2" in kubectl("diff", "--server-side", "-f", "-", stdin=newer, code=1)
    forced = ("apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-")
    assert kubectl(*forced, stdin=newer) == "deployment.apps/web serverside-applied\n"
    managers = kubectl(
        "get", "deploy", "web", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"
    )
    assert "other" in managers.split()
    # A field that its last owner omits is removed.
    kubectl(*forced, stdin=newer.replace("labels: {app: web}}\nspec", "labels: {app: web, tier: front}}\nspec"))
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.metadata.labels.tier}") == "front"
    kubectl(*forced, stdin=newer)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.metadata.labels.tier}") == ""


def test_rollout(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.observedGeneration}=1", "--timeout=10s")
    assert kubectl("set", "image", "deploy/web", "web=example/web:2") == "deployment.apps/web image updated\n"
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.observedGeneration}=2", "--timeout=10s")
    assert kubectl("rollout", "history", "deploy/web").splitlines()[1:4] == [
        "REVISION  CHANGE-CAUSE",
        "1         <none>",
        "2         <none>",
    ]
    assert "example/web:1" in kubectl("rollout", "history", "deploy/web", "--revision=1")
    assert "deployment.apps/web rolled back\n" in kubectl("rollout", "undo", "deploy/web")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "example/web:1"
    assert kubectl("rollout", "restart", "deploy/web") == "deployment.apps/web restarted\n"
    assert kubectl("rollout", "pause", "deploy/web") == "deployment.apps/web paused\n"
    assert kubectl("rollout", "resume", "deploy/web") == "deployment.apps/web resumed\n"
    assert "Waiting for deployment" in kubectl("rollout", "status", "deploy/web", "--watch=false")


def test_changes_in_place(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    assert kubectl("scale", "deploy/web", "--replicas=3") == "deployment.apps/web scaled\n"
    kubectl("scale", "deploy/web", "--replicas=1", "--current-replicas=9", code=1)
    assert kubectl("set", "env", "deploy/web", "A=1") == "deployment.apps/web env updated\n"
    kubectl("set", "resources", "deploy/web", "--limits=cpu=100m,memory=64Mi")
    kubectl("set", "serviceaccount", "deploy/web", "runner")
    assert kubectl("label", "deploy", "web", "tier=front") == "deployment.apps/web labeled\n"
    assert "--overwrite" in kubectl("label", "deploy", "web", "tier=back", code=1)
    assert kubectl("annotate", "deploy", "web", "note=x") == "deployment.apps/web annotated\n"
    kubectl(
        "patch", "deploy", "web", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b"}]}}}}'
    )
    kubectl("patch", "deploy", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":4}]')
    kubectl("patch", "deploy", "web", "--type=merge", "-p", '{"spec":{"minReadySeconds":5}}')
    edited = kubectl("edit", "deploy", "web", KUBE_EDITOR="sed -i 's/tier: front/tier: edge/'")
    assert edited == "deployment.apps/web edited\n"
    found = kubectl.json("get", "deploy", "web")
    spec = found["spec"]["template"]["spec"]
    assert found["metadata"]["labels"]["tier"] == "edge"
    assert (found["spec"]["replicas"], found["spec"]["minReadySeconds"]) == (4, 5)
    assert [container["name"] for container in spec["containers"]] == ["b", "web"]
    assert spec["containers"][1]["env"] == [{"name": "A", "value": "1"}]
    assert spec["serviceAccountName"] == "runner"


def test_generators(kubectl: Program) -> None:
    for words in (
        "configmap c --from-literal=a=b",
        "secret generic g --from-literal=a=b",
        "secret docker-registry d --docker-server=r.example --docker-username=u --docker-password=p",
        "serviceaccount runner",
        "role reader --verb=get --resource=pods",
        "rolebinding readers --role=reader --serviceaccount=x:runner",
        "deployment dep --image=example/web:1 --port=80",
        "job once --image=example/web:1",
        "cronjob tick --image=example/web:1 --schedule=*/5_*_*_*_*",
        "job now --from=cronjob/tick",
        "ingress in --rule=a.example/*=web:80",
        "service clusterip inner --tcp=80:80",
        "service nodeport outer --tcp=80:80",
        "service loadbalancer public --tcp=80:80",
        "service externalname named --external-name=a.example",
        "quota q --hard=pods=10",
        "poddisruptionbudget p --selector=app=web --min-available=1",
    ):
        arguments = [word.replace("_", " ") for word in words.split(" ")]
        assert kubectl("create", *arguments).endswith(" created\n")
        assert "already exists" in kubectl("create", *arguments, code=1)
    token = kubectl("create", "token", "runner").strip()
    assert token.count(".") == 2
    assert kubectl("--token", token, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").endswith(
        ":runner"
    )
    assert kubectl("expose", "deploy/dep") == "service/dep exposed\n"
    assert kubectl("autoscale", "deploy/dep", "--max=5") == "horizontalpodautoscaler.autoscaling/dep autoscaled\n"
    assert kubectl("run", "one", "--image=example/web:1", "--labels=a=b", "--env=A=1") == "pod/one created\n"
    kubectl("run", "two", "--image=example/web:1", "--dry-run=server")
    kubectl("delete", "pod", "one", "--dry-run=server")
    kubectl("delete", "pods", "--all", "--dry-run=server")
    assert kubectl("get", "pods", "-l", "a=b", "-o", "name") == "pod/one\n"
    listing = kubectl("get", "all,cm,secret,sa,role,rolebinding,ing,quota,pdb,hpa")
    assert "service/public" in listing
    assert "poddisruptionbudget.policy/p" in listing
    kubectl("describe", "all")


def test_deleting(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("wait", "deploy", "web", "--for=jsonpath={.status.replicas}=2", "--timeout=10s")
    assert kubectl("delete", "deploy", "web", "--cascade=orphan").startswith('deployment.apps "web" deleted')
    assert "replicaset.apps/web" in kubectl("get", "rs", "-o", "name")
    kubectl("delete", "rs", "--all", "--cascade=foreground", "--timeout=20s")
    kubectl("wait", "pod", "-l", "app=web", "--for=delete", "--timeout=10s")
    assert kubectl("get", "pods") == f"No resources found in {kubectl.namespace} namespace.\n"
    assert "not found" in kubectl("delete", "deploy", "web", code=1)
    kubectl("delete", "deploy", "web", "--ignore-not-found")
    kubectl("delete", "namespace", kubectl.namespace, "--timeout=20s")


def test_reviews(kubectl: Program) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert kubectl("auth", "can-i", "list", "secrets", "--as=system:serviceaccount:x:y", code=1) == "no\n"
    assert "[*]" in kubectl("auth", "can-i", "--list")
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    assert "horizontalpodautoscalers" in kubectl("api-resources", "--api-group=autoscaling")
    assert "apps/v1\n" in kubectl("api-versions")
    assert "containerPort\t<integer> -required-" in kubectl("explain", "pod.spec.containers.ports")
    assert "Server Version: v1.36" in kubectl("version")
    assert "is running at" in kubectl("cluster-info")
    refused = kubectl("get", "pods", "--as=bob", code=1)
    assert f'User "bob" cannot list resource "pods" in API group "" in the namespace "{kubectl.namespace}"' in refused


def test_a_kustomization(kubectl: Program) -> None:
    (kubectl.home / "web.yaml").write_text(WEB)
    (kubectl.home / "kustomization.yaml").write_text(
        "resources: [web.yaml]\nnamePrefix: my-\nconfigMapGenerator: [{name: settings, literals: [a=b]}]\n"
    )
    assert "deployment.apps/my-web created" in kubectl("apply", "-k", str(kubectl.home))
    assert "deleted" in kubectl("delete", "-k", str(kubectl.home))


def test_pruning_by_apply_set(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", "--prune", "-l", "app=web", stdin=WEB)
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {app: web}}\n"
    assert "deployment.apps/web pruned" in kubectl("apply", "-f", "-", "--prune", "-l", "app=web", stdin=other)


def test_watching_and_waiting(kubectl: Program) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    kubectl("wait", "configmap/c", "--for=jsonpath={.data.a}=b", "--timeout=5s")
    assert kubectl("get", "configmap", "c", "-w", "--request-timeout=1s", code=0).splitlines()[1].startswith("c ")


def test_messages_for_bad_input(kubectl: Program) -> None:
    assert 'unknown field "spec.template.spec.foo"' in kubectl(
        "apply", "-f", "-", stdin=WEB.replace("    spec:", "    spec:\n      foo: 1"), code=1
    )
    assert "field is immutable" in kubectl("apply", "-f", "-", stdin=WEB) + kubectl(
        "apply", "-f", "-", stdin=WEB.replace("{app: web}", "{app: other}"), code=1
    )
    assert "Invalid value" in kubectl(
        "create", "deployment", "-n", kubectl.namespace, "Bad_Name", "--image=x", code=1
    )
    assert "doesn't have a resource type" in kubectl("get", "unheardofs", code=1)
