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
        "appProtocol": stored("shown, and copied to the EndpointSlices; packets are forwarded as they are"),
        "name": honoured(),
        "nodePort": honoured("at 127.0.0.1 for this machine, at the gateway for pods"),
        "port": honoured(),
        "protocol": honoured("SCTP if the kernel tracks it", only=("TCP", "UDP", "SCTP"), instead="use one of them"),
        "targetPort": honoured(_ENDPOINTS),
    },
)
CLIENT_IP = Kind(
    "ClientIPConfig",
    {"timeoutSeconds": honoured()},
)
SERVICE_SPEC = Kind(
    "ServiceSpec",
    {
        "allocateLoadBalancerNodePorts": honoured("by the API server"),
        "clusterIP": honoured("for pods and this machine"),
        "clusterIPs": honoured("as clusterIP"),
        "externalIPs": refused("only addresses of the pool are served; use loadBalancerIP"),
        "externalName": honoured("by the name server"),
        "externalTrafficPolicy": honoured(
            "Local leaves the endpoints with an address of a pod here; a pod sees the client's address in both cases"
        ),
        "healthCheckNodePort": stored("allocated and shown; no other load balancer asks it"),
        "internalTrafficPolicy": honoured("Local leaves the endpoints with an address of a pod here"),
        "ipFamilies": honoured("IPv4", only=("IPv4",), instead="the pods' network has IPv4 only"),
        "ipFamilyPolicy": honoured(
            only=("SingleStack", "PreferDualStack"), instead="the pods' network has IPv4 only; use SingleStack"
        ),
        "loadBalancerClass": honoured("a Service with a class is left to the controller of that class"),
        "loadBalancerIP": honoured("an address of the pool"),
        "loadBalancerSourceRanges": honoured(
            "packets of other clients are dropped; who allows 127.0.0.1 allows this machine; node ports are open to all"
        ),
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
