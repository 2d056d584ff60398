"""Debian's docker-registry as another registry, with TLS and a password."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cumulet.common.tls import Authority
from tests.cloud import PEERS, Cloud
from tests.oci_layout import write_layout

USER, PASSWORD = "somebody", "a-password"

_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: {server}, tls: {{certificate: {folder}/peer.crt, key: {folder}/peer.key}}}}
auth: {{htpasswd: {{realm: peer, path: {folder}/htpasswd}}}}
log: {{level: error}}
"""


class Peer:
    """The registry. `server` is its address and port."""

    def __init__(self, server: str, folder: Path, pid: int) -> None:
        self.server = server
        self._pid = pid
        self._folder = folder

    def push(self, image: str) -> None:
        """Push the image of the layout."""
        if not (self._folder / "image").exists():
            write_layout(self._folder / "image")
        command = ["skopeo", "copy", "--quiet", "--dest-creds", f"{USER}:{PASSWORD}", "--dest-cert-dir"]
        target = [str(self._folder / "certs"), f"oci:{self._folder}/image:v1", f"docker://{self.server}/{image}"]
        subprocess.run([*command, *target], check=True, capture_output=True, timeout=60)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context manager during which it accepts connections and does not answer."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)


@contextmanager
def running(cloud: Cloud, folder: Path) -> Iterator[Peer]:
    """A registry that requires the password, with a certificate of the installation's authority."""
    program = shutil.which("docker-registry") or str(Path(sys.executable).parent / "docker-registry")
    authority = Authority.load(cloud.config.authority_file("serving"), cloud.config.authority_key_file("serving"))
    certificate, key = authority.issue("peer", hosts=[PEERS])
    (folder / "certs").mkdir()
    for name, content in (
        ("peer.crt", certificate),
        ("peer.key", key),
        ("certs/ca.crt", cloud.config.ca_file.read_bytes()),
    ):
        (folder / name).write_bytes(content)
    crypt = ["perl", "-e", f'print crypt("{PASSWORD}", q($2y$04$abcdefghijklmnopqrstuu))']
    hashed = subprocess.run(crypt, check=True, capture_output=True, text=True).stdout
    (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
    with socket.socket() as probe:
        probe.bind((PEERS, 0))
        server = f"{PEERS}:{probe.getsockname()[1]}"
    (folder / "config.yml").write_text(_CONFIG.format(folder=folder, server=server))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")],
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait(server, process)
        yield Peer(server, folder, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait(server: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until it listens: it does not report that itself."""
    host, _, port = server.partition(":")
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
    raise AssertionError("docker-registry did not start")
