"""Clusters of a few pods with policies, as JSON, and a plain reading of what `networking.k8s.io/v1` says about them.

`allows` shares no code with the compiler: it asks, for one connection, each policy in turn.
"""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

from cumulet.network.policy.compiler import Compiler
from cumulet.network.policy.model import parse_policy
from cumulet.network.policy.pods import member_of
from cumulet.network.policy.rules import Places

Object = dict[str, Any]


class Cluster(NamedTuple):
    """Labels of namespaces by name, pods with their addresses, and policies."""

    namespaces: dict[str, dict[str, str]]
    pods: list[Object]
    policies: list[Object]


def pod(namespace: str, name: str, address: str, labels: dict[str, str], ports: list[Object] | None = None) -> Object:
    """A running pod of one container."""
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"containers": [{"name": "main", "ports": ports or []}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def policy(namespace: str, name: str, selector: Object | None = None, **spec: Any) -> Object:
    """A policy; `from_` and such are not needed, as rules are plain JSON."""
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"podSelector": selector or {}, **spec}}


def compiled(cluster: Cluster, places: Places) -> Compiler:
    """The compiler after it has seen a cluster."""
    compiler = Compiler(places)
    for name, labels in cluster.namespaces.items():
        compiler.set_namespace(name, labels)
    for item in cluster.pods:
        compiler.set_pod(key_of(item), member_of(item))  # type: ignore[arg-type]
    for item in cluster.policies:
        compiler.set_policy(key_of(item), parse_policy(item))  # type: ignore[arg-type]
    return compiler


def key_of(item: Object) -> tuple[str, str]:
    """(namespace, name)."""
    return item["metadata"]["namespace"], item["metadata"]["name"]


def allows(cluster: Cluster, source: str, target: str, protocol: str, port: int, dns: str = "") -> bool:
    """Whether a connection between two addresses may be opened. `dns` is the address of the name server."""
    sender, receiver = (_pod_at(cluster, address) for address in (source, target))
    if sender is not None and sender is receiver:
        return True
    if target == dns and (protocol, port) in (("udp", 53), ("tcp", 53)):
        ports: list[Object] = [
            {"name": "dns", "protocol": "UDP", "containerPort": 53},
            {"name": "dns-tcp", "protocol": "TCP", "containerPort": 53},
        ]
        receiver = pod("kube-system", "coredns", target, {"k8s-app": "kube-dns"}, ports)
    out = sender is None or _passes(cluster, "Egress", sender, receiver, target, receiver, protocol, port)
    into = (
        receiver is None
        or target == dns
        or _passes(cluster, "Ingress", receiver, sender, source, receiver, protocol, port)
    )
    return out and into


def _pod_at(cluster: Cluster, address: str) -> Object | None:
    return next((item for item in cluster.pods if item["status"]["podIP"] == address), None)


def _passes(
    cluster: Cluster,
    kind: str,
    own: Object,
    peer: Object | None,
    other: str,
    receiver: Object | None,
    protocol: str,
    port: int,
) -> bool:
    """Whether the policies of one pod let a connection pass, to or from the address `other`, which may be a pod's."""
    mine = [item for item in cluster.policies if kind in _types(item["spec"]) and _is_for(item, own)]
    return not mine or any(
        _rule_allows(cluster, item["metadata"]["namespace"], rule, kind, peer, other, receiver, protocol, port)
        for item in mine
        for rule in item["spec"].get(kind.lower()) or []
    )


def _types(spec: Object) -> list[str]:
    given: list[str] | None = spec.get("policyTypes")
    if given:
        return given
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _is_for(item: Object, own: Object) -> bool:
    same = item["metadata"]["namespace"] == own["metadata"]["namespace"]
    return same and _matches(item["spec"]["podSelector"], own["metadata"]["labels"])


def _rule_allows(
    cluster: Cluster,
    namespace: str,
    rule: Object,
    kind: str,
    peer: Object | None,
    other: str,
    receiver: Object | None,
    protocol: str,
    port: int,
) -> bool:
    peers = rule.get("from" if kind == "Ingress" else "to") or []
    if peers and not any(_peer_is(cluster, namespace, item, peer, other) for item in peers):
        return False
    ports = rule.get("ports") or []
    return not ports or any(_port_is(item, receiver, protocol, port) for item in ports)


def _peer_is(cluster: Cluster, namespace: str, item: Object, peer: Object | None, other: str) -> bool:
    if (block := item.get("ipBlock")) is not None:
        address = ipaddress.ip_address(other)
        return address in ipaddress.ip_network(block["cidr"], strict=False) and not any(
            address in ipaddress.ip_network(hole, strict=False) for hole in block.get("except") or []
        )
    if peer is None:
        return False
    where = peer["metadata"]["namespace"]
    if "namespaceSelector" in item:
        if where not in cluster.namespaces or not _matches(item["namespaceSelector"], cluster.namespaces[where]):
            return False
    elif where != namespace:
        return False
    return _matches(item.get("podSelector", {}), peer["metadata"]["labels"])


def _port_is(item: Object, receiver: Object | None, protocol: str, port: int) -> bool:
    if item.get("protocol", "TCP").lower() != protocol:
        return False
    wanted = item.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        named = [] if receiver is None else receiver["spec"]["containers"][0]["ports"]
        return any(
            found["name"] == wanted and found["protocol"].lower() == protocol and found["containerPort"] == port
            for found in named
        )
    last = item.get("endPort") or wanted
    return bool(wanted <= port <= last)


def _matches(selector: Object, labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for wanted in selector.get("matchExpressions") or []:
        value = labels.get(wanted["key"])
        match wanted["operator"]:
            case "In" if value not in wanted["values"]:
                return False
            case "NotIn" if value in wanted["values"]:
                return False
            case "Exists" if value is None:
                return False
            case "DoesNotExist" if value is not None:
                return False
    return True
