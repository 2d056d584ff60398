"""Azure role-based access control: the decision, shared by the front door and the registry.

Follows Azure RBAC's model. A role definition grants its `actions` except its `notActions`, and the same for data actions.
An assignment gives a role to a principal on a scope and everything below it. Assignments are additive: none of them denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cumulet.common import conditions
from cumulet.common.ascii import fold
from cumulet.common.patterns import like

PULL = "Microsoft.ContainerRegistry/registries/pull/read"
PUSH = "Microsoft.ContainerRegistry/registries/push/write"
DELETE = "Microsoft.ContainerRegistry/registries/artifacts/delete"
SIGN = "Microsoft.ContainerRegistry/registries/sign/write"

#: The supported version of the language of conditions.
CONDITION_VERSION = "2.0"
_ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
_DEFINITIONS = "Microsoft.Authorization/roleDefinitions"

_REPOSITORIES = "Microsoft.ContainerRegistry/registries/repositories"
_CATALOG = "Microsoft.ContainerRegistry/registries/catalog/read"


class Permission(msgspec.Struct, rename="camel", frozen=True):
    """The actions that a role grants: `Provider/type/…/verb`, where `*` matches any run of characters, without case."""

    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def grants(self, action: str, *, data: bool = False) -> bool:
        """Return whether the role grants an action, or a data action."""
        granted, excluded = (self.data_actions, self.not_data_actions) if data else (self.actions, self.not_actions)
        return _matches(granted, action) and not _matches(excluded, action)


class DefinitionProperties(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`properties` of a role definition."""

    role_name: str
    type: str = "CustomRole"
    description: str | None = ""
    assignable_scopes: tuple[str, ...] | None = None
    permissions: tuple[Permission, ...]


class DefinitionResource(msgspec.Struct, frozen=True):
    """A role definition as `Microsoft.Authorization/roleDefinitions` shows it (REST reference 2022-04-01)."""

    id: str
    type: str
    name: str
    properties: DefinitionProperties


