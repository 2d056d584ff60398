"""Endpoints that somebody writes by hand, for a service without a selector, as slices (`pkg/controller/endpointslicemirroring`).

What resolves a service reads slices alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import msgspec

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import ENDPOINTS, ENDPOINTSLICES, SERVICES
from cumulet.controllers import serving
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of
from cumulet.controllers.owned import Owned

MANAGER = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
#: Annotations that say how an object was written, and not what it is.
_NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration", serving.TRIGGER)
#: Addresses of a subset that are mirrored, and of one slice.
_PER_SUBSET = 1000


class EndpointSliceMirroringController:
    """One key an Endpoints object, which has its service's name."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._services = context.informer(SERVICES)
        self._endpoints = context.informer(ENDPOINTS)
        self._slices = Owned(context, ENDPOINTSLICES, ENDPOINTS)
        for informer in (self._services, self._endpoints):
            informer.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._slices.informer.add_handler(self._slice_changed)

    def _slice_changed(self, change: str, slice_: Object, old: Object | None) -> None:
        owner = controller_of(slice_)
        if owner is not None and owner["kind"] == ENDPOINTS.kind:
            self.queue.add((slice_["metadata"]["namespace"], owner["name"]))

    async def reconcile(self, key: Key) -> None:
        """Make the slices what the endpoints say."""
        endpoints = self._endpoints.get(key[1], key[0])
        if endpoints is None or endpoints["metadata"].get("deletionTimestamp"):
            return  # its slices are garbage, by their owner
        service = self._services.get(key[1], key[0])
        wanted = list(_slices(endpoints)) if service is not None and _is_mirrored(service, endpoints) else []
        there = [item for item in self._slices.of(endpoints) if _label(item, serving.MANAGER_LABEL) == MANAGER]
        missing = {_content(item): item for item in wanted}
        surplus = [item for item in there if missing.pop(_content(item), None) is None]
        for item in missing.values():
            try:
                await self._slices.create(endpoints, item)
            except KubernetesError as error:
                # Its namespace may be going.
                if error.reason not in ("Forbidden", "NotFound"):
                    raise
        for item in surplus:
            await self._slices.delete(endpoints, item)


def _is_mirrored(service: Object, endpoints: Object) -> bool:
    metadata = endpoints["metadata"]
    return (
        not service["spec"].get("selector")
        and service["spec"].get("type") != "ExternalName"
        and _label(endpoints, _SKIP) != "true"
        and _LEADER not in (metadata.get("annotations") or {})
    )


def _label(obj: Object, name: str) -> str:
    found: str = (obj["metadata"].get("labels") or {}).get(name, "")
    return found


def _content(slice_: Object) -> bytes:
    """What of a slice is told to others; the server may have added defaults of it."""
    ports = [
        {"name": port.get("name") or "", "protocol": port.get("protocol", "TCP"), "port": port.get("port")}
        for port in slice_.get("ports") or ()
    ]
    labels = slice_["metadata"]["labels"]
    return msgspec.json.encode(
        [slice_["addressType"], ports, slice_.get("endpoints") or [], labels], order="deterministic"
    )


def _slices(endpoints: Object) -> Iterator[Object]:
    metadata = endpoints["metadata"]
    labels = {
        **{key: value for key, value in (metadata.get("labels") or {}).items() if key != serving.HEADLESS_LABEL},
        serving.NAME_LABEL: metadata["name"],
        serving.MANAGER_LABEL: MANAGER,
    }
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in _NOT_COPIED}
    for subset in endpoints.get("subsets") or ():
        families: dict[str, list[Object]] = {}
        for kind, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(kind) or ():
                family = "IPv6" if ipaddress.ip_address(address["ip"]).version == 6 else "IPv4"
                families.setdefault(family, []).append(_endpoint(address, ready))
        for family, found in families.items():
            yield {
                "metadata": {
                    "generateName": f"{metadata['name']}-",
                    "labels": labels,
                    **({"annotations": annotations} if annotations else {}),
                },
                "addressType": family,
                "endpoints": found[:_PER_SUBSET],
                "ports": [
                    {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": port["port"]}
                    | ({"appProtocol": port["appProtocol"]} if "appProtocol" in port else {})
                    for port in subset.get("ports") or ()
                ],
            }


def _endpoint(address: Object, ready: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for name, field in (("hostname", "hostname"), ("nodeName", "nodeName"), ("targetRef", "targetRef")):
        if address.get(field):
            found[name] = address[field]
    return found
