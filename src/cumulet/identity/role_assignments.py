"""`Microsoft.Authorization/roleAssignments`: who has which role on what (REST reference 2022-04-01)."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.common.conditions import ConditionError, parse
from cumulet.common.rbac import CONDITION_VERSION, RoleAssignment, RoleDefinition, covers
from cumulet.identity.authorization import filter_of, guid_of, routes, scope_of
from cumulet.identity.role_definitions import find_role
from cumulet.identity.store import Directory


class RoleAssignments:
    """Serves them; a principal has a role on a scope once."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return routes("roleAssignments", self._list, self._get, self._put, self._delete)

    async def _list(self, request: web.Request) -> web.Response:
        """Those at, above and below the scope; `atScope()` leaves out those below it."""
        scope = scope_of(request)
        terms = filter_of(request, {"principalid"}, {"atscope", "assignedto"})
        principals = {fold(term.value) for term in terms if term.name != "atscope"}
        at_scope = any(term.name == "atscope" for term in terms)
        if len(principals) == 1:
            found = self._directory.role_assignments("principal_id", *principals)
        else:
            found = [] if principals else self._directory.role_assignments()
        shown = [
            assignment.to_arm()
            for assignment in found
            if covers(assignment.scope, scope) or (not at_scope and covers(scope, assignment.scope))
        ]
        return json_response({"value": shown})

    async def _get(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if found is None:
            raise ArmError(
                404,
                "RoleAssignmentNotFound",
                f"The role assignment '{request.match_info['name'][:100]}' is not found on '{scope_of(request)}'.",
            )
        return json_response(found.to_arm())

    async def _put(self, request: web.Request) -> web.Response:
        name, scope = guid_of(request), scope_of(request)
        properties = (await read_json(request)).get("properties")
        if not isinstance(properties, dict):
            raise ArmError(400, "InvalidRequestContent", "properties must be an object.", target="properties")
        role = self._role(properties, scope)
        wanted = RoleAssignment(name, self._principal(properties), role.name, scope, _condition(properties))
        return await self._keep(wanted)

    async def _keep(self, wanted: RoleAssignment) -> web.Response:
        for existing in self._directory.role_assignments("name", wanted.name):
            if _given(existing) != _given(wanted):
                raise ArmError(
                    400,
                    "RoleAssignmentUpdateNotPermitted",
                    "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
                )
            changed = msgspec.structs.replace(existing, condition=wanted.condition)
            await self._directory.put(changed)
            return json_response(changed.to_arm())
        try:
            await self._directory.add(wanted)
        except sqlite3.IntegrityError:
            same = next(
                other.name
                for other in self._directory.role_assignments("principal_id", wanted.principal_id)
                if _given(other) == _given(wanted)
            )
            raise ArmError(
                409,
                "RoleAssignmentExists",
                f"The role assignment already exists. The ID of the existing role assignment is {same.replace('-', '')}.",
            ) from None
        return json_response(wanted.to_arm(), 201)

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if found is None:
            return web.Response(status=204)
        await self._directory.remove_role_assignment(found.name)
        return json_response(found.to_arm())

    def _find(self, request: web.Request) -> RoleAssignment | None:
        """The one of that name on that very scope: a right on a scope is none on those above it."""
        for found in self._directory.role_assignments("name", fold(request.match_info["name"])):
            if fold(found.scope) == fold(scope_of(request)):
                return found
        return None

    def _role(self, properties: dict[str, Any], scope: str) -> RoleDefinition:
        role = find_role(self._directory, str(properties.get("roleDefinitionId", "")).rsplit("/", 1)[-1])
        if not any(covers(above, scope) for above in role.assignable_scopes):
            raise ArmError(
                400,
                "RoleAssignmentScopeNotAssignableToRoleDefinition",
                f"The role assignment scope '{scope}' is not assignable to role definition '{role.role_name}'.",
            )
        return role

    def _principal(self, properties: dict[str, Any]) -> str:
        principal_id = fold(str(properties.get("principalId", "")))
        if not self._directory.principals("id", principal_id):
            raise ArmError(
                400,
                "PrincipalNotFound",
                f"Principal {principal_id[:100]} does not exist in the directory of this tenant.",
            )
        kind = properties.get("principalType")
        if kind not in (None, "", "ServicePrincipal"):
            raise ArmError(
                400,
                "UnmatchedPrincipalType",
                f"The PrincipalId '{principal_id}' has type 'ServicePrincipal', which is different from '{str(kind)[:100]}'.",
            )
        return principal_id


def _condition(properties: dict[str, Any]) -> str:
    """The condition of an assignment. Raises `ArmError` 400 where it cannot be read."""
    text = properties.get("condition")
    if text is None or text == "":
        return ""
    version = properties.get("conditionVersion")
    if not isinstance(text, str) or version not in (None, CONDITION_VERSION):
        raise ArmError(
            400, "InvalidConditionVersion", f"The condition must be a string of version {CONDITION_VERSION}."
        )
    try:
        parse(text)
    except ConditionError as error:
        raise ArmError(
            400, "InvalidCondition", f"The condition cannot be read: {error}.", target="properties.condition"
        ) from None
    return text


def _given(assignment: RoleAssignment) -> tuple[str, str, str]:
    """What makes two assignments the same."""
    return assignment.principal_id, assignment.role, fold(assignment.scope)
