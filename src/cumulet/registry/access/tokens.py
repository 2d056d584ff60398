"""The registry's own refresh and access tokens (JSON Web Tokens, RFC 7519): signing, verification and key rotation."""

from __future__ import annotations

import hmac
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import jwt
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cumulet.common.private_files import write_private
from cumulet.registry.access.scopes import Scope

REFRESH_LIFE = 3 * 3600
ACCESS_LIFE = 10 * 60

_ISSUER = "Azure Container Registry"
#: Seconds for which a key signs tokens.
_SIGNS_FOR = 24 * 3600
_NONCE = 12
_REMEMBERED = 4096


class Unauthorized(Exception):  # noqa: N818  (it becomes a response, 401, and is not a fault)
    """The credentials are not valid. The message names the principal and the reason."""


class SealError(Exception):
    """A sealed secret cannot be opened."""


class Claims(msgspec.Struct, frozen=True):
    """The claims of a token that the room reads.

    An access token has `access` and `refused`. A refresh token has a `kind`, and with it `key_id`, `sealed` or `oid`.
    """

    sub: str
    aud: str
    exp: int
    grant_type: str = ""
    access: list[Scope] = []
    refused: list[Scope] = []
    kind: str = ""
    key_id: str = ""
    sealed: str = ""
    oid: str = ""


class _Key(msgspec.Struct, frozen=True):
    kid: str
    secret: str
    made: float


class Tokens:
    """Signs with HS256, because only this room verifies the tokens.

    A key signs for a day and verifies until its last token has expired, so that rotation invalidates no token.
    `now` returns the time in seconds since 1970.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._path = folder / "signing-keys.json"
        self._seed_path = folder / "seed.key"
        self._now = now
        self._keys: list[_Key] = []  # the newest first
        if self._path.exists():
            self._keys = msgspec.json.decode(self._path.read_bytes(), type=list[_Key])
        if not self._seed_path.exists():
            write_private(self._seed_path, os.urandom(32))
        self._seed = self._seed_path.read_bytes()
        self._verified: dict[str, Claims] = {}

    def derive(self, purpose: str) -> bytes:
        """A key for another purpose, constant for the life of the installation."""
        return hmac.digest(self._seed, purpose.encode(), "sha256")

    def seal(self, place: str, text: str) -> str:
        """A secret, encrypted so that only this installation can `open` it, for the same `place`. Hexadecimal."""
        nonce = os.urandom(_NONCE)
        return (nonce + AESGCM(self.derive("seal")).encrypt(nonce, text.encode(), place.encode())).hex()

    def open(self, place: str, sealed: str) -> str:
        """The sealed text. Raises `SealError` where it was sealed for another place or installation."""
        try:
            raw = bytes.fromhex(sealed)
            return AESGCM(self.derive("seal")).decrypt(raw[:_NONCE], raw[_NONCE:], place.encode()).decode()
        except (InvalidTag, ValueError):
            raise SealError("the secret was not sealed here") from None

    def issue(self, server: str, subject: str, life: int, **claims: object) -> str:
        """A token for a login server, valid for `life` seconds, with further claims."""
        now = int(self._now())
        key = self._signing_key()
        registered = {
            "jti": str(uuid.uuid4()),
            "sub": subject,
            "nbf": now,
            "iat": now,
            "exp": now + life,
            "iss": _ISSUER,
            "aud": server,
            "version": "1.0",
        }
        payload = {**registered, **msgspec.to_builtins(claims)}
        return jwt.encode(payload, bytes.fromhex(key.secret), "HS256", headers={"kid": key.kid})

    def verify(self, token: str, server: str, grant_type: str) -> Claims:
        """The claims of a token that this room signed. Raises `Unauthorized`."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._decode(token)
            if len(self._verified) > _REMEMBERED:
                self._verified.clear()
            self._verified[token] = claims
        if claims.exp <= self._now():
            raise Unauthorized("the token has expired")
        if claims.aud != server:
            raise Unauthorized(f"the token is not for {server}")
        if claims.grant_type != grant_type:
            raise Unauthorized(f"the token is not of the type {grant_type}")
        return claims

    def _decode(self, token: str) -> Claims:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = next((key for key in self._keys if key.kid == kid), None)
            if key is None:
                raise jwt.InvalidTokenError("it was signed with a key that is not known")
            payload = jwt.decode(
                token,
                bytes.fromhex(key.secret),
                algorithms=["HS256"],
                issuer=_ISSUER,
                options={
                    "verify_aud": False,  # `verify` compares it with the login server of the request
                    "verify_exp": False,
                    "verify_nbf": False,  # only this room signs, and the clock may have been set back
                    "verify_iat": False,
                    "require": ["exp", "aud", "sub"],
                },
            )
            return msgspec.convert(payload, Claims)
        except UnicodeEncodeError:  # bytes of a header that are not UTF-8
            raise Unauthorized("the token is not valid: it is not ASCII") from None
        except (jwt.InvalidTokenError, msgspec.ValidationError) as error:
            raise Unauthorized(f"the token is not valid: {error}") from None

    def _signing_key(self) -> _Key:
        """The newest key, or a new one where that is too old. Keys without a token that is still valid are dropped."""
        now = self._now()
        if not self._keys or now - self._keys[0].made >= _SIGNS_FOR:
            newest = _Key(uuid.uuid4().hex, os.urandom(32).hex(), now)
            # A key signed its last token no later than now, or than the creation of the key after it.
            replaced = [now, *(key.made for key in self._keys)]
            kept = [key for key, at in zip(self._keys, replaced, strict=False) if at + REFRESH_LIFE > now]
            self._keys = [newest, *kept]
            write_private(self._path, msgspec.json.encode(self._keys))
        return self._keys[0]
