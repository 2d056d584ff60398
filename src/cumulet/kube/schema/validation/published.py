"""Validation of required fields by the published schemas, for kinds without rules of their own here."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.definitions import Definition, definition
from cumulet.kube.schema.validation.field_errors import Causes, required

#: Fields that the server writes, or that have no requirements of their own.
_SKIPPED = frozenset(("metadata", "status"))
_DEPTH = 20
#: Fields that the published schemas require but the server does not.
_NOT_REQUIRED = frozenset((("ForZone", "name"), ("TokenRequest", "audience")))


def published(obj: Object, group: str, kind: str) -> Causes:
    """Validate that required fields are present. An empty list counts as present, as in upstream."""
    found = definition(group, "v2" if group == "autoscaling" else "v1", kind)
    # Components of all versions write events, and many leave out required fields.
    if found is not None and kind != "Event":
        yield from _missing(obj, found, "", 0)


def _missing(obj: Object, of: Definition, path: str, depth: int) -> Causes:
    if depth > _DEPTH:
        return
    for name in of.required:
        if name in _SKIPPED or (of.name.rpartition(".")[2], name) in _NOT_REQUIRED:
            continue
        value, kind = obj.get(name), of.fields[name].type
        if value == "" or (value is None and kind not in ("array", "map", "any")):
            yield required(f"{path}{name}")
    for name, value in obj.items():
        field = of.fields.get(name)
        item = field.item if field is not None else None
        if field is None or item is None or name in _SKIPPED:
            continue
        if field.type == "object" and isinstance(value, dict):
            yield from _missing(value, item, f"{path}{name}.", depth + 1)
        elif field.type == "array" and isinstance(value, list):
            for index, element in enumerate(value):
                yield from _missing(element, item, f"{path}{name}[{index}].", depth + 1)
        elif field.type == "map" and isinstance(value, dict):
            for key, element in value.items():
                yield from _missing(element, item, f"{path}{name}[{key}].", depth + 1)
