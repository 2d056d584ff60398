"""Keeps the Service `kube-system/kube-dns`, whose cluster IP is the name server of pods, and its EndpointSlice."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import cast

import aiohttp

from cumulet.common.kubernetes import Client, Informer, KubernetesError
from cumulet.common.kubernetes.client import ENDPOINTSLICES, SERVICES, Resource, T
from cumulet.common.kubernetes.informer import Change
from cumulet.common.kubernetes.objects import EndpointSlice, Object, PartialObjectMetadata, Service
from cumulet.common.tasks import Backoff
from cumulet.network.dns.zone import DNS_SERVICE

log = logging.getLogger(__name__)

_APPLY = "application/apply-patch+yaml"
_MANAGER = "cumulet-network"
_PORT = 53


def service(address: ipaddress.IPv4Address) -> Service:
    """Return the Service. It has no selector: what is behind it is no pod."""
    namespace, name = DNS_SERVICE
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": str(address),
            "ports": [
                {"name": "dns", "port": _PORT, "protocol": "UDP", "targetPort": _PORT},
                {"name": "dns-tcp", "port": _PORT, "protocol": "TCP", "targetPort": _PORT},
            ],
        },
    }


def endpoints(gateway: str) -> EndpointSlice:
    """Return the slice, with the name server at the gateway as its only endpoint."""
    namespace, name = DNS_SERVICE
    labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": _MANAGER}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [gateway], "conditions": {"ready": True}}],
        "ports": [
            {"name": "dns", "port": _PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "port": _PORT, "protocol": "TCP"},
        ],
    }


class KubeDns:
    """Applies the two objects whenever one of them is missing or differs."""

    def __init__(
        self,
        client: Client,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        address: ipaddress.IPv4Address,
        gateway: str,
    ) -> None:
        self._client, self._services, self._slices = client, services, slices
        self._service, self._endpoints = service(address), endpoints(gateway)
        self._changed = asyncio.Event()
        self._changed.set()
        services.add_handler(self._look)
        slices.add_handler(self._look)

    async def run(self) -> None:
        """Keep the objects until cancelled."""
        backoff = Backoff(0.2, 30)
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._keep(SERVICES, self._services, self._service)
                await self._keep(ENDPOINTSLICES, self._slices, self._endpoints)
                backoff.reset()
            except (KubernetesError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("the Service %s/%s cannot be kept: %s", *DNS_SERVICE, error)
                await backoff.wait()
                self._changed.set()

    def _look(self, _: Change, obj: PartialObjectMetadata, __: PartialObjectMetadata | None) -> None:
        metadata = obj["metadata"]
        if (metadata.get("namespace"), metadata["name"]) == DNS_SERVICE:
            self._changed.set()

    async def _keep(self, resource: Resource[T], informer: Informer[T], wanted: T) -> None:
        namespace, name = DNS_SERVICE
        found = informer.get(name, namespace)
        if found is not None and _has(found, wanted):
            return
        params = {"fieldManager": _MANAGER, "force": "true"}
        try:
            await self._client.patch(
                resource, name, cast("Object", wanted), namespace, content_type=_APPLY, params=params
            )
        except KubernetesError as error:
            # A cluster IP cannot be changed. Whoever made the Service with another one has it made anew.
            if error.code != 422 or found is None:
                raise
            await self._client.delete(resource, name, namespace, uid=found["metadata"]["uid"])


def _has(found: object, wanted: object) -> bool:
    """Return whether an object has what is wanted; it may have more, but not in a list."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_has(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_has, found, wanted))
    return found == wanted
