"""Services in user space, where there is no root or no nftables: which front ends the proxy has, and what it cannot serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from cumulet.balancer.pool import Key, key_of
from cumulet.balancer.proxy import Endpoint, Frontend, Proxy
from cumulet.common.egress import Egress
from cumulet.common.kubernetes import Client, Informer
from cumulet.common.kubernetes.client import ENDPOINTSLICES
from cumulet.common.kubernetes.load_balancers import idle_minutes, source_ranges
from cumulet.common.kubernetes.objects import EndpointSlice, Service

_SERVICE_NAME = "kubernetes.io/service-name"
_NODE_ADDRESS = "127.0.0.1"
#: The index of slices by their Service.
_INDEX = "service"


class Forwarder:
    """The front ends of Services at their addresses of the pool, and of node ports at 127.0.0.1."""

    def __init__(self, client: Client, egress: Egress) -> None:
        self.slices = Informer(client, ENDPOINTSLICES)
        self.slices.add_index(_INDEX, lambda item: [key] if (key := service_of(item)) is not None else [])
        self._proxy = Proxy(egress)
        self._frontends: dict[Key, set[Frontend]] = {}

    def close(self) -> None:
        """Close all front ends."""
        self._proxy.close()

    async def serve(self, key: Key, service: Service | None, address: str | None) -> tuple[list[str], bool]:
        """Serve a Service at its address, or nowhere any more.

        Return what cannot be served, and whether the address answers.
        """
        desired: dict[Frontend, list[Endpoint]] = {}
        failed: list[str] = []
        answers = True
        if service is not None:
            if address is not None:
                desired |= self._frontends_of(service, address, "port")
                answers = bool(desired)
            if service["spec"].get("type") in ("NodePort", "LoadBalancer"):
                desired |= self._frontends_of(service, _NODE_ADDRESS, "nodePort")
        for frontend in self._frontends.get(key, set()) - desired.keys():
            self._proxy.remove(frontend)
        self._frontends[key] = set(desired)
        for frontend, endpoints in desired.items():
            assert service is not None
            # A node port is on the node itself, without a load balancer in front.
            at_node = frontend.host == _NODE_ADDRESS
            idle, sources = (None, None) if at_node else (60.0 * idle_minutes(service), source_ranges(service))
            by_client = service["spec"].get("sessionAffinity") == "ClientIP"
            try:
                await self._proxy.set(frontend, endpoints, by_client=by_client, idle=idle, sources=sources)
            except OSError as error:
                failed.append(f"cannot listen on {frontend.host}:{frontend.port}: {error.strerror}")
                answers = answers and frontend.host != address
        if not desired:
            self._frontends.pop(key, None)
        return failed, answers

    def _frontends_of(
        self, service: Service, address: str, field: Literal["port", "nodePort"]
    ) -> dict[Frontend, list[Endpoint]]:
        """Return the front ends of a Service at an address, each with the ready end points of its port."""
        frontends: dict[Frontend, list[Endpoint]] = {}
        for port in service["spec"].get("ports") or ():
            number = port["port"] if field == "port" else port.get("nodePort")
            if number and port.get("protocol", "TCP") == "TCP":
                frontends[Frontend(address, number)] = self._endpoints(service, port.get("name", ""))
        return frontends

    def _endpoints(self, service: Service, port_name: str) -> list[Endpoint]:
        endpoints: set[Endpoint] = set()
        for item in self.slices.indexed(_INDEX, key_of(service)):
            for port in item.get("ports") or ():
                if (port.get("name") or "") == port_name and port.get("port"):
                    for endpoint in item.get("endpoints") or ():
                        if (endpoint.get("conditions") or {}).get("ready", True):
                            endpoints |= {(address, port["port"]) for address in endpoint["addresses"]}
        return sorted(endpoints)


def service_of(item: EndpointSlice) -> Key | None:
    """Return the Service of a slice."""
    name = (item["metadata"].get("labels") or {}).get(_SERVICE_NAME)
    return (item["metadata"]["namespace"], name) if name else None


def refused_ports(service: Service) -> Iterator[str]:
    """Yield what is not supported of the ports of a Service that has an address."""
    if service["spec"].get("type") not in ("NodePort", "LoadBalancer"):
        return
    for number, port in enumerate(service["spec"].get("ports") or ()):
        if (protocol := port.get("protocol", "TCP")) != "TCP":
            yield (
                f'spec.ports[{number}].protocol "{protocol}" is not supported: without root and nftables the balancer'
                " forwards TCP only"
            )
