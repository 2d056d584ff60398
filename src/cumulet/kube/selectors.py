"""Label and field selectors as the API takes them (apimachinery, `labels.Parse` and `fields.ParseSelector`)."""

from __future__ import annotations

import re
from collections.abc import Callable

from cumulet.kube.status import bad_request
from cumulet.kube.store import Stored

Predicate = Callable[[Stored], bool]

_LIMIT = 64 * 1024
_SET = re.compile(r"\s*([\w./-]+)\s+(in|notin)\s*\(([^)]*)\)\s*")
_EQUALITY = re.compile(r"\s*([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)\s*")
_EXISTS = re.compile(r"\s*(!?)\s*([\w./-]+)\s*")


def label_selector(text: str) -> Predicate | None:
    """A predicate, or `None` where everything is selected. Raises `ApiError` 400."""
    if not text.strip():
        return None
    if len(text) > _LIMIT:
        raise bad_request("unable to parse requirement: the label selector is too long")
    requirements = [_requirement(part) for part in _split(text)]
    return lambda stored: all(requirement(stored.labels) for requirement in requirements)


def field_selector(text: str, supported: frozenset[str]) -> Predicate | None:
    """The same for fields, of which a resource supports a few."""
    if not text.strip():
        return None
    if len(text) > _LIMIT:
        raise bad_request("the field selector is too long")
    wanted: list[tuple[str, str, bool]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([^=!]+?)\s*(==|=|!=)\s*(.*?)\s*", part)
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if match[1] not in supported:
            raise bad_request(f"field label not supported: {match[1]}")
        wanted.append((match[1], match[3].replace("\\,", ","), match[2] != "!="))
    return lambda stored: all((stored.fields.get(field, "") == value) is equal for field, value, equal in wanted)


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
    if match := _EXISTS.fullmatch(text):
        key, wanted = match[2], not match[1]
        return lambda labels: (key in labels) is wanted
    words = text.split()
    found = words[1] if len(words) > 1 else text
    raise bad_request(f"unable to parse requirement: found '{found}', expected: in, notin, =, ==, !=, gt, lt")
