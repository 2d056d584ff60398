"""Port-forward to servers on a pod's own loopback: both families, several connections, half-closed ones, and a closed port."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.cases.path import ThePath, pod

_BIG = 20_000_000


def test_ports_of_the_loopback_are_forwarded(path: ThePath) -> None:
    summing = "while true; do nc -l -p 9001 -e md5sum; done"
    path.apply(
        pod(
            "ports",
            [
                {"name": "four", "command": ["httpd", "-f", "-p", "127.0.0.1:8080"]},
                {"name": "six", "command": ["httpd", "-f", "-p", "[::1]:8081"]},
                {"name": "sum", "command": ["sh", "-c", summing]},
            ],
        )
    )
    path.wait("pod/ports", "condition=Ready")
    with _forwarded(path, "ports", 8080, 8081, 9001) as (four, six, summed):
        with ThreadPoolExecutor(8) as threads:
            got = [*threads.map(_page, [four, six] * 4)]
        assert {page.split(b"\r\n")[0] for page in got} == {b"HTTP/1.1 404 Not Found"}
        # The server answers when this end is closed, not before.
        data = os.urandom(_BIG)
        with socket.create_connection(("127.0.0.1", summed)) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert _all(connection).split()[0].decode() == hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_a_closed_port_is_refused_in_the_words_of_a_kubelet(path: ThePath) -> None:
    path.apply(pod("closed", [{"name": "main", "command": ["sleep", "1000"]}]))
    path.wait("pod/closed", "condition=Ready")
    command = ("kubectl", "port-forward", "pod/closed", ":7")
    with _started(path, command) as process:
        assert process.stdout is not None
        port = int(re.findall(r"127.0.0.1:(\d+)", process.stdout.readline())[0])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert _all(connection) == b""
        said = process.stdout.read()
    assert "error forwarding port 7 to pod closed, uid : failed to execute portforward in network namespace" in said
    assert "IPv4: dial tcp4 127.0.0.1:7: connect: connection refused IPv6 dial tcp6 [::1]:7: connect:" in said


@contextlib.contextmanager
def _forwarded(path: ThePath, name: str, *ports: int) -> Iterator[list[int]]:
    """Yield the local ports of a running `kubectl port-forward`."""
    with _started(path, ("kubectl", "port-forward", f"pod/{name}", *(f":{port}" for port in ports))) as process:
        assert process.stdout is not None
        local: dict[int, int] = {}
        while len(local) < len(ports):
            found = re.fullmatch(r"Forwarding from 127.0.0.1:(\d+) -> (\d+)\n", process.stdout.readline())
            if found:
                local[int(found[2])] = int(found[1])
        yield [local[port] for port in ports]


@contextlib.contextmanager
def _started(path: ThePath, command: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, env=path.installation.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _page(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /absent HTTP/1.0\r\n\r\n")
        return _all(connection)


def _all(connection: socket.socket) -> bytes:
    connection.settimeout(60)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received
