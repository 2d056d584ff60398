"""Whose certificate is good for what: each seam takes those of its own authority, for one purpose, and no other."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cumulet.common import tls
from cumulet.common.config import Config, RoomName
from cumulet.common.entra import ARM_AUDIENCE
from cumulet.common.tls import Authority
from tests.cloud import PEERS, Cloud
from tests.kube.behind import Behind
from tests.kube.conftest import Server
from tests.security.certificates import EXPIRED, REQUESTS, Admin, Files, authority, status, write


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cluster with its node, and the providers behind the front door."""
    folder = tmp_path_factory.mktemp("cloud") / "data"
    made = Cloud(folder, "kube", "controllers", "arm", "registry", "instances", "node")
    yield made
    made.close()


@pytest.fixture(scope="module")
def admin(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Admin:
    """The administrator."""
    return Admin(cloud, tmp_path_factory.mktemp("admin"))


GROUP = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"


class Seam(NamedTuple):
    """A place where somebody proves who they are by a certificate: a request, and whose certificate it takes."""

    room: RoomName
    path: str
    right: Callable[[Config], Files]
    method: str = "GET"
    form: Mapping[str, str] = MappingProxyType({})

    def ask(self, cloud: Cloud, files: Files | None) -> int:
        """The status of the answer, 0 where the handshake is refused."""
        headers = {"x-ms-client-object-id": cloud.owner.object_id}
        body = None
        if self.form:
            client = managed_identity(cloud) if self.form["client_id"] == "managed" else self.form["client_id"]
            body = urlencode({**self.form, "client_id": client})
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        config = cloud.config
        path = self.path.format(subscription=config.subscription_id, tenant=config.tenant_id)
        return status(config, self.room, files, path, self.method, body, headers)


_ROOM = "/subscriptions/{subscription}/providers/"
SEAMS = {
    "arm-registry": Seam(
        "registry",
        f"{_ROOM}Microsoft.ContainerRegistry/registries?api-version=2023-07-01",
        lambda config: config.room_files("arm"),
    ),
    "arm-identity": Seam(
        "identity",
        f"{_ROOM}Microsoft.Authorization/roleDefinitions?api-version=2022-04-01",
        lambda config: config.room_files("arm"),
    ),
    "arm-instances": Seam(
        "instances",
        f"{_ROOM}Microsoft.ContainerInstance/containerGroups?api-version=2023-05-01",
        lambda config: config.room_files("arm"),
    ),
    "instances-identity": Seam(
        "identity",
        "/{tenant}/oauth2/v2.0/token",
        lambda config: config.room_files("instances"),
        "POST",
        {"grant_type": "client_credentials", "client_id": "managed", "scope": f"{ARM_AUDIENCE}/.default"},
    ),
    "kube-node": Seam("node", "/pods", lambda config: config.kubelet_client_files),
    "users-kube": Seam("kube", "/api/v1/namespaces/kube-system/secrets", lambda config: config.user_files()),
}
_identities: dict[str, str] = {}


def managed_identity(cloud: Cloud) -> str:
    """The client id of a managed identity."""
    key = str(cloud.config.data_dir)
    if key not in _identities:
        group = f"{cloud.subscription}/resourceGroups/g"
        assert cloud.arm("PUT", group, {"location": "eastus"}).status in (200, 201)
        made = cloud.arm("PUT", f"{group}/{GROUP}/identity", {"location": "eastus"})
        assert made.status == 201, made.body
        _identities[key] = made.body["properties"]["clientId"]
    return _identities[key]


class Makes(NamedTuple):
    """What those need who make a certificate that is not the right one."""

    config: Config
    admin: Admin
    folder: Path

    @property
    def arm(self) -> str:
        """The URI of the front door."""
        return f"spiffe://{self.config.trust_domain}/room/arm"


def _signed(name: str, *groups: str, with_uri: bool = False) -> Callable[[Makes], Files]:
    return lambda makes: makes.admin.user(
        name, *groups, names=[x509.UniformResourceIdentifier(makes.arm)] if with_uri else ()
    )


def _expired(makes: Makes) -> Files:
    issued = authority(makes.config, "rooms").issue("arm", uri=makes.arm, life=EXPIRED)
    return write(makes.folder, *issued)


def _stranger(makes: Makes) -> Files:
    name = uuid.uuid4().hex
    made = Authority.open(
        makes.folder / f"{name}.crt", makes.folder / f"{name}.key", "Cumulet rooms CA", "client auth"
    )
    return write(makes.folder, *made.issue("arm", organizations=["system:masters"], uri=makes.arm))


def _another_name(makes: Makes) -> Files:
    """By the right authority, for a name that only looks like the front door's."""
    return write(makes.folder, *authority(makes.config, "rooms").issue("arm", hosts=["arm"]))


def _stolen(makes: Makes) -> Files:
    """By the cluster's authority, which has names that its signers refuse."""
    masters = authority(makes.config, "cluster").issue("kube-apiserver", organizations=["system:masters"])
    return write(makes.folder, *masters)


def _serving(makes: Makes) -> Files:
    """By the authority of servers, with all that a room is known by."""
    return write(makes.folder, *authority(makes.config, "serving").issue("arm", hosts=["arm"], uri=makes.arm))


#: Certificates, each with the seams at which it is somebody's own.
WRONG: dict[str, tuple[Callable[[Makes], Files | None], set[str]]] = {
    "none": (lambda makes: None, set()),
    "signed-arm": (_signed("arm"), set()),
    "signed-instances": (_signed("instances"), set()),
    "signed-arm-with-its-uri": (_signed("arm", "system:nodes", with_uri=True), set()),
    "signed-kubelet-client": (_signed("kube-apiserver-kubelet-client"), set()),
    "signed-front-proxy": (_signed("front-proxy-client"), set()),
    "cluster-masters": (_stolen, {"users-kube"}),
    "admin": (lambda makes: makes.config.user_files(), {"users-kube"}),
    "scheduler": (lambda makes: makes.config.user_files("scheduler"), set()),
    "the-nodes-own": (lambda makes: makes.config.user_files("node"), {"users-kube"}),
    "registry-room": (lambda makes: makes.config.room_files("registry"), set()),
    "arm-room": (lambda makes: makes.config.room_files("arm"), {"arm-registry", "arm-identity", "arm-instances"}),
    "instances-room": (lambda makes: makes.config.room_files("instances"), {"instances-identity"}),
    "kube-room": (lambda makes: makes.config.room_files("kube"), set()),
    "serving-arm": (lambda makes: makes.config.certificate_files("arm"), set()),
    "serving-kube": (lambda makes: makes.config.certificate_files("kube"), set()),
    "serving-node": (lambda makes: makes.config.certificate_files("node"), set()),
    "serving-with-a-rooms-uri": (_serving, set()),
    "kubelet-client": (lambda makes: makes.config.kubelet_client_files, {"kube-node"}),
    "front-proxy": (lambda makes: makes.config.front_proxy_files, set()),
    "foreign-authority-of-the-same-name": (_stranger, set()),
    "room-without-its-uri": (_another_name, set()),
    "expired": (_expired, set()),
}


@pytest.fixture(scope="module")
def makes(cloud: Cloud, admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Makes:
    """What certificates are made with."""
    return Makes(cloud.config, admin, tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("seam", SEAMS)
def test_the_right_certificate_is_taken(cloud: Cloud, seam: str) -> None:
    assert SEAMS[seam].ask(cloud, SEAMS[seam].right(cloud.config)) == 200


@pytest.mark.parametrize("name", WRONG)
def test_others_are_refused_at_every_seam(cloud: Cloud, makes: Makes, name: str) -> None:
    make, good_at = WRONG[name]
    files = make(makes)
    answers = {seam: SEAMS[seam].ask(cloud, files) for seam in SEAMS if seam not in good_at}
    assert {seam: code for seam, code in answers.items() if code not in (0, 401, 403)} == {}


def test_what_is_expired_is_refused_for_that_alone(cloud: Cloud, makes: Makes) -> None:
    seam = SEAMS["arm-registry"]
    issued = write(makes.folder, *authority(cloud.config, "rooms").issue("arm", uri=makes.arm))
    assert seam.ask(cloud, issued) == 200
    assert seam.ask(cloud, _expired(makes)) == 0


def test_masters_are_not_signed(admin: Admin) -> None:
    with pytest.raises(AssertionError, match="system:masters"):
        admin.user("kube-apiserver", "system:masters")


# What the API server shows to others.


@contextlib.contextmanager
def _server(listener: socket.socket, files: Files, config: Config) -> Iterator[list[Any]]:
    """A server that takes whatever our authorities signed, and notes who each connection is from; a refusal is a string."""
    context = tls.server_context(*files)
    context.verify_mode = ssl.CERT_OPTIONAL
    for name in ("rooms", "cluster", "kubelet-client", "front-proxy"):
        context.load_verify_locations(config.authority_file(name))
    seen: list[Any] = []

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    seen.append(_name(connection.getpeercert()))
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            except OSError as error:
                seen.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def _name(certificate: Any) -> Any:
    if not certificate:
        return None
    return dict(item for names in certificate["issuer"] for item in names)["commonName"]


def test_a_webhook_is_shown_no_certificate(cloud: Cloud, admin: Admin, tmp_path: Path) -> None:
    signer = authority(cloud.config, "serving")
    files = write(tmp_path, *signer.issue("hook", hosts=[PEERS]))
    listener = socket.create_server((PEERS, 0))
    with _server(listener, files, cloud.config) as seen:
        where = {
            "url": f"https://{PEERS}:{listener.getsockname()[1]}/",
            "caBundle": base64.b64encode(cloud.config.ca_file.read_bytes()).decode(),
        }
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
        hook: dict[str, Any] = {
            "name": "w.example.com",
            "clientConfig": where,
            "rules": [rule],
            "sideEffects": "None",
        }
        hook |= {"admissionReviewVersions": ["v1"], "failurePolicy": "Fail", "timeoutSeconds": 5}
        hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        assert admin.call("POST", hooks, {"metadata": {"name": "w"}, "webhooks": [hook]})[0] == 201
        made = admin.call("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
        assert admin.call("DELETE", f"{hooks}/w")[0] == 200
    assert made[0] == 500
    assert seen == [None]


def test_a_server_behind_is_shown_the_front_proxys_certificate(cloud: Cloud, tmp_path: Path) -> None:
    """Which is what it is told to expect, and good for nothing else (`test_others_are_refused_at_every_seam`)."""
    server, namespace = Server(cloud), f"n{uuid.uuid4().hex[:8]}"
    server.make("/api/v1/namespaces", {"metadata": {"name": namespace}})
    behind = Behind(server, f"/api/v1/namespaces/{namespace}", tmp_path)
    try:
        behind.serve()
        assert behind.register().status == 201
        behind.condition("Passed")
        assert {headers["peer"] for _, _, headers, _ in behind.requests} == {"front-proxy-client"}
    finally:
        behind.close()


@pytest.mark.parametrize(
    "name", ["none", "kubelet-client", "admin", "signed-front-proxy", "arm-room", "serving-kube"]
)
def test_a_server_behind_takes_the_front_proxy_only(cloud: Cloud, makes: Makes, name: str, tmp_path: Path) -> None:
    """By the authority that the cluster names to such servers."""
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    data = makes.admin.call("GET", path)[1]["data"]
    front_proxy = tmp_path / "front-proxy.crt"
    front_proxy.write_text(data["requestheader-client-ca-file"])
    assert front_proxy.read_bytes() == cloud.config.authority_file("front-proxy").read_bytes()
    assert data["client-ca-file"] == cloud.config.authority_file("cluster").read_text()
    assert json.loads(data["requestheader-allowed-names"]) == ["front-proxy-client"]
    context = tls.server_context(*cloud.config.certificate_files("balancer"), client_ca=front_proxy)
    context.verify_mode = ssl.CERT_REQUIRED
    assert _accepted(context, cloud.config.front_proxy_files)
    assert not _accepted(context, WRONG[name][0](makes))


def _accepted(context: ssl.SSLContext, files: Files | None) -> bool:
    """Whether a server takes a client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    showing = ssl.create_default_context()
    showing.check_hostname = False
    showing.verify_mode = ssl.CERT_NONE
    if files is not None:
        showing.load_cert_chain(*files)
    client = showing.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(3):
            for end in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLError:
        return False
    return server.getpeercert() is not None


def test_what_clients_in_the_cluster_trust(cloud: Cloud, admin: Admin) -> None:
    """The authority of the certificate that the API server shows, and no other."""
    found = admin.call("GET", "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt")[1]["data"]["ca.crt"]
    assert found == cloud.config.authority_file("serving").read_text() == cloud.config.ca_file.read_text()


# Nodes that are none.


def _node(admin: Admin, name: str, address: str, port: int) -> int:
    """Make a node whose kubelet is there; the status of the answer to that."""
    assert admin.call("POST", "/api/v1/nodes", {"metadata": {"name": name}})[0] == 201
    kubelet = {"kubeletEndpoint": {"Port": port}}
    found = {"addresses": [{"type": "InternalIP", "address": address}], "daemonEndpoints": kubelet}
    return admin.merge(f"/api/v1/nodes/{name}/status", {"status": found})


@pytest.mark.parametrize(
    ("address", "room"),
    [
        ("127.0.0.1", "kube"),
        ("127.0.0.1", "registry"),
        ("127.0.0.1", None),
        ("127.0.0.2", "kube"),
        ("127.0.0.2", "node"),
        ("localhost", "kube"),
        ("kubernetes.default.svc", "kube"),
        ("::1", "kube"),
        ("::ffff:127.0.0.1", "kube"),
        ("::ffff:7f00:1", "node"),
        ("0.0.0.0", "kube"),
        ("::", "kube"),
        ("0177.0.0.1", "kube"),
        ("2130706433", "kube"),
        ("169.254.169.254", None),
        ("224.0.0.1", None),
        ("192.0.2.1", "kube"),
        ("127.0.0.1@192.0.2.1", None),
        ("127.0.0.1/..", "kube"),
        ("", "kube"),
    ],
)
def test_a_node_that_leads_back_here(cloud: Cloud, admin: Admin, address: str, room: RoomName | None) -> None:
    name = f"n{uuid.uuid4().hex[:8]}"
    port = cloud.config.addresses[room].port if room is not None else 10250
    made = _node(admin, name, address, port)
    assert made in (200, 422)
    inside = "proxy/api/v1/namespaces/kube-system/secrets"
    for path in (f"{name}/{inside}", f"{name}:{port}/{inside}", f"https:{name}:{port}/{inside}"):
        code, body = admin.call("GET", f"/api/v1/nodes/{path}")
        assert code >= 400
        assert "address not allowed" in str(body) or made == 422
    spec = {"nodeName": name, "containers": [{"name": "c", "image": "x"}]}
    pods = "/api/v1/namespaces/default/pods"
    assert admin.call("POST", pods, {"metadata": {"name": name}, "spec": spec})[0] == 201
    for path in ("log", "proxy/"):
        assert admin.call("GET", f"{pods}/{name}/{path}")[0] >= 400
    assert admin.call("DELETE", f"{pods}/{name}?gracePeriodSeconds=0")[0] == 200
    assert admin.call("DELETE", f"/api/v1/nodes/{name}")[0] == 200


def test_other_ports_of_a_node(cloud: Cloud, admin: Admin) -> None:
    """The configured node is reached at its kubelet's port, and nowhere else."""
    node, config = cloud.config.node_name, cloud.config
    assert admin.call("GET", f"/api/v1/nodes/{node}/proxy/pods")[0] == 200
    assert admin.call("GET", f"/api/v1/nodes/{node}:{config.addresses['node'].port}/proxy/pods")[0] == 200
    for room in ("kube", "arm", "registry"):
        port = config.addresses[room].port
        assert admin.call("GET", f"/api/v1/nodes/{node}:{port}/proxy/")[0] == 400


@pytest.mark.parametrize("show", ["registry", "kube"])
def test_a_kubelet_has_to_prove_which_node_it_is(cloud: Cloud, admin: Admin, show: RoomName) -> None:
    """A server of the installation in the node's place is not told who asks."""
    cloud.stop("node")
    try:
        listener = cloud._listeners["node"][0].dup()
        listener.setblocking(True)
        seen: list[str] = []
        context = tls.server_context(
            *cloud.config.certificate_files(show), cloud.config.authority_file("kubelet-client")
        )

        def serve() -> None:
            plain, _ = listener.accept()
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    seen.append(f"accepted {connection.getpeercert()}")
            except ssl.SSLError as error:
                seen.append(error.reason)

        thread = threading.Thread(target=serve)
        thread.start()
        code, body = admin.call("GET", f"/api/v1/nodes/{cloud.config.node_name}/proxy/pods")
        thread.join()
        listener.close()
    finally:
        cloud.start("node")
    assert code == 503
    assert "certificate verify failed" in str(body)
    assert not seen[0].startswith("accepted")


# What the signers sign.


def _serving_request(admin: Admin, node: str, *names: x509.GeneralName) -> dict[str, Any]:
    asked = admin.ask(
        f"system:node:{node}", "system:nodes", signer="kubelet-serving", usage="server auth", names=names
    )
    return asked[0]


def test_a_node_gets_a_certificate_to_serve_with(cloud: Cloud, admin: Admin) -> None:
    name = f"n{uuid.uuid4().hex[:8]}"
    assert _node(admin, name, "192.0.2.7", 10250) == 200
    address = x509.IPAddress(ipaddress.ip_address("192.0.2.7"))
    found = _serving_request(admin, name, x509.DNSName(name), address)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(found["certificate"]))
    assert authority(cloud.config, "kubelet-serving").signed(certificate)
    assert not authority(cloud.config, "serving").signed(certificate)
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize(
    "names",
    [
        ["localhost"],
        ["a.localhost"],
        ["127.0.0.1"],
        ["::1"],
        ["acrdemo2ss.azurecr.io"],
        ["*.azurecr.io"],
        ["kubernetes.default.svc"],
        ["s.default.svc.cluster.local"],
        ["10.0.0.1"],
        ["another-node"],
        ["192.0.2.9"],
        ["OWN", "localhost"],
    ],
    ids="+".join,
)
def test_a_node_gets_no_names_of_others(admin: Admin, names: list[str]) -> None:
    """Also where it says that they are its own, as it writes its status."""
    node = f"n{uuid.uuid4().hex[:8]}"
    own = [node if name == "OWN" else name for name in names]
    assert admin.call("POST", "/api/v1/nodes", {"metadata": {"name": node}})[0] == 201
    if "another-node" not in names and "192.0.2.9" not in names:
        claimed = [{"type": "InternalIP" if _is_address(name) else "Hostname", "address": name} for name in own]
        assert admin.merge(f"/api/v1/nodes/{node}/status", {"status": {"addresses": claimed}}) in (200, 422)
    sans = [x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name) for name in own]
    found = _serving_request(admin, node, *sans)
    assert "certificate" not in found
    assert [item["reason"] for item in found["conditions"] if item["type"] == "Failed"] == ["SignerValidationFailure"]


def _is_address(text: str) -> bool:
    return ":" in text or text[0].isdigit()


def test_a_node_that_is_not_there_gets_none(admin: Admin) -> None:
    assert "certificate" not in _serving_request(admin, "nobody", x509.DNSName("nobody"))


def test_what_the_legacy_signer_signed_is_not_asked_for(admin: Admin) -> None:
    spec = {"request": "", "signerName": "kubernetes.io/legacy-unknown", "usages": ["any"]}
    code, body = admin.call("POST", REQUESTS, {"metadata": {"name": "legacy"}, "spec": spec})
    assert code == 422
    assert "spec.signerName" in [cause["field"] for cause in body["details"]["causes"]]


# Folders.


def test_folders_are_private_at_every_level(cloud: Cloud) -> None:
    data = cloud.config.data_dir
    open_to_others = [
        path
        for path in (data, *data.rglob("*"))
        if path.is_dir() and path.stat().st_mode & 0o077 and "instances" not in path.relative_to(data).parts[:1]
    ]
    assert open_to_others == []
    assert (data / "instances").stat().st_mode & 0o077 == 0
