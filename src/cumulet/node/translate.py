"""From a pod to a container group, as the ACI provider of the virtual kubelet has it, without its defects."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal
from typing import Any

from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.kubernetes.quantity import decimal
from cumulet.node.references import References, UnsupportedError, expand
from cumulet.node.security import check_security, security_context

Object = dict[str, Any]

_CPU, _MEMORY = Decimal(1), Decimal("1.5")
_GB = Decimal(1_000_000_000)
_NAME_LIMIT = 63
#: Of a security context, what a container group has.
_CONTEXT = (
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "allowPrivilegeEscalation",
    "readOnlyRootFilesystem",
    "capabilities",
    "seccompProfile",
)
#: What it has not, and the values that ask for nothing.
_NO_CONTEXT: dict[str, tuple[Any, ...]] = {
    "procMount": ("Default",),
    "seLinuxOptions": ({},),
    "windowsOptions": ({},),
    "appArmorProfile": ({"type": "Unconfined"},),
}
_NO_MOUNT = {"mountPropagation": ("None",), "recursiveReadOnly": ("Disabled", "IfPossible")}


def group_name(pod: Object) -> str:
    """`<namespace>-<pod>-<part of the uid>`: no two pods have the same, and a new pod of the old name has another."""
    metadata = pod["metadata"]
    mark = hashlib.sha256(metadata["uid"].encode()).hexdigest()[:8]
    base = fold(f"{metadata['namespace']}-{metadata['name']}".replace(".", "-"))
    return f"{base[: _NAME_LIMIT - len(mark) - 1].rstrip('-')}-{mark}"


def tags_of(pod: Object, config: Config) -> dict[str, str]:
    """What says whose a group is; the cluster's own id keeps another cluster's node away from it."""
    metadata = pod["metadata"]
    return {
        "PodName": metadata["name"],
        "Namespace": metadata["namespace"],
        "NodeName": config.node_name,
        "UID": metadata["uid"],
        "CreationTimestamp": metadata["creationTimestamp"],
        "ClusterName": config.cluster,
    }


async def container_group(pod: Object, references: References, config: Config) -> Object:
    """The body of the PUT. Raises `MissingError`, `UnsupportedError`; then nothing was made."""
    spec = pod["spec"]
    check(pod)
    credentials, _ = references.credentials(pod)
    volumes = [await references.volume(pod, volume) for volume in spec.get("volumes") or ()]
    ports = [
        {"port": port["containerPort"], "protocol": port.get("protocol", "TCP")}
        for container in spec["containers"]
        for port in container.get("ports") or ()
    ]
    properties: Object = {
        "containers": [_container(pod, item, references, config, init=False) for item in spec["containers"]],
        "initContainers": [
            _container(pod, item, references, config, init=True) for item in spec.get("initContainers") or ()
        ],
        "imageRegistryCredentials": credentials,
        "restartPolicy": spec.get("restartPolicy", "Always"),
        "osType": "Linux",
        "volumes": volumes,
        "ipAddress": {"type": "Private", "ports": ports},
        "subnetIds": [{"id": config.node_subnet_id}],
        "terminationGracePeriodSeconds": min(spec.get("terminationGracePeriodSeconds", 30), 2**31 - 1),
        "hostname": (spec.get("hostname") or pod["metadata"]["name"])[:_NAME_LIMIT].rstrip("-."),
    }
    if spec.get("hostUsers") is False:
        properties["hostUsers"] = False
    return {"location": config.location, "tags": tags_of(pod, config), "properties": properties}


def check(pod: Object) -> None:
    """Raises `UnsupportedError` for what no container group can have."""
    spec = pod["spec"]
    known = {"emptyDir", "secret", "configMap", "projected", "downwardAPI"}
    for volume in spec.get("volumes") or ():
        if not known & volume.keys():
            raise UnsupportedError(
                f"pod {pod['metadata']['name']} requires volume {volume['name']} which is of an unsupported type"
                f" ({', '.join(key for key in volume if key != 'name')}): virtual nodes run stateless workloads only"
            )
    check_security(pod)
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        for mount in container.get("volumeMounts") or ():
            for name, harmless in _NO_MOUNT.items():
                if mount.get(name) not in (None, *harmless):
                    raise UnsupportedError(
                        f"container {container['name']} mounts {mount['name']} with {name} {mount[name]}, which virtual nodes do "
                        "not have"
                    )


def _container(pod: Object, container: Object, references: References, config: Config, *, init: bool) -> Object:
    environment = references.environment(pod, container)
    values: dict[str, str] = {item["name"]: item.get("value", item.get("secureValue")) or "" for item in environment}
    properties: Object = {
        "image": container["image"],
        "environmentVariables": environment,
        "volumeMounts": [_mount(mount, values) for mount in container.get("volumeMounts") or ()],
    }
    for name in ("command", "args"):
        if container.get(name):
            properties[name] = [expand(word, values) for word in container[name]]
    if container.get("workingDir"):
        properties["workingDir"] = container["workingDir"]
    if context := security_context(pod, container, config):
        properties["securityContext"] = context
    if not init:
        properties["ports"] = [
            {"port": port["containerPort"], "protocol": port.get("protocol", "TCP")}
            for port in container.get("ports") or ()
        ]
        properties["resources"] = _resources(container)
        for kind in ("livenessProbe", "readinessProbe"):
            if container.get(kind):
                properties[kind] = _probe(container, container[kind])
    return {"name": container["name"], "properties": properties}


def _mount(mount: Object, values: dict[str, str]) -> Object:
    """A mount path that is relative is taken from the root, as a kubelet takes it."""
    found: Object = {
        "name": mount["name"],
        "mountPath": mount["mountPath"] if mount["mountPath"].startswith("/") else f"/{mount['mountPath']}",
        "readOnly": bool(mount.get("readOnly")),
    }
    if path := mount.get("subPath") or expand(mount.get("subPathExpr") or "", values):
        found["subPath"] = path
    return found


def _resources(container: Object) -> Object:
    """CPU to hundredths and memory to tenths of a decimal GB; a limit that is missing equals the request."""
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    asked = {"cpu": _cpu(requests.get("cpu")), "memoryInGB": _memory(requests.get("memory"))}
    found: Object = {"requests": asked}
    if limits:
        found["limits"] = {
            "cpu": _cpu(limits["cpu"]) if "cpu" in limits else asked["cpu"],
            "memoryInGB": _memory(limits["memory"]) if "memory" in limits else asked["memoryInGB"],
        }
    return found


def _cpu(text: str | None) -> float:
    value = _CPU if text is None else decimal(text)
    return float(max(Decimal(math.floor(value * 100)) / 100, Decimal("0.01")))


def _memory(text: str | None) -> float:
    value = _MEMORY if text is None else decimal(text) / _GB
    return float(max(Decimal(math.floor(value * 10)) / 10, Decimal("0.1")))


def _probe(container: Object, probe: Object) -> Object:
    found: Object = {
        name: probe[name]
        for name in ("initialDelaySeconds", "periodSeconds", "failureThreshold", "successThreshold", "timeoutSeconds")
        if name in probe
    }
    if action := probe.get("exec"):
        found["exec"] = {"command": action.get("command") or []}
    elif action := probe.get("httpGet"):
        found["httpGet"] = {
            "path": action.get("path", "/"),
            "port": _port(container, action["port"]),
            "scheme": fold(action.get("scheme", "HTTP")),
            "httpHeaders": action.get("httpHeaders") or [],
        }
    elif action := probe.get("tcpSocket"):
        found["tcpSocket"] = {"port": _port(container, action["port"])}
    else:
        raise UnsupportedError('probe must specify one of "exec" and "httpGet"')
    return found


def _port(container: Object, port: int | str) -> int:
    if isinstance(port, int):
        return port
    for item in container.get("ports") or ():
        if item.get("name") == port:
            number: int = item["containerPort"]
            return number
    raise UnsupportedError(f"unable to find named port: {port}")
