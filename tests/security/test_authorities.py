"""Whose certificate is good for what: each seam takes those of its own authority, for one purpose, and no other."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cumulet.common.config import RoomName
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from tests.cloud import Cloud

Object = dict[str, Any]

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
REGISTRIES = "/subscriptions/{}/providers/Microsoft.ContainerRegistry/registries?api-version=2023-07-01"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cluster with its node, and the providers behind the front door."""
    made = Cloud(tmp_path_factory.mktemp("cloud") / "data", "kube", "controllers", "arm", "registry", "node")
    yield made
    made.close()


class Admin:
    """The cluster's administrator, by the kubeconfig."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self._kubeconfig = cloud.config.kubeconfig_file("admin")
        self._context: ssl.SSLContext = load_kubeconfig(self._kubeconfig).ssl_context
        self._address = cloud.config.addresses["kube"]
        self._folder = folder

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """One request: status and decoded body."""
        connection = http.client.HTTPSConnection(
            self._address.host, self._address.port, context=self._context, timeout=30
        )
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": kind} if data else {})
            response = connection.getresponse()
            raw = response.read()
            return response.status, json.loads(raw) if raw[:1] in b"{[" else raw.decode()
        finally:
            connection.close()

    def kubectl(self, *words: str) -> str:
        """Run kubectl."""
        command = ["kubectl", "--kubeconfig", str(self._kubeconfig), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def certificate(
        self,
        subject: str,
        *groups: str,
        signer: str = "kube-apiserver-client",
        names: Sequence[x509.GeneralName] = (),
    ) -> tuple[Path, Path]:
        """What the cluster's signer signs for this subject once it is approved."""
        request, key = _request(subject, groups, names)
        name = f"c{uuid.uuid4().hex[:8]}"
        usage = "server auth" if signer == "kubelet-serving" else "client auth"
        spec = {"request": request, "signerName": f"kubernetes.io/{signer}", "usages": ["digital signature", usage]}
        status, answer = self.call("POST", REQUESTS, {"metadata": {"name": name}, "spec": spec})
        assert status == 201, answer
        self.kubectl("certificate", "approve", name)
        self.kubectl("wait", "csr", name, "--for=jsonpath={.status.certificate}", "--timeout=30s")
        issued = self.call("GET", f"{REQUESTS}/{name}")[1]["status"]["certificate"]
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(base64.b64decode(issued))
        files[1].write_bytes(key)
        return files


def _request(subject: str, groups: tuple[str, ...], names: Sequence[x509.GeneralName]) -> tuple[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return base64.b64encode(pem).decode(), private


@pytest.fixture(scope="module")
def admin(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Admin:
    """The administrator."""
    return Admin(cloud, tmp_path_factory.mktemp("admin"))


def _call(
    cloud: Cloud, room: RoomName, files: tuple[Path, Path], path: str, method: str = "GET", body: Any = None
) -> int:
    """The status of an answer; 0 where the handshake is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*files)
    address = cloud.config.addresses[room]
    connection = http.client.HTTPSConnection(address.host, address.port, context=context, timeout=30)
    try:
        connection.request(method, path, body, {"x-ms-client-object-id": cloud.owner.object_id})
        return connection.getresponse().status
    except (ssl.SSLError, ConnectionError):
        return 0
    finally:
        connection.close()


def test_a_user_of_the_cluster_is_no_room(cloud: Cloud, admin: Admin) -> None:
    files = admin.certificate("arm")
    assert _call(cloud, "registry", files, REGISTRIES.format(cloud.config.subscription_id)) in (0, 403)


def test_a_node_that_leads_back_to_the_api_server(cloud: Cloud, admin: Admin) -> None:
    address = cloud.config.addresses["kube"]
    assert admin.call("POST", "/api/v1/nodes", {"metadata": {"name": "back"}})[0] == 201
    status = {
        "addresses": [{"type": "InternalIP", "address": address.host}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port}},
    }
    patch = "application/merge-patch+json"
    assert admin.call("PATCH", "/api/v1/nodes/back/status", {"status": status}, patch)[0] == 200
    code, body = admin.call("GET", "/api/v1/nodes/back/proxy/api/v1/namespaces/kube-system/secrets")
    assert code >= 400
    assert "SecretList" not in str(body)
