"""Image references as docker reads them (distribution's reference grammar): registry, repository, tag or digest."""

from __future__ import annotations

import re
from typing import NamedTuple

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(r"(?=.{1,255}\Z)[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LONGEST = 255
_DEFAULT = "docker.io"


class Reference(NamedTuple):
    """`registry` may have a port; `target` is the tag or digest that is asked for."""

    registry: str
    repository: str
    target: str

    def __str__(self) -> str:
        mark = "@" if ":" in self.target else ":"
        return f"{self.registry}/{self.repository}{mark}{self.target}"


def parse(text: str) -> Reference:
    """Raises `ValueError` where the text is no reference."""
    rest, _, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        registry, path = head, tail
    else:
        registry, path = _DEFAULT, rest if slash else f"library/{rest}"
    path, _, tag = path.partition(":")
    target = digest or tag or "latest"
    valid = _DIGEST.fullmatch(target) if digest else _TAG.fullmatch(target)
    if not _HOST.fullmatch(registry) or len(path) > _LONGEST or not _REPOSITORY.fullmatch(path) or not valid:
        raise ValueError(f"couldn't parse image name {text[:_LONGEST]!r}: invalid reference format")
    return Reference(registry, path, target)
