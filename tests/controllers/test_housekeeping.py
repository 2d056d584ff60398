"""Budgets, quotas, nodes, lost pods, claims, certificates, end points."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cloud import Cloud
from tests.controllers.conftest import new_space
from tests.controllers.node import StandInNode
from tests.controllers.space import Object, Space, condition, workload
from tests.kube.conftest import Server

BUDGETS = "poddisruptionbudgets"
REQUESTS = "certificatesigningrequests"


@pytest.fixture(scope="module", autouse=True)
def silent(
    server: Server, node: StandInNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Space, StandInNode]]:
    """A node that is not heard of from the beginning of the module on, with two pods. Others run meanwhile."""
    space = new_space(server, tmp_path_factory.mktemp("silent"))
    taint = {"key": "silent", "effect": "NoSchedule"}
    made = StandInNode(server, "silent", labels={"only": space.name}, taints=[taint])
    tolerations: list[Object] = [{"key": "silent", "operator": "Exists"}]
    unreachable: Object = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    for name, more in (("stays", {}), ("goes", {"tolerationSeconds": 0})):
        spec = {"containers": [{"name": "c", "image": "x"}], "nodeSelector": {"only": space.name}}
        spec |= {"tolerations": [*tolerations, unreachable | more]}
        space.make("pods", {"metadata": {"name": name}, "spec": spec})
    for name in ("stays", "goes"):
        space.wait("pods", name, lambda pod: condition(pod, "Ready").get("status") == "True")
    made.fall_silent()
    yield space, made
    made.close()


def _budget(**spec: object) -> Object:
    return {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec}}


def test_a_budget_of_a_number(space: Space) -> None:
    space.make("deployments", workload("web", replicas=3))
    space.make(BUDGETS, _budget(minAvailable=2))
    space.wait_status(BUDGETS, "web", currentHealthy=3, desiredHealthy=2, expectedPods=3, disruptionsAllowed=1)
    space.patch("deployments", "web", {"spec": {"replicas": 2}})
    tight = space.wait_status(BUDGETS, "web", currentHealthy=2, disruptionsAllowed=0)
    assert condition(tight, "DisruptionAllowed")["reason"] == "InsufficientPods"
    name = space.living()[0]["metadata"]["name"]
    eviction: Object = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    answer = space.server.call("POST", space.path("pods", name, "eviction"), eviction)
    assert answer.status == 429


def test_a_budget_of_a_share(space: Space) -> None:
    space.make("deployments", workload("web", replicas=4))
    space.make(BUDGETS, _budget(maxUnavailable="30%"))
    space.wait_status(BUDGETS, "web", currentHealthy=4, desiredHealthy=2, expectedPods=4, disruptionsAllowed=2)
    spec = {"containers": [{"name": "c", "image": "x"}], "nodeSelector": {"nowhere": "1"}}
    labels = {"app": "web"}
    # A pod on its own is not counted in the share, and that is told.
    space.make("pods", {"metadata": {"name": "bare", "labels": labels}, "spec": spec})
    assert space.wait_event("web", "UnmanagedPods").startswith(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: web,},"
        "MatchExpressions:[]LabelSelectorRequirement{},}) were found to be unmanaged."
    )
    space.wait_status(BUDGETS, "web", currentHealthy=4, desiredHealthy=2, expectedPods=4, disruptionsAllowed=2)
    owner = {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "1", "controller": True}
    space.make("pods", {"metadata": {"name": "odd", "labels": labels, "ownerReferences": [owner]}, "spec": spec})
    assert space.wait_event("web", "CalculateExpectedPodCountFailed") == (
        'Failed to calculate the number of expected pods: no matches for kind "Other" in version "v1"'
    )
    space.wait_status(BUDGETS, "web", disruptionsAllowed=0)


def test_a_quota_tells_what_is_used(space: Space) -> None:
    hard = {"pods": "5", "requests.cpu": "1", "limits.memory": "1Gi", "count/secrets": "3", "services.nodeports": "2"}
    space.make("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    first = space.wait("resourcequotas", "q", lambda obj: obj["status"].get("used"))
    assert first["status"]["used"]["pods"] == "0"
    container = {
        "name": "c",
        "image": "x",
        "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "1", "memory": "64Mi"}},
    }
    held = {"name": "p", "annotations": {"life": "waits"}}
    space.make("pods", {"metadata": held, "spec": {"containers": [container]}})
    used = {
        "pods": "1",
        "requests.cpu": "250m",
        "limits.memory": "64Mi",
        "count/secrets": "0",
        "services.nodeports": "0",
    }
    space.wait("resourcequotas", "q", lambda obj: obj["status"]["used"] == used)
    space.status("pods", "p", phase="Succeeded")
    space.wait("resourcequotas", "q", lambda obj: obj["status"]["used"]["pods"] == "0")


@pytest.fixture
def other(space: Space, server: Server) -> Iterator[StandInNode]:
    """A node for the pods of this test only."""
    made = StandInNode(server, f"other-{space.name}", labels={"only": space.name})
    yield made
    made.close()


def test_taints_by_hand_and_by_condition(space: Space, other: StandInNode) -> None:
    tolerated = {"key": "gone", "operator": "Exists", "effect": "NoExecute"}
    spec = {"containers": [{"name": "c", "image": "x"}], "nodeSelector": {"only": space.name}}
    space.make(
        "pods",
        {"metadata": {"name": "stays"}, "spec": spec | {"tolerations": [tolerated]}},
        {"metadata": {"name": "later"}, "spec": spec | {"tolerations": [tolerated | {"tolerationSeconds": 1}]}},
        {"metadata": {"name": "goes"}, "spec": spec},
    )
    for name in ("stays", "later", "goes"):
        space.wait("pods", name, lambda pod: condition(pod, "Ready").get("status") == "True")
    space.kubectl("taint", "node", other.name, "gone=yes:NoExecute")
    for name in ("goes", "later"):
        space.wait_gone("pods", name)
    assert space.wait_event("goes", "TaintManagerEviction") == f"Marking for deletion Pod {space.name}/goes"
    assert "deletionTimestamp" not in space.get("pods", "stays")["metadata"]
    space.kubectl("cordon", other.name)
    space.status("nodes", other.name, conditions=[{"type": "DiskPressure", "status": "True"}])
    wanted = {"gone", "node.kubernetes.io/unschedulable", "node.kubernetes.io/disk-pressure"}
    space.wait("nodes", other.name, lambda node: {taint["key"] for taint in node["spec"]["taints"]} == wanted)
    space.kubectl("uncordon", other.name)
    space.wait("nodes", other.name, lambda node: len(node["spec"]["taints"]) == 2)
    other.close()


def test_a_claim_in_use_stays(space: Space, other: StandInNode) -> None:
    storage = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": storage, "storageClassName": ""}
    for name, place in (("waits", {}), ("runs", {"nodeName": other.name})):
        space.make("persistentvolumeclaims", {"metadata": {"name": name}, "spec": spec})
        space.wait("persistentvolumeclaims", name, lambda obj: obj["metadata"].get("finalizers"))
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]
        containers = [{"name": "c", "image": "x"}]
        pod = {"metadata": {"name": name}, "spec": {"containers": containers, "volumes": volumes, **place}}
        space.make("pods", pod)
    space.wait_event("waits", "FailedScheduling")
    space.wait("pods", "runs", lambda pod: condition(pod, "Ready").get("status") == "True")
    for name in ("waits", "runs"):
        space.delete("persistentvolumeclaims", name)
    space.wait_gone("persistentvolumeclaims", "waits")
    assert space.wait("persistentvolumeclaims", "runs")["metadata"]["deletionTimestamp"]
    space.delete("pods", "runs")
    space.wait_gone("persistentvolumeclaims", "runs")


def _request(name: str, signer: str, subject: str, group: str, usage: str) -> Object:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, subject)]
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    pem = csr.public_bytes(serialization.Encoding.PEM)
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": f"kubernetes.io/{signer}",
        "usages": ["digital signature", usage],
        "expirationSeconds": 3600,
    }
    return {"metadata": {"name": name}, "spec": spec}


def test_certificates(space: Space, cluster: Cloud) -> None:
    name = f"dev-{space.name}"
    space.make(REQUESTS, _request(name, "kube-apiserver-client", "jane", "developers", "client auth"))
    space.kubectl("certificate", "approve", name)
    issued = space.wait(REQUESTS, name, lambda obj: obj["status"].get("certificate"))
    certificate = x509.load_pem_x509_certificate(base64.b64decode(issued["status"]["certificate"]))
    authority = x509.load_pem_x509_certificate(cluster.config.authority_file("cluster").read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "jane"
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 3600 <= lasts.total_seconds() <= 4200
    node = f"node-{space.name}"
    asked = _request(node, "kube-apiserver-client-kubelet", "system:node:n1", "system:nodes", "client auth")
    space.make(REQUESTS, asked)
    approved = space.wait(REQUESTS, node, lambda obj: obj["status"].get("certificate"))
    assert condition(approved, "Approved")["reason"] == "AutoApproved"
    wrong = f"wrong-{space.name}"
    space.make(REQUESTS, _request(wrong, "kubelet-serving", "jane", "developers", "server auth"))
    space.kubectl("certificate", "approve", wrong)
    failed = space.wait(REQUESTS, wrong, lambda obj: condition(obj, "Failed"))
    assert condition(failed, "Failed")["reason"] == "SignerValidationFailure"
    for request in (name, node, wrong):
        space.delete(REQUESTS, request)


def test_end_points(space: Space) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}
    space.make("services", service)
    made = workload("web", replicas=2)
    made["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    space.make("deployments", made)
    found = space.wait_any("endpointslices", lambda item: len(_ready(item)) == 2)
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    old = space.wait("endpoints", "web", lambda obj: len(obj.get("subsets", [{}])[0].get("addresses", ())) == 2)
    assert old["subsets"][0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    pod = space.names("pods")[0]
    unready = [{"type": "Ready", "status": "False"}]
    space.patch("pods", pod, {"metadata": {"annotations": {"life": "waits"}}})
    space.status("pods", pod, conditions=unready)
    space.wait_any("endpointslices", lambda item: len(item["endpoints"]) == 2 and len(_ready(item)) == 1)
    space.wait("endpoints", "web", lambda obj: len(obj["subsets"][0].get("notReadyAddresses", ())) == 1)
    space.delete("services", "web")
    space.wait_gone("endpoints", "web")
    space.wait_gone("endpointslices", found["metadata"]["name"])


def _ready(item: Object) -> list[Object]:
    return [endpoint for endpoint in item.get("endpoints") or () if endpoint["conditions"]["ready"]]


def test_a_node_that_is_not_heard_of(silent: tuple[Space, StandInNode]) -> None:
    space, node = silent
    unknown = space.wait("nodes", node.name, lambda node: condition(node, "Ready")["status"] == "Unknown")
    assert condition(unknown, "Ready")["message"] == "Kubelet stopped posting node status."
    assert condition(unknown, "PIDPressure")["message"] == "Kubelet never posted node status."
    tainted = space.wait("nodes", node.name, lambda node: len(node["spec"]["taints"]) == 3)
    added = [taint["effect"] for taint in tainted["spec"]["taints"] if taint["key"] != "silent"]
    assert sorted(added) == ["NoExecute", "NoSchedule"]
    space.wait("pods", "stays", lambda pod: condition(pod, "Ready")["status"] == "False")
    space.wait_gone("pods", "goes")
    assert space.wait("pods", "stays")["status"]["phase"] == "Running"
    node.speak_up()
    space.wait("nodes", node.name, lambda node: len(node["spec"]["taints"]) == 1)
    # Its pods go with it when it is gone for good.
    node.close()
    space.wait_gone("pods", "stays")


def test_killed_at_any_point(space: Space, cluster: Cloud) -> None:
    space.make("deployments", *(workload(f"web-{number}", replicas=4) for number in range(5)))
    space.wait_any("pods")
    cluster.kill("controllers")
    for number in range(5):
        space.wait_status("deployments", f"web-{number}", availableReplicas=4, replicas=4)
    assert len(space.living()) == 20


def test_of_two_one_leads(space: Space, cluster: Cloud) -> None:
    lease = "kube-controller-manager"
    with cluster.another("controllers"):
        leader = space.wait("leases", lease, namespace="kube-system")["spec"]["holderIdentity"]
        cluster.stop("controllers", signal.SIGKILL)
        try:
            space.make("deployments", workload("web", replicas=2))
            path = space.path("leases", lease, namespace="kube-system")
            short = {"spec": {"leaseDurationSeconds": 1}}
            space.server.call("PATCH", path, short, content_type="application/merge-patch+json")
            space.wait_status("deployments", "web", availableReplicas=2)
            taken = space.wait("leases", lease, namespace="kube-system")["spec"]
            assert taken["holderIdentity"] != leader
            assert taken["holderIdentity"].startswith(os.uname().nodename)
        finally:
            cluster.start("controllers")
    space.patch("deployments", "web", {"spec": {"replicas": 3}})
    space.wait_status("deployments", "web", availableReplicas=3)
    assert len(space.living()) == 3


def test_end_points_by_their_own_ports(space: Space) -> None:
    ports = [{"name": "named", "port": 80, "targetPort": "web"}, {"name": "number", "port": 81, "targetPort": 8081}]
    headless = {"selector": {"app": "own"}, "clusterIP": "None", "publishNotReadyAddresses": True}
    space.make(
        "services",
        {"metadata": {"name": "own", "labels": {"a": "b"}}, "spec": {"selector": {"app": "own"}, "ports": ports}},
        {"metadata": {"name": "headless"}, "spec": headless},
    )
    for number, has in enumerate(([{"name": "web", "containerPort": 8080}], [])):
        name = f"p{number}"
        spec: Object = {"containers": [{"name": "c", "image": "x", "ports": has}], "nodeName": "node-1"}
        spec |= {"hostname": name, "subdomain": "headless"}
        metadata = {"name": name, "labels": {"app": "own"}, "annotations": {"life": "waits"}}
        space.make("pods", {"metadata": metadata, "spec": spec})
        ready = {"type": "Ready", "status": str(number == 0), "lastTransitionTime": "2026-01-01T00:00:00Z"}
        space.status("pods", name, phase="Running", podIP=f"10.7.0.{number + 1}", conditions=[ready])
    waiting = "notReadyAddresses"
    whole = space.wait("endpoints", "own", lambda obj: any(waiting in item for item in obj.get("subsets") or ()))
    found = [
        ([port["port"] for port in item["ports"]], len(item.get("addresses") or ())) for item in whole["subsets"]
    ]
    assert sorted(found) == [([8080], 1), ([8081], 1)]
    assert [address["ip"] for item in whole["subsets"] for address in item.get(waiting) or ()] == ["10.7.0.2"]
    assert whole["metadata"]["labels"] == {"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    assert "endpoints.kubernetes.io/last-change-trigger-time" in whole["metadata"]["annotations"]
    assert "ownerReferences" not in whole["metadata"]
    everyone = space.wait(
        "endpoints", "headless", lambda obj: len((obj.get("subsets") or [{}])[0].get("addresses") or ()) == 2
    )
    assert [address["hostname"] for address in everyone["subsets"][0]["addresses"]] == ["p0", "p1"]
    assert everyone["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    slices = [item for item in space.all("endpointslices") if item["metadata"]["generateName"] == "own-"]
    assert sorted([port["name"] for port in item["ports"]] for item in slices) == [["named", "number"], ["number"]]
    space.delete("services", "own")
    space.wait_gone("endpoints", "own")


def _six_in_two_slices(space: Space) -> None:
    service = {"metadata": {"name": "many"}, "spec": {"selector": {"app": "many"}, "ports": [{"port": 80}]}}
    spec = {"containers": [{"name": "c", "image": "x"}], "nodeName": "node-1"}
    for number in range(6):
        name = f"p{number:03}"
        metadata = {"name": name, "labels": {"app": "many"}, "annotations": {"life": "waits"}}
        space.make("pods", {"metadata": metadata, "spec": spec})
        space.status("pods", name, phase="Running", podIP=f"10.8.0.{number + 1}")
    space.make("services", service)
    space.wait_any("endpointslices", lambda item: len(item.get("endpoints") or ()) == 2)
    assert sorted(len(item["endpoints"]) for item in space.all("endpointslices")) == [2, 4]


def test_many_end_points_are_cut_in_slices(space: Space) -> None:
    _six_in_two_slices(space)


def test_short_slices_are_joined(space: Space) -> None:
    """Upstream leaves them as they are; joined they are fewer to read."""
    _six_in_two_slices(space)
    for number in range(2):
        space.delete("pods", f"p{number:03}", gracePeriodSeconds=0)
    space.wait("endpoints", "many", lambda obj: len(obj["subsets"][0]["notReadyAddresses"]) == 4)
    left = space.all("endpointslices")
    while len(left) > 1:
        space.wait_gone("endpointslices", left[-1]["metadata"]["name"])
        left = space.all("endpointslices")
    assert len(left[0]["endpoints"]) == 4


def test_roles_that_aggregate_others(space: Space) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    rule = {"apiGroups": ["example.com"], "resources": [space.name], "verbs": ["get"]}
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    space.server.make(rbac, {"metadata": {"name": space.name, "labels": labels}, "rules": [rule]})
    for name in ("view", "edit", "admin"):  # each aggregates the one before
        space.wait("clusterroles", name, lambda role: rule in role["rules"])
    space.delete("clusterroles", space.name)
    for name in ("view", "edit", "admin"):
        space.wait("clusterroles", name, lambda role: rule not in role["rules"])


@pytest.mark.parametrize(
    ("what", "plural", "obj"),
    [
        ("secrets", "secrets", {"stringData": {"a": "b"}}),
        ("count/leases.coordination.k8s.io", "leases", {"spec": {"holderIdentity": "a"}}),
        ("count/serviceaccounts", "serviceaccounts", {}),
    ],
)
def test_what_is_deleted_is_soon_not_used(space: Space, what: str, plural: str, obj: Object) -> None:
    space.make("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {what: "20"}}})
    before = space.wait("resourcequotas", "q", lambda item: item["status"].get("used"))["status"]["used"][what]
    space.make(plural, {"metadata": {"name": "counted"}, **obj})
    more = {what: str(int(before) + 1)}
    space.wait("resourcequotas", "q", lambda item: item["status"]["used"] == more)
    space.delete(plural, "counted")
    space.wait("resourcequotas", "q", lambda item: item["status"]["used"] == {what: before})


def _service(name: str, **spec: object) -> Object:
    return {"metadata": {"name": name}, "spec": {"ports": [{"name": "web", "port": 80}], **spec}}


def _endpoints(name: str, *addresses: str, **metadata: object) -> Object:
    subset = {
        "addresses": [{"ip": address} for address in addresses],
        "notReadyAddresses": [{"ip": "10.9.9.9", "hostname": "late"}],
        "ports": [{"name": "web", "port": 8080}],
    }
    return {"metadata": {"name": name, **metadata}, "subsets": [subset]}


def test_end_points_written_by_hand_become_slices(space: Space) -> None:
    space.make("services", _service("outside"))
    space.make("endpoints", _endpoints("outside", "10.9.0.1", "10.9.0.2", "2001:db8::1"))

    def of(family: str, count: int) -> Object:
        return space.wait_any(
            "endpointslices", lambda item: item["addressType"] == family and len(item.get("endpoints") or ()) == count
        )

    made = of("IPv4", 3)
    assert made["metadata"]["labels"] == {
        "kubernetes.io/service-name": "outside",
        "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
    }
    assert made["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    assert made["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]
    assert [(item["addresses"], item["conditions"]["ready"]) for item in made["endpoints"]] == [
        (["10.9.0.1"], True),
        (["10.9.0.2"], True),
        (["10.9.9.9"], False),
    ]
    assert of("IPv6", 1)["endpoints"][0]["addresses"] == ["2001:db8::1"]
    fewer = _endpoints("outside", "10.9.0.3")["subsets"]
    space.patch("endpoints", "outside", {"subsets": fewer}, kind="merge")
    assert of("IPv4", 2)["endpoints"][0]["addresses"] == ["10.9.0.3"]
    space.wait_gone("endpointslices", made["metadata"]["name"])
    space.delete("endpoints", "outside")
    for item in space.all("endpointslices"):
        space.wait_gone("endpointslices", item["metadata"]["name"])


def test_end_points_that_are_not_mirrored(space: Space) -> None:
    space.make("services", _service("chosen", selector={"app": "none"}), _service("skipped"), _service("last"))
    skip = {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}
    space.make("endpoints", _endpoints("skipped", "10.9.0.1", **skip), _endpoints("alone", "10.9.0.1"))
    space.make("endpoints", _endpoints("last", "10.9.0.4"))
    space.wait_any("endpointslices", lambda item: item["metadata"]["labels"]["kubernetes.io/service-name"] == "last")
    mirrored = [
        item["metadata"]["labels"]["kubernetes.io/service-name"]
        for item in space.all("endpointslices")
        if item["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].startswith("endpointslicemirroring")
    ]
    assert mirrored == ["last"]
