"""A client of the room `identity` for the managed identities of groups, with this room's certificate.

A group's own identity (system-assigned) is created and deleted with the group. A user-assigned one exists already; the
front door has checked that the caller may assign it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import aiohttp
import msgspec

from cumulet.common import bounded
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.common.entra import REGISTRY_AUDIENCE
from cumulet.instances.model.envelope import AssignedIdentity, GroupIdentity

log = logging.getLogger(__name__)

_LIMIT = 64 * 1024
_TYPES = {
    fold(name): name
    for name in (
        "None",
        "SystemAssigned",
        "UserAssigned",
        "SystemAssigned, UserAssigned",
        "SystemAssigned,UserAssigned",
    )
}


class IdentityError(Exception):
    """The room `identity` refused a token; the message is its reason."""


class _Principal(msgspec.Struct, rename="camel"):
    principal_id: str
    client_id: str
    tenant_id: str


class Token(msgspec.Struct, frozen=True):
    """An access token and its end, in seconds since 1970."""

    text: str
    expires_on: int


class _Issued(msgspec.Struct):
    access_token: str
    expires_in: int


class _Refusal(msgspec.Struct):
    error_description: str = ""


class _Assigned(msgspec.Struct):
    """What a request says of a user-assigned identity, which is nothing; clients return what they got."""


class _Request(msgspec.Struct, rename="camel"):
    type: str
    user_assigned_identities: dict[str, _Assigned] | None = None


class Identities:
    """Managed identities and their tokens. `url` is that of the room `identity`, `session` has the room's certificate."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tenant: str) -> None:
        self._session = session
        self._base = f"{url}/{tenant}"
        self._tenant = tenant

    async def assign(
        self, resource_id: str, location: str, body: object, existing: GroupIdentity | None
    ) -> GroupIdentity | None:
        """Return the identities that a request gives a group, and create the group's own. Raises `ArmError`.

        Without the member `identity` an existing group keeps its identities.
        """
        if body is None:
            return existing
        try:
            wanted = msgspec.convert(body, _Request)
            kind = _TYPES[fold(wanted.type)]
        except (msgspec.ValidationError, KeyError) as error:
            raise ArmError(
                400,
                "InvalidRequestContent",
                f"The identity of the container group is not valid: {error}. The type is one of {', '.join(_TYPES.values())}.",
                target="identity",
            ) from None
        kind = kind.replace(",U", ", U")
        names = wanted.user_assigned_identities or {}
        if ("UserAssigned" in kind.split(", ")) != bool(names):
            raise ArmError(
                400,
                "InvalidIdentityValues",
                "userAssignedIdentities must be set for an identity of the type UserAssigned, and only then.",
                target="identity.userAssignedIdentities",
            )
        if kind == "None":
            return None
        identity = GroupIdentity(kind)  # type: ignore[arg-type]  # one of _TYPES
        if identity.is_system_assigned:
            own = await self._call("PUT", resource_id, {"location": location})
            identity.principal_id, identity.tenant_id, identity.client_id = (
                own.principal_id,
                own.tenant_id,
                own.client_id,
            )
        for name in names:
            found = await self._call("GET", name)
            identity.user_assigned_identities[name] = AssignedIdentity(found.principal_id, found.client_id)
        return identity

    async def discard(self, resource_id: str) -> None:
        """Delete the group's own identity, with its role assignments; a failure is logged and stops nothing."""
        try:
            async with self._session.delete(
                f"{self._base}/managedIdentity", params={"resourceId": resource_id}
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the identity of %s is not deleted: %s", resource_id, error)

    async def token(self, client_id: str, resource: str = REGISTRY_AUDIENCE) -> Token:
        """Return a token of an identity, by default for registries. Raises `IdentityError`, `aiohttp.ClientError`."""
        form = {"grant_type": "client_credentials", "client_id": client_id, "scope": f"{resource}/.default"}
        asked = int(time.time())
        async with self._session.post(f"{self._base}/oauth2/v2.0/token", data=form) as response:
            raw = await bounded.read(response, _LIMIT)
            try:
                if response.status == 200:
                    issued = msgspec.json.decode(raw, type=_Issued)
                    return Token(issued.access_token, asked + issued.expires_in)
                raise IdentityError(msgspec.json.decode(raw, type=_Refusal).error_description)
            except msgspec.DecodeError:
                raise IdentityError(f"unexpected status {response.status} from the token endpoint") from None

    async def _call(self, method: str, resource_id: str, body: Mapping[str, str] | None = None) -> _Principal:
        """Read or create an identity. Raises `ArmError`."""
        try:
            async with self._session.request(
                method, f"{self._base}/managedIdentity", params={"resourceId": resource_id}, json=body
            ) as response:
                raw = await bounded.read(response, _LIMIT)
                if response.status == 200:
                    return msgspec.json.decode(raw, type=_Principal)
                status = response.status
        except (aiohttp.ClientError, msgspec.DecodeError) as error:
            raise ArmError(
                503, "ServiceUnavailable", f"The identity '{resource_id}' cannot be read: {error}. Try again."
            ) from None
        if status >= 500:
            raise ArmError(503, "ServiceUnavailable", f"The identity '{resource_id}' cannot be read. Try again.")
        raise ArmError(
            400, "FailedIdentityOperation", f"The managed identity '{resource_id}' was not found.", target="identity"
        )
