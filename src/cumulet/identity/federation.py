"""Workload identity federation: the token of an external issuer authenticates a client (RFC 7523, section 3).

The issuer, subject and audience of the assertion must be those of one of the client's federated credentials, compared
exactly. Only then are the issuer's keys fetched, so nobody makes this room call an issuer that no credential names. An
assertion is good until it expires, as with Entra ID: a pod's token is presented for each resource.
"""

from __future__ import annotations

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common import clock
from cumulet.identity.issuer_keys import IssuerError, IssuerKeys
from cumulet.identity.oauth_errors import OAuthError, invalid_client
from cumulet.identity.store import Directory, FederatedCredential

#: Seconds that the clocks of an issuer and of this room may differ.
_LEEWAY = 60
_SHOWN = 200
_CHECK = (
    "Check your federated identity credential Subject, Audience and Issuer against the presented assertion. "
    "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
)


class _Claims(msgspec.Struct):
    """The claims that select a federated credential (RFC 7519, section 4.1)."""

    iss: str
    sub: str
    aud: str | list[str]

    @property
    def audiences(self) -> list[str]:
        return [self.aud] if isinstance(self.aud, str) else self.aud


class Federation:
    """Checks the assertions of external issuers. `own_issuer` is the `iss` of this room's tokens."""

    def __init__(self, directory: Directory, keys: IssuerKeys, own_issuer: str) -> None:
        self._directory = directory
        self._keys = keys
        self._own_issuer = own_issuer

    async def check(self, app_id: str, name: str, assertion: str) -> None:
        """Accept an assertion of a client with that id and display name. Raises `OAuthError`."""
        credentials = self._directory.federated_credentials(app_id)
        if not credentials:
            raise invalid_client(
                70025, f"The client '{app_id}'({name}) has no configured federated identity credentials."
            )
        kid, algorithm, claims = _unverified(assertion)
        if claims.iss.rstrip("/") == self._own_issuer:
            raise invalid_client(700222, "AAD-issued tokens may not be used for federated identity flows.")
        credential = _matching(credentials, claims)
        try:
            key = await self._keys.key(credential.issuer, kid)
        except IssuerError as error:
            raise OAuthError(
                400,
                "invalid_request",
                50166,
                f"Request to External OIDC endpoint failed: {error}.",
            ) from None
        if key is None:
            raise _bad_signature("The key was not found")
        algorithms = ["RS256", "PS256"] if isinstance(key, rsa.RSAPublicKey) else ["ES256"]
        if algorithm not in algorithms:
            raise _bad_signature("The algorithm is not one of the key")
        try:
            jwt.decode(
                assertion,
                key,
                algorithms=algorithms,
                audience=credential.audience,
                issuer=credential.issuer,
                subject=credential.subject,
                leeway=_LEEWAY,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
            raise invalid_client(
                700024,
                "Client assertion is not within its valid time range. "
                f"Current time: {clock.rfc3339()}. Renew the token of the issuer.",
            ) from None
        except jwt.InvalidSignatureError:
            raise _bad_signature("The provided signature value did not match the expected signature value") from None
        except (jwt.InvalidTokenError, ValueError, OverflowError, TypeError) as error:
            raise _malformed(str(error)) from None


def _unverified(assertion: str) -> tuple[str, str, _Claims]:
    """Return the key id and algorithm of an assertion, and its claims, which are not verified. Raises `OAuthError`."""
    try:
        decoded = jwt.decode_complete(assertion, options={"verify_signature": False})
        claims = msgspec.convert(decoded["payload"], _Claims)
    except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError, OverflowError, TypeError) as error:
        raise _malformed(str(error)) from None
    kid, algorithm = decoded["header"].get("kid"), decoded["header"].get("alg")
    if not isinstance(kid, str) or not isinstance(algorithm, str) or not kid:
        raise _malformed("its header has no 'kid' or no 'alg'")
    return kid, algorithm, claims


def _matching(credentials: list[FederatedCredential], claims: _Claims) -> FederatedCredential:
    """Return the credential of an assertion. Raises `OAuthError`, which names the first claim that none has."""
    of_issuer = [item for item in credentials if item.issuer == claims.iss]
    if not of_issuer:
        raise _no_record(700211, "issuer", claims.iss)
    of_subject = [item for item in of_issuer if item.subject == claims.sub]
    if not of_subject:
        raise _no_record(700213, "subject", claims.sub)
    found = next((item for item in of_subject if item.audience in claims.audiences), None)
    if found is None:
        raise _no_record(700212, "audience", ", ".join(claims.audiences))
    return found


def _no_record(code: int, claim: str, value: str) -> OAuthError:
    shown = value[:_SHOWN].encode("unicode_escape").decode()
    return invalid_client(
        code, f"No matching federated identity record found for presented assertion {claim} '{shown}'. {_CHECK}"
    )


def _bad_signature(reason: str) -> OAuthError:
    return invalid_client(50013, f"Assertion failed signature validation. [Reason - {reason}.]")


def _malformed(reason: str) -> OAuthError:
    return invalid_client(50027, f"JWT token is invalid or malformed: {reason}.")
