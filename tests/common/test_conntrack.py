"""The kernel forgets the connections of an address, and of no other."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from cumulet.common import conntrack
from cumulet.common.namespaces import inside
from cumulet.common.nftables import Nftables

_RULES = """table ip watched {
  chain arriving {
    type filter hook prerouting priority filter; policy accept;
    ct state new counter
  }
}"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace that counts new connections."""
    name = f"cumulet-tracked-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        with Nftables(name) as rules:
            rules.run_now(_RULES)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def begun(namespace: str) -> int:
    """How many connections were new."""
    with Nftables(namespace) as rules:
        (rule,) = [item["rule"] for item in rules.listing_now("table ip watched") if "rule" in item]
    (count,) = [part["counter"]["packets"] for part in rule["expr"] if "counter" in part]
    return int(count)


def bound(namespace: str, address: str) -> socket.socket:
    made = inside(namespace, lambda: socket.socket(type=socket.SOCK_DGRAM))
    made.bind((address, 0))
    made.settimeout(20)
    return made


@pytest.mark.parametrize(
    ("address", "again"), [("127.0.0.2", 1), ("127.0.0.3", 1), ("127.0.0.4", 0)], ids=["client", "server", "other"]
)
def test_what_is_forgotten_begins_again(namespace: str, address: str, again: int) -> None:
    with bound(namespace, "127.0.0.2") as client, bound(namespace, "127.0.0.3") as server:

        def exchange() -> None:
            client.sendto(b"question", server.getsockname())
            _, whence = server.recvfrom(100)
            server.sendto(b"answer", whence)
            assert client.recv(100) == b"answer"

        exchange()
        exchange()
        assert begun(namespace) == 1
        conntrack.forget(namespace, ipaddress.IPv4Address(address))
        exchange()
        assert begun(namespace) == 1 + again


def test_there_may_be_nothing_to_forget(namespace: str) -> None:
    conntrack.forget(namespace, ipaddress.IPv4Address("127.0.0.9"))
