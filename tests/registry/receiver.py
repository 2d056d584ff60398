"""A receiver of webhooks, whose deliveries a test reads and whose responses it sets."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.cloud import PEERS


class Delivery(NamedTuple):
    """One received request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """The receiver. It answers with `statuses`, one for each request, and then with 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._came: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

    def take(self) -> Delivery:
        """Wait for the next delivery."""
        return self._came.get(timeout=30)

    @property
    def is_empty(self) -> bool:
        """Whether no delivery is left."""
        return self._came.empty()

    def put(self, delivery: Delivery) -> int:
        """Store a delivery and return the status of the response."""
        self._came.put(delivery)
        return 200 if self.statuses.empty() else self.statuses.get()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A running receiver."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.put(Delivery(self.path, dict(self.headers), body))
            self.send_response(status)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"taken")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer((PEERS, 0), Handler) as server:
        receiver = Receiver(f"http://{PEERS}:{server.server_address[1]}/hook")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
