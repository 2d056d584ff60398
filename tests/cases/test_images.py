"""Images of every form that containerd takes, what is no image, and the images of the machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.cases.path import LOGIN_SERVER, ThePath, pod
from tests.instances.images import busybox_layer, entry, layer

_OCI = "application/vnd.oci.image"
_LAYER = f"{_OCI}.layer.v1.tar+gzip"


class Layout:
    """An OCI layout that is written piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, kind: str, **fields: Any) -> dict[str, Any]:
        """Write a blob; return its descriptor with more fields."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content), **fields}

    def document(self, document: Any, kind: str, **fields: Any) -> dict[str, Any]:
        """Write a document; return its descriptor."""
        return self.blob(json.dumps(document).encode(), kind, **fields)

    def manifest(
        self, config: dict[str, Any], layers: list[dict[str, Any]], *, entry: Any = None, **fields: Any
    ) -> dict[str, Any]:
        """Write a manifest; `entry` is what its descriptor has in an index."""
        kind = f"{_OCI}.manifest.v1+json"
        body = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers, **fields}
        return self.document(body, kind, **(entry or {}))

    def index(self, *entries: Any, **fields: Any) -> dict[str, Any]:
        """Write an index."""
        kind = f"{_OCI}.index.v1+json"
        return self.document({"schemaVersion": 2, "mediaType": kind, "manifests": entries}, kind, **fields)

    def image(self, says: str, *, config: Any = None, entry: Any = None, **fields: Any) -> dict[str, Any]:
        """Write an image that says something and ends."""
        content = busybox_layer()
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin", None], "Cmd": ["echo", says], "Labels": None, "User": None},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
            "history": None,
            **(config or {}),
        }
        described = self.document(document, f"{_OCI}.config.v1+json")
        return self.manifest(
            described, [self.blob(gzip.compress(content, 1, mtime=0), _LAYER)], entry=entry, **fields
        )

    def name(self, top: dict[str, Any]) -> None:
        """Name the image of the layout."""
        named = {**top, "annotations": {"org.opencontainers.image.ref.name": "it"}}
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))


def on(architecture: str, variant: str | None = None, os: str = "linux") -> dict[str, Any]:
    """An entry of an index for a platform."""
    return {"platform": {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}}


def images(layout: Layout, name: str) -> dict[str, Any]:
    """The top document of an image that says `it ran`."""
    match name:
        case "config":
            return layout.image("it ran", config={"big": secrets.token_hex(1_500_000)})
        case "manifest":
            return layout.image("it ran", annotations={"big": secrets.token_hex(500_000)})
        case "variants":
            return layout.index(
                layout.image("arm", entry=on("arm", "v7")),
                layout.image("v3", entry=on("amd64", "v3")),
                layout.image("386", entry=on("386")),
                layout.image("attestation", entry=on("unknown", os="unknown")),
                layout.image("it ran", entry=on("x86_64", "v1")),
            )
        case "older":
            return layout.index(layout.image("arm64", entry=on("arm64")), layout.image("it ran", entry=on("i386")))
        case _:
            kind = "application/vnd.dev.cosign.artifact.sig.v1+json"
            signature = layout.manifest(
                layout.blob(b"{}", "application/vnd.oci.empty.v1+json"), [], artifactType=kind
            )
            other = layout.image("arm64", config={"architecture": "arm64"})
            return layout.index(signature, other, layout.image("it ran"))


def artifacts(layout: Layout, name: str) -> tuple[dict[str, Any], str]:
    """The top document of an artifact, and its type."""
    content = layout.blob(gzip.compress(layer(entry("c/Chart.yaml", b"name: c\n"))), _LAYER)
    match name:
        case "notes":
            return layout.manifest(layout.blob(b"just notes\n", "text/plain"), [content]), "text/plain"
        case "empty":
            empty = layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
            return layout.manifest(empty, [content], artifactType="application/x.notes"), "application/x.notes"
        case "chart":
            kind = "application/vnd.cncf.helm.config.v1+json"
            return layout.manifest(layout.blob(b'{"name":"c"}', kind), [content]), kind
        case "attestation":
            config = layout.blob(b'{"os":"unknown","architecture":"unknown"}', f"{_OCI}.config.v1+json")
            return layout.manifest(
                config, [layout.blob(b"{}", "application/vnd.in-toto+json")]
            ), "application/vnd.in-toto+json"
        case _:
            kind = "application/vnd.buildkit.cacheconfig.v0"
            return layout.manifest(layout.blob(b'{"layers":[]}', kind), [content]), kind


def push(path: ThePath, name: str, top: Any) -> str:
    """Push an image whose top document is made by `top(layout)`; return its name."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        layout.name(top(layout))
        path.push_layout(Path(folder), f"{name}:1", "--all")
    return f"{LOGIN_SERVER}/{name}:1"


