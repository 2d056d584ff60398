"""Replaces fields that are known only when the group has its address, in the container properties with `expandFields`.

`$(status.podIP)` and `$(status.podIPs)` become the address, `$$` a dollar sign; everything else stays, also in what is put
in. The syntax is Kubernetes' own; the caller resolves the variables of `$(NAME)` and doubles every other dollar sign.
"""

from __future__ import annotations

import re

import msgspec

from cumulet.instances.model.properties import Container, Mount, Variable

_FIELD = re.compile(r"\$(?:\$|\(status\.podIPs?\))")


def expanded(container: Container, address: str) -> Container:
    """Return the container as it is with the address of its group."""
    properties = container.properties
    if not properties.expand_fields:
        return container

    def expand(text: str) -> str:
        return _FIELD.sub(lambda match: "$" if match[0] == "$$" else address, text)

    def words(line: list[str] | None) -> list[str] | None:
        return None if line is None else [expand(word) for word in line]

    def variable(item: Variable) -> Variable:
        if item.secure_value is not None:
            return msgspec.structs.replace(item, secure_value=expand(item.secure_value))
        return msgspec.structs.replace(item, value=expand(item.value or ""))

    def mount(item: Mount) -> Mount:
        return item if item.sub_path is None else msgspec.structs.replace(item, sub_path=expand(item.sub_path))

    return msgspec.structs.replace(
        container,
        properties=msgspec.structs.replace(
            properties,
            command=words(properties.command),
            args=words(properties.args),
            environment_variables=[variable(item) for item in properties.environment_variables],
            volume_mounts=[mount(item) for item in properties.volume_mounts],
        ),
    )
