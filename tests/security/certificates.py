"""Certificates that the cluster's signers sign, and those that somebody makes up; and calls that show them."""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import ssl
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cumulet.common.config import AuthorityName, Config, RoomName
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.tls import Authority
from tests.cloud import Cloud

Object = dict[str, Any]
Files = tuple[Path, Path]

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
EXPIRED = dt.timedelta(minutes=-1)


class Admin:
    """The cluster's administrator, by the kubeconfig; what is signed for them goes to a folder."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self._kubeconfig = cloud.config.kubeconfig_file("admin")
        context = load_kubeconfig(self._kubeconfig).ssl_context
        assert context is not None
        self._context = context
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
            return response.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode()
        finally:
            connection.close()

    def merge(self, path: str, patch: Object) -> int:
        """A merge patch; the status of the answer."""
        return self.call("PATCH", path, patch, "application/merge-patch+json")[0]

    def kubectl(self, *words: str) -> str:
        """Run kubectl."""
        command = ["kubectl", "--kubeconfig", str(self._kubeconfig), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def ask(
        self, subject: str, *groups: str, signer: str, usage: str, names: Sequence[x509.GeneralName] = ()
    ) -> tuple[Object, bytes]:
        """What became of a request that was approved, and the key that it is for."""
        request, key = _request(subject, groups, names)
        name = f"c{uuid.uuid4().hex[:8]}"
        spec = {"request": request, "signerName": f"kubernetes.io/{signer}", "usages": ["digital signature", usage]}
        status, answer = self.call("POST", REQUESTS, {"metadata": {"name": name}, "spec": spec})
        assert status == 201, answer
        self.kubectl("certificate", "approve", name)
        query = f"watch=true&timeoutSeconds=30&fieldSelector=metadata.name={name}"
        connection = http.client.HTTPSConnection(
            self._address.host, self._address.port, context=self._context, timeout=40
        )
        try:
            connection.request("GET", f"{REQUESTS}?{query}")
            response = connection.getresponse()
            while line := response.readline():
                found: Object = json.loads(line)["object"].get("status") or {}
                if found.get("certificate") or any(
                    item["type"] == "Failed" for item in found.get("conditions") or ()
                ):
                    return found, key
        finally:
            connection.close()
        raise AssertionError(f"nothing became of {subject}")

    def user(self, subject: str, *groups: str, names: Sequence[x509.GeneralName] = ()) -> Files:
        """The certificate of a user."""
        found, key = self.ask(subject, *groups, signer="kube-apiserver-client", usage="client auth", names=names)
        return write(self._folder, base64.b64decode(found["certificate"]), key)


def write(folder: Path, certificate: bytes, key: bytes) -> Files:
    """A certificate and its key as files."""
    name = uuid.uuid4().hex
    files = folder / f"{name}.crt", folder / f"{name}.key"
    for file, content in zip(files, (certificate, key), strict=True):
        file.write_bytes(content)
    return files


def authority(config: Config, name: AuthorityName) -> Authority:
    """Load an authority of the installation, as an attacker with its key would."""
    return Authority.load(config.authority_file(name), config.authority_key_file(name))


def status(
    config: Config,
    room: RoomName,
    show: Files | None,
    path: str,
    method: str = "GET",
    body: str | None = None,
    headers: Mapping[str, str] = {},
) -> int:
    """The status of the answer to a request that shows a certificate; 0 where the handshake is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if show is not None:
        context.load_cert_chain(*show)
    address = config.addresses[room]
    connection = http.client.HTTPSConnection(address.host, address.port, context=context, timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        return connection.getresponse().status
    except (ssl.SSLError, ConnectionError):
        return 0
    finally:
        connection.close()


def _request(subject: str, groups: tuple[str, ...], names: Sequence[x509.GeneralName]) -> tuple[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    name = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return base64.b64encode(pem).decode(), private
