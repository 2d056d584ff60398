"""Authentication by Entra tokens and authorization by Azure roles, on every call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError
from cumulet.common.entra import AuthenticationError, TokenVerifier, bearer_token
from cumulet.common.rbac import (
    BUILT_IN_ROLES,
    AssignmentResource,
    DefinitionResource,
    RoleAssignment,
    RoleDefinition,
    allowed,
    covers,
)
from cumulet.common.tasks import Backoff

log = logging.getLogger(__name__)

#: Seconds for which roles are cached. Changes pass through the front door, which clears the cache. The exception is the
#: deletion of a principal, which Graph makes.
_CACHE_SECONDS = 1.0
_CACHE_ENTRIES = 1024

_PROVIDER = "/providers/Microsoft.Authorization"

T = TypeVar("T")


class _Assignments(msgspec.Struct):
    value: list[AssignmentResource]


class _Definitions(msgspec.Struct):
    value: list[DefinitionResource]


class Caller(msgspec.Struct, frozen=True):
    """A verified principal."""

    object_id: str
    app_id: str


class Rights:
    """The role assignments of a caller, and the decisions that follow from them."""

    def __init__(
        self, caller: Caller, assignments: list[RoleAssignment], definitions: Mapping[str, RoleDefinition]
    ) -> None:
        self.caller = caller
        self._assignments = assignments
        self._definitions = definitions

    def allow(self, action: str, scope: str, attributes: Mapping[str, str] | None = None) -> bool:
        """Return whether a role of the caller grants `action` on `scope`; conditions see `attributes` (`rbac.allowed`)."""
        return allowed(action, scope, self._assignments, self._definitions, attributes=attributes)

    def below(self, scope: str) -> bool:
        """Return whether the caller has any role on `scope`, above it or below it."""
        return any(covers(scope, each.scope) or covers(each.scope, scope) for each in self._assignments)

    def demand(self, action: str, scope: str) -> None:
        """Raises `ArmError` 403 if the action is not allowed."""
        if not self.allow(action, scope):
            raise self.denied(action, scope)

    def denied(self, action: str, scope: str) -> ArmError:
        """Return the error for an action that is not allowed, in Azure's words."""
        caller = self.caller
        return ArmError(
            403,
            "AuthorizationFailed",
            f"The client '{caller.app_id}' with object id '{caller.object_id}' does not have authorization to perform "
            f"action '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please "
            "refresh your credentials.",
        )


class Access:
    """A client of the identity room: `public` fetches its signing keys, `internal` the roles, as the front door."""

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
        self._cache: dict[str, tuple[float, Rights]] = {}
        self._requests: dict[str, asyncio.Task[Rights]] = {}

    async def authenticate(self, request: web.BaseRequest) -> Caller:
        """Return the caller of a request. Raises `ArmError` 401, or 503 if the signing keys are not available."""
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
            raise _unavailable() from None
        return Caller(str(claims["oid"]), str(claims.get("appid", "")))

    async def rights(self, caller: Caller) -> Rights:
        """Return the current rights of a caller. Raises `ArmError` 503 if they are not available."""
        until, cached = self._cache.get(caller.object_id, (0.0, None))
        if cached is not None and until >= time.monotonic():
            return cached
        # Concurrent calls of one principal share one request.
        task = self._requests.get(caller.object_id)
        if task is None:
            task = asyncio.create_task(self._fetch(caller))
            self._requests[caller.object_id] = task
        try:
            return await asyncio.shield(task)
        except (aiohttp.ClientError, TimeoutError):
            raise _unavailable() from None

    async def assignment(self, path: str) -> RoleAssignment | None:
        """Return the role assignment at a path, or `None`. Raises `ArmError` 503 if identity is not available."""
        try:
            async with self._internal.get(self._identity + path) as response:
                if response.status == 404:
                    return None
                response.raise_for_status()
                return RoleAssignment.from_arm(msgspec.json.decode(await response.read(), type=AssignmentResource))
        except (aiohttp.ClientError, TimeoutError):
            raise _unavailable() from None

    def forget(self) -> None:
        """Discard cached rights and the results of running requests, after a change of roles."""
        self._cache.clear()
        self._requests.clear()

    async def revoke_below(self, scope: str) -> None:
        """Delete the role assignments at and below a scope that no longer exists. Retries until identity answers."""
        backoff = Backoff(0.1, 5)
        while True:
            try:
                for item in (await self._get(f"{scope}{_PROVIDER}/roleAssignments", _Assignments)).value:
                    if covers(scope, item.properties.scope):
                        async with self._internal.delete(self._identity + item.id, raise_for_status=True):
                            self.forget()
                return
            except aiohttp.ClientError as error:
                log.warning("role assignments on %s are not deleted yet: %s", scope, error)
                await backoff.wait()

    async def _fetch(self, caller: Caller) -> Rights:
        this = asyncio.current_task()
        try:
            filter_ = f"principalId eq '{caller.object_id}'"
            items = (await self._get(f"{_PROVIDER}/roleAssignments", _Assignments, filter_)).value
            assignments = [RoleAssignment.from_arm(item) for item in items]
            definitions: Mapping[str, RoleDefinition] = BUILT_IN_ROLES
            if any(assignment.role not in BUILT_IN_ROLES for assignment in assignments):
                roles = (await self._get(f"{_PROVIDER}/roleDefinitions", _Definitions, "atScopeAndBelow()")).value
                definitions = {item.name: RoleDefinition.from_arm(item) for item in roles}
            rights = Rights(caller, assignments, definitions)
            # After `forget`, the response may be stale: it serves the calls that wait for it and is not cached.
            if self._requests.get(caller.object_id) is this:
                if len(self._cache) >= _CACHE_ENTRIES:
                    self._cache.clear()
                self._cache[caller.object_id] = time.monotonic() + _CACHE_SECONDS, rights
            return rights
        finally:
            if self._requests.get(caller.object_id) is this:
                del self._requests[caller.object_id]

    async def _get(self, path: str, kind: type[T], filter_: str = "") -> T:
        params = {"$filter": filter_} if filter_ else None
        async with self._internal.get(self._identity + path, params=params, raise_for_status=True) as response:
            return msgspec.json.decode(await response.read(), type=kind)


def _unavailable() -> ArmError:
    return ArmError(503, "ServiceUnavailable", "The identity service is not available. Try again.")
