"""Warnings about services."""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.warnings.addresses import address, network

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


def service(obj: Object, old: Object | None) -> Iterator[str]:
    """Yield the warnings about a service."""
    spec = obj.get("spec") or {}
    kind, outside, headless = spec.get("type"), spec.get("externalIPs") or [], spec.get("clusterIP") == "None"
    if _HINTS in (obj["metadata"].get("annotations") or {}):
        yield f"annotation {_HINTS} is deprecated, please use {_MODE} instead"
    if spec.get("clusterIP") and not headless:
        for index, text in enumerate(spec.get("clusterIPs") or ()):
            yield from address(text, f"spec.clusterIPs[{index}]")
    headless = headless and kind == "ClusterIP"
    if headless:
        if spec.get("loadBalancerIP"):
            yield "spec.loadBalancerIP is ignored for headless services"
        if outside:
            yield "spec.externalIPs is ignored for headless services"
        if spec.get("sessionAffinity") != "None":
            yield "spec.SessionAffinity is ignored for headless services"
    for index, text in enumerate(outside):
        yield from address(text, f"spec.externalIPs[{index}]")
    if outside and not headless and kind != "ExternalName":
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    if text := spec.get("loadBalancerIP"):
        yield from address(text, "spec.loadBalancerIP")
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from network(text, f"spec.loadBalancerSourceRanges[{index}]")
    if kind == "ExternalName" and outside:
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if kind != "ExternalName" and spec.get("externalName"):
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'
