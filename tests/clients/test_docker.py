"""The Docker Engine, started separately from the machine's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Run
from tests.clients.logins import Login, Registry
from tests.instances.images import layer

pytestmark = pytest.mark.clients

_SECONDS = 60.0
_UNPACKED = Path(sys.prefix) / "docker" / "usr"


@pytest.fixture(scope="module")
def endpoint(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of an engine that trusts the CA for both names of the registry."""
    folder = tmp_path_factory.mktemp("docker")
    path = f"{_UNPACKED / 'sbin'}:{_UNPACKED / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
    socket = folder / "docker.sock"
    port = registry.address.rpartition(":")[2]
    trusted = [Path("/etc/docker/certs.d") / f"{host}:{port}" for host in ("127.0.0.1", "localhost")]
    made = [*trusted, *(parent for parent in (trusted[0].parent, trusted[0].parents[1]) if not parent.exists())]
    key = Path("/etc/docker/key.json")  # older engines create it
    has_key = key.exists()
    for where in trusted:
        where.mkdir(parents=True)
        (where / "ca.crt").write_bytes(registry.ca.read_bytes())
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(
            [
                shutil.which("dockerd", path=path) or "dockerd", "--host", f"unix://{socket}",
                "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid",
                "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
            ],
            env={"PATH": path}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait(f"unix://{socket}", engine, folder / "log")
        yield f"unix://{socket}"
    finally:
        engine.terminate()
        engine.wait()
        # The engine leaves the mount of the host's network namespace.
        subprocess.run(["umount", f"{folder}/exec/netns/default"], stderr=subprocess.DEVNULL, check=False)
        for where in trusted:
            (where / "ca.crt").unlink()
        if not has_key:
            key.unlink(missing_ok=True)
        for where in made:
            where.rmdir()


def _wait(endpoint: str, engine: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    command = [_client(), "--host", endpoint, "version"]
    while subprocess.run(command, capture_output=True, check=False).returncode != 0:
        assert engine.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() - began < _SECONDS, log.read_text()[-3000:]


def _client() -> str:
    return shutil.which("docker") or str(_UNPACKED / "bin" / "docker")


@pytest.fixture
def docker(endpoint: str, run: Run) -> Run:
    """docker with that engine and with credentials in the test's folder."""

    def docker(*command: str | Path) -> str:
        return run(_client(), "--host", endpoint, *command)

    return docker


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_logs_in_pushes_and_pulls(registry: Registry, login: Login, host: str, docker: Run, tmp_path: Path) -> None:
    address = f"{host}:{registry.address.rpartition(':')[2]}"
    image = f"{address}/docker/pushed:v1"
    assert "Login Succeeded" in docker("login", "-u", login.user, "-p", login.password, address)
    made = _import(docker, tmp_path, image)
    assert "digest: sha256:" in docker("push", image)
    docker("rmi", image)
    docker("pull", image)
    assert docker("images", "--quiet", "--no-trunc", image).strip() == made
    docker("rmi", "--force", made)
    docker("logout", address)


def test_pulls_anonymously(registry: Registry, anonymous: None, docker: Run, tmp_path: Path) -> None:
    login = registry.login("admin user")
    image = f"{registry.address}/docker/open:v1"
    docker("login", "-u", login.user, "-p", login.password, registry.address)
    made = _import(docker, tmp_path, image)
    docker("push", image)
    docker("rmi", "--force", made)
    docker("logout", registry.address)
    docker("pull", image)
    docker("rmi", "--force", made)


def _import(docker: Run, folder: Path, image: str) -> str:
    """Create an image with a unique file and return its id."""
    (folder / "root.tar").write_bytes(layer())
    return docker("import", "--message", str(folder), folder / "root.tar", image).strip()
