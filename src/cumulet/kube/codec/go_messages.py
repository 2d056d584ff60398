"""Go's error messages about JSON, for the errors that quote them (`encoding/json`)."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object

KINDS: dict[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
}


def json_error(raw: bytes, error: Exception) -> str:
    """Return Go's error for an invalid JSON text."""
    if "truncated" in str(error):
        return "unexpected end of JSON input"
    begin = raw.lstrip()[:2]
    if begin[:1] == b"{" and begin[1:] not in (b'"', b"}", b""):
        return f"invalid character {chr(begin[1])!r} looking for beginning of object key string"
    return str(error)


def untyped(document: Object) -> str:
    """Return Go's error for a document whose kind or version is not a text. Empty where both are valid or missing."""
    for key in ("apiVersion", "kind"):
        value = document.get(key)
        if value is not None and not isinstance(value, str):
            return f"json: cannot unmarshal {KINDS[type(value)]} into Go struct field .{key} of type string"
    return ""
