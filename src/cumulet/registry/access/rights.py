"""The rights of a caller in a registry: by Azure's roles, by a scope map, as the admin user, or anonymously.

Actions have the names of ACR's access tokens. On a repository these are `pull`, `push`, `delete`, `metadata_read`,
`metadata_write` and others. On the registry's `catalog` and `deleted_catalog` it is `*`. `common.rbac` alone decides roles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from cumulet.common.ascii import fold
from cumulet.common.rbac import DELETE, PULL, PUSH, SIGN, RoleAssignment, RoleDefinition, allowed
from cumulet.registry.access.scope_maps import Grant

_REGISTRIES = "Microsoft.ContainerRegistry/registries"
#: The attribute by which the condition of an assignment names a repository.
_NAME = fold(f"{_REGISTRIES}/repositories:name")


class _Right(NamedTuple):
    """The permissions that grant an action: of a role on the registry, of a role on data, and of a scope map."""

    action: str
    data_action: str
    word: str


_RIGHTS = {
    "pull": _Right(PULL, f"{_REGISTRIES}/repositories/content/read", "content/read"),
    "push": _Right(PUSH, f"{_REGISTRIES}/repositories/content/write", "content/write"),
    "delete": _Right(DELETE, f"{_REGISTRIES}/repositories/content/delete", "content/delete"),
    "metadata_read": _Right(PULL, f"{_REGISTRIES}/repositories/metadata/read", "metadata/read"),
    "metadata_write": _Right(PUSH, f"{_REGISTRIES}/repositories/metadata/write", "metadata/write"),
    "deleted_read": _Right(f"{_REGISTRIES}/deleted/read", f"{_REGISTRIES}/repositories/deleted/read", ""),
    "deleted_restore": _Right(
        f"{_REGISTRIES}/deleted/restore/action", f"{_REGISTRIES}/repositories/deleted/restore/action", ""
    ),
    "sign": _Right(SIGN, f"{_REGISTRIES}/repositories/sign/write", ""),
}
#: The permissions for the names of `registry` scopes.
_LISTS = {
    "catalog": _Right(PULL, f"{_REGISTRIES}/catalog/read", ""),
    "deleted_catalog": _RIGHTS["deleted_read"],
}
REPOSITORY_ACTIONS = tuple(_RIGHTS)
REGISTRY_NAMES = tuple(_LISTS)


class Rights(Protocol):
    """Decides on actions; `kind` is `repository` or `registry`."""

    def allow(self, action: str, kind: str, name: str) -> bool:
        """Whether the action is granted there."""
        ...


class AllRights:
    """The rights of the admin user."""

    def allow(self, action: str, kind: str, name: str) -> bool:
        """Whether the action exists."""
        return _right(action, kind, name) is not None


class PullRights:
    """The rights of anonymous callers, where anonymous pull is enabled."""

    def allow(self, action: str, kind: str, name: str) -> bool:
        """Whether the action reads a repository. Listing the repositories is not allowed."""
        return kind == "repository" and action in ("pull", "metadata_read")


class ScopeMapRights:
    """The rights of a repository token."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._grants = grants

    def allow(self, action: str, kind: str, name: str) -> bool:
        """Whether a line of the scope map grants the action on the repository."""
        right = _right(action, kind, name)
        return (
            right is not None and right.word != "" and any(grant.covers(name, right.word) for grant in self._grants)
        )


class RoleRights:
    """The rights of a service principal, by its role assignments on the registry and above it.

    With `repository_roles_only` (`roleAssignmentMode` `AbacRepositoryPermissions`) only data actions count. Roles on the
    whole registry, such as AcrPull or Owner, then grant nothing in its data plane.
    """

    def __init__(
        self,
        registry_id: str,
        assignments: Sequence[RoleAssignment],
        definitions: Mapping[str, RoleDefinition],
        *,
        repository_roles_only: bool,
    ) -> None:
        self._scope = registry_id
        self._assignments = assignments
        self._definitions = definitions
        self._repository_roles_only = repository_roles_only

    def allow(self, action: str, kind: str, name: str) -> bool:
        """Whether a role grants the action, or its data action with the repository name as an attribute."""
        right = _right(action, kind, name)
        if right is None:
            return False
        attributes = {_NAME: name} if kind == "repository" else {}
        if not self._repository_roles_only and allowed(
            right.action, self._scope, self._assignments, self._definitions, attributes=attributes
        ):
            return True
        return allowed(
            right.data_action, self._scope, self._assignments, self._definitions, data=True, attributes=attributes
        )


def _right(action: str, kind: str, name: str) -> _Right | None:
    if kind == "registry":
        return _LISTS.get(name) if action == "*" else None
    return _RIGHTS.get(action) if kind == "repository" else None
