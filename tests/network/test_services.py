"""Services in the kernel: which end point answers whom, seen from pods and from the machine."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cumulet.common import router
from cumulet.common.namespaces import inside
from tests.cloud import Cloud
from tests.network.pods import SILENT, Client, Pod
from tests.network.services import Services

Pods = dict[str, Pod]


def test_a_cluster_ip_leads_to_ready_end_points_with_the_clients_address(
    services: Services, pods: Pods, client: Client, machine: Client, networked: Cloud
) -> None:
    address = services.make("web")
    services.until(lambda: client.tcp(address, 80), None)  # no end point: refused, and not silent
    services.slice("web", pods["one"].address, pods["two"].address)
    expected = {f"{name} {pods['client'].address}" for name in ("one", "two")}
    services.until(lambda: client.tcp(address, 80), *expected)
    assert {client.tcp(address, 80) for _ in range(40)} == expected
    own = router.machine_address(networked.config)
    assert {machine.tcp(address, 80) for _ in range(40)} == {f"{name} {own}" for name in ("one", "two")}
    assert client.tcp(address, 81) is None


def test_each_port_leads_to_the_port_of_the_slice_with_its_name(
    services: Services, pods: Pods, client: Client
) -> None:
    address = services.make("web", [{"name": "http", "port": 80}, {"name": "admin", "port": 9090}])
    services.slice("web", pods["one"].address, name="http", suffix="a")
    services.slice("web", pods["two"].address, name="admin", port=9090, suffix="b")
    services.until(lambda: client.who(address, 80), "one")
    services.until(lambda: client.who(address, 9090), "two")


def test_a_pod_reaches_itself_through_each_address(services: Services, pods: Pods, networked: Cloud) -> None:
    address = services.make("self", type="LoadBalancer")
    external = services.external("self")
    services.slice("self", pods["one"].address)
    own = Client(pods["one"].namespace)
    expected = f"one {router.gateway(networked.config)}"
    services.until(lambda: own.tcp(address, 80), expected)
    services.until(lambda: own.tcp(external, 80), expected)


def test_an_external_address_and_node_ports(
    services: Services, pods: Pods, client: Client, machine: Client, networked: Cloud
) -> None:
    services.make("web", type="LoadBalancer")
    external = services.external("web")
    services.slice("web", pods["one"].address)
    number = services.space.get("services", "web")["spec"]["ports"][0]["nodePort"]
    seen = f"one {pods['client'].address}"
    services.until(lambda: client.tcp(external, 80), seen)
    assert client.tcp(str(router.gateway(networked.config)), number) == seen
    local = f"one {router.machine_address(networked.config)}"
    assert machine.tcp(external, 80) == local
    assert machine.tcp("127.0.0.1", number) == local
    # As on Azure, an address or a port that no Service has is silent.
    assert client.tcp(external, 81) == SILENT
    assert client.tcp(external.rpartition(".")[0] + ".250", 80) == SILENT
    services.space.delete("services", "web")
    services.until(lambda: client.tcp(external, 80), SILENT)
    services.until(lambda: machine.tcp("127.0.0.1", number), None)


def test_end_points_that_terminate_serve_only_where_no_other_is_ready(
    services: Services, pods: Pods, client: Client
) -> None:
    address = services.make("web")
    ready = services.slice("web", pods["one"].address, suffix="ready")
    services.slice("web", pods["two"].address, suffix="ending", ready=False, serving=True, terminating=True)
    services.slice("web", pods["three"].address, suffix="late", ready=False, serving=False, terminating=True)
    services.until(lambda: client.who(address, 80), "one")
    assert {client.who(address, 80) for _ in range(20)} == {"one"}
    services.set(ready, pods["one"].address, ready=False)
    services.until(lambda: client.who(address, 80), "two")
    assert {client.who(address, 80) for _ in range(20)} == {"two"}
    services.space.delete("endpointslices", "web-ending")
    services.until(lambda: client.who(address, 80), None)


def test_a_client_keeps_its_end_point_until_that_is_gone(services: Services, pods: Pods, client: Client) -> None:
    address = services.make("web", sessionAffinity="ClientIP")
    names = ("one", "two", "three")
    addresses = {name: pods[name].address for name in names}
    made = services.slice("web", *addresses.values())
    first = str(services.until(lambda: client.who(address, 80), *names))
    assert {client.who(address, 80) for _ in range(20)} == {first}
    others = {name: pods[name].address for name in names if name != first}
    services.set(made, *others.values())
    second = services.until(lambda: client.who(address, 80), *others)
    assert {client.who(address, 80) for _ in range(20)} == {second}
    services.set(made, *addresses.values())
    assert {client.who(address, 80) for _ in range(20)} == {second}


def test_session_affinity_has_an_end(services: Services, pods: Pods, client: Client, networked: Cloud) -> None:
    config = {"clientIP": {"timeoutSeconds": 1234}}
    address = services.make("web", sessionAffinity="ClientIP", sessionAffinityConfig=config)
    services.slice("web", pods["one"].address)
    services.until(lambda: client.who(address, 80), "one")
    listed = listing(networked, "map ip services clients")
    assert f"{pods['client'].address} . {address} . tcp . 80 timeout 20m34s" in listed


def listing(cloud: Cloud, what: str) -> str:
    """What nft(8) lists in the router's namespace."""
    command = ["nft", "list", *what.split()]
    run = ["ip", "netns", "exec", router.namespace_name(cloud.config), *command]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def test_only_clients_of_the_source_ranges_reach_an_external_address(
    services: Services, pods: Pods, client: Client, machine: Client
) -> None:
    other = Client(pods["two"].namespace)
    address = services.make("web", type="LoadBalancer", loadBalancerSourceRanges=[f"{pods['client'].address}/32"])
    external = services.external("web")
    services.slice("web", pods["one"].address)
    services.until(lambda: client.who(external, 80), "one")
    assert other.who(external, 80) == SILENT
    assert machine.who(external, 80) == SILENT
    assert other.who(address, 80) == "one"