IMAGES = ("config", "manifest", "variants", "older", "unnamed")
ARTIFACTS = ("notes", "empty", "chart", "attestation", "cache")


@pytest.fixture(scope="module")
def pods(path: ThePath) -> ThePath:
    """A pod of each image and artifact, named after it."""
    made = []
    for name in IMAGES:
        image = push(path, f"image-{name}", lambda layout, name=name: images(layout, name))
        made.append(pod(f"image-{name}", [{"name": "main", "image": image}], restartPolicy="Never"))
    for name in ARTIFACTS:
        image = push(path, f"artifact-{name}", lambda layout, name=name: artifacts(layout, name)[0])
        made.append(pod(f"artifact-{name}", [{"name": "main", "image": image}], restartPolicy="Never"))
    foreign = push(
        path,
        "foreign",
        lambda layout: layout.index(layout.image("x", entry=on("arm64")), layout.image("x", entry=on("amd64", "v4"))),
    )
    windows = push(path, "windows", lambda layout: layout.image("x", config={"os": "windows"}))
    for name, image in (("foreign", foreign), ("windows", windows)):
        made.append(pod(name, [{"name": "main", "image": image}]))
    path.apply(*made)
    return path


def test_images_of_every_form_run(pods: ThePath) -> None:
    for name in IMAGES:
        assert pods.output(f"image-{name}") == "it ran\n", name


def test_an_artifact_is_told_by_its_type(pods: ThePath, tmp_path: Path) -> None:
    for name in ARTIFACTS:
        kind = artifacts(Layout(tmp_path / name), name)[1]
        event = pods.events(f"artifact-{name}", "Failed")
        assert f"{LOGIN_SERVER}/artifact-{name}:1 is an artifact of type {kind}, not an image. Fix: " in event
        assert "retried" not in event
        pods.wait(
            f"pod/artifact-{name}", "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff"
        )
    pods.kubectl("delete", "pod", *(f"artifact-{name}" for name in ARTIFACTS), "--wait=false")


def test_an_image_for_other_platforms_names_them(pods: ThePath) -> None:
    event = pods.events("foreign", "Failed")
    assert (
        "no matching manifest for linux/amd64 in the manifest list entries: it has linux/arm64, linux/amd64/v4"
        in event
    )
    assert "Fix: build the image for linux/amd64" in event
    assert "the image is for windows/amd64, and this machine is linux/amd64" in pods.events("windows", "Failed")
    pods.kubectl("delete", "pod", "foreign", "windows", "--wait=false")


def test_images_are_listed_and_pruned_but_those_in_use(path: ThePath) -> None:
    used = path.push("listed/used:1", [busybox_layer(), layer(entry("used"))], Cmd=["false"])
    unused = path.push("listed/unused:1", [busybox_layer(), layer(entry("unused", b"x" * 10_000))], Cmd=["true"])
    path.apply(
        pod("listed-used", [{"name": "main", "image": used}]),
        pod("listed-unused", [{"name": "main", "image": unused}], restartPolicy="Never"),
    )
    crashes = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff"
    path.wait("pod/listed-used", crashes)
    path.output("listed-unused")
    path.kubectl("delete", "pod", "listed-unused")

    def listed(*words: str) -> dict[str, Any]:
        found = path.installation.cumulet("images", *words, "-o", "json")
        rows = found["images"] if words else found
        return {row["repository"].rpartition("listed/")[2]: row for row in rows if "/listed/" in row["repository"]}

    rows = listed()
    assert (rows["used"]["groups"], rows["used"]["tag"], rows["used"]["status"]) == (1, "1", "in use")
    assert rows["unused"]["groups"] == 0
    assert rows["unused"]["size"] > 10_000
    assert rows["unused"]["digest"].startswith("sha256:")
    assert set(listed("prune", "--dry-run")) == {"unused"}
    assert set(listed("prune")) == {"unused"}
    assert set(listed()) == {"used"}
    path.kubectl("delete", "pod", "listed-used", "--wait=false")