class AssignmentProperties(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """`properties` of a role assignment."""

    role_definition_id: str
    principal_id: str
    principal_type: str | None = "ServicePrincipal"
    scope: str
    condition: str | None = None
    condition_version: str | None = None


class AssignmentResource(msgspec.Struct, frozen=True):
    """A role assignment as `Microsoft.Authorization/roleAssignments` shows it (REST reference 2022-04-01)."""

    id: str
    type: str
    name: str
    properties: AssignmentProperties


class AssignmentRequestProperties(msgspec.Struct, rename="camel", frozen=True):
    """`properties` of a request for a role assignment; `identity` checks the types, with Azure's errors for each."""

    role_definition_id: object = ""
    principal_id: object = ""
    principal_type: object = None
    condition: object = None
    condition_version: object = None

    @property
    def role(self) -> str:
        """The GUID of the role, or another text that is the id of no role."""
        return str(self.role_definition_id).rsplit("/", 1)[-1]


class AssignmentRequest(msgspec.Struct, frozen=True):
    """The body of a request for a role assignment."""

    properties: AssignmentRequestProperties


class RoleDefinition(msgspec.Struct, frozen=True):
    """A role: `name` is its GUID, `role_name` its display name."""

    name: str
    role_name: str
    permissions: tuple[Permission, ...]
    description: str = ""
    assignable_scopes: tuple[str, ...] = ("/",)
    custom: bool = False

    def to_arm(self, scope: str = "") -> DefinitionResource:
        """Return the resource, with the id that it has in the subscription of `scope`."""
        return DefinitionResource(
            f"{subscription_of(scope)}/providers/{_DEFINITIONS}/{self.name}",
            _DEFINITIONS,
            self.name,
            DefinitionProperties(
                role_name=self.role_name,
                type="CustomRole" if self.custom else "BuiltInRole",
                description=self.description,
                assignable_scopes=self.assignable_scopes,
                permissions=self.permissions,
            ),
        )

    @classmethod
    def from_arm(cls, resource: object) -> RoleDefinition:
        """Return the role that a resource is, a `DefinitionResource` or decoded JSON. Raises `msgspec.ValidationError`."""
        shown = msgspec.convert(resource, DefinitionResource)
        properties = shown.properties
        return cls(
            name=shown.name,
            role_name=properties.role_name,
            permissions=properties.permissions,
            description=properties.description or "",
            assignable_scopes=properties.assignable_scopes or ("/",),
            custom=properties.type == "CustomRole",
        )


class RoleAssignment(msgspec.Struct, frozen=True):
    """A role that a principal (its object id) has on a scope and everything below it, while its condition holds."""

    name: str
    principal_id: str
    role: str
    scope: str
    condition: str = ""

    def to_arm(self) -> AssignmentResource:
        """Return the resource."""
        return AssignmentResource(
            f"{self.scope.rstrip('/')}/providers/{_ASSIGNMENTS}/{self.name}",
            _ASSIGNMENTS,
            self.name,
            AssignmentProperties(
                role_definition_id=f"{subscription_of(self.scope)}/providers/{_DEFINITIONS}/{self.role}",
                principal_id=self.principal_id,
                scope=self.scope,
                condition=self.condition or None,
                condition_version=CONDITION_VERSION if self.condition else None,
            ),
        )

    @classmethod
    def from_arm(cls, resource: object) -> RoleAssignment:
        """Return the assignment that a resource is, as `RoleDefinition.from_arm` does. Raises `msgspec.ValidationError`."""
        shown = msgspec.convert(resource, AssignmentResource)
        properties = shown.properties
        return cls(
            name=shown.name,
            principal_id=properties.principal_id,
            role=properties.role_definition_id.rsplit("/", 1)[-1],
            scope=properties.scope,
            condition=properties.condition or "",
        )


def allowed(
    action: str,
    scope: str,
    assignments: Iterable[RoleAssignment],
    definitions: Mapping[str, RoleDefinition],
    *,
    data: bool = False,
    attributes: Mapping[str, str] | None = None,
) -> bool:
    """Return whether one principal's assignments allow `action` on the resource with the id `scope`.

    `definitions` maps GUIDs to roles, and `attributes` names in lower case to values of the request. An assignment grants
    nothing if its role is not in `definitions`, or if its condition does not hold.
    """
    return any(
        covers(assignment.scope, scope)
        and (role := definitions.get(fold(assignment.role))) is not None
        and any(permission.grants(action, data=data) for permission in role.permissions)
        and (not assignment.condition or _holds(assignment.condition, action, attributes or {}))
        for assignment in assignments
    )


def _holds(condition: str, action: str, attributes: Mapping[str, str]) -> bool:
    try:
        return conditions.parse(condition)(action, attributes)
    except conditions.ConditionError:
        return False  # a condition from elsewhere that cannot be parsed grants nothing


def covers(scope: str, resource: str) -> bool:
    """Return whether a resource is at or below a scope, by whole segments and without case."""
    outer = fold(scope.strip("/"))
    inner = fold(resource.strip("/"))
    return not outer or inner == outer or inner.startswith(f"{outer}/")


def subscription_of(scope: str) -> str:
    """Return the `/subscriptions/{id}` that a scope is in, or an empty string."""
    parts = scope.strip("/").split("/")
    return f"/subscriptions/{parts[1]}" if len(parts) > 1 and fold(parts[0]) == "subscriptions" else ""


def _matches(patterns: tuple[str, ...], action: str) -> bool:
    action = fold(action)
    return any(like(fold(pattern), action) for pattern in patterns)


def _role(name: str, role_name: str, description: str, **permission: tuple[str, ...]) -> RoleDefinition:
    return RoleDefinition(name, role_name, (Permission(**permission),), description)


_READ_DATA = (f"{_REPOSITORIES}/content/read", f"{_REPOSITORIES}/metadata/read")
_WRITE_DATA = (*_READ_DATA, f"{_REPOSITORIES}/content/write", f"{_REPOSITORIES}/metadata/write")

#: The supported built-in roles of Azure, with Azure's own GUIDs, by GUID.
BUILT_IN_ROLES: dict[str, RoleDefinition] = {
    role.name: role
    for role in (
        _role(
            "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
            "Owner",
            "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
            actions=("*",),
        ),
        _role(
            "b24988ac-6180-42a0-ab88-20f7382dd24c",
            "Contributor",
            "Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC.",
            actions=("*",),
            not_actions=(
                "Microsoft.Authorization/*/Delete",
                "Microsoft.Authorization/*/Write",
                "Microsoft.Authorization/elevateAccess/Action",
            ),
        ),
        _role(
            "acdd72a7-3385-48ef-bd42-f606fba81ae7",
            "Reader",
            "View all resources, but does not allow you to make any changes.",
            actions=("*/read",),
        ),
        _role(
            "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
            "User Access Administrator",
            "Lets you manage user access to Azure resources.",
            actions=("*/read", "Microsoft.Authorization/*"),
        ),
        _role(
            "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
            "Role Based Access Control Administrator",
            "Manage access to Azure resources by assigning roles using Azure RBAC.",
            actions=(
                "Microsoft.Authorization/roleAssignments/write",
                "Microsoft.Authorization/roleAssignments/delete",
                "*/read",
            ),
        ),
        _role("7f951dda-4ed3-4680-a7ca-43fe172d538d", "AcrPull", "acr pull", actions=(PULL,)),
        _role("8311e382-0749-4cb8-b61a-304f252e45ec", "AcrPush", "acr push", actions=(PULL, PUSH)),
        _role("c2f4ef07-c644-48eb-af81-4b1b4947fb11", "AcrDelete", "acr delete", actions=(DELETE,)),
        _role("6cef56e8-d556-48e5-a04f-b8e64114680f", "AcrImageSigner", "acr image signer", actions=(SIGN,)),
        _role(
            "b93aa761-3e63-49ed-ac28-beffa264f7ac",
            "Container Registry Repository Reader",
            "Allows for read access to Azure Container Registry repositories, but excludes catalog listing.",
            data_actions=_READ_DATA,
        ),
        _role(
            "2a1e307c-b015-4ebd-883e-5b7698a07328",
            "Container Registry Repository Writer",
            "Allows for read and write access to Azure Container Registry repositories.",
            data_actions=_WRITE_DATA,
        ),
        _role(
            "2efddaa5-3f1f-4df3-97df-af3f13818f4c",
            "Container Registry Repository Contributor",
            "Allows for read, write, and delete access to Azure Container Registry repositories.",
            data_actions=(*_WRITE_DATA, f"{_REPOSITORIES}/content/delete", f"{_REPOSITORIES}/metadata/delete"),
        ),
        _role(
            "bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7",
            "Container Registry Repository Catalog Lister",
            "Allows for listing all repositories in an Azure Container Registry.",
            data_actions=(_CATALOG,),
        ),
    )
}
