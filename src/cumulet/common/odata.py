"""The supported part of OData in queries to Azure Resource Manager and Microsoft Graph: `$filter`, `$top`, `$skiptoken`.

A `$filter` is a conjunction (OData 4.01, part 2, section 5.1). Its terms are `field eq 'value'`,
`startswith(field,'value')`, `field/any(x:x eq 'value')`, and functions with at most one string, such as `atScope()`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from cumulet.common.ascii import fold, is_digits

T = TypeVar("T")

_TEXT = r"'(?P<text>(?:[^']|'')*)'"
_TERMS = (
    ("eq", re.compile(rf"([\w/.]+)\s+eq\s+(?:{_TEXT}|(?P<word>[\w-]+))", re.IGNORECASE | re.ASCII)),
    ("startswith", re.compile(rf"startswith\(\s*([\w/.]+)\s*,\s*{_TEXT}\s*\)", re.IGNORECASE | re.ASCII)),
    ("eq", re.compile(rf"([\w.]+)/any\(\s*(?P<x>\w+)\s*:\s*(?P=x)\s+eq\s+{_TEXT}\s*\)", re.IGNORECASE | re.ASCII)),
    ("call", re.compile(rf"(\w+)\(\s*(?:{_TEXT})?\s*\)", re.IGNORECASE | re.ASCII)),
)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE | re.ASCII)

_LARGEST_PAGE = 1000


class FilterError(ValueError):
    """The query is not supported; the message shows the part."""


class Term(NamedTuple):
    """A term of a filter: `operator` is `eq`, `startswith` or `call`, and `name` is in lower case."""

    operator: str
    name: str
    value: str

    def holds(self, actual: str | None) -> bool:
        """Return whether a field's value satisfies the term, compared without case."""
        actual = fold(actual or "")
        value = fold(self.value)
        return actual.startswith(value) if self.operator == "startswith" else actual == value


def conjunction(text: str) -> list[Term]:
    """Return the terms of a `$filter`, which `and` joins; none if it is empty. Raises `FilterError`."""
    terms: list[Term] = []
    text = text.strip()
    at, end = 0, len(text)
    while at < end:
        term, at = _term(text, at)
        terms.append(term)
        if at < end:
            joined = _AND.match(text, at)
            if joined is None or joined.end() >= end:
                raise _not_understood(text, at)
            at = joined.end()
    return terms


def _term(text: str, at: int) -> tuple[Term, int]:
    """Return the term that starts at an index, and the index of its end."""
    for operator, pattern in _TERMS:
        match = pattern.match(text, at)
        if match is not None:
            value = next((group for key, group in match.groupdict().items() if key != "x" and group is not None), "")
            return Term(operator, fold(match[1]), value.replace("''", "'")), match.end()
    raise _not_understood(text, at)


def _not_understood(text: str, at: int) -> FilterError:
    return FilterError(f"The filter '{text}' is not supported from '{text[at : at + 40]}' on.")


def page(items: Sequence[T], query: Mapping[str, str]) -> tuple[Sequence[T], str | None]:
    """Return the page that `$top` and `$skiptoken` select, and the `$skiptoken` of the next page if there is one.

    Raises `FilterError` if either is not a valid number.
    """
    top = query.get("$top", str(_LARGEST_PAGE))
    start = query.get("$skiptoken", "0")
    if not (is_digits(top) and len(top) < 10 and int(top) > 0):
        raise FilterError(f"$top must be a positive number, not '{top}'.")
    if not (is_digits(start) and len(start) < 10):
        raise FilterError(f"$skiptoken is not valid: '{start}'.")
    first = int(start)
    last = first + min(int(top), _LARGEST_PAGE)
    return items[first:last], str(last) if last < len(items) else None
