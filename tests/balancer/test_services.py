"""Services of type LoadBalancer: their addresses, their ports, and the endpoints behind them."""

from __future__ import annotations

import ipaddress

import pytest

from tests.balancer.conftest import Balanced, Endpoint, ingress
from tests.cloud import Cloud
from tests.controllers.space import Object

Endpoints = tuple[Endpoint, Endpoint]
HTTP: list[Object] = [{"port": 80, "targetPort": 8080}]


def test_a_service_gets_an_address_of_the_range(balanced: Balanced, balancing: Cloud) -> None:
    balanced.service("web", HTTP)
    address = balanced.address("web")
    assert ipaddress.ip_address(address) in ipaddress.ip_network(balancing.config.external_cidr)
    assert balanced.space.get("services", "web")["status"]["loadBalancer"] == {
        "ingress": [{"ip": address, "ipMode": "VIP"}]
    }
    assert balanced.space.kubectl("get", "service", "web", "-o", "wide").split().count(address) == 1
    balanced.space.wait_event("web", "EnsuredLoadBalancer")


def test_each_service_has_its_own_address(balanced: Balanced) -> None:
    names = ("web-1", "web-2", "web-3")
    for name in names:
        balanced.service(name, HTTP)
    assert len({balanced.address(name) for name in names}) == len(names)


def test_each_port_leads_to_the_port_of_the_slice_with_its_name(balanced: Balanced, endpoints: Endpoints) -> None:
    one, two = endpoints
    balanced.slice("web", one.port, name="http", suffix="a")
    balanced.slice("web", two.port, name="admin", suffix="b")
    balanced.service("web", [{"name": "http", "port": 80}, {"name": "admin", "port": 9090}])
    address = balanced.address("web")
    assert balanced.wait(address, 80, "one")
    assert balanced.wait(address, 9090, "two")
    assert {balanced.connect(address, 80) for _ in range(4)} == {"one"}
    assert balanced.connect(address, one.port) is None


def test_an_endpoint_may_send_first_and_close(balanced: Balanced, endpoints: Endpoints) -> None:
    balanced.slice("web", endpoints[0].port)
    balanced.service("web", HTTP)
    address = balanced.address("web")
    balanced.wait(address, 80, "one")
    assert [balanced.connect(address, 80) for _ in range(50)] == ["one"] * 50


def test_the_node_port_leads_to_the_same_endpoints(balanced: Balanced, endpoints: Endpoints) -> None:
    balanced.slice("web", endpoints[0].port)
    service = balanced.service("web", HTTP)
    assert balanced.wait("127.0.0.1", service["spec"]["ports"][0]["nodePort"], "one")


def test_changes_of_endpoints_are_followed(balanced: Balanced, endpoints: Endpoints) -> None:
    one, two = endpoints
    balanced.service("web", HTTP)
    address = balanced.address("web")
    assert balanced.connect(address, 80) is None  # no endpoint
    balanced.slice("web", one.port, suffix="a")
    balanced.wait(address, 80, "one")
    balanced.slice("web", two.port, suffix="b")
    balanced.wait(address, 80, "two")
    assert {balanced.connect(address, 80) for _ in range(4)} == {"one", "two"}  # in turn
    balanced.space.delete("endpointslices", "web-a")
    balanced.wait(address, 80, "two")
    balanced.space.wait_gone("endpointslices", "web-a")
    unready = {"endpoints": [{"addresses": ["127.0.0.2"], "conditions": {"ready": False}}]}
    balanced.space.patch("endpointslices", "web-b", unready, kind="merge")
    balanced.wait(address, 80, None)


def test_an_endpoint_that_is_not_ready_gets_no_connection(balanced: Balanced, endpoints: Endpoints) -> None:
    one, two = endpoints
    balanced.slice("web", one.port, ready=False, suffix="a")
    balanced.slice("web", two.port, suffix="b")
    balanced.service("web", HTTP)
    address = balanced.address("web")
    balanced.wait(address, 80, "two")
    assert {balanced.connect(address, 80) for _ in range(4)} == {"two"}


def test_an_endpoint_that_does_not_respond_is_passed_over(balanced: Balanced, endpoints: Endpoints) -> None:
    gone = Endpoint("gone")
    gone.close()
    balanced.slice("web", gone.port, suffix="a")
    balanced.slice("web", endpoints[0].port, suffix="b")
    balanced.service("web", HTTP)
    address = balanced.address("web")
    balanced.wait(address, 80, "one")
    assert {balanced.connect(address, 80) for _ in range(4)} == {"one"}


def test_session_affinity_keeps_a_client_at_its_endpoint(balanced: Balanced, endpoints: Endpoints) -> None:
    for suffix, endpoint in zip("ab", endpoints, strict=True):
        balanced.slice("web", endpoint.port, suffix=suffix)
    balanced.service("web", HTTP, sessionAffinity="ClientIP")
    address = balanced.address("web")
    first = balanced.wait(address, 80, "one", "two")
    assert {balanced.connect(address, 80) for _ in range(6)} == {first}
    balanced.space.patch("services", "web", {"spec": {"sessionAffinity": "None"}})
    other = {"one": "two", "two": "one"}[str(first)]
    assert balanced.wait(address, 80, other) == other


