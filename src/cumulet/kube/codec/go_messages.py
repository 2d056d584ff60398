"""How Go's decoder calls what JSON has, for the messages that repeat it (`encoding/json`)."""

from __future__ import annotations

from typing import Any

KINDS: dict[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
}


def json_error(raw: bytes, error: Exception) -> str:
    """What Go says of a text that is no JSON."""
    if "truncated" in str(error):
        return "unexpected end of JSON input"
    begin = raw.lstrip()[:2]
    if begin[:1] == b"{" and begin[1:] not in (b'"', b"}", b""):
        return f"invalid character {chr(begin[1])!r} looking for beginning of object key string"
    return str(error)


def untyped(document: dict[str, Any]) -> str:
    """What Go says of a document of which kind and version are no texts; nothing where they are, or are left out."""
    for key in ("apiVersion", "kind"):
        value = document.get(key)
        if value is not None and not isinstance(value, str):
            return f"json: cannot unmarshal {KINDS[type(value)]} into Go struct field .{key} of type string"
    return ""
