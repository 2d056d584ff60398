"""The room's life: watch services and end points, give out addresses, keep the proxy in line."""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

from cumulet.balancer.proxy import Endpoint, Frontend, Proxy
from cumulet.common.ascii import whole_number
from cumulet.common.egress import Egress
from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import ENDPOINTSLICES, SERVICES
from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import task_set

log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]

_SERVICE_NAME = "kubernetes.io/service-name"
_NODE_ADDRESS = "127.0.0.1"
_CLASS = "loadBalancerClass"
#: Minutes for which a connection may be idle, and Azure's bounds of it.
_IDLE = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"
_LEAST_IDLE, _MOST_IDLE = 4, 100


async def serve(room: Room) -> None:
    """Balance until told to stop."""
    async with client_of(room) as client, task_set() as tasks:
        balancer = Balancer(client, room.config.external_cidr, room.config.egress(reach_pods=True))
        informers = [balancer.services, balancer.slices]
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
    """Addresses are those in the services' status, so that they stay over a restart."""

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
        self.services.add_handler(lambda change, obj, old: self.queue.add(_key(obj)))
        self.slices.add_handler(self._slice_changed)

    def adopt(self) -> None:
        """Take up the addresses that were given out before."""
        for service in self.services:
            if service["spec"].get("type") == "LoadBalancer" and (address := self._kept(service)):
                self._addresses[_key(service)] = address

    def _kept(self, service: Object) -> str:
        """Return the address in a service's status if it is of the range and of no other service, or nothing.

        Whoever may write the status chooses it.
        """
        given = _given(service)
        try:
            inside = ipaddress.ip_address(given) in self._range
        except ValueError:
            inside = False
        taken = (address for key, address in self._addresses.items() if key != _key(service))
        return given if inside and given not in taken else ""

    def _slice_changed(self, change: str, obj: Object, old: Object | None) -> None:
        name = (obj["metadata"].get("labels") or {}).get(_SERVICE_NAME)
        if name:
            self.queue.add((obj["metadata"]["namespace"], name))

    async def reconcile(self, key: Key) -> None:
        """Bring one service's address and frontends about."""
        service = self.services.get(key[1], key[0])
        wanted: dict[Frontend, list[Endpoint]] = {}
        if service is not None and not service["metadata"].get("deletionTimestamp"):
            kind = service["spec"].get("type")
            if kind == "LoadBalancer" and not service["spec"].get(_CLASS):
                address = await self._ensure_address(key, service)
                if address is not None:
                    wanted |= self._wanted(service, address, "port")
            if kind in ("NodePort", "LoadBalancer"):
                wanted |= self._wanted(service, _NODE_ADDRESS, "nodePort")
            if kind != "LoadBalancer" and _given(service):
                await self._write_status(key, None)
        if service is None or service["spec"].get("type") != "LoadBalancer":
            self._addresses.pop(key, None)
        for frontend in self._frontends.get(key, set()) - wanted.keys():
            self.proxy.remove(frontend)
        by_client = service is not None and service["spec"].get("sessionAffinity") == "ClientIP"
        self._frontends[key] = set(wanted)
        for frontend, endpoints in wanted.items():
            try:
                # A node's port is the node's own, which has no load balancer before it.
                idle = None if frontend.host == _NODE_ADDRESS else _idle(service)
                await self.proxy.set(frontend, endpoints, by_client=by_client, idle=idle)
            except OSError as error:
                assert service is not None
                message = (
                    f"Error syncing load balancer: cannot listen on {frontend.host}:{frontend.port}: {error.strerror}"
                )
                self.events.event(service, "Warning", "SyncLoadBalancerFailed", message)
                self.queue.add_after(key, 10)
        if not wanted:
            self._frontends.pop(key, None)

    async def _ensure_address(self, key: Key, service: Object) -> str | None:
        given = _given(service)
        address: str | None = self._addresses.get(key) or self._kept(service)
        if not address or (given and given != address):
            address = self._choose(key, service)
            if address is None:
                return None
        self._addresses[key] = address
        if given != address:
            self.events.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
            await self._write_status(key, address)
            self.events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")
        return address

    def _choose(self, key: Key, service: Object) -> str | None:
        """The address that the service asks for, or the first that is free."""
        taken = {address for other, address in self._addresses.items() if other != key}
        asked = service["spec"].get("loadBalancerIP")
        if asked:
            try:
                inside = ipaddress.ip_address(asked) in self._range
            except ValueError:
                inside = False
            if not inside or asked in taken:
                why = "is in use" if inside else f"is not in the range {self._range}"
                message = f"Error syncing load balancer: the requested address {asked} {why}"
                self.events.event(service, "Warning", "SyncLoadBalancerFailed", message)
                return None
            return str(asked)
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

    def _wanted(self, service: Object, address: str, field: str) -> dict[Frontend, list[Endpoint]]:
        """The frontends at an address, each with the ready end points of its port."""
        found: dict[Frontend, list[Endpoint]] = {}
        for port in service["spec"].get("ports") or ():
            if port.get(field) and port.get("protocol", "TCP") == "TCP":
                found[Frontend(address, port[field])] = self._endpoints(service, port.get("name", ""))
        return found

    def _endpoints(self, service: Object, port_name: str) -> list[Endpoint]:
        namespace, name = _key(service)
        found: set[Endpoint] = set()
        for item in self.slices:
            labels = item["metadata"].get("labels") or {}
            if item["metadata"]["namespace"] != namespace or labels.get(_SERVICE_NAME) != name:
                continue
            for port in item.get("ports") or ():
                if (port.get("name") or "") == port_name and port.get("port"):
                    for endpoint in item.get("endpoints") or ():
                        if (endpoint.get("conditions") or {}).get("ready", True):
                            found |= {(address, port["port"]) for address in endpoint["addresses"]}
        return sorted(found)


def _key(obj: Object) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _idle(service: Object | None) -> float:
    """Seconds; what is not a number within the bounds is as if it were not there."""
    text = ((service or {}).get("metadata", {}).get("annotations") or {}).get(_IDLE, "")
    minutes = whole_number(text, 3) or 0
    return 60.0 * (minutes if _LEAST_IDLE <= minutes <= _MOST_IDLE else _LEAST_IDLE)


def _given(service: Object) -> str:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    address: str = ingress[0].get("ip", "") if ingress else ""
    return address
