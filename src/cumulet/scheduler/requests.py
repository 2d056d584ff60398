"""What a pod asks for, read once from its object: amounts, ports, affinity, priority, and a signature.

Pods with the same signature get the same answer from everything that looks at one pod and one node, so a thousand pods of
one template are judged once for each node and not a thousand times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cumulet.common.kubernetes.quantity import milli

Object = dict[str, Any]
#: Thousandths of each resource's unit by its name; `pods` is one of them.
Amounts = dict[str, int]

#: What selectors see of a pod: its namespace, its labels, and whether it is on its way out.
Group = tuple[str, frozenset[tuple[str, str]], bool]

#: What a container that asks for nothing counts as in scores (upstream's `DefaultMilliCPURequest`, `DefaultMemoryRequest`).
_LITTLE_CPU, _LITTLE_MEMORY = 100, 200 * 1024 * 1024 * 1000

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
#: What of a pod's specification decides which nodes suit it; names of volumes, for one, are no part of it.
_DECIDES = ("nodeName", "nodeSelector", "affinity", "tolerations", "resourceClaims")
_encoder = msgspec.json.Encoder()


class PodInfo:
    """One pod as the scheduler sees it."""

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

    def __init__(self, pod: Object) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        self.pod = pod
        self.uid: str = metadata["uid"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.labels: dict[str, str] = metadata.get("labels") or {}
        self.spec: Object = spec
        self.priority: int = spec.get("priority") or 0
        self.tolerations: list[Object] = spec.get("tolerations") or []
        self.spread: list[Object] = spec.get("topologySpreadConstraints") or []
        self.ports = frozenset(host_ports(spec))
        affinity = spec.get("affinity") or {}
        together, apart = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        self.required_affinity: list[Object] = together.get(_REQUIRED) or []
        self.required_anti_affinity: list[Object] = apart.get(_REQUIRED) or []
        self.has_preferences = bool(together.get(_PREFERRED) or apart.get(_PREFERRED) or self.required_affinity)
        owners = metadata.get("ownerReferences") or ()
        self.controller: str = next((owner["uid"] for owner in owners if owner.get("controller")), "")
        self.terminating = bool(metadata.get("deletionTimestamp"))
        self.group: Group = self.namespace, frozenset(self.labels.items()), self.terminating
        self.requests, self.cpu, self.memory = _sums(spec)
        self.signature: bytes = b""

    def sign(self) -> bytes:
        """The signature, made when it is first asked for."""
        if not self.signature:
            spec = self.spec
            containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
            images = [container.get("image") for container in containers]
            decides = [spec.get(name) for name in _DECIDES]
            amounts = [self.requests, self.cpu, self.memory]
            self.signature = _encoder.encode([self.controller, decides, amounts, sorted(self.ports), images])
        return self.signature

    def same(self, other: PodInfo) -> bool:
        """Whether two states of a pod mean the same to everybody else."""
        return (
            self.group == other.group
            and self.requests == other.requests
            and self.ports == other.ports
            and self.required_anti_affinity == other.required_anti_affinity
        )

    def preferences(self) -> Iterable[tuple[int, Object]]:
        """Weighted terms about pods nearby: more than zero to be near, less to be away."""
        affinity = self.spec.get("affinity") or {}
        for part, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            for item in (affinity.get(part) or {}).get(_PREFERRED) or ():
                yield sign * item["weight"], item["podAffinityTerm"]


def host_ports(spec: Object) -> Iterable[tuple[str, str, int]]:
    """The address (empty for all), protocol and number of each port of the node that a pod takes."""
    for container in [*(spec.get("containers") or ()), *_sidecars(spec)]:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield _address(port.get("hostIP")), port.get("protocol", "TCP"), port["hostPort"]


def _address(text: str | None) -> str:
    """Empty where it is every address."""
    return "" if text in (None, "0.0.0.0", "::") else text  # noqa: S104


def _sidecars(spec: Object) -> Iterable[Object]:
    return (item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always")


def _sums(spec: Object) -> tuple[Amounts, int, int]:
    requests = _total([_requested(container) for container in spec.get("containers") or ()], spec, ())
    little = [_with_little(container) for container in spec.get("containers") or ()]
    scored = _total(little, spec, ("cpu", "memory"))
    for name, value in ((spec.get("resources") or {}).get("requests") or {}).items():
        requests[name] = milli(value)  # of the pod as a whole
    for name, value in (spec.get("overhead") or {}).items():
        requests[name] = requests.get(name, 0) + milli(value)
        scored[name] = scored.get(name, 0) + milli(value)
    requests["pods"] = 1000
    return requests, scored.get("cpu", 0), scored.get("memory", 0)


def _total(containers: list[Amounts], spec: Object, scored: tuple[str, ...]) -> Amounts:
    """Containers run together; each init container alone, beside the sidecars that were started before it."""
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


def _requested(container: Object) -> Amounts:
    return {name: milli(value) for name, value in ((container.get("resources") or {}).get("requests") or {}).items()}


def _with_little(container: Object) -> Amounts:
    return {"cpu": _LITTLE_CPU, "memory": _LITTLE_MEMORY} | _requested(container)
