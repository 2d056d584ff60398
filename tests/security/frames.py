"""Ethernet frames, made and read by hand, and sockets that send and receive them within a network namespace."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BROADCAST = b"\xff" * 6
_ALL, _IPV4, _ARP, _IPV6 = 3, 0x0800, 0x0806, 0x86DD
_CLONE_NEWNET = 0x40000000


class Host(NamedTuple):
    """Who sends or receives."""

    mac: bytes
    address: str

    @property
    def packed(self) -> bytes:
        """The IPv4 address."""
        return ipaddress.IPv4Address(self.address).packed


def made_in(namespace: Path | None, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket of a network namespace, this process's own where none is given."""
    made: list[socket.socket] = []

    def run() -> None:
        if namespace is not None:
            descriptor = os.open(namespace, os.O_RDONLY)
            assert ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) == 0
            os.close(descriptor)
        made.append(make())

    # A namespace is a thread's own, and a socket stays in the one that it was made in.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    made[0].settimeout(20)
    return made[0]


def packets(interface: str, namespace: Path | None = None) -> socket.socket:
    """A socket on an interface that sees every frame and sends what it is told."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        made.bind((interface, _ALL))
        return made

    return made_in(namespace, make)


def udp(source: Host, target: Host, content: bytes, port: int = 9, from_port: int = 9, options: bytes = b"") -> bytes:
    """A datagram in a packet in a frame; no checksum, as IPv4 allows. Options fill whole words."""
    datagram = struct.pack(">HHHH", from_port, port, 8 + len(content), 0) + content
    length = 20 + len(options)
    fields = (0x40 | length // 4, 0, length + len(datagram), 0, 0, 64, 17, 0, source.packed, target.packed)
    head = struct.pack(">BBHHHBBH4s4s", *fields) + options
    total = sum(struct.unpack(f">{length // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return target.mac + source.mac + struct.pack(">H", _IPV4) + head + datagram


def arp(claimed: Host, target: Host, *, frame_from: bytes) -> bytes:
    """The answer that `claimed.address` is at `claimed.mac` (RFC 826), in a frame from `frame_from`."""
    head = struct.pack(">HHBBH", 1, _IPV4, 6, 4, 2)
    return (
        target.mac
        + frame_from
        + struct.pack(">H", _ARP)
        + head
        + claimed.mac
        + claimed.packed
        + target.mac
        + target.packed
    )


def other(source: Host, target: Host, kind: int, content: bytes) -> bytes:
    """A frame of another protocol."""
    return target.mac + source.mac + struct.pack(">H", kind) + content


def neighbour(source: Host, content: bytes) -> bytes:
    """IPv6 to all nodes of the link."""
    link_local = ipaddress.IPv6Address("fe80::1").packed
    everybody = ipaddress.IPv6Address("ff02::1").packed
    head = struct.pack(">IHBB", 6 << 28, len(content), 59, 255)
    return (
        b"\x33\x33\x00\x00\x00\x01" + source.mac + struct.pack(">H", _IPV6) + head + link_local + everybody + content
    )


def received_before(receiver: socket.socket, last: bytes) -> list[bytes]:
    """The frames that came, up to the one that carries `last`; they come in the order in which they were sent."""
    found: list[bytes] = []
    while True:
        frame = receiver.recv(65536)
        if last in frame:
            return found
        found.append(frame)
