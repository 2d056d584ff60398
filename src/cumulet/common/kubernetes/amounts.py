"""The sums of the requests and limits of pods in exact numbers (`k8s.io/component-helpers/resource`, `PodRequests`)."""

from __future__ import annotations

from decimal import Decimal

from cumulet.common.kubernetes.objects import Fields
from cumulet.common.kubernetes.quantity import decimal

#: Amounts by the names of resources, in the unit of each: cores, bytes.
Amounts = dict[str, Decimal]


def container_amounts(container: Fields, kind: str) -> Amounts:
    """The `requests` or `limits` of a container, or of any other part that has `resources`. Raises `ValueError`."""
    return {name: decimal(value) for name, value in ((container.get("resources") or {}).get(kind) or {}).items()}


#: The resources that a pod can declare for all its containers together.
POD_LEVEL = ("cpu", "memory")


def pod_amounts(spec: Fields, kind: str) -> Amounts:
    """The `requests` or `limits` of a pod: the sum of its containers or the largest init container, plus overhead.

    Amounts at pod level replace those of the containers. Raises `ValueError` for a malformed quantity.
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
        # Overhead must not put a limit on a resource that has none.
        if kind == "requests" or total.get(name):
            total[name] = total.get(name, Decimal(0)) + decimal(text)
    return total
