"""Questions that arrive as bytes, and answers that leave as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.rdata
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType
from dns.rrset import RRset

from cumulet.common.ascii import fold

HEADER = 12
#: The largest answer over UDP without and with EDNS (RFC 1035, section 4.2.1; the DNS flag day of 2020): no fragments.
PLAIN, LARGEST = 512, 1232
#: The largest answer over TCP.
LONGEST_ANSWER = 65535
#: No question needs more: a name of 255 bytes, and the options of EDNS.
LONGEST_QUESTION = 1232

_RESPONSE, _OPCODE, _RECURSION = 0x80, 0x78, 0x01
_TRANSFERS = frozenset({RdataType.AXFR, RdataType.IXFR})


class Request(NamedTuple):
    """A question for the records of one name. `limit` is the largest answer over UDP in bytes."""

    message: dns.message.Message
    name: Name
    type: RdataType
    limit: int

    @property
    def wants_dnssec(self) -> bool:
        """Return whether the client asks for signatures (RFC 3225)."""
        return bool(self.message.ednsflags & dns.flags.DO)

    @property
    def checking_disabled(self) -> bool:
        """Return whether the client checks signatures itself (RFC 4035, section 3.2.2)."""
        return bool(self.message.flags & dns.flags.CD)


class Answer(NamedTuple):
    """The sections of an answer. Its bytes stay true for `lifetime` seconds."""

    answer: Sequence[RRset] = ()
    authority: Sequence[RRset] = ()
    additional: Sequence[RRset] = ()
    rcode: Rcode = Rcode.NOERROR
    authoritative: bool = True
    lifetime: float = 0.0


class _Ordered(RRset):
    """A set whose records are written in their order, which dnspython would shuffle."""

    def to_wire(self, file: Any, *given: Any, **more: Any) -> int:  # type: ignore[override]
        return super().to_wire(file, *given, **more, want_shuffle=False)


class RefusedError(Exception):
    """The bytes are not a question that can be answered; `reply` is the error for the client, `None` for silence."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


def parse(data: bytes) -> Request:
    """Parse a question. Raises `RefusedError` for anything else, whatever the bytes are."""
    if len(data) < HEADER or data[2] & _RESPONSE:
        raise RefusedError(None)  # no answer to an answer, so that no two servers keep each other busy
    if data[2] & _OPCODE:
        raise RefusedError(_error(data, Rcode.NOTIMP))
    if len(data) > LONGEST_QUESTION or data[4:6] != b"\0\1":
        raise RefusedError(_error(data, Rcode.FORMERR))
    try:
        message = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError):
        raise RefusedError(_error(data, Rcode.FORMERR)) from None
    question = message.question[0]
    request = Request(
        message,
        question.name,
        question.rdtype,
        min(max(message.payload, PLAIN), LARGEST) if message.edns >= 0 else PLAIN,
    )
    if message.edns > 0:
        raise RefusedError(render(request, Answer(rcode=Rcode.BADVERS, authoritative=False), limit=PLAIN))
    if question.rdclass != RdataClass.IN or request.type in _TRANSFERS:
        raise RefusedError(render(request, Answer(rcode=Rcode.REFUSED, authoritative=False), limit=PLAIN))
    return request


def render(request: Request, answer: Answer, *, limit: int) -> bytes:
    """Return the bytes of an answer. What is longer than `limit` has as many records as fit, and is marked as truncated.

    RFC 2181, section 9, leaves the choice; resolvers without TCP, such as older ones of musl, live on the records.
    """
    whole = _response(request, answer).to_wire(max_size=limit, prefer_truncation=True)
    if not whole[2] & dns.flags.TC >> 8 or len(answer.answer) != 1:
        return whole
    (records,) = answer.answer
    # The records of a set have about the same length.
    length = len(_response(request, answer._replace(additional=())).to_wire(max_size=LONGEST_ANSWER)) - len(whole)
    count = max(limit - len(whole), 0) * len(records) // length
    while count > 0:
        first = rrset(records.name, records.ttl, [*records][:count])
        response = _response(request, answer._replace(answer=first, additional=()))
        response.flags |= dns.flags.TC
        if len(cut := response.to_wire(max_size=LONGEST_ANSWER)) <= limit:
            return cut
        count -= 1
    return whole


def _response(request: Request, answer: Answer) -> dns.message.Message:
    response = dns.message.make_response(request.message, recursion_available=True, our_payload=LARGEST)
    if answer.authoritative:
        response.flags |= dns.flags.AA
    response.set_rcode(answer.rcode)
    response.answer.extend(answer.answer)
    response.authority.extend(answer.authority)
    response.additional.extend(answer.additional)
    return response


def record(kind: RdataType, *values: object) -> dns.rdata.Rdata:
    """Return a record of a type with its values. Raises `ValueError`."""
    try:
        made: dns.rdata.Rdata = dns.rdata.get_rdata_class(RdataClass.IN, kind)(RdataClass.IN, kind, *values)  # type: ignore[no-untyped-call]
    except dns.exception.DNSException as error:
        raise ValueError(str(error)) from None
    return made


def address(text: str) -> dns.rdata.Rdata:
    """Return the record of an IPv4 or IPv6 address. Raises `ValueError`."""
    return record(RdataType.AAAA if ":" in text else RdataType.A, text)


def rrset(owner: Name, ttl: int, records: Iterable[dns.rdata.Rdata]) -> list[RRset]:
    """Return the set of records of one type, as a list that is empty without records. The order is kept."""
    made: _Ordered | None = None
    for record in records:
        if made is None:
            made = _Ordered(owner, RdataClass.IN, record.rdtype)
        made.add(record, ttl)
    return [] if made is None else [made]


def labels(name: Name) -> tuple[str, ...]:
    """Return the labels in lower case without the root; a byte that is not ASCII matches no label of ours."""
    return tuple(fold(label.decode("latin-1")) for label in name.labels[:-1])


def _error(data: bytes, rcode: Rcode) -> bytes:
    """Return a bare header: bytes that were not understood are not repeated."""
    return data[:2] + bytes([_RESPONSE | data[2] & (_OPCODE | _RECURSION), rcode]) + bytes(HEADER - 4)
