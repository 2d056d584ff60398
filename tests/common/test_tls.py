"""Certificates of the installation's authorities, verified by OpenSSL and in real handshakes."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector, web
from cryptography import x509

from cumulet.common import tls
from cumulet.common.config import AuthorityName, Config
from cumulet.common.room import Room, listen, peer_certificate, peer_room
from cumulet.up.certificates import AUTHORITIES, leaves, maintain


def test_openssl_verifies_every_certificate_for_its_purpose_only(config: Config) -> None:
    for leaf in leaves(config):
        purpose = AUTHORITIES[leaf.authority]
        for name in AUTHORITIES:
            for wanted, option in (("server auth", "sslserver"), ("client auth", "sslclient")):
                authority = str(config.authority_file(name))
                command = [
                    "openssl",
                    "verify",
                    "-x509_strict",
                    "-purpose",
                    option,
                    "-CAfile",
                    authority,
                    str(leaf.files[0]),
                ]
                verified = subprocess.run(command, capture_output=True, check=False).returncode == 0
                assert verified == (name == leaf.authority and wanted == purpose), (leaf, name, wanted)
        assert leaf.files[1].stat().st_mode & 0o777 == 0o600


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    files = tmp_path / "ca.crt", tmp_path / "ca.key"
    tls.Authority.open(*files)
    first = files[0].read_bytes()
    tls.Authority.open(*files)
    assert files[0].read_bytes() == first
    files[1].unlink()
    with pytest.raises(FileNotFoundError):
        tls.Authority.open(*files)


def test_an_authority_without_a_purpose_is_none(tmp_path: Path) -> None:
    files = tmp_path / "ca.crt", tmp_path / "ca.key"
    everything = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=Old",
        "-days",
        "1",
    ]
    command = ["openssl", "req", *everything, "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ValueError, match="not for one purpose"):
        tls.Authority.open(*files)


def test_a_renewed_authority_is_the_same_to_those_who_have_the_old_one(tmp_path: Path) -> None:
    authority = tls.Authority.open(tmp_path / "ca.crt", tmp_path / "ca.key")
    renewed = authority.renewed()
    assert renewed.certificate.serial_number != authority.certificate.serial_number
    (tmp_path / "new.crt").write_bytes(renewed.issue("a", hosts=["a"])[0])
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "new.crt")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


async def _answers(config: Config, clients: AuthorityName, *shown: tuple[Path, Path]) -> list[object]:
    """Return the user and the room that a server identified for each of its clients."""

    async def who(request: web.Request) -> web.Response:
        peer = peer_certificate(request)
        user = None if peer is None else [peer.user, list(peer.groups)]
        return web.json_response([user, peer_room(request)])

    app = web.Application()
    app.router.add_get("/", who)
    room = Room("kube", config, [listen(address) for address in config.listening("kube")])
    answers = []
    async with room.serving(app, clients=clients):
        for files in ((), *shown):
            connector = TCPConnector(ssl=tls.client_context(config.ca_file, *files))
            async with ClientSession(connector=connector) as session, session.get(config.url("kube")) as response:
                answers.append(await response.json())
    return answers


async def test_a_server_of_the_cluster_learns_which_user_its_client_is(config: Config) -> None:
    node = ["system:node:virtual-node-aci-linux", ["system:nodes"]]
    assert await _answers(config, "cluster", config.user_files("node")) == [[None, None], [node, None]]


async def test_a_server_of_rooms_learns_which_room_its_client_is(config: Config) -> None:
    assert await _answers(config, "rooms", config.room_files("arm")) == [[None, None], [None, "arm"]]


async def test_a_room_has_its_uri_and_no_other(config: Config, tmp_path: Path) -> None:
    authority = tls.Authority.load(config.authority_file("rooms"), config.authority_key_file("rooms"))
    files = tmp_path / "a.crt", tmp_path / "a.key"
    for uri in (None, "spiffe://elsewhere/room/arm", f"spiffe://{config.trust_domain}/room/arm/x", "urn:room:arm"):
        for path, content in zip(files, authority.issue("arm", hosts=["arm"], uri=uri), strict=True):
            path.write_bytes(content)
        assert (await _answers(config, "rooms", files))[1] == [None, None]


def _request(subject: str, key: Path) -> x509.CertificateSigningRequest:
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made = subprocess.run([*command, "-subj", subject, "-keyout", str(key)], check=True, capture_output=True)
    return x509.load_pem_x509_csr(made.stdout)


async def test_a_user_has_one_name(config: Config, tmp_path: Path) -> None:
    authority = tls.Authority.load(config.authority_file("cluster"), config.authority_key_file("cluster"))
    files = tmp_path / "a.crt", tmp_path / "a.key"
    for subject in ("/CN=ann/CN=kubernetes-admin", "/O=system:masters"):
        files[0].write_bytes(authority.sign(_request(subject, files[1]), 600))
        assert (await _answers(config, "cluster", files))[1] == [None, None]


async def test_new_certificates_are_taken_in_by_those_that_run(config: Config) -> None:
    room = Room("kube", config, [])
    serving, showing = room.server_tls("rooms"), room.client_tls(show=config.room_files("arm"))
    before = _handshake(serving, showing)
    for files in (config.certificate_files("kube"), config.room_files("arm")):
        files[0].unlink()
    maintain(config)
    assert _handshake(serving, showing) == before
    room.reload()
    after = _handshake(serving, showing)
    assert after[0] != before[0]
    assert after[1] != before[1]


def _handshake(serving: ssl.SSLContext, showing: ssl.SSLContext) -> tuple[str, str]:
    """Return the serial numbers of the certificates of the server and the client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = showing.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(3):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    shown = client.getpeercert(), server.getpeercert()
    assert shown[0] is not None
    assert shown[1] is not None
    return str(shown[0]["serialNumber"]), str(shown[1]["serialNumber"])
