"""What a change of a role assignment is about, for the conditions of whoever makes it.

Follows Azure's "Authorization actions and attributes" for conditions: a write has the attributes of the request, a
deletion those of the assignment that is there.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cumulet.arm.request_path import Target
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.common.rbac import RoleAssignment

_TYPE = "Microsoft.Authorization/roleAssignments"
#: Every principal of the tenant is one.
_KIND = "ServicePrincipal"

Attributes = dict[str, str]


def changes_assignment(target: Target, method: str) -> bool:
    """Whether a request makes, changes or deletes a role assignment."""
    kind = "/".join([target.namespace or "", *target.types])
    return method in ("PUT", "DELETE") and len(target.names) == 1 and fold(kind) == fold(_TYPE)


def requested(body: bytes | None) -> Attributes:
    """The attributes of a write, read as the provider reads them. Raises `ArmError` 400."""
    try:
        document = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    found: Any = document.get("properties") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        return {}
    role = str(found.get("roleDefinitionId", "")).rsplit("/", 1)[-1]
    return _attributes("request", role, str(found.get("principalId", "")))


def existing(assignment: RoleAssignment | None) -> Attributes:
    """The attributes of a deletion; none where there is nothing to delete."""
    return _attributes("resource", assignment.role, assignment.principal_id) if assignment is not None else {}


def _attributes(source: str, role: str, principal: str) -> Attributes:
    values = {"RoleDefinitionId": role, "PrincipalId": principal}
    return {
        f"@{source}[{fold(_TYPE)}:principaltype]": _KIND,
        **{f"@{source}[{fold(_TYPE)}:{fold(name)}]": fold(value) for name, value in values.items()},
    }
