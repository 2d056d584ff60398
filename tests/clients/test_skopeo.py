"""skopeo."""

from __future__ import annotations

import json
from pathlib import Path

from tests.clients.conftest import Run
from tests.clients.logins import Login, Registry

# Without the option, skopeo may substitute a blob that it remembers as equal.
_COPY = ("skopeo", "copy", "--preserve-digests")


def test_copies_there_and_back(registry: Registry, login: Login, layout: Path, run: Run, tmp_path: Path) -> None:
    image = f"docker://{registry.address}/skopeo/copied:v1"
    trust = registry.certificates
    run(*_COPY, "--dest-cert-dir", trust, "--dest-creds", login.colon, f"oci:{layout}:it", image)
    run(*_COPY, "--src-cert-dir", trust, "--src-creds", login.colon, image, f"oci:{tmp_path}/back:it")
    assert _blobs(tmp_path / "back") == _blobs(layout)


def test_logs_in_inspects_and_deletes(registry: Registry, layout: Path, run: Run) -> None:
    login = registry.login("admin user")
    repository = f"{registry.address}/skopeo/inspected"
    trust = ("--cert-dir", registry.certificates)
    run("skopeo", "login", *trust, "-u", login.user, "-p", login.password, registry.address)
    for tag in ("a", "b"):
        run(
            "skopeo",
            "copy",
            "--dest-cert-dir",
            registry.certificates,
            f"oci:{layout}:it",
            f"docker://{repository}:{tag}",
        )
    assert json.loads(run("skopeo", "list-tags", *trust, f"docker://{repository}"))["Tags"] == ["a", "b"]
    inspected = json.loads(run("skopeo", "inspect", *trust, f"docker://{repository}:a"))
    assert inspected["RepoTags"] == ["a", "b"]
    run("skopeo", "delete", *trust, f"docker://{repository}:a")


def test_pulls_anonymously(registry: Registry, anonymous: None, layout: Path, run: Run, tmp_path: Path) -> None:
    image = f"docker://{registry.address}/skopeo/open:v1"
    creds = ("--dest-creds", registry.login("admin user").colon)
    run(*_COPY, "--dest-cert-dir", registry.certificates, *creds, f"oci:{layout}:it", image)
    run(*_COPY, "--src-cert-dir", registry.certificates, "--src-no-creds", image, f"oci:{tmp_path}/back:it")
    assert _blobs(tmp_path / "back") == _blobs(layout)


def _blobs(layout: Path) -> set[str]:
    return {file.name for file in (layout / "blobs" / "sha256").iterdir()}
