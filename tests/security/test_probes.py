"""Probes of one group do not wait for those of another, and connect to no address that the egress check refuses."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cumulet.common.egress import Egress
from cumulet.instances.actions import grpc, http, tcp
from cumulet.instances.actions.targets import open_targets
from cumulet.instances.model.lifecycle import GrpcAction, HttpGet, TcpSocket

#: More than a client of aiohttp has at once, if nothing is said.
_SILENT = 150


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_containers_that_do_not_answer_hold_up_no_other_groups_probe() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * _SILENT) as hostile:
        # The kernel takes the connections, and nobody answers.
        other = await asyncio.start_server(_answer, "127.0.0.1", 0)
        ports = [hostile.getsockname()[1], other.sockets[0].getsockname()[1]]
        slow, usual = (HttpGet(port=port, path="/") for port in ports)
        async with other, open_targets(Egress()) as targets:
            asking = [asyncio.create_task(http.get(slow, "127.0.0.1", targets, 60, "probe")) for _ in range(_SILENT)]
            for _ in asking:
                await asyncio.sleep(0)
            assert (await http.get(usual, "127.0.0.1", targets, 60, "probe")).outcome == "success"
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254"])
async def test_a_host_of_an_action_is_not_this_machine(host: str) -> None:
    reached = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, open_targets(Egress()) as targets:
        asked = await http.get(HttpGet(port=port, host=host), "10.0.0.1", targets, 5, "probe")
        dialled = await tcp.dial(TcpSocket(port=port, host=host), "10.0.0.1", targets, 5)
    for outcome, output in (asked, dialled):
        assert outcome == "failure"
        assert "the address is not allowed" in output
    assert not reached.is_set()


async def test_a_redirect_does_not_lead_to_another_host() -> None:
    asked = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split()[1])
        target = b"/second" if len(asked) == 1 else b"http://localhost:1/third"
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server, open_targets(Egress()) as targets:
        action = HttpGet(port=server.sockets[0].getsockname()[1], path="/first")
        result = await http.get(action, "127.0.0.1", targets, 5, "probe")
    assert result == ("warning", "Probe terminated redirects, Response body: ")
    assert asked == [b"/first", b"/second"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "server closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak HTTP/2"),
        (b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\xff", "the block ends early"),
        (b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\xfe", "not in the static table"),
        (b"\x00\x00\x00\x01\x05\x00\x00\x00\x01", "unexpected HTTP status code"),
        (b"\x00\x00\x01\x00\x08\x00\x00\x00\x01\xff", "the padding is longer"),
        (b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07", "RST_STREAM with error code: 7"),
        (b"\x00\x40\x00\x06\x00\x00\x00\x00\x00" + bytes(0x4000), "the answer is too large"),
    ],
)
async def test_a_hostile_answer_to_a_grpc_probe_is_a_failure(answer: bytes, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SM\r\n\r\n")
        for _ in range(10):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, open_targets(Egress()) as targets:
        action = GrpcAction(port=server.sockets[0].getsockname()[1])
        outcome, output = await grpc.check(action, "127.0.0.1", targets, 5)
    assert outcome == "failure"
    assert said in output
