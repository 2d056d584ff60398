"""Who calls, and whether they may: Entra tokens and Azure roles, checked on every call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError
from cumulet.common.entra import ARM_AUDIENCE, AuthenticationError, TokenVerifier
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment, RoleDefinition, allowed

#: Seconds for which roles are remembered. Changes come by this door and are seen at once; only the deletion of a
#: principal does not, and its tokens end by themselves.
_REMEMBER = 1.0


class Caller(msgspec.Struct, frozen=True):
    """A verified principal."""

    object_id: str
    app_id: str


class Access:
    """Asks the identity room for its keys and for role assignments, as the front door."""

    def __init__(
        self, public: aiohttp.ClientSession, internal: aiohttp.ClientSession, identity: str, tenant: str, own_url: str
    ) -> None:
        self._verifier = TokenVerifier(public, identity, tenant)
        self._internal = internal
        self._identity = identity
        self._audiences = (ARM_AUDIENCE, "https://management.core.windows.net", own_url)
        self._assignments: dict[str, tuple[float, list[RoleAssignment]]] = {}
        self._custom: tuple[float, dict[str, RoleDefinition]] = (0.0, {})

    async def authenticate(self, request: web.BaseRequest) -> Caller:
        """The caller of a request. Raises `ArmError` 401."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ArmError(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing or is not Bearer.",
            )
        try:
            claims = await self._verifier.verify(token.strip(), *self._audiences)
        except AuthenticationError as error:
            raise ArmError(401, "InvalidAuthenticationToken", f"The access token is invalid: {error}.") from None
        return Caller(claims["oid"], claims.get("appid", ""))

    async def authorize(self, caller: Caller, action: str, scope: str) -> None:
        """Raises `ArmError` 403 `AuthorizationFailed` where no role of the caller grants `action` on `scope`."""
        assignments = await self._assignments_of(caller.object_id)
        if not allowed(action, scope, assignments, await self._definitions(assignments)):
            raise ArmError(
                403,
                "AuthorizationFailed",
                f"The client '{caller.app_id}' with object id '{caller.object_id}' does not have authorization to perform "
                f"action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please "
                "refresh your credentials.",
            )

    def forget(self) -> None:
        """Roles were changed: ask again."""
        self._assignments.clear()
        self._custom = (0.0, {})

    async def _assignments_of(self, object_id: str) -> list[RoleAssignment]:
        until, found = self._assignments.get(object_id, (0.0, []))
        if until < time.monotonic():
            answer = await self._ask(
                "/providers/Microsoft.Authorization/roleAssignments", f"principalId eq '{object_id}'"
            )
            found = [RoleAssignment.from_arm(item) for item in answer["value"]]
            self._assignments[object_id] = time.monotonic() + _REMEMBER, found
        return found

    async def _definitions(self, assignments: list[RoleAssignment]) -> Mapping[str, RoleDefinition]:
        if all(assignment.role in BUILT_IN_ROLES for assignment in assignments):
            return BUILT_IN_ROLES
        until, found = self._custom
        if until < time.monotonic():
            answer = await self._ask("/providers/Microsoft.Authorization/roleDefinitions", "")
            found = {item["name"]: RoleDefinition.from_arm(item) for item in answer["value"]}
            self._custom = time.monotonic() + _REMEMBER, found
        return found

    async def _ask(self, path: str, filter_: str) -> dict[str, list[dict[str, Any]]]:
        async with self._internal.get(
            self._identity + path, params={"$filter": filter_} if filter_ else None, raise_for_status=True
        ) as response:
            answer: dict[str, list[dict[str, Any]]] = await response.json()
            return answer
