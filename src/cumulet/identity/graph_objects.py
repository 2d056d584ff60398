"""Microsoft Graph's application and servicePrincipal objects: how they are shown, found and read from a request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.common.ascii import raised
from cumulet.common.odata import Term
from cumulet.identity.store import Application, Certificate, Directory, Principal, Secret

Item = Application | Principal

_NAME_LIMIT = 256
_KEY_SIZE = 2048
_YEARS = range(1970, 9000)


def show(item: Item, directory: Directory) -> dict[str, Any]:
    """The JSON object."""
    if isinstance(item, Application):
        return {
            "@odata.type": "#microsoft.graph.application",
            "id": item.id,
            "appId": item.app_id,
            "displayName": item.display_name,
            "createdDateTime": item.created,
            "identifierUris": [],
            "signInAudience": "AzureADMyOrg",
            "tags": [],
            **_credentials(item.id, None, directory),
        }
    managed = directory.managed_identities("app_id", item.app_id)
    return {
        "@odata.type": "#microsoft.graph.servicePrincipal",
        "id": item.id,
        "appId": item.app_id,
        "displayName": item.display_name,
        "appDisplayName": item.display_name,
        "servicePrincipalType": "ManagedIdentity" if managed else "Application",
        "servicePrincipalNames": [item.app_id],
        "alternativeNames": ["isExplicit=True", managed[0].id] if managed else [],
        "accountEnabled": True,
        "tags": [],
        **_credentials(application_of(item, directory), item.id, directory),
    }


def application_of(item: Item, directory: Directory) -> str:
    """The object id of an application or of a principal's application; a managed identity has none."""
    if isinstance(item, Application):
        return item.id
    found = directory.applications("app_id", item.app_id)
    return found[0].id if found else ""


def _credentials(application_id: str, principal_id: str | None, directory: Directory) -> dict[str, Any]:
    return {
        "passwordCredentials": [
            show_secret(secret) for secret in directory.secrets(application_id) if secret.principal_id == principal_id
        ],
        "keyCredentials": [
            {
                "keyId": certificate.key_id,
                "type": "AsymmetricX509Cert",
                "usage": "Verify",
                "customKeyIdentifier": raised(base64.urlsafe_b64decode(f"{certificate.thumbprint}=").hex()),
                "displayName": None,
                "key": None,
                "startDateTime": certificate.starts,
                "endDateTime": certificate.ends,
            }
            for certificate in directory.certificates(application_id)
            if certificate.principal_id == principal_id
        ],
    }


def show_secret(secret: Secret, text: str | None = None) -> dict[str, Any]:
    """A password credential; its text is shown when it is made, and never again."""
    return {
        "keyId": secret.key_id,
        "displayName": secret.display_name,
        "customKeyIdentifier": None,
        "hint": secret.hint,
        "secretText": text,
        "startDateTime": secret.starts,
        "endDateTime": secret.ends,
    }


def fits(terms: Sequence[Term], item: Item) -> bool:
    """Whether an object is one that a `$filter` asks for. Raises `ArmError` where it is on another field."""
    fields = {
        "id": item.id,
        "appid": item.app_id,
        "displayname": item.display_name,
        "serviceprincipalnames": item.app_id,
        "identifieruris": None,
    }
    for term in terms:
        if term.operator == "call" or term.name not in fields:
            raise ArmError(
                400, "Request_UnsupportedQuery", f"Unsupported or invalid query filter clause on '{term.name}'."
            )
    return all(term.holds(fields[term.name]) for term in terms)


def read_name(body: dict[str, Any]) -> str:
    """The `displayName` of a request. Raises `ArmError`."""
    name = body.get("displayName")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_LIMIT or not name.isprintable():
        raise _bad(f"displayName must be a string of 1 to {_NAME_LIMIT} printable characters.")
    return name


def read_life(body: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """The start and end of a password credential, where they are given. Raises `ArmError`."""
    starts, ends = (_moment(body, key) for key in ("startDateTime", "endDateTime"))
    if ends is not None and ends <= (starts or clock.now()):
        raise _bad("endDateTime must be later than startDateTime.")
    return starts, ends


def _moment(body: dict[str, Any], key: str) -> datetime | None:
    text = body.get(key)
    if text is None:
        return None
    with contextlib.suppress(TypeError, ValueError):
        moment = datetime.fromisoformat(text)
        if moment.year in _YEARS and moment.tzinfo is not None:
            return moment
    raise _bad(f"{key} must be an RFC 3339 time, such as 2026-11-23T19:50:21Z.")


def read_certificates(
    body: dict[str, Any], known: Sequence[Certificate], application_id: str, principal_id: str | None
) -> list[Certificate]:
    """The `keyCredentials` of a request: one without its `key` is one of the known, by `keyId`. Raises `ArmError`."""
    entries = body.get("keyCredentials")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _bad("keyCredentials must be a list of objects.")
    kept = {certificate.key_id: certificate for certificate in known}
    certificates = []
    for entry in entries:
        key_id = _key_id(entry)
        if entry.get("key") is not None:
            certificates.append(_certificate(entry["key"], key_id, application_id, principal_id))
        elif key_id in kept:
            certificates.append(kept[key_id])
        else:
            raise _bad("keyCredentials: one has neither a 'key' nor the 'keyId' of one that is there.")
    return certificates


def _key_id(entry: dict[str, Any]) -> str:
    try:
        return str(uuid.UUID(entry["keyId"])) if entry.get("keyId") is not None else str(uuid.uuid4())
    except (ValueError, AttributeError, TypeError):
        raise _bad("keyCredentials: 'keyId' must be a GUID.") from None


def _certificate(key: Any, key_id: str, application_id: str, principal_id: str | None) -> Certificate:
    try:
        # Base64 of DER, or of PEM, in one line or many: Graph takes them all.
        raw = base64.b64decode("".join(key.split()), validate=True)
        pem = raw.startswith(b"-----BEGIN")
        certificate = x509.load_pem_x509_certificate(raw) if pem else x509.load_der_x509_certificate(raw)
        public = certificate.public_key()
    except (ValueError, AttributeError, UnsupportedAlgorithm):
        raise _bad("keyCredentials: 'key' must be a base64 certificate.") from None
    if not isinstance(public, rsa.RSAPublicKey) or public.key_size < _KEY_SIZE:
        raise _bad(f"keyCredentials: the key must be RSA of at least {_KEY_SIZE} bits.")
    der = certificate.public_bytes(Encoding.DER)
    return Certificate(
        key_id=key_id,
        application_id=application_id,
        thumbprint=base64.urlsafe_b64encode(hashlib.sha1(der, usedforsecurity=False).digest()).rstrip(b"=").decode(),
        pem=certificate.public_bytes(Encoding.PEM).decode(),
        starts=clock.rfc3339(certificate.not_valid_before_utc),
        ends=clock.rfc3339(certificate.not_valid_after_utc),
        principal_id=principal_id,
    )


def _bad(message: str) -> ArmError:
    return ArmError(400, "Request_BadRequest", message)
