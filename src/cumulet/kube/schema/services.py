"""Preparation of a service before addresses and ports are allocated (`registry/core/service`, `storage`, `strategy`)."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object

NODE_PORTS = ("NodePort", "LoadBalancer")


def is_checked(spec: Object) -> bool:
    """Whether the load balancer checks the health of nodes on a separate port."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def is_outside(spec: Object) -> bool:
    """Whether the service is reachable from outside the cluster."""
    kind = spec.get("type")
    return kind in NODE_PORTS or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def keep_allotted(spec: Object, old: Object) -> None:
    """Keep the allocated values that an update leaves out, in place."""
    if "ExternalName" not in (spec.get("type"), old.get("type")):
        for key in ("clusterIP", "clusterIPs"):
            if not spec.get(key) and key in old:
                spec[key] = old[key]
    if spec.get("type") in NODE_PORTS and old.get("type") in NODE_PORTS:
        _keep_node_ports(spec, old)
    if is_checked(spec) and is_checked(old) and not spec.get("healthCheckNodePort") and "healthCheckNodePort" in old:
        spec["healthCheckNodePort"] = old["healthCheckNodePort"]


def _keep_node_ports(spec: Object, old: Object) -> None:
    taken = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
    had = {
        (port.get("protocol"), port.get("port")): port["nodePort"]
        for port in old.get("ports") or ()
        if port.get("nodePort")
    }
    for port in spec.get("ports") or ():
        number = had.get((port.get("protocol"), port.get("port")))
        if number and not port.get("nodePort") and number not in taken:
            port["nodePort"] = number
            taken.add(number)


def normalize(spec: Object, old: Object | None) -> None:
    """Make the single address and the list of addresses agree where only one is set, in place."""
    first = spec.get("clusterIP", "")
    if old is None:
        if first and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [first]
        return
    before, addresses = old.get("clusterIP", ""), old.get("clusterIPs") or []
    if addresses and not spec.get("clusterIPs") and before == first:
        spec["clusterIPs"] = addresses
    if before != first and (spec.get("clusterIPs") or []) == addresses:
        if first:
            spec["clusterIPs"] = [first]
        else:
            spec.pop("clusterIPs", None)


def drop_by_type(obj: Object, old: Object) -> None:
    """Remove fields of the old type that the new type lacks and the client did not change, in place."""
    spec, before = obj["spec"], old["spec"]
    kind, was = spec.get("type"), before.get("type")
    if kind == "ExternalName" and was != "ExternalName":
        if all(spec.get(key) == before.get(key) for key in ("clusterIP", "clusterIPs")):
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
        for key in ("ipFamilies", "ipFamilyPolicy"):
            _drop_same(spec, before, key)
    if was in NODE_PORTS and kind not in NODE_PORTS and _node_ports(before) >= _node_ports(spec):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
    if is_checked(before) and not is_checked(spec):
        _drop_same(spec, before, "healthCheckNodePort")
    if was == "LoadBalancer" and kind != "LoadBalancer":
        for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            _drop_same(spec, before, key)
    if is_outside(before) and not is_outside(spec):
        _drop_same(spec, before, "externalTrafficPolicy")
    if kind != "LoadBalancer":
        obj["status"] = {**(obj.get("status") or {}), "loadBalancer": {}}


def _drop_same(spec: Object, before: Object, key: str) -> None:
    if spec.get(key) == before.get(key):
        spec.pop(key, None)


def _node_ports(spec: Object) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
