"""The credentials of a group that are for an image."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.common.image_patterns import Pattern
from cumulet.common.image_reference import Reference, registry_key
from cumulet.instances.images.records import Subject
from cumulet.instances.model.envelope import GroupIdentity, client_of
from cumulet.instances.model.properties import Credential


def credentials_for(reference: Reference, credentials: Sequence[Credential]) -> list[Credential]:
    """Return the credentials for an image, in the group's order. `matchImages`, if any, limits one to some repositories."""
    return [
        credential
        for credential in credentials
        if registry_key(credential.server) == reference.registry and _is_for(reference, credential.match_images)
    ]


def subject_of(credential: Credential, identity: GroupIdentity | None) -> Subject:
    """Return whom a credential is of: an identity, whose tokens change, or whoever knows the password."""
    if credential.identity is not None:
        return "identity", client_of(credential.identity, identity) or ""
    return "password", credential.username, credential.password or ""


def _is_for(reference: Reference, patterns: Sequence[str]) -> bool:
    parsed = [Pattern.parse(text) for text in patterns]
    return not parsed or any(pattern is not None and pattern.matches(reference.name) for pattern in parsed)
