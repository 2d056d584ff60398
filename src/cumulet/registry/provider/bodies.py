"""The JSON bodies of ARM requests and responses, as structs (Resource Manager's common types, v3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from cumulet.common.arm import ArmError

T = TypeVar("T")

#: The end of msgspec's messages: a property, and the path inside it.
_AT = re.compile(r" - at `\$\.(?P<name>\w+)(?P<rest>[^`]*)`\Z", re.ASCII)


class Properties(msgspec.Struct, rename="camel", kw_only=True):
    """The base of the `properties` in responses."""

    provisioning_state: str = "Succeeded"


class Sku(msgspec.Struct):
    """The SKU of a registry."""

    name: str
    tier: str


class ArmResource(msgspec.Struct, kw_only=True):
    """A resource in a response."""

    id: str
    name: str
    type: str
    location: str | UnsetType = UNSET
    tags: dict[str, str] | UnsetType = UNSET
    sku: Sku | UnsetType = UNSET
    properties: Properties


class ValueList(msgspec.Struct, Generic[T]):
    """The list in a response."""

    value: list[T]


def read_properties(body: Mapping[str, object], kind: type[T], messages: Mapping[str, str] | None = None) -> T:
    """The `properties` of a request body as a struct. A null counts as missing.

    Raises `ArmError` 400 for a property of another type, with the text in `messages` or else msgspec's.
    """
    properties = {} if body.get("properties") is None else body["properties"]
    if not isinstance(properties, dict):
        raise ArmError(400, "InvalidRequestContent", "properties must be an object.", target="properties")
    try:
        return msgspec.convert({name: value for name, value in properties.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _AT.search(text)
        if at is None:
            raise ArmError(400, "InvalidRequestContent", f"properties: {text}", target="properties") from None
        name, rest = at["name"], f" - at `${at['rest']}`" if at["rest"] else ""
        message = (messages or {}).get(name, f"{name}: {text[: at.start()]}{rest}")
        raise ArmError(400, "InvalidRequestContent", message, target=f"properties.{name}") from None


def given(value: T | UnsetType, default: T) -> T:
    """The value of a property, or `default` where the request does not have it."""
    return default if isinstance(value, UnsetType) else value
