"""Gives each Service of type LoadBalancer its address, in its status, and says in events what cannot be served."""

from __future__ import annotations

from typing import Any

from cumulet.balancer.forwarder import Forwarder, refused_ports, service_of
from cumulet.balancer.pool import Key, NoAddressError, Pool, key_of
from cumulet.balancer.service_fields import refused_fields
from cumulet.common.conntrack import tracks_sctp
from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import SERVICES
from cumulet.common.kubernetes.load_balancers import external_address
from cumulet.common.kubernetes.objects import EndpointSlice, Service

#: Seconds after which a Service is tried again that could not be served, such as for a port in use.
_RETRY = 10.0


class Balancer:
    """The service controller of the cloud. With a `Forwarder` it also carries connections; else the room `network` does."""

    def __init__(self, client: Client, cidr: str, forwarder: Forwarder | None) -> None:
        self._client = client
        self._pool = Pool(cidr)
        self._forwarder = forwarder
        self.events = EventRecorder(client, "service-controller")
        self.queue: WorkQueue[Key] = WorkQueue()
        self.services = Informer(client, SERVICES)
        self.services.add_handler(self._service_changed)
        if forwarder is not None:
            forwarder.slices.add_handler(self._slice_changed)

    @property
    def informers(self) -> list[Informer[Any]]:
        """All informers, to run them."""
        return [self.services, *([self._forwarder.slices] if self._forwarder is not None else [])]

    def adopt(self) -> None:
        """Keep the addresses that a previous process allocated."""
        self._pool.adopt(self.services)

    def _service_changed(self, change: str, obj: Service, old: Service | None) -> None:
        self.queue.add(key_of(obj))
        if change == "DELETED":
            return
        before = set() if old is None else set(self._refusals(old))
        if told := [refusal for refusal in self._refusals(obj) if refusal not in before]:
            self._fail(obj, *told)

    def _slice_changed(self, change: str, obj: EndpointSlice, old: EndpointSlice | None) -> None:
        if (key := service_of(obj)) is not None:
            self.queue.add(key)

    def _refusals(self, service: Service) -> list[str]:
        found = [str(refusal) for refusal in refused_fields(service)]
        if self._forwarder is not None:
            found += refused_ports(service)
        elif not tracks_sctp():
            found += [
                f'spec.ports[{number}].protocol "SCTP" is not supported: this kernel does not track SCTP'
                for number, port in enumerate(service["spec"].get("ports") or ())
                if port.get("protocol") == "SCTP"
            ]
        return found

    def _fail(self, service: Service, *reasons: str) -> None:
        message = f"Error syncing load balancer: {'; '.join(reasons)}"
        self.events.event(service, "Warning", "SyncLoadBalancerFailed", message)

    async def reconcile(self, key: Key) -> None:
        """Reconcile the address of one Service, and its front ends if they are in user space."""
        service = self.services.get(key[1], key[0])
        if service is None or service["spec"].get("type") != "LoadBalancer":
            self._pool.release(key)
            if service is not None and external_address(service):
                await self._write_status(key, None)
        address = self._address_of(service)
        answers = address is not None and _has_a_port(service)
        if self._forwarder is not None:
            there = None if service is None or service["metadata"].get("deletionTimestamp") else service
            failed, answers = await self._forwarder.serve(key, there, address)
            if failed and service is not None:
                self._fail(service, *failed)
                self.queue.add_after(key, _RETRY)
        if service is not None and address is not None and answers and external_address(service) != address:
            # Only now: a client connects as soon as the status has the address.
            self.events.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
            await self._write_status(key, address)
            self.events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")

    def _address_of(self, service: Service | None) -> str | None:
        """Return the address that a Service has or gets."""
        if (
            service is None
            or service["metadata"].get("deletionTimestamp")
            or service["spec"].get("type") != "LoadBalancer"
            or service["spec"].get("loadBalancerClass")
        ):
            return None
        try:
            return self._pool.address_of(service)
        except NoAddressError as error:
            self._fail(service, str(error))
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


def _has_a_port(service: Service | None) -> bool:
    """Return whether the kernel can serve a port of a Service; otherwise its address would answer nobody."""
    ports = service["spec"].get("ports") or () if service is not None else ()
    return any(port.get("protocol") != "SCTP" or tracks_sctp() for port in ports)
