"""`properties.policies` of a registry: retention, soft delete, and the storage quota, which Azure ties to the SKU.

The other policies have one state, which responses show. A request for another state is refused.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold
from cumulet.registry.catalog.store import Policy, Resource
from cumulet.registry.provider.bodies import given

_WHERE = "properties.policies"
#: The limits of numbers, by the property.
_LIMITS = {"days": 365, "retentionDays": 90, "bytes": 2**62}


class _PolicyRequest(msgspec.Struct, rename="camel"):
    status: str | UnsetType = UNSET
    days: int | UnsetType = UNSET
    retention_days: int | UnsetType = UNSET
    bytes: int | UnsetType = UNSET


class _Request(msgspec.Struct, rename="camel"):
    retention_policy: _PolicyRequest | None = None
    soft_delete_policy: _PolicyRequest | None = None
    quota_policy: _PolicyRequest | None = None
    quarantine_policy: _PolicyRequest | None = None
    trust_policy: _PolicyRequest | None = None
    export_policy: _PolicyRequest | None = None
    azure_ad_policy: _PolicyRequest | None = msgspec.field(name="azureADAuthenticationAsArmPolicy", default=None)


class _State(msgspec.Struct):
    status: str


class _Trust(_State):
    type: str = "Notary"


class _Retention(_State):
    days: int


class _SoftDelete(_State, rename="camel"):
    retention_days: int


class _Quota(_State):
    bytes: int


class Policies(msgspec.Struct, rename="camel"):
    """The policies in responses."""

    quarantine_policy: _State
    trust_policy: _Trust
    export_policy: _State
    azure_ad_policy: _State = msgspec.field(name="azureADAuthenticationAsArmPolicy")
    retention_policy: _Retention
    soft_delete_policy: _SoftDelete
    quota_policy: _Quota


def change(resource: Resource, policies: object) -> None:
    """Apply the policies of a request. Policies that it leaves out stay unchanged. Raises `ArmError` 400."""
    try:
        request = msgspec.convert({} if policies is None else policies, _Request)
    except msgspec.ValidationError as error:
        _refuse(str(error))
    if request.retention_policy is not None:
        where, before = f"{_WHERE}.retentionPolicy", resource.retention
        days = _number(given(request.retention_policy.days, before.days), where, "days")
        resource.retention = Policy(_enabled(request.retention_policy, before.enabled, where), days)
    if request.soft_delete_policy is not None:
        where, before = f"{_WHERE}.softDeletePolicy", resource.soft_delete
        days = _number(given(request.soft_delete_policy.retention_days, before.days), where, "retentionDays")
        resource.soft_delete = Policy(_enabled(request.soft_delete_policy, before.enabled, where), days)
    if request.quota_policy is not None:
        where, quota = f"{_WHERE}.quotaPolicy", resource.storage_quota
        enabled = _enabled(request.quota_policy, quota is not None, where)
        limit = _number(given(request.quota_policy.bytes, quota or 0), where, "bytes")
        resource.storage_quota = limit if enabled else None
    for name, policy, fixed in (
        ("quarantinePolicy", request.quarantine_policy, False),
        ("trustPolicy", request.trust_policy, False),
        ("exportPolicy", request.export_policy, True),
        ("azureADAuthenticationAsArmPolicy", request.azure_ad_policy, True),
    ):
        where = f"{_WHERE}.{name}"
        if policy is not None and _enabled(policy, fixed, where) != fixed:
            raise ArmError(400, "NotSupported", f"{name} is always {_status(fixed)} here.", target=f"{where}.status")


def show(resource: Resource) -> Policies:
    """The policies of a registry, in the form of a request."""
    retention, soft_delete, quota = resource.retention, resource.soft_delete, resource.storage_quota
    return Policies(
        quarantine_policy=_State(_status(False)),
        trust_policy=_Trust(_status(False)),
        export_policy=_State(_status(True)),
        azure_ad_policy=_State(_status(True)),
        retention_policy=_Retention(_status(retention.enabled), retention.days),
        soft_delete_policy=_SoftDelete(_status(soft_delete.enabled), soft_delete.days),
        quota_policy=_Quota(_status(quota is not None), quota or 0),
    )


def _status(enabled: bool) -> str:
    return "enabled" if enabled else "disabled"


def _enabled(policy: _PolicyRequest, before: bool, where: str) -> bool:
    status = fold(given(policy.status, _status(before)))
    if status not in ("enabled", "disabled"):
        raise _bad_status(where)
    return status == "enabled"


def _number(value: int, where: str, field: str) -> int:
    if not 0 <= value <= _LIMITS[field]:
        raise _bad_number(where, field)
    return value


def _refuse(error: str) -> NoReturn:
    """Raises `ArmError` 400 for a property of another type, by the path in msgspec's message."""
    path = error.partition("`$.")[2].removesuffix("`")
    policy, _, field = path.partition(".")
    where = f"{_WHERE}.{policy}" if policy else _WHERE
    if field == "status":
        raise _bad_status(where)
    if field:
        raise _bad_number(where, field)
    raise ArmError(400, "InvalidRequestContent", f"{where} must be an object.", target=where)


def _bad_status(where: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", "status must be enabled or disabled.", target=f"{where}.status")


def _bad_number(where: str, field: str) -> ArmError:
    where = f"{where}.{field}"
    return ArmError(
        400, "InvalidRequestContent", f"{where} must be a number from 0 to {_LIMITS[field]}.", target=where
    )
