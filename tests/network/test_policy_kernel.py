"""Random policies in the kernel: every packet that arrives may, and every packet that may arrives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cumulet.network.policy.compiler import Compiler
from cumulet.network.policy.model import parse_policy
from cumulet.network.policy.pods import member_of
from cumulet.network.policy.ruleset import Ruleset, difference
from tests.network.clusters import PORTS, clusters
from tests.network.lab import OUTSIDE, Lab, lab
from tests.network.packets import Probe
from tests.network.policies import Cluster, allows, compiled, key_of


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


def probes(net: Lab) -> list[Probe]:
    """One of each kind, from everybody to everybody, each with its own number and source port."""
    pairs = [
        *(
            (source, target)
            for source, target in product(net.pods, (*net.pods, net.gateway, OUTSIDE))
            if source != target
        ),
        *((OUTSIDE, target) for target in net.pods),
    ]
    kinds = [*product(("tcp", "udp", "sctp"), PORTS), ("icmp", 0)]
    return [
        Probe(source, target, protocol, port, number, 10000 + number)
        for number, ((source, target), (protocol, port)) in enumerate(product(pairs, kinds), 1)
    ]


@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(data=st.data())
def test_the_kernel_and_the_specification_agree(net: Lab, data: st.DataObject) -> None:
    cluster = data.draw(clusters(net.pods, net.gateway))
    net.rules.run_now(compiled(cluster, net.places).ruleset.script())
    sent = probes(net)
    arrived = net.arrived(sent)
    wrong = [
        probe
        for probe in sent
        if (probe.number in arrived)
        != allows(cluster, probe.source, probe.target, probe.protocol, probe.port, net.gateway)
    ]
    assert not wrong


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(data=st.data())
def test_changes_in_any_order_lead_to_the_same_table(net: Lab, data: st.DataObject) -> None:
    compiler = Compiler(net.places)
    net.rules.run_now(compiler.ruleset.script())
    loaded = compiler.ruleset.copy()
    last = Cluster({}, [], [])
    for _ in range(2):
        cluster = data.draw(clusters(net.pods, net.gateway))
        for change in data.draw(st.permutations(_changes(last, cluster))):
            _apply(compiler, cluster, change)
            if data.draw(st.booleans()):
                _load(net, compiler, loaded)
        last = cluster
    _load(net, compiler, loaded)
    fresh = compiled(last, net.places).ruleset
    assert compiler.ruleset == loaded == fresh
    shown = _shown(net)
    net.rules.run_now(fresh.script())
    assert shown == _shown(net)


Change = tuple[str, tuple[str, str]]


def _changes(before: Cluster, after: Cluster) -> list[Change]:
    """The objects of both, each once, and each also gone in between."""
    names: set[Change] = {("namespace", (name, "")) for cluster in (before, after) for name in cluster.namespaces}
    for cluster in (before, after):
        names |= {("pod", key_of(item)) for item in cluster.pods}
        names |= {("policy", key_of(item)) for item in cluster.policies}
    return sorted(names)


def _apply(compiler: Compiler, cluster: Cluster, change: Change) -> None:
    kind, key = change
    if kind == "namespace":
        compiler.set_namespace(key[0], cluster.namespaces.get(key[0]))
        return
    items = cluster.pods if kind == "pod" else cluster.policies
    found = next((item for item in items if key_of(item) == key), None)
    if kind == "pod":
        compiler.set_pod(key, None if found is None else member_of(found))  # type: ignore[arg-type]
    else:
        compiler.set_policy(key, None if found is None else parse_policy(found))  # type: ignore[arg-type]


def _load(net: Lab, compiler: Compiler, loaded: Ruleset) -> None:
    touched = compiler.touched()
    net.rules.run_now(difference(loaded, compiler.ruleset, touched))
    loaded.update(compiler.ruleset, touched)


def _shown(net: Lab) -> list[object]:
    """The table as the kernel shows it, without the numbers of its objects and of packets."""
    shown = []
    for item in net.rules.listing_now("table ip policies"):
        ((kind, body),) = item.items()
        elements = sorted(map(str, body.pop("elem", ())))
        if "expr" in body:
            body["expr"] = [part for part in body["expr"] if "counter" not in part]
        shown.append((kind, {key: value for key, value in body.items() if key != "handle"}, elements))
    return sorted(shown, key=str)
