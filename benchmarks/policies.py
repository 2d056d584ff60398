"""Measures how soon a change is in effect with many network policies: compiled, and loaded into the kernel.

The table is in a network namespace of its own, without traffic. Bound: the median of each kind of change, 100 ms.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from cumulet.common.nftables import Nftables
from cumulet.network.policy.compiler import Compiler
from cumulet.network.policy.model import parse_policy
from cumulet.network.policy.pods import member_of
from cumulet.network.policy.rules import Places
from cumulet.network.policy.ruleset import difference

_BOUND = 0.1
_NAMESPACES = [f"ns-{number}" for number in range(20)]
_PLACES = Places(
    ipaddress.IPv4Address("10.9.0.1"), ipaddress.IPv4Address("10.9.0.2"), ipaddress.IPv4Network("10.9.0.0/16")
)
Object = dict[str, Any]


def _pod(compiler: Compiler, number: int, **labels: str) -> None:
    """Put a pod in the cluster; its labels are its Deployment, its tier and its own."""
    namespace, name = _NAMESPACES[number % 20], f"pod-{number}"
    ports = [{"name": "web", "containerPort": 8000 + number % 3}]
    obj: Object = {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {"app": f"app-{number % 50}", "tier": f"{number % 3}", "pod": name, **labels},
        },
        "spec": {"containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": "Running", "podIP": str(_PLACES.machine + 10 + number)},
    }
    compiler.set_pod((namespace, name), member_of(obj))  # type: ignore[arg-type]


def _policy(compiler: Compiler, number: int, *, wide: bool, everything: bool = False) -> None:
    """Put a policy in the cluster for a Deployment or a namespace, with peers in a namespace, or in all if `wide`."""
    namespace, name = _NAMESPACES[number % 20], f"policy-{number}"
    if wide:
        expression = {"key": "app", "operator": "NotIn", "values": [f"none-{number}"]}
        peer: Object = {"namespaceSelector": {}, "podSelector": {"matchExpressions": [expression]}}
    else:
        peer = {"podSelector": {"matchLabels": {"tier": f"{number % 3}"}}}
    outside = {"ipBlock": {"cidr": "0.0.0.0/0", "except": [f"10.{number % 256}.0.0/16"]}}
    spec: Object = {
        "podSelector": {} if everything else {"matchLabels": {"app": f"app-{number % 50}"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [peer], "ports": [{"port": "web"}, {"port": 80}]}],
        "egress": [{"to": [peer, outside]}],
    }
    obj: Object = {"metadata": {"namespace": namespace, "name": name}, "spec": spec}
    compiler.set_policy((namespace, name), parse_policy(obj))  # type: ignore[arg-type]


def _changes(
    compiler: Compiler, pods: int, policies: int, *, wide: bool
) -> Iterator[tuple[str, Callable[[int], None]]]:
    """Yield kinds of changes, each as a function of the number of its repetition."""
    yield "a pod's labels", lambda turn: _pod(compiler, 0, tier=f"{turn % 3}")
    yield "a new pod", lambda turn: _pod(compiler, pods + turn)
    yield "a pod is gone", lambda turn: compiler.set_pod((_NAMESPACES[(turn + 1) % 20], f"pod-{turn + 1}"), None)
    yield "a new policy", lambda turn: _policy(compiler, policies + turn, wide=wide)
    yield (
        "a new policy for a namespace",
        lambda turn: _policy(compiler, policies + 40 + turn, wide=wide, everything=True),
    )
    yield (
        "a policy is gone",
        lambda turn: compiler.set_policy((_NAMESPACES[turn % 20], f"policy-{turn}"), None),
    )


def main() -> None:
    """Print the figures; the exit code is 1 if the bound is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--policies", type=int, default=200)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--wide", action="store_true", help="peers of each policy are nearly all pods of the cluster")
    given = parser.parse_args()
    compiler = Compiler(_PLACES)
    for name in _NAMESPACES:
        compiler.set_namespace(name, {"kubernetes.io/metadata.name": name})
    for number in range(given.pods):
        _pod(compiler, number)
    for number in range(given.policies):
        _policy(compiler, number, wide=given.wide)
    namespace = f"cumulet-bench-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    slowest = 0.0
    try:
        with Nftables(namespace) as rules:
            began = time.perf_counter()
            rules.run_now(compiler.ruleset.script())
            elements = sum(len(item.elements) for item in compiler.ruleset.sets.values())
            print(
                f"{given.pods} pods, {given.policies} policies, {elements:,} elements, {len(compiler.ruleset.chains)} chains: "
                f"loaded in {time.perf_counter() - began:.2f} s"
            )
            compiler.touched()
            loaded = compiler.ruleset.copy()
            for what, change in _changes(compiler, given.pods, given.policies, wide=given.wide):
                took = []
                for turn in range(given.turns):
                    began = time.perf_counter()
                    change(turn)
                    touched = compiler.touched()
                    rules.run_now(difference(loaded, compiler.ruleset, touched))
                    loaded.update(compiler.ruleset, touched)
                    took.append(time.perf_counter() - began)
                median = statistics.median(took)
                slowest = max(slowest, median)
                print(
                    f"{what}: {median * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms (bound {_BOUND * 1000:.0f} ms)"
                )
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)
    sys.exit(slowest > _BOUND)


if __name__ == "__main__":
    main()
