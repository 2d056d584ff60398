"""Validation of the statuses of workloads, jobs, namespaces, services and claims."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.addresses import address, parsed
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.workloads import not_negative

Rule = Callable[[Object, Object], list[Cause]]

_MORE = "cannot be greater than status.replicas"


def counts(*names: str, of_all: tuple[str, ...] = (), words: str = "readyReplicas") -> Rule:
    """Return the rule of a status with counts: none is negative, some have a maximum, and available pods are ready."""

    def check(obj: Object, old: Object) -> list[Cause]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        causes = list(not_negative(status, "status", *names))
        for name in of_all:
            if status.get(name, 0) > status.get("replicas", 0):
                causes.append(invalid(f"status.{name}", status.get(name, 0), _MORE))
        if of_all and status.get("availableReplicas", 0) > status.get("readyReplicas", 0):
            why = f"cannot be greater than {words}"
            causes.append(invalid("status.availableReplicas", status["availableReplicas"], why))
        had = before.get("collisionCount")
        if had is not None and (status.get("collisionCount") is None or status["collisionCount"] < had):
            causes.append(invalid("status.collisionCount", status.get("collisionCount", 0), "cannot be decremented"))
        return causes

    return check


_LABELED = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
replica_set_status = counts("replicas", *_LABELED, "observedGeneration", "terminatingReplicas", of_all=_LABELED)
replication_controller_status = counts("replicas", *_LABELED, "observedGeneration", of_all=_LABELED)
deployment_status = counts(
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
    of_all=("updatedReplicas", "readyReplicas", "availableReplicas"),
)
stateful_set_status = counts(
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
    of_all=("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"),
    words="status.readyReplicas",
)
daemon_set_status = counts(
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)


def namespace_status(obj: Object, old: Object) -> list[Cause]:
    """Validate the status of a namespace."""
    phase = (obj.get("status") or {}).get("phase", "")
    if not obj["metadata"].get("deletionTimestamp"):
        if phase != "Active":
            return [invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")]
    elif phase != "Terminating":
        return [invalid("status.Phase", phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
    return []


def service_status(obj: Object, old: Object) -> list[Cause]:
    """Validate the status of a service."""
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    before = ((old.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    if ingress and (obj.get("spec") or {}).get("type") != "LoadBalancer":
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        return [forbidden("status.loadBalancer.ingress", why)]
    known = [item["ip"] for item in before if item.get("ip")]
    return [
        cause
        for index, item in enumerate(ingress)
        for cause in _ingress(item, known, f"status.loadBalancer.ingress[{index}]")
    ]


def _ingress(item: Object, known: list[str], field: str) -> Causes:
    ip, mode, host = item.get("ip", ""), item.get("ipMode"), item.get("hostname", "")
    if ip:
        yield from address(ip, f"{field}.ip", known)
    if mode is None:
        if ip:
            yield required(f"{field}.ipMode", "must be specified when `ip` is set")
    elif not ip:
        yield forbidden(f"{field}.ipMode", "may not be specified when `ip` is not set")
    elif mode not in ("Proxy", "VIP"):
        yield unsupported(f"{field}.ipMode", mode, ("Proxy", "VIP"))
    if host:
        yield from all_invalid(f"{field}.hostname", host, name_formats.dns_subdomain(host))
        if parsed(host) is not None:
            yield invalid(f"{field}.hostname", host, "must be a DNS name, not an IP address")


def claim_status(obj: Object, old: Object) -> list[Cause]:
    """Validate the status of a claim."""
    capacity = (obj.get("status") or {}).get("capacity") or {}
    return [
        invalid(f"status.capacity[{name}]", int(decimal(value)), "must be a valid resource quantity")
        for name, value in sorted(capacity.items())
        if decimal(value) < 0
    ]
