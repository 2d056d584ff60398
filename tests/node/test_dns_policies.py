"""The name servers and search domains of pods by their DNS policy (`pkg/kubelet/network/dns`)."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec
import pytest

from cumulet.common.config import Config
from cumulet.common.kubernetes import resolv_conf
from cumulet.common.kubernetes.objects import PodDNSConfig, PodSpec
from cumulet.node.names import pod_dns
from cumulet.node.resource import GroupDns

_DOMAINS = "team.svc.cluster.local svc.cluster.local cluster.local"


def _dns(config: Config, spec: PodSpec) -> GroupDns:
    return pod_dns({"metadata": {"name": "web", "namespace": "team"}, "spec": spec}, config).config


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands in for /etc/resolv.conf."""
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.53\nsearch corp.example. svc.cluster.local\noptions edns0 ndots:1\n")
    monkeypatch.setattr(resolv_conf, "_FILE", file)
    monkeypatch.setattr(resolv_conf, "_BEHIND", tmp_path / "absent")
    return file


@pytest.mark.parametrize("policy", ["ClusterFirst", "ClusterFirstWithHostNet", ""])
def test_cluster_first(config: Config, machine: Path, policy: str) -> None:
    server = str(ipaddress.IPv4Network(config.service_cidr)[10])
    wanted = {"nameServers": [server], "searchDomains": f"{_DOMAINS} corp.example", "options": "ndots:5"}
    assert _dns(config, {"dnsPolicy": policy, "containers": []}) == wanted


def test_the_gateway_answers_pods_of_another_cluster(config: Config, machine: Path) -> None:
    elsewhere = msgspec.structs.replace(config, kubeconfig=machine)
    assert _dns(elsewhere, {"containers": []})["nameServers"] == [str(ipaddress.IPv4Network(config.pod_cidr)[1])]


def test_default(config: Config, machine: Path) -> None:
    found = _dns(config, {"dnsPolicy": "Default", "containers": []})
    assert found == {
        "nameServers": ["192.0.2.53"],
        "searchDomains": "corp.example svc.cluster.local",
        "options": "edns0 ndots:1",
    }
    machine.write_text("nameserver 127.0.0.53\n")
    found = _dns(config, {"dnsPolicy": "Default", "containers": []})
    assert found == {"nameServers": [str(ipaddress.IPv4Network(config.pod_cidr)[1])]}


def test_a_dns_config_is_added(config: Config, machine: Path) -> None:
    own: PodDNSConfig = {
        "nameservers": ["192.0.2.1", "192.0.2.53"],
        "searches": ["corp.example", "more.example"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
    }
    found = _dns(config, {"dnsPolicy": "Default", "dnsConfig": own, "containers": []})
    assert found["nameServers"] == ["192.0.2.53", "192.0.2.1"]
    assert found["searchDomains"] == "corp.example svc.cluster.local more.example"
    assert found["options"] == "edns0 ndots:2 rotate"
    assert _dns(config, {"dnsPolicy": "None", "dnsConfig": own, "containers": []}) == {
        "nameServers": own["nameservers"],
        "searchDomains": "corp.example more.example",
        "options": "ndots:2 rotate",
    }
