"""Validation of resource names and amounts in containers, pods, quotas and limit ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal, milli
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.quantity import canonical, total
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    forbidden,
    invalid,
    not_found,
    required,
    unsupported,
)

NameRule = Callable[[str, str], Causes]

_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_COUNTED = (
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
)
_QUOTA = frozenset(
    (
        *_COMPUTE,
        *_COUNTED,
        "requests.storage",
        *(f"{kind}.{name}" for kind in ("requests", "limits") for name in _COMPUTE),
    )
)
_STANDARD = _QUOTA | {"storage"}
_POD_LEVEL = ("cpu", "memory", "hugepages-")


def is_huge_page(name: str) -> bool:
    """Whether a resource is huge pages."""
    return name.startswith("hugepages-")


def is_native(name: str) -> bool:
    """Whether a resource is one of Kubernetes' own."""
    return "/" not in name or "kubernetes.io/" in name


def is_quota_name(name: str) -> bool:
    """Whether a quota can limit a resource."""
    return name in _QUOTA or name.startswith(("hugepages-", "requests.hugepages-"))


def is_extended(name: str) -> bool:
    """Whether a resource is an extended resource."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not name_formats.qualified_name(f"requests.{name}")


def _is_whole(name: str) -> bool:
    return name in _COUNTED or is_extended(name)


def resource_name(name: str, field: str) -> Causes:
    """Validate the name of a resource."""
    if messages := name_formats.qualified_name(name):
        yield from all_invalid(field, name, messages)
    elif "/" not in name and name not in _STANDARD and not is_quota_name(name):
        yield invalid(field, name, "must be a standard resource type or fully qualified")


def container_resource(name: str, field: str) -> Causes:
    """Validate the name of a container's resource."""
    yield from resource_name(name, field)
    if "/" not in name:
        if name not in _COMPUTE and not is_huge_page(name):
            yield invalid(field, name, "must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        yield invalid(field, name, "doesn't follow extended resource name standard")


def _pod_resource(name: str, field: str) -> Causes:
    found = list(resource_name(name, field))
    yield from found
    if not found and not name.startswith(_POD_LEVEL):
        yield unsupported(field, name, _POD_LEVEL)


def quota_resource(name: str, field: str) -> Causes:
    """Validate the name of a resource in a quota."""
    yield from resource_name(name, field)
    if "/" not in name and not is_quota_name(name):
        yield invalid(field, name, "must be a standard resource for quota")


def amount(name: str, value: str, field: str) -> Causes:
    """Validate an amount of a resource."""
    if decimal(value) < 0:
        yield invalid(field, value, name_formats.NEGATIVE)
    if _is_whole(name) and milli(value) % 1000:
        yield invalid(field, value, "must be an integer")


def container_resources(resources: Object, field: str, claims: Collection[str] = ()) -> Causes:
    """Validate the resources of a container; `claims` are those of its pod."""
    return requirements(resources, field, container_resource, claims)


def requirements(resources: Object, field: str, name_rule: NameRule, claims: Collection[str] = ()) -> Causes:
    """Validate requests and limits."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, value in sorted(limits.items()):
        where = f"{field}.limits[{name}]"
        yield from name_rule(name, where)
        yield from amount(name, value, where)
        yield from _huge_pages(name, value, where)
    for name, value in sorted(requests.items()):
        where = f"{field}.requests[{name}]"
        yield from name_rule(name, where)
        yield from amount(name, value, where)
        overcommits = is_native(name) and not is_huge_page(name)
        if name in limits:
            if not overcommits and decimal(value) != decimal(limits[name]):
                yield invalid(f"{field}.requests", value, f"must be equal to {name} limit of {limits[name]}")
            elif decimal(value) > decimal(limits[name]):
                why = f"must be less than or equal to {name} limit of {limits[name]}"
                yield invalid(f"{field}.requests", value, why)
        elif not overcommits:
            yield required(f"{field}.limits", "Limit must be set for non overcommitable resources")
        yield from _huge_pages(name, value, where)
    names = limits.keys() | requests.keys()
    if any(map(is_huge_page, names)) and not names & {"cpu", "memory"}:
        yield forbidden(field, "HugePages require cpu or memory")
    yield from _claims(resources.get("claims") or (), f"{field}.claims", claims)


def _huge_pages(name: str, value: str, field: str) -> Causes:
    if not is_huge_page(name):
        return
    try:
        size = milli(canonical(name.removeprefix("hugepages-")))
        fits = size > 0 and size % 1000 == 0 and milli(value) % size == 0
    except ValueError:
        fits = False
    if not fits:
        yield invalid(field, value, f"{value} is not positive integer multiple of {name}")


def _claims(references: Iterable[Object], field: str, claims: Collection[str]) -> Causes:
    names: set[str] = set()
    for index, claim in enumerate(references):
        name, request, where = claim.get("name", ""), claim.get("request", ""), f"{field}[{index}]"
        if not name:
            yield required(where)
            continue
        if name in names:
            yield duplicate(where, name)
        else:
            key = f"{name}/{request}" if request else name
            if request:
                yield from all_invalid(f"{where}.request", request, name_formats.dns_label(request))
            if key in names:
                yield duplicate(where, key)
            elif not request:
                for _ in (other for other in names if other.startswith(f"{name}/")):
                    yield duplicate(where, name)
            names.add(key)
        if name not in claims:
            choices = f": {', '.join(sorted(claims))}" if claims else " which is empty"
            yield not_found(where, name, f"must be one of the names in pod.spec.resourceClaims{choices}")


def pod_resources(spec: Object, field: str) -> Causes:
    """Validate the resources of a pod as a whole."""
    found = spec["resources"]
    if (spec.get("os") or {}).get("name") == "windows":
        yield forbidden(field, "may not be set for a windows pod")
        return
    if found.get("claims") is not None:
        yield forbidden(f"{field}.claims", "claims may not be set for Resources at pod-level")
    yield from requirements(found, field, _pod_resource)
    requests, limits = found.get("requests") or {}, found.get("limits") or {}
    for name, value in sorted(requests.items()):
        requests = _container_requests(spec, name)
        if requests and sum(map(milli, requests)) > milli(value):
            why = f"must be greater than or equal to aggregate container requests of {total(requests)}"
            yield invalid(f"{field}.requests[{name}]", value, why)
    for index, container in enumerate(spec.get("containers") or ()):
        for name, value in sorted(((container.get("resources") or {}).get("limits") or {}).items()):
            if name in limits and decimal(value) > decimal(limits[name]):
                why = f"must be less than or equal to pod limits of {limits[name]}"
                yield invalid(f"{field}.containers[{index}][{name}].limits", value, why)


def _container_requests(spec: Object, name: str) -> list[str]:
    """Return the request of each container that has one for this resource."""
    return [
        container["resources"]["requests"][name]
        for container in spec.get("containers") or ()
        if name in ((container.get("resources") or {}).get("requests") or {})
    ]
