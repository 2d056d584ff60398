"""HTTPS connections that are used again: a new one takes longer than most answers."""

from __future__ import annotations

import contextlib
import http.client
import select
import ssl
from collections.abc import Iterator
from typing import NamedTuple


class Target(NamedTuple):
    """Where connections go, and how long an answer is waited for."""

    host: str
    port: int
    context: ssl.SSLContext
    timeout: float = 30.0


class Connections:
    """The connections to one server with one set of credentials."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._idle: list[http.client.HTTPSConnection] = []

    @contextlib.contextmanager
    def take(self) -> Iterator[http.client.HTTPSConnection]:
        """Lend a connection for one request, whose response must be read. After a failure it is not used again."""
        connection = self._open()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def _open(self) -> http.client.HTTPSConnection:
        while self._idle:
            connection = self._idle.pop()
            if connection.sock is not None and not _is_readable(connection.sock):
                return connection
            connection.close()  # by the server, which may have been stopped
        host, port, context, timeout = self._target
        return http.client.HTTPSConnection(host, port, context=context, timeout=timeout)

    def close(self) -> None:
        """Close the connections that are not lent."""
        while self._idle:
            self._idle.pop().close()


def _is_readable(connection: ssl.SSLSocket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
