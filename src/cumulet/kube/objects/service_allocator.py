"""Allocation of cluster IPs and node ports, each to one service (`registry/core/service/storage`)."""

from __future__ import annotations

import ipaddress
import secrets

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import Cause, invalid
from cumulet.kube.schema.services import NODE_PORTS, is_checked, keep_allotted, normalize
from cumulet.kube.schema.validation.field_errors import invalid as invalid_value
from cumulet.kube.schema.validation.services import cluster_ips
from cumulet.kube.store import Store

_PORTS = range(30000, 32768)
_FAMILIES = ("IPv4", "IPv6")


class ServiceAllocator:
    """Allocates from the ranges.

    The stored services have their addresses and ports; a service on its way to the store holds its own.
    """

    def __init__(self, store: Store, cidr: str) -> None:
        self._store = store
        self._network = ipaddress.ip_network(cidr)
        self._held: set[str | int] = set()

    def complete(self, service: Object, old: Object | None = None) -> set[str | int]:
        """Allocate for a service, in place, and return the new addresses and ports, to `release` once it is stored.

        Raises `ApiError` 422 where the service cannot have what it requests.
        """
        spec, before = service["spec"], (old or {}).get("spec") or {}
        taken: set[str | int] = set()
        if old is not None:
            keep_allotted(spec, before)
        normalize(spec, None if old is None else before)
        if spec.get("type") != "ExternalName":
            self._families(service, spec, before)
            self._cluster_ips(service, spec, before, taken)
        if spec.get("type") in NODE_PORTS:
            self._node_ports(service, spec, before, taken)
        if is_checked(spec) and not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = self._free_port(service, "spec.healthCheckNodePort", taken)
        self._held |= taken
        return taken

    def release(self, taken: set[str | int]) -> None:
        """Release what `complete` returned: the service is stored, or was refused."""
        self._held -= taken

    def _families(self, service: Object, spec: Object, before: Object) -> None:
        """Set the address families. This cluster has one family."""
        own = f"IPv{self._network.version}"
        is_bare = spec.get("clusterIP") == "None" and not spec.get("selector")
        if spec.get("ipFamilyPolicy") is None:
            default = "RequireDualStack" if is_bare else "SingleStack"
            spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or default
        if causes := list(cluster_ips(spec, before)):
            raise _refused(service, causes)
        policy, families = spec["ipFamilyPolicy"], list(spec.get("ipFamilies") or ())
        addresses = spec.get("clusterIPs") or []
        for items, word in ((addresses, "cluster IPs"), (families, "IP families")):
            if policy == "SingleStack" and len(items) == 2:
                why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {word} are specified"
                causes.append(invalid_value("spec.ipFamilyPolicy", policy, why))
        for index, text in enumerate(addresses):
            if text == "None":
                break
            family = f"IPv{ipaddress.ip_address(text).version}"
            if index >= len(families):
                if family == own:
                    families.append(family)
                else:
                    why = f"{family} is not configured on this cluster"
                    causes.append(invalid_value(f"spec.clusterIPs[{index}]", addresses, why))
        if causes:
            raise _refused(service, causes)
        if is_bare:
            families = families or [own]
            if len(families) < 2 and policy != "SingleStack":
                families.append(next(family for family in _FAMILIES if family != families[0]))
        else:
            if policy == "RequireDualStack":
                why = "this cluster is not configured for dual-stack services"
                causes.append(invalid_value("spec.ipFamilyPolicy", policy, why))
            for index, family in enumerate(families):
                if family != own:
                    causes.append(
                        invalid_value(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
                    )
            if causes:
                raise _refused(service, causes)
        spec["ipFamilies"] = families or [own]

    def _cluster_ips(self, service: Object, spec: Object, before: Object, taken: set[str | int]) -> None:
        addresses = spec.get("clusterIPs") or []
        if addresses[:1] == ["None"]:
            return
        address = addresses[0] if addresses else ""
        if not address:
            address = self._free_address(service)
            taken.add(address)
        elif address not in (before.get("clusterIPs") or ()):
            why = ""
            if ipaddress.ip_address(address) not in self._network:
                why = f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self._network}"
            elif address in self._used("clusterIP"):
                why = "provided IP is already allocated"
            if why:
                why = f"failed to allocate IP {address}: {why}"
                raise _refused(service, [invalid_value("spec.clusterIPs", addresses, why)])
            taken.add(address)
        spec["clusterIP"] = address
        spec["clusterIPs"] = [address, *addresses[1:]]

    def _free_address(self, service: Object) -> str:
        used = self._used("clusterIP")
        # Upstream prefers the upper half, so that users can choose from the lower one; here addresses are random.
        hosts = self._network.num_addresses - 2
        for _ in range(hosts):
            candidate = str(self._network.network_address + 1 + secrets.randbelow(hosts))
            if candidate not in used:
                return candidate
        raise _refused(service, [invalid_value("spec.clusterIPs", "", "no address is left in the range")])

    def _node_ports(self, service: Object, spec: Object, before: Object, taken: set[str | int]) -> None:
        allots = spec.get("type") == "NodePort" or spec.get("allocateLoadBalancerNodePorts") is not False
        had = {port.get("nodePort") for port in before.get("ports") or ()}
        given: dict[int, int] = {}
        used = self._used("nodePort")
        for index, port in enumerate(spec.get("ports") or ()):
            number, field = port.get("nodePort"), f"spec.ports[{index}].nodePort"
            if not number:
                if not allots:
                    continue
                # The same port of two protocols gets one node port.
                number = given.get(port.get("port", 0)) or self._free_port(service, field, taken)
            elif number not in had and number not in taken:
                if number not in _PORTS:
                    why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
                    raise _refused(service, [invalid_value(field, number, why)])
                if number in used:
                    raise _refused(service, [invalid_value(field, number, "provided port is already allocated")])
                taken.add(number)
            port["nodePort"] = given[port.get("port", 0)] = number

    def _free_port(self, service: Object, field: str, taken: set[str | int]) -> int:
        used = self._used("nodePort") | taken
        for _ in range(1000):
            number = secrets.choice(_PORTS)
            if number not in used:
                taken.add(number)
                return number
        raise _refused(service, [invalid_value(field, 0, "no port is left in the range")])

    def _used(self, field: str) -> set[str | int]:
        used = set(self._held)
        for stored in self._store.list("services"):
            spec = stored.load().get("spec") or {}
            if field == "clusterIP":
                used.add(spec.get("clusterIP", ""))
            else:
                used |= {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
                used.add(spec.get("healthCheckNodePort", 0))
        return used


def _refused(service: Object, causes: list[Cause]) -> Exception:
    return invalid("", "Service", service["metadata"].get("name", ""), causes)
