"""Where a layer depends on the layers below it."""

from __future__ import annotations

import msgspec


class Needs(msgspec.Struct, frozen=True):
    """Where a layer, unpacked as if nothing were below, depends on the layers below it.

    `folders` are the folders that it does not mention, and are as they are below. `passed` are other folders, through which
    it would write elsewhere if there were links below. `hides` are the folders that have whiteouts. With `all`, it cannot be used without them: it links to a file of theirs, or there are too many places.
    """

    folders: list[bytes] = []
    passed: list[bytes] = []
    hides: list[bytes] = []
    all: bool = False

    @property
    def is_any(self) -> bool:
        """Whether there are any."""
        return self.all or bool(self.folders or self.passed or self.hides)
