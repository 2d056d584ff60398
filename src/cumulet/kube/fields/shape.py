"""The shape of a value from its schema: owned as a whole, field by field, or element by element."""

from __future__ import annotations

import functools

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.definitions import Definition, Field

_SCALARS = ("string", "integer", "number", "boolean")


class Shape:
    """The granularity of ownership of a value: atomic, or by its fields or elements."""

    __slots__ = ("atomic", "element", "embedded", "fields", "is_set", "keys")

    def __init__(
        self,
        *,
        atomic: bool = False,
        fields: Object | None = None,
        element: Shape | None = None,
        keys: tuple[str, ...] = (),
        is_set: bool = False,
        embedded: frozenset[str] = frozenset(),
    ) -> None:
        self.atomic = atomic
        self.fields = fields or {}
        self.element = element
        self.keys = keys
        self.is_set = is_set
        self.embedded = embedded

    def field(self, name: str) -> Shape:
        """Return the shape of a field or of a map's value."""
        field_or_shape = self.fields.get(name)
        if isinstance(field_or_shape, Shape):
            return field_or_shape
        if field_or_shape is not None:
            shape = self.fields[name] = _of_field(field_or_shape)
            return shape
        return self.element or ANY


#: A value without schema: maps are owned key by key, lists as a whole.
ANY = Shape()
_ATOMIC = Shape(atomic=True)


@functools.cache
def shape_of(definition: Definition) -> Shape:
    """Return the shape of a published definition; shapes of fields are made at their first use."""
    return _ATOMIC if definition.map_type == "atomic" else _granular(definition)


@functools.cache
def _granular(definition: Definition) -> Shape:
    # A field that is always written is present even if no client set it, so its presence has no owner.
    embedded = frozenset(definition.written)
    return Shape(fields=dict(definition.fields), embedded=embedded)


def _of_field(field: Field) -> Shape:
    if field.type in _SCALARS or field.map_type == "atomic":
        return _ATOMIC
    item = field.item
    if field.type == "object" and item is not None and field.map_type == "granular":
        return _granular(item)
    if field.type == "array":
        if field.list_type == "map":
            return Shape(element=shape_of(item) if item else ANY, keys=tuple(sorted(field.map_keys)))
        return Shape(element=_ATOMIC, is_set=True) if field.list_type == "set" else _ATOMIC
    if field.type == "map":
        return Shape(element=shape_of(item) if item else _ATOMIC if field.item_type in _SCALARS else ANY)
    # A value without schema is owned as a whole.
    return shape_of(item) if item else _ATOMIC


def of_structural(schema: Object, *, top: bool = False) -> Shape:
    """Return the shape of a custom resource's structural schema."""
    if schema.get("x-kubernetes-map-type") == "atomic":
        return _ATOMIC
    match schema.get("type"):
        case "array":
            element = of_structural(schema.get("items") or {})
            match schema.get("x-kubernetes-list-type"):
                case "map":
                    return Shape(element=element, keys=tuple(sorted(schema.get("x-kubernetes-list-map-keys") or ())))
                case "set":
                    return Shape(element=_ATOMIC, is_set=True)
            return _ATOMIC
        case "string" | "integer" | "number" | "boolean":
            return _ATOMIC
    values = schema.get("additionalProperties")
    fields = {name: of_structural(value) for name, value in (schema.get("properties") or {}).items()}
    of_values = of_structural(values) if isinstance(values, dict) else None
    return Shape(fields=fields, element=of_values, embedded=frozenset({"metadata"}) if top else frozenset())
