"""The zone `azurecontainer.io`: the groups with a `dnsNameLabel`, by DNS on the machine and in a file for `up --hosts`."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import dns.name
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from cumulet.common.config import Address
from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer, RefusedError
from cumulet.common.dns.server import Reply
from cumulet.common.private_files import write_private
from cumulet.instances.groups.index import GroupIndex
from cumulet.instances.model.dns_names import ZONE, domain_name

log = logging.getLogger(__name__)

#: Seconds for which an address, and the absence of a name, may be kept: labels come and go with their groups.
_TTL, _NEGATIVE_TTL = 5, 1
#: Seconds between two looks at the groups without a change.
_PAUSE = 3600.0


class GroupNames:
    """The names and addresses of groups; a responder (`common.dns.server`) for their zone, and nothing else."""

    def __init__(self, index: GroupIndex) -> None:
        self._index = index
        self._origin = dns.name.from_text(ZONE)
        self._seen = -1
        self._addresses: dict[str, str] = {}
        self._by_name: dict[Name, str] = {}
        self._above: set[Name] = set()

    def addresses(self) -> dict[str, str]:
        """Return the address of each name, empty while the group has none."""
        newest = self._index.revisions.newest
        if newest != self._seen:
            self._seen = newest
            found = {}
            for group in self._index.all():
                record = group.record
                name = domain_name(record.wanted.ip_address, record.id, record.location)
                if name is not None:
                    found[name] = record.status.ip or ""
            if found != self._addresses:
                self._addresses = found
                self._by_name = {dns.name.from_text(name): address for name, address in found.items()}
                self._above = {name.split(length)[1] for name in self._by_name for length in range(len(name))}
        return self._addresses

    def respond(self, data: bytes, source: str, *, stream: bool) -> Reply:
        """See `Responder`."""
        try:
            request = messages.parse(data)
        except RefusedError as error:
            return error.reply
        answer = self._find(request.name, request.type)
        return messages.render(request, answer, limit=messages.LONGEST_ANSWER if stream else request.limit)

    def _find(self, name: Name, kind: RdataType) -> Answer:
        if not name.is_subdomain(self._origin):
            return Answer(rcode=Rcode.REFUSED, authoritative=False)
        self.addresses()
        address = self._by_name.get(name)
        if address and kind == RdataType.A:
            return Answer(messages.rrset(name, _TTL, [messages.address(address)]))
        exists = address is not None or name in self._above or name == self._origin
        server, contact = (dns.name.from_text(label, self._origin) for label in ("ns", "hostmaster"))
        authority = messages.record(RdataType.SOA, server, contact, 1, 7200, 1800, 86400, _NEGATIVE_TTL)
        return Answer(
            authority=messages.rrset(self._origin, _NEGATIVE_TTL, [authority]),
            rcode=Rcode.NOERROR if exists else Rcode.NXDOMAIN,
        )

    async def keep_file(self, file: Path) -> None:
        """Write `ADDRESS NAME` lines for `up --hosts` whenever they change, until cancelled."""
        written: bytes | None = None
        while True:
            lines = [f"{address} {name}\n" for name, address in sorted(self.addresses().items()) if address]
            content = "".join(lines).encode()
            if content != written:
                try:
                    write_private(file, content)
                    written = content
                except OSError as error:
                    log.warning("%s cannot be written: %s", file, error)
            await self._index.next_change(_PAUSE)


def bind(address: Address) -> socket.socket:
    """Return a UDP socket on the address of the room and the port of the same number. Raises `OSError`."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind((socket.gethostbyname(address.host), address.port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"UDP {address.host}:{address.port}: {error.strerror}") from error
    return bound
