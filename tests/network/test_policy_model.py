"""How policies and pods are read: defaults, forms that the API server takes, and what a later release may add."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.kube.schema.definitions import raw_definitions
from cumulet.network.policy.compiler import Compiler
from cumulet.network.policy.model import NamedPort, Policy, Rule, parse_policy
from cumulet.network.policy.pods import member_of
from cumulet.network.policy.ranges import EVERYWHERE, Range, common, parse_block, union, without
from cumulet.network.policy.rules import PODS, RECEIVERS, SENDERS, Places
from tests.network.policies import Object, pod, policy

ANYBODY = (Rule(None, (), None),)
PLACES = Places(
    ipaddress.IPv4Address("10.9.0.1"), ipaddress.IPv4Address("10.9.0.2"), ipaddress.IPv4Network("10.9.0.0/16")
)


def parsed(**spec: Any) -> Policy:
    return parse_policy(policy("east", "one", **spec))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, (), None),
        ({"ingress": [{}]}, ANYBODY, None),
        ({"egress": [{}]}, (), ANYBODY),
        ({"egress": []}, (), None),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, None, ()),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, (), None),
        ({"policyTypes": ["Ingress", "Egress"], "ingress": [{"from": []}]}, ANYBODY, ()),
    ],
)
def test_directions(spec: Object, ingress: object, egress: object) -> None:
    policy = parsed(**spec)
    assert (policy.ingress, policy.egress) == (ingress, egress)


def block(cidr: str, *holes: str) -> tuple[Range, ...]:
    (rule,) = parsed(ingress=[{"from": [{"ipBlock": {"cidr": cidr, "except": list(holes)}}]}]).ingress or ()
    assert rule.pods == frozenset()
    return rule.blocks


def test_blocks() -> None:
    assert block("0.0.0.0/0") == EVERYWHERE
    assert block("10.0.0.9/8") == block("010.000.0.0/08") == (Range(10 << 24, (11 << 24) - 1),)
    assert block("10.0.0.0/30", "10.0.0.1/32", "10.0.0.2/32") == (
        Range(10 << 24, 10 << 24),
        Range((10 << 24) + 3, (10 << 24) + 3),
    )
    assert block("2001:db8::/64") == block("10.0.0.0/33") == block("256.0.0.0/8") == block("x") == ()


def test_a_block_with_an_exception_that_is_not_understood_admits_nobody() -> None:
    assert block("10.0.0.0/8", "::ffff:10.1.0.0/112") == ()


def test_ports() -> None:
    given: list[Object] = [
        {"port": 80},
        {"port": 81, "protocol": "TCP"},
        {"port": 1000, "endPort": 2000},
        {"protocol": "UDP"},
        {"port": "web"},
        {"port": 1, "protocol": "DCCP"},
    ]
    (rule,) = parsed(ingress=[{"ports": given}]).ingress or ()
    assert rule.ports is not None
    assert rule.ports.numbers == {"tcp": (Range(80, 81), Range(1000, 2000)), "udp": (Range(0, 65535),)}
    assert rule.ports.names == {NamedPort("tcp", "web")}


@pytest.mark.parametrize(
    "rule",
    [
        {"from": [{"serviceSelector": {}}]},
        {"from": [{}]},
        {"from": [{"podSelector": {}, "nodeSelector": {}}]},
        {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]},
        {"ports": [{"port": 80, "method": "GET"}]},
        {"ports": [{"protocol": "DCCP"}]},
    ],
)
def test_a_rule_that_is_not_understood_admits_nobody(rule: Object) -> None:
    (found,) = parsed(ingress=[rule]).ingress or ()
    nobody = found.pods == frozenset() and not found.blocks
    no_port = found.ports is not None and not found.ports.numbers and not found.ports.names
    assert nobody or no_port


def test_a_rule_with_another_field_is_left_out() -> None:
    assert parsed(ingress=[{"from": [], "action": "Deny"}]).ingress == ()


def test_a_selector_that_is_not_understood_isolates_the_namespace() -> None:
    found = parsed(selector={"matchExpressions": [{"key": "a", "operator": "Like"}]})
    assert found.isolates("east", {})
    assert not found.isolates("west", {})


def test_ranges() -> None:
    assert union([Range(5, 6), Range(1, 2), Range(3, 3), Range(6, 9)]) == (Range(1, 3), Range(5, 9))
    assert without(Range(1, 9), [Range(0, 1), Range(4, 5), Range(5, 6), Range(9, 20)]) == (Range(2, 3), Range(7, 8))
    assert without(Range(1, 9), [Range(0, 20)]) == ()
    assert common([Range(1, 5), Range(8, 9)], [Range(4, 8)]) == (Range(4, 5), Range(8, 8))
    assert parse_block("1.2.3.4") is None


def test_pods_without_an_address_of_their_own() -> None:
    running = pod("east", "web", "10.9.0.5", {"app": "web"})
    assert member_of(running) is not None  # type: ignore[arg-type]
    changes: list[Object] = [
        {"status": {"phase": "Succeeded", "podIP": "10.9.0.5"}},
        {"status": {"phase": "Failed", "podIP": "10.9.0.5"}},
        {"status": {}},
        {"status": {"phase": "Running", "podIP": "2001:db8::1"}},
        {"spec": {"hostNetwork": True, "containers": []}},
    ]
    for change in changes:
        assert member_of({**running, **change}) is None  # type: ignore[typeddict-item]
    dual = {**running, "status": {"podIP": "2001:db8::1", "podIPs": [{"ip": "2001:db8::1"}, {"ip": "10.9.0.5"}]}}
    member = member_of(dual)  # type: ignore[arg-type]
    assert member is not None
    assert str(member.address) == "10.9.0.5"


def test_ports_of_sidecars_have_names_too() -> None:
    obj = pod("east", "web", "10.9.0.5", {}, [{"name": "web", "containerPort": 80}])
    port = {"name": "metrics", "protocol": "UDP", "containerPort": 9}
    obj["spec"]["initContainers"] = [
        {"name": "a", "restartPolicy": "Always", "ports": [port]},
        {"name": "b", "ports": [{"name": "late", "containerPort": 1}]},
    ]
    member = member_of(obj)  # type: ignore[arg-type]
    assert member is not None
    assert member.ports == {NamedPort("tcp", "web"): 80, NamedPort("udp", "metrics"): 9}


def test_the_documentation_states_each_field() -> None:
    table = re.findall(
        r"^\| (`[^|]*) \|", (Path(__file__).parents[2] / "docs" / "network.md").read_text(), re.MULTILINE
    )
    stated = {name for row in table for name in re.findall(r"[A-Za-z]+", row)}
    kinds = ("Spec", "IngressRule", "EgressRule", "Peer", "Port")
    names = [*(f"NetworkPolicy{kind}" for kind in kinds), "IPBlock"]
    for name in names:
        definition = msgspec.json.decode(raw_definitions()[f"io.k8s.api.networking.v1.{name}"])
        assert definition["properties"].keys() <= stated


def entered(compiler: Compiler, name: str, address: str, **labels: str) -> None:
    compiler.set_pod(("east", name), member_of(pod("east", name, address, labels)))  # type: ignore[arg-type]


def test_an_address_that_two_pods_claim_is_nobodys() -> None:
    compiler = Compiler(PLACES)
    sets = compiler.ruleset.sets
    compiler.set_policy(("east", "one"), parsed(selector={"matchLabels": {"app": "old"}}, egress=[{}]))
    entered(compiler, "old", "10.9.0.5", app="old")
    assert "10.9.0.5" in sets[PODS].elements
    assert sets[SENDERS].elements.keys() == sets[RECEIVERS].elements.keys() == {"10.9.0.5"}
    entered(compiler, "new", "10.9.0.5")
    assert not sets[PODS].elements
    assert not sets[SENDERS].elements
    compiler.set_pod(("east", "old"), None)
    assert "10.9.0.5" in sets[PODS].elements
    assert not sets[SENDERS].elements
    assert not sets[RECEIVERS].elements


def test_no_pod_has_the_address_of_the_router_or_the_machine() -> None:
    compiler = Compiler(PLACES)
    for address in (PLACES.gateway, PLACES.machine):
        entered(compiler, "bold", str(address))
    assert not compiler.ruleset.sets[PODS].elements
