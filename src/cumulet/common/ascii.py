r"""Comparing and counting in ASCII, for everything that a decision rests on.

Python's `str.lower`, `casefold`, `\d`, `\w`, `str.isdecimal` and `int` know all of Unicode: U+017F is an `s` to a pattern
without case, U+212A becomes a `k`, and U+0661 is the digit 1. The protocols here know the letters and digits of ASCII.
"""

from __future__ import annotations

import re
import string

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_DIGITS = re.compile(r"[0-9]+")


def fold(text: str) -> str:
    """A text with A to Z in lower case and every other character as it is, for comparing without case."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def raised(text: str) -> str:
    """A text with a to z in upper case and every other character as it is."""
    return text.upper() if text.isascii() else text.translate(_UPPER)


def same(one: str, other: str) -> bool:
    """Whether two texts differ in the case of A to Z alone."""
    return fold(one) == fold(other)


def is_digits(text: str) -> bool:
    """Whether a text is one or more of 0 to 9."""
    return _DIGITS.fullmatch(text) is not None


def whole_number(text: str, longest: int = 18) -> int | None:
    """The number that 1 to `longest` digits make; `None` for every other text."""
    return int(text) if len(text) <= longest and is_digits(text) else None
