"""Frames that no client sends, to everything that speaks WebSocket: the API server ends that connection and goes on."""

from __future__ import annotations

import asyncio
import random
import ssl
import struct
import uuid
from collections.abc import Iterator

import pytest

from tests.kube.conftest import Server, cloud, server
from tests.kube.kubelet import StandInKubelet

__all__ = ["cloud", "server"]

_SEED = 6455
_CONNECTIONS = 60
_PATHS = (
    "exec?command=cat&stdin=true&stdout=true&stderr=true",
    "attach?stdin=true&stdout=true",
    "portforward?ports=80",
    "log",
)
_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "SPDY/3.1+portforward.k8s.io",
    "binary.k8s.io",
    "",
    "nobody.example.com",
)


@pytest.fixture(scope="module")
def pod(server: Server) -> Iterator[str]:
    """The path of a pod that runs on a node with a kubelet that stands in."""
    kubelet = StandInKubelet(server.cloud.config)
    node = f"n{uuid.uuid4().hex[:8]}"
    server.make("/api/v1/nodes", {"metadata": {"name": node}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
    }
    server.call(
        "PATCH", f"/api/v1/nodes/{node}/status", {"status": status}, content_type="application/merge-patch+json"
    )
    space = server.namespace(f"w{uuid.uuid4().hex[:8]}")
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}
    server.make(f"{space}/pods", {"metadata": {"name": "p"}, "spec": spec})
    yield f"{space}/pods/p"
    server.call("DELETE", f"{space}/pods/p?gracePeriodSeconds=0")
    server.call("DELETE", f"/api/v1/nodes/{node}")
    kubelet.close()


class Frames:
    """Makes frames, always the same ones (RFC 6455, 5.2)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def frame(self) -> bytes:
        """One frame: with reserved bits and opcodes, no mask, false lengths, broken texts, now and then."""
        chance = self.random.random
        opcode = self.random.choice((0, 1, 2, 2, 2, 8, 9, 10, 3, 7, 11, 15))
        payload = self.random.choice(
            (
                b"",
                b"\x00",
                b"\x00data",
                b"\x04" + b'{"Width":-1,"Height":99999999999}',
                b"\xff\x00",
                b"\xff\xff",
                b"\x03\xe8" + b"\xff" * 10,
                b"\x80\x03\x00\x01\x00\x00\x00\x0a",
                b"\x80\x03\x00\x07\x00\xff\xff\xff",
                self.random.randbytes(200),
                b"a" * 70_000,
            )
        )
        first = (0x80 if chance() < 0.8 else 0) | (0x40 if chance() < 0.1 else 0) | opcode
        length = len(payload)
        if chance() < 0.1:
            length = self.random.choice((2**31, 2**62, 2**63 - 1, length + 1))
        masked = 0x80 if chance() < 0.9 else 0
        if length < 126:
            head = struct.pack("!BB", first, masked | length)
        elif length < 2**16:
            head = struct.pack("!BBH", first, masked | 126, length)
        else:
            head = struct.pack("!BBQ", first, masked | 127, length)
        mask = self.random.randbytes(4) if masked else b""
        return head + mask + payload


async def _exchange(server: Server, context: ssl.SSLContext, path: str, protocol: str, frames: list[bytes]) -> bytes:
    """The beginning of the answer to a handshake; then the frames are sent, and the connection is left."""
    address = server.cloud.config.addresses["kube"]
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        if protocol:
            lines.append(f"Sec-WebSocket-Protocol: {protocol}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.startswith(b"HTTP/1.1 101"):
            for frame in frames:
                writer.write(frame)
                await writer.drain()
        return answer
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""  # it has closed
    finally:
        writer.transport.abort()


def descriptors(server: Server) -> int:
    """How many the server has open, as it says itself."""
    text = server.call("GET", "/metrics").body.decode()
    (found,) = [line for line in text.splitlines() if line.startswith("process_open_fds ")]
    return int(float(found.split()[1]))


@pytest.mark.parametrize("path", _PATHS)
async def test_frames_that_are_none(server: Server, pod: str, path: str) -> None:
    made = Frames(_SEED)
    context = server.tls
    seen = set()
    for _ in range(_CONNECTIONS):
        protocol = made.random.choice(_PROTOCOLS)
        frames = [made.frame() for _ in range(made.random.randrange(1, 12))]
        answer = await _exchange(server, context, f"{pod}/{path}", protocol, frames)
        status = int(answer.split()[1]) if answer else 0
        # 500 is the protocol's own where the pod's node does not take what is asked for.
        assert status in (0, 101, 200, 400, 403, 404, 406, 426, 500), answer[:300]
        seen.add(status)
    assert 101 in seen, seen
    # It is there, and the pod can be reached as before.
    assert server.call("GET", "/readyz").status == 200
    assert server.call("GET", pod).status == 200


async def test_connections_that_are_left_are_closed(server: Server, pod: str) -> None:
    before = descriptors(server)
    made = Frames(_SEED + 1)
    await asyncio.gather(
        *[
            _exchange(server, server.tls, f"{pod}/exec?command=cat&stdin=true&stdout=true", name, [made.frame()])
            for name in ("v4.channel.k8s.io", "v5.channel.k8s.io") * 10
        ]
    )
    # Each look is a request, during which the server goes on; the time of the test is the limit.
    while descriptors(server) > before + 5:
        continue
    assert server.call("GET", "/readyz").status == 200
