"""What a server warns of when an object is written (`pkg/api/pod`, `pkg/api/node` and the strategies' warnings)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cumulet.kube.schema.strategy import counts_generations, pod_spec

Object = dict[str, Any]

_DEPRECATED_LABELS = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}
_SINCE = {"beta.kubernetes.io/arch": "v1.14", "beta.kubernetes.io/os": "v1.14"}


def warnings(obj: Object, group: str, kind: str, old: Object | None = None) -> list[str]:
    """What the writer of an object, or of a change from `old`, is to be told.

    A change is worth a word where it counts as one of the spec; pods change by machines, which read none.
    """
    if (group, kind) == ("", "Endpoints"):
        return ["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"]
    if (group, kind) == ("", "Service"):
        return list(_service(obj.get("spec") or {}))
    spec, path = pod_spec(obj, group, kind)
    if not spec or (old is not None and not _is_changed(obj, old, group, kind)):
        return []
    return list(_pod(spec, path))


def _is_changed(obj: Object, old: Object, group: str, kind: str) -> bool:
    if (group, kind) == ("", "Pod"):
        return False
    same = obj["metadata"].get("generation") == old["metadata"].get("generation")
    return not (counts_generations(group, kind) and same)


def _deprecated(label: str) -> str:
    return f'deprecated since {_SINCE.get(label, "v1.17")}; use "{_DEPRECATED_LABELS[label]}" instead'


def _pod(spec: Object, path: str) -> Iterator[str]:
    for label in spec.get("nodeSelector") or {}:
        if label in _DEPRECATED_LABELS:
            yield f"{path}.nodeSelector[{label}]: {_deprecated(label)}"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    needed = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    where = f"{path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    for index, term in enumerate(needed):
        yield from _term(term, f"{where}[{index}]")
    where = f"{path}.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    for index, weighed in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        yield from _term(weighed.get("preference") or {}, f"{where}[{index}].preference")
    for index, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        where = f"{path}.topologySpreadConstraints[{index}]"
        if (label := spread.get("topologyKey")) in _DEPRECATED_LABELS:
            yield f"{where}.topologyKey: {label} is {_deprecated(label)}"
        if spread.get("labelSelector") is None:
            yield f"{where}.labelSelector: a null labelSelector results in matching no pod"
    for index, volume in enumerate(spec.get("volumes") or ()):
        if "gitRepo" in volume:
            yield f"{path}.volumes[{index}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"
    yield from _named_twice(spec.get("imagePullSecrets") or (), f"{path}.imagePullSecrets")
    for key in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(key) or ()):
            yield from _container(container, f"{path}.{key}[{index}]")
    if (grace := spec.get("terminationGracePeriodSeconds")) is not None and grace < 0:
        yield f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"


def _term(term: Object, path: str) -> Iterator[str]:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        label = expression.get("key")
        if label in _DEPRECATED_LABELS:
            yield f"{path}.matchExpressions[{index}].key: {label} is {_deprecated(label)}"


def _named_twice(references: Any, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, reference in enumerate(references):
        name = reference.get("name", "")
        if not name:
            yield f'{path}[{index}].name: invalid empty name ""'
        elif name in seen:
            yield f'{path}[{index}].name: duplicate name "{name}"'
        seen.add(name)


def _container(container: Object, path: str) -> Iterator[str]:
    for kind in ("limits", "requests"):
        for name in ("memory", "ephemeral-storage"):
            value = ((container.get("resources") or {}).get(kind) or {}).get(name, "")
            if value.endswith("m"):
                where = f"{path}.resources.{kind}[{name}]"
                yield f'{where}: fractional byte value "{value}" is invalid, must be an integer'
    seen: set[str] = set()
    for index, variable in enumerate(container.get("env") or ()):
        name = variable.get("name", "")
        if name in seen:
            yield (
                f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
            )
        seen.add(name)


def _service(spec: Object) -> Iterator[str]:
    if spec.get("type") == "ExternalName" and spec.get("sessionAffinity") not in (None, "None"):
        yield 'spec.SessionAffinity is ignored when spec.type is "ExternalName"'
