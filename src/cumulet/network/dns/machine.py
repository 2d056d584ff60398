"""What the machine knows of names: its name servers (resolv.conf(5)) and /etc/hosts (hosts(5)), read again on changes."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import dns.exception
import dns.name
from dns.name import Name
from dns.rdata import Rdata
from dns.rdatatype import RdataType

from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer
from cumulet.common.kubernetes import resolv_conf
from cumulet.network.dns.reverse import address_of

_HOSTS, _RESOLV_CONF = Path("/etc/hosts"), Path("/etc/resolv.conf")
_DNS = 53
#: Bytes of a file that are read, and seconds between two looks at it.
_LONGEST, _PAUSE = 1024 * 1024, 1.0
_TTL = 5

T = TypeVar("T")


class Upstream(NamedTuple):
    """The address of a name server."""

    host: str
    port: int = _DNS


class _Watched(Generic[T]):
    """What a file says, parsed again after it has changed."""

    def __init__(self, path: Path, parse: Callable[[str], T]) -> None:
        self._path, self._parse = path, parse
        self._stamp: tuple[int, int, int] | None = None
        self._next = 0.0
        self._value = parse("")

    def get(self) -> T:
        """Return the value, the one of an empty file where there is none."""
        now = time.monotonic()
        if now < self._next:
            return self._value
        self._next = now + _PAUSE
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                with self._path.open("rb") as file:
                    self._value = self._parse(file.read(_LONGEST).decode("utf-8", "replace"))
                self._stamp = stamp
        except OSError:
            self._stamp, self._value = None, self._parse("")
        return self._value


class Upstreams:
    """The machine's name servers, without those in `own`, which lead back to this one."""

    def __init__(self, own: Collection[str], path: Path = _RESOLV_CONF) -> None:
        self._own = own
        self._file = _Watched(path, self._parse)

    def get(self) -> list[Upstream]:
        """Return the name servers in their order; the machine's own where none is named, as resolv.conf(5) says."""
        return self._file.get()

    def _parse(self, text: str) -> list[Upstream]:
        servers = resolv_conf.parse(text).servers or ["127.0.0.1"]
        return [Upstream(server) for server in servers if server not in self._own and _is_address(server)]


class _Names(NamedTuple):
    addresses: dict[Name, list[Rdata]]
    names: dict[ipaddress.IPv4Address, list[Rdata]]


class HostsFile:
    """The names of /etc/hosts, such as those that `cumulet up --hosts` adds."""

    def __init__(self, path: Path = _HOSTS) -> None:
        self._file = _Watched(path, _parse_hosts)

    def find(self, name: Name, kind: RdataType) -> Answer | None:
        """Answer a question for a name or an address of the file; `None` if it is in neither role there."""
        known = self._file.get()
        if name in known.addresses:
            records = [record for record in known.addresses[name] if record.rdtype == kind]
        elif (address := address_of(name)) is not None and address in known.names:
            records = known.names[address] if kind == RdataType.PTR else []
        else:
            return None
        return Answer(messages.rrset(name, _TTL, records), lifetime=_PAUSE)


def _parse_hosts(text: str) -> _Names:
    found = _Names({}, {})
    for line in text.splitlines():
        first, *words = line.partition("#")[0].split()[:64] or [""]
        try:
            record, address = messages.address(first), ipaddress.ip_address(first)
            names = [dns.name.from_text(word) for word in words]
        except (ValueError, dns.exception.DNSException):
            continue  # as the C library does
        for name in names:
            found.addresses.setdefault(name, []).append(record)
        if names and isinstance(address, ipaddress.IPv4Address):
            pointer = messages.record(RdataType.PTR, names[0])
            found.names.setdefault(address, []).append(pointer)
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
