"""The attributes of a change to a role assignment, which the conditions of the caller's own roles are checked against.

Follows Azure's "Authorization actions and attributes": a write has the attributes of the request, a deletion those of
the existing assignment.
"""

from __future__ import annotations

import msgspec

from cumulet.arm.request_path import RequestPath
from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.common.rbac import AssignmentRequest, RoleAssignment

_TYPE = "Microsoft.Authorization/roleAssignments"
#: The type of every principal in the tenant.
_PRINCIPAL_TYPE = "ServicePrincipal"

Attributes = dict[str, str]


def changes_assignment(path: RequestPath, method: str) -> bool:
    """Return whether a request creates, changes or deletes a role assignment."""
    kind = "/".join([path.namespace or "", *path.types])
    return method in ("PUT", "DELETE") and len(path.names) == 1 and fold(kind) == fold(_TYPE)


def requested(body: bytes | None) -> Attributes:
    """Return the attributes of a write, none if it has no properties. Raises `ArmError` 400 for invalid JSON.

    The provider parses the body in the same way: JSON first, so that the last of two equal keys counts.
    """
    try:
        document = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    try:
        properties = msgspec.convert(document, AssignmentRequest).properties
    except msgspec.ValidationError:
        return {}  # the provider refuses it
    return _attributes("request", properties.role, str(properties.principal_id))


def existing(assignment: RoleAssignment | None) -> Attributes:
    """Return the attributes of a deletion, none if the assignment does not exist."""
    return _attributes("resource", assignment.role, assignment.principal_id) if assignment is not None else {}


def _attributes(source: str, role: str, principal: str) -> Attributes:
    values = {"RoleDefinitionId": role, "PrincipalId": principal}
    return {
        f"@{source}[{fold(_TYPE)}:principaltype]": _PRINCIPAL_TYPE,
        **{f"@{source}[{fold(_TYPE)}:{fold(name)}]": fold(value) for name, value in values.items()},
    }
