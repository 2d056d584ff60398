"""Commands that build, test and push an image: docker's if its engine responds, otherwise buildah's."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cumulet.common.private_files import write_private


class Engine(NamedTuple):
    """The commands of an image engine. Placeholders: `port`, `registry`, `image`, and `who`, a prefix of shell variables."""

    name: str
    build: str
    images: str
    run: str
    stop: str
    login: str
    push: str
    forget: str


_DOCKER = Engine(
    name="docker",
    build="docker build --tag acr-app3:v1 .",
    images="docker images acr-app3:v1",
    run="docker run --name acr-app3 --rm --publish 127.0.0.1:{port}:80 --detach acr-app3:v1",
    stop="docker stop -t 1 acr-app3",
    login='docker login --username "${who}_ID" --password-stdin {registry} <<<"${who}_SECRET"',
    push="docker tag acr-app3:v1 {image} && docker push {image}",
    forget="docker rmi acr-app3:v1 {image}",
)

# chroot isolation and the vfs driver work on every machine. The image is small, so vfs is fast enough.
_BUILDAH = Engine(
    name="buildah",
    build="buildah build --tag acr-app3:v1 .",
    images="buildah images acr-app3:v1",
    run=(
        "buildah from --name acr-app3 acr-app3:v1 && "
        "{{ buildah run acr-app3 -- /bin/busybox httpd -p 127.0.0.1:{port} -h /www -f "
        ">/dev/null 2>&1 & echo $! >run.pid; }}"
    ),
    stop="kill $(cat run.pid); buildah rm acr-app3",
    login='buildah login --username "${who}_ID" --password-stdin {registry} <<<"${who}_SECRET"',
    push="buildah push acr-app3:v1 {image}",
    forget="buildah rmi acr-app3:v1",
)


def choose(environment: Mapping[str, str]) -> Engine:
    """Return docker's commands if its engine responds, otherwise buildah's."""
    try:
        result = subprocess.run(["docker", "info"], capture_output=True, env=environment, check=False, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return _BUILDAH
    return _DOCKER if result.returncode == 0 else _BUILDAH


def private_settings(folder: Path) -> dict[str, str]:
    """Return the environment that keeps images and credentials in `folder`, separate from the user's."""
    storage = f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/images"\n'
    write_private(folder / "storage.conf", storage.encode())
    write_private(folder / "auth.json", b"{}")  # buildah requires the file to exist
    return {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
        "DOCKER_CONFIG": str(folder / "docker"),
        "BUILDAH_ISOLATION": "chroot",
    }
