"""Which of a group's identities a request is about (Microsoft Entra ID, "How to use managed identities on a VM to get a token")."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.common.ascii import fold
from cumulet.instances.model.envelope import GroupIdentity

#: The parameters that name an identity: of the metadata service, of App Service, and what libraries send.
_CLIENT, _OBJECT, _RESOURCE = ("client_id", "clientid"), ("object_id", "principal_id"), ("mi_res_id", "msi_res_id")


class SelectionError(Exception):
    """No identity is selected; the message is Azure's."""


def select(identity: GroupIdentity | None, query: Mapping[str, str]) -> str:
    """Return the client id of the identity that a query selects. Raises `SelectionError`.

    Without a name it is the group's own identity, or its only user-assigned one.
    """
    named = [(names, query[name]) for names in (_CLIENT, _OBJECT, _RESOURCE) for name in names if query.get(name)]
    if len(named) > 1:
        raise SelectionError("Only one of client_id, object_id and msi_res_id can be specified")
    if identity is None:
        raise SelectionError("Identity not found")
    if not named:
        return _default(identity)
    ((names, value),) = named
    for resource, client, principal in _identities(identity):
        of = {_CLIENT: client, _OBJECT: principal, _RESOURCE: resource}[names]
        if of and fold(of) == fold(value):
            return client
    raise SelectionError("Identity not found")


def _default(identity: GroupIdentity) -> str:
    if identity.is_system_assigned and identity.client_id:
        return identity.client_id
    assigned = list(identity.user_assigned_identities.values())
    if len(assigned) > 1:
        raise SelectionError(
            "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the "
            "token request"
        )
    if not assigned:
        raise SelectionError("Identity not found")
    return assigned[0].client_id


def _identities(identity: GroupIdentity) -> list[tuple[str, str, str]]:
    """Return the resource id, client id and principal id of each identity of a group; its own has no resource id."""
    own = ("", identity.client_id or "", identity.principal_id or "")
    assigned = [(name, item.client_id, item.principal_id) for name, item in identity.user_assigned_identities.items()]
    return [*([own] if identity.is_system_assigned else []), *assigned]
