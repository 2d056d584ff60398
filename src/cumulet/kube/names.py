"""Names that the server makes (apiserver, `names.SimpleNameGenerator`)."""

from __future__ import annotations

import secrets
from collections.abc import Callable

#: No vowels and no look-alikes, so that no word comes about.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_LENGTH = 5
_BASE_LIMIT = 58


def suffix(below: Callable[[int], int] = secrets.randbelow) -> str:
    """Five random characters."""
    return "".join(_ALPHABET[below(len(_ALPHABET))] for _ in range(_LENGTH))


def generate(base: str) -> str:
    """A name from `generateName`."""
    return base[:_BASE_LIMIT] + suffix()
