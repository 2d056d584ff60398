"""Closing a socket after TLS has ended on it, so that the peer can read all data.

Closing a socket that has unread data resets the connection, and the peer would lose data that it has not read yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

#: The time for the peer to read the last data and to close.
_SECONDS = 5.0


def linger(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, leaving: set[socket.socket], buffer: memoryview
) -> None:
    """Shut down the writing half, and close the socket when the peer has closed or the time is over.

    The socket is in `leaving` until it is closed. `buffer` receives the data that is discarded.
    """
    leaving.add(connection)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)

    def drain() -> None:
        try:
            while connection.recv_into(buffer):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        end()

    def end() -> None:
        timer.cancel()
        loop.remove_reader(connection.fileno())
        leaving.discard(connection)
        connection.close()

    timer = loop.call_later(_SECONDS, end)
    loop.add_reader(connection.fileno(), drain)
