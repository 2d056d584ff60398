"""The cluster's name server: answers from what the informers know, keeps the bytes of answers, and forwards the rest."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from dns.rdatatype import RdataType
from dns.rrset import RRset

from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer, RefusedError, Request
from cumulet.common.dns.server import Reply, serving
from cumulet.network.cluster import Cluster
from cumulet.network.dns.answers import Answers
from cumulet.network.dns.clients import Clients, Scope
from cumulet.network.dns.forwarder import Forwarder
from cumulet.network.dns.machine import HostsFile, Upstream
from cumulet.network.dns.resolver import Resolver
from cumulet.network.dns.reverse import ReverseNames
from cumulet.network.dns.zone import ClusterZone

#: Orders of the addresses in an answer that are kept.
_ORDERS = 8
_ADDRESSES = frozenset({RdataType.A, RdataType.AAAA})


class Addresses(NamedTuple):
    """The addresses of an installation: where the server listens, and who may ask it."""

    gateway: str
    pods: ipaddress.IPv4Network
    machine: tuple[str, ...]
    services: ipaddress.IPv4Network


class Elsewhere(NamedTuple):
    """Who knows other names: /etc/hosts, and the name servers of container groups and of everything else."""

    hosts: HostsFile
    groups: Callable[[], Sequence[Upstream]]
    others: Callable[[], Sequence[Upstream]]


class Sockets(NamedTuple):
    """Bound UDP sockets, and listening TCP sockets. The server closes them."""

    datagrams: Sequence[socket.socket]
    listeners: Sequence[socket.socket]


class NameServer:
    """A responder (`common.dns.server`) over the resolver."""

    def __init__(self, resolver: Resolver, clients: Clients, cluster: Cluster) -> None:
        self._resolver, self._clients = resolver, clients
        self._answers = Answers()
        self._state = 0
        for informer in (cluster.services, cluster.slices, cluster.namespaces):
            informer.add_handler(self._changed)

    def respond(self, data: bytes, source: str, *, stream: bool) -> Reply | Awaitable[Reply]:
        """See `Responder`. A stranger gets no answer, so that nobody can be flooded with them."""
        scope = self._clients.scope(source)
        if not stream and (kept := self._answers.get(scope, data[2:])) is not None:
            return data[:2] + kept
        if scope is Scope.NOTHING:
            return None
        try:
            request = messages.parse(data)
        except RefusedError as error:
            return error.reply
        if scope is Scope.OTHERS and self._resolver.is_of_cluster(request.name):
            return self._settle(data, source, request, stream)
        return self._answer(data, request, scope, stream)

    async def _settle(self, data: bytes, source: str, request: Request, stream: bool) -> bytes:
        """Answer once it is known whether the client is a pod of the cluster."""
        reply = self._answer(data, request, await self._clients.settled(source), stream)
        return reply if isinstance(reply, bytes) else await reply

    def _answer(self, data: bytes, request: Request, scope: Scope, stream: bool) -> bytes | Awaitable[bytes]:
        answer = self._resolver.find(request, scope)
        if isinstance(answer, Answer):
            return self._render(data, request, answer, scope, stream)
        return self._wait(data, request, answer, scope, stream)

    async def _wait(
        self, data: bytes, request: Request, coming: Awaitable[Answer], scope: Scope, stream: bool
    ) -> bytes:
        state = self._state
        answer = await coming
        if state != self._state:
            answer = answer._replace(lifetime=0.0)  # it may begin with an alias that has changed since
        return self._render(data, request, answer, scope, stream)

    def _render(self, data: bytes, request: Request, answer: Answer, scope: Scope, stream: bool) -> bytes:
        if stream:
            return messages.render(request, answer, limit=messages.LONGEST_ANSWER)
        question = data[2:]
        # Clients take the first address, and shall not all take the same. Other records have weights of their own.
        addresses = [len(each) for each in answer.answer if each.rdtype in _ADDRESSES]
        several = min(max(addresses, default=1), _ORDERS)
        turn = self._answers.order(scope, question)
        turned = answer._replace(answer=[_turned(each, turn) for each in answer.answer]) if turn else answer
        reply = messages.render(request, turned, limit=request.limit)
        if answer.lifetime:
            self._answers.put(scope, question, reply[2:], answer.lifetime, several)
        return reply

    def _changed(self, *_: object) -> None:
        self._answers.clear()
        self._state += 1


def _turned(records: RRset, by: int) -> RRset:
    listed = list(records)
    by %= len(listed)
    return messages.rrset(records.name, records.ttl, [*listed[by:], *listed[:by]])[0]


@contextlib.asynccontextmanager
async def name_server(
    cluster: Cluster, addresses: Addresses, elsewhere: Elsewhere, sockets: Sockets
) -> AsyncIterator[None]:
    """Serve DNS while the context is open.

    The informers have their first list, or else names would not exist for a moment.
    """
    zone = ClusterZone(cluster.services, cluster.slices, cluster.namespaces, addresses.gateway)
    reverse = ReverseNames(cluster.services, cluster.slices, zone, [addresses.pods, addresses.services])
    groups, others = Forwarder(elsewhere.groups), Forwarder(elsewhere.others)
    resolver = Resolver(zone, reverse, elsewhere.hosts, groups, others)
    clients = Clients(cluster.pods, addresses.pods, addresses.machine)
    try:
        async with serving(NameServer(resolver, clients, cluster), sockets.datagrams, sockets.listeners):
            yield
    finally:
        await groups.close()
        await others.close()
