"""The cells of services, their endpoints, ingresses and network policies."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.tables.common import NONE as _NONE
from cumulet.kube.tables.common import Cell, Cells, age_of, few, name_of, spec_of, status_of
from cumulet.kube.tables.text import selector_text

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import ServiceSpec, ServiceStatus


def _service(obj: Object, now: datetime) -> list[Cell]:
    spec: ServiceSpec = spec_of(obj)
    ports = [
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or ()
    ]
    return [
        name_of(obj),
        spec.get("type", ""),
        spec.get("clusterIP") or _NONE if spec.get("type") != "ExternalName" else _NONE,
        _external(spec, status_of(obj)),
        ",".join(ports) or _NONE,
        age_of(obj, now),
        selector_text(spec.get("selector")),
    ]


def _external(spec: ServiceSpec, status: ServiceStatus) -> str:
    extra = spec.get("externalIPs") or []
    match spec.get("type"):
        case "ExternalName":
            return spec.get("externalName", "")
        case "LoadBalancer":
            ingress = (status.get("loadBalancer") or {}).get("ingress") or []
            addresses = [item.get("ip") or item.get("hostname") or "" for item in ingress] + extra
            return ",".join(dict.fromkeys(addresses)) or "<pending>"
    return ",".join(extra) or _NONE


def _endpoints(obj: Object, now: datetime) -> list[Cell]:
    addresses = [
        f"{address.get('ip', '')}:{port.get('port', 0)}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [name_of(obj), few(addresses), age_of(obj, now)]


def _slice(obj: Object, now: datetime) -> list[Cell]:
    ports = [str(port["port"]) for port in obj.get("ports") or () if port.get("port")]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [
        name_of(obj),
        obj.get("addressType", ""),
        few(ports) if ports else "<unset>",
        few(addresses) if addresses else "<unset>",
        age_of(obj, now),
    ]


def _ingress(obj: Object, now: datetime) -> list[Cell]:
    spec = spec_of(obj)
    hosts = [rule.get("host", "*") for rule in spec.get("rules") or ()]
    ingress = (status_of(obj).get("loadBalancer") or {}).get("ingress") or []
    addresses = [item.get("ip") or item.get("hostname") or "" for item in ingress]
    ports = "80, 443" if spec.get("tls") else "80"
    return [
        name_of(obj),
        spec.get("ingressClassName", _NONE),
        few(hosts) if hosts else "*",
        ",".join(addresses),
        ports,
        age_of(obj, now),
    ]


def _ingress_class(obj: Object, now: datetime) -> list[Cell]:
    name, of = name_of(obj), spec_of(obj).get("parameters") or {}
    if (obj["metadata"].get("annotations") or {}).get("ingressclass.kubernetes.io/is-default-class") == "true":
        name += " (default)"
    kind = of.get("kind", "") + (f".{of['apiGroup']}" if of.get("apiGroup") is not None else "")
    parameters = f"{kind}/{of.get('name', '')}" if of else _NONE
    return [name, spec_of(obj).get("controller", ""), parameters, age_of(obj, now)]


def _network_policy(obj: Object, now: datetime) -> list[Cell]:
    return [name_of(obj), selector_text(spec_of(obj).get("podSelector")), age_of(obj, now)]


NETWORK: dict[str, Cells] = {
    "endpoints": _endpoints,
    "services": _service,
    "endpointslices.discovery.k8s.io": _slice,
    "ingresses.networking.k8s.io": _ingress,
    "ingressclasses.networking.k8s.io": _ingress_class,
    "networkpolicies.networking.k8s.io": _network_policy,
}
