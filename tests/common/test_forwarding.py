"""The machine's forwarding, tried in a namespace that stands for the machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common import forwarding
from cumulet.common.namespaces import inside
from cumulet.common.nftables import Nftables

_SETTING = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace with two links, which does not forward."""
    name = f"cumulet-machine-{os.getpid()}"
    monkeypatch.setattr(forwarding, "RECORD", tmp_path / "run" / "forwarding.json")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "add", "lan0", "type", "bridge"], check=True)
        subprocess.run(["ip", "-n", name, "link", "add", "cu0000", "type", "bridge"], check=True)
        inside(name, lambda: _SETTING.write_text("0"))
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def kept_apart(machine: str) -> list[str] | None:
    """The links that do not forward to each other, `None` without a table."""
    with Nftables(machine) as rules:
        sets = [item["set"] for item in rules.listing_now("sets") if "set" in item]
    return [name for item in sets for name in item.get("elem", [])] if sets else None


def test_it_is_put_back_when_the_last_installation_ends(machine: str) -> None:
    inside(machine, lambda: forwarding.enable("cu"))
    assert inside(machine, _SETTING.read_text) == "1\n"
    assert kept_apart(machine) == ["lan0"]
    # Another one begins: what was is still known.
    inside(machine, lambda: forwarding.enable("cu"))
    assert kept_apart(machine) == ["lan0"]
    assert inside(machine, lambda: forwarding.restore("cu")) is None
    subprocess.run(["ip", "-n", machine, "link", "delete", "cu0000"], check=True)
    assert inside(machine, lambda: forwarding.restore("cu")) == "setting net.ipv4.ip_forward"
    assert inside(machine, _SETTING.read_text) == "0\n"
    assert kept_apart(machine) is None
    assert inside(machine, lambda: forwarding.restore("cu")) is None


def test_a_machine_that_forwards_is_left_alone(machine: str) -> None:
    inside(machine, lambda: _SETTING.write_text("1"))
    inside(machine, lambda: forwarding.enable("cu"))
    assert kept_apart(machine) is None
    subprocess.run(["ip", "-n", machine, "link", "delete", "cu0000"], check=True)
    assert inside(machine, lambda: forwarding.restore("cu")) is None
    assert inside(machine, _SETTING.read_text) == "1\n"


def test_a_table_that_was_flushed_is_loaded_again(machine: str) -> None:
    inside(machine, lambda: forwarding.enable("cu"))
    with Nftables(machine) as rules:
        rules.run_now("flush ruleset")
    inside(machine, forwarding.load)
    assert kept_apart(machine) == ["lan0"]


def test_every_name_of_a_link_is_safe_in_a_rule() -> None:
    script = forwarding.rules(["eth0", 'a"}; flush ruleset', "cu*", "a\\b", "br-1.2"])
    assert 'elements = { "eth0", "br-1.2" };' in script
    assert "flush" not in script
