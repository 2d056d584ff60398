"""A registry over TLS that answers whatever a test tells it to, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cumulet.common.config import Config
from cumulet.common.tls import Authority

_OCI = "application/vnd.oci.image"


class Asked(NamedTuple):
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What is answered; `Content-Length` is the body's unless `headers` say otherwise.

    The second half of the body comes when `go_on` is set, if there is one.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    go_on: threading.Event | None = None


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of some bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


class HostileRegistry:
    """`answers` holds what is answered by path, for GET; HEAD is answered with the same and no body."""

    def __init__(self, host: str, port: int) -> None:
        self.address = f"{host}:{port}"
        self.port = port
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []

    def blob(self, repository: str, content: bytes, media_type: str) -> dict[str, Any]:
        """Serve a blob; its descriptor."""
        digest = digest_of(content)
        self.answers[f"/v2/{repository}/blobs/{digest}"] = Answer(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(
        self,
        repository: str,
        contents: Sequence[bytes] = (),
        *,
        packed: bool = True,
        configuration: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Serve an image under the tag `v1`, its manifest's fields replaced by `changes`; the manifest."""
        kind = f"{_OCI}.layer.v1.tar+gzip" if packed else f"{_OCI}.layer.v1.tar"
        served = [
            self.blob(repository, gzip.compress(item, 1, mtime=0) if packed else item, kind) for item in contents
        ]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(item) for item in contents]},
            **(configuration or {}),
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": self.blob(repository, json.dumps(config).encode(), f"{_OCI}.config.v1+json"),
            "layers": served,
            **changes,
        }
        self.manifest(repository, manifest)
        return manifest

    def manifest(self, repository: str, document: Any) -> None:
        """Serve any JSON as the manifest `v1`."""
        headers = {"Content-Type": f"{_OCI}.manifest.v1+json"}
        self.answers[f"/v2/{repository}/manifests/v1"] = Answer(json.dumps(document).encode(), headers=headers)

    def by_digest(self, repository: str, document: Any, kind: str, **fields: Any) -> dict[str, Any]:
        """Serve a manifest or an index by its digest; return its descriptor with more fields."""
        content = json.dumps(document).encode()
        digest = digest_of(content)
        self.answers[f"/v2/{repository}/manifests/{digest}"] = Answer(content)
        return {"mediaType": f"{_OCI}.{kind}.v1+json", "digest": digest, "size": len(content), **fields}

    def asked_for(self, part: str) -> list[Asked]:
        """The requests whose path has this in it."""
        return [item for item in self.asked if part in item.path]


@contextlib.contextmanager
def hostile_registry(config: Config, folder: Path, host: str = "127.0.0.1") -> Iterator[HostileRegistry]:
    """A running one, with a certificate of the installation's authority for its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.asked.append(Asked(self.command, self.path, dict(self.headers)))
            answer = registry.answers.get(self.path.partition("?")[0], Answer(status=404))
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                half = len(answer.body) // 2 if answer.go_on is not None else 0
                with contextlib.suppress(OSError):
                    self.wfile.write(answer.body[:half])
                    if answer.go_on is not None:
                        answer.go_on.wait(60)
                    self.wfile.write(answer.body[half:])

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    authority = Authority.load(config.authority_file("serving"), config.authority_key_file("serving"))
    certificate, key = authority.issue("hostile", hosts=[host, "localhost"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile.crt").write_bytes(certificate)
    (folder / "hostile.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "hostile.crt", folder / "hostile.key")
    with ThreadingHTTPServer((host, 0), Handler) as server:
        server.daemon_threads = True
        registry = HostileRegistry(host, server.server_address[1])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
