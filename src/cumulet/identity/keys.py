"""The keys that sign access tokens (RS256), published as a JSON Web Key Set (RFC 7517) and rotated."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common import clock
from cumulet.identity.store import Directory

#: A new key signs after a month; the old ones stay published, so that no token that lives is refused.
_ROTATION = timedelta(days=30)


class SigningKeys:
    """The newest key signs, every key that could have signed a token that lives verifies."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self._current = ""

    async def load(self) -> None:
        """Read the keys, and make one where there is none or the newest is old."""
        known = self._directory.signing_keys()
        if not known or clock.parse(known[0][2]) + _ROTATION < clock.now():
            await self.rotate()
            return
        self._take(known)

    async def rotate(self) -> None:
        """Make a new key and sign with it from now on."""
        key = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        await self._directory.add_signing_key(_thumbprint(key), pem.decode(), clock.rfc3339_micro())
        self._take(self._directory.signing_keys())

    def sign(self, claims: dict[str, Any]) -> str:
        """A JSON Web Token with these claims."""
        return jwt.encode(claims, self._keys[self._current], "RS256", headers={"kid": self._current})

    def verify(self, token: str, audiences: list[str], issuer: str) -> dict[str, Any]:
        """The claims of a token of ours. Raises `jwt.InvalidTokenError`."""
        kid = jwt.get_unverified_header(token).get("kid", "")
        if kid not in self._keys:
            raise jwt.InvalidTokenError("the token was signed with a key that is not known")
        claims: dict[str, Any] = jwt.decode(
            token, self._keys[kid].public_key(), algorithms=["RS256"], audience=audiences, issuer=issuer
        )
        return claims

    def public(self) -> dict[str, Any]:
        """The JSON Web Key Set."""
        keys = []
        for kid, key in self._keys.items():
            numbers = key.public_key().public_numbers()
            keys.append(
                {
                    "kty": "RSA",
                    "use": "sig",
                    "alg": "RS256",
                    "kid": kid,
                    "x5t": kid,
                    "n": _base64url(numbers.n),
                    "e": _base64url(numbers.e),
                }
            )
        return {"keys": keys}

    def _take(self, known: list[tuple[str, str, str]]) -> None:
        for kid, pem, _ in known:
            key = serialization.load_pem_private_key(pem.encode(), password=None)
            assert isinstance(key, rsa.RSAPrivateKey)
            self._keys[kid] = key
        self._current = known[0][0]


def _thumbprint(key: rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()[:20]).rstrip(b"=").decode()


def _base64url(number: int) -> str:
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
