"""Random clusters for hypothesis: few names, so that policies and pods have much in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.network.lab import OUTSIDE
from tests.network.policies import Cluster, Object, pod, policy

NAMESPACES = ("east", "west", "kube-system")
PORTS = (53, 80, 8080)
_ADDRESSES = ("0.0.0.0/0", "10.0.0.0/8", "192.0.2.0/24")

_labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("a", "b")), max_size=2)
_expression = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(("app", "tier")),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.lists(st.sampled_from(("a", "b")), min_size=1, max_size=2, unique=True),
        }
    ),
    st.fixed_dictionaries(
        {"key": st.sampled_from(("app", "tier")), "operator": st.sampled_from(("Exists", "DoesNotExist"))}
    ),
)
_selector = st.fixed_dictionaries(
    {}, optional={"matchLabels": _labels, "matchExpressions": st.lists(_expression, min_size=1, max_size=1)}
)
_dns = st.just(
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
)
_port = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(("TCP", "UDP", "SCTP"))}),
    st.fixed_dictionaries(
        {"port": st.sampled_from((*PORTS, "web", "dns"))},
        optional={"protocol": st.sampled_from(("TCP", "UDP", "SCTP"))},
    ),
    st.fixed_dictionaries(
        {"port": st.sampled_from((50, 80)), "endPort": st.sampled_from((80, 8080))},
        optional={"protocol": st.sampled_from(("TCP", "UDP"))},
    ),
)


@st.composite
def clusters(draw: st.DrawFn, addresses: Sequence[str], gateway: str) -> Cluster:
    """A cluster whose pods have these addresses, at a router with that one."""
    namespaces = {name: {"kubernetes.io/metadata.name": name, **draw(_labels)} for name in NAMESPACES}
    pods = []
    for number, address in enumerate(addresses):
        ports: list[Object] = [
            {"name": "web", "protocol": protocol, "containerPort": draw(st.sampled_from((80, 8080)))}
            for protocol in ("TCP", "UDP")
            if draw(st.booleans())
        ]
        pods.append(pod(draw(st.sampled_from(NAMESPACES)), f"pod-{number}", address, draw(_labels), ports))
    whole = (*_ADDRESSES, f"{addresses[0]}/32", f"{addresses[1]}/31", f"{gateway}/32", "2001:db8::/64")
    holes = [f"{address}/32" for address in (*addresses, gateway, OUTSIDE)]
    block = st.one_of(
        st.builds(lambda cidr: {"ipBlock": {"cidr": cidr}}, st.sampled_from(whole)),
        st.builds(
            lambda inner: {"ipBlock": {"cidr": "0.0.0.0/0", "except": inner}},
            st.lists(st.sampled_from(holes), min_size=1, max_size=4),
        ),
    )
    peer = st.one_of(
        block,
        st.fixed_dictionaries({"podSelector": _selector}, optional={"namespaceSelector": _selector}),
        st.fixed_dictionaries({"namespaceSelector": _selector}),
        _dns,
    )

    def rules(peers: str) -> st.SearchStrategy[list[Any]]:
        optional = {peers: st.lists(peer, max_size=2), "ports": st.lists(_port, max_size=2)}
        return st.lists(st.fixed_dictionaries({}, optional=optional), max_size=2)

    spec: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {"selector": _selector},
        optional={
            "ingress": rules("from"),
            "egress": rules("to"),
            "policyTypes": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
        },
    )
    policies = [
        policy(draw(st.sampled_from(NAMESPACES)), f"policy-{number}", **draw(spec))
        for number in range(draw(st.integers(0, 4)))
    ]
    return Cluster(namespaces, pods, policies)
