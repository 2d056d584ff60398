"""Errors of strict decoding for fields that a body repeats, of which the last one is used (`sigs.k8s.io/json`)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from cumulet.common.ascii import fold
from cumulet.kube.codec.media import YAML_TYPES

_MOST = 100
#: A key without an immediate colon.
_SPACED = (b'" :', b'"\t:', b'"\n:', b'"\r')
_OPERATION = ("op", "path", "value", "from")


def repeated(content_type: str, raw: bytes, document: object) -> list[str]:
    """Return at most a hundred errors of a body that was decoded to `document`. Empty for protobuf."""
    media = fold(content_type.partition(";")[0].strip())
    if media in YAML_TYPES:
        return list(dict.fromkeys(itertools.islice(_lines(raw), _MOST)))
    if media not in ("", "application/json") and not media.endswith("-patch+json"):
        return []
    # Encoding the document again gives as many keys, unless some are repeated. Only then is a full check needed.
    as_many = raw.count(b'":') == msgspec.json.encode(document).count(b'":')
    if as_many and not any(spaced in raw for spaced in _SPACED):
        return []
    try:
        found = _fields(json.loads(raw, object_pairs_hook=_Pairs), "")
        return list(dict.fromkeys(f'duplicate field "{path}"' for path in itertools.islice(found, _MOST)))
    except (ValueError, RecursionError):
        return []  # a body that another decoder accepted is not rejected here


def of_json_patch(raw: bytes, operations: object) -> list[str]:
    """Return the repeated fields of a JSON patch, and the unknown fields of its operations."""
    messages = [f"json patch {text}" for text in repeated("application/json", raw, operations)]
    for index, operation in enumerate(operations if isinstance(operations, list) else ()):
        if isinstance(operation, dict):
            messages += [f'json patch unknown field "[{index}].{key}"' for key in operation if key not in _OPERATION]
    return messages[:_MOST]


def as_one(content_type: str, messages: list[str]) -> list[str]:
    """Return the messages as one error reports them: YAML's are joined."""
    if messages and fold(content_type.partition(";")[0].strip()) in YAML_TYPES:
        return ["yaml: unmarshal errors:" + "".join(f"\n  {text}" for text in messages)]
    return messages


class _Pairs(list[tuple[str, Any]]):
    """An object with every field that was written."""


def _fields(value: object, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, below in value:
            where = f"{path}.{key}" if path else key
            if key in seen:
                yield where
            seen.add(key)
            yield from _fields(below, where)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _fields(below, f"{path}[{index}]")


def _lines(raw: bytes) -> Iterator[str]:
    import yaml

    node = yaml.compose(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    waiting = [node]
    messages: list[tuple[int, str]] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    messages.append((key.start_mark.line + 1, key.value))
                seen.add(key.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return (f'line {line}: key "{key}" already set in map' for line, key in sorted(messages))
