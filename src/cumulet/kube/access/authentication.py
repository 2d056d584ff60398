"""Who calls: client certificates of the cluster's authority, tokens of service accounts and of Entra ID, or nobody in particular."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import jwt
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.entra import AuthenticationError, TokenVerifier
from cumulet.common.room import peer_certificate
from cumulet.kube.access.users import ANONYMOUS, AUTHENTICATED, ISSUER, ServiceAccountTokens, User
from cumulet.kube.apimachinery.status import ApiError

log = logging.getLogger(__name__)

#: The application that Entra ID knows Azure's managed clusters by: the audience of tokens that `kubelogin` gets.
AKS_SERVER = "6dae42f8-4368-4678-94ff-3960e28e3630"
_RESERVED = "system:"
_TOKEN_LIMIT = 64 * 1024


class TokenError(Exception):
    """A token is not good; the message says why."""


class Authenticator:
    """Asks each of the ways in turn."""

    def __init__(self, tokens: ServiceAccountTokens, entra: TokenVerifier) -> None:
        self._tokens = tokens
        self._entra = entra

    async def caller(self, request: web.BaseRequest) -> User:
        """The caller of a request. Raises `ApiError` 401 where credentials were shown and are not good."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if fold(scheme) == "bearer":
            try:
                return await self.whose(token.strip())
            except TokenError as error:
                log.info("a bearer token was refused: %s", error)
                raise ApiError(401, "Unauthorized", "Unauthorized") from None
        peer = peer_certificate(request)
        if peer is not None:
            return User(peer.user, (*peer.groups, AUTHENTICATED))
        return ANONYMOUS

    async def whose(self, token: str, audiences: list[str] | None = None) -> User:
        """Whose token it is. Raises `TokenError`."""
        if len(token) > _TOKEN_LIMIT:
            raise TokenError("the token is too long")
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
            if issuer == ISSUER:
                return self._tokens.verify(token, audiences)
            return _principal(await self._entra.verify(token, *(audiences or [AKS_SERVER])))
        except (jwt.InvalidTokenError, AuthenticationError, KeyError, TypeError, ValueError) as error:
            raise TokenError(str(error)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TokenError(f"the authority that issued the token does not answer: {error}") from None


def _principal(claims: dict[str, Any]) -> User:
    """A user by their name, a service principal by its object id, with the object ids of their groups, as AKS does."""
    name, groups = claims.get("upn") or claims["oid"], claims.get("groups") or []
    names = [name, *groups] if isinstance(groups, list) else [None]
    if any(not isinstance(item, str) or item.startswith(_RESERVED) for item in names):
        raise TokenError("the token names a user or group that is the cluster's own")
    extra = {key: (str(claims[key]),) for key in ("oid", "tid", "appid", "azp") if key in claims}
    return User(name, (*groups, AUTHENTICATED), str(claims["oid"]), tuple(extra.items()))
