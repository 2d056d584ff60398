"""What the published schemas ask of kinds that have no rules of their own here: what they require must be there."""

from __future__ import annotations

from cumulet.kube.schema.definitions import Definition, definition
from cumulet.kube.schema.validation.field_errors import Causes, Object, required

#: What the server itself writes, and what says nothing of its own.
_SKIPPED = frozenset(("metadata", "status"))
_DEPTH = 20
#: Required by what is published, and not by the server.
_UNASKED = frozenset((("ForZone", "name"), ("TokenRequest", "audience")))


def published(obj: Object, group: str, kind: str) -> Causes:
    """The fields that a kind requires and an object lacks; an empty list is one that is there, as upstream's is."""
    found = definition(group, "v2" if group == "autoscaling" else "v1", kind)
    # Components of every age write events, and each leaves out something else.
    if found is not None and kind != "Event":
        yield from _missing(obj, found, "", 0)


def _missing(obj: Object, of: Definition, path: str, depth: int) -> Causes:
    if depth > _DEPTH:
        return
    for name in of.required:
        if name in _SKIPPED or (of.name.rpartition(".")[2], name) in _UNASKED:
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
