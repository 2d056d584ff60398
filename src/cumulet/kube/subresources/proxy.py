"""The `proxy` sub-resources: HTTP to a pod, to an endpoint of a service, or to a node's kubelet."""

from __future__ import annotations

import re

import aiohttp
from aiohttp import web
from yarl import URL

from cumulet.common.egress import Egress
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.clients.kubelet import Kubelet
from cumulet.kube.clients.service_resolver import check_address, resolve
from cumulet.kube.http.html_links import Place
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.reverse_proxy import forwarded, relay
from cumulet.kube.objects.write import Objects
from cumulet.kube.store import Store

_PORT = re.compile(r"[1-9][0-9]{0,4}")


class Proxy:
    """Relays requests and responses unchanged."""

    def __init__(self, store: Store, objects: Objects, kubelet: Kubelet, egress: Egress) -> None:
        self._store = store
        self._objects = objects
        self._kubelet = kubelet
        self._egress = egress
        # Only the pod and its user need to trust the pod's certificate, and no authority of the installation signed it.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = egress.session(False, timeout=timeout, headers={})

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def handle(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        """Answer a request. Raises `ApiError` 400, 404, and 503 where the backend cannot be reached."""
        if request.headers.get("Upgrade"):
            raise bad_request("the proxy does not upgrade connections: use port-forward")
        session, base = self._session, ""
        scheme, name, port = _named(target.name)
        match target.row.plural:
            case "nodes":
                session, base = self._kubelet.session, self._kubelet.node_address(name)
                if port and not base.endswith(f":{port}"):
                    raise bad_request(f"the proxy reaches a node at the port of its kubelet only, not at {port}")
            case "pods":
                pod = self._objects.get(target.row, target.namespace, name).load()
                if port and not _PORT.fullmatch(port):
                    raise bad_request(f"invalid pod request {target.name!r}: a pod's port is a number")
                address = (pod.get("status") or {}).get("podIP")
                if not address:
                    raise ApiError(503, "ServiceUnavailable", f'pod "{name}" has no address yet', {})
                ports = [
                    item["containerPort"] for one in pod["spec"]["containers"] for item in one.get("ports") or ()
                ]
                number = int(port or (ports[0] if ports else 80))
                check_address(self._egress, address, number)
                base = f"{scheme}://{address}:{number}"
            case _:
                address, number = resolve(self._store, target.namespace, name, port)
                check_address(self._egress, address, number)
                base = f"{scheme}://{address}:{number}"
        query = request.rel_url.raw_query_string
        url = URL(base + (target.path or "/") + (f"?{query}" if query else ""), encoded=True)
        return await relay(session, request, url, forwarded(request), _place(request, target, url))


def _place(request: web.BaseRequest, target: Target, url: URL) -> Place:
    """Return the address under which the client sees the backend's pages."""
    path = request.rel_url.path
    below = target.path or "/"
    if not path.endswith("/"):
        below = below.removesuffix("/")
    return Place(path.removesuffix(below), request.host, url.authority)


def _named(text: str) -> tuple[str, str, str]:
    """Return scheme, name and port of `name`, `name:port` or `scheme:name:port`. Raises `ApiError` 400."""
    match text.split(":"):
        case [name]:
            return "http", name, ""
        case [name, port]:
            return "http", name, port
        case ["http" | "https" as scheme, name, port]:
            return scheme, name, port
    raise bad_request(f"invalid service request {text!r}")
