"""Policies that users write, tried from both sides (the recipes of kubernetes-network-policy-recipes, and of Kubernetes' docs)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from cumulet.instances.sandbox.firewall import Member, group_rules
from tests.network.lab import OUTSIDE, Lab, lab
from tests.network.packets import Probe
from tests.network.policies import Cluster, Object, allows, compiled, pod, policy

NAMED: list[Object] = [
    {"name": "http", "protocol": "TCP", "containerPort": 80},
    {"name": "metrics", "protocol": "TCP", "containerPort": 9100},
]
NAMESPACES = {
    name: {"kubernetes.io/metadata.name": name, **more}
    for name, more in {"shop": {}, "prod": {"purpose": "production"}, "other": {}, "kube-system": {}}.items()
}
WEB = {"matchLabels": {"app": "web"}}
DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab"), pods=5) as made:
        yield made


@pytest.fixture
def pods(net: Lab) -> list[Object]:
    """The app, a client of its namespace, one of a production namespace, one of another, and a pod of two roles."""
    web, client, prod, other, both = net.pods
    return [
        pod("shop", "web", web, {"app": "web"}, NAMED),
        pod("shop", "client", client, {"app": "client", "role": "monitoring"}),
        pod("prod", "client", prod, {"app": "client", "role": "monitoring"}, [{**NAMED[0], "containerPort": 8080}]),
        pod("other", "client", other, {"app": "client"}),
        pod("other", "both", both, {"app": "both", "role": "monitoring"}),
    ]


def connections(net: Lab, pods: list[Object], *policies: Object) -> set[str]:
    """Who reaches what under policies, as `client > web:80`; the kernel and the specification must agree."""
    cluster = Cluster(NAMESPACES, pods, list(policies))
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())
    names = {item["status"]["podIP"]: f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in pods}
    names |= {OUTSIDE: "outside", net.gateway: "router", net.machine: "machine"}
    web, prod = net.pods[0], net.pods[2]
    ends = [
        *(
            (source, web, "tcp", port)
            for source in (*net.pods[1:], OUTSIDE, net.machine)
            for port in (80, 9100, 5000)
        ),
        *((web, net.gateway, protocol, port) for protocol, port in (("udp", 53), ("tcp", 53), ("tcp", 6443))),
        *((web, target, "tcp", port) for target in (*net.pods[1:], OUTSIDE) for port in (80, 8080)),
        (prod, web, "udp", 80),
    ]
    probes = [
        Probe(source, target, protocol, port, number, 20000 + number)
        for number, (source, target, protocol, port) in enumerate(ends, 1)
    ]
    arrived = net.arrived(probes)
    stated = {
        probe.number
        for probe in probes
        if probe.source == net.machine
        or allows(cluster, probe.source, probe.target, probe.protocol, probe.port, net.gateway)
    }
    assert arrived == stated
    return {
        f"{names[probe.source]} > {names[probe.target]}:{probe.port}/{probe.protocol}"
        for probe in probes
        if probe.number in arrived
    }


def into(found: set[str], port: int = 80) -> set[str]:
    """Who reaches the app at a TCP port, apart from the machine, which always does."""
    ending = f" > shop/web:{port}/tcp"
    senders = {item.removesuffix(ending) for item in found if item.endswith(ending)}
    assert "machine" in senders
    return senders - {"machine"}


def out(found: set[str]) -> set[str]:
    """What the app reaches."""
    return {item.removeprefix("shop/web > ") for item in found if item.startswith("shop/web > ")}


EVERYBODY = {"shop/client", "prod/client", "other/client", "other/both", "outside"}


def test_without_policies_everybody_is_reached(net: Lab, pods: list[Object]) -> None:
    found = connections(net, pods)
    assert into(found) == EVERYBODY
    assert "router:53/udp" in out(found)


def test_deny_all_ingress_of_an_app(net: Lab, pods: list[Object]) -> None:
    found = connections(net, pods, policy("shop", "web-deny-all", WEB, ingress=[]))
    assert into(found) == set()
    assert "other/client:80/tcp" in out(found)


def test_limit_to_an_app(net: Lab, pods: list[Object]) -> None:
    limited = policy("shop", "limit", WEB, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}])
    assert into(connections(net, pods, limited)) == {"shop/client"}


def test_deny_all_then_allow_all_is_additive(net: Lab, pods: list[Object]) -> None:
    denied, allowed = policy("shop", "deny", {}, ingress=[]), policy("shop", "allow", WEB, ingress=[{}])
    assert into(connections(net, pods, denied, allowed)) == EVERYBODY


def test_deny_traffic_from_other_namespaces(net: Lab, pods: list[Object]) -> None:
    found = connections(net, pods, policy("shop", "own", {}, ingress=[{"from": [{"podSelector": {}}]}]))
    assert into(found) == {"shop/client"}


def test_allow_all_namespaces(net: Lab, pods: list[Object]) -> None:
    allowed = policy("shop", "all", WEB, ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert into(connections(net, pods, allowed)) == EVERYBODY - {"outside"}


def test_allow_a_namespace(net: Lab, pods: list[Object]) -> None:
    production = {"namespaceSelector": {"matchLabels": {"purpose": "production"}}}
    assert into(connections(net, pods, policy("shop", "prod", WEB, ingress=[{"from": [production]}]))) == {
        "prod/client"
    }


def test_allow_some_pods_of_another_namespace_by_both_selectors(net: Lab, pods: list[Object]) -> None:
    monitoring = {
        "namespaceSelector": {"matchExpressions": [{"key": "purpose", "operator": "DoesNotExist"}]},
        "podSelector": {"matchLabels": {"role": "monitoring"}},
    }
    found = connections(net, pods, policy("shop", "monitoring", WEB, ingress=[{"from": [monitoring]}]))
    assert into(found) == {"shop/client", "other/both"}


def test_two_peers_are_alternatives(net: Lab, pods: list[Object]) -> None:
    peers = [
        {"namespaceSelector": {"matchLabels": {"purpose": "production"}}},
        {"podSelector": {"matchLabels": {"role": "monitoring"}}},
    ]
    found = connections(net, pods, policy("shop", "either", WEB, ingress=[{"from": peers}]))
    assert into(found) == {"prod/client", "shop/client"}


def test_allow_external_clients_only(net: Lab, pods: list[Object]) -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}
    assert into(connections(net, pods, policy("shop", "external", WEB, ingress=[{"from": [block]}]))) == {"outside"}


def test_exceptions_of_a_block_keep_out_pods(net: Lab, pods: list[Object]) -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"{net.pods[1]}/32", f"{net.pods[3]}/32"]}}
    found = connections(net, pods, policy("shop", "except", WEB, ingress=[{"from": [block]}]))
    assert into(found) == {"prod/client", "other/both", "outside"}


def test_a_port_of_an_app(net: Lab, pods: list[Object]) -> None:
    found = connections(net, pods, policy("shop", "port", WEB, ingress=[{"ports": [{"port": 9100}]}]))
    assert (into(found, 80), into(found, 9100)) == (set(), EVERYBODY)


def test_named_ports_are_those_of_the_pod_that_receives(net: Lab, pods: list[Object]) -> None:
    named = [{"ports": [{"port": "http"}]}]
    into_web = policy("shop", "named", WEB, ingress=named)
    found = connections(net, pods, into_web)
    assert (into(found, 80), into(found, 9100)) == (EVERYBODY, set())
    found = connections(net, pods, policy("shop", "named", WEB, policyTypes=["Egress"], egress=named))
    assert out(found) == {"prod/client:8080/tcp"}


def test_a_range_of_ports(net: Lab, pods: list[Object]) -> None:
    ranged = policy("shop", "range", WEB, ingress=[{"ports": [{"port": 5000, "endPort": 9100}]}])
    found = connections(net, pods, ranged)
    assert (into(found, 80), into(found, 5000), into(found, 9100)) == (set(), EVERYBODY, EVERYBODY)


def test_deny_egress_blocks_names_too(net: Lab, pods: list[Object]) -> None:
    found = connections(net, pods, policy("shop", "deny", WEB, policyTypes=["Egress"]))
    assert out(found) == set()
    assert into(found) == EVERYBODY


def test_allow_egress_to_the_name_server_only(net: Lab, pods: list[Object]) -> None:
    found = connections(net, pods, policy("shop", "dns", WEB, policyTypes=["Egress"], egress=[{"to": [DNS]}]))
    assert out(found) == {"router:53/udp", "router:53/tcp"}
    port = {"port": 53, "protocol": "UDP"}
    found = connections(
        net, pods, policy("shop", "dns", WEB, policyTypes=["Egress"], egress=[{"to": [DNS], "ports": [port]}])
    )
    assert out(found) == {"router:53/udp"}


def test_allow_egress_within_the_cluster_has_the_name_server(net: Lab, pods: list[Object]) -> None:
    inside = policy("shop", "inside", WEB, policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}]}])
    found = out(connections(net, pods, inside))
    assert {"router:53/udp", "router:53/tcp", "other/client:80/tcp"} <= found
    assert not {item for item in found if item.startswith("outside") or item == "router:6443/tcp"}


def test_the_api_server_is_an_address(net: Lab, pods: list[Object]) -> None:
    block = {"ipBlock": {"cidr": f"{net.gateway}/32"}}
    rules = [{"to": [block], "ports": [{"port": 6443}]}]
    found = connections(net, pods, policy("shop", "api", WEB, policyTypes=["Egress"], egress=rules))
    assert out(found) == {"router:6443/tcp"}


def test_both_ends_must_agree(net: Lab, pods: list[Object]) -> None:
    denied = policy("other", "deny", {}, policyTypes=["Egress"])
    found = connections(net, pods, policy("shop", "allow", WEB, ingress=[{}]), denied)
    assert into(found) == {"shop/client", "prod/client", "outside"}


def test_a_pod_reaches_itself(net: Lab, pods: list[Object]) -> None:
    isolated = policy("shop", "none", {}, policyTypes=["Ingress", "Egress"])
    connections(net, pods, isolated)
    web, client = net.pods[:2]
    # As after the translation of a cluster IP: from the pod through the router to the pod.
    net.rules.run_now(f"""
