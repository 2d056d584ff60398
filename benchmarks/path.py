"""Measures the path against its bounds, and against a Docker Engine if one is installed: `make bench-path`.

It prints medians. Each round pulls an image with new layers.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import ipaddress
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import bursts
from cumulet.demo.engine import private_settings
from cumulet.up.lifecycle import resident_bytes
from tests.installation import Installation

_EXAMPLE = Path(__file__).parents[1] / "examples" / "app3"
_PEER_PORT = 18080
_LIMIT = 60.0

#: Bounds: seconds from nothing to ready, megabytes of all idle rooms, seconds from apply to a page.
_UP, _MEMORY, _APPLY = 3.0, 240.0, 1.5
#: Bounds: seconds until ten and a hundred pods of a cached image run, and how much longer ten pods of an absent image take.
_TEN, _HUNDRED, _TOGETHER = 1.0, 5.0, 3.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as name:
        folder = Path(name)
        up = statistics.median(_measure_up(folder / f"up-{number}") for number in range(rounds))
        _print("from nothing to all rooms ready", up, _UP, "s")
        installation = Installation(folder / "data")
        try:
            installation.up()
            memory = sum(resident_bytes(pid) or 0 for pid in installation.pids().values()) / 1e6
            _print("resident memory of all idle rooms", memory, _MEMORY, "MB")
            _measure_path(installation, folder, rounds)
        finally:
            installation.down()


def _measure_up(data_dir: Path) -> float:
    installation = Installation(data_dir)
    began = time.monotonic()
    installation.run("cumulet", "up", "--detach", *installation.first_options())
    took = time.monotonic() - began
    installation.down()
    return took


def _measure_path(installation: Installation, folder: Path, rounds: int) -> None:
    installation.environment |= private_settings(folder / "engine")
    installation.cumulet("group", "create", "aks-rg2")
    installation.cumulet("registry", "create", "acrdemo2ss", "-g", "aks-rg2")
    installation.cumulet("registry", "update", "acrdemo2ss", "--admin-enabled")
    admin = installation.cumulet("registry", "credential", "acrdemo2ss")
    user, password = admin["username"], admin["passwords"][0]["value"]
    server = "--docker-server=acrdemo2ss.azurecr.io"
    secret = (server, f"--docker-username={user}", f"--docker-password={password}")
    installation.kubectl("create", "secret", "docker-registry", "acrdemo2ss-secret", *secret)
    registry = installation.environment["CUMULET_REGISTRY"]
    ours: list[float] = []
    theirs: list[float] = []
    with _docker(installation, folder / "docker") as docker:
        if docker:
            installation.run(*docker, "login", "--username", user, "--password", password, registry)
        for number in range(rounds):
            image = f"{registry}/app3/acr-app3:r{number}"
            _push(installation, folder / f"context-{number}", f"{user}:{password}", image, 64)
            ours.append(_apply(installation, folder, f"r{number}"))
            if docker:
                theirs.append(_docker_run(installation, docker, image))
    mine = statistics.median(ours)
    _print("from kubectl apply to the first 200, image absent", mine, _APPLY, "s")
    if theirs:
        peer = statistics.median(theirs)
        print(f"  from docker run to the first 200, image absent: {peer:.2f} s; ratio {mine / peer:.2f}")
    else:
        print("  no Docker Engine to compare with; install docker.io")

    def push(tag: str, size: int) -> str:
        image = f"{registry}/app3/acr-app3:{tag}"
        _push(installation, folder / f"context-{tag}", f"{user}:{password}", image, size)
        return f"acrdemo2ss.azurecr.io/app3/acr-app3:{tag}"

    image = "acrdemo2ss.azurecr.io/app3/acr-app3:r0"
    for count, bound in ((bursts.TEN, _TEN), (bursts.HUNDRED, _HUNDRED)):
        took = statistics.median(bursts.cached(installation, image, count) for _ in range(3))
        _print(f"{count} pods running, image cached", took, bound, "s")
    one, ten = bursts.absent(installation, push)
    _print(f"ten pods to one pod, image of 40 MB absent ({ten:.2f} s to {one:.2f} s)", ten / one, _TOGETHER, "x")


def _push(installation: Installation, context: Path, credentials: str, image: str, size: int) -> None:
    """Push an image with a unique binary. A program ignores bytes after its own, here `size` of them."""
    shutil.copytree(_EXAMPLE / "docker-manifests", context)
    program = Path(shutil.which("busybox") or "").read_bytes() + os.urandom(size)
    (context / "busybox").write_bytes(program)
    (context / "busybox").chmod(0o755)
    installation.run("buildah", "build", "--quiet", "--no-cache", "--tag", image, str(context))
    installation.run("buildah", "push", "--quiet", "--creds", credentials, image, f"docker://{image}")


def _apply(installation: Installation, folder: Path, tag: str) -> float:
    """Return the seconds from `kubectl apply` of the example to its page. Deletes it again."""
    manifests = folder / f"manifests-{tag}"
    shutil.copytree(_EXAMPLE / "kube-manifests", manifests)
    for file in manifests.iterdir():
        file.write_text(file.read_text().replace("acr-app3:v1", f"acr-app3:{tag}"))
    began = time.monotonic()
    installation.kubectl("apply", "-f", str(manifests))
    _first_page(str(ipaddress.ip_network(installation.external_cidr)[1]), 80, began)
    took = time.monotonic() - began
    installation.kubectl("delete", "-f", str(manifests))
    installation.kubectl("delete", "pods", "-l", "app=acrdemo2ss", "--grace-period=1", "--ignore-not-found")
    return took


def _docker_run(installation: Installation, docker: tuple[str, ...], image: str) -> float:
    began = time.monotonic()
    container = installation.run(
        *docker, "run", "--quiet", "--detach", "--network", "host", image, "-p", f"127.0.0.1:{_PEER_PORT}"
    ).strip()
    _first_page("127.0.0.1", _PEER_PORT, began)
    took = time.monotonic() - began
    installation.run(*docker, "rm", "--force", container)
    return took


def _first_page(host: str, port: int, began: float) -> None:
    while time.monotonic() - began < _LIMIT:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.005)
        finally:
            connection.close()
    sys.exit(f"no page from {host}:{port} in {_LIMIT:.0f} s")


@contextlib.contextmanager
def _docker(installation: Installation, folder: Path) -> Iterator[tuple[str, ...]]:
    """Start a separate Docker Engine and yield its command line; empty if none is installed."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        yield ()
        return
    folder.mkdir()
    endpoint = f"unix://{folder}/docker.sock"
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(
            [
                "dockerd", "--host", endpoint, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec",
                "--pidfile", f"{folder}/pid", "--iptables=false", "--ip6tables=false", "--bridge=none",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    command = ("docker", "--host", endpoint)
    try:
        began = time.monotonic()
        while "Server" not in installation.run(
            *command, "version", "--format", "Server{{.Server.Version}}", code=None
        ):
            if engine.poll() is not None or time.monotonic() - began > _LIMIT:
                sys.exit(f"dockerd did not start: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield command
    finally:
        engine.terminate()
        engine.wait()
        # The engine leaves the mount of the host's network namespace.
        subprocess.run(["umount", f"{folder}/exec/netns/default"], stderr=subprocess.DEVNULL, check=False)


def _print(name: str, value: float, bound: float, unit: str) -> None:
    print(f"{name}: {value:.2f} {unit}; bound {bound:g} {unit}, ratio {value / bound:.2f}", flush=True)


if __name__ == "__main__":
    main()
