"""What Azure's own virtual node refuses: the words of the ACI provider of the virtual kubelet 1.6.4, and ACI's limits.

With `strict_aci`, and with a provider that is not this project's, a pod is checked by this too, and its group has published
properties only (`aci_schema`). What runs then also runs on Azure.
"""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Container, Pod, Probe
from cumulet.node.fields import LATE
from cumulet.node.resource import GroupAmount, GroupProperties

#: Azure's limits of a container group ("Resource availability & quota limits for ACI").
_CONTAINERS, _VOLUMES = 60, 20
_ARGS = "ACI does not support providing args without specifying the command. Please supply both command and args to the pod spec."
_INIT = "azure container instances initContainers do not support"
_VOLUME_TYPES = ("emptyDir", "secret", "configMap", "projected", "downwardAPI", "azureFile", "gitRepo", "csi")


def refusals(pod: Pod) -> Iterator[tuple[str, str]]:
    """Yield the path of each field that Azure's virtual node refuses, and its words."""
    spec = pod["spec"]
    inits, containers, volumes = spec.get("initContainers") or [], spec["containers"], spec.get("volumes") or []
    for number, volume in enumerate(volumes):
        if not any(kind in volume for kind in _VOLUME_TYPES):
            words = f"pod {pod['metadata']['name']} requires volume {volume['name']} which is of an unsupported type"
            yield f"spec.volumes[{number}]", words
    for number, container in enumerate(inits):
        yield from _init_container(container, f"spec.initContainers[{number}]")
    for number, container in enumerate(containers):
        yield from _container(container, f"spec.containers[{number}]")
    if len(inits) + len(containers) > _CONTAINERS:
        yield "spec.containers", f"a container group has at most {_CONTAINERS} containers"
    if len(volumes) > _VOLUMES:
        yield "spec.volumes", f"a container group has at most {_VOLUMES} volumes"


def over_total(properties: GroupProperties) -> Iterator[tuple[str, str]]:
    """Yield the limits of containers that exceed what the group requests as a whole."""
    asked: list[GroupAmount] = [item["properties"]["resources"]["requests"] for item in properties["containers"]]
    total: GroupAmount = {
        "cpu": round(sum(amount["cpu"] for amount in asked), 2),
        "memoryInGB": round(sum(amount["memoryInGB"] for amount in asked), 1),
    }
    for number, item in enumerate(properties["containers"]):
        limits = item["properties"]["resources"].get("limits")
        if limits is not None and (limits["cpu"] > total["cpu"] or limits["memoryInGB"] > total["memoryInGB"]):
            words = (
                "ContainerLimitGreaterThanContainerGroupTotalRequest: the limits of the container "
                f"({limits['cpu']:g} CPU, {limits['memoryInGB']:g} GB) exceed the requests of its group "
                f"({total['cpu']:g} CPU, {total['memoryInGB']:g} GB)"
            )
            yield f"spec.containers[{number}].resources.limits", words


def _init_container(container: Container, path: str) -> Iterator[tuple[str, str]]:
    resources = container.get("resources") or {}
    for field, is_set, name in (
        ("ports", bool(container.get("ports")), "ports"),
        ("resources.requests", bool(resources.get("requests")), "resources requests"),
        ("resources.limits", bool(resources.get("limits")), "resources limits"),
        ("livenessProbe", "livenessProbe" in container, "livenessProbe"),
        ("readinessProbe", "readinessProbe" in container, "readinessProbe"),
        ("lifecycle", "lifecycle" in container, "lifecycle hooks"),
        ("startupProbe", "startupProbe" in container, "startupProbe"),
    ):
        if is_set:
            yield f"{path}.{field}", f"{_INIT} {name}"
    if container.get("args") and not container.get("command"):
        yield f"{path}.args", _ARGS
    yield from _variables(container, path)


def _variables(container: Container, path: str) -> Iterator[tuple[str, str]]:
    for number, variable in enumerate(container.get("env") or ()):
        if ((variable.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath") in LATE:
            yield f"{path}.env[{number}].valueFrom.fieldRef", "the address is not known before the group exists"


def _container(container: Container, path: str) -> Iterator[tuple[str, str]]:
    resources = container.get("resources") or {}
    for kind, amounts in (("requests", resources.get("requests")), ("limits", resources.get("limits"))):
        for name in sorted((amounts or {}).keys() - {"cpu", "memory"}):
            yield f"{path}.resources.{kind}[{name}]", "a container group has cpu and memory only"
    if container.get("args") and not container.get("command"):
        yield f"{path}.args", _ARGS
    yield from _variables(container, path)
    if "lifecycle" in container:
        yield f"{path}.lifecycle", "ACI does not support lifecycle hooks"
    if "startupProbe" in container:
        yield f"{path}.startupProbe", "ACI does not support startupProbe"
    for name, probe in (
        ("livenessProbe", container.get("livenessProbe")),
        ("readinessProbe", container.get("readinessProbe")),
    ):
        if probe is not None:
            yield from _probe(container, probe, f"{path}.{name}")


def _probe(container: Container, probe: Probe, path: str) -> Iterator[tuple[str, str]]:
    action = probe.get("httpGet")
    names = [item.get("name") for item in container.get("ports") or ()]
    if action is None and "exec" not in probe:
        yield path, 'probe must specify one of "exec" and "httpGet"'
    elif action is not None and isinstance(action["port"], str) and action["port"] not in names:
        yield f"{path}.httpGet.port", f"unable to find named port: {action['port']}"
