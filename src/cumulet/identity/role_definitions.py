"""`Microsoft.Authorization/roleDefinitions`: the built-in roles, and custom ones (REST reference 2022-04-01)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.common.rbac import BUILT_IN_ROLES, RoleDefinition, allowed, covers
from cumulet.identity.authorization import caller_of, filter_of, guid_of, routes, scope_of
from cumulet.identity.store import Directory

_ACTION = re.compile(r"\*|[\w.*-]+(/[\w.*-]+)+", re.ASCII)
_NAME_LIMIT = 512
_DESCRIPTION_LIMIT = 1024
_ENTRIES = 2048
_CUSTOM_ROLES = 5000


class RoleDefinitions:
    """Serves them; the names of custom roles are unique in the tenant."""

    def __init__(self, directory: Directory, subscription: str) -> None:
        self._directory = directory
        self._subscription = f"/subscriptions/{subscription}"

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return routes("roleDefinitions", self._list, self._get, self._put, self._delete)

    async def _list(self, request: web.Request) -> web.Response:
        """Those that can be assigned at the scope; with `atScopeAndBelow()` also those for something in it."""
        scope = scope_of(request)
        terms = filter_of(request, {"rolename", "type"}, {"atscopeandbelow"})
        below = any(term.name == "atscopeandbelow" for term in terms)
        found = []
        for role in self._directory.role_definitions().values():
            fields = {"rolename": role.role_name, "type": "CustomRole" if role.custom else "BuiltInRole"}
            if all(term.holds(fields[term.name]) for term in terms if term.name in fields) and any(
                covers(above, scope) or (below and covers(scope, above)) for above in role.assignable_scopes
            ):
                found.append(role.to_arm(scope))
        return json_response({"value": found})

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(find_role(self._directory, request.match_info["name"]).to_arm(scope_of(request)))

    async def _put(self, request: web.Request) -> web.Response:
        name = guid_of(request)
        if name in BUILT_IN_ROLES:
            raise ArmError(403, "RoleDefinitionUpdateNotAllowed", "A built-in role cannot be changed.")
        known = self._directory.role_definitions()
        role = self._read(name, (await read_json(request)).get("properties"), scope_of(request))
        before = known[name].assignable_scopes if name in known else ()
        self._demand("write", request, {*role.assignable_scopes, *before})
        if any(other.name != name and fold(other.role_name) == fold(role.role_name) for other in known.values()):
            raise ArmError(
                409,
                "RoleDefinitionWithSameNameExists",
                f"A role definition cannot be updated with a name that already exists: '{role.role_name}'.",
            )
        if name not in known and len(known) - len(BUILT_IN_ROLES) >= _CUSTOM_ROLES:
            raise ArmError(
                400, "RoleDefinitionLimitExceeded", f"There are {_CUSTOM_ROLES} custom roles, which is the limit."
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
        """Who changes a role must be allowed to wherever it can be assigned, not at the scope of the call only."""
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

    def _read(self, name: str, properties: Any, scope: str) -> RoleDefinition:
        """A custom role as a request has it. Raises `ArmError` 400."""
        if not isinstance(properties, dict):
            raise _invalid("properties", "must be an object")
        body = {"assignableScopes": [scope], "permissions": [], **properties, "type": "CustomRole"}
        _text(body, "roleName", 1, _NAME_LIMIT)
        if not body["roleName"].isprintable():
            raise _invalid("properties.roleName", "has control characters")
        if body.get("description") is not None:
            _text(body, "description", 0, _DESCRIPTION_LIMIT)
        try:
            scopes = msgspec.convert(body["assignableScopes"], tuple[str, ...])
            role = RoleDefinition.from_arm({"name": name, "properties": body})
        except msgspec.ValidationError as error:
            raise _invalid("properties", str(error)) from None
        if not 0 < len(scopes) <= _ENTRIES or not all(covers(self._subscription, each) for each in scopes):
            raise ArmError(
                400,
                "InvalidAssignableScopes" if scopes else "MissingAssignableScopes",
                f"The assignable scopes of a custom role must be 1 to {_ENTRIES}, each in '{self._subscription}'.",
            )
        for permission in role.permissions:
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
        return role


def find_role(directory: Directory, name: str) -> RoleDefinition:
    """A role by its GUID. Raises `ArmError` 404."""
    role = directory.role_definitions().get(fold(name))
    if role is None:
        raise ArmError(
            404, "RoleDefinitionDoesNotExist", f"The specified role definition with ID '{name[:100]}' does not exist."
        )
    return role


def _text(properties: dict[str, Any], key: str, least: int, most: int) -> None:
    text = properties.get(key)
    if not isinstance(text, str) or not least <= len(text) <= most or "\0" in text:
        raise _invalid(f"properties.{key}", f"must be a string of {least} to {most} characters")


def _invalid(target: str, problem: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"{target}: {problem}.", target=target)
