"""The members of a container group's resource beside its properties and tags: its managed identities and its zones."""

from __future__ import annotations

from typing import Literal

import msgspec

from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.ascii import fold

#: The names of the group's own identity in the credential of a registry.
SYSTEM = ("system", "[system]")


class AssignedIdentity(msgspec.Struct, rename="camel", omit_defaults=True):
    """A user-assigned identity, with the ids of its principal and its client (`UserAssignedIdentities`)."""

    principal_id: str = ""
    client_id: str = ""


class GroupIdentity(msgspec.Struct, rename="camel", omit_defaults=True):
    """The managed identities of a group (`ContainerGroupIdentity`); `principal_id` is that of its own identity.

    `client_id` is the client of its own identity, which ACI does not show.
    """

    type: Literal["None", "SystemAssigned", "UserAssigned", "SystemAssigned, UserAssigned"]
    principal_id: str | None = None
    tenant_id: str | None = None
    user_assigned_identities: dict[str, AssignedIdentity] = {}
    client_id: str | None = None

    @property
    def is_system_assigned(self) -> bool:
        """Whether the group has an identity of its own."""
        return self.type.startswith("SystemAssigned")

    def assigned(self, resource_id: str) -> AssignedIdentity | None:
        """Return the user-assigned identity of a resource id, which is compared without case."""
        for name, identity in self.user_assigned_identities.items():
            if fold(name) == fold(resource_id):
                return identity
        return None


class Envelope(msgspec.Struct, omit_defaults=True):
    """What a resource has beside properties and tags."""

    identity: GroupIdentity | None = None
    zones: list[str] = []


def is_identity(name: str) -> bool:
    """Return whether a credential's identity is the group's own or the id of a user-assigned identity."""
    if fold(name) in SYSTEM:
        return True
    try:
        return fold(ResourceId(name).type) == "microsoft.managedidentity/userassignedidentities"
    except ArmError:
        return False


def client_of(name: str, identity: GroupIdentity | None) -> str | None:
    """Return the client id of an identity of a group, by its resource id or as `system`; `None` for another."""
    if identity is None:
        return None
    if fold(name) in SYSTEM:
        return identity.client_id
    found = identity.assigned(name)
    return found.client_id if found is not None else None
