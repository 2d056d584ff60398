"""Names in pods and in container groups: Services, peers of a StatefulSet, and `dnsNameLabel`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cases.azure import AzureClient, container_group
from tests.cases.path import LOGIN_SERVER, ThePath, pod
from tests.instances.images import busybox_layer, programs_layer

#: Asks for one name, as programs with and without the C library's resolver do.
_LOOKUP = "getent ahostsv4 {0}; busybox nslookup {0} 2>&1"


@pytest.fixture(scope="module")
def image(path: ThePath) -> str:
    """An image with the C library's resolver, the one of busybox, and curl."""
    return path.push("names:1", [busybox_layer(), programs_layer("getent", "curl")], Cmd=["sh"])


@pytest.fixture(scope="module")
def peers(path: ThePath, image: str) -> str:
    """A StatefulSet whose pods find each other: the log of one, once it has reached both."""
    template: dict[str, Any] = pod("peer", [{"name": "main", "image": image, "command": ["sh", "-c", _FINDING]}])
    template["metadata"] = {"labels": {"app": "peers"}}
    path.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "peers"},
            "spec": {"clusterIP": "None", "selector": {"app": "peers"}, "ports": [{"name": "http", "port": 8080}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "peers"},
            "spec": {
                "serviceName": "peers",
                "replicas": 2,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "peers"}},
                "template": {"metadata": template["metadata"], "spec": template["spec"]},
            },
        },
    )
    for name in ("peers-0", "peers-1"):
        path.wait(f"pod/{name}", "condition=Ready")
    path.until(lambda: "all found" in path.kubectl("logs", "peers-0"), "peers")
    return path.kubectl("logs", "peers-0")


#: Each serves its name, and reads that of every peer by the peer's name.
_FINDING = """
mkdir /w; hostname >/w/index.html; busybox httpd -p 8080 -h /w
for peer in peers-0 peers-1; do
  until curl -sf http://$peer.peers:8080/; do sleep 0.2; done
done
grep peers /etc/hosts; cat /etc/resolv.conf; echo all found
exec sleep 1000
"""


def test_a_stateful_set_finds_its_peers_by_name(peers: str) -> None:
    lines = peers.splitlines()
    assert [line for line in lines if line in ("peers-0", "peers-1")][:2] == ["peers-0", "peers-1"]
    assert any(line.endswith("\tpeers-0.peers.default.svc.cluster.local\tpeers-0") for line in lines)


def test_the_resolver_is_the_clusters(peers: str) -> None:
    lines = peers.splitlines()
    (search,) = [line for line in lines if line.startswith("search ")]
    assert search.split()[1:4] == ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
    assert "options ndots:5" in lines


#: Serves a page on two ports.
_PUBLIC = """
for port in 80 81; do
  mkdir /w$port; echo page of $port >/w$port/index.html; busybox httpd -p $port -h /w$port
done
exec sleep 1000
"""


def test_a_label_of_a_group_is_a_name_for_pods_and_for_groups(path: ThePath, image: str) -> None:
    azure = AzureClient(path.installation)
    groups = f"{azure.subscription}/resourceGroups/aks-rg2/providers/Microsoft.ContainerInstance/containerGroups"
    user, _, password = path.credentials.partition(":")
    credentials = [{"server": LOGIN_SERVER, "username": user, "password": password}]
    labelled = {"type": "Public", "ports": [{"port": 80}], "dnsNameLabel": "my-app"}
    body = container_group(image, "sh", "-c", _PUBLIC, imageRegistryCredentials=credentials, ipAddress=labelled)
    answer = azure.call("PUT", f"{groups}/labelled", body)
    assert answer.status == 201, answer.body
    azure.finish(answer)
    shown = azure.call("GET", f"{groups}/labelled").body["properties"]["ipAddress"]
    assert shown["fqdn"] == "my-app.eastus.azurecontainer.io"
    taken = azure.call("PUT", f"{groups}/another", body)
    assert (taken.status, taken.body["error"]["code"]) == (400, "DnsNameLabelNotAvailable")

    ask = f"{_LOOKUP.format(shown['fqdn'])}; for p in 80 81; do curl -sS -m 2 http://{shown['fqdn']}:$p/ || :; done"
    path.apply(pod("asks", [{"name": "main", "image": image, "command": ["sh", "-c", ask]}], restartPolicy="Never"))
    found = path.output("asks")
    assert found.split()[:3] == [shown["ip"], "STREAM", shown["fqdn"]]  # the C library's
    assert f"Address: {shown['ip']}" in found
    assert found.count("page of 80") == 1
    assert "page of 81" not in found  # only the ports of the group are public

    script = (
        f"cat /etc/resolv.conf; {ask}; {_LOOKUP.format('kubernetes.default.svc.cluster.local')}; echo end; sleep 1000"
    )
    body = container_group(image, "sh", "-c", script, imageRegistryCredentials=credentials)
    azure.finish(azure.call("PUT", f"{groups}/asking", body))

    def log() -> str:
        content: str = azure.call("GET", f"{groups}/asking/containers/main/logs").body["content"]
        return content if "\nend" in content else ""

    said = path.until(log, "log of the group")
    gateway = path.installation.pod_cidr.replace(".0/16", ".1")
    assert f"nameserver {gateway}" in said.splitlines()
    assert f"Address: {shown['ip']}" in said
    assert said.count("page of 80") == 1
    # The cluster's names are for its pods.
    assert "REFUSED" in said
