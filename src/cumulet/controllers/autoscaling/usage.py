"""Calculates the number of pods for one resource metric (`replica_calculator.go`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Fields, MetricTarget, Pod
from cumulet.common.kubernetes.quantity import milli
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.pods import is_terminating, phase_of

#: A change by less than this share is ignored.
TOLERANCE = 0.1
#: After its start, the CPU usage of a pod is ignored for this time unless it is ready.
_STARTING = timedelta(minutes=5)
_READY_DELAY = timedelta(seconds=30)


class MetricError(Exception):
    """The metric is not available. The message has upstream's words."""


class Proposal(NamedTuple):
    """The number of pods that one metric requires, and the measured amounts in thousandths."""

    replicas: int
    average: int
    utilization: int | None
    about: str


def usage_of(samples: Iterable[Fields], resource: str, container: str | None) -> dict[str, int]:
    """The usage of a resource by pod, in thousandths. Pods without a sample are omitted."""
    usage: dict[str, int] = {}
    for sample in samples:
        used = [
            item["usage"][resource]
            for item in sample.get("containers") or ()
            if container in (None, item["name"]) and resource in item["usage"]
        ]
        if used:
            usage[sample["metadata"]["name"]] = sum(milli(value) for value in used)
    return usage


def propose(
    resource: str,
    container: str | None,
    target: MetricTarget,
    current: int,
    pods: list[Pod],
    used: Mapping[str, int],
    tolerances: tuple[float, float] = (TOLERANCE, TOLERANCE),
) -> Proposal:
    """The proposal for one resource metric. `tolerances` apply to scaling down and up. Raises `MetricError`."""
    alive = [pod for pod in pods if not is_terminating(pod) and phase_of(pod) != "Failed"]
    if not alive:
        raise MetricError("no pods returned by selector while calculating replica count")
    if not used:
        raise MetricError(
            f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
        )
    unready = {pod["metadata"]["name"] for pod in alive if _is_unready(pod, resource)}
    names = {pod["metadata"]["name"] for pod in alive}
    measured = {name: value for name, value in used.items() if name in names and name not in unready}
    missing = {name for name in names if name not in used}
    if not measured:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")
    by_share = target["type"] == "Utilization"
    requests = {pod["metadata"]["name"]: _request(pod, resource, container) for pod in alive} if by_share else {}

    def ratio(values: Mapping[str, int]) -> float:
        if by_share:
            requested = sum(requests[name] for name in values)
            return 100 * sum(values.values()) / requested / float(target["averageUtilization"])
        return sum(values.values()) / len(values) / milli(target["averageValue"])

    first = ratio(measured)
    average = sum(measured.values()) // len(measured)
    share = int(100 * sum(measured.values()) / sum(requests[name] for name in measured)) if by_share else None
    about = f"{resource} {'container ' if container else ''}resource utilization (percentage of request)"
    if not by_share:
        about = f"{resource} {'container ' if container else ''}resource"

    def outcome(replicas: int) -> Proposal:
        return Proposal(replicas, average, share, about)

    if not missing and not (unready and first > 1):
        return outcome(current if is_near(first, tolerances) else math.ceil(round(first * len(measured), 6)))
    # Pods without a sample are assumed to have the usage that argues against a change.
    assumed = dict(measured)
    for name in missing:
        full = requests[name] if by_share else milli(target["averageValue"])
        assumed[name] = 0 if first > 1 else full
    if first > 1:
        assumed |= dict.fromkeys(unready - missing, 0)
    second = ratio(assumed)
    if is_near(second, tolerances) or (first < 1) is not (second < 1):
        return outcome(current)
    replicas = math.ceil(round(second * len(assumed), 6))
    if (second < 1 and replicas > current) or (second > 1 and replicas < current):
        return outcome(current)
    return outcome(replicas)


def is_near(ratio: float, tolerances: tuple[float, float]) -> bool:
    """Whether the ratio is within the tolerances, so that the size stays."""
    down, up = tolerances
    return 1 - down <= ratio <= 1 + up


def _request(pod: Pod, resource: str, container: str | None) -> int:
    total = 0
    for item in pod["spec"]["containers"]:
        if container not in (None, item["name"]):
            continue
        request = ((item.get("resources") or {}).get("requests") or {}).get(resource)
        if request is None:
            name = pod["metadata"]["name"]
            raise MetricError(f"missing request for {resource} in container {item['name']} of Pod {name}")
        total += milli(request)
    return total


def _is_unready(pod: Pod, resource: str) -> bool:
    """Whether the usage of a pod is not meaningful yet."""
    if phase_of(pod) == "Pending":
        return True
    if resource != "cpu":
        return False
    ready, started = condition_of(pod, "Ready"), (pod.get("status") or {}).get("startTime")
    if ready is None or not started:
        return True
    began = clock.parse(started)
    if began + _STARTING > clock.now():
        return ready["status"] == "False"
    changed = ready.get("lastTransitionTime")
    return bool(ready["status"] == "False" and changed and began + _READY_DELAY > clock.parse(changed))
