"""The resources of a pod's containers: rounded as ACI bills them, and exact as the kernel enforces them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from cumulet.common.kubernetes.objects import Container, ContainerResizePolicy
from cumulet.common.kubernetes.quantity import decimal
from cumulet.node.resource import GroupAmount, GroupRequirements, GroupResources

_CPU, _MEMORY = Decimal(1), Decimal("1.5")
_GB = Decimal(1_000_000_000)


def billed_resources(container: Container) -> GroupResources:
    """Round CPU down to hundredths and memory to tenths of a decimal GB, as the ACI provider; a missing limit equals the request."""
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    requested: GroupAmount = {"cpu": _cpu(requests.get("cpu")), "memoryInGB": _memory(requests.get("memory"))}
    translated: GroupResources = {"requests": requested}
    if limits:
        translated["limits"] = {
            "cpu": _cpu(limits["cpu"]) if "cpu" in limits else requested["cpu"],
            "memoryInGB": _memory(limits["memory"]) if "memory" in limits else requested["memoryInGB"],
        }
    return translated


def asks_for_resources(container: Container) -> bool:
    """Return whether a container requests CPU or memory; a limit counts as a request."""
    resources = container.get("resources") or {}
    named = {*(resources.get("requests") or ()), *(resources.get("limits") or ())}
    return bool(named & {"cpu", "memory"})


def exact_resources(container: Container) -> GroupRequirements:
    """Return the requests and limits as the pod has them: what has no limit is not limited."""
    resources = container.get("resources") or {}
    return {
        "requests": _strings(resources.get("requests") or {}),
        "limits": _strings(resources.get("limits") or {}),
    }


def restarting_policies(container: Container) -> list[ContainerResizePolicy]:
    """Return the resize policies that restart the container; the default, `NotRequired`, is left out."""
    return [item for item in container.get("resizePolicy") or () if item["restartPolicy"] != "NotRequired"]


def _strings(amounts: Mapping[str, str]) -> dict[str, str]:
    return {name: str(value) for name, value in amounts.items()}


def _cpu(text: str | None) -> float:
    value = _CPU if text is None else decimal(text)
    return float(max(Decimal(math.floor(value * 100)) / 100, Decimal("0.01")))


def _memory(text: str | None) -> float:
    value = _MEMORY if text is None else decimal(text) / _GB
    return float(max(Decimal(math.floor(value * 10)) / 10, Decimal("0.1")))
