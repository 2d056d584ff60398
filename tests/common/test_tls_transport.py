"""Sending files over TLS from the rooms' event loop, to curl and to clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import queue
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from cumulet.common import tls
from cumulet.common.config import Address
from cumulet.common.room import listen
from cumulet.common.tls_loop import Loop
from cumulet.common.tls_transport import TlsTransport

#: More than is sent at once.
_SIZE = 9_000_001
_CHUNK = 65_536


class _File(web.FileResponse):
    def __init__(self, path: Path, lost: list[str]) -> None:
        super().__init__(path)
        self._lost = lost

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        try:
            return await super().prepare(request)
        except ConnectionResetError as error:
            self._lost.append(str(error))
            raise


class _Server:
    """A server in its own thread, which serves one file and counts the bytes that it receives."""

    def __init__(self, folder: Path) -> None:
        authority = tls.Authority.open(folder / "ca.crt", folder / "ca.key")
        for name, content in zip(("crt", "key"), authority.issue("server", hosts=["127.0.0.1"]), strict=True):
            (folder / f"server.{name}").write_bytes(content)
        self.ca = folder / "ca.crt"
        self.file = folder / "file"
        self.file.write_bytes(os.urandom(_SIZE))
        self._context = tls.server_context(folder / "server.crt", folder / "server.key")
        self._listener = listen(Address("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost: list[str] = []
        self.taken: queue.Queue[bytes] = queue.Queue()
        self.full = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(
            [
                web.get("/file", self._get),
                web.put("/count", self._count),
                web.put("/no", self._refuse),
                web.put("/take", self._take),
                web.put("/drop", self._drop),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, self._listener, ssl_context=self._context).start()
        self._stopping = asyncio.Event()
        self._ready.set()
        await self._stopping.wait()
        await runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return _File(self.file, self.lost)

    async def _count(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            size += len(chunk)
        return web.Response(text=f"{size} {digest.hexdigest()}")

    async def _take(self, request: web.Request) -> web.Response:
        transport, length = request.transport, request.content_length
        assert isinstance(transport, TlsTransport)
        assert length is not None
        self.taken.put(early := request.content.read_nowait())
        try:
            await transport.receive(length - len(early), lambda piece: self.taken.put(bytes(piece)), 1.0)
        except (TimeoutError, ConnectionResetError) as error:
            self.taken.put(type(error).__name__.encode())
        response = web.Response(text="taken")
        response.force_close()
        return response

    async def _drop(self, request: web.Request) -> web.Response:
        """Cancel receiving after the first piece, while the client waits for room to send more."""
        transport, length = request.transport, request.content_length
        assert isinstance(transport, TlsTransport)
        assert length is not None
        began, go_on = asyncio.Event(), threading.Event()

        def take(piece: memoryview) -> None:
            self.taken.put(bytes(piece))
            self._loop.call_soon_threadsafe(began.set)
            go_on.wait()

        self.taken.put(early := request.content.read_nowait())
        transport.pause_reading()
        taking = asyncio.create_task(transport.receive(length - len(early), take, 20.0))
        await began.wait()
        await asyncio.to_thread(self.full.wait)
        taking.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait([taking])
        self.taken.put(b"dropped")
        transport.abort()
        return web.Response()

    async def _refuse(self, request: web.Request) -> web.Response:
        response = web.Response(status=403, text="no", headers={"Connection": "close"})
        response.force_close()
        return response

    def connect(self) -> ssl.SSLSocket:
        """Return a connection for a client that controls its own reading."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return tls.client_context(self.ca).wrap_socket(plain, server_hostname="127.0.0.1")

    def curl(self, *options: str) -> bytes:
        """Run curl, which must succeed, and return its output."""
        command = ["curl", "--silent", "--show-error", "--cacert", str(self.ca), *options]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def url(self, path: str) -> str:
        """Return a URL of this server."""
        return f"https://127.0.0.1:{self.port}/{path}"

    def close(self) -> None:
        """Stop the server."""
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    made = _Server(tmp_path_factory.mktemp("tls"))
    yield made
    made.close()


def test_files_arrive_whole_and_in_part_on_one_connection(server: _Server, tmp_path: Path) -> None:
    content = server.file.read_bytes()
    whole, part = tmp_path / "whole", tmp_path / "part"
    url = server.url("file")
    server.curl(
        url, "-o", str(whole), "--next", "--cacert", str(server.ca), "-r", "4097-8500000", url, "-o", str(part)
    )
    assert whole.read_bytes() == content
    assert part.read_bytes() == content[4097:8500001]
    assert b"Content-Length: %d" % _SIZE in server.curl("--head", url)


