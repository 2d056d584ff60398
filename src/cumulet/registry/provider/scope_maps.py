"""`registries/scopeMaps` (REST reference 2023-07-01)."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.registry.access.scope_maps import SYSTEM_SCOPE_MAPS, ScopeMap, grant
from cumulet.registry.catalog.store import Registry
from cumulet.registry.provider.bodies import Properties, given
from cumulet.registry.provider.child_resources import Body, Children

_MOST = 500
#: Characters of a description (REST reference, `ScopeMapProperties`).
_LONGEST = 256


class _Request(msgspec.Struct):
    actions: list[str] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class _Properties(Properties):
    description: str
    type: str
    creation_date: str
    actions: list[str]


class ScopeMaps(Children[ScopeMap, _Request]):
    """The system scope maps of every registry, and the scope maps of its users."""

    kind = ScopeMap
    request = _Request

    def all(self, registry: Registry) -> list[ScopeMap]:
        """The system scope maps, then the others."""
        return [*SYSTEM_SCOPE_MAPS.values(), *super().all(registry)]

    def check_change(self, registry: Registry, name: str) -> None:
        """Raises `ArmError` 400 for a system scope map."""
        if fold(name) in SYSTEM_SCOPE_MAPS:
            raise ArmError(400, "ScopeMapReadOnly", f"The scope map '{name}' is the system's and cannot be changed.")

    async def read(self, registry: Registry, name: str, body: Body[_Request], existing: ScopeMap | None) -> ScopeMap:
        """The scope map, without duplicate actions. Raises `ArmError` 400."""
        before = existing if body.is_patch else None
        actions = tuple(dict.fromkeys(given(body.properties.actions, list(before.actions) if before else [])))
        if not actions or len(actions) > _MOST:
            raise ArmError(
                400, "InvalidScopeMapActions", f"A scope map has 1 to {_MOST} actions.", target="properties.actions"
            )
        for line in actions:
            try:
                grant(line)
            except ValueError as error:
                raise ArmError(
                    400, "InvalidScopeMapActions", f"An action is not valid: {error}.", target="properties.actions"
                ) from None
        description = given(body.properties.description, before.description if before else "")
        if len(description) > _LONGEST or not description.isprintable():
            raise ArmError(
                400,
                "InvalidDescription",
                f"A description has at most {_LONGEST} characters, and no control characters.",
                target="properties.description",
            )
        return ScopeMap(
            name,
            existing.created if existing else clock.rfc3339_micro(),
            description,
            actions,
        )

    def properties(self, registry: Registry, resource: ScopeMap) -> _Properties:
        """The properties in responses."""
        return _Properties(
            description=resource.description,
            type="SystemDefined" if resource.system else "UserDefined",
            creation_date=resource.created,
            actions=list(resource.actions),
        )
