"""Warnings about pods and pod templates."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.pod_fingerprint import STAND_IN, likeness
from cumulet.kube.schema.validation.security import all_containers
from cumulet.kube.schema.warnings.addresses import address
from cumulet.kube.schema.warnings.labels import deprecated, node_term
from cumulet.kube.schema.warnings.other_kinds import is_fraction
from cumulet.kube.schema.warnings.volumes import overlaps, sources

_NEEDED, _LIKED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
_NO_SELECTOR = "a null labelSelector results in matching no pod"
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_NO_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'


def pod_warnings(template: Object, path: str) -> Iterator[str]:
    """Yield the warnings about a pod, whose path is empty, or about a pod template."""
    if not path and not any(".alpha.kubernetes.io/" in key for key in template["metadata"].get("annotations") or ()):
        alike = likeness(template.get("spec") or {})
        known = None if alike is None else _known(alike)
        if known is not None:
            yield from known
            return
    yield from _spec_warnings(template, path)


@functools.lru_cache(256)
def _known(alike: bytes) -> tuple[str, ...] | None:
    """Return the warnings of all specs with this fingerprint. `None` where they contain the replaced name."""
    texts = tuple(_spec_warnings({"spec": msgspec.json.decode(alike)}, ""))
    return None if any(STAND_IN in text for text in texts) else texts


def _spec_warnings(template: Object, path: str) -> Iterator[str]:
    spec, metadata = template.get("spec") or {}, template.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    prefix = f"{path}." if path else ""
    where = f"{prefix}spec"
    yield from _nodes(spec, where)
    for key, message in _ANNOTATIONS.items():
        if key in annotations:
            yield f"{prefix}metadata.annotations[{key}]: {message}"
    volumes = spec.get("volumes") or ()
    yield from sources(volumes, f"{where}.volumes")
    yield from overlaps(volumes)
    yield from _references(spec, where)
    for name in ("memory", "ephemeral-storage"):
        yield from _whole(spec.get("overhead") or {}, name, f"{where}.overhead")
    if _SECCOMP in annotations and "seccompProfile" not in (spec.get("securityContext") or {}):
        yield f"{prefix}metadata.annotations[{_SECCOMP}]: {_NO_SECCOMP}"
    for container, at in all_containers(spec, where):
        key = f"{_SECCOMP_CONTAINER}{container.get('name', '')}"
        if key in annotations and "seccompProfile" not in (container.get("securityContext") or {}):
            yield f"{prefix}metadata.annotations[{key}]: {_NO_SECCOMP}"
        yield from _container(container, at)
    yield from _ports(spec, where)
    if (grace := spec.get("terminationGracePeriodSeconds")) is not None and grace < 0:
        message = "must be >= 0; negative values are invalid and will be treated as 1"
        yield f"{where}.terminationGracePeriodSeconds: {message}"
    yield from _affinity(spec.get("affinity") or {}, f"{where}.affinity")
    for index, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        yield from address(server, f"{where}.dnsConfig.nameservers[{index}]")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        yield from address(alias.get("ip", ""), f"{where}.hostAliases[{index}].ip")


def _nodes(spec: Object, path: str) -> Iterator[str]:
    for label in spec.get("nodeSelector") or {}:
        if message := deprecated(label):
            yield f"{path}.nodeSelector[{label}]: {message}"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    for index, term in enumerate((affinity.get(_NEEDED) or {}).get("nodeSelectorTerms") or ()):
        yield from node_term(term, f"{path}.affinity.nodeAffinity.{_NEEDED}.nodeSelectorTerms[{index}]")
    for index, liked in enumerate(affinity.get(_LIKED) or ()):
        where = f"{path}.affinity.nodeAffinity.{_LIKED}[{index}].preference"
        yield from node_term(liked.get("preference") or {}, where, values=True)
    for index, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        where, label = f"{path}.topologySpreadConstraints[{index}]", spread.get("topologyKey")
        if message := deprecated(label):
            yield f"{where}.topologyKey: {label} is {message}"
        if spread.get("labelSelector") is None:
            yield f"{where}.labelSelector: {_NO_SELECTOR}"


def _references(spec: Object, path: str) -> Iterator[str]:
    for key, field, word in (("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")):
        seen: set[str] = set()
        for index, item in enumerate(spec.get(key) or ()):
            value = item.get(field, "")
            if value in seen:
                yield f'{path}.{key}[{index}].{field}: duplicate {word} "{value}"'
            seen.add(value)
    for index, item in enumerate(spec.get("imagePullSecrets") or ()):
        if not item.get("name"):
            yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'


def _whole(amounts: Object, name: str, path: str) -> Iterator[str]:
    value = amounts.get(name)
    if value is not None and is_fraction(value):
        yield f'{path}[{name}]: fractional byte value "{value}" is invalid, must be an integer'


def _container(container: Object, path: str) -> Iterator[str]:
    resources = container.get("resources") or {}
    for name in ("memory", "ephemeral-storage"):
        for kind in ("limits", "requests"):
            yield from _whole(resources.get(kind) or {}, name, f"{path}.resources.{kind}")
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or ()):
        name, value = variable.get("name", ""), variable.get("value", "")
        # A redefinition that extends the earlier value is intended.
        adds = value != f"$({name})" and f"$({name})" in value and "valueFrom" not in variable
        if name in seen and not adds:
            yield (
                f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
            )
        seen.add(name)


def _ports(spec: Object, path: str) -> Iterator[str]:
    seen: dict[tuple[int, str], list[tuple[str, str, int]]] = {}
    for container, at in all_containers(spec, path):
        for index, port in enumerate(container.get("ports") or ()):
            where, ip, outside = f"{at}.ports[{index}]", port.get("hostIP", ""), port.get("hostPort", 0)
            inside, protocol = port.get("containerPort", 0), port.get("protocol", "")
            if ip and not outside:
                shown = (
                    f"Name:{port.get('name', '')} HostPort:0 ContainerPort:{inside} Protocol:{protocol} HostIP:{ip}"
                )
                yield f"{where}: hostIP set without hostPort: {{{shown}}}"
            others = seen.setdefault((inside, protocol), [])
            for other, other_ip, other_outside in others:
                if (ip, outside) == (other_ip, other_outside):
                    yield f"{where}: duplicate port definition with {other}"
                elif not outside or not other_outside:
                    yield f"{where}: overlapping port definition with {other}"
                elif outside == other_outside and bool(ip) != bool(other_ip):
                    yield f"{where}: dangerously ambiguous port definition with {other}"
            others.append((where, ip, outside))
    names: dict[str, str] = {}
    for container, at in all_containers(spec, path):
        for index, port in enumerate(container.get("ports") or ()):
            if not (name := port.get("name")):
                continue
            if name in names:
                message = f'duplicate port name "{name}" with {names[name]}'
                used = f"services and probes that select ports by name will use {names[name]}"
                yield f"{at}.ports[{index}]: {message}, {used}"
            else:
                names[name] = f"{at}.ports[{index}]"


def _affinity(affinity: Object, path: str) -> Iterator[str]:
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(kind) or {}
        for index, term in enumerate(pods.get(_NEEDED) or ()):
            if term.get("labelSelector") is None:
                yield f"{path}.{kind}.{_NEEDED}[{index}].labelSelector: {_NO_SELECTOR}"
        for index, liked in enumerate(pods.get(_LIKED) or ()):
            if (liked.get("podAffinityTerm") or {}).get("labelSelector") is None:
                yield f"{path}.{kind}.{_LIKED}[{index}].podAffinityTerm.labelSelector: {_NO_SELECTOR}"
