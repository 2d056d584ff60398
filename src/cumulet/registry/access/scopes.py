"""The scopes in a request for a token (Docker's token scope documentation): `type[(class)]:name:action[,action…]`."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from cumulet.registry.access.rights import REGISTRY_NAMES
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError

_SCOPE = re.compile(r"(?P<type>repository|registry)(?:\([a-z]+\))?:(?P<name>.+):(?P<actions>[a-z_*]+(?:,[a-z_*]+)*)")
_MOST = 100


class Scope(msgspec.Struct, frozen=True):
    """Actions on a repository or on the registry, as in the claim `access` of a token."""

    type: str
    name: str
    actions: list[str]


def parse_scopes(texts: Iterable[str]) -> list[Scope]:
    """The scopes in some texts, each with one or more scopes separated by spaces. Scopes of the same name are merged.

    A scope of another form is left out, so that the token does not grant it. Raises `OciError` 400 for more than a hundred.
    """
    words = [word for text in texts for word in text.split()]
    if len(words) > _MOST:
        raise OciError(400, "UNSUPPORTED", f"{len(words)} scopes are too many for one token: at most {_MOST}")
    scopes: dict[tuple[str, str], list[str]] = {}
    for word in words:
        match = _SCOPE.fullmatch(word)
        if match is None or not _is_name(match["type"], match["name"]):
            continue
        actions = scopes.setdefault((match["type"], match["name"]), [])
        actions += [action for action in match["actions"].split(",") if action not in actions]
    return [Scope(kind, name, actions) for (kind, name), actions in scopes.items()]


def _is_name(kind: str, name: str) -> bool:
    if kind == "registry":
        return name in REGISTRY_NAMES
    try:
        names.repository(name)
    except OciError:
        return False
    return True
