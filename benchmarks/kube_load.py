"""Sends load to an API server from a separate process, so that the client's cost is measured separately.

    python -m benchmarks.kube_load < JOB

The job is a JSON object: the server (`host`, `port`, `ca`, `certificate`, `key`) and `requests`, `changes` or `watch`.
The figures are printed as a JSON object. Connections are kept alive, over TLS, with a client certificate. One thread
waits for all of them and takes a few tens of microseconds per request.
"""

from __future__ import annotations

import json
import re
import select
import selectors
import socket
import ssl
import sys
import time

import msgspec

_CHUNK = 1 << 18
#: Size of a TLS record (RFC 8446, section 5.1).
_RECORD = 1 << 14
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
#: The end of a response in chunks, whose length is unknown.
_LAST_CHUNK = b"\r\n0\r\n\r\n"
#: Before the time at which the writer sent a change, in nanoseconds of the monotonic clock.
_MARK, _DIGITS = b'"bench/sent":"', 20
_OVERLAP = 64
#: More than the size of a change.
_TAIL = 8192
_PATIENCE = 5.0

Figures = dict[str, float | str]


class Requests(msgspec.Struct, frozen=True):
    """`count` requests from number `first` over `connections`. `%d` in path and body stands for the number."""

    first: int
    count: int
    connections: int
    method: str
    path: str
    body: str = ""
    media: str = "application/json"
    encoding: str = ""


class Changes(msgspec.Struct, frozen=True):
    """`count` patches, `rate` per second. `%d` in the path is the object's number, `%m` in the body the mark."""

    count: int
    rate: int
    connections: int
    path: str
    body: str
    media: str


class Watch(msgspec.Struct, frozen=True):
    """`watchers` watches of a path."""

    path: str
    watchers: int


class Job(msgspec.Struct, frozen=True):
    """The server and one of the three loads. Files are PEM."""

    host: str
    port: int
    ca: str
    certificate: str
    key: str
    requests: Requests | None = None
    changes: Changes | None = None
    watch: Watch | None = None


def main() -> None:
    """Run the job on standard input. The second line of standard input ends a watch."""
    job = msgspec.json.decode(sys.stdin.readline(), type=Job)
    client = _Client(job)
    if job.requests is not None:
        found = _requests(client, job.requests)
    elif job.changes is not None:
        found = _changes(client, job.changes)
    elif job.watch is not None:
        found = _watch(client, job.watch)
    else:
        raise SystemExit("the job has no requests, changes or watch")
    found["cpu"] = time.process_time()
    print(json.dumps(found), flush=True)


class _Client:
    """Opens connections."""

    def __init__(self, job: Job) -> None:
        self._address = (job.host, job.port)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.load_verify_locations(job.ca)
        self._tls.load_cert_chain(job.certificate, job.key)

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(plain, server_hostname="localhost")


def request(method: str, path: str, body: bytes = b"", media: str = "application/json", encoding: str = "") -> bytes:
    """Return the bytes of a request with the headers of client-go."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: application/json\r\n"
    if encoding:
        head += f"Accept-Encoding: {encoding}\r\n"
    if body:
        head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


class _Exchange:
    """A connection with one request in flight."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self.socket = connection
        self.began = 0
        self._received = bytearray()
        self._length = -1

    def send(self, data: bytes) -> None:
        self._received.clear()
        self._length = -1
        self.began = time.perf_counter_ns()
        self.socket.sendall(data)

    def receive(self) -> bool:
        """Read what has arrived, and return whether the response is complete."""
        while True:
            data = self.socket.recv(_CHUNK)
            if not data:
                raise SystemExit("the server closed the connection")
            self._received += data
            if self._length < 0:
                end = self._received.find(b"\r\n\r\n")
                if end < 0:
                    continue
                head = bytes(self._received[:end])
                if not head.startswith(b"HTTP/1.1 2"):
                    raise SystemExit(f"refused: {bytes(self._received[:2000]).decode(errors='replace')}")
                length = _LENGTH.search(head)
                self._length = end + 4 + int(length[1]) if length else 0
            if self._received.endswith(_LAST_CHUNK) if not self._length else len(self._received) >= self._length:
                return True
            if not self.socket.pending():
                return False


