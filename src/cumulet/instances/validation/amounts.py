"""Checks of the amounts of resources: finite numbers, and no more than a region offers, in ACI's words."""

from __future__ import annotations

import math

from cumulet.common.arm import ArmError
from cumulet.instances.model.amounts import total
from cumulet.instances.model.properties import Amount, GroupProperties
from cumulet.instances.model.regions import Maximum

#: The runtime itself needs some memory.
_LEAST_CPU, _LEAST_MEMORY = 0.01, 0.01


def check(group: str, location: str, properties: GroupProperties, maximum: Maximum) -> None:
    """Raise `ArmError` for an amount that is not valid or more than the region's maximum."""
    check_numbers(group, properties)
    for container in properties.all_containers:
        resources = container.properties.resources
        if resources.limits is not None:
            _check_limits(group, container.name, resources.requests, resources.limits, maximum)
    cpu, memory = total(properties)
    if cpu > maximum.vcpu or memory > maximum.gb:
        raise ArmError(
            409,
            "ServiceUnavailable",
            f"The requested resource is not available in the location '{location}' at this moment. Please retry with a "
            f"different resource request or in another location. Resource requested: '{cpu:.15g}' CPU '{memory:.15g}' GB memory "
            "'Linux' OS",
            target="properties.containers",
        )


def check_numbers(group: str, properties: GroupProperties) -> None:
    """Raise `ArmError` for an amount that is not valid."""
    for container in properties.all_containers:
        resources = container.properties.resources
        for kind, amount in (("requests", resources.requests), ("limits", resources.limits)):
            if amount is not None:
                _check_amount(group, container.name, kind, amount)


def _check_amount(group: str, container: str, kind: str, amount: Amount) -> None:
    for name, value, least in (
        ("Cpu", amount.cpu, _LEAST_CPU),
        ("MemoryInGB", amount.memory_in_gb, _LEAST_MEMORY),
    ):
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ArmError(
                400,
                "InvalidResourceRequirements",
                f"The '{name}' of the {kind} in container '{container}' of container group '{group}' is invalid: it must be a "
                f"number that is not less than {least}.",
                target="properties.containers",
            )


def _check_limits(group: str, container: str, requests: Amount, limits: Amount, maximum: Maximum) -> None:
    for name, request, limit, most in (
        ("Cpu", requests.cpu, limits.cpu, maximum.vcpu),
        ("MemoryInGB", requests.memory_in_gb, limits.memory_in_gb, maximum.gb),
    ):
        if limit is None:
            continue
        if request is not None and limit < request:
            raise ArmError(
                400,
                "ResourceLimitsLessThanRequests",
                f"The resource requirement in container '{container}' of contain group '{group}' is invalid. The '{name}' limit "
                "value must be greater than or equal to the request value.",
                target="properties.containers",
            )
        if limit > most:
            raise ArmError(
                400,
                "ContainerLimitGreaterThanContainerGroupTotalRequest",
                f"The '{name}' limit '{limit:.15g}' in container '{container}' is greater than what container group '{group}' "
                f"can have, '{most:.15g}'.",
                target="properties.containers",
            )
