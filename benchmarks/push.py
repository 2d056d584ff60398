"""An image made of noise and a client that pushes it as the OCI Distribution Specification 1.1 says, layers at once.

Digests are known before, and threads do nothing but encrypt and send, so that the time is the server's.
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
from typing import Any, NamedTuple

_AT_ONCE = 4
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Target(NamedTuple):
    """A registry's address, the authority that its certificate is of, and a bearer token or nothing."""

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
        """What goes with each request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def connect(self) -> http.client.HTTPSConnection:
        """A new connection."""
        context = ssl.create_default_context(cafile=self.ca)
        connection = http.client.HTTPSConnection(
            self.host, self.port, context=context, timeout=120, blocksize=1 << 20
        )
        connection.connect()
        return connection

    def call(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: Any = None, kind: str = ""
    ) -> str:
        """One request; the `Location` of its answer. Raises `OSError` where it is none of success."""
        headers = self.headers | {"Content-Type": kind or "application/octet-stream"}
        if hasattr(body, "fileno"):
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise OSError(f"{method} {path}: {response.status} {answer[:300]!r}")
        return response.headers.get("Location", "")


class Image:
    """`layers` are the digests of files that lie in `folder`."""

    def __init__(self, folder: Path, layers: list[str], manifest: bytes) -> None:
        self._folder = folder
        self.layers = layers
        self._manifest = manifest

    @classmethod
    def make(cls, folder: Path, sizes: Sequence[int]) -> Image:
        """An image with layers of these many random bytes."""
        folder.mkdir()

        def blob(content: bytes, kind: str) -> dict[str, Any]:
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
        return cls(folder, [layer["digest"] for layer in layers], json.dumps(manifest).encode())

    def push(self, target: Target, repository: str, tag: str) -> float:
        """Push it; the seconds that it took."""
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda file: _push_blob(target, repository, file), sorted(self._folder.iterdir())))
        connection = target.connect()
        target.call(connection, "PUT", f"/v2/{repository}/manifests/{tag}", self._manifest, MANIFEST_TYPE)
        connection.close()
        return time.perf_counter() - began

    def push_many(self, target: Callable[[Sequence[str]], Target], repositories: Sequence[str]) -> None:
        """Push an image without layers to many repositories; `target` gives a token for some of them."""
        batches = [repositories[start : start + _FEW] for start in range(0, len(repositories), _FEW)]

        def push(batch: Sequence[str]) -> None:
            here = target(batch)
            connection = here.connect()
            for repository in batch:
                for file in self._folder.iterdir():
                    here.call(
                        connection, "POST", f"/v2/{repository}/blobs/uploads/?digest={file.name}", file.read_bytes()
                    )
                here.call(connection, "PUT", f"/v2/{repository}/manifests/v1", self._manifest, MANIFEST_TYPE)
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(push, batches))


_FEW = 20


def _push_blob(target: Target, repository: str, file: Path) -> None:
    connection = target.connect()
    place = target.call(connection, "POST", f"/v2/{repository}/blobs/uploads/")
    with file.open("rb") as body:
        place = target.call(connection, "PATCH", _path(place), body)
    place = _path(place)
    target.call(connection, "PUT", f"{place}{'&' if '?' in place else '?'}digest={file.name}")
    connection.close()


def _path(location: str) -> str:
    return "/" + location.split("://", 1)[-1].split("/", 1)[1]
