"""Validation of container environments, and of the pod fields that a container can read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, invalid, required, unsupported
from cumulet.kube.schema.validation.paths import no_backsteps

_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
#: All field names that are valid in environments or in volumes.
_KNOWN_FIELDS = frozenset((*_ENV_FIELDS, *VOLUME_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase"))
_SUBSCRIPT = re.compile(r"(.*)\['(.*)'\]\Z", re.DOTALL)
_RESOURCES = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_SIZES = ("1", *(f"1{prefix}" for prefix in "kMGTPE"), *(f"1{prefix}i" for prefix in "KMGTPE"))
_OTHER_DIVISORS = f"only divisor's values {', '.join(_SIZES)} are supported with the"


def environment(variables: Iterable[Object], field: str) -> Causes:
    """Validate the variables of an environment."""
    for index, variable in enumerate(variables):
        where = f"{field}[{index}]"
        if not (name := variable.get("name", "")):
            yield required(f"{where}.name")
        else:
            yield from all_invalid(f"{where}.name", name, name_formats.variable_name(name))
        if (source := variable.get("valueFrom")) is not None:
            yield from _value_from(source, variable.get("value", ""), f"{where}.valueFrom")


def _value_from(source: Object, value: str, field: str) -> Causes:
    given = [key for key in _SOURCES if key in source]
    for key in given:
        reference, where = source[key], f"{field}.{key}"
        if key == "fieldRef":
            yield from object_field(reference, _ENV_FIELDS, where)
        elif key == "resourceFieldRef":
            yield from resource_field(reference, where, in_volume=False)
        elif key == "fileKeyRef":
            yield from _file_key(reference, where)
        else:
            yield from all_invalid(f"{where}.name", reference.get("name", ""), _name(reference))
            yield from _key(reference.get("key", ""), f"{where}.key")
    if not given:
        words = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        yield invalid(field, "", f"must specify one of: {words}")
    elif value:
        yield invalid(field, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        yield invalid(field, "", "may not have more than one field specified at a time")


def _name(reference: Object) -> list[str]:
    return name_formats.dns_subdomain(reference.get("name", ""))


def _key(key: str, field: str) -> Causes:
    if not key:
        yield required(field)
    else:
        yield from all_invalid(field, key, name_formats.config_key(key))


def _file_key(reference: Object, field: str) -> Causes:
    key, volume, path = (reference.get(name, "") for name in ("key", "volumeName", "path"))
    if not key:
        yield required(f"{field}.key")
    else:
        yield from all_invalid(f"{field}.key", key, name_formats.variable_name(key))
    if not volume:
        yield required(f"{field}.volumeName")
    else:
        yield from all_invalid(f"{field}.volumeName", volume, name_formats.dns_label(volume))
    if not path:
        yield required(f"{field}.path")
    else:
        yield from no_backsteps(path, f"{field}.path")


def object_field(reference: Object, fields: tuple[str, ...], field: str) -> Causes:
    """Validate a reference to a field of the pod."""
    version, path = reference.get("apiVersion", ""), reference.get("fieldPath", "")
    if not version:
        yield required(f"{field}.apiVersion")
        return
    if not path:
        yield required(f"{field}.fieldPath")
        return
    subscripted = _SUBSCRIPT.match(path)
    plain = subscripted[1] if subscripted else path
    known = plain in ("metadata.annotations", "metadata.labels") if subscripted else plain in _KNOWN_FIELDS
    if version != "v1":
        yield invalid(f"{field}.fieldPath", path, f"error converting fieldPath: unsupported pod version: {version}")
    elif not known:
        why = f"error converting fieldPath: field label not supported: {path}"
        if subscripted:
            why = f"error converting fieldPath: field label does not support subscript: {path}"
        yield invalid(f"{field}.fieldPath", path, why)
    elif subscripted:
        key = fold(subscripted[2]) if plain == "metadata.annotations" else subscripted[2]
        yield from all_invalid(field, key, name_formats.qualified_name(key))
    elif path not in fields:
        yield unsupported(f"{field}.fieldPath", path, fields)


def resource_field(reference: Object, field: str, *, in_volume: bool) -> Causes:
    """Validate a reference to a resource of a container."""
    resource = reference.get("resource", "")
    if in_volume and not reference.get("containerName"):
        yield required(f"{field}.containerName")
    elif not resource:
        yield required(f"{field}.resource")
    elif resource not in _RESOURCES and not resource.startswith(_HUGE_PAGES):
        yield unsupported(f"{field}.resource", resource, _RESOURCES)
    divisor = reference.get("divisor", "0")
    if decimal(divisor) == 0:
        return
    if resource in ("limits.cpu", "requests.cpu"):
        if divisor not in ("1m", "1"):
            why = "only divisor's values 1m and 1 are supported with the cpu resource"
            yield invalid(f"{field}.divisor", resource, why)
    elif divisor not in _SIZES:
        for names, word in (
            (("limits.memory", "requests.memory"), "memory"),
            (("limits.ephemeral-storage", "requests.ephemeral-storage"), "local ephemeral storage"),
        ):
            if resource in names:
                yield invalid(f"{field}.divisor", resource, f"{_OTHER_DIVISORS} {word} resource")
        if resource.startswith(_HUGE_PAGES):
            yield invalid(f"{field}.divisor", resource, f"{_OTHER_DIVISORS} hugepages resource")


def environment_sources(sources: Iterable[Object], field: str) -> Causes:
    """Validate the config maps and secrets that become environment variables."""
    for index, source in enumerate(sources):
        where = f"{field}[{index}]"
        if prefix := source.get("prefix"):
            yield from all_invalid(f"{where}.prefix", prefix, name_formats.variable_name(prefix))
        given = [key for key in ("configMapRef", "secretRef") if key in source]
        for key in given:
            if not (name := source[key].get("name", "")):
                yield required(f"{where}.{key}.name")
            else:
                yield from all_invalid(
                    f"{where}.{key}.name", name, name_formats.dns_subdomain(name_formats.base_of(name))
                )
        if not given:
            yield invalid(field, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            yield invalid(field, "", "may not have more than one field specified at a time")
