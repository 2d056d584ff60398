"""What pods ask for, added up (upstream's `resource.PodRequests`), in exact numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from cumulet.common.kubernetes.quantity import decimal

Object = dict[str, Any]
Amounts = dict[str, Decimal]


def container_amounts(container: Object, kind: str) -> Amounts:
    """The `requests` or `limits` of a container, or of anything else that has `resources`."""
    return {name: decimal(value) for name, value in ((container.get("resources") or {}).get(kind) or {}).items()}


#: What a pod may say for all its containers together.
POD_LEVEL = ("cpu", "memory")


def pod_amounts(spec: Object, kind: str) -> Amounts:
    """The `requests` or `limits` of a pod: all containers together, or the largest init container, or what the pod itself
    says, and overhead.
    """
    total: Amounts = {}
    for container in spec.get("containers") or ():
        for name, value in container_amounts(container, kind).items():
            total[name] = total.get(name, Decimal(0)) + value
    sidecars: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = container_amounts(container, kind)
        if container.get("restartPolicy") == "Always":
            for name, value in own.items():
                sidecars[name] = sidecars.get(name, Decimal(0)) + value
                total[name] = total.get(name, Decimal(0)) + value
        else:
            for name, value in own.items():
                total[name] = max(total.get(name, Decimal(0)), value + sidecars.get(name, Decimal(0)))
    for name, value in container_amounts(spec, kind).items():
        if name in POD_LEVEL or name.startswith("hugepages-"):
            total[name] = value
    for name, text in (spec.get("overhead") or {}).items():
        # What is not limited is not limited by what the sandbox takes.
        if kind == "requests" or total.get(name):
            total[name] = total.get(name, Decimal(0)) + decimal(text)
    return total
