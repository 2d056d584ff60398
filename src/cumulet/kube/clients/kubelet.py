"""Kubelets: the addresses of their API, and the client for it."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

import aiohttp
from aiohttp import web

from cumulet.common.addresses import is_of_one_machine_elsewhere, parse
from cumulet.common.config import Address, RoomName
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, bad_request, not_found
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import NodeStatus, PodSpec

_CONTAINERS: tuple[Literal["initContainers", "containers", "ephemeralContainers"], ...] = (
    "initContainers",
    "containers",
    "ephemeralContainers",
)


class Kubelet:
    """Calls kubelets with a client certificate for kubelets only, and verifies theirs.

    `rooms` are the installation's own addresses. No node may have one of them, except those of the room `node`, which are
    `nodes`.
    """

    def __init__(
        self, store: Store, context: ssl.SSLContext, rooms: Mapping[RoomName, Address], nodes: Collection[Address]
    ) -> None:
        self.context = context
        self._own = {(address.host, address.port): address.url for address in nodes}
        self._taken = {address.port for room, address in rooms.items() if room != "node"}
        self._store = store
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0), timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()

    def container(self, request: web.BaseRequest, pod: Object) -> str:
        """Return the container that a request selects. Raises `ApiError` 400."""
        spec: PodSpec = pod["spec"]
        name = pod["metadata"]["name"]
        names = [item["name"] for key in _CONTAINERS for item in spec.get(key) or ()]
        wanted = request.query.get("container")
        if wanted:
            if wanted not in names:
                raise bad_request(f"container {wanted} is not valid for pod {name}")
            return wanted
        if len(spec["containers"]) > 1:
            why = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
            raise bad_request(why)
        return str(spec["containers"][0]["name"])

    def address(self, pod: Object) -> str:
        """Return the base URL of the kubelet of a pod's node. Raises `ApiError` 400, 404 and 500."""
        name = pod["spec"].get("nodeName")
        if not name:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self.node_address(name)

    def node_address(self, name: str) -> str:
        """Return the base URL of a node's kubelet.

        Raises `ApiError` 404; 500 if the node has no address; 400 if the address is not allowed.
        """
        stored = self._store.get("nodes", "", name)
        if stored is None:
            raise not_found("", "nodes", name)
        status: NodeStatus = stored.load().get("status") or {}
        addresses = {item.get("type", ""): item.get("address", "") for item in status.get("addresses") or ()}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        if "InternalIP" not in addresses or not port:
            raise ApiError(
                500, "InternalError", f"no preferred addresses found; known addresses: {list(addresses)}", {}
            )
        return self._checked(addresses["InternalIP"], port)

    def _checked(self, text: str, port: int) -> str:
        """Check the address in a node's status, which everyone with access to nodes/status can write."""
        if (own := self._own.get((text, port))) is not None:
            return own
        try:
            address = parse(text)
        except ValueError:
            raise bad_request(f"address not allowed: {text!r} is not an IP address") from None
        if not is_of_one_machine_elsewhere(address) or port in self._taken or port not in range(1, 65536):
            raise bad_request("address not allowed: the address of a node must not be on this machine")
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"https://{host}:{port}"
