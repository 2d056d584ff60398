"""Regular expressions as Go has them: the syntax of RE2, and time linear in the text, whatever the expression is.

Whoever defines a resource or a policy writes expressions that are then tried on what others write: with an engine that tracks
back, a thoughtless one would let a single object stop the server.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: RE2's own words where Go has others (`regexp/syntax/parse.go`).
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
    """Not a regular expression; the text is Go's."""


def check(pattern: str) -> None:
    """Raises `PatternError`."""
    _compiled(pattern)


def is_found(pattern: str, text: str) -> bool:
    """Whether a part of a text matches. Raises `PatternError`."""
    return _compiled(pattern).search(text) is not None


def find(pattern: str, text: str) -> Iterator[str]:
    """The parts of a text that match, from the left, none within another. Raises `PatternError`."""
    return (match.group(0) for match in _compiled(pattern).finditer(text))


@functools.lru_cache(256)
def _compiled(pattern: str) -> Any:
    import re2  # most servers never see an expression

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
    if where.startswith(("(?<=", "(?<!")):  # Go takes it for the beginning of a name, and shows all that follows
        return f"invalid named capture: `{pattern[pattern.index(where) :]}`"
    return f"{_WORDS.get(what, what)}: `{where}`"
