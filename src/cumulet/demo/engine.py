"""Building, trying out and pushing an image: with docker where an engine answers, else with buildah."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cumulet.common.config import write_private


class Engine(NamedTuple):
    """The commands of an image engine, with places for the registry and the names of the shell's variables."""

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

# chroot isolation and the vfs driver ask nothing of the machine, and the image is small.
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
    """Docker where its engine answers, else buildah."""
    try:
        answers = subprocess.run(["docker", "info"], capture_output=True, env=environment, check=False, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return _BUILDAH
    return _DOCKER if answers.returncode == 0 else _BUILDAH


def private_settings(folder: Path) -> dict[str, str]:
    """The environment that keeps the engines' images and log-ins in `folder` and away from the user's own."""
    storage = f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/images"\n'
    write_private(folder / "storage.conf", storage.encode())
    write_private(folder / "auth.json", b"{}")  # buildah wants the file that it is told of to be there
    return {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
        "DOCKER_CONFIG": str(folder / "docker"),
        "BUILDAH_ISOLATION": "chroot",
    }
