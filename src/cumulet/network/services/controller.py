"""Watches Services and EndpointSlices, and writes what each front end leads to.

Of two Services that claim the same address, protocol and port, the older one has it. So an address that a user writes into
the status of a Service takes nothing from another Service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable

from cumulet.common.kubernetes.informer import Change
from cumulet.common.kubernetes.objects import EndpointSlice, Service
from cumulet.common.nftables import NftablesError
from cumulet.common.tasks import Backoff
from cumulet.network.cluster import Cluster
from cumulet.network.services.frontends import Site, served
from cumulet.network.services.machine import Forwards
from cumulet.network.services.model import NOTHING, Backend, Frontend, Served, Target
from cumulet.network.services.writer import Writer

log = logging.getLogger(__name__)

#: The namespace and the name of a Service.
Key = tuple[str, str]
#: The order of claims: the time of creation, then the key.
Age = tuple[str, str, str]

_SERVICE_NAME = "kubernetes.io/service-name"
#: The index of slices by their Service.
_INDEX = "service"
#: Services after which other work of the room has its turn.
_PAUSE = 64
_NODE = "127.0.0.1"


@contextlib.asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[None]:
    """Serve the Services of a cluster."""
    async with Writer(cluster.config) as writer:
        controller = Controller(cluster, writer)
        await controller.begin()
        cluster.tasks.start_essential(controller.run(), "services")
        yield


class Controller:
    """The claims of all Services, and what of them is not written yet."""

    def __init__(self, cluster: Cluster, writer: Writer) -> None:
        self._writer = writer
        self._services = cluster.services
        self._slices = cluster.slices
        self._site = Site.of(cluster.config)
        self._served: dict[Key, Served] = {}
        self._ages: dict[Key, Age] = {}
        self._claims: dict[Frontend, set[Key]] = {}
        self._known: Counter[str] = Counter()
        self._changed: set[Key] = set()
        self._wake = asyncio.Event()
        self._slices.add_index(_INDEX, lambda item: [key] if (key := _service_of(item)) is not None else [])
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)

    def _service_changed(self, change: Change, service: Service, old: Service | None) -> None:
        self._mark((service["metadata"]["namespace"], service["metadata"]["name"]))

    def _slice_changed(self, change: Change, item: EndpointSlice, old: EndpointSlice | None) -> None:
        for one in (item, old):
            if one is not None and (key := _service_of(one)) is not None:
                self._mark(key)

    def _mark(self, key: Key) -> None:
        self._changed.add(key)
        self._wake.set()

    async def begin(self) -> None:
        """Write the state of all Services that exist. Raises `NftablesError`."""
        touched = await self._update()
        frontends = {frontend: target for frontend in touched if (target := self._winner(frontend)) is not None}
        await self._writer.begin(frontends, self._known, self._forwards(touched))

    async def run(self) -> None:
        """Write changes as they come, until cancelled."""
        backoff = Backoff(0.05, 5.0)
        touched: set[Frontend] = set()
        while True:
            if not touched:
                await self._wake.wait()
            known = Counter(self._known)
            touched |= await self._update()
            gone = {address: False for address in known if address not in self._known}
            come = {address: True for address in self._known if address not in known}
            frontends = {frontend: self._winner(frontend) for frontend in touched}
            try:
                await self._writer.write(frontends, gone | come, self._forwards(touched))
            except (NftablesError, OSError) as error:
                log.error("Services are not served as they should be: %s", error)
                await backoff.wait()
                continue
            touched = set()
            backoff.reset()

    async def _update(self) -> set[Frontend]:
        """Bring the claims up to date, and return the front ends whose targets may be others now."""
        self._wake.clear()
        changed, self._changed = self._changed, set()
        touched: set[Frontend] = set()
        for number, key in enumerate(changed):
            if number % _PAUSE == _PAUSE - 1:
                await asyncio.sleep(0)
            touched |= self._claim(key)
        return touched

    def _claim(self, key: Key) -> set[Frontend]:
        """Replace the claims of one Service, and return the front ends that it claims otherwise than before."""
        namespace, name = key
        service = self._services.get(name, namespace)
        before = self._served.pop(key, NOTHING)
        after = NOTHING
        age = self._ages.pop(key, None)
        if service is not None:
            after = served(service, self._slices.indexed(_INDEX, key), self._site)
            self._ages[key] = (service["metadata"].get("creationTimestamp") or "", *key)
        if after is not NOTHING:
            self._served[key] = after
        if before.cluster_ip != after.cluster_ip:
            _count(self._known, before.cluster_ip, -1)
            _count(self._known, after.cluster_ip, 1)
        for frontend in before.frontends.keys() - after.frontends.keys():
            self._claims[frontend].discard(key)
            if not self._claims[frontend]:
                del self._claims[frontend]
        for frontend in after.frontends.keys() - before.frontends.keys():
            self._claims.setdefault(frontend, set()).add(key)
        both = {*before.frontends, *after.frontends}
        if self._ages.get(key) != age:
            return both
        return {one for one in both if before.frontends.get(one) != after.frontends.get(one)}

    def _owner(self, frontend: Frontend) -> Key | None:
        return min(self._claims.get(frontend, ()), key=self._ages.__getitem__, default=None)

    def _winner(self, frontend: Frontend) -> Target | None:
        owner = self._owner(frontend)
        return None if owner is None else self._served[owner].frontends[frontend]

    def _forwards(self, touched: Iterable[Frontend]) -> Forwards:
        """Return where the machine's own clients of front ends at loopback addresses are sent."""
        found: dict[Frontend, Backend | None] = {}
        for frontend in touched:
            if frontend.address == self._site.gateway:
                at = frontend._replace(address=_NODE)
                found[at] = None if self._winner(frontend) is None else Backend(frontend.address, frontend.port)
            elif self._site.external.is_loopback and self._site.is_external(frontend.address):
                owner = self._owner(frontend)
                cluster_ip = self._served[owner].cluster_ip if owner is not None else None
                allowed = cluster_ip is not None and self._site.admits_machine(self._winner(frontend))
                found[frontend] = Backend(cluster_ip, frontend.port) if cluster_ip is not None and allowed else None
        return found


def _service_of(item: EndpointSlice) -> Key | None:
    name = (item["metadata"].get("labels") or {}).get(_SERVICE_NAME)
    return (item["metadata"]["namespace"], name) if name else None


def _count(counts: Counter[str], address: str | None, by: int) -> None:
    if address is not None:
        counts[address] += by
        if counts[address] <= 0:
            del counts[address]
