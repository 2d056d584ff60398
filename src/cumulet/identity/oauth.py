"""The Microsoft identity platform's v2.0 end points: OpenID discovery, keys, and client credentials (RFC 6749, 4.4).

Errors have OAuth2's form with Entra's own codes in their description.
"""

from __future__ import annotations

import base64
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from cumulet.common import clock
from cumulet.common.arm import json_response
from cumulet.common.ascii import fold
from cumulet.common.config import Address
from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, arm_audiences
from cumulet.common.room import peer_room
from cumulet.identity.client_authentication import Client, Clients, OAuthError
from cumulet.identity.signing_keys import TOKEN_LIFE, SigningKeys
from cumulet.identity.store import Directory

log = logging.getLogger(__name__)

_FORM = "application/x-www-form-urlencoded"
_FIELDS = 50
_LONGEST_AUDIENCE = 1024

#: RFC 6749, 5.1: nobody on the way keeps an answer with a token in it.
_NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}

_DISCOVERY = "/{tenant}/v2.0/.well-known/openid-configuration"
_KEYS = "/{tenant}/discovery/v2.0/keys"
_TOKEN = "/{tenant}/oauth2/v2.0/token"  # noqa: S105
#: Routes that anybody may call: what is published, and where credentials are checked.
OPEN = frozenset({_DISCOVERY, _KEYS, _TOKEN})

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class TokenEndpoint:
    """Serves `/{tenant}/…`; `issuer` is the base URL that tokens name, `arm` where the front door listens."""

    def __init__(
        self,
        directory: Directory,
        keys: SigningKeys,
        base_url: str,
        tenant: str,
        arm: Address,
        metrics: CollectorRegistry,
    ) -> None:
        self._keys = keys
        self._base_url = base_url
        self._tenant = tenant
        self._token_url = f"{base_url}/{tenant}/oauth2/v2.0/token"
        self.issuer = f"{base_url}/{tenant}/v2.0"
        names = {fold(name): ARM_AUDIENCE for name in arm_audiences(arm)} | {fold(base_url): GRAPH_AUDIENCE}
        self._clients = Clients(directory, tenant, [self._token_url, self.issuer], names)
        self._issued = Counter("identity_tokens_issued", "Access tokens given out.", registry=metrics)
        self._refused = Counter(
            "identity_requests_refused", "Requests refused, by OAuth2's error.", ["error"], registry=metrics
        )

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get(_DISCOVERY, self._in_tenant(self._discovery)),
            web.get(_KEYS, self._in_tenant(self._jwks)),
            web.post(_TOKEN, self._in_tenant(self._token)),
        ]

    def _in_tenant(self, handler: _Handler) -> _Handler:
        """Answer for the one tenant, by any of the names that it goes by, and failures in OAuth2's form."""

        async def answer(request: web.Request) -> web.Response:
            try:
                tenant = request.match_info["tenant"]
                if fold(tenant) not in (self._tenant, "common", "organizations"):
                    raise OAuthError(
                        400,
                        "invalid_tenant" if request.method == "GET" else "invalid_request",
                        90002,
                        f"Tenant '{tenant[:100]}' not found. Check to make sure you have the correct tenant ID.",
                    )
                return await handler(request)
            except OAuthError as error:
                return self._refusal(error, request)

        return answer

    async def _discovery(self, _: web.Request) -> web.Response:
        base = f"{self._base_url}/{self._tenant}"
        return json_response(
            {
                "issuer": self.issuer,
                "token_endpoint": self._token_url,
                # MSAL wants to read this one, also for grants that never use it.
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "jwks_uri": f"{base}/discovery/v2.0/keys",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "client_secret_basic",
                    "private_key_jwt",
                    "tls_client_auth",
                ],
                "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256"],
                "response_types_supported": ["token"],
                "grant_types_supported": ["client_credentials"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid"],
                "tenant_region_scope": "WW",
                "cloud_instance_name": self._base_url.removeprefix("https://"),
            }
        )

    async def _jwks(self, _: web.Request) -> web.Response:
        return json_response(self._keys.public())

    async def _token(self, request: web.Request) -> web.Response:
        form = {**await _form(request), **_basic(request.headers.get("Authorization", ""))}
        grant = form.get("grant_type", "")
        if grant != "client_credentials":
            raise OAuthError(
                400,
                "unsupported_grant_type",
                70003,
                f"The app requested an unsupported grant type '{grant[:100]}': use client_credentials.",
            )
        audience = _audience(form.get("scope", ""))
        client = await self._clients.authenticate(form, audience, peer_room(request))
        self._issued.inc()
        return json_response(self._issue(client, audience), headers=_NOT_KEPT)

    def _issue(self, client: Client, audience: str) -> dict[str, Any]:
        now = int(time.time())
        principal = client.principal
        claims: dict[str, Any] = {
            "aud": audience,
            "iss": self.issuer,
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_LIFE,
            "appid": principal.app_id,
            "azp": principal.app_id,
            "app_displayname": principal.display_name,
            "idtyp": "app",
            "oid": principal.id,
            "sub": principal.id,
            "tid": self._tenant,
            "uti": uuid.uuid4().hex,
            "ver": "2.0",
        }
        if client.resource_id is not None:
            claims["xms_mirid"] = client.resource_id
        return {
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE,
            "ext_expires_in": TOKEN_LIFE,
            "access_token": self._keys.sign(claims),
        }

    def _refusal(self, error: OAuthError, request: web.Request) -> web.Response:
        trace = str(uuid.uuid4())
        moment = clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
        correlation = request.headers.get("client-request-id", "")
        body = {
            "error": error.error,
            "error_description": f"AADSTS{error.code}: {error} Trace ID: {trace} Timestamp: {moment}",
            "error_codes": [error.code],
            "timestamp": moment,
            "trace_id": trace,
            "correlation_id": correlation if correlation.isprintable() and 0 < len(correlation) <= 64 else trace,
        }
        headers = dict(_NOT_KEPT)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if error.status == 401 and "Authorization" in request.headers:
            headers["WWW-Authenticate"] = f'Basic realm="{self._tenant}"'  # RFC 6749, 5.2
        self._refused.labels(error.error).inc()
        log.info("token refused: AADSTS%d: %s", error.code, error, extra={"trace": trace})
        return json_response(body, error.status, headers)


