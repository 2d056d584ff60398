"""A plain HTTP client of one registry, without checks of requests, and content to push."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.client
import json
import random
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cumulet.common import tls
from cumulet.common.digests import Digest
from tests.cloud import Cloud

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"

Body = bytes | Iterable[bytes] | None


class Answer(NamedTuple):
    """A response of the registry."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The first code in an OCI error, after a check of the form."""
        assert self.headers["Content-Type"].startswith("application/json"), self
        (error, *_) = self.json["errors"]
        assert set(error) <= {"code", "message", "detail"}, error
        assert error["message"], error
        code: str = error["code"]
        assert code == code.upper(), error
        return code

    @property
    def digest(self) -> str:
        return self.headers["Docker-Content-Digest"]

    @property
    def location(self) -> str:
        return self.headers["Location"]


class Registry:
    """One registry, called as one principal, or anonymously where `user` is `None`."""

    def __init__(self, cloud: Cloud, name: str, user: str | None, password: str = "") -> None:
        self.cloud = cloud
        self.name = name
        self.host = f"{name}.{cloud.config.registry_suffix}"
        self.address = cloud.config.addresses["registry"]
        self.user = user
        self.password = password
        self._idle: dict[int, http.client.HTTPSConnection] = {}

    def __del__(self) -> None:
        for connection in self._idle.values():
            connection.close()

    def seen_by(self, user: str | None, password: str = "") -> Registry:
        """The same registry, called as another principal."""
        return Registry(self.cloud, self.name, user, password)

    @property
    def id(self) -> str:
        """The id in Azure Resource Manager."""
        group = f"{self.cloud.subscription}/resourceGroups/group"
        return f"{group}/providers/Microsoft.ContainerRegistry/registries/{self.name}"

    @property
    def usage(self) -> int:
        """The bytes that the registry holds."""
        answer = self.cloud.arm("GET", f"{self.id}/listUsages?api-version=2023-07-01")
        held: int = answer.body["value"][0]["currentValue"]
        return held

    def update(self, **properties: object) -> None:
        """Change properties in Azure Resource Manager."""
        answer = self.cloud.arm("PATCH", f"{self.id}?api-version=2023-07-01", {"properties": properties})
        assert answer.status == 200, answer.body

    def collect(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Collect garbage in the registry."""
        answer = self.cloud.arm("POST", f"{self.id}/collectGarbage?api-version=2023-07-01", {"dryRun": dry_run})
        assert answer.status == 200, answer.body
        report: dict[str, Any] = answer.body
        return report

    @property
    def authorization(self) -> dict[str, str]:
        """The header `Authorization`."""
        if self.user is None:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()}

    def connect(self) -> http.client.HTTPSConnection:
        """A connection, for requests in parts."""
        context = _context(self.cloud.config.ca_file)
        return http.client.HTTPSConnection(self.address.host, self.address.port, context=context, timeout=60)

    @contextlib.contextmanager
    def open(self) -> Iterator[ssl.SSLSocket]:
        """A TLS connection, for bytes that are not valid HTTP."""
        address = (self.address.host, self.address.port)
        context = _context(self.cloud.config.ca_file)
        with (
            socket.create_connection(address, timeout=60) as plain,
            context.wrap_socket(plain, server_hostname=self.address.host) as connection,
        ):
            yield connection

    def call(self, method: str, path: str, body: Body = None, **headers: str) -> Answer:
        """Send one request. `content_type="x"` sends `Content-Type: x`."""
        sent = {"Host": self.host, **self.authorization}
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        if isinstance(body, bytes | None) and (kept := self._idle.pop(threading.get_ident(), None)) is not None:
            # The registry may have closed the idle connection before this request.
            with contextlib.suppress(ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError):
                return self._ask(kept, method, path, body, sent)
        return self._ask(self.connect(), method, path, body, sent)

    def _ask(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: Body, headers: Mapping[str, str]
    ) -> Answer:
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())  # type: ignore[arg-type]
        except BaseException:
            connection.close()
            raise
        if response.will_close or not isinstance(body, bytes | None) or response.status >= 400:
            connection.close()
        else:
            self._idle[threading.get_ident()] = connection
        return answer

    @contextlib.contextmanager
    def get(self, repository: str, digest: str) -> Iterator[http.client.HTTPResponse]:
        """The response to the GET of a blob, to read in pieces."""
        connection = self.connect()
        try:
            connection.request(
                "GET", f"/v2/{repository}/blobs/{digest}", headers={"Host": self.host, **self.authorization}
            )
            yield connection.getresponse()
        finally:
            connection.close()

    # Preparations for most tests.

    def push_blob(self, repository: str, content: bytes, algorithm: str = "sha256") -> str:
        """Push a blob in one request and return its digest."""
        digest = digest_of(content, algorithm)
        answer = self.call("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content)
        assert answer.status == 201, answer
        return digest

    def put(self, repository: str, reference: str, manifest: object, content_type: str = "") -> Answer:
        """Put a manifest, as a document or as bytes."""
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        kind = content_type or (manifest.get("mediaType", IMAGE) if isinstance(manifest, dict) else IMAGE)
        return self.call("PUT", f"/v2/{repository}/manifests/{reference}", body, content_type=kind)

    def push_image(self, repository: str, reference: str, seed: str = "", **fields: object) -> str:
        """Push an image with a config and a layer made from `seed`, and return its digest."""
        for blob in (f"config {seed}", f"layer {seed}"):
            self.push_blob(repository, blob.encode())
        answer = self.put(repository, reference, image(seed, **fields))
        assert answer.status == 201, answer
        return answer.digest

    def start(self, repository: str) -> str:
        """Start an upload and return its location."""
        answer = self.call("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.location


@functools.cache
def _context(ca_file: Path) -> ssl.SSLContext:
    return tls.client_context(ca_file)


def digest_of(content: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of some content."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")


def descriptor(content: bytes, media_type: str, **fields: object) -> dict[str, Any]:
    """A descriptor of some content."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **fields}


def image(seed: str = "", **fields: Any) -> dict[str, Any]:
    """An image manifest with the config and layer of `push_image`."""
    return {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor(f"config {seed}".encode(), CONFIG),
        "layers": [descriptor(f"layer {seed}".encode(), LAYER)],
        **fields,
    }


def noise(size: int, seed: int = 0) -> bytes:
    """Incompressible content, always the same for a seed."""
    return random.Random(seed).randbytes(size)
