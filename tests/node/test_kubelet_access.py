"""Who may use the virtual node's kubelet API: the API server decides, as for any kubelet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


def _ask(cloud: Cloud, show: tuple[Path, Path] | None) -> tuple[int, str]:
    answer = cloud.call("node", "GET", "/pods", show=show)
    return answer.status, answer.body.decode() if isinstance(answer.body, bytes) else ""


def test_a_certificate_is_asked_for(cloud: Cloud) -> None:
    assert _ask(cloud, None) == (401, "Unauthorized")
    assert cloud.call("node", "GET", "/healthz").status == 200


def test_the_api_server_may(cloud: Cloud) -> None:
    assert _ask(cloud, cloud.config.kubelet_client_files)[0] == 200


@contextmanager
def _elsewhere(cloud: Cloud, folder: Path, client_ca: Path) -> Iterator[None]:
    """The same cluster as if it were somebody else's, where it is said who signs for its API server."""
    kubeconfig = folder / "config"
    kubeconfig.write_bytes(cloud.config.kubeconfig_file("node").read_bytes())
    with cloud.changed("node", kubeconfig=kubeconfig, client_ca=client_ca):
        yield


def test_in_another_cluster_others_may_what_it_says(cloud: Cloud, tmp_path: Path) -> None:
    users = cloud.config.user_files
    with _elsewhere(cloud, tmp_path, cloud.config.authority_file("cluster")):
        status, why = _ask(cloud, users("scheduler"))
        assert status == 403
        assert why == "Forbidden (user=system:kube-scheduler, verb=get, resource=nodes, subresource=proxy)"
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:cloud-controller-manager"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:kubelet-api-admin"}
        binding = {"metadata": {"name": "b"}, "roleRef": role, "subjects": [subject]}
        Server(cloud).make(f"{RBAC}/clusterrolebindings", binding)
        assert _ask(cloud, users("balancer"))[0] == 200
        assert _ask(cloud, users("admin"))[0] == 200


def test_in_another_cluster_its_authority_counts(cloud: Cloud, tmp_path: Path) -> None:
    """Who signs for our own API server is nobody there."""
    files = tmp_path / "ca.crt", tmp_path / "ca.key"
    other = Authority.open(*files, purpose="client auth")
    theirs = tmp_path / "theirs.crt", tmp_path / "theirs.key"
    for path, content in zip(theirs, other.issue("kube-apiserver", organizations=["system:masters"]), strict=True):
        path.write_bytes(content)
    with _elsewhere(cloud, tmp_path, files[0]):
        with pytest.raises(ConnectionError):
            _ask(cloud, cloud.config.kubelet_client_files)
        assert _ask(cloud, theirs)[0] == 200
