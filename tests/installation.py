"""An installation of a test's own, on free ports, driven by the commands that a user types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Installation:
    """An installation in a data directory; `environment` is what its commands see."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.environment: dict[str, str] = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CUMULET_DATA_DIR": str(data_dir),
            "COLUMNS": "200",
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

    def cumulet(self, *arguments: str) -> Any:
        """A `cumulet` command that prints JSON, or nothing."""
        output = self.run("cumulet", *arguments)
        return json.loads(output) if output else None

    def kubectl(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> str:
        """A `kubectl` command."""
        return self.run("kubectl", *arguments, code=code, stdin=stdin)

    def up(self, *options: str) -> str:
        """Start it and take in what `cumulet env` says."""
        output = self.run("cumulet", "up", "--detach", *options)
        for line in self.run("cumulet", "env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.strip("'")
        return output

    def down(self) -> str:
        """Stop it."""
        return self.run("cumulet", "down")

    def pids(self) -> dict[str, int]:
        """The process of each room that runs."""
        status = self.run("cumulet", "status", code=None).splitlines()
        rows = [line.split() for line in status[1:]]
        return {row[0]: int(row[1]) for row in rows if row[1].isdecimal()}
