r"""Comparing texts and parsing numbers in ASCII, for every text that a decision depends on.

Python's `str.lower`, `casefold`, `\d`, `\w`, `str.isdecimal` and `int` accept all of Unicode: a pattern without case
matches U+017F as `s`, U+212A becomes `k`, and U+0661 is the digit 1. The protocols here use the letters and digits of ASCII.
"""

from __future__ import annotations

import re
import string

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_DIGITS = re.compile(r"[0-9]+")


def fold(text: str) -> str:
    """Return a text with A to Z in lower case and every other character unchanged, to compare without case."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def raised(text: str) -> str:
    """Return a text with a to z in upper case and every other character unchanged."""
    return text.upper() if text.isascii() else text.translate(_UPPER)


def same(one: str, other: str) -> bool:
    """Return whether two texts are equal except for the case of A to Z."""
    return fold(one) == fold(other)


def is_digits(text: str) -> bool:
    """Return whether a text is one or more of the digits 0 to 9."""
    return _DIGITS.fullmatch(text) is not None


def whole_number(text: str, longest: int = 18) -> int | None:
    """Return the number that 1 to `longest` digits represent, and `None` for any other text."""
    return int(text) if len(text) <= longest and is_digits(text) else None
