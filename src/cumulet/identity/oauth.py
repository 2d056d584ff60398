"""The Microsoft identity platform's v2.0 end points: OpenID discovery, keys, and client credentials (RFC 6749, 4.4).

A client authenticates with a secret, or with an assertion signed by a certificate of its application (RFC 7523).
Errors have OAuth2's form with Entra's own codes in their description.
"""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from typing import Any

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cumulet.common import clock
from cumulet.common.arm import json_response
from cumulet.identity.keys import SigningKeys
from cumulet.identity.secrets import Throttle, matches
from cumulet.identity.store import Application, Certificate, Directory

_LIFE = 3600
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class OAuthError(Exception):
    """An error of the token end point (RFC 6749, 5.2) with Entra's numeric code."""

    def __init__(self, status: int, error: str, code: int, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.code = code


class TokenEndpoint:
    """Serves `/{tenant}/…`; `issuer` is the base URL that tokens name."""

    def __init__(self, directory: Directory, keys: SigningKeys, base_url: str, tenant: str) -> None:
        self._directory = directory
        self._keys = keys
        self._base_url = base_url
        self._tenant = tenant
        self._throttle = Throttle()
        self.issuer = f"{base_url}/{tenant}/v2.0"

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get("/{tenant}/v2.0/.well-known/openid-configuration", self._discovery),
            web.get("/{tenant}/discovery/v2.0/keys", self._jwks),
            web.post("/{tenant}/oauth2/v2.0/token", self._token),
        ]

    async def _discovery(self, request: web.Request) -> web.Response:
        self._check_tenant(request)
        base = f"{self._base_url}/{self._tenant}"
        return json_response(
            {
                "issuer": self.issuer,
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                "jwks_uri": f"{base}/discovery/v2.0/keys",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "private_key_jwt",
                    "client_secret_basic",
                ],
                "response_types_supported": ["token"],
                "grant_types_supported": ["client_credentials"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid"],
                "tenant_region_scope": "WW",
                "cloud_instance_name": self._base_url.removeprefix("https://"),
            }
        )

    async def _jwks(self, request: web.Request) -> web.Response:
        self._check_tenant(request)
        return json_response(self._keys.public())

    async def _token(self, request: web.Request) -> web.Response:
        trace = str(uuid.uuid4())
        try:
            self._check_tenant(request)
            form = {key: str(value) for key, value in (await request.post()).items()}
            return json_response(await self._grant(form, request.headers.get("Authorization", "")))
        except OAuthError as error:
            moment = clock.now().strftime("%Y-%m-%d %H:%M:%SZ")
            description = f"AADSTS{error.code}: {error} Trace ID: {trace} Timestamp: {moment}"
            body = {
                "error": error.error,
                "error_description": description,
                "error_codes": [error.code],
                "timestamp": moment,
                "trace_id": trace,
                "correlation_id": request.headers.get("client-request-id", trace),
            }
            return json_response(body, error.status)

    def _check_tenant(self, request: web.Request) -> None:
        tenant = request.match_info["tenant"]
        if tenant.lower() not in (self._tenant, "common", "organizations"):
            if request.method == "GET":
                raise web.HTTPNotFound(reason=f"Tenant '{tenant}' not found.")
            raise OAuthError(
                400, "invalid_request", 90002, f"Tenant '{tenant}' not found. Check that you have the right one."
            )

    async def _grant(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        if form.get("grant_type") != "client_credentials":
            raise OAuthError(
                400,
                "unsupported_grant_type",
                70003,
                f"The grant type '{form.get('grant_type', '')}' is not supported: use client_credentials.",
            )
        if authorization.startswith("Basic "):
            form = {**form, **_basic(authorization)}
        scope = form.get("scope", "").split(" ")[0]
        if not scope.endswith("/.default"):
            raise OAuthError(
                400,
                "invalid_scope",
                1002012,
                f"The provided value for scope '{scope}' is not valid: it must end in /.default.",
            )
        application = self._application(form.get("client_id", ""))
        await self._authenticate(application, form)
        return self._issue(application, scope.removesuffix("/.default"))

    def _application(self, client_id: str) -> Application:
        found = self._directory.applications("app_id", client_id.lower())
        if not found:
            raise OAuthError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{client_id}' was not found in the directory '{self._tenant}'.",
            )
        return found[0]

    async def _authenticate(self, application: Application, form: dict[str, str]) -> None:
        if wait := self._throttle.retry_after(application.app_id):
            raise OAuthError(
                429, "temporarily_unavailable", 50196, f"Too many failed attempts: try again in {wait} seconds."
            )
        try:
            if form.get("client_assertion_type") == _ASSERTION:
                self._check_assertion(application, form.get("client_assertion", ""))
            elif form.get("client_secret"):
                await self._check_secret(application, form["client_secret"])
            else:
                raise OAuthError(
                    401,
                    "invalid_client",
                    7000218,
                    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
                )
        except OAuthError:
            self._throttle.failed(application.app_id)
            raise
        self._throttle.succeeded(application.app_id)

    async def _check_secret(self, application: Application, text: str) -> None:
        now = clock.rfc3339()
        expired = False
        for secret in self._directory.secrets(application.id):
            # The hint spares a hash for secrets that cannot be meant; it is no secret itself.
            if secret.hint != text[:3] or not await matches(secret, text):
                continue
            if secret.starts <= now < secret.ends:
                return
            expired = True
        if expired:
            raise OAuthError(
                401,
                "invalid_client",
                7000222,
                f"The provided client secret keys for app '{application.app_id}' are expired. Create a new secret.",
            )
        raise OAuthError(
            401,
            "invalid_client",
            7000215,
            f"Invalid client secret provided for app '{application.app_id}'. Ensure the secret being sent in the request is the "
            "client secret value, not the client secret ID.",
        )

    def _check_assertion(self, application: Application, assertion: str) -> None:
        """An assertion's `x5t` or `x5t#S256` names the certificate; it lives briefly and is for this end point."""
        try:
            header = jwt.get_unverified_header(assertion)
            certificate = _signer(header, self._directory.certificates(application.id))
            if certificate is None:
                raise jwt.InvalidTokenError(
                    "the certificate is not registered for the application, or is not valid now"
                )
            key = x509.load_pem_x509_certificate(certificate.pem.encode()).public_key()
            jwt.decode(
                assertion,
                key,  # type: ignore[arg-type]
                algorithms=["RS256", "PS256"],
                audience=[f"{self._base_url}/{self._tenant}/oauth2/v2.0/token", self.issuer],
                issuer=application.app_id,
                subject=application.app_id,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            raise OAuthError(401, "invalid_client", 700027, f"Client assertion failed validation: {error}.") from None

    def _issue(self, application: Application, audience: str) -> dict[str, Any]:
        principals = self._directory.principals("app_id", application.app_id)
        if not principals:
            raise OAuthError(
                400,
                "unauthorized_client",
                7000229,
                f"The client application '{application.app_id}' has no service principal in the tenant '{self._tenant}'.",
            )
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": self.issuer,
            "iat": now,
            "nbf": now,
            "exp": now + _LIFE,
            "appid": application.app_id,
            "azp": application.app_id,
            "app_displayname": application.display_name,
            "idtyp": "app",
            "oid": principals[0].id,
            "sub": principals[0].id,
            "tid": self._tenant,
            "uti": uuid.uuid4().hex,
            "ver": "2.0",
        }
        return {
            "token_type": "Bearer",
            "expires_in": _LIFE,
            "ext_expires_in": _LIFE,
            "access_token": self._keys.sign(claims),
        }


def _basic(authorization: str) -> dict[str, str]:
    try:
        user, _, password = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
    except ValueError:
        raise OAuthError(401, "invalid_client", 7000216, "The Authorization header is not valid Basic.") from None
    return {"client_id": user, "client_secret": password}


def _signer(header: dict[str, Any], certificates: list[Certificate]) -> Certificate | None:
    now = clock.rfc3339()
    for certificate in certificates:
        der = x509.load_pem_x509_certificate(certificate.pem.encode()).public_bytes(Encoding.DER)
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
        named = header.get("x5t#S256") == sha256 or header.get("x5t") == certificate.thumbprint
        if named and certificate.starts <= now < certificate.ends:
            return certificate
    return None
