"""The resource provider `Microsoft.Authorization`: role definitions and role assignments at any scope.

The front door has authorised the call; here the request itself is checked (REST reference 2022-04-01).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json, require_front_door
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment, RoleDefinition, covers
from cumulet.identity.store import Directory

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_FILTER = re.compile(r"(roleName|principalId|assignedTo)(?: eq |\()'([^']*)'\)?", re.IGNORECASE)

_PROVIDER = r"/{scope:(?:.*/)?}providers/{authorization:(?i:Microsoft\.Authorization)}"


class Authorization:
    """Serves `{scope}/providers/Microsoft.Authorization/…`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def routes(self) -> list[web.RouteDef]:
        """What is served, whatever the scope, to the front door alone."""
        definitions = f"{_PROVIDER}/{{type:(?i:roleDefinitions)}}"
        assignments = f"{_PROVIDER}/{{type:(?i:roleAssignments)}}"
        return [
            web.get(definitions, _behind(self._list_definitions)),
            web.get(f"{definitions}/{{name}}", _behind(self._get_definition)),
            web.put(f"{definitions}/{{name}}", _behind(self._put_definition)),
            web.delete(f"{definitions}/{{name}}", _behind(self._delete_definition)),
            web.get(assignments, _behind(self._list_assignments)),
            web.get(f"{assignments}/{{name}}", _behind(self._get_assignment)),
            web.put(f"{assignments}/{{name}}", _behind(self._put_assignment)),
            web.delete(f"{assignments}/{{name}}", _behind(self._delete_assignment)),
        ]

    async def _list_definitions(self, request: web.Request) -> web.Response:
        scope = _scope(request)
        name, value = _filter(request)
        found = [
            role.to_arm(scope)
            for role in self._directory.role_definitions().values()
            if (name != "rolename" or role.role_name.lower() == value.lower())
            and any(covers(above, scope) for above in role.assignable_scopes)
        ]
        return json_response({"value": found})

    async def _get_definition(self, request: web.Request) -> web.Response:
        return json_response(self._definition(request.match_info["name"]).to_arm(_scope(request)))

    def _definition(self, name: str) -> RoleDefinition:
        role = self._directory.role_definitions().get(name.lower())
        if role is None:
            raise ArmError(
                404, "RoleDefinitionDoesNotExist", f"The specified role definition with ID '{name}' does not exist."
            )
        return role

    async def _put_definition(self, request: web.Request) -> web.Response:
        name = _guid(request)
        if name in BUILT_IN_ROLES:
            raise ArmError(403, "RoleDefinitionUpdateNotAllowed", "A built-in role cannot be changed.")
        properties = (await read_json(request)).get("properties")
        if not isinstance(properties, dict) or not isinstance(properties.get("roleName"), str):
            raise ArmError(
                400, "InvalidRequestContent", "properties.roleName must be a string.", target="properties.roleName"
            )
        properties = {"assignableScopes": [_scope(request)], "permissions": [], **properties, "type": "CustomRole"}
        try:
            role = RoleDefinition.from_arm({"name": name, "properties": properties})
        except msgspec.ValidationError as error:
            raise ArmError(400, "InvalidRequestContent", f"properties.permissions: {error}") from None
        if any(
            other.name != name and other.role_name.lower() == role.role_name.lower()
            for other in self._directory.role_definitions().values()
        ):
            raise ArmError(
                409,
                "RoleDefinitionWithSameNameExists",
                f"A custom role with the name '{role.role_name}' exists already.",
            )
        await self._directory.put_role_definition(role)
        return json_response(role.to_arm(_scope(request)), 201)

    async def _delete_definition(self, request: web.Request) -> web.Response:
        name = request.match_info["name"].lower()
        if name in BUILT_IN_ROLES:
            raise ArmError(403, "RoleDefinitionUpdateNotAllowed", "A built-in role cannot be deleted.")
        if any(assignment.role == name for assignment in self._directory.role_assignments()):
            raise ArmError(
                400, "RoleDefinitionHasAssignments", "There are existing role assignments referencing the role."
            )
        found = self._directory.role_definitions().get(name)
        if found is None:
            return web.Response(status=204)
        await self._directory.remove("role_definition", "name", name)
        return json_response(found.to_arm(_scope(request)))

    async def _list_assignments(self, request: web.Request) -> web.Response:
        """Those at, above and below the scope; `atScope()` leaves out those below it."""
        scope = _scope(request)
        name, value = _filter(request)
        at_scope = "atscope()" in request.query.get("$filter", "").lower()
        if name in ("principalid", "assignedto"):
            found = self._directory.role_assignments("principal_id", value.lower())
        else:
            found = self._directory.role_assignments()
        shown = [
            assignment.to_arm()
            for assignment in found
            if covers(assignment.scope, scope) or (not at_scope and covers(scope, assignment.scope))
        ]
        return json_response({"value": shown})

    async def _get_assignment(self, request: web.Request) -> web.Response:
        return json_response(self._assignment(request).to_arm())

    def _assignment(self, request: web.Request) -> RoleAssignment:
        """The one of that name on that very scope: a right on a scope is none on those above it."""
        name = request.match_info["name"].lower()
        for found in self._directory.role_assignments("name", name):
            if found.scope.lower() == _scope(request).lower():
                return found
        raise ArmError(404, "RoleAssignmentNotFound", f"The role assignment '{name}' is not found.")

    async def _put_assignment(self, request: web.Request) -> web.Response:
        name, scope = _guid(request), _scope(request)
        properties = (await read_json(request)).get("properties")
        if not isinstance(properties, dict):
            raise ArmError(400, "InvalidRequestContent", "properties must be an object.", target="properties")
        role = self._definition(str(properties.get("roleDefinitionId", "")).rsplit("/", 1)[-1])
        principal_id = str(properties.get("principalId", "")).lower()
        if not self._directory.principals("id", principal_id):
            raise ArmError(
                400, "PrincipalNotFound", f"Principal {principal_id} does not exist in the directory of this tenant."
            )
        wanted = RoleAssignment(name, principal_id, role.name, scope)
        for other in self._directory.role_assignments("principal_id", principal_id):
            if other.role == wanted.role and other.scope.lower() == scope.lower() and other.name != name:
                raise ArmError(
                    409,
                    "RoleAssignmentExists",
                    f"The role assignment already exists. The ID of the existing role assignment is {other.name.replace('-', '')}.",
                )
        existing = self._directory.role_assignments("name", name)
        if existing:
            if existing[0] != wanted:
                raise ArmError(
                    400,
                    "RoleAssignmentUpdateNotPermitted",
                    "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
                )
            return json_response(wanted.to_arm())
        try:
            await self._directory.add(wanted)
        except sqlite3.IntegrityError:
            raise ArmError(409, "RoleAssignmentExists", "The role assignment already exists.") from None
        return json_response(wanted.to_arm(), 201)

    async def _delete_assignment(self, request: web.Request) -> web.Response:
        try:
            found = self._assignment(request)
        except ArmError:
            return web.Response(status=204)
        await self._directory.remove("role_assignment", "name", found.name)
        return json_response(found.to_arm())


_Handler = Callable[[web.Request], Awaitable[web.Response]]


def _behind(handler: _Handler) -> _Handler:
    async def guarded(request: web.Request) -> web.Response:
        require_front_door(request)
        return await handler(request)

    return guarded


def _scope(request: web.Request) -> str:
    return "/" + request.match_info["scope"].strip("/")


def _guid(request: web.Request) -> str:
    name: str = request.match_info["name"].lower()
    if not _GUID.fullmatch(name):
        raise ArmError(400, "InvalidRoleAssignmentId", f"The ID '{name}' is not valid: it must be a GUID.")
    return name


def _filter(request: web.Request) -> tuple[str, str]:
    text: Any = request.query.get("$filter", "")
    match = _FILTER.search(text)
    if match is None:
        if text and text.lower() not in ("atscope()",):
            raise ArmError(400, "UnsupportedQuery", f"The filter '{text}' is not supported.")
        return "", ""
    return match[1].lower(), match[2]
