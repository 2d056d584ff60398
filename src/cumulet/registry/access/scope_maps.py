"""Scope maps: the rights of repository tokens, as lines of `repositories/{name}/{content|metadata}/{verb}`.

Source: ACR's documentation, "Create a token with repository-scoped permissions", and the REST reference of scope maps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import msgspec

from cumulet.common.patterns import like
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError

_WORDS = ("content/read", "content/write", "content/delete", "metadata/read", "metadata/write")
_LINE = re.compile(rf"repositories/(?P<name>.+)/(?P<word>{'|'.join(_WORDS)})")


class Grant(NamedTuple):
    """One line: a repository, or a pattern that ends in `*`, and the permission there, such as `content/read`."""

    pattern: str
    word: str

    def covers(self, repository: str, word: str) -> bool:
        """Whether it grants the permission `word` on a repository."""
        return self.word == word and like(self.pattern, repository)


class ScopeMap(msgspec.Struct, frozen=True):
    """A named list of lines."""

    segment: ClassVar[str] = "scopeMaps"

    name: str
    created: str
    description: str = ""
    actions: tuple[str, ...] = ()
    system: bool = False

    def grants(self) -> list[Grant]:
        """The lines, parsed."""
        return [grant(line) for line in self.actions]


def grant(line: str) -> Grant:
    """Parse a line. Raises `ValueError` with the reason."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"'{line[:200]}' is not repositories/{{name}}/ and one of {', '.join(_WORDS)}")
    pattern = match["name"]
    plain = pattern.removesuffix("*").removesuffix("/")
    if "*" in plain:
        raise ValueError(f"'{pattern[:200]}' has a wildcard that is not at its end")
    try:
        if plain:
            names.repository(plain)
    except OciError:
        raise ValueError(f"'{pattern[:200]}' is not the name of a repository") from None
    return Grant(pattern, match["word"])


def _system(name: str, description: str, words: Sequence[str]) -> ScopeMap:
    actions = tuple(f"repositories/*/{word}" for word in words)
    return ScopeMap(name, "2019-11-13T09:00:00.000000Z", description, actions, system=True)


#: The scope maps of every registry, by name.
SYSTEM_SCOPE_MAPS = {
    scope_map.name: scope_map
    for scope_map in (
        _system("_repositories_admin", "Can perform all read, write and delete operations on the registry", _WORDS),
        _system("_repositories_pull", "Can pull any repository of the registry", ["content/read"]),
        _system(
            "_repositories_pull_metadata_read",
            "Can perform all read operations on the registry",
            ["content/read", "metadata/read"],
        ),
        _system(
            "_repositories_push", "Can push to any repository of the registry", ["content/read", "content/write"]
        ),
        _system(
            "_repositories_push_metadata_write",
            "Can perform all read and write operations on the registry",
            ["content/read", "content/write", "metadata/read", "metadata/write"],
        ),
    )
}