def test_many_at_once_and_slow_readers(server: _Server) -> None:
    expected = hashlib.sha256(server.file.read_bytes()).hexdigest()
    slow = [_ask(server) for _ in range(12)]  # more than there are threads
    outputs = [server.curl(server.url("file")) for _ in range(3)]
    assert {hashlib.sha256(output).hexdigest() for output in outputs} == {expected}
    for connection in slow:
        with connection:
            assert hashlib.sha256(_read_body(connection)).hexdigest() == expected


def test_a_reader_that_goes_away_ends_its_own_request_only(server: _Server) -> None:
    server.lost.clear()
    for _ in range(3):
        connection = _ask(server)
        connection.recv(100_000)
        connection.close()
    assert len(server.curl(server.url("file"))) == _SIZE
    while len(server.lost) < 3:  # the test's time limit ends this loop
        server.curl("--head", server.url("file"))


def test_uploads_arrive_whole(server: _Server) -> None:
    digest = hashlib.sha256(server.file.read_bytes()).hexdigest()
    for more in ((), ("-H", "Transfer-Encoding: chunked")):
        answer = server.curl("--upload-file", str(server.file), *more, server.url("count"))
        assert answer.decode() == f"{_SIZE} {digest}"


def test_what_threads_receive_arrives_whole_and_in_order(server: _Server) -> None:
    assert server.curl("--upload-file", str(server.file), server.url("take")) == b"taken"
    assert _taken(server, _SIZE) == server.file.read_bytes()


def test_who_sends_slowly_is_taken_in_and_who_sends_nothing_is_not_waited_for(server: _Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"PUT /take HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        for number in range(2):  # each is much less than the awaited size
            connection.sendall(bytes([number]) * 1000)
            assert _taken(server, 1000) == bytes([number]) * 1000
        assert server.taken.get(timeout=20) == b"TimeoutError"
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_who_goes_away_while_it_sends_is_noticed(server: _Server) -> None:
    for sent in (10, 400_000):
        with server.connect() as connection:
            connection.sendall(b"PUT /take HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"y" * sent)
            assert _taken(server, sent) == b"y" * sent
        assert server.taken.get(timeout=20) == b"ConnectionResetError"


def test_what_is_taken_when_it_is_given_up_is_what_was_sent(server: _Server) -> None:
    content = server.file.read_bytes()
    with server.connect() as connection:
        connection.sendall(b"PUT /drop HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % _SIZE)
        connection.setblocking(False)
        sent = 0
        with contextlib.suppress(ssl.SSLWantWriteError):
            while sent < _SIZE:
                sent += connection.send(content[sent : sent + _CHUNK])
        connection.settimeout(20)
        server.full.set()
        # It is told at once, although it waits for room.
        with pytest.raises((ConnectionError, ssl.SSLError)):  # and not a `TimeoutError`
            _send_all(connection, content, sent)
    taken = bytearray()
    while not (piece := server.taken.get(timeout=20)).endswith(b"dropped"):
        taken += piece
    assert taken
    assert content.startswith(taken)


def test_many_that_send_slowly_hold_nobody_up(server: _Server) -> None:
    slow = [server.connect() for _ in range(40)]
    for connection in slow:
        connection.sendall(b"PUT /take HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nz")
    assert len(server.curl(server.url("file"))) == _SIZE
    for connection in slow:
        connection.close()
    ended = 0
    while ended < len(slow):
        ended += server.taken.get(timeout=20).endswith(b"Error")


def test_an_answer_before_the_end_of_an_upload_is_read(server: _Server) -> None:
    assert server.curl("--upload-file", str(server.file), "-H", "Expect:", server.url("no")) == b"no"


def test_requests_in_one_segment_are_answered_in_order(server: _Server) -> None:
    with server.connect() as connection:
        request = b"GET /file HTTP/1.1\r\nHost: x\r\nRange: bytes=%d-%d\r\n\r\n"
        connection.sendall(b"".join(request % (start, start + 9) for start in (0, 10, 20)))
        content = server.file.read_bytes()
        assert [_read_body(connection) for _ in range(3)] == [content[start : start + 10] for start in (0, 10, 20)]


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 9]
)
def test_what_is_not_tls_is_closed(server: _Server, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
        plain.sendall(said)
        with contextlib.suppress(OSError):  # it may have been reset by now
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(4096):
                pass
    assert len(server.curl("-r", "0-9", server.url("file"))) == 10


def _send_all(connection: ssl.SSLSocket, content: bytes, sent: int) -> None:
    """Send the rest of a content, beginning with the piece that TLS has begun."""
    while sent < len(content):
        sent += connection.send(content[sent : sent + _CHUNK])


def _taken(server: _Server, size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size:
        taken += server.taken.get(timeout=20)
    return bytes(taken)


def _ask(server: _Server) -> ssl.SSLSocket:
    connection = server.connect()
    connection.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def _read_body(connection: ssl.SSLSocket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = bytearray()
    while len(body) < length:
        piece = connection.recv(min(1 << 16, length - len(body)))
        assert piece, f"cut off after {len(body)}"
        body += piece
    return bytes(body)
