"""Field errors, in upstream's words (apimachinery, `field.Error`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from cumulet.kube.apimachinery.status import Cause

Causes = Iterator[Cause]

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    **{chr(code): f"\\{letter}" for letter, code in zip("abtnvfr", range(7, 14), strict=True)},
}


def required(field: str, detail: str = "") -> Cause:
    """A missing required field."""
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid(field: str, value: object, detail: str) -> Cause:
    """An invalid value."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def all_invalid(field: str, value: object, details: Iterable[str]) -> Causes:
    """An invalid value, one cause for each detail."""
    for detail in details:
        yield invalid(field, value, detail)


def duplicate(field: str, value: object) -> Cause:
    """A value that occurs twice where it must be unique."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def unsupported(field: str, value: object, supported: Sequence[str], *, in_order: bool = False) -> Cause:
    """A value that is not one of `supported`, which are shown sorted, or as given with `in_order`."""
    allowed = ", ".join(f'"{item}"' for item in (supported if in_order else sorted(supported)))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {allowed}")


def forbidden(field: str, detail: str) -> Cause:
    """A field that must not be set or changed."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def not_found(field: str, value: object, detail: str = "") -> Cause:
    """A reference to an object that does not exist."""
    return Cause(
        field,
        "FieldValueNotFound",
        f"Not found: {shown(value)}: {detail}" if detail else f"Not found: {shown(value)}",
    )


def too_long(field: str, limit: int) -> Cause:
    """A text, or several together, longer than `limit` bytes."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, count: int, limit: int) -> Cause:
    """A list of more than `limit` items."""
    items = "item" if limit == 1 else "items"
    return Cause(field, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} {items}")


def shown(value: object) -> str:
    """Return a value as messages show it: a text quoted as in Go, anything else as JSON."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return as_json(value)


def quoted(text: str) -> str:
    """Return a text in quotes (Go's `strconv.Quote`)."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


#: The order of fields in structs that messages show. The keys of maps are sorted.
_ORDER = {
    name: index
    for names in (
        ("matchLabels", "matchExpressions"),
        ("key", "operator", "values"),
        ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"),
        ("Type", "LocalhostProfile", "RollingUpdate"),
        ("Partition", "MaxUnavailable", "MaxSurge"),
        ("Key", "Value", "Effect", "TimeAdded"),
        ("Name", "ResourceClaimName", "ResourceClaimTemplateName"),
    )
    for index, name in enumerate(names)
}


def as_json(value: object) -> str:
    """Return a value as JSON as Go writes it: with sorted keys and HTML characters escaped."""
    text = msgspec.json.encode(_in_order(value)).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _in_order(value: object) -> object:
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value, key=lambda name: (_ORDER.get(name, 0), name))}
    return [_in_order(item) for item in value] if isinstance(value, list) else value
