"""Who calls, and whether they may: Entra tokens and Azure roles, checked on every call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError
from cumulet.common.entra import AuthenticationError, TokenVerifier, bearer_token
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment, RoleDefinition, allowed, covers
from cumulet.common.tasks import Backoff

log = logging.getLogger(__name__)

#: Seconds for which roles are remembered. Changes come by this door and are seen at once; only the deletion of a
#: principal does not.
_REMEMBER = 1.0
_REMEMBERED = 1024

_PROVIDER = "/providers/Microsoft.Authorization"


class Caller(msgspec.Struct, frozen=True):
    """A verified principal."""

    object_id: str
    app_id: str


class Rights:
    """What a caller may do, as of now."""

    def __init__(
        self, caller: Caller, assignments: list[RoleAssignment], definitions: Mapping[str, RoleDefinition]
    ) -> None:
        self.caller = caller
        self._assignments = assignments
        self._definitions = definitions

    def allow(self, action: str, scope: str, attributes: Mapping[str, str] | None = None) -> bool:
        """Whether one of the caller's roles grants `action` on `scope`; `attributes` are for conditions (`rbac.allowed`)."""
        return allowed(action, scope, self._assignments, self._definitions, attributes=attributes)

    def below(self, scope: str) -> bool:
        """Whether the caller has any role on `scope`, above it or on something in it."""
        return any(covers(scope, given.scope) or covers(given.scope, scope) for given in self._assignments)

    def demand(self, action: str, scope: str) -> None:
        """Raises `ArmError` 403 where it is not allowed."""
        if not self.allow(action, scope):
            raise self.denied(action, scope)

    def denied(self, action: str, scope: str) -> ArmError:
        """The refusal in Azure's words."""
        caller = self.caller
        return ArmError(
            403,
            "AuthorizationFailed",
            f"The client '{caller.app_id}' with object id '{caller.object_id}' does not have authorization to perform "
            f"action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please "
            "refresh your credentials.",
        )


class Access:
    """Asks the identity room for its keys, with `public`, and for roles, as the front door, with `internal`."""

    def __init__(
        self,
        public: aiohttp.ClientSession,
        internal: aiohttp.ClientSession,
        identity: str,
        tenant: str,
        audiences: tuple[str, ...],
    ) -> None:
        self._verifier = TokenVerifier(public, identity, tenant)
        self._internal = internal
        self._identity = identity
        self._audiences = audiences
        self._known: dict[str, tuple[float, Rights]] = {}
        self._asked: dict[str, asyncio.Task[Rights]] = {}

    async def authenticate(self, request: web.BaseRequest) -> Caller:
        """The caller of a request. Raises `ArmError` 401, or 503 where the keys cannot be had."""
        token = bearer_token(request.headers.get("Authorization", ""))
        if not token:
            raise ArmError(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing or is not Bearer.",
            )
        try:
            claims = await self._verifier.verify(token, *self._audiences)
        except AuthenticationError as error:
            raise ArmError(401, "InvalidAuthenticationToken", f"The access token is invalid: {error}.") from None
        except (aiohttp.ClientError, TimeoutError):
            raise _identity_is_away() from None
        return Caller(str(claims["oid"]), str(claims.get("appid", "")))

    async def rights(self, caller: Caller) -> Rights:
        """What a caller may do. Raises `ArmError` 503 where roles cannot be had."""
        until, known = self._known.get(caller.object_id, (0.0, None))
        if known is not None and until >= time.monotonic():
            return known
        # Many calls of one principal at once ask once.
        task = self._asked.get(caller.object_id)
        if task is None:
            task = asyncio.create_task(self._fetch(caller))
            self._asked[caller.object_id] = task
        try:
            return await asyncio.shield(task)
        except (aiohttp.ClientError, TimeoutError):
            raise _identity_is_away() from None

    async def assignment(self, path: str) -> RoleAssignment | None:
        """The role assignment at a path of the front door. Raises `ArmError` 503 where it cannot be had."""
        try:
            async with self._internal.get(self._identity + path) as response:
                if response.status == 404:
                    return None
                response.raise_for_status()
                return RoleAssignment.from_arm(msgspec.json.decode(await response.read()))
        except (aiohttp.ClientError, TimeoutError):
            raise _identity_is_away() from None

    def forget(self) -> None:
        """Roles were changed: what was learnt before, or is being asked now, is not used again."""
        self._known.clear()
        self._asked.clear()

    async def revoke_below(self, scope: str) -> None:
        """Take away the roles that were given on what is gone, and on what was in it, however long it takes."""
        backoff = Backoff(0.1, 5)
        while True:
            try:
                for item in await self._ask(f"{scope}{_PROVIDER}/roleAssignments"):
                    if covers(scope, item["properties"]["scope"]):
                        async with self._internal.delete(self._identity + item["id"], raise_for_status=True):
                            self.forget()
                return
            except aiohttp.ClientError as error:
                log.warning("the roles on %s are still to be taken away: %s", scope, error)
                await backoff.wait()

    async def _fetch(self, caller: Caller) -> Rights:
        mine = asyncio.current_task()
        try:
            found = await self._ask(f"{_PROVIDER}/roleAssignments", f"principalId eq '{caller.object_id}'")
            assignments = [RoleAssignment.from_arm(item) for item in found]
            definitions: Mapping[str, RoleDefinition] = BUILT_IN_ROLES
            if any(assignment.role not in BUILT_IN_ROLES for assignment in assignments):
                roles = await self._ask(f"{_PROVIDER}/roleDefinitions", "atScopeAndBelow()")
                definitions = {item["name"]: RoleDefinition.from_arm(item) for item in roles}
            rights = Rights(caller, assignments, definitions)
            # A change that came while we asked has made this answer stale.
            if self._asked.get(caller.object_id) is mine:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[caller.object_id] = time.monotonic() + _REMEMBER, rights
            return rights
        finally:
            if self._asked.get(caller.object_id) is mine:
                del self._asked[caller.object_id]

    async def _ask(self, path: str, filter_: str = "") -> list[dict[str, Any]]:
        params = {"$filter": filter_} if filter_ else None
        async with self._internal.get(self._identity + path, params=params, raise_for_status=True) as response:
            answer: dict[str, list[dict[str, Any]]] = msgspec.json.decode(await response.read())
            return answer["value"]


def _identity_is_away() -> ArmError:
    return ArmError(503, "ServiceUnavailable", "The identity service does not answer just now: try again.")
