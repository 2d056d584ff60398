"""Checks stored groups, which earlier versions may have accepted by other rules."""

from __future__ import annotations

import msgspec

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.objects import Object
from cumulet.instances.model.properties import Container, ContainerProperties, EmptyDir, GroupProperties
from cumulet.instances.security.context import stored
from cumulet.instances.validation import amounts
from cumulet.instances.validation.group import check_group
from cumulet.instances.validation.text import NAME


def restore(group: str, document: Object) -> tuple[GroupProperties, str | None]:
    """Return the properties of a stored group and, if they are not valid, the reason; then only names are kept."""
    try:
        properties = msgspec.convert(_without_ignored(document), GroupProperties)
        check_group(group, properties)
        amounts.check_numbers(group, properties)
    except (msgspec.ValidationError, ArmError) as error:
        flaw = (
            f"The container group was created by an earlier version and is not valid: {error} Delete and recreate it."
        )
        return _names_only(document), flaw
    return properties, None


def _without_ignored(document: Object) -> Object:
    """Remove the properties that earlier versions accepted and ignored."""
    known = {field.encode_name for field in msgspec.structs.fields(EmptyDir)}
    for container in [*document.get("initContainers", ()), *document.get("containers", ())]:
        context = stored(container["properties"].get("securityContext"))
        container["properties"]["securityContext"] = {
            name: value for name, value in msgspec.to_builtins(context).items() if value is not None
        }
    for volume in document.get("volumes", ()):
        if "emptyDir" in volume:
            volume["emptyDir"] = {name: value for name, value in volume["emptyDir"].items() if name in known}
    return document


def _names_only(document: Object) -> GroupProperties:
    def containers(kind: str) -> list[Container]:
        return [
            Container(name=item["name"], properties=ContainerProperties(image=item["properties"]["image"]))
            for item in document.get(kind, ())
            if NAME.fullmatch(item["name"])
        ]

    return GroupProperties(containers=containers("containers"), init_containers=containers("initContainers"))
