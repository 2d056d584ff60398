"""The table of the fields of a Service: how the balancer and the controllers treat each.

`docs/pod-fields.md` is generated from it by `scripts/make_pod_fields.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Service
from cumulet.common.kubernetes.support import Kind, Refusal, honoured, refusals, refused, stored

_ENDPOINTS = "read by the endpoints controller"

SERVICE_PORT = Kind(
    "ServicePort",
    {
        "appProtocol": stored("shown, and copied to the EndpointSlices; the balancer forwards bytes"),
        "name": honoured(),
        "nodePort": honoured("the balancer listens there on 127.0.0.1"),
        "port": honoured(),
        "protocol": honoured(only=("TCP",), instead="the load balancer forwards TCP only"),
        "targetPort": honoured(_ENDPOINTS),
    },
)
CLIENT_IP = Kind(
    "ClientIPConfig",
    {"timeoutSeconds": stored("shown; a client keeps its endpoint for as long as the endpoints stay the same")},
)
SERVICE_SPEC = Kind(
    "ServiceSpec",
    {
        "allocateLoadBalancerNodePorts": honoured("by the API server"),
        "clusterIP": stored("allocated and shown; nothing on this machine serves it"),
        "clusterIPs": stored("as clusterIP"),
        "externalIPs": refused("the balancer listens at the addresses of its pool only; use loadBalancerIP"),
        "externalName": stored("shown; the cluster has no DNS server"),
        "externalTrafficPolicy": honoured(
            "all endpoints are on this machine; pods see the machine's address as the client's"
        ),
        "healthCheckNodePort": stored("allocated and shown; no other load balancer asks it"),
        "internalTrafficPolicy": stored("shown; cluster IPs are not served"),
        "ipFamilies": honoured("IPv4", only=("IPv4",), instead="the pods' network has IPv4 only"),
        "ipFamilyPolicy": honoured(
            only=("SingleStack", "PreferDualStack"), instead="the pods' network has IPv4 only; use SingleStack"
        ),
        "loadBalancerClass": honoured("a Service with a class is left to the controller of that class"),
        "loadBalancerIP": honoured("an address of the pool"),
        "loadBalancerSourceRanges": honoured("other clients are reset at once; node ports are open to all"),
        "ports": honoured(kind=SERVICE_PORT),
        "publishNotReadyAddresses": honoured(_ENDPOINTS),
        "selector": honoured(_ENDPOINTS),
        "sessionAffinity": honoured(only=("None", "ClientIP"), instead="use None or ClientIP"),
        "sessionAffinityConfig": honoured(kind=Kind("SessionAffinityConfig", {"clientIP": honoured(kind=CLIENT_IP)})),
        "trafficDistribution": stored("shown; all endpoints are on this machine"),
        "type": honoured(),
    },
)


def refused_fields(service: Service) -> Iterator[Refusal]:
    """Yield what the balancer does not support of a Service that it serves."""
    if service["spec"].get("type") in ("NodePort", "LoadBalancer") and not service["spec"].get("loadBalancerClass"):
        yield from refusals(service["spec"], SERVICE_SPEC, "spec")
