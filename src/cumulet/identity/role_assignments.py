"""The resource type `Microsoft.Authorization/roleAssignments` (REST reference 2022-04-01)."""

from __future__ import annotations

import sqlite3

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.conditions import ConditionError, parse
from cumulet.common.rbac import (
    CONDITION_VERSION,
    AssignmentRequest,
    AssignmentRequestProperties,
    AssignmentResource,
    RoleAssignment,
    RoleDefinition,
    covers,
)
from cumulet.identity.authorization import filter_of, guid_of, routes, scope_of
from cumulet.identity.role_definitions import find_role
from cumulet.identity.store import Directory


class _List(msgspec.Struct):
    value: list[AssignmentResource]


class RoleAssignments:
    """Serves role assignments. A principal can have a role on a scope only once."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return routes("roleAssignments", self._list, self._get, self._put, self._delete)

    async def _list(self, request: web.Request) -> web.Response:
        """Return the assignments at, above and below the scope; `atScope()` omits those below it."""
        scope = scope_of(request)
        terms = filter_of(request, {"principalid"}, {"atscope", "assignedto"})
        principals = {fold(term.value) for term in terms if term.name != "atscope"}
        at_scope = any(term.name == "atscope" for term in terms)
        if len(principals) == 1:
            assignments = self._directory.role_assignments("principal_id", *principals)
        else:
            assignments = [] if principals else self._directory.role_assignments()
        items = [
            assignment.to_arm()
            for assignment in assignments
            if covers(assignment.scope, scope) or (not at_scope and covers(scope, assignment.scope))
        ]
        return json_response(_List(items))

    async def _get(self, request: web.Request) -> web.Response:
        assignment = self._find(request)
        if assignment is None:
            raise ArmError(
                404,
                "RoleAssignmentNotFound",
                f"The role assignment '{request.match_info['name'][:100]}' is not found on '{scope_of(request)}'.",
            )
        return json_response(assignment.to_arm())

    async def _put(self, request: web.Request) -> web.Response:
        name, scope = guid_of(request), scope_of(request)
        properties = (await read_body(request, AssignmentRequest)).properties
        role = self._role(properties, scope)
        requested = RoleAssignment(name, self._principal(properties), role.name, scope, _condition(properties))
        return await self._store(requested)

    async def _store(self, requested: RoleAssignment) -> web.Response:
        """Add an assignment, or change the condition of the existing one. Raises `ArmError` 400, 409."""
        for existing in self._directory.role_assignments("name", requested.name):
            if _identity(existing) != _identity(requested):
                raise ArmError(
                    400,
                    "RoleAssignmentUpdateNotPermitted",
                    "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
                )
            changed = msgspec.structs.replace(existing, condition=requested.condition)
            await self._directory.put(changed)
            return json_response(changed.to_arm())
        try:
            await self._directory.add(requested)
        except sqlite3.IntegrityError:
            same = next(
                other.name
                for other in self._directory.role_assignments("principal_id", requested.principal_id)
                if _identity(other) == _identity(requested)
            )
            raise ArmError(
                409,
                "RoleAssignmentExists",
                f"The role assignment already exists. The ID of the existing role assignment is {same.replace('-', '')}.",
            ) from None
        return json_response(requested.to_arm(), 201)

    async def _delete(self, request: web.Request) -> web.Response:
        assignment = self._find(request)
        if assignment is None:
            return web.Response(status=204)
        await self._directory.remove_role_assignment(assignment.name)
        return json_response(assignment.to_arm())

    def _find(self, request: web.Request) -> RoleAssignment | None:
        """Return the assignment with the name and exactly the scope of a path, or `None`.

        The caller was authorised for that scope only, so an assignment above it must not be found.
        """
        for assignment in self._directory.role_assignments("name", fold(request.match_info["name"])):
            if fold(assignment.scope) == fold(scope_of(request)):
                return assignment
        return None

    def _role(self, properties: AssignmentRequestProperties, scope: str) -> RoleDefinition:
        role = find_role(self._directory, properties.role)
        if not any(covers(above, scope) for above in role.assignable_scopes):
            raise ArmError(
                400,
                "RoleAssignmentScopeNotAssignableToRoleDefinition",
                f"The role assignment scope '{scope}' is not assignable to role definition '{role.role_name}'.",
            )
        return role

    def _principal(self, properties: AssignmentRequestProperties) -> str:
        principal_id = fold(str(properties.principal_id))
        if not self._directory.principals("id", principal_id):
            raise ArmError(
                400,
                "PrincipalNotFound",
                f"Principal {principal_id[:100]} does not exist in the directory of this tenant.",
            )
        kind = properties.principal_type
        if kind not in (None, "", "ServicePrincipal"):
            raise ArmError(
                400,
                "UnmatchedPrincipalType",
                f"The PrincipalId '{principal_id}' has type 'ServicePrincipal', which is different from '{str(kind)[:100]}'.",
            )
        return principal_id


def _condition(properties: AssignmentRequestProperties) -> str:
    """Return the condition of an assignment, empty for none. Raises `ArmError` 400 if it cannot be parsed."""
    text = properties.condition
    if text is None or text == "":
        return ""
    if not isinstance(text, str) or properties.condition_version not in (None, CONDITION_VERSION):
        raise ArmError(
            400, "InvalidConditionVersion", f"The condition must be a string of version {CONDITION_VERSION}."
        )
    try:
        parse(text)
    except ConditionError as error:
        raise ArmError(
            400, "InvalidCondition", f"The condition cannot be parsed: {error}.", target="properties.condition"
        ) from None
    return text


def _identity(assignment: RoleAssignment) -> tuple[str, str, str]:
    """Return the values that no two assignments share."""
    return assignment.principal_id, assignment.role, fold(assignment.scope)
