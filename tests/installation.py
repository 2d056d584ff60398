"""An installation of a test's own, on free ports, driven by the commands that a user types."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cloud import PEERS


def free_pod_cidr() -> str:
    """A range of addresses, /16, that this machine has no route to: other installations have theirs."""
    listed = subprocess.run(["ip", "-j", "route"], capture_output=True, text=True, check=True).stdout
    routed = [ipaddress.ip_network(route["dst"]) for route in json.loads(listed) if route["dst"] != "default"]
    free = [
        wanted
        for wanted in ipaddress.ip_network("10.128.0.0/9").subnets(new_prefix=16)
        if not any(wanted.overlaps(other) for other in routed)
    ]
    return str(random.choice(free))


def free_ranges() -> tuple[str, str, str]:
    """Ranges of pods, Services and EXTERNAL-IPs that this machine has no route to."""
    found = set[str]()
    while len(found) < 3:
        found.add(free_pod_cidr())
    pods, services, external = found
    return pods, services, external.replace("/16", "/24")


class Installation:
    """An installation in a data directory, with ranges of its own; `environment` is what its commands see."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.pod_cidr, self.service_cidr, self.external_cidr = free_ranges()
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
        """Start it, on free ports the first time, and take in what `cumulet env` says."""
        first = not (self.data_dir / "config.json").exists()
        output = self.run("cumulet", "up", "--detach", *(self.first_options() if first else ()), *options)
        for line in self.run("cumulet", "env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.strip("'")
        return output

    def first_options(self) -> tuple[str, ...]:
        """Of the first `cumulet up`, which keeps them."""
        ranges = (
            "--pod-cidr",
            self.pod_cidr,
            "--service-cidr",
            self.service_cidr,
            "--external-cidr",
            self.external_cidr,
        )
        return ("--port", "all=0", *ranges, "--allow-egress", PEERS)

    def down(self) -> str:
        """Stop it."""
        return self.run("cumulet", "down")

    def pids(self) -> dict[str, int]:
        """The process of each room that runs."""
        status = self.run("cumulet", "status", code=None).splitlines()
        rows = [line.split() for line in status[1:]]
        return {row[0]: int(row[1]) for row in rows if row[1].isdecimal()}