add table ip hairpin
add chain ip hairpin arriving {{ type nat hook prerouting priority dstnat; }}
add rule ip hairpin arriving ip daddr 10.0.0.77 dnat to {web}
add chain ip hairpin leaving {{ type nat hook postrouting priority srcnat; }}
add rule ip hairpin leaving ct original ip daddr 10.0.0.77 masquerade
""")
    try:
        own = Probe(web, "10.0.0.77", "udp", 80, 1, 30001)
        other = Probe(client, "10.0.0.77", "udp", 80, 2, 30002)
        assert net.arrived([own, other]) == {1}
    finally:
        net.rules.run_now("delete table ip hairpin")


def test_a_policy_judges_the_pod_behind_a_cluster_ip(net: Lab, pods: list[Object]) -> None:
    web, client = net.pods[:2]
    net.rules.run_now(f"""
add table ip translated
add chain ip translated arriving {{ type nat hook prerouting priority dstnat; }}
add rule ip translated arriving ip daddr 10.0.0.77 udp dport 8000 dnat to {web}:80
""")
    try:
        for peer, expected in (
            ({"ipBlock": {"cidr": "10.0.0.77/32"}}, set()),
            ({"podSelector": WEB}, {1}),
            ({"ipBlock": {"cidr": f"{web}/32"}}, {1}),
        ):
            rules = [{"to": [peer], "ports": [{"port": 80, "protocol": "UDP"}]}]
            connections(net, pods, policy("shop", "via", {}, policyTypes=["Egress"], egress=rules))
            assert net.arrived([Probe(client, "10.0.0.77", "udp", 8000, 1, 30003)]) == expected
    finally:
        net.rules.run_now("delete table ip translated")


def test_an_address_that_is_not_known_yet_is_closed_once_there_is_a_policy(net: Lab, pods: list[Object]) -> None:
    known, new = net.pods[:2]
    crossing = [
        Probe(known, new, "udp", 80, 1, 30004),
        Probe(new, known, "udp", 80, 2, 30005),
        Probe(new, net.gateway, "udp", 53, 3, 30006),
        Probe(new, OUTSIDE, "udp", 80, 4, 30007),
        Probe(OUTSIDE, new, "udp", 80, 5, 30008),
        Probe(net.machine, new, "udp", 80, 6, 30009),
    ]
    policies = [policy("elsewhere", "any", {}, ingress=[{}])]
    cluster = Cluster(NAMESPACES, [pods[0]], [])
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())
    assert net.arrived(crossing) == {1, 2, 3, 4, 5, 6}
    cluster = Cluster(NAMESPACES, [pods[0]], policies)
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())
    assert net.arrived(crossing) == {6}
    cluster = Cluster(NAMESPACES, pods[:2], policies)
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())
    assert net.arrived(crossing) == {1, 2, 3, 4, 5, 6}


def test_a_container_group_that_is_no_pod_is_left_alone(net: Lab, pods: list[Object]) -> None:
    known, group = net.pods[:2]
    cluster = Cluster(NAMESPACES, [pods[0]], [policy("elsewhere", "any", {}, ingress=[{}])])
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())
    members = [Member(ipaddress.IPv4Address(known), "net", is_pod=True), Member(ipaddress.IPv4Address(group), "net")]
    net.rules.run_now(group_rules(net.config, members, {}, {}))
    try:
        ends = [(known, group), (group, known), (group, OUTSIDE)]
        probes = [
            Probe(source, target, "udp", 80, number, 30010 + number)
            for number, (source, target) in enumerate(ends, 1)
        ]
        assert net.arrived(probes) == {1, 2, 3}
    finally:
        net.rules.run_now("delete table ip groups\ndelete table bridge groups")
