"""Mirrors custom Endpoints of services without a selector to slices (`pkg/controller/endpointslicemirroring`).

Clients that resolve services read only slices.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import ENDPOINTS, ENDPOINTSLICES, SERVICES
from cumulet.common.kubernetes.objects import (
    DiscoveryEndpointPort,
    Endpoint,
    EndpointAddress,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    ObjectMeta,
    PartialObjectMetadata,
    Service,
)
from cumulet.controllers import serving
from cumulet.controllers.controller import Context, Key, controller_of, key_of
from cumulet.controllers.owned import Owned

MANAGER = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
#: Annotations about the way an object was written.
_NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", serving.TRIGGER)
#: The most addresses of a subset that are mirrored, and of one slice.
_PER_SUBSET = 1000


class EndpointSliceMirroringController:
    """The controller of mirrored endpoints. Its keys are those of Endpoints, which have the names of their services."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._services = context.informer(SERVICES)
        self._endpoints = context.informer(ENDPOINTS)
        self._slices = Owned(context, ENDPOINTSLICES, ENDPOINTS)
        self._services.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._endpoints.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._slices.informer.add_handler(self._slice_changed)

    def _slice_changed(self, change: str, slice_: EndpointSlice, old: EndpointSlice | None) -> None:
        owner = controller_of(slice_)
        if owner is not None and owner["kind"] == ENDPOINTS.kind:
            self.queue.add((slice_["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """Write the slices of one Endpoints object."""
        endpoints = self._endpoints.get(key[1], key[0])
        if endpoints is None or endpoints["metadata"].get("deletionTimestamp"):
            return  # the garbage collector deletes the slices
        service = self._services.get(key[1], key[0])
        desired = list(_slices(endpoints)) if service is not None and _is_mirrored(service, endpoints) else []
        existing = [item for item in self._slices.of(endpoints) if _label(item, serving.MANAGER_LABEL) == MANAGER]
        missing = {_content(item): item for item in desired}
        surplus = [item for item in existing if missing.pop(_content(item), None) is None]
        for item in missing.values():
            try:
                await self._slices.create(endpoints, item)
            except KubernetesError as error:
                # The namespace can be terminating.
                if error.reason not in ("Forbidden", "NotFound"):
                    raise
        for item in surplus:
            await self._slices.delete(endpoints, item)


def _is_mirrored(service: Service, endpoints: Endpoints) -> bool:
    metadata = endpoints["metadata"]
    return (
        not service["spec"].get("selector")
        and service["spec"].get("type") != "ExternalName"
        and _label(endpoints, _SKIP) != "true"
        and _LEADER not in (metadata.get("annotations") or {})
    )


def _label(obj: PartialObjectMetadata, name: str) -> str:
    return (obj["metadata"].get("labels") or {}).get(name, "")


def _content(slice_: EndpointSlice) -> bytes:
    """The content of a slice in a form to compare, with the defaults that the server adds."""
    ports = [
        {"name": port.get("name") or "", "protocol": port.get("protocol", "TCP"), "port": port.get("port")}
        for port in slice_.get("ports") or ()
    ]
    labels = slice_["metadata"]["labels"]
    return msgspec.json.encode(
        [slice_["addressType"], ports, slice_.get("endpoints") or [], labels], order="deterministic"
    )


def _slices(endpoints: Endpoints) -> Iterator[EndpointSlice]:
    metadata = endpoints["metadata"]
    labels = {
        **{key: value for key, value in (metadata.get("labels") or {}).items() if key != serving.HEADLESS_LABEL},
        serving.NAME_LABEL: metadata["name"],
        serving.MANAGER_LABEL: MANAGER,
    }
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in _NOT_COPIED}
    for subset in endpoints.get("subsets") or ():
        families: dict[str, list[Endpoint]] = {}
        addresses = [(address, True) for address in subset.get("addresses") or ()]
        addresses += [(address, False) for address in subset.get("notReadyAddresses") or ()]
        for address, ready in addresses:
            family = "IPv6" if ipaddress.ip_address(address["ip"]).version == 6 else "IPv4"
            families.setdefault(family, []).append(_endpoint(address, ready))
        for family, members in families.items():
            slice_metadata: ObjectMeta = {"generateName": f"{metadata['name']}-", "labels": labels}
            if annotations:
                slice_metadata["annotations"] = annotations
            yield {
                "metadata": slice_metadata,
                "addressType": family,
                "endpoints": members[:_PER_SUBSET],
                "ports": [_port(port) for port in subset.get("ports") or ()],
            }


def _port(port: EndpointPort) -> DiscoveryEndpointPort:
    mirrored: DiscoveryEndpointPort = {
        "name": port.get("name", ""),
        "protocol": port.get("protocol", "TCP"),
        "port": port["port"],
    }
    if "appProtocol" in port:
        mirrored["appProtocol"] = port["appProtocol"]
    return mirrored


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    endpoint: Endpoint = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    if address.get("hostname"):
        endpoint["hostname"] = address["hostname"]
    if address.get("nodeName"):
        endpoint["nodeName"] = address["nodeName"]
    if address.get("targetRef"):
        endpoint["targetRef"] = address["targetRef"]
    return endpoint
