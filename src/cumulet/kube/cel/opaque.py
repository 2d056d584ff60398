"""The base of values that JSON lacks."""

from __future__ import annotations

from typing import ClassVar


class Opaque:
    """A value of a type that JSON lacks. `kind` is the type's name."""

    kind: ClassVar[str]
    __slots__ = ()
