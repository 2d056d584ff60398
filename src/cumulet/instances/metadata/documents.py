"""The documents of the metadata service about a group: `/metadata/instance` and its parts."""

from __future__ import annotations

import msgspec

from cumulet.common.arm import ResourceId
from cumulet.instances.store.records import GroupRecord


class MissingError(Exception):
    """There is nothing at the path."""


class NotTextError(Exception):
    """The part at the path is an object, which has no text."""


def instance(record: GroupRecord) -> dict[str, object]:
    """Return the metadata of a group, with the names that it has of a virtual machine."""
    resource = ResourceId(record.id)
    tags = sorted(record.tags.items())
    return {
        "compute": {
            "azEnvironment": "Cumulet",
            "location": record.location,
            "name": resource.name,
            "osType": "Linux",
            "provider": "Microsoft.ContainerInstance",
            "resourceGroupName": resource.resource_group or "",
            "resourceId": record.id,
            "subscriptionId": resource.subscription,
            "tags": ";".join(f"{name}:{value}" for name, value in tags),
            "tagsList": [{"name": name, "value": value} for name, value in tags],
            "vmId": record.uid,
        },
        "network": {
            "interface": [
                {
                    "ipv4": {"ipAddress": [{"privateIpAddress": record.status.ip, "publicIpAddress": ""}]},
                    "ipv6": {"ipAddress": []},
                }
            ]
        },
    }


def part(document: object, path: list[str]) -> object:
    """Return the part of a document at a path of names and numbers. Raises `MissingError`."""
    for name in path:
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name in map(str, range(len(document))):
            document = document[int(name)]
        else:
            raise MissingError
    return document


def as_text(document: object) -> str:
    """Return a part as text: a value itself, or the names and numbers below it, one a line. Raises `NotTextError`."""
    match document:
        case str():
            return document
        case dict():
            return "\n".join(
                f"{name}/" if isinstance(value, dict | list) else name for name, value in document.items()
            )
        case list():
            return "\n".join(f"{number}/" for number in range(len(document)))
    raise NotTextError


def as_json(document: object) -> bytes:
    """Return a part as JSON. Raises `NotTextError` for a value, which is available as text only."""
    if not isinstance(document, dict | list):
        raise NotTextError
    return msgspec.json.encode(document)
