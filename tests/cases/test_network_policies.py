"""Network policies of real pods, tried from both sides."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cumulet.common.config import load
from cumulet.common.router import API_PORT, gateway, namespace_name
from tests.cases.path import ThePath, pod

#: Answers each connection with a word, at once.
_SERVER = ["sh", "-c", "while true; do echo served | busybox nc -l -p 8000; done"]
_SLEEP = ["sleep", "1000"]
_DENY = {"podSelector": {"matchLabels": {"app": "policed"}}, "policyTypes": ["Ingress", "Egress"]}


def network_policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


@contextmanager
def applied(path: ThePath, name: str, spec: dict[str, Any]) -> Iterator[None]:
    path.apply(network_policy(name, spec))
    try:
        yield
    finally:
        path.kubectl("delete", "networkpolicy", name)


def reads(path: ThePath, client: str, address: str) -> bool:
    """Whether a pod gets the word of the server."""
    script = f"busybox nc -w 1 {address} 8000 < /dev/null || true"
    return "served" in path.kubectl("exec", client, "--", "sh", "-c", script)


def test_policies_open_and_close_a_pod(path: ThePath) -> None:
    served = [{"name": "main", "command": _SERVER, "ports": [{"name": "word", "containerPort": 8000}]}]
    path.apply(pod("policed", served), pod("asking", [{"name": "main", "command": _SLEEP}]))
    for name in ("policed", "asking"):
        path.wait(f"pod/{name}", "condition=Ready")
    address = path.get("policed")["status"]["podIP"]
    assert reads(path, "asking", address)
    with applied(path, "deny", _DENY):
        path.until(lambda: not reads(path, "asking", address), "effect of the denial")
        # The machine is the node: its probes are not subject to policies.
        with socket.create_connection((address, 8000), timeout=20) as connection:
            assert connection.recv(100) == b"served\n"
        by_name = [{"from": [{"podSelector": {"matchLabels": {"may": "ask"}}}], "ports": [{"port": "word"}]}]
        with applied(path, "allow", {"podSelector": {}, "ingress": by_name}):
            path.kubectl("label", "pod", "asking", "may=ask")
            path.until(lambda: reads(path, "asking", address), "effect of the label")
            path.kubectl("label", "pod", "asking", "may-")
            path.until(lambda: not reads(path, "asking", address), "end of its effect")
    path.until(lambda: reads(path, "asking", address), "end of the denial")


def test_services_and_names_under_policies(path: ThePath) -> None:
    config = load(path.installation.data_dir)
    served = [{"name": "main", "command": _SERVER, "ports": [{"name": "word", "containerPort": 8000}]}]
    service = {"selector": {"app": "behind"}, "ports": [{"port": 80, "targetPort": "word"}]}
    path.apply(
        pod("behind", served),
        pod("caller", [{"name": "main", "command": _SLEEP}]),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "word"}, "spec": service},
    )
    for name in ("behind", "caller"):
        path.wait(f"pod/{name}", "condition=Ready")
    cluster_ip = path.get("word", "service")["spec"]["clusterIP"]
    api = path.get("kubernetes", "service")["spec"]["clusterIP"]

    def opens(host: str, port: int) -> bool:
        script = f"busybox nc -w 2 {host} {port} < /dev/null > /dev/null && echo open || true"
        return "open" in path.kubectl("exec", "caller", "--", "sh", "-c", script)

    path.until(lambda: opens("word", 80), "name of the Service")
    assert opens(api, 443)
    to_pod = {"to": [{"podSelector": {"matchLabels": {"app": "behind"}}}], "ports": [{"port": "word"}]}
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    to_dns = {"to": [dns], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    to_api = {"to": [{"ipBlock": {"cidr": f"{gateway(config)}/32"}}], "ports": [{"port": API_PORT}]}
    caller = {"podSelector": {"matchLabels": {"app": "caller"}}, "policyTypes": ["Egress"]}
    with applied(path, "out", {**caller, "egress": [to_pod]}):
        path.until(lambda: not opens(api, 443), "effect of the denial")
        # The policy sees the pod behind the cluster IP, and the name server is not allowed.
        assert opens(cluster_ip, 80)
        assert not opens("word", 80)
        with applied(path, "more", {**caller, "egress": [to_dns, to_api]}):
            path.until(lambda: opens("word", 80), "effect of the rule for DNS")
            assert opens(api, 443)


def test_policies_outlive_their_room_and_the_commands_of_others(path: ThePath) -> None:
    path.apply(
        pod("kept", [{"name": "main", "command": _SERVER}]), pod("knocking", [{"name": "main", "command": _SLEEP}])
    )
    for name in ("kept", "knocking"):
        path.wait(f"pod/{name}", "condition=Ready")
    address = path.get("kept")["status"]["podIP"]
    denied = {"podSelector": {"matchLabels": {"app": "kept"}}}
    router = namespace_name(load(path.installation.data_dir))
    with applied(path, "deny", denied):
        path.until(lambda: not reads(path, "knocking", address), "effect of the denial")
        os.kill(path.installation.pids()["network"], signal.SIGKILL)
        assert not reads(path, "knocking", address)
        with applied(path, "allow", {**denied, "ingress": [{}]}):
            path.until(lambda: reads(path, "knocking", address), "effect of a policy that the next process loads")
        nft = ["ip", "netns", "exec", router, "nft"]
        subprocess.run([*nft, "delete", "table", "ip", "policies"], check=True)

        def listed() -> bool:
            command = [*nft, "list", "chain", "ip", "policies", "connections"]
            return "policies" in subprocess.run(command, capture_output=True, text=True, check=False).stdout

        path.until(listed, "table that is loaded again")
        path.until(lambda: not reads(path, "knocking", address), "effect of the denial that stayed")


def test_a_pod_that_a_policy_isolates_is_isolated_from_its_first_packet(path: ThePath) -> None:
    path.apply(pod("target", [{"name": "main", "command": _SERVER}]))
    path.wait("pod/target", "condition=Ready")
    address = path.get("target")["status"]["podIP"]
    at_once = f"for i in 1 2 3; do busybox nc -w 1 {address} 8000 < /dev/null; done; echo done"
    with applied(path, "egress", {"podSelector": {"matchLabels": {"app": "early"}}, "policyTypes": ["Egress"]}):
        path.run("early", "sh", "-c", at_once)
        path.run("free", "sh", "-c", at_once)
        assert "served" not in path.output("early")
        # A pod that no policy selects has a network as soon as its address is known.
        assert "served" in path.output("free")
