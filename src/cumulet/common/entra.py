"""The client of Microsoft Entra ID: gets access tokens, and verifies the tokens of others.

Tokens follow OAuth 2.0 client credentials (RFC 6749, section 4.4), with the v2.0 endpoint of the Microsoft identity
platform. Keys follow OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common.ascii import fold
from cumulet.common.config import Address

#: Audiences (`aud`) of tokens: for the front door, the data plane of registries, and Microsoft Graph.
ARM_AUDIENCE = "https://management.azure.com"
REGISTRY_AUDIENCE = "https://containerregistry.azure.net"
GRAPH_AUDIENCE = "https://graph.microsoft.com"


def arm_audiences(address: Address, *more: Address) -> tuple[str, ...]:
    """Return every audience of Azure Resource Manager: the public cloud's two, the names of this machine, and more addresses."""
    hosts = dict.fromkeys((address.host, "localhost", "127.0.0.1"))
    own = [*(f"https://{host}:{address.port}" for host in hosts), *(other.url for other in more)]
    return (ARM_AUDIENCE, "https://management.core.windows.net", *own)


_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_EARLY = 120.0
_REFETCH = 10.0
#: Seconds by which clocks may differ, and the number of verified tokens that are remembered.
_LEEWAY, _REMEMBERED = 30, 256


class Credential(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A service principal of a room or of the owner, which `cumulet up` creates and the identity room registers.

    `roles` are its role assignments at the first start, as (role name, scope).
    """

    tenant_id: str
    client_id: str
    object_id: str
    display_name: str
    client_secret: str
    roles: list[tuple[str, str]] = []


def read_credential(path: Path) -> Credential:
    """Read a credential file."""
    return msgspec.json.decode(path.read_bytes(), type=Credential)


def bearer_token(authorization: str) -> str:
    """Return the token in an `Authorization` header (RFC 6750, section 2.1), empty if the header has another form."""
    scheme, _, token = authorization.partition(" ")
    token = token.strip(" ")
    return token if fold(scheme) == "bearer" and _BEARER.fullmatch(token) else ""


class AuthenticationError(Exception):
    """A token was refused or not issued; the message is the authority's reason."""


class TokenSource:
    """Access tokens for one service principal, cached until shortly before they expire."""

    def __init__(self, session: aiohttp.ClientSession, authority: str, credential: Credential) -> None:
        self._session = session
        self._url = f"{authority}/{credential.tenant_id}/oauth2/v2.0/token"
        self._credential = credential
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = asyncio.Lock()

    async def token(self, audience: str) -> str:
        """Return a token for an audience such as `ARM_AUDIENCE`. Raises `AuthenticationError`, `aiohttp.ClientError`."""
        async with self._lock:
            token, ends = self._tokens.get(audience, ("", 0.0))
            if ends - _EARLY <= time.monotonic():
                token, life = await self._fetch(audience)
                self._tokens[audience] = token, time.monotonic() + life
            return token

    async def _fetch(self, audience: str) -> tuple[str, float]:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._credential.client_id,
            "client_secret": self._credential.client_secret,
            "scope": f"{audience}/.default",
        }
        async with self._session.post(self._url, data=form) as response:
            body = await response.json(content_type=None)
            if response.status != 200:
                raise AuthenticationError(str(body.get("error_description", body)))
            return body["access_token"], float(body["expires_in"])


class _Verified(NamedTuple):
    """The claims of a token that was verified with a key for audiences; it is valid until `ends`, in seconds of the epoch."""

    claims: dict[str, Any]
    audiences: tuple[str, ...]
    kid: str
    key: rsa.RSAPublicKey
    ends: float


class TokenVerifier:
    """Verifies access tokens of one tenant with the keys that its authority publishes.

    The keys are fetched when they are first needed, and again for a token with an unknown key. So a rotation of keys
    invalidates no token. Fetches are at least ten seconds apart, so forged tokens cause no load.

    A client sends the same token with every request. Its signature and claims are checked once; the key, the audience and the
    expiry every time. Nothing else of a token can change.
    """

    def __init__(self, session: aiohttp.ClientSession, authority: str, tenant: str) -> None:
        self._session = session
        self._discovery = f"{authority}/{tenant}/v2.0/.well-known/openid-configuration"
        self._issuer = ""
        self._keys: dict[str, rsa.RSAPublicKey] = {}
        self._fetched = -_REFETCH
        self._lock = asyncio.Lock()
        #: By the digest of the token, the oldest first.
        self._verified: dict[bytes, _Verified] = {}

    async def verify(self, token: str, *audiences: str) -> dict[str, Any]:
        """Return the claims of a valid token for any of `audiences`. Raises `AuthenticationError`, `aiohttp.ClientError`."""
        try:
            digest = hashlib.sha256(token.encode()).digest()
            if (known := self._verified.get(digest)) is not None and self._is_valid(known, audiences):
                return {**known.claims}
            header = jwt.get_unverified_header(token)
            kid = str(header.get("kid", ""))
            key = await self._key(kid)
            # Clients request an audience with or without a trailing slash, and `aud` is the requested one.
            names = [name for audience in audiences for name in (audience, f"{audience}/")]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=names,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud", "iss", "oid"]},
            )
            self._remember(digest, _Verified(claims, audiences, kid, key, int(claims["exp"]) + _LEEWAY))
            return {**claims}
        except UnicodeEncodeError:  # the header had bytes that are not UTF-8
            raise AuthenticationError("the token is not ASCII") from None
        except jwt.InvalidTokenError as error:
            raise AuthenticationError(str(error)) from None

    def _is_valid(self, known: _Verified, audiences: tuple[str, ...]) -> bool:
        return known.audiences == audiences and self._keys.get(known.kid) is known.key and time.time() < known.ends

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._verified.pop(digest, None)
        self._verified[digest] = verified
        if len(self._verified) > _REMEMBERED:
            del self._verified[next(iter(self._verified))]

    async def _key(self, kid: str) -> rsa.RSAPublicKey:
        if kid not in self._keys:
            async with self._lock:
                if kid not in self._keys and time.monotonic() - self._fetched >= _REFETCH:
                    await self._fetch()
        if kid not in self._keys:
            raise AuthenticationError("the token was signed with a key that the authority does not publish")
        return self._keys[kid]

    async def _fetch(self) -> None:
        async with self._session.get(self._discovery, raise_for_status=True) as response:
            document = await response.json(content_type=None)
        async with self._session.get(document["jwks_uri"], raise_for_status=True) as response:
            keys = await response.json(content_type=None)
        parsed = {entry["kid"]: jwt.PyJWK(entry, "RS256").key for entry in keys["keys"]}
        self._keys = {kid: key for kid, key in parsed.items() if isinstance(key, rsa.RSAPublicKey)}
        self._issuer = document["issuer"]
        self._fetched = time.monotonic()
