"""Content digests (OCI Image Specification 1.1, "Descriptor", "Digests"): the two registered algorithms.

A digest from outside is parsed where it enters. Paths and SQL are built only from `Digest` values.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, NewType

import msgspec

#: `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits.
Digest = NewType("Digest", str)

_GRAMMAR = r"\A(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})\Z"
_PATTERN = re.compile(_GRAMMAR)

#: A digest as a field of a `msgspec.Struct`. Decoding refuses any other text.
DigestField = Annotated[Digest, msgspec.Meta(pattern=_GRAMMAR)]


def is_digest(text: str) -> bool:
    """Return whether a text is a digest of a supported algorithm."""
    return _PATTERN.match(text) is not None


def parse(text: str) -> Digest:
    """Parse a digest of a supported algorithm. Raises `ValueError`."""
    if not is_digest(text):
        raise ValueError(f"invalid or unsupported digest {text[:160]!r}")
    return Digest(text)


def algorithm(digest: Digest) -> str:
    """Return the algorithm of a digest: `sha256` or `sha512`."""
    return digest.partition(":")[0]


def encoded(digest: Digest) -> str:
    """Return the hexadecimal digits of a digest."""
    return digest.partition(":")[2]


def of(content: bytes | bytearray, algorithm: str = "sha256") -> Digest:
    """Return the digest of bytes."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
