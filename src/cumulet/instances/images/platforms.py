"""Platforms of images, compared and ordered as in containerd (`github.com/containerd/platforms`, `Only(DefaultSpec())`).

A machine runs images of its own architecture first, and then those of its older ones, such as 386 on amd64. Variants are
compared after normalisation: `arm64/v8` is `arm64`, and `arm` is `arm/v7`. The `v2` to `v4` of amd64 demand instructions that
a machine may not have, and never match.
"""

from __future__ import annotations

import platform as machine
from typing import Annotated

import msgspec

from cumulet.common.ascii import fold

_Word = Annotated[str, msgspec.Meta(max_length=255)]
_OS = {"macos": "darwin"}
#: Architectures with the variant that their name implies, by the names that tools use.
_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}


class Platform(msgspec.Struct, frozen=True):
    """The platform of an image, as an index or a configuration has it; a missing field is null or empty."""

    os: _Word | None = None
    architecture: _Word | None = None
    variant: _Word | None = None

    @property
    def is_known(self) -> bool:
        """Whether the platform says anything."""
        return bool(self.os or self.architecture)

    def normalized(self) -> Platform:
        """Return the platform in its one form of spelling."""
        os = fold(self.os or "linux")
        given, variant = fold(self.architecture or GOARCH), fold(self.variant or "")
        architecture, implied = _ARCHITECTURES.get(given, (given, variant))
        if given in ("armhf", "armel"):
            variant = implied
        if architecture == "arm":
            variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
        elif (
            (architecture == "arm64" and variant in ("8", "v8"))
            or (architecture == "amd64" and variant == "v1")
            or architecture == "386"
        ):
            variant = ""
        return Platform(_OS.get(os, os), architecture, variant)

    def rank(self) -> int | None:
        """Return the place of the platform in this machine's order of preference, or `None` if it does not run here."""
        mine = self.normalized()
        return _ORDER.index(mine) if mine in _ORDER else None

    def __str__(self) -> str:
        parts = (self.os or "linux", self.architecture or "unknown", self.variant)
        return "/".join("".join(c if c.isprintable() else " " for c in part[:40]) for part in parts if part)


#: This machine's architecture, by Go's name.
GOARCH = _ARCHITECTURES.get(machine.machine(), (machine.machine(), ""))[0]
_ORDER = [
    Platform("linux", architecture, variant)
    for architecture, variant in {
        "amd64": [("amd64", ""), ("386", "")],
        "arm64": [("arm64", ""), *(("arm", variant) for variant in ("v8", "v7", "v6", "v5"))],
    }.get(GOARCH, [(GOARCH, "")])
]
#: This machine's platform, for messages.
HERE = f"linux/{GOARCH}"
