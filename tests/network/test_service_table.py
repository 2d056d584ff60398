"""The table of Services: every sequence of changes ends in the table that is made anew, and hostile values end nowhere."""

from __future__ import annotations

import random
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cumulet.common.nftables import Nftables
from cumulet.network.services.endpoints import backends
from cumulet.network.services.frontends import Site, served
from cumulet.network.services.model import NOTHING, Backend, Frontend, Target
from cumulet.network.services.table import Setting, Table
from tests.network.services import site_of

SETTING = Setting("10.0.0.0/16", "10.242.0.0/24", "uplink", "10.241.0.2")
FRONTENDS = [
    Frontend(address, protocol, port)
    for address in ("10.0.0.7", "10.242.0.9")
    for protocol in ("tcp", "udp", "sctp")
    for port in (1, 80, 65535)
]
SITE: Site = site_of("10.241.0.0/16", "10.242.0.0/24")


@pytest.fixture
def kernel() -> Iterator[tuple[str, Nftables]]:
    """A network namespace without anything in it."""
    name = f"cst-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with Nftables(name) as nftables:
            yield name, nftables
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def listing(namespace: str) -> list[str]:
    """What nft(8) lists, in order."""
    command = ["ip", "netns", "exec", namespace, "nft", "list", "table", "ip", "services"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = text.replace("elements = {", "").splitlines()
    return sorted(part.strip(" \t{}") for line in lines for part in line.split(","))


def some_target(chance: random.Random) -> Target | None:
    count = chance.choice((0, 0, 1, 2, 3, 10))
    ends = {Backend(f"10.241.0.{chance.randrange(3, 12)}", chance.choice((80, 8080))) for _ in range(count)}
    affinity = chance.choice((None, None, 1, 10800))
    if affinity is not None:  # one port of each address, as in every Service
        ends = {Backend(end.address, 80) for end in ends}
    return chance.choice(
        [
            None,
            Target(
                tuple(sorted(ends)),
                dropped=not ends and chance.random() < 0.5,
                affinity=affinity,
                sources=chance.choice((None, (), ("192.0.2.0/24", "198.51.100.7/32"))),
                idle=chance.choice((None, 4, 100)),
            ),
        ]
    )


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_changes_is_as_the_whole(kernel: tuple[str, Nftables], seed: int) -> None:
    namespace, nftables = kernel
    chance = random.Random(seed)
    table = Table(SETTING)
    nftables.run_now(table.whole())
    for _ in range(40):
        changed = {frontend: some_target(chance) for frontend in chance.sample(FRONTENDS, chance.randrange(1, 5))}
        known = {"10.0.0.7": chance.random() < 0.5}
        if script := table.change(changed, known):
            nftables.run_now(script)
    found = listing(namespace)
    nftables.run_now(table.whole(anew=True))
    assert listing(namespace) == found
    # It also replaces what somebody else left there.
    nftables.run_now("add element ip services refused { 203.0.113.1 . tcp . 1 }\nadd chain ip services n999\n")
    nftables.run_now(table.whole(["n999", "unserved", "refuse"]))
    assert listing(namespace) == found
    nftables.run_now(table.change(dict.fromkeys(table.frontends), {"10.0.0.7": False}))
    empty = listing(namespace)
    nftables.run_now(Table(SETTING).whole(anew=True))
    assert listing(namespace) == empty


def test_one_of_a_thousand_endpoints_changes_a_few_elements(kernel: tuple[str, Nftables]) -> None:
    table = Table(SETTING)
    many = tuple(Backend(f"10.241.{number // 250}.{number % 250 + 3}", 80) for number in range(1000))
    kernel[1].run_now(table.whole() + table.change({FRONTENDS[0]: Target(many)}, {}))
    script = table.change({FRONTENDS[0]: Target((*many[1:], Backend("10.241.9.9", 80)))}, {})
    assert script.count("10.0.0.7") == 2
    kernel[1].run_now(script)
    drawn = table.frontends[FRONTENDS[0]].backends
    assert Counter(drawn) == Counter((*many[1:], Backend("10.241.9.9", 80)))


SERVICE: dict[str, Any] = {
    "metadata": {"name": "x", "namespace": 'x"; flush ruleset; "'},
    "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.7", "ports": [{"port": 80, "nodePort": 30080}]},
    "status": {"loadBalancer": {"ingress": [{"ip": "10.242.0.9"}]}},
}


def slices(addresses: list[Any], port: Any = 80, kind: str = "IPv4") -> list[Any]:
    """An EndpointSlice with endpoints that are ready."""
    endpoints = [{"addresses": [address]} for address in addresses]
    return [{"metadata": {}, "addressType": kind, "endpoints": endpoints, "ports": [{"port": port}]}]


@pytest.mark.parametrize(
    "hostile",
    [
        "10.241.0.5; flush ruleset",
        "10.241.0.5 }\nflush ruleset\n",
        "010.241.0.5",
        "10.241.5",
        "",
        "::ffff:10.241.0.5",
        "10.241.0.5/8",
        "\u0661\u0660.241.0.5",
        "10.241.0.2",
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.7",
        "10.242.0.9",
        "255.255.255.255",
    ],
)
def test_no_endpoint_has_such_an_address(hostile: str) -> None:
    assert backends(slices([hostile]), {"port": 80}, SITE.reachable) == ()
    spec = {**SERVICE["spec"], "clusterIP": hostile}
    status = {"loadBalancer": {"ingress": [{"ip": hostile}]}}
    found = served({**SERVICE, "spec": spec, "status": status}, slices(["10.241.0.5"]), SITE)  # type: ignore[typeddict-item]
    expected = {"10.0.0.7", SITE.gateway} if hostile == "10.0.0.7" else {hostile, SITE.gateway}
    assert {frontend.address for frontend in found.frontends} <= expected
    assert found == NOTHING or hostile.startswith("10.")


@pytest.mark.parametrize("port", [None, 0, -1, 65536, 10**12])
def test_no_endpoint_has_such_a_port(port: int | None) -> None:
    assert backends(slices(["10.241.0.5"], port), {"port": 80}, SITE.reachable) == ()


def test_an_endpoint_of_another_kind_is_no_use() -> None:
    assert backends(slices(["10.241.0.5"], kind="IPv6"), {"port": 80}, SITE.reachable) == ()
    assert backends(slices(["10.241.0.5"], kind="FQDN"), {"port": 80}, SITE.reachable) == ()
    assert backends(slices(["10.241.0.5"]), {"port": 80, "name": "other"}, SITE.reachable) == ()
    assert backends(slices(["10.241.0.5"]), {"port": 80, "protocol": "UDP"}, SITE.reachable) == ()


def test_an_address_outside_the_pool_is_not_served() -> None:
    for address in ("10.243.0.9", "8.8.8.8", "127.0.0.1", "10.241.0.1"):
        status = {"loadBalancer": {"ingress": [{"ip": address}]}}
        found = served({**SERVICE, "status": status}, slices(["10.241.0.5"]), SITE)  # type: ignore[typeddict-item]
        assert {frontend.address for frontend in found.frontends} == {"10.0.0.7", SITE.gateway}
    other = {**SERVICE["spec"], "loadBalancerClass": "example.com/other"}
    found = served({**SERVICE, "spec": other}, slices(["10.241.0.5"]), SITE)  # type: ignore[typeddict-item]
    assert "10.242.0.9" not in {frontend.address for frontend in found.frontends}
    gateway = {**SERVICE["spec"], "clusterIP": SITE.gateway}
    assert served({**SERVICE, "spec": gateway}, [], SITE) == NOTHING  # type: ignore[typeddict-item]