def test_who_allows_loopback_allows_this_machine(
    services: Services, pods: Pods, client: Client, machine: Client
) -> None:
    # Its clients have another source address there.
    services.make("web", type="LoadBalancer", loadBalancerSourceRanges=["127.0.0.0/8"])
    external = services.external("web")
    services.slice("web", pods["one"].address)
    services.until(lambda: machine.who(external, 80), "one")
    assert client.who(external, 80) == SILENT


def test_the_policy_local_leaves_end_points_of_this_machine(services: Services, pods: Pods, client: Client) -> None:
    address = services.make("web", internalTrafficPolicy="Local")
    made = services.slice("web", "192.0.2.9", pods["one"].address)
    services.until(lambda: client.who(address, 80), "one")
    assert {client.who(address, 80) for _ in range(20)} == {"one"}
    services.set(made, "192.0.2.9")
    services.until(lambda: client.who(address, 80), SILENT)


def test_datagrams_of_a_flow_move_when_their_end_point_is_gone(
    services: Services, pods: Pods, client: Client
) -> None:
    for name in ("one", "two"):
        with contextlib.suppress(OSError):
            pods[name].serve(5353, socket.SOCK_DGRAM)
    address = services.make("dns", [{"port": 53, "protocol": "UDP"}])
    made = services.slice("dns", pods["one"].address, port=5353, protocol="UDP")
    with client.open(socket.SOCK_DGRAM) as used:
        used.connect((address, 53))
        services.until(lambda: client.udp(address, 53, used), f"one {pods['client'].address}")
        services.set(made, pods["two"].address)
        services.until(lambda: client.udp(address, 53, used), f"two {pods['client'].address}")
        services.set(made)
        services.until(lambda: client.udp(address, 53, used), None)


def test_addresses_that_users_may_not_reach_are_skipped(
    services: Services, pods: Pods, client: Client, networked: Cloud
) -> None:
    refused = ["127.0.0.1", "169.254.169.254", str(router.machine_address(networked.config))]
    address = services.make("web")
    made = services.slice("web", *refused, pods["one"].address)
    services.until(lambda: client.who(address, 80), "one")
    assert {client.who(address, 80) for _ in range(20)} == {"one"}
    services.set(made, *refused)
    services.until(lambda: client.who(address, 80), None)


def test_of_two_services_with_one_address_the_older_keeps_it(
    services: Services, pods: Pods, client: Client, networked: Cloud
) -> None:
    """A user who may write the status of a Service writes the address of another one there."""
    services.make("elder", type="LoadBalancer")
    external = services.external("elder")
    services.slice("elder", pods["one"].address)
    services.until(lambda: client.who(external, 80), "one")
    networked.stop("balancer")  # which would take it away at once
    services.make("thief", [{"name": "a", "port": 80}, {"name": "b", "port": 81}], type="LoadBalancer")
    services.slice("thief", pods["two"].address, name="a", suffix="a")
    services.slice("thief", pods["two"].address, name="b", suffix="b")
    services.space.status("services", "thief", loadBalancer={"ingress": [{"ip": external}]})
    services.until(lambda: client.who(external, 81), "two")
    assert {client.who(external, 80) for _ in range(10)} == {"one"}
    services.space.delete("services", "elder")
    services.until(lambda: client.who(external, 80), "two")
    networked.start("balancer")


def test_a_loopback_range_of_external_addresses_is_for_the_machine(
    services: Services, pods: Pods, client: Client, machine: Client, networked: Cloud
) -> None:
    loopback = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.0/24"
    with contextlib.ExitStack() as stack:
        stack.callback(networked.kill, "network")  # last, with the settings of before
        stack.enter_context(networked.changed("balancer", external_cidr=loopback))
        networked.kill("network")
        services.make("web", type="LoadBalancer")
        external = services.external("web")
        services.slice("web", pods["one"].address)
        seen = f"one {router.machine_address(networked.config)}"
        services.until(lambda: machine.tcp(external, 80), seen)
        assert client.tcp(external, 80) is None  # which is the pod itself
        assert machine.tcp(external, 81) == SILENT
        services.make("closed", type="LoadBalancer", loadBalancerSourceRanges=["192.0.2.0/24"])
        closed = services.external("closed")
        address = services.space.get("services", "closed")["spec"]["clusterIP"]
        services.slice("closed", pods["one"].address)
        services.until(lambda: client.who(address, 80), "one")
        assert machine.tcp(closed, 80) == SILENT


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"type": "ExternalName", "externalName": "example.com"}])
def test_services_without_an_address_have_no_rules(
    services: Services, pods: Pods, client: Client, networked: Cloud, spec: dict[str, Any]
) -> None:
    services.make("none", **spec)
    services.slice("none", pods["one"].address)
    other = services.make("some")
    services.slice("some", pods["two"].address)
    services.until(lambda: client.who(other, 80), "two")
    assert pods["one"].address not in listing(networked, "map ip services endpoints")


