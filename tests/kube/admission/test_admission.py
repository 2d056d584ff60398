"""Plug-ins that complete or refuse objects on their way to the store."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from tests.kube.conftest import Server


@pytest.fixture
def path(server: Server) -> str:
    """The path of a new namespace."""
    return server.namespace(f"n{uuid.uuid4().hex[:10]}")


def pod(name: str, **container: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x", **container}]}}


def sized(name: str, **amounts: dict[str, str]) -> dict[str, Any]:
    return pod(name, resources=amounts)


def claim(name: str, size: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"metadata": {"name": name}, "spec": spec}


MERGE, STRATEGIC = (f"application/{kind}-patch+json" for kind in ("merge", "strategic-merge"))


def refusal(server: Server, path: str, body: Any) -> str:
    answer = server.call("POST", path, body)
    assert answer.status == 403, answer.body
    message: str = answer.body["message"]
    return message


def test_quantities_are_canonical(server: Server, path: str) -> None:
    quantities = {"cpu": 0.5, "memory": "2048Mi", "ephemeral-storage": "1000k"}
    made = server.make(f"{path}/pods", pod("p", resources={"requests": quantities}))
    requests = made["spec"]["containers"][0]["resources"]["requests"]
    assert requests == {"cpu": "500m", "memory": "2Gi", "ephemeral-storage": "1M"}
    much = server.make(f"{path}/pods", sized("much", requests={"memory": "8Ei", "ephemeral-storage": "10E"}))
    requests = much["spec"]["containers"][0]["resources"]["requests"]
    assert requests == {
        "memory": "9223372036854775807",
        "ephemeral-storage": "10E",
    }  # the former is bounded to 64 bits
    sign = server.make(f"{path}/pods", sized("sign", requests={"cpu": "-"}))
    assert sign["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "0"}  # as in upstream's parser
    for bad in ("a", "1e99999999", "9" * 100, "", "1 Gi", "-x"):
        assert server.call("POST", f"{path}/pods", sized("bad", requests={"cpu": bad})).status == 400


def test_limit_ranges_fill_in_and_bound(server: Server, path: str) -> None:
    limits = [
        {
            "type": "Container",
            "default": {"cpu": "500m"},
            "defaultRequest": {"cpu": "100m"},
            "max": {"cpu": "1"},
            "min": {"cpu": "50m"},
        },
        {"type": "Pod", "max": {"cpu": "1500m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]
    server.make(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}})
    made = server.make(f"{path}/pods", pod("p"))
    assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    told = made["metadata"]["annotations"]["kubernetes.io/limit-ranger"]
    assert told == "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    message = refusal(server, f"{path}/pods", sized("big", limits={"cpu": "2"}))
    assert "maximum cpu usage per Container is 1, but limit is 2" in message
    assert "maximum cpu usage per Pod is 1500m, but limit is 2" in message
    message = refusal(server, f"{path}/pods", sized("small", requests={"cpu": "10m"}))
    assert message == 'pods "small" is forbidden: minimum cpu usage per Container is 50m, but request is 10m'
    message = refusal(server, f"{path}/persistentvolumeclaims", claim("v", "2Gi"))
    assert "maximum storage usage per PersistentVolumeClaim is 1Gi, but" in message


def test_limit_ranges_want_what_they_bound(server: Server, path: str) -> None:
    limits = [
        {"type": "Container", "max": {"memory": "64Mi"}, "maxLimitRequestRatio": {"cpu": "2"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}},
    ]
    server.make(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}})
    message = refusal(server, f"{path}/pods", pod("p"))
    # The maximum is also the default where there is none.
    assert message == (
        'pods "p" is forbidden: cpu max limit to request ratio per Container is 2, but no request is specified or '
        "request is 0"
    )
    few = sized("p", requests={"cpu": "100m"}, limits={"cpu": "250m", "memory": "32Mi"})
    message = refusal(server, f"{path}/pods", few)
    assert message.endswith("ratio per Container is 2, but provided ratio is 2.500000")
    few["spec"]["containers"][0]["resources"]["limits"] = {"cpu": "200m", "memory": "128Mi"}
    assert refusal(server, f"{path}/pods", few).endswith("usage per Container is 64Mi, but limit is 128Mi")
    few["spec"]["containers"][0]["resources"]["limits"]["memory"] = "64Mi"
    server.make(f"{path}/pods", few)
    patch = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "65Mi"}}}]}}
    resized = server.call("PATCH", f"{path}/pods/p/resize", patch, content_type=STRATEGIC)
    assert resized.status == 403
    assert resized.body["message"].endswith("maximum memory usage per Container is 64Mi, but limit is 65Mi")
    message = refusal(server, f"{path}/persistentvolumeclaims", claim("v", "1Mi"))
    assert message.endswith("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")


def test_quotas_are_charged_for_what_grows(server: Server, path: str) -> None:
    hard = {
        "requests.storage": "3Gi",
        "services.nodeports": "1",
        "services.loadbalancers": "0",
        "limits.memory": "1Gi",
    }
    server.make(f"{path}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    server.make(f"{path}/persistentvolumeclaims", claim("v", "1Gi"))
    server.make(f"{path}/persistentvolumeclaims", claim("w", "1Gi"))
    for size, status in (("2Gi", 200), ("3Gi", 403), ("2Gi", 200)):
        patch: dict[str, Any] = {"spec": {"resources": {"requests": {"storage": size}}}}
        bind = {"status": {"phase": "Bound"}}
        server.call("PATCH", f"{path}/persistentvolumeclaims/v/status", bind, content_type=MERGE)
        answer = server.call("PATCH", f"{path}/persistentvolumeclaims/v", patch, content_type=MERGE)
        assert answer.status == status, answer.body
    server.make(f"{path}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"type": "LoadBalancer"}, "services.loadbalancers=1"),
        (
            {"type": "NodePort", "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]},
            "services.nodeports=2",
        ),
    )
    for change, amount in changes:
        answer = server.call("PATCH", f"{path}/services/s", {"spec": change}, content_type=MERGE)
        assert answer.status == 403
        assert f"exceeded quota: q, requested: {amount}, used: {amount[:-1]}0, limited: " in answer.body["message"]
    server.make(f"{path}/pods", sized("p", limits={"memory": "512Mi"}))
    for size, status in (("2Gi", 403), ("1Gi", 200)):
        patch = {"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": size}}}]}}
        answer = server.call("PATCH", f"{path}/pods/p/resize", patch, content_type=STRATEGIC)
        assert answer.status == status, answer.body
        if status == 403:
            assert (
                "requested: limits.memory=1536Mi, used: limits.memory=512Mi, limited: limits.memory=1Gi"
                in (answer.body["message"])
            )
    # An update that uses no more is not checked, even if the quota is full.
    answer = server.call("PATCH", f"{path}/pods/p", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE)
    assert answer.status == 200


def test_quotas_count_what_is_there(server: Server, path: str) -> None:
    hard = {"pods": "2", "requests.cpu": "1", "count/configmaps": "1", "services.loadbalancers": "0"}
    server.make(f"{path}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    message = refusal(server, f"{path}/pods", pod("p"))
    assert message == 'pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c'
    server.make(f"{path}/pods", sized("a", requests={"cpu": "600m"}))
    message = refusal(server, f"{path}/pods", sized("b", requests={"cpu": "500m"}))
    assert message.endswith(
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    )
    server.make(f"{path}/pods", sized("b", requests={"cpu": "100m"}))
    assert "requested: pods=1, used: pods=2, limited: pods=2" in refusal(
        server, f"{path}/pods", sized("c", requests={"cpu": "1m"})
    )
    server.make(f"{path}/configmaps", {"metadata": {"name": "one"}})
    assert "count/configmaps=1" in refusal(server, f"{path}/configmaps", {"metadata": {"name": "two"}})
    service = {"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
    assert "services.loadbalancers=1" in refusal(server, f"{path}/services", service)
    # Deleted and finished objects do not count.
    server.call("DELETE", f"{path}/pods/a")
    server.make(f"{path}/pods", sized("c", requests={"cpu": "1m"}))


def test_a_quota_shows_at_once_what_is_used(server: Server, path: str) -> None:
    hard = {"pods": "5", "requests.memory": "1Gi", "secrets": "2"}
    server.make(f"{path}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    started = {"status": {"hard": hard, "used": {"pods": "0", "requests.memory": "0", "secrets": "0"}}}
    quota = f"{path}/resourcequotas/q"
    assert server.call("PATCH", f"{quota}/status", started, content_type=MERGE).status == 200
    for name in ("a", "b"):
        server.make(f"{path}/pods", sized(name, requests={"memory": "256Mi"}))
    used = server.call("GET", quota).body["status"]["used"]
    assert used == {"pods": "2", "requests.memory": "512Mi", "secrets": "0"}


def test_a_quota_holds_against_many_at_once(server: Server, path: str) -> None:
    server.make(f"{path}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}})
    found: list[int] = []

    def create(number: int) -> None:
        found.append(server.call("POST", f"{path}/pods", pod(f"p{number}")).status)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [201] * 5 + [403] * 15


def test_quota_scopes(server: Server, path: str) -> None:
    spec = {"hard": {"pods": "0"}, "scopes": ["NotBestEffort"]}
    server.make(f"{path}/resourcequotas", {"metadata": {"name": "q"}, "spec": spec})
    server.make(f"{path}/pods", pod("free"))
    assert "exceeded quota" in refusal(server, f"{path}/pods", sized("p", requests={"cpu": "1m"}))


def test_pod_security(server: Server, path: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}
    patch = {"metadata": {"labels": labels}}
    server.call("PATCH", path, patch, content_type="application/merge-patch+json")
    message = refusal(server, f"{path}/pods", pod("p", securityContext={"privileged": True}))
    assert message == (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set '
        "securityContext.privileged=true)"
    )
    answer = server.call("POST", f"{path}/pods", pod("p"))
    assert answer.status == 201
    assert answer.headers["Warning"].startswith(
        '299 - "would violate PodSecurity \\"restricted:latest\\": allowPrivilege'
    )
    labels["pod-security.kubernetes.io/enforce"] = "restricted"
    server.call("PATCH", path, patch, content_type="application/merge-patch+json")
    assert "runAsNonRoot != true" in refusal(server, f"{path}/pods", pod("q"))
    good = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert "Warning" not in server.call("POST", f"{path}/pods", pod("q", securityContext=good)).headers
    debugger = {"name": "d", "image": "shell", "securityContext": {"privileged": True}}
    debugged = {"spec": {"ephemeralContainers": [debugger]}}
    answer = server.call("PATCH", f"{path}/pods/q/ephemeralcontainers", debugged, content_type=STRATEGIC)
    assert answer.status == 403
    assert 'container "d" must not set securityContext.privileged=true' in answer.body["message"]


def test_priority(server: Server, path: str) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    server.make(classes, {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"})
    made = pod("p")
    made["spec"]["priorityClassName"] = "high"
    spec = server.make(f"{path}/pods", made)["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    made["metadata"]["name"] = "q"
    made["spec"]["priorityClassName"] = "unheard"
    assert "no PriorityClass with name unheard was found" in refusal(server, f"{path}/pods", made)
    made["spec"] |= {"priorityClassName": "system-node-critical", "priority": 1}
    assert "priority admission controller computed 2000001000" in refusal(server, f"{path}/pods", made)
    made["spec"] = {**pod("q")["spec"], "priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}
    message = refusal(server, f"{path}/pods", made)
    assert message.endswith("priority admission controller computed Never from the given PriorityClass name")
    # A client that does not know these fields omits them.
    whole = server.call("GET", f"{path}/pods/p").body
    for key in ("priority", "preemptionPolicy"):
        del whole["spec"][key]
    assert server.call("PUT", f"{path}/pods/p", whole).body["spec"]["priority"] == 1000


def test_one_priority_class_is_the_default(server: Server, path: str) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    server.make(classes, {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True})
    try:
        spec = server.make(f"{path}/pods", pod("p"))["spec"]
        assert (spec["priority"], spec["priorityClassName"]) == (5, "usual")
        second = {"metadata": {"name": "second"}, "value": 6, "globalDefault": True}
        assert refusal(server, classes, second) == (
            'priorityclasses.scheduling.k8s.io "second" is forbidden: PriorityClass usual is already marked as default. '
            "Only one default can exist"
        )
        for change, message in (
            ({"value": 6}, "value: Forbidden: may not be changed in an update."),
            ({"preemptionPolicy": "Never"}, 'preemptionPolicy: Invalid value: "Never": field is immutable'),
        ):
            answer = server.call("PATCH", f"{classes}/usual", change, content_type=MERGE)
            assert (answer.status, answer.body["message"].partition("invalid: ")[2]) == (422, message)
    finally:
        server.call("DELETE", f"{classes}/usual")


def test_an_account_must_be_there(server: Server, path: str) -> None:
    made = pod("p")
    made["spec"]["serviceAccountName"] = "nobody"
    assert 'serviceaccount "nobody" not found' in refusal(server, f"{path}/pods", made)
    server.make(f"{path}/serviceaccounts", {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False})
    made["spec"]["serviceAccountName"] = "quiet"
    assert "volumes" not in server.make(f"{path}/pods", made)["spec"]


def test_a_namespace_that_ends_takes_nothing(server: Server, path: str) -> None:
    server.call("DELETE", path)
    message = refusal(server, f"{path}/configmaps", {"metadata": {"name": "c"}})
    assert "because it is being terminated" in message


def test_names_are_made_after_what_is_added(server: Server, path: str) -> None:
    """Errors before an object has its name show the `generateName`; labels have the whole name."""
    unnamed = {**pod(""), "metadata": {"generateName": "p-"}}
    unnamed["spec"] |= {"serviceAccountName": "none"}
    assert refusal(server, f"{path}/pods", unnamed).startswith('pods "p-" is forbidden: error looking up service')
    answer = server.call("POST", f"{path}/pods", {**unnamed, "metadata": {}})
    assert answer.body["message"].startswith('pods "Unknown" is forbidden: error looking up service account')
    made = server.make("/api/v1/namespaces", {"metadata": {"generateName": "n-"}})["metadata"]
    assert made["labels"] == {"kubernetes.io/metadata.name": made["name"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}
    jobs = f"{path.replace('/api/v1', '/apis/batch/v1')}/jobs"
    job = server.make(jobs, {"metadata": {"generateName": "j-"}, "spec": {"template": template}})
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == job["metadata"]["name"]


def test_runtime_classes(server: Server, path: str) -> None:
    """With the messages and the effect of Kubernetes 1.36.2."""
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    here, tolerated = {"runtime": "there"}, {"key": "runtime", "operator": "Exists"}
    costly, plain = (f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("costly", "plain"))
    server.make(classes, {"metadata": {"name": plain}, "handler": "h"})
    scheduling = {"nodeSelector": here, "tolerations": [tolerated]}
    overhead = {"overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": scheduling}
    server.make(classes, {"metadata": {"name": costly}, "handler": "h", **overhead})

    def named(name: str, **spec: Any) -> dict[str, Any]:
        found = pod(name)
        found["spec"] |= spec
        return found

    spec = server.make(f"{path}/pods", named("r1", runtimeClassName=costly, nodeSelector={"a": "b"}))["spec"]
    assert (spec["overhead"], spec["nodeSelector"]) == ({"cpu": "250m"}, {"a": "b", **here})
    assert tolerated in spec["tolerations"]
    server.make(f"{path}/pods", named("r2", runtimeClassName=plain))
    elsewhere = named("r3", runtimeClassName=costly, nodeSelector={"runtime": "elsewhere"})
    where = "runtimeClass.scheduling.nodeSelector[runtime] = there; pod.spec.nodeSelector[runtime] = elsewhere"
    assert refusal(server, f"{path}/pods", elsewhere) == f'pods "r3" is forbidden: conflict: {where}'
    for wanted, why in (
        ({"runtimeClassName": "none"}, 'RuntimeClass "none" not found'),
        (
            {"runtimeClassName": costly, "overhead": {"cpu": "1"}},
            "Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            {"runtimeClassName": plain, "overhead": {"cpu": "1"}},
            "Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        ({"overhead": {"cpu": "1"}}, "Pod Overhead set without corresponding RuntimeClass defined Overhead"),
    ):
        assert (
            refusal(server, f"{path}/pods", named("r4", **wanted)) == f'pods "r4" is forbidden: pod rejected: {why}'
        )
