"""Cluster IPs and node ports: each service has its own, as long as it lives."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Any

from cumulet.kube.status import Cause, invalid
from cumulet.kube.store import Store

Object = dict[str, Any]

_PORTS = range(30000, 32768)
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


class Allocator:
    """What is given out is what the stored services have; a service on its way to the store holds its own."""

    def __init__(self, store: Store, cidr: str) -> None:
        self._store = store
        self._network = ipaddress.ip_network(cidr)
        self._held: set[str | int] = set()

    def complete(self, service: Object, old: Object | None = None) -> set[str | int]:
        """Give a service what its type asks for, in place; what was newly taken, to `release` once it is stored."""
        spec = service["spec"]
        before = (old or {}).get("spec") or {}
        taken: set[str | int] = set()
        if spec["type"] == "ExternalName":
            for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(name, None)
        else:
            self._cluster_ip(service, spec, before, taken)
        self._node_ports(service, spec, before, taken)
        self._held |= taken
        return taken

    def release(self, taken: set[str | int]) -> None:
        """The service is stored, or was refused."""
        self._held -= taken

    def _cluster_ip(self, service: Object, spec: Object, before: Object, taken: set[str | int]) -> None:
        address = spec.get("clusterIP") or before.get("clusterIP")
        if not address:
            used = self._used("clusterIP")
            # The first half is left to those who choose, as upstream prefers.
            hosts = self._network.num_addresses - 2
            for _ in range(hosts):
                candidate = str(self._network.network_address + 1 + secrets.randbelow(hosts))
                if candidate not in used:
                    address = candidate
                    break
            else:
                raise _refused(service, "spec.clusterIPs", "", "no address is left in the range")
            taken.add(address)
        elif address != "None" and address != before.get("clusterIP"):
            try:
                inside = ipaddress.ip_address(address) in self._network
            except ValueError:
                raise _refused(service, "spec.clusterIPs[0]", address, "must be a valid IP address") from None
            if not inside:
                why = f"failed to allocate IP {address}: the provided IP is not in the valid range. The range of valid IPs is {self._network}"
                raise _refused(service, "spec.clusterIPs", [address], why)
            if address in self._used("clusterIP"):
                raise _refused(
                    service,
                    "spec.clusterIPs",
                    [address],
                    f"failed to allocate IP {address}: provided IP is already allocated",
                )
            taken.add(address)
        spec["clusterIP"] = address
        spec["clusterIPs"] = [address]
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def _node_ports(self, service: Object, spec: Object, before: Object, taken: set[str | int]) -> None:
        ports = spec.get("ports") or []
        wanted = spec["type"] in _WITH_NODE_PORTS and spec.get("allocateLoadBalancerNodePorts", True)
        had = {(port.get("port"), port.get("protocol")): port.get("nodePort") for port in before.get("ports") or ()}
        used = self._used("nodePort") if wanted else set()
        for index, port in enumerate(ports):
            if not wanted:
                port.pop("nodePort", None)
                continue
            mine = had.get((port.get("port"), port.get("protocol")))
            number = port.get("nodePort") or mine
            if not number:
                number = next(
                    (n for n in (secrets.choice(_PORTS) for _ in range(1000)) if n not in used | taken), None
                )
                if number is None:
                    raise _refused(service, f"spec.ports[{index}].nodePort", 0, "no port is left in the range")
                taken.add(number)
            elif number != mine:
                field = f"spec.ports[{index}].nodePort"
                if number not in _PORTS:
                    raise _refused(
                        service,
                        field,
                        number,
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    )
                if number in used and number not in had.values():
                    raise _refused(service, field, number, "provided port is already allocated")
                taken.add(number)
            port["nodePort"] = number

    def _used(self, field: str) -> set[str | int]:
        used = set(self._held)
        for stored in self._store.list("services"):
            spec = stored.load().get("spec") or {}
            if field == "clusterIP":
                used.add(spec.get("clusterIP", ""))
            else:
                used |= {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
        return used


def _refused(service: Object, field: str, value: Any, why: str) -> Exception:
    cause = Cause(field, "FieldValueInvalid", f"Invalid value: {value!r}: {why}".replace("'", '"'))
    return invalid("", "Service", service["metadata"]["name"], [cause])
