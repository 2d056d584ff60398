"""The router's namespace: made, made again, found whole after damage, and removed without a trace."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.common import router
from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.common.namespaces import NAMESPACES, inside
from cumulet.up.install import install
from tests.installation import free_pod_cidr


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    ports = dict.fromkeys(DEFAULT_PORTS, 0)
    made = install(tmp_path / "data", ports=ports, pod_cidr=free_pod_cidr(), external_cidr="127.91.0.0/24")
    made = msgspec.structs.replace(made, service_cidr=f"{ipaddress.ip_network(free_pod_cidr()).network_address}/24")
    router.ensure(made)
    try:
        yield made
    finally:
        router.remove(made)


def ip(*words: str, namespace: str | None = None) -> list[dict[str, Any]]:
    command = ["ip", *(["-n", namespace] if namespace else []), "-json", *words]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout or "[]")
    return found


def state(config: Config) -> object:
    """What `ensure` makes, as the kernel shows it."""
    name = router.namespace_name(config)
    keys = ("dst", "gateway", "dev", "prefsrc")
    routes = [
        {key: route.get(key) for key in keys}
        for where in (name, None)
        for route in ip("-4", "route", namespace=where)
        if where or route.get("dev") == router.link_name(config)
    ]
    links = {link["ifname"]: link["operstate"] for link in ip("link", namespace=name)}
    table = ["nft", "list", "table", "ip", router.table_name(config)]
    return routes, links, subprocess.run(table, capture_output=True, text=True, check=True).stdout


def test_the_machine_reaches_a_door_and_nothing_else_does(config: Config) -> None:
    door = router.open_socket(router.namespace_name(config), socket.AF_INET, socket.SOCK_STREAM)
    with door:
        door.bind((str(router.gateway(config)), 0))
        door.listen()
        with socket.create_connection(door.getsockname(), timeout=10) as client:
            accepted, peer = door.accept()
            accepted.close()
            assert peer[0] == client.getsockname()[0] == str(router.machine_address(config))


def test_the_machine_takes_no_connection_from_the_router(config: Config) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        own = [address["local"] for link in ip("-4", "addr") for address in link["addr_info"]]

        def connects(host: str) -> bool:
            with socket.socket() as client:
                client.settimeout(0.3)
                try:
                    client.connect((host, port))
                except OSError:
                    return False
                return True

        assert str(router.machine_address(config)) in own
        reached = inside(router.namespace_name(config), lambda: [host for host in own if connects(host)])
    assert reached == []


def test_it_is_made_again_after_damage(config: Config) -> None:
    before, name = state(config), router.namespace_name(config)
    known = ("neigh", "replace", "203.0.113.9", "lladdr", "0a:58:00:00:00:09", "dev", router.BRIDGE)
    subprocess.run(["ip", "-n", name, *known], check=True)
    router.ensure(config)
    assert state(config) == before
    # What the bridge knows of its ports stays.
    assert [item["dst"] for item in ip("neigh", "show", "nud", "permanent", namespace=name)] == ["203.0.113.9"]
    subprocess.run(["nft", "delete", "table", "ip", router.table_name(config)], check=True)
    subprocess.run(["ip", "link", "delete", router.link_name(config)], check=True)
    router.ensure(config)
    assert state(config) == before
    # What a machine without power, or a killed ip(8), leaves: the file of a namespace that is gone.
    subprocess.run(["ip", "netns", "delete", router.namespace_name(config)], check=True)
    (NAMESPACES / router.namespace_name(config)).touch()
    assert not router.is_there(config)
    router.ensure(config)
    assert state(config) == before


def test_nothing_is_left(config: Config) -> None:
    assert router.remove(config) == [
        f"link {router.link_name(config)}",
        f"network namespace {router.namespace_name(config)}",
        f"table ip {router.table_name(config)}",
    ]
    assert not router.is_there(config)
    assert router.remove(config) == []
    assert str(ipaddress.ip_network(config.pod_cidr)) not in [route["dst"] for route in ip("-4", "route")]


def test_settings_are_the_namespaces_own(config: Config) -> None:
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    machine = forward.read_text()
    assert inside(router.namespace_name(config), forward.read_text) == "1\n"
    router.remove(config)
    router.ensure(config)
    assert forward.read_text() == machine


def test_a_range_that_the_machine_has_already_gets_no_route(config: Config) -> None:
    taken = ip("-4", "route", "show", "scope", "link")[0]["dst"]
    other = msgspec.structs.replace(config, service_cidr=taken, external_cidr="127.90.0.0/24")
    assert router.routed_ranges(other) == []
    assert [str(found) for found in router.routed_ranges(config)] == [config.service_cidr]
