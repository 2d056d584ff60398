"""The requests of a pod, read once from its object: amounts, ports, affinity, priority, and a signature.

Pods with the same signature get the same result from every local plug-in. A thousand pods of one template are therefore
judged once for each node, not a thousand times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from cumulet.common.kubernetes.objects import (
    Container,
    Pod,
    PodAffinityTerm,
    PodSpec,
    Toleration,
    TopologySpreadConstraint,
)
from cumulet.common.kubernetes.quantity import milli

#: Amounts in thousandths by the names of resources. `pods` is one of them.
Amounts = dict[str, int]

#: The properties that selectors evaluate: the namespace, the labels, and whether the pod is terminating.
Group = tuple[str, frozenset[tuple[str, str]], bool]

#: The amounts for containers without requests in scores (upstream's `DefaultMilliCPURequest`, `DefaultMemoryRequest`).
_LITTLE_CPU, _LITTLE_MEMORY = 100, 200 * 1024 * 1024 * 1000

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_encoder = msgspec.json.Encoder()


class PodInfo:
    """One pod with the properties that decide where it can run."""

    __slots__ = (
        "controller",
        "cpu",
        "group",
        "has_preferences",
        "labels",
        "memory",
        "name",
        "namespace",
        "pod",
        "ports",
        "priority",
        "requests",
        "required_affinity",
        "required_anti_affinity",
        "signature",
        "spec",
        "spread",
        "terminating",
        "tolerations",
        "uid",
    )

    def __init__(self, pod: Pod) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        self.pod = pod
        self.uid: str = metadata["uid"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.labels: dict[str, str] = metadata.get("labels") or {}
        self.spec: PodSpec = spec
        self.priority: int = spec.get("priority") or 0
        self.tolerations: list[Toleration] = spec.get("tolerations") or []
        self.spread: list[TopologySpreadConstraint] = spec.get("topologySpreadConstraints") or []
        self.ports = frozenset(host_ports(spec))
        affinity = spec.get("affinity") or {}
        together, apart = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        self.required_affinity: list[PodAffinityTerm] = together.get(_REQUIRED) or []
        self.required_anti_affinity: list[PodAffinityTerm] = apart.get(_REQUIRED) or []
        self.has_preferences = bool(together.get(_PREFERRED) or apart.get(_PREFERRED) or self.required_affinity)
        owners = metadata.get("ownerReferences") or ()
        self.controller: str = next((owner["uid"] for owner in owners if owner.get("controller")), "")
        self.terminating = bool(metadata.get("deletionTimestamp"))
        self.group: Group = self.namespace, frozenset(self.labels.items()), self.terminating
        self.requests, self.cpu, self.memory = _sums(spec)
        self.signature: bytes = b""

    def sign(self) -> bytes:
        """The signature, computed at the first call."""
        if not self.signature:
            spec = self.spec
            containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
            images = [container.get("image") for container in containers]
            # The fields that decide which nodes suit the pod. The names of volumes, for example, do not.
            decides = [
                spec.get("nodeName"),
                spec.get("nodeSelector"),
                spec.get("affinity"),
                spec.get("tolerations"),
                spec.get("resourceClaims"),
            ]
            amounts = [self.requests, self.cpu, self.memory]
            self.signature = _encoder.encode([self.controller, decides, amounts, sorted(self.ports), images])
        return self.signature

    def same(self, other: PodInfo) -> bool:
        """Whether two states of a pod are equal for the placement of all other pods."""
        return (
            self.group == other.group
            and self.requests == other.requests
            and self.ports == other.ports
            and self.required_anti_affinity == other.required_anti_affinity
        )

    def preferences(self) -> Iterable[tuple[int, PodAffinityTerm]]:
        """The weighted terms about other pods. A positive weight attracts, a negative weight repels."""
        affinity = self.spec.get("affinity") or {}
        for item in (affinity.get("podAffinity") or {}).get(_PREFERRED) or ():
            yield item["weight"], item["podAffinityTerm"]
        for item in (affinity.get("podAntiAffinity") or {}).get(_PREFERRED) or ():
            yield -item["weight"], item["podAffinityTerm"]


def host_ports(spec: PodSpec) -> Iterable[tuple[str, str, int]]:
    """The address (empty for all), protocol and number of each host port of a pod."""
    for container in [*(spec.get("containers") or ()), *_sidecars(spec)]:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield _address(port.get("hostIP")), port.get("protocol", "TCP"), port["hostPort"]


def _address(text: str | None) -> str:
    """The address of a port, empty for all addresses."""
    return "" if text is None or text in ("0.0.0.0", "::") else text  # noqa: S104


def _sidecars(spec: PodSpec) -> Iterable[Container]:
    return (item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always")


def _sums(spec: PodSpec) -> tuple[Amounts, int, int]:
    requests = _total([_requested(container) for container in spec.get("containers") or ()], spec, ())
    little = [_with_little(container) for container in spec.get("containers") or ()]
    scored = _total(little, spec, ("cpu", "memory"))
    for name, value in ((spec.get("resources") or {}).get("requests") or {}).items():
        requests[name] = milli(value)  # of the whole pod
    for name, value in (spec.get("overhead") or {}).items():
        requests[name] = requests.get(name, 0) + milli(value)
        scored[name] = scored.get(name, 0) + milli(value)
    requests["pods"] = 1000
    return requests, scored.get("cpu", 0), scored.get("memory", 0)


def _total(containers: list[Amounts], spec: PodSpec, scored: tuple[str, ...]) -> Amounts:
    """The largest sum at any time: all containers, or an init container with the sidecars that started before it."""
    total: Amounts = {}
    for amounts in containers:
        _add(total, amounts)
    beside: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        amounts = _with_little(container) if scored else _requested(container)
        if container.get("restartPolicy") == "Always":
            _add(total, amounts)
            _add(beside, amounts)
            amounts = {}
        for name in {*beside, *amounts}:
            peak[name] = max(peak.get(name, 0), beside.get(name, 0) + amounts.get(name, 0))
    for name, value in peak.items():
        total[name] = max(total.get(name, 0), value)
    return total


def _add(total: Amounts, amounts: Amounts) -> None:
    for name, value in amounts.items():
        total[name] = total.get(name, 0) + value


def _requested(container: Container) -> Amounts:
    return {name: milli(value) for name, value in ((container.get("resources") or {}).get("requests") or {}).items()}


def _with_little(container: Container) -> Amounts:
    return {"cpu": _LITTLE_CPU, "memory": _LITTLE_MEMORY} | _requested(container)
