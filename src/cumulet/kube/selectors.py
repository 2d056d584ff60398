"""Label and field selectors as the API takes them (apimachinery, `labels.Parse` and `fields.ParseSelector`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cumulet.kube.status import bad_request
from cumulet.kube.store import Stored

Predicate = Callable[[Stored], bool]

_LIMIT = 64 * 1024
_SET = re.compile(r"\s*([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)\s*")
_EQUALITY = re.compile(r"\s*([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)\s*")
_ORDER = re.compile(r"\s*([\w./-]+)\s*([<>])\s*(-?\d{1,18})\s*")
_EXISTS = re.compile(r"\s*(!?)\s*([\w./-]+)\s*")


def label_selector(text: str) -> Predicate | None:
    """A predicate, or `None` where everything is selected. Raises `ApiError` 400."""
    if not text.strip():
        return None
    if len(text) > _LIMIT:
        raise bad_request("unable to parse requirement: the label selector is too long")
    requirements = [_requirement(part) for part in _split(text)]
    return lambda stored: all(requirement(stored.labels) for requirement in requirements)


def field_selector(
    text: str, supported: frozenset[str], paths: Mapping[str, tuple[str, ...]] | None = None
) -> Predicate | None:
    """The same for fields, of which a resource supports a few; those at `paths` are looked up in the whole object."""
    paths = paths or {}
    if not text.strip():
        return None
    if len(text) > _LIMIT:
        raise bad_request("the field selector is too long")
    wanted: list[tuple[str, str, bool]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^=!]+?)\s*(==|=|!=)\s*(.*?)\s*", part)
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if match[1] not in supported and match[1] not in paths:
            raise bad_request(f"field label not supported: {match[1]}")
        wanted.append((match[1], match[3].replace("\\,", ","), match[2] != "!="))
    if any(field in paths for field, _, _ in wanted):
        return lambda stored: _all_fit(stored, wanted, paths)
    return lambda stored: all((stored.fields.get(field, "") == value) is equal for field, value, equal in wanted)


def _all_fit(stored: Stored, wanted: list[tuple[str, str, bool]], paths: Mapping[str, tuple[str, ...]]) -> bool:
    obj = stored.load()
    for field, value, equal in wanted:
        found = _text_at(obj, paths[field]) if field in paths else stored.fields.get(field, "")
        if (found == value) is not equal:
            return False
    return True


def _text_at(obj: Any, path: tuple[str, ...]) -> str:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return "true" if obj else "false"
    return "" if obj is None else str(obj)


def _split(text: str) -> list[str]:
    """At the commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET.fullmatch(text):
        key, values = match[1], {value.strip() for value in match[3].split(",")}
        if match[2] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: key not in labels or labels[key] not in values
    if match := _EQUALITY.fullmatch(text):
        key, value = match[1], match[3]
        if match[2] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _ORDER.fullmatch(text):
        key, bound, above = match[1], int(match[3]), match[2] == ">"
        return lambda labels: _is_beyond(labels.get(key, ""), bound, above=above)
    if match := _EXISTS.fullmatch(text):
        key, wanted = match[2], not match[1]
        return lambda labels: (key in labels) is wanted
    words = text.split()
    found = words[1] if len(words) > 1 else text
    raise bad_request(f"unable to parse requirement: found '{found}', expected: in, notin, =, ==, !=, gt, lt")


def _is_beyond(value: str, bound: int, *, above: bool) -> bool:
    if not re.fullmatch(r"-?\d{1,18}", value):
        return False
    return int(value) > bound if above else int(value) < bound
