"""One question to another name server, over UDP, then over TCP if the answer does not fit (RFC 7766).

Every question has an id and a source port of its own, both random, and only an answer from the server's address with that id
and that question counts (RFC 5452).
"""

from __future__ import annotations

import asyncio
import secrets

import dns.exception
import dns.flags
import dns.message
from dns.message import Message
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from cumulet.common.dns.messages import LARGEST
from cumulet.network.dns.machine import Upstream

#: Datagrams that are no answer to the question, after which the server is given up.
_STRANGE = 16
#: What a server says that does not know EDNS (RFC 6891, section 7).
_WITHOUT_EDNS = frozenset({Rcode.FORMERR, Rcode.NOTIMP})


class ExchangeError(Exception):
    """The server did not answer, or not as a name server does."""


async def ask(upstream: Upstream, name: Name, kind: RdataType, *, dnssec: bool, unchecked: bool) -> Message:
    """Ask a server and return its answer. Raises `ExchangeError`, and `TimeoutError` where the caller has set a limit."""
    answer = await _exchange(upstream, _query(name, kind, dnssec, unchecked, edns=0))
    if answer.rcode() in _WITHOUT_EDNS:
        answer = await _exchange(upstream, _query(name, kind, False, unchecked, edns=-1))
    return answer


def _query(name: Name, kind: RdataType, dnssec: bool, unchecked: bool, *, edns: int) -> Message:
    query = dns.message.make_query(
        name,
        kind,
        use_edns=edns if edns >= 0 else None,
        want_dnssec=dnssec,
        payload=LARGEST if edns >= 0 else None,
        id=secrets.randbelow(65536),
    )
    if unchecked:
        query.flags |= dns.flags.CD
    return query


async def _exchange(upstream: Upstream, query: Message) -> Message:
    answer = await _by_datagram(upstream, query)
    return await _by_stream(upstream, query) if answer.flags & dns.flags.TC else answer


class _Waiting(asyncio.DatagramProtocol):
    """Waits for the answer on a socket that is connected to the server, so that nobody else is heard."""

    def __init__(self, query: Message) -> None:
        self._query = query
        self._strange = 0
        self.answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self.answer.done():
            return
        if (answer := _parsed(data, self._query)) is not None:
            self.answer.set_result(answer)
            return
        self._strange += 1
        if self._strange >= _STRANGE:
            self.answer.set_exception(ExchangeError("many strange answers"))

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(ExchangeError(str(exc)))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(ExchangeError("the socket was closed"))
            self.answer.exception()  # nobody may be waiting


async def _by_datagram(upstream: Upstream, query: Message) -> Message:
    loop = asyncio.get_running_loop()
    try:
        transport, waiting = await loop.create_datagram_endpoint(lambda: _Waiting(query), remote_addr=upstream)
    except OSError as error:
        raise ExchangeError(str(error)) from None
    try:
        transport.sendto(query.to_wire())
        return await waiting.answer
    finally:
        transport.close()


async def _by_stream(upstream: Upstream, query: Message) -> Message:
    wire = query.to_wire()
    try:
        reader, writer = await asyncio.open_connection(*upstream)
        try:
            writer.write(len(wire).to_bytes(2) + wire)
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.transport.abort()
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ExchangeError(str(error)) from None
    if (answer := _parsed(data, query)) is None:
        raise ExchangeError("a strange answer")
    return answer


def _parsed(data: bytes, query: Message) -> Message | None:
    """Return the message, `None` if it is no answer to the question."""
    if data[:2] != query.id.to_bytes(2):
        return None
    try:
        answer = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
    return answer if query.is_response(answer) else None
