"""The resource type `Microsoft.Authorization/roleDefinitions`: built-in and custom roles (REST reference 2022-04-01)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.rbac import BUILT_IN_ROLES, DefinitionResource, Permission, RoleDefinition, allowed, covers
from cumulet.identity.authorization import caller_of, filter_of, guid_of, routes, scope_of
from cumulet.identity.store import Directory

_ACTION = re.compile(r"\*|[\w.*-]+(/[\w.*-]+)+", re.ASCII)
_NAME_LIMIT = 512
_DESCRIPTION_LIMIT = 1024
_ENTRIES = 2048
_CUSTOM_ROLES = 5000


class RequestProperties(msgspec.Struct, rename="camel", frozen=True):
    """`properties` of a request for a custom role; without scopes, it can be assigned at the scope of the request."""

    role_name: str = ""
    description: str | None = None
    assignable_scopes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    permissions: tuple[Permission, ...] = ()


class DefinitionRequest(msgspec.Struct, frozen=True):
    """The body of a request for a custom role."""

    properties: RequestProperties


class _List(msgspec.Struct):
    value: list[DefinitionResource]


class RoleDefinitions:
    """Serves role definitions. The names of custom roles are unique in the tenant."""

    def __init__(self, directory: Directory, subscription: str) -> None:
        self._directory = directory
        self._subscription = f"/subscriptions/{subscription}"

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return routes("roleDefinitions", self._list, self._get, self._put, self._delete)

    async def _list(self, request: web.Request) -> web.Response:
        """Return the roles that can be assigned at the scope; with `atScopeAndBelow()` also those for scopes below it."""
        scope = scope_of(request)
        terms = filter_of(request, {"rolename", "type"}, {"atscopeandbelow"})
        below = any(term.name == "atscopeandbelow" for term in terms)
        items = []
        for role in self._directory.role_definitions().values():
            fields = {"rolename": role.role_name, "type": "CustomRole" if role.custom else "BuiltInRole"}
            if all(term.holds(fields[term.name]) for term in terms if term.name in fields) and any(
                covers(above, scope) or (below and covers(scope, above)) for above in role.assignable_scopes
            ):
                items.append(role.to_arm(scope))
        return json_response(_List(items))

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(find_role(self._directory, request.match_info["name"]).to_arm(scope_of(request)))

    async def _put(self, request: web.Request) -> web.Response:
        name = guid_of(request)
        if name in BUILT_IN_ROLES:
            raise ArmError(403, "RoleDefinitionUpdateNotAllowed", "A built-in role cannot be changed.")
        roles = self._directory.role_definitions()
        role = self._role(name, (await read_body(request, DefinitionRequest)).properties, scope_of(request))
        before = roles[name].assignable_scopes if name in roles else ()
        self._demand("write", request, {*role.assignable_scopes, *before})
        if any(other.name != name and fold(other.role_name) == fold(role.role_name) for other in roles.values()):
            raise ArmError(
                409,
                "RoleDefinitionWithSameNameExists",
                f"A role definition cannot be updated with a name that already exists: '{role.role_name}'.",
            )
        if name not in roles and len(roles) - len(BUILT_IN_ROLES) >= _CUSTOM_ROLES:
            raise ArmError(
                400, "RoleDefinitionLimitExceeded", f"The tenant has the maximum of {_CUSTOM_ROLES} custom roles."
            )
        await self._directory.put_role_definition(role)
        return json_response(role.to_arm(scope_of(request)), 201)

    async def _delete(self, request: web.Request) -> web.Response:
        name = fold(request.match_info["name"])
        if name in BUILT_IN_ROLES:
            raise ArmError(403, "RoleDefinitionUpdateNotAllowed", "A built-in role cannot be deleted.")
        role = self._directory.role_definitions().get(name)
        if role is None:
            return web.Response(status=204)
        self._demand("delete", request, role.assignable_scopes)
        if self._directory.role_assignments("role", name):
            raise ArmError(
                400, "RoleDefinitionHasAssignments", "There are existing role assignments referencing the role."
            )
        await self._directory.remove_role_definition(name)
        return json_response(role.to_arm(scope_of(request)))

    def _demand(self, verb: str, request: web.Request, scopes: Iterable[str]) -> None:
        """Raises `ArmError` 403 unless the caller may change a role at each scope where it can be assigned.

        The front door has checked the right at the scope of the request only.
        """
        assignments = self._directory.role_assignments("principal_id", caller_of(request))
        definitions = self._directory.role_definitions()
        action = f"Microsoft.Authorization/roleDefinitions/{verb}"
        for scope in scopes:
            if not allowed(action, scope, assignments, definitions):
                raise ArmError(
                    403,
                    "LinkedAuthorizationFailed",
                    f"The client '{caller_of(request)}' has permission to perform action '{action}' on scope "
                    f"'{scope_of(request)}'; however, it does not have it on the linked scope '{scope}'.",
                )

    def _role(self, name: str, properties: RequestProperties, scope: str) -> RoleDefinition:
        """Return the custom role in a request. Raises `ArmError` 400."""
        _check_text("roleName", properties.role_name, 1, _NAME_LIMIT)
        if not properties.role_name.isprintable():
            raise _invalid("properties.roleName", "has control characters")
        description = properties.description or ""
        _check_text("description", description, 0, _DESCRIPTION_LIMIT)
        scopes = (scope,) if properties.assignable_scopes is msgspec.UNSET else properties.assignable_scopes
        if not 0 < len(scopes) <= _ENTRIES or not all(covers(self._subscription, each) for each in scopes):
            raise ArmError(
                400,
                "InvalidAssignableScopes" if scopes else "MissingAssignableScopes",
                f"The assignable scopes of a custom role must be 1 to {_ENTRIES}, each in '{self._subscription}'.",
            )
        for permission in properties.permissions:
            lists = msgspec.structs.astuple(permission)
            if sum(map(len, lists)) > _ENTRIES:
                raise _invalid("properties.permissions", f"has more than {_ENTRIES} actions")
            for action in (action for actions in lists for action in actions):
                if len(action) > _NAME_LIMIT or not _ACTION.fullmatch(action):
                    raise ArmError(
                        400,
                        "InvalidActionOrNotAction",
                        f"'{action[:200]}' does not match any of the actions supported by the providers.",
                    )
        return RoleDefinition(name, properties.role_name, properties.permissions, description, scopes, custom=True)


def find_role(directory: Directory, name: str) -> RoleDefinition:
    """Return a role by its GUID. Raises `ArmError` 404."""
    role = directory.role_definitions().get(fold(name))
    if role is None:
        raise ArmError(
            404, "RoleDefinitionDoesNotExist", f"The specified role definition with ID '{name[:100]}' does not exist."
        )
    return role


def _check_text(key: str, text: str, least: int, most: int) -> None:
    if not least <= len(text) <= most or "\0" in text:
        raise _invalid(f"properties.{key}", f"must be a string of {least} to {most} characters")


def _invalid(target: str, problem: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"{target}: {problem}.", target=target)
