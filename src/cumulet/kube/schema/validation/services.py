"""Services."""

from __future__ import annotations

import re
from typing import Any

from cumulet.kube.schema.validation.causes import (
    ADDRESS_MESSAGE,
    LABEL,
    LABEL_MESSAGE,
    SUBDOMAIN,
    SUBDOMAIN_MESSAGE,
    Causes,
    Object,
    duplicate,
    forbidden,
    invalid,
    is_address,
    is_network,
    labels,
    required,
    unsupported,
)
from cumulet.kube.schema.validation.containers import port_name
from cumulet.kube.status import Cause


def service(obj: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a service, or with its change."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    kinds = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in kinds:
        causes.append(unsupported("spec.type", spec.get("type"), kinds))
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        causes.append(required("spec.externalName"))
    names: set[str] = set()
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name", "")
        if len(ports) > 1 and not name:
            causes.append(required(f"{where}.name"))
        if name and name in names:
            causes.append(duplicate(f"{where}.name", name))
        elif name and (len(name) > 63 or not re.fullmatch(LABEL, name)):
            causes.append(invalid(f"{where}.name", name, LABEL_MESSAGE))
        names.add(name)
        if port.get("nodePort") and spec.get("type") == "ClusterIP":
            causes.append(forbidden(f"{where}.nodePort", "may not be used when `type` is 'ClusterIP'"))
        number = port.get("port")
        if number is None or not 0 < number < 65536:
            causes.append(invalid(f"{where}.port", number or 0, "must be between 1 and 65535, inclusive"))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            causes.append(unsupported(f"{where}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
        target = port.get("targetPort")
        if isinstance(target, int) and not 0 < target < 65536:
            causes.append(invalid(f"{where}.targetPort", target, "must be between 1 and 65535, inclusive"))
        elif isinstance(target, str):
            causes += port_name(target, f"{where}.targetPort")
        if (number, port.get("protocol")) in seen:
            causes.append(duplicate(where, {"port": number, "protocol": port.get("protocol")}))
        seen.add((number, port.get("protocol")))
    causes += labels(spec.get("selector"), "spec.selector")
    causes += _by_type(spec)
    causes += _access(spec)
    if old is not None:
        before = (old.get("spec") or {}).get("clusterIP")
        if before and spec.get("type") != "ExternalName" and spec.get("clusterIP") not in (before, None, ""):
            causes.append(invalid("spec.clusterIPs[0]", [spec.get("clusterIP")], "may not change once set"))
    return causes


def _by_type(spec: Object) -> Causes:
    """What one type may have and another may not."""
    kind = spec.get("type")
    outside = kind in ("LoadBalancer", "NodePort")
    if kind == "ExternalName":
        name = spec.get("externalName", "").rstrip(".")
        if name and (len(name) > 253 or not re.fullmatch(SUBDOMAIN, name)):
            yield invalid("spec.externalName", spec["externalName"], SUBDOMAIN_MESSAGE)
        if spec.get("clusterIP") not in (None, "", "None"):
            yield forbidden("spec.clusterIPs[0]", "may not be set when `type` is 'ExternalName'")
    elif outside and spec.get("clusterIP") == "None":
        yield invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    policy = spec.get("externalTrafficPolicy")
    if policy is not None and not (outside or spec.get("externalIPs")):
        yield invalid("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services")
    elif policy not in (None, "Cluster", "Local"):
        yield unsupported("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    if (name := spec.get("loadBalancerClass")) and kind != "LoadBalancer":
        yield forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'")
    for index, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        where = f"spec.loadBalancerSourceRanges[{index}]"
        if kind != "LoadBalancer":
            yield forbidden("spec.loadBalancerSourceRanges", "may only be used when `type` is 'LoadBalancer'")
            break
        if not is_network(block.strip()):
            yield invalid(where, block, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")


def _access(spec: Object) -> Causes:
    affinity = spec.get("sessionAffinity")
    if affinity not in ("ClientIP", "None"):
        yield unsupported("spec.sessionAffinity", affinity or "", ("ClientIP", "None"))
    seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    if affinity == "ClientIP" and seconds is not None and not 0 < seconds <= 86400:
        why = "must be greater than 0 and less than 86400"
        yield invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, why)
    if spec.get("internalTrafficPolicy") not in (None, "Cluster", "Local"):
        yield unsupported("spec.internalTrafficPolicy", spec["internalTrafficPolicy"], ("Cluster", "Local"))
    for index, address in enumerate(spec.get("externalIPs") or ()):
        if not is_address(address):
            yield invalid(f"spec.externalIPs[{index}]", address, ADDRESS_MESSAGE)
