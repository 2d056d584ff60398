"""`properties.policies` of a registry: retention, soft delete, and the storage quota, which Azure ties to the SKU.

Of the other policies that there are, what is shown is what holds: another state is refused and not kept without effect.
"""

from __future__ import annotations

from typing import Any

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.registry.catalog.store import Policy, Resource

_DAYS = {"retentionPolicy": ("days", 365), "softDeletePolicy": ("retentionDays", 90)}
_QUOTA = "quotaPolicy"
_FIXED = {
    "quarantinePolicy": "disabled",
    "trustPolicy": "disabled",
    "exportPolicy": "enabled",
    "azureADAuthenticationAsArmPolicy": "enabled",
}


def change(resource: Resource, policies: Any) -> None:
    """Take over the policies of a request; those that it does not name stay. Raises `ArmError` 400."""
    for name, value in _object(policies, "properties.policies").items():
        where = f"properties.policies.{name}"
        if name in _DAYS:
            field, most = _DAYS[name]
            attribute = "retention" if name == "retentionPolicy" else "soft_delete"
            policy = _object(value, where)
            before: Policy = getattr(resource, attribute)
            days = _number(policy.get(field, before.days), f"{where}.{field}", most)
            setattr(resource, attribute, Policy(_enabled(policy, before.enabled, where), days))
        elif name == _QUOTA:
            policy = _object(value, where)
            enabled = _enabled(policy, resource.storage_quota is not None, where)
            limit = _number(policy.get("bytes", resource.storage_quota or 0), f"{where}.bytes", 2**62)
            resource.storage_quota = limit if enabled else None
        elif name in _FIXED:
            fixed = _FIXED[name] == "enabled"
            if _enabled(_object(value, where), fixed, where) != fixed:
                raise ArmError(
                    400, "NotSupported", f"{name} is always {_FIXED[name]} here.", target=f"{where}.status"
                )


def show(resource: Resource) -> dict[str, Any]:
    """The policies as a request has them."""
    return {
        **{name: {"status": status} for name, status in _FIXED.items()},
        "trustPolicy": {"type": "Notary", "status": _FIXED["trustPolicy"]},
        "retentionPolicy": {"days": resource.retention.days, "status": _status(resource.retention.enabled)},
        "softDeletePolicy": {
            "retentionDays": resource.soft_delete.days,
            "status": _status(resource.soft_delete.enabled),
        },
        _QUOTA: {"bytes": resource.storage_quota or 0, "status": _status(resource.storage_quota is not None)},
    }


def _status(enabled: bool) -> str:
    return "enabled" if enabled else "disabled"


def _enabled(policy: dict[str, Any], before: bool, where: str) -> bool:
    status = policy.get("status", _status(before))
    if fold(str(status)) not in ("enabled", "disabled"):
        raise ArmError(400, "InvalidRequestContent", "status must be enabled or disabled.", target=f"{where}.status")
    return fold(str(status)) == "enabled"


def _number(value: Any, where: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ArmError(400, "InvalidRequestContent", f"{where} must be a number from 0 to {most}.", target=where)
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ArmError(400, "InvalidRequestContent", f"{where} must be an object.", target=where)
    return value
