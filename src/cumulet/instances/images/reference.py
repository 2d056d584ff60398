"""Image references, by the grammar of the distribution project: registry, repository, tag or digest."""

from __future__ import annotations

import re
from typing import NamedTuple

from cumulet.common import digests
from cumulet.common.ascii import fold

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DEFAULT = "docker.io"
_LIMIT = 255


class Reference(NamedTuple):
    """A parsed reference. `registry` is in lower case and may have a port; `target` is a tag or digest."""

    registry: str
    repository: str
    target: str

    def __str__(self) -> str:
        mark = "@" if ":" in self.target else ":"
        return f"{self.registry}/{self.repository}{mark}{self.target}"


def parse(text: str) -> Reference:
    """Parse a reference. Raises `ValueError`."""
    rest, at, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        registry, path = head, tail
    else:
        registry, path = _DEFAULT, rest if slash else f"library/{rest}"
    path, _, tag = path.partition(":")
    target = digest if at else tag or "latest"
    valid = (
        _REGISTRY.fullmatch(registry)
        and _REPOSITORY.fullmatch(path)
        and (not tag or _TAG.fullmatch(tag))
        and (not at or digests.is_digest(digest))
        and len(registry) + len(path) < _LIMIT
    )
    if not valid:
        raise ValueError(f"couldn't parse image name {text[:300]!r}: invalid reference format")
    return Reference(fold(registry), path, target)
