"""Watches services and endpoints, allocates addresses, and configures the proxy."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from typing import Any, Literal

from cumulet.balancer.proxy import Endpoint, Frontend, Proxy, Sources
from cumulet.balancer.service_fields import refused_fields
from cumulet.common.ascii import whole_number
from cumulet.common.egress import Egress
from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import ENDPOINTSLICES, SERVICES
from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.kubernetes.objects import EndpointSlice, PartialObjectMetadata, Service
from cumulet.common.room import Room
from cumulet.common.tasks import task_set

log = logging.getLogger(__name__)

Key = tuple[str, str]

_SERVICE_NAME = "kubernetes.io/service-name"
_NODE_ADDRESS = "127.0.0.1"
_CLASS = "loadBalancerClass"
#: The annotation of the idle timeout in minutes, and Azure's bounds.
_IDLE = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"
_LEAST_IDLE, _MOST_IDLE = 4, 100
#: The annotation that came before `loadBalancerSourceRanges`.
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


async def serve(room: Room) -> None:
    """Run the load balancer until the room is stopped."""
    async with client_of(room) as client, task_set() as tasks:
        balancer = Balancer(client, room.config.external_cidr, room.config.egress(reach_pods=True))
        informers: list[Informer[Any]] = [balancer.services, balancer.slices]
        async with room.serving(health_app(informers)):
            room.ready()
            tasks.start_essential(balancer.events.run(), "events")
            await run_informers(informers, tasks, room.stopping)
            balancer.adopt()
            for _ in range(4):
                tasks.start_essential(balancer.queue.work(balancer.reconcile), "service")
            await room.stopping.wait()
            balancer.proxy.close()


class Balancer:
    """The addresses are in the status of the services, so that a restart keeps them."""

    def __init__(self, client: Client, cidr: str, egress: Egress) -> None:
        self._client = client
        self._range = ipaddress.ip_network(cidr)
        self._addresses: dict[Key, str] = {}
        self.proxy = Proxy(egress)
        self.events = EventRecorder(client, "service-controller")
        self.queue: WorkQueue[Key] = WorkQueue()
        self.services = Informer(client, SERVICES)
        self.slices = Informer(client, ENDPOINTSLICES)
        self._frontends: dict[Key, set[Frontend]] = {}
        self.services.add_handler(self._service_changed)
        self.slices.add_handler(self._slice_changed)

    def adopt(self) -> None:
        """Keep the addresses that a previous process allocated.

        Of two services with one address the older one keeps it, or the one that was not written last.
        """
        for service in sorted(self.services, key=_age):
            if service["spec"].get("type") == "LoadBalancer" and (address := self._valid_address(service)):
                self._addresses[_key(service)] = address

    def _valid_address(self, service: Service) -> str:
        """Return the address in a service's status if it is in the range and no other service has it, or an empty text.

        Any user that may write the status chooses it.
        """
        allocated = _allocated(service)
        try:
            inside = ipaddress.ip_address(allocated) in self._range
        except ValueError:
            inside = False
        taken = (address for key, address in self._addresses.items() if key != _key(service))
        return allocated if inside and allocated not in taken else ""

    def _service_changed(self, change: str, obj: Service, old: Service | None) -> None:
        self.queue.add(_key(obj))
        if change == "DELETED":
            return
        before = set() if old is None else set(refused_fields(old))
        if told := [str(refusal) for refusal in refused_fields(obj) if refusal not in before]:
            message = f"Error syncing load balancer: {'; '.join(told)}"
            self.events.event(obj, "Warning", "SyncLoadBalancerFailed", message)

    def _slice_changed(self, change: str, obj: EndpointSlice, old: EndpointSlice | None) -> None:
        name = (obj["metadata"].get("labels") or {}).get(_SERVICE_NAME)
        if name:
            self.queue.add((obj["metadata"]["namespace"], name))

    async def reconcile(self, key: Key) -> None:
        """Reconcile the address and the frontends of one service."""
        service = self.services.get(key[1], key[0])
        desired: dict[Frontend, list[Endpoint]] = {}
        address: str | None = None
        if service is not None and not service["metadata"].get("deletionTimestamp"):
            kind = service["spec"].get("type")
            if kind == "LoadBalancer" and not service["spec"].get(_CLASS):
                address = self._address_of(key, service)
                if address is not None:
                    desired |= self._frontends_of(service, address, "port")
            if kind in ("NodePort", "LoadBalancer"):
                desired |= self._frontends_of(service, _NODE_ADDRESS, "nodePort")
            if kind != "LoadBalancer" and _allocated(service):
                await self._write_status(key, None)
        if service is None or service["spec"].get("type") != "LoadBalancer":
            self._addresses.pop(key, None)
        for frontend in self._frontends.get(key, set()) - desired.keys():
            self.proxy.remove(frontend)
        by_client = service is not None and service["spec"].get("sessionAffinity") == "ClientIP"
        self._frontends[key] = set(desired)
        for frontend, endpoints in desired.items():
            try:
                # A node port is on the node itself, without a load balancer in front.
                at_node = frontend.host == _NODE_ADDRESS
                idle, sources = (None, None) if at_node else (_idle(service), _sources(service))
                await self.proxy.set(frontend, endpoints, by_client=by_client, idle=idle, sources=sources)
            except OSError as error:
                assert service is not None
                message = (
                    f"Error syncing load balancer: cannot listen on {frontend.host}:{frontend.port}: {error.strerror}"
                )
                self.events.event(service, "Warning", "SyncLoadBalancerFailed", message)
                self.queue.add_after(key, 10)
                if frontend.host == address:
                    address = None
        if not desired:
            self._frontends.pop(key, None)
        if service is not None and address is not None and _allocated(service) != address:
            # Only now: a client connects as soon as the status has the address.
            self.events.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
            await self._write_status(key, address)
            self.events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")

    def _address_of(self, key: Key, service: Service) -> str | None:
        """Return the address of a service, which stays the same; `None` when none can be allocated."""
        current = _allocated(service)
        address: str | None = self._addresses.get(key) or self._valid_address(service)
        if not address or (current and current != address):
            address = self._choose(key, service)
            if address is None:
                return None
        self._addresses[key] = address
        return address

    def _choose(self, key: Key, service: Service) -> str | None:
        """Return the address that the service requests, or the first free one; `None` when there is none."""
        taken = {address for other, address in self._addresses.items() if other != key}
        requested = service["spec"].get("loadBalancerIP")
        if requested:
            try:
                inside = ipaddress.ip_address(requested) in self._range
            except ValueError:
                inside = False
            if not inside or requested in taken:
                why = "is in use" if inside else f"is not in the range {self._range}"
                message = f"Error syncing load balancer: the requested address {requested} {why}"
                self.events.event(service, "Warning", "SyncLoadBalancerFailed", message)
                return None
            return requested
        for host in self._range.hosts():
            if str(host) not in taken:
                return str(host)
        message = f"Error syncing load balancer: no address is left in {self._range}"
        self.events.event(service, "Warning", "SyncLoadBalancerFailed", message)
        return None

    async def _write_status(self, key: Key, address: str | None) -> None:
        ingress = [{"ip": address, "ipMode": "VIP"}] if address else None
        try:
            await self._client.patch(
                SERVICES, key[1], {"status": {"loadBalancer": {"ingress": ingress}}}, key[0], subresource="status"
            )
        except KubernetesError as error:
            if error.code != 404:
                raise

    def _frontends_of(
        self, service: Service, address: str, field: Literal["port", "nodePort"]
    ) -> dict[Frontend, list[Endpoint]]:
        """Return the frontends of a service at an address, each with the ready endpoints of its port."""
        frontends: dict[Frontend, list[Endpoint]] = {}
        for port in service["spec"].get("ports") or ():
            number = port["port"] if field == "port" else port.get("nodePort")
            if number and port.get("protocol", "TCP") == "TCP":
                frontends[Frontend(address, number)] = self._endpoints(service, port.get("name", ""))
        return frontends

    def _endpoints(self, service: Service, port_name: str) -> list[Endpoint]:
        namespace, name = _key(service)
        endpoints: set[Endpoint] = set()
        for item in self.slices:
            labels = item["metadata"].get("labels") or {}
            if item["metadata"]["namespace"] != namespace or labels.get(_SERVICE_NAME) != name:
                continue
            for port in item.get("ports") or ():
                if (port.get("name") or "") == port_name and port.get("port"):
                    for endpoint in item.get("endpoints") or ():
                        if (endpoint.get("conditions") or {}).get("ready", True):
                            endpoints |= {(address, port["port"]) for address in endpoint["addresses"]}
        return sorted(endpoints)


def _key(obj: PartialObjectMetadata) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _idle(service: Service | None) -> float:
    """Return the idle timeout in seconds. A value that is not a number within Azure's bounds is ignored."""
    annotations = service["metadata"].get("annotations") if service is not None else None
    text = (annotations or {}).get(_IDLE, "")
    minutes = whole_number(text, 3) or 0
    return 60.0 * (minutes if _LEAST_IDLE <= minutes <= _MOST_IDLE else _LEAST_IDLE)


def _sources(service: Service | None) -> Sources:
    """Return the ranges of the clients of an external address; a text that is no range allows nobody.

    The annotation is the older form of the field and is read without it.
    """
    if service is None:
        return None
    ranges = service["spec"].get("loadBalancerSourceRanges") or []
    annotation = (service["metadata"].get("annotations") or {}).get(_RANGES, "")
    if not ranges and annotation.strip():
        ranges = annotation.split(",")
    if not ranges:
        return None
    networks = []
    for text in ranges:
        with contextlib.suppress(ValueError):
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
    return networks


def _age(service: Service) -> tuple[str, int]:
    metadata = service["metadata"]
    return metadata.get("creationTimestamp") or "", int(metadata.get("resourceVersion") or 0)


def _allocated(service: Service) -> str:
    """Return the address in a service's status, or an empty string."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    address: str = ingress[0].get("ip", "") if ingress else ""
    return address
