"""One running installation for all cases of a worker; starting one for each module would take longer than the cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cases.path import LOGIN_SERVER, PULL_SECRET, ThePath
from tests.installation import Installation


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThePath]:
    """The path, up to the push of `bb:1` and its pull secret."""
    installation = Installation(tmp_path_factory.mktemp("cases") / "data")
    installation.up("--node-pool", "1")
    try:
        installation.cumulet("group", "create", "aks-rg2")
        installation.cumulet("registry", "create", "acrdemo2ss", "-g", "aks-rg2", "--admin-enabled")
        admin = installation.cumulet("registry", "credential", "acrdemo2ss")
        username, password = admin["username"], admin["passwords"][0]["value"]
        made = ThePath(installation, f"{username}:{password}")
        made.push_busybox("bb:1")
        made.kubectl(
            *("create", "secret", "docker-registry", PULL_SECRET, f"--docker-server={LOGIN_SERVER}"),
            *(f"--docker-username={username}", f"--docker-password={password}"),
        )
        yield made
    finally:
        installation.down()
