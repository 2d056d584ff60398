"""Network namespaces that stand in for pods: each has an address at the router, servers, and clients that we did not write.

A server answers a connection or a datagram with its name and the address of the client that it sees.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable
from socket import SOCK_DGRAM, SOCK_STREAM, SocketKind

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.common.namespaces import inside

#: Seconds after which a connection that nobody answers is given up.
SILENCE = 0.7
#: What a client gets that nobody answers.
SILENT = "no answer"


class Pod:
    """A pod with a name and an address, and the servers that it runs."""

    def __init__(self, config: Config, name: str, number: int) -> None:
        self.name = name
        self.address = str(ipaddress.IPv4Network(config.pod_cidr).network_address + number)
        self.namespace = f"cst-{uuid.uuid4().hex[:8]}"
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        port, own = f"p{uuid.uuid4().hex[:8]}", router.namespace_name(config)
        _ip(f"netns add {self.namespace}")
        _ip(f"-n {self.namespace} link add eth0 type veth peer name {port} netns {own}")
        _ip(f"-n {own} link set {port} master {router.BRIDGE} up")
        _ip(f"-n {own} link set {port} type bridge_slave isolated on")
        gateway = router.gateway(config)
        for command in (
            f"addr add {self.address}/32 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add {gateway} dev eth0",
            f"route add default via {gateway}",
        ):
            _ip(f"-n {self.namespace} {command}")

    def close(self) -> None:
        """Stop the servers, and remove the namespace."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()
        _ip(f"netns delete {self.namespace}")

    def serve(self, port: int, kind: SocketKind = SOCK_STREAM) -> None:
        """Serve TCP or UDP at a port."""
        server = inside(self.namespace, lambda: socket.socket(socket.AF_INET, kind))
        server.bind((self.address, port))
        work = self._datagrams
        if kind == SOCK_STREAM:
            server.listen(128)
            work = self._connections
        self._sockets.append(server)
        self._threads.append(threading.Thread(target=work, args=(server,), daemon=True))
        self._threads[-1].start()

    def _connections(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the socket was closed
            while True:
                connection, peer = server.accept()
                with contextlib.suppress(OSError), connection:
                    connection.sendall(f"{self.name} {peer[0]}".encode())

    def _datagrams(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = server.recvfrom(1500)
                if not data:
                    return
                server.sendto(f"{self.name} {peer[0]}".encode(), peer)


class Client:
    """Connects from a pod, or from the machine with `None`."""

    def __init__(self, namespace: str | None) -> None:
        self.namespace = namespace

    def open(self, kind: SocketKind = SOCK_STREAM) -> socket.socket:
        """A socket of the client's namespace."""
        made = inside(self.namespace, lambda: socket.socket(socket.AF_INET, kind))
        made.settimeout(SILENCE)
        return made

    def tcp(self, host: str, port: int) -> str | None:
        """What the server says; `None` where the connection is refused, `SILENT` without an answer."""
        return self._ask(lambda: self._tcp(host, port))

    def who(self, host: str, port: int) -> str | None:
        """The name of the server that answers."""
        return _name(self.tcp(host, port))

    def udp(self, host: str, port: int, used: socket.socket | None = None) -> str | None:
        """What the server says to a datagram; `used` is a socket that was connected before."""
        return self._ask(lambda: self._udp(host, port, used))

    def _tcp(self, host: str, port: int) -> str:
        with self.open() as client:
            client.connect((host, port))
            return client.makefile().read()

    def _udp(self, host: str, port: int, used: socket.socket | None) -> str:
        client = used or self.open(SOCK_DGRAM)
        try:
            if used is None:
                client.connect((host, port))
            client.send(b"who?")
            return client.recv(1500).decode()
        finally:
            if used is None:
                client.close()

    def _ask(self, ask: Callable[[], str]) -> str | None:
        try:
            return ask()
        except (ConnectionRefusedError, ConnectionResetError):
            return None
        except TimeoutError:
            return SILENT


def _name(said: str | None) -> str | None:
    return said if said in (None, SILENT) else said.split()[0]


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)
