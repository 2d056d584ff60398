"""The amounts of resources that a group requests, and those that it pays for."""

from __future__ import annotations

import os

from cumulet.instances.model.properties import GroupProperties

#: The request of a container that names none: vCPUs and decimal gigabytes.
CPU, MEMORY = 1.0, 1.5
_DIGITS = 6
_GB = 1_000_000_000


def total(properties: GroupProperties) -> tuple[float, float]:
    """Return the vCPUs and decimal gigabytes that the containers of a group request together.

    A sidecar runs beside them, and adds what it requests. Other init containers use what the containers request later.
    """
    requests = [item.properties.resources.requests for item in properties.containers]
    beside = [
        item.properties.resources.requests
        for item in properties.init_containers
        if item.properties.restart_policy == "Always"
    ]
    cpu = sum(CPU if item.cpu is None else item.cpu for item in requests) + sum(item.cpu or 0 for item in beside)
    memory = sum(MEMORY if item.memory_in_gb is None else item.memory_in_gb for item in requests)
    memory += sum(item.memory_in_gb or 0 for item in beside)
    return round(cpu, _DIGITS), round(memory, _DIGITS)


def billed(properties: GroupProperties) -> tuple[float, float]:
    """Return the amounts that are billed: the requests, but at least one of each, which is ACI's minimum."""
    return least(*total(properties))


def least(cpu: float, memory: float) -> tuple[float, float]:
    """Return the amounts that are billed for a request: at least one of each."""
    return max(round(cpu, _DIGITS), 1.0), max(round(memory, _DIGITS), 1.0)


def memory_limit(properties: GroupProperties) -> int:
    """Return the bytes of memory that all containers of a group can use at the same time: at most the machine's."""
    required = [item.properties.resource_requirements for item in properties.containers]
    if any(item is not None for item in required):
        exact = [item.limits.bytes if item is not None else None for item in required]
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min(machine, sum(item or machine for item in exact))
    limits = [item.properties.resources.limits for item in properties.containers]
    known = [item.memory_in_gb for item in limits if item is not None and item.memory_in_gb is not None]
    return int(max(total(properties)[1], sum(known)) * _GB)
