"""Validation of services."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.services import NODE_PORTS, is_checked, is_outside
from cumulet.kube.schema.validation.addresses import address, endpoint, is_dual_stack, network, parsed
from cumulet.kube.schema.validation.containers import PROTOCOLS
from cumulet.kube.schema.validation.field_errors import (
    Causes,
    all_invalid,
    duplicate,
    forbidden,
    invalid,
    required,
    unsupported,
)
from cumulet.kube.schema.validation.metadata import labels
from cumulet.kube.schema.validation.probes import port as port_reference

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_LONGEST_AFFINITY = 86400
_ONLY_BALANCED = "may only be used when `type` is 'LoadBalancer'"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_ONCE = "may not change once set"


def service(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a service, or an update of one."""
    spec = obj.get("spec") or {}
    before = None if old is None else old.get("spec") or {}
    causes = [] if before is None else list(_update(spec, before))
    notes = obj["metadata"].get("annotations") or {}
    if _MODE in notes and _HINTS in notes and notes[_MODE] != notes[_HINTS]:
        why = f"must match annotations[{_HINTS}] when both are specified"
        causes.append(invalid(f"metadata.annotations[{_MODE}]", notes[_MODE], why))
    causes += _by_type(spec)
    names: set[str] = set()
    ports = spec.get("ports") or []
    for index, port in enumerate(ports):
        causes += _port(port, f"spec.ports[{index}]", names, is_one=len(ports) == 1)
    causes += labels(spec.get("selector"), "spec.selector")
    causes += _affinity(spec)
    causes += cluster_ips(spec, before or {})
    for index, text in enumerate(spec.get("externalIPs") or ()):
        where = f"spec.externalIPs[{index}]"
        causes += list(address(text, where, (before or {}).get("externalIPs") or ())) or list(endpoint(text, where))
    causes += _ports(spec, ports)
    causes += _balancing(spec, before, notes, (old or {}).get("metadata", {}).get("annotations") or {})
    causes += _balancer_class(spec, None)
    causes += _traffic(spec)
    return causes


def is_headless(spec: Object) -> bool:
    """Whether a service has no cluster IP."""
    return spec.get("clusterIPs") == ["None"]


def _by_type(spec: Object) -> Causes:
    kind = spec.get("type", "")
    if not spec.get("ports") and not is_headless(spec) and kind != "ExternalName":
        yield required("spec.ports")
    if kind in NODE_PORTS and is_headless(spec):
        yield invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind == "ExternalName":
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key):
                yield forbidden(f"spec.{key}", "may not be set for ExternalName services")
        name = spec.get("externalName", "").removesuffix(".")
        if name:
            yield from all_invalid("spec.externalName", name, name_formats.dns_subdomain(name))
        else:
            yield required("spec.externalName")


def _port(port: Object, field: str, names: set[str], *, is_one: bool) -> Causes:
    name, protocol = port.get("name", ""), port.get("protocol", "")
    if name:
        yield from all_invalid(f"{field}.name", name, name_formats.dns_label(name))
        if name in names:
            yield duplicate(f"{field}.name", name)
        names.add(name)
    elif not is_one:
        yield required(f"{field}.name")
    yield from all_invalid(f"{field}.port", port.get("port", 0), name_formats.port_number(port.get("port", 0)))
    if protocol not in PROTOCOLS:
        yield unsupported(f"{field}.protocol", protocol, PROTOCOLS)
    yield from port_reference(port.get("targetPort", 0), f"{field}.targetPort")
    if (application := port.get("appProtocol")) is not None:
        yield from all_invalid(f"{field}.appProtocol", application, name_formats.qualified_name(application))


def _affinity(spec: Object) -> Causes:
    affinity, config = spec.get("sessionAffinity", ""), spec.get("sessionAffinityConfig")
    if affinity not in ("ClientIP", "None"):
        yield unsupported("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    if affinity == "None" and config is not None:
        yield forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None")
    if affinity == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds", 0)
        if not 0 < seconds <= _LONGEST_AFFINITY:
            why = f"must be greater than 0 and less than {_LONGEST_AFFINITY}"
            yield invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, why)


