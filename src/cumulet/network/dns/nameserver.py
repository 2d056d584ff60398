"""The cluster's name server: answers from what the informers know, keeps the bytes of answers, and forwards the rest."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from dns.rrset import RRset

from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer, RefusedError, Request
from cumulet.common.dns.server import serving
from cumulet.network.cluster import Cluster
from cumulet.network.dns.clients import Clients, Scope
from cumulet.network.dns.forwarder import Forwarder
from cumulet.network.dns.machine import HostsFile, Upstream
from cumulet.network.dns.resolver import REFUSED, Resolver
from cumulet.network.dns.reverse import ReverseNames
from cumulet.network.dns.zone import ClusterZone

#: The answers whose bytes are kept for each kind of client, and the bytes of one.
_KEPT, _LONGEST = 8192, 4096
#: Orders of the addresses in an answer that are kept: clients take the first, and shall not all take the same.
_ORDERS = 8


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


class _Kept(NamedTuple):
    until: float
    orders: list[bytes]


class NameServer:
    """A responder (`common.dns.server`) over the resolver."""

    def __init__(self, resolver: Resolver, clients: Clients, cluster: Cluster) -> None:
        self._resolver, self._clients = resolver, clients
        self._kept: dict[Scope, dict[bytes, _Kept]] = {Scope.CLUSTER: {}, Scope.OTHERS: {}, Scope.NOTHING: {}}
        self._turn = 0
        self._change = object()
        for informer in (cluster.services, cluster.slices, cluster.namespaces):
            informer.add_handler(self._changed)

    def known(self, data: bytes, source: str) -> bytes | None:
        """See `Responder`. The key is the question as it was sent, without its id."""
        kept = self._kept[self._clients.scope(source)].get(data[2:])
        if kept is None or kept.until < time.monotonic():
            return None
        self._turn += 1
        return kept.orders[self._turn % len(kept.orders)]

    async def respond(self, data: bytes, source: str, *, stream: bool) -> bytes | None:
        """See `Responder`. A stranger gets no answer, so that nobody can be flooded with them."""
        scope = self._clients.scope(source)
        if scope is Scope.NOTHING:
            return None
        try:
            request = messages.parse(data)
        except RefusedError as error:
            return error.reply
        if scope is Scope.OTHERS and self._resolver.is_of_cluster(request.name):
            scope = await self._clients.settled(source)
        change = self._change
        answer = await self._resolver.find(request, scope)
        if stream:
            return messages.render(request, answer, limit=messages.LONGEST_ANSWER)
        orders = _orders(request, answer)
        # An answer from before a change may not stay after it.
        if answer.lifetime and change is self._change and len(orders[0]) <= _LONGEST and answer is not REFUSED:
            self._keep(scope, data[2:], _Kept(time.monotonic() + answer.lifetime, [each[2:] for each in orders]))
        return random.choice(orders)

    def _keep(self, scope: Scope, key: bytes, kept: _Kept) -> None:
        answers = self._kept[scope]
        answers.pop(key, None)
        if len(answers) >= _KEPT:
            del answers[next(iter(answers))]  # the oldest
        answers[key] = kept

    def _changed(self, *_: object) -> None:
        for answers in self._kept.values():
            answers.clear()
        self._change = object()


def _orders(request: Request, answer: Answer) -> list[bytes]:
    """Return the bytes of an answer over UDP, with its addresses in several orders."""
    several = max((len(each) for each in answer.answer), default=0)
    render = functools.partial(messages.render, request, limit=request.limit)
    if several < 2:
        return [render(answer)]
    return [
        render(answer._replace(answer=[_turned(each, turn) for each in answer.answer]))
        for turn in range(min(several, _ORDERS))
    ]


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
