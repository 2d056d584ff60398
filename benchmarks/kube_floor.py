"""Measures the least that a watch costs: TLS and the kernel, without a server around them.

A process accepts the watchers of `kube_load` and writes changes of the same length as an API server's to all of them,
several changes at a time. It does nothing else. What remains is encryption and the loopback interface, which no server
in this process model can avoid. One processor encrypts while the other decrypts.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from subprocess import Popen

from cumulet.common import tls
from cumulet.common.config import Config

#: Changes in one write: each alone, and as many as a busy server joins.
_JOINED = (1, 5, 10)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

Client = Callable[[Mapping[str, object]], AbstractContextManager[Popen[str]]]


def show(config: Config, client: Client, *, size: int, watchers: int, rate: int, seconds: int) -> None:
    """Print the processor time that writing costs, for `rate` changes a second of `size` bytes to all watchers."""
    for joined in _JOINED:
        spent, late = _measure(config, client, size, watchers, rate, seconds, joined)
        print(
            f"  floor, {joined} changes of {size / 1e3:.1f} kB in a write: processor {spent:.2f} s "
            f"({spent / (watchers * rate * seconds / joined) * 1e6:.1f} us a write), {late:+.2f} s late at the end"
        )


def _measure(
    config: Config, client: Client, size: int, watchers: int, rate: int, seconds: int, joined: int
) -> tuple[float, float]:
    context = tls.server_context(*config.certificate_files("kube"))
    certificate, key = config.user_files()
    with socket.create_server(("127.0.0.1", 0), backlog=watchers) as listener:
        job = {
            "host": "127.0.0.1",
            "port": listener.getsockname()[1],
            "ca": str(config.ca_file),
            "certificate": str(certificate),
            "key": str(key),
            "watch": {"path": "/", "watchers": watchers},
        }
        with client(job) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            connections = [_accepted(listener, context) for _ in range(watchers)]
            process.stdout.readline()
            spent, late = _write(connections, size, rate, seconds, joined)
            process.stdin.write("the last change\n")
            process.stdin.flush()
            process.stdout.readline()
            for connection in connections:
                connection.close()
    return spent, late


def _accepted(listener: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Accept a watcher and begin its response."""
    plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = context.wrap_socket(plain, server_side=True)
    connection.recv(4096)
    connection.sendall(_HEAD)
    return connection


def _write(connections: list[ssl.SSLSocket], size: int, rate: int, seconds: int, joined: int) -> tuple[float, float]:
    """Write all changes; return the processor time in seconds, and how late the last write ended."""
    rounds = rate * seconds // joined
    body = os.urandom(size * joined // 2).hex().encode()
    last = body[:-16] + b"the last change\n"
    before, began = time.process_time(), time.monotonic()
    for number in range(rounds):
        due = began + number * joined / rate
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)
        data = last if number == rounds - 1 else body
        chunk = b"%x\r\n%b\r\n" % (len(data), data)
        for connection in connections:
            connection.sendall(chunk)
    return time.process_time() - before, time.monotonic() - began - seconds


def line_size(answer: bytes) -> int:
    """Return the bytes of a watch event of an object."""
    return len(json.dumps({"type": "MODIFIED", "object": json.loads(answer)}, separators=(",", ":"))) + 1
