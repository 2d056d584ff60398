"""IPv4 packets made and read by hand: probes that carry a number, and what arrives of them."""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from typing import NamedTuple

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}


class Probe(NamedTuple):
    """A packet that opens a connection; `number` is in it, and in no other packet of the test."""

    source: str
    target: str
    protocol: str
    port: int
    number: int
    source_port: int = 40000


def packet(source: str, target: str, protocol: int, body: bytes, options: bytes = b"", offset: int = 0) -> bytes:
    """An IPv4 packet; `offset` is the field of fragments, with its flags."""
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | length // 4,
        0,
        length + len(body),
        0x1234,
        offset,
        64,
        protocol,
        0,
        ipaddress.IPv4Address(source).packed,
        ipaddress.IPv4Address(target).packed,
    )
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def written(probe: Probe) -> bytes:
    """The packet of a probe."""
    return packet(probe.source, probe.target, PROTOCOLS[probe.protocol], body_of(probe))


def body_of(probe: Probe, flags: int = 0x02) -> bytes:
    """What follows the IPv4 header: a TCP segment with these flags (SYN), a datagram, an SCTP INIT, or an echo request."""
    ports = struct.pack("!HH", probe.source_port, probe.port)
    match probe.protocol:
        case "tcp":
            segment = ports + struct.pack("!IIBBHHH", probe.number, 0, 0x50, flags, 64000, 0, 0)
            return _summed(probe, segment, 16)
        case "udp":
            return _summed(probe, ports + struct.pack("!HHI", 12, 0, probe.number), 6)
        case "sctp":
            init = struct.pack("!BBHIIHHI", 1, 0, 20, probe.number, 64000, 1, 1, 1)
            plain = ports + struct.pack("!II", 0, 0) + init
            return plain[:8] + struct.pack("<I", crc32c(plain)) + init
        case _:
            echo = struct.pack("!BBHHHI", 8, 0, 0, probe.source_port, 1, probe.number)
            return echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]


class Arrival(NamedTuple):
    """A packet that arrived: its addresses, protocol and body."""

    source: str
    target: str
    protocol: int
    body: bytes

    @property
    def number(self) -> int | None:
        """The number of the probe that this is, or `None` for any other packet."""
        body = self.body
        if self.protocol == PROTOCOLS["tcp"] and len(body) >= 20:
            return int.from_bytes(body[4:8]) if body[13] & 0x04 == 0 else None
        if self.protocol == PROTOCOLS["udp"] and len(body) == 12:
            return int.from_bytes(body[8:])
        if self.protocol == PROTOCOLS["sctp"] and len(body) >= 20 and body[12] == 1:
            return int.from_bytes(body[16:20])
        if self.protocol == PROTOCOLS["icmp"] and len(body) == 12 and body[0] == 8:
            return int.from_bytes(body[8:])
        return None


def read(raw: bytes) -> Arrival:
    """An IPv4 packet as it arrived."""
    length = (raw[0] & 15) * 4
    source, target = (socket.inet_ntoa(raw[start : start + 4]) for start in (12, 16))
    return Arrival(source, target, raw[9], raw[length : int.from_bytes(raw[2:4])])


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _summed(probe: Probe, body: bytes, place: int) -> bytes:
    ends = ipaddress.IPv4Address(probe.source).packed + ipaddress.IPv4Address(probe.target).packed
    pseudo = ends + struct.pack("!BBH", 0, PROTOCOLS[probe.protocol], len(body))
    return body[:place] + struct.pack("!H", checksum(pseudo + body)) + body[place + 2 :]


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _crc_table()[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table
