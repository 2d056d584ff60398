"""An image of random bytes, and a client that pushes its layers in parallel (OCI Distribution Specification 1.1).

Digests are computed before. Threads only encrypt and send, so that the measured time is the server's.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

_AT_ONCE = 4
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Target(NamedTuple):
    """A registry's address, the CA of its certificate, and a bearer token, which may be empty."""

    host: str
    port: int
    ca: str
    token: str

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of each request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def connect(self) -> http.client.HTTPSConnection:
        """Open a connection."""
        context = ssl.create_default_context(cafile=self.ca)
        connection = http.client.HTTPSConnection(
            self.host, self.port, context=context, timeout=120, blocksize=1 << 20
        )
        connection.connect()
        return connection

    def call(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: IO[bytes] | bytes | None = None,
        kind: str = "",
    ) -> str:
        """Send a request and return the `Location` of the response. Raises `OSError` if it does not succeed."""
        headers = self.headers | {"Content-Type": kind or "application/octet-stream"}
        if body is not None and not isinstance(body, bytes):
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise OSError(f"{method} {path}: {response.status} {answer[:300]!r}")
        return response.headers.get("Location", "")


class Image:
    """An image whose blobs are files in `folder`, named by their digests. `layers` are digests."""

    def __init__(self, folder: Path, layers: list[str], manifest: bytes) -> None:
        self._folder = folder
        self.layers = layers
        self._manifest = manifest

    @classmethod
    def make(cls, folder: Path, sizes: Sequence[int]) -> Image:
        """Create an image with layers of random bytes of these sizes."""
        folder.mkdir()

        def blob(content: bytes, kind: str) -> dict[str, str | int]:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            (folder / digest).write_bytes(content)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}

        layers = [blob(os.urandom(size), "layer.v1.tar") for size in sizes]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": blob(b"{}", "config.v1+json"),
            "layers": layers,
        }
        return cls(folder, [str(layer["digest"]) for layer in layers], json.dumps(manifest).encode())

    def push(self, target: Target, repository: str, tag: str) -> float:
        """Push the image and return the duration in seconds."""
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda file: _push_blob(target, repository, file), sorted(self._folder.iterdir())))
        connection = target.connect()
        target.call(connection, "PUT", f"/v2/{repository}/manifests/{tag}", self._manifest, MANIFEST_TYPE)
        connection.close()
        return time.perf_counter() - began

    def push_many(self, target: Callable[[Sequence[str]], Target], repositories: Sequence[str]) -> None:
        """Push an image without layers to many repositories. `target` returns a token for some of them."""
        batches = [repositories[start : start + _FEW] for start in range(0, len(repositories), _FEW)]

        def push(batch: Sequence[str]) -> None:
            registry = target(batch)
            connection = registry.connect()
            for repository in batch:
                for file in self._folder.iterdir():
                    registry.call(
                        connection, "POST", f"/v2/{repository}/blobs/uploads/?digest={file.name}", file.read_bytes()
                    )
                registry.call(connection, "PUT", f"/v2/{repository}/manifests/v1", self._manifest, MANIFEST_TYPE)
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(push, batches))


_FEW = 20


def _push_blob(target: Target, repository: str, file: Path) -> None:
    connection = target.connect()
    location = target.call(connection, "POST", f"/v2/{repository}/blobs/uploads/")
    with file.open("rb") as body:
        location = target.call(connection, "PATCH", _path(location), body)
    location = _path(location)
    target.call(connection, "PUT", f"{location}{'&' if '?' in location else '?'}digest={file.name}")
    connection.close()


def _path(location: str) -> str:
    return "/" + location.split("://", 1)[-1].split("/", 1)[1]
