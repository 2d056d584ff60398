"""Aggregated API servers: their availability, their resources, and the requests that they answer.

A request is authenticated and authorized here and forwarded over TLS. The front proxy's certificate makes the server
trust the user in `X-Remote-User` ("Configure the Aggregation Layer"). No other server is shown that certificate.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from cumulet.common import bounded, clock
from cumulet.common.ascii import fold
from cumulet.common.egress import Egress
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.users import User
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.catalog.resources import BY_KEY
from cumulet.kube.clients.service_resolver import check_address, resolve
from cumulet.kube.flow import SEAT
from cumulet.kube.http.options import is_set
from cumulet.kube.http.reverse_proxy import forwarded, relay
from cumulet.kube.objects.write import Objects
from cumulet.kube.schema.validation.api_services import KEY
from cumulet.kube.store import Store

log = logging.getLogger(__name__)


_EVERY = 30.0
#: The largest `APIResourceList` in bytes.
_LIST_LIMIT = 16 * 1024 * 1024
_PATIENCE = aiohttp.ClientTimeout(total=5)
_WATCHED = (KEY, "services", "endpointslices.discovery.k8s.io")
_REMOTE = "x-remote-"


class Server(NamedTuple):
    """The server of one version of a group, from its APIService."""

    name: str
    group: str
    version: str
    spec: Object
    is_available: bool

    @property
    def api_version(self) -> str:
        """`metrics.k8s.io/v1beta1`."""
        return f"{self.group}/{self.version}"


class Aggregation:
    """Follows the APIServices in the store; `run` checks their servers."""

    def __init__(self, store: Store, objects: Objects, certificate: tuple[Path, Path], egress: Egress) -> None:
        self._store = store
        self._objects = objects
        self._certificate = certificate
        self._egress = egress
        self._servers: dict[tuple[str, str], Server] = {}
        self._resources: dict[str, list[Object]] = {}
        self._wake = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = egress.session(timeout=timeout, headers={})
        store.on_change(KEY, self._refresh)
        for key in _WATCHED:
            store.on_change(key, self._wake.set)
        self._refresh()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def reload(self) -> None:
        """Use the certificate that is on disk now for new connections."""
        _context.cache_clear()

    def _refresh(self) -> None:
        servers = []
        for stored in self._store.list(KEY):
            obj = stored.load()
            spec, conditions = obj["spec"], (obj.get("status") or {}).get("conditions") or ()
            if spec.get("service"):
                is_available = any(
                    (item.get("type"), item.get("status")) == ("Available", "True") for item in conditions
                )
                servers.append(Server(stored.name, spec.get("group", ""), spec["version"], spec, is_available))
        servers.sort(
            key=lambda server: (-server.spec["groupPriorityMinimum"], server.group, -server.spec["versionPriority"])
        )
        self._servers = {(server.group, server.version): server for server in servers}

    @property
    def servers(self) -> Sequence[Server]:
        """All servers, in the order of discovery."""
        return tuple(self._servers.values())

    def find(self, group: str, version: str) -> Server | None:
        """Return the server of a version of a group, or `None`."""
        return self._servers.get((group, version))

    def resources(self, server: Server) -> list[Object]:
        """Return the resources of a server's last discovery document, each an `APIResource`."""
        return self._resources.get(server.name, [])

    async def answer(self, request: web.BaseRequest, user: User, server: Server) -> web.StreamResponse:
        """Forward a request. Raises `ApiError` 400, and 503 where the server is unavailable."""
        if request.headers.get("Upgrade"):
            raise bad_request("connections to aggregated API servers are not upgraded")
        if not server.is_available:
            raise ApiError(503, "ServiceUnavailable", "service unavailable", {})
        headers = forwarded(request)
        for key in [key for key in headers if fold(key).startswith(_REMOTE)]:
            del headers[key]
        headers["X-Remote-User"] = user.name
        for group in user.groups:
            headers.add("X-Remote-Group", group)
        if is_set(request.query, "watch") and (seat := SEAT.get(None)) is not None:
            seat.release()
        url = URL(self._base(server) + request.rel_url.raw_path_qs, encoded=True)
        try:
            context, hostname = self._tls(server)
        except (ValueError, ssl.SSLError) as error:
            raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}", {}) from None
        return await relay(self._session, request, url, headers, tls=context, server_hostname=hostname)

    def _base(self, server: Server) -> str:
        """Return the base URL of a server. Raises `ApiError` 400, 404 and 503."""
        service = server.spec["service"]
        address, port = resolve(self._store, service["namespace"], service["name"], service.get("port", 443))
        check_address(self._egress, address, port)
        return f"https://{address}:{port}"

    def _tls(self, server: Server) -> tuple[ssl.SSLContext, str]:
        service = server.spec["service"]
        context = _context(
            server.spec.get("caBundle") or "", self._certificate, bool(server.spec.get("insecureSkipTLSVerify"))
        )
        return context, f"{service['name']}.{service['namespace']}.svc"

    async def run(self) -> None:
        """Check the servers, after each change and every half minute, until cancelled."""
        while True:
            self._wake.clear()
            stored = list(self._store.list(KEY))
            checks = (self._check(item.name, item.load()["spec"]) for item in stored)
            for item, failure in zip(stored, await asyncio.gather(*checks, return_exceptions=True), strict=True):
                if isinstance(failure, Exception):
                    # A failure with one server must not keep the others from being checked.
                    log.error("APIService %s", item.name, exc_info=failure)
            try:
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _check(self, name: str, spec: Object) -> None:
        reason, message = "Local", "Local APIServices are always available"
        if spec.get("service"):
            server = Server(name, spec.get("group", ""), spec["version"], spec, is_available=True)
            reason, message = await self._try(server)
        condition = {
            "type": "Available",
            "status": "True" if reason in ("Local", "Passed") else "False",
            "reason": reason,
            "message": message,
        }

        def change(obj: Object) -> Object:
            conditions = (obj.get("status") or {}).get("conditions") or []
            old: Object = next((item for item in conditions if item.get("type") == "Available"), {})
            since = old.get("lastTransitionTime") if old.get("status") == condition["status"] else None
            others = [item for item in conditions if item.get("type") != "Available"]
            new = {**condition, "lastTransitionTime": since or clock.rfc3339()}
            if new == old:
                raise _SameError
            obj["status"] = {"conditions": [*others, new]}
            return obj

        try:
            await self._objects.rewrite(BY_KEY[KEY], "", name, change)
        except _SameError:
            pass
        except ApiError as error:
            log.info("APIService %s: %s", name, error)  # it is gone, or other writers were faster

    async def _try(self, server: Server) -> tuple[str, str]:
        """Return whether a server answers, as reason and message of its condition."""
        service = server.spec["service"]
        namespace, name, port = service["namespace"], service["name"], service.get("port", 443)
        stored = self._store.get("services", namespace, name)
        if stored is None:
            return "ServiceNotFound", f'service/{name} in "{namespace}" is not present'
        ports = {item["port"]: item.get("name", "") for item in stored.load()["spec"].get("ports") or ()}
        if port not in ports:
            return "ServicePortError", f'service/{name} in "{namespace}" is not listening on port {port}'
        try:
            base = self._base(server)
        except ApiError as error:
            if error.code == 400:
                return "FailedDiscoveryCheck", str(error)
            why = (
                f'endpointslices for service/{name} in "{namespace}" have no addresses with port name "{ports[port]}"'
            )
            return "MissingEndpoints", why
        url = URL(f"{base}/apis/{server.api_version}")
        why = f"failing or missing response from {url}"
        try:
            headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
            context, hostname = self._tls(server)
            async with self._session.get(
                url,
                headers=headers,
                timeout=_PATIENCE,
                allow_redirects=False,
                ssl=context,
                server_hostname=hostname,
            ) as response:
                raw = await bounded.read(response, _LIST_LIMIT)
                if not 200 <= response.status < 300:
                    return "FailedDiscoveryCheck", f"{why}: bad status from {url}: {response.status}"
            document = msgspec.json.decode(raw, type=Object)
            resources = document.get("resources")
            self._resources[server.name] = (
                [item for item in resources if isinstance(item, dict)] if isinstance(resources, list) else []
            )
        except TimeoutError:
            return "FailedDiscoveryCheck", f'{why}: Get "{url}": context deadline exceeded'
        except (aiohttp.ClientError, RecursionError, ValueError, OSError) as error:
            return "FailedDiscoveryCheck", f'{why}: Get "{url}": {error}'
        return "Passed", "all checks passed"


class _SameError(Exception):
    """The condition is unchanged."""


@functools.lru_cache(64)
def _context(bundle: str, certificate: tuple[Path, Path], skips: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle.strip():
        context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode("ascii"))
    if skips:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*certificate)
    return context
