"""What `up` says about the machine's network, in a namespace that stands for the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.common.namespaces import inside
from cumulet.up.reach import warnings


@pytest.fixture
def machine() -> Iterator[str]:
    name = f"cumulet-machine-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in ("link add lan0 type bridge", "addr add 10.9.0.1/16 dev lan0", "link set lan0 up"):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_nothing_is_said_where_everything_works(config: Config, machine: str) -> None:
    assert inside(machine, lambda: warnings(config)) == []


def test_a_range_that_the_machine_routes_elsewhere_is_named(config: Config, machine: str) -> None:
    taken = msgspec.structs.replace(config, service_cidr="10.9.4.0/24", external_cidr="10.9.5.0/24")
    found = inside(machine, lambda: warnings(taken))
    assert [word in problem.what for word, problem in zip(("10.9.4.0/24", "10.9.5.0/24"), found, strict=True)] == [
        True
    ] * 2
    assert ["--service-cidr" in found[0].fix, "--external-cidr" in found[1].fix] == [True] * 2


def test_a_firewall_that_drops_is_named_and_the_fix_works(config: Config, machine: str) -> None:
    chain = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"
    in_machine = ["ip", "netns", "exec", machine]
    subprocess.run([*in_machine, "nft", chain], check=True)
    (found,) = inside(machine, lambda: warnings(config))
    assert "ip filter FORWARD is drop" in found.what
    for command in found.fix.split("; "):
        subprocess.run([*in_machine, *command.removeprefix("sudo ").split()], check=True)
    listed = subprocess.run(
        [*in_machine, "nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout
    assert listed.count(router.link_name(config)) == 2
