"""Notices that another program removed nftables tables, for example by `nft flush ruleset`, and loads them again (netlink(7))."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Iterator

from cumulet.common.netlink import NETFILTER, attributes, messages
from cumulet.common.nftables import NftablesError

log = logging.getLogger(__name__)

#: Families of tables, as the kernel numbers them.
IPV4, BRIDGE = 2, 7

_GROUP_NFTABLES = 7
_SUBSYSTEM = 10 << 8
_NEW_TABLE, _DELETE_TABLE = _SUBSYSTEM | 0, _SUBSYSTEM | 2
_TABLE_NAME = 1
#: `nfgenmsg`.
_GENERIC = struct.Struct("=BBH")


class TableWatch:
    """Watches the tables of one name in some families (`NFPROTO_…`), in the network namespace of this thread.

    Raises `OSError` without permission.
    """

    def __init__(self, name: str, families: Collection[int] = (IPV4, BRIDGE)) -> None:
        self.name = name
        self._name = name.encode()
        self._families = families
        self._missing: set[int] = set()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
        self._socket.setblocking(False)
        self._socket.bind((0, 1 << (_GROUP_NFTABLES - 1)))

    def fileno(self) -> int:
        """Return the descriptor, which is readable when `take` has events to read."""
        return self._socket.fileno()

    def take(self) -> bool:
        """Read all events; return whether one of the tables is missing, or may be."""
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return bool(self._missing)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._missing.update(self._families)  # the kernel dropped events
                continue
            for kind, family, name in _events(data):
                if name == self._name and kind == _DELETE_TABLE:
                    self._missing.add(family)
                elif name == self._name and kind == _NEW_TABLE:
                    self._missing.discard(family)

    def found(self) -> None:
        """Take note that all tables are there, as somebody has looked."""
        self._missing.clear()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class TableKeeper:
    """Loads watched tables again when they are missing, until `close`; `load` runs under `lock`, as every other change does."""

    def __init__(
        self,
        watch: TableWatch,
        lock: asyncio.Lock,
        load: Callable[[], Awaitable[None]],
        is_there: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """With `is_there`, that is asked first: a table whose load makes more events than the kernel keeps may be there."""
        self._watch = watch
        self._is_there = is_there
        self._lock = lock
        self._load = load
        self._restoring: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(watch.fileno(), self._changed)

    def close(self) -> None:
        """Stop watching; the tables stay."""
        self._loop.remove_reader(self._watch.fileno())
        self._watch.close()
        if self._restoring is not None:
            self._restoring.cancel()

    def _changed(self) -> None:
        if self._watch.take() and (self._restoring is None or self._restoring.done()):
            self._restoring = self._loop.create_task(self._restore(), name="restore tables")

    async def _restore(self) -> None:
        async with self._lock:
            # A replacement by this process removes the table for a moment, too.
            if not self._watch.take():
                return
            if self._is_there is not None and await self._is_there():
                self._watch.found()
                return
            log.warning("another program removed the tables %s: loading them again", self._watch.name)
            try:
                await self._load()
            except NftablesError as error:
                log.error("the tables %s are missing: %s", self._watch.name, error)


def _events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the type, the family and the table name of each message about a table."""
    for kind, _, content in messages(data):
        if kind in (_NEW_TABLE, _DELETE_TABLE) and len(content) >= _GENERIC.size:
            family, *_ = _GENERIC.unpack_from(content)
            names = (value for attribute, value in attributes(content[_GENERIC.size :]) if attribute == _TABLE_NAME)
            yield kind, family, next(names, b"").rstrip(b"\0")
