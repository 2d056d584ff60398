"""The checks of a federated credential, which Azure Resource Manager and Microsoft Graph share.

Source: "Important considerations and restrictions for federated identity credentials" (Microsoft Entra Workload ID).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from cumulet.identity.store import FederatedCredential

#: The maximum number of federated credentials of a client.
MOST = 20

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{2,119}")
_LONGEST = 600


class CheckError(Exception):
    """A federated credential is not valid: the property that is wrong, and the reason."""

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(f"{target}: {reason}")
        self.target = target


def check_name(name: str) -> str:
    """Return the name of a new credential. Raises `CheckError`."""
    if not _NAME.fullmatch(name):
        raise CheckError(
            "name", "must have 3 to 120 letters, digits, hyphens and underscores, and begin with a letter or digit."
        )
    return name


def check_issuer(issuer: str | None) -> str:
    """Return the URL of an issuer, as it is. Raises `CheckError`."""
    url = _text("issuer", issuer)
    try:
        parts = urlsplit(url)
        is_valid = (
            parts.scheme == "https"
            and bool(parts.hostname)
            and not (parts.username or parts.password or parts.query or parts.fragment)
            and parts.port != 0
        )
    except ValueError:
        is_valid = False
    if not is_valid or not url.isascii() or " " in url:
        raise CheckError("issuer", "must be an https URL without a query and a fragment.")
    return url


def check_subject(subject: str | None) -> str:
    """Return the subject of an external token. Raises `CheckError`."""
    return _text("subject", subject)


def check_audiences(audiences: Sequence[str] | None) -> str:
    """Return the one audience of a credential. Raises `CheckError`."""
    if audiences is None or len(audiences) != 1:
        raise CheckError("audiences", "must be a list with exactly one value.")
    return _text("audiences", audiences[0])


def check_description(description: str | None) -> str | None:
    """Return the description of a credential. Raises `CheckError`."""
    if description is not None and (len(description) > _LONGEST or not description.isprintable()):
        raise CheckError("description", f"must have at most {_LONGEST} printable characters.")
    return description


def check_unique(credential: FederatedCredential, others: Sequence[FederatedCredential]) -> None:
    """Raises `CheckError` if another credential of the client has the same issuer and subject."""
    for other in others:
        if other.id != credential.id and (other.issuer, other.subject) == (credential.issuer, credential.subject):
            raise CheckError("subject", f"issuer and subject are those of the credential '{other.name}'.")


def _text(target: str, value: str | None) -> str:
    if not value or len(value) > _LONGEST or not value.isprintable() or value != value.strip():
        raise CheckError(target, f"must have 1 to {_LONGEST} printable characters.")
    if "*" in value:
        raise CheckError(target, "wildcards are not supported.")
    return value
