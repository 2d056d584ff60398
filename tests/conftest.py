"""What several suites share: an installation of the test's own, on free ports, stopped at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.up.install import install


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The settings, certificates and principals of a new installation, with nothing running."""
    return install(tmp_path / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0))


class Installation:
    """A running installation, driven by the commands that a user types."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.environment: dict[str, str] = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CUMULET_DATA_DIR": str(data_dir),
        }

    def run(
        self,
        *command: str,
        code: int | None = 0,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command and return what it printed; its exit code must be `code`, unless that is `None`."""
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        assert code is None or done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def up(self, *options: str) -> str:
        """Start it on free ports and take in what `cumulet env` says."""
        output = self.run("cumulet", "up", "--detach", *options)
        for line in self.run("cumulet", "env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.strip("'")
        return output

    def down(self) -> str:
        """Stop it."""
        return self.run("cumulet", "down")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running installation that a module's tests share."""
    made = Installation(tmp_path_factory.mktemp("installation") / "data")
    made.up("--port", "all=0", "--pod-cidr", "10.242.0.0/16", "--external-cidr", "127.11.0.0/24")
    try:
        yield made
    finally:
        made.down()
