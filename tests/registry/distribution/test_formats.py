"""skopeo pushes an image in each of its formats, and pulls it again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.instances.images import entry, layer, write_layout
from tests.registry.client import DOCKER_IMAGE, IMAGE, Registry


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An image with one layer."""
    folder = tmp_path / "layout"
    folder.mkdir()
    write_layout(folder, [layer(entry("hello", b"hello"))], {})
    return folder


def skopeo(registry: Registry, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    trust = folder / "trust"
    trust.mkdir(exist_ok=True)
    (trust / "ca.crt").write_bytes(registry.cloud.config.ca_file.read_bytes())
    side = "dest" if arguments[-1].startswith("docker:") else "src"
    options = [f"--{side}-cert-dir={trust}", f"--{side}-creds={registry.user}:{registry.password}"]
    command = ["skopeo", "copy", *options, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("form", "media_type"), [("oci", IMAGE), ("v2s2", DOCKER_IMAGE)])
def test_an_image_is_pushed_and_pulled(
    strict: Registry, repository: str, layout: Path, tmp_path: Path, form: str, media_type: str
) -> None:
    # The address selects the oldest registry, which is the only one in this room.
    image = f"docker://{strict.address.host}:{strict.address.port}/{repository}:v1"
    there = skopeo(strict, tmp_path, "--format", form, f"oci:{layout}", image)
    assert there.returncode == 0, there.stderr
    answer = strict.call("GET", f"/v2/{repository}/manifests/v1")
    assert answer.headers["Content-Type"] == answer.json["mediaType"] == media_type
    back = skopeo(strict, tmp_path, image, f"dir:{tmp_path / 'back'}")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "manifest.json").read_bytes() == answer.body
