"""Every kubectl of the range, with everything that a deployer does with it; `scripts/setup clients` gets them."""

from __future__ import annotations

import base64
import json
import sys
import uuid
from pathlib import Path
from urllib.request import urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kube import test_kubectl, test_nodes_and_pods
from tests.kube.conftest import Program, cluster, kubectl
from tests.kube.subresources.test_reaching_pods import Forwarded, site
from tests.kube.test_kubectl import WEB
from tests.kube.test_nodes_and_pods import kubelet, node, run

__all__ = ["cluster", "kubectl", "kubelet", "node", "site"]

_MINORS = range(30, 38)
_PATHS = [str(Path(sys.prefix) / "clients" / f"kubectl-v{minor}") for minor in _MINORS]

pytestmark = [
    pytest.mark.clients,
    pytest.mark.parametrize("kubectl", _PATHS, indirect=True, ids=[f"1.{minor}" for minor in _MINORS]),
]

# What the fast suite does with the versions on the path is done with all of them here.
for _module in (test_kubectl, test_nodes_and_pods):
    globals().update({name: value for name, value in vars(_module).items() if name.startswith("test_")})


def _finish(kubectl: Program, selector: str) -> None:
    """Make pods run, as their node would."""
    ready = {"type": "Ready", "status": "True"}
    for name in kubectl("get", "pods", "-l", selector, "-o", "name").split():
        status = {"phase": "Running", "conditions": [ready], "podIP": "10.0.0.9"}
        kubectl("patch", name, "--subresource=status", "-p", json.dumps({"status": status}))


def test_getting(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.replicas}=2", "--timeout=10s")
    wide = kubectl("get", "deploy,rs,pods", "-o", "wide")
    assert "CONTAINERS" in wide
    assert "NOMINATED NODE" in wide
    assert len(kubectl("get", "pods", "--no-headers", "--sort-by=.metadata.name").splitlines()) == 2
    assert kubectl("get", "deploy", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas").split() == [
        "N",
        "R",
        "web",
        "2",
    ]
    assert kubectl("get", "deploy", "web", "-o", "go-template={{.spec.replicas}}") == "2"
    assert kubectl("get", "pods", "--chunk-size=1", "-o", "name").count("pod/web-") == 2
    assert "managedFields" in kubectl("get", "deploy", "web", "-o", "yaml", "--show-managed-fields")
    assert "app=web" in kubectl("get", "pods", "--show-labels", "-L", "app", "--field-selector=status.phase=Pending")
    assert '"items":' in kubectl("get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/pods")
    assert kubectl("get", "deploy", "web", "--subresource=status").splitlines()[1].startswith("web ")
    seen = kubectl("get", "pods", "-w", "--output-watch-events", "--request-timeout=1s")
    assert seen.count("ADDED") == 2
    everywhere = kubectl("get", "pods", "-A", "-l", "app=web", "--ignore-not-found")
    assert kubectl.namespace in everywhere


def test_describing_and_explaining(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.replicas}=2", "--timeout=10s")
    described = kubectl("describe", "deploy", "web")
    assert "Replicas:               2 desired" in described
    assert "ScalingReplicaSet" in described
    assert "ReplicaSet/web-" in kubectl("describe", "pods", "-l", "app=web")
    for kind in ("namespace", "serviceaccount", "clusterrole", "service", "configmap", "priorityclass"):
        kubectl("describe", kind)
    assert "FIELDS:" in kubectl("explain", "deployment")
    assert "maxSurge" in kubectl("explain", "deployment.spec", "--recursive")
    assert "cronjobs" in kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "wide")


def test_a_rollout_to_its_end(kubectl: Program) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.replicas}=2", "--timeout=10s")
    _finish(kubectl, "app=web")
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/web", "--timeout=20s")
    kubectl("wait", "deploy/web", "--for=condition=Available", "--timeout=10s")
    assert "condition met" in kubectl("wait", "pod", "-l", "app=web", "--for=condition=Ready", "--timeout=10s")
    kubectl("annotate", "deploy/web", "kubernetes.io/change-cause=first")
    cause = "--for=jsonpath={.metadata.annotations.kubernetes\\.io/change-cause}=first"
    kubectl("wait", "rs", "-l", "app=web", cause, "--timeout=10s")
    assert "first" in kubectl("rollout", "history", "deploy/web")
    events = kubectl("events", "--for", "deployment/web")
    assert "Scaled up replica set" in events
    assert "ScalingReplicaSet" in kubectl("get", "events", "--field-selector=involvedObject.name=web")


