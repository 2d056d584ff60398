"""The path fails where the real one does, says how to mend it, and goes on once it is mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cloud import PEERS
from tests.end_to_end.cluster import Cluster

NO_TOLERATION = "0/1 nodes are available: 1 node(s) had untolerated taint(s)"
NO_MATCH = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector"
TOO_BIG = "0/1 nodes are available: 1 Insufficient memory"


@pytest.fixture(scope="module")
def pulls(cluster: Cluster) -> Cluster:
    """Pods whose image cannot be pulled, each for another reason, named after it."""
    cluster.brief_principal("EXPIRED", "--role", "AcrPull", "--scope", cluster.registry_id)
    cluster.pull_secret("expired", "EXPIRED")
    cluster.pull_secret("good", "PULL")
    cluster.pull_secret("wrong-password", "PULL", "not-the-secret")
    cluster.pull_secret("wrong-principal", "NONE")
    cluster.attach_registry()
    cluster.pod("no-secret", secret="absent")
    cluster.pod("wrong-password", secret="wrong-password")
    cluster.pod("wrong-principal", secret="wrong-principal")
    cluster.pod("no-tag", "app3/acr-app3:v9", secret="good")
    cluster.pod("no-repository", "app3/other:v1", secret="good")
    cluster.pod("no-registry", "absent.azurecr.io/app3/acr-app3:v1", secret="good")
    cluster.pod("registry-down", f"{PEERS}:1/app3/acr-app3:v1", secret="good")
    cluster.wait_until_expired("EXPIRED")
    cluster.pod("expired", secret="expired")
    return cluster


@pytest.mark.parametrize(
    ("pod", "reason", "cure"),
    [
        ("no-secret", "credentials are missing", "and name it in imagePullSecrets"),
        ("wrong-password", "AADSTS7000215: Invalid client secret", "reset the secret of the principal"),
        ("expired", "AADSTS7000222: The provided client secret keys", "reset the secret of the principal"),
        ("wrong-principal", "denied: requested access to the resource is denied", "assign the role AcrPull"),
        ("no-tag", "manifest unknown", "push the image, or correct its name or tag"),
        ("no-repository", "name unknown", "push the image, or correct its name or tag"),
        ("no-registry", "there is no registry 'absent.azurecr.io'", "correct its name"),
        ("registry-down", "failed to do request", f"check that {PEERS}:1 is running"),
    ],
)
def test_a_pull_that_fails_names_the_reason_and_the_cure(pulls: Cluster, pod: str, reason: str, cure: str) -> None:
    pulls.wait_reason(pod, "ImagePullBackOff")
    message = pulls.events(pod, "Failed")
    image = pulls.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.containers[0].image}")
    assert f'Failed to pull image "{image}": from registry {image.partition("/")[0]}' in message
    assert reason in message
    assert cure in message
    assert pulls.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") == "Pending"


def test_the_event_names_the_principal(pulls: Cluster) -> None:
    assert f"as principal '{pulls.credentials('NONE')[0]}'" in pulls.events("wrong-principal", "Failed")


def test_mended_secrets_and_images_let_the_pods_run(pulls: Cluster) -> None:
    pulls.pull_secret("absent", "PULL")
    pulls.pull_secret("wrong-password", "PULL")
    pulls.pull_secret("wrong-principal", "PULL")
    pulls.renew("EXPIRED")
    pulls.pull_secret("expired", "EXPIRED")
    pulls.push("PUSH", "app3/acr-app3:v9")
    pulls.push("PUSH", "app3/other:v1")
    pulls.wait("pod no-secret wrong-password expired wrong-principal no-tag no-repository", "condition=Ready")


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("no-toleration", {"tolerations": []}, NO_TOLERATION),
        ("wrong-selector", {"nodeSelector": {"type": "other"}}, NO_MATCH),
        (
            "too-big",
            {"containers": [{"name": "web", "image": "web", "resources": {"requests": {"memory": "100Ti"}}}]},
            TOO_BIG,
        ),
        (
            "no-claim",
            {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "none"}}]},
            '0/1 nodes are available: persistentvolumeclaim "none" not found.',
        ),
    ],
)
def test_what_does_not_fit_stays_pending(cluster: Cluster, name: str, spec: dict[str, Any], message: str) -> None:
    cluster.pod(name, secret="good", **spec)
    assert message in cluster.events(name, "FailedScheduling")
    assert cluster.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase} {.spec.nodeName}").strip() == "Pending"


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("persistentVolumeClaim", {"persistentVolumeClaim": {"claimName": "data"}}),
        ("hostPath", {"hostPath": {"path": "/"}}),
    ],
)
def test_volumes_of_the_node_are_refused(cluster: Cluster, name: str, volume: dict[str, object]) -> None:
    pod = name.lower()
    cluster.claim("data")
    cluster.pod(pod, volumes=[{"name": "data", **volume}])
    message = cluster.events(pod, "ProviderCreateFailed")
    assert f"spec.volumes[0].{name} is not supported: " in message
    cluster.wait(f"pod {pod}", "jsonpath={.status.reason}=ProviderFailed")
    assert cluster.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}") == "Pending"
    # Nothing half made: no container group has the pod's name.
    assert all(pod not in row["name"] for row in cluster.installation.cumulet("cost", "-o", "json"))


#: What a virtual node refuses, in a pod template: by the node itself, and by container instances.
REFUSED: dict[str, dict[str, Any]] = {
    "host-path": {"volumes": [{"name": "data", "hostPath": {"path": "/"}}]},
    "host-network": {"hostNetwork": True},
    "host-pid": {"hostPID": True},
    "host-ipc": {"hostIPC": True},
    "privileged": {"securityContext": {"privileged": True}},
    "image-volume": {"volumes": [{"name": "data", "image": {"reference": "web"}}]},
    "port-without-name": {"livenessProbe": {"httpGet": {"port": "none"}}},
    "long-mount-path": {
        "volumes": [{"name": "data", "emptyDir": {}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data/../.."}],
    },
}
_OF_A_CONTAINER = ("securityContext", "livenessProbe", "volumeMounts")


def _owner(kind: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    container = {"name": "web", "image": "web"} | {key: fields[key] for key in fields if key in _OF_A_CONTAINER}
    spec = {
        "nodeSelector": {"kubernetes.io/role": "agent", "beta.kubernetes.io/os": "linux", "type": "virtual-kubelet"},
        "tolerations": [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}],
        "containers": [container],
        **{key: fields[key] for key in fields if key not in _OF_A_CONTAINER},
    }
    labels = {"storm": name}
    is_old = kind == "ReplicationController"
    return {
        "apiVersion": "v1" if is_old else "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": labels if is_old else {"matchLabels": labels},
            **({"serviceName": name} if kind == "StatefulSet" else {}),
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _pods(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.kubectl("get", "pods", "-l", f"storm={name}", "-o", "json"))[
        "items"
    ]
    return found


def test_no_refusal_makes_more_pods(cluster: Cluster) -> None:
    owners = [_owner("Deployment", name, fields) for name, fields in REFUSED.items()]
    for kind in ("ReplicationController", "StatefulSet"):
        owners.append(_owner(kind, kind.lower(), REFUSED["host-path"]))
    names = [owner["metadata"]["name"] for owner in owners]
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": owners}))
    first = {}
    for name in names:
        cluster.wait(f"pod --selector=storm={name}", "jsonpath={.status.reason}=ProviderFailed")
        first[name] = _pods(cluster, name)
        assert [pod["status"]["phase"] for pod in first[name]] == ["Pending"]
    for name in names:
        # It was tried again, and again, and is the same pod.
        (pod,) = first[name]
        cluster.wait_count(pod["metadata"]["name"], "ProviderCreateFailed", 4)
        assert [item["metadata"]["uid"] for item in _pods(cluster, name)] == [pod["metadata"]["uid"]]