def cluster_ips(spec: Object, before: Object) -> Causes:
    """Validate the cluster IPs of a service, and their families."""
    if spec.get("type") == "ExternalName":
        return
    first, addresses = spec.get("clusterIP", ""), spec.get("clusterIPs") or []
    if first and not addresses:
        yield required("spec.clusterIPs")
    elif first and addresses[0] != first:
        yield invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`")
    elif not first and addresses:
        yield invalid("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified")
    families = spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            yield unsupported(f"spec.ipFamilies[{index}]", family, _FAMILIES)
        if family in families[:index]:
            yield duplicate(f"spec.ipFamilies[{index}]", family)
    if spec.get("ipFamilyPolicy") not in (None, *_FAMILY_POLICIES):
        yield unsupported("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], _FAMILY_POLICIES)
    wrong = list(_addresses(addresses, before.get("clusterIPs") or []))
    yield from wrong
    if len(addresses) > 2:
        yield invalid("spec.clusterIPs", addresses, "may only hold up to 2 values")
    if wrong:
        return
    if len(addresses) > 1 and not is_dual_stack(addresses):
        yield invalid("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family")
    if is_headless(spec):
        return
    for index, (text, family) in enumerate(zip(addresses, families, strict=False)):
        found = parsed(text)
        if found is not None and family in _FAMILIES and f"IPv{found.version}" != family:
            why = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            yield invalid(f"spec.clusterIPs[{index}]", text, why)


def _addresses(addresses: list[str], known: Iterable[str]) -> Causes:
    for index, text in enumerate(addresses):
        if index == 0 and text == "None":
            if len(addresses) > 1:
                yield invalid("spec.clusterIPs", addresses, "'None' must be the first and only value")
        else:
            yield from address(text, f"spec.clusterIPs[{index}]", list(known))


def _ports(spec: Object, ports: list[Object]) -> Causes:
    kind = spec.get("type", "")
    if kind not in _TYPES:
        yield unsupported("spec.type", kind, _TYPES)
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                yield forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
    taken: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        if number := port.get("nodePort"):
            if (port.get("protocol", ""), number) in taken:
                yield duplicate(f"spec.ports[{index}].nodePort", number)
            taken.add((port.get("protocol", ""), number))
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        key = port.get("protocol", ""), port.get("port", 0)
        if key in seen:
            shown = {
                "Name": "",
                "Protocol": key[0],
                "AppProtocol": None,
                "Port": key[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            yield Cause(f"spec.ports[{index}]", "FieldValueDuplicate", f"Duplicate value: {_struct(shown)}")
        seen.add(key)


def _struct(value: Object) -> str:
    """Return a Go struct as JSON, with its fields in the given order."""
    return msgspec.json.encode(value).decode()


def _balancing(spec: Object, before: Object | None, notes: Object, noted: Object) -> Causes:
    balanced = spec.get("type") == "LoadBalancer"
    ranges = spec.get("loadBalancerSourceRanges") or []
    if ranges:
        if not balanced:
            yield forbidden("spec.LoadBalancerSourceRanges", _ONLY_BALANCED)
        known = [text.strip() for text in (before or {}).get("loadBalancerSourceRanges") or ()]
        for index, text in enumerate(ranges):
            yield from network(text.strip(), f"spec.LoadBalancerSourceRanges[{index}]", known)
    elif _SOURCE_RANGES in notes:
        field = f"metadata.annotations[{_SOURCE_RANGES}]"
        if not balanced:
            yield forbidden(field, _ONLY_BALANCED)
        if (text := notes[_SOURCE_RANGES].strip()) and noted.get(_SOURCE_RANGES) != notes[_SOURCE_RANGES]:
            for part in text.split(","):
                yield from network(part.strip(), field)
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        yield forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCED)


def _balancer_class(spec: Object, before: Object | None) -> Causes:
    name, balanced = spec.get("loadBalancerClass"), spec.get("type") == "LoadBalancer"
    was_balanced = before is not None and before.get("type") == "LoadBalancer"
    if before is not None and balanced and was_balanced and name != before.get("loadBalancerClass"):
        yield invalid("spec.loadBalancerClass", name, _ONCE)
    if name is None:
        return
    if balanced:
        yield from all_invalid("spec.loadBalancerClass", name, name_formats.qualified_name(name))
    else:
        yield forbidden("spec.loadBalancerClass", _ONLY_BALANCED)


def _traffic(spec: Object) -> Causes:
    policy, number = spec.get("externalTrafficPolicy", ""), spec.get("healthCheckNodePort", 0)
    if not is_outside(spec):
        if policy:
            yield invalid("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services")
    elif not policy:
        yield required("spec.externalTrafficPolicy")
    elif policy not in ("Cluster", "Local"):
        yield unsupported("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    if not is_checked(spec):
        if number:
            why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield invalid("spec.healthCheckNodePort", number, why)
    elif number:
        yield from all_invalid("spec.healthCheckNodePort", number, name_formats.port_number(number))
    if spec.get("internalTrafficPolicy") not in (None, "Cluster", "Local"):
        yield unsupported("spec.internalTrafficPolicy", spec["internalTrafficPolicy"], ("Cluster", "Local"))
    if spec.get("trafficDistribution") not in (None, *_DISTRIBUTIONS):
        field = "spec.trafficDistribution"
        yield unsupported(field, spec["trafficDistribution"], _DISTRIBUTIONS, in_order=True)


def _update(spec: Object, before: Object) -> Causes:
    named = "ExternalName" in (spec.get("type"), before.get("type"))
    if not named and not (is_headless(spec) and is_headless(before)):
        yield from _changed_addresses(spec, before)
    if not named and not is_headless(spec) and not is_headless(before):
        yield from _changed_families(spec, before)
    yield from _balancer_class(spec, before)
    checked = is_checked(spec) and is_checked(before)
    if checked and spec.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        yield forbidden("spec.healthCheckNodePort", name_formats.IMMUTABLE)


def _changed_addresses(spec: Object, before: Object) -> Causes:
    new, old = spec.get("clusterIPs") or [], before.get("clusterIPs") or []
    if len(new) == len(old):
        for index, (text, was) in enumerate(zip(new, old, strict=True)):
            if text != was:
                yield invalid(f"spec.clusterIPs[{index}]", new, _ONCE)
        return
    if len(old) > len(new) and not new:
        yield invalid("spec.clusterIPs[0]", None, "primary clusterIP can not be unset")
    if old and new and new[0] != old[0]:
        yield invalid("spec.clusterIPs[0]", new, _ONCE)
    if len(old) > len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), why)


def _changed_families(spec: Object, before: Object) -> Causes:
    new, old = spec.get("ipFamilies") or [], before.get("ipFamilies") or []
    if len(new) == len(old):
        for family, was in zip(new, old, strict=True):
            if family != was:
                yield invalid("spec.ipFamilies[0]", new, _ONCE)
        return
    if len(old) > len(new) and not (spec.get("clusterIPs") or []):
        yield invalid("spec.ipFamilies[0]", new or None, "primary ipFamily can not be unset")
    if old and new and new[0] != old[0]:
        yield invalid("spec.ipFamilies[0]", spec.get("clusterIPs"), _ONCE)
    if len(old) > len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        why = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), why)
