"""The Microsoft identity platform's v2.0 endpoints: OpenID discovery, keys, and client credentials (RFC 6749, section 4.4).

Errors have OAuth2's form, with Entra's own codes in their description.
"""

from __future__ import annotations

import base64
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from cumulet.common import clock
from cumulet.common.arm import json_response
from cumulet.common.ascii import fold
from cumulet.common.config import Address
from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, arm_audiences
from cumulet.common.room import peer_room
from cumulet.identity.client_authentication import Client, ClientAuthentication
from cumulet.identity.federation import Federation
from cumulet.identity.issuer_keys import IssuerKeys
from cumulet.identity.oauth_errors import OAuthError
from cumulet.identity.signing_keys import TOKEN_LIFE, SigningKeys
from cumulet.identity.store import Directory

log = logging.getLogger(__name__)

_FORM = "application/x-www-form-urlencoded"
_FIELDS = 50
_LONGEST_AUDIENCE = 1024

#: A response with a token must not be cached (RFC 6749, section 5.1).
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

_DISCOVERY = "/{tenant}/v2.0/.well-known/openid-configuration"
_KEYS = "/{tenant}/discovery/v2.0/keys"
_TOKEN = "/{tenant}/oauth2/v2.0/token"  # noqa: S105
#: The routes that need no token: public documents, and the token endpoint, which checks credentials itself.
OPEN = frozenset({_DISCOVERY, _KEYS, _TOKEN})

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class OpenIdConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of the provider (OpenID Connect Discovery 1.0, section 3), with Entra's additions."""

    issuer: str
    token_endpoint: str
    #: MSAL requires it, also for grants that never use it.
    authorization_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = (
        "client_secret_post",
        "client_secret_basic",
        "private_key_jwt",
        "tls_client_auth",
    )
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...] = ("RS256", "PS256")
    response_types_supported: tuple[str, ...] = ("token",)
    grant_types_supported: tuple[str, ...] = ("client_credentials",)
    subject_types_supported: tuple[str, ...] = ("pairwise",)
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    scopes_supported: tuple[str, ...] = ("openid",)
    tenant_region_scope: str = "WW"
    cloud_instance_name: str


class TokenResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An access token (RFC 6749, section 5.1), with Entra's `ext_expires_in`; times are in seconds."""

    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = TOKEN_LIFE
    ext_expires_in: int = TOKEN_LIFE
    access_token: str


class TokenError(msgspec.Struct, frozen=True):
    """An error of the token endpoint (RFC 6749, section 5.2), with Entra's codes and ids."""

    error: str
    error_description: str
    error_codes: list[int]
    timestamp: str
    trace_id: str
    correlation_id: str


class TokenEndpoint:
    """Serves `/{tenant}/…`. `issuer` is the `iss` of its tokens, and `arm` are the addresses of the front door.

    `more_urls` are the base URLs at which it is served besides `base_url`; assertions may be addressed to them.
    """

    def __init__(
        self,
        directory: Directory,
        keys: SigningKeys,
        base_url: str,
        tenant: str,
        arm: Sequence[Address],
        issuers: IssuerKeys,
        metrics: CollectorRegistry,
        more_urls: Sequence[str] = (),
    ) -> None:
        self._keys = keys
        self._base_url = base_url
        self._tenant = tenant
        self.issuer = f"{base_url}/{tenant}/v2.0"
        names = {fold(name): ARM_AUDIENCE for name in arm_audiences(*arm)} | {fold(base_url): GRAPH_AUDIENCE}
        federation = Federation(directory, issuers, self.issuer)
        audiences = [
            f"{url}/{tenant}/{path}" for url in (base_url, *more_urls) for path in ("oauth2/v2.0/token", "v2.0")
        ]
        self._clients = ClientAuthentication(directory, tenant, audiences, names, federation)
        self._issued = Counter("identity_tokens_issued", "Access tokens issued.", registry=metrics)
        self._refused = Counter(
            "identity_requests_refused", "Refused requests by OAuth2's error.", ["error"], registry=metrics
        )

    def routes(self, base_url: str | None = None) -> list[web.RouteDef]:
        """Return the routes, whose documents name `base_url` as the address of the others, by default the room's."""

        async def discovery(_: web.Request) -> web.Response:
            return json_response(self._configuration(base_url or self._base_url))

        return [
            web.get(_DISCOVERY, self._in_tenant(discovery)),
            web.get(_KEYS, self._in_tenant(self._jwks)),
            web.post(_TOKEN, self._in_tenant(self._token)),
        ]

    def _in_tenant(self, handler: _Handler) -> _Handler:
        """Return a handler that accepts the names of the one tenant, and returns errors in OAuth2's form."""

        async def guarded(request: web.Request) -> web.Response:
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

        return guarded

    def _configuration(self, base_url: str) -> OpenIdConfiguration:
        base = f"{base_url}/{self._tenant}"
        return OpenIdConfiguration(
            issuer=self.issuer,
            token_endpoint=f"{base}/oauth2/v2.0/token",
            authorization_endpoint=f"{base}/oauth2/v2.0/authorize",
            jwks_uri=f"{base}/discovery/v2.0/keys",
            cloud_instance_name=base_url.removeprefix("https://"),
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
        return json_response(self._issue(client, audience), headers=_NO_STORE)

    def _issue(self, client: Client, audience: str) -> TokenResponse:
        now = int(time.time())
        principal = client.principal
        claims: dict[str, str | int] = {
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
        return TokenResponse(access_token=self._keys.sign(claims))

    def _refusal(self, error: OAuthError, request: web.Request) -> web.Response:
        trace = str(uuid.uuid4())
        moment = clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
        correlation = request.headers.get("client-request-id", "")
        body = TokenError(
            error=error.error,
            error_description=f"AADSTS{error.code}: {error} Trace ID: {trace} Timestamp: {moment}",
            error_codes=[error.code],
            timestamp=moment,
            trace_id=trace,
            correlation_id=correlation if correlation.isprintable() and 0 < len(correlation) <= 64 else trace,
        )
        headers = dict(_NO_STORE)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if error.status == 401 and "Authorization" in request.headers:
            headers["WWW-Authenticate"] = f'Basic realm="{self._tenant}"'  # RFC 6749, section 5.2
        self._refused.labels(error.error).inc()
        log.info("token refused: AADSTS%d: %s", error.code, error, extra={"trace": trace})
        return json_response(body, error.status, headers)


async def _form(request: web.Request) -> dict[str, str]:
    """Return the parameters of a form, each of which may be given once. Raises `OAuthError`."""
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
    """Return the client id and secret in a Basic header, each form-encoded (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if fold(scheme) != "basic":
        return {}
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise OAuthError(401, "invalid_client", 7000216, "The Authorization header is not valid Basic.") from None
    return {"client_id": unquote_plus(user), "client_secret": unquote_plus(password)}


def _audience(scope: str) -> str:
    """Return the audience of the one requested scope, which is the scope without `/.default`. Raises `OAuthError`."""
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
