"""Client authentication at the token endpoint, in one of four ways.

- A client secret (RFC 6749, section 2.3.1).
- A signed assertion (RFC 7521, RFC 7523), valid once, with `x5t` or `x5t#S256` to identify the certificate, as Entra ID
  accepts it.
- An assertion of an external issuer that a federated credential of the client trusts (`federation`). A managed identity can
  have such credentials too.
- Mutual TLS for a managed identity (RFC 8705, section 2.1). The platform that runs its workload
  authenticates for it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cumulet.common import clock
from cumulet.common.ascii import fold
from cumulet.common.config import RoomName
from cumulet.common.secrets import Guard, TooManyFailuresError
from cumulet.identity.federation import Federation
from cumulet.identity.oauth_errors import OAuthError, invalid_client
from cumulet.identity.store import Application, Certificate, Directory, Principal

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

#: The room that runs workloads. It authenticates for their managed identities.
PLATFORM = "instances"

#: The maximum validity of an assertion, and the maximum difference between two clocks, in seconds.
_ASSERTION_LIFE = 24 * 3600
_LEEWAY = 60
_LONGEST_ASSERTION = 16 * 1024
_LONGEST_JTI = 1024


class Client(NamedTuple):
    """An authenticated client; `resource_id` is that of a managed identity."""

    principal: Principal
    resource_id: str | None = None


class AssertionClaims(NamedTuple):
    """The claims of an assertion with a valid signature: its end in seconds since 1970, and its id if it has one.

    See RFC 7519, section 4.1. The type of `jti` is not checked yet.
    """

    exp: int
    jti: object


class ClientAuthentication:
    """Authenticates clients.

    An assertion must have an `aud` in `audiences`. `names` maps the aliases of a resource, in lower case, to the name
    that its assertions are counted under.
    """

    def __init__(
        self,
        directory: Directory,
        tenant: str,
        audiences: list[str],
        names: Mapping[str, str],
        federation: Federation,
    ) -> None:
        self._directory = directory
        self._tenant = tenant
        self._audiences = audiences
        self._names = names
        self._federation = federation
        self._guard = Guard()

    async def authenticate(self, form: Mapping[str, str], audience: str, peer: RoomName | None) -> Client:
        """Return the client that requests a token for `audience`. Raises `OAuthError`."""
        client_id = fold(form.get("client_id", ""))
        if not client_id:
            raise OAuthError(
                400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'."
            )
        for identity in self._directory.managed_identities("app_id", client_id):
            if "client_assertion" in form:
                principal = self._principal(client_id)
                await self._federation.check(client_id, principal.display_name, _assertion(form))
                return Client(principal, identity.id)
            if peer != PLATFORM:
                raise invalid_client(
                    7000218,
                    f"'{client_id}' is a managed identity. Only the platform that runs its workload can get its tokens.",
                )
            return Client(self._principal(client_id), identity.id)
        applications = self._directory.applications("app_id", client_id)
        if not applications:
            raise OAuthError(
                400,
                "unauthorized_client",
                700016,
                f"Application with identifier '{client_id[:100]}' was not found in the directory '{self._tenant}'.",
            )
        if "client_assertion" in form:
            await self._check_assertion(applications[0], form, audience)
        elif form.get("client_secret"):
            await self._check_secret(applications[0], form["client_secret"])
        else:
            raise invalid_client(
                7000218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            )
        return Client(self._principal(client_id))

    def _principal(self, client_id: str) -> Principal:
        principals = self._directory.principals("app_id", client_id)
        if not principals:
            raise OAuthError(
                400,
                "unauthorized_client",
                7000229,
                f"The client application '{client_id}' is missing service principal in the tenant '{self._tenant}'.",
            )
        return principals[0]

    async def _check_secret(self, application: Application, text: str) -> None:
        try:
            secret = await self._guard.find(application.app_id, self._directory.secrets(application.id), text)
        except TooManyFailuresError as error:
            raise OAuthError(
                429, "temporarily_unavailable", 50196, str(error), retry_after=error.retry_after
            ) from None
        if secret is None:
            raise invalid_client(
                7000215,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, "
                f"not the client secret ID, for a secret added to app '{application.app_id}'.",
            )
        now = clock.rfc3339()
        if now >= secret.ends:
            raise invalid_client(
                7000222,
                f"The provided client secret keys for app '{application.app_id}' are expired. Create new keys for your app.",
            )
        if now < secret.starts:
            raise invalid_client(
                7000215,
                f"The client secret provided for app '{application.app_id}' is not valid before {secret.starts}.",
            )

    async def _check_assertion(self, application: Application, form: Mapping[str, str], audience: str) -> None:
        assertion = _assertion(form)
        if _issuer(assertion) not in (None, application.app_id):
            await self._federation.check(application.app_id, application.display_name, assertion)
            return
        now = clock.now().timestamp()
        try:
            key = _signer(jwt.get_unverified_header(assertion), self._directory.certificates(application.id))
            decoded = jwt.decode(
                assertion,
                key,
                algorithms=["RS256", "PS256"],
                audience=self._audiences,
                issuer=application.app_id,
                subject=application.app_id,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
            claims = AssertionClaims(int(decoded["exp"]), decoded.get("jti"))
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError) as error:
            raise invalid_client(700024, f"Client assertion is not within its valid time range: {error}.") from None
        except (jwt.InvalidTokenError, ValueError, OverflowError, TypeError) as error:
            raise invalid_client(700027, f"Client assertion failed signature or claim validation: {error}.") from None
        if claims.exp > now + _ASSERTION_LIFE:
            raise invalid_client(
                700024, "Client assertion is not within its valid time range: it is valid for more than a day."
            )
        resource = fold(audience.rstrip("/"))
        use = _use(application, claims, assertion, self._names.get(resource, resource))
        if not await self._directory.use_assertion(use, claims.exp + _LEEWAY + 1, int(now)):
            raise invalid_client(
                700027,
                "Client assertion was used before. It is valid for one token of a resource. Sign a new one with another 'jti'.",
            )


def _assertion(form: Mapping[str, str]) -> str:
    """Return the assertion of a form. Raises `OAuthError`."""
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise OAuthError(400, "invalid_request", 900144, f"'client_assertion_type' must be '{ASSERTION_TYPE}'.")
    if len(form["client_assertion"]) > _LONGEST_ASSERTION:
        raise invalid_client(700027, f"Client assertion is longer than {_LONGEST_ASSERTION} characters.")
    return form["client_assertion"]


def _issuer(assertion: str) -> object:
    """Return the issuer that an assertion names, which decides how it is checked; `None` if it names none."""
    try:
        return jwt.decode(assertion, options={"verify_signature": False}).get("iss")
    except (jwt.InvalidTokenError, ValueError, OverflowError, TypeError):
        return None


def _use(application: Application, claims: AssertionClaims, assertion: str, resource: str) -> bytes:
    """Return the digest of the one use that an assertion is valid for (RFC 7523, section 3, on `jti`).

    Microsoft's library for Python caches an assertion for minutes, and gets a token of each resource with it. An assertion
    is therefore valid once for each resource. Without a `jti`, its signed part identifies it, which nobody else can change.
    Raises `OAuthError`.
    """
    identifier = claims.jti
    if identifier is not None and not (isinstance(identifier, str) and 0 < len(identifier) <= _LONGEST_JTI):
        raise invalid_client(
            700027, f"Client assertion failed claim validation: 'jti' must be 1 to {_LONGEST_JTI} characters."
        )
    unique = ("jti", identifier) if identifier is not None else ("signed", assertion.rpartition(".")[0])
    parts = [application.id, resource, *unique]
    return hashlib.sha256(msgspec.json.encode(parts)).digest()


def _signer(header: Mapping[str, object], certificates: list[Certificate]) -> rsa.RSAPublicKey:
    """Return the key of the certificate that a header identifies. Raises `jwt.InvalidTokenError`."""
    now = clock.rfc3339()
    # MSAL sends base64 with padding, which RFC 7515 omits.
    thumbprints = {kind: str(header.get(kind, "")).rstrip("=") for kind in ("x5t", "x5t#S256")}
    for registered in certificates:
        certificate = x509.load_pem_x509_certificate(registered.pem.encode())
        digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
        sha256 = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if thumbprints["x5t#S256"] != sha256 and thumbprints["x5t"] != registered.thumbprint:
            continue
        if not registered.starts <= now < registered.ends:
            raise jwt.InvalidTokenError("its certificate is not valid now")
        key = certificate.public_key()
        assert isinstance(key, rsa.RSAPublicKey)  # only RSA certificates are registered
        return key
    raise jwt.InvalidTokenError("its certificate is not registered for the application")
