"""The published properties of a container group (REST reference 2023-05-01), and how a group is reduced to them.

Extensions to ACI's API (docs/instances.md) are left out where they say nothing that a pod has asked for, such as a default of
Kubernetes. Every other one is refused by its path, because Azure would ignore it or refuse the request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from cumulet.common.kubernetes.objects import Object
from cumulet.node.resource import ContainerGroup

#: `None` is a plain value or a map, a list has one element that describes all.
Shape = Mapping[str, "Shape"] | list["Shape"] | None

_MOUNTS: Shape = [{"name": None, "mountPath": None, "readOnly": None}]
_VARIABLES: Shape = [{"name": None, "value": None, "secureValue": None}]
_PORTS: Shape = [{"port": None, "protocol": None}]
_AMOUNT: Shape = {"cpu": None, "memoryInGB": None, "gpu": {"count": None, "sku": None}}
_PROBE: Shape = {
    "exec": {"command": None},
    "httpGet": {"path": None, "port": None, "scheme": None, "httpHeaders": [{"name": None, "value": None}]},
    "initialDelaySeconds": None,
    "periodSeconds": None,
    "failureThreshold": None,
    "successThreshold": None,
    "timeoutSeconds": None,
}
_SECURITY: Shape = {
    "privileged": None,
    "allowPrivilegeEscalation": None,
    "capabilities": {"add": None, "drop": None},
    "runAsUser": None,
    "runAsGroup": None,
    "seccompProfile": None,
}
_INIT_CONTAINER: dict[str, Shape] = {
    "image": None,
    "command": None,
    "environmentVariables": _VARIABLES,
    "volumeMounts": _MOUNTS,
    "securityContext": _SECURITY,
}
_CONTAINER: dict[str, Shape] = {
    **_INIT_CONTAINER,
    "ports": _PORTS,
    "resources": {"requests": _AMOUNT, "limits": _AMOUNT},
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE,
}
_AZURE_FILE: Shape = {"shareName": None, "readOnly": None, "storageAccountName": None, "storageAccountKey": None}
_GIT_REPO: Shape = {"directory": None, "repository": None, "revision": None}
GROUP: dict[str, Shape] = {
    "location": None,
    "tags": None,
    "properties": {
        "containers": [{"name": None, "properties": _CONTAINER}],
        "initContainers": [{"name": None, "properties": _INIT_CONTAINER}],
        "imageRegistryCredentials": [
            {"server": None, "username": None, "password": None, "identity": None, "identityUrl": None}
        ],
        "restartPolicy": None,
        "osType": None,
        "volumes": [{"name": None, "emptyDir": None, "secret": None, "azureFile": _AZURE_FILE, "gitRepo": _GIT_REPO}],
        "ipAddress": {"type": None, "ports": _PORTS, "dnsNameLabel": None},
        "subnetIds": [{"id": None, "name": None}],
        "dnsConfig": {"nameServers": None, "searchDomains": None, "options": None},
        "sku": None,
        "priority": None,
    },
}

#: Extensions that every group has: the node does without them. The grace period is sent with the deletion, `resources` has
#: the requirements rounded, and labels are for the bill of this project. Without `matchImages`, credentials are in order.
_OWN = frozenset(
    {"terminationGracePeriodSeconds", "hostname", "labels", "pod", "resourceRequirements", "matchImages"}
)
#: Values of extensions that say what is so in ACI too.
_SAME: Mapping[str, tuple[object, ...]] = {
    "defaultMode": (0o644,),
    "imagePullPolicy": ("Always", "IfNotPresent"),
    "runAsNonRoot": (False,),
    "readOnlyRootFilesystem": (False,),
}
_NOTHING: tuple[object, ...] = (None, False, "", [], {})


def published(group: ContainerGroup) -> tuple[ContainerGroup, list[str]]:
    """Return the group with published properties only, and the paths of the others that a pod has asked for.

    Arguments follow the command, and amounts are rounded down as Azure takes them, CPU to hundredths and memory to tenths of
    a decimal GB. A group in a subnet gets its address there, so `ipAddress` is left out.
    """
    body: Object = {**group}
    properties: Object = {**body["properties"]}
    if properties.get("subnetIds"):
        properties.pop("ipAddress", None)
    for kind in ("containers", "initContainers"):
        properties[kind] = [{**item, "properties": _container(item["properties"])} for item in properties[kind]]
    body["properties"] = properties
    refused: list[str] = []
    reduced = _reduced(body, GROUP, "", refused)
    assert isinstance(reduced, dict)
    answer: ContainerGroup = {
        "location": reduced["location"],
        "tags": reduced["tags"],
        "properties": reduced["properties"],
    }
    return answer, refused


def _container(properties: Object) -> Object:
    made = {**properties}
    if args := made.pop("args", None):
        made["command"] = [*(made.get("command") or ()), *args]
    made["environmentVariables"] = [
        variable
        for variable in made.get("environmentVariables") or ()
        if variable.get("value") or variable.get("secureValue")
    ]
    if resources := made.get("resources"):
        made["resources"] = {name: _amount(amount) for name, amount in resources.items()}
    return made


def _amount(amount: Object) -> Object:
    return {
        **amount,
        "cpu": max(math.floor(round(amount["cpu"] * 100, 6)) / 100, 0.01),
        "memoryInGB": max(math.floor(round(amount["memoryInGB"] * 10, 6)) / 10, 0.1),
    }


def _reduced(value: object, shape: Shape, path: str, refused: list[str]) -> object:
    """Return the value without the properties that its shape lacks; add the paths of those that matter to `refused`."""
    if isinstance(shape, list) and isinstance(value, list):
        return [_reduced(item, shape[0], f"{path}[{number}]", refused) for number, item in enumerate(value)]
    if not isinstance(shape, Mapping) or not isinstance(value, dict):
        refused.extend(_inside(value, path))
        return value
    reduced = {}
    for name, part in value.items():
        where = f"{path}.{name}" if path else name
        if name in shape:
            reduced[name] = _reduced(part, shape[name], where, refused)
        elif name not in _OWN and not _says_nothing(name, part):
            refused.append(where)
    return reduced


def _inside(value: object, path: str) -> Iterator[str]:
    """Yield the settings of an `emptyDir`, which has none in ACI."""
    if path.endswith(".emptyDir") and isinstance(value, dict):
        yield from (f"{path}.{name}" for name, part in value.items() if not _says_nothing(name, part))


def _says_nothing(name: str, value: object) -> bool:
    return any(type(value) is type(harmless) and value == harmless for harmless in (*_NOTHING, *_SAME.get(name, ())))
