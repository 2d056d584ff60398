"""The part of OData that Azure Resource Manager and Microsoft Graph take in a query: `$filter`, `$top`, pages.

Of OData 4.01, part 2, section 5.1: conjunctions of `field eq 'value'`, `startswith(field,'value')`,
`field/any(x:x eq 'value')`, and functions of one or no text such as `assignedTo('…')` and `atScope()`.
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
    """The query is not one that is understood; the message says which part."""


class Term(NamedTuple):
    """One condition: `operator` is `eq`, `startswith` or `call`; `name` is in lower case."""

    operator: str
    name: str
    value: str

    def holds(self, actual: str | None) -> bool:
        """Whether a field's value, compared without case, is what is asked for."""
        actual = fold(actual or "")
        wanted = fold(self.value)
        return actual.startswith(wanted) if self.operator == "startswith" else actual == wanted


def conjunction(text: str) -> list[Term]:
    """The terms of a `$filter` that are joined by `and`; none where it is empty. Raises `FilterError`."""
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
    """The term that begins at a place, and where it ends."""
    for operator, pattern in _TERMS:
        match = pattern.match(text, at)
        if match is not None:
            value = next((group for key, group in match.groupdict().items() if key != "x" and group is not None), "")
            return Term(operator, fold(match[1]), value.replace("''", "'")), match.end()
    raise _not_understood(text, at)


def _not_understood(text: str, at: int) -> FilterError:
    return FilterError(f"The filter '{text}' is not understood from '{text[at : at + 40]}' on.")


def page(items: Sequence[T], query: Mapping[str, str]) -> tuple[Sequence[T], str | None]:
    """The part of a list that `$top` and `$skiptoken` ask for, and the `$skiptoken` of the next, if there is more.

    Raises `FilterError` where either is not a number that can be meant.
    """
    top = query.get("$top", str(_LARGEST_PAGE))
    start = query.get("$skiptoken", "0")
    if not (is_digits(top) and len(top) < 10 and int(top) > 0):
        raise FilterError(f"$top must be a positive number, not '{top}'.")
    if not (is_digits(start) and len(start) < 10):
        raise FilterError(f"$skiptoken is not one that was given out: '{start}'.")
    first = int(start)
    last = first + min(int(top), _LARGEST_PAGE)
    return items[first:last], str(last) if last < len(items) else None
