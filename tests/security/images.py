"""Images that no builder makes, pushed to the peer registry by its own protocol (OCI Distribution 1.1, "Push")."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from tests.instances.images import PASSWORD, USERNAME, Registry


def push_with_configuration(
    registry: Registry, repository: str, tag: str, layers: list[bytes], configuration: Any
) -> None:
    """Push an image of uncompressed layers whose configuration is whatever it is said to be.

    An object that has no `rootfs` gets that of the layers, without which no image is pulled.
    """
    if isinstance(configuration, dict):
        identities = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in layers]
        configuration = {"rootfs": {"type": "layers", "diff_ids": identities}, **configuration}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(registry, repository, json.dumps(configuration).encode(), "config.v1+json"),
        "layers": [_blob(registry, repository, content, "layer.v1.tar") for content in layers],
    }
    headers = {"Content-Type": str(manifest["mediaType"])}
    _call(registry, "PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), headers)


def _blob(registry: Registry, repository: str, content: bytes, kind: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    answer = _call(registry, "POST", f"/v2/{repository}/blobs/uploads/", b"", {})
    location = urlsplit(answer.headers["Location"])
    path = f"{location.path}?{location.query}&digest={digest}"
    _call(registry, "PUT", path, content, {"Content-Type": "application/octet-stream"})
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}


def _call(
    registry: Registry, method: str, path: str, body: bytes, headers: dict[str, str]
) -> http.client.HTTPResponse:
    host, _, port = registry.address.partition(":")
    context = ssl.create_default_context(cafile=registry.ca)
    connection = http.client.HTTPSConnection(host, int(port), context=context)
    try:
        credentials = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        connection.request(method, path, body, {"Authorization": f"Basic {credentials}", **headers})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, f"{method} {path}: {answer.status} {text[:500]!r}"
        return answer
    finally:
        connection.close()