def test_a_connection_that_the_kernel_forgot_is_reset(
    services: Services, pods: Pods, client: Client, networked: Cloud
) -> None:
    """As after the idle time-out of an external address."""
    services.make("web", type="LoadBalancer")
    external = services.external("web")
    server = inside(pods["three"].namespace, lambda: socket.create_server((pods["three"].address, 7070)))
    services.slice("web", pods["three"].address, port=7070)
    with server:
        services.until(lambda: connects(client, external), True)
        with client.open() as connection:
            connection.connect((external, 80))
            accepted, peer = server.accept()
            while peer != (pods["client"].address, connection.getsockname()[1]):  # of those before
                accepted.close()
                accepted, peer = server.accept()
            with accepted:
                connection.sendall(b"before")
                assert accepted.recv(100) == b"before"
                timeout = listing(networked, "ct timeout ip services idle4")
                assert "established : 240" in timeout
                flush_connections(networked)
                connection.sendall(b"after")
                with pytest.raises(ConnectionResetError):
                    connection.recv(100)


def connects(client: Client, host: str) -> bool:
    """Whether a connection to port 80 is made."""
    with client.open() as connection:
        return connection.connect_ex((host, 80)) == 0


def flush_connections(cloud: Cloud) -> None:
    """Make the kernel forget all connections of the router: `IPCTNL_MSG_CT_DELETE` without a selection."""

    def flush() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
            content = struct.pack("=BBH", 2, 0, 0)
            kernel.send(struct.pack("=IHHII", 16 + len(content), 1 << 8 | 2, 1 | 4, 1, 0) + content)
            assert struct.unpack_from("=i", kernel.recv(4096), 16)[0] == 0

    inside(router.namespace_name(cloud.config), flush)


def test_rules_are_there_while_the_room_is_not_and_again_after_a_flush(
    services: Services, pods: Pods, client: Client, machine: Client, networked: Cloud
) -> None:
    address = services.make("web", type="NodePort", sessionAffinity="ClientIP")
    number = services.space.get("services", "web")["spec"]["ports"][0]["nodePort"]
    made = services.slice("web", pods["one"].address, pods["two"].address)
    first = services.until(lambda: client.who(address, 80), "one", "two")
    networked.stop("network", 9)
    assert client.who(address, 80) == first
    services.set(made, pods["one"].address, pods["two"].address, pods["three"].address)
    networked.start("network")
    other = services.make("other")
    services.slice("other", pods["three"].address)
    services.until(lambda: client.who(other, 80), "three")
    assert {client.who(address, 80) for _ in range(20)} == {first}  # also after the start
    before = listing(networked, "table ip services")
    inside_router = ["ip", "netns", "exec", router.namespace_name(networked.config)]
    subprocess.run([*inside_router, "nft", "flush", "ruleset"], check=True)
    services.until(lambda: client.who(address, 80), "one", "two", "three")
    assert without_clients(listing(networked, "table ip services")) == without_clients(before)
    table = router.clients_table_name(networked.config)
    subprocess.run(["nft", "delete", "table", "ip", table], check=True)
    services.until(lambda: machine.who("127.0.0.1", number), "one", "two", "three")


def without_clients(text: str) -> list[str]:
    """The lines of a listing in order, without those of clients."""
    return sorted(line.strip(" \t,}") for line in text.splitlines() if "timeout" not in line)


def test_many_end_points_and_ports(services: Services, pods: Pods, client: Client) -> None:
    ports = [{"name": f"p{number}", "port": number} for number in range(1000, 1100)]
    address = services.make("many", ports)
    far = [f"192.0.2.{number}" for number in range(1, 250)]
    for number, suffix in enumerate("abcd"):
        services.slice("many", *far, name=f"p{1000 + number}", suffix=suffix)
    services.slice("many", pods["one"].address, name="p1099", suffix="last")
    services.until(lambda: client.who(address, 1099), "one")
    assert client.who(address, 1050) is None


def test_settings_of_the_machine_are_its_own(networked: Cloud) -> None:
    """Only the uplink takes replies to loopback addresses."""
    link = router.link_name(networked.config)
    for path in Path("/proc/sys/net/ipv4/conf").iterdir():
        if path.name not in ("all", "default") and not path.name.startswith("cu"):
            assert (path / "route_localnet").read_text().strip() == "0", path
    assert Path(f"/proc/sys/net/ipv4/conf/{link}/route_localnet").read_text().strip() == "1"
