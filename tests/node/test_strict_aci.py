"""With `strict_aci` a pod is refused as by Azure's virtual node, and the groups of others have published properties only.

The models of `azure-mgmt-containerinstance` say what is published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from azure.mgmt.containerinstance.models import ContainerGroup as PublishedGroup

from cumulet.common.config import DEFAULT_PORTS, Address, Config
from cumulet.common.kubernetes.objects import Pod
from cumulet.node.aci_schema import GROUP, Shape
from cumulet.node.checks import check, published_group
from cumulet.node.errors import UnsupportedError
from cumulet.node.pods import Pods
from cumulet.node.profile import virtual_node
from cumulet.node.resource import ContainerGroup
from cumulet.node.watched import Watched


def pod(container: Any, **spec: Any) -> Pod:
    """A pod with the defaults that the API server gives to every pod and container."""
    defaults = {
        "image": "acrdemo2ss.azurecr.io/app:1",
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    inits = [
        {"name": f"init{number}", **defaults, **item} for number, item in enumerate(spec.pop("initContainers", ()))
    ]
    made: Any = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "uid": "u",
            "labels": {"app": "web"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "serviceAccountName": "default",
            "enableServiceLinks": True,
            "nodeName": "virtual-node-aci-linux",
            "containers": [{"name": "web", **defaults, **container}],
            **({"initContainers": inits} if inits else {}),
            **spec,
        },
    }
    answer: Pod = made
    return answer


_PROBE = {"periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}
_FIELDS = [{"path": "labels", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]

#: What runs on Azure, by the field of the pod that makes it special.
ACCEPTED: dict[str, Pod] = {
    "plain": pod({}),
    "command": pod({"command": ["sh", "-c"], "args": ["echo $(HOME)"], "env": [{"name": "HOME", "value": "/root"}]}),
    "ports": pod({"ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]}),
    "probes": pod(
        {
            "ports": [{"containerPort": 80, "name": "http"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}, **_PROBE},
            "readinessProbe": {"exec": {"command": ["true"]}, **_PROBE},
        }
    ),
    "resources": pod({"resources": {"requests": {"cpu": "500m", "memory": "280Mi"}, "limits": {"memory": "285Mi"}}}),
    "security": pod(
        {
            "securityContext": {
                "runAsUser": 1000,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        }
    ),
    "init": pod({}, initContainers=[{"command": ["true"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                volumes=[{"name": "v", "emptyDir": {}}]),
    "volumes": pod(
        {"volumeMounts": [{"name": "all", "mountPath": "/all", "readOnly": True}]},
        volumes=[
            {
                "name": "all",
                "projected": {
                    "defaultMode": 420,
                    "sources": [{"downwardAPI": {"items": _FIELDS}}, {"configMap": {"name": "c", "optional": True}}],
                },
            },
            {"name": "fields", "downwardAPI": {"items": _FIELDS, "defaultMode": 420}},
            {"name": "secret", "secret": {"secretName": "s", "optional": True, "defaultMode": 420}},
        ],
    ),
}  # fmt: skip

#: What Azure's virtual node refuses, with its words.
REFUSED: dict[str, tuple[Pod, str]] = {
    "args": (
        pod({"args": ["x"]}),
        "spec.containers[0].args: ACI does not support providing args without specifying the command.",
    ),
    "hooks": (
        pod({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}),
        "spec.containers[0].lifecycle: ACI does not support lifecycle hooks",
    ),
    "startup": (
        pod({"startupProbe": {"exec": {"command": ["true"]}}}),
        "spec.containers[0].startupProbe: ACI does not support startupProbe",
    ),
    "tcp": (
        pod({"livenessProbe": {"tcpSocket": {"port": 80}}}),
        'spec.containers[0].livenessProbe: probe must specify one of "exec" and "httpGet"',
    ),
    "grpc": (
        pod({"readinessProbe": {"grpc": {"port": 80}}}),
        'spec.containers[0].readinessProbe: probe must specify one of "exec" and "httpGet"',
    ),
    "named-port": (pod({"livenessProbe": {"httpGet": {"port": "web"}}}), "unable to find named port: web"),
    "volume": (
        pod({}, volumes=[{"name": "data", "hostPath": {"path": "/"}}]),
        "pod web requires volume data which is of an unsupported type",
    ),
    **{
        f"init-{words.replace(' ', '-')}": (
            pod({}, initContainers=[{field: value}]),
            f"azure container instances initContainers do not support {words}",
        )
        for words, field, value in (
            ("ports", "ports", [{"containerPort": 80}]),
            ("resources requests", "resources", {"requests": {"cpu": "1"}}),
            ("resources limits", "resources", {"limits": {"cpu": "1"}}),
            ("livenessProbe", "livenessProbe", {}),
            ("readinessProbe", "readinessProbe", {}),
            ("lifecycle hooks", "lifecycle", {}),
            ("startupProbe", "startupProbe", {}),
        )
    },
    "containers": (
        pod({}, containers=[{"name": f"c{number}", "image": "i"} for number in range(61)]),
        "a container group has at most 60 containers",
    ),
    "address": (
        pod({"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}),
        "spec.containers[0].env[0].valueFrom.fieldRef: the address is not known before the group exists",
    ),
    "volume-count": (
        pod({}, volumes=[{"name": f"v{number}", "emptyDir": {}} for number in range(21)]),
        "a container group has at most 20 volumes",
    ),
}

#: What the provider takes without a word and Azure does not have: refused here by its property.
WITHOUT_PROPERTY: dict[str, tuple[Pod, str]] = {
    "working-dir": (pod({"workingDir": "/srv"}), "spec.containers[0].workingDir"),
    "read-only": (
        pod({"securityContext": {"readOnlyRootFilesystem": True}}),
        "spec.containers[0].securityContext.readOnlyRootFilesystem",
    ),
    "groups": (
        pod({}, securityContext={"supplementalGroups": [7]}),
        "spec.containers[0].securityContext.supplementalGroups",
    ),
    "sub-path": (
        pod(
            {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}]},
            volumes=[{"name": "v", "emptyDir": {}}],
        ),
        "spec.containers[0].volumeMounts[0].subPath",
    ),
    "mode": (
        pod({}, volumes=[{"name": "v", "secret": {"secretName": "s", "optional": True, "defaultMode": 256}}]),
        "spec.volumes[0].defaultMode",
    ),
    "medium": (
        pod({}, volumes=[{"name": "v", "emptyDir": {"medium": "Memory"}}]),
        "spec.volumes[0].emptyDir.medium",
    ),
    "sidecar": (pod({}, initContainers=[{"restartPolicy": "Always"}]), "spec.initContainers[0].restartPolicy: Azure"),
    "deadline": (pod({}, activeDeadlineSeconds=9), "spec.activeDeadlineSeconds: Azure"),
    "aliases": (pod({}, hostAliases=[{"ip": "10.0.0.1", "hostnames": ["x"]}]), "spec.hostAliases: Azure"),
    "stdin": (pod({"stdin": True}), "spec.containers[0].stdin: Azure"),
    "message": (
        pod({"terminationMessagePolicy": "FallbackToLogsOnError"}),
        "spec.containers[0].terminationMessagePolicy: Azure",
    ),
    "never": (pod({"imagePullPolicy": "Never"}), "spec.containers[0].imagePullPolicy: Azure"),
    "fs-group": (pod({}, securityContext={"fsGroup": 7}), "spec.securityContext: Azure"),
    "probe-host": (
        pod({"livenessProbe": {"httpGet": {"port": 80, "host": "example.com"}}}),
        "spec.containers[0].livenessProbe.httpGet.host: Azure",
    ),
    "limits": (
        pod({"resources": {"requests": {"cpu": "1", "memory": "1G"}, "limits": {"cpu": "2", "memory": "1G"}}}),
        "ContainerLimitGreaterThanContainerGroupTotalRequest",
    ),
}


@pytest.fixture
def node(tmp_path: Path) -> Pods:
    """A node that is strict."""
    return strict_node(tmp_path)


def strict_node(data_dir: Path) -> Pods:
    """A node that is strict, without a cluster and a provider."""
    config = Config(
        data_dir=data_dir,
        addresses={room: Address("127.0.0.1", port) for room, port in DEFAULT_PORTS.items()},
        tenant_id="t",
        subscription_id="s",
        strict_aci=True,
    )
    nobody: Any = None
    return Pods(nobody, nobody, config, virtual_node(config), Watched(nobody), nobody)


def _normal(value: Any) -> Any:
    """Return the value without empty parts, which the models leave out."""
    if isinstance(value, dict):
        return {key: _normal(part) for key, part in value.items() if part is not None}
    return [_normal(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_group_has_published_properties_only(node: Pods, name: str) -> None:
    check(ACCEPTED[name], strict=True)
    body = await node.bodies.of(ACCEPTED[name], None)
    model = PublishedGroup.deserialize(body)
    assert _normal(model.serialize()) == _normal(body)
    for key, value in body["properties"].items():
        assert key not in ("pod", "hostname", "terminationGracePeriodSeconds"), f"{key}: {value}"


async def test_amounts_and_arguments_are_as_azure_takes_them(node: Pods) -> None:
    body = await node.bodies.of(ACCEPTED["resources"], None)
    (container,) = body["properties"]["containers"]
    assert container["properties"]["resources"] == {
        "requests": {"cpu": 0.5, "memoryInGB": 0.2},
        "limits": {"cpu": 0.5, "memoryInGB": 0.2},
    }
    body = await node.bodies.of(ACCEPTED["command"], None)
    assert body["properties"]["containers"][0]["properties"]["command"] == ["sh", "-c", "echo /root"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_provider_refuses_is_refused_in_its_words(name: str) -> None:
    refused, words = REFUSED[name]
    with pytest.raises(UnsupportedError) as caught:
        check(refused, strict=True)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", WITHOUT_PROPERTY)
async def test_what_azure_does_not_have_is_refused_by_its_property(node: Pods, name: str) -> None:
    refused, words = WITHOUT_PROPERTY[name]
    check(refused, strict=True)
    with pytest.raises(UnsupportedError) as caught:
        await node.bodies.of(refused, None)
    assert words in str(caught.value)


def _sample(shape: Shape, name: str = "") -> Any:
    """Return a value with every property of a shape."""
    if isinstance(shape, list):
        return [_sample(shape[0])]
    if shape is not None:
        return {key: _sample(part, key) for key, part in shape.items()}
    listed = ("command", "add", "drop", "nameServers")
    numbers = ("port", "count", "runAsUser", "runAsGroup", "cpu", "memoryInGB")
    if name in listed:
        return ["x"]
    if name in ("tags", "secret", "emptyDir"):
        return {}
    if name in ("readOnly", "privileged", "allowPrivilegeEscalation"):
        return True
    return 1 if name in numbers or name.endswith(("Seconds", "Threshold")) else "x"


def test_every_property_of_the_shape_is_published() -> None:
    sample = _sample(GROUP)
    assert PublishedGroup.deserialize(sample).serialize() == sample


def test_an_unknown_property_is_refused_wherever_it_is() -> None:
    group: Any = {
        "location": "eastus",
        "tags": {},
        "properties": {
            "containers": [{"name": "c", "properties": {"image": "i", "livenessProbe": {"quantum": {"port": 1}}}}],
            "initContainers": [{"name": "i", "properties": {"image": "i", "resources": {"requests": {"cpu": 1, "memoryInGB": 1}}}}],
            "osType": "Linux",
        },
    }  # fmt: skip
    group["properties"]["containers"][0]["properties"]["resources"] = {"requests": {"cpu": 1.0, "memoryInGB": 1.0}}
    extended: ContainerGroup = group
    with pytest.raises(UnsupportedError) as caught:
        published_group(extended)
    assert "spec.containers[0].livenessProbe.quantum: Azure Container Instances has no" in str(caught.value)
    assert "spec.initContainers[0].resources: " in str(caught.value)