def test_a_requested_address_is_given(balanced: Balanced, balancing: Cloud) -> None:
    requested = str(ipaddress.ip_network(balancing.config.external_cidr)[9])
    balanced.service("web", HTTP, loadBalancerIP=requested)
    assert balanced.address("web") == requested


@pytest.mark.parametrize("requested", ["192.0.2.1", "127.0.0.1"])
def test_a_requested_address_out_of_the_range_is_refused_by_name(requested: str, balanced: Balanced) -> None:
    balanced.service("web", HTTP, loadBalancerIP=requested)
    message = balanced.space.wait_event("web", "SyncLoadBalancerFailed")
    assert f"the requested address {requested} is not in the range" in message
    assert ingress(balanced.space.get("services", "web")) == []


def test_an_address_in_use_is_refused_and_is_free_after_deletion(balanced: Balanced) -> None:
    balanced.service("first", HTTP)
    address = balanced.address("first")
    balanced.service("second", HTTP, loadBalancerIP=address)
    assert "is in use" in balanced.space.wait_event("second", "SyncLoadBalancerFailed")
    balanced.space.delete("services", "first")
    balanced.space.delete("services", "second")
    balanced.service("third", HTTP, loadBalancerIP=address)
    # The deletion may reach the balancer after the creation. A change makes it try again.
    balanced.space.patch("services", "third", {"metadata": {"labels": {"changed": "true"}}})
    assert balanced.address("third") == address


def test_deletion_closes_the_address(balanced: Balanced, endpoints: Endpoints) -> None:
    balanced.slice("web", endpoints[0].port)
    balanced.service("web", HTTP)
    address = balanced.address("web")
    balanced.wait(address, 80, "one")
    balanced.space.delete("services", "web")
    balanced.wait(address, 80, None)


def test_another_type_removes_the_address(balanced: Balanced, endpoints: Endpoints) -> None:
    balanced.slice("web", endpoints[0].port)
    balanced.service("web", HTTP)
    address = balanced.address("web")
    balanced.wait(address, 80, "one")
    balanced.space.patch("services", "web", {"spec": {"type": "ClusterIP"}})
    balanced.space.wait("services", "web", lambda service: not ingress(service))
    balanced.wait(address, 80, None)


def test_a_service_of_another_class_is_left_alone(balanced: Balanced) -> None:
    balanced.service("theirs", HTTP, loadBalancerClass="example.com/other")
    balanced.service("ours", HTTP)
    balanced.address("ours")
    assert ingress(balanced.space.get("services", "theirs")) == []
    assert balanced.space.events("theirs") == []


def test_the_range_can_be_used_up(balanced: Balanced, balancing: Cloud) -> None:
    room = len(list(ipaddress.ip_network(balancing.config.external_cidr).hosts()))
    names = [f"web-{number}" for number in range(room)]
    for name in names:
        balanced.service(name, HTTP)
    assert len({balanced.address(name) for name in names}) == room
    balanced.service("more", HTTP)
    message = balanced.space.wait_event("more", "SyncLoadBalancerFailed")
    assert f"no address is left in {balancing.config.external_cidr}" in message


def test_addresses_and_connections_survive_a_restart(
    balanced: Balanced, balancing: Cloud, endpoints: Endpoints
) -> None:
    balanced.slice("web", endpoints[0].port)
    balanced.service("web", HTTP)
    address = balanced.address("web")
    balancing.kill("balancer")
    balanced.wait(address, 80, "one")
    balanced.service("other", HTTP)
    assert balanced.address("other") != address
    assert balanced.address("web") == address


def test_a_port_with_another_protocol_is_refused_by_name(balanced: Balanced, endpoints: Endpoints) -> None:
    balanced.slice("dns", endpoints[0].port, name="tcp")
    balanced.service("dns", [{"name": "tcp", "port": 53}, {"name": "udp", "port": 53, "protocol": "UDP"}])
    message = balanced.space.wait_event("dns", "SyncLoadBalancerFailed")
    assert (
        'spec.ports[1].protocol "UDP" is not supported: without root and nftables the balancer forwards TCP only'
        in message
    )
    assert balanced.wait(balanced.address("dns"), 53, "one")


@pytest.mark.parametrize(
    ("name", "ranges", "answer"),
    [
        ("outside", {"loadBalancerSourceRanges": ["203.0.113.0/24"]}, None),
        ("inside", {"loadBalancerSourceRanges": ["203.0.113.0/24", "127.0.0.0/8"]}, "one"),
    ],
)
def test_only_clients_of_the_source_ranges_get_in(
    balanced: Balanced, endpoints: Endpoints, name: str, ranges: dict[str, object], answer: str | None
) -> None:
    balanced.slice(name, endpoints[0].port)
    service = balanced.service(name, HTTP, **ranges)
    address = balanced.address(name)
    # The node port is open to all, and shows that the endpoint is known.
    assert balanced.wait("127.0.0.1", service["spec"]["ports"][0]["nodePort"], "one")
    assert balanced.wait(address, 80, answer) == answer
