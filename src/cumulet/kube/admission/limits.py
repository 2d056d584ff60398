"""Plug-in LimitRanger: defaults and bounds of the resources of containers, pods and claims in a namespace."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from cumulet.common.kubernetes.amounts import Amounts, container_amounts, pod_amounts
from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.usage import written
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import LimitRangeItem

_ANNOTATION = "kubernetes.io/limit-ranger"
_DEFAULTS: tuple[tuple[str, Literal["defaultRequest", "default"], str], ...] = (
    ("requests", "defaultRequest", "request"),
    ("limits", "default", "limit"),
)
_CONTAINERS = (("containers", "container"), ("initContainers", "init container"))


class LimitRanges:
    """Applies the limit ranges of each namespace."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def complete(self, pod: Object) -> None:
        """Set the default requests and limits of containers, in place."""
        for limits in self._of(pod["metadata"]["namespace"]):
            _default(pod, [limit for limit in limits if limit.get("type") == "Container"])

    def check_pod(self, pod: Object) -> None:
        """Check a pod and its containers. Raises `ApiError` 403."""
        for limits in self._of(pod["metadata"]["namespace"]):
            _refuse("pods", pod, [text for limit in limits for text in _violations(pod, limit)])

    def check_claim(self, claim: Object) -> None:
        """Check a claim. Raises `ApiError` 403."""
        requested = container_amounts(claim["spec"], "requests")
        for limits in self._of(claim["metadata"]["namespace"]):
            refusals = [
                text
                for limit in limits
                if limit.get("type") == "PersistentVolumeClaim"
                for text in (*_below(limit, requested, {}), *_above_requested(limit, requested))
            ]
            _refuse("persistentvolumeclaims", claim, refusals)

    def _of(self, namespace: str) -> Iterator[list[LimitRangeItem]]:
        for stored in self._store.list("limitranges", namespace):
            yield (stored.load().get("spec") or {}).get("limits") or []


def _refuse(plural: str, obj: Object, refusals: list[str]) -> None:
    if refusals:
        different = list(dict.fromkeys(refusals))
        why = different[0] if len(different) == 1 else f"[{', '.join(different)}]"
        raise forbidden("", plural, obj["metadata"]["name"], why)


def _default(pod: Object, limits: list[LimitRangeItem]) -> None:
    defaulted: list[str] = []
    for key, what in _CONTAINERS:
        for container in pod["spec"].get(key) or ():
            for kind, source, word in _DEFAULTS:
                defaults = {name: value for limit in limits for name, value in (limit.get(source) or {}).items()}
                own = (container.get("resources") or {}).get(kind) or {}
                if missing := {name: value for name, value in sorted(defaults.items()) if name not in own}:
                    container.setdefault("resources", {})[kind] = {**own, **missing}
                    defaulted.append(f"{', '.join(missing)} {word} for {what} {container['name']}")
    if defaulted:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[_ANNOTATION] = f"LimitRanger plugin set: {'; '.join(defaulted)}"


def _violations(pod: Object, limit: LimitRangeItem) -> Iterator[str]:
    spec = pod["spec"]
    if limit.get("type") == "Pod":
        yield from _outside(limit, pod_amounts(spec, "requests"), pod_amounts(spec, "limits"))
    elif limit.get("type") == "Container":
        for key, _ in _CONTAINERS:
            for container in spec.get(key) or ():
                yield from _outside(limit, *(container_amounts(container, kind) for kind in ("requests", "limits")))


def _outside(limit: LimitRangeItem, requests: Amounts, limits: Amounts) -> Iterator[str]:
    yield from _below(limit, requests, limits)
    yield from _above(limit, requests, limits)
    yield from _apart(limit, requests, limits)


def _below(limit: LimitRangeItem, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, text in (limit.get("min") or {}).items():
        start, least = f"minimum {name} usage per {limit['type']} is {text}", decimal(text)
        if name not in requests:
            yield f"{start}.  No request is specified"
        elif requests[name] < least:
            yield f"{start}, but request is {written(requests[name], text)}"
        elif name in limits and limits[name] < least:
            yield f"{start}, but limit is {written(limits[name], text)}"


def _above(limit: LimitRangeItem, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, text in (limit.get("max") or {}).items():
        start, most = f"maximum {name} usage per {limit['type']} is {text}", decimal(text)
        if name not in limits:
            yield f"{start}.  No limit is specified"
        elif limits[name] > most:
            yield f"{start}, but limit is {written(limits[name], text)}"
        elif name in requests and requests[name] > most:
            yield f"{start}, but request is {written(requests[name], text)}"


def _above_requested(limit: LimitRangeItem, requests: Amounts) -> Iterator[str]:
    """Yield the violations of a maximum by an object without limits, such as a claim."""
    for name, text in (limit.get("max") or {}).items():
        start = f"maximum {name} usage per {limit['type']} is {text}"
        if name not in requests:
            yield f"{start}.  No request is specified"
        elif requests[name] > decimal(text):
            yield f"{start}, but request is {written(requests[name], text)}"


def _apart(limit: LimitRangeItem, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, text in (limit.get("maxLimitRequestRatio") or {}).items():
        start = f"{name} max limit to request ratio per {limit['type']} is {text}, but"
        requested, allowed = requests.get(name, Decimal(0)), limits.get(name, Decimal(0))
        if not requested:
            yield f"{start} no request is specified or request is 0"
        elif not allowed:
            yield f"{start} no limit is specified or limit is 0"
        elif allowed / requested > decimal(text):
            yield f"{start} provided ratio is {allowed / requested:.6f}"
