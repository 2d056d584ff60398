"""How much a group asks for: finite amounts, and no more than a region sells, refused in the words that ACI has."""

from __future__ import annotations

import math

from cumulet.common.arm import ArmError
from cumulet.instances.model.properties import Amount, GroupProperties
from cumulet.instances.model.regions import Maximum

#: What a container is taken to ask for where it says nothing.
CPU, MEMORY = 1.0, 1.5
#: The least of either; the runtime itself needs some memory.
_LEAST_CPU, _LEAST_MEMORY = 0.01, 0.01
_DIGITS = 6


def total(properties: GroupProperties) -> tuple[float, float]:
    """vCPUs and GB that the containers of a group ask for together."""
    requests = [item.properties.resources.requests for item in properties.containers]
    cpu = sum(CPU if item.cpu is None else item.cpu for item in requests)
    memory = sum(MEMORY if item.memory_in_gb is None else item.memory_in_gb for item in requests)
    return round(cpu, _DIGITS), round(memory, _DIGITS)


def billed(properties: GroupProperties) -> tuple[float, float]:
    """The same, at least one of each, which is ACI's least and what is paid for."""
    cpu, memory = total(properties)
    return max(cpu, 1.0), max(memory, 1.0)


def check(group: str, location: str, properties: GroupProperties, maximum: Maximum) -> None:
    """Raises `ArmError` where an amount is none, or is more than there is."""
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
    """Raises `ArmError` where an amount is none."""
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
