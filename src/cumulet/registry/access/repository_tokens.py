"""Repository tokens: names with up to two passwords, and the rights of a scope map.

Source: ACR's documentation, "Create a token with repository-scoped permissions", and the REST reference of tokens.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

import msgspec

from cumulet.common import clock
from cumulet.common.secrets import hash_of, new_text

PASSWORDS = ("password1", "password2")


class Password(msgspec.Struct, frozen=True):
    """One password of a token, as it is stored. `expiry` is a time in RFC 3339, or `None` for never."""

    name: str
    key_id: str
    hint: str
    hash: str
    created: str
    expiry: str | None = None

    def is_good(self) -> bool:
        """Whether it has not expired."""
        return self.expiry is None or clock.parse(self.expiry) > clock.now()


class RepositoryToken(msgspec.Struct, frozen=True):
    """A token. `scope_map` is the name of a scope map in the same registry."""

    segment: ClassVar[str] = "tokens"

    name: str
    created: str
    scope_map: str = ""
    enabled: bool = True
    passwords: tuple[Password, ...] = ()


async def new_password(name: str, expiry: str | None) -> tuple[Password, str]:
    """A new password and its text, which is not stored."""
    text = new_text()
    password = Password(name, str(uuid.uuid4()), text[:3], await hash_of(text), clock.rfc3339_micro(), expiry)
    return password, text
