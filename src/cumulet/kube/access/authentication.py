"""Authentication by client certificates, service account tokens and Entra ID's tokens.

A request without credentials is anonymous.
"""

from __future__ import annotations

import logging

import aiohttp
import jwt
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.entra import AuthenticationError, TokenVerifier
from cumulet.common.kubernetes.objects import Object
from cumulet.common.room import peer_certificate
from cumulet.kube.access.users import ANONYMOUS, AUTHENTICATED, ServiceAccountTokens, User
from cumulet.kube.apimachinery.status import ApiError

log = logging.getLogger(__name__)

#: The Entra ID application of Azure's managed clusters: the audience of the tokens that `kubelogin` gets.
AKS_SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630"
_RESERVED = "system:"
_TOKEN_LIMIT = 64 * 1024


class TokenError(Exception):
    """A token is invalid; the message gives the reason."""


class Authenticator:
    """Tries each kind of credentials in turn."""

    def __init__(self, tokens: ServiceAccountTokens, entra: TokenVerifier) -> None:
        self._tokens = tokens
        self._entra = entra

    async def caller(self, request: web.BaseRequest) -> User:
        """Return the caller of a request. Raises `ApiError` 401 where its credentials are invalid."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if fold(scheme) == "bearer":
            try:
                return await self.user_of(token.strip())
            except TokenError as error:
                log.info("a bearer token was refused: %s", error)
                raise ApiError(401, "Unauthorized", "Unauthorized") from None
        peer = peer_certificate(request)
        if peer is not None:
            return User(peer.user, (*peer.groups, AUTHENTICATED))
        return ANONYMOUS

    async def user_of(self, token: str, audiences: list[str] | None = None) -> User:
        """Return the user that a token stands for. Raises `TokenError`."""
        if len(token) > _TOKEN_LIMIT:
            raise TokenError("the token is too long")
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
            if self._tokens.is_issuer(issuer):
                return self._tokens.verify(token, audiences)
            return _principal(await self._entra.verify(token, *(audiences or [AKS_SERVER])))
        except (jwt.InvalidTokenError, AuthenticationError, KeyError, TypeError, ValueError) as error:
            raise TokenError(str(error)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TokenError(f"the issuer of the token cannot be reached: {error}") from None


def _principal(claims: Object) -> User:
    """Return the user of an Entra ID token: by name, or for a service principal by object id.

    The groups are object ids, as in AKS.
    """
    name, groups = claims.get("upn") or claims["oid"], claims.get("groups") or []
    names = [name, *groups] if isinstance(groups, list) else [None]
    if any(not isinstance(item, str) or item.startswith(_RESERVED) for item in names):
        raise TokenError("the token names a user or group with the reserved prefix system:")
    extra = {key: (str(claims[key]),) for key in ("oid", "tid", "appid", "azp") if key in claims}
    return User(name, (*groups, AUTHENTICATED), str(claims["oid"]), tuple(extra.items()))
