"""Generated names (apiserver, `names.SimpleNameGenerator`), and the names of objects in errors."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object

#: No vowels and no characters that look alike, so that no words are formed.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_LENGTH = 5
_BASE_LIMIT = 58


def suffix(below: Callable[[int], int] = secrets.randbelow) -> str:
    """Return five random characters."""
    return "".join(_ALPHABET[below(len(_ALPHABET))] for _ in range(_LENGTH))


def generate(base: str) -> str:
    """Return a name for a `generateName`."""
    return base[:_BASE_LIMIT] + suffix()


def unnamed(obj: Object) -> str:
    """Return the name of an object for an error; it may not have one yet (`extractResourceName`)."""
    metadata = obj["metadata"]
    return metadata.get("name") or metadata.get("generateName") or "Unknown"
