"""Fields that a body has twice, of which the last one counts: what strict decoding says of them (`sigs.k8s.io/json`)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from cumulet.common.ascii import fold
from cumulet.kube.codec.media import YAML_TYPES

_SAID = 100
#: A key that is not followed by its colon at once.
_SPACED = (b'" :', b'"\t:', b'"\n:', b'"\r')
_OPERATION = ("op", "path", "value", "from")


def repeated(content_type: str, raw: bytes, document: Any) -> list[str]:
    """What is wrong in a body that was decoded to `document`, at most a hundred things; nothing of protobuf."""
    media = fold(content_type.partition(";")[0].strip())
    if media in YAML_TYPES:
        return list(dict.fromkeys(itertools.islice(_lines(raw), _SAID)))
    if media not in ("", "application/json") and not media.endswith("-patch+json"):
        return []
    # A document has as many keys when it is written anew, unless some were there twice; only then is it worth a look.
    as_many = raw.count(b'":') == msgspec.json.encode(document).count(b'":')
    if as_many and not any(spaced in raw for spaced in _SPACED):
        return []
    try:
        found = _fields(json.loads(raw, object_pairs_hook=_Pairs), "")
        return list(dict.fromkeys(f'duplicate field "{path}"' for path in itertools.islice(found, _SAID)))
    except (ValueError, RecursionError):
        return []  # what another decoder took is not refused here


def of_json_patch(raw: bytes, operations: Any) -> list[str]:
    """The same of a JSON patch, and the fields of its operations that are none."""
    said = [f"json patch {text}" for text in repeated("application/json", raw, operations)]
    for index, operation in enumerate(operations if isinstance(operations, list) else ()):
        if isinstance(operation, dict):
            said += [f'json patch unknown field "[{index}].{key}"' for key in operation if key not in _OPERATION]
    return said[:_SAID]


def as_one(content_type: str, said: list[str]) -> list[str]:
    """As an error says it, where YAML's come together."""
    if said and fold(content_type.partition(";")[0].strip()) in YAML_TYPES:
        return ["yaml: unmarshal errors:" + "".join(f"\n  {text}" for text in said)]
    return said


class _Pairs(list[tuple[str, Any]]):
    """An object with every field that was written."""


def _fields(value: Any, path: str) -> Iterator[str]:
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
    said: list[tuple[int, str]] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    said.append((key.start_mark.line + 1, key.value))
                seen.add(key.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return (f'line {line}: key "{key}" already set in map' for line, key in sorted(said))
