"""Microsoft Graph's application and servicePrincipal objects: the bodies of requests and of responses (v1.0 reference)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime

import msgspec
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


class KeyCredentialRequest(msgspec.Struct, rename="camel", frozen=True):
    """A certificate in a request: `key` is base64 of DER or PEM; without it, `key_id` refers to an existing one."""

    key: str | None = None
    key_id: str | None = None


class PasswordCredentialRequest(msgspec.Struct, rename="camel", frozen=True):
    """The properties of a requested client secret; times are RFC 3339."""

    display_name: str | None = None
    start_date_time: str | None = None
    end_date_time: str | None = None


class ApplicationRequest(msgspec.Struct, rename="camel", frozen=True):
    """The body that creates an application."""

    display_name: str | None = None
    key_credentials: list[KeyCredentialRequest] | None = None


class ServicePrincipalRequest(msgspec.Struct, rename="camel", frozen=True):
    """The body that creates a service principal."""

    app_id: str = ""


class ObjectPatch(msgspec.Struct, rename="camel", frozen=True):
    """The supported properties of a PATCH of an application or a service principal."""

    display_name: str | msgspec.UnsetType | None = msgspec.UNSET
    key_credentials: list[KeyCredentialRequest] | msgspec.UnsetType = msgspec.UNSET


class AddPasswordRequest(msgspec.Struct, rename="camel", frozen=True):
    """The body of `addPassword`."""

    password_credential: PasswordCredentialRequest | None = None


class RemovePasswordRequest(msgspec.Struct, rename="camel", frozen=True):
    """The body of `removePassword`."""

    key_id: str = ""


class PasswordCredential(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`passwordCredential`; `secret_text` is set only in the response to the request that created it."""

    key_id: str
    display_name: str | None
    custom_key_identifier: None = None
    hint: str
    secret_text: str | None
    start_date_time: str
    end_date_time: str


