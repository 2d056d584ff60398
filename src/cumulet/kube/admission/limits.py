"""Plug-in LimitRanger: defaults and bounds of what a container, a pod or a claim may ask for in a namespace."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from cumulet.common.kubernetes.amounts import Amounts, container_amounts, pod_amounts
from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.status import forbidden
from cumulet.kube.store import Store

Object = dict[str, Any]

_ANNOTATION = "kubernetes.io/limit-ranger"


class LimitRanges:
    """The limit ranges of each namespace."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def apply(self, pod: Object) -> None:
        """Fill in what containers do not say, in place, then check. Raises `ApiError` 403."""
        limits = list(self._of(pod["metadata"]["namespace"]))
        if not limits:
            return
        for limit in limits:
            if limit.get("type") == "Container":
                _default(pod, limit)
        refusals = [text for limit in limits for text in _violations(pod, limit)]
        _refuse("pods", pod, refusals)

    def check_claim(self, claim: Object) -> None:
        """Raises `ApiError` 403 where a claim asks for too little or too much."""
        asked = {
            name: decimal(value)
            for name, value in ((claim["spec"].get("resources") or {}).get("requests") or {}).items()
        }
        refusals = [
            text
            for limit in self._of(claim["metadata"]["namespace"])
            if limit.get("type") == "PersistentVolumeClaim"
            for text in _outside(limit, "PersistentVolumeClaim", asked, asked)
        ]
        _refuse("persistentvolumeclaims", claim, refusals)

    def _of(self, namespace: str) -> Iterator[Object]:
        for stored in self._store.list("limitranges", namespace):
            yield from (stored.load().get("spec") or {}).get("limits") or ()


def _refuse(plural: str, obj: Object, refusals: list[str]) -> None:
    if refusals:
        why = refusals[0] if len(refusals) == 1 else f"[{', '.join(refusals)}]"
        raise forbidden("", plural, obj["metadata"]["name"], why)


def _default(pod: Object, limit: Object) -> None:
    told: list[str] = []
    for key, what in (("initContainers", "init container"), ("containers", "container")):
        for container in pod["spec"].get(key) or ():
            resources = container.setdefault("resources", {})
            for kind, source, word in (("requests", "defaultRequest", "request"), ("limits", "default", "limit")):
                set_here = []
                for name, value in sorted((limit.get(source) or {}).items()):
                    if name not in (resources.get(kind) or {}):
                        resources.setdefault(kind, {})[name] = value
                        set_here.append(name)
                if set_here:
                    told.append(f"{', '.join(set_here)} {word} for {what} {container['name']}")
    if told:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[_ANNOTATION] = f"LimitRanger plugin set: {'; '.join(told)}"


def _violations(pod: Object, limit: Object) -> Iterator[str]:
    spec = pod["spec"]
    if limit.get("type") == "Pod":
        yield from _outside(limit, "Pod", pod_amounts(spec, "requests"), pod_amounts(spec, "limits"))
    elif limit.get("type") == "Container":
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            requests, limits = (container_amounts(container, kind) for kind in ("requests", "limits"))
            yield from _outside(limit, "Container", requests, limits)


def _outside(limit: Object, kind: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, text in (limit.get("min") or {}).items():
        least = decimal(text)
        for word, amounts in (("request", requests), ("limit", limits)):
            if name in amounts and amounts[name] < least:
                yield f"minimum {name} usage per {kind} is {text}, but {word} is {_plain(amounts[name])}"
        if name not in requests:
            yield f"minimum {name} usage per {kind} is {text}.  No request is specified"
    for name, text in (limit.get("max") or {}).items():
        most = decimal(text)
        for word, amounts in (("limit", limits), ("request", requests)):
            if name in amounts and amounts[name] > most:
                yield f"maximum {name} usage per {kind} is {text}, but {word} is {_plain(amounts[name])}"
                break
        if name not in limits:
            yield f"maximum {name} usage per {kind} is {text}.  No limit is specified"
    for name, text in (limit.get("maxLimitRequestRatio") or {}).items():
        asked, allowed = requests.get(name), limits.get(name)
        if asked and allowed and allowed / asked > decimal(text):
            shown = f"{allowed / asked:.6f}"
            yield f"{name} max limit to request ratio per {kind} is {text}, but provided ratio is {shown}"


def _plain(value: Decimal) -> str:
    from cumulet.kube.schema.quantity import canonical

    return canonical(str(value))
