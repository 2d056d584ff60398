"""JSON Patch (RFC 6902) with JSON Pointers (RFC 6901)."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes.objects import Object

_OPERATIONS_LIMIT = 10_000
#: The bytes of JSON that all `copy` operations may add; without a bound, each could double the object.
_COPY_LIMIT = 3 * 1024 * 1024


class JsonPatchError(Exception):
    """The patch is invalid, or cannot be applied to the object."""


class FailedTestError(JsonPatchError):
    """The value of a `test` operation differs."""


def json_patch(target: object, operations: object) -> Any:
    """Return the patched `target`, which stays unchanged. Raises `JsonPatchError`."""
    if not isinstance(operations, list):
        raise JsonPatchError("a JSON patch is a list of operations")
    if len(operations) > _OPERATIONS_LIMIT:
        raise JsonPatchError(
            f"the allowed maximum operations in a JSON patch is {_OPERATIONS_LIMIT}, got {len(operations)}"
        )
    result = copy.deepcopy(target)
    copied = 0
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise JsonPatchError("an operation has no path")
        if operation.get("op") == "copy":
            copied += len(msgspec.json.encode(_get(result, _source(operation))))
            if copied > _COPY_LIMIT:
                raise JsonPatchError(f"unable to copy, the accumulated size limit of {_COPY_LIMIT} was exceeded")
        result = _apply(result, operation)
    return result


def _apply(document: object, operation: Object) -> object:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "add":
            return _add(document, path, copy.deepcopy(_value(operation)))
        case "remove":
            return _remove(document, path)
        case "replace":
            _get(document, path)
            return _add(_remove(document, path) if path else None, path, copy.deepcopy(_value(operation)))
        case "test":
            if _get(document, path) != _value(operation):
                raise FailedTestError(f"testing value {operation['path']} failed: test failed")
            return document
        case "copy":
            return _add(document, path, copy.deepcopy(_get(document, _source(operation))))
        case "move":
            source = _source(operation)
            value = _get(document, source)
            return _add(_remove(document, source), path, value)
    raise JsonPatchError(f"unexpected kind: {operation.get('op')}")


def _value(operation: Object) -> object:
    return operation.get("value")  # absent means null


def _source(operation: Object) -> list[str]:
    if "from" not in operation:
        raise JsonPatchError("an operation has no from")
    return _pointer(operation["from"])


def _pointer(text: object) -> list[str]:
    if text == "":
        return []
    if not isinstance(text, str) or not text.startswith("/"):
        raise JsonPatchError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(part: str, length: int, *, adding: bool) -> int:
    if part == "-" and adding:
        return length
    if not is_digits(part):
        raise JsonPatchError(f"{part!r} is not an index")
    index = int(part) if len(part) < 10 else length + 1
    if index > length or (index == length and not adding):
        raise JsonPatchError(f"index {part} is out of bounds")
    return index


def _get(document: object, path: list[str]) -> object:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document), adding=False)]
        else:
            raise JsonPatchError(f"the path has no {part!r}")
    return document


def _add(document: object, path: list[str], value: object) -> object:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        parent.insert(_index(path[-1], len(parent), adding=True), value)
    else:
        raise JsonPatchError(f"nothing can be added under {'/'.join(path[:-1])!r}")
    return document


def _remove(document: object, path: list[str]) -> object:
    if not path:
        raise JsonPatchError("the whole document cannot be removed")
    parent = _get(document, path[:-1])
    _get(parent, path[-1:])
    if isinstance(parent, dict):
        del parent[path[-1]]
    elif isinstance(parent, list):
        del parent[_index(path[-1], len(parent), adding=False)]
    return document
