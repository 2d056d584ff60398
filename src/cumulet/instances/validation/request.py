"""Parses the body of a request: no unknown, read-only or unsupported property is left.

Errors have ARM's form, and Azure Container Instances' messages if there are any; `target` is the path of the property.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import msgspec

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.instances.model.properties import CONTAINER_LISTS, GroupProperties
from cumulet.instances.model.regions import Maximum
from cumulet.instances.validation import amounts
from cumulet.instances.validation.changes import GroupChanges, changed
from cumulet.instances.validation.group import check_group
from cumulet.instances.validation.text import NAME, invalid, quoted

#: Values in the properties of a group, in all.
_VALUES = 100_000
_RESOURCE = ("id", "name", "type", "location", "tags", "properties", "systemData", "identity", "zones")
_RESOURCE_UNSUPPORTED = ("extendedLocation", "plan", "managedBy")
_GROUP_READ_ONLY = ("provisioningState", "instanceView", "isCreatedFromStandbyPool", "isCustomProvisioningTimeout")
#: The availability zones of a region.
ZONES = ("1", "2", "3")
_ADDRESS_READ_ONLY = ("ip", "fqdn")


def parse_group(group: str, location: str, body: Mapping[str, object], maximum: Maximum) -> GroupProperties:
    """Return the properties in a request. Raises `ArmError` with the property and the reason."""
    _check_resource(group, body)
    try:
        properties = msgspec.convert(_settable(body.get("properties")), GroupProperties)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        target = f"properties{path.strip('`').removeprefix('$')}"
        raise ArmError(400, "InvalidRequestContent", f"{target}: {message}", target=target) from None
    _refuse_unsupported(group, properties, "properties")
    check_group(group, properties)
    amounts.check(group, location, properties, maximum)
    address = properties.ip_address
    if address is not None and address.type == "Private" and not properties.subnet_ids:
        raise invalid(
            "properties.ipAddress.type",
            f"The IP address of container group '{group}' is of the type Private, which needs subnetIds: use Public.",
        )
    return properties


def parse_changes(
    group: str, location: str, properties: GroupProperties, body: Mapping[str, object], maximum: Maximum
) -> GroupProperties | None:
    """Return the properties of a group as a PATCH changes them, or `None` if it changes none.

    Raises `ArmError` for properties that do not change while containers run, and for changes that are not valid.
    """
    _check_resource(group, body)
    asked = _present(body.get("properties") or {})
    if not asked:
        return None
    try:
        changes = msgspec.convert(asked, GroupChanges)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        target = f"properties{path.strip('`').removeprefix('$')}"
        raise ArmError(400, "InvalidRequestContent", f"{target}: {message}: use PUT.", target=target) from None
    _refuse_unsupported(group, changes, "properties")
    result = changed(properties, changes)
    amounts.check(group, location, result, maximum)
    return result


def parse_zones(value: object) -> list[str]:
    """Return the `zones` of a request, which are at most one. Raises `ArmError`."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > 1 or any(zone not in ZONES for zone in value):
        raise ArmError(
            400,
            "InvalidAvailabilityZone",
            f"The zones of a container group are at most one of {', '.join(ZONES)}.",
            target="zones",
        )
    return [str(zone) for zone in value]


def check_name(name: str) -> None:
    """Raise `ArmError` 400 unless a group can have that name, in letters of either case."""
    if not NAME.fullmatch(fold(name)):
        raise ArmError(
            400, "InvalidContainerGroupName", f"The container group name '{quoted(name)}' is invalid.", target="name"
        )


def _check_resource(group: str, body: Mapping[str, object]) -> None:
    for name, value in body.items():
        if name in _RESOURCE_UNSUPPORTED:
            if value:
                raise _unsupported(group, name)
        elif name not in _RESOURCE:
            raise invalid(quoted(name), f"The property '{quoted(name)}' is not a property of a container group.")


def _settable(properties: object) -> object:
    """Remove read-only properties, which clients send back after a GET, and nulls, which mean absent."""
    present = _present(properties)
    if not isinstance(present, dict):
        return present
    settable = _without(present, _GROUP_READ_ONLY)
    if isinstance(address := settable.get("ipAddress"), dict):
        settable["ipAddress"] = _without(address, _ADDRESS_READ_ONLY)
    for kind in CONTAINER_LISTS:
        for container in containers if isinstance(containers := settable.get(kind), list) else ():
            if isinstance(container, dict) and isinstance(container.get("properties"), dict):
                container["properties"] = _without(container["properties"], ("instanceView",))
    return settable


def _without(document: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in document.items() if name not in names}


def _present(value: object) -> object:
    """Return a copy without nulls. Raises `ArmError` for more values than any group has."""
    left = _VALUES

    def copy(value: object) -> object:
        nonlocal left
        if not isinstance(value, (dict, list)):
            return value
        left -= len(value)
        if left < 0:
            raise invalid("properties", f"The properties have more than {_VALUES} values.")
        if isinstance(value, dict):
            return {name: copy(item) for name, item in value.items() if item is not None}
        return [copy(item) for item in value]

    return copy(value)


def _refuse_unsupported(group: str, value: msgspec.Struct, path: str) -> None:
    for name, shown, unsupported in _fields(type(value)):
        found = getattr(value, name)
        if not found:
            if unsupported:
                setattr(value, name, None)
        elif unsupported:
            raise _unsupported(group, f"{path}.{shown}")
        elif isinstance(found, msgspec.Struct):
            _refuse_unsupported(group, found, f"{path}.{shown}")
        elif isinstance(found, list) and isinstance(found[0], msgspec.Struct):
            for number, item in enumerate(found):
                _refuse_unsupported(group, item, f"{path}.{shown}[{number}]")


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, bool], ...]:
    """Return the fields that can be structures: name, name in JSON, and whether the field is unsupported."""
    plain = (str, int, bool, float)
    unsupported = getattr(kind, "UNSUPPORTED", ())
    return tuple(
        (field.name, field.encode_name, field.name in unsupported)
        for field in msgspec.structs.fields(kind)
        if field.type not in plain
    )


def _unsupported(group: str, path: str) -> ArmError:
    return ArmError(
        400,
        "UnsupportedProperty",
        f"The property '{path}' of container group '{group}' is not supported: remove it.",
        target=path,
    )
