"""Certificates of our authority, as OpenSSL and a real handshake see them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from aiohttp import ClientSession, TCPConnector, web

from cumulet.common import tls
from cumulet.common.config import Config
from cumulet.common.room import Room, listen, peer_certificate


def test_openssl_verifies_every_certificate(config: Config) -> None:
    for room in config.addresses:
        certificate, key = config.certificate_files(room)
        command = ["openssl", "verify", "-x509_strict", "-CAfile", str(config.ca_file), str(certificate)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        assert key.stat().st_mode & 0o777 == 0o600


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    files = tmp_path / "ca.crt", tmp_path / "ca.key"
    tls.Authority.open(*files)
    first = files[0].read_bytes()
    tls.Authority.open(*files)
    assert files[0].read_bytes() == first


async def test_a_server_learns_who_its_client_is(config: Config) -> None:
    async def who(request: web.Request) -> web.Response:
        peer = peer_certificate(request)
        return web.json_response(None if peer is None else [peer.user, list(peer.groups)])

    app = web.Application()
    app.router.add_get("/", who)
    room = Room("kube", config, [listen(address) for address in config.listening("kube")])
    async with room.serving(app):
        answers = []
        for shown in ((), config.certificate_files("node")):
            connector = TCPConnector(ssl=tls.client_context(config.ca_file, *shown))
            async with ClientSession(connector=connector) as session, session.get(config.url("kube")) as response:
                answers.append(await response.json())
    assert answers == [None, ["system:node:virtual-node-aci-linux", ["system:nodes"]]]
