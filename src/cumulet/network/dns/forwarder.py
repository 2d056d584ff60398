"""Forwards what is not the cluster's: the same question once at a time, its answer kept within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dns.message import Message
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.SOA import SOA
from dns.rrset import RRset

from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer
from cumulet.network.dns.exchange import ExchangeError, ask
from cumulet.network.dns.machine import Upstream

log = logging.getLogger(__name__)

#: Seconds for one server, and for all of them. The C library asks again after five.
TRY, LIMIT = 2.0, 4.5
#: Seconds for which answers are kept, as AKS' CoreDNS does (`cache 30`); their number, and the records of one.
_KEPT, _ENTRIES, _RECORDS = 30.0, 2000, 64
#: Questions on their way to other servers.
_OPEN = 512
_FAILED = Answer(rcode=Rcode.SERVFAIL, authoritative=False)


class Question(NamedTuple):
    """What is asked. Names are equal whatever the case of their letters."""

    name: Name
    type: RdataType
    dnssec: bool = False
    unchecked: bool = False


class _Entry(NamedTuple):
    answer: Answer
    since: float
    until: float


class Forwarder:
    """Asks the name servers that `upstreams` returns, in their order. A server that fails is asked last from then on."""

    def __init__(self, upstreams: Callable[[], Sequence[Upstream]]) -> None:
        self._upstreams = upstreams
        self._failed: dict[Upstream, float] = {}
        self._entries: dict[Question, _Entry] = {}
        self._open: dict[Question, asyncio.Task[Answer]] = {}

    async def find(self, question: Question) -> Answer:
        """Return the answer of another server, or SERVFAIL."""
        now = time.monotonic()
        if (entry := self._entries.get(question)) is not None:
            if now < entry.until:
                return _aged(entry, now)
            del self._entries[question]
        task = self._open.get(question)
        if task is None:
            if len(self._open) >= _OPEN:
                return _FAILED
            task = self._open[question] = asyncio.create_task(self._ask(question))
            task.add_done_callback(lambda _: self._open.pop(question, None))
        # Whoever leaves does not take the answer away from the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, question: Question) -> Answer:
        try:
            async with asyncio.timeout(LIMIT):
                for upstream in self._in_order():
                    if (message := await self._try(upstream, question)) is not None:
                        return self._keep(question, message)
        except TimeoutError:
            log.info("no name server answered for %s", question.name)
        return _FAILED

    async def _try(self, upstream: Upstream, question: Question) -> Message | None:
        """Ask one server; return `None` if another may know better."""
        try:
            async with asyncio.timeout(TRY):
                message = await ask(
                    upstream, question.name, question.type, dnssec=question.dnssec, unchecked=question.unchecked
                )
        except (ExchangeError, TimeoutError) as error:
            log.info("name server %s: %s", upstream.host, error or "no answer in time")
            self._failed[upstream] = time.monotonic()
            return None
        self._failed.pop(upstream, None)
        return None if message.rcode() in (Rcode.SERVFAIL, Rcode.REFUSED) else message

    def _in_order(self) -> list[Upstream]:
        """Return the servers, those that failed at the end, the longest ago first."""
        current = self._upstreams()
        self._failed = {each: when for each, when in self._failed.items() if each in current}
        return sorted(current, key=lambda each: self._failed.get(each, 0.0))

    def _keep(self, question: Question, message: Message) -> Answer:
        answer = Answer(
            message.answer, message.authority, rcode=Rcode(message.rcode()), authoritative=False, lifetime=1.0
        )
        seconds = _lifetime(answer)
        if seconds > 0 and sum(map(len, (*answer.answer, *answer.authority))) <= _RECORDS:
            now = time.monotonic()
            if len(self._entries) >= _ENTRIES:
                del self._entries[next(iter(self._entries))]  # the oldest
            self._entries[question] = _Entry(answer, now, now + seconds)
        return answer


def _lifetime(answer: Answer) -> float:
    """Return for how many seconds an answer can be kept; what is absent as long as its SOA record says (RFC 2308)."""
    if answer.rcode == Rcode.NOERROR and answer.answer:
        return min(_KEPT, *(each.ttl for each in answer.answer))
    if answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
        for each in answer.authority:
            if isinstance(record := next(iter(each), None), SOA):
                return min(_KEPT, each.ttl, record.minimum)
    return 0.0


def _aged(entry: _Entry, now: float) -> Answer:
    """Return an answer with the time that is left of it."""
    age = int(now - entry.since)
    answer = entry.answer
    return answer._replace(answer=_younger(answer.answer, age), authority=_younger(answer.authority, age))


def _younger(sets: Sequence[RRset], age: int) -> list[RRset]:
    return [one for each in sets for one in messages.rrset(each.name, max(each.ttl - age, 0), each)]
