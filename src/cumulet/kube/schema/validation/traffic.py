"""Validation of network policies."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.addresses import network, parsed_network
from cumulet.kube.schema.validation.field_errors import Causes, all_invalid, forbidden, invalid, required, unsupported
from cumulet.kube.schema.validation.selectors import label_selector

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("Egress", "Ingress")


def network_policy(obj: Object, old: Object | None) -> list[Cause]:
    """Validate a network policy."""
    spec = obj.get("spec") or {}
    causes = list(label_selector(spec.get("podSelector"), "spec.podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            where = f"spec.{direction}[{index}]"
            for place, port in enumerate(rule.get("ports") or ()):
                causes += _port(port, f"{where}.ports[{place}]")
            for place, peer in enumerate(rule.get(peers) or ()):
                causes += _peer(peer, f"{where}.{peers}[{place}]")
    types = spec.get("policyTypes") or []
    if len(types) > len(_TYPES):
        return [*causes, invalid("spec.policyTypes", types, "may not specify more than two policyTypes")]
    for index, name in enumerate(types):
        if name not in _TYPES:
            causes.append(unsupported(f"spec.policyTypes[{index}]", name, _TYPES))
    return causes


def _port(port: Object, field: str) -> Causes:
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        yield unsupported(f"{field}.protocol", protocol, _PROTOCOLS)
    if isinstance(number, int):
        yield from all_invalid(f"{field}.port", number, name_formats.port_number(number))
        if end is not None:
            if end < number:
                yield invalid(f"{field}.endPort", number, "must be greater than or equal to `port`")
            yield from all_invalid(f"{field}.endPort", end, name_formats.port_number(end))
        return
    if end is not None:
        how = "not specified" if number is None else "non-numeric"
        yield invalid(f"{field}.endPort", end, f"may not be specified when `port` is {how}")
    if number is not None:
        yield from all_invalid(f"{field}.port", number, name_formats.port_name(number))


def _peer(peer: Object, field: str) -> Causes:
    for name in ("podSelector", "namespaceSelector"):
        yield from label_selector(peer.get(name), f"{field}.{name}")
    block = peer.get("ipBlock")
    if block is not None:
        yield from _block(block, f"{field}.ipBlock")
    count = sum(peer.get(name) is not None for name in ("podSelector", "namespaceSelector", "ipBlock"))
    if not count:
        yield required(field, "must specify a peer")
    elif count > 1 and block is not None:
        yield forbidden(field, "may not specify both ipBlock and another peer")


def _block(block: Object, field: str) -> Causes:
    whole = block.get("cidr") or ""
    if not whole:
        yield required(f"{field}.cidr")
        return
    yield from network(whole, f"{field}.cidr")
    outer = parsed_network(whole)
    for index, part in enumerate(block.get("except") or ()):
        yield from network(part, f"{field}.except[{index}]")
        inner = parsed_network(part)
        if outer is None or inner is None:
            continue
        is_below = inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
        if inner == outer or not is_below:
            yield invalid(f"{field}.except[{index}]", part, "must be a strict subset of `cidr`")