async def _form(request: web.Request) -> dict[str, str]:
    if request.content_type != _FORM:
        raise _bad(f"The content type must be {_FORM}.")
    try:
        text = (await request.read()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=_FIELDS)
    except web.HTTPRequestEntityTooLarge:
        raise OAuthError(413, "invalid_request", 900144, "The request body is too large.") from None
    except ValueError:
        raise _bad(f"The request body is not valid {_FORM}.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _bad("A parameter is given more than once.")
    return form


def _basic(authorization: str) -> dict[str, str]:
    """Client id and secret in a Basic header, each form-encoded (RFC 6749, 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if fold(scheme) != "basic":
        return {}
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise OAuthError(401, "invalid_client", 7000216, "The Authorization header is not valid Basic.") from None
    return {"client_id": unquote_plus(user), "client_secret": unquote_plus(password)}


def _audience(scope: str) -> str:
    """What a token is asked for: the one scope, less its `/.default`."""
    audience = scope.removesuffix("/.default")
    if (
        audience == scope
        or not audience
        or not audience.isprintable()
        or " " in audience
        or len(scope) > _LONGEST_AUDIENCE
    ):
        raise OAuthError(
            400,
            "invalid_scope",
            1002012,
            f"The provided value for scope {scope[:200]} is not valid. Client credential flows must have a scope value with "
            "/.default suffixed to the resource identifier (application ID URI).",
        )
    return audience


def _bad(description: str) -> OAuthError:
    return OAuthError(400, "invalid_request", 900144, description)
