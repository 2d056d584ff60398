"""Who may use the virtual node's kubelet API: the API server decides, as for any kubelet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common.config import RoomName
from cumulet.common.tls import Authority
from tests.cloud import Cloud
from tests.kube.conftest import Server

RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The virtual node, with what it registers at."""
    made = Cloud(tmp_path_factory.mktemp("node") / "data", "kube", "arm", "node")
    yield made
    made.close()


def _ask(cloud: Cloud, show: RoomName | None) -> tuple[int, str]:
    answer = cloud.call("node", "GET", "/pods", show=show)
    return answer.status, answer.body.decode() if isinstance(answer.body, bytes) else ""


def test_a_certificate_is_asked_for(cloud: Cloud) -> None:
    assert _ask(cloud, None) == (401, "Unauthorized")
    assert cloud.call("node", "GET", "/healthz").status == 200


def test_the_api_server_may(cloud: Cloud) -> None:
    assert _ask(cloud, "kube")[0] == 200


def test_others_may_what_the_cluster_says(cloud: Cloud) -> None:
    status, why = _ask(cloud, "scheduler")
    assert status == 403
    assert why == "Forbidden (user=system:kube-scheduler, verb=get, resource=nodes, subresource=proxy)"
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:cloud-controller-manager"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"}
    Server(cloud).make(
        f"{RBAC}/clusterrolebindings", {"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]}
    )
    assert _ask(cloud, "balancer")[0] == 200


def test_in_another_cluster_its_authority_counts(cloud: Cloud, tmp_path: Path) -> None:
    """The same cluster by another name: who signs for its API server is said, and ours is nobody then."""
    other = Authority.open(tmp_path / "ca.crt", tmp_path / "ca.key")
    certificate, key = other.issue("kube-apiserver", organizations=["system:masters"])
    theirs = cloud.config.certificate_files("kube")
    before = [path.read_bytes() for path in theirs]
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(cloud.config.kubeconfig_file("node").read_text().replace("127.0.0.1", "localhost"))
    with cloud.changed("node", kubeconfig=kubeconfig, client_ca=tmp_path / "ca.crt"):
        with pytest.raises(ConnectionError):
            _ask(cloud, "kube")
        for path, content in zip(theirs, (certificate, key), strict=True):
            path.write_bytes(content)
        try:
            assert _ask(cloud, "kube")[0] == 200
        finally:
            for path, content in zip(theirs, before, strict=True):
                path.write_bytes(content)
