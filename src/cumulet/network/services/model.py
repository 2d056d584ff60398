"""The desired state of Services in the kernel: front ends, and where each leads.

All values are parsed: addresses are IPv4 in canonical form, ports are from 1 to 65535. No text of a user is here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Protocol = Literal["tcp", "udp", "sctp"]

#: The names of the Kubernetes API for what a Service can have.
PROTOCOLS: dict[str, Protocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


class Frontend(NamedTuple):
    """What a client connects to."""

    address: str
    protocol: Protocol
    port: int


class Backend(NamedTuple):
    """The address and port of an end point."""

    address: str
    port: int


class Target(NamedTuple):
    """Where a front end leads.

    - Without `backends`, clients are refused at once, or their packets are dropped if `dropped`.
    - `affinity` is how long a client keeps its end point after its last connection, in seconds.
    - `sources` are the ranges of allowed clients, without overlaps, in CIDR; `None` is everybody.
    - `idle` is the idle timeout of TCP connections, in minutes; `None` is the kernel's own.
    """

    backends: tuple[Backend, ...]
    dropped: bool = False
    affinity: int | None = None
    sources: tuple[str, ...] | None = None
    idle: int | None = None


class Served(NamedTuple):
    """All front ends of a Service, and its cluster IP if it has one that is served."""

    cluster_ip: str | None
    frontends: dict[Frontend, Target]


NOTHING = Served(None, {})
