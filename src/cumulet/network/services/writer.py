"""Keeps the tables of Services in the kernel equal to the desired state, with one transaction a change.

Tables stay when the room stops, so that connections begin and continue meanwhile. At the start, when a transaction fails, and
when another program removes a table, the whole state is written again in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.common.namespaces import inside
from cumulet.common.nftables import Nftables, NftablesError
from cumulet.common.table_watch import IPV4, TableKeeper, TableWatch
from cumulet.network.services import datagrams
from cumulet.network.services.machine import Forwards, MachineTable
from cumulet.network.services.model import Backend, Frontend, Target
from cumulet.network.services.table import NAME, Setting, Table

log = logging.getLogger(__name__)

#: Settings of the router's namespace (nf_conntrack-sysctl in the kernel's documentation).
_SETTINGS = {
    # A packet in the middle of a connection that the kernel forgot is not the first of a new one: it is refused.
    "nf_conntrack_tcp_loose": "0",
    # A packet outside of the window is still one of its connection, and is translated.
    "nf_conntrack_tcp_be_liberal": "1",
}


class Writer:
    """The tables of Services of one installation: an async context manager. Raises `NftablesError`, `RouterError`, `OSError`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._namespace = router.namespace_name(config)
        self._table = Table(
            Setting(config.service_cidr, config.external_cidr, router.UPLINK, str(router.machine_address(config)))
        )
        self._machine_table = MachineTable(config)
        self._lock = asyncio.Lock()
        #: What writes the tables of which the last transaction failed.
        self._failed: list[Callable[[], Awaitable[None]]] = []
        self._open = contextlib.ExitStack()

    async def __aenter__(self) -> Writer:
        await asyncio.to_thread(router.ensure, self._config)
        inside(self._namespace, _set)
        with contextlib.ExitStack() as stack:
            self._router = stack.enter_context(Nftables(self._namespace))
            self._machine = stack.enter_context(Nftables())
            watched = inside(self._namespace, lambda: TableWatch(NAME, (IPV4,)))
            stack.callback(TableKeeper(watched, self._lock, self._write_whole, self._is_there).close)
            local = TableWatch(router.clients_table_name(self._config), (IPV4,))
            stack.callback(TableKeeper(local, self._lock, self._write_machine).close)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    async def begin(self, frontends: Mapping[Frontend, Target], known: Iterable[str], forwards: Forwards) -> None:
        """Write the first state, whatever the tables were. Raises `NftablesError`."""
        async with self._lock:
            self._table.change(frontends, dict.fromkeys(known, True))
            self._machine_table.change(forwards)
            await self._write_whole()
            await self._write_machine()

    async def write(
        self, frontends: Mapping[Frontend, Target | None], known: Mapping[str, bool], forwards: Forwards
    ) -> None:
        """Give front ends new targets, or remove them (`None`), and forget their datagrams to end points that are gone.

        `known` says which cluster IPs begin or end to be served. Raises `NftablesError`: then nothing is lost, and the next
        call writes it too.
        """
        async with self._lock:
            before = {frontend: self._table.frontends.get(frontend) for frontend in frontends}
            script = self._table.change(frontends, known)
            local = self._machine_table.change(forwards)
            await self._run(self._router, script, self._write_whole)
            await self._run(self._machine, local, self._write_machine)
        if stale := list(_stale(before, frontends)):
            await asyncio.to_thread(datagrams.forget, self._namespace, stale)

    async def _run(self, nftables: Nftables, script: str, whole: Callable[[], Awaitable[None]]) -> None:
        """Run a script, or write the whole table where that fails or has failed before."""
        if whole not in self._failed:
            try:
                if script:
                    await nftables.run(script)
                return
            except NftablesError as error:
                log.warning("the rules of Services are written again: %s", error)
                self._failed.append(whole)
        await whole()
        self._failed.remove(whole)

    async def _is_there(self) -> bool:
        tables = [item["table"]["name"] for item in await self._router.listing("tables ip") if "table" in item]
        return NAME in tables

    async def _write_whole(self) -> None:
        try:
            existing = [item["chain"] for item in await self._router.listing("chains ip") if "chain" in item]
            chains = [chain["name"] for chain in existing if chain["table"] == NAME]
            await self._router.run(self._table.whole(chains))
        except NftablesError as error:
            # Another version of this program may have made other maps. Clients lose their end points.
            log.warning("the table of Services is made anew: %s", error)
            await self._router.run(self._table.whole(anew=True))

    async def _write_machine(self) -> None:
        await self._machine.run(self._machine_table.whole())
        # Replies to clients at a loopback address come back on this link.
        Path(f"/proc/sys/net/ipv4/conf/{router.link_name(self._config)}/route_localnet").write_text("1")


def _set() -> None:
    """Write the settings of this thread's namespace."""
    for name, value in _SETTINGS.items():
        Path("/proc/sys/net/netfilter", name).write_text(value)


def _stale(
    before: Mapping[Frontend, Target | None], after: Mapping[Frontend, Target | None]
) -> Iterable[tuple[Frontend, Backend]]:
    """Yield the end points that a front end for datagrams no longer has."""
    for frontend, old in before.items():
        if frontend.protocol == "udp" and old is not None:
            target = after[frontend]
            for backend in {*old.backends} - {*(target.backends if target is not None else ())}:
                yield frontend, backend
