"""Names that the server makes (apiserver, `names.SimpleNameGenerator`), and what has none yet."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

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


def unnamed(obj: dict[str, Any]) -> str:
    """How an object is called that may have no name yet (`extractResourceName`)."""
    metadata = obj["metadata"]
    return metadata.get("name") or metadata.get("generateName") or "Unknown"