def _requests(client: _Client, job: Requests) -> Figures:
    """Send the requests, and return their seconds, rate and latencies in seconds."""
    left = iter(range(job.first, job.first + job.count))
    path, body = job.path, job.body
    numbered = "%d" in path or "%d" in body
    method, media = job.method, job.media
    fixed = request(method, path, body.encode(), media, job.encoding)

    def data(number: int) -> bytes:
        if not numbered:
            return fixed
        word = str(number)
        return request(method, path.replace("%d", word), body.replace("%d", word).encode(), media)

    selector = selectors.EpollSelector()
    exchanges = [_Exchange(client.connect()) for _ in range(job.connections)]
    times: list[int] = []
    began = time.perf_counter()
    open_connections = 0
    for exchange in exchanges:
        number = next(left, None)
        if number is not None:
            open_connections += 1
            selector.register(exchange.socket, selectors.EVENT_READ, exchange)
            exchange.send(data(number))
    while open_connections:
        for key, _ in selector.select():
            exchange = key.data
            if not exchange.receive():
                continue
            times.append(time.perf_counter_ns() - exchange.began)
            number = next(left, None)
            if number is None:
                selector.unregister(exchange.socket)
                open_connections -= 1
            else:
                exchange.send(data(number))
    seconds = time.perf_counter() - began
    times.sort()
    return {
        "seconds": seconds,
        "rate": len(times) / seconds,
        "p50": times[len(times) // 2] / 1e9,
        "p99": times[int(len(times) * 0.99)] / 1e9,
    }


def _changes(client: _Client, job: Changes) -> Figures:
    """Send the patches, and return the mark of the last and the seconds.

    The last is sent after all other responses, so that a watcher that receives its mark has received all.
    """
    selector = selectors.EpollSelector()
    idle = [_Exchange(client.connect()) for _ in range(job.connections)]

    def answered(patience: float | None) -> None:
        for key, _ in selector.select(patience):
            if key.data.receive():
                selector.unregister(key.fileobj)
                idle.append(key.data)

    began = time.monotonic()
    for number in range(job.count):
        is_last = number == job.count - 1
        while (early := began + number / job.rate - time.monotonic()) > 0:
            answered(early)
        while len(idle) < (job.connections if is_last else 1):
            answered(None)
        mark = f"{time.monotonic_ns():0{_DIGITS}}"
        path, body = job.path.replace("%d", str(number)), job.body.replace("%m", mark)
        exchange = idle.pop()
        exchange.send(request("PATCH", path, body.encode(), job.media))
        selector.register(exchange.socket, selectors.EVENT_READ, exchange)
    while len(idle) < job.connections:
        answered(None)
    return {"mark": mark, "seconds": time.monotonic() - began}


def _watch(client: _Client, job: Watch) -> Figures:
    """Open the watches, and measure the delay of changes for one watcher in 25.

    Standard input has the mark of the last change. A watcher that has received it has received all before it.
    """
    opening = request("GET", job.path)
    watchers = [_Watcher(client.connect(), opening, is_timed=number % 25 == 0) for number in range(job.watchers)]
    takes = {watcher.socket.fileno(): watcher.take for watcher in watchers}
    poll = select.epoll()
    for number in (*takes, sys.stdin.fileno()):
        poll.register(number, select.EPOLLIN)
    spent = time.process_time()
    print(json.dumps("watching"), flush=True)
    buffer = memoryview(bytearray(_CHUNK))
    last = b""
    until = float("inf")
    while time.monotonic() < until and not (last and all(last in watcher.tail for watcher in watchers)):
        for number, _ in poll.poll(1.0):
            if number in takes:
                takes[number](buffer)
            else:
                last = sys.stdin.readline().strip().encode()
                until = time.monotonic() + _PATIENCE
                poll.unregister(number)
    delays = sorted(delay for watcher in watchers for delay in watcher.delays)
    return {
        "complete": sum(last in watcher.tail for watcher in watchers),
        "p50": delays[len(delays) // 2] / 1e9 if delays else 0.0,
        "p99": delays[int(len(delays) * 0.99)] / 1e9 if delays else 0.0,
        "watching": time.process_time() - spent,
    }


class _Watcher:
    """A watch. `tail` is the end of the received bytes."""

    def __init__(self, connection: ssl.SSLSocket, opening: bytes, *, is_timed: bool) -> None:
        self.socket = connection
        self.delays: list[int] = []
        self.tail = b""
        self._is_timed = is_timed
        connection.sendall(opening)
        while b"\r\n\r\n" not in self.tail:
            self.tail += connection.recv(4096)
        connection.setblocking(False)

    def take(self, buffer: memoryview) -> None:
        """Read records up to one that is not full, which is rarely followed by another."""
        now = time.monotonic_ns()
        size = 0
        try:
            while (read := self.socket.recv_into(buffer[size:])) == _RECORD and size < _CHUNK - 2 * _RECORD:
                size += read
        except ssl.SSLWantReadError:
            read = 0
        else:
            if not read:
                raise SystemExit("the server closed a watch")
        size += read
        if self._is_timed:
            self._time(buffer[:size], now)
        new = bytes(buffer[max(0, size - _TAIL) : size])
        self.tail = new if size >= _TAIL else (self.tail + new)[-_TAIL:]

    def _time(self, new: memoryview, now: int) -> None:
        before = self.tail[-_OVERLAP:]
        text = b"".join((before, new))
        end = 0
        while (start := text.find(_MARK, end)) >= 0:
            end = start + len(_MARK) + _DIGITS
            if len(before) < end <= len(text):
                self.delays.append(now - int(text[start + len(_MARK) : end]))


if __name__ == "__main__":
    main()
