"""Validation of limit ranges and resource quotas."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, duplicate, forbidden, invalid, required
from cumulet.kube.schema.validation.resources import (
    amount,
    container_resource,
    is_extended,
    is_huge_page,
    quota_resource,
    resource_name,
)

_SCOPES = (
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
)
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_DEFAULTS = ("default", "defaultRequest")


def resource_quota(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a quota."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    for name, value in sorted((spec.get("hard") or {}).items()):
        causes += quota_resource(name, f"spec.hard[{name}]")
        causes += amount(name, value, f"spec.hard[{name}]")
    scopes = spec.get("scopes") or []
    causes += [invalid("spec.scopes", scopes, "unsupported scope") for scope in scopes if scope not in _SCOPES]
    return causes


def limit_range(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a limit range."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        field, kind = f"spec.limits[{index}]", limit.get("type") or ""
        causes += _type(kind, f"{field}.type")
        if kind in seen:
            causes.append(duplicate(f"{field}.type", kind))
        seen.add(kind)
        causes += _limit(limit, kind, field)
    return causes


def _type(kind: str, field: str) -> Causes:
    if messages := name_formats.qualified_name(kind):
        yield from all_invalid(field, kind, messages)
    elif "/" not in kind and kind not in _TYPES:
        yield invalid(field, kind, "must be a standard limit type or fully qualified")


def _limit(limit: Object, kind: str, field: str) -> Causes:
    names = container_resource if kind in ("Pod", "Container") else resource_name
    given = {key: limit.get(key) or {} for key in ("max", "min", *_DEFAULTS, "maxLimitRequestRatio")}
    for key, values in given.items():
        is_last = key == "maxLimitRequestRatio"
        if is_last and kind == "PersistentVolumeClaim" and not {"storage"} & {*given["min"], *given["max"]}:
            why = "either minimum or maximum storage value is required, but neither was provided"
            yield required(f"{field}.limits", why)
        if kind == "Pod" and key in _DEFAULTS:
            if values:
                yield forbidden(f"{field}.{key}", "may not be specified when `type` is 'Pod'")
            continue
        for name in sorted(values):
            yield from names(name, f"{field}.{key}[{name}]")
    for name in sorted({name for values in given.values() for name in values}):
        yield from _order({key: values.get(name) for key, values in given.items()}, name, field)


#: The lower field, the higher field, the message, and the field of each value that the message shows.
_ORDERS = (
    ("min", "max", "min value {} is greater than max value {}", "min", "min"),
    (
        "min",
        "defaultRequest",
        "min value {} is greater than default request value {}",
        "defaultRequest",
        "defaultRequest",
    ),
    (
        "defaultRequest",
        "max",
        "default request value {} is greater than max value {}",
        "defaultRequest",
        "defaultRequest",
    ),
    (
        "defaultRequest",
        "default",
        "default request value {} is greater than default limit value {}",
        "defaultRequest",
        "defaultRequest",
    ),
    ("min", "default", "min value {} is greater than default value {}", "default", "min"),
    ("default", "max", "default value {} is greater than max value {}", "default", "max"),
)


def _order(values: dict[str, str | None], name: str, field: str) -> Causes:
    for less, more, words, place, shown in _ORDERS:
        one, other = values[less], values[more]
        if one is not None and other is not None and decimal(one) > decimal(other):
            yield invalid(f"{field}.{place}[{name}]", values[shown], words.format(one, other))
    yield from _ratio(values, f"{field}.maxLimitRequestRatio[{name}]")
    one, other = values["default"], values["defaultRequest"]
    fixed = is_huge_page(name) or is_extended(name)
    if fixed and one is not None and other is not None and decimal(one) != decimal(other):
        why = f"default value {one} must equal to defaultRequest value {other} in {name}"
        yield invalid(f"{field}.defaultRequest[{name}]", other, why)


def _ratio(values: dict[str, str | None], where: str) -> Causes:
    ratio = values["maxLimitRequestRatio"]
    if ratio is None:
        return
    if decimal(ratio) < 1:
        yield invalid(where, ratio, f"ratio {ratio} is less than 1")
    least, most = values["min"], values["max"]
    if least is not None and most is not None and decimal(least) > 0:
        bound = decimal(most) / decimal(least)
        if decimal(ratio) > bound:
            yield invalid(where, ratio, f"ratio {ratio} is greater than max/min = {float(bound):f}")