class KeyCredential(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`keyCredential`; `custom_key_identifier` is the certificate's SHA-1 in hexadecimal."""

    key_id: str
    type: str = "AsymmetricX509Cert"
    usage: str = "Verify"
    custom_key_identifier: str
    display_name: None = None
    key: None = None
    start_date_time: str
    end_date_time: str


class ApplicationObject(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`application`."""

    odata_type: str = msgspec.field(name="@odata.type", default="#microsoft.graph.application")
    id: str
    app_id: str
    display_name: str
    created_date_time: str
    identifier_uris: list[str] = []
    sign_in_audience: str = "AzureADMyOrg"
    tags: list[str] = []
    password_credentials: list[PasswordCredential]
    key_credentials: list[KeyCredential]


class ServicePrincipalObject(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`servicePrincipal`."""

    odata_type: str = msgspec.field(name="@odata.type", default="#microsoft.graph.servicePrincipal")
    id: str
    app_id: str
    display_name: str
    app_display_name: str
    service_principal_type: str
    service_principal_names: list[str]
    alternative_names: list[str]
    account_enabled: bool = True
    tags: list[str] = []
    password_credentials: list[PasswordCredential]
    key_credentials: list[KeyCredential]


DirectoryObject = ApplicationObject | ServicePrincipalObject


def show(item: Item, directory: Directory) -> DirectoryObject:
    """Return an application or a service principal as Graph shows it."""
    if isinstance(item, Application):
        return ApplicationObject(
            id=item.id,
            app_id=item.app_id,
            display_name=item.display_name,
            created_date_time=item.created,
            password_credentials=_passwords(item.id, None, directory),
            key_credentials=_keys(item.id, None, directory),
        )
    managed = directory.managed_identities("app_id", item.app_id)
    application_id = application_of(item, directory)
    return ServicePrincipalObject(
        id=item.id,
        app_id=item.app_id,
        display_name=item.display_name,
        app_display_name=item.display_name,
        service_principal_type="ManagedIdentity" if managed else "Application",
        service_principal_names=[item.app_id],
        alternative_names=["isExplicit=True", managed[0].id] if managed else [],
        password_credentials=_passwords(application_id, item.id, directory),
        key_credentials=_keys(application_id, item.id, directory),
    )


def application_of(item: Item, directory: Directory) -> str:
    """Return the object id of an application, or of a principal's application; empty for a managed identity."""
    if isinstance(item, Application):
        return item.id
    applications = directory.applications("app_id", item.app_id)
    return applications[0].id if applications else ""


def _passwords(application_id: str, principal_id: str | None, directory: Directory) -> list[PasswordCredential]:
    secrets = directory.secrets(application_id)
    return [show_secret(secret) for secret in secrets if secret.principal_id == principal_id]


def _keys(application_id: str, principal_id: str | None, directory: Directory) -> list[KeyCredential]:
    return [
        KeyCredential(
            key_id=certificate.key_id,
            custom_key_identifier=raised(base64.urlsafe_b64decode(f"{certificate.thumbprint}=").hex()),
            start_date_time=certificate.starts,
            end_date_time=certificate.ends,
        )
        for certificate in directory.certificates(application_id)
        if certificate.principal_id == principal_id
    ]


def show_secret(secret: Secret, text: str | None = None) -> PasswordCredential:
    """Return a secret as Graph shows it; `text` is shown once, in the response to the request that created it."""
    return PasswordCredential(
        key_id=secret.key_id,
        display_name=secret.display_name,
        hint=secret.hint,
        secret_text=text,
        start_date_time=secret.starts,
        end_date_time=secret.ends,
    )


def matches(terms: Sequence[Term], item: Item) -> bool:
    """Return whether an object matches a `$filter`. Raises `ArmError` 400 for an unsupported field."""
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


def check_name(name: str | None) -> str:
    """Return the `displayName` of a request. Raises `ArmError` 400."""
    if name is None or not 0 < len(name) <= _NAME_LIMIT or not name.isprintable():
        raise _bad(f"displayName must be a string of 1 to {_NAME_LIMIT} printable characters.")
    return name


def validity(credential: PasswordCredentialRequest) -> tuple[datetime | None, datetime | None]:
    """Return the start and end of a password credential, `None` for a time that is not set. Raises `ArmError` 400."""
    starts = _time("startDateTime", credential.start_date_time)
    ends = _time("endDateTime", credential.end_date_time)
    if ends is not None and ends <= (starts or clock.now()):
        raise _bad("endDateTime must be later than startDateTime.")
    return starts, ends


def _time(key: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        time = datetime.fromisoformat(text)
        if time.year in _YEARS and time.tzinfo is not None:
            return time
    raise _bad(f"{key} must be an RFC 3339 time, such as 2026-11-23T19:50:21Z.")


def certificates(
    requested: Sequence[KeyCredentialRequest],
    existing: Sequence[Certificate],
    application_id: str,
    principal_id: str | None,
) -> list[Certificate]:
    """Return the certificates of a request, new ones and those of `existing` that it keeps. Raises `ArmError` 400."""
    by_id = {certificate.key_id: certificate for certificate in existing}
    result = []
    for entry in requested:
        key_id = _key_id(entry)
        if entry.key is not None:
            result.append(_certificate(entry.key, key_id, application_id, principal_id))
        elif key_id in by_id:
            result.append(by_id[key_id])
        else:
            raise _bad("keyCredentials: an entry has neither a 'key' nor the 'keyId' of an existing certificate.")
    return result


def _key_id(entry: KeyCredentialRequest) -> str:
    try:
        return str(uuid.UUID(entry.key_id)) if entry.key_id is not None else str(uuid.uuid4())
    except ValueError:
        raise _bad("keyCredentials: 'keyId' must be a GUID.") from None


def _certificate(key: str, key_id: str, application_id: str, principal_id: str | None) -> Certificate:
    try:
        # Graph accepts base64 of DER or of PEM, on one line or several.
        raw = base64.b64decode("".join(key.split()), validate=True)
        pem = raw.startswith(b"-----BEGIN")
        certificate = x509.load_pem_x509_certificate(raw) if pem else x509.load_der_x509_certificate(raw)
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
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


def not_found(value: str) -> ArmError:
    """Return the error 404 for an id, or another key, that no object has."""
    return ArmError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{value[:100]}' does not exist or one of its queried reference-property objects are not present.",
    )
