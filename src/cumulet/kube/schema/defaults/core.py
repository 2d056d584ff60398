"""Defaults of services, secrets, namespaces, nodes, limit ranges and other small kinds."""

from __future__ import annotations

import base64

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults.values import default
from cumulet.kube.schema.services import is_outside


def service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    default(spec, sessionAffinity="None", type="ClusterIP")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if config.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    for port in spec.get("ports") or ():
        default(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if is_outside(spec):
        default(spec, externalTrafficPolicy="Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer", "ClusterIP"):
        default(spec, internalTrafficPolicy="Cluster")
    elif spec["type"] == "ExternalName":
        spec.pop("internalTrafficPolicy", None)
    default(obj, status={})
    default(obj["status"], loadBalancer={})
    if spec["type"] == "LoadBalancer":
        default(spec, allocateLoadBalancerNodePorts=True)
        for ingress in obj["status"]["loadBalancer"].get("ingress") or ():
            if ingress.get("ip"):
                default(ingress, ipMode="VIP")


def secret(obj: Object) -> None:
    default(obj, type="Opaque")
    if text := obj.pop("stringData", None):
        data = obj.setdefault("data", {})
        for key, value in text.items():
            data[key] = base64.b64encode(value.encode()).decode()


def namespace(obj: Object) -> None:
    if name := obj["metadata"].get("name"):
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    obj.setdefault("spec", {})
    default(obj.setdefault("status", {}), phase="Active")


def node(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    one, several = spec.get("podCIDR", ""), spec.get("podCIDRs") or []
    if one and several[:1] != [one]:
        spec["podCIDRs"] = [one]
    elif several and not one:
        spec["podCIDR"] = several[0]
    status = obj.setdefault("status", {})
    if status.get("capacity"):
        default(status, allocatable=dict(status["capacity"]))


def endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            default(port, protocol="TCP")


def endpoint_slice(obj: Object) -> None:
    for port in obj.get("ports") or ():
        default(port, name="", protocol="TCP")


def limit_range(obj: Object) -> None:
    for limit in (obj.get("spec") or {}).get("limits") or ():
        if limit.get("type") != "Container":
            continue
        most, least = limit.get("max") or {}, limit.get("min") or {}
        usual = {**most, **(limit.get("default") or {})}
        asked = {**least, **usual, **(limit.get("defaultRequest") or {})}
        for key, value in (("default", usual), ("defaultRequest", asked)):
            if value:
                limit[key] = value


def network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            default(port, protocol="TCP")


def ingress_class(obj: Object) -> None:
    if (parameters := (obj.get("spec") or {}).get("parameters")) is not None:
        default(parameters, scope="Cluster")


def priority_class(obj: Object) -> None:
    default(obj, preemptionPolicy="PreemptLowerPriority")
