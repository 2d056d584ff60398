"""The keys that sign access tokens (RS256), published as a JSON Web Key Set (RFC 7517) and rotated.

A new key is published a day before it signs, so that every client has it by then. An old key is published until the last
token that it signed has expired. A rotation therefore invalidates no token.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common import clock
from cumulet.identity.store import Directory

#: The lifetime of an access token, in seconds.
TOKEN_LIFE = 3600

_SIGNS_FOR = timedelta(days=30)
_PUBLISHED_BEFORE = timedelta(days=1)
_PUBLISHED_AFTER = timedelta(seconds=TOKEN_LIFE) + timedelta(minutes=10)


class TokenClaims(msgspec.Struct, frozen=True):
    """The claims of an access token that identify its service principal: object id and client id."""

    oid: str
    appid: str = ""


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON Web Key (RFC 7517, section 4; RFC 7518, section 6.3.1)."""

    kty: str = "RSA"
    use: str = "sig"
    alg: str = "RS256"
    kid: str
    x5t: str
    n: str
    e: str


class PublicKeys(msgspec.Struct, frozen=True):
    """A JSON Web Key Set (RFC 7517, section 5)."""

    keys: list[PublicKey]


class _Key(NamedTuple):
    kid: str
    private: rsa.RSAPrivateKey
    starts: datetime


class SigningKeys:
    """The newest key that has started signs, and every stored key verifies. `now` is the clock."""

    def __init__(self, directory: Directory, now: Callable[[], datetime] = clock.now) -> None:
        self._directory = directory
        self._now = now
        self._keys: list[_Key] = []  # the newest first

    async def maintain(self) -> None:
        """Create the next key in time, and delete keys whose tokens have all expired.

        Call this at the start, and then at least once an hour.
        """
        now = self._now()
        if not self._keys:
            self._load()
        add: tuple[str, str, str] | None = None
        if not self._keys:
            add = await _new_key(now)
        elif self._keys[0].starts + _SIGNS_FOR < now + _PUBLISHED_BEFORE:
            add = await _new_key(now + _PUBLISHED_BEFORE)
        newer = zip(self._keys, self._keys[1:], strict=False)
        ended = [old.kid for new, old in newer if new.starts + _PUBLISHED_AFTER < now]
        if add is not None or ended:
            await self._directory.change_signing_keys(add, ended)
            self._load()

    def sign(self, claims: Mapping[str, str | int]) -> str:
        """Return a JSON Web Token with these claims."""
        now = self._now()
        # After the machine's clock was set back, no key may have started: then the oldest signs.
        key = next((key for key in self._keys if key.starts <= now), self._keys[-1])
        return jwt.encode(dict(claims), key.private, "RS256", headers={"kid": key.kid, "x5t": key.kid})

    def verify(self, token: str, audiences: list[str], issuer: str) -> TokenClaims:
        """Return the claims of a token that these keys signed. Raises `jwt.InvalidTokenError`."""
        kid = jwt.get_unverified_header(token).get("kid", "")
        key = next((key for key in self._keys if key.kid == kid), None)
        if key is None:
            raise jwt.InvalidTokenError("the token was signed with an unknown key")
        claims = jwt.decode(
            token,
            key.private.public_key(),
            algorithms=["RS256"],
            audience=audiences,
            issuer=issuer,
            options={"require": ["exp", "aud", "iss", "oid"]},
        )
        return msgspec.convert(claims, TokenClaims)

    def public(self) -> PublicKeys:
        """Return the JSON Web Key Set."""
        return PublicKeys([_public(key) for key in self._keys])

    def _load(self) -> None:
        self._keys = []
        for kid, pem, starts in self._directory.signing_keys():
            private = serialization.load_pem_private_key(pem.encode(), password=None)
            assert isinstance(private, rsa.RSAPrivateKey)
            self._keys.append(_Key(kid, private, clock.parse(starts)))


async def _new_key(starts: datetime) -> tuple[str, str, str]:
    key = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _thumbprint(key), pem.decode(), clock.rfc3339_micro(starts)


def _public(key: _Key) -> PublicKey:
    numbers = key.private.public_key().public_numbers()
    return PublicKey(kid=key.kid, x5t=key.kid, n=_base64url(numbers.n), e=_base64url(numbers.e))


def _thumbprint(key: rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()[:20]).rstrip(b"=").decode()


def _base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
