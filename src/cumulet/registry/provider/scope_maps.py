"""`registries/scopeMaps` (REST reference 2023-07-01)."""

from __future__ import annotations

from typing import Any

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.registry.access.scope_maps import SYSTEM_SCOPE_MAPS, ScopeMap, grant
from cumulet.registry.catalog.store import Registry
from cumulet.registry.provider.child_resources import Body, Children

_MOST = 500
#: Characters of a description (REST reference, `ScopeMapProperties`).
_LONGEST = 256


class ScopeMaps(Children[ScopeMap]):
    """Those of the user's, after those that every registry has."""

    kind = ScopeMap

    def all(self, registry: Registry) -> list[ScopeMap]:
        """Both kinds."""
        return [*SYSTEM_SCOPE_MAPS.values(), *super().all(registry)]

    def check_change(self, registry: Registry, name: str) -> None:
        """The system's stay as they are."""
        if fold(name) in SYSTEM_SCOPE_MAPS:
            raise ArmError(400, "ScopeMapReadOnly", f"The scope map '{name}' is the system's and cannot be changed.")

    async def read(self, registry: Registry, name: str, body: Body, existing: ScopeMap | None) -> ScopeMap:
        """Lines that are given once are kept once."""
        actions = tuple(dict.fromkeys(body.get("actions", list[str], [], "actions")))
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
        description = body.get("description", str, "", "description")
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

    def properties(self, registry: Registry, resource: ScopeMap) -> dict[str, Any]:
        """In the REST reference's names."""
        return {
            "description": resource.description,
            "type": "SystemDefined" if resource.system else "UserDefined",
            "creationDate": resource.created,
            "actions": list(resource.actions),
        }
