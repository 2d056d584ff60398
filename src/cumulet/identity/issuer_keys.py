"""The keys of external issuers: OpenID Connect Discovery 1.0, section 4, and JSON Web Key Sets (RFC 7517).

Users name issuers, so a fetch is checked by `common.egress`, over https, without redirects, and bounded in size and time.
Keys are cached. A token with an unknown key causes a new fetch, so a rotation invalidates no token. The fetches of an issuer
are at least ten seconds apart, also after a failure, so forged tokens cause no load.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

import aiohttp
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from yarl import URL

from cumulet.common import bounded
from cumulet.common.egress import https_only

log = logging.getLogger(__name__)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_WELL_KNOWN = "/.well-known/openid-configuration"
_LIMIT = 256 * 1024
_KEYS = 100
_KEY_SIZE = 2048
_ISSUERS = 1000
#: Seconds: between two fetches of an issuer, and from a fetch until its keys are not used any more.
_REFETCH, _LIFE = 10.0, 3600.0


class IssuerError(Exception):
    """The keys of an issuer cannot be fetched; the message has the reason."""


class _Configuration(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Key(msgspec.Struct):
    """The members of a JSON Web Key that decide whether it is used (RFC 7517, section 4)."""

    kty: str = ""
    kid: str = ""
    use: str = "sig"


class _KeySet(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Issuer:
    """What is known of an issuer. `fetched` and `tried` are in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.keys: dict[str, PublicKey] = {}
        self.failure: str | None = None
        self.fetched = self.tried = -_LIFE
        self.lock = asyncio.Lock()


class IssuerKeys:
    """Fetches and caches keys. `session` checks each connection, and `now` is the monotonic clock."""

    def __init__(self, session: aiohttp.ClientSession, now: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._now = now
        self._issuers: OrderedDict[str, _Issuer] = OrderedDict()

    async def key(self, issuer: str, kid: str) -> PublicKey | None:
        """Return a key that an issuer publishes, or `None` for an unknown `kid`. Raises `IssuerError`."""
        known = self._issuers.setdefault(issuer, _Issuer())
        self._issuers.move_to_end(issuer)
        if len(self._issuers) > _ISSUERS:
            self._issuers.popitem(last=False)
        async with known.lock:
            now = self._now()
            is_due = kid not in known.keys or now >= known.fetched + _LIFE
            if is_due and now >= known.tried + _REFETCH:
                await self._fetch(issuer, known, now)
            if now >= known.fetched + _LIFE:
                raise IssuerError(known.failure or "its keys are not known")
            return known.keys.get(kid)

    async def _fetch(self, issuer: str, known: _Issuer, now: float) -> None:
        known.tried = now
        try:
            known.keys = await self._published(issuer)
            known.fetched, known.failure = now, None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.DecodeError) as error:
            known.failure = str(error) or type(error).__name__
            log.warning("the keys of the issuer %r cannot be fetched: %s", issuer, known.failure)

    async def _published(self, issuer: str) -> dict[str, PublicKey]:
        """Return the keys that an issuer publishes by their ids. Raises `ValueError`, `aiohttp.ClientError` and others."""
        found = msgspec.json.decode(await self._get(issuer.removesuffix("/") + _WELL_KNOWN), type=_Configuration)
        if found.issuer != issuer:  # OpenID Connect Discovery 1.0, section 4.3
            raise ValueError("its configuration is that of another issuer")
        entries = msgspec.json.decode(await self._get(found.jwks_uri), type=_KeySet).keys
        if len(entries) > _KEYS:
            raise ValueError(f"it publishes more than {_KEYS} keys")
        keys: dict[str, PublicKey] = {}
        for entry in entries:
            kid, key = _usable(bytes(entry))
            if key is not None:
                # Two keys of one name are no choice of ours.
                if kid in keys:
                    raise ValueError("it publishes two keys with the same id")
                keys[kid] = key
        return keys

    async def _get(self, url: str) -> bytes:
        async with self._session.get(URL(url), allow_redirects=False, middlewares=(https_only,)) as response:
            if response.status != 200:
                raise ValueError(f"the status of a document is {response.status}")
            return await bounded.read(response, _LIMIT)


def _usable(entry: bytes) -> tuple[str, PublicKey | None]:
    """Return a key for signatures that is strong enough, with its id; `None` for any other key."""
    try:
        described = msgspec.json.decode(entry, type=_Key)
        if described.use != "sig" or not described.kid or described.kty not in ("RSA", "EC"):
            return "", None
        key = jwt.PyJWK(msgspec.json.decode(entry)).key
    except (msgspec.DecodeError, jwt.PyJWTError, ValueError, TypeError):
        return "", None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _KEY_SIZE:
        return described.kid, key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return described.kid, key
    return "", None
