"""Finds who answers a question: the cluster's zones, the zone of container groups, /etc/hosts, or another name server."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import dns.name
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rrset import RRset

from cumulet.common.dns.messages import Answer, Request
from cumulet.network.dns.clients import Scope
from cumulet.network.dns.forwarder import Forwarder, Question
from cumulet.network.dns.machine import HostsFile
from cumulet.network.dns.reverse import REVERSE, ReverseNames
from cumulet.network.dns.zone import ClusterZone

#: The names of container groups with a `dnsNameLabel`.
GROUPS = dns.name.from_text("azurecontainer.io")
#: Aliases in a row that are followed.
_ALIASES = 8
_REFUSED = Answer(rcode=Rcode.REFUSED, authoritative=False)
_FAILED = Answer(rcode=Rcode.SERVFAIL, authoritative=False)


class Resolver:
    """Answers questions. `groups` asks the name server of the zone of container groups, `others` everybody else's."""

    def __init__(
        self, zone: ClusterZone, reverse: ReverseNames, hosts: HostsFile, groups: Forwarder, others: Forwarder
    ) -> None:
        self._zone, self._reverse, self._hosts = zone, reverse, hosts
        self._groups, self._others = groups, others

    def is_of_cluster(self, name: Name) -> bool:
        """Return whether a name is in the zone of the cluster, which is for its pods only."""
        return name.is_subdomain(self._zone.origin)

    def find(self, request: Request, scope: Scope) -> Answer | Awaitable[Answer]:
        """Answer a question, or return what to wait for. The aliases of ExternalName Services are followed."""
        name, kind = request.name, request.type
        if kind == RdataType.ANY:
            kind = RdataType.HINFO  # one type is enough (RFC 8482)
        before: list[RRset] = []
        for _ in range(_ALIASES):
            if (answer := self._own(name, kind, scope)) is None:
                return self._forward(Question(name, kind, request.wants_dnssec, request.checking_disabled), before)
            target = _alias_of(answer.answer)
            if target is None or kind == RdataType.CNAME:
                return _after(before, answer)
            before += answer.answer
            name = target
        return _FAILED

    async def _forward(self, question: Question, before: Sequence[RRset]) -> Answer:
        forwarder = self._groups if question.name.is_subdomain(GROUPS) else self._others
        return _after(before, await forwarder.find(question))

    def _own(self, name: Name, kind: RdataType, scope: Scope) -> Answer | None:
        """Answer from the state of the cluster and the machine; `None` if another name server has to be asked."""
        if self.is_of_cluster(name):
            return self._zone.find(name, kind) if scope is Scope.CLUSTER else _REFUSED
        if (
            scope is Scope.CLUSTER
            and name.is_subdomain(REVERSE)
            and (answer := self._reverse.find(name, kind)) is not None
        ):
            return answer
        return None if name.is_subdomain(GROUPS) else self._hosts.find(name, kind)


def _alias_of(sets: Sequence[RRset]) -> Name | None:
    record = next(iter(sets[0]), None) if len(sets) == 1 else None
    return record.target if isinstance(record, CNAME) else None


def _after(before: Sequence[RRset], answer: Answer) -> Answer:
    """Return an answer with the aliases that led to it."""
    return answer._replace(answer=[*before, *answer.answer]) if before else answer
