"""Validation errors, field by field, in upstream's words."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest

from tests.kube.conftest import Server

Object = dict[str, Any]

NAMESPACED = "namespaces/default"
PORTS = "must be between 1 and 65535, inclusive"


def change(obj: Object, path: str, value: Any) -> Object:
    """Return a copy with another value at a path such as `spec.containers.0.image`. `None` removes it."""
    changed = copy.deepcopy(obj)
    at: Any = changed
    *way, last = [int(word) if word.isdecimal() else word for word in path.split(".")]
    for word in way:
        if isinstance(at, dict) and word not in at:
            at[word] = {}
        at = at[word]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return changed


def refused(server: Server, path: str, obj: Object) -> list[tuple[str, str]]:
    answer = server.call("POST", f"{path}?dryRun=All", obj)
    assert answer.status == 422, answer.body
    return [(cause["field"], cause["message"]) for cause in answer.body["details"]["causes"]]


POD: Object = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
CONTAINER = "spec.containers.0"


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("spec.dnsPolicy", "No", "spec.dnsPolicy", 'Unsupported value: "No": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"'),
        ("spec.dnsPolicy", "None", "spec.dnsConfig", "Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        ("spec.activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds", "Invalid value: 0: must be between 1 and 2147483647, inclusive"),
        ("spec.hostAliases", [{"ip": "x"}], "spec.hostAliases[0].ip", 'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ("spec.volumes", [{"name": "v", "secret": {}}], "spec.volumes[0].secret.secretName", "Required value"),
        ("spec.volumes", [{"name": "v", "hostPath": {"path": "/a/../b"}}], "spec.volumes[0].hostPath.path", 'Invalid value: "/a/../b": must not contain \'..\''),
        (f"{CONTAINER}.ports", [{"containerPort": 80, "name": "much-too-long-a-name"}], "spec.containers[0].ports[0].name", 'Invalid value: "much-too-long-a-name": must be no more than 15 characters'),
        (f"{CONTAINER}.ports", [{"containerPort": 80, "name": "80"}], "spec.containers[0].ports[0].name", 'Invalid value: "80": must contain at least one letter (a-z)'),
        (f"{CONTAINER}.ports", [{"containerPort": 70000}], "spec.containers[0].ports[0].containerPort", f"Invalid value: 70000: {PORTS}"),
        (f"{CONTAINER}.env", [{"name": "A=B"}], "spec.containers[0].env[0].name", "Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='"),
        (f"{CONTAINER}.env", [{"name": "A", "valueFrom": {}}], "spec.containers[0].env[0].valueFrom", 'Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`'),
        (f"{CONTAINER}.env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}], "spec.containers[0].env[0].valueFrom.secretKeyRef.key", "Required value"),
        (f"{CONTAINER}.envFrom", [{"prefix": "A"}], "spec.containers[0].envFrom", 'Invalid value: "": must specify one of: `configMapRef` or `secretRef`'),
        (f"{CONTAINER}.volumeMounts", [{"name": "v", "mountPath": "/a"}], "spec.containers[0].volumeMounts[0].name", 'Not found: "v"'),
        (f"{CONTAINER}.resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}, "spec.containers[0].resources.requests", 'Invalid value: "2": must be less than or equal to cpu limit of 1'),
        (f"{CONTAINER}.resources", {"requests": {"gpu": "2"}}, "spec.containers[0].resources.requests[gpu]", 'Invalid value: "gpu": must be a standard resource for containers'),
        (f"{CONTAINER}.livenessProbe", {"httpGet": {"port": 0}}, "spec.containers[0].livenessProbe.httpGet.port", f"Invalid value: 0: {PORTS}"),
        (f"{CONTAINER}.livenessProbe", {"tcpSocket": {"port": 1}, "successThreshold": 2}, "spec.containers[0].livenessProbe.successThreshold", "Invalid value: 2: must be 1"),
        (f"{CONTAINER}.livenessProbe", {"exec": {}}, "spec.containers[0].livenessProbe.exec.command", "Required value"),
        (f"{CONTAINER}.securityContext", {"runAsUser": -1}, "spec.containers[0].securityContext.runAsUser", "Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        ("spec.initContainers", [{"name": "i", "image": "x", "lifecycle": {}}], "spec.initContainers[0].lifecycle", "Forbidden: may not be set for init containers without restartPolicy=Always"),
        ("spec.topologySpreadConstraints", [{"topologyKey": "a", "whenUnsatisfiable": "x"}], "spec.topologySpreadConstraints[0].whenUnsatisfiable", 'Unsupported value: "x": supported values: "DoNotSchedule", "ScheduleAnyway"'),
        ("spec.affinity", {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}, "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey", "Required value: can not be empty"),
        ("spec.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}, "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", "Required value: must have at least one node selector term"),
        ("metadata.finalizers", ["mine"], "metadata.finalizers[0]", 'Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'),
        ("metadata.ownerReferences", [{"apiVersion": "v1", "kind": "Pod", "name": "x"}], "metadata.ownerReferences.uid", 'Invalid value: "": must not be empty'),
    ],
)  # fmt: skip
def test_pods(server: Server, path: str, value: Any, field: str, message: str) -> None:
    assert (field, message) in refused(server, f"/api/v1/{NAMESPACED}/pods", change(POD, path, value))


SERVICE: Object = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("spec.ports.0.nodePort", 30001, "spec.ports[0].nodePort", "Forbidden: may not be used when `type` is 'ClusterIP'"),
        ("spec.ports.0.targetPort", "a_b", "spec.ports[0].targetPort", 'Invalid value: "a_b": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)'),
        ("spec.externalTrafficPolicy", "Local", "spec.externalTrafficPolicy", 'Invalid value: "Local": may only be set for externally-accessible services'),
        ("spec.sessionAffinity", "Yes", "spec.sessionAffinity", 'Unsupported value: "Yes": supported values: "ClientIP", "None"'),
        ("spec.loadBalancerSourceRanges", ["10.0.0.0/8"], "spec.LoadBalancerSourceRanges", "Forbidden: may only be used when `type` is 'LoadBalancer'"),
        ("spec.externalIPs", ["x"], "spec.externalIPs[0]", 'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ("spec.ports", [{"port": 1, "name": "A"}, {"port": 2}], "spec.ports[1].name", "Required value"),
    ],
)  # fmt: skip
def test_services(server: Server, path: str, value: Any, field: str, message: str) -> None:
    assert (field, message) in refused(server, f"/api/v1/{NAMESPACED}/services", change(SERVICE, path, value))


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("api/v1/nodes", {"spec": {"taints": [{"key": "a", "effect": "Sometimes"}]}}, "metadata.taints[0].effect", 'Unsupported value: "Sometimes": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"'),
        (f"api/v1/{NAMESPACED}/persistentvolumeclaims", {"spec": {}}, "spec.accessModes", "Required value: at least 1 access mode is required"),
        (f"apis/networking.k8s.io/v1/{NAMESPACED}/ingresses", {"spec": {"rules": [{"http": {"paths": [{"path": "a", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}, "spec.rules[0].http.paths[0].path", 'Invalid value: "a": must be an absolute path'),
        (f"apis/networking.k8s.io/v1/{NAMESPACED}/ingresses", {"spec": {"rules": [{"http": {"paths": [{"path": "/"}]}}]}}, "spec.rules[0].http.paths[0].pathType", "Required value: pathType must be specified"),
        (f"apis/autoscaling/v2/{NAMESPACED}/horizontalpodautoscalers", {"spec": {"minReplicas": 3, "maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}, "spec.maxReplicas", "Invalid value: 2: must be greater than or equal to `minReplicas`"),
        (f"apis/policy/v1/{NAMESPACED}/poddisruptionbudgets", {"spec": {"minAvailable": "200%"}}, "spec.minAvailable", 'Invalid value: "200%": must not be greater than 100%'),
        (f"apis/rbac.authorization.k8s.io/v1/{NAMESPACED}/roles", {"rules": [{"apiGroups": [""], "resources": ["pods"]}]}, "rules[0].verbs", "Required value: verbs must contain at least one value"),
        (f"apis/rbac.authorization.k8s.io/v1/{NAMESPACED}/rolebindings", {"roleRef": {"kind": "Pod", "name": "x"}}, "roleRef.kind", 'Unsupported value: "Pod": supported values: "ClusterRole", "Role"'),
        ("apis/scheduling.k8s.io/v1/priorityclasses", {"value": 2_000_000_000}, "value", "Forbidden: maximum allowed value of a user defined priority is 1000000000"),
        ("apis/storage.k8s.io/v1/storageclasses", {}, "provisioner", "Required value"),
        (f"apis/apps/v1/{NAMESPACED}/deployments", {"spec": {"selector": {}, "template": {"spec": POD["spec"]}}}, "spec.selector", "Invalid value: {}: empty selector is invalid for deployment"),
    ],
)  # fmt: skip
def test_other_kinds(server: Server, path: str, body: Object, field: str, message: str) -> None:
    assert (field, message) in refused(server, f"/{path}", {"metadata": {"name": "x"}, **body})


def ingress(*peers: Object, **port: Any) -> Object:
    return {"ingress": [{"from": list(peers), "ports": [port] if port else []}]}


def block(cidr: str, *holes: str) -> Object:
    return {"ipBlock": {"cidr": cidr, "except": list(holes)}}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (ingress(protocol="ICMP"), "ports[0].protocol", 'Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
        (ingress(port=0), "ports[0].port", f"Invalid value: 0: {PORTS}"),
        (ingress(port="a_b"), "ports[0].port", 'Invalid value: "a_b": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)'),
        (ingress(port=80, endPort=79), "ports[0].endPort", "Invalid value: 80: must be greater than or equal to `port`"),
        (ingress(port=80, endPort=70000), "ports[0].endPort", f"Invalid value: 70000: {PORTS}"),
        (ingress(port="web", endPort=90), "ports[0].endPort", "Invalid value: 90: may not be specified when `port` is non-numeric"),
        (ingress(endPort=90), "ports[0].endPort", "Invalid value: 90: may not be specified when `port` is not specified"),
        (ingress({}), "from[0]", "Required value: must specify a peer"),
        (ingress({**block("10.0.0.0/8"), "podSelector": {}}), "from[0]", "Forbidden: may not specify both ipBlock and another peer"),
        (ingress(block("")), "from[0].ipBlock.cidr", "Required value"),
        (ingress(block("10.0.0.0")), "from[0].ipBlock.cidr", 'Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'),
        (ingress(block("10.0.0.0/8", "10.0.0.0/8")), "from[0].ipBlock.except[0]", 'Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`'),
        (ingress(block("10.0.0.0/8", "11.0.0.0/16")), "from[0].ipBlock.except[0]", 'Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`'),
        (ingress(block("010.0.0.0/8", "011.0.0.0/16")), "from[0].ipBlock.except[0]", 'Invalid value: "011.0.0.0/16": must be a strict subset of `cidr`'),
        (ingress({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}), "from[0].podSelector.matchExpressions[0].operator", 'Invalid value: "Gt": not a valid selector operator'),
        ({"policyTypes": ["Both"]}, "spec.policyTypes[0]", 'Unsupported value: "Both": supported values: "Egress", "Ingress"'),
    ],
)  # fmt: skip
def test_network_policies(server: Server, spec: Object, field: str, message: str) -> None:
    body = {"metadata": {"name": "x"}, "spec": {"podSelector": {}, **spec}}
    where = field if field.startswith("spec") else f"spec.ingress[0].{field}"
    assert (where, message) in refused(server, f"/apis/networking.k8s.io/v1/{NAMESPACED}/networkpolicies", body)


def test_times_are_times(server: Server) -> None:
    body = {"metadata": {"name": "l"}, "spec": {"renewTime": "yesterday"}}
    answer = server.call("POST", f"/apis/coordination.k8s.io/v1/{NAMESPACED}/leases", body)
    assert answer.status == 400
    assert 'parsing time "yesterday"' in answer.body["message"]


def test_only_finalize_changes_the_finalizers_of_a_namespace(server: Server) -> None:
    path = server.namespace(f"f{uuid.uuid4().hex[:8]}")
    name = path.rpartition("/")[2]
    wanted = {"metadata": {"name": name}, "spec": {"finalizers": ["example.com/a"]}}
    assert server.call("PUT", path, wanted).body["spec"] == {"finalizers": ["kubernetes"]}
    made = server.call("PUT", f"{path}/finalize", wanted)
    assert (made.status, made.body["spec"]) == (200, wanted["spec"])
    assert server.call("GET", path).body["spec"] == wanted["spec"]
    assert server.call("PUT", f"{path}/finalize", {**wanted, "spec": {}}).body["spec"] == {}
    before = server.call("GET", path).body["metadata"]["resourceVersion"]
    after = server.call("PUT", path, wanted).body
    assert (after["spec"], after["metadata"]["resourceVersion"]) == ({}, before)
    for spec, status in (([1], 400), ({"finalizers": [1]}, 400), ({"finalizers": ["-"]}, 422)):
        assert server.call("PUT", f"{path}/finalize", {**wanted, "spec": spec}).status == status


def test_terminating_objects_get_no_new_finalizers(server: Server) -> None:
    path = f"/api/v1/{NAMESPACED}/configmaps"
    server.make(path, {"metadata": {"name": "going", "finalizers": ["example.com/a"]}})
    server.call("DELETE", f"{path}/going")
    patch = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
    answer = server.call("PATCH", f"{path}/going", patch, content_type="application/merge-patch+json")
    assert answer.status == 422
    assert 'found new finalizers []string{"example.com/b"}' in answer.body["message"]
    done = {"metadata": {"finalizers": None}}
    assert server.call("PATCH", f"{path}/going", done, content_type="application/merge-patch+json").status == 200
    assert server.call("GET", f"{path}/going").status == 404
