"""Regular expressions as in Go: the syntax of RE2, and time linear in the text.

Users write the expressions in definitions and policies, and other users the text. With a backtracking engine, one
careless expression would let a single object stop the server.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: RE2's messages and Go's, where they differ (`regexp/syntax/parse.go`).
_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid repetition size": "invalid repeat count",
    "invalid named capture group": "invalid named capture",
}


class PatternError(ValueError):
    """Not a regular expression; the message is Go's."""


def check(pattern: str) -> None:
    """Check an expression. Raises `PatternError`."""
    _compiled(pattern)


def is_found(pattern: str, text: str) -> bool:
    """Return whether a part of the text matches. Raises `PatternError`."""
    return _compiled(pattern).search(text) is not None


def find(pattern: str, text: str) -> Iterator[str]:
    """Yield the matching parts of a text, from left to right, without overlaps. Raises `PatternError`."""
    return (match.group(0) for match in _compiled(pattern).finditer(text))


@functools.lru_cache(256)
def _compiled(pattern: str) -> Any:
    import re2  # loaded at the first use, as most servers need none

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise PatternError(f"error parsing regexp: {_in_gos_words(error.args[0].decode(), pattern)}") from None


def _in_gos_words(message: str, pattern: str) -> str:
    if message.startswith("trailing \\"):
        return "trailing backslash at end of expression: ``"
    what, _, where = message.partition(": ")
    if where.startswith(("(?<=", "(?<!")):  # Go reads it as a name, and shows the rest
        return f"invalid named capture: `{pattern[pattern.index(where) :]}`"
    return f"{_WORDS.get(what, what)}: `{where}`"