def test_replacing_and_diffing(kubectl: Program) -> None:
    kubectl("create", "-f", "-", stdin=WEB)
    # The controllers write to it too, for as long as they have something to say.
    kubectl("wait", "deploy/web", "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=10s")
    reason = '{.status.conditions[?(@.type=="Progressing")].reason}=ReplicaSetUpdated'
    kubectl("wait", "deploy/web", f"--for=jsonpath={reason}", "--timeout=10s")
    newer = WEB.replace("replicas: 2", "replicas: 1")
    assert kubectl("replace", "-f", "-", stdin=newer) == "deployment.apps/web replaced\n"
    assert "replaced" in kubectl("replace", "--force", "--grace-period=0", "-f", "-", stdin=newer)
    (kubectl.home / "web.yaml").write_text(WEB)
    (kubectl.home / "kustomization.yaml").write_text("resources: [web.yaml]\nnameSuffix: -x\n")
    assert "+  name: web-x" in kubectl("diff", "-k", str(kubectl.home), code=1)
    kubectl("apply", "--server-side", "-k", str(kubectl.home))
    kubectl("wait", "deploy/web-x", "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=10s")
    assert kubectl("diff", "--server-side", "-k", str(kubectl.home)) == ""
    assert "serverside-applied" in kubectl("apply", "--server-side", "--dry-run=server", "-k", str(kubectl.home))
    kubectl("apply", "set-last-applied", "--create-annotation", "-f", "-", stdin=newer)
    assert "replicas: 1" in kubectl("apply", "view-last-applied", "deploy/web")
    kubectl("set", "selector", "service/none", "a=b", "--local", "-f", "-", stdin="", code=1)


def test_more_generators(kubectl: Program) -> None:
    suffix = uuid.uuid4().hex[:6]
    made = [
        ("clusterrole", f"r-{suffix}", "--verb=get", "--resource=pods"),
        ("clusterrolebinding", f"b-{suffix}", f"--clusterrole=r-{suffix}", "--user=u"),
        ("priorityclass", f"p-{suffix}", "--value=7"),
        ("namespace", f"n-{suffix}"),
    ]
    try:
        for words in made:
            assert kubectl("create", *words).endswith(" created\n")
    finally:
        for kind, name, *_ in made:
            kubectl("delete", kind, name, "--ignore-not-found", "--wait=false")
    rules = f"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: r, namespace: {kubectl.namespace}}}\n"
    rules += "rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n"
    assert "reconciled" in kubectl("auth", "reconcile", "-f", "-", stdin=rules)
    kubectl("create", "role", "s", "--verb=get", "--resource=pods", "--dry-run=client", "-o", "yaml")
    kubectl("create", "rolebinding", "s", "--role=r", "--user=u")
    assert "updated" in kubectl("set", "subject", "rolebinding", "s", "--user=v")


def test_attaching_and_running(kubectl: Program, node: str) -> None:
    run(kubectl, node, "p")
    assert "on its own" in kubectl("attach", "p")
    assert kubectl("attach", "-i", "p", stdin="to and fro").endswith("to and fro")
    kubectl("run", "q", "--image=example/web:1", "--port=80", "--expose")
    assert kubectl("get", "service", "q", "-o", "jsonpath={.spec.ports[0].port}") == "80"


def test_forwarding_a_port(kubectl: Program, node: str, site: int) -> None:
    run(kubectl, node, "p")
    with Forwarded(kubectl, "p", site) as port, urlopen(f"http://127.0.0.1:{port}/hello") as answer:
        assert answer.read() == b"/hello None"


def test_debugging(kubectl: Program, node: str) -> None:
    run(kubectl, node, "p")
    kubectl("debug", "p", "--image=busybox", "--container=look", "--profile=general", "--attach=false", "--", "sh")
    assert kubectl("get", "pod", "p", "-o", "jsonpath={.spec.ephemeralContainers[*].name}") == "look"
    kubectl("debug", "p", "--image=busybox", "--copy-to=q", "--profile=general", "--attach=false", "--", "sh")
    assert kubectl("get", "pod", "q", "-o", "jsonpath={.spec.containers[*].image}").split() == ["x", "busybox"]
    kubectl("debug", f"node/{node}", "--image=busybox", "--profile=general", "--attach=false", "--", "sh")
    kubectl("delete", "pods", "--all", "--force", "--grace-period=0")


def test_signing_requests(kubectl: Program) -> None:
    name = f"c-{uuid.uuid4().hex[:6]}"
    pem = _request("bench-user")
    spec = {"request": pem, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    made = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": spec,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(made))
    assert "approved" in kubectl("certificate", "approve", name)
    assert "Approved" in kubectl("get", "csr", name)
    kubectl("delete", "csr", name)


def _request(user: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def test_a_dump_of_the_cluster(kubectl: Program) -> None:
    assert "EventList" in kubectl("cluster-info", "dump", "--namespaces", kubectl.namespace)
    assert "current-context" in kubectl("config", "view", "--minify")
