"""What probes and hooks send, and what they make of the answers, as the kubelet does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.common.egress import Egress
from cumulet.instances.actions import grpc, http, tcp
from cumulet.instances.actions.targets import Targets, open_targets
from cumulet.instances.model.lifecycle import GrpcAction, HttpGet, HttpHeader, TcpSocket, signal_number

HERE = "127.0.0.1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each connection with the same bytes, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server, while the context lasts."""
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, HERE, 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


@pytest.fixture
async def targets() -> AsyncIterator[Targets]:
    """What actions connect to."""
    async with open_targets(Egress()) as opened:
        yield opened


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server((HERE, 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


async def test_headers_are_sent_as_the_kubelet_sends_them(targets: Targets) -> None:
    headers = [HttpHeader(name="Host", value="app.test"), HttpHeader(name="X-A", value="1")]
    headers += [HttpHeader(name="X-A", value="2"), HttpHeader(name="accept", value="")]
    async with serving(OK) as server:
        action = HttpGet(port=server.port, path="/health?full=1", http_headers=headers)
        assert (await http.get(action, HERE, targets, 5, "probe")).outcome == "success"
        plain = HttpGet(port=server.port, path="health")
        assert (await http.get(plain, HERE, targets, 5, "probe")).outcome == "success"
    first, second = (request.decode().split("\r\n") for request in server.asked)
    assert first[0] == "GET /health?full=1 HTTP/1.1"
    assert sorted(first[1:-2]) == [
        "Connection: close", "Host: app.test", "User-Agent: kube-probe/1.36", "X-A: 1", "X-A: 2",
    ]  # fmt: skip
    assert second[0] == "GET /health HTTP/1.1"
    assert {"Accept: */*", f"Host: {HERE}:{server.port}"} <= {*second}


@pytest.mark.parametrize(
    ("answer", "outcome", "output"),
    [
        (OK, "success", "ok"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "failure", "HTTP probe failed with statuscode: 500"),
        (
            b"HTTP/1.1 399 Odd\r\nContent-Length: 1\r\n\r\nx",
            "warning",
            "Probe terminated redirects, Response body: x",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere.test/\r\nContent-Length: 1\r\n\r\nx",
            "warning",
            "Probe terminated redirects, Response body: x",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
            "failure",
            "stopped after 10 redirects",
        ),
        (b"", "failure", ": EOF"),
        (b"what\r\n\r\n", "failure", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + b"y" * 30000, "success", "y" * 10240),
    ],
)
async def test_an_answer_is_judged_as_the_kubelet_does(
    targets: Targets, answer: bytes, outcome: str, output: str
) -> None:
    async with serving(answer) as server:
        result = await http.get(HttpGet(port=server.port), HERE, targets, 5, "probe")
    assert result.outcome == outcome
    assert result.output.endswith(output)


async def test_connect_errors_have_the_words_of_the_kubelet(targets: Targets) -> None:
    port = free_port()
    refused = f"dial tcp {HERE}:{port}: connect: connection refused"
    assert await tcp.dial(TcpSocket(port=port), HERE, targets, 5) == ("failure", refused)
    result = await http.get(HttpGet(port=port, path="/x"), HERE, targets, 5, "probe")
    assert result == ("failure", f'Get "http://{HERE}:{port}/x": {refused}')
    called = await grpc.check(GrpcAction(port=port), HERE, targets, 1)
    assert called.output == (
        f'timeout: failed to connect service "{HERE}:{port}" within 1s: context deadline exceeded'
    )
    with socket.create_server((HERE, 0)) as silent:
        port = silent.getsockname()[1]
        late = await http.get(HttpGet(port=port), HERE, targets, 0.2, "probe")
        assert late.output.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        assert (await tcp.dial(TcpSocket(port=port), HERE, targets, 5)).outcome == "success"
        called = await grpc.check(GrpcAction(port=port), HERE, targets, 1)
        assert called.output == "timeout: health rpc did not complete within 1s"


async def test_certificates_are_not_verified(targets: Targets, shared_config: Config, tmp_path: Path) -> None:
    context = tls.server_context(*shared_config.room_files("instances"))
    async with serving(OK, context) as server:
        action = HttpGet(port=server.port, scheme="HTTPS")
        assert (await http.get(action, HERE, targets, 5, "probe")).outcome == "success"

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(plain, HERE, 0)
    async with listening:
        action = HttpGet(port=listening.sockets[0].getsockname()[1], scheme="HTTPS")
        result = await http.get(action, HERE, targets, 5, "probe")
    assert result.output.endswith("http: server gave HTTP response to HTTPS client")


#: What gRPC's server in C wrote after its settings: NOT_SERVING, and the trailers of an unknown service.
_HEADERS = (
    "00004f0104000000012088400c636f6e74656e742d74797065106170706c69636174696f6e2f677270634014677270632d6163636570742d656e"
    "636f64696e67176964656e746974792c206465666c6174652c20677a6970"
)
_SETTINGS = "000018040000000000000400400000000500400000000600004000fe0300000001"
_NOT_SERVING = (
    "0000070000000000010000000002080200001e010500000001400b677270632d7374617475730130000c677270632d6d65737361676500"
)
_UNKNOWN = "00001e010500000001400b677270632d7374617475730135000c677270632d6d65737361676500"
#: The trailers `grpc-status: 12`, `grpc-message: a b` as Go packs them.
_PACKED = "00001d0105000000012040889acac8b21234da8f8208bf40899acac8b5254207317f831a91ff"


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        (_HEADERS + _NOT_SERVING, 'service unhealthy (responded with "NOT_SERVING")'),
        (_HEADERS + _NOT_SERVING.replace("0802", "0801"), "service healthy"),
        (
            _HEADERS + _PACKED,
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): a b",
        ),
        (_HEADERS + _UNKNOWN, "error: health rpc probe failed: rpc error: code = NotFound desc = "),
    ],
)
async def test_a_grpc_answer_is_judged_as_the_kubelet_does(targets: Targets, answer: str, output: str) -> None:
    async with serving(bytes.fromhex(_SETTINGS + answer)) as server:
        result = await grpc.check(GrpcAction(port=server.port, service="db"), HERE, targets, 5)
    assert result == ("success" if output == "service healthy" else "failure", output)


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("int", 2), ("3", 3), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGNOT", None), ("0", None),
     ("65", None), ("SIGRTMIN-1", None), ("\u0661", None)],
)  # fmt: skip
def test_signals_have_names_and_numbers(name: str, number: int | None) -> None:
    assert signal_number(name) == number
