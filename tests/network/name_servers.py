"""A name server over the API server's objects on loopback, the name server behind it, and questions to it.

Addresses of 127.0.0.0/8 are all this machine's: 127.1.0.0/16 is the range of pods, from which questions come.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.rrset
import dns.tsig

from cumulet.common.config import Config
from cumulet.common.kubernetes import Client
from cumulet.common.kubernetes.component import run_informers
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.tasks import task_set
from cumulet.network.cluster import Cluster
from cumulet.network.dns.machine import HostsFile, Upstream
from cumulet.network.dns.nameserver import Addresses, Elsewhere, Sockets, name_server

HOST, MACHINE, POD, STRANGER = "127.0.0.1", "127.0.0.1", "127.1.0.9", "127.2.0.1"
PODS = ipaddress.IPv4Network("127.1.0.0/16")
WAIT = 10.0


def bound() -> tuple[socket.socket, socket.socket]:
    """A UDP socket and a listening TCP socket of one port."""
    while True:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((HOST, 0))
        try:
            return datagrams, socket.create_server(datagrams.getsockname())
        except OSError:
            datagrams.close()


class Peer:
    """A name server of others: answers by a function from question to answer, on UDP and TCP."""

    def __init__(self, answer: Callable[[dns.message.Message], dns.message.Message | bytes | None]) -> None:
        self.answer = answer
        self.questions: list[dns.message.Message] = []
        self.ports: list[int] = []
        self._datagrams, self._listener = bound()
        self.address = Upstream(*self._datagrams.getsockname())
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve, self._serve_streams)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        while True:
            data, client = self._datagrams.recvfrom(65535)
            if not data:
                return
            query = dns.message.from_wire(data)
            self.questions.append(query)
            self.ports.append(client[1])
            reply = self.answer(query)
            if isinstance(reply, dns.message.Message):
                reply = reply.to_wire(max_size=512, prefer_truncation=True)
            if reply is not None:
                self._datagrams.sendto(reply, client)

    def _serve_streams(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                query, _ = dns.query.receive_tcp(connection, None)
                if not query.question:
                    return
                self.questions.append(query)
                reply = self.answer(query)
                assert isinstance(reply, dns.message.Message)
                dns.query.send_tcp(connection, reply.to_wire(max_size=65535))

    def close(self) -> None:
        """Stop, by an empty datagram and a message without a question."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knocking:
            knocking.sendto(b"", self.address)
        with socket.create_connection(self.address) as knocking:
            dns.query.send_tcp(knocking, dns.message.Message())
        for thread in self._threads:
            thread.join()
        self._datagrams.close()
        self._listener.close()


class Served:
    """The server in a thread with an event loop of its own, watching an API server, or with an empty cluster."""

    def __init__(self, config: Config, hosts: Path, groups: Upstream, *, empty: bool = False) -> None:
        datagrams, listener = bound()
        self.port: int = datagrams.getsockname()[1]
        self.upstreams: list[Upstream] = []
        self._config, self._hosts, self._groups, self._empty = config, hosts, groups, empty
        self._sockets = Sockets([datagrams], [listener])
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        assert self._started.wait(WAIT)

    async def _run(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        config = self._config
        services = ipaddress.IPv4Network(config.service_cidr)
        addresses = Addresses(HOST, PODS, (MACHINE,), services)
        elsewhere = Elsewhere(HostsFile(self._hosts), lambda: [self._groups], lambda: self.upstreams)
        async with (
            Client(load_kubeconfig(config.kubeconfig_file("admin")), user_agent="test") as client,
            task_set() as tasks,
        ):
            cluster = Cluster.watched_by(client, config, tasks)
            if not self._empty:
                await run_informers(cluster.informers, tasks, self._stopping)
            async with name_server(cluster, addresses, elsewhere, self._sockets):
                self._started.set()
                await self._stopping.wait()

    def close(self) -> None:
        """Stop the server."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def ask(
        self,
        name: str,
        kind: str = "A",
        *,
        source: str = MACHINE,
        stream: bool = False,
        edns: int | None = 1232,
        timeout: float = WAIT,
    ) -> dns.message.Message:
        """Return the answer to one question. `edns` is the size for EDNS, `None` for a question without it."""
        query = dns.message.make_query(name, kind, use_edns=edns is not None, payload=edns)
        method = dns.query.tcp if stream else dns.query.udp
        return method(query, HOST, timeout, self.port, source)

    def raw(self, data: bytes, *, source: str = MACHINE, timeout: float = WAIT) -> bytes | None:
        """Send bytes, and return what comes back before the answer to a question that follows, or `None`."""
        # Questions whose answers are not at hand are answered in their order.
        marker = dns.message.make_query(f"n{uuid.uuid4().hex}.cluster.local", "A", use_edns=False, id=0xBEEF)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(timeout)
            client.bind((source, 0))
            client.sendto(data, (HOST, self.port))
            client.sendto(marker.to_wire(), (HOST, self.port))
            first = client.recv(65535)
            if first[:2] == b"\xbe\xef":
                return None
            client.recv(65535)
            return first

    def wait(
        self, expected: Callable[[dns.message.Message], bool], name: str, kind: str = "A", source: str = MACHINE
    ) -> dns.message.Message:
        """Ask until the answer is as expected: the server watches, so that it learns of a change a little later."""
        for _ in range(2000):
            answer = self.ask(name, kind, source=source)
            if expected(answer):
                return answer
        raise AssertionError(f"{name} {kind} is still\n{answer}")


def values(answer: dns.message.Message, kind: str = "A") -> list[str]:
    """Return the records of a type in the answer, sorted."""
    wanted = dns.rdatatype.from_text(kind)
    return sorted(str(record) for each in answer.answer if each.rdtype == wanted for record in each)


def found(*expected: str, kind: str = "A") -> Callable[[dns.message.Message], bool]:
    """Return a check for exactly these records of a type."""
    return lambda answer: values(answer, kind) == sorted(expected)
